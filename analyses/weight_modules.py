"""Whether weights make modules: groups of units that are joined to each other more than to others.

Each matrix of a block is a graph, whose edges join the units that it reads with those that it gives
to, as strongly as its weights are large (Achterberg et al. 2023 and Liu et al. 2023 draw such
graphs of networks that were charged for long wires). Its modularity is the largest that is found,
by a chance that knows of two sides (Barber 2007). Where we differ: few large weights among many
small ones make modules wherever they lie, so that a network that is sparse, for whatever reason,
has a larger modularity. So beside each matrix stand the same weights in other places: dealt out
among all of its places, or among those of the same row, so that each unit that is given to keeps
its own.

The sample are the matrices, as of `analyses.weights`; what differs between trainings is seen in
several subjects, and in claims about pairs of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import Acting, by_kind, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.graphs import two_sided_modularity
from scanner import Live, Subject
from scanner.components import MATRICES, Component, Piece
from scanner.trained import told_loss
from scanner.weights import Folder, InMemory

# Modules into which the weights are sorted that surely make some.
KNOWN = 4


@register
@dataclass(frozen=True)
class WeightModules(Acting):
    """Measure the graphs of matrices.

    Attributes
    ----------
    components : tuple of str
        Whose matrices are graphs.
    nodes : int
        Units of each side of a matrix, drawn at random; all where there are fewer.
    random : int
        Dealings of each kind.
    """

    components: tuple[Component, ...] = MATRICES
    nodes: int = 256
    random: int = 5

    measures: ClassVar[Mapping[str, Quantity]] = {
        "modularity": Quantity(
            "how much more of the sizes of weights lies within modules of units than by chance, on "
            "average over matrices",
            -1.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if not self.components or not set(self.components) <= {*MATRICES}:
            raise ValueError(f"components: some of {', '.join(MATRICES)}")
        if self.nodes < 10:
            raise ValueError("nodes must be at least 10")
        if self.random < 1:
            raise ValueError("random must be at least 1")

    @property
    def stands_at(self) -> tuple[int, ...]:
        return (0,)

    def passes(self, layers: int) -> float:
        return 0.0

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """Layers that have matrices of these components."""
        return sorted({one.layer for one in self._asked(live) if one.layer is not None})

    def _asked(self, live: Live) -> list[Piece]:
        pieces = Folder.open(live.recording.source.folder).pieces
        return [one for one in pieces if one.component in self.components]

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        """Measure the graphs of a layer, and of the same weights in other places."""
        folder = Folder.open(live.recording.source.folder)
        weights = folder if live.trained else InMemory.of(live.model, folder)
        loss = told_loss(live.recording.source) if live.trained else float("nan")
        rng = np.random.default_rng([run, *rng.integers(2**32, size=2)])
        found = {
            place: self._told(piece, self._some(weights.matrix(piece), rng), loss, live, rng)
            for place, piece in enumerate(self._asked(live))
            if piece.layer == run
        }
        together = xr.concat(
            found.values(), "stimulus", data_vars="all", coords="different", compat="equals",
            join="exact",
        )  # fmt: skip
        return together.assign_coords(stimulus=list(found))

    def _some(self, matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The sizes of weights between some units of each side: row x column."""
        drawn = [rng.permutation(count)[: self.nodes] for count in matrix.shape]
        return np.abs(matrix[np.ix_(*drawn)])

    def _told(
        self, piece: Piece, sizes: np.ndarray, loss: float, live: Live, rng: np.random.Generator
    ) -> xr.Dataset:
        """One matrix, as a single stimulus."""
        worlds = [("own", sizes), *self._beside(sizes, rng)]
        kinds = [kind for kind, _ in worlds]
        values = two_sided_modularity(np.stack([one for _, one in worlds]), rng)
        dealt = float(np.mean(values[np.isin(kinds, ["equal", "matched"])]))
        if not live.trained:
            # What twins are held against is themselves.
            kinds, values = kinds[:1], values[:1]
        rows = {
            "item": piece.name,
            "text": piece.tensor,
            "frame": "weights",
            "category": "weights",
            "component": piece.component,
            "depth": piece.layer,
            "dealt": dealt,
            "size": float(sizes.mean()),
            "loss": loss,
        }
        return xr.Dataset(
            {"modularity": (("stimulus", "layer", "target"), values[None, None])},
            coords={
                "layer": [0],
                "target": np.arange(len(kinds)),
                "target_kind": ("target", kinds),
                **{name: ("stimulus", [one]) for name, one in rows.items()},
            },
        )

    def _beside(
        self, sizes: np.ndarray, rng: np.random.Generator
    ) -> Iterator[tuple[str, np.ndarray]]:
        """The same weights in other places, by kind."""
        yield "known", sorted_into_modules(sizes, KNOWN, rng)
        for _ in range(self.random):
            yield "equal", rng.permutation(sizes.ravel()).reshape(sizes.shape)
        for _ in range(self.random):
            yield "matched", rng.permuted(sizes, axis=1)

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        found = self._values(subject)[own(subject)]
        chance = float(values_of(subject.volume, "dealt", "stimulus").astype(float).mean())
        layer = subject.volume["layer"].to_numpy()
        return xr.DataArray(found.mean(-1), {"layer": layer}, attrs={"chance": chance})

    def _values(self, subject: Subject) -> np.ndarray:
        """Target x layer x stimulus."""
        return values_of(subject.volume, "modularity", "target", "layer", "stimulus").astype(float)

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average over matrices.

        Returns
        -------
        xarray.Dataset
            Of layer 0, for all layers: ``modularity`` (layer), whose chance is that of the same
            weights dealt out. ``modularity_of`` (layer, arm): of all that it is held against.
            ``modularity_in``, ``modularity_dealt``, ``mean_size`` (layer, category): by component,
            and the mean size of its weights. ``loss``: what a word costs the network that was not
            trained on, nats, where it was trained here.

        Raises
        ------
        AnalysisError
            If there are no matrices.
        """
        (subject,) = subjects
        volume, values = subject.volume, self._values(subject)
        if not volume.sizes["stimulus"]:
            raise AnalysisError(f"weight_modules: {subject.name} has no matrices that were asked")
        result = xr.Dataset({"modularity": self.measured(subject, variable="modularity", rng=rng)})
        if volume.sizes["target"] > 1:
            arms, of_kinds = by_kind(volume, values.mean(-1))
            result = result.assign(modularity_of=(("layer", "arm"), of_kinds))
            result = result.assign_coords(arm=arms)
        which = labels(subject, "component")
        names = [one for one in MATRICES if one in which]
        mine = values[own(subject)]
        told = {
            "modularity_in": mine,
            "modularity_dealt": np.broadcast_to(volume["dealt"].to_numpy(), mine.shape),
            "mean_size": np.broadcast_to(volume["size"].to_numpy(), mine.shape),
        }
        by_component = {
            name: (
                ("layer", "category"),
                np.stack([one[:, which == component].mean(1) for component in names], axis=1),
            )
            for name, one in told.items()
        }
        loss = float(volume["loss"].mean())
        found = result.assign(by_component).assign_coords(category=names)
        return found if np.isnan(loss) else found.assign(loss=loss)


def sorted_into_modules(sizes: np.ndarray, modules: int, rng: np.random.Generator) -> np.ndarray:
    """The same weights, of which the largest lie within modules of as many units."""
    row, column = (np.arange(count) % modules for count in sizes.shape)
    order = np.lexsort((rng.random(sizes.size), (row[:, None] != column).ravel()))
    placed = np.empty(sizes.size)
    placed[order] = np.sort(sizes, axis=None)[::-1]
    return placed.reshape(sizes.shape)
