"""A model in the scanner together with its volume: what analyses read and controls change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr


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
    """

    name: str
    volume: xr.Dataset
    twins: Mapping[int, xr.Dataset]

    def take(self, rows: np.ndarray) -> "Subject":
        """The same subject with some of the stimuli, given by their rows, each at most once."""
        return self._each(lambda volume: _taken(volume, rows))

    def keep(self, site: str) -> "Subject":
        """The same subject with one kind of site of its recordings."""
        return self._each(
            lambda volume: volume.drop_vars([kind for kind in volume.data_vars if kind != site])
        )

    def load(self) -> "Subject":
        """The same subject with its recordings in memory: volumes are opened lazily."""
        return self._each(lambda volume: volume.load())

    def at(self, layer: int) -> "Subject":
        """The same subject with one layer of its recordings.

        Raises
        ------
        KeyError
            If that layer was not recorded.
        """
        return self._each(lambda volume: volume.sel(layer=[layer]))

    def relabel(self, label: str, values: np.ndarray) -> "Subject":
        """The same recordings under another labelling: one value a stimulus."""
        return self._each(
            lambda volume: volume.assign_coords({label: ("stimulus", np.asarray(values))})
        )

    def twin(self, seed: int) -> "Subject":
        """The untrained twin of that seed, over the same stimuli and labels.

        Raises
        ------
        KeyError
            If no twin with that seed was recorded.
        """
        return Subject(f"{self.name}.twin{seed}", self.twins[seed], {})

    def replace_volume(self, volume: xr.Dataset) -> "Subject":
        """The same stimuli with something else in the place of the activations."""
        return replace(self, volume=volume, twins={})

    def _each(self, change: Callable[[xr.Dataset], xr.Dataset]) -> "Subject":
        return replace(
            self,
            volume=change(self.volume),
            twins={seed: change(twin) for seed, twin in self.twins.items()},
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
