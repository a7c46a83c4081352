"""Intervals and p-values: closed forms, coverage, and statsmodels' and published values."""

import numpy as np
import pytest
from scipy.stats import t as student

from verification.statistics import (
    Estimate,
    HalfSamples,
    bayes_factor,
    holm,
    items_needed,
    permutation_p,
    stream,
    strongest,
)


def items_of(categories: int, items: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    item = np.repeat(np.arange(categories * items), frames)
    return item, item // items


def mean_estimate(values: np.ndarray, halves: HalfSamples) -> Estimate:
    draws = np.array([values[rows].mean() for rows in halves.rows])
    return Estimate(float(values.mean()), draws, halves.scale, halves.freedom)


def test_half_samples_keep_items_whole_and_categories_balanced() -> None:
    item, category = items_of(3, 5, 4)
    halves = HalfSamples.draw(item, category, rng=np.random.default_rng(0))
    for rows in halves.rows:
        assert all(np.sum(item[rows] == name) == 4 for name in np.unique(item[rows]))
        assert [len(np.unique(item[rows][category[rows] == c])) for c in range(3)] == [2, 2, 2]
    assert halves.scale == pytest.approx(6 / 9)
    assert halves.freedom == 15 - 3


def test_of_what_is_not_smooth_a_third_is_deleted_and_the_error_of_a_mean_is_the_same() -> None:
    item, category = items_of(2, 9, 2)
    thirds = HalfSamples.draw(item, category, deleted=3, rng=np.random.default_rng(0))
    for rows in thirds.rows:
        assert [len(np.unique(item[rows][category[rows] == c])) for c in range(2)] == [6, 6]
    assert thirds.scale == pytest.approx(2)
    rng = np.random.default_rng(1)
    item, category = items_of(1, 60, 1)
    values = rng.normal(size=60)
    many = HalfSamples.draw(item, category, draws=4000, deleted=3, rng=rng)
    expected = values.std(ddof=1) / np.sqrt(60)
    assert mean_estimate(values, many).standard_error == pytest.approx(expected, rel=0.04)


def test_standard_error_of_a_mean_is_that_of_its_items_not_of_its_stimuli() -> None:
    rng = np.random.default_rng(0)
    item, category = items_of(1, 40, 10)
    values = rng.normal(size=40)[item]  # ten identical repetitions: 40 observations, not 400
    halves = HalfSamples.draw(item, category, draws=4000, rng=rng)
    expected = values[::10].std(ddof=1) / np.sqrt(40)
    assert mean_estimate(values, halves).standard_error == pytest.approx(expected, rel=0.04)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Items nested in categories, frames repeated: 95 % intervals of a mean over 400 studies."""
    covered = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        item, category = items_of(4, 8, 3)
        values = rng.normal(size=32)[item] + 0.3 * rng.normal(size=96)
        low, high = mean_estimate(values, HalfSamples.draw(item, category, rng=rng)).interval(0.95)
        covered += low < 0 < high
    assert 0.92 <= covered / 400 <= 0.98


def many_means(truths: list[float], seed: int) -> dict[str, Estimate]:
    """Means of as many independent properties of the same forty items."""
    rng = np.random.default_rng(seed)
    item, category = items_of(1, 40, 1)
    halves = HalfSamples.draw(item, category, rng=rng)
    return {
        f"world {number}": mean_estimate(truth + rng.normal(size=40), halves)
        for number, truth in enumerate(truths)
    }


def test_many_worlds_that_show_nothing_make_a_weaker_strongest_than_the_largest_of_them() -> None:
    """The largest of nine means of forty has 1.49 standard errors of luck, 0.23."""
    worlds = [many_means([0.0] * 9, seed) for seed in range(60)]
    largest = np.mean([max(one.value for one in world.values()) for world in worlds])
    smooth = np.mean([strongest(world)[1].value for world in worlds])
    assert largest == pytest.approx(1.485 / np.sqrt(40), abs=0.04)
    assert smooth < 0.75 * largest
    errors = [strongest(world)[1].standard_error for world in worlds]
    assert np.mean(errors) < 0.6 / np.sqrt(40)  # the mean of nine, not one of them


def test_a_world_that_stands_out_counts_alone() -> None:
    worlds = many_means([0.0] * 8 + [1.5], 0)
    words, found = strongest(worlds)
    assert words == "world 8 100%"
    assert found.value == worlds["world 8"].value
    np.testing.assert_array_equal(found.draws, worlds["world 8"].draws)


def test_two_worlds_that_are_alike_count_by_how_often_each_is_stronger() -> None:
    worlds = many_means([1.0, 1.0], 1)
    a, b = worlds["world 0"], worlds["world 1"]
    share = np.mean(a.value + a.draws - a.draws.mean() >= b.value + b.draws - b.draws.mean())
    words, found = strongest(worlds)
    assert 0 < share < 1
    assert f"world 0 {share:.0%}" in words
    assert found.value == pytest.approx(share * a.value + (1 - share) * b.value)
    assert found.standard_error < max(a.standard_error, b.standard_error)


def test_interval_and_p_agree_and_a_paired_difference_is_narrower() -> None:
    rng = np.random.default_rng(0)
    item, category = items_of(2, 20, 1)
    halves = HalfSamples.draw(item, category, rng=rng)
    shared = rng.normal(size=40)
    a = mean_estimate(shared + 1, halves)
    b = mean_estimate(shared + 0.1 * rng.normal(size=40), halves)
    low, _ = a.interval(0.9)
    assert a.p_greater(low) == pytest.approx(0.05)
    assert (a - b).value == pytest.approx(a.value - b.value)
    assert (a - b).standard_error < 0.2 * a.standard_error
    assert a.p_greater(0) == pytest.approx(student.sf(a.value / a.standard_error, 38))


def test_a_constant_measure_has_no_chance_to_be_anything_else() -> None:
    constant = Estimate(0.3, np.full(10, 0.3), 1.0, 9)
    assert constant.p_greater(0) == 0
    assert constant.p_greater(0.3) == 1


def test_holm_rejects_one_of_the_textbook_ten() -> None:
    """p from Benjamini & Hochberg's kind of example; one rejection by Holm at .05."""
    p = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
    adjusted = holm(p)
    assert adjusted[:2] == pytest.approx([0.010, 0.072])
    assert sum(value <= 0.05 for value in adjusted) == 1
    assert holm([]) == []


def test_permutation_p_counts_the_observed_and_never_is_zero() -> None:
    assert permutation_p(5.0, np.arange(5.0)) == pytest.approx(1 / 6)
    assert permutation_p(3.0, np.arange(5.0)) == pytest.approx(3 / 6)


def test_items_needed_shrinks_the_interval_to_the_distance() -> None:
    assert items_needed(100, 0.2, 0.1) == 400
    assert items_needed(100, 0.2, 0.0) is None


def test_streams_repeat_and_differ_by_purpose_and_seed() -> None:
    first = stream(0, "a", "b").random(4)
    np.testing.assert_array_equal(first, stream(0, "a", "b").random(4))
    others = [stream(0, "a", "c"), stream(0, "ab"), stream(1, "a", "b")]
    assert all(not np.array_equal(first, other.random(4)) for other in others)


@pytest.mark.parametrize(
    ("t", "n", "factor"),
    [(0.0, 20, 0.232), (0.0, 100, 0.111)],  # JZS factors of a paired t of zero
)
def test_bayes_factors_are_those_published(t: float, n: int, factor: float) -> None:
    assert bayes_factor(t, n - 1) == pytest.approx(factor, abs=5e-4)


def test_a_bayes_factor_grows_with_the_effect_and_does_not_care_for_its_side() -> None:
    factors = [bayes_factor(t, 30) for t in (0.0, 1.0, 2.0, 4.0, 40.0)]
    assert factors == sorted(factors)
    assert factors[0] < 1 / 3 and factors[3] > 10
    assert bayes_factor(-2.0, 30) == bayes_factor(2.0, 30)


def test_a_bayes_factor_is_the_integral_over_its_prior() -> None:
    """A second way: average the likelihood of t, a noncentral t, over a Cauchy prior."""
    from scipy.integrate import quad
    from scipy.stats import cauchy, nct

    t, n = 2.3, 25
    average, _ = quad(
        lambda d: nct.pdf(t, n - 1, d * np.sqrt(n)) * cauchy.pdf(d, scale=np.sqrt(0.5)), -5, 5
    )
    assert bayes_factor(t, n - 1) == pytest.approx(average / student.pdf(t, n - 1), rel=1e-3)
