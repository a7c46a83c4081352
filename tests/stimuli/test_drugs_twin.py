"""The set `medical/drugs_twin`: two groupings that cross, in the sentences of drugs."""

import re
from pathlib import Path

import pandas as pd
from wordfreq import zipf_frequency

from stimuli import load

MEDICAL = Path(__file__).parents[2] / "stimuli" / "medical"
WORDS = pd.read_csv(MEDICAL / "drugs_twin" / "words.csv", keep_default_na=False)
SYMBOLS = {
    "aluminium": "Al", "calcium": "Ca", "cobalt": "Co", "copper": "Cu", "iron": "Fe", "lead": "Pb",
    "magnesium": "Mg", "manganese": "Mn", "nickel": "Ni", "sodium": "Na", "zinc": "Zn",
}  # fmt: skip
# The first that is in a formula, without its water, says the anion.
ANIONS = {
    "carbonate": "CO3", "sulfate": "SO4", "phosphate": "PO[34]", "arsenate": "AsO4",
    "silicate": "Si", "halide": "F(?!e)|Cl|Br|I", "sulfide": "S", "oxide": "O",
}  # fmt: skip


def test_metal_and_anion_are_those_of_the_formula() -> None:
    for row in WORDS.itertuples():
        formula = row.formula.split(".")[0]
        metals = {name for name, symbol in SYMBOLS.items() if symbol in formula}
        assert metals == {row.category}, row
        anion = next(name for name, sign in ANIONS.items() if re.search(sign, formula))
        assert anion == row.anion, row


def test_each_mineral_stands_once_and_the_groupings_cross() -> None:
    assert len(WORDS) == 174 and WORDS["item"].is_unique
    assert WORDS["item"].str.fullmatch("[a-z]+").all()
    table = pd.crosstab(WORDS["category"], WORDS["anion"]) > 0
    assert table.shape == (11, 8)
    assert table.sum(axis=1).between(3, 8).all()
    assert table.sum(axis=0).between(6, 11).all()
    assert WORDS["category"].value_counts().between(7, 24).all()


def test_zipf_column_is_what_wordfreq_gives() -> None:
    assert WORDS["zipf"].tolist() == [zipf_frequency(word, "en") for word in WORDS["item"]]


def test_sentences_are_those_of_the_drugs() -> None:
    one, other = (MEDICAL / name / "frames.csv" for name in ("drugs", "drugs_twin"))
    assert one.read_bytes() == other.read_bytes()
    assert len(load("medical/drugs_twin")) == 174 * 6


def test_lengths_and_tokens_are_near_those_of_drugs(embedded_tokenizers) -> None:
    drugs = pd.read_csv(MEDICAL / "drugs" / "words.csv", keep_default_na=False)
    for tokenizer in embedded_tokenizers.values():
        mean = [
            sum(len(tokenizer.encode(f" {word}", add_special_tokens=False).ids) for word in words)
            / len(words)
            for words in (drugs["item"], WORDS["item"])
        ]
        assert abs(mean[0] - mean[1]) < 0.8
    assert abs(drugs["item"].str.len().mean() - WORDS["item"].str.len().mean()) < 1
