"""What the engine of benchmarks makes of a live model is what passes made by hand make of it."""

import logging

import numpy as np
import pytest
import torch

from scanner import Chat, Edit, continued, harness
from scanner.harness import Asked, HarnessError, Reply, likelihoods, replies
from stimuli import StimulusError

ASKED = [
    Asked("The word was bread", (" today", " a hammer is", " saw")),
    Asked("We saw", (" the cat", " a word", " x")),
    Asked("a hammer is a", (" word", " cat today", " bread")),
]
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def encoded(model, text: str, *, special: bool = True) -> list[int]:
    return model.tokenizer(text, add_special_tokens=special)["input_ids"]


@torch.no_grad()
def by_hand(model, text: str, option: str, *, special: bool = True, edits=()) -> float:
    """The logarithm of the probability of the tokens that an option adds, in one pass alone."""
    before = encoded(model, text, special=special)
    whole = encoded(model, text + option, special=special)
    with model.intervene(edits):
        logits = model.forward(model.batch([whole]), head=True)[0].double().log_softmax(-1)
    return float(sum(logits[at - 1, whole[at]] for at in range(len(before), len(whole))))


@torch.no_grad()
def said_by_hand(model, text: str, tokens: int, *, special: bool = True, edits=()) -> Reply:
    ids, begun = encoded(model, text, special=special), len(encoded(model, text, special=special))
    for _ in range(tokens):
        with model.intervene(edits):
            logits = model.forward(model.batch([ids]), head=True)
        ids = [*ids, int(logits[0, -1].argmax())]
        if ids[-1] == model.tokenizer.eos_token_id:
            break
    words = model.tokenizer.decode(ids[begun:], skip_special_tokens=True)
    return Reply(words, ids[-1] == model.tokenizer.eos_token_id)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "mamba"])
@pytest.mark.parametrize("bos", [False, True])
def test_options_are_as_likely_as_in_passes_by_hand(proved, family, bos) -> None:
    model = proved(family, bos=bos)
    found = likelihoods(model, ASKED)
    for one, values in zip(ASKED, found, strict=True):
        expected = [by_hand(model, one.text, option) for option in one.options]
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_options_are_weighed_in_what_is_done_to_the_model(proved) -> None:
    model = proved("llama")
    push = 3 * np.random.default_rng(0).normal(size=model.width).astype(np.float32)
    for edit in (
        Edit("resid_post", "add", layers=[1], start=1, value=push),
        Edit("mlp_out_post", "skip", layers=[2], start=1),
    ):
        found, intact = likelihoods(model, ASKED, edits=[edit]), likelihoods(model, ASKED)
        assert np.abs(found[0] - intact[0]).max() > 1e-3
        for one, values in zip(ASKED, found, strict=True):
            expected = [by_hand(model, one.text, option, edits=[edit]) for option in one.options]
            np.testing.assert_allclose(values, expected, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "mamba"])
@pytest.mark.parametrize("often", [0, 8])
def test_texts_that_are_read_together_are_answered_as_alone(proved, family, often) -> None:
    """Texts of several lengths, with and without a long beginning that all of them have."""
    model = proved(family, max_position_embeddings=256)
    texts = ["The word was bread and we saw the cat today. " * often + one.text for one in ASKED]
    assert len({len(encoded(model, text)) for text in texts}) > 1
    engine = harness._engine(model, special=True)
    engine.begin(texts)
    full = family in ("llama", "gpt2")  # no state, and no window that slides
    assert engine._padded == full
    assert (engine._begun is not None) == (full and often > 0)
    alone = [replies(model, [text], tokens=5)[0] for text in texts]
    assert replies(model, texts, tokens=5) == alone


def test_fillers_stand_behind_what_all_texts_begin_with() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    order = harness._fillers_behind(mask, 3)
    assert order.tolist() == [[2, 3, 4, 0, 1, 5], [0, 1, 2, 3, 4, 5]]
    assert mask.gather(1, order).tolist() == [[1, 1, 1, 0, 0, 1], [1] * 6]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba"])
def test_replies_are_the_likeliest_token_after_token(proved, family) -> None:
    model = proved(family)
    texts = [one.text for one in ASKED]
    found = replies(model, texts, tokens=5)
    assert [one.text for one in found] == [
        continued(model, encoded(model, text), [()], tokens=5)[0] for text in texts
    ]
    if family == "llama":
        push = 3 * np.random.default_rng(0).normal(size=model.width).astype(np.float32)
        edit = Edit("resid_post", "add", layers=[1], start=1, value=push)
        steered = replies(model, texts, tokens=5, edits=[edit])
        assert steered == [said_by_hand(model, text, 5, edits=[edit]) for text in texts]
        assert steered != found


def test_a_reply_that_the_model_ends_has_stopped(tiny_model) -> None:
    model = tiny_model("llama", seed=5)
    assert [one.stopped for one in replies(model, [ASKED[0].text], tokens=3)] == [False]
    first = model.forward(model.batch([encoded(model, ASKED[0].text)]), head=True)[0, -1].argmax()
    model.network.generation_config.eos_token_id = int(first)
    assert replies(model, [ASKED[0].text], tokens=3)[0].stopped


def test_the_publishers_settings_do_not_change_what_is_said(tiny_model) -> None:
    model = tiny_model("llama", seed=5)
    texts = [one.text for one in ASKED]
    before = replies(model, texts, tokens=8)
    model.network.generation_config.repetition_penalty = 5.0
    model.network.generation_config.do_sample = True
    assert replies(model, texts, tokens=8) == before
    assert model.network.generation_config.repetition_penalty == 5.0


def test_an_empty_line_ends_no_reply(proved) -> None:
    model = proved("llama")
    (line,) = encoded(model, "\n")
    push = 100 * model.network.get_output_embeddings().weight[line].detach().numpy()
    edit = Edit("resid_post", "add", layers=[2], value=push)
    assert replies(model, ["We saw"], tokens=3, edits=[edit]) == [Reply("\n\n\n", False)]


@pytest.mark.parametrize("bos", [False, True])
def test_a_conversation_is_what_its_template_says_and_no_more(tiny_model, bos) -> None:
    model = tiny_model("llama", bos=bos, seed=5)
    model.tokenizer.chat_template = TEMPLATE
    chat = Chat("Be short.")
    found = likelihoods(model, ASKED, chat=chat)
    said = replies(model, [one.text for one in ASKED], tokens=4, chat=chat)
    for one, values, reply in zip(ASKED, found, said, strict=True):
        text = f"<system>Be short.\n<user>{one.text}\n<assistant>"
        expected = [by_hand(model, text, option, special=False) for option in one.options]
        np.testing.assert_allclose(values, expected, atol=1e-4)
        assert reply == said_by_hand(model, text, 4, special=False)
    model.tokenizer.chat_template = "<user>{{ messages[-1]['content'] | upper }}"
    with pytest.raises(StimulusError, match="stands 0 times in its conversation"):
        likelihoods(model, ASKED, chat=chat)


def test_what_is_too_long_is_refused_and_not_cut(proved) -> None:
    model = proved("llama")
    text = "We saw the cat today. " * 12
    with pytest.raises(HarnessError, match="tokens with what follows it; .* reads at most 64"):
        likelihoods(model, [Asked(text, (" a", " b"))])
    with pytest.raises(HarnessError, match="Shorten it, or ask for fewer tokens"):
        replies(model, ["We saw"], tokens=63)


def test_an_option_without_a_token_is_refused(proved) -> None:
    with pytest.raises(HarnessError, match="'' has no token of its own after 'We saw'"):
        likelihoods(proved("llama"), [Asked("We saw", ("", " b"))])


def test_the_model_and_the_terminal_are_left_as_they_were(tiny_model, capfd) -> None:
    model = tiny_model("llama", seed=5)
    model.tokenizer.pad_token = None
    settings, level = model.network.generation_config, logging.getLogger("lm_eval").level
    before = {name: one.clone() for name, one in model.network.state_dict().items()}
    likelihoods(model, ASKED)
    replies(model, ["We saw"], tokens=2)
    for name, one in model.network.state_dict().items():
        assert torch.equal(one, before[name])
    assert model.tokenizer.pad_token is None
    assert model.network.generation_config is settings
    assert logging.getLogger("lm_eval").level == level
    assert capfd.readouterr() == ("", "")


def test_a_missing_engine_is_named_with_what_installs_it(monkeypatch) -> None:
    from analyses.choices import Choices

    monkeypatch.setattr("analyses.asking.missing", lambda: "needs lm-evaluation-harness; install")
    with pytest.raises(ValueError, match="needs lm-evaluation-harness"):
        Choices()
