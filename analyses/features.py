"""Features of a site, by sparse autoencoders: few of many directions tell what is there.

A dictionary is trained on the tokens of texts as the subject reads them, or is one that others
released (Bricken et al. 2023; Cunningham et al. 2023; Lieberum et al. 2024). Its features stand in
a volume that other analyses read as a site of their own, by the name that this has in the protocol.
Each twin gets a dictionary of its own, trained alike on what it makes of the same texts: features
that are found in a network that has learned nothing are features of the words.

What they are worth: how much of the variance they leave, how many are active and alive, what it
costs the model to read on from what they rebuild instead of from what was there, and how many of
them are found again by a dictionary that was trained on other texts, of which few may be (Paulo &
Belrose 2025).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from analyses.acting import Acting, check_begun
from analyses.base import AnalysisError, register, vectors
from analyses.connectome import directions_at_random
from scanner import Edit, Live, Site, Subject, Trial, sweep
from scanner.dictionaries import (
    ARCHITECTURES,
    STEP,
    Dictionary,
    Training,
    check_hook,
    check_rebuilt,
    released,
    train,
)
from scanner.sites import Kind
from scanner.token_activations import each_once, token_activations
from stimuli import load, shipped

# Stimuli on which the model reads on from what was rebuilt.
READ_ON = 64
# The cosine from which on two features are the same.
SAME = 0.7
# Surprisal in nats, below which there is nothing to be kept.
LOST = 0.05


@register
@dataclass(frozen=True)
class Features(Acting):
    """Tell a site as features.

    Attributes
    ----------
    site : str
        Kind of site to read.
    layers : list of int
        One dictionary each.
    architecture : {'topk', 'jumprelu'}
        Of those that are trained.
    width : int
        Features of those that are trained.
    active : int
        Of them at a token.
    tokens : int
        Read in training.
    text : str, optional
        A shipped set of stimuli whose texts are read in training; those of the study by default.
    release, name : str, optional
        Of a dictionary that others released, as sae-lens lists them; then none is trained, and
        `layers` is its one layer.
    """

    site: Kind
    layers: tuple[int, ...] = ()
    architecture: Literal["topk", "jumprelu"] = "topk"
    width: int = 1024
    active: int = 16
    tokens: int = 200_000
    text: str | None = None
    release: str | None = None
    name: str | None = None

    makes: ClassVar[tuple[str, ...]] = ("stimulus", "layer", "feature")

    def __post_init__(self) -> None:
        if find_spec("sae_lens") is None:
            raise ValueError("needs sae-lens; install it with: pip install 'lmfmri[sae]'")
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers: {list(self.layers)}; name each once, such as [10, 20]")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture: no '{self.architecture}'; there is {', '.join(ARCHITECTURES)}"
            )
        if not 0 < self.active < self.width:
            raise ValueError(f"active: {self.active} of {self.width} features; some, but not all")
        if self.text is not None and self.text not in shipped():
            raise ValueError(f"text: no set '{self.text}'; there is {', '.join(shipped())}")
        if (self.release is None) != (self.name is None):
            raise ValueError("a released dictionary needs both `release` and `name`")
        if self.release is not None and len(self.layers) != 1:
            raise ValueError("a released dictionary reads one layer; name it in `layers`")

    def beyond(self, layers: int) -> str:
        late = [layer for layer in self.layers if layer >= layers]
        return f"{late[0]} is none of the model's {layers} layers" if late else ""

    def runs(self, live: Live, subject: Subject) -> Sequence[int]:
        check_begun("features", live)
        self._texts(live)
        return list(self.layers)

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        site, seed = Site(self.site, run), int(rng.integers(2**31))
        if self.release is not None and self.name is not None:
            dictionary, hook = released(self.release, self.name)
            check_hook(dictionary, hook, site)
            read, again = 0, {}
        else:
            dictionary, read, again = self._trained(live, site, seed)
        (units,) = vectors(replace(subject, volume=subject.volume.sel(layer=[run])), self.site)
        features, rebuilt = dictionary.encode(units), dictionary.rebuilt(units)
        if self.release is not None and live.trained:
            check_rebuilt(units, rebuilt)
        read_on, tried = self._read_on(live, site, dictionary)
        return xr.Dataset(
            {
                "features": (("stimulus", "layer", "feature"), features[:, None]),
                "units": (("stimulus", "layer", "unit"), units[:, None].astype(np.float32)),
                "rebuilt": (("stimulus", "layer", "unit"), rebuilt[:, None]),
            },
            coords={
                "stimulus": np.arange(len(units)),
                "layer": [run],
                "directions": (("layer", "feature", "unit"), dictionary.directions[None]),
                **{name: (("layer", "tried"), one[None]) for name, one in read_on.items()},
                **{name: (("layer", "feature"), one[None]) for name, one in again.items()},
                "tried_stimulus": ("tried", tried),
                "tokens_read": ("layer", [read]),
            },
        )

    def _texts(self, live: Live) -> Live:
        """The subject with the texts on which dictionaries are trained."""
        if self.text is None:
            return live
        return Live(live.model, replace(live.recording, stimuli=load(self.text)))

    def _trained(
        self, live: Live, site: Site, seed: int
    ) -> tuple[Dictionary, int, dict[str, np.ndarray]]:
        """A dictionary, how many different tokens it has read, and what halves of them give."""
        ids = self._texts(live).ids
        tokens = token_activations(live.model, ids, [site])[site]
        found = each_once(ids, tokens)
        training = Training(self.architecture, self.width, self.active, self.tokens, seed)
        again = self._again(ids, tokens, training) if live.trained else {}
        return train(found, training), len(found), again

    def _again(
        self, ids: list[list[int]], tokens: list[np.ndarray], training: Training
    ) -> dict[str, np.ndarray]:
        """How near features of a half of the texts come to those of the other half, by cosine.

        Each stands for one; beside it the same with one half turned round at random. Nothing where
        a half is too short to train on.
        """
        rng = np.random.default_rng(training.seed)
        order, found = rng.permutation(len(ids)), []
        for number, half in enumerate((order[::2], order[1::2]), 1):
            read = each_once([ids[one] for one in half], [tokens[one] for one in half])
            if len(read) < STEP:
                return {}
            own = replace(training, tokens=training.tokens // 2, seed=training.seed + number)
            found.append(train(read, own).directions)
        turn = directions_at_random(found[0].shape[1], found[0].shape[1], rng)
        return {
            "cosine": _nearest(found[0], found[1]),
            "cosine_turned": _nearest(found[0], found[1] @ turn),
        }

    def _read_on(
        self, live: Live, site: Site, dictionary: Dictionary
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Surprisal of texts as they are, as the dictionary rebuilds them, and without the site.

        Without it is with the mean of all tokens in its place.
        """
        count = len(live.ids)
        tried = np.linspace(0, count - 1, min(count, READ_ON)).round().astype(int)
        texts = [live.ids[one] for one in tried]
        tokens = token_activations(live.model, texts, [site])[site]
        mean = np.concatenate(tokens).mean(0)
        at = [] if site.layer is None else [site.layer]

        def put(text: int, values: np.ndarray) -> Trial:
            # The first token is left as it is, as dictionaries do not read it.
            value = np.concatenate([mean[None], values]).reshape(1, len(texts[text]), -1)
            edit = Edit(site.kind, "replace", layers=at, value=value, start=1, must_move=False)
            return Trial(text, (edit,))

        trials = [put(text, dictionary.rebuilt(own)) for text, own in enumerate(tokens)]
        trials += [put(text, np.broadcast_to(mean, own.shape)) for text, own in enumerate(tokens)]
        made = np.empty((2, len(trials)))
        for found in sweep(live.model, texts, trials, surprisal=True):
            made[0, found.trials] = found.surprisal
            made[1, found.trials] = found.intact_surprisal
        rebuilt, without = made[0].reshape(2, -1)
        return {
            "surprisal": made[1, : len(texts)],
            "surprisal_rebuilt": rebuilt,
            "surprisal_without": without,
        }, tried

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say what the features are worth.

        Returns
        -------
        xarray.Dataset
            By layer: ``explained``, the share of the variance of the site, over stimuli, that the
            dictionary rebuilds; ``active``, features at a stimulus, on average; ``alive``, the
            share of features that any stimulus has; ``recovered``, how much of the surprisal that
            the model loses when the mean stands in the place of the site it keeps when what was
            rebuilt stands there, NaN where it loses none; ``read_each``, for each feature, how many
            different tokens it was trained on, 0 for a dictionary that was released. Of those that
            were trained here on a network that was trained: ``found_again``, the share of features
            of a half of the texts that the other half shows as well, to a cosine of 0.7; and
            ``found_again_turned``, the same after one has been turned round at random.

        Raises
        ------
        AnalysisError
            If nothing was told as features.
        """
        (subject,) = subjects
        volume = subject.volume
        name = next((str(one) for one in volume if "feature" in volume[one].dims), None)
        if name is None:
            raise AnalysisError(f"{subject.name}: its volume has no features")
        units = volume["units"].transpose("layer", "stimulus", "unit").to_numpy().astype(float)
        rebuilt = volume["rebuilt"].transpose("layer", "stimulus", "unit").to_numpy()
        left = np.square(units - rebuilt).sum((1, 2))
        spread = np.square(units - units.mean(1, keepdims=True)).sum((1, 2))
        fired = volume[name].transpose("layer", "stimulus", "feature").to_numpy() != 0
        intact, kept, lost = (
            volume[one].transpose("layer", "tried").to_numpy().mean(1)
            for one in ("surprisal", "surprisal_rebuilt", "surprisal_without")
        )
        worth = np.where(lost - intact > LOST, lost - intact, np.nan)
        again = {
            f"found_again{kind}": (
                "layer",
                (volume[f"cosine{kind}"].transpose("layer", "feature") >= SAME).to_numpy().mean(1),
            )
            for kind in ("", "_turned")
            if f"cosine{kind}" in volume.coords
        }
        return xr.Dataset(
            {
                "explained": ("layer", 1 - left / np.where(spread > 0, spread, np.nan)),
                "active": ("layer", fired.sum(2).mean(1)),
                "alive": ("layer", fired.any(1).mean(1)),
                "recovered": ("layer", (lost - kept) / worth),
                "read_each": ("layer", volume["tokens_read"].to_numpy() / fired.shape[2]),
                **again,
            },
            coords={"layer": volume["layer"].to_numpy()},
        )


def _nearest(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The cosine of each direction with the one that stands for it, so that they are greatest."""
    cosines = one @ other.T
    row, column = linear_sum_assignment(cosines, maximize=True)
    return cosines[row, column]
