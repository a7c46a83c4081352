"""Units that are the same in another order are matched, and those of noise correlate by nothing."""

import numpy as np
import pytest
import xarray as xr

from analyses import AnalysisError
from analyses.matching import Matching, standard
from scanner import Subject

ITEMS = 60


def subject(*layers: np.ndarray) -> Subject:
    """Each item once, of the activations item x unit of each layer."""
    count = len(layers[0])
    volume = xr.Dataset(
        {"resid_post": (("layer", "stimulus", "unit"), np.stack(layers))},
        coords={
            "layer": np.arange(len(layers)),
            "item": ("stimulus", [f"item{number}" for number in range(count)]),
            "frame": ("stimulus", ["frame"] * count),
            "category": ("stimulus", ["one", "other"] * (count // 2)),
        },
    )
    return Subject("toy", volume, {})


def found(one: Subject, other: Subject, seed: int = 0, **settings) -> xr.Dataset:
    return Matching("resid_post", **settings)(one, other, rng=np.random.default_rng(seed))


def test_units_in_another_order_and_size_are_found() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ITEMS, 30))
    moved = 5 * x[:, rng.permutation(30)] + 100
    result = found(subject(x), subject(moved))
    np.testing.assert_allclose(result["matched"], 1)
    np.testing.assert_allclose(result["closest"], 1)
    assert abs(result["matched_dealt"].item()) < 0.1


def test_noise_matches_by_nothing_in_other_items() -> None:
    rng = np.random.default_rng(1)
    values = [
        found(*(subject(rng.normal(size=(ITEMS, 40))) for _ in range(2)), seed=seed)["matched"]
        for seed in range(12)
    ]
    assert abs(np.mean(values)) < 0.02


def test_a_rotation_keeps_the_space_and_loses_the_units() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 40))
    turned = x @ np.linalg.qr(rng.normal(size=(40, 40)))[0]
    result = found(subject(x), subject(turned))
    assert result["matched"].item() < 0.5
    assert result["matched"].item() > result["matched_dealt"].item() + 0.1


def test_the_layer_that_matches_is_sought_and_pairs_are_as_many_as_the_smaller_has() -> None:
    rng = np.random.default_rng(3)
    x, noise = rng.normal(size=(2, ITEMS, 20))
    wide = np.concatenate([noise, rng.normal(size=(ITEMS, 10))], axis=1)
    other = np.concatenate([rng.normal(size=(ITEMS, 10)), x[:, ::-1]], axis=1)
    result = found(subject(x, noise), subject(wide, other))
    np.testing.assert_allclose(result["matched"], 1)
    # Half of the units are shared.
    half = np.concatenate([x[:, :10], rng.normal(size=(ITEMS, 10))], axis=1)
    assert found(subject(x), subject(half))["matched"].item() == pytest.approx(0.5, abs=0.1)


def test_units_that_do_nothing_correlate_by_nothing() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(ITEMS, 20))
    dead = x.copy()
    dead[:, :10] = 3.0
    result = found(subject(x), subject(dead))
    assert result["matched"].item() == pytest.approx(0.5, abs=0.01)
    assert not standard(np.full((5, 2), 7.0)).any()


def test_what_means_nothing_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(6, 20))
    with pytest.raises(AnalysisError, match="matching: 6 items; 8 are needed"):
        found(subject(x), subject(x))
    with pytest.raises(ValueError, match="at least 1"):
        Matching("resid_post", splits=0)
