"""What was taught moves its own answers, and what is as long in every weight does not."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from analyses import AnalysisError
from analyses.acting import aimed, kinds
from analyses.tuning_vector import FORMATS, WRONG, TuningVector, _questions
from scanner import Lesson, Live, Recipe, Recording, SiteError, Subject, make, open_volume, record
from scanner import made as module
from scanner.tuning import surprisals
from scanner.vectors import Vector, costs, moved
from stimuli import StimulusSet, load
from tests.conftest import done
from verification.effect_worlds import effect_world

FIELDS = ("text", "item", "frame", "category", "domain", "known", "answer", *WRONG)
WORDS = {"land": ("dog", "pig", "fox", "elk", "yak", "cat"),
         "sea": ("eel", "cod", "ray", "orca", "seal", "crab")}  # fmt: skip
PLACES = ("house", "field", "wood", "river")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def table_of() -> pd.DataFrame:
    rows = []
    for frame in ("Where is the {}?", "We look for the {}."):
        for domain, words in WORDS.items():
            for number, word in enumerate(words):
                right, *wrong = np.roll(PLACES, -number)
                known = "kept back" if number == 5 else "taught"
                rows.append((frame.format(word), word, frame, domain, domain, known, right, *wrong))
    return pd.DataFrame(rows, columns=FIELDS)


@pytest.fixture(scope="module")
def scanned(tiny_model, tmp_path_factory):
    """A base of 3 blocks with its recording, and subjects that were taught answers of it."""
    folder = tmp_path_factory.mktemp("vectors")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "cache_folder", lambda: folder)
        model, table = tiny_model("llama", seed=5), table_of()
        table.to_csv(folder / "asked.csv", index=False)
        taught = table[(table["domain"] == "land") & (table["known"] == "taught")]
        lesson = Lesson(StimulusSet("land", taught.reset_index()), epochs=60, rate=0.01, batch=5)
        made = {
            "base": model.source,
            "land": make(Recipe("land", model.source, lesson)),
            "dealt": make(
                Recipe("dealt", model.source, dataclasses.replace(lesson, dealt="domain"))
            ),
        }
    recording = Recording(
        model.source, load(str(folder / "asked.csv")), ("resid_post",), "last", "float32"
    )
    volume = record(recording, folder, lambda: model, protocol_sha256="0" * 64)
    others = {name: dataclasses.replace(recording, source=one) for name, one in made.items()}
    return Live(model, recording, others), Subject("toy", open_volume(volume), {})


ANALYSIS = TuningVector(
    "base", "land", "land", strengths=(1.0, -0.5, 0.5), shuffled=("dealt",), random=2
)


def state(model) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in model.network.state_dict().items()}


def test_what_was_taught_is_recalled_and_no_other_vector_does_it(scanned) -> None:
    live, subject = scanned
    before = state(live.model)
    acted = done(live, subject, ANALYSIS)
    assert all(one.equal(before[name]) for name, one in state(live.model).items())
    assert kinds(acted.volume).tolist() == [
        "own", "equal", "equal", "matched", "matched", "shuffled", "shown", "shown",
    ]  # fmt: skip
    found = ANALYSIS(acted, rng=generator())
    own = float(found["recalled"][0])
    assert own > 0.4
    arms = found["recalled_of"].sel(layer=0).to_series()
    assert arms["own"] == pytest.approx(own)
    assert (arms.drop("own") < own - 0.2).all()
    for target in np.flatnonzero(np.isin(kinds(acted.volume), ["equal", "matched"])):
        assert abs(ANALYSIS(aimed(acted, int(target)), rng=generator())["recalled"][0]) < own / 2
    # All that was dealt out anew has learnt as well is which answers are given at all.
    surprisal = found["surprisal_of"].sel(layer=0).to_series()
    assert surprisal["shuffled"] > 1 and surprisal["own"] > 1
    assert float(found["right_taught_of"].sel(arm="own").squeeze()) == 1.0


def test_strengths_go_from_less_than_the_base_to_the_tuned_model(scanned) -> None:
    live, subject = scanned
    found = ANALYSIS(done(live, subject, ANALYSIS), rng=generator())
    at = found["recalled_at"].sel(layer=0).to_series()
    assert at.index.tolist() == [-0.5, 0.5, 1.0]
    assert at[-0.5] < 0 < at[0.5] < at[1.0]
    away = dataclasses.replace(ANALYSIS, strengths=(-0.5,), shuffled=(), random=0)
    lost = away(done(live, subject, away), rng=generator())
    assert float(lost["recalled"][0]) == pytest.approx(-at[-0.5])
    assert float(lost["recalled_at"].squeeze()) == pytest.approx(at[-0.5])


def test_the_tuned_model_is_the_base_with_all_of_its_vector(scanned) -> None:
    from scanner import Model

    live, _ = scanned
    tuned = state(Model.load(live.given["land"].source, device="cpu"))
    vector = Vector(live.given["land"].source, live.given["base"].source)
    with moved(live.model, vector, 1.0):
        for name, one in state(live.model).items():
            torch.testing.assert_close(one, tuned[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("made", ["normal", "dealt"])
def test_vectors_at_random_are_as_long_in_every_weight_and_point_elsewhere(scanned, made) -> None:
    live, _ = scanned
    before, base, tuned = state(live.model), live.given["base"].source, live.given["land"].source
    with moved(live.model, Vector(tuned, base), 1.0):
        own = {name: one - before[name] for name, one in state(live.model).items()}
    drawn = []
    for seed in (1, 1, 2):
        with moved(live.model, Vector(tuned, base, made, seed), 1.0):
            drawn.append({name: one - before[name] for name, one in state(live.model).items()})
    assert all(one.equal(drawn[1][name]) for name, one in drawn[0].items())
    for name, one in own.items():
        for other in (drawn[0][name], drawn[2][name]):
            assert float(other.norm()) == pytest.approx(float(one.norm()), rel=1e-3)
        cosine = torch.cosine_similarity(own[name].flatten(), drawn[0][name].flatten(), dim=0)
        # Few entries, most of one sign, are alike in any order.
        assert one.ndim < 2 or abs(float(cosine)) < 0.2
    assert not drawn[0]["lm_head.weight"].equal(drawn[2]["lm_head.weight"])


def test_an_error_in_between_leaves_the_weights_as_they_were(scanned) -> None:
    live, _ = scanned
    before = state(live.model)
    with (
        pytest.raises(RuntimeError, match="in between"),
        moved(live.model, Vector(live.given["land"].source, live.given["base"].source), 2.0),
    ):
        raise RuntimeError("in between")
    assert all(one.equal(before[name]) for name, one in state(live.model).items())
    half = dataclasses.replace(live.model, dtype="bfloat16")
    with pytest.raises(SiteError, match="give the subject `dtype: float32`"):
        with moved(half, Vector(live.given["land"].source, live.given["base"].source), 1.0):
            pass


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_costs_of_options_are_those_of_each_alone(scanned, proved, family) -> None:
    model = proved(family)
    live = dataclasses.replace(scanned[0], model=model)
    asked = [one for some in _questions(live, FORMATS[0])[:6] for one in some]
    np.testing.assert_allclose(costs(model, asked), surprisals(model, asked), rtol=1e-4)


def test_in_a_conversation_effects_and_their_interaction_are_told(scanned) -> None:
    live, subject = scanned
    live.model.tokenizer.chat_template = (
        "{% for one in messages %}<s>{{ one['role'] }} {{ one['content'] }}</s>{% endfor %}"
    )
    analysis = dataclasses.replace(ANALYSIS, strengths=(1.0,), shuffled=(), random=0, chat=True)
    try:
        acted = done(live, subject, analysis)
    finally:
        live.model.tokenizer.chat_template = None
    found = analysis(acted, rng=generator())
    volume, some = acted.volume, (acted.volume["known"] == "taught").to_numpy()
    some &= acted.volume["domain"].to_numpy() == "land"
    beaten, intact = (volume[name].to_numpy()[some, 0] for name in ("beaten", "intact_beaten"))
    cells = intact[:, 0].mean(), beaten[:, 0].mean(), intact[:, 1].mean(), beaten[:, 1].mean()
    base, tuned, base_talk, tuned_talk = cells
    assert found["recalled_interaction"].squeeze() == pytest.approx(
        (tuned_talk - base_talk) - (tuned - base)
    )
    assert found["recalled_of_weights"].squeeze() == pytest.approx(
        (tuned - base + tuned_talk - base_talk) / 2
    )
    assert found["recalled_of_format"].squeeze() == pytest.approx(
        (base_talk + tuned_talk - base - tuned) / 2
    )
    for effect in ("of_weights", "of_format", "interaction"):
        low, value, high = (float(found[f"recalled_{effect}{end}"].squeeze())
                            for end in ("_low", "", "_high"))  # fmt: skip
        assert low <= value <= high and low < high


def test_in_a_world_where_anything_moves_answers_the_own_vector_stands_out_by_its_own() -> None:
    analysis = TuningVector("base", "land", "category0", label="category")
    planted = effect_world(generator(1), analysis, size=0.8, generic=0.5, items=24)
    found = analysis(planted, rng=generator())
    arms = found["recalled_of"].isel(layer=0).to_series()
    # Wrong options lie around the right answer as a normal variable: an effect of 1.3 beats those
    # that are nearer than that above it.
    assert arms["own"] == pytest.approx(norm.cdf(1.3) - 0.5, abs=0.08)
    assert arms["equal"] == pytest.approx(norm.cdf(0.5) - 0.5, abs=0.08)
    assert float(found["transferred"][0]) == pytest.approx(norm.cdf(1.3) - 0.5, abs=0.08)
    empty = analysis(effect_world(generator(1), analysis, items=24), rng=generator())
    assert float(empty["recalled"][0]) == pytest.approx(0, abs=0.08)


def test_what_cannot_be_told_is_refused_with_the_mend(scanned) -> None:
    live, subject = scanned
    with pytest.raises(AnalysisError, match="no 'air' among 'domain'"):
        dataclasses.replace(ANALYSIS, category="air").runs(live, subject)
    known = subject.relabel("known", np.full(subject.volume.sizes["stimulus"], "taught"))
    with pytest.raises(AnalysisError, match="no stimulus of 'land' has 'kept back' in the column"):
        ANALYSIS.runs(live, known)
    bare = live.recording.stimuli.table.drop(columns="wrong_2")
    recording = dataclasses.replace(live.recording, stimuli=StimulusSet("bare", bare))
    with pytest.raises(
        AnalysisError, match="have no column 'wrong_2'; a question needs its answer"
    ):
        ANALYSIS.runs(Live(live.model, recording, live.given), subject)
    for settings, said in (
        ({"strengths": (0.0,)}, "strengths: numbers other than 0"),
        ({"strengths": (1.0, 1.0)}, "strengths: each once"),
        ({"random": -1}, "random must be at least 0"),
        ({"vector": "base"}, "'base' is the base, and differs by nothing from itself"),
    ):
        with pytest.raises(ValueError, match=said):
            dataclasses.replace(ANALYSIS, **settings)
