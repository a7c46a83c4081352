"""Make the `language` set from its sentences, and measure it.

``python -m stimuli.language.choose smollm2=tokenizer.json gemma3=tokenizer.json`` writes
``words.csv`` byte for byte, from ``sentences.csv``, and prints the table of ``card.md``. With other
tokenizers it makes a set that is matched for them.
"""

import argparse
import io
import random
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pandas as pd
from tokenizers import Tokenizer
from wordfreq import top_n_list, zipf_frequency

HERE = Path(__file__).resolve().parent
SEED = 7
# The words of which a beginning is no whole word and a pseudoword has the spelling.
VOCABULARY = 20_000
# What is rarer than once in ten million words is taken for no word.
RARE = 2.0
DRAWS = 200_000


def n_tokens(tokenizer: Tokenizer, word: str) -> int:
    """Number of tokens of a word inside a text."""
    return len(tokenizer.encode(f" {word}", add_special_tokens=False).tokens)


def known_words() -> list[str]:
    """The most frequent words that are written with letters alone."""
    return [word for word in top_n_list("en", VOCABULARY) if word.isascii() and word.isalpha()]


def fragments(tokenizers: list[Tokenizer]) -> dict[int, list[str]]:
    """Beginnings of words that are one token in every tokenizer and no word, by their length.

    Of one letter any consonant, and of two the pairs that are written least, since all are tokens
    and none begins one word alone.
    """
    beginnings = {word[:end] for word in known_words() for end in range(3, len(word) - 1)}
    found = defaultdict(list)
    for text in sorted(beginnings):
        if zipf_frequency(text, "en") < RARE and all(n_tokens(t, text) == 1 for t in tokenizers):
            found[len(text)].append(text)
    found[1] = [c for c in "bcdfghjklmnpqrstvwxz" if all(n_tokens(t, c) == 1 for t in tokenizers)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [a + b for a in letters for b in letters]
    pairs = [pair for pair in pairs if all(n_tokens(t, pair) == 1 for t in tokenizers)]
    found[2] = sorted(pairs, key=lambda pair: (zipf_frequency(pair, "en"), pair))[:30]
    return dict(found)


def pseudowords(lengths: set[int], rng: random.Random) -> dict[int, list[str]]:
    """Strings with the letter triples of English words that are no words, by their length."""
    follows: dict[str, Counter[str]] = defaultdict(Counter)
    for word in known_words():
        marked = f"^^{word}$"
        for start in range(len(marked) - 2):
            follows[marked[start : start + 2]][marked[start + 2]] += 1
    found: dict[int, dict[str, None]] = {length: {} for length in lengths}
    for _ in range(DRAWS):
        made = "^^"
        while not made.endswith("$") and len(made) < max(lengths) + 3:
            next_letters = follows[made[-2:]]
            made += rng.choices(list(next_letters), list(next_letters.values()))[0]
        word = made[2:-1]
        if len(word) in lengths and zipf_frequency(word, "en") < RARE:
            found[len(word)][word] = None
    return {length: list(words) for length, words in found.items()}


def substitutes(words: list[str], pool: dict[int, list[str]], rng: random.Random) -> dict[str, str]:
    """One string of the same length for each word, so that what is repeated stays repeated."""
    left = {length: rng.sample(texts, len(texts)) for length, texts in pool.items()}
    return {word: left[len(word)].pop() for word in words}


def scrambled(sentences: list[str], rng: random.Random) -> list[str]:
    """The words of sentences, dealt anew, none with two of one sentence, and out of order.

    First words stay first and last words last, since sentences begin and end with certain words.
    """
    rows = [sentence.split() for sentence in sentences]
    lists: list[list[str]] = [[] for _ in rows]
    for place in range(len(rows[0])):
        # The words of one place go to lists a shift apart, a shift of its own for each place.
        for number, row in enumerate(rows):
            lists[(number + 4 * place) % len(rows)].append(row[place])
    return [" ".join(out_of_order(words, rng)) for words in lists]


def out_of_order(words: list[str], rng: random.Random) -> list[str]:
    """The words between the first and the last in another order, none twice in a row."""
    first, *middle, last = words
    while True:
        dealt = [first, *rng.sample(middle, len(middle)), last]
        if all(one != other for one, other in pairwise(dealt)):
            return dealt


def make(tokenizers: list[Tokenizer]) -> pd.DataFrame:
    """The items: columns item, category, zipf (mean over the words)."""
    rng = random.Random(SEED)
    given = pd.read_csv(HERE / "sentences.csv")
    read = list(given["sentence"][given["use"] == "read"])
    words = sorted({word for sentence in read for word in sentence.split()})
    short = fragments(tokenizers)
    beginning = substitutes(words, short, rng)
    # Of one or two letters no string has the spelling of a word and is none.
    long = sorted({word for word in words if len(word) > 2})
    spelt = substitutes(long, pseudowords({len(word) for word in long}, rng), rng)
    texts = {
        "sentences": read,
        "scrambled": scrambled(list(given["sentence"][given["use"] == "scrambled"]), rng),
        "fragments": [" ".join(beginning[w] for w in row.split()) for row in read],
        "pseudowords": [" ".join({**beginning, **spelt}[w] for w in row.split()) for row in read],
    }
    items = pd.DataFrame(
        [(text, category) for category, rows in texts.items() for text in rows],
        columns=["item", "category"],
    )
    zipf = [sum(zipf_frequency(w, "en") for w in t.split()) / len(t.split()) for t in items["item"]]
    return items.assign(zipf=zipf)


def words_csv(items: pd.DataFrame) -> str:
    """Format the items as the text of ``words.csv``."""
    text = io.StringIO()
    items.to_csv(text, index=False, float_format="%.2f", lineterminator="\n")
    return text.getvalue()


def print_figures(items: pd.DataFrame, tokenizers: dict[str, Tokenizer]) -> None:
    """Print the table of ``card.md``."""
    print(f"| category | items | letters | zipf | {' tokens | '.join(tokenizers)} tokens |")
    print("|---|---|---|---|" + "---|" * len(tokenizers))
    for category, rows in items.groupby("category", sort=False):
        letters = rows["item"].str.replace(" ", "").str.len()
        cells = [f"{letters.mean():.2f} ({letters.std():.2f})", f"{rows['zipf'].mean():.2f}"]
        for tokenizer in tokenizers.values():
            counts = pd.Series(
                [sum(n_tokens(tokenizer, w) for w in text.split()) for text in rows["item"]]
            )
            cells.append(f"{counts.mean():.2f} ({counts.std():.2f})")
        print(f"| {category} | {len(rows)} | {' | '.join(cells)} |")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make and measure the items.")
    parser.add_argument("tokenizers", nargs="+", metavar="NAME=FILE")
    named = dict(one.split("=", 1) for one in parser.parse_args().tokenizers)
    tokenizers = {name: Tokenizer.from_file(file) for name, file in named.items()}
    items = make(list(tokenizers.values()))
    (HERE / "words.csv").write_bytes(words_csv(items).encode())
    print_figures(items, tokenizers)


if __name__ == "__main__":
    main()
