"""Splits keep items, and frames, on one side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.splits import cross_grouped, item_groups, permuted_within


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


@given(designs, st.integers(0, 2**32))
def test_labels_change_places_among_the_items_of_a_group_only(
    design: tuple[int, int, int], seed: int
) -> None:
    item, _, category = crossed(*design)
    rng = np.random.default_rng(seed)
    group = item_groups(item, category, groups=2, rng=rng)
    dealt = permuted_within(category, item, group, draws=5, rng=rng)
    assert dealt.shape == (5, len(item))
    for labels in dealt:
        for one in np.unique(item):
            assert len(set(labels[item == one])) == 1
        for side in (0, 1):
            inside = group == side
            np.testing.assert_array_equal(np.sort(labels[inside]), np.sort(category[inside]))


def test_every_way_to_deal_labels_is_as_likely() -> None:
    item = np.array(["a", "a", "b", "c", "d"])
    category, group = np.array([0, 0, 1, 2, 3]), np.array([0, 0, 0, 0, 1])
    dealt = permuted_within(category, item, group, draws=6000, rng=np.random.default_rng(0))
    ways, counts = np.unique(dealt, axis=0, return_counts=True)
    assert len(ways) == 6
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()
    assert (dealt[:, 4] == 3).all()
