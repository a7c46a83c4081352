"""Whether the numbers of one thing break at a place where those of other things do not.

Ages may break at 18, where the law does. But numbers break by themselves, where they gain a digit
or a token, and where a curve bends. So a change between two neighbouring numbers counts by what it
is beyond that of other things at the same numbers, a difference in differences (Ashenfelter & Card
1985), and as far as all sentences of the one thing have it. What a smooth curve along the numbers,
their last digits and their length predict is taken out before (as in Thistlethwaite & Campbell
1960, a break is beside a curve). And no two numbers are alike: what is claimed of a place is that
it has more than nineteen of twenty others.

The items are sentences, and the numbers, all of which are needed, stand in each of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import xarray as xr
from sklearn.preprocessing import SplineTransformer

from analyses.base import (
    Analysis,
    AnalysisError,
    Quantity,
    labels,
    numbers,
    one_value,
    register,
    vectors,
)
from analyses.words import in_spreads, without_frames
from scanner import Subject


@register
@dataclass(frozen=True)
class Discontinuity(Analysis):
    """Hold the change at one place against that at all others, in one category and in the rest.

    Attributes
    ----------
    site : str
        Kind of site to read.
    of : str
        The value of the label whose numbers are said to break.
    at : float
        The number from which on they are said to differ from those below.
    number : str
        A column of the stimulus table that holds numbers; each item stands at every one.
    label : str
        A column of the stimulus table.
    knots : int
        Of the cubic spline along the numbers, at their quantiles.
    confounds : tuple of str
        Columns that are taken out as well, as numbers: their mean over the stimuli of a number.
    rarer : float
        The share of other places that may have as large a change.
    """

    site: str
    of: str
    at: float
    number: str = "number"
    label: str = "category"
    knots: int = 5
    confounds: tuple[str, ...] = ("n_chars", "n_tokens")
    rarer: float = 0.05

    measures: ClassVar[Mapping[str, Quantity]] = {
        "excess": Quantity(
            "of what changes there in a sentence of the category beyond others, how much more is "
            "common to its sentences than at nineteen of twenty other places",
            -1.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if self.knots < 3:
            raise ValueError("knots must be at least 3: with two a spline is a single curve")
        if not 0 < self.rarer < 0.5:
            raise ValueError(f"rarer: {self.rarer:g} is no small share; give one below 0.5")

    def sides(self, names: np.ndarray) -> np.ndarray:
        return (names != self.of).astype(int)

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            ``own_change`` (layer, place): of what changes in a sentence of the category between two
            neighbouring numbers beyond what changes in others, the share that is common to the
            sentences of the category; a place is the lower number of the two. ``usual`` (layer):
            what all but `rarer` of the places beside the claimed one stay below. ``excess``
            (layer): that of the claimed place, less this. ``exceeds`` (layer): how many of the
            other places have less. ``common_change`` and ``shared_change`` (layer): of the whole
            change of a sentence at the claimed place, what is common to those of the category, and
            what they share with others.

        Raises
        ------
        AnalysisError
            If the number is none, an item does not stand at each, no number lies on one side of the
            claimed place, there are too few others to be rare among, or a category has fewer than
            two items.
        """
        (subject,) = subjects
        found = self._changes(subject)
        own, common, shared = (
            one[0] for one in _shares(found.grams, self._means(found.names)[None])
        )
        here, at = found.place, own[:, [found.place]]
        others = np.delete(own, here, axis=1)
        by_layer = {
            "usual": np.quantile(others, 1 - self.rarer, axis=1),
            "exceeds": np.mean(others < at, axis=1) + np.mean(others == at, axis=1) / 2,
            "common_change": common[:, here],
            "shared_change": shared[:, here],
        }
        return xr.Dataset(
            {
                "excess": ("layer", _excess(own, here, self.rarer), {"chance": 0.0}),
                **{name: ("layer", values) for name, values in by_layer.items()},
                "own_change": (("layer", "place"), own),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "place": found.values[:-1],
            },
        )

    def permuted(
        self,
        subject: Subject,
        variable: str,
        *,
        draws: int,
        rng: np.random.Generator,
        shuffles: np.random.Generator,
    ) -> xr.DataArray:
        """All draws from the same changes: only which sentence is of what changes."""
        found = self._changes(subject)
        dealings = [self._means(shuffles.permutation(found.names)) for _ in range(draws)]
        own, _, _ = _shares(found.grams, np.array(dealings))
        return xr.DataArray(
            _excess(own, found.place, self.rarer),
            dims=("draw", "layer"),
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 0.0},
        )

    def _changes(self, subject: Subject) -> "Changes":
        x, items = vectors(subject, self.site), labels(subject, "item")
        names = labels(subject, self.label)
        self._check_names(names, items)
        values, at_value = np.unique(numbers(subject, self.number), return_inverse=True)
        place = self._place(values)
        known, first, of_item = np.unique(items, return_index=True, return_inverse=True)
        cell = of_item * len(values) + at_value
        sizes = np.bincount(cell, minlength=len(known) * len(values))
        if not sizes.all():
            item, value = divmod(int(sizes.argmin()), len(values))
            raise AnalysisError(
                f"item '{known[item]}' does not stand at {values[value]:g} of '{self.number}'; "
                "each is needed at every number"
            )
        order = np.argsort(cell, kind="stable")
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        left = np.diff(np.eye(len(values)) - self._known(subject, values, at_value), axis=0)
        grams = []
        for layer in x:
            scaled = in_spreads(without_frames(layer, items), layer)[order]
            means = np.add.reduceat(scaled, starts) / sizes[:, None]
            changes = left @ means.reshape(len(known), len(values), -1)
            # What is explained wholly leaves rounding, whose shares would be as good as any.
            changes[np.abs(changes) <= 1e-9 * np.abs(means).max()] = 0
            by_place = changes.swapaxes(0, 1)
            grams.append(by_place @ by_place.swapaxes(1, 2))
        return Changes(values, place, names[first], np.array(grams))

    def _check_names(self, names: np.ndarray, items: np.ndarray) -> None:
        known = np.unique(names)
        if len(known) < 2:
            raise AnalysisError(one_value(self.label, known[0]))
        if self.of not in known:
            raise AnalysisError(
                f"discontinuity: '{self.label}' is nowhere '{self.of}'; it is {', '.join(known)}"
            )
        fewest = min(len(np.unique(items[names == name])) for name in known)
        if fewest < 2:
            raise AnalysisError(
                f"discontinuity: a value of '{self.label}' has {fewest} item; 2 are needed to tell "
                "what they have in common"
            )

    def _place(self, values: np.ndarray) -> int:
        """The claimed place, by the position of the lower number."""
        place = int(np.sum(values < self.at)) - 1
        if place < 0 or place > len(values) - 2:
            raise AnalysisError(
                f"discontinuity: '{self.number}' has no values on both sides of {self.at:g}"
            )
        needed = int(np.ceil(1 / self.rarer - 1e-9))
        if len(values) - 2 < needed:
            raise AnalysisError(
                f"discontinuity: beside {self.at:g} '{self.number}' has {len(values) - 2} places; "
                f"{needed} are needed for one in {needed} to be rare"
            )
        return place

    def _known(self, subject: Subject, values: np.ndarray, at_value: np.ndarray) -> np.ndarray:
        """What projects patterns on what is known of numbers: value x value."""
        columns = [
            np.bincount(at_value, subject.volume[name].to_numpy().astype(float))
            / np.bincount(at_value)
            for name in self.confounds
            if len(labels(subject, name))
        ]
        last_digits = np.floor(values)[:, None] % 10 == np.arange(10)
        design = np.column_stack([_curve(tuple(values), self.knots), *columns, last_digits])
        size = np.abs(design).max(0)
        design = design[:, size > 0] / size[size > 0]
        return design @ np.linalg.pinv(design)

    def _means(self, names: np.ndarray) -> np.ndarray:
        """What takes the mean of each category, the claimed one first: category x item."""
        others = np.unique(names[names != self.of])
        member = names == np.array([self.of, *others])[:, None]
        return member / member.sum(1, keepdims=True)


class Changes(NamedTuple):
    """What changes between neighbouring numbers, in each sentence.

    Attributes
    ----------
    values : numpy.ndarray
        value; the numbers, in order.
    place : int
        The position of the lower number of the claimed place.
    names : numpy.ndarray
        item; its label.
    grams : numpy.ndarray
        layer x place x item x item: products of the changes of two sentences.
    """

    values: np.ndarray
    place: int
    names: np.ndarray
    grams: np.ndarray


@lru_cache(maxsize=8)
def _curve(values: tuple[float, ...], knots: int) -> np.ndarray:
    """The terms of a cubic spline: value x term. The gate asks a thousand times for the same."""
    return SplineTransformer(knots, knots="quantile").fit_transform(np.array(values)[:, None])


def _shares(grams: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What sentences of the first category have in common, and with others.

    Parameters
    ----------
    grams : numpy.ndarray
        layer x place x item x item.
    means : numpy.ndarray
        draw x category x item; what takes the mean of each.

    Returns
    -------
    own, common, shared : numpy.ndarray
        draw x layer x place; 0 where nothing changes.
    """
    counts = np.sum(means > 0, axis=2)[:, None, None]
    products = np.einsum("dci,lpij,dej->dlpce", means, grams, means, optimize=True)
    squares = np.einsum("lpii,dci->dlpc", grams, means)
    lengths = np.einsum("dlpcc->dlpc", products)
    common = common_change(lengths, squares, counts)
    shared = products[..., 0, 1:].mean(-1)
    # A sentence without the mean of the other categories, each of which counts alike.
    beside = products[..., 1:, 1:].mean((-2, -1)) - 2 * shared
    of_one, of_mean = squares[..., 0] + beside, lengths[..., 0] + beside
    # That mean is subtracted from each, so that its noise is common to them.
    rest = (squares - common)[..., 1:] / counts[..., 1:]
    noise = rest.sum(-1) / rest.shape[-1] ** 2
    own = common_change(of_mean, of_one, counts[..., 0]) - noise
    whole = squares[..., 0]
    # Where all things change alike, rounding is all that is left beyond.
    beyond = np.where(of_one > 1e-9 * whole, of_one, 0)
    return _of(own, beyond), _of(common[..., 0], whole), _of(shared, whole)


def common_change(of_mean: np.ndarray, of_one: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """The squared length of the change that several items have in common.

    The mean product of two different items, so that what is not the same in both does not count:
    0 on average for none, and sometimes negative (crossnobis, each item a fold of its own; Walther
    et al. 2016).

    Parameters
    ----------
    of_mean, of_one : numpy.ndarray
        The squared length of the mean of the items, and on average of one of them.
    count : numpy.ndarray or int
        How many items, at least two.
    """
    return (count * of_mean - of_one) / (count - 1)


def _of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _excess(own: np.ndarray, place: int, rarer: float) -> np.ndarray:
    """What a place has above that which all but a share of the others stay below.

    Shares are 1 at most; noise can take both below 0, and their difference hardly beyond 1.
    """
    others = np.delete(own, place, axis=-1)
    return np.clip(own[..., place] - np.quantile(others, 1 - rarer, axis=-1), -1, 1)
