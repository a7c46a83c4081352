"""RSA: planted geometry, planted nulls, confounds, and what it refuses."""

import dataclasses
import itertools

import numpy as np
import pytest
import rsatoolbox
from scipy.spatial.distance import squareform

from analyses import AnalysisError
from analyses.rsa import Rsa
from verification.worlds import world

RSA = Rsa(site="resid_post")
SIZE = {"categories": 5, "items": 8, "frames": 4, "layers": 2, "units": 60}


def similarity(subject, analysis: Rsa = RSA, variable: str = "similarity") -> np.ndarray:
    return analysis(subject, rng=np.random.default_rng(0))[variable].to_numpy()


def planted(seed: int = 0, **changed):
    return world(np.random.default_rng(seed), **{**SIZE, **changed})


@pytest.mark.parametrize("distance", ["crossnobis", "euclidean", "correlation"])
def test_planted_categories_are_found_and_noise_is_not(distance) -> None:
    analysis = dataclasses.replace(RSA, distance=distance)
    # Of one pair in nine within, 0.55 is the most that ranks can agree with two values.
    assert similarity(planted(code="direction", size=4), analysis).min() > 0.5
    nothing = np.concatenate([similarity(planted(seed), analysis) for seed in range(20)])
    assert abs(nothing.mean()) < 3 * nothing.std() / np.sqrt(40)
    assert nothing.std() < 0.06


def test_a_number_is_compared_by_its_differences() -> None:
    subject = planted(code="length", size=3, confound="length")
    by_length = similarity(subject, dataclasses.replace(RSA, label="n_chars", confounds=()))
    by_category = similarity(subject, dataclasses.replace(RSA, confounds=()))
    assert by_length.min() > 0.9
    assert (by_length > by_category + 0.2).all()


def test_what_a_confound_makes_is_taken_out() -> None:
    """Only length is coded, and categories differ in length: nothing of the category is left."""
    subjects = [planted(seed, code="length", size=3, confound="length") for seed in range(12)]
    assert np.mean([similarity(one) for one in subjects]) > 0.4
    left = np.concatenate([similarity(one, variable="partial") for one in subjects])
    assert abs(left.mean()) < 0.05
    assert np.abs(left).max() < 0.2
    clean = planted(code="direction", size=4)
    np.testing.assert_allclose(similarity(clean, variable="partial"), similarity(clean), atol=0.02)


def test_distances_of_frame_means_are_those_of_rsatoolbox() -> None:
    subject = planted(code="direction")
    x = subject.volume["resid_post"].isel(layer=1).to_numpy()
    frame, item = (subject.volume[name].to_numpy() for name in ("frame", "item"))
    x = x - np.array([x[frame == one].mean(0) for one in frame])
    x /= x.std(0)
    names = np.unique(item)
    means = np.array([x[item == one].mean(0) for one in names])
    category = np.array([subject.volume["category"].to_numpy()[item == one][0] for one in names])
    rdm = rsatoolbox.rdm.calc_rdm([rsatoolbox.data.Dataset(means)], method="correlation")
    model = rsatoolbox.rdm.get_categorical_rdm(category.tolist())
    expected = rsatoolbox.rdm.compare(rdm, model, method="spearman")[0, 0]
    found = similarity(subject, dataclasses.replace(RSA, distance="correlation"))[1]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("variable", ["similarity", "partial"])
@pytest.mark.parametrize("label", ["category", "zipf"])
def test_all_permutations_at_once_are_relabellings_of_the_items(variable, label) -> None:
    subject = planted(code="direction", size=1)
    analysis = dataclasses.replace(RSA, label=label, confounds=("n_chars", "n_tokens"))
    found = analysis.permuted(
        subject, variable, draws=5,
        rng=np.random.default_rng(0), shuffles=np.random.default_rng(1),
    )  # fmt: skip
    item, values = (subject.volume[name].to_numpy() for name in ("item", label))
    names, first, which = np.unique(item, return_index=True, return_inverse=True)
    orders = np.random.default_rng(1).permuted(np.tile(np.arange(len(names)), (5, 1)), axis=1)
    for draw, order in enumerate(orders):
        relabelled = subject.relabel(label, values[first][order][which])
        expected = similarity(relabelled, analysis, variable)
        np.testing.assert_allclose(found[draw], expected, atol=1e-12)


def test_the_mantel_test_keeps_its_level() -> None:
    """Item permutations of noise: p is uniform, where pairs as the sample would give many."""
    p = []
    for seed in range(60):
        subject = planted(seed, layers=1)
        rng = {"rng": np.random.default_rng(0), "shuffles": np.random.default_rng(seed)}
        null = RSA.permuted(subject, "similarity", draws=99, **rng).to_numpy()[:, 0]
        p.append((1 + np.sum(null >= similarity(subject)[0])) / 100)
    assert np.mean(np.array(p) <= 0.05) <= 0.12
    assert 0.35 < np.mean(p) < 0.65


def test_reliability_is_high_for_a_strong_code_and_none_for_noise() -> None:
    strong = planted(code="direction", size=4, item_spread=0.0)
    assert similarity(strong, variable="reliability").min() > 0.8
    noise = [similarity(planted(s, item_spread=0.0), variable="reliability") for s in range(10)]
    assert abs(np.mean(noise)) < 0.1


def test_every_category_stands_apart_as_far_as_it_was_planted() -> None:
    found = RSA(planted(code="direction", size=4), rng=np.random.default_rng(0))["separation"]
    assert found.dims == ("layer", "category")
    assert float(found.min()) > 1
    assert similarity(planted(), variable="separation").max() < 1


def test_distances_between_categories_are_means_over_their_items() -> None:
    subject = planted(code="direction", size=2, categories=3)
    found = RSA(subject, rng=np.random.default_rng(0))
    rdms, _, values = RSA._rdms(subject, np.random.default_rng(0))
    square = squareform(rdms[1], checks=False)
    for one in range(3):
        for other in range(3):
            inside, across = (values == f"category{c}" for c in (one, other))
            block = square[np.ix_(inside, across)]
            expected = block.sum() / (64 if one != other else 56)
            assert found["rdm"][1, one, other] == pytest.approx(expected, abs=1e-12)
    apart = square[np.ix_(values == "category0", values != "category0")].mean()
    expected = (apart - float(found["rdm"][1, 0, 0])) / rdms[1].std()
    assert found["separation"][1, 0] == pytest.approx(expected, abs=1e-12)


def test_categories_are_apart_as_rsatoolbox_finds_over_runs_of_items() -> None:
    """Averaged over all ways to pair the items of two categories in runs."""
    subject = planted(code="direction", categories=2, items=3)
    euclidean = dataclasses.replace(RSA, distance="euclidean")
    found = euclidean(subject, rng=np.random.default_rng(0))["contrast"][1]
    x = subject.volume["resid_post"].isel(layer=1).to_numpy().astype(float)
    frame, item, category = (
        subject.volume[name].to_numpy() for name in ("frame", "item", "category")
    )
    x = x - np.array([x[frame == one].mean(0) for one in frame])
    x /= x.std(0)
    first, second = (
        [x[item == one].mean(0) for one in np.unique(item[category == kind])]
        for kind in np.unique(category)
    )
    each = []
    for order in itertools.permutations(range(3)):
        data = rsatoolbox.data.Dataset(
            np.array([*first, *[second[place] for place in order]]),
            obs_descriptors={"category": list("aaabbb"), "run": list("123123")},
        )
        rdm = rsatoolbox.rdm.calc_rdm(
            data, method="crossnobis", descriptor="category", cv_descriptor="run"
        )
        each.append(rdm.dissimilarities[0, 0])
    assert found.to_numpy() == pytest.approx(np.mean(each) * (1 - np.eye(2)), abs=1e-12)


def test_categories_of_noise_are_not_apart_on_average_where_planted_ones_are() -> None:
    def apart(**changed) -> np.ndarray:
        every = [
            RSA(planted(seed, items=4, **changed), rng=np.random.default_rng(0))["contrast"]
            for seed in range(30)
        ]
        return np.array([one.to_numpy()[:, 0, 1].mean() for one in every])

    noise, planted_ones = apart(), apart(code="direction", size=2)
    assert abs(noise.mean()) < 3 * noise.std() / np.sqrt(30)
    assert planted_ones.mean() > 10 * noise.std() / np.sqrt(30)


def test_the_order_of_stimuli_does_not_matter() -> None:
    subject = planted(code="direction")
    rows = np.random.default_rng(3).permutation(subject.volume.sizes["stimulus"])
    np.testing.assert_allclose(similarity(subject.take(rows)), similarity(subject), atol=1e-12)


def test_a_layer_in_which_all_items_are_the_same_has_no_similarity() -> None:
    subject = planted(code="direction", size=4)
    x = subject.volume["resid_post"].copy()
    x[:, 0] = 3.0
    found = similarity(subject.replace_volume(subject.volume.assign(resid_post=x)))
    assert np.isnan(found[0])
    assert found[1] == similarity(subject)[1]


def test_what_cannot_be_compared_is_named() -> None:
    subject = planted()
    with pytest.raises(AnalysisError, match="4 frames cannot be divided into 5 groups"):
        similarity(subject, dataclasses.replace(RSA, frame_folds=5))
    with pytest.raises(AnalysisError, match="no label 'valence'"):
        similarity(subject, dataclasses.replace(RSA, confounds=("valence",)))
    few = world(np.random.default_rng(0), categories=3, items=1)
    with pytest.raises(AnalysisError, match="3 items; 4 are needed"):
        similarity(few)
    frame = subject.volume["frame"].to_numpy()
    item = subject.volume["item"].to_numpy()
    lost = subject.take(np.flatnonzero((item != item[0]) | (frame == "frame0")))
    with pytest.raises(AnalysisError, match=f"'{item[0]}' is in no frame of one group"):
        similarity(lost)
