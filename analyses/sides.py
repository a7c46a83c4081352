"""A category against the rest, and what is left of that when labels are dealt out anew.

What was done is done once; the dealings are kept beside it, so that a control can ask for the
contrast of each of them instead.
"""

import numpy as np

from analyses.base import AnalysisError, labels, one_value
from scanner import Subject

# Of targets: the category, then dealings.
DEALT = "shuffled"


def members(subject: Subject, label: str, category: str) -> np.ndarray:
    """Whether each stimulus is of the category.

    Raises
    ------
    AnalysisError
        If there are none, or no others.
    """
    values = labels(subject, label)
    if len(np.unique(values)) < 2:
        raise AnalysisError(one_value(label, values[0]))
    if category not in values:
        raise AnalysisError(f"{subject.name}: no '{category}' among '{label}'")
    return values == category


def sides(
    subject: Subject, label: str, category: str, *, dealings: int, rng: np.random.Generator
) -> np.ndarray:
    """Whether each stimulus is of the category, and of what dealings among the items make of it.

    Returns
    -------
    numpy.ndarray
        stimulus x (1 + dealing), bool.
    """
    items, values = labels(subject, "item"), labels(subject, label)
    _, first, which = np.unique(items, return_index=True, return_inverse=True)
    inside = (values == category)[first]
    draws = np.random.default_rng(int(rng.integers(2**32)))
    return np.stack([inside, *(draws.permutation(inside) for _ in range(dealings))], axis=1)[which]


def apart(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The mean over some of the last dimension less that over the others.

    A dealing of the labels may leave nothing on a side of a part of the items; then nothing lies
    between the sides.
    """
    if inside.all() or not inside.any():
        return np.zeros(values.shape[:-1])
    return values[..., inside].mean(-1) - values[..., ~inside].mean(-1)
