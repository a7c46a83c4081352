"""Intervals and p-values of the gate: the one place where stimuli are resampled.

The sample is the items. Every interval comes from the delete-d jackknife with half of the items of
each category deleted (Wu 1986; Shao & Wu 1989), or a third where the measure is not smooth: the
analysis is run again, from splitting to fitting, on what is left of the items, and the spread of
the results gives the standard error of the whole. Unlike the bootstrap it never puts the same item
on both sides of a split.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from analyses.splits import item_groups

HALF_SAMPLES = 100


def stream(seed: int, *names: str) -> np.random.Generator:
    """A generator for one purpose: the same seed and names give the same numbers, anywhere.

    Parameters
    ----------
    seed : int
        Of the protocol.
    *names : str
        What the numbers are for.
    """
    words = hashlib.sha256("/".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(words, dtype=np.uint32)])


@dataclass(frozen=True)
class HalfSamples:
    """Random halves of the items, or larger parts, stratified by category.

    Attributes
    ----------
    rows : tuple of numpy.ndarray
        The stimuli of each.
    scale : float
        Kept over deleted items: what turns their spread into the variance of the whole.
    freedom : int
        Degrees of freedom: items less categories.
    """

    rows: tuple[np.ndarray, ...]
    scale: float
    freedom: int

    @classmethod
    def draw(
        cls,
        items: np.ndarray,
        categories: np.ndarray,
        *,
        draws: int = HALF_SAMPLES,
        deleted: int = 2,
        rng: np.random.Generator,
    ) -> "HalfSamples":
        """Draw halves, or larger parts.

        Parameters
        ----------
        items, categories : numpy.ndarray
            The item and category of each stimulus.
        draws : int
        deleted : int
            One item in so many is left out.
        rng : numpy.random.Generator

        Raises
        ------
        ValueError
            If a category has fewer items than that.
        """
        # Of an odd number of items, group 0 has the larger half, which is deleted: nothing then
        # depends on which side an analysis was given.
        rows = tuple(
            np.flatnonzero(item_groups(items, categories, groups=deleted, rng=rng) != 0)
            for _ in range(draws)
        )
        total = len(np.unique(items))
        kept = len(np.unique(items[rows[0]]))
        return cls(rows, kept / (total - kept), total - len(np.unique(categories)))


@dataclass(frozen=True)
class Estimate:
    """A value with the values that half-samples of the items give.

    Attributes
    ----------
    value : float
    draws : numpy.ndarray
        draw; paired with those of another estimate over the same half-samples.
    scale, freedom
        See `HalfSamples`.
    """

    value: float
    draws: np.ndarray
    scale: float
    freedom: float

    @property
    def constant(self) -> bool:
        """Whether the half-samples differ by no more than rounding."""
        return bool(np.ptp(self.draws) <= 1e-12 * max(1.0, np.abs(self.draws).max()))

    @property
    def standard_error(self) -> float:
        if self.constant:
            return 0.0
        # Around the mean of the halves, not the whole: what is fitted on fewer items is a little
        # worse throughout, which is no uncertainty.
        return float(np.sqrt(self.scale * self.draws.var(ddof=1)))

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided interval of that confidence, by Student's t."""
        half = float(student.ppf((1 + level) / 2, self.freedom)) * self.standard_error
        return self.value - half, self.value + half

    def p_greater(self, bound: float) -> float:
        """One-sided p of the hypothesis that the value is at most `bound`."""
        if self.constant:
            return 0.0 if self.value > bound else 1.0
        return float(student.sf((self.value - bound) / self.standard_error, self.freedom))

    @property
    def bayes_factor(self) -> float:
        """For an effect, on whichever side, against none; NaN where nothing varies."""
        if self.constant:
            return float("nan")
        return bayes_factor(self.value / self.standard_error, self.freedom)

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The paired difference: both were measured on the same half-samples."""
        return Estimate(
            self.value - other.value, self.draws - other.draws, self.scale, self.freedom
        )


def strongest(worlds: Mapping[str, Estimate]) -> tuple[str, Estimate]:
    """What the strongest of several worlds shows, with less of the luck of being the strongest.

    The largest of several noisy effects is large partly by chance, and the more so the more worlds
    there are. So each world counts by the share of half-samples in which it is the strongest, all
    spread around the effects in the whole: one that stands out counts alone, many that show nothing
    are averaged (Breiman 1996; Efron 2014, on choices smoothed over resamples).

    Parameters
    ----------
    worlds : mapping of str to Estimate
        Over the same half-samples; at least one.

    Returns
    -------
    str
        The worlds and their shares, the largest first.
    Estimate
    """
    draws = np.array([world.draws for world in worlds.values()])
    values = np.array([world.value for world in worlds.values()])
    # The spread of half-samples is that of the whole, but what is fitted on half of the items is
    # nearer to nothing in each world: around their values, the worlds are as far apart as they are.
    around = values[:, None] + draws - draws.mean(1, keepdims=True)
    shares = np.bincount(around.argmax(0), minlength=len(draws)) / draws.shape[1]
    some = next(iter(worlds.values()))
    counted = sorted(zip(shares, worlds, strict=True), key=lambda one: -one[0])
    words = ", ".join(f"{name} {share:.0%}" for share, name in counted if share > 0)
    return words, Estimate(
        float(shares @ values), np.asarray(shares @ draws), some.scale, some.freedom
    )


def bayes_factor(t: float, freedom: float, *, scale: float = 0.5**0.5) -> float:
    """How much more likely a t is if there is an effect than if there is none.

    After Jeffreys, Zellner and Siow, as given by Rouder et al. (2009): the standardised effect has
    a Cauchy prior of that scale.

    Parameters
    ----------
    t : float
        Effect over its standard error.
    freedom : float
        Degrees of freedom; one less than the number of observations.
    scale : float

    Returns
    -------
    float
        Above 1 for an effect, below 1 against it.
    """
    n = freedom + 1

    def weighed(g: float) -> float:
        spread = 1 + n * g * scale**2
        likelihood = spread**-0.5 * (1 + t**2 / (spread * freedom)) ** (-(freedom + 1) / 2)
        return likelihood * (2 * np.pi) ** -0.5 * g**-1.5 * np.exp(-1 / (2 * g))

    without = (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    # A t beyond all doubt leaves nothing of the likelihood without an effect.
    return float(quad(weighed, 0, np.inf)[0] / without) if without > 0 else float("inf")


def holm(p: list[float]) -> list[float]:
    """P-values adjusted for their number after Holm (1979)."""
    adjusted = np.asarray(multipletests(p, method="holm")[1]) if p else np.array([])
    return [float(value) for value in adjusted]


def permutation_p(observed: float, permuted: np.ndarray) -> float:
    """Share of permutations that reach the observed value, itself one (Phipson & Smyth 2010)."""
    return float((1 + np.sum(permuted >= observed)) / (1 + len(permuted)))


def items_needed(items: int, half_width: float, distance: float) -> int | None:
    """About how many items would shrink an interval's half-width to `distance`.

    None where the value lies on the boundary, so that no number would.
    """
    if distance <= 0 or not np.isfinite(half_width):
        return None
    return int(np.ceil(items * (half_width / distance) ** 2))
