"""Probe: planted effects, planted nulls, the Bayes classifier and scikit-learn as oracles."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.preprocessing import StandardScaler

from analyses import AnalysisError
from analyses.probe import Probe, decode, mean_auc, recalls, ridge
from analyses.splits import Fold, permuted_within
from verification.worlds import world

PROBE = Probe(site="resid_post", item_folds=4, frame_folds=2)


def accuracy(subject, seed: int = 0) -> np.ndarray:
    return PROBE(subject, rng=np.random.default_rng(seed))["balanced_accuracy"].to_numpy()


def test_a_planted_direction_is_decoded_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    planted = world(rng, code="direction", size=2)
    assert accuracy(planted).min() > 0.9
    nothing = np.mean([accuracy(world(rng)) for _ in range(20)])
    assert nothing == pytest.approx(0.25, abs=0.02)


def test_accuracy_comes_near_the_bayes_classifier_of_known_gaussians() -> None:
    """With many items the probe does as well as knowing the true means does."""
    rng = np.random.default_rng(0)
    means = 0.6 * rng.normal(size=(4, 10))
    codes = np.repeat(np.arange(4), 500)
    x, fresh = (means[codes] + rng.normal(size=(2000, 10)) for _ in range(2))
    distances = ((fresh[:, None] - means) ** 2).sum(2)
    bayes = np.mean(distances.argmin(1) == codes)
    rows = rng.permutation(2000)
    folds = [Fold(rows[:1000], rows[1000:]), Fold(rows[1000:], rows[:1000])]
    found = np.mean(decode(x, codes, folds, penalty=0.01).argmax(1) == codes)
    assert 0.5 < bayes < 0.9
    assert found == pytest.approx(bayes, abs=0.03)


def test_what_only_identifies_the_item_is_at_chance_where_a_random_split_is_fooled() -> None:
    subject = world(np.random.default_rng(0), code="item", items=12, units=100)
    x = subject.volume["resid_post"].isel(layer=0).to_numpy().astype(float)
    codes = np.repeat(np.arange(4), 48)
    folds = [Fold(*fold) for fold in KFold(5, shuffle=True, random_state=0).split(x)]
    fooled = np.mean(decode(x, codes, folds, penalty=1).argmax(1) == codes)
    assert fooled > 0.95
    honest = np.mean([accuracy(world(np.random.default_rng(s), code="item")) for s in range(15)])
    assert honest == pytest.approx(0.25, abs=0.04)


def test_frames_of_their_own_give_categories_away_to_a_split_by_item_but_not_to_ours() -> None:
    by_item, ours = [], []
    for seed in range(10):
        subject = world(np.random.default_rng(seed), own_frames=True, noise=0.3)
        volume = subject.volume
        x = volume["resid_post"].isel(layer=0).to_numpy().astype(float)
        codes = np.unique(volume["category"].to_numpy(), return_inverse=True)[1]
        folds = GroupKFold(4).split(x, groups=volume["item"].to_numpy())
        scores = decode(x, codes, [Fold(*fold) for fold in folds], penalty=1)
        by_item.append(np.mean(scores.argmax(1) == codes))
        ours.append(accuracy(subject, seed).mean())
    assert np.mean(by_item) > 0.9
    assert np.mean(ours) < 0.4  # frames of a category are as foreign to each other as any


@pytest.mark.parametrize("units", [20, 100], ids=["fewer-than-patterns", "more"])
def test_scores_equal_those_of_scikit_learn(units: int) -> None:
    rng = np.random.default_rng(0)
    x, codes = 10 * rng.normal(size=(90, units)) + 3, np.tile(np.arange(3), 30)
    folds = [Fold(np.arange(60), np.arange(60, 90)), Fold(np.arange(30, 90), np.arange(30))]
    ours = decode(x, codes, folds, penalty=0.7)
    for train, test in folds:
        scaler = StandardScaler().fit(x[train])
        z = scaler.transform(x[train])
        alpha = 0.7 * (z**2).sum() / len(train)
        ridge = Ridge(alpha=alpha).fit(z, np.eye(3)[codes[train]])
        np.testing.assert_allclose(ours[test], ridge.predict(scaler.transform(x[test])), atol=1e-10)


@pytest.mark.parametrize("penalty", [1e-6, 1e-3, 1.0, 100.0])
def test_many_patterns_are_fitted_as_exactly_as_few(penalty: float) -> None:
    """In single precision and corrected, or all in double where that does not converge."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 400)) @ rng.normal(size=(400, 400)) + 300
    wanted = rng.normal(size=(200, 4))
    fitted, wanted = x - x.mean(0), wanted - wanted.mean(0)
    size = penalty * np.sum(fitted**2) / len(fitted)
    axes, spread, _ = np.linalg.svd(fitted, full_matrices=False)
    expected = (axes * (spread**2 / (spread**2 + size))) @ axes.T @ wanted
    (found,) = ridge(fitted, wanted, penalties=(penalty,))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(fitted @ found, expected, atol=1e-9 * scale)
    rough = fitted.astype(np.float32)
    inner = rough @ rough.T + np.float32(size) * np.eye(200, dtype=np.float32)
    single = fitted @ (fitted.T @ np.linalg.solve(inner, wanted.astype(np.float32)))
    assert np.abs(single - expected).max() > 1e-8 * scale  # what is not corrected


def roc_auc(scores: np.ndarray, codes: np.ndarray) -> float:
    return float(
        np.mean([roc_auc_score(codes == code, scores[:, code]) for code in np.unique(codes)])
    )


@pytest.mark.parametrize("digits", [1, 9])
def test_auc_of_every_draw_equals_that_of_scikit_learn_with_ties_and_without(digits) -> None:
    rng = np.random.default_rng(0)
    codes, scores = rng.integers(0, 4, (80, 3)), rng.normal(size=(80, 3, 4)).round(digits)
    codes[:, 1] %= 3  # a draw in which a category is not there
    expected = [roc_auc(scores[:, draw], codes[:, draw]) for draw in range(3)]
    np.testing.assert_allclose(mean_auc(scores, codes), expected, atol=1e-12)


def test_nothing_fitted_depends_on_the_test_part() -> None:
    """A canary: other test labels and wild test patterns leave the other scores as they were."""
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(60, 10)), np.tile(np.arange(3), 20)
    fold = [Fold(np.arange(40), np.arange(40, 60))]
    before = decode(x, codes, fold, penalty=1)[40:50]
    changed, relabelled = x.copy(), codes.copy()
    changed[50:] *= 1e6
    relabelled[40:] = 2 - relabelled[40:]
    np.testing.assert_array_equal(before, decode(changed, relabelled, fold, penalty=1)[40:50])


def test_a_constant_layer_is_at_chance_and_constant_units_change_nothing() -> None:
    subject = world(np.random.default_rng(0), code="direction", size=2)
    volume = subject.volume
    constant = subject.replace_volume(volume.assign(resid_post=volume["resid_post"] * 0 + 7))
    assert accuracy(constant) == pytest.approx(0.25)
    x = volume["resid_post"].to_numpy()
    wider = np.concatenate([x, np.full((*x.shape[:2], 5), 1e4)], axis=2)
    widened = subject.replace_volume(
        volume.drop_vars(["resid_post", "unit"]).assign(
            resid_post=(("stimulus", "layer", "unit"), wider)
        )
    )
    np.testing.assert_allclose(accuracy(widened), accuracy(subject))


def test_scale_and_shift_of_the_recording_do_not_matter() -> None:
    subject = world(np.random.default_rng(0), code="direction")
    moved = subject.volume.assign(resid_post=subject.volume["resid_post"] * 1e-3 + 40)
    np.testing.assert_allclose(accuracy(subject.replace_volume(moved)), accuracy(subject))


def test_unequal_categories_are_averaged_not_pooled() -> None:
    """Nine tenths in one category: answering always that one is still at chance."""
    rng = np.random.default_rng(0)
    subject = world(rng, categories=2, items=40, frames=2)
    category = subject.volume["category"].to_numpy()
    kept = np.flatnonzero((category == "category0") | (np.arange(160) >= 144))
    assert accuracy(subject.take(kept)) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("units", [20, 200], ids=["fewer-than-patterns", "more"])
@pytest.mark.parametrize("missing", [False, True])
def test_all_permutations_at_once_are_what_decoding_each_would_give(
    missing: bool, units: int
) -> None:
    subject = world(np.random.default_rng(0), code="direction", size=2, units=units)
    if missing:  # items with unequal numbers of stimuli
        kept = np.random.default_rng(1).permutation(subject.volume.sizes["stimulus"])[:170]
        subject = subject.take(np.sort(kept))
    volume = subject.volume
    codes = np.unique(volume["category"].to_numpy(), return_inverse=True)[1]
    folds = PROBE._folds(subject, np.random.default_rng(3))
    groups = np.concatenate([np.full(len(fold.test), n // 2) for n, fold in enumerate(folds)])
    groups = groups[np.argsort(np.concatenate([fold.test for fold in folds]))]
    dealt = permuted_within(
        codes, volume["item"].to_numpy(), groups, draws=7, rng=np.random.default_rng(4)
    )
    for variable in PROBE.measures:
        found = PROBE.permuted(
            subject, variable, draws=7,
            rng=np.random.default_rng(3), shuffles=np.random.default_rng(4),
        )  # fmt: skip
        assert found.dims == ("draw", "layer")
        for draw, shuffled in enumerate(dealt):
            for layer in range(2):
                x = volume["resid_post"].isel(layer=layer).to_numpy()
                scores = decode(x, shuffled, folds, penalty=PROBE.penalty)
                expected = {
                    "balanced_accuracy": recalls(shuffled, scores.argmax(1), 4).mean(),
                    "auc": np.mean([roc_auc(scores[f.test], shuffled[f.test]) for f in folds]),
                }[variable]
                assert float(found[draw, layer]) == pytest.approx(expected, abs=1e-12)
        observed = PROBE(subject, rng=np.random.default_rng(3))[variable]
        assert observed.attrs["chance"] == found.attrs["chance"]
        assert float(observed.min()) > float(found.max())


def test_more_permutations_than_fit_at_once_are_not_the_same_ones_again() -> None:
    subject = world(np.random.default_rng(0), layers=1)
    rngs = {"rng": np.random.default_rng(0), "shuffles": np.random.default_rng(1)}
    found = PROBE.permuted(subject, "auc", draws=300, **rngs).to_numpy()
    assert np.mean(found[:150] == found[150:]) < 0.1
    assert found.mean() == pytest.approx(0.5, abs=0.01)


def test_too_few_items_are_an_error_that_says_so() -> None:
    subject = world(np.random.default_rng(0), items=3)
    with pytest.raises(AnalysisError, match="has 3 items, 4 groups need as many"):
        accuracy(subject)
