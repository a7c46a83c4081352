"""The set `medical/symptoms`: symptoms by system, beside faults of other things that are alike."""

import re
from pathlib import Path

import pandas as pd
import pytest
from wordfreq import zipf_frequency

from stimuli import load

HERE = Path(__file__).parents[2] / "stimuli" / "medical" / "symptoms"
WORDS = pd.read_csv(HERE / "words.csv", keep_default_na=False)
FRAMES = pd.read_csv(HERE / "frames.csv")


def test_nine_of_each_of_nine_systems_and_of_nine_things() -> None:
    assert WORDS["item"].is_unique
    assert set(WORDS["category"].value_counts()) == {9}
    assert WORDS.groupby("kind")["category"].nunique().to_dict() == {"symptom": 9, "fault": 9}
    assert WORDS.groupby("category")["kind"].nunique().max() == 1


def test_zipf_column_is_what_wordfreq_gives() -> None:
    assert WORDS["zipf"].tolist() == [zipf_frequency(word, "en") for word in WORDS["item"]]


def test_the_two_kinds_are_as_long_and_as_frequent(embedded_tokenizers) -> None:
    counts = {
        name: [len(one.encode(f" {word}", add_special_tokens=False).ids) for word in WORDS["item"]]
        for name, one in embedded_tokenizers.items()
    }
    table = WORDS.assign(**counts, n_chars=WORDS["item"].str.len())
    means = table.groupby("kind")[["n_chars", "zipf", "smollm2", "gemma3"]].mean()
    assert means.loc["symptom"].tolist() == pytest.approx(means.loc["fault"].tolist(), rel=0.1)


def test_sentences_name_no_system_and_go_with_all() -> None:
    named = {word for name in WORDS["category"] for word in re.findall("[a-z]+", name)} - {"and"}
    named |= {"doctor", "patient", "nurse", "body", "symptom", "fault"}
    for text in FRAMES["text"]:
        assert text.count("{item}") == 1
        assert not named & set(re.findall("[a-z]+", text.lower()))
    table = load("medical/symptoms").table
    assert len(table) == 162 * 6
    assert len(load("medical/symptoms").part(only={"kind": ["symptom"]})) == 81 * 6
