"""A table is read as it stands, each mistake in it is named, and its digest is one of content."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wordfreq import zipf_frequency

from stimuli import StimulusError, StimulusSet, load, shipped
from stimuli.stimulus_set import _crossed

ROWS = [
    {"text": "We had the cat today.", "item": "cat", "frame": "had", "category": "animals"},
    {"text": "We had the horse today.", "item": "horse", "frame": "had", "category": "animals"},
    {"text": "We had the saw today.", "item": "saw", "frame": "had", "category": "tools"},
    {"text": "The cat.", "item": "cat", "frame": "short", "category": "animals"},
]
SHIPPED = [
    "agreement",
    "concepts",
    "language",
    "medical/ages",
    "medical/diseases",
    "medical/dosages",
    "medical/drugs",
    "medical/drugs_twin",
    "medical/map",
    "medical/symptoms",
    "nested",
    "tuning",
]
COLUMNS = ["text", "target_start", "target_end", "item", "frame", "category", "n_chars", "zipf"]


def changed(row, **cells):
    """`ROWS` with some cells of one row changed."""
    return [{**one, **cells} if number == row else one for number, one in enumerate(ROWS)]


def save(path, rows):
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(params=["csv", "jsonl"])
def loaded(request, tmp_path):
    """``loaded(rows)``: a stimulus set from a table, by way of each kind of file."""
    return lambda rows: load(str(save(tmp_path / f"table.{request.param}", rows)))


def refused(message):
    return pytest.raises(StimulusError, match=message)


# --- reading ---------------------------------------------------------------------------------


def test_a_table_is_read_with_the_place_length_and_frequency_of_each_target(loaded):
    stimuli = loaded(ROWS)
    assert stimuli.name == "table"
    assert len(stimuli) == 4
    assert list(stimuli.table) == COLUMNS
    assert stimuli.table["target_start"].tolist() == [11, 11, 11, 4]
    assert stimuli.table["target_end"].tolist() == [14, 16, 14, 7]
    assert stimuli.table["n_chars"].tolist() == [3, 5, 3, 3]
    assert stimuli.table["zipf"].tolist() == [zipf_frequency(row["item"], "en") for row in ROWS]
    assert stimuli.table["zipf"].between(1, 8).all()


WORDS = ["null", "nan", "7", "007", "7.0", "True", "TRUE", "NA", "1e5", "-", '"', "a,b", "ñandú"]


def test_csv_and_jsonl_load_the_same_whatever_the_words_look_like(tmp_path):
    rows = [
        {"text": f"We had {word} today.", "item": word, "frame": "01", "category": "1.50", "age": n}
        for n, word in enumerate(WORDS)
    ]
    csv, jsonl = (load(str(save(tmp_path / f"table.{kind}", rows))) for kind in ("csv", "jsonl"))
    pd.testing.assert_frame_equal(csv.table, jsonl.table)
    assert csv.digest == jsonl.digest
    assert csv.table["item"].tolist() == WORDS
    assert set(csv.table["frame"]) == {"01"} and set(csv.table["category"]) == {"1.50"}
    assert csv.table["age"].tolist() == list(range(len(WORDS)))


def test_numbers_where_words_are_needed_are_read_as_words(tmp_path):
    rows = [{"text": "Give me 7 of it.", "item": 7, "frame": 1, "category": True}]
    table = load(str(save(tmp_path / "table.jsonl", rows))).table
    assert table.loc[0, ["item", "frame", "category"]].tolist() == ["7", "1", "True"]


def test_line_separators_of_unicode_inside_a_text_do_not_end_its_line(tmp_path):
    text = "We\u2028had\u2029the\x85cat"
    rows = changed(0, text=text)
    assert load(str(save(tmp_path / "table.jsonl", rows))).table["text"][0] == text


def test_the_target_may_be_another_word_than_the_item(loaded):
    rows = [{**row, "target": row["text"].split()[0]} for row in ROWS]
    table = loaded(rows).table
    assert table["target_start"].tolist() == [0] * 4
    assert table["target_end"].tolist() == [2, 2, 2, 3]
    assert table["zipf"][0] == zipf_frequency("We", "en")
    assert "target" not in table


def test_spans_say_which_of_two_equal_words_is_meant(loaded):
    text = "The cat saw a cat."
    rows = [
        {**ROWS[0], "text": text, "target_start": start, "target_end": start + 3}
        for start in (4, 14)
    ]
    assert loaded(rows).table["target_start"].tolist() == [4, 14]


def test_other_labels_and_a_frequency_of_ones_own_are_kept(loaded):
    rows = [{**row, "zipf": 1.5, "age": 3 + number} for number, row in enumerate(ROWS)]
    table = loaded(rows).table
    assert table["zipf"].tolist() == [1.5] * 4
    assert table["age"].tolist() == [3, 4, 5, 6]
    assert list(table) == [*COLUMNS, "age"]


def test_a_relative_path_starts_from_the_folder_that_is_given(tmp_path):
    save(tmp_path / "table.csv", ROWS)
    assert len(load("table.csv", relative_to=tmp_path)) == 4
    with refused("no file table.csv"):
        load("table.csv")


def crossed(folder, words, frames):
    pd.DataFrame(words).assign(zipf=1.0).to_csv(folder / "words.csv", index=False)
    pd.DataFrame(frames).to_csv(folder / "frames.csv", index=False)
    return _crossed(folder)


def test_words_with_categories_of_their_own_stand_in_the_frames_of_these(tmp_path):
    words = [{"item": "cat", "category": "animals"}, {"item": "saw", "category": "tools"}]
    frames = [
        {"frame": "had", "category": "tools", "text": "We used a {item}."},
        {"frame": "had", "category": "animals", "text": "We fed a {item}."},
    ]
    table = crossed(tmp_path, words, frames)
    assert table["text"].tolist() == ["We used a saw.", "We fed a cat."]
    assert table["item"].tolist() == ["saw", "cat"]
    assert table["category"].tolist() == ["tools", "animals"]
    assert table["target_start"].tolist() == [10, 9]


def test_what_else_both_tables_have_says_what_stands_where(tmp_path):
    words = [
        {"item": "aspirin", "category": "drugs", "asks": asks, "answer": answer}
        for asks, answer in (("use", "pain"), ("form", "tablet"))
    ]
    frames = [
        {"frame": "asked", "category": "drugs", "asks": "form", "text": "What is {item} sold as?"},
        {"frame": "asked", "category": "drugs", "asks": "use", "text": "What is {item} for?"},
    ]
    table = crossed(tmp_path, words, frames)
    assert table["text"].tolist() == ["What is aspirin sold as?", "What is aspirin for?"]
    assert table["answer"].tolist() == ["tablet", "pain"]


def test_where_only_frames_have_categories_a_word_is_an_item_in_each(tmp_path):
    frames = [
        {"frame": "page", "category": "page", "text": "On page {item}."},
        {"frame": "age", "category": "age", "text": "At age {item}."},
    ]
    table = crossed(tmp_path, [{"item": "7"}], frames)
    assert table["item"].tolist() == ["page 7", "age 7"]


def test_the_shipped_set_is_every_word_in_every_frame():
    assert shipped() == SHIPPED
    concepts = load("concepts")
    assert len(concepts) == 2400
    table = concepts.table
    assert not table.duplicated(["item", "frame"]).any()
    assert (table["item"].nunique(), table["frame"].nunique()) == (240, 10)
    marked = [t[s:e] for t, s, e in table[["text", "target_start", "target_end"]].to_numpy()]
    assert marked == table["item"].tolist()


# --- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["text", "item", "frame", "category"])
def test_a_missing_column_is_named_with_those_that_were_found(loaded, column):
    rows = [{name: cell for name, cell in row.items() if name != column} for row in ROWS]
    others = ", ".join(name for name in ROWS[0] if name != column)
    with refused(f"missing column '{column}'; needed are text, .*, found are {others}"):
        loaded(rows)


@pytest.mark.parametrize("column", ["text", "item", "frame", "category"])
@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_cell_is_named_by_row_and_column(loaded, column, cell):
    with refused(f"row 4: column '{column}' is empty; fill it in or leave the row out"):
        loaded(changed(2, **{column: cell}))


def test_an_empty_cell_of_another_label_is_named_too(tmp_path):
    rows = [{**row, "age": 3} for row in ROWS]
    del rows[1]["age"]
    with refused("row 3: column 'age' is empty"):
        load(str(save(tmp_path / "table.jsonl", rows)))
    with refused("row 3: column 'age' is empty"):
        load(str(save(tmp_path / "table.csv", rows)))


@pytest.mark.parametrize(
    ("text", "count"), [("We had the dog today.", 0), ("The cat sees a cat.", 2)]
)
def test_a_target_that_is_not_found_once_is_named_with_its_row_and_text(loaded, text, count):
    with refused(
        f"row 2: 'cat' stands {count} times in '{re.escape(text)}'; give columns target_start and "
        "target_end"
    ):
        loaded(changed(0, text=text))


def test_an_item_in_two_categories_is_named(loaded):
    with refused("item 'cat' stands in 2 categories; an item has one category"):
        loaded(changed(3, category="tools"))


def test_a_row_that_stands_twice_is_named(loaded):
    with refused("row 6: the same text and target stand in an earlier row"):
        loaded([*ROWS, ROWS[2]])


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (4, 4), (5, 4), (4, 99), (21, 22)])
def test_a_span_that_marks_no_part_of_the_text_is_named_by_its_row(loaded, start, end):
    rows = [{**row, "target_start": 0, "target_end": 2} for row in ROWS]
    rows[0] |= {"target_start": start, "target_end": end}
    with refused("row 2: target_start and target_end do not mark a part of the text"):
        loaded(rows)


@pytest.mark.parametrize("column", ["target_start", "target_end"])
@pytest.mark.parametrize("cell", [1.5, "one"])
def test_a_span_that_is_no_whole_number_is_refused(loaded, column, cell):
    rows = [{**row, "target_start": 0, "target_end": 2} for row in ROWS]
    rows[0][column] = cell
    with refused(f"column '{column}' must hold whole numbers"):
        loaded(rows)


def test_a_carriage_return_is_refused_since_it_would_end_a_row_of_csv(tmp_path):
    rows = changed(1, text="We had\rthe horse today.")
    with refused(r"row 3: column 'text' holds a carriage return; write line breaks as \\n alone"):
        load(str(save(tmp_path / "table.jsonl", rows)))


@pytest.mark.parametrize("source", ["concept", "table.txt", "table"])
def test_an_unknown_set_is_refused_with_those_that_are_known(source):
    with refused(
        f"'{source}' is neither a shipped set .{', '.join(SHIPPED)}. nor a path that ends in"
    ):
        load(source)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with refused(f"no file {tmp_path}/nowhere.csv"):
        load(str(tmp_path / "nowhere.csv"))


UNREADABLE = {
    "bytes.csv": (b"text,item\n\xff\xfe,a\n", "cannot be read as .csv"),
    "empty.csv": (b"", "cannot be read as .csv"),
    "ragged.csv": (b"text,item,frame,category\na,b,c,d\na,b,c,d,e,f\n", "cannot be read as .csv"),
    "header.csv": (b"text,item,frame,category\n", "the table has no rows"),
    "empty.jsonl": (b"", "missing column 'text'.* found are none"),
    "bytes.jsonl": (b"\xff\xfe", "cannot be read as .jsonl"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": \n', "line 2: not JSON"),
    "list.jsonl": (b'{"text": "a"}\n[1, 2]\n', "line 2: expected an object per line"),
    # Without quotes each row has a cell too many, and pandas would take the text's beginning for
    # the name of the row, and the rest for the text.
    "commas.csv": (
        b"text,item,frame,category\nYes, a cat.,cat,f,c\nYes, a dog.,dog,f,c\n",
        "more cells than its header has columns; put texts that hold a comma in double quotes",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, name):
    content, message = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with refused(f"{name}.*{message}"):
        load(str(tmp_path / name))


# --- parts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def concepts():
    return load("concepts")


def words(stimuli):
    return stimuli.table.drop_duplicates("item")


@pytest.mark.parametrize(("items", "frames"), [(1, 1), (7, 4), (24, 10), (16, None), (None, 3)])
def test_a_part_has_as_many_items_of_each_category_in_each_frame(concepts, items, frames):
    table = concepts.part(items=items, frames=frames).table
    counts = table.groupby(["category", "frame"])["item"].nunique()
    assert len(counts) == 10 * (frames or 10)
    assert set(counts) == {items or 24}
    assert len(table) == counts.sum()
    assert table.index.tolist() == list(range(len(table)))
    assert (
        list(dict.fromkeys(table["frame"])) == list(dict.fromkeys(concepts.table["frame"]))[:frames]
    )


def test_a_part_of_everything_is_everything(concepts):
    assert concepts.part().digest == concepts.digest
    assert concepts.part(items=24, frames=10).digest == concepts.digest


def test_a_part_is_the_same_each_time_and_whatever_order_the_rows_stand_in(concepts):
    first = concepts.part(items=5, frames=2)
    assert first.digest == concepts.part(items=5, frames=2).digest
    backwards = StimulusSet("concepts", concepts.table[::-1].reset_index(drop=True))
    assert set(backwards.part(items=5).table["item"]) == set(first.table["item"])


@pytest.mark.parametrize("items", [2, 3, 6, 12])
def test_a_part_takes_one_item_from_each_equal_step_of_frequency(concepts, items):
    part = concepts.part(items=items)
    for category, whole in words(concepts).groupby("category"):
        ranked = whole.sort_values(["zipf", "item"])["item"].tolist()
        some = words(part).loc[words(part)["category"] == category, "item"]
        step = len(ranked) // items
        assert sorted(ranked.index(item) // step for item in some) == list(range(items))


def test_a_part_of_a_part_takes_rows_of_the_whole(concepts):
    part = concepts.part(items=4, frames=2)
    rows = part.table.merge(concepts.table, how="inner")
    pd.testing.assert_frame_equal(rows, part.table)


def test_more_items_or_frames_than_there_are_is_an_error_that_says_how_many(concepts):
    with refused("stimuli 'concepts': items: 25 asked for, category 'animals' has 24"):
        concepts.part(items=25)
    with refused("stimuli 'concepts': frames: 11 asked for, the set has 10"):
        concepts.part(frames=11)


def test_only_some_values_of_columns_are_kept_before_anything_is_counted(concepts):
    some = concepts.part(only={"category": ["tools", "food"], "frame": ["rhyme"]}, items=3)
    assert set(some.table["category"]) == {"tools", "food"}
    assert set(some.table["frame"]) == {"rhyme"}
    assert len(some) == 6
    by_number = concepts.part(only={"n_chars": [3]})
    assert len(by_number) and set(by_number.table["n_chars"]) == {3}
    assert concepts.part(only={}).table.equals(concepts.table)


def test_a_column_or_a_value_that_is_not_there_is_named_with_those_that_are(concepts):
    with refused("stimuli 'concepts': only: no column 'colour'; there is text,"):
        concepts.part(only={"colour": ["red"]})
    with refused("only: 'category' is nowhere 'tool' in what is left; it is animals,"):
        concepts.part(only={"category": ["tool"]})
    with refused("only: 'frame' is nowhere 'rhyme' in what is left; it is crossword"):
        concepts.part(only={"category": ["tools"], "n_chars": [5]}).part(
            only={"frame": ["crossword"]}
        ).part(only={"frame": ["rhyme"]})


# --- digests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", [0, 3])
def test_a_change_of_any_cell_changes_the_digest(tmp_path, column, row):
    stimuli = load(str(save(tmp_path / "table.csv", ROWS)))
    table = stimuli.table.copy()
    cell = table.loc[row, column]
    table.loc[row, column] = cell + ("x" if isinstance(cell, str) else 1)
    assert StimulusSet(stimuli.name, table).digest != stimuli.digest


def test_order_and_columns_change_the_digest_and_the_name_does_not(tmp_path):
    stimuli = load(str(save(tmp_path / "table.csv", ROWS)))
    table = stimuli.table
    assert StimulusSet("other", table.copy()).digest == stimuli.digest
    assert StimulusSet("table", table[::-1]).digest != stimuli.digest
    assert StimulusSet("table", table.assign(age=1)).digest != stimuli.digest
    assert StimulusSet("table", table.rename(columns={"frame": "sentence"})).digest != (
        stimuli.digest
    )


def assert_survives(stimuli, path):
    path.write_text(stimuli.csv, encoding="utf-8", newline="")
    back = StimulusSet.from_csv(path)
    assert back.csv == stimuli.csv
    assert back.digest == stimuli.digest
    assert back.name == path.stem
    return back


def test_what_csv_wrote_is_read_back_with_its_digest(concepts, tmp_path):
    for stimuli in (concepts, concepts.part(items=3, frames=2)):
        back = assert_survives(stimuli, tmp_path / "kept.csv")
        pd.testing.assert_frame_equal(back.table, stimuli.table)


def test_words_and_labels_that_look_like_something_else_are_read_back_as_words(tmp_path):
    rows = [
        {
            "text": f"We had {word} today.", "item": word, "frame": word, "category": word,
            "code": f"0{n}", "flag": "TRUE", "size": f"{n}.50", "real": n / 3, "whole": n,
            "known": bool(n % 2),
        }
        for n, word in enumerate(WORDS)
    ]  # fmt: skip
    stimuli = load(str(save(tmp_path / "table.jsonl", rows)))
    back = assert_survives(stimuli, tmp_path / "kept.csv").table
    for column in ("item", "frame", "category"):
        assert back[column].tolist() == WORDS
    assert back["code"].tolist() == [row["code"] for row in rows]
    assert back["real"].tolist() == [row["real"] for row in rows]
    assert [back[c].dtype.kind for c in ("real", "whole", "known", "zipf")] == list("fibf")


# Whatever may stand in a JSON file but what the loader refuses: only blanks, a carriage return.
plain = st.text(
    st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=8
).filter(lambda text: text.strip())
labels = {
    "words": plain,
    "whole": st.integers(-(2**53), 2**53),
    "real": st.floats(allow_nan=False, allow_infinity=False),
    "numbers as words": st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3})?", fullmatch=True),
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_table_survives_the_way_to_disk_and_back(data, tmp_path):
    items = data.draw(st.lists(plain, min_size=1, max_size=5, unique=True))
    kind = data.draw(st.sampled_from(sorted(labels)))
    rows = []
    for item in items:
        before, after = data.draw(plain), data.draw(plain)
        rows.append(
            {
                "text": before + item + after,
                "target_start": len(before),
                "target_end": len(before) + len(item),
                "item": item,
                "frame": data.draw(plain),
                "category": data.draw(plain),
                "label": data.draw(labels[kind]),
            }
        )
    rows = list({(row["text"], row["target_start"]): row for row in rows}.values())
    stimuli = load(str(save(tmp_path / "table.jsonl", rows)))
    assert_survives(stimuli, tmp_path / "kept.csv")
    for row, text, start, end in zip(
        rows, *(stimuli.table[c] for c in ("text", "target_start", "target_end")), strict=True
    ):
        assert text[start:end] == row["item"]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    items=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_any_part_is_stratified_and_spans_the_frequencies_or_is_refused(sizes, items, seed):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        [
            {"text": f"{c}-{i}", "item": f"{c}-{i}", "frame": "f", "category": f"c{c}"}
            for c, size in enumerate(sizes)
            for i in range(size)
        ]
    )
    whole = StimulusSet("toy", table.assign(zipf=rng.normal(size=len(table))))
    if items > min(sizes):
        with refused(f"items: {items} asked for, category 'c{np.argmax(np.array(sizes) < items)}'"):
            whole.part(items=items)
        return
    part = whole.part(items=items).table
    for category, group in whole.table.groupby("category"):
        ranked = group.sort_values("zipf")["item"].tolist()
        ranks = sorted(
            ranked.index(item) for item in part.loc[part["category"] == category, "item"]
        )
        assert len(ranks) == items
        # Steps are even: no two gaps differ by more than one rank, nor do the two ends.
        gaps = np.diff(ranks)
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
        assert abs(ranks[0] - (len(ranked) - 1 - ranks[-1])) <= 1


@pytest.mark.parametrize(
    ("values", "kinds"),
    [([1, "a"], "int and str"), ([["x"], ["y"]], "list"), ([{"a": 1}, {"a": 2}], "dict")],
)
def test_a_label_that_is_not_one_kind_of_value_is_refused(tmp_path, values, kinds) -> None:
    rows = [
        {"text": f"A {word} here.", "item": word, "frame": "f", "category": "c", "size": value}
        for word, value in zip(("cat", "dog"), values, strict=True)
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(StimulusError, match=f"column 'size' holds {kinds}; a label is one text"):
        load(str(path))
