"""Models held against layers and subjects: the planted one wins, and errors are told."""

import numpy as np
import pytest

from analyses import AnalysisError
from analyses.rsa_models import RsaModels
from scanner import Subject
from verification.worlds import SITE, world

MODELS = ("category", "n_chars")


def measured(*subjects: Subject, **settings):
    analysis = RsaModels(SITE, models=MODELS, draws=200, **settings)
    return analysis(*subjects, rng=np.random.default_rng(0))


def replaced(subject: Subject, seed: int) -> Subject:
    """Another subject that has read the same items, with new noise around the same signal."""
    x = subject.volume[SITE]
    noise = np.random.default_rng(seed).normal(size=x.shape)
    return subject.replace_volume(subject.volume.assign({SITE: (x.dims, x.to_numpy() + noise)}))


def test_the_planted_model_is_told_from_another() -> None:
    subject = world(np.random.default_rng(0), code="direction", size=1, layers=2, twins=0)
    found = measured(subject)
    assert (found["low"].sel(model="category") > 0.3).all()
    assert (found["high"].sel(model="n_chars") < 0.2).all()
    assert (found["low"] < found["fit"]).all() and (found["fit"] < found["high"]).all()
    assert (found["reachable"] > found["fit"].max("model")).all()


def test_noise_is_within_its_interval_of_nothing() -> None:
    found = [measured(world(np.random.default_rng(seed), layers=1)) for seed in range(40)]
    inside = [((one["low"] < 0) & (one["high"] > 0)).to_numpy() for one in found]
    assert np.mean(inside) > 0.88


def test_layers_of_the_same_depth_of_several_subjects_are_held_together() -> None:
    first = world(np.random.default_rng(1), code="direction", size=1, layers=3, twins=0)
    others = [replaced(first, seed) for seed in range(5)]
    found = measured(first, *others, across=True, depths=(0.0, 1.0))
    assert found["fit"].dims == ("depth", "model")
    assert (found["ceiling_low"] < found["ceiling_high"]).all()
    assert (found["low"].sel(model="category") > 0).all()
    single = np.mean([measured(one)["fit"][[0, 2]] for one in (first, *others)], axis=0)
    np.testing.assert_allclose(found["fit"], single)


def test_a_model_that_does_not_vary_is_no_number() -> None:
    subject = world(np.random.default_rng(2), layers=1, twins=0)
    same = subject.relabel("n_chars", np.full(subject.volume.sizes["stimulus"], 4))
    found = measured(same).sel(model="n_chars")
    assert np.isnan([float(found[name][0]) for name in ("fit", "low", "high")]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ()}, "models must name at least one column"),
        ({"draws": 1}, "draws must be at least 2"),
        ({"level": 1.0}, "a level of 1"),
        ({"depths": (0.0, 2.0)}, "depths must be between 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RsaModels(SITE, **settings)


def test_subjects_that_have_read_other_items_are_refused() -> None:
    one, other = (world(np.random.default_rng(seed), layers=1, twins=0) for seed in (0, 1))
    with pytest.raises(AnalysisError, match="toy and toy have read other items"):
        measured(one, other, across=True)
