"""Maps of one circuit are alike, those of a circuit that was moved are not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from analyses import AnalysisError
from analyses.acting import aimed, kinds
from analyses.circuits import Circuits, _Maps, _similarity
from analyses.pairs import pairs_of
from scanner import (
    Chat,
    Live,
    Model,
    Pair,
    Recording,
    Subject,
    attributed,
    find_source,
    open_volume,
    record,
)
from scanner.moved_weights import weights_of
from stimuli import load
from tests.conftest import done
from verification.effect_worlds import effect_world

FIELDS = ("text", "item", "frame", "category", "corrupt", "answer", "foil")
WORDS = {"one": ("dog", "pig", "fox", "ivy"), "other": ("elk", "yak", "bee", "owl")}
SETTINGS = {"decided": 0.0, "random": 3, "checked": 1, "segments": 2}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def pair(tiny_model, tmp_path_factory) -> tuple[Live, Subject]:
    """A model and its base, of whose weights each was moved a little, reading pairs of texts."""
    folder = tmp_path_factory.mktemp("pair")
    rows = [
        (f"{frame} {word} in the sun", word, frame, kind, other, *answers)
        for frame in ("There was a", "I saw the")
        for kind, words in WORDS.items()
        for number, (word, other) in enumerate(zip(words, words[::-1], strict=True))
        for answers in [("is", "a") if number % 2 else ("a", "is")]
    ]
    pd.DataFrame(rows, columns=FIELDS).to_csv(folder / "pairs.csv", index=False)
    base = tiny_model("llama", seed=5)
    made = torch.Generator().manual_seed(1)
    tuned = tiny_model("llama", seed=5)
    with torch.no_grad():
        for weight in weights_of(tuned).values():
            weight += 0.02 * weight.std() * torch.randn(weight.shape, generator=made)
    tuned.network.save_pretrained(folder / "tuned")
    tuned.tokenizer.save_pretrained(folder / "tuned")
    model = Model.load(find_source(str(folder / "tuned")), device="cpu")
    stimuli = load(str(folder / "pairs.csv"))
    recording = Recording(model.source, stimuli, ("resid_post",), "target", "float32")
    volume = record(recording, folder, lambda: model, protocol_sha256="0" * 64)
    donor = replace(recording, source=base.source)
    return Live(model, recording, {"another": donor}), Subject("toy", open_volume(volume), {})


@pytest.fixture(scope="module")
def effects(pair) -> Subject:
    live, subject = pair
    return done(live, subject, Circuits("base", **SETTINGS))


def test_a_variant_answers_by_the_places_of_its_base(effects) -> None:
    analysis = Circuits("base", **SETTINGS)
    found = analysis(effects, rng=generator())
    assert found["alike"].item() > 0.9
    assert found["reached"].item() == pytest.approx(1, abs=0.15)
    assert kinds(effects.volume).tolist() == [
        "own", "known", *("shuffled", "other") * 3, "shown"
    ]  # fmt: skip
    told = found["alike_of"][0]
    assert told.sel(arm="own") == pytest.approx(found["alike"].item())
    assert told.sel(arm="shown") > 0.9
    assert told.sel(arm="shuffled") < told.sel(arm="own") - 0.2
    itself = analysis.measured(aimed(effects, 1), variable="alike", rng=generator())
    assert itself.item() == pytest.approx(1)
    assert found["map"]["subject"].values.tolist() == ["base", "variant", "with noise"]
    assert (found["agrees"] > 0.5).all()


def test_maps_are_attributions_summed_over_stretches(pair, effects) -> None:
    live, _ = pair
    pairs = pairs_of(live)
    mine = effects.volume["mine"].isel(layer=0)
    theirs = effects.volume["theirs"].isel(layer=0, target=0)
    for number in (0, 5):
        ids, target = pairs.clean.ids[number], pairs.clean.targets[number]
        at = [*range(target[0], len(ids))]
        asked = [Pair(ids, pairs.corrupt.ids[number], pairs.answers[number], at)]
        for model, told in ((live.model, mine), (live.donor, theirs)):
            found = attributed(model, asked, Circuits("base").sites)
            moved = (found.difference - found.base)[0]  # kind x layer x position
            here = told.isel(stimulus=number).transpose("kind", "block", "place")
            parts = [moved[..., : len(target)], moved[..., len(target) : -1], moved[..., -1:]]
            for place, part in zip(
                (slice(0, 1), slice(1, -1), slice(-1, None)), parts, strict=True
            ):
                np.testing.assert_allclose(
                    here[..., place].sum("place"), part.sum(-1), rtol=1e-4, atol=1e-6
                )


def test_stretches_part_what_follows_evenly(pair) -> None:
    live, _ = pair
    analysis = Circuits("base", segments=2)
    asked, member = analysis._asked(pairs_of(live))
    for one, (pair_, rows) in enumerate(zip(asked, member, strict=True)):
        counts = rows.sum(0)
        assert counts.sum() == len(pair_.clean) - live.targets[one][0]
        assert counts[0] == len(live.targets[one])
        assert counts[-1] == 1
        assert abs(counts[1] - counts[2]) <= 1


def test_a_twin_is_held_against_the_base(pair) -> None:
    live, subject = pair
    twin = Live(live.model.twin(3), replace(live.recording, seed=3), live.given)
    analysis = Circuits("base", **{**SETTINGS, "decided": 9.0})
    told = done(twin, subject, analysis)
    assert kinds(told.volume).tolist() == ["own"]
    # Nothing is asked of how far apart its answers are.
    found = analysis(told, rng=generator())
    assert abs(found["alike"].item()) < 0.9
    base = told.volume["theirs"].isel(target=0)
    mapped = done(live, subject, Circuits("base", **SETTINGS)).volume["theirs"].isel(target=0)
    np.testing.assert_allclose(base, mapped, rtol=1e-4, atol=1e-6)


TALK = "{% for one in messages %}{{ one['content'] }}{% endfor %}"


@pytest.fixture()
def talking(pair):
    """The pair, with a chat template of the variant alone, put back afterwards."""
    live, _ = pair

    def with_template(template: str | None) -> Live:
        live.model.tokenizer.chat_template = template
        assert not live.donor.tokenizer.chat_template
        return live

    yield with_template
    live.model.tokenizer.chat_template = None


def test_a_template_is_told_apart_from_tuning(talking, pair, effects) -> None:
    """A template that adds nothing leaves maps as they are; one that does moves both alike."""
    analysis = Circuits("base", **SETTINGS, template=True)
    empty, found = (
        analysis(done(talking(TALK + end), pair[1], analysis), rng=generator())
        for end in ("", " is on the a in" * 3)
    )
    told = [one["alike_in_template"][0].to_series() for one in (empty, found)]
    assert told[0]["base, with and without"] == pytest.approx(1)
    assert told[0]["base without, variant with"] == pytest.approx(empty["alike"].item())
    assert told[0]["base and variant, both with"] == pytest.approx(empty["alike"].item())
    # In a random network a template moves maps little, but more than the change of weights does.
    with_both = told[1]["base and variant, both with"]
    assert with_both > 0.99
    assert told[1]["base, with and without"] < with_both - 0.01
    assert told[1]["base without, variant with"] < with_both - 0.01
    assert found["decided_in_template"] > 0 and found["decided_base_in_template"] > 0
    assert found["map"]["subject"].values.tolist()[-2:] == [
        "base in the conversation", "variant in the conversation"
    ]  # fmt: skip
    # What is claimed is as it was.
    plain = Circuits("base", **SETTINGS)(effects, rng=generator())
    for name in ("alike", "reached", "alike_of", "ceiling"):
        np.testing.assert_array_equal(found[name], plain[name])


def test_maps_in_a_conversation_are_of_all_tokens_after_the_target(talking, pair) -> None:
    analysis = Circuits("base", **SETTINGS, template=True)
    live = talking(TALK + " is on the a in")
    told = done(live, pair[1], analysis).volume
    chat = replace(live, recording=replace(live.recording, chat=Chat()))
    pairs = pairs_of(chat)
    ids, target = pairs.clean.ids[3], pairs.clean.targets[3]
    assert len(ids) > len(live.ids[3])
    asked = [Pair(ids, pairs.corrupt.ids[3], pairs.answers[3], [*range(target[0], len(ids))])]
    for side, model in (("mine", live.model), ("theirs", live.donor)):
        found = attributed(model, asked, analysis.sites)
        moved = (found.difference - found.base)[0]  # kind x layer x position
        here = told[f"template_{side}"].isel(stimulus=3, layer=0)
        here = here.transpose("kind", "block", "place")
        np.testing.assert_allclose(here[..., -1], moved[..., -1], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(here.sum("place"), moved.sum(-1), rtol=1e-4, atol=1e-5)


def test_a_template_that_is_not_there_or_there_twice_is_refused(talking, pair) -> None:
    live = talking(None)
    analysis = Circuits("base", **SETTINGS, template=True)
    with pytest.raises(AnalysisError, match="has no chat template; leave `template` out"):
        analysis.runs(live, pair[1])
    twice = replace(live, recording=replace(live.recording, chat=Chat()))
    with pytest.raises(AnalysisError, match="in a conversation already"):
        analysis._both_in_conversation(twice)


def test_answers_that_are_not_apart_are_refused(effects) -> None:
    volume = effects.volume.assign_coords(least=("layer", [50.0]))
    with pytest.raises(AnalysisError, match="toy: the texts of a pair are 0.* logits apart in toy"):
        Circuits("base").measured(effects.replace_volume(volume), variable="alike", rng=generator())


def moved_circuit(share: float, seed: int = 0) -> _Maps:
    """One circuit of a few cells in two models; a share of it lies elsewhere in the second."""
    rng = generator(seed)
    shape = 8, 3, 5
    mine = np.zeros(shape)
    mine[2, 0, 0] = mine[4, 1, 4] = mine[6, 2, 4] = 1.0
    elsewhere = np.zeros(shape)
    elsewhere[1, 0, 2] = elsewhere[3, 2, 1] = elsewhere[7, 1, 3] = 1.0
    theirs = (1 - share) * mine + share * elsewhere
    way = 2 + rng.random(20)
    return _Maps(mine[..., None] * way, theirs[..., None] * way, way, way, 1.0)


def test_a_circuit_that_was_moved_is_another() -> None:
    same, moved = moved_circuit(0.0), moved_circuit(1.0)
    for by in ("spearman", "cosine"):
        assert same.alike(by) == pytest.approx(1)
        assert abs(moved.alike(by)) < 0.1
    np.testing.assert_allclose(same.mine_map[2, 0, 0], 1)


def test_likeness_is_told_by_order_or_by_size() -> None:
    one = np.array([0.0, 1.0, 2.0, 3.0])
    assert _similarity(one, one**3, "spearman") == pytest.approx(1)
    assert _similarity(one, one**3, "cosine") < 1
    assert np.isnan(_similarity(one, np.ones(4), "spearman"))


def test_what_can_be_reached_is_what_two_halves_of_one_model_reach() -> None:
    """However noisy pairs are, the same circuit reaches 1, and another one nothing."""
    reached = {size: [] for size in (0.0, 1.0)}
    for size, found in reached.items():
        for seed in range(10):
            subject = effect_world(
                generator(seed), Circuits("base"), size=size, spread=0.0, items=6
            )
            found.append(float(Circuits("base")(subject, rng=generator())["reached"][0]))
    assert np.mean(reached[1.0]) == pytest.approx(1, abs=0.03)
    assert np.mean(reached[0.0]) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sites": ()}, "sites: at least one"),
        ({"segments": 0}, "segments and splits must be at least 1"),
        ({"random": -1}, "random and checked at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        Circuits("base", **settings)
