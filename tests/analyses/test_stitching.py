"""What another subject has is carried by a map that is known, and passes made by hand agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from analyses import AnalysisError
from analyses.acting import aimed
from analyses.splits import Fold, folds_of, item_groups
from analyses.stitching import Stitching, carried, means_of_frames, rows_of_others
from scanner import Edit, Live, Site, Subject
from tests.conftest import sentences_of

LETTERS = "bdfgklmnprst"
MANY = {
    kind: [f"{one}{vowel}{other}" for one in LETTERS for other in LETTERS[place::6]]
    for place, (kind, vowel) in enumerate((("first", "a"), ("second", "o"), ("third", "i")))
}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def read(tiny_model, tmp_path_factory) -> tuple[Live, Subject]:
    """A toy model, and what it makes of 72 words, which are more than it has units."""
    return sentences_of(tiny_model("llama", seed=5), tmp_path_factory.mktemp("many"), MANY)


def having(subject: Subject, values: np.ndarray) -> Subject:
    """A donor that has something else (stimulus x layer x unit)."""
    x = subject.volume["resid_post"]
    volume = subject.volume.assign(resid_post=(("stimulus", "layer", "unit"), values))
    assert values.shape == x.transpose("stimulus", "layer", "unit").shape
    return replace(subject, name="donor", volume=volume)


def recorded(subject: Subject) -> np.ndarray:
    return (
        subject.volume["resid_post"].transpose("stimulus", "layer", "unit").to_numpy().astype(float)
    )


def turned(subject: Subject) -> Subject:
    """The subject in other directions, stretched and moved: an affine map away."""
    x = recorded(subject)
    map_ = generator(3).normal(size=(x.shape[2], x.shape[2]))
    return having(subject, x @ map_ + generator(4).normal(size=x.shape[2]))


def judged(analysis: Stitching, subject: Subject, found) -> Subject:
    labels = {label: ("stimulus", subject.volume[label].values) for label in ("item", "category")}
    return subject.replace_volume(found.drop_vars("stimulus").assign_coords(labels))


def test_a_donor_an_affine_map_away_keeps_all(read) -> None:
    live, subject = read
    analysis = Stitching("resid_post", "donor", (1,), penalties=(1e-9,), random=2)
    found = analysis.act(live, subject.set_beside(turned(subject)), 1, rng=generator())
    told = judged(analysis, subject, found)
    measured = analysis(told, rng=generator())
    assert measured["kept"].item() == pytest.approx(1, abs=1e-3)
    assert measured["mapped"].item() == pytest.approx(1, abs=1e-4)
    # Of all layers of the donor it is this one that is an affine map away.
    assert measured["donor_layer"].item() == 1
    kinds = found["target_kind"].to_numpy().tolist()
    assert kinds == ["own", "known", "equal", "equal", "shuffled", "shuffled"]
    for place in (2, 3, 4, 5):
        assert analysis(aimed(told, place), rng=generator())["kept"].item() < 0.3
    # What the model has itself, set where it was.
    assert float(found["divergence"].isel(target=1).max()) < 1e-6


def test_a_donor_that_knows_nothing_of_words_keeps_nothing(read) -> None:
    live, subject = read
    noise = having(subject, generator(1).normal(size=recorded(subject).shape))
    analysis = Stitching("resid_post", "donor", (1,), random=0)
    found = analysis.act(live, subject.set_beside(noise), 1, rng=generator())
    measured = analysis(judged(analysis, subject, found), rng=generator())
    assert measured["kept"].item() < 0.05
    assert measured["mapped"].item() < 0.05


@torch.no_grad()
def test_what_it_costs_is_that_of_passes_by_hand(read) -> None:
    live, subject = read
    noisy = having(subject, recorded(turned(subject)) + generator(7).normal(size=(144, 3, 32)))
    analysis = Stitching("resid_post", "donor", (1,), penalties=(0.5,), depths=1, random=0)
    found = analysis.act(live, subject.set_beside(noisy), 1, rng=generator())
    x, y = recorded(subject)[:, 1], recorded(noisy)[:, 0]  # of one depth it is the first
    items = subject.volume["item"].to_numpy().astype(object).astype(str)
    frames = subject.volume["frame"].to_numpy().astype(object).astype(str)
    group = item_groups(items, np.zeros(len(items)), groups=4, rng=generator())
    for row in (0, 77, 143):
        train = group != group[row]
        rest_x, rest_y = x.copy(), y.copy()
        for frame in np.unique(frames):
            for values in (rest_x, rest_y):
                values[frames == frame] -= values[train & (frames == frame)].mean(0)
        mean = x[train & (frames == frames[row])].mean(0)
        scale, of_x = StandardScaler().fit(rest_y[train]), StandardScaler().fit(rest_x[train])
        given = scale.transform(rest_y[train])
        ridge = Ridge(alpha=0.5 * np.square(given).sum(1).mean())
        ridge.fit(given, of_x.transform(rest_x[train]))
        put = mean + of_x.inverse_transform(ridge.predict(scale.transform(rest_y[[row]])))[0]
        at = live.targets[row][-1]
        batch = live.model.batch([live.ids[row][: at + 1]])
        intact = (
            live.model.activations(batch, ("logits",))[Site("logits")][0, at]
            .double()
            .log_softmax(-1)
        )
        for value, name in ((put, "divergence"), (mean, "without")):
            with live.model.intervene(
                [Edit("resid_post", "replace", layers=[1], positions=[at], value=value)]
            ):
                made = (
                    live.model.activations(batch, ("logits",))[Site("logits")][0, at]
                    .double()
                    .log_softmax(-1)
                )
            by_hand = float((intact.exp() * (intact - made)).sum())
            kept = found[name].isel(stimulus=row, layer=0)
            kept = float(kept.isel(target=0) if "target" in kept.dims else kept)
            assert kept == pytest.approx(by_hand, rel=1e-3, abs=1e-7)


def test_twins_are_given_what_twins_have(read) -> None:
    live, subject = read
    donor = turned(subject)
    donor = replace(donor, twins={0: having(subject, -recorded(subject)).volume})
    analysis = Stitching("resid_post", "donor", (1,), random=1)
    found = analysis.act(live, subject.set_beside(donor), 1, rng=generator())
    assert found["target_kind"].to_numpy().tolist() == [
        "own", "known", "other", "equal", "shuffled"
    ]  # fmt: skip
    untrained = Live(live.model, replace(live.recording, seed=0))
    found = analysis.act(untrained, subject.set_beside(donor.twin(0)), 1, rng=generator())
    assert found["target_kind"].to_numpy().tolist() == ["own"]


def test_each_stimulus_is_given_one_of_another_item() -> None:
    items = np.array(["a", "b", "c", "a", "b", "c", "a"])
    rows = rows_of_others(items, generator())
    assert (items[rows] != items).all()
    stands = {(items[one], items[two]) for one, two in zip(range(7), rows, strict=True)}
    assert len(stands) == 3
    assert rows[[0, 3]].tolist() == [
        np.flatnonzero(items == items[rows[0]])[turn] for turn in (0, 1)
    ]


def test_a_frame_that_is_in_no_training_has_the_mean_of_all() -> None:
    x = np.array([[1.0], [3.0], [5.0], [9.0], [20.0]])
    frames = np.array(["a", "a", "b", "c", "a"])
    found = means_of_frames(x, frames, np.array([0, 1, 2]))[:, 0]
    assert found.tolist() == [2, 2, 5, 3, 2]


def test_what_does_not_vary_is_carried_as_it_is() -> None:
    x = generator().normal(size=(20, 4))
    x[:, 2] = 5
    fold = folds_of(np.arange(20) % 2)[0]
    made = carried(generator(1).normal(size=(20, 3)), x, Fold(*fold), 1.0)
    np.testing.assert_allclose(made[:, 2], 5)


def test_a_donor_that_read_other_items_is_an_error(read) -> None:
    live, subject = read
    items = np.array([f"{one}s" for one in subject.volume["item"].to_numpy()])
    other = turned(subject).relabel("item", items)
    analysis = Stitching("resid_post", "donor", (1,))
    with pytest.raises(AnalysisError, match="donor and toy have read other items"):
        analysis.act(live, subject.set_beside(other), 1, rng=generator())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"layers": ()}, "layers"),
        ({"penalties": (0.0,)}, "penalties must be above 0"),
        ({"item_folds": 1}, "item_folds must be at least 2"),
    ],
)
def test_settings_that_cannot_be_meant_are_errors(settings, why) -> None:
    with pytest.raises(ValueError, match=why):
        Stitching(**{"site": "resid_post", "donor": "donor", "layers": (1,), **settings})
