"""Inference on RDMs against rsatoolbox, replayed with its own draws, and against known errors."""

import numpy as np
import pytest
import rsatoolbox
from rsatoolbox.inference import boot_noise_ceiling, evaluate
from rsatoolbox.util.inference_util import _dual_bootstrap

from analyses.rdm import squared_euclidean
from analyses.rdm_bootstrap import HELD, RANKED, dual_variance, evaluated, infer, ranked_ceiling


def drawn(rng, *, items: int, rdms: int, models: int, signal: float = 1.0):
    """RDMs that share patterns, and models of which the first is the truth."""
    truth = rng.normal(size=(items, 20))
    found = [squared_euclidean(signal * truth + rng.normal(size=(items, 20))) for _ in range(rdms)]
    other = [squared_euclidean(rng.normal(size=(items, 20))) for _ in range(models - 1)]
    return np.array(found), np.array([squared_euclidean(truth), *other])


@pytest.mark.parametrize("comparison", HELD)
def test_samples_and_ceilings_are_those_of_the_dual_bootstrap(comparison, monkeypatch) -> None:
    rdms, models = drawn(np.random.default_rng(0), items=30, rdms=5, models=3)
    draws, original = [], evaluate.bootstrap_sample

    def recorded(*args, **settings):
        sample, rdm, pattern = original(*args, **settings)
        draws.append((np.bincount(rdm, minlength=5), np.bincount(pattern, minlength=30)))
        return sample, rdm, pattern

    monkeypatch.setattr(evaluate, "bootstrap_sample", recorded)
    np.random.seed(0)
    fixed = [rsatoolbox.model.ModelFixed(str(n), one) for n, one in enumerate(models)]
    data = rsatoolbox.rdm.RDMs(rdms)
    oracle = evaluate.eval_dual_bootstrap(fixed, data, method=comparison, N=12)
    subjects, items = (np.array(some) for some in zip(*draws, strict=True))
    every, each = np.ones_like(items), np.ones_like(subjects)
    arms = [(items, subjects), (every, subjects), (items, each)]
    for place, (w, m) in enumerate(arms):
        found = evaluated(rdms, models, comparison, items=w, subjects=m)
        expected = oracle.evaluations[:, :, 0, 0, place]
        np.testing.assert_allclose(found.similarity, expected, atol=1e-10)
        if comparison in RANKED:
            assert np.isnan(found.ceiling).all()
            continue
        np.testing.assert_allclose(
            found.ceiling.T, oracle.noise_ceiling[:, :, 0, place], atol=1e-10
        )


@pytest.mark.parametrize("comparison", RANKED)
def test_by_ranks_the_ceilings_of_all_are_those_of_rsatoolbox(comparison) -> None:
    rng = np.random.default_rng(4)
    rdms, models = drawn(rng, items=20, rdms=5, models=2)
    rdms = rdms.round(1)  # ties
    expected = boot_noise_ceiling(rsatoolbox.rdm.RDMs(rdms), method=comparison)
    np.testing.assert_allclose(ranked_ceiling(rdms, comparison), expected, atol=1e-12)
    found = infer(rdms, models, comparison, draws=50, rng=rng)
    np.testing.assert_allclose(found.ceiling, expected, atol=1e-12)
    assert (found.error > 0).all()
    assert np.isnan(infer(rdms[:1], models, comparison, draws=50, rng=rng).ceiling).all()


def test_the_variance_of_both_is_put_together_as_rsatoolbox_does() -> None:
    variances = np.random.default_rng(0).random((3, 50))
    variances[0] += variances[1:].sum(0)
    np.testing.assert_allclose(
        dual_variance(*variances, subjects=6, items=30), _dual_bootstrap(variances, 6, 30)
    )


def test_the_error_over_items_is_how_much_new_items_differ() -> None:
    rng = np.random.default_rng(1)
    found, errors = [], []
    for _ in range(200):
        inference = infer(*drawn(rng, items=40, rdms=1, models=2), "corr", draws=200, rng=rng)
        found.append(inference.similarity)
        errors.append(inference.error)
    # Of one subject with its noise: new items bring new noise as well.
    ratio = np.mean(errors, axis=0) / np.std(found, axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.25)
    assert inference.freedom == 39
    assert np.isnan(inference.ceiling).all()


def test_the_true_model_reaches_the_ceilings_and_others_do_not() -> None:
    rng = np.random.default_rng(2)
    rdms, models = drawn(rng, items=60, rdms=12, models=2, signal=0.7)
    found = infer(rdms, models, "corr", draws=200, rng=rng)
    low, high = found.ceiling
    assert low - 0.05 < found.similarity[0] < high + 0.02
    assert abs(found.similarity[1]) < 4 * found.error[1] + 0.05
    assert found.freedom == 11


def test_a_model_or_an_rdm_that_does_not_vary_is_no_number() -> None:
    """rsatoolbox takes an RDM of zeros for one that is alike by zero."""
    rdms, models = drawn(np.random.default_rng(3), items=10, rdms=2, models=2)
    rdms[1], models[1] = 0.0, 3.0
    one = {"items": np.ones((1, 10)), "subjects": np.array([[1, 0]])}
    found = evaluated(rdms, models, "corr", **one)
    assert np.isfinite(found.similarity[0, 0])
    assert np.isnan(found.similarity[0, 1])
    both = evaluated(rdms, models, "corr", items=np.ones((1, 10)), subjects=np.ones((1, 2)))
    assert np.isnan(both.similarity).all()
    ranked = evaluated(rdms, models, "spearman", **one)
    assert np.isfinite(ranked.similarity[0, 0])
    assert np.isnan(ranked.similarity[0, 1])
