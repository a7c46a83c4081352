"""Write the rules of the grammar `nested` and the words of the set, from its lemmas.

``python -m stimuli.nested.choose`` writes ``rules.csv`` and ``words.csv`` byte for byte and prints
the figures of ``card.md``.
"""

from pathlib import Path

import pandas as pd
from wordfreq import zipf_frequency

from stimuli.grammar import COLUMNS, RULES, load_grammar

HERE = Path(__file__).resolve().parent
NUMBERS = ("singular", "plural")
# Of a noun: that nothing follows that belongs to it, a phrase, or a clause.
SHARES = (0.6, 0.2, 0.2)


def form(lemma: str, kind: str, number: str) -> str:
    """A word in a number: nouns have an s in the plural, verbs in the singular."""
    return f"{lemma}s" if (kind == "noun") == (number == "plural") else lemma


def rules(lemmas: pd.DataFrame) -> pd.DataFrame:
    """The grammar: a text has one topic, and each verb the number of its noun."""
    topics = list(dict.fromkeys(lemmas["topic"]))
    every = [(topic, number) for topic in topics for number in NUMBERS]
    rows: list[tuple[str, float, str]] = [("text", 1.0, "the clause .")]
    for topic, number in every:
        gives = f"noun-{topic}-{number} rest-{topic} predicate-{topic}-{number}"
        rows.append(("clause", 1 / len(every), gives))
    for topic in topics:
        alone, phrase, clause = SHARES
        rows += [
            (f"rest-{topic}", alone, ""),
            (f"rest-{topic}", phrase, f"near the object-{topic}"),
            (f"rest-{topic}", clause, f"that the inner-{topic}"),
        ]
        for number in NUMBERS:
            noun, rest = f"noun-{topic}-{number}", f"rest-{topic}"
            verb = f"transitive-{topic}-{number}"
            rows += [
                (f"object-{topic}", 0.5, f"{noun} {rest}"),
                (f"inner-{topic}", 0.5, f"{noun} {rest} {verb}"),
                (f"predicate-{topic}-{number}", 0.5, f"intransitive-{topic}-{number}"),
                (f"predicate-{topic}-{number}", 0.5, f"{verb} the object-{topic}"),
            ]
    for (kind, topic), some in lemmas.groupby(["kind", "topic"], sort=False):
        for number in NUMBERS:
            for lemma in some["lemma"]:
                word = form(lemma, str(kind), number)
                rows.append((f"{kind}-{topic}-{number}", 1 / len(some), word))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values("symbol", kind="stable", key=lambda names: names != "text")


def words(lemmas: pd.DataFrame) -> pd.DataFrame:
    """The nouns in both numbers."""
    nouns = lemmas[lemmas["kind"] == "noun"]
    rows = [
        (form(lemma, "noun", number), topic, number)
        for lemma, topic in zip(nouns["lemma"], nouns["topic"], strict=True)
        for number in NUMBERS
    ]
    table = pd.DataFrame(rows, columns=["item", "category", "number"])
    return table.assign(zipf=[zipf_frequency(item, "en") for item in table["item"]])


def main() -> None:
    lemmas = pd.read_csv(HERE / "lemmas.csv", keep_default_na=False)
    for name, table in ((RULES, rules(lemmas)), ("words.csv", words(lemmas))):
        table.to_csv(HERE / name, index=False, lineterminator="\n")
    grammar = load_grammar("nested")
    print(
        f"{len(grammar.words)} words; a text has {grammar.length:.3f} on average and an entropy "
        f"of {grammar.entropy:.4f} nats, {grammar.entropy / grammar.length:.4f} a word"
    )


if __name__ == "__main__":
    main()
