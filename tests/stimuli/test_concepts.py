"""The `concepts` stimuli: counts, frames, frequencies, balance, and their reproduction."""

import csv
import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "stimuli" / "concepts"
CATEGORIES = [
    "animals", "tools", "food", "vehicles", "body parts",
    "clothing", "furniture", "colours", "numbers", "emotions",
]  # fmt: skip
# Bounds stated in card.md.
BOUNDS = {"n_chars": 0.01, "zipf": 0.01, "n_tokens_smollm2": 0.01, "n_tokens_gemma3": 0.02}
SPELLING_BOUND = 0.04


def read(name):
    """Read a csv file of the set as a list of dicts."""
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


WORDS = read("words.csv")
FRAMES = read("frames.csv")
POOLS = read("pools.csv")


@pytest.fixture(scope="module")
def select():
    """Load choose.py by its path, so that no import setting matters."""
    pytest.importorskip("numpy")
    pytest.importorskip("pandas")
    pytest.importorskip("wordfreq")
    spec = importlib.util.spec_from_file_location("concepts_choose", FOLDER / "choose.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chosen(select):
    """Run the search once for all tests."""
    return select.select(select.load_pools())


def test_ten_categories_of_24_items_in_order():
    assert Counter(row["category"] for row in WORDS) == dict.fromkeys(CATEGORIES, 24)
    order = [(CATEGORIES.index(row["category"]), row["item"]) for row in WORDS]
    assert order == sorted(order)
    assert list(WORDS[0])[:3] == ["item", "category", "zipf"]


@pytest.mark.parametrize("rows", [WORDS, POOLS], ids=["words", "pools"])
def test_items_are_single_lower_case_words_found_once(rows):
    items = [row["item"] for row in rows]
    assert len(items) == len(set(items))
    assert all(re.fullmatch("[a-z]+", item) for item in items)


def test_pools_have_35_to_60_candidates():
    counts = Counter(row["category"] for row in POOLS)
    assert list(counts) == CATEGORIES
    assert all(35 <= count <= 60 for count in counts.values())


def test_words_come_from_the_pool_of_their_category():
    pool = {(row["item"], row["category"]) for row in POOLS}
    assert {(row["item"], row["category"]) for row in WORDS} <= pool


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_item_names_a_category(category):
    stems = {category, category.removesuffix("s"), category.split()[0]}
    named = [row["item"] for row in POOLS if any(stem in row["item"] for stem in stems)]
    assert named == []


def test_frames_are_distinct_and_have_one_slot():
    texts = [row["text"] for row in FRAMES]
    assert list(FRAMES[0]) == ["frame", "text"]
    assert len(FRAMES) == len(set(texts)) == len({row["frame"] for row in FRAMES}) == 10
    assert all(re.fullmatch("[a-z]+", row["frame"]) for row in FRAMES)
    for text in texts:
        assert text.count("{item}") == 1
        assert text.count("{") == text.count("}") == 1


def test_prefixes_are_distinct_and_two_to_eight_words_long():
    prefixes = [row["text"].split("{item}")[0] for row in FRAMES]
    assert len(set(prefixes)) == len(prefixes)
    for prefix in prefixes:
        assert 2 <= len(prefix.split()) <= 8
        assert prefix.endswith(" ")
        assert prefix.split()[-1].lower() not in {"a", "an", "the"}
    # No two prefixes end in the same word, the strongest context of the recorded position.
    assert len({prefix.split()[-1] for prefix in prefixes}) == len(prefixes)


def test_frames_name_no_category_and_no_item():
    words = {word for row in FRAMES for word in re.findall("[a-z]+", row["text"].lower())}
    words.discard("item")
    assert not words & {row["item"] for row in POOLS}
    assert not any(category.removesuffix("s") in words for category in CATEGORIES)


def test_stimuli_are_clean_text():
    texts = [frame["text"].format(item=row["item"]) for frame in FRAMES for row in WORDS]
    assert len(texts) == len(set(texts)) == 2400
    for text in texts:
        assert text.isascii()
        assert text == text.strip()
        assert "  " not in text
        assert not re.search(r"\b[Aa] [aeiou]", text)
        assert not re.search(r"\b[Aa]n [^aeiou]", text)
        assert not re.search(r"[\"'`]", text)
        assert text[0].isupper() and text[-1] in ".?"


def test_both_token_sides_have_the_same_share_in_each_category():
    multi = Counter(row["category"] for row in WORDS if int(row["n_tokens_smollm2"]) > 1)
    assert multi == dict.fromkeys(CATEGORIES, 8)


def test_zipf_column_is_what_wordfreq_gives():
    wordfreq = pytest.importorskip("wordfreq")
    for row in WORDS:
        assert row["zipf"] == f"{wordfreq.zipf_frequency(row['item'], 'en'):.2f}", row["item"]


def test_select_reproduces_words_byte_for_byte(select, chosen):
    assert select.words_csv(chosen).encode("utf-8") == (FOLDER / "words.csv").read_bytes()


@pytest.mark.parametrize("name", BOUNDS)
def test_categories_are_matched(select, chosen, name):
    assert select.eta_squared(chosen[name], chosen["category"].to_numpy()) < BOUNDS[name]


def test_spelling_is_matched_to_the_level_of_random_groups(select, chosen):
    labels = chosen["category"].to_numpy()
    for name, values in select.spelling_features(list(chosen["item"])).items():
        assert select.eta_squared(values, labels) < SPELLING_BOUND, name


def test_eta_squared_of_known_groups(select):
    numpy = pytest.importorskip("numpy")
    labels = numpy.array(["a", "a", "b", "b"])
    assert select.eta_squared([1, 1, 2, 2], labels) == pytest.approx(1)
    assert select.eta_squared([1, 2, 1, 2], labels) == pytest.approx(0)
    assert select.eta_squared([0, 2, 2, 4], labels) == pytest.approx(0.5)  # between 4 of total 8


def test_surface_features_do_not_give_the_category(select, chosen):
    pytest.importorskip("sklearn")
    assert select.decodability(chosen, repeats=2)["all"] < 0.15
