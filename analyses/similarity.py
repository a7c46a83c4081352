"""How alike layers are by other measures than CKA, each in items that it was not fitted on.

- Procrustes (Schönemann 1966): how well one is the other after a rotation.
- SVCCA (Raghu et al. 2017): the mean correlation of the directions that correlate most.
- PWCCA (Morcos et al. 2018): the same, weighed by how much of the first a direction carries.
- Mutual nearest neighbours (Huh et al. 2024): the share of the nearest items by cosine that are the
  same; of unrelated layers it is neighbours / (items - 1).

Where we differ: rotations and canonical directions are fitted on some items and judged on others,
since with more units than items both fit anything (unrelated patterns of 120 items in 600 units
have a Procrustes similarity of 0.95). They are fitted on principal components, a tenth as many as
there are items.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, register
from analyses.geometry import without_outliers
from analyses.splits import item_groups
from analyses.words import same_words
from scanner import Subject


@register
@dataclass(frozen=True)
class Similarity(Analysis):
    """Procrustes, SVCCA, PWCCA and mutual nearest neighbours of every two layers.

    Attributes
    ----------
    site : str
        Kind of site to read.
    across : bool
        Between every two subjects, in the place of between the layers of each.
    item_folds : int
        Groups of items that take turns as the test.
    components : float
        How many principal components are compared, as a share of the items.
    neighbours : int
    """

    site: str
    across: bool = False
    item_folds: int = 5
    components: float = 0.1
    neighbours: int = 10

    def __post_init__(self) -> None:
        if self.item_folds < 2:
            raise ValueError("item_folds must be at least 2")
        if not 0 < self.components <= 0.5:
            raise ValueError("components must be a share of the items above 0, at most 0.5")
        if self.neighbours < 1:
            raise ValueError("neighbours must be at least 1")

    @property
    def takes(self) -> int:
        return 2 if self.across else 1

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare all layers with all.

        Returns
        -------
        xarray.Dataset
            ``procrustes``, ``svcca``, ``pwcca`` and ``mutual_neighbours``, each also
            ``_without_outliers``, the units of outlying spread (layer, other_layer): the layers of
            the first subject and of the second, or of the same. NaN where a layer is the same for
            all items.

        Raises
        ------
        AnalysisError
            If there are too few items, or the subjects have read other ones.
        """
        words, names = same_words(subjects, self.site)
        count = int(self.components * len(names))
        if count < 1 or len(names) <= self.neighbours or len(names) < 2 * self.item_folds:
            needed = max(
                int(np.ceil(1 / self.components)), self.neighbours + 1, 2 * self.item_folds
            )
            raise AnalysisError(f"similarity: {len(names)} items; {needed} are needed")
        group = item_groups(names, np.zeros(len(names)), groups=self.item_folds, rng=rng)
        even = [without_outliers(patterns) for patterns in words]
        found = {}
        for suffix, patterns in (("", words), ("_without_outliers", even)):
            left, right = patterns[0], patterns[-1]
            fitted = _fitted(left, right, group, count)
            shared = mutual_neighbours(left, right, self.neighbours)
            for name, values in {**fitted, "mutual_neighbours": shared}.items():
                found[name + suffix] = (("layer", "other_layer"), values)
        return xr.Dataset(
            found,
            coords={
                "layer": subjects[0].volume["layer"].to_numpy(),
                "other_layer": subjects[-1].volume["layer"].to_numpy(),
            },
        )


class _Parts(NamedTuple):
    """Principal components of a layer: of the items that fit, and of those that judge."""

    fit: np.ndarray
    judge: np.ndarray


def _fitted(
    left: np.ndarray, right: np.ndarray, group: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    """What is fitted on some items and judged on others, averaged over folds: layer x layer."""
    names = ("procrustes", "svcca", "pwcca")
    folds = np.unique(group)
    found = {name: np.zeros((len(left), len(right))) for name in names}
    for one in folds:
        of_left = [_parts(layer, group == one, count) for layer in left]
        of_right = of_left if right is left else [_parts(x, group == one, count) for x in right]
        for row, a in enumerate(of_left):
            for column, b in enumerate(of_right):
                found["procrustes"][row, column] += procrustes(a, b) / len(folds)
                plain, weighed = canonical(a, b)
                found["svcca"][row, column] += plain / len(folds)
                found["pwcca"][row, column] += weighed / len(folds)
    return found


def _parts(layer: np.ndarray, judges: np.ndarray, count: int) -> _Parts:
    fit, judge = layer[~judges], layer[judges]
    mean = fit.mean(0)
    left, sizes, right = np.linalg.svd(fit - mean, full_matrices=False)
    # What is the same for all items leaves rounding.
    kept = sizes[:count] > 1e-10 * max(np.linalg.norm(fit), np.finfo(float).tiny)
    axes = right[:count][kept]
    return _Parts(left[:, :count][:, kept] * sizes[:count][kept], (judge - mean) @ axes.T)


def procrustes(left: _Parts, right: _Parts) -> float:
    """The cosine of one and the rotated other, in items that did not fit the rotation.

    NaN if one of them does not vary.
    """
    if not left.fit.size or not right.fit.size:
        return float("nan")
    u, _, v = np.linalg.svd(left.fit.T @ right.fit, full_matrices=False)
    size = np.linalg.norm(left.judge) * np.linalg.norm(right.judge)
    return float(np.sum((left.judge @ u) * (right.judge @ v.T)) / size)


def canonical(left: _Parts, right: _Parts) -> tuple[float, float]:
    """Correlations of canonical directions, averaged plainly and weighed by projection.

    Returns
    -------
    svcca, pwcca : float
        In items that did not fit the directions. NaN if one of the two does not vary.
    """
    if not left.fit.size or not right.fit.size:
        return float("nan"), float("nan")
    # Components have no correlation in the items that fit, so scaling them whitens.
    of_left, of_right = (1 / np.linalg.norm(side.fit, axis=0) for side in (left, right))
    u, _, v = np.linalg.svd((left.fit * of_left).T @ (right.fit * of_right), full_matrices=False)
    a, b = left.judge * of_left @ u, right.judge * of_right @ v.T
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    correlations = np.divide((a * b).sum(0), size, out=np.zeros(len(size)), where=size > 0)
    # How much of the first lies along each of its directions (Morcos et al. 2018, equation 2).
    weights = np.abs((left.fit * of_left @ u).T @ left.fit).sum(1)
    return float(correlations.mean()), float(np.average(correlations, weights=weights))


def mutual_neighbours(left: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """Share of the nearest items by cosine that are the same (Huh et al. 2024).

    Parameters
    ----------
    left, right : numpy.ndarray
        layer x item x unit; the same items.
    count : int
        How many neighbours.

    Returns
    -------
    numpy.ndarray
        layer of left x layer of right. NaN where all items of a layer are the same.
    """
    near = _neighbours(left, count)
    other = near if right is left else _neighbours(right, count)
    return near @ other.T / (count * left.shape[1])


def _neighbours(layers: np.ndarray, count: int) -> np.ndarray:
    """Whether an item is among the nearest of another, layer x pair; NaN where all are the same."""
    found = np.zeros((len(layers), layers.shape[1], layers.shape[1]))
    for near, layer in zip(found, layers, strict=True):
        centred = layer - layer.mean(0)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        if length.max() <= 1e-12 * np.linalg.norm(layer):
            near[:] = np.nan
            continue
        unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -np.inf)
        nearest = np.argpartition(-cosine, count, axis=1)[:, :count]
        np.put_along_axis(near, nearest, 1, axis=1)
    return found.reshape(len(layers), -1)
