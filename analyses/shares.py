"""Shares of items, and their intervals: what several questions about one item tell is one thing."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import binomtest, bootstrap
from statsmodels.stats.proportion import proportion_confint

from analyses.acting import kinds
from analyses.base import AnalysisError, labels
from analyses.words import averages
from scanner import Subject

LEVEL = 0.95
DRAWS = 1999


class Paired(NamedTuple):
    """Two models that were asked the same.

    Attributes
    ----------
    ahead : float
        By how much more the first one has, on average over items.
    low, high : float
        Its interval at 95 %, by bootstrap over items.
    p : float
        Two-sided, by changing signs of items at random.
    only_first, only_second : int
        Items that one answers and the other does not; of an item with several questions, most.
    mcnemar : float
        Two-sided and exact, of these.
    """

    ahead: float
    low: float
    high: float
    p: float
    only_first: int
    only_second: int
    mcnemar: float


def item_means(values: np.ndarray, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """... x item of ... x stimulus: the mean over an item's stimuli; and the names of items."""
    names, which = np.unique(labels(subject, "item"), return_inverse=True)
    return values.astype(float) @ averages(which).T, names


def of_items(values: np.ndarray, subject: Subject) -> np.ndarray:
    """The mean over items of ... x stimulus."""
    return item_means(values, subject)[0].mean(-1)


def of_categories(values: np.ndarray, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """The names of categories, and the mean over the items of each: ... x category."""
    means, items = item_means(values, subject)
    category = dict(zip(labels(subject, "item"), labels(subject, "category"), strict=True))
    names, which = np.unique([category[item] for item in items], return_inverse=True)
    return names, means @ averages(which).T


def macro(values: np.ndarray, subject: Subject) -> np.ndarray:
    """The mean over categories of that over their items."""
    return of_categories(values, subject)[1].mean(-1)


def all_kinds(volume: xr.Dataset, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Kinds of targets, and the mean of each: layer x kind, of target x layer."""
    given = kinds(volume)
    every = list(dict.fromkeys(given.tolist()))
    return every, np.stack([values[given == kind].mean(0) for kind in every], axis=1)


def wilson(shares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval of shares of so many items at 95 % (Wilson 1927)."""
    low, high = proportion_confint(shares * count, count, 1 - LEVEL, method="wilson")
    return np.asarray(low), np.asarray(high)


def bootstrapped(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The interval of a mean over items at 95 %, by percentiles of means of items drawn anew."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,), np.mean, confidence_level=LEVEL, n_resamples=DRAWS, method="percentile", rng=rng
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def paired(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Paired:
    """Hold two models against each other, item by item.

    Parameters
    ----------
    one, other : numpy.ndarray
        item: what each has, from 0 to 1 for McNemar's test to have a meaning.
    rng : numpy.random.Generator

    Raises
    ------
    AnalysisError
        If they have been asked about different numbers of items.
    """
    if len(one) != len(other):
        raise AnalysisError(f"{len(one)} and {len(other)} items; both must be asked the same")
    difference = one - other
    signs = rng.choice([-1.0, 1.0], size=(DRAWS, len(difference)))
    reached = np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9
    first, second = (int(np.sum(side)) for side in ((one > 0.5) & (other <= 0.5),
                                                    (other > 0.5) & (one <= 0.5)))  # fmt: skip
    mcnemar = binomtest(first, first + second).pvalue if first + second else 1.0
    low, high = bootstrapped(difference, rng)
    return Paired(
        float(difference.mean()), low, high, float((1 + reached.sum()) / (1 + DRAWS)),
        first, second, float(mcnemar),
    )  # fmt: skip
