"""Selectivity: known values, planted units, planted nulls."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import ttest_ind

from analyses import AnalysisError, selectivity
from analyses.selectivity import (
    Selectivity,
    d_prime,
    row_correlation,
    stepped_up,
    top_overlap,
)
from verification.worlds import world

SELECTIVITY = Selectivity(site="resid_post", top=5, splits=30)


def members(codes: np.ndarray) -> np.ndarray:
    return codes == np.unique(codes)[:, None]


def measured(subject, analysis: Selectivity = SELECTIVITY):
    return analysis(subject, rng=np.random.default_rng(0))


def test_d_prime_is_the_t_statistic_of_scipy_without_its_sample_size() -> None:
    rng = np.random.default_rng(0)
    words, codes = rng.normal(size=(30, 8)), np.repeat(np.arange(3), [5, 10, 15])
    for code, found in enumerate(d_prime(words, members(codes))):
        inside = codes == code
        t = ttest_ind(words[inside], words[~inside]).statistic
        np.testing.assert_allclose(found, t * np.sqrt(1 / inside.sum() + 1 / (~inside).sum()))


def test_many_groupings_at_once_are_each_what_they_are_alone() -> None:
    rng = np.random.default_rng(0)
    words, codes = rng.normal(size=(24, 6)), np.repeat(np.arange(3), 8)
    halves = np.array([rng.permutation(24) < 12 for _ in range(4)])
    found = d_prime(words, members(codes) & halves[:, None])
    for half, together in zip(halves, found, strict=True):
        alone = d_prime(words[half], members(codes[half]))
        np.testing.assert_allclose(together, alone, atol=1e-12)


def test_memory_is_bounded_without_changing_the_result(monkeypatch) -> None:
    subject = world(np.random.default_rng(0), code="graded", items=8, layers=1)
    whole = measured(subject)
    monkeypatch.setattr(selectivity, "AT_ONCE", 1)
    xr.testing.assert_identical(measured(subject), whole)


def test_a_unit_that_does_not_vary_prefers_nothing() -> None:
    words = np.random.default_rng(0).normal(size=(20, 3))
    words[:, 1] = 1e5 + 0.1
    assert np.all(d_prime(words, members(np.repeat([0, 1], 10)))[:, 1] == 0)


def test_top_units_are_the_largest_not_the_largest_in_size() -> None:
    a = np.array([[5.0, 4, -9, 0, 1], [0, 0, 1, 2, 3]])
    b = np.array([[9.0, 1, 8, 0, -9], [0, 0, 1, 2, 3]])
    np.testing.assert_array_equal(top_overlap(a, b, 2), [0.5, 1])
    # Ties never make a top set larger than it was asked to be.
    np.testing.assert_array_equal(top_overlap(np.zeros((1, 9)), np.zeros((1, 9)), 3), [1])


def test_spearman_brown_of_one_half_is_two_thirds() -> None:
    np.testing.assert_allclose(stepped_up(np.array([0.5, 1, 0, -0.2])), [2 / 3, 1, 0, -0.2])


def test_row_correlation_equals_numpy() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 4, 30))
    expected = [np.corrcoef(i, j)[0, 1] for i, j in zip(a, b, strict=True)]
    np.testing.assert_allclose(row_correlation(a, b), expected)


def test_noise_overlaps_by_chance_as_the_hypergeometric_distribution_says() -> None:
    """3584 units, top 20: expected overlap 20 / 3584 = 0.0056."""
    subject = world(np.random.default_rng(0), units=3584, layers=1, frames=1, items=12)
    found = measured(subject, Selectivity(site="resid_post", top=20, splits=40))
    assert found["overlap"].attrs["chance"] == pytest.approx(0.0056, abs=1e-4)
    assert float(found["overlap"][0]) == pytest.approx(0.0056, abs=0.004)
    assert abs(float(found["profile"][0])) < 0.05


def test_planted_localist_units_are_found_again_and_are_the_planted_ones() -> None:
    subject = world(np.random.default_rng(0), code="localist", size=4)
    found = measured(subject)
    assert float(found["overlap"].min()) > 0.95
    best = found["selectivity"].isel(layer=0).to_numpy().argsort(1)[:, -5:]
    for category, units in enumerate(best):
        assert sorted(units) == list(range(5 * category, 5 * category + 5))


def test_a_dense_graded_code_has_a_stable_profile_while_its_top_units_change() -> None:
    """The published dissociation: reliability high, top overlap far below one."""
    subject = world(
        np.random.default_rng(0), code="graded", size=0.5, units=1000, layers=1, items=16
    )
    found = measured(subject, Selectivity(site="resid_post", top=20, splits=30))
    assert float(found["profile"][0]) > 0.7
    assert 0.05 < float(found["overlap"][0]) < 0.6


def test_profile_reliability_is_that_of_the_planted_variances() -> None:
    """Units with tuning t ~ N(0, a²), half means with error e ~ N(0, s²): r = a² / (a² + s²)."""
    rng = np.random.default_rng(0)
    items, units, tuning = 40, 4000, 0.35
    code = np.repeat([0, 1], items)
    words = rng.normal(size=(2 * items, units)) + np.where(code == 0, 0.5, -0.5)[:, None] * (
        tuning * rng.normal(size=units)
    )
    half = np.tile([0, 1], items)
    a, b = (d_prime(words, members(code) & (half == side)) for side in (0, 1))
    error = 2 / (items / 2)  # variance of a difference of two means of items / 2
    expected = tuning**2 / (tuning**2 + error)
    assert row_correlation(a, b)[0] == pytest.approx(expected, abs=0.05)


def test_too_few_units_or_items_are_errors_that_say_so() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(AnalysisError, match="top 20 of only 10 units"):
        measured(world(rng, units=10), Selectivity(site="resid_post"))
    with pytest.raises(
        AnalysisError,
        match="'category0' of 'category' has 3 items; 4 are needed, 2 in each of 2 parts",
    ):
        measured(world(rng, items=3))
