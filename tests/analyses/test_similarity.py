"""Similarity of layers: what is known exactly, what of unrelated ones, and a second opinion."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.spatial import procrustes as scipy_procrustes
from sklearn.neighbors import NearestNeighbors

from analyses import AnalysisError
from analyses.similarity import Similarity, _Parts, canonical, mutual_neighbours, procrustes
from scanner import Subject
from verification.worlds import SITE, world

PLAIN = Similarity(SITE)
ACROSS = Similarity(SITE, across=True)
MEASURES = ("procrustes", "svcca", "pwcca", "mutual_neighbours")


def measured(*subjects: Subject, analysis: Similarity = PLAIN):
    return analysis(*subjects, rng=np.random.default_rng(0))


def changed(subject: Subject, change) -> Subject:
    x = subject.volume[SITE]
    values = change(x.to_numpy())
    return subject.replace_volume(
        subject.volume.drop_vars([SITE, "unit"]).assign({SITE: (x.dims, values)})
    )


def test_a_layer_is_itself_after_a_rotation_in_other_items() -> None:
    rng = np.random.default_rng(0)
    subject = world(rng, code="graded", layers=1, twins=0, items=20)
    turn = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    other = changed(subject, lambda x: 7 * x @ turn)
    found = measured(subject, other, analysis=ACROSS)
    for name in MEASURES:
        assert float(found[name][0, 0]) == pytest.approx(1, abs=1e-9)


def test_unrelated_layers_are_not_alike_although_a_rotation_fits_them() -> None:
    """METHODS A13: in the items that it fits, Procrustes of 120 items in 600 units is 0.95."""
    x, y = np.random.default_rng(0).normal(size=(2, 120, 600))
    inside = procrustes(_Parts(x, x), _Parts(y, y))
    assert inside == pytest.approx(0.951, abs=0.01)
    found = [_unrelated(seed) for seed in range(20)]
    for name in ("procrustes", "svcca", "pwcca"):
        values = np.array([float(one[name][0, 0]) for one in found])
        assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(20)
    shared = np.mean([float(one["mutual_neighbours"][0, 0]) for one in found])
    assert shared == pytest.approx(10 / 79, rel=0.1)


def _unrelated(seed: int):
    """Two subjects that have read the same items, with nothing in common."""
    rng = np.random.default_rng(seed)
    subject = world(rng, items=20, layers=1, twins=0)
    other = changed(subject, lambda x: rng.normal(size=x.shape))
    return measured(subject, other, analysis=ACROSS)


def test_within_the_items_that_fit_both_are_what_others_compute() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 5))
    y = x @ rng.normal(size=(5, 5)) + rng.normal(size=(80, 5))
    x, y = x - x.mean(0), y - y.mean(0)
    disparity = scipy_procrustes(x, y)[2]  # 1 - cosine^2 at the best scale
    found = procrustes(_Parts(x, x), _Parts(y, y))
    assert 1 - found**2 == pytest.approx(disparity, abs=1e-10)
    # Components, as they are fitted: without correlation.
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    v, t, _ = np.linalg.svd(y, full_matrices=False)
    correlations = np.cos(subspace_angles(x, y))
    svcca, pwcca = canonical(_Parts(u * s, u * s), _Parts(v * t, v * t))
    assert svcca == pytest.approx(correlations.mean(), abs=1e-10)
    assert correlations.min() < pwcca < correlations.max()


def test_neighbours_are_those_of_scikit_learn() -> None:
    x, y = np.random.default_rng(2).normal(size=(2, 30, 8))
    near = [
        NearestNeighbors(n_neighbors=4, metric="cosine").fit(z - z.mean(0)).kneighbors()[1]
        for z in (x, y)
    ]
    expected = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(*near, strict=True)])
    assert mutual_neighbours(x[None], y[None], 4)[0, 0] == pytest.approx(expected)


def test_one_unit_can_make_layers_alike_and_is_seen_to() -> None:
    rng = np.random.default_rng(3)
    subject = world(rng, items=20, layers=1, twins=0)
    large = 200 * rng.normal(size=20 * 4)[np.unique(subject.volume["item"], return_inverse=True)[1]]

    def with_outlier(x: np.ndarray) -> np.ndarray:
        x = rng.normal(size=x.shape)
        x[:, 0, 0] = large
        return x

    one, other = (changed(subject, with_outlier) for _ in range(2))
    found = measured(one, other, analysis=ACROSS)
    assert float(found["procrustes"][0, 0]) > 0.95
    assert abs(float(found["procrustes_without_outliers"][0, 0])) < 0.4


def test_a_layer_that_does_not_vary_is_like_none() -> None:
    subject = world(np.random.default_rng(4), items=20, layers=2, twins=0)

    def flat(x: np.ndarray) -> np.ndarray:
        return np.stack([x[:, 0], np.full_like(x[:, 1], 5.0)], axis=1)

    found = measured(changed(subject, flat))
    for name in MEASURES:
        np.testing.assert_array_equal(np.isnan(found[name]), [[False, True], [True, True]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"item_folds": 1}, "item_folds must be at least 2"),
        ({"components": 0.6}, "components must be a share"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Similarity(SITE, **settings)


def test_what_cannot_be_compared_is_told() -> None:
    small = world(np.random.default_rng(0), items=2, layers=1, twins=0)
    with pytest.raises(AnalysisError, match="8 items; 11 are needed"):
        measured(small)
    one, other = (world(np.random.default_rng(seed), layers=1, twins=0) for seed in (0, 1))
    with pytest.raises(AnalysisError, match="toy and toy have read other items"):
        measured(one, other, analysis=ACROSS)
