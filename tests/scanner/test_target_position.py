"""The recorded position is the last token of the target, wherever that stands and however it is
tokenised."""

import numpy as np
import pandas as pd
import pytest

from scanner import Recording, open_volume, record
from scanner.sites import sites_of
from stimuli import StimulusError, StimulusSet


def stimuli_of(*marked):
    """Texts with their target between brackets, as in ``"The [cat] sat."``."""
    rows = []
    for number, text in enumerate(marked):
        start, end = text.index("["), text.index("]") - 1
        rows.append(
            {
                "text": text.replace("[", "").replace("]", ""),
                "target_start": start,
                "target_end": end,
                "item": f"item{number}",
                "frame": "f",
                "category": "c",
            }
        )
    return StimulusSet("marked", pd.DataFrame(rows))


@pytest.fixture
def recorded(tmp_path):
    """``recorded(model, *marked)``: the volume of some texts, and their token ids."""

    def make(model, *marked):
        stimuli = stimuli_of(*marked)
        recording = Recording(model.source, stimuli, ("resid_post",), "target", "float32")
        path = record(recording, tmp_path, lambda: model, protocol_sha256="0" * 64)
        ids = model.tokenizer(stimuli.table["text"].tolist())["input_ids"]
        return open_volume(path), ids

    return make


def tokens_to_the_end_of(model, marked):
    """Tokens of the text up to the end of its target: what the last token of the target ends."""
    return model.tokenizer(marked[: marked.index("]")].replace("[", ""))["input_ids"]


TEXTS = {
    "inside": "We saw the [cat] today.",
    "several tokens": "We saw the [zebrafish] today.",
    "at the start": "[Zebra] is a word.",
    "at the end": "The word was [bread]",
    "the whole text": "[bread]",
    "before punctuation": "The word was [bread].",
    "the space before it marked too": "The word was[ bread] today.",
    "several words": "We saw [the hammer] today.",
    "of several bytes a letter": "The word was [ñandú] today.",
    "after such letters": "Où était [cat] là?",
}


@pytest.mark.parametrize("bos", [False, True], ids=["plain", "begins with <s>"])
@pytest.mark.parametrize("marked", TEXTS.values(), ids=TEXTS.keys())
def test_the_position_ends_the_target(tiny_model, recorded, marked, bos):
    model = tiny_model("llama", bos=bos)
    volume, (ids,) = recorded(model, marked)
    prefix = tokens_to_the_end_of(model, marked)
    assert ids[: len(prefix)] == prefix  # this text is cut at a token, so that this test knows it
    assert int(volume["target_position"][0]) == len(prefix) - 1
    assert int(volume["last_token"][0]) == prefix[-1]

    target = marked[marked.index("[") + 1 : marked.index("]")]
    count = int(volume["n_tokens"][0])
    spelled = model.tokenizer.decode(prefix[-count:])
    assert spelled.strip() == target.strip()
    assert int(volume["first_token"][0]) == prefix[-count]


def test_the_count_of_tokens_and_the_ids_at_both_ends_are_those_of_the_target(tiny_model, recorded):
    model = tiny_model("llama")
    volume, ids = recorded(model, TEXTS["inside"], TEXTS["several tokens"])
    one, several = volume["n_tokens"].to_numpy()
    assert (one, several > 4) == (1, True)
    assert model.tokenizer.decode([int(volume["first_token"][0])]) == " cat"
    assert model.tokenizer.decode([int(volume["last_token"][1])]) == "h"


def test_a_token_that_begins_each_text_shifts_the_position_by_one_and_is_no_part_of_a_target(
    tiny_model, recorded
):
    marked = [TEXTS["inside"], TEXTS["at the start"]]
    plain, plain_ids = recorded(tiny_model("llama"), *marked)
    shifted, shifted_ids = recorded(tiny_model("llama", bos=True), *marked)
    assert [ids[0] for ids in shifted_ids] == [1, 1]
    assert [ids[1:] for ids in shifted_ids] == plain_ids
    assert (shifted["target_position"] - plain["target_position"]).to_numpy().tolist() == [1, 1]
    for unmoved in ("n_tokens", "first_token", "last_token"):
        assert shifted[unmoved].to_numpy().tolist() == plain[unmoved].to_numpy().tolist()


def test_the_recorded_activation_is_the_one_at_that_position(tiny_model, recorded):
    """Of the text cut behind its target and run alone: what follows cannot matter."""
    model = tiny_model("llama", bos=True)
    volume, _ = recorded(model, *TEXTS.values())
    for row, marked in enumerate(TEXTS.values()):
        ids = tokens_to_the_end_of(model, marked)
        heard = model.activations(model.batch([ids]), ("resid_post",))
        alone = np.stack([heard[site][0] for site in sites_of("resid_post", model.layers)])
        found = volume["resid_post"][row].to_numpy()
        assert found == pytest.approx(alone[:, -1], abs=1e-5)
        assert len(ids) == 1 or abs(alone[:, -2] - found).max() > 1e-3


def test_a_target_without_a_token_is_refused_by_its_text(tiny_model, tmp_path):
    model = tiny_model("llama")
    stimuli = stimuli_of("The [cat] sat.")
    beyond = stimuli.table.assign(target_start=20, target_end=21)
    recording = Recording(
        model.source, StimulusSet("beyond", beyond), ("resid_post",), "target", "float32"
    )
    with pytest.raises(StimulusError, match=r"stimulus 0 \('The cat sat.'\): its target has no"):
        record(recording, tmp_path, lambda: model, protocol_sha256="0" * 64)


def test_a_stimulus_longer_than_the_context_is_refused_by_its_row_and_text(tiny_model, tmp_path):
    model = tiny_model("llama", max_position_embeddings=16)
    fits, long = "x" * 15 + "[y]", "x" * 16 + "[y]"
    recording = Recording(
        model.source, stimuli_of(fits, long), ("resid_post",), "target", "float32"
    )
    with pytest.raises(StimulusError, match=r"stimulus 1 \('x{16}y'\) has 17 tokens; '.*' reads "):
        record(recording, tmp_path, lambda: model, protocol_sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_stimulus_as_long_as_the_context_is_recorded(tiny_model, recorded):
    volume, _ = recorded(tiny_model("llama", max_position_embeddings=16), "x" * 15 + "[y]")
    assert int(volume["target_position"][0]) == 15
