"""Dips in the middle: planted ones, the ones of luck, and those of a single unit."""

import numpy as np
import pytest

from analyses.collapse import Collapse, dip, separability
from scanner import Subject
from verification.worlds import SITE, world

LAYERS = 8


def planted(change, *, seed: int = 0) -> Subject:
    """A world with eight layers of equal kind, changed."""
    subject = world(
        np.random.default_rng(seed), code="direction", size=1.0, layers=LAYERS, items=20, twins=0
    )
    x = subject.volume[SITE].to_numpy().copy()
    change(x, np.unique(subject.volume["item"], return_inverse=True)[1])
    return subject.replace_volume(subject.volume.assign({SITE: (subject.volume[SITE].dims, x)}))


def measured(subject: Subject):
    return Collapse(SITE, splits=20)(subject, rng=np.random.default_rng(0))


def test_a_layer_in_a_few_dimensions_is_a_dip_of_rank() -> None:
    def flat(x: np.ndarray, item: np.ndarray) -> None:
        x[:, 4] = x[:, 4] @ np.diag(np.arange(60) < 2)  # two units are left

    found = measured(planted(flat))
    for name in ("rank", "rank_without_outliers"):
        assert float(found[f"lowest_dip_of_{name}"]) > 0.8


def test_a_layer_that_has_lost_the_categories_is_a_dip_of_separability_alone() -> None:
    def lost(x: np.ndarray, item: np.ndarray) -> None:
        x[:, 4] = np.random.default_rng(0).normal(size=x[:, 4].shape)

    found = measured(planted(lost))
    assert float(found["lowest_dip_of_separability"]) > 0.5
    assert float(found["dip_of_rank"]) < 0.2


def test_one_large_unit_is_a_dip_of_rank_that_goes_away_without_it() -> None:
    """METHODS B9: a variable outlier takes the rank from 94 to 1, and nothing is lost."""

    def outlier(x: np.ndarray, item: np.ndarray) -> None:
        x[:, 4, 0] = 200 * np.random.default_rng(0).normal(size=80)[item]

    found = measured(planted(outlier))
    assert float(found["lowest_dip_of_rank"]) > 0.8
    assert float(found["dip_of_rank_without_outliers"]) < 0.1


def test_layers_of_one_kind_dip_no_more_than_by_nothing() -> None:
    """Where the dip is measured in the items that choose it, it is always there."""

    def same(x: np.ndarray, item: np.ndarray) -> None:
        """The same code in all layers, in new noise, so that none dips in truth."""
        rng = np.random.default_rng(1)
        code = rng.normal(size=(4, 1, 60))[np.repeat(np.arange(4), 80)]
        x[:] = code + 2 * np.random.default_rng(seed).normal(size=x.shape)

    honest, chosen = [], []
    for seed in range(20):
        subject = planted(same, seed=seed)
        found = measured(subject)
        honest.append(float(found["dip_of_separability"]))
        curve = found["separability"].to_numpy()
        chosen.append(dip(curve, curve))
    assert np.mean(chosen) > 0.02
    assert np.mean(honest) < 0


def test_a_rising_curve_has_no_dip_and_a_valley_has_its_depth() -> None:
    rising, valley = np.arange(1.0, 9.0), np.array([4.0, 6, 5, 2, 3, 5, 5, 4])
    assert dip(rising, rising) < 0
    assert dip(valley, valley) == pytest.approx((5 - 2) / 5)
    assert np.isnan(dip(rising[:2], rising[:2]))


def test_separability_is_the_share_of_variance_between_categories() -> None:
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(6), 200)
    noise = [
        separability(rng.normal(size=(120, 30)), np.repeat(np.arange(6), 20)) for _ in range(50)
    ]
    assert abs(np.mean(noise)) < 3.5 * np.std(noise) / np.sqrt(50)
    x = rng.normal(size=(1200, 400)) + np.sqrt(0.5) * rng.normal(size=(6, 400))[codes]
    assert separability(x, codes) == pytest.approx(1 / 3, abs=0.03)
    assert np.isnan(separability(np.ones((12, 3)), np.repeat([0, 1], 6)))


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="splits must be at least 2"):
        Collapse(SITE, splits=1)
