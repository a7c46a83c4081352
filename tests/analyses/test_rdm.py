"""RDMs: rsatoolbox and scipy as second implementations, closed forms, and what has no answer."""

import warnings

import numpy as np
import pytest
import rsatoolbox
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, rankdata, spearmanr

from analyses.rdm import (
    COMPARISONS,
    compared,
    correlation,
    crossnobis,
    model_rdm,
    squared_euclidean,
)

RNG = np.random.default_rng(0)
PATTERNS = RNG.normal(size=(12, 30)) + 100 * RNG.normal(size=30)
FOLDS = RNG.normal(size=(3, 8, 20)) + RNG.normal(size=(8, 20))


def theirs(patterns: np.ndarray, method: str, **settings: object) -> np.ndarray:
    dataset = rsatoolbox.data.Dataset(patterns, obs_descriptors=settings.pop("descriptors", {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rsatoolbox.rdm.calc_rdm([dataset], method=method, **settings).dissimilarities[0]


def test_euclidean_and_correlation_equal_rsatoolbox_and_scipy() -> None:
    ours = squared_euclidean(PATTERNS)
    np.testing.assert_allclose(ours, theirs(PATTERNS, "euclidean"), rtol=1e-9)
    np.testing.assert_allclose(ours, pdist(PATTERNS, "sqeuclidean") / 30, rtol=1e-12)
    np.testing.assert_allclose(correlation(PATTERNS), theirs(PATTERNS, "correlation"), atol=1e-12)
    np.testing.assert_allclose(correlation(PATTERNS), pdist(PATTERNS, "correlation"), atol=1e-12)


def test_crossnobis_equals_rsatoolbox() -> None:
    names = {"item": np.tile(np.arange(8), 3), "run": np.repeat(np.arange(3), 8)}
    dataset = rsatoolbox.data.Dataset(FOLDS.reshape(24, 20), obs_descriptors=names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cast of rsatoolbox's own
        expected = rsatoolbox.rdm.calc_rdm(
            dataset, method="crossnobis", descriptor="item", cv_descriptor="run"
        ).dissimilarities[0]
    np.testing.assert_allclose(crossnobis(FOLDS), expected, atol=1e-12)


def test_crossnobis_of_items_that_do_not_differ_is_zero_on_average() -> None:
    noise = np.random.default_rng(1).normal(size=(2, 60, 50))
    found = crossnobis(noise)
    assert found.mean() == pytest.approx(0, abs=0.01)
    assert found.min() < 0
    assert squared_euclidean(noise.mean(0)).mean() == pytest.approx(1, abs=0.05)


def test_identical_patterns_are_at_no_distance() -> None:
    twice = np.concatenate([PATTERNS, PATTERNS])
    assert squareform(squared_euclidean(twice))[np.arange(12), np.arange(12, 24)].max() < 1e-12
    flat = np.vstack([np.full(30, 7.0), PATTERNS])
    np.testing.assert_array_equal(squareform(correlation(flat))[0, 1:], 1)


def test_models_are_differences_of_numbers_and_of_names() -> None:
    np.testing.assert_array_equal(model_rdm(np.array([1.0, 3, 7])), [2, 6, 4])
    np.testing.assert_array_equal(model_rdm(np.array(["a", "b", "a"])), [1, 0, 1])
    np.testing.assert_array_equal(
        model_rdm(np.array([["a", "b", "a"], ["a", "a", "a"]])), [[1, 0, 1], [0, 0, 0]]
    )


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_comparisons_equal_rsatoolbox(comparison) -> None:
    rdms = np.random.default_rng(0).normal(size=(3, 66)).round(1)  # with ties
    models = np.array([model_rdm(np.arange(12) % 3 * 1.0), model_rdm(np.arange(12) ** 2.0)])
    expected = rsatoolbox.rdm.compare(
        rsatoolbox.rdm.RDMs(rdms), rsatoolbox.rdm.RDMs(models), method=comparison
    )
    np.testing.assert_allclose(compared(rdms, models, comparison), expected, atol=1e-12)


def test_comparisons_equal_scipy() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 1, 66))
    assert compared(a, b, "corr")[0, 0] == pytest.approx(pearsonr(a[0], b[0]).statistic)
    assert compared(a, b, "spearman")[0, 0] == pytest.approx(spearmanr(a[0], b[0]).statistic)
    assert compared(a, b, "rho-a")[0, 0] == pytest.approx(spearmanr(a[0], b[0]).statistic)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_partial_correlation_has_the_closed_form_of_one_confound(comparison) -> None:
    a, b, c = np.random.default_rng(0).normal(size=(3, 1, 66)) + np.arange(66) / 30
    r = np.corrcoef(np.concatenate([a, b, c]) if comparison == "corr" else
                    [rankdata(one[0]) for one in (a, b, c)])  # fmt: skip
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert compared(a, b, comparison, c)[0, 0] == pytest.approx(expected, abs=1e-12)


def test_what_a_confound_explains_wholly_leaves_nothing_to_correlate() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 1, 66))
    assert np.isnan(compared(a, b, "corr", 3 * b + 1)).all()


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_an_rdm_that_is_the_same_everywhere_has_no_similarity_and_moves_no_other(
    comparison,
) -> None:
    """The embedding of a shared last token: rsatoolbox then shifts the profile by a layer."""
    rdms = np.random.default_rng(0).normal(size=(3, 66))
    rdms[0] = 0.0
    rdms[1] = 0.1 + 1e-17 * np.arange(66)
    model = model_rdm(np.arange(12) % 3 * 1.0)[None]
    found = compared(rdms, model, comparison)[:, 0]
    assert np.isnan(found[:2]).all()
    # Not to the bit: products of matrices of other shapes add in another order.
    assert found[2] == pytest.approx(compared(rdms[2:], model, comparison)[0, 0], rel=1e-12)
