"""What carries a label is found where it was planted, and what is random is as large."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from analyses import AnalysisError
from analyses.ablation import Ablation
from analyses.steering import Steering
from analyses.targets import Patterns, Target, Told, aim, matched, matched_units

UNITS, ITEMS, FRAMES = 40, 60, 3


def planted(size: float = 4.0, *, seed: int = 0) -> tuple[Patterns, np.ndarray]:
    """Two categories apart along one direction, in units of falling variance."""
    rng = np.random.default_rng(seed)
    item = np.repeat(np.arange(ITEMS), FRAMES)
    inside = (item % 2).astype(float)
    along = rng.normal(size=UNITS)
    along /= np.linalg.norm(along)
    spread = 3 / np.sqrt(np.arange(1, UNITS + 1))
    x = rng.normal(size=(len(item), UNITS)) * spread + size * inside[:, None] * along
    return Patterns.of(x, item.astype(str), inside[:, None]), along


def test_means_of_items_are_those_of_their_stimuli() -> None:
    patterns, _ = planted()
    names = np.unique(np.arange(ITEMS).astype(str))
    for row, name in enumerate(names):
        mean = patterns.stimuli[np.repeat(np.arange(ITEMS), FRAMES) == int(name)].mean(0)
        np.testing.assert_allclose(patterns.items[row], mean)
        assert patterns.wanted[row, 0] == int(name) % 2
    np.testing.assert_allclose(patterns.center, patterns.stimuli.mean(0))


def test_the_difference_of_means_is_the_direction_that_was_planted() -> None:
    patterns, along = planted(20.0)
    found = aim("own", patterns, "mean_difference", count=1)
    inside = patterns.wanted[:, 0] == 1
    apart = patterns.items[inside].mean(0) - patterns.items[~inside].mean(0)
    np.testing.assert_allclose(
        np.abs(found.along[0]), np.abs(apart) / np.linalg.norm(apart), rtol=1e-10
    )
    assert abs(float(found.along[0] @ along)) > 0.99


def test_the_weights_of_the_probe_are_those_of_scikit_learn() -> None:
    patterns, _ = planted()
    found = aim("own", patterns, "probe", count=1).along[0]
    centred = patterns.items - patterns.items.mean(0)
    scaled = centred / centred.std(0)
    alpha = np.mean(np.sum(scaled**2, axis=1))
    weights = Ridge(alpha=alpha).fit(scaled, patterns.wanted[:, 0]).coef_ / centred.std(0)
    assert abs(found @ weights) / np.linalg.norm(weights) == pytest.approx(1, abs=1e-9)


def test_several_categories_span_one_direction_less_than_they_are() -> None:
    patterns, _ = planted()
    wanted = np.eye(4)[np.arange(len(patterns.items)) % 4]
    patterns = Patterns(patterns.stimuli, patterns.items, wanted)
    for way in ("mean_difference", "probe", "leace"):
        assert aim("own", patterns, way, count=1).along.shape == (3, UNITS)
    erased = aim("own", patterns, "leace", count=1)
    left = patterns.items - (patterns.items - patterns.items.mean(0)) @ erased.readout.T @ (
        erased.along
    )
    means = [left[wanted[:, one] == 1].mean(0) for one in range(4)]
    np.testing.assert_allclose(means, np.broadcast_to(means[0], (4, UNITS)), atol=1e-10)


def test_a_subspace_is_what_probes_find_one_after_the_other() -> None:
    patterns, _ = planted()
    own = aim("own", patterns, "subspace", count=3).along
    assert own.shape == (3, UNITS)
    np.testing.assert_allclose(own @ own.T, np.eye(3), atol=1e-12)
    centred = patterns.items - patterns.items.mean(0)
    spread, left = centred.std(0), centred
    span = np.empty((0, UNITS))
    for _ in range(3):
        scaled = left / spread
        alpha = np.mean(np.sum(scaled**2, axis=1))
        weights = Ridge(alpha=alpha).fit(scaled, patterns.wanted[:, 0]).coef_ / spread
        span = np.linalg.qr(np.vstack([span, weights]).T)[0].T
        left = centred - centred @ span.T @ span
    np.testing.assert_allclose(own.T @ own, span.T @ span, atol=1e-8)
    # Nothing is found once nothing is left.
    assert len(aim("own", patterns, "subspace", count=64).along) == UNITS


def test_units_are_those_that_tell_the_label() -> None:
    patterns, _ = planted(0.0)
    raised = patterns.items.copy()
    raised[patterns.wanted[:, 0] == 1, 30:33] += 5
    found = aim("own", Patterns(patterns.stimuli, raised, patterns.wanted), "units", count=3)
    assert sorted(found.along.argmax(1)) == [30, 31, 32]
    np.testing.assert_array_equal(found.along.sum(1), 1)
    assert found.along is found.readout


def test_features_are_those_that_tell_the_label_and_stand_for_what_they_write() -> None:
    patterns, _ = planted(0.0)
    rng = np.random.default_rng(3)
    features = rng.normal(size=(len(patterns.items), 12))
    features[patterns.wanted[:, 0] == 1, [[4], [9]]] += 5
    written = rng.normal(size=(12, UNITS))
    told = Told(features, written / np.linalg.norm(written, axis=1, keepdims=True))
    found = aim("own", replace(patterns, told=told), "features", count=2)
    span = np.linalg.qr(told.written[[4, 9]].T)[0]
    np.testing.assert_allclose(found.along.T @ found.along, span @ span.T, atol=1e-10)
    (alone,) = aim("own", replace(patterns, told=told), "features", count=1).along
    assert max(np.abs(told.written[[4, 9]] @ alone)) == pytest.approx(1)


def test_what_a_dictionary_tells_of_stimuli_is_averaged_by_item() -> None:
    rng = np.random.default_rng(0)
    x, features = rng.normal(size=(6, 3)), rng.normal(size=(6, 5))
    items = np.array(["b", "a", "c", "a", "b", "c"])
    found = Patterns.of(x, items, np.ones((6, 1)), Told(features, np.eye(5, 3)))
    assert found.told is not None
    np.testing.assert_allclose(found.told.features[0], features[[1, 3]].mean(0))
    np.testing.assert_allclose(found.items[0], x[[1, 3]].mean(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"way": "features"}, "needs `dictionary`"),
        ({"dictionary": "told"}, "'mean_difference' reads none; leave it out"),
    ],
)
def test_features_and_their_dictionary_belong_together(settings: dict, message: str) -> None:
    for analysis in (Ablation, Steering):
        with pytest.raises(ValueError, match=message):
            analysis("resid_post", (0,), **settings)


@pytest.mark.parametrize("way", ["mean_difference", "probe", "leace"])
@pytest.mark.parametrize("columns", [1, 4])
def test_as_much_goes_with_directions_at_random_as_with_the_own(way: str, columns: int) -> None:
    patterns, _ = planted()
    if columns > 1:
        wanted = np.eye(columns)[np.arange(len(patterns.items)) % columns]
        patterns = Patterns(patterns.stimuli, patterns.items, wanted)
    first = aim("own", patterns, way, count=1)
    rng = np.random.default_rng(1)
    drawn = [matched(rng, patterns, first) for _ in range(5)]
    for one in drawn:
        assert one.kind == "matched"
        assert one.along.shape == first.along.shape
        np.testing.assert_allclose(one.along @ one.along.T, np.eye(len(one.along)), atol=1e-10)
        assert one.energy(patterns.stimuli) == pytest.approx(
            first.energy(patterns.stimuli), rel=1e-3
        )
    # Others each time, and none of them the own.
    overlap = [np.abs(one.along @ drawn[0].along.T).max() for one in drawn[1:]]
    assert max(overlap) < 0.99
    isotropic = rng.normal(size=(1, UNITS))
    isotropic /= np.linalg.norm(isotropic)
    if columns == 1 and way == "mean_difference":
        assert Target("x", isotropic, isotropic).energy(patterns.stimuli) < 0.7 * first.energy(
            patterns.stimuli
        )


def test_units_at_random_are_others_of_like_variance() -> None:
    patterns, _ = planted()
    first = aim("own", patterns, "units", count=4)
    variance = patterns.stimuli.var(0)
    own = first.along.argmax(1)
    for seed in range(5):
        drawn = matched_units(np.random.default_rng(seed), patterns, first).along.argmax(1)
        assert len(set(drawn)) == 4 and not set(drawn) & set(own)
        assert np.abs(np.log(variance[drawn] / variance[own])).max() < 1.5


def test_labels_dealt_out_anew_are_as_many_of_each() -> None:
    patterns, _ = planted()
    dealt = patterns.dealt(np.random.default_rng(0))
    assert dealt.wanted.sum() == patterns.wanted.sum()
    assert not np.array_equal(dealt.wanted, patterns.wanted)


def test_where_nothing_differs_there_is_nothing_to_act_on() -> None:
    patterns, _ = planted()
    same = Patterns(patterns.stimuli, np.ones_like(patterns.items), patterns.wanted)
    with pytest.raises(AnalysisError, match="the same mean, so no direction"):
        aim("own", same, "mean_difference", count=1)
