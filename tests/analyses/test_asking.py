"""Questions are put as they are said to be, and answers are read as they were given."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyses import AnalysisError
from analyses.asking import (
    SYSTEM,
    Form,
    Question,
    World,
    left_out,
    orders_of,
    questions_of,
    worlds_of,
)
from analyses.choices import Choices, answered
from analyses.replies import Replies, beginning, lettered, rouge, tagged
from scanner import Chat, Edit, Live, Recording, Subject, open_volume, record
from scanner.harness import Asked, likelihoods, replies
from stimuli import load
from tests.conftest import done

FIELDS = ("text", "item", "frame", "category", "answer", "wrong_1", "wrong_2")
QUESTION = Question("Question: What is it?\nAnswer:", ("cat", "dog", "fox"))
ORDER = np.array([1, 0, 2])
FRAMES = ("There was a {}\nAnswer:", "I saw the {}\nAnswer:")
ITEMS = {"a": ("pig", "fox", "elk"), "b": ("ivy", "oak", "yew")}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def toy(tiny_model, tmp_path) -> tuple[Live, Subject]:
    return scanned(tiny_model("llama", seed=5, max_position_embeddings=256), tmp_path)


def scanned(model, folder, *, fields=FIELDS) -> tuple[Live, Subject]:
    """Questions about words of two kinds, in two frames."""
    rows = [
        (frame.format(item), item, frame[:5], kind, f"is {item}", "a cat", "the word")
        for frame in FRAMES
        for kind, items in ITEMS.items()
        for item in items
    ]
    path = folder / "questions.csv"
    pd.DataFrame(rows, columns=FIELDS)[list(fields)].to_csv(path, index=False)
    recording = Recording(model.source, load(str(path)), ("resid_post",), "target", "float32")
    volume = record(recording, folder, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(volume), {})


# --- how questions are put


def test_a_plain_question_is_the_text_and_its_options_follow() -> None:
    form = Form("plain", None)
    assert form.put(QUESTION, ORDER) == QUESTION.text
    assert form.spoken(QUESTION, ORDER) == (" cat", " dog", " fox")
    assert form.put_again(QUESTION, ORDER) == f"{QUESTION.text} cat\n\n{QUESTION.text}"


def test_options_stand_behind_letters_in_their_order() -> None:
    form = Form("letters", None)
    put = "Question: What is it?\nA. dog\nB. cat\nC. fox\nAnswer:"
    assert form.put(QUESTION, ORDER) == put
    assert form.spoken(QUESTION, ORDER) == (" B", " A", " C")
    assert form.put_again(QUESTION, ORDER) == f"{put} B\n\n{put}"


def test_the_published_prompt_is_the_system_of_a_conversation_or_stands_before() -> None:
    asked = "Question: What is it?\n\nOptions:\n\nA. dog\nB. cat\nC. fox"
    talking, reading = Form("reasoned", Chat("Be kind.")), Form("reasoned", None)
    assert talking.conversation == Chat(SYSTEM) and reading.conversation is None
    assert talking.put(QUESTION, ORDER) == asked
    assert reading.put(QUESTION, ORDER) == f"{SYSTEM}\n\n{asked}\n\n"
    assert talking.spoken(QUESTION, ORDER) == ("Answer: [B]", "Answer: [A]", "Answer: [C]")
    shown = f"{asked}\n\n<think>cat</think>\n\nAnswer: [B]\n\n"
    assert talking.put_again(QUESTION, ORDER) == shown + asked
    assert reading.put_again(QUESTION, ORDER) == f"{SYSTEM}\n\n{shown}{asked}\n\n"
    assert Form("letters", Chat("Be kind.")).conversation == Chat("Be kind.")


def test_the_example_of_the_published_prompt_keeps_to_what_it_asks_for() -> None:
    assert tagged(SYSTEM.partition("Options:")[2])
    assert lettered(SYSTEM.partition("Options:")[2], 4) == (1, 1, "")


def test_each_place_has_the_right_option_as_often() -> None:
    orders = orders_of(400, 4, generator())
    assert np.bincount(np.argmax(orders == 0, axis=1)).tolist() == [100] * 4
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(4), (400, 1)))


def test_worlds_deal_answers_out_by_item_and_questions_within_frame_and_category(toy) -> None:
    live, subject = toy
    items, frames, categories = (subject.volume[name].to_numpy().astype(object).astype(str)
                                 for name in ("item", "frame", "category"))  # fmt: skip
    worlds = worlds_of(subject, 3, trained=True, random=20, rng=generator())
    assert [one.kind for one in worlds] == ["own", *["shuffled"] * 20, "known", *["other"] * 20]
    keys = np.array([one.key for one in worlds if one.kind == "shuffled"])
    assert 0.2 < (keys == 0).mean() < 0.45  # a third, of 20 x 6 items
    for item in np.unique(items):
        assert all(len(set(key[items == item])) == 1 for key in keys)
    for world in worlds[22:]:
        assert not (items[world.donor] == items).any()
        np.testing.assert_array_equal(frames[world.donor], frames)
        np.testing.assert_array_equal(categories[world.donor], categories)
        assert len(set(world.donor)) == len(items)
    assert [one.kind for one in worlds_of(subject, 3, trained=False, random=2, rng=generator())] \
        == ["own"]  # fmt: skip
    free = worlds_of(subject, 1, trained=True, random=2, rng=generator())
    assert [one.kind for one in free] == ["own", "known", *["other"] * 4]
    alone = subject.take(np.flatnonzero((items == "pig") | (categories == "b")))
    with pytest.raises(AnalysisError, match="'pig' is the only item of 'a' in frame 'There'"):
        worlds_of(alone, 3, trained=True, random=1, rng=generator())


def test_stimuli_without_options_are_no_questions(toy, tiny_model, tmp_path) -> None:
    live, _ = toy
    found = questions_of(live, fewest=2)
    assert found[0].options == ("is pig", "a cat", "the word")
    for left, told in ((FIELDS[:4], "no column 'answer'"), (FIELDS[:5], "no other option")):
        folder = tmp_path / told[-8:-1]
        folder.mkdir()
        few, _ = scanned(live.model, folder, fields=left)
        with pytest.raises(AnalysisError, match=told):
            questions_of(few, fewest=2)
    assert len(questions_of(few, fewest=1)[0].options) == 1


# --- what is said


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Answer: [B]", (1, 1, "")),
        ("Answer: B.", (1, 1, "")),
        ("Answer:C", (2, 1, "")),
        ("So. Answer: [A] Answer: [D] and more", (3, 2, "and more")),
        ("Answer: Diabetes", (None, 0, "")),  # begins with a letter that is none
        ("Answer: [E]", (None, 0, "")),  # of four
        ("The answer is B", (None, 0, "")),
        ("", (None, 0, "")),
    ],
)
def test_a_letter_is_read_where_it_stands_in_the_format(reply, found) -> None:
    assert lettered(reply, 4) == found


@pytest.mark.parametrize(
    ("reply", "whether"),
    [
        ("<think>so</think> Answer: [A]", True),
        ("<THOUGHT>so</THOUGHT>", True),
        ("<think>so", False),
        ("</think>so<think>", False),
        ("<think>a</think><think>b</think>", False),
        ("<think>so</THOUGHT>", False),
        ("so", False),
    ],
)
def test_thoughts_stand_between_tags_once(reply, whether) -> None:
    assert tagged(reply) is whether


def test_a_reply_names_the_longest_option_that_it_begins_with() -> None:
    options = ("beta", "beta blocker", "12")
    assert beginning(" Beta-blocker, as a rule.", options) == 1
    assert beginning("beta\n\nmore", options) == 0
    assert beginning("120", options) is None
    assert beginning("a beta blocker", options) is None
    assert beginning("", options) is None


def test_rouge_is_that_of_words_in_common() -> None:
    assert rouge("the cat sat", "The cat!") == pytest.approx(0.8)  # P = 1, R = 2/3
    assert rouge("the cat sat", "the cat sat") == 1.0
    assert rouge("the cat", "a dog") == 0.0
    assert rouge("the cat", "the the the") == pytest.approx(0.4)  # clipped: P = 1/3, R = 1/2
    assert rouge("cats", "cat") == 0.0  # not stemmed


# --- the analyses


@pytest.mark.parametrize("prompt", ["plain", "letters"])
def test_choices_are_those_of_the_likelihoods(toy, prompt) -> None:
    live, subject = toy
    analysis = Choices(prompt=prompt, random=2)
    volume = done(live, subject, analysis).volume.isel(layer=0)
    questions, form = questions_of(live, fewest=2), Form(prompt, None)
    orders = orders_of(len(questions), 3, rng := generator())
    worlds = worlds_of(subject, 3, trained=True, random=2, rng=rng)
    assert volume["target_kind"].values.astype(str).tolist() == [one.kind for one in worlds]
    for target, world in enumerate(worlds):
        put = form.put_again if world.kind == "known" else form.put
        for row, question in enumerate(questions):
            text = put(Question(questions[world.donor[row]].text, question.options), orders[row])
            spoken = form.spoken(question, orders[row])
            (found,) = likelihoods(live.model, [Asked(text, spoken)])
            key, sizes = world.key[row], [len(one.strip()) for one in spoken]
            for name, values in (("margin", found), ("margin_normed", found / sizes)):
                expected = values[key] - np.delete(values, key).max()
                assert float(volume[name][row, target]) == pytest.approx(expected, abs=1e-4)
    np.testing.assert_array_equal(volume["choices"], answered(volume["margin"].to_numpy()))


def test_a_model_that_knows_is_found_to_and_no_other_world_is(toy) -> None:
    live, subject = toy
    analysis = Choices(random=6)
    found = done(live, subject, analysis)
    margin = found.volume["margin"].copy()
    margin[..., 0] = 1.0
    planted = found.replace_volume(found.volume.assign(margin=margin))
    result = analysis(planted, rng=generator())
    assert float(result["accuracy"][0]) == float(result["macro"][0]) == 1.0
    assert result["accuracy"].attrs["chance"] == pytest.approx(1 / 3)
    # Of six items all: Wilson's interval ends below 1 by z² / (n + z²).
    assert float(result["answered_low"][0]) == pytest.approx(6 / (6 + 1.959964**2), abs=1e-6)
    assert float(result["answered_of"].sel(arm="own")[0]) == 1.0


def test_what_is_left_out_is_left_out_layer_by_layer(toy) -> None:
    live, subject = toy
    analysis = Choices(left_out="mlp", layers=(0, 2), random=1)
    volume = done(live, subject, analysis).volume
    questions = questions_of(live, fewest=2)
    for place, layer in enumerate((0, 2)):
        edits = [Edit("mlp_out_post", "skip", layers=[layer], start=1)]
        assert list(left_out("mlp", layer)) == edits
        asked = [Asked(one.text, Form("plain", None).spoken(one, [0, 1, 2])) for one in questions]
        found = np.stack(likelihoods(live.model, asked, edits=edits))
        np.testing.assert_allclose(
            volume["margin"][:, place, 0], found[:, 0] - found[:, 1:].max(1), atol=1e-4
        )


def test_replies_are_scored_in_each_world(toy) -> None:
    live, subject = toy
    analysis = Replies(prompt="letters", tokens=3, random=2)
    found = done(live, subject, analysis)
    said = replies(
        live.model,
        [Form("letters", None).put(*one) for one in zip(
            questions_of(live, fewest=2), orders_of(12, 3, generator()), strict=True
        )],
        tokens=3,
    )  # fmt: skip
    kept = found.volume["reply"].values.astype(object).astype(str)[:, 0].tolist()
    assert kept == [one.text or " " for one in said]
    result = analysis(found, rng=generator())
    assert result["said"].attrs["chance"] == pytest.approx(1 / 3)
    assert float(result["unread"][0]) == 1 - np.mean(
        [lettered(f"Answer:{one.text}", 3)[0] is not None for one in said]
    )


@pytest.mark.parametrize("prompt", ["letters", "reasoned"])
@pytest.mark.parametrize("chat", [None, Chat()])
def test_what_tells_how_to_answer_is_dealt_out_and_nothing_else(prompt, chat) -> None:
    question, order = Question("Question: What is it?\nAnswer:", ("a cat", "a dog")), [1, 0]
    told = Form(prompt, chat)
    first, again, other = (replace(told, dealt=seed) for seed in (1, 1, 2))

    def whole(form: Form) -> str:
        said = form.conversation
        before = "" if said is None or said.system is None else said.system
        return f"{before}\n{form.put(question, order)}"

    assert sorted(whole(first).split()) == sorted(whole(told).split())
    assert whole(first) == whole(again)
    assert len({whole(told), whole(first), whole(other)}) == 3
    assert "Question: What is it?" in first.put(question, order)
    if prompt == "letters":
        assert first.put(question, order).endswith("\nAnswer:")
    else:  # the options are part of what is asked
        assert "A. a dog\nB. a cat" in first.put(question, order)
    assert first.put_again(question, order).count("What is it?") == 2


def test_each_dealing_has_replies_of_its_own(toy) -> None:
    live, subject = toy
    volume = done(live, subject, Replies(prompt="letters", tokens=3, random=2)).volume.isel(layer=0)
    questions, rng = questions_of(live, fewest=2), generator()
    orders = orders_of(len(questions), 3, rng)
    worlds_of(subject, 3, trained=True, random=2, rng=rng)
    seeds = rng.integers(2**32, size=2).tolist()
    kinds = volume["target_kind"].values.astype(str)
    for target, seed in zip(np.flatnonzero(kinds == "shuffled"), seeds, strict=True):
        form = Form("letters", None, seed)
        texts = [form.put(*one) for one in zip(questions, orders, strict=True)]
        ended = [one.stopped and not lettered(f"Answer:{one.text}", 3)[2]
                 for one in replies(live.model, texts, tokens=3)]  # fmt: skip
        np.testing.assert_array_equal(volume["stopped"][:, target], ended)


def test_a_reply_is_right_in_its_own_world_alone() -> None:
    """Of a model that says the right letter, and is told how to."""
    analysis = Replies(prompt="letters", tokens=3)
    questions = [Question(f"{word}\nAnswer:", (word, "dog", "fox")) for word in ("cat", "pig")]
    orders = np.array([[1, 0, 2], [0, 1, 2]])
    said = {
        "own": [_reply(" B"), _reply(" A.")], "known": [_reply(" [B]"), _reply(" A or B")],
        "bare": [_reply(" no"), _reply(" cat")],
    }  # fmt: skip

    def scored(kind: str, key: list[int], donor: list[int]) -> dict[str, list[float]]:
        made = analysis._scored(
            questions, orders, World(kind, np.array(key), np.array(donor)), said
        )
        return {name: one.tolist() for name, one in made.items()}

    assert scored("own", [0, 0], [0, 1])["said"] == [1, 1]
    assert scored("own", [0, 0], [0, 1])["valid"] == [1, 1]
    assert scored("own", [0, 0], [0, 1])["stopped"] == [1, 1]
    assert scored("shuffled", [1, 2], [0, 1])["said"] == [0, 0]
    assert scored("shuffled", [1, 2], [0, 1])["valid"] == [0, 0]  # nobody told it how
    said["1"] = [_reply(" C"), _reply(" what")]  # told in words that say nothing
    dealt = analysis._scored(
        questions, orders, World("shuffled", np.array([1, 2]), np.array([0, 1])), said, "1"
    )
    assert dealt["valid"].tolist() == [1, 0] and dealt["said"].tolist() == [0, 0]
    assert scored("other", [0, 0], [1, 0])["said"] == [0, 0]
    assert scored("known", [0, 0], [0, 1])["stopped"] == [1, 0]  # more stands behind the second


def _reply(text: str):
    from scanner.harness import Reply

    return Reply(text, True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prompt": "loud"}, "'loud' is none of plain, letters, reasoned"),
        ({"left_out": "head"}, "'head' is none of nothing, attention, mlp, block"),
        ({"layers": (0, 1)}, "nothing is left out, and each would give the same"),
        ({"layers": ()}, "whole numbers from 0"),
        ({"random": -1}, "random must be at least 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, told) -> None:
    for analysis in (Choices, Replies):
        with pytest.raises(ValueError, match=told):
            analysis(**settings)
    with pytest.raises(ValueError, match="tokens must be at least 1"):
        Replies(tokens=0)
    assert Choices(left_out="mlp", layers=(5,)).beyond(3) == "5 is none of the model's 3 layers"
