"""Splits keep items, and frames, on one side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.splits import cross_grouped, item_groups


def crossed(categories: int, items: int, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items nested in categories, crossed with frames, in an order that helps nobody."""
    rng = np.random.default_rng(1)
    order = rng.permutation(categories * items * frames)
    item = np.repeat(np.arange(categories * items), frames)[order]
    frame = np.tile(np.arange(frames), categories * items)[order]
    return item.astype(str), frame.astype(str), (item // items)


designs = st.tuples(st.integers(2, 5), st.integers(2, 9), st.integers(2, 5))


@given(designs, st.integers(0, 2**32), st.data())
def test_no_item_and_no_frame_is_on_both_sides_and_each_stimulus_is_tested_once(
    design: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    item, frame, category = crossed(*design)
    folds = cross_grouped(
        item,
        frame,
        category,
        item_folds=data.draw(st.integers(2, design[1])),
        frame_folds=data.draw(st.integers(2, design[2])),
        rng=np.random.default_rng(seed),
    )
    for train, test in folds:
        assert not set(item[train]) & set(item[test])
        assert not set(frame[train]) & set(frame[test])
        assert set(category[train]) == set(category)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(item)))


@given(designs, st.integers(0, 2**32), st.data())
def test_groups_have_the_same_number_of_items_of_each_category(
    design: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    item, _, category = crossed(*design)
    groups = data.draw(st.integers(1, design[1]))
    group = item_groups(item, category, groups=groups, rng=np.random.default_rng(seed))
    for name in np.unique(item):
        assert len(set(group[item == name])) == 1
    for value in np.unique(category):
        sizes = [len(set(item[(category == value) & (group == g)])) for g in range(groups)]
        assert max(sizes) - min(sizes) <= 1


def test_groups_are_random_and_the_same_for_the_same_generator() -> None:
    item, _, category = crossed(3, 8, 2)
    draws = [
        item_groups(item, category, groups=2, rng=np.random.default_rng(seed)).tolist()
        for seed in (0, 0, 1, 2, 3)
    ]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 4


def test_too_few_items_are_named() -> None:
    item, _, category = crossed(2, 3, 2)
    with pytest.raises(ValueError, match="'0' has 3 items, 4 groups need as many"):
        item_groups(item, category, groups=4, rng=np.random.default_rng(0))
