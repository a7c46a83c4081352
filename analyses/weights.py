"""Where tuning has changed the weights: along what they do already, or beside it.

A tuned subject less its base is a tuning vector, matrix by matrix (Ilharco et al. 2023). Of each,
how much lies in the subspace of the base's own matrix is published as SSA (Tanwar et al. 2025), and
compared between components. But a change at random has a share there which follows from the shape
of the matrix and from nothing else: a gate of 18,944 rows over 3,584 units cannot have more than a
fifth of noise inside. Where we differ, components are compared by what is beyond that; and two
tuning vectors by what is beyond the cosine of one with the other when its rows are dealt out.

The sample are the matrices: layers of the components that are asked about. So a claim is about
where a training has left its marks in this model, and says nothing of another training; what that
leaves is a subject of its own (another seed, labels that are dealt out), named in `other` or
`shuffled`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import xarray as xr

from analyses.acting import Acting, by_kind, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.subspaces import (
    TOLERANCE,
    Moved,
    Subspace,
    agreement,
    cosine_after,
    dealt_out,
)
from scanner import Live, Subject
from scanner.components import MATRICES, Component, Piece
from scanner.weights import Folder, InMemory, Weights, changes

# Of a matrix: what is told beside shares, by its name in the results.
_BESIDE = (
    "kept", "size", "cosine", "floor", "zeros", "directions", "effective_rank", "spectral_inside",
    "spectral_outside",
)  # fmt: skip


@register
@dataclass(frozen=True)
class TuningVectors(Acting):
    """Hold what tuning has changed against what the base does.

    Attributes
    ----------
    base : str
        The subject of the protocol that the others were tuned from.
    other : str, optional
        Another subject that was tuned from it, whose tuning vector is held against the others'.
    shuffled : str, optional
        A subject that was tuned from it on labels dealt out anew.
    components : tuple of str
        Whose matrices are asked about.
    tolerance : float
        Of the subspace: what it leaves has at most this share, squared, of the squares.
    random : int
        Tuning vectors at random of each kind.
    """

    base: str
    other: str | None = None
    shuffled: str | None = None
    components: tuple[Component, ...] = MATRICES
    tolerance: float = TOLERANCE
    random: int = 5

    measures: ClassVar[Mapping[str, Quantity]] = {
        "excess": Quantity(
            "how much more of what tuning changed lies among what the base's matrices give than "
            "of a change at random, as a share of what there is beyond that",
            -float("inf"),
            1.0,
        ),
        "excess_right": Quantity(
            "the same among what the base's matrices take", -float("inf"), 1.0
        ),
        "aligned": Quantity("cosine of two tuning vectors, on average over matrices", -1.0, 1.0),
    }

    def __post_init__(self) -> None:
        if not self.components or not set(self.components) <= {*MATRICES}:
            raise ValueError(f"components: some of {', '.join(MATRICES)}")
        if not 0 < self.tolerance < 1:
            raise ValueError("tolerance must be above 0 and below 1")
        if self.random < 0:
            raise ValueError("random must be at least 0")
        if len(set(self.given)) < len(self.given):
            raise ValueError("base, other and shuffled must be different subjects")

    @property
    def given(self) -> tuple[str, ...]:
        return tuple(one for one in (self.base, self.other, self.shuffled) if one is not None)

    @property
    def stands_at(self) -> tuple[int, ...]:
        return (0,)

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """Layers in which something has changed."""
        change = changes(self._base(live), live.recording.source.folder)
        changed = [one for one in self._asked(change) if change.matrix(one).any()]
        if not changed:
            raise AnalysisError(
                f"weights: no matrix of {', '.join(self.components)} of {live.recording.subject} "
                f"differs from that of {self.base}"
            )
        return sorted({one.layer for one in changed if one.layer is not None})

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        """Of each matrix of a layer, what has changed, and what a change at random would be."""
        base = self._base(live)
        change = changes(base, live.recording.source.folder)
        read = _Read(
            base if live.trained else InMemory.of(live.model, base),
            base,
            change,
            self._change(live, base, self.other),
            self._change(live, base, self.shuffled),
        )
        asked = self._asked(change)
        rng = np.random.default_rng([run, *rng.integers(2**32, size=2)])
        found = {}
        for place, piece in enumerate(asked):
            if piece.layer != run:
                continue
            matrix = change.matrix(piece)
            if matrix.any():
                found[place] = self._told(read, piece, matrix, rng)
        together = xr.concat(
            found.values(), "stimulus", data_vars="all", coords="different", compat="equals",
            join="exact",
        )  # fmt: skip
        return together.assign_coords(stimulus=list(found))

    def _base(self, live: Live) -> Folder:
        return Folder.open(live.given[self.base].source.folder)

    def _change(self, live: Live, base: Folder, model: str | None) -> Weights | None:
        """Of another subject that was tuned from the base."""
        return None if model is None else changes(base, live.given[model].source.folder)

    def _asked(self, change: Weights) -> list[Piece]:
        return [one for one in change.pieces if one.component in self.components]

    def _told(
        self, read: "_Read", piece: Piece, matrix: np.ndarray, rng: np.random.Generator
    ) -> xr.Dataset:
        """One matrix, as a single stimulus."""
        subspace = Subspace(read.held.matrix(piece), tolerance=self.tolerance)
        told = subspace.moved(matrix)
        kinds, shares = ["own"], [(told.left.share, told.right.share)]
        if read.trained:
            for kind, both in self._at_random(subspace, read, piece, matrix, rng):
                kinds.append(kind)
                shares.append(both)
        left, right = zip(*shares, strict=True)
        values, beside = {"inside": left, "inside_right": right}, _beside(told)
        if read.other is not None:
            theirs = read.other.matrix(piece)
            values |= _agreed(read, theirs, piece, matrix, kinds, rng)
            both = agreement(matrix, theirs)
            beside |= {
                "product": both.product,
                "product_dealt": both.dealt,
                "product_spread": both.spread,
                "other_changed": both.squares[1],
            }
        of_rows = "" if piece.rows is None else f" ({piece.component})"
        rows = {
            "item": piece.name,
            "text": f"{piece.tensor}{of_rows}",
            "frame": "weights",
            "category": piece.component,
            "depth": piece.layer,
            **beside,
        }
        return xr.Dataset(
            {name: (("stimulus", "layer", "target"), [[one]]) for name, one in values.items()},
            coords={
                "layer": [0],
                "target": np.arange(len(kinds)),
                "target_kind": ("target", kinds),
                **{name: ("stimulus", [one]) for name, one in rows.items()},
            },
        )

    def _at_random(
        self,
        subspace: Subspace,
        read: "_Read",
        piece: Piece,
        matrix: np.ndarray,
        rng: np.random.Generator,
    ) -> Iterator[tuple[str, tuple[float, float]]]:
        """Shares on both sides of what surely lies inside, and of changes at random."""
        rows, columns = matrix.shape
        yield "known", (1.0, 1.0)
        for _ in range(self.random):
            # Of independent normal numbers the share is known to be so distributed.
            yield (
                "equal",
                (
                    _beta(subspace.kept, rows, columns, rng),
                    _beta(subspace.kept, columns, rows, rng),
                ),
            )
        for _ in range(self.random):
            yield "matched", subspace.shares(dealt_out(matrix, rng))
        if read.shuffled is not None:
            yield "shuffled", subspace.shares(read.shuffled.matrix(piece))

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        mine, layer = own(subject), subject.volume["layer"].to_numpy()
        if variable == "aligned":
            found, chance = (one[mine] for one in self._cosines(subject))
            values, expected = found.mean(-1), float(chance.mean())
        else:
            inside, chance = _shares(subject.volume, variable)
            values, expected = _beyond(inside[mine], chance), 0.0
        return xr.DataArray(values, {"layer": layer}, attrs={"chance": expected})

    def _cosines(self, subject: Subject) -> list[np.ndarray]:
        """Those of each target with another tuning vector, and by chance: target x layer x item."""
        if "agreed" not in subject.volume:
            raise AnalysisError(
                "weights: there is no other tuning vector to be aligned with; name a subject in "
                "`other`"
            )
        return [
            values_of(subject.volume, name, "target", "layer", "stimulus").astype(float)
            for name in ("agreed", "agreed_dealt")
        ]

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average over matrices.

        Returns
        -------
        xarray.Dataset
            Of layer 0, for all layers: ``excess`` and ``excess_right`` (layer): shares inside less
            those of chance, over what is beyond chance, each summed over matrices, so that a matrix
            in which nothing can be beyond chance counts for nothing; with another tuning vector
            ``aligned`` (layer), whose chance is what it is on average when rows are dealt out.
            ``excess_of``, ``aligned_of`` (layer, arm): of all that it is held against.
            ``whole_cosine``, ``whole_size``, ``whole_aligned``: of all matrices as one; and how
            far the last is from chance, in spreads of rows that are dealt out, ``whole_aligned_z``.
            ``share``, ``share_chance``, ``share_noise``, ``share_excess``, ``share_z`` (in spreads
            of a change that is turned at random) and those of the right side, ``energy_inside`` and
            ``energy_outside`` (its squares there, on the left), ``size``, ``floor``, ``cosine``,
            ``zeros``, ``effective_rank``, ``directions``, ``kept`` and the largest singular values
            inside and outside (layer, category): by component, on average over its layers;
            ``share_pooled`` (layer, category): the share of the squares of all layers together.
            ``profile``, ``profile_right``, ``profile_cosine``, ``profile_aligned``
            (layer, category, depth): the excess of each matrix, the cosine of its weights before
            and after, and of two tuning vectors.
        """
        (subject,) = subjects
        volume, told = subject.volume, {}
        for variable in self.measures:
            if variable != "aligned" or "agreed" in volume:
                told[variable] = self.measured(subject, variable=variable, rng=rng)
        result = xr.Dataset(told, coords={"layer": volume["layer"].to_numpy()})
        if volume.sizes["target"] > 1:
            inside, chance = _shares(volume, "excess")
            arms, of_kinds = by_kind(volume, _beyond(inside, chance))
            result = result.assign(excess_of=(("layer", "arm"), of_kinds)).assign_coords(arm=arms)
            if "agreed" in volume:
                cosines = self._cosines(subject)[0].mean(-1)
                aligned = by_kind(volume, cosines)[1]
                result = result.assign(aligned_of=(("layer", "arm"), aligned))
        return result.assign({**_together(volume), **self._by_component(subject)})

    def _by_component(self, subject: Subject) -> dict[str, xr.DataArray]:
        """What is told of each component and of each of its matrices."""
        volume, mine = subject.volume, own(subject)
        which, depth = labels(subject, "category"), volume["depth"].to_numpy()
        order = [*MATRICES, *sorted({*which} - {*MATRICES})]
        names = [one for one in order if one in which]
        (share, chance), (right, chance_right) = (
            _shares(volume, name) for name in ("excess", "excess_right")
        )
        columns = {
            "share": share[mine],
            "share_chance": chance,
            "share_noise": volume["noise"].to_numpy(),
            "share_excess": _each(share[mine], chance),
            "share_z": _ratio(share[mine] - chance, volume["spread"].to_numpy()),
            "energy_inside": share[mine] * volume["changed"].to_numpy(),
            "energy_outside": (1 - share[mine]) * volume["changed"].to_numpy(),
            "share_right": right[mine],
            "share_right_chance": chance_right,
            "share_right_excess": _each(right[mine], chance_right),
            **{name: volume[name].to_numpy() for name in _BESIDE},
        }
        shape = share[mine].shape
        columns = {name: np.broadcast_to(one, shape) for name, one in columns.items()}
        profiles = {
            "profile": columns["share_excess"],
            "profile_right": columns["share_right_excess"],
            "profile_cosine": columns["cosine"],
        }
        if "agreed" in volume:
            profiles["profile_aligned"] = self._cosines(subject)[0][mine]
        at = {"layer": volume["layer"].to_numpy(), "category": names}
        rows = [which == one for one in names]
        found = {
            name: xr.DataArray(np.stack([_mean(one[:, some]) for some in rows], axis=1), at)
            for name, one in columns.items()
        }
        weights = volume["changed"].to_numpy()
        pooled = [np.average(share[mine][:, one], axis=1, weights=weights[one]) for one in rows]
        found["share_pooled"] = xr.DataArray(np.stack(pooled, axis=1), at)
        depths = np.unique(depth)
        for name, one in profiles.items():
            table = np.full((shape[0], len(names), len(depths)), np.nan)
            for row, column in np.ndindex(table.shape[1:]):
                some = rows[row] & (depth == depths[column])
                if some.any():
                    table[:, row, column] = _mean(one[:, some])
            found[name] = xr.DataArray(table, {**at, "depth": depths})
        return found


class _Read(NamedTuple):
    """What is read of one layer after the other.

    Attributes
    ----------
    held : Weights
        What the change is held against: the base, or an untrained twin of it.
    base : Folder
    change, other, shuffled : Weights
    """

    held: Weights
    base: Folder
    change: Weights
    other: Weights | None
    shuffled: Weights | None

    @property
    def trained(self) -> bool:
        return self.held is self.base


def _agreed(
    read: _Read,
    theirs: np.ndarray,
    piece: Piece,
    matrix: np.ndarray,
    kinds: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, list[float]]:
    """Cosines with another tuning vector, and what they are by chance, of each target."""
    if not read.trained:
        # What leads from the base to an untrained network may share with any training that
        # weights become smaller.
        matrix = read.held.matrix(piece) - read.base.matrix(piece)
    told, found = agreement(matrix, theirs), []
    for kind in kinds:
        one = told.cosine, told.chance
        if kind == "known":
            one = 1.0, told.chance
        elif kind == "equal":
            one = float(rng.normal() / np.sqrt(matrix.size)), 0.0
        elif kind == "matched":
            one = agreement(matrix[rng.permutation(len(matrix))], theirs).cosine, told.chance
        elif kind == "shuffled" and read.shuffled is not None:
            beside = agreement(matrix, read.shuffled.matrix(piece))
            one = beside.cosine, beside.chance
        found.append(one)
    return {name: [one[place] for one in found]
            for place, name in enumerate(("agreed", "agreed_dealt"))}  # fmt: skip


def _beside(told: Moved) -> dict[str, float]:
    """What is kept of a matrix beside its shares."""
    return {
        "kept": told.kept,
        "chance": told.left.chance,
        "chance_right": told.right.chance,
        "spread": told.left.spread,
        "noise": told.left.noise,
        "changed": told.changed,
        "squares": told.squares,
        "along": told.along,
        "size": told.size,
        "cosine": told.cosine,
        "floor": told.floor,
        "zeros": told.zeros,
        "directions": told.directions,
        "effective_rank": told.effective_rank,
        "spectral_inside": told.left.spectral_inside,
        "spectral_outside": told.left.spectral_outside,
    }


def _beta(kept: int, side: int, across: int, rng: np.random.Generator) -> float:
    """The share of independent normal numbers in some dimensions of a side of a matrix."""
    rest = (side - kept) * across / 2
    return float(rng.beta(kept * across / 2, rest)) if rest > 0 else 1.0


def _shares(volume: xr.Dataset, variable: str) -> tuple[np.ndarray, np.ndarray]:
    """Shares inside (target x layer x stimulus) and those of chance (stimulus), of a side."""
    side = "_right" if variable == "excess_right" else ""
    inside = values_of(volume, f"inside{side}", "target", "layer", "stimulus").astype(float)
    return inside, values_of(volume, f"chance{side}", "stimulus").astype(float)


def _beyond(inside: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """How far shares are beyond chance, of what there is beyond it: ... of ... x stimulus.

    Summed before they are divided: where chance is nearly all, as of a matrix with few rows, the
    ratio of a single matrix is nearly anything.

    Raises
    ------
    AnalysisError
        If chance is all.
    """
    room = (1 - chance).sum()
    if not room > 0:
        raise AnalysisError(
            "weights: the subspaces of these matrices are all that there is on that side, so that "
            "any change lies inside; ask about other `components`, or the other side"
        )
    return (inside - chance).sum(-1) / room


def _each(inside: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """The same of each matrix; NaN where chance is all."""
    return _ratio(inside - chance, 1 - chance)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _together(volume: xr.Dataset) -> dict[str, float]:
    """Of all matrices as one: cosines, sizes, and how far two changes are alike beyond chance."""
    names = "squares", "changed", "along"
    squares, changed, along = (float(volume[name].sum()) for name in names)
    found = {
        "whole_cosine": cosine_after(squares, changed, along),
        "whole_size": float(np.sqrt(changed / squares)),
    }
    if "product" in volume.coords:
        beyond = float((volume["product"] - volume["product_dealt"]).sum())
        size = np.sqrt(changed * float(volume["other_changed"].sum()))
        found["whole_aligned"] = float(volume["product"].sum()) / size
        # The rows of each matrix are dealt out for themselves.
        found["whole_aligned_z"] = beyond / float(np.linalg.norm(volume["product_spread"]))
    return found


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last dimension, of what is no NaN; NaN of nothing."""
    there = ~np.isnan(values)
    sums, counts = np.where(there, values, 0).sum(-1), there.sum(-1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
