"""How stimuli are divided: by items, and where asked by frames too, never by rows.

Stimuli of one item are repetitions of one observation, and a frame can carry the label on its own,
so a split that keeps either on both sides measures memory (Kriegeskorte et al. 2009).
"""

from typing import NamedTuple

import numpy as np


class Fold(NamedTuple):
    """Rows to fit on and rows to judge by."""

    train: np.ndarray
    test: np.ndarray


def item_groups(
    items: np.ndarray, strata: np.ndarray, *, groups: int, rng: np.random.Generator
) -> np.ndarray:
    """Divide items at random into groups of equal size within each stratum.

    Parameters
    ----------
    items, strata : numpy.ndarray
        The item and the label of each stimulus.
    groups : int
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        The group of each stimulus, 0 to `groups` - 1; all stimuli of an item share theirs.

    Raises
    ------
    ValueError
        If a stratum has fewer items than there are groups.
    """
    group = np.empty(len(items), dtype=int)
    for stratum in np.unique(strata):
        inside = strata == stratum
        names = np.unique(items[inside])
        if len(names) < groups:
            raise ValueError(f"'{stratum}' has {len(names)} items, {groups} groups need as many")
        dealt = dict(zip(rng.permutation(names), np.arange(len(names)) % groups, strict=True))
        group[inside] = [dealt[item] for item in items[inside]]
    return group


def cross_grouped(
    items: np.ndarray,
    frames: np.ndarray,
    strata: np.ndarray,
    *,
    item_folds: int,
    frame_folds: int,
    rng: np.random.Generator,
) -> list[Fold]:
    """Folds that keep the item *and* the frame of every test stimulus out of training.

    Parameters
    ----------
    items, frames, strata : numpy.ndarray
        The item, the frame and the label of each stimulus.
    item_folds, frame_folds : int
        Number of groups of items and of frames; their product is the number of folds.
    rng : numpy.random.Generator

    Returns
    -------
    list of Fold
        Each stimulus is tested exactly once.

    Raises
    ------
    ValueError
        If a label has fewer items than item folds, or there are fewer frames than frame folds.
    """
    item_group = item_groups(items, strata, groups=item_folds, rng=rng)
    frame_group = item_groups(frames, np.zeros(len(frames), int), groups=frame_folds, rng=rng)
    return [
        Fold(
            np.flatnonzero((item_group != i) & (frame_group != f)),
            np.flatnonzero((item_group == i) & (frame_group == f)),
        )
        for i in range(item_folds)
        for f in range(frame_folds)
    ]
