"""Over how many units the direction of a category spreads.

The direction is the mean of the category's items less that of all others, and the participation
ratio is (sum of w^2)^2 / sum of w^4 over its units (Gao et al. 2017): 1 for a single unit, all for
a direction of equal parts, and a third of them for one drawn at random. Noise of the means alone
looks like a random direction, so w^2 and w^4 are products of means of four parts of the items that
share none, which noise does not bias.

It is given relative to what the same direction has when it is turned at random, (units + 2) / 3:
about 1 says that the units are no better a basis than any other, below 1 that the direction is
concentrated in some of them, above 1 that it has parts of one size.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import Analysis, register
from analyses.selectivity import row_correlation
from analyses.words import in_spreads, read_words
from scanner import Subject

# Values of directions held at once, as in `selectivity`.
AT_ONCE = 2**16


@register
@dataclass(frozen=True)
class Participation(Analysis):
    """Count the units of a direction, without those of noise.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table.
    splits : int
        Number of random divisions of the items into four parts.
    """

    site: str
    label: str = "category"
    splits: int = 50

    def __post_init__(self) -> None:
        if self.splits < 1:
            raise ValueError("splits must be at least 1")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Count.

        Returns
        -------
        xarray.Dataset
            ``spread`` (layer, category): the participation ratio of the direction over that of the
            same direction turned at random, in units as they are; ``spread_scaled``: the same in
            units of each unit's spread over items, in which a few large ones do not decide.
            ``units`` (layer, category): the participation ratio itself, of units as they are.
            NaN where parts of the items do not agree on a direction. ``agreement`` (layer): the
            correlation of directions between parts, mean over categories.

        Raises
        ------
        AnalysisError
            If a category has fewer than eight items.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        parts = words.parts(4, each=2, splits=self.splits, rng=rng)
        found = [_spreads(patterns, parts) for patterns in words.patterns]
        columns = {name: np.array([one[name] for one in found]) for name in found[0]}
        return xr.Dataset(
            {
                name: (("layer", "category")[: values.ndim], values)
                for name, values in columns.items()
            },
            coords={"layer": subject.volume["layer"].to_numpy(), "category": words.names},
        )


def _spreads(patterns: np.ndarray, parts: np.ndarray) -> dict[str, np.ndarray]:
    units, agreement = _units(patterns, parts)
    even, _ = _units(in_spreads(patterns, patterns), parts)
    # The mean over all rotations of sum w^4 / (sum w^2)^2 is 3 / (units + 2).
    random = (patterns.shape[1] + 2) / 3
    return {
        "spread": units / random,
        "spread_scaled": even / random,
        "units": units,
        "agreement": np.array(agreement),
    }


def _units(patterns: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, float]:
    """The participation ratio of each category, and how much the directions of parts are alike."""
    count = patterns.shape[1]
    squared, fourth = np.zeros((2, parts.shape[2]))
    agreement = []
    some = max(1, AT_ONCE // (4 * parts.shape[2] * count))
    for start in range(0, len(parts), some):
        # part x split x category x unit
        a, b, c, d = np.moveaxis(directions(patterns, parts[start : start + some]), 1, 0)
        squared += np.sum(np.sum(a * b, axis=-1) * np.sum(c * d, axis=-1), axis=0)
        fourth += np.sum(a * b * c * d, axis=(0, 2))
        agreement.append(row_correlation(a, b).mean(1))
    return participation(squared, fourth, count), float(np.mean(np.concatenate(agreement)))


def directions(patterns: np.ndarray, member: np.ndarray) -> np.ndarray:
    """The mean of each category less that of all other items.

    Parameters
    ----------
    patterns : numpy.ndarray
        item x unit.
    member : numpy.ndarray
        ... x category x item, bool: whose category is which; items of none are left out.

    Returns
    -------
    numpy.ndarray
        ... x category x unit.
    """
    inside = member.astype(float)
    outside = inside.sum(-2, keepdims=True) - inside
    inside /= inside.sum(-1, keepdims=True)
    outside /= outside.sum(-1, keepdims=True)
    return (inside - outside) @ patterns


def participation(squared: np.ndarray, fourth: np.ndarray, units: int) -> np.ndarray:
    """(sum of w^2)^2 / sum of w^4 from unbiased estimates of both; NaN where noise is all.

    Parameters
    ----------
    squared, fourth : numpy.ndarray
        category; estimates of (sum of w^2)^2 and of sum of w^4.
    units : int
        How many there are; noise may count a few more, but not twice as many.
    """
    good = (squared > 0) & (2 * units * fourth >= squared)
    return np.divide(squared, fourth, out=np.full(squared.shape, np.nan), where=good)
