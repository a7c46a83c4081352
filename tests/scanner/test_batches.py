"""Batches divide the stimuli, keep to their size, and show each token its own text's past alone."""

import numpy as np
import pytest
import torch

from scanner.batches import common, padded, shared, together, unique_tokens


def texts(seed: int, count: int, longest: int, *, tokens: int = 3) -> list[list[int]]:
    """Token ids of few kinds, so that many begin alike, some are the same, some begin others."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(1, 1 + tokens, rng.integers(1, longest + 1)).tolist() for _ in range(count)
    ]


CASES = [texts(seed, count, longest) for seed, count, longest in [
    (0, 1, 1), (1, 1, 30), (2, 7, 4), (3, 40, 5), (4, 40, 12), (5, 25, 40), (6, 200, 6)
]]  # fmt: skip


def beginnings(ids) -> set[tuple[int, ...]]:
    return {tuple(text[:end]) for text in ids for end in range(1, len(text) + 1)}


@pytest.mark.parametrize("ids", CASES)
def test_what_sharing_leaves_to_compute_is_the_number_of_different_beginnings(ids):
    assert unique_tokens(ids) == len(beginnings(ids))
    assert unique_tokens(ids[::-1]) == len(beginnings(ids))


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [([], [1], 0), ([1], [2], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2], 2), ([1, 2], [1, 3], 1)],
)
def test_common_is_the_length_of_what_both_begin_with(a, b, alike):
    assert common(a, b) == common(b, a) == alike


def laid_out(ids, rows, *, share):
    if share:
        texts = [[ids[one] for one in row] for row in rows]
        return shared(texts, filler=0, dtype=torch.float32)
    return padded([ids[one] for row in rows for one in row], filler=0)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [1, 10, 64, 1000])
@pytest.mark.parametrize("ids", CASES)
def test_batches_hold_each_stimulus_once_and_keep_to_their_size(ids, share, budget):
    made = list(together(ids, share=share, tokens=budget))
    found = [one for rows in made for row in rows for one in row]
    assert sorted(found) == list(range(len(ids)))
    for rows in made:
        assert laid_out(ids, rows, share=share).ids.numel() <= budget or len(rows) == 1
        assert share or all(len(row) == 1 for row in rows)
    # No batch could have taken the first row of the next one.
    for rows, following in zip(made, made[1:], strict=False):
        assert laid_out(ids, [*rows, following[0]], share=share).ids.numel() > budget


@pytest.mark.parametrize("share", [True, False])
def test_the_same_stimuli_give_the_same_batches(share):
    again = [list(map(list, case)) for case in CASES]
    for ids, copy in zip(CASES, again, strict=True):
        one, other = (list(together(x, share=share, tokens=20)) for x in (ids, copy))
        assert [list(map(list, rows)) for rows in one] == [list(map(list, rows)) for rows in other]


def test_batches_come_by_the_width_of_their_rows():
    ids = [[2, 2, 2], [1], [1, 2, 3], [2]]
    by_length = list(together(ids, share=False, tokens=4))
    assert [np.concatenate(rows).tolist() for rows in by_length] == [[1, 3], [0], [2]]
    by_tokens = list(together(ids, share=True, tokens=4))
    assert [list(map(list, rows)) for rows in by_tokens] == [[[3, 0, 1, 2]]]


@pytest.mark.parametrize("opening", [[], [9], [9, 9]])
def test_texts_that_share_nothing_stay_in_order_and_those_that_do_come_together(opening):
    ids = [[*opening, first, *range(1, 30)] for first in (7, 3, 5, 3, 8, 1)]
    made = together(ids, share=True, tokens=10**6)
    rows = [row.tolist() for rows in made for row in rows]
    assert [one for row in sorted(rows) for one in row] == [0, 1, 3, 2, 4, 5]


def widths(ids):
    made = together(ids, share=True, tokens=10**6)
    return [laid_out(ids, [row], share=True).ids.shape[1] for rows in made for row in rows]


def test_texts_that_share_nothing_fill_rows_of_128_tokens_or_have_one_of_their_own():
    short = [[n, *range(1, 40)] for n in range(10)]
    assert widths(short) == [40, 120, 120, 120]
    long = [[20 + n, *range(1, 200)] for n in range(3)]
    assert widths([*long, *short[:3]]) == [120, 200, 200, 200]
    assert widths([*long, *(text[:40] for text in long)]) == [200, 200, 200]  # what they begin with


def test_a_long_beginning_is_computed_once_for_as_many_texts_as_a_long_row_takes():
    beginning = list(range(1, 301))
    ids = [[*beginning, 300 + n, *range(6)] for n in range(50)]
    assert widths(ids) == [300 + 50 * 7]
    assert max(widths([[*beginning, 300 + n, *range(400)] for n in range(50)])) <= 2048
    # Of a short one, a new row costs less than a longer one.
    assert max(widths([[*beginning[:60], 300 + n, *range(6)] for n in range(50)])) <= 128


def test_what_each_row_repeats_counts_against_the_size_of_a_batch():
    ids = [[*range(1, 61), 300 + n, *range(6)] for n in range(50)]
    for rows in together(ids, share=True, tokens=1024):
        assert laid_out(ids, rows, share=True).ids.numel() <= 1024


def past(batch, row: int, column: int) -> set[int]:
    """The columns that a token sees."""
    return set(np.flatnonzero((batch.mask[row, 0, column] == 0).numpy()).tolist())


def layouts():
    for ids in CASES:
        yield [sorted(ids)]
        yield [ids]  # in any order it is right, if not as short
        yield [ids[::2], ids[1::2]] if len(ids) > 1 else [ids]
    yield [[[1, 2], [1, 2], [1, 2, 3], [1, 2]]]  # the same, and the beginning of another
    yield [[[5, 5, 5, 5]], [[5], [5, 5]]]


@pytest.mark.parametrize("rows", list(layouts()))
def test_a_token_of_a_shared_row_sees_its_own_text_up_to_itself_and_nothing_else(rows):
    batch = shared(rows, filler=9, dtype=torch.float32)
    ids = [text for row in rows for text in row]
    assert len(batch) == len(ids)
    assert batch.rows.tolist() == [row for row, texts in enumerate(rows) for _ in texts]
    assert set(batch.mask.unique().tolist()) <= {0.0, torch.finfo(torch.float32).min}
    taken: dict[int, dict[int, int]] = {}
    for text, row, columns in zip(ids, batch.rows, batch.columns, strict=True):
        assert batch.ids[row, columns].tolist() == text
        assert batch.positions[row, columns].tolist() == list(range(len(text)))
        for place, column in enumerate(columns):
            assert past(batch, row, column) == set(columns[: place + 1].tolist())
            taken.setdefault(int(row), {})[int(column)] = place
    for row in range(len(batch.ids)):
        for column in set(range(batch.ids.shape[1])) - set(taken[row]):
            assert past(batch, row, column) == {column}
            assert batch.ids[row, column] == 9


@pytest.mark.parametrize("ids", [sorted(case) for case in CASES])
def test_sorted_texts_in_one_row_take_the_tokens_of_their_different_beginnings(ids):
    batch = shared([ids], filler=0, dtype=torch.float32)
    assert tuple(batch.ids.shape) == (1, len(beginnings(ids)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_mask_is_of_the_dtype_of_the_model_and_finite(dtype):
    mask = shared([[[1, 2], [1, 3]]], filler=0, dtype=dtype).mask
    assert mask.dtype == dtype
    assert mask.isfinite().all()


@pytest.mark.parametrize("ids", CASES)
def test_padded_rows_hold_one_text_each_from_the_left(ids):
    batch = padded(ids, filler=9)
    assert batch.positions is None
    assert batch.rows.tolist() == list(range(len(ids)))
    for row, text in enumerate(ids):
        assert batch.columns[row].tolist() == list(range(len(text)))
        rest = batch.ids.shape[1] - len(text)
        assert batch.ids[row].tolist() == [*text, *[9] * rest]
        assert batch.mask[row].tolist() == [*[1] * len(text), *[0] * rest]
    assert batch.ids.shape[1] == max(map(len, ids))
