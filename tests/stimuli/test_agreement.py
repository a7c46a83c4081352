"""The `agreement` stimuli: pairs of texts that differ in the number of one noun."""

from pathlib import Path

import pandas as pd

from stimuli import load
from stimuli.agreement import choose

FOLDER = Path(choose.__file__).parent
NOUNS = pd.read_csv(FOLDER / "nouns.csv")
WORDS = pd.read_csv(FOLDER / "words.csv")


def test_no_noun_stands_in_both_numbers_and_each_is_the_other_form_of_its_own() -> None:
    singular = dict(NOUNS.itertuples(index=False))
    plural = {value: key for key, value in singular.items()}
    assert WORDS["category"].value_counts().to_dict() == {"singular": 24, "plural": 24}
    for row in WORDS.itertuples():
        known = singular if row.category == "singular" else plural
        assert row.corrupt == known[row.item]
        assert (row.answer, row.foil) == (
            ("is", "are") if row.category == "singular" else ("are", "is")
        )
    assert not set(WORDS["item"]) & set(WORDS["corrupt"])


def test_texts_of_a_pair_are_as_long_for_both_subjects(embedded_tokenizers) -> None:
    table = load("agreement").table
    assert len(table) == 48 * 3
    for row in table.itertuples():
        other = row.text[: row.target_start] + row.corrupt + row.text[row.target_end :]
        for tokenizer in embedded_tokenizers.values():
            one, two, right, wrong = (
                tokenizer.encode(text, add_special_tokens=False).ids
                for text in (row.text, other, f"{row.text} {row.answer}", f"{row.text} {row.foil}")
            )
            assert len(one) == len(two)
            assert sum(a != b for a, b in zip(one, two, strict=True)) == 1
            assert right[:-1] == wrong[:-1] == one


def test_the_set_is_made_again_from_its_nouns(embedded_tokenizers) -> None:
    made = choose.chosen(NOUNS, list(embedded_tokenizers.values()))
    pd.testing.assert_frame_equal(made, WORDS)
