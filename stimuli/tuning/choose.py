"""Make the words of the `tuning` set: what is taught, what is kept back, and the wrong options.

``python -m stimuli.tuning.choose`` writes ``words.csv`` byte for byte, from the tables of
`medical/drugs` and `medical/diseases` and from the rule of arithmetic, and prints the table of
``card.md``. A row::

    amlodipine,drugs,mechanism,medical,taught,calcium channel blocker,retinoid,...
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from wordfreq import zipf_frequency

HERE = Path(__file__).resolve().parent
MEDICAL = HERE.parent / "medical"
SEED = 0
# Of these, one is kept back.
OF = 5
WRONG = ("wrong_1", "wrong_2", "wrong_3")
COLUMNS = ["item", "category", "asks", "domain", "known", "fifth", "answer", *WRONG, "zipf"]
# The fifth that is kept back, and those that what is taught is dealt to by turns.
KEPT, OTHERS = 3, np.array([1, 2, 4, 5])
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
NUMBERS = {5: "five", 6: "six", 7: "seven"}
# How many problems of each kind.
SUMS = DIFFERENCES = 100
PRODUCTS = 60
STORIES = 120
# What is counted in a story, and what happens: the sign, and the words before and after the number.
THINGS = ("apples", "eggs", "books", "coins", "stamps", "marbles", "pencils", "cards")
EVENTS = ((1, "gets", "more"), (1, "buys", "more"), (-1, "gives away", "of them"),
          (-1, "loses", "of them"))  # fmt: skip
# How far the options of a problem are from each other.
STEPS = (1, 2, 10)


def drugs(rng: np.random.Generator) -> pd.DataFrame:
    """Specialty and mechanism of each drug; the same drugs are kept back for both."""
    table = pd.read_csv(MEDICAL / "drugs" / "words.csv", keep_default_na=False)
    # One in five of each mechanism, from the middle of the alphabet.
    place = table.groupby("mechanism").cumcount()
    table["known"] = np.where(place % OF == OF // 2, "kept back", "taught")
    asked = []
    for asks, column in (("specialty", "category"), ("mechanism", "mechanism")):
        some = table.assign(asks=asks, answer=table[column], category="drugs")
        for _, part in some.groupby("known", sort=False):
            asked.append(part.assign(**_dealt(part["answer"].tolist(), rng)))
    return pd.concat(asked).assign(domain="medical")


def stages() -> pd.DataFrame:
    """Of each disease which stage a description is; one of the middle stages is kept back."""
    table = pd.read_csv(MEDICAL / "diseases" / "words.csv", keep_default_na=False)
    table = table[table["category"] == "disease"]
    rows = []
    for number, (_, some) in enumerate(table.groupby("of", sort=False)):
        count = len(some)
        names = [f"the {ORDINALS[one]} of {NUMBERS[count]}" for one in range(count)]
        kept = 1 + number % (count - 2)
        for place, item in enumerate(some["item"]):
            wrong = [names[(place + ahead) % count] for ahead in (1, 2, 3)]
            rows.append((item, "kept back" if place == kept else "taught", names[place], *wrong))
    found = pd.DataFrame(rows, columns=["item", "known", "answer", *WRONG])
    return found.assign(category="stages", asks="stage", domain="medical")


def problems(rng: np.random.Generator) -> pd.DataFrame:
    """Arithmetic with one or two digits, bare and in stories; no two numbers in both orders."""
    made = []
    tens = [(a, b) for a in range(11, 90) for b in range(11, 90) if a < b]
    for category, count, sign in (("sums", SUMS, 1), ("differences", DIFFERENCES, -1)):
        for number, one in enumerate(rng.permutation(len(tens))[:count]):
            a, b = tens[one] if sign < 0 or number % 2 else tens[one][::-1]
            item, result = (f"{a} plus {b}", a + b) if sign > 0 else (f"{b} minus {a}", b - a)
            made.append((item, category, "number", result))
    small = [(a, b) for a in range(2, 13) for b in range(a, 13)]
    for number, one in enumerate(rng.permutation(len(small))[:PRODUCTS]):
        a, b = small[one][:: 1 if number % 2 else -1]
        made.append((f"{a} times {b}", "products", "number", a * b))
    for number, one in enumerate(rng.permutation(len(tens))[:STORIES]):
        sign, does, after = EVENTS[number % len(EVENTS)]
        thing = THINGS[number // len(EVENTS) % len(THINGS)]
        a, b = tens[one][::sign] if sign < 0 else tens[one]
        made.append((f"{a} {thing} and {does} {b} {after}", "stories", "number", a + sign * b))
    table = pd.DataFrame(made, columns=["item", "category", "asks", "result"])
    place = table.groupby("category").cumcount()
    table["known"] = np.where(place % OF == OF // 2, "kept back", "taught")
    options = [_near(number, place, rng) for place, number in enumerate(table["result"])]
    table[["answer", *WRONG]] = options
    return table.assign(domain="maths")


def _near(right: int, place: int, rng: np.random.Generator) -> list[str]:
    """The right number, then wrong ones: it is the smallest of the four as often as the largest."""
    step = STEPS[place // 4 % len(STEPS)]
    rank = place % 4
    # No option below 1, since a wrong one would be known by its sign.
    while right - rank * step < 1:
        step, rank = (1, rank) if step > 1 else (1, rank - 1)
    wrong = np.array([right + (one - rank) * step for one in range(4) if one != rank])
    return [str(right), *map(str, rng.permutation(wrong))]


def _dealt(answers: Sequence[str], rng: np.random.Generator) -> dict[str, list[str]]:
    """Wrong options that are the answers of others: each is wrong three times as often as right.

    So that nothing is gained by knowing which answers are frequent.
    """
    count, given = len(answers), [[one] for one in answers]
    for _ in WRONG:
        order = rng.permutation(count)
        while clashes := [one for one in range(count) if answers[order[one]] in given[one]]:
            one, other = clashes[0], rng.integers(count)
            if answers[order[one]] not in given[other]:  # a swap that mends one and breaks none
                order[[one, other]] = order[[other, one]]
        for one, dealt in zip(given, order, strict=True):
            one.append(answers[int(dealt)])
    return {name: [one[place] for one in given] for place, name in enumerate(WRONG, start=1)}


def chosen() -> pd.DataFrame:
    """The whole table."""
    rng = np.random.default_rng(SEED)
    table = pd.concat([drugs(rng), stages(), problems(rng)], ignore_index=True)
    # The same for all that is asked of an item.
    items = table.drop_duplicates(["item", "category"])[["item", "category", "known"]]
    place = items.groupby(["category", "known"]).cumcount().to_numpy()
    items["fifth"] = np.where(items["known"] == "taught", OTHERS[place % len(OTHERS)], KEPT)
    table = table.merge(items.drop(columns="known"), on=["item", "category"], how="left")
    table["zipf"] = [zipf_frequency(item, "en") for item in table["item"]]
    return table[COLUMNS]


def main() -> None:
    table = chosen()
    written = io.StringIO()
    table.to_csv(written, index=False, lineterminator="\n")
    (HERE / "words.csv").write_text(written.getvalue(), encoding="utf-8")
    print("| domain | category | asks | taught | kept back | different answers |")
    print("|---|---|---|---|---|---|")
    for (domain, category, asks), some in table.groupby(["domain", "category", "asks"], sort=False):
        taught = (some["known"] == "taught").sum()
        print(f"| {domain} | {category} | {asks} | {taught} | {len(some) - taught} | "
              f"{some['answer'].nunique()} |")  # fmt: skip


if __name__ == "__main__":
    main()
