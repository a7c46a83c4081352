"""What single items go through as a number grows that stands in their frames.

Where ages stand in sentences, or stages in sentences about a disease, numbers are no sample: all of
them are needed for a line, a break or a circle. What is sampled is the sentence or the disease. So
each item is a course of its own, of which something is told, and a claim is about the mean over the
items of one category. To deal out which items are of that category then asks whether it is theirs
rather than that of any numbers, as other things have the same ones.
"""

from typing import NamedTuple

import numpy as np

from analyses.base import AnalysisError, labels, numbers, one_value, vectors
from analyses.words import averages, in_spreads
from scanner import Subject


class Courses(NamedTuple):
    """Patterns of the numbers of each item.

    Attributes
    ----------
    items, names : numpy.ndarray
        item; what it is called, and its category.
    values : list of numpy.ndarray
        Of each item: value; its numbers, in order.
    patterns : list of numpy.ndarray
        Of each item: layer x value x unit; means over its stimuli of a number, around the mean of
        the item and in units of each unit's spread over its stimuli.
    """

    items: np.ndarray
    names: np.ndarray
    values: list[np.ndarray]
    patterns: list[np.ndarray]


def courses_of(
    subject: Subject, site: str, label: str, number: str, *, of: str, rest: bool
) -> Courses:
    """The courses of items, each from its own stimuli alone.

    Parameters
    ----------
    subject : Subject
    site, label, number : str
        Kind of site; the columns with the categories and with the numbers.
    of : str
        The category that is asked about.
    rest : bool
        Whether items of other categories are wanted as well.

    Raises
    ------
    AnalysisError
        If the number is none, or the label has one value or is nowhere that category.
    """
    names = labels(subject, label)
    known = np.unique(names)
    if len(known) < 2:
        raise AnalysisError(one_value(label, known[0]))
    if of not in known:
        raise AnalysisError(f"'{label}' is nowhere '{of}'; it is {', '.join(known)}")
    if not rest:
        subject, names = subject.take(np.flatnonzero(names == of)), names[names == of]
    x, along = vectors(subject, site), numbers(subject, number)
    items, first, which = np.unique(labels(subject, "item"), return_index=True, return_inverse=True)
    rows = [np.flatnonzero(which == one) for one in range(len(items))]
    values, at_value = zip(
        *(np.unique(along[some], return_inverse=True) for some in rows), strict=True
    )
    patterns: list[list[np.ndarray]] = [[] for _ in items]
    for layer in x:
        for place, some in enumerate(rows):
            own = layer[some]
            scaled = in_spreads(own - own.mean(0), own)
            patterns[place].append(averages(at_value[place]) @ scaled)
    patterns_of = [np.array(one) for one in patterns]
    return Courses(items, names[first], list(values), patterns_of)


def over_items(told: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The mean of what is told of some items, leaving out those of which nothing can be told.

    Parameters
    ----------
    told : numpy.ndarray
        item x layer; NaN where the patterns of an item are all the same.
    chosen : numpy.ndarray
        draw x item, bool.

    Returns
    -------
    numpy.ndarray
        draw x layer; NaN where nothing can be told of any.
    """
    known = ~np.isnan(told)
    counts = chosen.astype(float) @ known
    sums = chosen.astype(float) @ np.where(known, told, 0.0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def dealt_names(
    names: np.ndarray, name: str, *, draws: int, shuffles: np.random.Generator
) -> np.ndarray:
    """Which items are of a category when categories are dealt out anew: draw x item, bool."""
    return np.array([shuffles.permutation(names) == name for _ in range(draws)])
