"""Whether single units, or features, of two models do the same over items.

Each unit of one model is matched with one of the other, all at once, so that the sum of their
correlations is greatest (Li et al. 2016; features of sparse autoencoders, Lan et al. 2024). The
best of many is alike to some extent whatever it holds: so pairs are found in one half of the items,
and correlate in the other.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from analyses.base import Analysis, AnalysisError, Asks, Quantity, register
from analyses.splits import item_groups
from analyses.universality import at_depths
from analyses.words import same_words
from scanner import Subject


@register
@dataclass(frozen=True)
class Matching(Analysis):
    """Match units one to one.

    Attributes
    ----------
    site : str
        Kind of site to read, or features by the name of their analysis.
    splits : int
        Halvings of the items.
    depths : int
        Layers of the other model among which the one is sought that matches best.
    """

    asks: ClassVar[Asks] = "likeness"

    site: str
    splits: int = 2
    depths: int = 6

    measures: ClassVar[Mapping[str, Quantity]] = {
        "matched": Quantity(
            "correlation over items of a unit with the one of the other model that it was matched "
            "with in other items, on average",
            -1.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if self.splits < 1 or self.depths < 1:
            raise ValueError("splits and depths must be at least 1")

    @property
    def takes(self) -> int:
        return 2

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Match.

        Returns
        -------
        xarray.Dataset
            By layer of the first subject: ``matched``, the mean correlation of pairs in items that
            did not match them, and ``closest``, the least of the twentieth that correlate most;
            ``matched_dealt``, as ``matched``, with the items of the second subject dealt out anew.
            There are as many pairs as the smaller layer has units; those that do nothing correlate
            by 0.

        Raises
        ------
        AnalysisError
            If there are fewer than eight items, or the subjects have read other ones.
        """
        left, right = self._words(*subjects)
        pairs = self._pairs(left, right, deepcopy(rng))
        dealt = self._pairs(left, rng.permutation(right, axis=1), rng)
        return xr.Dataset(
            {
                "matched": ("layer", pairs.mean((1, 2)), {"chance": 0.0}),
                "closest": ("layer", np.quantile(pairs, 0.95, axis=(1, 2))),
                "matched_dealt": ("layer", dealt.mean((1, 2))),
            },
            coords={"layer": subjects[0].volume["layer"].to_numpy()},
        )

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        left, right = self._words(*subjects)
        return xr.DataArray(
            self._pairs(left, right, rng).mean((1, 2)),
            dims="layer",
            coords={"layer": subjects[0].volume["layer"].to_numpy()},
            attrs={"chance": 0.0},
        )

    def _words(self, *subjects: Subject) -> list[np.ndarray]:
        """Of both subjects layer x item x unit; of the second some depths."""
        one, other = subjects
        words, names = same_words((one, at_depths(other, self.depths)), self.site)
        if len(names) < 8:
            raise AnalysisError(f"matching: {len(names)} items; 8 are needed")
        return words

    def _pairs(self, left: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Correlations of pairs in items that did not match them: layer x half x pair."""
        items = np.arange(left.shape[1])
        halves = [
            item_groups(items, np.zeros(len(items)), groups=2, rng=rng) for _ in range(self.splits)
        ]
        chosen = [half == side for half in halves for side in (0, 1)]
        return np.array([[_judged(one, right, some) for some in chosen] for one in left])


def _judged(one: np.ndarray, others: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Correlations of the pairs of one layer with the layer that matches best: pair.

    Parameters
    ----------
    one : numpy.ndarray
        item x unit.
    others : numpy.ndarray
        layer x item x unit.
    chosen : numpy.ndarray
        item, bool: those that match; the rest judges.
    """
    mine = standard(one[chosen])
    there = [mine.T @ standard(other[chosen]) / chosen.sum() for other in others]
    best = int(np.argmax([alike.max(1).mean() for alike in there]))
    unit, other_unit = linear_sum_assignment(there[best], maximize=True)
    held = standard(one[~chosen])[:, unit], standard(others[best][~chosen])[:, other_unit]
    return np.mean(held[0] * held[1], axis=0)


def standard(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and spread 1; 0 where all are the same."""
    centred = values - values.mean(0)
    spread = centred.std(0)
    alive = spread > 1e-9 * np.abs(values).max(0, initial=0)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=alive)
