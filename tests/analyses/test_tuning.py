"""The layer that can learn is ahead of those that cannot, and of what anything does nothing is."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from analyses import AnalysisError
from analyses.acting import aimed, alone
from analyses.tuning import Tuning, _asked
from scanner import Live, Recording, Subject, open_volume, record
from scanner.tuning import predicted, surprisals, tuned
from stimuli import load
from tests.conftest import done
from verification.effect_worlds import effect_world

FIELDS = ("text", "item", "frame", "category", "answer")
WORDS = ("dog", "pig", "fox", "ivy", "elk", "yak")
FRAMES = ("There was a", "I saw the", "We like our")
SETTINGS = {"steps": 4, "rate": 0.01, "random": 2}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def live(tiny_model, tmp_path) -> tuple[Live, Subject]:
    """Words of two domains, which are answered by different words, before a model of 3 blocks."""
    rows = [
        (f"{frame} {word}", word, frame, "ab"[number % 2], ("is", "a")[number % 2])
        for frame in FRAMES
        for number, word in enumerate(WORDS)
    ]
    return scanned(tiny_model("llama", seed=5), pd.DataFrame(rows, columns=FIELDS), tmp_path)


def scanned(model, table: pd.DataFrame, folder) -> tuple[Live, Subject]:
    path = folder / "taught.csv"
    table.to_csv(path, index=False)
    recording = Recording(model.source, load(str(path)), ("resid_post",), "target", "float32")
    volume = record(recording, folder, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(volume), {})


@torch.no_grad()
def deaden(live: Live, layer: int) -> None:
    """A block that adds nothing, and has no slope to begin to."""
    block = live.model.network.get_submodule(live.model.structure.blocks)[layer]
    for one in (block.self_attn.v_proj, block.self_attn.o_proj, block.mlp.up_proj,
                block.mlp.down_proj):  # fmt: skip
        one.weight.zero_()


def test_the_only_layer_that_can_learn_is_ahead(live) -> None:
    model, subject = live
    deaden(model, 0)
    deaden(model, 2)
    analysis = Tuning("a", (1,), **SETTINGS)
    before = predicted(model.model, model.ids).ending
    effects = done(model, subject, analysis)
    np.testing.assert_array_equal(predicted(model.model, model.ids).ending, before)
    found = analysis(effects, rng=generator())
    assert found["advantage"].item() > 0.3
    # Other answers move with it. Where nothing was learnt nothing is lost.
    assert abs(found["spared"].item()) > 0.05
    own, others = (found.sel(arm=arm).isel(layer=0) for arm in ("own", "equal"))
    assert float(own["gained_of"]) == pytest.approx(found["advantage"].item())
    assert float(own["lost_of"]) == pytest.approx(-found["spared"].item())
    assert float(own["lost_each"]) == pytest.approx(float(own["lost_of"] / own["gained_of"]))
    cost = effects.volume["intact"].values[subject.volume["category"].values == "a"].mean()
    assert float(others["left_of"]) == pytest.approx(cost)
    assert float(own["left_of"]) == pytest.approx(cost - float(own["gained_of"]))
    for name in ("gained_of", "lost_of", "learnt_of", "harm", "harm_surprisal"):
        assert float(others[name]) == 0
        assert abs(float(own[name])) > 1e-4
    assert np.isnan(others["lost_each"])
    changed = [own["gained_of"], -own["lost_of"]]
    np.testing.assert_allclose(found["change_by_category"][0], changed)
    assert found["chosen"].values.tolist()[0] == "layers 1"
    assert set(found["chosen"].values.tolist()) == {"layers 0", "layers 1", "layers 2"}

    # The other way round: what cannot learn is behind by half of that, one of two others can.
    dead = Tuning("a", (0,), **SETTINGS)
    behind = dead(done(model, subject, dead), rng=generator())
    assert behind["advantage"].item() == pytest.approx(-found["advantage"].item() / 2, rel=1e-4)


def test_where_no_layer_can_learn_nothing_is_ahead(live) -> None:
    model, subject = live
    for layer in range(3):
        deaden(model, layer)
    analysis = Tuning("a", (1,), **SETTINGS)
    found = analysis(done(model, subject, analysis), rng=generator())
    assert found["advantage"].item() == found["spared"].item() == 0


def test_what_is_kept_is_judged_in_sentences_that_were_not_taught(live) -> None:
    model, subject = live
    analysis = Tuning("b", (2, 1), frame_folds=3, **SETTINGS | {"random": 1}, label="category")
    with pytest.raises(AnalysisError, match="2 of the model's 3 layers leave 0 sets"):
        analysis.runs(model, subject)
    analysis = dataclasses.replace(analysis, layers=(2,), random=2)
    assert analysis.stands_at == (2,)
    effects = done(model, subject, analysis).volume
    assert effects["gain"].dims == ("stimulus", "layer", "target")
    assert effects["layer"].values.tolist() == [2]
    assert np.isfinite(effects["beside"]).all()
    np.testing.assert_array_equal(effects["beside"].values, effects["gain"].values[:, :, 1:])

    asked = _asked(model)
    frames, of = (subject.volume[name].values.astype(object) for name in ("frame", "category"))
    costs = surprisals(model.model, asked)
    np.testing.assert_allclose(effects["intact"], costs)
    for place, layer in enumerate(effects["tuned"].values.tolist()):
        elsewhere, learnt = [], []
        for frame in FRAMES:
            rows = np.flatnonzero((of == "b") & (frames != frame))
            taught = [asked[row] for row in rows]
            with tuned(model.model, [int(layer)], taught, steps=4, rate=0.01):
                gain = costs - surprisals(model.model, asked)
            held = (of == "b") & (frames == frame)
            np.testing.assert_allclose(effects["gain"][held, 0, place], gain[held], atol=1e-5)
            elsewhere.append(gain[of == "a"])
            learnt.append(gain[rows].mean())
        told = effects["gain"][of == "a", 0, place]
        np.testing.assert_allclose(told, np.mean(elsewhere, axis=0), atol=1e-5)
        assert float(effects["learnt"][0, place]) == pytest.approx(np.mean(learnt), abs=1e-5)


def test_what_a_twin_is_taught_is_the_same_in_the_same_layers(live, tiny_model) -> None:
    model, subject = live
    analysis = Tuning("a", (1,), **SETTINGS)
    twin = Live(model.model.twin(3), dataclasses.replace(model.recording, seed=3))
    names = [done(one, subject, analysis).volume["tuned"].values.tolist() for one in (model, twin)]
    assert names[0] == names[1]
    again = done(model, subject, analysis).volume
    xr.testing.assert_identical(again, done(model, subject, analysis).volume)


def test_where_all_is_learnt_whichever_layers_are_tuned_nothing_is_said() -> None:
    """That no set is ahead would be believed: what they gain is all that there is."""
    analysis = Tuning("category0", (0,))
    subject = effect_world(generator(), analysis, generic=0.8, spread=0.05)
    assert abs(analysis(subject, rng=generator())["advantage"]).max() < 0.1
    full = subject.replace_volume(subject.volume.assign_coords(
        intact=("stimulus", np.full(subject.volume.sizes["stimulus"], 0.85))
    ))  # fmt: skip
    for one in (full, alone(full)):
        with pytest.raises(
            AnalysisError, match=r"0\.[78]. of 0\.85 nats are gained.*fewer `steps` than"
        ):
            analysis.measured(one, variable="advantage", rng=generator())
    # What other domains keep is not at an end by that, and the report shows what there is.
    analysis.measured(full, variable="spared", rng=generator())
    assert (analysis(full, rng=generator())["left_of"] < 0.1).all()


def test_what_anything_does_is_no_advantage() -> None:
    analysis = Tuning("category0", (0,))
    found, noise = (
        analysis(
            effect_world(generator(), analysis, size=size, generic=0.8, spread=0.05),
            rng=generator(),
        )
        for size in (0.5, 0.0)
    )
    for name in ("advantage", "spared"):
        np.testing.assert_allclose(found[name], 0.5, atol=0.1)
        np.testing.assert_allclose(noise[name], 0, atol=0.1)
    np.testing.assert_allclose(noise["gained_of"], 0.8, atol=0.1)


def test_a_set_is_held_against_the_others_when_it_alone_is_there() -> None:
    """As the gate asks, of the own and of each that it is held against."""
    analysis = Tuning("category0", (0,))
    subject = effect_world(generator(), analysis, size=0.5, spread=0.05)
    volume = subject.volume
    inside = volume["category"].values.astype(object) == "category0"
    gain = volume["gain"].isel(layer=0).values[inside].mean(0)
    drawn = volume["draw"].values
    for target in (0, *drawn[:2]):
        one = aimed(subject, int(target))
        found = analysis.measured(one, variable="advantage", rng=generator())
        wanted = gain[target] - gain[drawn[drawn != target]].mean()
        np.testing.assert_allclose(found, wanted)
        np.testing.assert_allclose(analysis(one, rng=generator())["advantage"], wanted)
    whole = analysis.measured(subject, variable="spared", rng=generator())
    np.testing.assert_allclose(
        analysis.measured(alone(subject), variable="spared", rng=generator()), whole
    )


@pytest.mark.parametrize(
    ("layers", "of", "count", "places"),
    [((8, 9, 10), 30, 6, 6), ((3, 5), 8, 4, 3), ((0,), 4, 3, 3), ((1, 2), 7, 9, 3)],
)
def test_sets_are_others_of_the_same_shape(layers, of, count, places) -> None:
    analysis = Tuning("a", layers, random=count)
    assert analysis.beyond(of) == ""
    own, *others = analysis.sets(of, generator())
    assert own == layers
    assert len(set(others)) == count
    shape = np.diff(layers).tolist()
    # As far as there are places: of two in a row in seven layers, without 1 and 2, there are three.
    alike = [one for one in others if np.diff(one).tolist() == shape]
    assert len(alike) >= places
    for one in others:
        assert not set(one) & set(layers)
        assert len(set(one)) == len(layers) and max(one) < of
    assert analysis.sets(of, generator()) == [own, *others]
    assert {tuple(analysis.sets(of, generator(seed))[1:]) for seed in range(9)} != {tuple(others)}


def test_sets_are_from_all_of_the_depth() -> None:
    analysis = Tuning("a", (0, 1, 2, 3, 6), random=5)
    for seed in range(20):
        firsts = np.sort([one[0] for one in analysis.sets(30, generator(seed))[1:]])
        # Of the places 7 to 23 one from each fifth.
        assert np.all(firsts >= [7, 11, 15, 18, 21]) and np.all(firsts <= [10, 14, 17, 20, 23])


def test_what_cannot_be_asked_is_said(live, tiny_model, tmp_path) -> None:
    model, subject = live
    analysis = Tuning("a", (1,), **SETTINGS)
    for wrong, message in (
        ({"category": "stars"}, "tuning: no 'stars' among 'category'"),
        ({"layers": (3,)}, "3 is none of the model's 3 layers"),
        ({"layers": (0, 1, 2)}, "3 of the model's 3 layers leave 0 sets of as many others, and 2"),
        ({"random": 3}, "1 of the model's 3 layers leave 2 sets.*name fewer layers, or less"),
        ({"frame_folds": 4}, "'a' has 3 frames, and 4 groups of them were asked for"),
    ):
        with pytest.raises(AnalysisError, match=message):
            dataclasses.replace(analysis, **wrong).runs(model, subject)
    for wrong, message in (
        ({"layers": ()}, "layers: whole numbers from 0, each once"),
        ({"layers": (1, 1)}, "layers: whole numbers from 0, each once"),
        ({"steps": 0}, "steps must be at least 1, rate above 0"),
        ({"rate": 0.0}, "steps must be at least 1, rate above 0"),
        ({"random": 0}, "frame_folds must be at least 2, random at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(analysis, **wrong)
    table = model.recording.stimuli.table
    few = table[(table["item"] != "dog") | (table["frame"] == FRAMES[0])][list(FIELDS)]
    (tmp_path / "few").mkdir()
    with pytest.raises(AnalysisError, match=r"item 'dog' has no frame in one of 2 groups"):
        analysis.runs(*scanned(model.model, few, tmp_path / "few"))
    (tmp_path / "mute").mkdir()
    mute = table[list(FIELDS[:-1])]
    with pytest.raises(AnalysisError, match="no column 'answer', so there is nothing to be taught"):
        analysis.runs(*scanned(model.model, mute, tmp_path / "mute"))
    one = subject.relabel("category", np.full(len(table), "a"))
    with pytest.raises(AnalysisError, match=r"label 'category' has one value \('a'\)"):
        analysis.runs(model, one)
    world = effect_world(generator(), Tuning("stars", (0,)))
    with pytest.raises(AnalysisError, match="no 'stars' among 'category'"):
        Tuning("stars", (0,))(world, rng=generator())
