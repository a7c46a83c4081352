"""Geometry: closed forms, planted dimensions and outliers, and what has no answer."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from analyses import AnalysisError
from analyses.geometry import (
    Geometry,
    effective_rank,
    intrinsic_dimension,
    mean_cosine,
    participation,
    variances,
)
from verification.worlds import world


def described(x: np.ndarray) -> dict[str, float]:
    """Of one layer, stimulus x unit, where each stimulus is an item of its own."""
    subject = world(np.random.default_rng(0), categories=4, items=len(x) // 4, frames=1, layers=1)
    volume = subject.volume.drop_dims("unit").assign(
        resid_post=(("stimulus", "layer", "unit"), x[:, None])
    )
    found = Geometry("resid_post")(subject.replace_volume(volume), rng=np.random.default_rng(0))
    return {str(name): found[name].to_numpy()[0] for name in found}


GAUSS = np.random.default_rng(0).normal(size=(100, 1000))


def test_rank_and_participation_of_known_spectra() -> None:
    assert effective_rank(np.ones(7)) == pytest.approx(7)
    assert participation(np.ones(7)) == pytest.approx(7)
    assert effective_rank(np.array([5.0, 0, 0])) == participation(np.array([5.0, 0, 0])) == 1
    halves = np.array([2.0, 1, 1])
    assert effective_rank(halves) == pytest.approx(np.exp(1.5 * np.log(2)))  # 1.5 bits
    assert participation(halves) == pytest.approx(16 / 6)


def test_variances_are_those_of_the_covariance_whichever_side_is_shorter() -> None:
    for x in (GAUSS[:30, :8] + 50, GAUSS[:8, :30] + 50):
        expected = np.linalg.eigvalsh(np.cov(x.T))[::-1][: min(len(x), 8)]
        np.testing.assert_allclose(
            np.sort(variances(x))[::-1][: len(expected)], expected, atol=1e-9
        )


def test_mean_cosine_is_that_of_all_pairs() -> None:
    x = GAUSS[:20, :10] + 1
    assert mean_cosine(x) == pytest.approx(1 - pdist(x, "cosine").mean(), abs=1e-12)
    assert np.isnan(mean_cosine(np.vstack([x, np.zeros(10)])))


def test_a_constant_outlier_makes_all_alike_and_changes_no_rank() -> None:
    """One coordinate of 1000 at 200: cosines of 200² / (200² + 1000), and the same covariance."""
    shifted = GAUSS.copy()
    shifted[:, 7] += 200
    found = described(shifted)
    assert found["anisotropy"] == pytest.approx(0.976, abs=0.001)
    assert found["anisotropy_without_outliers"] == pytest.approx(0, abs=0.01)
    assert found["effective_rank"] == pytest.approx(94.17, abs=0.2)
    assert found["effective_rank"] == pytest.approx(described(GAUSS)["effective_rank"], rel=1e-9)
    assert found["outliers"] == 1
    assert found["largest_unit"][0] == 7
    assert found["largest_share"][0] == pytest.approx(0.976, abs=0.001)


def test_an_outlier_that_varies_takes_the_rank_with_it_and_without_it_all_is_there() -> None:
    scaled = GAUSS.copy()
    scaled[:, 7] *= 200
    found = described(scaled)
    # What is left to the other 999 is spread over as many ranks as there were.
    rest = 999 / (999 + 200**2 * GAUSS[:, 7].var(ddof=1))
    bits = -(1 - rest) * np.log(1 - rest) - rest * np.log(rest) + rest * np.log(94)
    assert found["effective_rank"] == pytest.approx(np.exp(bits), abs=0.02)
    assert found["participation"] < 1.1
    assert found["effective_rank_without_outliers"] == pytest.approx(94.1, abs=0.2)


@pytest.mark.parametrize(("dimension", "tolerance"), [(1, 0.1), (2, 0.2), (5, 0.5)])
def test_the_dimension_of_a_flat_surface_in_a_large_space_is_found(dimension, tolerance) -> None:
    rng = np.random.default_rng(0)
    flat = rng.random((2000, dimension)) @ rng.normal(size=(dimension, 60))
    assert intrinsic_dimension(flat) == pytest.approx(dimension, abs=tolerance)


def test_a_circle_is_one_dimensional_though_it_fills_two() -> None:
    angle = np.random.default_rng(0).random(2000) * 2 * np.pi
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert intrinsic_dimension(circle) == pytest.approx(1, abs=0.1)
    assert participation(variances(circle)) == pytest.approx(2, abs=0.01)


def test_points_that_coincide_are_taken_once_and_three_are_too_few() -> None:
    points = np.random.default_rng(0).random((500, 2))
    assert intrinsic_dimension(np.repeat(points, 3, axis=0)) == intrinsic_dimension(points)
    assert np.isnan(intrinsic_dimension(points[:3]))


def test_a_layer_that_is_the_same_for_all_stimuli_has_no_rank() -> None:
    found = described(np.full((40, 30), 3.0))
    assert np.isnan(
        [found[name] for name in ("effective_rank", "participation", "dimension")]
    ).all()
    assert found["anisotropy"] == pytest.approx(1)


def test_silent_units_make_no_outlier_of_the_others() -> None:
    x = np.zeros((40, 100))
    x[:, :20] = GAUSS[:40, :20]
    assert described(x)["outliers"] == 0


def test_too_few_stimuli_are_named() -> None:
    with pytest.raises(AnalysisError, match="16 stimuli of 3 units; 4 of each are needed"):
        described(GAUSS[:16, :3])
