"""Whether a number lies along a line, along a curve, or breaks somewhere.

Four questions of an ordered or numeric label, such as age, size or stage: how well the number is
read from patterns of values that no probe has seen; how well patterns are predicted from the number
by a line, and by a cubic spline; whether the numbers that are read are in order; and between which
neighbours patterns change more than anywhere by chance.

A regression with more units than items fits any number in the items that it is fitted on, so all of
it is judged on other values. The break is searched for at all places, and its threshold is that of
the largest anywhere (Westfall & Young 1993), when what each value deviates from the spline is dealt
out anew among the values.

How well the number is read, and how much better a spline predicts than a line, may be claimed: both
are 0 or below where there is nothing, whatever the values. The rest describes. A break is a test
already, with a threshold of its own, and the number of breaks in half of the values is another
question, since neighbours are then farther apart; the order of what is read follows from how well
it is read.

Numbers can stand in the frames instead, as ages do in sentences (`of`, `number`). Then each
sentence is a course along them, and what may be claimed is the mean over those of one category.
Numbers that stand in all sentences bend wherever digits or tokens make them, so it is by dealing
out which sentences are of the category that a claim is held against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import rankdata
from sklearn.preprocessing import SplineTransformer

from analyses.base import (
    Analysis,
    AnalysisError,
    Quantity,
    Reading,
    by_layer,
    labels,
    numbers,
    one_value,
    register,
    vectors,
)
from analyses.courses import Courses, courses_of, dealt_names, over_items
from analyses.probe import ridge, standardised
from analyses.splits import Fold, folds_of, item_groups
from analyses.words import in_spreads, without_frames
from scanner import Subject

# As many values as a spline with its knots can be told from a line by.
FEWEST = 8
# Of a unit's spread: what is below is what rounding leaves of what does not vary.
ROUNDING = 1e-9
# Penalty of the second differences of neighbouring terms of the spline, a value.
SMOOTH = 0.01


@register
@dataclass(frozen=True)
class NumberLine(Analysis):
    """Read a number, predict from it, and search for a break.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table that holds numbers; with `of`, one that holds categories.
    of : str, optional
        The category whose items go along the numbers; without it, numbers are those of items.
    number : str, optional
        With `of`, a column that holds numbers; each item of the category stands at every one.
    value_folds : int
        Groups of values that take turns as the test.
    knots : int
        Of the spline, at quantiles of the values.
    penalty : float
        Ridge penalty of the reading, in units of the mean squared length of a training pattern.
    permutations : int
        For the threshold of a break.
    alpha : float
        Familywise error of that threshold over all places of a layer.
    """

    site: str
    label: str
    of: str | None = None
    number: str | None = None
    value_folds: int = 5
    knots: int = 5
    penalty: float = 1.0
    permutations: int = 199
    alpha: float = 0.05

    measures: ClassVar[Mapping[str, Quantity]] = {
        "read": Quantity(
            "share of the variance of a number that is read in values not seen", -np.inf, 1
        ),
        "gain": Quantity(
            "share of the variance of patterns that a spline predicts, less that of a line",
            -np.inf, np.inf,
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_of(self.of, self.number)
        if self.value_folds < 2:
            raise ValueError("value_folds must be at least 2")
        if self.knots < 3:
            raise ValueError("knots must be at least 3: with two a spline is a single curve")
        if not 0 < self.alpha < 1 or self.permutations < 1 / self.alpha - 1:
            raise ValueError(
                f"alpha {self.alpha:g} cannot be reached with {self.permutations} permutations"
            )

    @property
    def reads(self) -> Reading:
        return "number" if self.of is None else "linear"

    def sides(self, names: np.ndarray) -> np.ndarray:
        return np.arange(len(names)) if self.of is None else (names != self.of).astype(int)

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Read, predict and search.

        Returns
        -------
        xarray.Dataset
            ``read`` (layer): share of the variance of the number that is read, in values that were
            not seen, 0 or below for nothing; ``order`` (layer): Spearman's correlation of the
            numbers read with the numbers; ``line`` and ``spline`` (layer): share of the variance of
            patterns that is predicted, and ``gain`` (layer): the second less the first. ``jump``
            (layer, place): the squared distance of patterns of two neighbouring values between
            halves of the frames, per unit; a place is the lower value of the two; ``highest``
            (layer): what the largest jump reaches by luck; ``breaks`` (layer): how many are larger.

            With `of` the first five are means over the items of that category, each along its own
            course, and jumps are between halves of these items; ``read_by_category`` and
            ``gain_by_category`` (layer, category) are the means of each category.

        Raises
        ------
        AnalysisError
            If the label is no number or has fewer than eight values, there are fewer than two
            frames, or a value is in no frame of a half; with `of`, if an item does not stand at
            each number, or the category has fewer than two items.
        """
        (subject,) = subjects
        if self.of is not None:
            return self._along(subject, rng)
        found, folds = self._divided(subject, rng)
        told = self._told(found.halves.mean(1), found.values, folds)
        result = self._searched(found, subject, rng).assign(
            {name: ("layer", values) for name, values in told.items()}
        )
        for name in self.measures:
            result[name].attrs["chance"] = 0.0
        return result

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        """Without the search for breaks."""
        (subject,) = subjects
        work = self._read if variable == "read" else self._predicted
        if self.of is None:
            found, folds = self._divided(subject, rng)
            values = work(found.halves.mean(1), found.values, folds)[variable]
        else:
            courses = self._courses(subject, rest=False)
            every = np.ones((1, len(courses.items)), dtype=bool)
            values = over_items(self._by_item(courses, variable, rng), every)[0]
        return by_layer(values, subject)

    def permuted(
        self,
        subject: Subject,
        variable: str,
        *,
        draws: int,
        rng: np.random.Generator,
        shuffles: np.random.Generator,
    ) -> xr.DataArray:
        """With `of`, all draws from the same courses: only which item is of what changes."""
        if self.of is None:
            return super().permuted(subject, variable, draws=draws, rng=rng, shuffles=shuffles)
        courses = self._courses(subject, rest=True)
        dealt = dealt_names(courses.names, self.of, draws=draws, shuffles=shuffles)
        return by_layer(over_items(self._by_item(courses, variable, rng), dealt), subject)

    def _along(self, subject: Subject, rng: np.random.Generator) -> xr.Dataset:
        """What `__call__` gives where items go along the numbers."""
        courses = self._courses(subject, rest=True)
        folds = self._folds(len(courses.values[0]), rng)
        told = [
            self._told(patterns, values, folds)
            for values, patterns in zip(courses.values, courses.patterns, strict=True)
        ]
        by_item = {name: np.array([one[name] for one in told]) for name in told[0]}
        own = courses.names == self.of
        kinds = np.unique(courses.names)
        member = courses.names == kinds[:, None]
        found = self._searched(self._halves(courses, own, rng), subject, rng).assign(
            {name: ("layer", over_items(one, own[None])[0]) for name, one in by_item.items()}
        )
        for name in self.measures:
            found[name].attrs["chance"] = 0.0
            found[f"{name}_by_category"] = (
                ("category", "layer"),
                over_items(by_item[name], member),
            )
        return found.assign_coords(category=kinds)

    def _courses(self, subject: Subject, *, rest: bool) -> Courses:
        courses = courses_of(
            subject, self.site, self.label, str(self.number), of=str(self.of), rest=rest
        )
        every = np.unique(np.concatenate(courses.values))
        for item, values in zip(courses.items, courses.values, strict=True):
            missing = np.setdiff1d(every, values)
            if len(missing):
                raise AnalysisError(
                    f"item '{item}' does not stand at {missing[0]:g} of '{self.number}'; "
                    "each is needed at every number"
                )
        return courses

    def _by_item(self, courses: Courses, variable: str, rng: np.random.Generator) -> np.ndarray:
        """One measure of each item: item x layer."""
        folds = self._folds(len(courses.values[0]), rng)
        work = self._read if variable == "read" else self._predicted
        pairs = zip(courses.patterns, courses.values, strict=True)
        return np.array([work(patterns, values, folds)[variable] for patterns, values in pairs])

    def _halves(self, courses: Courses, own: np.ndarray, rng: np.random.Generator) -> "Values":
        """The means over two halves of the items of the category."""
        try:
            half = item_groups(courses.items[own], np.zeros(own.sum()), groups=2, rng=rng)
        except ValueError:
            raise AnalysisError(
                f"number_line: '{self.of}' has {own.sum()} item; 2 are needed for halves of them"
            ) from None
        patterns = [one for one, its in zip(courses.patterns, own, strict=True) if its]
        means = [
            np.mean([one for one, of in zip(patterns, half, strict=True) if of == side], axis=0)
            for side in (0, 1)
        ]
        return Values(courses.values[0], np.stack(means, axis=1))

    def _searched(self, found: "Values", subject: Subject, rng: np.random.Generator) -> xr.Dataset:
        """What is told of breaks between halves."""
        count = len(found.values)
        bent = self._bent(found.values)
        orders = rng.permuted(np.tile(np.arange(count), (self.permutations, 1)), axis=1)
        hat = bent @ np.linalg.pinv(bent)
        rows = [self._broken(halves, hat, orders) for halves in found.halves]
        return xr.Dataset(
            {
                name: (("layer", "place")[: 1 + np.ndim(first)], [one[name] for one in rows])
                for name, first in rows[0].items()
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "place": found.values[:-1],
            },
        )

    def _divided(self, subject: Subject, rng: np.random.Generator) -> tuple["Values", list[Fold]]:
        found = values_of(subject, self.site, self.label, rng)
        return found, self._folds(len(found.values), rng)

    def _folds(self, count: int, rng: np.random.Generator) -> list[Fold]:
        """So many values in groups that take turns as the test."""
        # A spline of so many knots has two more terms, and something must be left to judge it by.
        needed = max(FEWEST, self.value_folds, self.knots + 3)
        if count < needed:
            raise AnalysisError(
                f"number_line: '{self.number or self.label}' has {count} values; "
                f"{needed} are needed"
            )
        names = np.arange(count).astype(str)
        group = item_groups(names, np.zeros(count), groups=self.value_folds, rng=rng)
        return folds_of(group)

    def _told(
        self, patterns: np.ndarray, values: np.ndarray, folds: list[Fold]
    ) -> dict[str, np.ndarray]:
        """All but breaks, of patterns layer x value x unit: layer."""
        return self._read(patterns, values, folds) | self._predicted(patterns, values, folds)

    def _bent(self, values: np.ndarray) -> np.ndarray:
        """The terms of the spline, value x term."""
        curve = SplineTransformer(self.knots, knots="quantile", extrapolation="linear")
        return curve.fit_transform(values[:, None])

    def _read(
        self, patterns: np.ndarray, values: np.ndarray, folds: list[Fold]
    ) -> dict[str, np.ndarray]:
        """By layer: how well numbers follow from patterns."""
        read = np.array([_numbers(one, values, folds, self.penalty) for one in patterns])
        varies = np.ptp(patterns, axis=1).any(-1)
        order = [
            _in_order(one, values) if some else np.nan
            for one, some in zip(read, varies, strict=True)
        ]
        left = np.sum((read - values) ** 2, axis=1)
        return {"read": 1 - left / _around(values, folds), "order": np.array(order)}

    def _predicted(
        self, patterns: np.ndarray, values: np.ndarray, folds: list[Fold]
    ) -> dict[str, np.ndarray]:
        """By layer: how well patterns follow from numbers."""
        straight = np.column_stack([np.ones(len(values)), values])
        line = _share(patterns, straight, folds)
        spline = _share(patterns, self._bent(values), folds)
        return {"line": line, "spline": spline, "gain": spline - line}

    def _broken(
        self, halves: np.ndarray, hat: np.ndarray, orders: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Of one layer: jumps, and how large they are where none is a break."""
        jumps = _jumps(halves)
        smooth = np.einsum("vw,hwu->hvu", hat, halves, optimize=True)
        # A fit draws values to itself, by its degrees of freedom: what is left is too small.
        rough = (halves - smooth) / np.sqrt(1 - np.trace(hat) / len(hat))
        largest = [_jumps(smooth + rough[:, order]).max() for order in orders]
        highest = np.quantile(largest, 1 - self.alpha, method="higher")
        return {"jump": jumps, "highest": np.asarray(highest), "breaks": np.sum(jumps > highest)}


def check_of(of: str | None, number: str | None) -> None:
    """That a category is named where, and only where, numbers stand in its frames.

    Raises
    ------
    ValueError
    """
    if (of is None) != (number is None):
        raise ValueError(
            "of and number go together: whose items go along the numbers, and which column has them"
        )


class Values(NamedTuple):
    """Patterns of the values of a number.

    Attributes
    ----------
    values : numpy.ndarray
        value, in order.
    halves : numpy.ndarray
        layer x half x value x unit: means over the stimuli of a value in each half of the frames,
        after the mean of each frame has been taken out, in units of each unit's spread.
    """

    values: np.ndarray
    halves: np.ndarray


def values_of(subject: Subject, site: str, label: str, rng: np.random.Generator) -> Values:
    """The patterns of the values of a numeric label, in two halves of the frames.

    Raises
    ------
    AnalysisError
        If the label is no number or has one value, there are fewer than two frames, or a value is
        in no frame of a half.
    """
    x, frames, along = vectors(subject, site), labels(subject, "frame"), numbers(subject, label)
    try:
        group = item_groups(frames, np.zeros(len(frames), int), groups=2, rng=rng)
    except ValueError:
        raise AnalysisError(
            f"'{label}': {len(np.unique(frames))} frame cannot be divided into halves"
        ) from None
    values, which = np.unique(along, return_inverse=True)
    if len(values) < 2:
        raise AnalysisError(one_value(label, f"{values[0]:g}"))
    cell = group * len(values) + which
    member = (cell == np.arange(2 * len(values))[:, None]).astype(float)
    sizes = member.sum(1, keepdims=True)
    if not sizes.all():
        missing = values[int(sizes.argmin()) % len(values)]
        raise AnalysisError(f"{missing:g} of '{label}' is in no frame of one half of the frames")
    average = member / sizes
    means = np.array([average @ in_spreads(without_frames(one, frames), one) for one in x])
    means *= np.ptp(means, axis=1, keepdims=True) > ROUNDING
    return Values(values, means.reshape(len(x), 2, len(values), -1))


def _numbers(
    patterns: np.ndarray, values: np.ndarray, folds: list[Fold], penalty: float
) -> np.ndarray:
    """The number of each value as it is read by ridge regression trained on others."""
    read = np.empty(len(values))
    for fold in folds:
        fitted, judged = standardised(patterns, fold)
        mean = values[fold.train].mean()
        (weights,) = ridge(fitted, (values[fold.train] - mean)[:, None], penalties=(penalty,))
        read[fold.test] = judged @ weights[:, 0] + mean
    return read


def _in_order(read: np.ndarray, values: np.ndarray) -> float:
    """Spearman's correlation."""
    return float(np.corrcoef(rankdata(read), rankdata(values))[0, 1])


def _around(values: np.ndarray, folds: list[Fold]) -> float:
    """Squared distance of the values from the mean of those that each fold trains on."""
    return sum(float(np.sum((values[f.test] - values[f.train].mean()) ** 2)) for f in folds)


def _share(patterns: np.ndarray, design: np.ndarray, folds: list[Fold]) -> np.ndarray:
    """Share of the variance of patterns that a design predicts in values that were not seen.

    Parameters
    ----------
    patterns : numpy.ndarray
        layer x value x unit.
    design : numpy.ndarray
        value x term.
    folds : list of Fold
        Of values.

    Returns
    -------
    numpy.ndarray
        layer; NaN where all patterns are the same.
    """
    left, whole = np.zeros(len(patterns)), np.zeros(len(patterns))
    # A term of the spline near an end can have all its values in the test: it goes on as its
    # neighbours go (P-splines; Eilers & Marx 1996). The two terms of a line have no such rows.
    smooth = np.sqrt(SMOOTH * len(design)) * np.diff(np.eye(design.shape[1]), 2, axis=0)
    for fold in folds:
        # What fits values and has no second differences, the same for all patterns.
        inverse = np.linalg.pinv(np.concatenate([design[fold.train], smooth]))
        predicts = design[fold.test] @ inverse[:, : len(fold.train)]
        known, asked = patterns[:, fold.train], patterns[:, fold.test]
        left += np.sum((asked - predicts @ known) ** 2, axis=(1, 2))
        whole += np.sum((asked - known.mean(1, keepdims=True)) ** 2, axis=(1, 2))
    return np.divide(whole - left, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _jumps(halves: np.ndarray) -> np.ndarray:
    """Squared distance of neighbours between halves (half x value x unit), per unit: place."""
    one, other = np.diff(halves, axis=1)
    return np.mean(one * other, axis=1)
