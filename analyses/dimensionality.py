"""Over how many dimensions a category's items, and the means of the categories, are spread.

Cross-validated principal components (Stringer et al. 2019): axes come from one half of the data,
and the variance along each is the product of both halves, so that noise, which the halves do not
share, adds none. The participation ratio of these variances (Gao et al. 2017) is the number of
dimensions.

Halves of frames tell the dimensions of the items of a category, halves of items those of the means
of categories. Where we differ: the halves are never repetitions, since a model that is asked twice
answers the same; units are scaled by their spread, since a few large ones would decide
(Timkey & van Schijndel 2021).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, labels, read, register
from analyses.splits import item_groups
from analyses.words import in_spreads, read_words, without_frames, word_means
from scanner import Subject


@register
@dataclass(frozen=True)
class Dimensionality(Analysis):
    """Count dimensions of variance, without that of noise.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table.
    splits : int
        Number of random halvings to average over.
    """

    site: str
    label: str = "category"
    splits: int = 20

    def __post_init__(self) -> None:
        if self.splits < 1:
            raise ValueError("splits must be at least 1")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Count.

        Returns
        -------
        xarray.Dataset
            ``between`` (layer): of the means of categories, at most one less than there are;
            ``within`` (layer, category): of the items of a category, at most one less than there
            are. NaN where halves share no variance. ``shared`` (layer): the share of the variance
            of the means of categories in one half of the items that is there in the other; near
            0, ``between`` counts noise.

        Raises
        ------
        AnalysisError
            If a category has fewer than four items, there are fewer than two frames, or an item is
            in no frame of a half.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        halves = words.parts(2, each=2, splits=self.splits, rng=rng).astype(float)
        halves /= halves.sum(-1, keepdims=True)
        between = np.zeros((len(words.patterns), len(words.names) - 1))
        whole = np.zeros(len(words.patterns))
        for layer, patterns in enumerate(in_spreads(words.patterns, words.patterns)):
            for means in halves @ patterns:
                between[layer] += shared_variances(*means)
                whole[layer] += means.var(1, ddof=1).sum() / 2
        return xr.Dataset(
            {
                "between": ("layer", participation(between)),
                "within": (("layer", "category"), self._within(subject, rng)),
                "shared": ("layer", between.sum(1) / whole),
            },
            coords={"layer": subject.volume["layer"].to_numpy(), "category": words.names},
        )

    def _within(self, subject: Subject, rng: np.random.Generator) -> np.ndarray:
        """Layer x category, from halves of the frames."""
        x, codes, names = read(subject, self.site, self.label)
        items, frames = labels(subject, "item"), labels(subject, "frame")
        count = len(np.unique(frames))
        if count < 2:
            raise AnalysisError(f"dimensionality: {count} frame; 2 are needed")
        variances: dict[int, np.ndarray] = {}
        # There are only so many ways to halve a few frames.
        for _ in range(min(self.splits, 2 ** (count - 1) - 1)):
            group = item_groups(frames, np.zeros(len(frames), int), groups=2, rng=rng)
            halves = [
                word_means(
                    (layer[rows] for layer in scaled(x, frames)),
                    items[rows],
                    frames[rows],
                    codes[rows],
                )
                for rows in (group == 0, group == 1)
            ]
            (one, of_one, known), (other, _, found) = halves
            if not np.array_equal(known, found):
                missing = np.setxor1d(known, found)[0]
                raise AnalysisError(
                    f"dimensionality: '{missing}' is in no frame of one half of the frames"
                )
            for code in range(len(names)):
                rows = np.flatnonzero(of_one == code)
                found_here = [
                    shared_variances(a[rows], b[rows]) for a, b in zip(one, other, strict=True)
                ]
                variances[code] = variances.get(code, 0.0) + np.array(found_here)
        return np.array([participation(variances[code]) for code in range(len(names))]).T


def scaled(x: Iterable[np.ndarray], frames: np.ndarray) -> Iterator[np.ndarray]:
    """Each layer, stimulus x unit, without the mean of each frame and in spreads of each unit."""
    return (in_spreads(without_frames(layer, frames), layer) for layer in x)


def shared_variances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The variance that two measurements share along the principal axes of either, averaged.

    Parameters
    ----------
    one, other : numpy.ndarray
        item x unit; the same items.

    Returns
    -------
    numpy.ndarray
        axis, one less than there are items; those of largest variance in the sample that they come
        from first. Noise has a mean of zero, so some are negative.
    """
    one, other = one - one.mean(0), other - other.mean(0)
    cross = one @ other.T
    found = np.zeros(len(one) - 1)
    for sample, product in ((one, cross), (other, cross.T)):
        _, axes = np.linalg.eigh(sample @ sample.T)
        # The last has no variance: that of what all items share.
        axes = axes[:, :0:-1]
        found += np.einsum("ia,ij,ja->a", axes, product, axes, optimize=True)
    return found / (2 * (len(one) - 1))


def participation(variances: np.ndarray) -> np.ndarray:
    """(sum)^2 / sum of squares over the last axis (Gao et al. 2017); NaN if the sum is not above 0.

    Of variances that may be negative by noise.
    """
    total = variances.sum(-1)
    squares = np.sum(variances**2, axis=-1)
    return np.divide(total**2, squares, out=np.full(total.shape, np.nan), where=total > 0)
