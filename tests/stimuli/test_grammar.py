"""Grammars with probabilities: entropy in closed form and over texts, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stimuli import StimulusError, load
from stimuli.grammar import Grammar, Rule, load_grammar
from stimuli.nested import choose

FOLDER = Path(choose.__file__).parent


def grammar(**rules: list[tuple[float, str]]) -> Grammar:
    return Grammar(
        "toy",
        {
            symbol: tuple(Rule(share, tuple(gives.split())) for share, gives in some)
            for symbol, some in rules.items()
        },
    )


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_entropy_of_a_geometric_text_is_known(share) -> None:
    found = grammar(text=[(share, "a text"), (1 - share, "b")])
    of_a_choice = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert found.entropy == pytest.approx(of_a_choice / (1 - share))
    assert found.length == pytest.approx(1 / (1 - share))
    assert found.words == ("a", "b")


def test_the_entropy_of_all_texts_is_the_sum_over_them() -> None:
    """Texts that nest, by hand: a^n c b^n or a^n d b^n."""
    found = grammar(text=[(0.4, "a text b"), (0.6, "last")], last=[(0.25, "c"), (0.75, "d")])
    chances = [0.6 * 0.4**n * last for n in range(80) for last in (0.25, 0.75)]
    assert math.fsum(chances) == pytest.approx(1)
    assert found.entropy == pytest.approx(-math.fsum(p * math.log(p) for p in chances))
    assert found.length == pytest.approx(1 + 2 * 0.4 / 0.6)


def test_what_a_word_costs_is_what_was_not_yet_told() -> None:
    found = grammar(
        text=[(1, "the noun rest .")], rest=[(0.75, ""), (0.25, "of text")], noun=[(1, "dog")]
    )
    assert found.surprisal("the dog .").tolist() == [0, 0, -math.log(0.75)]
    costs = found.surprisal("the dog of the dog . .")
    assert costs.tolist() == [0, 0, -math.log(0.25), 0, 0, -math.log(0.75), 0]
    # A rule that gives nothing, behind which the text ends, is told by the end alone.
    last = grammar(text=[(1, "a rest")], rest=[(0.5, ""), (0.5, "b")])
    assert last.surprisal("a").tolist() == last.surprisal("a b").tolist()[1:] == [math.log(2)]


def test_texts_that_are_drawn_cost_the_entropy_on_average() -> None:
    nested = load_grammar("nested")
    texts = nested.sample(4000, rng=np.random.default_rng(0))
    costs = np.array([nested.surprisal(text).sum() for text in texts])
    assert abs(costs.mean() - nested.entropy) < 3 * costs.std() / math.sqrt(len(costs))
    lengths = np.array([len(text.split()) for text in texts])
    assert abs(lengths.mean() - nested.length) < 3 * lengths.std() / math.sqrt(len(lengths))
    assert {word for text in texts for word in text.split()} == set(nested.words)
    assert texts[:5] == nested.sample(5, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("the dog sleep .", "'sleep' cannot stand where it does"),
        ("the dog chases the tree .", "'tree' cannot stand where it does"),
        ("the dog that the cats chases sleeps .", "'chases' cannot stand where it does"),
        ("the dog sleeps", "it ends too early"),
        ("the dog sleeps . the", "'the' cannot stand where it does"),
    ],
)
def test_no_text_of_the_grammar_breaks_its_agreement(text, why) -> None:
    nested = load_grammar("nested")
    assert nested.surprisal("the dog that the cats chase sleeps .").sum() > 0
    with pytest.raises(StimulusError, match=why):
        nested.surprisal(text)


def test_rules_that_make_no_grammar_are_refused_with_what_to_change() -> None:
    with pytest.raises(StimulusError, match="the shares of 'text' are 0.9 together"):
        grammar(text=[(0.5, "a text"), (0.4, "b")])
    with pytest.raises(StimulusError, match="two rules of 'text' can be taken where 'a' comes"):
        grammar(text=[(0.5, "a b"), (0.5, "a")])
    with pytest.raises(StimulusError, match="two rules of 'rest' can be taken where 'b' comes"):
        grammar(text=[(1, "a rest b")], rest=[(0.5, ""), (0.5, "b")])
    with pytest.raises(StimulusError, match="so often that texts have no end"):
        grammar(text=[(0.5, "a text text"), (0.5, "b")])
    with pytest.raises(StimulusError, match=r"neither a shipped one \(nested\) nor a path"):
        load_grammar("nestd")


def test_a_grammar_of_ones_own_is_read_from_a_table(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("symbol,share,gives\ntext,0.5,a text\ntext,0.5,b\n")
    found = load_grammar("mine.csv", relative_to=tmp_path)
    assert (found.name, found.start) == ("mine", "text")
    assert found.entropy == pytest.approx(2 * math.log(2))
    path.write_text("symbol,gives\ntext,a\n")
    with pytest.raises(StimulusError, match="its columns must be symbol, share, gives"):
        load_grammar("mine.csv", relative_to=tmp_path)
    with pytest.raises(StimulusError, match="no file"):
        load_grammar("yours.csv", relative_to=tmp_path)


def test_the_shipped_set_is_what_its_script_makes_of_the_lemmas(tmp_path) -> None:
    before = {name: (FOLDER / name).read_bytes() for name in ("rules.csv", "words.csv")}
    lemmas = pd.read_csv(FOLDER / "lemmas.csv")
    for name, table in (("rules.csv", choose.rules(lemmas)), ("words.csv", choose.words(lemmas))):
        table.to_csv(tmp_path / name, index=False, lineterminator="\n")
        assert (tmp_path / name).read_bytes() == before[name]
    # No word is two things, so that it tells its topic, its kind and its number.
    rules = pd.read_csv(FOLDER / "rules.csv", keep_default_na=False)
    kinds = rules[rules["symbol"].str.match("noun|transitive|intransitive")]
    assert not kinds["gives"].duplicated().any()


def test_the_texts_of_the_set_begin_texts_of_the_grammar() -> None:
    nested, table = load_grammar("nested"), load("nested").table
    assert len(table) == 96 * 3 and table["category"].value_counts().tolist() == [72] * 4
    ends = {"alone": "sleep .", "near": "dog sleep .", "that": "dog smells sleep ."}
    some = table[(table["category"] == "animals") & (table["number"] == "plural")]
    for text, frame in zip(some["text"], some["frame"], strict=True):
        assert nested.surprisal(f"{text} {ends[frame]}").sum() > 0
