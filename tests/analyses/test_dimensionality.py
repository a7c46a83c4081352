"""Dimensions: planted numbers of them, and noise that adds none."""

import numpy as np
import pytest

from analyses import AnalysisError
from analyses.dimensionality import Dimensionality, participation, shared_variances
from scanner import Subject
from verification.worlds import SITE, world

PLAIN = Dimensionality(SITE)


def measured(subject: Subject):
    return PLAIN(subject, rng=np.random.default_rng(0)).isel(layer=0)


def with_axes(count: int, *, noise: float, of: str, seed: int = 0) -> Subject:
    """A world in which items, or categories, lie in that many dimensions of equal variance."""
    rng = np.random.default_rng(seed)
    size = {"layers": 1, "twins": 0, "units": 200, "categories": 10, "items": 40}
    subject = world(rng, noise=noise, item_spread=0, **size)
    names, which = np.unique(subject.volume[of].to_numpy(), return_inverse=True)
    axes = np.linalg.qr(rng.normal(size=(200, count)))[0]
    # Orthogonal scores of mean zero, so that the variances are equal.
    scores = rng.normal(size=(len(names), count))
    scores = np.linalg.qr(scores - scores.mean(0))[0] * np.sqrt(200 * len(names))
    x = subject.volume[SITE].to_numpy() + (scores @ axes.T)[which][:, None]
    return subject.replace_volume(subject.volume.assign({SITE: (subject.volume[SITE].dims, x)}))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_dimensions_of_categories_are_counted(count: int) -> None:
    found = measured(with_axes(count, noise=2.0, of="category"))
    assert float(found["between"]) == pytest.approx(count, rel=0.1)
    assert float(found["shared"]) > 0.7


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_dimensions_of_items_are_counted_in_spite_of_noise(count: int) -> None:
    """Plain principal components of the same items see 30 dimensions of noise."""
    found = measured(with_axes(count, noise=1.5, of="item"))["within"].mean()
    assert float(found) == pytest.approx(count, rel=0.2)


def test_noise_shares_no_variance() -> None:
    found = [
        float(measured(world(np.random.default_rng(seed), layers=1, item_spread=0))["shared"])
        for seed in range(40)
    ]
    assert abs(np.mean(found)) < 3.5 * np.std(found) / np.sqrt(len(found))


def test_shared_variance_is_the_variance_where_both_are_the_same() -> None:
    x = np.random.default_rng(0).normal(size=(12, 30))
    found = shared_variances(x, x)
    expected = np.linalg.svd(x - x.mean(0), compute_uv=False)[:-1] ** 2 / 11
    np.testing.assert_allclose(found, expected)
    assert shared_variances(x, -x).sum() == pytest.approx(-expected.sum())


def test_participation_is_the_number_of_equal_variances() -> None:
    np.testing.assert_allclose(participation(np.array([[2.0, 2, 2, 0], [5, 0, 0, 0]])), [3, 1])
    assert np.isnan(participation(np.array([[1.0, -2.0]]))).all()


def test_what_cannot_be_computed_is_told() -> None:
    with pytest.raises(AnalysisError, match="1 frame; 2 are needed"):
        measured(world(np.random.default_rng(0), frames=1, layers=1))
    subject = world(np.random.default_rng(0), layers=1)
    item, frame = subject.volume["item"], subject.volume["frame"]
    rows = np.flatnonzero((item != item[0]) | (frame == frame[0]))
    with pytest.raises(AnalysisError, match=f"'{item.values[0]}' is in no frame of one half"):
        measured(subject.take(rows))
