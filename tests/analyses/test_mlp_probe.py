"""The nonlinear probe: a product that lines cannot tell, against networks that are trained."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.neural_network import MLPClassifier

from analyses import AnalysisError
from analyses.mlp_probe import MlpProbe, accuracies, arc_cosine, kernel_ridge
from scanner import Subject
from verification.worlds import SITE, world

SIZE = {"layers": 1, "twins": 0, "units": 100}


def measured(subject: Subject):
    return MlpProbe(SITE)(subject, rng=np.random.default_rng(0)).isel(layer=0)


def product(units: int, *, items: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Two signs along random directions, and their product as the label."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], (items, 2))
    x = rng.normal(size=(items, units))
    x[:, :2] += 2 * signs
    return x @ np.linalg.qr(rng.normal(size=(units, units)))[0], (signs.prod(1) > 0).astype(int)


def test_a_product_is_read_as_well_as_by_a_tuned_network_and_better_than_by_a_stock_one() -> None:
    """METHODS A10: among 500 units a stock network fails where one on 20 components does not."""
    x, codes = product(500)
    fold = np.arange(600) % 3
    linear, mlp = accuracies(x, codes, fold)
    assert linear == pytest.approx(0.5, abs=0.08)
    fit, judge = fold != 0, fold == 0
    stock = MLPClassifier((64,), max_iter=1000, random_state=0).fit(x[fit], codes[fit])
    few = PCA(20).fit(x[fit])
    tuned = MLPClassifier((64,), alpha=0.1, max_iter=2000, random_state=0)
    tuned.fit(few.transform(x[fit]), codes[fit])
    assert stock.score(x[judge], codes[judge]) < 0.65
    assert mlp > 0.8
    assert mlp > tuned.score(few.transform(x[judge]), codes[judge]) - 0.05


def test_the_kernel_is_the_mean_of_a_wide_hidden_layer() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3))
    weights, bias = rng.normal(size=(3, 400_000)), rng.normal(size=400_000)
    hidden = np.maximum(x @ weights + bias, 0)
    np.testing.assert_allclose(arc_cosine(x, x), 2 * hidden @ hidden.T / 400_000, rtol=0.02)


def test_ridge_is_that_of_scikit_learn_after_centring() -> None:
    rng = np.random.default_rng(1)
    x, test, y = rng.normal(size=(20, 6)), rng.normal(size=(4, 6)), rng.normal(size=(20, 2))
    found = kernel_ridge(x @ x.T, test @ x.T, y, penalty=0.3)
    mean = x.mean(0)
    size = 0.3 * np.mean(np.sum((x - mean) ** 2, axis=1))
    oracle = KernelRidge(alpha=size).fit(x - mean, y - y.mean(0))
    np.testing.assert_allclose(found, oracle.predict(test - mean) + y.mean(0))


def test_a_code_without_a_line_has_a_gap_and_one_with_a_line_has_none() -> None:
    rng = np.random.default_rng(0)
    paired = measured(world(rng, code="paired", size=2.0, items=40, **SIZE))
    assert float(paired["gap"]) > 0.3
    found = [
        measured(world(np.random.default_rng(seed), code="direction", size=0.5, **SIZE))
        for seed in range(20)
    ]
    gaps = np.array([float(one["gap"]) for one in found])
    assert (
        0.5 < np.mean([float(one["linear"]) for one in found]) < 0.95
    )  # neither floor nor ceiling
    assert abs(gaps.mean()) < 0.04


def test_noise_is_read_by_neither() -> None:
    found = [measured(world(np.random.default_rng(seed), **SIZE)) for seed in range(20)]
    for name in ("linear", "mlp"):
        values = np.array([float(one[name]) for one in found])
        assert abs(values.mean() - 0.25) < 3.5 * values.std() / np.sqrt(20)


def test_the_control_says_whether_a_product_could_have_been_found() -> None:
    subject = world(np.random.default_rng(0), items=60, **SIZE)
    large = MlpProbe(SITE, planted=0.3)(subject, rng=np.random.default_rng(0))
    small = MlpProbe(SITE, planted=0.001)(subject, rng=np.random.default_rng(0))
    assert float(large["control"][0]) > 0.3
    assert abs(float(small["control"][0])) < 0.15
    none = MlpProbe(SITE, planted=0.0)(subject, rng=np.random.default_rng(0))
    assert "control" not in none
    np.testing.assert_array_equal(none["gap"], large["gap"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"item_folds": 2}, "item_folds must be at least 3"), ({"planted": 1.0}, "planted of 1")],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MlpProbe(SITE, **settings)


def test_too_few_items_are_named() -> None:
    with pytest.raises(AnalysisError, match="'category0' has 4 items, 5 groups need as many"):
        measured(world(np.random.default_rng(0), items=4, **SIZE))
