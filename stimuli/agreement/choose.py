"""Choose the nouns of the `agreement` set, and measure them.

``python -m stimuli.agreement.choose smollm2=tokenizer.json gemma3=tokenizer.json`` writes
``words.csv`` byte for byte, from ``nouns.csv``, and prints the table of ``card.md``. With other
tokenizers it makes a set whose nouns are one token for them.
"""

import argparse
import io
from pathlib import Path

import pandas as pd
from tokenizers import Tokenizer
from wordfreq import zipf_frequency

from stimuli.language.choose import n_tokens

HERE = Path(__file__).resolve().parent
# Nouns of each number.
NOUNS = 24


def chosen(nouns: pd.DataFrame, tokenizers: list[Tokenizer]) -> pd.DataFrame:
    """Nouns that are one token in both numbers, dealt to the numbers by turns along frequency.

    No noun stands in both, since its two texts would be one pair read in two directions.
    """
    single = nouns[
        [
            all(n_tokens(one, word) == 1 for one in tokenizers for word in pair)
            for pair in nouns.itertuples(index=False)
        ]
    ]
    zipf = single.map(lambda word: zipf_frequency(str(word), "en"))
    ranked = single.loc[zipf.mean(axis=1).sort_values(kind="stable").index][: 2 * NOUNS]
    rows = []
    for place, (singular, plural) in enumerate(ranked.itertuples(index=False)):
        # a b b a: neither number is always the more frequent of a pair.
        if place % 4 in (0, 3):
            rows.append((singular, "singular", plural, "is", "are"))
        else:
            rows.append((plural, "plural", singular, "are", "is"))
    table = pd.DataFrame(rows, columns=["item", "category", "corrupt", "answer", "foil"])
    table.insert(2, "zipf", [zipf_frequency(word, "en") for word in table["item"]])
    return table.sort_values(["category", "item"], ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizers", nargs="+", metavar="name=tokenizer.json")
    given = dict(one.split("=", 1) for one in parser.parse_args().tokenizers)
    tokenizers = [Tokenizer.from_file(path) for path in given.values()]
    table = chosen(pd.read_csv(HERE / "nouns.csv", keep_default_na=False), tokenizers)
    written = io.StringIO()
    table.to_csv(written, index=False, lineterminator="\n")
    (HERE / "words.csv").write_text(written.getvalue(), encoding="utf-8")
    print("| number | nouns | zipf, mean | of the other form |\n|---|---|---|---|")
    for number, some in table.groupby("category"):
        other = some["corrupt"].map(lambda word: zipf_frequency(str(word), "en")).mean()
        print(f"| {number} | {len(some)} | {some['zipf'].mean():.2f} | {other:.2f} |")


if __name__ == "__main__":
    main()
