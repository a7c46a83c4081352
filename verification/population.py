"""What is found in several models, taken for a sample of models.

A second level, as in studies of groups of brains (Holmes & Friston 1998): each model gives one
number, and what varies from model to model is the error. All have read the same items, so that what
is true of these items alone is in all of the numbers alike, and is no error between models; it is
added for means (Clark 1973, on language as a fixed effect).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.stats import norm, permutation_test, rankdata

from verification.statistics import Estimate, bayes_factor

# Fewer say nothing of others; a rank correlation of three has no interval.
FEWEST, FEWEST_TO_FOLLOW = 3, 5
# All orders of so few subjects are tried, and all signs of so few pairs; as many at random of more.
ORDERS = 9999


@dataclass(frozen=True)
class Side:
    """Where a subject stands in a claim about pairs.

    Attributes
    ----------
    pair : int
    sign : {1, -1}
        Whether its value is counted, or taken away.
    """

    pair: int
    sign: Literal[1, -1]

    def __float__(self) -> float:
        return float(self.sign)


def over_subjects(
    values: np.ndarray, scores: np.ndarray | None = None, within: Estimate | None = None
) -> Estimate:
    """The mean of a measure over subjects or pairs of them, or how far it follows their scores.

    Parameters
    ----------
    values : numpy.ndarray
        subject.
    scores : numpy.ndarray, optional
        subject; of a claim about pairs a `Side` each, and no number.
    within : Estimate, optional
        The mean over the same subjects with its values on half-samples of the items, the same in
        all: their error is added to that between subjects, with degrees of freedom after
        Satterthwaite (1946). Not for scores, where what all subjects share does not count, nor for
        pairs, of which both have it.
    """
    if scores is not None and scores.dtype == object:
        return Paired.of(values, scores)
    if scores is not None:
        return Association.of(values, scores)
    count, between = len(values), float(values.var(ddof=1))
    value = float(values.mean())
    items = 0.0 if within is None else within.standard_error**2
    error = between / count + items
    if between <= 1e-24 * max(1.0, value**2):
        return within or Estimate(value, values, 1 / count, count - 1)
    parts = (between / count) ** 2 / (count - 1)
    if within is not None and items:
        parts += items**2 / within.freedom
    return Estimate(value, values, error / between, error**2 / parts)


@dataclass(frozen=True)
class Paired(Estimate):
    """The mean difference over pairs of subjects; `draws` are the differences, pair."""

    @classmethod
    def of(cls, values: np.ndarray, sides: np.ndarray) -> "Paired":
        """From one value of each subject, and on which side of which pair it stands."""
        differences = np.zeros(1 + max(side.pair for side in sides))
        for value, side in zip(values, sides, strict=True):
            differences[side.pair] += side.sign * value
        count = len(differences)
        return cls(float(differences.mean()), differences, 1 / count, count - 1)

    def p_greater(self, bound: float) -> float:
        """Of all signs of the differences from `bound` (Fisher 1935): 1 of 2^n at least."""
        found = permutation_test(
            (self.draws - bound,),
            np.mean,
            permutation_type="samples",
            alternative="greater",
            vectorized=True,
            n_resamples=ORDERS,
            rng=np.random.default_rng(0),
        )
        return float(found.pvalue)


@dataclass(frozen=True)
class Association(Estimate):
    """Spearman's rank correlation with scores; `draws` are the values and `scores` beside them."""

    scores: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: np.ndarray, scores: np.ndarray) -> "Association":
        rho = spearman(values, scores)
        return cls(rho, values, 1.0, len(values) - 2, tuple(map(float, scores)))

    @property
    def constant(self) -> bool:
        return bool(np.isnan(self.value))

    @property
    def standard_error(self) -> float:
        """Of its arctanh (Bonett & Wright 2000)."""
        return float(np.sqrt((1 + self.value**2 / 2) / (len(self.draws) - 3)))

    def interval(self, level: float) -> tuple[float, float]:
        # A rank correlation moves by steps; from half a step nearer to zero an interval of few
        # subjects in perfect order has an end as well (Kendall & Gibbons 1990).
        count = len(self.draws)
        step = min(6 / (count**3 - count), abs(self.value))
        middle = np.arctanh(self.value - np.sign(self.value) * step)
        half = norm.ppf((1 + level) / 2) * self.standard_error
        low, high = np.tanh(middle - half), np.tanh(middle + half)
        return float(min(low, self.value)), float(max(high, self.value))

    def p_greater(self, bound: float) -> float:
        """Of the values dealt out among the subjects; by the interval if `bound` is not 0."""
        if bound:
            return float(
                norm.sf((np.arctanh(self.value) - np.arctanh(bound)) / self.standard_error)
            )
        return self._p

    @cached_property
    def _p(self) -> float:
        found = permutation_test(
            (self.draws,),
            lambda values: spearman(values, np.asarray(self.scores)),
            permutation_type="pairings",
            alternative="greater",
            vectorized=False,
            n_resamples=ORDERS,
            rng=np.random.default_rng(0),
        )
        return float(found.pvalue)

    @property
    def bayes_factor(self) -> float:
        if abs(self.value) >= 1:
            return float("nan")
        return bayes_factor(self.value * np.sqrt(self.freedom / (1 - self.value**2)), self.freedom)


def spearman(values: np.ndarray, scores: np.ndarray) -> float:
    """The correlation of ranks; NaN where one of the two does not vary."""
    ranks = np.array([rankdata(values), rankdata(scores)])
    ranks -= ranks.mean(1, keepdims=True)
    lengths = np.linalg.norm(ranks, axis=1)
    if not lengths.all():
        return float("nan")
    # Perfect order is 1, whatever rounding makes of it.
    return round(float(ranks[0] @ ranks[1] / lengths.prod()), 12)
