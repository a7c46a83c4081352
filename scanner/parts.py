"""Parts of a recording: what several processes compute of one volume, each in files of its own.

Batches hold texts of like length, so each has rows of nearly all shards: no process could write
whole shards alone. So it is done in two steps. A *part* is what some batches give, all rows of each
array in order, in a folder that one process writes and renames when it is whole. When all parts are
there, each *shard* is put together from them, again by one process. No file has two writers, which
file systems of networks do not bear, and what dies costs the part or the shard that it was at.
"""

import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanner.shards import Layout, ShardWriter, flush_folder
from scanner.streaming import note
from scanner.volume import JOURNAL, PARTS

# What a process holds before it writes: a part has as many batches as fit, or one.
PART_BYTES = 64_000_000
# Parts of a recording for each process: what is lost with one that dies, and at the end waited for.
PARTS_EACH = 4


class PartWriter:
    """Holds the rows of one array that a part has, and writes them in order when all are there.

    Parameters
    ----------
    array_folder : pathlib.Path
        Of an array that `shards.create` made.
    folder : pathlib.Path
        Of the part.
    """

    def __init__(self, array_folder: Path, folder: Path) -> None:
        self._layout, self._folder = Layout.of(array_folder), folder
        self._held: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._lock = threading.Lock()

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self._layout.dtype

    def write(self, rows: np.ndarray, values: np.ndarray, *, layer: int | None = None) -> None:
        """Hold some rows of a layer, or of an array without layers.

        Raises
        ------
        ValueError
            If rows or values do not fit.
        """
        self._layout.check(rows, values, layer)
        with self._lock:  # a copy: what is given may lie in memory that a GPU needs again
            self._held.setdefault(layer or 0, []).append((rows.copy(), values.copy()))

    def sync(self) -> None:
        """Nothing is on the disk before the end."""

    def seal(self) -> dict[str, str]:
        """Write all rows: layer x row x the rest, and their numbers."""
        layers = [_in_order(self._held[layer]) for layer in sorted(self._held)]
        rows = layers[0][0]
        assert all(np.array_equal(rows, other) for other, _ in layers)
        for name, array in (("rows", rows), ("values", np.stack([one for _, one in layers]))):
            with (self._folder / f"{self._layout.name}.{name}.npy").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        return {}


def _in_order(held: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.concatenate([some for some, _ in held])
    order = np.argsort(rows)
    return rows[order], np.concatenate([values for _, values in held])[order]


@dataclass(frozen=True)
class Part:
    """A part that is on the disk.

    Attributes
    ----------
    folder : pathlib.Path
    batches : range
        The numbers of its batches.
    """

    folder: Path
    batches: range

    def rows(self, array: str) -> np.ndarray:
        """Numbers of the rows that it has of an array, ascending."""
        return np.load(self.folder / f"{array}.rows.npy", mmap_mode="r")

    def values(self, array: str) -> np.ndarray:
        """layer x row x the rest; of an array without layers, one of them."""
        return np.load(self.folder / f"{array}.values.npy", mmap_mode="r")


def parts_of(partial: Path) -> list[Part]:
    """The parts of a volume that is being recorded."""
    found = []
    for folder in sorted((partial / PARTS).glob("[0-9]*")):
        first, _, last = folder.name.partition("-")
        found.append(Part(folder, range(int(first), int(last) + 1)))
    return found


def staged(partial: Path) -> Path:
    """A folder to write a part into; nobody else has it."""
    folder = partial / PARTS / f".{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    return folder


def put(staging: Path, partial: Path, batches: range) -> None:
    """Give a part its name. One that is there already, from a process thought dead, is the same."""
    whole = partial / PARTS / f"{batches[0]:08d}-{batches[-1]:08d}"
    flush_folder(staging)
    try:
        os.rename(staging, whole)
    except OSError:
        if not whole.is_dir():
            raise
        shutil.rmtree(staging)
    flush_folder(whole.parent)


def divide(left: Sequence[int], sizes: Sequence[int], processes: int) -> Iterator[range]:
    """Runs of batches that are a part each.

    Parameters
    ----------
    left : sequence of int
        Numbers of the batches that are not there yet, ascending.
    sizes : sequence of int
        Bytes that each of them gives.
    processes : int
        That are to have about `PARTS_EACH` parts each.
    """
    most = min(PART_BYTES, sum(sizes) // (PARTS_EACH * processes))
    first, last, held = None, -1, 0
    for number, size in zip(left, sizes, strict=True):
        if first is not None and (number != last + 1 or held + size > most):
            yield range(first, last + 1)
            first = None
        if first is None:
            first, held = number, 0
        last, held = number, held + size
    if first is not None:
        yield range(first, last + 1)


def journalled(journal: Path) -> list[int]:
    """Batches that are in the shards. A line that was being written when killed does not count."""
    if not journal.is_file():
        return []
    *lines, unfinished = journal.read_bytes().split(b"\n")
    if unfinished:  # in one step: to write the rest anew could be killed, and lose it
        os.truncate(journal, journal.stat().st_size - len(unfinished))
    return [int(line) for line in lines]


def shards_of(partial: Path, arrays: Iterable[str]) -> dict[str, int]:
    """How many shards each array has."""
    return {array: Layout.of(partial / array).shards for array in arrays}


def missing(partial: Path, batches: int) -> list[int]:
    """Of so many batches, those that are neither in the shards nor in parts."""
    there = {number for part in parts_of(partial) for number in part.batches}
    there |= set(journalled(partial / JOURNAL))
    return [number for number in range(batches) if number not in there]


def assemble(partial: Path, array: str, shard: int, found: Sequence[Part]) -> dict[str, str]:
    """Put a shard together and seal it; one that is sealed is left as it is.

    Parameters
    ----------
    partial : pathlib.Path
    array : str
    shard : int
    found : sequence of Part
        All of them. They are told and not looked for: a folder of a network may be listed as it
        was a while ago, and what is not listed would be zeros.

    Returns
    -------
    dict of str to str
        sha256 of its file, by its path in the volume; empty where it was sealed before.
    """
    layout = Layout.of(partial / array)
    if layout.path(shard).is_file() and layout.sealed(shard):
        return {}
    with ShardWriter(partial / array) as writer:
        _fill(writer, layout, shard, found)
        sealed = writer.seal([shard])
    return {f"{array}/{key}": sha256 for key, sha256 in sealed.items()}


def absorb(partial: Path, arrays: Iterable[str]) -> None:
    """Take all parts into the shards, and note their batches: one process goes on from there."""
    found = parts_of(partial)
    for array in arrays if found else ():
        layout = Layout.of(partial / array)
        with ShardWriter(partial / array) as writer:
            for shard in range(layout.shards):
                _fill(writer, layout, shard, found)
    finish(partial)


def finish(partial: Path) -> None:
    """Note the batches of parts that are in the shards now, and remove the parts."""
    found = parts_of(partial)
    if found:
        note(partial / JOURNAL, [number for part in found for number in part.batches])
    shutil.rmtree(partial / PARTS, ignore_errors=True)


def _fill(writer: ShardWriter, layout: Layout, shard: int, parts: Sequence[Part]) -> None:
    """Write what parts have of a shard, in the order of its file."""
    first, last = layout.rows_of(shard)
    there = []
    for part in parts:
        rows = part.rows(layout.name)
        start, stop = np.searchsorted(rows, [first, last + 1])
        if start < stop:
            there.append((np.array(rows[start:stop]), part.values(layout.name)[:, start:stop]))
    for layer in range(layout.layers):
        for rows, values in there:
            # Without a layer: a layout takes any second dimension of length 1 for one.
            which = layer if values.ndim == len(layout.shape) else None
            writer.write(rows, np.ascontiguousarray(values[layer]), layer=which)
