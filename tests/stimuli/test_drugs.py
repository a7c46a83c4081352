"""The set `medical/drugs`: two groupings that cross, and facts held against names and codes."""

import re
from pathlib import Path

import pandas as pd
import pytest
from wordfreq import zipf_frequency

from stimuli import load

HERE = Path(__file__).parents[2] / "stimuli" / "medical" / "drugs"
WORDS = pd.read_csv(HERE / "words.csv", keep_default_na=False)
# Stems of international nonproprietary names, and how drugs that have them act.
STEMS = {
    "olol$": {"beta blocker"},
    "osin$": {"alpha-1 blocker"},
    "onidine$": {"alpha-2 agonist"},
    "dipine$": {"calcium channel blocker"},
    "caine$": {"sodium channel blocker"},
    "fentan[iy]l$": {"opioid agonist"},
    "[tc]inib$|anib$": {"kinase inhibitor"},
    "prost": {"prostaglandin analogue"},
    "triptan$": {"serotonin agonist"},
    "afil$|milast$": {"phosphodiesterase inhibitor"},
    "phylline$|rinone$": {"phosphodiesterase inhibitor"},
    "floxacin$|tecan$": {"topoisomerase inhibitor"},
    "trexed$|trexate$|prim$": {"folate antagonist"},
    "t?ropium$|clidinium$|fenacin$|terodine$": {"antimuscarinic"},
    "azepam$|azolam$|bazam$|barbital$": {"GABA-A modulator"},
    "coxib$|profen$|icam$|fenac$": {"cyclooxygenase inhibitor"},
    "relin$|relix$|golix$": {"GnRH receptor ligand"},
    "retin|arotene$": {"retinoid"},
    "calci": {"vitamin D analogue"},
    "mab$": {"interleukin antibody", "TNF inhibitor"},
    "vudine$|citabine$|arabine$|ciclovir$": {"nucleoside analogue"},
    "peridol$|azine$": {"dopamine antagonist", "antihistamine"},
    "sonide$|solide$|nonide$|betasol$|prednol$": {"corticosteroid"},
}
# Main groups of the ATC index in which a specialty's drugs are filed.
GROUPS = {
    "cardiology": "C", "ophthalmology": "S01", "urology": "G04", "pulmonology": "R03",
    "dermatology": "D", "rheumatology": "M01", "gastroenterology": "A",
    "neurology": "N0[2345]|N07C", "psychiatry": "N0[57]",
    "anaesthesiology": "N01", "oncology": "L0[12]", "infectiology": "J0",
    "endocrinology": "G02CB|A11CC|H05", "gynaecology": "G02AD|H01C",
}  # fmt: skip
FILED_ELSEWHERE = {
    "cilostazol", "nimodipine", "tizanidine", "midazolam", "dexmedetomidine", "pyrimethamine",
    "proguanil",
}  # fmt: skip


def test_each_drug_stands_once_with_one_of_each_grouping() -> None:
    assert len(WORDS) == 210 and WORDS["item"].is_unique and WORDS["atc"].is_unique
    assert (WORDS["item"].str.fullmatch("[a-z]+")).all()


def test_the_groupings_cross() -> None:
    table = pd.crosstab(WORDS["category"], WORDS["mechanism"]) > 0
    assert table.shape == (14, 25)
    assert table.sum(axis=0).between(2, 5).all()
    assert table.sum(axis=1).between(2, 7).all()


def test_zipf_column_is_what_wordfreq_gives() -> None:
    assert WORDS["zipf"].tolist() == [zipf_frequency(word, "en") for word in WORDS["item"]]


@pytest.mark.parametrize("stem", STEMS)
def test_names_act_as_their_stems_say(stem: str) -> None:
    found = WORDS[WORDS["item"].str.contains(stem)]
    assert len(found)
    assert set(found["mechanism"]) <= STEMS[stem], found


def test_codes_are_of_the_specialty_but_for_those_that_the_card_names() -> None:
    for drug in WORDS.itertuples():
        filed = re.match(GROUPS[drug.category], drug.atc)
        by_target = drug.atc.startswith(("L04", "L01E")) and drug.category != "oncology"
        assert bool(filed) != (drug.item in FILED_ELSEWHERE or by_target), drug
    card = (HERE / "card.md").read_text(encoding="utf-8")
    assert all(name in card for name in FILED_ELSEWHERE)


def test_sentences_name_neither_grouping() -> None:
    frames = pd.read_csv(HERE / "frames.csv")
    words = set(" ".join(WORDS["mechanism"]).split()) | set(WORDS["category"])
    for text in frames["text"]:
        assert text.count("{item}") == 1
        assert not words & set(re.findall("[a-z]+", text.lower()))


def test_the_set_keeps_both_groupings() -> None:
    table = load("medical/drugs").table
    assert len(table) == 210 * 6
    assert {"mechanism", "atc"} <= set(table.columns)
    assert table.groupby("item")["mechanism"].nunique().max() == 1
