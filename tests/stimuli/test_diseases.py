"""The set `medical/diseases`: stages in order, and what they are held against."""

import re
from pathlib import Path

import pandas as pd
import pytest

from stimuli import StimulusError, load

HERE = Path(__file__).parents[2] / "stimuli" / "medical" / "diseases"
WORDS = pd.read_csv(HERE / "words.csv", keep_default_na=False)
FRAMES = pd.read_csv(HERE / "frames.csv")
TRUE = WORDS[WORDS["category"] == "disease"]
SHUFFLED = WORDS[WORDS["category"] == "shuffled"]


def words_of_stages(table: pd.DataFrame) -> dict[str, list[str]]:
    """What is said of each stage, in order, without the name of what it is a stage of."""
    return {
        name: [item.removeprefix(f"{name} ") for item in some["item"]]
        for name, some in table.groupby("of")
    }


def test_diseases_and_their_twins_have_as_many_stages() -> None:
    stages = WORDS.groupby("category")["stages"].value_counts().unstack()
    for category in ("disease", "thing", "shuffled"):
        assert stages.loc[category].to_dict() == {5: 35, 6: 18, 7: 28}
    assert stages.loc["stage alone"].to_dict() == {5: 5, 6: 6, 7: 7}
    assert TRUE["of"].nunique() == 14


def test_stages_are_in_order_and_none_is_left_out() -> None:
    for _, some in WORDS.groupby(["category", "of", "words_of", "stages"]):
        assert some["stage"].tolist() == list(range(1, some["stages"].iloc[0] + 1))


def test_remission_and_relapse_are_stages_of_some() -> None:
    for word, count in {"remission": 6, "relapse": 5}.items():
        assert TRUE[TRUE["item"].str.contains(word)]["of"].nunique() == count


def test_shuffled_diseases_have_the_stages_of_another_with_as_many() -> None:
    true = words_of_stages(TRUE)
    for name, some in SHUFFLED.groupby("of"):
        (other,) = some["words_of"].unique()
        assert other != name
        assert [item.removeprefix(f"{name} ") for item in some["item"]] == true[other]
    assert not set(SHUFFLED["item"]) & set(TRUE["item"])


def test_stages_are_said_in_words_and_not_in_numerals() -> None:
    assert not TRUE["item"].str.contains(r"\d|stage", regex=True).any()


def test_twins_are_about_as_long() -> None:
    length = WORDS["item"].str.len().groupby(WORDS["category"]).mean()
    assert length["thing"] == pytest.approx(length["disease"], rel=0.1)
    assert length["shuffled"] == pytest.approx(length["disease"], rel=0.1)


def test_each_item_ends_each_of_ten_sentences() -> None:
    assert len(FRAMES) == 10 and FRAMES["text"].str.endswith(" {item}.").all()
    table = load("medical/diseases").table
    assert len(table) == 261 * 10 and table["item"].nunique() == 261
    forbidden = {"stage", "disease", "ill", "doctor", "patient", "thing"}
    assert not forbidden & set(re.findall("[a-z]+", " ".join(FRAMES["text"]).lower()))


def test_one_disease_is_taken_by_its_columns() -> None:
    part = load("medical/diseases").part(only={"of": ["breast cancer"], "category": ["disease"]})
    assert len(part) == 70
    assert sorted(set(part.table["stage"])) == [1, 2, 3, 4, 5, 6, 7]


def test_diseases_are_the_items_where_they_are_sampled_and_stages_stand_in_frames() -> None:
    whole = load("medical/diseases")
    part = whole.part(
        only={"category": ["disease", "thing", "shuffled"]}, frames=4, sampled="of"
    ).table
    assert part.groupby("category")["item"].nunique().tolist() == [14, 14, 14]
    assert set(part.groupby("item")["category"].nunique()) == {1}
    assert {"COPD, disease", "COPD, shuffled"} <= set(part["item"])
    # A frame is a sentence and a stage, the same of diseases and of things.
    number = part["frame"].str.extract(r" (\d)$")[0].astype(int)
    assert (number == part["stage"]).all()
    assert not part.duplicated(["item", "frame"]).any()
    assert (part.groupby("frame")["category"].nunique() == 3).all()
    few = whole.part(only={"category": ["disease", "thing"]}, sampled="of", items=5).table
    assert few.groupby("category")["item"].nunique().tolist() == [5, 5]
    with pytest.raises(StimulusError, match="'medical/diseases': sampled: no column 'ofs'; there"):
        whole.part(sampled="ofs")
