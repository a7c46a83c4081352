"""CKA: what is known exactly, what is known on average, rsatoolbox as a second implementation."""

import dataclasses

import numpy as np
import pytest
import rsatoolbox

from analyses import AnalysisError
from analyses.cka import Cka, compared
from analyses.rdm import squared_euclidean
from verification.worlds import SITE, world

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 40))


def cka(x: np.ndarray, y: np.ndarray, batch: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Debiased and plain, of item x unit."""
    debiased, plain = compared(x[None], y[None], batch=batch, rng=np.random.default_rng(seed))
    return float(debiased[0, 0]), float(plain[0, 0])


@pytest.mark.parametrize(
    "same",
    [
        X,
        X @ np.linalg.qr(RNG.normal(size=(40, 40)))[0],
        -3 * X + RNG.normal(size=40),
        np.concatenate([X, X], axis=1),
    ],
    ids=["itself", "rotated", "scaled and moved", "doubled"],
)
def test_what_does_not_change_a_geometry_changes_no_cka(same) -> None:
    np.testing.assert_allclose(cka(X, same), 1, atol=1e-10)


def test_an_invertible_map_does_change_it() -> None:
    x = np.random.default_rng(0).normal(size=(200, 50))
    found = cka(x, x @ np.random.default_rng(1).normal(size=(50, 50)))
    assert 0.5 < found[1] < 0.9


@pytest.mark.parametrize("units", [50, 400])
def test_of_unrelated_patterns_the_plain_form_tells_their_size_and_the_debiased_nothing(
    units,
) -> None:
    """1 / (1 + items / units), and 0."""
    rng = np.random.default_rng(0)
    found = np.array([cka(*rng.normal(size=(2, 100, units))) for _ in range(20)])
    assert found[:, 0].mean() == pytest.approx(0, abs=0.01)
    assert found[:, 1].mean() == pytest.approx(1 / (1 + 100 / units), abs=0.01)


def test_the_plain_form_equals_rsatoolbox_on_squared_distances() -> None:
    """Diedrichsen et al. 2021: the whitened cosine of squared Euclidean RDMs is linear CKA."""
    y = X[:, :20] + RNG.normal(size=(100, 20))
    rdms = [rsatoolbox.rdm.RDMs(squared_euclidean(one)[None]) for one in (X[:30], y[:30])]
    expected = rsatoolbox.rdm.compare(*rdms, method="cosine_cov")[0, 0]
    assert cka(X[:30], y[:30])[1] == pytest.approx(expected, abs=1e-10)


def test_the_debiased_form_is_that_of_its_formula_written_out() -> None:
    y = X[:, :20] + RNG.normal(size=(100, 20))

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n, one = len(k), np.ones(len(k))
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        return (
            np.trace(k @ m)
            + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
            - 2 * (one @ k @ m @ one) / (n - 2)
        ) / (n * (n - 3))

    # Of kernels that are not centred: the estimator does it itself.
    k, m = X @ X.T, y @ y.T
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert cka(X, y)[0] == pytest.approx(expected, abs=1e-10)


def test_batches_give_the_whole_on_average() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 30))
    y = x[:, :15] + rng.normal(size=(400, 15))
    batches = [cka(x, y, batch=50, seed=seed)[0] for seed in range(20)]
    assert np.mean(batches) == pytest.approx(cka(x, y)[0], abs=0.01)
    unrelated = [cka(*rng.normal(size=(2, 400, 300)), batch=40)[0] for _ in range(20)]
    assert np.mean(unrelated) == pytest.approx(0, abs=0.01)


def test_no_batch_is_too_small_for_the_debiased_form() -> None:
    assert np.isfinite(cka(X[:7], X[:7, :5], batch=4)).all()
    assert cka(X[:7], X[:7], batch=4)[0] == pytest.approx(1)


def layers(**settings) -> tuple[np.ndarray, np.ndarray]:
    """Three layers: the first again in the second but for a rotation, the third another world."""
    one = world(np.random.default_rng(0), code="direction", size=3, layers=1, units=40)
    other = world(np.random.default_rng(1), layers=1, units=40).volume["resid_post"].to_numpy()
    first = one.volume["resid_post"].to_numpy()
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(40, 40)))[0]
    x = np.concatenate([first, 5 * first @ rotation, other], axis=1)
    volume = one.volume.drop_vars("layer").drop_dims("layer")
    volume = volume.assign(resid_post=(("stimulus", "layer", "unit"), x), layer=[0, 1, 2])
    found = Cka("resid_post", **settings)(one.replace_volume(volume), rng=np.random.default_rng(0))
    return found["debiased"].to_numpy(), found["plain"].to_numpy()


def test_layers_that_hold_the_same_are_found() -> None:
    debiased, plain = layers()
    np.testing.assert_allclose(debiased, debiased.T)
    np.testing.assert_allclose(np.diag(debiased), 1)
    assert debiased[0, 1] == pytest.approx(1)
    assert abs(debiased[0, 2]) < 0.1
    assert plain[0, 2] > abs(debiased[0, 2]) + 0.1  # of forty units and forty-eight items


def test_a_layer_that_is_the_same_for_all_items_is_like_none() -> None:
    x = np.random.default_rng(0).normal(size=(2, 30, 8))
    x[0] = 7.3
    debiased, plain = compared(x, x, batch=100, rng=np.random.default_rng(0))
    for found in (debiased, plain):
        assert np.isnan(found[0]).all()
        assert np.isnan(found[:, 0]).all()
        assert found[1, 1] == pytest.approx(1)


def test_what_cannot_be_compared_is_named() -> None:
    few = world(np.random.default_rng(0), categories=3, items=1)
    with pytest.raises(AnalysisError, match="cka: 3 items; 4 are needed"):
        Cka("resid_post")(few, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="batches of 3 items; the debiased form needs 4"):
        dataclasses.replace(Cka("resid_post"), batch=3)


def test_a_wide_gaussian_kernel_is_the_linear_one_and_a_narrow_one_is_not() -> None:
    """Kornblith et al. 2019: of a large width the Gaussian kernel is linear in squared distance."""
    y = X[:, :20] + RNG.normal(size=(100, 20))

    def rbf(width: float) -> float:
        settings = {"kernel": "rbf", "width": width, "batch": 10_000}
        return float(compared(X[None], y[None], rng=RNG, **settings)[1][0, 0])

    assert rbf(300.0) == pytest.approx(cka(X, y)[1], abs=1e-4)
    assert abs(rbf(0.5) - cka(X, y)[1]) > 0.05


def test_two_subjects_are_compared_layer_by_layer() -> None:
    subject = world(np.random.default_rng(0), code="graded", layers=3, twins=0)
    other = subject.replace_volume(subject.volume.isel(layer=[1, 2]))
    across = Cka(SITE, across=True)
    found = across(subject, other, rng=np.random.default_rng(0))
    assert across.takes == 2
    whole = Cka(SITE)(subject, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found["debiased"], whole["debiased"][:, 1:], atol=1e-12)


def test_an_outlier_is_taken_out_of_both() -> None:
    subject = world(np.random.default_rng(1), layers=1, twins=0, items=20)
    rng = np.random.default_rng(2)
    x = subject.volume[SITE]
    large = 300 * rng.normal(size=80)[np.unique(subject.volume["item"], return_inverse=True)[1]]

    def noise() -> np.ndarray:
        values = rng.normal(size=x.shape)
        values[:, 0, 0] = large
        return values

    one, two = (
        subject.replace_volume(subject.volume.assign({SITE: (x.dims, noise())})) for _ in range(2)
    )
    found = Cka(SITE, across=True)(one, two, rng=rng).isel(layer=0, other_layer=0)
    assert float(found["debiased"]) > 0.99
    assert abs(float(found["debiased_without_outliers"])) < 0.3
