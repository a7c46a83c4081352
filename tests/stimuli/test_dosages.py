"""The set `medical/dosages`: the same numbers as doses and as other amounts."""

from pathlib import Path

import pandas as pd

from stimuli import load

HERE = Path(__file__).parents[2] / "stimuli" / "medical" / "dosages"
WORDS = pd.read_csv(HERE / "words.csv", dtype={"item": str})
FRAMES = pd.read_csv(HERE / "frames.csv")


def test_numbers_rise_and_fall_into_three_sizes() -> None:
    assert WORDS["number"].is_monotonic_increasing and WORDS["number"].is_unique
    assert WORDS["item"].tolist() == WORDS["number"].astype(str).tolist()
    assert WORDS["size"].tolist() == ["small"] * 8 + ["medium"] * 8 + ["large"] * 8


def test_each_kind_has_eight_names_in_the_same_three_sentences() -> None:
    assert FRAMES["frame"].is_unique and FRAMES["text"].is_unique
    count = FRAMES.groupby(["category", "form"])["of"].nunique()
    assert set(count) == {8} and len(count) == 9
    assert FRAMES.groupby("category")["unit"].unique().explode().to_dict() == {
        "dose": "milligrams", "recipe": "grams", "workshop": "millilitres",
    }  # fmt: skip
    bare = [row.text.replace(row.of, "*").replace(row.unit, "+") for row in FRAMES.itertuples()]
    assert pd.Series(bare).groupby(FRAMES["form"]).nunique().tolist() == [1, 1, 1]


def test_what_it_is_of_stands_before_the_number() -> None:
    for row in FRAMES.itertuples():
        before, after = row.text.split("{item}")
        assert row.of in before and after == f" {row.unit}."


def test_a_number_is_an_item_of_each_kind() -> None:
    table = load("medical/dosages").table
    assert len(table) == 24 * 72
    assert table["item"].nunique() == 24 * 3
    some = table[(table["item"] == "dose 50") & (table["frame"] == "chart-aspirin")]
    assert some["text"].tolist() == ["The chart lists aspirin at 50 milligrams."]
    assert len(load("medical/dosages").part(only={"of": ["aspirin"]})) == 24 * 3


def test_numbers_of_as_many_digits_are_as_many_tokens(embedded_tokenizers) -> None:
    for tokenizer in embedded_tokenizers.values():
        count = pd.Series(
            [
                len(tokenizer.encode(f"at {item} grams", add_special_tokens=False).ids)
                for item in WORDS["item"]
            ]
        )
        assert count.groupby(WORDS["item"].str.len()).nunique().tolist() == [1, 1, 1, 1]
