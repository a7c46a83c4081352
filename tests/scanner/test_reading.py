"""The tokens that are kept are those that were asked for, also in a conversation; else an error."""

import numpy as np
import pandas as pd
import pytest

from scanner.reading import OWN, TOKEN_LABELS, Chat, read
from stimuli import StimulusError, StimulusSet

TEXTS = ["We saw the cat today.", "cat", "The word was cat", "A cat."]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def stimuli_of(*texts, target="cat"):
    starts = [text.index(target) for text in texts]
    return StimulusSet(
        "mine",
        pd.DataFrame(
            {
                "text": texts,
                "target_start": starts,
                "target_end": [start + len(target) for start in starts],
                "item": "cat",
                "frame": "f",
                "category": "c",
            }
        ),
    )


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("llama", bos=True)


@pytest.fixture
def talking(tiny_model):
    """A model with a chat template."""
    model = tiny_model("llama", bos=True)
    model.tokenizer.chat_template = TEMPLATE
    return model


def ids_of(model, text):
    return model.tokenizer(text)["input_ids"]


def spelled(model, ids):
    return model.tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("tokens", "positions"),
    [
        ("last", lambda n: [n - 1]),
        ("mean", lambda n: range(1, n)),
        ("all", lambda n: range(n)),
        ((0,), lambda n: [0]),
        ((-1, 0, 1), lambda n: [n - 1, 0, 1]),
        ((1, -2), lambda n: [1, n - 2]),
    ],
)
def test_the_kept_positions_are_those_asked_for(model, tokens, positions):
    reading = read(model, stimuli_of(*TEXTS), tokens)
    assert reading.tokens == tokens
    for text, ids, kept in zip(TEXTS, reading.ids, reading.kept, strict=True):
        whole = ids_of(model, text)
        assert kept.tolist() == list(positions(len(whole)))
        assert ids == whole[: max(kept) + 1]  # later tokens cannot reach those that are kept


@pytest.mark.parametrize("tokens", ["target", "target_mean"])
def test_the_target_is_its_tokens_or_the_last_of_them(model, tokens):
    texts = ["We saw the zebrafish today.", "zebrafish", "The word was zebrafish"]
    reading = read(model, stimuli_of(*texts, target="zebrafish"), tokens)
    for text, ids, kept in zip(texts, reading.ids, reading.kept, strict=True):
        assert ids == ids_of(model, text)[: kept[-1] + 1]
        if tokens == "target":
            assert (len(kept), spelled(model, [ids[kept[0]]])) == (1, "h")
        else:
            assert len(kept) > 4
            assert spelled(model, np.array(ids)[kept].tolist()).strip() == "zebrafish"
            assert np.diff(kept).tolist() == [1] * (len(kept) - 1)


def test_pooled_and_ragged_are_what_their_names_say(model):
    stimuli = stimuli_of(*TEXTS)
    found = {
        tokens: (read(model, stimuli, tokens).pooled, read(model, stimuli, tokens).ragged)
        for tokens in ("target", "target_mean", "last", "mean", "all", (0, -1))
    }
    assert {tokens for tokens, (pooled, _) in found.items() if pooled} == {"target_mean", "mean"}
    assert {tokens for tokens, (_, ragged) in found.items() if ragged} == {"all"}


def test_the_labels_are_of_the_whole_text_whatever_is_kept(model):
    whole = read(model, stimuli_of(*TEXTS), "all").table
    for tokens in ("target", "mean", (0,)):
        pd.testing.assert_frame_equal(read(model, stimuli_of(*TEXTS), tokens).table, whole)
    assert whole["text_tokens"].tolist() == [len(ids_of(model, text)) for text in TEXTS]
    assert tuple(whole.columns[-5:]) == TOKEN_LABELS


def test_a_position_that_a_text_lacks_is_an_error_by_its_text(model):
    stimuli = stimuli_of("We saw the cat today.", "cat")
    count = len(ids_of(model, "cat"))
    for position in (count, -count - 1):
        with pytest.raises(
            StimulusError,
            match=rf"stimulus 1 \('cat'\) has {count} tokens; there is no position {position}$",
        ):
            read(model, stimuli, (0, position))
    assert read(model, stimuli, (count - 1, -count)).kept[1].tolist() == [count - 1, 0]


def test_a_mean_over_nothing_is_an_error(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(StimulusError, match=r"stimulus 1 \('w'\) is one token; the mean leaves"):
        read(model, stimuli_of("a word", "w", target="w"), "mean")


def test_a_text_longer_than_the_context_is_an_error_or_is_cut(tiny_model):
    model = tiny_model("llama", max_position_embeddings=16)
    stimuli = stimuli_of("y" + "x" * 15, "y" + "x" * 20, target="y")
    with pytest.raises(
        StimulusError,
        match=r"stimulus 1 \('yx{20}'\) has 21 tokens; '.*' reads at most 16. Shorten it, or set "
        "`truncate: true`",
    ):
        read(model, stimuli, "last")
    reading = read(model, stimuli, "last", truncate=True)
    assert [len(ids) for ids in reading.ids] == [16, 16]
    assert reading.kept[1].tolist() == [15]
    assert reading.table["text_tokens"].tolist() == [16, 16]
    whole = ids_of(model, "y" + "x" * 20)
    assert reading.ids[1] == whole[:16]


def test_a_target_that_is_cut_off_is_an_error(tiny_model):
    model = tiny_model("llama", max_position_embeddings=16)
    stimuli = stimuli_of("x" * 16 + "y", target="y")
    with pytest.raises(StimulusError, match=r"its target lies behind the 16 tokens that '.*' rea"):
        read(model, stimuli, "last", truncate=True)


def test_a_text_that_begins_with_the_token_that_the_tokenizer_adds_is_refused(model):
    with pytest.raises(StimulusError, match=r"begins with two begin-of-text tokens \('<s>'\)"):
        read(model, stimuli_of("<s>cat"), "last")


def test_a_column_may_have_the_name_of_a_dimension_of_results(model):
    stimuli = StimulusSet("mine", stimuli_of(*TEXTS).table.assign(model="tank", place="town"))
    assert read(model, stimuli, "last").table["place"].tolist() == ["town"] * len(TEXTS)


@pytest.mark.parametrize(
    "column",
    ["stimulus", "token", "layer", "unit", "rank", "resid_post", "logits", *TOKEN_LABELS, *OWN],
)
def test_a_column_named_like_something_in_a_volume_is_refused(model, column):
    stimuli = stimuli_of(*TEXTS)
    stimuli = StimulusSet("mine", stimuli.table.assign(**{column: 1}))
    with pytest.raises(StimulusError, match=f"'mine': a volume holds '{column}' of its own; ren"):
        read(model, stimuli, "all")


def test_a_model_without_a_chat_template_is_refused(model):
    with pytest.raises(StimulusError, match=r"has no chat template; leave `chat` out, or take"):
        read(model, stimuli_of(*TEXTS), "target", chat=Chat())


@pytest.mark.parametrize("system", [None, "You talk of a dog.", "Où est le chien?"])
@pytest.mark.parametrize("tokens", ["target", "target_mean", "last"])
def test_in_a_conversation_the_target_is_found_and_each_token_is_there_once(
    talking, system, tokens
):
    reading = read(talking, stimuli_of(*TEXTS), tokens, chat=Chat(system))
    for text, ids, kept in zip(TEXTS, reading.ids, reading.kept, strict=True):
        before = "" if system is None else f"<system>{system}"
        whole = f"<s>{before}<user>{text}<assistant>"
        expected = talking.tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert ids == expected[: max(kept) + 1]
        assert ids.count(talking.tokenizer.bos_token_id) == 1
        kept_text = spelled(talking, np.array(ids)[kept].tolist())
        if tokens == "last":
            assert kept.tolist() == [len(expected) - 1]
        else:
            assert tokens == "target" or kept_text.strip() == "cat"
            # The last token of the target ends where the target ends.
            upto = whole[: whole.index(text) + text.index("cat") + 3]
            assert spelled(talking, ids[: kept[-1] + 1]) == spelled(
                talking, talking.tokenizer(upto, add_special_tokens=False)["input_ids"]
            )


def test_a_template_that_begins_text_by_itself_twice_is_refused(talking):
    talking.tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    with pytest.raises(StimulusError, match="begins with two begin-of-text tokens"):
        read(talking, stimuli_of(*TEXTS), "last", chat=Chat())


def test_a_template_that_changes_the_text_or_repeats_it_is_refused(talking):
    talking.tokenizer.chat_template = "{{ messages[-1]['content'] | upper }}"
    with pytest.raises(StimulusError, match=r"stimulus 0 \('We saw the cat today.'\) stands 0 tim"):
        read(talking, stimuli_of(*TEXTS), "last", chat=Chat())
    talking.tokenizer.chat_template = TEMPLATE
    with pytest.raises(StimulusError, match=r"stimulus 1 \('cat'\) stands 2 times in its"):
        read(talking, stimuli_of(*TEXTS), "last", chat=Chat("Mind the cat."))
