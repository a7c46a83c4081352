"""Which units prefer which category, and whether that replicates in other items.

The selectivity of a unit for a category is d': the difference of its means in and out of the
category over the pooled spread of items. Both replication measures come from the same random
halves of the items: the share of the top units found again (chance is top / units), and the
correlation of the whole profile over units, stepped up to the full number of items
(Spearman 1910; Brown 1910). Selection and test never share an item (Vul et al. 2009).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, Quantity, labels, register, vectors
from analyses.words import Words, read_words, words_of
from scanner import Subject

# Values of d' held at once, so few that memory does not grow with the splits, and caches hold them.
AT_ONCE = 2**16


@register
@dataclass(frozen=True)
class Selectivity(Analysis):
    """Selectivity of units and its replication between halves of the items.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table.
    top : int
        How many of the most selective units are looked for again.
    splits : int
        Number of random halves to average over.
    """

    site: str
    label: str = "category"
    top: int = 20
    splits: int = 100

    measures: ClassVar[Mapping[str, Quantity]] = {
        "overlap": Quantity(
            "share of a category's top units that are top in the other half", 0, 1, smooth=False
        ),
        "profile": Quantity("correlation of profiles between halves, stepped up", -1, 1),
    }

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Measure selectivity.

        Returns
        -------
        xarray.Dataset
            ``overlap`` and ``profile`` (layer), means over categories and splits;
            ``overlap_by_category`` and ``profile_by_category`` (layer, category);
            ``selectivity`` (layer, category, unit), d' over all items.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        units = words.patterns.shape[2]
        overlap, profile = self._replicated(words, ("overlap", "profile"), rng)
        by_category = ("layer", "category")
        return xr.Dataset(
            {
                "overlap": ("layer", overlap.mean((1, 2)), {"chance": self.top / units}),
                "profile": ("layer", profile.mean((1, 2)), {"chance": 0.0}),
                "overlap_by_category": (by_category, overlap.mean(1)),
                "profile_by_category": (by_category, profile.mean(1)),
                "selectivity": (
                    ("layer", "category", "unit"),
                    np.array([d_prime(word, words.member) for word in words.patterns]),
                ),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "category": words.names,
                "unit": np.arange(units),
            },
        )

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        every = np.arange(subjects[0].volume.sizes["stimulus"])
        (found,) = self.measured_in(*subjects, variable=variable, parts=[every], rng=rng)
        return found

    def measured_in(
        self,
        *subjects: Subject,
        variable: str,
        parts: Iterable[np.ndarray],
        rng: np.random.Generator,
    ) -> Iterator[xr.DataArray]:
        """Recordings and labels are read once, and no more is computed than is asked."""
        (subject,) = subjects
        x = vectors(subject, self.site)
        columns = [labels(subject, column) for column in ("item", "frame", self.label)]
        chance = self.top / x.shape[2] if variable == "overlap" else 0.0
        made = xr.DataArray(
            np.zeros(len(x)),
            dims="layer",
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": chance},
        )
        for rows in parts:
            items, frames, values = (column[rows] for column in columns)
            words = words_of(x.take(rows), items, frames, values, self.label)
            (found,) = self._replicated(words, (variable,), deepcopy(rng))
            yield made.copy(deep=False, data=found.mean((1, 2)))

    def _replicated(
        self, words: Words, variables: Sequence[str], rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Of each variable layer x split x category."""
        units = words.patterns.shape[2]
        if units <= self.top:
            raise AnalysisError(f"selectivity: top {self.top} of only {units} units")
        halves = words.parts(2, each=2, splits=self.splits, rng=rng)
        found = [np.empty((len(words.patterns), self.splits, len(words.names))) for _ in variables]
        some = max(1, AT_ONCE // (2 * len(words.names) * units))
        for layer, word in enumerate(words.patterns):
            for start in range(0, self.splits, some):
                now = slice(start, start + some)
                a, b = d_prime(word, halves[now]).swapaxes(0, 1)
                for variable, values in zip(variables, found, strict=True):
                    values[layer, now] = (
                        top_overlap(a, b, self.top)
                        if variable == "overlap"
                        else stepped_up(row_correlation(a, b))
                    )
        return found


def d_prime(words: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Selectivity of every unit for every category.

    Parameters
    ----------
    words : numpy.ndarray
        item x unit.
    member : numpy.ndarray
        ... x category x item, bool: whose category is which; items of none are left out.

    Returns
    -------
    numpy.ndarray
        ... x category x unit: (mean in - mean out) / spread within the two groups, pooled. A unit
        that does not vary prefers nothing and gets 0.
    """
    size = np.sqrt(np.mean(words**2, axis=0))
    words = words - words.mean(0)  # what is common to all would only be rounded
    weights = member.astype(float)
    everyone = weights.sum(-2)
    n, items = weights.sum(-1)[..., None], everyone.sum(-1)[..., None]
    apart = weights @ words
    mean = apart.sum(-2) / items
    apart -= n * mean[..., None, :]
    difference = apart * (items[..., None] / (n * (items[..., None] - n)))
    # Of the sum of squares around the mean, what the two means do not account for.
    apart *= difference
    within = np.subtract((everyone @ words**2 - items * mean**2)[..., None, :], apart, out=apart)
    within /= items[..., None] - 2
    return over_spread(difference, within, size)


def over_spread(difference: np.ndarray, variance: np.ndarray, size: np.ndarray) -> np.ndarray:
    """A difference in standard deviations; 0 for a unit that does not vary.

    Parameters
    ----------
    difference, variance : numpy.ndarray
        ... x unit; rounding may leave a variance a little below zero.
    size : numpy.ndarray
        unit; root mean square of its values before anything was taken out of them.
    """
    spread = np.maximum(variance, 0)
    np.sqrt(spread, out=spread)
    # Rounding leaves a constant unit a spread of about 1e-8 of its size.
    spread[~(spread > 1e-7 * size)] = np.inf
    return difference / spread


def top_overlap(a: np.ndarray, b: np.ndarray, top: int) -> np.ndarray:
    """Share of the `top` largest columns of each row of `a` that are among those of `b`, row."""
    return (_largest(a, top) & _largest(b, top)).sum(-1) / top


def _largest(values: np.ndarray, top: int) -> np.ndarray:
    """Where the `top` largest columns of each row are."""
    best = values >= np.partition(values, -top, axis=-1)[..., -top, None]
    if np.count_nonzero(best) > top * best[..., 0].size:
        # Of columns that are equal, as many as there is room for.
        best[...] = False
        largest = np.argpartition(-values, top, axis=-1)[..., :top]
        np.put_along_axis(best, largest, True, axis=-1)
    return best


def row_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row of `a` with that of `b`; 0 where a row is constant."""
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.divide((a * b).sum(-1), size, out=np.zeros(a.shape[:-1]), where=size > 0)


def stepped_up(r: np.ndarray, times: int = 2) -> np.ndarray:
    """Spearman-Brown: reliability of the whole from that of a part, k r / (1 + (k - 1) r).

    Negative correlations stay as they are; the formula is meant for reliabilities and grows
    without bound towards -1.
    """
    return np.where(r > 0, times * r / (1 + (times - 1) * np.abs(r)), r)
