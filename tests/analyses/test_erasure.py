"""Least-squares erasure against what is proved of it, and against scikit-learn's shrinkage."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from analyses.erasure import leace, shrinkage
from analyses.probe import aucs, decode
from analyses.splits import Fold


def planted(rng, *, items: int = 240, units: int = 500, categories: int = 10):
    codes = np.tile(np.arange(categories), items // categories)
    x = rng.normal(size=(items, units)) @ rng.normal(size=(units, units)) / np.sqrt(units)
    return x + rng.normal(size=(categories, units))[codes], codes


@pytest.mark.parametrize(("items", "units"), [(240, 500), (500, 60)])
def test_shrinkage_is_that_of_scikit_learn(items: int, units: int) -> None:
    x = np.random.default_rng(0).normal(size=(items, units)) * np.arange(1, units + 1)
    x -= x.mean(0)
    assert shrinkage(x) == pytest.approx(ledoit_wolf_shrinkage(x, assume_centered=True), rel=1e-9)


@pytest.mark.parametrize(("categories", "units"), [(2, 40), (2, 500), (10, 40), (10, 500)])
def test_nothing_linear_is_left_and_the_rank_is_that_of_the_means(categories, units) -> None:
    """METHODS E: no covariance with the label, equal means, rank one less than categories."""
    x, codes = planted(np.random.default_rng(1), units=units, categories=categories)
    targets = np.eye(categories)[codes]
    eraser = leace(x, targets)
    assert eraser.rank == categories - 1
    erased = eraser(x)
    cross = (erased - erased.mean(0)).T @ (targets - targets.mean(0))
    assert np.abs(cross).max() / len(x) < 1e-10
    means = np.array([erased[codes == code].mean(0) for code in range(categories)])
    assert np.ptp(means, axis=0).max() < 1e-10
    np.testing.assert_allclose(eraser(erased), erased, atol=1e-9)  # a projection


def test_with_many_items_no_smaller_change_takes_the_label_out() -> None:
    """Where shrinkage is negligible: smaller than the orthogonal projection of the means."""
    rng = np.random.default_rng(2)
    x, codes = planted(rng, items=4000, units=30, categories=2)
    whitened = np.linalg.inv(np.linalg.cholesky(np.cov(x.T)))
    change = np.mean(((leace(x, np.eye(2)[codes])(x) - x) @ whitened.T) ** 2)
    along = x[codes == 1].mean(0) - x[codes == 0].mean(0)
    along /= np.linalg.norm(along)
    orthogonal = np.mean(((x - x.mean(0)) @ np.outer(along, along) @ whitened.T) ** 2)
    assert change < orthogonal


def test_an_eraser_of_all_items_is_given_away_below_chance() -> None:
    """METHODS A8: fitted in the training part at chance, fitted on the test as well far below."""
    x, codes = planted(np.random.default_rng(3), categories=2, items=120)
    group = np.repeat(np.arange(5), 24)
    folds = [Fold(np.flatnonzero(group != g), np.flatnonzero(group == g)) for g in range(5)]
    targets = np.eye(2)[codes]
    leaked = decode(leace(x, targets)(x), codes, folds, penalty=0.01)
    honest = np.full((len(x), 2), np.nan)
    for fold in folds:
        erased = leace(x[fold.train], targets[fold.train])(x)
        honest[fold.test] = decode(erased, codes, [fold], penalty=0.01)[fold.test]
    found = [aucs(some[:, None], codes[:, None]).mean() for some in (leaked, honest)]
    assert found[0] < 0.2
    assert found[1] == pytest.approx(0.5, abs=0.12)


def test_patterns_that_do_not_vary_are_left_as_they_are() -> None:
    x, codes = np.full((8, 5), 3.0), np.tile([0, 1], 4)
    eraser = leace(x, np.eye(2)[codes])
    assert eraser.rank == 0
    np.testing.assert_array_equal(eraser(x), x)
