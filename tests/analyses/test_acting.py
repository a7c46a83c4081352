"""What analyses do to a live subject is what they say, against passes made by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from analyses import AnalysisError
from analyses.ablation import Ablation
from analyses.dimensionality import Dimensionality, participation, shared_variances
from analyses.pairs import of_another
from analyses.patching import Patching, _of_items
from analyses.splits import item_groups
from analyses.steering import Steering, _interval
from analyses.targets import Patterns, aim
from scanner import Edit, Live, Recording, Site, Subject, continued, open_volume, record
from stimuli import StimulusSet, load
from tests.conftest import sentences_of
from verification.effect_worlds import effect_world

FIELDS = ("text", "item", "frame", "category", "corrupt", "answer", "foil")


@pytest.fixture
def model(tiny_model):
    return tiny_model("llama", seed=5)


@pytest.fixture
def toy(model, toy_stimuli, tmp_path) -> tuple[Live, Subject]:
    return scanned(model, toy_stimuli, tmp_path)


def scanned(model, stimuli, folder, *, tokens="target") -> tuple[Live, Subject]:
    recording = Recording(model.source, stimuli, ("resid_post",), tokens, "float32")
    path = record(recording, folder, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(path), {})


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def of_items(subject: Subject, analysis: Any) -> np.ndarray:
    """The groups of items that the analysis makes, which begin its randomness."""
    items, values = (subject.volume[name].to_numpy().astype(object).astype(str)
                     for name in ("item", "category"))  # fmt: skip
    return item_groups(items, values, groups=analysis.item_folds, rng=generator())


# --- ablation


@pytest.mark.parametrize("category", [None, "animals"])
def test_what_is_left_is_what_a_pass_by_hand_leaves(toy, category) -> None:
    live, subject = toy
    analysis = Ablation("resid_post", (0,), category=category, later=(1, 2), random=2)
    runs = analysis.runs(live, subject)
    found = [analysis.act(live, subject, run, rng=generator()) for run in runs]
    kinds = [str(kind) for one in found for kind in one["target_kind"].values]
    others = ["other"] * (0 if category is None else 2)
    assert kinds == [
        "own",
        "known",
        *["matched"] * 2,
        *["disruptive"] * 2,
        *["shuffled"] * 2,
        *others,
    ]
    group = of_items(subject, analysis)
    np.testing.assert_array_equal(found[0]["fold"], group)

    x = subject.volume["resid_post"].to_numpy().astype(float)
    items, values = (subject.volume[name].to_numpy().astype(object).astype(str)
                     for name in ("item", "category"))  # fmt: skip
    names = np.unique(values) if category is None else np.array([category])
    wanted = (values[:, None] == names).astype(float)
    train, test = group != 0, np.flatnonzero(group == 0)
    patterns = Patterns.of(x[train, 0], items[train], wanted[train])
    own = aim("own", patterns, "mean_difference", count=1)
    edited = np.empty((len(x), 2, x.shape[2]))
    divergence = np.empty(len(x))
    for text, ids in enumerate(live.ids):
        edit = Edit("resid_post", "ablate", layers=[0], along=own.along, center=patterns.center,
                    positions=list(live.targets[text]), rows=[0])  # fmt: skip
        batch = live.model.batch([ids])
        with torch.no_grad():
            before = live.model.forward(batch, head=True)[0, -1].double().log_softmax(-1)
            with live.model.intervene([edit]):
                heard = live.model.activations(batch, ("resid_post",))
                after = live.model.forward(batch, head=True)[0, -1].double().log_softmax(-1)
        divergence[text] = torch.sum(before.exp() * (before - after))
        for row, layer in enumerate((1, 2)):
            edited[text, row] = heard[Site("resid_post", layer)][0, live.targets[text][-1]]
    here = found[0].isel(layer=0, target=0)
    np.testing.assert_allclose(here["divergence"][test], divergence[test], rtol=2e-2, atol=1e-6)
    for row, layer in enumerate((1, 2)):
        for name, known in (("frozen", x[:, layer]), ("refitted", edited[:, row])):
            expected = ridge_scores(known[train], edited[test, row], wanted[train])
            np.testing.assert_allclose(here[name][test, row], expected, rtol=1e-2, atol=2e-3)


def ridge_scores(train: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Ridge regression on standardised units, by the normal equations."""
    mean, spread = train.mean(0), train.std(0)
    fitted, judged = (train - mean) / spread, (test - mean) / spread
    penalty = np.mean(np.sum(fitted**2, axis=1))
    inner = fitted.T @ fitted + penalty * np.eye(fitted.shape[1])
    return judged @ np.linalg.solve(inner, fitted.T @ (wanted - wanted.mean(0)))


@pytest.mark.parametrize("left", ["mean", "zero", "resample"])
def test_words_that_are_lost_are_those_of_a_pass_by_hand(toy, left) -> None:
    live, subject = toy
    analysis = Ablation("resid_post", (0,), category="animals", later=(1,), random=0, left=left)
    (run,) = analysis.runs(live, subject)
    made = analysis.act(live, subject, run, rng=generator())
    found, group = made.isel(layer=0), of_items(subject, analysis)
    items, values = (subject.volume[name].to_numpy().astype(object).astype(str)
                     for name in ("item", "category"))  # fmt: skip
    x = subject.volume["resid_post"].to_numpy().astype(float)[:, 0]
    wanted = (values == "animals")[:, None] * 1.0
    train, test = np.flatnonzero(group != 0), np.flatnonzero(group == 0)
    patterns = Patterns.of(x[train], items[train], wanted[train])
    along = aim("own", patterns, "mean_difference", count=1).along
    # The generator of the first fold; what is drawn for so many texts.
    seed = generator()
    item_groups(items, values, groups=2, rng=seed)
    drawn = np.random.default_rng([int(seed.integers(2**32)), 0, 0, len(x)])
    donors = drawn.integers(len(train), size=len(x))
    words = np.array([live.ids[one][live.targets[one][0]] for one in range(len(x))])
    for text in test:
        center = {"mean": x[train].mean(0), "zero": 0 * x[0], "resample": x[train][donors[text]]}
        edit = Edit("resid_post", "ablate", layers=[0], along=along, center=center[left],
                    positions=list(live.targets[text]))  # fmt: skip
        batch = live.model.batch([live.ids[text]])
        with torch.no_grad():
            before = live.model.forward(batch, head=True)[0, -1].double().numpy()
            with live.model.intervene([edit]):
                after = live.model.forward(batch, head=True)[0, -1].double().numpy()
        rise = after - before
        own = {words[one] for one in test if values[one] == values[text]} - {words[text]}
        rest = {words[one] for one in test} - own - {words[text]}
        expected = np.mean([rise[one] for one in own]) - np.mean([rise[one] for one in rest])
        np.testing.assert_allclose(found["words"][text, 0], expected, rtol=2e-3, atol=1e-5)
    columns = {name: ("stimulus", subject.volume[name].to_numpy())
               for name in ("item", "category", "frame")}  # fmt: skip
    result = analysis(subject.replace_volume(made.assign_coords(columns)), rng=generator())
    lost = -found["words"][values == "animals", 0].mean()
    np.testing.assert_allclose(result["drop_words"], [lost], rtol=1e-5)
    assert result["words_lost"].sel(harmed="own") == result["drop_words"]


def test_a_twin_is_not_held_against_what_is_random(toy) -> None:
    live, subject = toy
    untrained = Live(live.model, Recording(
        live.recording.source, live.recording.stimuli, ("resid_post",), "target", "float32", seed=1
    ))  # fmt: skip
    analysis = Ablation("resid_post", (0, 1), later=(1,), random=3)
    assert analysis.runs(untrained, subject) == [(0, range(0, 1)), (1, range(0, 1))]
    found = analysis.act(untrained, subject, (0, range(0, 1)), rng=generator())
    assert list(found["target_kind"].values) == ["own"]


def test_disruptive_targets_harm_other_texts_about_as_much_as_the_own(toy) -> None:
    live, subject = toy
    analysis = Ablation("resid_post", (0,), category="animals", later=(1,), random=4)
    runs = analysis.runs(live, subject)
    made = [analysis.act(live, subject, run, rng=generator()) for run in runs]
    kinds = np.concatenate([one["target_kind"].values for one in made])
    harm = np.concatenate([one["neutral_divergence"].values[0] for one in made])
    own, weak = harm[0], harm[kinds == "matched"]
    strong = harm[kinds == "disruptive"]
    # Those that were stronger already stay as they are.
    assert (strong >= np.minimum(weak, own) * 0.5).all()
    grown = weak < own
    assert (strong[grown] > weak[grown]).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers": ()}, "layers: whole numbers"),
        ({"layers": (0, 0)}, "layers: whole numbers from 0, each once"),
        ({"layers": (0,), "later": (0,)}, "later: at least 1"),
        ({"layers": (0,), "item_folds": 1}, "item_folds at least 2"),
        ({"layers": (0,), "count": 0}, "count 1 to 64"),
        ({"layers": (0,), "left": "half"}, "left: 'half' is none of mean, zero, resample"),
        ({"layers": (0,), "penalty": 0.0}, "a penalty of 0"),
    ],
)
def test_settings_of_ablation_that_mean_nothing_are_refused(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        Ablation("resid_post", **settings)


def test_ablation_says_what_it_cannot_do(toy) -> None:
    live, subject = toy
    said = Ablation("resid_post", (1, 2), later=(1,)).beyond(3)
    assert said.startswith("layer 2 cannot be read 1 blocks later in a model of 3")
    assert not Ablation("resid_post", (1,), later=(1,)).beyond(3)
    with pytest.raises(AnalysisError, match="'category' has no value 'plants'; it has animals"):
        Ablation("resid_post", (0,), later=(1,), category="plants").runs(live, subject)


# --- steering


@pytest.fixture
def sentences(model, tmp_path) -> tuple[Live, Subject]:
    """Items that stand behind a few words."""
    return sentences_of(model, tmp_path)


def test_words_rise_as_in_passes_by_hand(sentences) -> None:
    live, subject = sentences
    analysis = Steering("resid_post", (1,), doses=(-2.0, 3.0), random=2)
    found = analysis.act(live, subject, 1, rng=generator())
    group = of_items(subject, analysis)
    x = subject.volume["resid_post"].to_numpy().astype(float)[:, 1]
    items, values = (subject.volume[name].to_numpy().astype(object).astype(str)
                     for name in ("item", "category"))  # fmt: skip
    names = np.unique(values)
    train, test = group != 0, np.flatnonzero(group == 0)
    for row in test[::5]:
        inside = values == values[row]
        patterns = Patterns.of(x[train], items[train], inside[train, None] * 1.0)
        apart = patterns.items[patterns.wanted[:, 0] == 1].mean(0) - patterns.items[
            patterns.wanted[:, 0] == 0
        ].mean(0)
        along = apart / np.linalg.norm(apart)
        push = along * (patterns.stimuli @ along).std()
        begin = live.ids[row][: live.targets[row][0]]
        batch = live.model.batch([begin])
        words = np.array([live.ids[one][live.targets[one][0]] for one in test])
        for place, dose in enumerate(analysis.doses):
            edit = Edit("resid_post", "add", layers=[1], start=1, value=dose * push)
            with torch.no_grad():
                before = live.model.forward(batch, head=True)[0, -1]
                with live.model.intervene([edit]):
                    after = live.model.forward(batch, head=True)[0, -1]
            rise = (after - before).double().numpy()
            expected = (
                rise[live.ids[row][live.targets[row][0]]]
                - rise[words[values[test] != values[row]]].mean()
            )
            value = float(found["shift"].isel(layer=0, stimulus=row, target=0, dose=place))
            assert value == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert len(names) == 3
    assert found["said"].shape == (1, 3, 2)
    begun = live.ids[test[0]][: live.targets[test[0]][0]]
    for place, name in enumerate(names):
        inside = (values[train] == name)[:, None] * 1.0
        patterns = Patterns.of(x[train], items[train], inside)
        (along,) = aim("own", patterns, "mean_difference", count=1).along
        means = [patterns.items[patterns.wanted[:, 0] == one].mean(0) for one in (0, 1)]
        along *= np.sign(along @ (means[1] - means[0]))
        push = along * (patterns.stimuli @ along).std()
        done = [(Edit("resid_post", "add", layers=[1], start=1, value=3.0 * push),)]
        assert continued(live.model, begun, done, tokens=12) == [found["said"].values[0, place, 1]]
    assert continued(live.model, begun, [()], tokens=12) == [found["unsteered"].values[0]]
    known = found["shift"].isel(layer=0, target=1)
    np.testing.assert_allclose(known, np.broadcast_to(analysis.doses, known.shape))


def test_no_target_of_steering_is_nothing_by_construction(sentences) -> None:
    """One push for all categories raises the words of all over each other by nothing at all."""
    live, subject = sentences
    found = Steering("resid_post", (1,), random=3).act(live, subject, 1, rng=generator())
    means = np.abs(found["shift"].isel(layer=0).mean("stimulus"))
    for target in range(found.sizes["target"]):
        assert float(means[target].max()) > 1e-6, str(found["target_kind"].values[target])


def test_the_dimensions_of_a_category_are_those_of_dimensionality(sentences) -> None:
    """Of items that did not find the direction, in halves of the frames."""
    live, subject = sentences
    analysis = Steering("resid_post", (1,), random=1)
    found = analysis.act(live, subject, 1, rng=generator())["dimension"][0].to_numpy()
    for group in (0, 1):
        rows = np.flatnonzero(of_items(subject, analysis) == group)
        expected = Dimensionality("resid_post", splits=1)._within(subject.take(rows), generator())
        values = subject.volume["category"].to_numpy().astype(object).astype(str)[rows]
        names = np.unique(values)
        told = np.array([found[rows][values == name][0] for name in names])
        np.testing.assert_allclose(told, np.nan_to_num(expected[1]), rtol=1e-6)


def test_dimensions_of_items_that_found_a_direction_are_told_apart(sentences) -> None:
    live, subject = sentences
    analysis = Steering("resid_post", (1,), random=1)
    found = analysis.act(live, subject, 1, rng=generator())
    group = of_items(subject, analysis)
    codes = subject.volume["category"].to_numpy().astype(object).astype(str)
    other, same = (found[name][0].to_numpy() for name in ("dimension", "dimension_found"))
    # Of two folds, what found the direction of one is what did not find that of the other.
    for one in (0, 1):
        for code in np.unique(codes):
            mine, theirs = ((group == side) & (codes == code) for side in (one, 1 - one))
            assert same[mine][0] == pytest.approx(other[theirs][0])


def test_noise_that_finds_a_direction_goes_with_its_own_dimensions_and_not_with_others() -> None:
    """The world in which the published correlation is found though no category differs."""
    rng = generator()
    analysis, told = Steering("resid_post", (0,)), {"against_dimension": [], "found": []}
    for _ in range(40):
        items = 12
        subject = effect_world(rng, analysis, categories=10, items=items, frames=1, spread=0.0)
        codes = np.unique(subject.volume["category"].values.astype(str), return_inverse=True)[1]
        slope, same, other = np.empty((3, 10))
        for code in range(10):
            towards = rng.normal(size=40)
            towards /= np.linalg.norm(towards)
            # Every item is the same direction and noise, of few items much.
            found, rest = (
                towards + 0.3 * rng.standard_t(2, (items, 1)) * rng.normal(size=(items, 40))
                for _ in range(2)
            )
            direction = found.mean(0) / np.linalg.norm(found.mean(0))
            slope[code] = direction @ towards
            same[code], other[code] = (
                participation(shared_variances(one, one)) for one in (found, rest)
            )
        volume = subject.volume
        shift = (
            slope[codes][:, None, None, None]
            * volume["dose"].to_numpy()
            * np.ones(volume["shift"].shape)
        )
        at = (("stimulus", "layer"), other[codes][:, None])
        at_found = (("stimulus", "layer"), same[codes][:, None])
        found = analysis(
            subject.replace_volume(
                volume.assign(shift=(volume["shift"].dims, shift)).assign_coords(
                    dimension=at, dimension_found=at_found
                )
            ),
            rng=generator(),
        )
        told["against_dimension"].append(float(found["against_dimension"][0]))
        told["found"].append(float(found["against_dimension_found"][0]))
    assert np.mean(told["found"]) == pytest.approx(-0.54, abs=0.1)
    assert abs(np.mean(told["against_dimension"])) < 0.12


def test_what_is_easily_steered_has_few_dimensions_where_that_is_planted() -> None:
    analysis = Steering("resid_post", (0, 1))
    subject = effect_world(generator(), analysis, size=0.5, categories=8, layers=2, spread=0.05)
    volume, codes = subject.volume, np.unique(
        subject.volume["category"].values.astype(str), return_inverse=True
    )[1]  # fmt: skip
    shift = volume["shift"].mean("stimulus") * xr.DataArray(1.0 + codes, dims="stimulus")
    size = np.stack([10.0 - codes, 3.0 + 0 * codes], axis=1)
    dimension = (("stimulus", "layer"), np.where(codes[:, None] == 7, 0.0, size))
    found = analysis(
        subject.replace_volume(volume.assign(shift=shift).assign_coords(dimension=dimension)),
        rng=generator(),
    )
    # Of the eighth category halves share nothing; in the second layer all are the same.
    assert float(found["with_dimension"][0]) == pytest.approx(-1)
    assert float(found["against_dimension"][0]) == pytest.approx(1)
    assert np.isnan(found["with_dimension"][1])
    assert float(found["concepts"]) == 8
    slopes = found["slope_by_category"][0].to_numpy()
    assert (np.diff(slopes) > 0).all()
    low, high = _interval(np.array([0.5, -0.83]), np.array([28, 10]))
    # Bonett & Wright (2000): tanh(atanh r -+ 1.96 sqrt((1 + r^2/2) / (n - 3))).
    np.testing.assert_allclose([low[0], high[0]], [0.134, 0.747], atol=2e-3)
    assert low[1] < -0.95 and -0.4 < high[1] < -0.2


def test_steering_says_what_it_cannot_do(toy) -> None:
    live, subject = toy
    assert Steering("resid_post", (3,)).beyond(3) == "3 is none of the model's 3 layers"
    assert not Steering("resid_post", (2,)).beyond(3)
    with pytest.raises(ValueError, match="'units' is no direction that could be added"):
        Steering("resid_post", (0,), way="units")
    with pytest.raises(ValueError, match="doses: at least two"):
        Steering("resid_post", (0,), doses=(1.0,))
    with pytest.raises(AnalysisError, match="stands at the beginning of its text"):
        Steering("resid_post", (0,)).runs(live, subject)


# --- patching


@pytest.fixture
def pairs(model, tmp_path) -> tuple[Live, Subject]:
    """Pairs of words and answers that a toy tokenizer cuts alike."""
    words = ["dog", "pig", "fox", "ivy", "elk", "yak"]
    rows = [
        (f"{frame} {word} here and", f"{word}", frame, category, other, *answers)
        for frame in ("There was a", "I saw the")
        for number, (word, other) in enumerate(zip(words, words[::-1], strict=True))
        for category, answers in ([("a", ("is", "a"))] if number % 2 else [("b", ("a", "is"))])
    ]
    path = tmp_path / "pairs.csv"
    pd.DataFrame(rows, columns=FIELDS).to_csv(path, index=False)
    return scanned(model, load(str(path)), tmp_path)


def effects(live: Live, subject: Subject, analysis: Patching) -> xr.Dataset:
    parts = [analysis.act(live, subject, one, rng=generator())
             for one in analysis.runs(live, subject)]  # fmt: skip
    return xr.combine_by_coords(parts, combine_attrs="override", data_vars="minimal")


@pytest.mark.parametrize("into", ["corrupt", "clean"])
def test_targets_of_patching_are_what_they_are_called(pairs, into) -> None:
    live, subject = pairs
    analysis = Patching(into=into, random=2)
    found = effects(live, subject, analysis)
    assert found["target_kind"].values.astype(str).tolist() == [
        "own", "known", "matched", "other", "matched", "other"
    ]  # fmt: skip
    # What is measured is the first site at the first place of the map of all.
    np.testing.assert_allclose(
        found["patched"].isel(target=0),
        found["every"].isel(kind=0, place=0).transpose("stimulus", "layer"),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    known = found["patched"].isel(target=1)
    np.testing.assert_allclose(
        known, np.broadcast_to(found["donor"].values[:, None], known.shape), rtol=1e-4, atol=1e-5
    )
    # The text after the noun reads the last layer's stream of it no more: nothing has an effect.
    last = found["patched"].isel(layer=-1)
    base = found["base"].values[:, None]
    np.testing.assert_allclose(
        last[:, [0, 2, 3, 4, 5]], np.repeat(base, 5, 1), rtol=1e-4, atol=1e-5
    )
    measured = analysis(subject.replace_volume(
        found.drop_vars("stimulus").assign_coords(
            {label: ("stimulus", subject.volume[label].values) for label in ("item", "category")}
        )
    ), rng=generator())  # fmt: skip
    whole = (found["donor"] - found["base"]).values
    moved = (found["patched"].isel(target=0) - found["base"]).transpose(..., "stimulus").values
    moved = moved @ whole / np.sum(whole**2)
    np.testing.assert_allclose(measured["share"], moved, rtol=1e-6)
    np.testing.assert_allclose(measured["share"][-1], 0, atol=1e-4)
    arms = measured["share_of"].sel(arm="resid_post, target")
    np.testing.assert_allclose(arms, measured["share"], rtol=1e-4, atol=1e-5)
    # A tiny model is nearly a line.
    assert float(measured["attribution_agreement"]) > 0.9


def test_the_share_of_an_item_is_told_where_its_texts_are_apart() -> None:
    moved = np.array([[1.0, 2.0, 0.5, 4.0]])
    whole = np.array([2.0, 4.0, 0.25, 8.0])
    items, found = _of_items(np.array(["b", "a", "c", "b"]), moved, whole)
    assert items.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(found, [[0.5, 0.5, np.nan]])


def test_random_donors_have_the_answer_that_is_there() -> None:
    answers = [(1, 2), (2, 1), (1, 2), (2, 1), (1, 2)]
    for seed in range(5):
        found = of_another(generator(seed), answers)
        assert all(answers[one] == answers[two] and one != two for one, two in enumerate(found))


def test_patching_says_what_is_wrong_with_pairs(pairs, toy, model, tmp_path) -> None:
    live, subject = pairs
    with pytest.raises(AnalysisError, match="have no column 'corrupt', so are no pairs"):
        Patching().runs(*toy)
    for column, value, says in (
        ("corrupt", "elephant", r"stimulus 0 .* has \d+ tokens, with 'elephant' \d+"),
        ("answer", "unheard of", "'unheard of' is not a single token after 'There was a dog"),
    ):
        table = live.recording.stimuli.table.copy()
        table.loc[0, column] = value
        wrong, _ = scanned(model, StimulusSet("wrong", table), tmp_path / column)
        with pytest.raises(AnalysisError, match=says):
            Patching().runs(wrong, subject)
    with pytest.raises(ValueError, match="places: at least one, each once"):
        Patching(places=())
