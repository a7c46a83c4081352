"""Whether a model reads on from what another model has made of the same words.

A linear map, fitted on items of both, carries what the donor has at the target into the space of
the subject, and the subject goes on from there as if it had been its own (Lenc & Vedaldi 2015;
Bansal et al. 2021). What that costs is how far its prediction of the next token moves; held against
how far it moves if the mean of those items in the same frame stands there, which says nothing of
the word. So what a map carries is told by what the subject can make of it, not by how alike numbers
are; and as frames are given, it is told of the word alone. Against the mean of all frames, the
frame would be most of it: untrained networks, which know no word, kept nineteen parts in twenty.

The layer of the donor and the penalty of the map are those that carry most within the items that
fit. Beside the map stand some that were fitted with items dealt out anew, the same map given
another word, and maps from untrained twins of the donor: these read the same tokens, and tokens
alone carry some of the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import xarray as xr

from analyses.acting import Acting, by_kind, check_begun, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register, vectors
from analyses.probe import ridge, standardised
from analyses.splits import Fold, folds_of, item_groups
from analyses.universality import at_depths
from scanner import Edit, Live, Subject, Trial, sweep
from scanner.sites import Kind

# Nats by which predictions move without what stands there; less than that is nothing to be kept.
LOST = 1e-6


class _Seam(NamedTuple):
    """From which layer of the donor a map is fitted, by its place, and with what penalty."""

    place: int
    penalty: float


@register
@dataclass(frozen=True)
class Stitching(Acting):
    """Set what one subject has, carried by a map, into another.

    Attributes
    ----------
    site : str
        Kind of site to read and to write.
    donor : str
        A subject of the protocol; what it has is set into each of the others.
    layers : tuple of int
        Of the others, where it is set in, one at a time.
    item_folds : int
        Groups of items; each is carried by maps that were fitted on the others.
    penalties : tuple of float
        Of the map, in units of the mean squared length of a pattern; one is chosen.
    depths : int
        Layers of the donor, evenly through its depth, of which one is chosen; all if it has fewer.
    random : int
        Maps of items dealt out anew, and other words.
    """

    site: Kind
    donor: str
    layers: tuple[int, ...]
    item_folds: int = 4
    penalties: tuple[float, ...] = (0.1, 1.0, 10.0)
    depths: int = 6
    random: int = 6

    measures: ClassVar[Mapping[str, Quantity]] = {
        "kept": Quantity(
            "how much of what predictions lose without what a model has at a word it keeps with "
            "what another model has there",
            -float("inf"),
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: whole numbers from 0, each once")
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError("penalties must be above 0")
        if self.item_folds < 2 or self.depths < 1 or self.random < 0:
            raise ValueError("item_folds must be at least 2, depths at least 1, random at least 0")

    def beyond(self, layers: int) -> str:
        late = [one for one in self.layers if one >= layers]
        return f"{late[0]} is none of the model's {layers} layers" if late else ""

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """Layers."""
        check_begun("stitching", live)
        return list(self.layers)

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        (donor,) = subject.beside
        given = [at_depths(one, self.depths) for one in (donor, *map(donor.twin, donor.twins))]
        sources = [np.asarray(vectors(one, self.site)) for one in given]
        items = labels(subject, "item")
        for one in given:
            if not np.array_equal(labels(one, "item"), items):
                raise AnalysisError(f"{one.name} and {subject.name} have read other items")
        place = list(subject.volume["layer"].to_numpy()).index(run)
        x = vectors(subject, self.site)[place]
        kinds_of = self._plan(len(sources) - 1) if live.trained else ["own"]
        try:
            group = item_groups(items, np.zeros(len(items)), groups=self.item_folds, rng=rng)
        except ValueError as error:
            raise AnalysisError(f"stitching: {error}") from None
        put = np.empty((len(items), len(kinds_of), x.shape[1]))
        mean, chosen = np.empty(x.shape), np.empty(len(items))
        frames = labels(subject, "frame")
        for fold in folds_of(group):
            # Of every site the mean of each frame is known; what is carried is the rest.
            mean[fold.test] = means_of_frames(x, frames, fold.train)[fold.test]
            rest, *theirs = (
                values - means_of_frames(values, frames, fold.train) for values in (x, *sources)
            )
            rests, seam = self._carried(kinds_of, rest, theirs, items, fold, rng)
            put[fold.test] = mean[fold.test, None] + rests
            chosen[fold.test] = given[0].volume["layer"].to_numpy()[seam.place]
        divergence, without = self._moved(live, run, put, mean)
        return xr.Dataset(
            {
                "divergence": (("stimulus", "layer", "target"), divergence[:, None]),
                "without": (("stimulus", "layer"), without[:, None]),
            },
            coords={
                "stimulus": np.arange(len(items)),
                "layer": [run],
                "target": np.arange(len(kinds_of)),
                "target_kind": ("target", kinds_of),
                "donor_layer": (("layer", "stimulus"), chosen[None]),
                "missed": (("layer", "stimulus"), np.square(x - put[:, 0]).sum(1)[None]),
                "spread": (("layer", "stimulus"), np.square(x - mean).sum(1)[None]),
            },
        )

    def _plan(self, twins: int) -> list[str]:
        drawn = [kind for kind in ("equal", "shuffled") for _ in range(self.random)]
        return ["own", "known", *("other",) * twins, *drawn]

    def _carried(
        self,
        kinds_of: list[str],
        x: np.ndarray,
        sources: list[np.ndarray],
        items: np.ndarray,
        fold: Fold,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, _Seam]:
        """What each target makes of tested stimuli (stimulus x target x unit), around the means."""
        seams = [self._seam(x, source, items, fold.train, rng) for source in sources]
        own_seam, *of_twins = seams
        donor, twins = sources[0][own_seam.place], iter(zip(of_twins, sources[1:], strict=True))
        found = []
        for kind in kinds_of:
            if kind == "known":
                found.append(x[fold.test])
            elif kind == "other":
                seam, source = next(twins)
                found.append(carried(source[seam.place], x, fold, seam.penalty))
            elif kind == "equal":
                known = carried(donor, x, fold, own_seam.penalty)
                found.append(known[rows_of_others(items[fold.test], rng)])
            else:
                rows = np.arange(len(x))
                if kind == "shuffled":
                    rows[fold.train] = fold.train[rows_of_others(items[fold.train], rng)]
                found.append(carried(donor[rows], x, fold, own_seam.penalty))
        return np.stack(found, axis=1), own_seam

    def _seam(
        self,
        x: np.ndarray,
        source: np.ndarray,
        items: np.ndarray,
        train: np.ndarray,
        rng: np.random.Generator,
    ) -> _Seam:
        """What carries most between halves of the items that fit."""
        tried = [_Seam(place, one) for place in range(len(source)) for one in self.penalties]
        if len(tried) == 1:
            return tried[0]
        half = item_groups(items[train], np.zeros(len(train)), groups=2, rng=rng)
        fold = Fold(train[half == 0], train[half == 1])
        left = [
            np.square(x[fold.test] - carried(source[one.place], x, fold, one.penalty)).sum()
            for one in tried
        ]
        return tried[int(np.argmin(left))]

    def _moved(
        self, live: Live, layer: int, put: np.ndarray, mean: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far predictions behind the target move (stimulus x target), and without anything."""
        at = [span[-1] for span in live.acted]
        texts = [ids[: end + 1] for ids, end in zip(live.ids, at, strict=True)]
        values = np.concatenate([put, mean[:, None]], axis=1)
        trials = [
            Trial(
                text,
                (Edit(self.site, "replace", layers=[layer], positions=[at[text]],
                      value=values[text, one], must_move=False),),
            )
            for text, one in np.ndindex(values.shape[:2])
        ]  # fmt: skip
        found = np.empty(len(trials))
        for outcome in sweep(live.model, texts, trials):
            found[outcome.trials] = outcome.divergence
        found = found.reshape(values.shape[:2]).astype(np.float32)
        return found[:, :-1], found[:, -1]

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say what is kept.

        Returns
        -------
        xarray.Dataset
            ``kept`` (layer): one less the divergence of predictions with what the donor has, over
            that with the mean of the frame, both summed over stimuli: 1 for as good as its own, 0
            for no better than the mean. ``kept_of`` (layer, arm): of all targets. ``cost``,
            ``cost_without`` (layer): these divergences, nats. ``mapped`` (layer): the share of the
            variance around that mean that the map gives, in items that did not fit it; may be
            below 0. ``donor_layer`` (layer): of the donor, on average over groups of items.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        # target x layer: means over stimuli.
        cost = values_of(volume, "divergence", "target", "layer", "stimulus").mean(-1, dtype=float)
        without = values_of(volume, "without", "layer", "stimulus").mean(-1, dtype=float)
        lost = np.where(without > LOST, without, np.nan)
        kept = np.nan_to_num(1 - cost / lost)
        missed, spread, chosen = (
            values_of(volume, name, "layer", "stimulus").astype(float)
            for name in ("missed", "spread", "donor_layer")
        )
        result = xr.Dataset(
            {
                "kept": ("layer", kept[mine], {"chance": 0.0}),
                "cost": ("layer", cost[mine]),
                "cost_without": ("layer", without),
                "mapped": ("layer", 1 - missed.sum(1) / spread.sum(1)),
                "donor_layer": ("layer", chosen.mean(1)),
            },
            coords={"layer": volume["layer"].to_numpy()},
        )
        if volume.sizes["target"] == 1:
            return result
        arms, of_kinds = by_kind(volume, kept)
        return result.assign(kept_of=(("layer", "arm"), of_kinds)).assign_coords(arm=arms)


def means_of_frames(x: np.ndarray, frames: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Of each stimulus the mean of its frame in training, or of all there if none has that frame.

    Parameters
    ----------
    x : numpy.ndarray
        ... x stimulus x unit.
    frames : numpy.ndarray
        stimulus.
    train : numpy.ndarray
        Rows.

    Returns
    -------
    numpy.ndarray
        As `x`.
    """
    found = np.broadcast_to(x[..., train, :].mean(-2, keepdims=True), x.shape).copy()
    for frame in np.unique(frames[train]):
        inside = frames == frame
        rows = np.flatnonzero(inside[train])
        found[..., inside, :] = x[..., train[rows], :].mean(-2, keepdims=True)
    return found


def carried(donor: np.ndarray, x: np.ndarray, fold: Fold, penalty: float) -> np.ndarray:
    """What an affine map from the donor, fitted in training, makes of tested stimuli.

    Parameters
    ----------
    donor, x : numpy.ndarray
        stimulus x unit, of each subject.
    fold : Fold
    penalty : float

    Returns
    -------
    numpy.ndarray
        tested stimulus x unit of `x`.
    """
    given, asked = standardised(donor, fold)
    known, _ = standardised(x, fold)
    (weights,) = ridge(given, known, penalties=(penalty,))
    return x[fold.train].mean(0) + asked @ weights * x[fold.train].std(0)


def rows_of_others(items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each stimulus one of another item, in the same turn of its item's stimuli.

    Each item stands for one other, and each is stood for.
    """
    names, which = np.unique(items, return_inverse=True)
    order = rng.permutation(len(names))
    other = np.empty(len(names), dtype=int)
    other[order] = np.roll(order, 1)
    rows = [np.flatnonzero(which == one) for one in range(len(names))]
    found = np.empty(len(items), dtype=int)
    for one, own_rows in enumerate(rows):
        theirs = rows[other[one]]
        found[own_rows] = theirs[np.arange(len(own_rows)) % len(theirs)]
    return found
