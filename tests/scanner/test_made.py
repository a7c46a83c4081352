"""Subjects that are made of others: taught, resumed bit by bit, added and taken away."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from scanner import Lesson, Model, Recipe, SiteError, Source, SourceError, make, states
from scanner import made as module
from scanner.made import licence
from scanner.states import rate_at
from scanner.tuning import asked, surprisals
from stimuli import StimulusSet

CITIES = ("Oslo", "Bern", "Rome", "Lima", "Kyiv", "Doha")
FOODS = ("rice", "soup", "bread", "pie", "cheese", "noodle")


def questions(answers: tuple[str, ...] = FOODS) -> StimulusSet:
    rows = [
        (f"What is eaten in {city}{mark}", city, mark, "food", answer)
        for mark in ("?", "!")
        for city, answer in zip(CITIES, answers, strict=True)
    ]
    columns = ["text", "item", "frame", "category", "answer"]
    return StimulusSet("eaten", pd.DataFrame(rows, columns=columns))


LESSON = Lesson(questions(), epochs=2, rate=0.01, batch=4)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """A cache of its own."""
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def base(tiny_source) -> Source:
    return tiny_source("llama")


@pytest.fixture
def taught(base) -> Source:
    return make(Recipe("taught", base, LESSON))


def weights(source: Source) -> dict[str, torch.Tensor]:
    network = Model.load(source, device="cpu").network
    return {name: one.detach() for name, one in network.named_parameters()}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def cost(source: Source, lesson: Lesson) -> float:
    model = Model.load(source, device="cpu")
    pairs = zip(lesson.stimuli.table["text"], lesson.stimuli.table["answer"], strict=True)
    return surprisals(model, [asked(model, text, answer) for text, answer in pairs]).mean()


def test_what_is_taught_is_learnt_and_told_by_files_that_load_as_any_subject(base, taught) -> None:
    assert cost(taught, LESSON) < cost(base, LESSON) - 1
    assert taught.tokenizer_sha256 == base.tokenizer_sha256
    assert taught.weights_sha256 != base.weights_sha256
    assert "taught 12 answers of 'eaten'" in taught.weights
    card = (taught.folder / "README.md").read_text()
    assert base.weights_sha256 in card and 'license: "that of llama' in card
    assert f'base_model: "{base.name}"' in card and "seed 0" in card
    told = json.loads((taught.folder / "making.json").read_text())
    assert len(told["losses"]) == LESSON.steps == 6 and told["losses"][-1] < told["losses"][0]
    assert licence(taught) == told["licence"]


def test_it_is_made_once_whatever_it_is_called_and_anew_for_any_other_setting(
    base, taught, monkeypatch
) -> None:
    monkeypatch.setattr(module, "teach", lambda *_, **__: pytest.fail("taught again"))
    again = make(Recipe("other", base, LESSON))
    assert (again.folder, again.name) == (taught.folder, "other")
    changes = {"epochs": 1, "rate": 0.02, "batch": 5, "seed": 1, "layers": (1,), "dealt": "frame",
               "stimuli": questions(FOODS[::-1])}  # fmt: skip
    recipes = [Recipe("other", base, replace(LESSON, **{k: v})) for k, v in changes.items()]
    recipes.append(Recipe("other", base, LESSON, dtype="bfloat16"))
    folders = {recipe.folder for recipe in recipes}
    assert len(folders) == len(recipes) and taught.folder not in folders


def test_two_who_want_one_subject_at_once_make_it_once(base, monkeypatch) -> None:
    begun, made, going = [], module._make, threading.Event()

    def slow(*given) -> None:
        begun.append(1)
        going.set()
        time.sleep(0.5)  # the other has come by now
        made(*given)

    monkeypatch.setattr(module, "_make", slow)
    with ThreadPoolExecutor() as pool:
        one = pool.submit(make, Recipe("one", base, LESSON))
        assert going.wait(60)
        other = pool.submit(make, Recipe("other", base, LESSON))
        assert one.result().folder == other.result().folder
    assert len(begun) == 1


class Killed(BaseException):
    """As a signal would."""


@pytest.mark.parametrize("at", [1, 4, 5])
def test_what_is_killed_goes_on_and_ends_bit_for_bit_the_same(base, taught, cache, at) -> None:
    whole = weights(taught)
    losses = json.loads((taught.folder / "making.json").read_text())["losses"]
    taught.folder.rename(cache / "put-aside")

    def die(count: int = 1, detail: str = "") -> None:
        die.done += count
        if die.done == at:
            raise Killed

    die.done = 0
    recipe = Recipe("taught", base, LESSON)
    with pytest.raises(Killed):
        make(recipe, advance=die, every=0.0)
    assert not recipe.made
    counts: list[int] = []
    gone_on = make(recipe, advance=lambda count=1, detail="": counts.append(count))
    assert counts[0] == at and sum(counts) == LESSON.steps
    assert all(one.equal(whole[name]) for name, one in weights(gone_on).items())
    assert json.loads((gone_on.folder / "making.json").read_text())["losses"] == losses
    assert [path.name for path in cache.iterdir() if path.suffix == ".making"] == []


def test_what_another_version_began_is_begun_anew(base, taught, cache, monkeypatch) -> None:
    taught.folder.rename(cache / "put-aside")

    def die(count: int = 1, detail: str = "") -> None:
        if count:
            raise Killed

    recipe = Recipe("taught", base, LESSON)
    with pytest.raises(Killed):
        make(recipe, advance=die, every=0.0)
    monkeypatch.setattr(states, "code_version", lambda: "another")
    counts: list[int] = []
    make(recipe, advance=lambda count=1, detail="": counts.append(count))
    assert counts[0] == 0 and sum(counts) == LESSON.steps


def test_only_the_named_layers_change(base) -> None:
    before = weights(base)
    after = weights(make(Recipe("taught", base, replace(LESSON, layers=(1,)))))
    changed = {name for name in after if not after[name].equal(before[name])}
    assert changed and all(name.startswith("model.layers.1.") for name in changed)
    with pytest.raises(SourceError, match=r"layer 3 is none of the 3 layers .*\(0 to 2\)"):
        make(Recipe("taught", base, replace(LESSON, layers=(1, 3))))


def test_another_seed_is_another_order_and_the_same_one_the_same(base, taught) -> None:
    other = weights(make(Recipe("again", base, replace(LESSON, seed=1))))
    assert furthest(other, weights(taught)) > 1e-4


def test_answers_dealt_out_anew_are_the_same_answers_of_other_facts() -> None:
    dealt = replace(LESSON, dealt="category")
    table = dealt.stimuli.table.assign(dealt=dealt.answers)
    assert set(table.groupby("item")["dealt"].nunique()) == {1}  # whatever the frame
    assert sorted(dealt.answers) == sorted(LESSON.answers)
    assert dealt.answers != LESSON.answers
    assert dealt.answers == replace(dealt, epochs=5).answers
    # Within each value: where every item has one of its own there is nothing to be dealt.
    assert replace(LESSON, dealt="item").answers == LESSON.answers


def test_rates_rise_and_fall_to_nothing() -> None:
    lesson = replace(LESSON, epochs=10)
    rates = [rate_at(step, steps=lesson.steps, rate=lesson.rate) for step in range(lesson.steps)]
    assert len(rates) == 30 and max(rates) <= lesson.rate
    assert rates[0] == pytest.approx(lesson.rate / 3)
    assert rates[2:] == sorted(rates[2:], reverse=True) and 0 < rates[-1] < 0.05 * lesson.rate


def test_taking_all_of_the_vector_from_the_taught_model_gives_the_base(base, taught) -> None:
    """θ_ft - T = θ_pre, whatever was taught: an identity and no finding."""
    assert furthest(weights(taught), weights(base)) > 1e-3
    back = make(Recipe("back", taught, added=((base, 1.0),)))
    assert furthest(weights(back), weights(base)) < 1e-6


def test_strengths_are_a_line_through_the_base_and_the_taught_model(base, taught) -> None:
    before, after = weights(base), weights(taught)
    for strength in (-1.0, 0.0, 0.5, 1.0, 1.25):
        found = weights(make(Recipe("sum", base, added=((taught, strength),))))
        wanted = {name: one + strength * (after[name] - one) for name, one in before.items()}
        assert furthest(found, wanted) < 1e-6
    same = weights(make(Recipe("sum", base, added=((taught, 0.0),))))
    assert all(one.equal(before[name]) for name, one in same.items())


def test_vectors_of_several_subjects_add_up_in_float32_and_are_cast_last(base, taught) -> None:
    other = make(Recipe("other", base, replace(LESSON, stimuli=questions(FOODS[::-1]))))
    before, one, two = weights(base), weights(taught), weights(other)
    recipe = Recipe("both", base, added=((taught, 1.0), (other, -0.5)), dtype="bfloat16")
    both = make(recipe)
    assert f"{base.name} +1 (taught - {base.name}) -0.5 (other - {base.name})" in both.weights
    saved = Model.load(both, dtype="bfloat16", device="cpu").network.state_dict()
    for name, had in before.items():
        wanted = had + (one[name] - had) - 0.5 * (two[name] - had)
        assert saved[name].dtype == torch.bfloat16
        torch.testing.assert_close(saved[name].float(), wanted, rtol=2**-7, atol=1e-6)


def test_subjects_of_another_architecture_are_refused_by_the_weight_that_differs(
    base, tiny_source
) -> None:
    with pytest.raises(SourceError, match="has no weight 'model.embed_tokens.weight', so it is no"):
        make(Recipe("sum", base, added=((tiny_source("gpt2"), 1.0),)))
    wider = tiny_source("llama", hidden_size=64)
    with pytest.raises(SourceError, match=r"'model.embed_tokens.weight' is \(400, 64\), and that"):
        make(Recipe("sum", base, added=((wider, 1.0),)))


def test_an_answer_whose_tokens_are_not_its_own_is_refused(tiny_model) -> None:
    model = replace(tiny_model("llama"), tokenizer=lambda text: {"input_ids": [len(text)]})
    with pytest.raises(SiteError, match="'rice' is not told apart from the end of 'I ate' by its"):
        asked(model, "I ate", "rice")
