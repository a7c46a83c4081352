"""Which activations carry the difference between two texts that ask for different words.

Activation patching (Vig et al. 2020; Meng et al. 2022; Zhang & Nanda 2024). Each stimulus is half
of a pair: in the other text the column ``corrupt`` stands in the place of the target, and another
word is right after it. Activations of one text are set into the other, site by site; how much of
the way from one answer to the other that goes is the slope, over pairs, of what it moves on what
there is to move (`scanner.patching.share_of_way`).

Beside it, activations are set in that are as far from what was there but carry no answer: those of
other texts with the answer of the text that is patched, and what is there moved as far by the
difference of two such texts. And each patch is estimated from the gradient (attribution patching,
Nanda 2023), with how far such estimates may be believed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from analyses.acting import Acting, kinds, own, values_of
from analyses.base import Quantity, labels, register
from analyses.pairs import Place, check_apart, of_another, pairs_of, position
from analyses.words import averages
from scanner import (
    Edit,
    Live,
    Pair,
    Site,
    Subject,
    Trial,
    attributed,
    patched,
    share_of_way,
    sweep,
)  # fmt: skip
from scanner.sites import Kind

# Pairs of a run.
STIMULI = 8
# Logits that the texts of an item must be apart, for its own share to be told.
DECIDED = 1.0


@register
@dataclass(frozen=True)
class Patching(Acting):
    """Set activations of one text of a pair into the other.

    Attributes
    ----------
    sites : tuple of str
        Kinds of site that are patched, in every layer; the first is measured.
    places : tuple of str
        Tokens that are patched, one at a time: the last one of the ``target``, the ``next`` one, or
        the ``last`` of the text. The first is measured.
    into : {'corrupt', 'clean'}
        Which text is patched: clean activations in the corrupt text show what suffices for the
        answer (denoising), corrupt ones in the clean text what it needs (noising).
    random : int
        Targets at random of each kind.
    """

    sites: tuple[Kind, ...] = ("resid_post", "attn_out_post", "mlp_out_post")
    places: tuple[Place, ...] = ("target", "last")
    into: Literal["corrupt", "clean"] = "corrupt"
    random: int = 6

    measures: ClassVar[Mapping[str, Quantity]] = {
        "share": Quantity(
            "how much of the way from one answer to the other a patch goes: 0 for none of it, 1 "
            "for all",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        for name in ("sites", "places"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ValueError(f"{name}: at least one, each once")
        if self.random < 0:
            raise ValueError(f"random of {self.random}; it must be at least 0")

    def identity_at(self, measure: str, layer: int, layers: int) -> str:
        first = self.sites[0], self.places[0], layer
        if first == ("resid_pre", "target", 0):
            return "the texts of a pair differ there alone, so that all of the way is gone"
        if first == ("resid_post", "last", layers - 1):
            return "the prediction is read from there alone, so that all of the way is gone"
        if first == ("resid_post", "target", layers - 1):
            return "nothing reads the stream of an earlier token there, so that no way is gone"
        return ""

    def runs(self, live: Live, subject: Subject) -> list[tuple[str, range]]:
        """Stimuli for the map of all sites, and targets of what is measured."""
        count, random = len(live.ids), 2 * self.random if live.trained else 0
        pairs_of(live)  # what is wrong with them is said before anything is done
        return [
            *(("map", range(one, min(one + STIMULI, count))) for one in range(0, count, STIMULI)),
            *(("targets", range(one, one + 1)) for one in range(2 + random)),
        ]

    def act(
        self, live: Live, subject: Subject, run: tuple[str, range], *, rng: np.random.Generator
    ) -> xr.Dataset:
        what, some = run
        return self._map(live, some) if what == "map" else self._target(live, some[0], rng)

    def _map(self, live: Live, some: range) -> xr.Dataset:
        """Every site and place of some pairs."""
        pairs = pairs_of(live)
        asked = [
            Pair(
                pairs.clean.ids[one], pairs.corrupt.ids[one], pairs.answers[one],
                [position(pairs.clean, one, place) for place in self.places],
            )
            for one in some
        ]  # fmt: skip
        found, estimated = (
            way(live.model, asked, self.sites, into=self.into) for way in (patched, attributed)
        )
        dims = ("stimulus", "kind", "layer", "place")
        return xr.Dataset(
            {
                "every": (dims, found.difference.astype(np.float32)),
                "estimated": (dims, estimated.difference.astype(np.float32)),
                "base": ("stimulus", found.base),
                "donor": ("stimulus", found.donor),
            },
            coords={
                "stimulus": np.array(some),
                "kind": list(self.sites),
                "layer": np.arange(live.model.layers),
                "place": list(self.places),
            },
        )

    def _target(self, live: Live, target: int, rng: np.random.Generator) -> xr.Dataset:
        """One target of what is measured, in all pairs and layers."""
        pairs, kind = pairs_of(live), self.sites[0]
        taker, giver = pairs.clean, pairs.corrupt
        if self.into == "corrupt":
            taker, giver = giver, taker
        at = [position(taker, one, self.places[0]) for one in range(len(taker.ids))]
        there, given = _heard(live, taker.ids, at, kind), _heard(live, giver.ids, at, kind)
        named = "own" if target == 0 else "known" if target == 1 else (
            "other" if target % 2 else "matched"
        )  # fmt: skip
        draws = np.random.default_rng([int(rng.integers(2**32)), target])
        values = given
        if named == "other":
            values = there[of_another(draws, pairs.answers)]
        elif named == "matched":
            apart = (
                there[of_another(draws, pairs.answers)] - there[of_another(draws, pairs.answers)]
            )
            size = np.linalg.norm(given - there, axis=-1, keepdims=True)
            length = np.linalg.norm(apart, axis=-1, keepdims=True)
            values = there + apart * np.divide(
                size, length, out=np.zeros_like(size), where=length > 0
            )
        trials = []
        for text, layer in np.ndindex(len(at), live.model.layers):
            if named == "known":
                continue
            edit = Edit(
                kind, "replace", layers=[layer], positions=[at[text]], value=values[text, layer],
                must_move=False,
            )  # fmt: skip
            trials.append(Trial(text, (edit,)))
        # All of the other text, whatever the layer: its own answer.
        read = giver if named == "known" else taker
        trials = trials or [Trial(text, ()) for text in range(len(at))]
        difference = np.empty(len(trials))
        for found in sweep(live.model, read.ids, trials, answers=pairs.answers):
            difference[found.trials] = found.logits[:, 0] - found.logits[:, 1]
        shape = len(at), live.model.layers
        made = np.broadcast_to(difference.reshape(len(at), -1), shape)
        return xr.Dataset(
            {"patched": (("stimulus", "layer", "target"), made[..., None].astype(np.float32))},
            coords={
                "stimulus": np.arange(len(at)),
                "layer": np.arange(live.model.layers),
                "target": [target],
                "target_kind": ("target", [named]),
            },
        )

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say how far patches go.

        Returns
        -------
        xarray.Dataset
            ``share`` (layer): of the first site at the first place; ``share_of`` (layer, arm): of
            every site and place, and of random targets on average; ``share_of_item``
            (layer, item): that of each item alone, NaN where its texts are less than a logit apart;
            ``attributed`` (layer, patch): the shares by attribution patching; ``told`` (scalar):
            the share of pairs in both of whose texts the right answer is the likelier; ``decided``
            (scalar): how far apart the two texts of a pair are, in logits, on average;
            ``attribution_agreement`` (scalar): Spearman's correlation of what each patch changes
            with its estimate, over pairs, sites, layers and places.

        Raises
        ------
        AnalysisError
            If the texts of pairs do not differ in their answers.
        """
        (subject,) = subjects
        volume = subject.volume
        base, donor = volume["base"].to_numpy(), volume["donor"].to_numpy()
        check_apart(subject, base, donor)

        def share(values: np.ndarray) -> np.ndarray:
            """Of what was patched, layer x stimulus."""
            return share_of_way(values - base, donor - base)

        mine = own(subject)
        patched = values_of(volume, "patched", "target", "layer", "stimulus")
        result = xr.Dataset(
            {"share": ("layer", share(patched[mine]), {"chance": 0.0})},
            coords={"layer": volume["layer"].to_numpy()},
        )
        if volume.sizes["target"] == 1:
            return result
        every, estimated = (
            values_of(volume, name, "kind", "place", "layer", "stimulus").astype(float)
            for name in ("every", "estimated")
        )
        patches = {
            f"{kind}, {place}": (row, column)
            for row, kind in enumerate(self.sites)
            for column, place in enumerate(self.places)
        }
        arms = {name: share(every[at]) for name, at in patches.items()}
        given = kinds(volume)
        for kind in ("other", "matched"):
            some = np.flatnonzero(given == kind)
            if len(some):
                arms[f"random: {kind}"] = share(patched[some].mean(0))
        sign = 1 if self.into == "clean" else -1
        items, of_items = _of_items(labels(subject, "item"), patched[mine] - base, donor - base)
        return result.assign(
            share_of=(("layer", "arm"), np.stack(list(arms.values()), 1)),
            share_of_item=(("layer", "item"), of_items),
            attributed=(
                ("layer", "patch"),
                np.stack([share(estimated[at]) for at in patches.values()], 1),
            ),
            attribution_agreement=spearmanr((every - base).ravel(), (estimated - base).ravel())[0],
            told=float(np.mean((sign * base > 0) & (sign * donor < 0))),
            decided=float(np.mean(sign * (base - donor))),
        ).assign_coords(arm=list(arms), patch=list(patches), item=items)


def _of_items(
    names: np.ndarray, moved: np.ndarray, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Items, and the share of each: layer x item."""
    items, which = np.unique(names, return_inverse=True)
    mean = averages(which)
    apart = mean @ whole
    apart = np.where(np.abs(apart) < DECIDED, np.nan, apart)
    return items, moved @ mean.T / apart


def _heard(live: Live, ids: list[list[int]], at: list[int], kind: Kind) -> np.ndarray:
    """Activations at one place of each text, stimulus x layer x unit."""
    sites = [Site(kind, layer) for layer in range(live.model.layers)]
    trials = [Trial(text, ()) for text in range(len(ids))]
    made: np.ndarray | None = None
    for found in sweep(live.model, ids, trials, reads=sites, places=at, predictions=False):
        values = np.stack([found.activations[site] for site in sites], axis=1)
        if made is None:
            made = np.empty((len(ids), *values.shape[1:]))
        made[found.trials] = values
    assert made is not None
    return made
