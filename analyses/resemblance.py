"""Which of all models resemble each other: their distances, and a map of them.

Every two subjects, twins included, are as far apart as their layers are from being alike: one less
the debiased CKA of a layer with the most alike layer of the other model in other items, on average
over layers, both ways. The map is classical scaling (Torgerson 1952) of these distances.
"""

from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.base import Analysis, Asks, register
from analyses.universality import Universality, at_depths
from scanner import Subject


@register
@dataclass(frozen=True)
class Resemblance(Analysis):
    """Hold all subjects against each other.

    Attributes
    ----------
    site : str
        Kind of site to read.
    splits : int
        Halvings of the items, in one half of which layers are chosen.
    depths : int
        Layers of each model that are compared, evenly through its depth; all if it has fewer.
    """

    asks: ClassVar[Asks] = "likeness"

    site: str
    splits: int = 2
    depths: int = 6

    def __post_init__(self) -> None:
        if self.splits < 1:
            raise ValueError("splits must be at least 1")
        if self.depths < 1:
            raise ValueError("depths must be at least 1")

    @property
    def takes(self) -> None:
        return None

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare all with all.

        Returns
        -------
        xarray.Dataset
            ``apart`` (subject, other_subject): 0 for the same, 1 for what has nothing in common.
            ``places`` (subject, axis): a map of them; the coordinate ``label`` says which are
            untrained.

        Raises
        ------
        AnalysisError
            If there are fewer than eight items, or the subjects have read other ones.
        """
        every = [
            at_depths(one, self.depths) for subject in subjects for one in _with_twins(subject)
        ]
        trained = {subject.name for subject in subjects}
        apart = np.zeros((len(every), len(every)))
        compare = Universality(self.site, splits=self.splits, depths=self.depths)
        for (i, one), (j, other) in combinations(enumerate(every), 2):
            both_ways = [
                compare.measured(*pair, variable="cka", rng=deepcopy(rng)).mean()
                for pair in ((one, other), (other, one))
            ]
            apart[i, j] = apart[j, i] = 1 - float(np.mean(both_ways))
        names = [one.name for one in every]
        return xr.Dataset(
            {
                "apart": (("subject", "other_subject"), apart),
                "places": (("subject", "axis"), scaled(apart)),
            },
            coords={
                "subject": names,
                "other_subject": names,
                "label": (
                    "subject",
                    ["trained" if name in trained else "untrained" for name in names],
                ),
            },
        )


def _with_twins(subject: Subject) -> list[Subject]:
    return [subject.without_twins(), *(subject.twin(seed) for seed in subject.twins)]


def scaled(apart: np.ndarray) -> np.ndarray:
    """Places in a plane whose distances are nearest to those given (Torgerson 1952).

    Parameters
    ----------
    apart : numpy.ndarray
        object x object, symmetric.

    Returns
    -------
    numpy.ndarray
        object x axis, around 0; two axes, the second 0 where one says all. Of each axis the object
        that is farthest out is on the positive side.
    """
    n = len(apart)
    centre = np.eye(n) - 1 / n
    sizes, axes = np.linalg.eigh(-0.5 * centre @ apart**2 @ centre)
    kept = np.argsort(-sizes)[:2]
    found = np.zeros((n, 2))
    found[:, : len(kept)] = axes[:, kept] * np.sqrt(np.maximum(sizes[kept], 0))
    farthest = found[np.abs(found).argmax(0), np.arange(2)]
    return found * np.where(farthest < 0, -1, 1)
