"""Which neurons a tuning opens and closes, token by token, beside noise of the same size.

A base model and a variant of it read the same tokens. Published of such pairs is the share of
active neurons of each layer, and Levenshtein's distance of their patterns of open gates, which is
small (Tanwar et al. 2025). What it is small beside is missing there. Patterns that have nothing to
do with each other, three neurons in ten open, have a Levenshtein distance of 0.25 and differ in
0.42 of their gates; and Levenshtein lets a pattern be moved along, although the order of neurons
means nothing: one that is the other moved by a place has 0.0005, and differs in 0.43. So the share
of gates that differ (Hamming) comes first here, over all tokens, and beside it that share over what
independent patterns would have; Levenshtein is told of a sample of tokens.

What a tuning did is held against what as much noise does, tensor by tensor: of Gaussian numbers,
and of the tuning's own in other places. In untrained twins the tuning is added to weights that it
was not made for. Neurons are matched by where they lie, so that all this is of models that were
tuned from the same one. The first token of a text is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import Acting, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.words import averages
from scanner import (
    Live,
    Model,
    Subject,
    Tally,
    agreement_by_neuron,
    check_same_shape,
    edit_distance,
    gates_of_both,
    jolted,
    relative_change,
    transplanted,
)  # fmt: skip

# Resamples of the items, of which intervals are told.
RESAMPLES = 500
# What is told beside the tuning without a change of weights.
KNOWN, DEALT, ELSEWHERE = "all gates open", "its neurons dealt out", "another token"
OWN, NORMAL, ENTRIES = "the variant", "noise", "its changes dealt out"
PATTERNS = ("each token", "open on average", "open mostly")


@register
@dataclass(frozen=True)
class Gates(Acting):
    """Hold the gates of a variant against those of its base model.

    Attributes
    ----------
    donor : str
        A subject of the protocol: the base model. Each of the others is held against it.
    loud : float
        Above how many root mean squares of its token a neuron is loud.
    sampled : int
        Tokens of each text of which edit distances are told, at most.
    random : int
        Draws of noise of each of two kinds.
    """

    donor: str
    loud: float = 0.1
    sampled: int = 2
    random: int = 3

    measures: ClassVar[Mapping[str, Quantity]] = {
        "moved": Quantity("share of gates that are open in one of two models alone", 0.0, 1.0),
        "unlike": Quantity(
            "share of gates that are open in one of two models alone, over that of independent "
            "patterns with as many open ones",
            0.0,
            float("inf"),
        ),
        "edited": Quantity(
            "Levenshtein's distance of the patterns of open gates of two models, over their length",
            0.0,
            1.0,
        ),
        "opened": Quantity("by how much more gates are open than in the base model", -1.0, 1.0),
    }

    def __post_init__(self) -> None:
        if not self.loud > 0:
            raise ValueError("loud must be above 0")
        if self.sampled < 1 or self.random < 0:
            raise ValueError("sampled must be at least 1, random at least 0")

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """The variant, with what is told of its gates beside it; then draws of noise."""
        check_same_shape(live.learned, live.donor)
        return list(range(1 + 2 * self.random)) if live.trained else [0]

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        seed = int(rng.integers(2**32))
        if not live.trained:
            other = live.model.twin(live.model.seed or 0)
            with transplanted(other, live.learned, live.donor):
                return self._read(live, live.model, other, [(0, "own", OWN)], seed)
        size = relative_change(live.model, live.donor)
        if not size > 0:
            raise AnalysisError(
                f"gates: the weights of {live.model.name} are those of {live.donor.name}; hold a "
                "model that was tuned against its base"
            )
        if run == 0:
            told = [OWN, KNOWN, DEALT, ELSEWHERE]
            plan = list(zip(range(4), ("own", "known", "shown", "shown"), told, strict=True))
            return self._read(live, live.donor, live.model, plan, seed)
        normal = run <= self.random
        kind, name = ("matched", NORMAL) if normal else ("equal", ENTRIES)
        draws = seed + run
        with jolted(live.model, live.donor, noise="normal" if normal else "dealt", seed=draws):
            return self._read(live, live.donor, live.model, [(3 + run, kind, name)], seed)

    def _read(
        self, live: Live, one: Model, other: Model, plan: Sequence[tuple[int, str, str]], seed: int
    ) -> xr.Dataset:
        """Have both read all texts, once, and count for each target of the plan."""
        rng = np.random.default_rng(seed)
        (neurons,) = one.structure.sizes["mlp_pre"]
        orders = [rng.permutation(neurons) for _ in range(one.layers)]
        shape = len(live.ids), one.layers
        tallies = [Tally.empty(*shape, neurons) for _ in plan]
        sums, loud = np.zeros((2, one.layers, neurons)), np.zeros((2, *shape))
        for both in gates_of_both(
            one, other, live.ids, loud=self.loud, sampled=self.sampled, rng=rng
        ):
            for tally, (_, _, name) in zip(tallies, plan, strict=True):
                tally.add(both, lambda mine, theirs, layer, name=name: _instead(
                    name, mine, theirs, orders[layer], neurons))  # fmt: skip
            for side, heard in enumerate((both.one, both.other)):
                sums[side] += heard.sums
                loud[side, both.tokens.texts] = np.add.reduceat(heard.loud, both.tokens.starts)
        found = [
            self._told(tally, sums, loud / neurons, target)
            for tally, target in zip(tallies, plan, strict=True)
        ]
        whole = xr.concat(found, "target")
        return whole.assign_coords(
            stimulus=np.arange(shape[0]),
            layer=np.arange(shape[1]),
            changed=("target", [relative_change(other, one)] * len(plan)),
        )

    def _told(
        self, tally: Tally, sums: np.ndarray, loud: np.ndarray, target: tuple[int, str, str]
    ) -> xr.Dataset:
        """Shares of the gates of a text, and what is told of all tokens together."""
        number, kind, name = target
        tokens, neurons = tally.tokens, tally.of_one.shape[1]
        gates = (tokens * neurons)[:, None]
        by_text = {
            "differ": tally.differ / gates,
            "open_base": tally.one / gates,
            "open": tally.other / gates,
            "edit": tally.edits / (tally.edited * neurons)[:, None],
            "loud_base": loud[0] / tokens[:, None],
            "loud": loud[1] / tokens[:, None],
        }
        phi, expected = agreement_by_neuron(tally)
        half = tokens.sum() / 2
        patterns = {
            "average": [side > 0 for side in sums],
            "mostly": [side > half for side in (tally.of_one, tally.of_other)],
        }
        by_layer = {"phi": phi, "expected": expected}
        for way, (mine, theirs) in patterns.items():
            by_layer[f"differ_{way}"] = (mine != theirs).mean(1)
            by_layer[f"edit_{way}"] = np.array(
                [edit_distance(a, b) / neurons for a, b in zip(mine, theirs, strict=True)]
            )
        return xr.Dataset(
            {key: (("stimulus", "layer", "target"), values[..., None].astype(np.float32))
             for key, values in by_text.items()},
            coords={
                **{key: (("layer", "target"), values[:, None])
                   for key, values in by_layer.items()},
                "tokens_counted": ("stimulus", tokens),
                "target": [number],
                "target_kind": ("target", [kind]),
                "named": ("target", [name]),
            },
        )  # fmt: skip

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        means = _Means.of(subject)
        values = getattr(means, variable)[0, own(subject)]
        return xr.DataArray(
            values, dims="layer", coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 0.0},
        )  # fmt: skip

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average over the frames of an item and then over items.

        Returns
        -------
        xarray.Dataset
            ``moved``, ``unlike``, ``edited``, ``opened`` (layer): the measures. ``open_share`` and
            ``loud_share`` (layer, subject), with ``_low`` and ``_high``: of the base model, of the
            variant and with noise, the share of gates that are open and of neurons that are loud,
            with intervals at 95 % by bootstrap over items. ``moved_of``, ``edited_of``
            (layer, arm): as the measures, of all that was done. ``kappa_of``: one less ``unlike``,
            how far two patterns agree beyond chance; ``kappa_by_neuron_of``: beyond what
            independent gates would, each as often open as it is; ``jaccard_of``: of gates that
            either opens, the share that both do; ``phi_of``: the correlation of a gate in both
            over tokens, on average. ``distance_by`` (layer, chosen): Hamming's and Levenshtein's
            distance of the variant from its base, of patterns of each token, of neurons whose gate
            gives more than 0 on average, and of those that are open at more than half of the
            tokens. ``tokens_read`` (scalar): how many were counted, all but the first of each text.
            ``change_of_weights`` (scalar): the length of the change over that of the
            weights.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        items = len(np.unique(labels(subject, "item")))
        # Drawn once for all layers, so that a layer has its interval alone, too.
        draws = rng.multinomial(items, np.full(items, 1 / items), size=RESAMPLES)
        whole, again = _Means.of(subject), _Means.of(subject, draws)
        names = volume["named"].to_numpy().astype(object).astype(str)
        arms = list(dict.fromkeys(one for one in names.tolist() if one != KNOWN))
        layer = {"layer": volume["layer"].to_numpy()}
        result = xr.Dataset(
            {
                name: ("layer", getattr(whole, name)[0, mine], {"chance": 0.0})
                for name in self.measures
            },
            coords={**layer, "arm": arms},
        )

        def by_arm(values: np.ndarray) -> xr.DataArray:
            """Of target x layer, on average over draws of a kind."""
            made = np.stack([values[names == arm].mean(0) for arm in arms], axis=1)
            return xr.DataArray(made, dims=("layer", "arm"), coords={**layer, "arm": arms})

        told = {name: values_of(volume, name, "target", "layer") for name in ("phi", "expected")}
        moved = whole.moved[0]
        beyond = np.divide(moved, told["expected"], out=np.full(moved.shape, np.nan),
                           where=told["expected"] > 0)  # fmt: skip
        return result.assign({
            "moved_of": by_arm(moved),
            "edited_of": by_arm(whole.edited[0]),
            "kappa_of": by_arm(1 - whole.unlike[0]),
            "kappa_by_neuron_of": by_arm(1 - beyond),
            "jaccard_of": by_arm(whole.jaccard[0]),
            "phi_of": by_arm(told["phi"]),
            "distance_by": self._by_pattern(subject, whole),
            "tokens_read": int(volume["tokens_counted"].sum()),
            "change_of_weights": float(volume["changed"].to_numpy()[mine]),
            **_shares(subject, whole, again, names),
        })  # fmt: skip

    def _by_pattern(self, subject: Subject, whole: "_Means") -> xr.DataArray:
        """Both distances, by what is taken for the pattern of a model."""
        volume, mine = subject.volume, own(subject)
        hamming = [whole.moved[0, mine]]
        edits = [whole.edited[0, mine]]
        for way in ("average", "mostly"):
            hamming.append(values_of(volume, f"differ_{way}", "target", "layer")[mine])
            edits.append(values_of(volume, f"edit_{way}", "target", "layer")[mine])
        rows = [f"{pattern}, {name}" for name in ("Hamming", "Levenshtein") for pattern in PATTERNS]
        return xr.DataArray(
            np.array([*hamming, *edits]).T, dims=("layer", "chosen"),
            coords={"layer": volume["layer"].to_numpy(), "chosen": rows},
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Means:
    """Means over the frames of an item and then over items: draw x target x layer.

    Attributes
    ----------
    volume : xarray.Dataset
    over : numpy.ndarray
        draw x stimulus: what each counts.
    """

    volume: xr.Dataset
    over: np.ndarray

    @classmethod
    def of(cls, subject: Subject, weights: np.ndarray | None = None) -> "_Means":
        """The means of a subject, with weights of items (draw x item), or all alike."""
        _, which = np.unique(labels(subject, "item"), return_inverse=True)
        mean = averages(which)
        if weights is None:
            weights = np.ones((1, len(mean)))
        return cls(subject.volume, weights / weights.sum(1, keepdims=True) @ mean)

    def _mean(self, name: str) -> np.ndarray:
        values = values_of(self.volume, name, "target", "layer", "stimulus").astype(float)
        return np.moveaxis(values @ self.over.T, -1, 0)

    @cached_property
    def moved(self) -> np.ndarray:
        return self._mean("differ")

    @cached_property
    def edited(self) -> np.ndarray:
        return self._mean("edit")

    @cached_property
    def open(self) -> np.ndarray:
        return self._mean("open")

    @cached_property
    def open_base(self) -> np.ndarray:
        return self._mean("open_base")

    @cached_property
    def loud(self) -> np.ndarray:
        return self._mean("loud")

    @cached_property
    def loud_base(self) -> np.ndarray:
        return self._mean("loud_base")

    @property
    def opened(self) -> np.ndarray:
        return self.open - self.open_base

    @property
    def unlike(self) -> np.ndarray:
        """NaN where all gates of both are open, or none: independent ones would be the same."""
        expected = self.open * (1 - self.open_base) + self.open_base * (1 - self.open)
        nothing = np.full(self.moved.shape, np.nan)
        return np.divide(self.moved, expected, out=nothing, where=expected > 0)

    @property
    def jaccard(self) -> np.ndarray:
        """Of gates that either opens the share that both do: both = (one + other - differ) / 2."""
        either = (self.open + self.open_base + self.moved) / 2
        shared = (self.open + self.open_base - self.moved) / 2
        return np.divide(shared, either, out=np.full(either.shape, np.nan), where=either > 0)


def _instead(
    name: str, mine: np.ndarray, theirs: np.ndarray, order: np.ndarray, neurons: int
) -> np.ndarray:
    """What stands for the gates of the variant: token x byte, packed."""
    if name == KNOWN:
        return np.packbits(np.ones((len(theirs), neurons), dtype=bool), axis=1)
    if name == DEALT:
        return np.packbits(np.unpackbits(theirs, axis=1, count=neurons)[:, order], axis=1)
    if name == ELSEWHERE:
        return np.roll(mine, len(mine) // 2, axis=0)
    return theirs


def _shares(
    subject: Subject, whole: _Means, again: _Means, names: np.ndarray
) -> dict[str, xr.DataArray]:
    """What share of gates is open, and of neurons loud, in each model, with its interval."""
    mine, noise = own(subject), np.flatnonzero(names == NORMAL)
    rows = ["base", "variant", *(["with noise"] if len(noise) else [])]
    coords = {"layer": subject.volume["layer"].to_numpy(), "subject": rows}
    made = {}
    for name in ("open", "loud"):
        drawn, mean = (
            np.stack([
                getattr(one, f"{name}_base")[:, mine], getattr(one, name)[:, mine],
                *([getattr(one, name)[:, noise].mean(1)] if len(noise) else []),
            ], axis=-1)
            for one in (again, whole)
        )  # fmt: skip
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        for end, values in (("", mean[0]), ("_low", low), ("_high", high)):
            made[f"{name}_share{end}"] = xr.DataArray(
                values, dims=("layer", "subject"), coords=coords
            )
    return made
