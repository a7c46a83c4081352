"""Whether the representation collapses somewhere in the middle and recovers.

A dip is a layer that lies below some layer before it and some layer after it. Of many layers one
always dips by luck, so the three are chosen on half of the items and measured on the other half.
Two curves are searched: the effective rank of the patterns (Roy & Vetterli 2007), with and without
units of outlying spread, which can feign a collapse on their own (Timkey & van Schijndel 2021), and
the separability of the categories. What is lost at every token cannot come back, so that a dip of
rank without a dip of separability is a change of scale, and no loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from analyses.base import Analysis, register
from analyses.geometry import effective_rank, variances, without_outliers
from analyses.words import read_words
from scanner import Subject

Curve = Callable[[np.ndarray, np.ndarray], float]


@register
@dataclass(frozen=True)
class Collapse(Analysis):
    """Search layers for a dip.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table.
    splits : int
        Number of random halvings of the items.
    """

    site: str
    label: str = "category"
    splits: int = 50

    def __post_init__(self) -> None:
        if self.splits < 2:
            raise ValueError("splits must be at least 2")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Search.

        Returns
        -------
        xarray.Dataset
            ``separability`` (layer): the intraclass correlation of patterns, the share of their
            variance that lies between categories, 0 on average for none. For ``rank``,
            ``rank_without_outliers`` and ``separability``: ``dip_of_...``, by how much of its lower
            shoulder the curve dips in items that did not choose the dip, 0 or below for none; and
            ``lowest_dip_of_...``, the lower limit of its 90 % interval. NaN for fewer than three
            layers.

        Raises
        ------
        AnalysisError
            If a category has fewer than four items.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        # split x half x item
        halves = np.any(words.parts(2, each=2, splits=self.splits, rng=rng), axis=2)
        curves: dict[str, tuple[np.ndarray, Curve]] = {
            "rank": (words.patterns, _rank),
            "rank_without_outliers": (without_outliers(words.patterns), _rank),
            "separability": (words.patterns, separability),
        }
        found: dict[str, Any] = {
            "separability": (
                "layer", np.array([separability(one, words.codes) for one in words.patterns])
            )
        }  # fmt: skip
        for name, (patterns, curve) in curves.items():
            values = np.array(
                [
                    [[curve(layer[half], words.codes[half]) for layer in patterns] for half in two]
                    for two in halves
                ]
            )
            dips = np.array([[dip(one, other), dip(other, one)] for one, other in values])
            found[f"dip_of_{name}"] = ((), dips.mean())
            # Halves of the items vary as the whole does around the truth (Shao & Wu 1989).
            found[f"lowest_dip_of_{name}"] = ((), dips.mean() - 1.645 * dips.mean(1).std(ddof=1))
        return xr.Dataset(found, coords={"layer": subject.volume["layer"].to_numpy()})


def _rank(patterns: np.ndarray, codes: np.ndarray) -> float:
    return effective_rank(variances(patterns))


def separability(patterns: np.ndarray, codes: np.ndarray) -> float:
    """The intraclass correlation of patterns over all units (Fisher 1925).

    Parameters
    ----------
    patterns : numpy.ndarray
        item x unit.
    codes : numpy.ndarray
        item.

    Returns
    -------
    float
        NaN if all items are the same.
    """
    kinds, which, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    centred = patterns - patterns.mean(0)
    means = (np.eye(len(kinds))[which].T / sizes[:, None]) @ centred
    between = np.sum(sizes[:, None] * means**2) / (len(kinds) - 1)
    within = np.sum((centred - means[which]) ** 2) / (len(codes) - len(kinds))
    each = (len(codes) - np.sum(sizes**2) / len(codes)) / (len(kinds) - 1)
    whole = between + (each - 1) * within
    return float((between - within) / whole) if whole > 0 else float("nan")


def dip(chooses: np.ndarray, judges: np.ndarray) -> float:
    """How far a curve dips at the layers where another dips most, relative to its lower shoulder.

    Parameters
    ----------
    chooses, judges : numpy.ndarray
        layer; the same curve in other items.

    Returns
    -------
    float
        NaN for fewer than three layers, or where a value is no number.
    """
    if len(chooses) < 3 or not np.isfinite([*chooses, *judges]).all():
        return float("nan")
    before = np.maximum.accumulate(chooses)[:-2]
    after = np.maximum.accumulate(chooses[::-1])[::-1][2:]
    bottom = 1 + int(np.argmax(np.minimum(before, after) - chooses[1:-1]))
    left = int(np.argmax(chooses[:bottom]))
    right = bottom + 1 + int(np.argmax(chooses[bottom + 1 :]))
    shoulder = min(judges[left], judges[right])
    return float((shoulder - judges[bottom]) / abs(shoulder)) if shoulder else float("nan")
