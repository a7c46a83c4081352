"""A model in the scanner together with its volume: what analyses read and controls change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

# What is held in memory of one recording.
HELD_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Subject:
    """One subject and its untrained twins, over the same stimuli.

    Attributes
    ----------
    name : str
    volume : xarray.Dataset
        Its recording (see `scanner.volume`).
    twins : mapping of int to xarray.Dataset
        Recordings of the same architecture with fresh weights, by seed.
    beside : tuple of Subject
        Other subjects over the same stimuli, where a claim is about several.
    """

    name: str
    volume: xr.Dataset
    twins: Mapping[int, xr.Dataset]
    beside: tuple["Subject", ...] = ()

    @property
    def together(self) -> tuple["Subject", ...]:
        """It and those beside it: what an analysis is given at once."""
        return (replace(self, beside=()), *self.beside)

    def take(self, rows: np.ndarray) -> "Subject":
        """The same subject with some of the stimuli, given by their rows, each at most once."""
        return self._all(lambda volume: _taken(volume, rows))

    def keep(self, site: str) -> "Subject":
        """The same subject with one kind of site of its recordings."""
        return self._all(lambda volume: _only(volume, site))

    def load(self) -> "Subject":
        """The same subject with its recordings in memory: volumes are opened lazily.

        One that has more than `HELD_BYTES` stays on disk, and is read part by part.
        """
        return self._all(lambda volume: volume.load() if volume.nbytes <= HELD_BYTES else volume)

    def at(self, layer: int) -> "Subject":
        """The same subject with one layer of its recordings; those beside it keep theirs.

        Raises
        ------
        KeyError
            If that layer was not recorded.
        """
        return self._each(lambda volume: volume.sel(layer=[layer]))

    def relabel(self, label: str, values: np.ndarray) -> "Subject":
        """The same recordings under another labelling: one value a stimulus.

        Those beside it keep their labels.
        """
        return self._each(
            lambda volume: volume.assign_coords({label: ("stimulus", np.asarray(values))})
        )

    def twin(self, seed: int) -> "Subject":
        """The untrained twin of that seed, over the same stimuli and labels; beside the same.

        Raises
        ------
        KeyError
            If no twin with that seed was recorded.
        """
        return Subject(f"{self.name}.twin{seed}", self.twins[seed], {}, self.beside)

    def set_beside(self, *others: "Subject") -> "Subject":
        """The same subject beside others."""
        return replace(self, beside=others)

    def without_twins(self) -> "Subject":
        """The same subject alone, and those beside it."""
        beside = tuple(other.without_twins() for other in self.beside)
        return replace(self, twins={}, beside=beside)

    def replace_volume(self, volume: xr.Dataset) -> "Subject":
        """The same stimuli with something else in the place of the activations."""
        return replace(self, volume=volume, twins={})

    def _all(self, change: Callable[[xr.Dataset], xr.Dataset]) -> "Subject":
        beside = tuple(other._all(change) for other in self.beside)
        return replace(self._each(change), beside=beside)

    def _each(self, change: Callable[[xr.Dataset], xr.Dataset]) -> "Subject":
        return replace(
            self,
            volume=change(self.volume),
            twins={seed: change(twin) for seed, twin in self.twins.items()},
        )


def _only(volume: xr.Dataset, site: str) -> xr.Dataset:
    """One kind of site, and what is told of stimuli and of its dimensions."""
    volume = volume.drop_vars([kind for kind in volume.data_vars if kind != site])
    about = {"stimulus", *volume[site].dims} if site in volume else set(volume.dims)
    # Pairs of what it is of are told of it, too.
    about |= {f"other_{dim}" for dim in about}
    return volume.drop_vars(
        [name for name, values in volume.coords.items() if not set(values.dims) <= about]
    )


def _taken(volume: xr.Dataset, rows: np.ndarray) -> xr.Dataset:
    """Some of the stimuli, with their tokens and pairs of tokens where these are rows."""
    volume = volume.isel(stimulus=rows)
    for dim in ("token", "pair"):
        if dim in volume.dims:
            of = volume[f"{dim}_stimulus"].to_numpy()
            place = np.full(max(of.max(initial=-1), rows.max(initial=-1)) + 1, -1)
            place[rows] = np.arange(len(rows))
            kept = np.flatnonzero(place[of] >= 0)
            kept = kept[np.argsort(place[of[kept]], kind="stable")]
            volume = volume.isel({dim: kept}).assign_coords(
                {f"{dim}_stimulus": (dim, place[of[kept]])}
            )
    return volume
