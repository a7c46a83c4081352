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
    _, first, which = np.unique(items, return_index=True, return_inverse=True)
    kinds, kind = np.unique(strata[first], return_inverse=True)
    counts = np.bincount(kind)
    if counts.min() < groups:
        few = counts.argmin()
        raise ValueError(f"'{kinds[few]}' has {counts[few]} items, {groups} groups need as many")
    return dealt(kind, groups=groups, rng=rng)[which]


def dealt(strata: np.ndarray, *, groups: int, rng: np.random.Generator) -> np.ndarray:
    """The same of items that each are given once, with codes for strata: the group of each."""
    counts = np.bincount(strata)
    # In random order, and stably sorted by stratum: dealt out in turn, each stratum from 0.
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    group = np.empty(len(strata), dtype=int)
    group[order] = (np.arange(len(strata)) - np.repeat(np.cumsum(counts) - counts, counts)) % groups
    return group


def folds_of(groups: np.ndarray) -> list[Fold]:
    """Each group as the test of what is fitted on all others."""
    return [
        Fold(np.flatnonzero(groups != one), np.flatnonzero(groups == one))
        for one in np.unique(groups)
    ]


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


def permuted_within(
    codes: np.ndarray,
    items: np.ndarray,
    groups: np.ndarray,
    *,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Label codes dealt out anew among the items of each group.

    Parameters
    ----------
    codes, items, groups : numpy.ndarray
        The label code, the item and the group of each stimulus; an item has one of each.
    draws : int
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        draw x stimulus.
    """
    _, first, which = np.unique(items, return_index=True, return_inverse=True)
    of_item, group = np.tile(codes[first], (draws, 1)), groups[first]
    for one in np.unique(group):
        inside = np.flatnonzero(group == one)
        of_item[:, inside] = rng.permuted(of_item[:, inside], axis=1)
    return of_item[:, which]
