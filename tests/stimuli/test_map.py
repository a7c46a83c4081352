"""The set `medical/map`: six domains of one design, each stimulus half of a pair."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stimuli import load

HERE = Path(__file__).parents[2] / "stimuli" / "medical" / "map"
WORDS = pd.read_csv(HERE / "words.csv", dtype={"item": str, "corrupt": str})
FRAMES = pd.read_csv(HERE / "frames.csv")
DOMAINS = ["age", "symptoms", "diseases", "drugs", "dosages", "general"]
# Items of a domain, of 24, that a subject tells apart by a logit or more in the first frame.
FEWEST_KNOWN = 21


def in_place(row) -> str:
    """The other text of a pair."""
    return row.text[: row.target_start] + row.corrupt + row.text[row.target_end :]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load("medical/map").table


def test_each_domain_has_three_groups_of_eight(table: pd.DataFrame) -> None:
    assert list(dict.fromkeys(table["category"])) == DOMAINS
    assert len(table) == 6 * 24 * 3 and table["item"].nunique() == 6 * 24
    assert set(table.groupby(["category", "group"])["item"].nunique()) == {8}
    assert set(table.groupby("category")["group"].nunique()) == {3}
    assert set(table.groupby("item")["frame"].nunique()) == {3}


def test_what_stands_before_an_item_is_the_same_in_all_domains_but_age() -> None:
    before = FRAMES["text"].str.split("{item}", regex=False).str[0].str.removesuffix("people aged ")
    assert before.groupby(FRAMES["frame"]).nunique().tolist() == [1, 1, 1]
    tails = FRAMES["text"].str.split("{item}", regex=False).str[1]
    assert tails.groupby(FRAMES["category"]).nunique().tolist() == [1] * 6


def test_groups_go_round_in_a_circle_so_that_no_pair_is_read_in_two_directions() -> None:
    answer = WORDS.groupby(["category", "group"])["answer"].unique().explode()
    assert answer.index.is_unique
    known = WORDS.set_index("item")
    for row in WORDS.itertuples():
        other = known.loc[row.corrupt]
        assert other["category"] == row.category and other["group"] != row.group
        assert (row.foil, other["foil"]) == (other["answer"], other["foil"])
        assert other["foil"] != row.answer and other["corrupt"] != row.item
    assert sorted(WORDS["corrupt"]) == sorted(WORDS["item"])


def test_no_text_holds_its_answer_or_its_foil(table: pd.DataFrame) -> None:
    for row in table.itertuples():
        assert not {row.answer, row.foil} & set(row.text.lower().strip(".").split())


def test_texts_of_a_pair_are_as_long_for_both_subjects(table, embedded_tokenizers) -> None:
    for tokenizer in embedded_tokenizers.values():
        for row in table.itertuples():
            one, two, right, wrong = (
                tokenizer.encode(text, add_special_tokens=False).ids
                for text in (
                    row.text, in_place(row), f"{row.text} {row.answer}", f"{row.text} {row.foil}"
                )
            )  # fmt: skip
            assert len(one) == len(two), row.text
            assert right[:-1] == wrong[:-1] == one, row.text


def test_texts_of_one_frame_are_about_as_long_in_all_domains(table, embedded_tokenizers) -> None:
    for tokenizer in embedded_tokenizers.values():
        count = pd.Series([len(tokenizer.encode(text).ids) for text in table["text"]])
        for _, some in count.groupby(table["frame"]):
            means = some.groupby(table["category"]).mean()
            assert means.max() - means.min() < 1.2


def test_drugs_have_the_specialty_that_they_have_among_the_drugs() -> None:
    known = load("medical/drugs").table.drop_duplicates("item").set_index("item")["category"]
    drugs = WORDS[WORDS["category"] == "drugs"].set_index("item")["group"]
    both = drugs.index.intersection(known.index)
    assert set(both) == {"gemcitabine", "felodipine", "metoprolol", "atenolol"}
    assert drugs[both].tolist() == known[both].tolist()
    # Stems of international nonproprietary names.
    stems = {
        "cardiology": "(?:pril|sartan|dipine|olol)$",
        "oncology": "(?:taxel|platin|mab|citabine)$",
    }
    for group, stem in stems.items():
        assert set(drugs[drugs.index.str.contains(stem)]) == {group}


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_both_subjects_tell_the_texts_of_most_pairs_apart(name, table, request) -> None:
    """By a logit or more, in the first frame, as the card says that they were chosen."""
    model = request.getfixturevalue(name)
    some = table[table["frame"] == "everyone"]
    ends = dict(zip(some["text"], last_logits(model, list(some["text"])), strict=True))
    moved = []
    for row in some.itertuples():
        right, wrong = (
            model.tokenizer(f"{row.text} {word}")["input_ids"][-1]
            for word in (row.answer, row.foil)
        )
        clean, corrupt = ends[row.text], ends[in_place(row)]
        moved.append((clean[right] - clean[wrong]) - (corrupt[right] - corrupt[wrong]))
    found = pd.Series(moved, index=some["category"]).groupby(level=0)
    assert (found.mean() > 1.5).all()
    assert (found.agg(lambda values: (values >= 1).sum()) >= FEWEST_KNOWN).all()


def last_logits(model, texts: list[str]) -> list[np.ndarray]:
    """What a model predicts after each text."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), 24):
            ids = [model.tokenizer(text)["input_ids"] for text in texts[start : start + 24]]
            logits = model.forward(model.batch(ids), head=True)
            found += [row[len(one) - 1].numpy() for row, one in zip(logits, ids, strict=True)]
    return found
