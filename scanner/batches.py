"""Which stimuli go through the model together, and how they lie in one forward pass.

Two ways to lay them out. *Padded*: one row a stimulus, filled up on the right, so that positions
and past activations stay. *Shared*: texts that begin alike share the tokens they begin with. A row
is then a tree of tokens, written flat; each token sees its ancestors only (a 4-D mask) and stands
at its depth (position ids), so that to the model it is the same token of the same text. Crossed
stimuli have two to three times as many tokens as different ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

# Tokens of a shared row. All rows of a batch are as wide as the widest: at 128 a forward of
# SmolLM2 over crossed texts took 1.95 s, at 256 2.25 s, at 64 2.0 s (one core, medians of 3).
ROW_TOKENS = 128
# A row grows up to here if a new one would repeat a long beginning, a system prompt for one. Longer
# texts are not shared: the mask has the square of it.
LONG_ROW_TOKENS = 2048


@dataclass(frozen=True)
class Batch:
    """Tokenised stimuli of one forward pass.

    Attributes
    ----------
    ids : torch.Tensor
        row x column, token ids; the rest of a row is filled.
    mask : torch.Tensor
        row x column, 1 for a token; in a shared batch row x 1 x column x column, what is added to
        the attention scores.
    positions : torch.Tensor or None
        row x column, the position of each token in its text; None where it is the column.
    rows : numpy.ndarray
        Of each stimulus, the row that it lies in.
    columns : tuple of numpy.ndarray
        Of each stimulus, the columns of its tokens, in the order of the text.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor | None
    rows: np.ndarray
    columns: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: str) -> "Batch":
        """The same batch on a device."""
        return replace(
            self,
            ids=self.ids.to(device),
            mask=self.mask.to(device),
            positions=None if self.positions is None else self.positions.to(device),
        )


def padded(ids: Sequence[Sequence[int]], *, filler: int) -> Batch:
    """One row a stimulus, filled up on the right."""
    longest = max(map(len, ids))
    tokens = torch.full((len(ids), longest), filler)
    mask = torch.zeros((len(ids), longest), dtype=torch.long)
    for row, text in enumerate(ids):
        tokens[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return Batch(
        tokens, mask, None, np.arange(len(ids)), tuple(np.arange(len(text)) for text in ids)
    )


def shared(rows: Sequence[Sequence[Sequence[int]]], *, filler: int, dtype: torch.dtype) -> Batch:
    """Rows of token trees.

    Parameters
    ----------
    rows : sequence of sequence of sequence of int
        The texts of each row. Neighbours share what they begin with, so give them in order.
    filler : int
        The token that rows are filled up with.
    dtype : torch.dtype
        Of the model, and of the mask.
    """
    trees = [_Tree() for _ in rows]
    columns = [tree.add(text) for tree, texts in zip(trees, rows, strict=True) for text in texts]
    return _of_trees(trees, columns, [len(texts) for texts in rows], filler=filler, dtype=dtype)


def branched(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], *, filler: int, dtype: torch.dtype
) -> Batch:
    """Rows in which one text goes on several times, as if it were several from there on.

    Parameters
    ----------
    rows : sequence of (sequence of int, sequence of int)
        The text of each row, and how many tokens each of its copies shares with those before it,
        the most first.
    filler, dtype
        As of `shared`.
    """
    trees, columns = [], []
    for text, begins in rows:
        tree = _Tree()
        tree.add(text[: begins[0]])
        columns += [tree.add(text, alike=begin) for begin in begins]
        trees.append(tree)
    return _of_trees(
        trees, columns, [len(begins) for _, begins in rows], filler=filler, dtype=dtype
    )


def _of_trees(
    trees: Sequence["_Tree"],
    columns: Sequence[np.ndarray],
    counts: Sequence[int],
    *,
    filler: int,
    dtype: torch.dtype,
) -> Batch:
    """A row of each tree; texts by their columns, so many in each row."""
    shape = len(trees), max(len(tree.tokens) for tree in trees)
    tokens, positions = np.full(shape, filler), np.zeros(shape, int)
    # What fills a row sees itself, since a softmax over nothing is not a number.
    seen = np.tile(np.eye(shape[1], dtype=bool), (shape[0], 1, 1))
    for row, tree in enumerate(trees):
        tokens[row, : len(tree.tokens)] = tree.tokens
        positions[row, : len(tree.tokens)] = tree.depths
        for alike, path in tree.branches:
            new = slice(path[alike], path[-1] + 1)
            seen[row, new, path[:alike]] = True
            seen[row, new, new] = np.tri(len(path) - alike, dtype=bool)
    mask = torch.zeros(seen.shape, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(~seen), torch.finfo(dtype).min)
    return Batch(
        torch.from_numpy(tokens),
        mask[:, None],
        torch.from_numpy(positions),
        np.repeat(np.arange(len(trees)), counts),
        tuple(columns),
    )


class _Tree:
    """Tokens of texts that begin alike, each different beginning once."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.depths: list[int] = []
        # Of each text with tokens of its own, how many are not, and the columns of all.
        self.branches: list[tuple[int, np.ndarray]] = []
        self._last: Sequence[int] = ()
        self._columns = np.array([], dtype=int)

    def add(self, text: Sequence[int], *, alike: int | None = None) -> np.ndarray:
        """Add a text; gives the columns of its tokens.

        Those that it shares with the text before are found, unless it is said how many they are.
        """
        if alike is None:
            alike = common(self._last, text)
        own = np.arange(len(text) - alike) + len(self.tokens)
        self.tokens += text[alike:]
        self.depths += range(alike, len(text))
        self._last, self._columns = text, np.append(self._columns[:alike], own)
        if len(own):
            self.branches.append((alike, self._columns))
        return self._columns


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that two texts begin with alike."""
    for place, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return place
    return min(len(a), len(b))


def unique_tokens(ids: Sequence[Sequence[int]]) -> int:
    """Number of different beginnings: what sharing leaves to be computed."""
    count, last = 0, []
    for text in sorted(map(list, ids)):
        count += len(text) - common(last, text)
        last = text
    return count


def together(
    ids: Sequence[Sequence[int]], *, share: bool, tokens: int
) -> Iterator[list[np.ndarray]]:
    """Divide stimuli into batches of rows of like length.

    Parameters
    ----------
    ids : sequence of sequence of int
        Token ids of each stimulus.
    share : bool
        Whether texts that begin alike share tokens; if not, each has a row of its own.
    tokens : int
        How many a batch may have, those that fill rows up included; one row always fits.

    Yields
    ------
    list of numpy.ndarray
        The stimuli of each row of a batch. The same stimuli give the same batches.
    """
    rows = _packed(ids) if share else [_Row([one], len(text)) for one, text in enumerate(ids)]
    batch: list[np.ndarray] = []
    for row in sorted(rows, key=lambda row: row.width):
        if batch and (len(batch) + 1) * row.width > tokens:
            yield batch
            batch = []
        batch.append(np.array(row.stimuli))
    yield batch


class _Row(NamedTuple):
    """Stimuli of a row, in the order that they share in, and the tokens that they take."""

    stimuli: list[int]
    width: int


def _packed(ids: Sequence[Sequence[int]]) -> list[_Row]:
    """Texts that begin alike beside each other, each in the last row where it fits, or a new one.

    Those that share nothing stay in the order given, in which they are written fastest.
    """
    by_tokens = sorted(range(len(ids)), key=lambda one: list(ids[one]))
    # What all begin with, a token that opens every text for one, tells none of them apart.
    shown = common(ids[by_tokens[0]], ids[by_tokens[-1]])
    given: dict[Sequence[int], int] = {}
    for one, text in enumerate(ids):
        given.setdefault(tuple(text[shown : shown + 1]), one)
    rows: list[_Row] = []
    last: Sequence[int] = ()
    for one in sorted(by_tokens, key=lambda one: given[tuple(ids[one][shown : shown + 1])]):
        text, alike = ids[one], common(last, ids[one])
        grown = rows[-1].width + len(text) - alike if rows else 0
        room = LONG_ROW_TOKENS if 2 * alike > ROW_TOKENS else max(ROW_TOKENS, len(text))
        if rows and grown <= room:
            rows[-1] = _Row([*rows[-1].stimuli, one], grown)
        else:
            rows.append(_Row([one], len(text)))
        last = text
    return rows
