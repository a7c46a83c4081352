"""What `scanner.shards` wrote, read without a detour: straight from its files into the result.

Plain zarr and xarray read the same arrays and get the same values; they take three times as long
for a layer, and read 2 MB for a row of one. Chunks are found by the index of their shard, so what
another program wrote with the same codecs is read as well.

A chunk of which a quarter of the rows or more is wanted is read whole and held to its checksum.
Fewer rows are read alone and not checked, which would take thirty times as long. Everything is
checked by `scanner.volume.verify_volume`.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
import xarray as xr
from xarray.backends import BackendArray, ZarrStore
from xarray.core import indexing

from scanner.shards import CHECKSUM_BYTES, MISSING, Layout, VolumeError

# The part of a chunk's rows from which on it is read whole: as many single rows take as long.
WHOLE = 1 / 4
# Shards are read by so many threads at once. On two cores, more than two take longer for what lies
# in memory: a thread that has read waits for the interpreter.
THREADS = min(4, os.cpu_count() or 1)
# What is read without them: it takes no longer than to start them.
ALONE_BYTES = 1 << 23


def open_shards(path: Path) -> xr.Dataset:
    """What `xarray.open_zarr` gives, but arrays in shards are read by `ShardArray`.

    Parameters
    ----------
    path : pathlib.Path
        A zarr group. Arrays that are laid out otherwise are left to zarr.

    Returns
    -------
    xarray.Dataset
        Lazy: only indices are read.
    """
    store = _Store.open_group(path, mode="r", consolidated=False)
    store.folder = path
    volume = xr.open_dataset(store)
    volume.encoding["source"] = str(path.absolute())
    return volume


class _Store(ZarrStore):
    folder: Path

    def open_store_variable(self, name: str) -> xr.Variable:
        """A variable as it is stored, which xarray then decodes."""
        variable = super().open_store_variable(name)
        if variable.encoding.get("shards") is None:
            return variable
        try:
            array = ShardArray(self.folder / name)
        except ValueError:  # laid out otherwise
            return variable
        lazy = indexing.LazilyIndexedArray(array)
        return xr.Variable(variable.dims, lazy, variable.attrs, variable.encoding)


class _Part(NamedTuple):
    """What is wanted of a chunk, in each layer.

    Attributes
    ----------
    start, rows : int
        Its first row, and how many of its rows are in the array.
    wanted : range or numpy.ndarray
        Rows counted from the first, in runs of consecutive ones.
    runs : list of slice
    places : slice
        Where they go in the result.
    """

    start: int
    rows: int
    wanted: range | np.ndarray
    runs: list[slice]
    places: slice

    @property
    def all(self) -> bool:
        return len(self.wanted) == self.rows and len(self.runs) == 1


class ShardArray(BackendArray):
    """One array, lazily. It can be pickled, and read by several threads at once.

    Files are open only while values are read, and no more is held in memory than the result and
    one chunk for each of a few threads.

    Parameters
    ----------
    folder : pathlib.Path
        Of the array.

    Raises
    ------
    ValueError
        If it is not laid out as `scanner.shards.create` does it.
    """

    def __init__(self, folder: Path) -> None:
        self._layout = Layout.of(folder)
        self.shape, self.dtype = self._layout.shape, self._layout.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        """The values at places that xarray names.

        Raises
        ------
        VolumeError
            If a shard is missing, cut short or has a wrong index, or a chunk that is read whole a
            wrong checksum. The message names it.
        IndexError
            If a place is outside the array.
        """
        if isinstance(key, indexing.VectorizedIndexer):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self._read
            )
        # Not by the adapter, which fails for some empty slices that go down (xarray 2026.9).
        return self._read(key.tuple)

    def _read(self, key: Sequence[int | slice | np.ndarray]) -> np.ndarray:
        """Of each dimension one place, a slice, or some places, in any order."""
        picks = [_pick(one, size) for one, size in zip(key, self.shape, strict=True)]
        (rows, back), layers, inner = _ordered(picks[0]), range(1), picks[1:]
        if self._layout.layered:
            layers, *inner = inner
        result = np.empty((len(rows), len(layers), *map(len, inner)), self.dtype)
        cuts = [
            (axis, _array(pick))
            for axis, (pick, size) in enumerate(zip(inner, self._layout.row_shape, strict=True), 1)
            if not isinstance(pick, range) or pick != range(size)
        ]

        def read(part: tuple[int, slice]) -> None:
            shard, places = part
            self._read_shard(shard, rows[places], layers, cuts, result[places])

        if result.nbytes > ALONE_BYTES:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(read, _split(rows, self._layout.shard_rows)))
        elif result.size:
            for part in _split(rows, self._layout.shard_rows):
                read(part)
        kept = [len(p) for p, one in zip(picks, key, strict=True) if not _is_number(one)]
        return (result if back is None else result[back]).reshape(kept)

    def _read_shard(
        self,
        shard: int,
        rows: range | np.ndarray,
        layers: range | np.ndarray,
        cuts: list[tuple[int, np.ndarray]],
        result: np.ndarray,
    ) -> None:
        layout, (first, last) = self._layout, self._layout.rows_of(shard)
        try:
            file = os.open(layout.path(shard), os.O_RDONLY)
        except FileNotFoundError:
            raise self._damaged(f"{layout.place(shard)}: no file") from None
        try:
            index = self._index(shard, file)
            parts = [
                _part(rows[places], places, chunk * layout.chunk_rows, layout, last)
                for chunk, places in _split(rows, layout.chunk_rows)
            ]
            for number, layer in enumerate(layers):
                for part in parts:
                    place = (part.start - first) // layout.chunk_rows
                    offset, length = index[place, layer].tolist()
                    target = result[part.places, number]
                    if offset == length == MISSING:  # zarr leaves out a chunk of fill values
                        target[...] = layout.fill
                    elif length != layout.chunk_bytes + CHECKSUM_BYTES or not self._read_chunk(
                        file, offset, part, cuts, target
                    ):
                        raise self._damaged(layout.place(shard, int(layer), part.start))
        finally:
            os.close(file)

    def _read_chunk(
        self,
        file: int,
        offset: int,
        part: "_Part",
        cuts: list[tuple[int, np.ndarray]],
        target: np.ndarray,
    ) -> bool:
        """Read wanted rows of a chunk; whether it is as it was written, as far as was looked."""
        row_shape, row_bytes = self._layout.row_shape, self._layout.row_bytes
        straight = target.flags.c_contiguous and not cuts
        if len(part.wanted) >= WHOLE * part.rows:
            straight = straight and part.all
            rows = target if straight else np.empty((part.rows, *row_shape), self.dtype)
            good = self._read_whole(file, offset, _bytes(rows))
            rows = rows if part.all else rows[_array(part.wanted)]
        else:
            rows = target if straight else np.empty((len(part.wanted), *row_shape), self.dtype)
            good = all(
                _fill(file, [_bytes(rows[run])], offset + int(part.wanted[run.start]) * row_bytes)
                for run in part.runs
            )
        if not straight:
            for axis, cut in cuts:
                rows = rows.take(cut, axis)
            target[...] = rows
        return good

    def _read_whole(self, file: int, offset: int, rows: np.ndarray) -> bool:
        """Read the rows of a chunk that are in the array; whether its checksum is right."""
        # Padding is held to the checksum as well.
        rest = self._layout.chunk_bytes - len(rows)
        tail = np.empty(rest + CHECKSUM_BYTES, np.uint8)
        # At once: between two calls a thread would wait for the interpreter.
        if not _fill(file, [rows, tail], offset):
            return False
        checksum = google_crc32c.extend(google_crc32c.value(rows), tail[:rest])
        return tail[rest:].tobytes() == checksum.to_bytes(CHECKSUM_BYTES, "little")

    def _index(self, shard: int, file: int) -> np.ndarray:
        """Chunk x layer x (offset, length), from the end of a shard."""
        layout, size = self._layout, os.fstat(file).st_size
        length = layout.file_bytes(shard) - layout.data_bytes(shard)
        encoded = os.pread(file, length, max(0, size - length))
        table, checksum = encoded[:-CHECKSUM_BYTES], encoded[-CHECKSUM_BYTES:]
        good = google_crc32c.value(table).to_bytes(CHECKSUM_BYTES, "little") == checksum
        if not good or len(encoded) < length:
            whole = layout.file_bytes(shard)
            reason = "its index is wrong" if size == whole else f"{size} bytes instead of {whole}"
            raise self._damaged(f"{layout.place(shard)}: {reason}")
        return np.frombuffer(table, "<u8").reshape(-1, layout.layers, 2)

    def _damaged(self, place: str) -> VolumeError:
        volume = self._layout.folder.parent
        return VolumeError(
            f"volume {volume}: its bytes are not those that were recorded ({place}). "
            f"Remove it and {volume.with_suffix('.sha256').name}, and record again."
        )


def _part(rows: range | np.ndarray, places: slice, start: int, layout: Layout, last: int) -> _Part:
    """Rows of the chunk that starts there, in a shard that ends with the last."""
    count = min(layout.chunk_rows, last + 1 - start)
    if isinstance(rows, range) and rows.step == 1:
        within = range(rows.start - start, rows.stop - start)
        return _Part(start, count, within, [slice(0, len(rows))], places)
    wanted = _array(rows) - start
    ends = (np.flatnonzero(wanted[1:] - wanted[:-1] != 1) + 1).tolist()
    runs = [slice(*run) for run in zip([0, *ends], [*ends, len(wanted)], strict=True)]
    return _Part(start, count, wanted, runs, places)


def _is_number(one: int | slice | np.ndarray) -> bool:
    return isinstance(one, int | np.integer)


def _pick(one: int | slice | np.ndarray, size: int) -> range | np.ndarray:
    """The places that are meant, of so many."""
    if isinstance(one, slice):
        return range(*one.indices(size))
    places = np.atleast_1d(one)
    outside = (places < -size) | (places >= size)
    if outside.any():
        raise IndexError(f"{places[outside][0]} is not in {-size} to {size - 1}")
    return np.where(places < 0, places + size, places)


def _ordered(rows: range | np.ndarray) -> tuple[range | np.ndarray, slice | np.ndarray | None]:
    """Rows that do not go down, and what brings them into the order given, if it is another."""
    if isinstance(rows, range):
        return (rows, None) if rows.step > 0 else (rows[::-1], slice(None, None, -1))
    return (rows, None) if (rows[1:] >= rows[:-1]).all() else np.unique(rows, return_inverse=True)


def _array(places: range | np.ndarray) -> np.ndarray:
    if isinstance(places, range):
        return np.arange(places.start, places.stop, places.step)
    return places


def _split(rows: range | np.ndarray, length: int) -> Iterator[tuple[int, slice]]:
    """For rows that do not go down: each part of such a length, and where its rows are."""
    start = 0
    while start < len(rows):
        part = int(rows[start]) // length
        stop = bisect_left(rows, (part + 1) * length, start)
        yield part, slice(start, stop)
        start = stop


def _bytes(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(-1).view(np.uint8)


def _fill(file: int, parts: list[np.ndarray], offset: int) -> bool:
    """Read until all are full, one after the other; whether the file is that long."""
    left = [part.data for part in parts]
    while left:
        read = os.preadv(file, left, offset)
        if not read:
            return False
        offset += read
        while left and read >= len(left[0]):
            read -= len(left.pop(0))
        if read:
            left[0] = left[0][read:]
    return True
