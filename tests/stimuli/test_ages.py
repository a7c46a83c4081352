"""The set `medical/ages`: every number in each sentence, known before it is read what it is of."""

from pathlib import Path

import pandas as pd
import pytest
from wordfreq import zipf_frequency

from stimuli import load

HERE = Path(__file__).parents[2] / "stimuli" / "medical" / "ages"
WORDS = pd.read_csv(HERE / "words.csv", dtype={"frame": str})
FRAMES = pd.read_csv(HERE / "frames.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load("medical/ages").table


def test_every_number_stands_once_in_each_notation() -> None:
    for _, some in WORDS.groupby("notation"):
        assert some["number"].tolist() == list(range(101))
    digits = WORDS[WORDS["notation"] == "digits"]
    assert digits["frame"].tolist() == digits["number"].astype(str).tolist()
    assert WORDS["zipf"].tolist() == [zipf_frequency(word, "en") for word in WORDS["frame"]]


def test_words_of_numbers_are_built_from_their_parts() -> None:
    words = WORDS[WORDS["notation"] == "words"].set_index("number")["frame"]
    assert words.is_unique
    for number in range(21, 100):
        tens, rest = divmod(number, 10)
        expected = words[10 * tens] + (f"-{words[rest]}" if rest else "")
        assert words[number] == expected
    assert (words[17], words[18], words[40], words[100]) == (
        "seventeen", "eighteen", "forty", "one hundred",
    )  # fmt: skip


def test_each_thing_has_twelve_sentences_and_ages_each_of_them_for_each_sex() -> None:
    sentences = FRAMES.groupby("category")["item"].nunique()
    assert sentences.to_dict() == dict.fromkeys(
        ["age", "building", "dose", "page", "room", "weight"], 12
    )
    ages = FRAMES[FRAMES["category"] == "age"]
    assert (
        ages.groupby("item")["sex"].agg(sorted).map(tuple) == ("female", "male", "neutral")
    ).all()
    assert FRAMES[FRAMES["category"] != "age"]["item"].is_unique and FRAMES["text"].is_unique


def test_what_it_is_of_stands_before_the_number() -> None:
    for frame in FRAMES.itertuples():
        before, after = frame.text.split("{frame}")
        assert frame.category in before.lower(), frame.text
        assert after == "." and not any(letter.isdigit() for letter in before)


def test_sentences_of_women_and_men_differ_by_what_says_so() -> None:
    said = {"she": "he", "her": "his", "female": "male"}
    ages = FRAMES[FRAMES["category"] == "age"].pivot(index="item", columns="sex", values="text")
    for of_her, of_him in zip(ages["female"].str.lower(), ages["male"].str.lower(), strict=True):
        words = [said.get(word, word) for word in without_stops(of_her)]
        assert words == ["his" if word == "him" else word for word in without_stops(of_him)]


def without_stops(text: str) -> list[str]:
    return [word.strip(".:,") for word in text.split()]


def test_the_sentence_is_the_item_and_the_number_its_frame(table: pd.DataFrame) -> None:
    assert len(table) == 202 * 96
    assert table["item"].nunique() == 12 * 6 and table["frame"].nunique() == 202
    assert table.groupby("item")["category"].nunique().max() == 1
    (one,) = table[
        (table["item"] == "age is") & (table["frame"] == "17") & (table["sex"] == "female")
    ].to_dict("records")
    assert one["text"] == "Her age is 17."
    assert one["text"][one["target_start"] : one["target_end"]] == "17"
    assert (one["number"], one["notation"], one["category"]) == (17, "digits", "age")


def test_a_part_is_taken_by_its_columns() -> None:
    part = load("medical/ages").part(
        only={"category": ["age", "page"], "notation": ["digits"], "sex": ["neutral", "none"]}
    )
    assert len(part) == 101 * 24
    assert set(part.table["item"]) >= {"age is", "page first"}
