"""The table that a scan reads: one row a stimulus.

One row of the shipped set ``concepts``::

    text        = "The answer in the crossword was beaver."
    target      = characters 32 to 38
    item        = "beaver"      the word; the unit that splits and resampling respect
    frame       = "crossword"   the sentence around it
    category    = "animals"
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from wordfreq import zipf_frequency

REQUIRED = ("text", "item", "frame", "category")
SPAN = ("target_start", "target_end")
# Of pairs of texts: what stands in the place of the target in the other one, and what is right
# after the one and the other.
PAIR = ("corrupt", "answer", "foil")
# Values of a column that an error names.
SHOWN = 12
Cell = str | int | float | bool
_HERE = Path(__file__).parent


class StimulusError(ValueError):
    """A stimulus table that cannot be used; the message names file, row and mend."""


@dataclass(frozen=True)
class StimulusSet:
    """A frozen table of stimuli.

    Attributes
    ----------
    name : str
        Name of a shipped set, or the stem of the user's file.
    table : pandas.DataFrame
        One row a stimulus, with the columns ``text``, ``target_start`` and ``target_end``
        (characters, half open), ``item``, ``frame``, ``category``, ``n_chars`` (characters of the
        target), ``zipf`` (log10 of occurrences per billion words, `wordfreq`) and any other label.
    """

    name: str
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    @cached_property  # a recording asks for it again and again
    def digest(self) -> str:
        """sha256 of `csv`."""
        return hashlib.sha256(self.csv.encode()).hexdigest()

    @property
    def csv(self) -> str:
        """The whole table as text: texts, spans and labels. A study keeps it with its results."""
        return self.table.to_csv(index=False, lineterminator="\n")

    @classmethod
    def from_csv(cls, path: Path) -> "StimulusSet":
        """Read back what `csv` wrote: a label that only looks like a number ("01") stays a word."""
        table = _read(path)
        cells = pd.read_csv(path, keep_default_na=False, dtype=str)
        for name in table.columns:
            if list(table[name].astype(str)) != list(cells[name]):
                table[name] = cells[name]
        return cls(path.stem, table)

    def part(
        self,
        *,
        only: Mapping[str, Sequence[Cell]] | None = None,
        items: int | None = None,
        frames: int | None = None,
        sampled: str | None = None,
    ) -> "StimulusSet":
        """A stratified part: the same number of items from each category, in the first frames.

        The items of a category are taken at even steps along their word frequency, so that a part
        keeps the frequency range of the whole and no seed is involved.

        Parameters
        ----------
        only : mapping of str to sequence, optional
            Columns, and which of their values are kept; before anything is counted.
        items : int, optional
            Items per category; all of them by default.
        frames : int, optional
            Number of frames; all of them by default.
        sampled : str, optional
            A column whose values are to be the items, before these are counted: a disease instead
            of each of its stages. What were items then stand in the frames, in their order.

        Raises
        ------
        StimulusError
            If a category has fewer items, or the set fewer frames, than asked for, or a column or a
            value is not there.
        """
        table = self.table
        for column, values in (only or {}).items():
            table = self._with(table, column, values)
        if frames is not None:
            known = list(dict.fromkeys(table["frame"]))
            if frames > len(known):
                raise StimulusError(
                    f"stimuli '{self.name}': frames: {frames} asked for, the set has {len(known)}"
                )
            table = table[table["frame"].isin(known[:frames])]
        if sampled is not None:
            self._has(sampled, "sampled")
            table = _sampled_by(table, sampled)
        if items is not None:
            words = table.drop_duplicates(["category", "item"])
            chosen: list[str] = []
            for category, group in words.groupby("category", sort=False):
                if items > len(group):
                    raise StimulusError(
                        f"stimuli '{self.name}': items: {items} asked for, "
                        f"category '{category}' has {len(group)}"
                    )
                ranked = group.sort_values(["zipf", "item"])["item"].to_numpy()
                steps = (np.arange(items) + 0.5) * len(ranked) / items
                chosen += list(ranked[steps.astype(int)])
            table = table[table["item"].isin(chosen)]
        return StimulusSet(self.name, table.reset_index(drop=True))

    def _has(self, column: str, asked: str) -> None:
        if column not in self.table:
            raise StimulusError(
                f"stimuli '{self.name}': {asked}: no column '{column}'; "
                f"there is {', '.join(map(str, self.table.columns))}"
            )

    def _with(self, table: pd.DataFrame, column: str, values: Sequence[Cell]) -> pd.DataFrame:
        """The rows that have one of the values in a column."""
        self._has(column, "only")
        cells, wanted = table[column].astype(str), [str(value) for value in values]
        known = list(dict.fromkeys(cells))
        for value in wanted:
            if value not in known:
                shown = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
                raise StimulusError(
                    f"stimuli '{self.name}': only: '{column}' is nowhere '{value}' in what is "
                    f"left; it is {shown}"
                )
        return table[cells.isin(wanted)]


def _sampled_by(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with the values of a column as items, and each word's turn among them in frames.

    A value that stands in several categories is an item in each.
    """
    of, words = [column, "category"], table.drop_duplicates([column, "category", "item"])
    turn = words.assign(turn=words.groupby(of).cumcount() + 1)[[*of, "item", "turn"]]
    at = table[[*of, "item"]].merge(turn, how="left")["turn"].to_numpy().astype(str)
    several = table.groupby(column)["category"].transform("nunique") > 1
    values = table[column].astype(str)
    return table.assign(
        item=values.where(~several, values + ", " + table["category"]),
        frame=[f"{frame} {word}" for frame, word in zip(table["frame"], at, strict=True)],
    )


def shipped() -> list[str]:
    """Names of the sets that come with the suite: the folders here that hold a card."""
    return sorted(card.parent.relative_to(_HERE).as_posix() for card in _HERE.glob("**/card.md"))


def about(name: str) -> str:
    """What a shipped set holds: the first sentence of its card."""
    card = (_HERE / name / "card.md").read_text(encoding="utf-8")
    told = " ".join(card.split("\n\n")[1].split())
    # A sentence ends where another begins: a set may be of "two kinds. 261 items".
    return re.split(r"(?<=\.)\s+(?=[A-Z0-9])", told)[0]


def load(source: str, *, relative_to: Path | None = None) -> StimulusSet:
    """Load a shipped set by name, or a CSV or JSONL table of one's own.

    Parameters
    ----------
    source : str
        A name that `shipped` lists, or a path that ends in ``.csv`` or ``.jsonl``. A table needs
        the columns ``text``, ``item``, ``frame`` and ``category``. The target is the one place
        where the column ``target`` (without it: ``item``) stands in the text; columns
        ``target_start`` and ``target_end`` (characters) say it where the word stands twice.
    relative_to : pathlib.Path, optional
        Folder that a relative path starts from.

    Raises
    ------
    StimulusError
        For an unknown name, an unreadable file, a missing column, an empty cell, a target that is
        not found exactly once, an item in two categories, or a stimulus that stands twice.
    """
    if source in shipped():
        return StimulusSet(source, _checked(_crossed(_HERE / source), source))
    path = (relative_to or Path()) / source
    if path.suffix not in (".csv", ".jsonl"):
        raise StimulusError(
            f"stimuli '{source}' is neither a shipped set ({', '.join(shipped())}) nor a path "
            "that ends in .csv or .jsonl"
        )
    return StimulusSet(path.stem, _checked(_read(path), str(path)))


def _crossed(folder: Path) -> pd.DataFrame:
    """Every word in every sentence, sentence by sentence.

    Words are the items and sentences the frames, or the other way round where the words are all
    that there are (as numbers are) and sentences are sampled. A text has a place for either.

    Where frames alone have the categories, an item in frames of two of them is two items: the
    number of a page is no dose. Where items have them as well, or anything else that both tables
    have, an item stands in the frames that agree with it.
    """
    names = {"item": str, "frame": str}
    words = pd.read_csv(folder / "words.csv", keep_default_na=False, dtype=names)
    frames = pd.read_csv(folder / "frames.csv", keep_default_na=False, dtype=names)
    templates = frames.rename(columns={"text": "template"})
    alike = [name for name in words if name in templates]
    if alike:
        table = templates.merge(words, on=alike)
    else:
        table = templates.merge(words, how="cross")
    word = "item" if "item" in words else "frame"
    place = f"{{{word}}}"
    start = table["template"].str.index(place)
    table["text"] = [
        template.replace(place, filled)
        for template, filled in zip(table["template"], table[word], strict=True)
    ]
    table["target_start"] = start
    table["target_end"] = start + table[word].str.len()
    if word == "item" and "category" not in words:
        table["item"] = table["category"] + " " + table["item"]
    # Tokens are counted anew by whoever records.
    first = ["text", *SPAN, "item", "frame", "category", "zipf"]
    left_out = ("template", *first)
    rest = [
        name for name in table if name not in left_out and not str(name).startswith("n_tokens_")
    ]
    return table[[*first, *rest]]


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            # Every cell as it stands: a word such as "null", "nan" or "01" is a word.
            words = dict.fromkeys((*REQUIRED, *PAIR, "target"), str)
            table = pd.read_csv(path, keep_default_na=False, dtype=words)
        else:
            with path.open(encoding="utf-8") as lines:
                table = pd.DataFrame([_json_row(line, path, n) for n, line in enumerate(lines, 1)])
    except FileNotFoundError:
        raise StimulusError(f"stimuli: no file {path}") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise StimulusError(f"stimuli {path}: cannot be read as {path.suffix}: {error}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first cell for a row's name
        raise StimulusError(
            f"stimuli {path}: its rows have more cells than its header has columns; "
            "put texts that hold a comma in double quotes"
        )
    return table


def _json_row(line: str, path: Path, number: int) -> dict[str, object]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise StimulusError(f"stimuli {path}, line {number}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise StimulusError(f"stimuli {path}, line {number}: expected an object per line")
    return row


def _checked(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """The table with its derived columns, or the error that names the first thing wrong with it."""
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        raise StimulusError(
            f"stimuli {source}: missing column '{missing[0]}'; needed are {', '.join(REQUIRED)}, "
            f"found are {', '.join(map(str, table.columns)) or 'none'}"
        )
    if table.empty:
        raise StimulusError(f"stimuli {source}: the table has no rows")
    for column in table.columns:
        empty = table[column].isna() | (table[column].astype(str).str.strip() == "")
        if empty.any():
            raise StimulusError(
                f"stimuli {source}, row {_row(empty)}: column '{column}' is empty; "
                "fill it in or leave the row out"
            )
        kinds = {type(value).__name__ for value in table[column].tolist()}
        if column not in SPAN and (len(kinds) > 1 or kinds & {"list", "dict"}):
            raise StimulusError(
                f"stimuli {source}: column '{column}' holds {' and '.join(sorted(kinds))}; "
                "a label is one text, number or truth value in each row"
            )
        # CSV leaves a lone one unquoted, and what `csv` wrote would be read as two rows.
        returns = table[column].astype(str).str.contains("\r", regex=False)
        if returns.any():
            raise StimulusError(
                f"stimuli {source}, row {_row(returns)}: column '{column}' holds a carriage "
                "return; write line breaks as \\n alone"
            )
    table = table.assign(**{column: table[column].astype(str) for column in REQUIRED})
    if not set(SPAN) <= set(table.columns):
        table = _with_spans(table, source)
    _check_spans(table, source)
    twice = table.duplicated(["text", *SPAN])
    if twice.any():
        raise StimulusError(
            f"stimuli {source}, row {_row(twice)}: the same text and target stand in an earlier row"
        )
    homes = table.groupby("item")["category"].nunique()
    if (homes > 1).any():
        item = homes.index[homes > 1][0]
        raise StimulusError(
            f"stimuli {source}: item '{item}' stands in {homes[item]} categories; "
            "an item has one category"
        )
    targets = [
        text[start:end]
        for text, start, end in zip(table["text"], *(table[c] for c in SPAN), strict=True)
    ]
    if "zipf" not in table:
        table = table.assign(zipf=[zipf_frequency(target, "en") for target in targets])
    first = ["text", *SPAN, "item", "frame", "category", "n_chars", "zipf"]
    table = table.assign(n_chars=[len(target) for target in targets])
    rest = [column for column in table.columns if column not in (*first, "target")]
    return table[first + rest].reset_index(drop=True)


def _row(flags: pd.Series) -> int:
    """The first flagged row, counted as a spreadsheet does: the header is row 1."""
    return int(np.flatnonzero(flags.to_numpy())[0]) + 2


def _with_spans(table: pd.DataFrame, source: str) -> pd.DataFrame:
    marked = table["target"] if "target" in table else table["item"]
    starts = []
    for row, (text, target) in enumerate(zip(table["text"], marked.astype(str), strict=True)):
        count = text.count(target)
        if count != 1:
            raise StimulusError(
                f"stimuli {source}, row {row + 2}: '{target}' stands {count} times in "
                f"'{text}'; give columns target_start and target_end"
            )
        starts.append(text.index(target))
    ends = [start + len(str(target)) for start, target in zip(starts, marked, strict=True)]
    return table.assign(target_start=starts, target_end=ends)


def _check_spans(table: pd.DataFrame, source: str) -> None:
    for column in SPAN:
        if not pd.api.types.is_integer_dtype(table[column]):
            raise StimulusError(f"stimuli {source}: column '{column}' must hold whole numbers")
    length = table["text"].str.len()
    bad = (table["target_start"] < 0) | (table["target_end"] > length)
    bad |= table["target_start"] >= table["target_end"]
    if bad.any():
        raise StimulusError(
            f"stimuli {source}, row {_row(bad)}: target_start and target_end do not mark "
            "a part of the text"
        )
