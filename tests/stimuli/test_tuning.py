"""The set `tuning`: questions of two domains, some taught and some kept back."""

from pathlib import Path

import pandas as pd
import pytest

from stimuli import load
from stimuli.tuning.choose import WRONG, chosen

HERE = Path(__file__).parents[2] / "stimuli" / "tuning"
OPTIONS = ["answer", *WRONG]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load("tuning").table


@pytest.fixture(scope="module")
def facts(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop_duplicates(["item", "asks"])


def test_words_are_what_choosing_makes() -> None:
    written = (HERE / "words.csv").read_text(encoding="utf-8")
    assert chosen().to_csv(index=False, lineterminator="\n") == written


def test_counts_are_those_of_the_card(table: pd.DataFrame, facts: pd.DataFrame) -> None:
    assert len(table) == 2643
    assert facts["domain"].value_counts().to_dict() == {"medical": 501, "maths": 380}
    taught = table[(table["known"] == "taught") & (table["form"] == "taught")]
    assert taught["domain"].value_counts().to_dict() == {"medical": 810, "maths": 608}
    kept = facts[facts["known"] == "kept back"]
    assert kept["domain"].value_counts().to_dict() == {"medical": 96, "maths": 76}


def test_each_fact_is_asked_in_three_wordings_two_of_which_are_taught(table: pd.DataFrame) -> None:
    assert set(table.groupby(["item", "asks"])["frame"].nunique()) == {3}
    assert set(
        table.groupby(["item", "asks"])["form"].agg(lambda one: (one == "taught").sum())
    ) == {2}


def test_an_item_is_taught_or_kept_back_whatever_is_asked(table: pd.DataFrame) -> None:
    assert set(table.groupby("item")["known"].nunique()) == {1}


def test_a_fifth_is_kept_back_and_the_others_are_as_large(facts: pd.DataFrame) -> None:
    assert (facts["known"].eq("kept back") == facts["fifth"].eq(3)).all()
    assert facts.groupby(["domain", "fifth"]).size().between(70, 106).all()


def test_medical_answers_that_were_kept_back_were_taught_of_others(facts: pd.DataFrame) -> None:
    for _, some in facts[facts["domain"] == "medical"].groupby("asks"):
        taught = set(some.loc[some["known"] == "taught", "answer"])
        assert set(some["answer"]) == taught


def test_no_two_items_are_one_word_and_frames_tell_no_domain(table: pd.DataFrame) -> None:
    words = table["item"].drop_duplicates().str.lower().str.replace(r"\W", "", regex=True)
    assert words.is_unique
    assert not table.duplicated("text").any()
    assert (pd.crosstab(table["frame"], table["domain"]) > 0).all(axis=None)


def test_the_four_options_differ(facts: pd.DataFrame) -> None:
    assert set(facts[OPTIONS].nunique(axis=1)) == {4}


def test_an_answer_of_drugs_is_wrong_three_times_as_often_as_right(facts: pd.DataFrame) -> None:
    for _, some in facts[facts["category"] == "drugs"].groupby(["asks", "known"]):
        right = some["answer"].value_counts()
        wrong = some[list(WRONG)].stack().value_counts()
        assert wrong.to_dict() == (3 * right).to_dict()


def test_the_right_number_has_no_place_of_its_own_among_the_options(facts: pd.DataFrame) -> None:
    maths = facts[facts["domain"] == "maths"]
    numbers = maths[OPTIONS].astype(int)
    rank = (numbers[list(WRONG)].lt(numbers["answer"], axis=0)).sum(axis=1)
    assert rank.value_counts(normalize=True).between(0.2, 0.3).all()
    assert numbers.to_numpy().min() > 0


def test_arithmetic_is_right(facts: pd.DataFrame) -> None:
    for row in facts[facts["domain"] == "maths"].itertuples():
        words = row.item.split()
        if row.category == "stories":
            a, b = int(words[0]), next(int(one) for one in words[1:] if one.isdigit())
            right = a + b if "more" in words else a - b
        else:
            a, sign, b = int(words[0]), words[1], int(words[2])
            right = {"plus": a + b, "minus": a - b, "times": a * b}[sign]
        assert int(row.answer) == right


def test_no_two_problems_are_one_in_both_orders(facts: pd.DataFrame) -> None:
    for category in ("sums", "products"):
        numbers = facts.loc[facts["category"] == category, "item"].str.findall(r"\d+")
        assert numbers.map(lambda two: tuple(sorted(map(int, two)))).is_unique


def test_no_question_holds_its_answer(facts: pd.DataFrame) -> None:
    for row in facts[facts["domain"] == "medical"].itertuples():
        assert row.answer not in row.text
