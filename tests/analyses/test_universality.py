"""Models that see the same are alike, and the best of many layers proves nothing."""

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from analyses import AnalysisError
from analyses.cka import among, compared, grams
from analyses.connectome import directions_at_random
from analyses.resemblance import Resemblance, scaled
from analyses.similarity import mutual_neighbours
from analyses.splits import item_groups
from analyses.transfer import Transfer
from analyses.universality import READINGS, Universality, path
from analyses.words import read_words, same_words
from scanner import Subject
from verification.worlds import SITE, world

UNIVERSALITY = Universality(SITE)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def likeness(*subjects: Subject) -> xr.Dataset:
    return UNIVERSALITY(*subjects, rng=rng())


def changed(subject: Subject, change) -> Subject:
    """The subject with other units, layer by layer."""
    x = subject.volume[SITE].transpose("layer", "stimulus", "unit").to_numpy()
    values = np.stack([change(layer) for layer in x])
    bare = subject.volume.drop_vars([SITE, "unit"])
    return subject.replace_volume(bare.assign({SITE: (("layer", "stimulus", "unit"), values)}))


def turned(subject: Subject, units: int = 90) -> Subject:
    """The same patterns in other units, and twice as long."""
    return changed(subject, lambda x: 2 * x @ directions_at_random(units, x.shape[1], rng(7)).T + 3)


def pair(code="shared", size: float = 1.0, seed: int = 0, **settings) -> Subject:
    return world(rng(seed), code=code, size=size, beside=True, **settings)


def test_a_model_is_like_itself_in_other_units_layer_by_layer() -> None:
    subject = world(rng(), code="item", size=0.3, layers=4, twins=0)
    other = turned(subject)
    found = likeness(subject, other)
    for name in READINGS:
        np.testing.assert_allclose(found[name], 1, atol=1e-9)
        np.testing.assert_allclose(np.diag(found[f"{name}_map"]), 1, atol=1e-9)
    assert found["path"].to_numpy().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", READINGS)
def test_models_that_share_nothing_are_not_alike_though_the_best_of_many_layers_is(name) -> None:
    """The best layer by the items that chose it is a little alike, whatever it holds."""
    judged, best = [], []
    for seed in range(12):
        subject = pair("none", seed=seed, layers=12, twins=0, items=6)
        found = likeness(*subject.together)
        judged.append(float(found[name].mean()))
        best.append(float(found[f"{name}_map"].max("other_layer").mean()))
    spread = np.std(judged, ddof=1) / np.sqrt(len(judged))
    assert abs(np.mean(judged)) < 4 * spread + 1e-9
    assert np.mean(best) > 0.05


@pytest.mark.parametrize("name", READINGS)
def test_the_more_two_models_share_the_more_alike_they_are(name) -> None:
    found = [float(likeness(*pair(size=size).together)[name].mean()) for size in (0, 0.4, 0.8, 2)]
    assert found == sorted(found)
    assert found[-1] > 0.5


def test_only_one_layer_is_alike_and_it_is_found() -> None:
    subject = pair("none", layers=5, twins=0)
    (other,) = subject.beside
    x, y = (one.volume[SITE].transpose("layer", "stimulus", "unit") for one in (subject, other))
    patterns = y.to_numpy().copy()
    patterns[3] = x.to_numpy()[1, :, :40]
    same = other.replace_volume(
        other.volume.assign({SITE: (("layer", "stimulus", "unit"), patterns)})
    )
    found = likeness(subject, same)
    assert int(found["cka"].argmax("layer")) == 1
    assert int(found["cka_map"][1].argmax("other_layer")) == 3
    assert found["path"].to_numpy()[1] == 3


def test_maps_are_those_of_other_implementations() -> None:
    subject = pair(size=0.5, twins=0, layers=3)
    found = likeness(*subject.together)
    words = [
        one.volume[SITE].groupby("item").mean().transpose("layer", "item", "unit").to_numpy()
        for one in subject.together
    ]
    frames = [one.volume[SITE].groupby("frame").mean().mean("frame") for one in subject.together]
    left, right = (
        w - f.transpose("layer", "unit").to_numpy()[:, None]
        for w, f in zip(words, frames, strict=True)
    )
    debiased, _ = compared(left, right, batch=1000, rng=rng())
    np.testing.assert_allclose(found["cka_map"], debiased, atol=1e-9)
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            apart = [pdist(some - some.mean(0), "cosine") for some in (one, other)]
            np.testing.assert_allclose(
                found["rsa_map"][i, j], spearmanr(*apart).statistic, atol=1e-9
            )
    count = round(0.1 * (left.shape[1] - 1))
    shared, chance = mutual_neighbours(left, right, count), count / (left.shape[1] - 1)
    np.testing.assert_allclose(found["neighbours_map"], (shared - chance) / (1 - chance))


def test_likeness_among_some_items_is_that_of_their_patterns() -> None:
    left, right = rng().normal(size=(2, 30, 8)), rng(1).normal(size=(3, 30, 5))
    rows = rng(2).permutation(30)[:17]
    found = among(grams(left), grams(right), rows)
    alone, _ = compared(left[:, rows], right[:, rows], batch=1000, rng=rng())
    np.testing.assert_allclose(found, alone, atol=1e-12)


def test_the_path_through_depth_is_the_best_of_all() -> None:
    for seed in range(20):
        likeness = rng(seed).normal(size=(4, 5))
        every = list(combinations_with_replacement(range(5), 4))
        best = max(every, key=lambda columns: likeness[range(4), columns].sum())
        assert tuple(path(likeness)) == best


def test_a_layer_that_is_the_same_for_all_items_is_like_none() -> None:
    subject = pair(twins=0, layers=2)
    x = subject.volume[SITE].transpose("layer", "stimulus", "unit").to_numpy().copy()
    x[0] = 1.0
    flat = subject.replace_volume(
        subject.volume.assign({SITE: (("layer", "stimulus", "unit"), x)})
    ).set_beside(*subject.beside)
    found = likeness(*flat.together)
    for name in READINGS:
        assert np.isnan(found[name][0])
        assert np.isfinite(found[name][1])


def test_what_two_twins_share_is_told_beside() -> None:
    subject = pair("shared", size=1, twin_code="token", confound="token", layers=1)
    rows = likeness(*subject.together)["by_training"].sel(layer=0)
    assert rows["untrained"].to_numpy().tolist() == ["neither", "first", "second", "both"]
    assert float(rows.sel(untrained="neither")) > 0.3
    assert float(rows.sel(untrained="both")) > 0.3
    assert float(abs(rows.sel(untrained=["first", "second"])).max()) < 0.2


def test_other_items_are_named() -> None:
    subject = pair(twins=0)
    (other,) = subject.beside
    fewer = other.take(np.arange(100))
    with pytest.raises(AnalysisError, match="other and toy have read other items"):
        likeness(subject.set_beside(), fewer)
    few = world(rng(), categories=1, items=6, beside=True)
    with pytest.raises(AnalysisError, match="6 items; 8 are needed"):
        likeness(*few.together)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbours": 0.0}, "neighbours must be a share"),
        ({"neighbours": 0.6}, "neighbours must be a share"),
        ({"splits": 0}, "splits must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Universality(SITE, **settings)


# --- direction transfer


def test_a_probe_reads_the_same_in_other_units_as_in_its_own() -> None:
    subject = world(rng(), code="direction", size=1.5, layers=2, twins=0, items=24)
    found = Transfer(SITE)(subject, turned(subject), rng=rng())
    np.testing.assert_allclose(found["balanced_accuracy"], found["own_accuracy"], atol=0.1)
    assert float(found["balanced_accuracy"].min()) > 0.6
    assert found["balanced_accuracy"].attrs["chance"] == 0.25


def test_nothing_is_read_from_a_model_that_holds_nothing() -> None:
    found = []
    for seed in range(12):
        subject = pair("direction", size=1.0, layers=1, twins=0, seed=seed)
        blank = world(rng(100 + seed), layers=1, twins=0)
        other = blank.replace_volume(subject.volume.assign({SITE: blank.volume[SITE].variable}))
        read = Transfer(SITE)(subject.set_beside(), other, rng=rng())
        found.append(float(read["balanced_accuracy"][0]))
        assert float(read["own_accuracy"][0]) > 0.6
        assert float(read["mapped"][0]) < 0.1
    assert abs(np.mean(found) - 0.25) < 4 * np.std(found, ddof=1) / np.sqrt(len(found))


def test_what_is_carried_over_is_what_scikit_learn_carries() -> None:
    subject = pair("direction", size=0.7, layers=1, twins=0)
    found = Transfer(SITE, penalty=0.5)(*subject.together, rng=rng(3))
    words = read_words(subject, SITE, "category")
    (left, right), _ = same_words(subject.together, SITE)
    deal = rng(3)
    group, scores = words.groups(4, rng=deal), np.zeros((len(words.codes), 4))
    missed = whole = 0.0

    def fitted(x: np.ndarray, y: np.ndarray) -> Pipeline:
        size = np.mean(np.sum(StandardScaler().fit_transform(x) ** 2, axis=1))
        return make_pipeline(StandardScaler(), Ridge(alpha=0.5 * size)).fit(x, y)

    for one in range(4):
        test, train = np.flatnonzero(group == one), np.flatnonzero(group != one)
        names = words.names[words.codes[train]]
        half = item_groups(words.items[train], names, groups=2, rng=deal)
        for side in (0, 1):
            probes, maps = train[half == side], train[half != side]
            own, other = left[0], right[0]
            carried = fitted(other[maps], own[maps]).predict(other[test])
            targets = np.eye(4)[words.codes[probes]]
            scores[test] += fitted(own[probes], targets).predict(carried)
            spread, mean = own[maps].std(0), own[maps].mean(0)
            missed += np.sum(((own[test] - carried) / spread) ** 2)
            whole += np.sum(((own[test] - mean) / spread) ** 2)
    accuracy = balanced_accuracy_score(words.codes, scores.argmax(1))
    np.testing.assert_allclose(found["balanced_accuracy"][0], accuracy)
    np.testing.assert_allclose(found["mapped"][0], 1 - missed / whole, atol=1e-9)


def test_an_untrained_network_reads_nothing_in_a_trained_one() -> None:
    """It would, if the map were fitted on the items of the probe."""
    found = []
    for seed in range(8):
        subject = pair("direction", size=1.5, layers=1, twins=1, units=200, seed=seed)
        (other,) = subject.beside
        read = Transfer(SITE)(subject.twin(0).set_beside(), other, rng=rng())
        found.append(float(read["balanced_accuracy"][0]))
        assert float(Transfer(SITE)(*subject.together, rng=rng())["balanced_accuracy"][0]) > 0.6
    assert abs(np.mean(found) - 0.25) < 4 * np.std(found, ddof=1) / np.sqrt(len(found))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"item_folds": 1}, "at least 2"), ({"penalty": 0.0}, "above 0")],
)
def test_settings_of_a_transfer_that_mean_nothing_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Transfer(SITE, **settings)


# --- resemblance


def test_models_that_are_alike_lie_close() -> None:
    subject = pair("shared", size=2, layers=2)
    (other,) = subject.beside
    found = Resemblance(SITE)(subject.set_beside(), other, rng=rng())
    apart = found["apart"]
    names = ["toy", "toy.twin0", "toy.twin1", "other", "other.twin0", "other.twin1"]
    assert apart["subject"].to_numpy().tolist() == names
    np.testing.assert_allclose(apart, apart.T)
    assert float(apart.sel(subject="toy", other_subject="other")) < 0.4
    assert float(apart.sel(subject="toy", other_subject="other.twin0")) > 0.8
    assert found["label"].to_numpy().tolist() == ["trained", "untrained", "untrained"] * 2


def test_one_model_alone_lies_in_the_middle() -> None:
    found = Resemblance(SITE)(world(rng(), twins=0), rng=rng())
    assert found["apart"].to_numpy().tolist() == [[0]]
    assert found["places"].to_numpy().tolist() == [[0, 0]]


def test_places_in_a_plane_have_the_distances_that_were_given() -> None:
    places = rng().normal(size=(7, 2))
    apart = squareform(pdist(places))
    np.testing.assert_allclose(squareform(pdist(scaled(apart))), apart, atol=1e-9)


def test_a_subject_keeps_those_beside_it() -> None:
    subject = pair(layers=3)
    (other,) = subject.beside
    assert [one.name for one in subject.together] == ["toy", "other"]
    assert all(not one.beside for one in subject.together)
    taken = subject.take(np.arange(10))
    assert [one.volume.sizes["stimulus"] for one in taken.together] == [10, 10]
    assert [one.volume.sizes["layer"] for one in subject.at(1).together] == [1, 3]
    assert subject.twin(1).beside == subject.beside
    bare = subject.without_twins()
    assert not bare.twins
    assert not bare.beside[0].twins
    assert replace(subject, beside=()).together == (subject.set_beside(),)
    assert other.twins
