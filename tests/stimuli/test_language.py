"""The `language` stimuli: matched word by word, and made again from their sentences."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from stimuli import load
from stimuli.language import choose

FOLDER = Path(choose.__file__).parent
ITEMS = pd.read_csv(FOLDER / "words.csv", keep_default_na=False)
SENTENCES = pd.read_csv(FOLDER / "sentences.csv")


def rows(category: str) -> list[list[str]]:
    return [item.split() for item in ITEMS["item"][ITEMS["category"] == category]]


def lengths(texts: Sequence[Sequence[str]]) -> list[list[int]]:
    return [[len(word) for word in text] for text in texts]


def test_forty_items_of_nine_words_in_four_categories() -> None:
    assert ITEMS["category"].value_counts(sort=False).to_dict() == dict.fromkeys(
        ["sentences", "scrambled", "fragments", "pseudowords"], 40
    )
    assert set(ITEMS["item"].str.split().str.len()) == {9}
    assert len(load("language")) == 4 * 40 * 3


@pytest.mark.parametrize("category", ["fragments", "pseudowords"])
def test_nonwords_have_the_letters_of_the_sentences_and_repeat_where_they_do(category: str) -> None:
    words, nonwords = rows("sentences"), rows(category)
    assert lengths(nonwords) == lengths(words)
    pairs = {(w, n) for one, other in zip(words, nonwords, strict=True)
             for w, n in zip(one, other, strict=True)}  # fmt: skip
    assert len(pairs) == len({word for word, _ in pairs}) == len({nonword for _, nonword in pairs})
    assert not {word for word, _ in pairs} & {nonword for _, nonword in pairs}


def test_scrambled_sentences_have_the_words_of_the_others_and_no_two_of_one() -> None:
    others = [text.split() for text in SENTENCES["sentence"][SENTENCES["use"] == "scrambled"]]
    assert sorted(sum(rows("scrambled"), [])) == sorted(sum(others, []))
    rare = {word for text in others for word in text if sum(word in one for one in others) == 1}
    first, last = ({one[place] for one in others} for place in (0, -1))
    for row in rows("scrambled"):
        assert row[0] in first and row[-1] in last
        homes = [n for word in row if word in rare for n, one in enumerate(others) if word in one]
        assert len(homes) == len(set(homes))


def test_all_but_pseudowords_are_one_token_a_word_for_both_subjects(embedded_tokenizers) -> None:
    for name, tokenizer in embedded_tokenizers.items():
        for category in ("sentences", "scrambled", "fragments"):
            counts = [choose.n_tokens(tokenizer, w) for row in rows(category) for w in row]
            assert set(counts) == {1}, (name, category)


def test_the_set_is_made_again_byte_for_byte(embedded_tokenizers) -> None:
    made = choose.make(list(embedded_tokenizers.values()))
    assert choose.words_csv(made).encode() == (FOLDER / "words.csv").read_bytes()
