"""Patterns of items, and their division into parts."""

import numpy as np
import pytest

from analyses import AnalysisError
from analyses.words import read_words
from verification.worlds import SITE, world

WORDS = read_words(world(np.random.default_rng(0), items=9), SITE, "category")


def test_frames_are_taken_out_and_repetitions_averaged() -> None:
    subject = world(np.random.default_rng(0), noise=0, item_spread=0, code="graded")
    words = read_words(subject, SITE, "category")
    assert words.patterns.shape == (2, 48, 60)
    assert len(words.items) == 48
    for member in words.member:  # with no noise, items of a category are the same point
        same = words.patterns[:, member]
        np.testing.assert_allclose(same, same[:, :1].repeat(12, 1), atol=1e-12)


@pytest.mark.parametrize("count", [2, 4])
def test_parts_share_no_item_and_have_as_many_of_each_category(count: int) -> None:
    parts = WORDS.parts(count, each=2, splits=5, rng=np.random.default_rng(0))
    assert parts.shape == (5, count, 4, 36)
    np.testing.assert_array_equal(parts.sum(1), np.broadcast_to(WORDS.member, (5, 4, 36)))
    assert set(parts.sum(3).ravel()) == {9 // count, 9 // count + 1}
    assert any((parts[0] != other).any() for other in parts[1:])


def test_too_few_items_are_told() -> None:
    message = "'category0' of 'category' has 9 items; 10 are needed, 5 in each of 2 parts"
    with pytest.raises(AnalysisError, match=message):
        WORDS.parts(2, each=5, splits=1, rng=np.random.default_rng(0))
