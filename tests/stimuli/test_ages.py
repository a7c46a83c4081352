"""The set `medical/ages`: every number in both notations, known before it is read what it is of."""

from pathlib import Path

import pandas as pd
import pytest
from wordfreq import zipf_frequency

from stimuli import load

HERE = Path(__file__).parents[2] / "stimuli" / "medical" / "ages"
WORDS = pd.read_csv(HERE / "words.csv", dtype={"item": str})
FRAMES = pd.read_csv(HERE / "frames.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load("medical/ages").table


def test_every_number_stands_once_in_each_notation() -> None:
    for _, some in WORDS.groupby("notation"):
        assert some["number"].tolist() == list(range(101))
    digits = WORDS[WORDS["notation"] == "digits"]
    assert digits["item"].tolist() == digits["number"].astype(str).tolist()
    assert WORDS["zipf"].tolist() == [zipf_frequency(word, "en") for word in WORDS["item"]]


def test_words_of_numbers_are_built_from_their_parts() -> None:
    words = WORDS[WORDS["notation"] == "words"].set_index("number")["item"]
    assert words.is_unique
    for number in range(21, 100):
        tens, rest = divmod(number, 10)
        expected = words[10 * tens] + (f"-{words[rest]}" if rest else "")
        assert words[number] == expected
    assert (words[17], words[18], words[40], words[100]) == (
        "seventeen", "eighteen", "forty", "one hundred",
    )  # fmt: skip


def test_ages_have_eight_sentences_for_each_sex_and_things_eight() -> None:
    ages = FRAMES[FRAMES["category"] == "age"]
    assert ages.groupby("sex").size().to_dict() == {"female": 8, "male": 8, "neutral": 8}
    things = FRAMES[FRAMES["category"] != "age"].groupby("category").size()
    assert things.to_dict() == dict.fromkeys(["building", "dose", "page", "room", "weight"], 8)
    assert FRAMES["frame"].is_unique and FRAMES["text"].is_unique


def test_what_it_is_of_stands_before_the_number() -> None:
    for frame in FRAMES.itertuples():
        before, after = frame.text.split("{item}")
        assert frame.category in before.lower().replace("aged", "age"), frame.text
        assert after == "." and not any(letter.isdigit() for letter in before)


def test_sentences_of_women_and_men_differ_by_what_says_so() -> None:
    said = {"she": "he", "her": "his", "female": "male"}
    ages = FRAMES[FRAMES["category"] == "age"].set_index("frame")["text"]
    for name in ages.index[ages.index.str.endswith("-female")]:
        of_her, of_him = ages[name].lower(), ages[name.replace("female", "male")].lower()
        words = [said.get(word.strip(".:"), word.strip(".:")) for word in of_her.split()]
        him = [{"him": "his"}.get(word, word) for word in of_him.split()]
        assert words == [word.strip(".:") for word in him]


def test_a_number_of_two_things_is_two_items(table: pd.DataFrame) -> None:
    assert len(table) == 202 * 64
    assert table["item"].nunique() == 202 * 6
    assert table.groupby("item")["category"].nunique().max() == 1
    one = table[(table["item"] == "age 17") & (table["frame"] == "is-female")].iloc[0]
    assert one["text"] == "Her age is 17."
    assert one["text"][one["target_start"] : one["target_end"]] == "17"
    assert (one["number"], one["notation"], one["sex"]) == (17, "digits", "female")


def test_a_part_is_taken_by_its_columns() -> None:
    part = load("medical/ages").part(only={"category": ["age", "page"], "notation": ["digits"]})
    assert len(part) == 101 * 32
    assert set(part.table["item"]) >= {"age 18", "page 18"}
