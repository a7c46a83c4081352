"""Choose the items of the `concepts` set from the candidate pools, and measure the choice.

``python -m stimuli.concepts.choose`` rewrites ``words.csv`` from ``pools.csv`` and prints, in
Markdown, the tables of ``card.md``. Nothing is downloaded and no model or tokenizer is needed: the
token counts are columns of ``pools.csv``. To fill them for another tokenizer, give its
``tokenizer.json``: ``python -m stimuli.concepts.choose --count smollm2=tokenizer.json``.
"""

import argparse
import io
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
from wordfreq import zipf_frequency

HERE = Path(__file__).resolve().parent
CATEGORIES = [
    "animals", "tools", "food", "vehicles", "body parts",
    "clothing", "furniture", "colours", "numbers", "emotions",
]  # fmt: skip
N_MULTI = 8  # multi-token items in a category: as many as the number words allow
N_SINGLE = 16
SEED = 20
N_STEPS = 60_000
# A spelling term counts only above this share. Ten random groups of 24 show about .038, (10 - 1) /
# (240 - 1); groups much more alike than that push a held-out classifier below chance.
SPELLING_FLOOR = 0.034


def load_pools():
    """Read the candidates, with the surface properties that the search matches.

    Returns
    -------
    pandas.DataFrame
        One row for each candidate: item, category, token counts, n_chars and zipf.
    """
    pools = pd.read_csv(HERE / "pools.csv", keep_default_na=False)
    pools["n_chars"] = pools["item"].str.len()
    pools["zipf"] = [round(zipf_frequency(item, "en"), 2) for item in pools["item"]]
    pools["multi"] = (pools["n_tokens_smollm2"] > 1).astype(int)
    return pools


def spelling_features(items, min_items=1):
    """Count what a reader of letters sees: first letter, last one, last two, letter bigrams.

    Parameters
    ----------
    items : list of str
    min_items : int
        Leave out features found in fewer items than this.

    Returns
    -------
    dict of str to numpy.ndarray
        For each family, an array of shape (items, features).
    """
    families = {
        "first letter": [[word[0]] for word in items],
        "last letter": [[word[-1]] for word in items],
        "last two letters": [[word[-2:]] for word in items],
        "letter bigrams": [[word[i : i + 2] for i in range(len(word) - 1)] for word in items],
    }
    features = {}
    for name, parts in families.items():
        vocabulary = {part: i for i, part in enumerate(sorted({p for row in parts for p in row}))}
        counts = np.zeros((len(items), len(vocabulary)))
        for row, found in enumerate(parts):
            for part in found:
                counts[row, vocabulary[part]] += 1
        features[name] = counts[:, (counts > 0).sum(axis=0) >= min_items]
    return features


def eta_squared(values, labels):
    """Share of the variance of `values` that lies between the categories.

    Parameters
    ----------
    values : array_like of shape (items,) or (items, features)
        With several features, sums of squares are added up over them.
    labels : array_like of str

    Returns
    -------
    float
    """
    values = np.asarray(values, dtype=float).reshape(len(labels), -1)
    deviations = values - values.mean(axis=0)
    between = sum(
        (labels == label).sum() * (deviations[labels == label].mean(axis=0) ** 2).sum()
        for label in np.unique(labels)
    )
    return float(between / (deviations**2).sum())


def matching_terms(pools):
    """Lay out the terms of the search objective: (weight, floor, array (pool, features)).

    Means are matched by the plain values, spreads by the absolute deviations from a common
    centre, and the joint distribution with the token count by the values within the single- and
    the multi-token words. Spelling features found in one or two words only cannot be balanced.
    """
    terms = [(2.0, 0.0, pools["n_tokens_smollm2"]), (0.5, 0.0, pools["n_tokens_gemma3"])]
    for name, weight in (("n_chars", 3.0), ("zipf", 4.0)):
        centred = pools[name] - pools.groupby("multi")[name].transform("median")
        terms.append((weight, 0.0, pools[name]))
        terms.append((1.0, 0.0, (pools[name] - pools[name].median()).abs()))
        terms.append((1.0, 0.0, centred * pools["multi"]))
        terms.append((1.0, 0.0, centred * (1 - pools["multi"])))
    weights = {"first letter": 1.0, "last letter": 2.0, "last two letters": 2.0,
               "letter bigrams": 5.0}  # fmt: skip
    spelling = spelling_features(list(pools["item"]), min_items=3)
    terms += [(weight, SPELLING_FLOOR, spelling[name]) for name, weight in weights.items()]
    shape = (len(pools), -1)
    return [(weight, floor, np.asarray(v, float).reshape(shape)) for weight, floor, v in terms]


def select(pools, seed=SEED, n_steps=N_STEPS):
    """Choose the items: simulated annealing over swaps within a category.

    A swap exchanges a chosen word for another of the same category and the same side of the
    single/multi-token divide, so both counts stay equal in all categories. The objective is the
    weighted sum of eta-squared over `matching_terms`. ``n_steps=0`` gives a random choice.

    Returns
    -------
    pandas.DataFrame
        The chosen rows of `pools`, sorted by category (in the order above) and item.
    """
    rng = random.Random(seed)  # its random() gives the same numbers on every Python
    terms = matching_terms(pools)
    starts = np.cumsum([0] + [values.shape[1] for *_, values in terms])[:-1]
    weights, floors = (np.array(column) for column in list(zip(*terms, strict=True))[:2])
    features = np.hstack([values for *_, values in terms])
    features = features - features.mean(axis=0)
    squares = features**2
    n_items = (N_SINGLE + N_MULTI) * len(CATEGORIES)

    cells = []  # [category index, chosen rows, spare rows] by category and token side
    for index, category in enumerate(CATEGORIES):
        for multi, quota in ((0, N_SINGLE), (1, N_MULTI)):
            rows = list(np.flatnonzero((pools["category"] == category) & (pools["multi"] == multi)))
            rng.shuffle(rows)
            cells.append((index, rows[:quota], rows[quota:]))
    sums = np.zeros((len(CATEGORIES), features.shape[1]))
    for index, chosen, _ in cells:
        sums[index] += features[chosen].sum(axis=0)
    total_squares = sum(squares[chosen].sum(axis=0) for _, chosen, _ in cells)

    def objective(sums, total_squares):
        mean_part = sums.sum(axis=0) ** 2 / n_items
        between = (sums**2).sum(axis=0) / (N_SINGLE + N_MULTI) - mean_part
        total = np.add.reduceat(total_squares - mean_part, starts)
        share = np.add.reduceat(between, starts) / np.maximum(total, 1e-9)
        return float(weights @ np.maximum(share, floors))

    current = objective(sums, total_squares)
    movable = [cell for cell in cells if cell[2]]
    for step in range(n_steps):
        index, chosen, spare = movable[int(rng.random() * len(movable))]
        i, j = int(rng.random() * len(chosen)), int(rng.random() * len(spare))
        change = features[spare[j]] - features[chosen[i]]
        new_sums = sums.copy()
        new_sums[index] += change
        new_squares = total_squares + squares[spare[j]] - squares[chosen[i]]
        new = objective(new_sums, new_squares)
        # Cooling to nothing: the last quarter of the steps takes improvements only.
        temperature = 0.02 * max(0.0, 1 - step / (0.75 * n_steps))
        gain = current - new
        if gain > 1e-12 or (temperature and rng.random() < math.exp(min(gain, 0) / temperature)):
            chosen[i], spare[j] = spare[j], chosen[i]
            sums, total_squares, current = new_sums, new_squares, new
    words = pools.loc[sorted(row for _, chosen, _ in cells for row in chosen)].copy()
    words["category"] = pd.Categorical(words["category"], CATEGORIES)
    words = words.sort_values(["category", "item"]).reset_index(drop=True)
    return words.astype({"category": str})


def words_csv(words):
    """Format the chosen rows as the text of ``words.csv``."""
    columns = ["item", "category", "zipf", "n_tokens_smollm2"]
    text = io.StringIO()
    words[columns].to_csv(text, index=False, float_format="%.2f", lineterminator="\n")
    return text.getvalue()


def decodability(words, repeats=10):
    """Classify the category from surface features of words not seen in training.

    One row for each item, so that no word is on both sides of a split; stratified six-fold
    cross-validation, repeated; L2 logistic regression on standardised features.

    Returns
    -------
    dict of str to float
        Accuracy (chance .10) for each family of features and all of them together; and, under
        ``recall CATEGORY``, the share of that category found with all of them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = words["category"].to_numpy()
    numbers = words[["n_chars", "zipf", "n_tokens_smollm2"]].to_numpy(float)
    families = {"length, zipf, tokens": numbers, **spelling_features(list(words["item"]))}
    del families["last two letters"]  # among the bigrams; here each family is its own baseline
    families["all"] = np.hstack(list(families.values()))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    result = {}
    hits = []
    for name, features in families.items():
        folds = [StratifiedKFold(6, shuffle=True, random_state=i) for i in range(repeats)]
        hits = [cross_val_predict(model, features, labels, cv=fold) == labels for fold in folds]
        result[name] = float(np.mean(hits))
    for category in CATEGORIES:  # the last features were all of them
        result[f"recall {category}"] = float(np.mean(np.array(hits)[:, labels == category]))
    return result


def print_figures(pools, words, n_random=5):
    """Print the tables of ``card.md``; random choices from the same pools show what was gained."""
    print("| category | items | characters | zipf | SmolLM2 tokens | multi-token | Gemma 3 tokens "
          "| recall from surface |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    decoded = decodability(words)
    for category in [*CATEGORIES, "all"]:
        rows = words if category == "all" else words[words["category"] == category]
        cells = [f"{rows[c].mean():.2f} ({rows[c].std():.2f})"
                 for c in ("n_chars", "zipf", "n_tokens_smollm2", "n_tokens_gemma3")]  # fmt: skip
        recall = decoded["all" if category == "all" else f"recall {category}"]
        cells.insert(3, f"{rows['multi'].mean():.2f}")
        print(f"| {category} | {len(rows)} | {' | '.join(cells)} | {recall:.2f} |")

    random_choices = [select(pools, seed=i, n_steps=0) for i in range(n_random)]
    sets = [words, *random_choices]
    print("\n| eta-squared between categories | selected | random choices |\n|---|---|---|")
    names = ["n_chars", "zipf", "n_tokens_smollm2", "multi", "n_tokens_gemma3"]
    for name in names + list(spelling_features(["ab"])):
        values = [
            eta_squared(
                s[name] if name in s else spelling_features(list(s["item"]))[name],
                s["category"].to_numpy(),
            )
            for s in sets
        ]
        print(f"| {name} | {values[0]:.3f} | {np.mean(values[1:]):.3f} |")

    print("\n| category decoded from (chance .10) | selected | random choices |\n|---|---|---|")
    decoded_random = [decodability(choice, repeats=2) for choice in random_choices]
    for name in [key for key in decoded if not key.startswith("recall")]:
        reference = np.mean([random_choice[name] for random_choice in decoded_random])
        print(f"| {name} | {decoded[name]:.3f} | {reference:.3f} |")

    shared = words.groupby(["category", "last_token_smollm2"])["item"].agg(list)
    for (category, token), items in shared[shared.str.len() > 1].items():
        print(f"\nSame last SmolLM2 token in {category}, {token!r}: {', '.join(items)}")


def count_tokens(file):
    """Count the tokens of each pool item inside the sentences of ``frames.csv``.

    The tokens of an item are those that overlap it in the whole sentence; a word cut otherwise in
    one frame than in another would have no single count, so that is an error.

    Parameters
    ----------
    file : str
        The tokenizer.json of the tokenizer.

    Returns
    -------
    list of (int, str)
        For each item of ``pools.csv``, the number of tokens and the text of the last one.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    counts = []
    for item in pd.read_csv(HERE / "pools.csv", keep_default_na=False)["item"]:
        found = set()
        for frame in pd.read_csv(HERE / "frames.csv")["text"]:
            text, start = frame.format(item=item), frame.index("{item}")
            spans = tokenizer.encode(text).offsets
            inside = [(a, b) for a, b in spans if a < start + len(item) and b > start]
            found.add((len(inside), text[slice(*inside[-1])].strip()))
        if len(found) != 1:
            raise ValueError(f"{item}: cut differently in different frames: {sorted(found)}")
        counts.append(found.pop())
    return counts


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Choose and measure the items.")
    parser.add_argument("--count", metavar="NAME=FILE", help="fill the NAME columns of pools.csv")
    arguments = parser.parse_args()
    if arguments.count:
        name, file = arguments.count.split("=", 1)
        pools = pd.read_csv(HERE / "pools.csv", keep_default_na=False)
        columns = [f"n_tokens_{name}", f"last_token_{name}"]
        pools[columns] = count_tokens(file)
        pools.to_csv(HERE / "pools.csv", index=False, lineterminator="\n")
        return
    pools = load_pools()
    words = select(pools)
    (HERE / "words.csv").write_bytes(words_csv(words).encode("utf-8"))
    print_figures(pools, words)


if __name__ == "__main__":
    main()
