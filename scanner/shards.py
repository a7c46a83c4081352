"""Activations to disk as they come: zarr shards, written in place, in any order of rows.

An array of a volume is row x [layer x] whatever a site has. A shard holds some rows in all layers,
an inner chunk some rows in one layer, so that one layer of all rows and all layers of some rows are
both read at once. Chunks are not compressed: the place of each value in its file is known before
any is written, and a row goes there by `os.pwrite`, whichever came before it. Behind each chunk
comes a checksum, and at the end, by `ShardWriter.seal`, the index, without which zarr refuses to
read a file. This is the format ``sharding_indexed`` of zarr v3 [1]_, which plain zarr and xarray
read. Checksums, and the sha256 of a file, are made as soon as all from its beginning up to there
has come: beside the model, not after it.

Within a shard, chunks lie layer by layer, those of a layer by rows, without gaps. Chunks outside
the array are left out. So the index and the size of a file follow from the shape alone.

.. [1] https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import hashlib
import math
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

# Measured with 72000 x 30 x 576 float32 in the page cache, two cores, zarr 3.1.6, medians of 13:
#
# ============  ==============  ==============  =================
# chunk, shard  one layer, all  one row, all    100 rows, all
# in MB         rows: 166 MB    layers: 69 kB   layers: 6.9 MB
# ============  ==============  ==============  =================
# 0.5, 120      353 ms          27 ms           38 ms
# 1, 120        208 ms          25 ms           44 ms
# 2, 120        189 ms          37 ms           39 ms
# 4, 120        184 ms          110 ms          111 ms
# 8, 240        171 ms          204 ms          202 ms
# 16, 450       144 ms          383 ms          392 ms
# ============  ==============  ==============  =================
#
# A layer that lies in a memory-mapped raw file takes 50 ms. Much of the rest is zarr, whatever its
# `async.concurrency`: it stays above 100 ms where checksums are not computed. To
# `scanner.shard_reader` the length of chunks makes little difference.
CHUNK_BYTES = 2_000_000
SHARD_BYTES = 120_000_000
# What is held in memory at once, of values as of what is read back.
PIECE_BYTES = 1 << 20
# What is read back, checksummed and hashed while it is in the processor's cache.
STEP_BYTES = 1 << 18
# How many files a writer keeps open. Many systems allow a process 1024 in all, macOS 256.
OPEN_FILES = max(1, min(32, os.sysconf("SC_OPEN_MAX") // 32))
CHECKSUM_BYTES = 4
MISSING = np.iinfo(np.uint64).max  # offset and length of a chunk that a shard leaves out

# macOS has no fdatasync.
_flush = getattr(os, "fdatasync", os.fsync)


class VolumeError(ValueError):
    """A recording that cannot be used; the message names the file, the place and the mend."""


def create(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    layered: bool,
    dims: tuple[str, ...],
    dtype: np.typing.DTypeLike,
) -> zarr.Array:
    """Lay down the metadata of an array that a `ShardWriter` is to fill.

    Parameters
    ----------
    group : zarr.Group
        Of zarr format 3.
    name : str
    shape : tuple of int
        Row x [layer x] what a site has.
    layered : bool
        Whether the second dimension is the layer.
    dims : tuple of str
        A name for each dimension.
    dtype : numpy dtype
        Of numbers.

    Returns
    -------
    zarr.Array

    Raises
    ------
    ValueError
        If the shape is empty in a dimension, or has not the dimensions that are named.
    """
    if len(shape) != len(dims) or len(shape) < 1 + layered:
        raise ValueError(f"array '{name}': shape {shape} has not the dimensions {dims}")
    if min(shape) < 1:
        empty = dims[shape.index(min(shape))]
        raise ValueError(f"array '{name}': shape {shape} is empty along '{empty}'")
    kind = np.dtype(dtype)
    rows = shape[0]
    layers, row = (shape[1], (1, *shape[2:])) if layered else (1, shape[1:])
    row_bytes = kind.itemsize * math.prod(row)
    # Chunks of even length: the last of each layer is padded, so an odd one would cost disk.
    chunks = -(-rows // max(1, CHUNK_BYTES // row_bytes))
    chunk_rows = -(-rows // chunks)
    chunks = -(-rows // chunk_rows)
    per_shard = min(chunks, max(1, SHARD_BYTES // (chunk_rows * row_bytes * layers)))
    return group.create_array(
        name,
        shape=shape,
        shards=(chunk_rows * per_shard, *shape[1:]),
        chunks=(chunk_rows, *row),
        dtype=kind,
        filters=None,
        compressors=[Crc32cCodec()],
        fill_value=np.nan if kind.kind == "f" else 0,
        dimension_names=dims,
    )


class ShardWriter:
    """Writes the rows of one array into its shards, in any order, and seals them at the end.

    A row that is written again replaces the old one, also in a sealed shard, which has to be sealed
    anew. Which rows are there is for the caller to know: one that never came reads as zeros.
    The bytes of a sealed array follow from its values alone. A shard has one writer at a time;
    several threads may share it.

    Parameters
    ----------
    array_folder : pathlib.Path
        Of an array that `create` made.

    Raises
    ------
    ValueError
        If the array is laid out otherwise.
    """

    def __init__(self, array_folder: Path) -> None:
        self._layout = Layout.of(array_folder)
        self._dirty: set[int] = set()  # shards written since the last sync
        self._named: set[int] = set()  # shards whose folders are on the disk
        self._files: dict[int, int] = {}  # open, by shard
        self._grown: dict[int, _Grown] = {}  # shards that this writer writes
        self._lock = threading.Lock()  # a file that one thread writes to must not be closed
        self._open = True
        weakref.finalize(self, _close, self._files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        self._open = False
        _close(self._files)

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self._layout.dtype

    def write(self, rows: np.ndarray, values: np.ndarray, *, layer: int | None = None) -> None:
        """Write some rows; each at most once in a call, in any order.

        Parameters
        ----------
        rows : numpy.ndarray
            Their numbers.
        values : numpy.ndarray
            Rows x [layer x] the rest, of the array's dtype; without the layer if one is given.
        layer : int, optional
            The one layer to write; all by default.

        Raises
        ------
        ValueError
            If the writer is closed, or rows or values do not fit; then nothing is written.
        OSError
            If the disk is full; some of the rows may then be there.
        """
        layout = self._layout
        if not self._open:
            raise ValueError(f"array '{layout.name}': its writer is closed; open another")
        layout.check(rows, values, layer)
        if (rows[1:] < rows[:-1]).any():
            order = np.argsort(rows)
            rows, values = rows[order], values[order]
        ordered = rows.astype(np.int64, copy=False)
        layout.check_rows(ordered)
        layers = range(layout.layers) if layer is None else range(layer, layer + 1)
        step = max(1, PIECE_BYTES // (len(layers) * layout.row_bytes))
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            with self._lock:
                self._write(ordered[some], values[some], layers)

    def _write(self, rows: np.ndarray, values: np.ndarray, layers: range) -> None:
        """Write rows that are in order."""
        layout, row_bytes, n_layers = self._layout, self._layout.row_bytes, len(layers)
        raw = np.ascontiguousarray(values, layout.dtype).reshape(-1).view(np.uint8).data
        # A run is of consecutive rows, all in one chunk.
        ends = (rows[1:] - rows[:-1] != 1) | (rows[1:] % layout.chunk_rows == 0)
        starts = [0, *(np.flatnonzero(ends) + 1).tolist()]
        last, file, stride = -1, -1, 0
        touched = [self._growing(shard, rows, layers) for shard in _shards(layout, rows)]
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            row = int(rows[start])
            shard = row // layout.shard_rows
            if shard != last:
                last, file, stride = shard, self._file(shard), layout.layer_bytes(shard)
            offset = layers.start * stride + layout.offset_in_layer(row)
            run = raw[start * n_layers * row_bytes : stop * n_layers * row_bytes]
            if n_layers == 1:
                _write(file, run, offset)
                continue
            for layer in range(n_layers):
                places = range(layer * row_bytes, len(run), n_layers * row_bytes)
                part = b"".join([run[place : place + row_bytes] for place in places])
                _write(file, part, offset + layer * stride)
        for grown in touched:
            grown.there(rows, layers)
            grown.go_on(self._file(grown.shard))

    def _growing(self, shard: int, rows: np.ndarray, layers: range) -> "_Grown":
        """What is known of a shard, some rows of which are about to change."""
        grown = self._grown.get(shard)
        if grown is None:
            grown = self._grown[shard] = _Grown(self._layout, shard)
        grown.changes(rows, layers)
        return grown

    def _file(self, shard: int) -> int:
        """The open file of a shard, which counts as changed from now on."""
        self._dirty.add(shard)
        file = self._files.get(shard)
        if file is None:
            # The last that was opened makes room: shards come again and again in rising order, so
            # closing the one that was not used for longest would close the one that comes next.
            while len(self._files) >= OPEN_FILES:
                os.close(self._files.popitem()[1])
            file = self._files[shard] = self._layout.open(shard)
        return file

    def sync(self) -> None:
        """See what was written onto the disk, so that it outlives a crash of the machine."""
        with self._lock:
            for shard in sorted(self._dirty):
                _flush(self._file(shard))
                if shard not in self._named:
                    self._layout.flush_folders(shard)
                self._named.add(shard)
                self._dirty.discard(shard)

    def seal(self, shards: Sequence[int] | None = None) -> dict[str, str]:
        """Make valid shards of the files: padding, checksums, index.

        It can be killed at any time and called again; shards that are sealed are not read again.

        Parameters
        ----------
        shards : sequence of int, optional
            Those that this writer is to seal, where others have writers of their own; all by
            default.

        Returns
        -------
        dict of str to str
            sha256 of each file that was made valid, by its path in the folder of the array.

        Raises
        ------
        ValueError
            If the writer is closed, or there are shards of which no row was written.
        """
        layout = self._layout
        if not self._open:
            raise ValueError(f"array '{layout.name}': its writer is closed; open another")
        # What is sealed has to be opened anew, and to lose its index, before it is written again.
        _close(self._files)
        mine = range(layout.shards) if shards is None else shards
        absent = [shard for shard in mine if not layout.path(shard).is_file()]
        if absent:
            first, last = layout.rows_of(absent[0])
            raise ValueError(
                f"array '{layout.name}': {len(absent)} of {layout.shards} shards were never "
                f"written, the first with rows {first} to {last}; write all rows, then seal"
            )
        open_shards = [shard for shard in mine if not layout.sealed(shard)]
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(self._seal, open_shards))
        self._dirty.clear()
        return {layout.key(one): digest for one, digest in zip(open_shards, digests, strict=True)}

    def _seal(self, shard: int) -> str:
        """Padding and checksums, then the index, which is on the disk only when they are."""
        layout = self._layout
        grown = self._grown.pop(shard, None) or _Grown(layout, shard)
        with layout.writing(shard) as file:
            grown.go_on(file, whole=True)
            _flush(file)
            layout.flush_folders(shard)
            index = layout.index(shard)
            _write(file, index, layout.data_bytes(shard))
            _flush(file)
        return grown.digest(index)

    def close(self) -> None:
        """Sync, and write no more."""
        if self._open:
            self.sync()
        self._open = False
        _close(self._files)


def damaged(array_folder: Path) -> Iterator[str]:
    """Read all shards of a sealed array and name what is not as it was sealed.

    Parameters
    ----------
    array_folder : pathlib.Path
        Of an array that `create` made.

    Yields
    ------
    str
        A shard whose file is missing, of the wrong size, or has a wrong index; a chunk whose
        checksum is wrong: ``resid_post, shard 3, layer 12, rows 4096 to 8191``.

    Raises
    ------
    ValueError
        If the array is laid out otherwise.
    """
    layout = Layout.of(array_folder)
    for shard in range(layout.shards):
        name = layout.place(shard)
        if not layout.path(shard).is_file():
            yield f"{name}: no file"
            continue
        size, whole = layout.path(shard).stat().st_size, layout.file_bytes(shard)
        if size != whole:
            yield f"{name}: {size} bytes instead of {whole}"
            continue
        if not layout.sealed(shard):
            yield f"{name}: its index is wrong"
        with layout.reading(shard) as file:
            for chunk in layout.chunks_of(shard):
                stored = os.pread(file, CHECKSUM_BYTES, chunk.offset + layout.chunk_bytes)
                if stored != _checksum(file, chunk.offset, layout.chunk_bytes):
                    yield layout.place(shard, chunk.layer, chunk.first_row)


@dataclass(frozen=True)
class _Chunk:
    """One inner chunk: rows from the first to the last, some maybe outside the array."""

    offset: int
    layer: int
    first_row: int
    last_row: int


@dataclass(frozen=True)
class Layout:
    """Where everything lies, as it follows from the metadata.

    Attributes
    ----------
    folder : pathlib.Path
    shape : tuple of int
    layered : bool
        Whether the second dimension is the layer.
    chunk_rows, shard_rows : int
    dtype : numpy.dtype
        As it is stored, in little-endian order.
    fill : numpy.ndarray
        One value, what padding is made of.
    keys : str
        The path of a shard in the folder, with its number left open.
    """

    folder: Path
    shape: tuple[int, ...]
    layered: bool
    chunk_rows: int
    shard_rows: int
    dtype: np.dtype
    fill: np.ndarray
    keys: str

    @classmethod
    def of(cls, folder: Path) -> "Layout":
        array = zarr.open_array(folder, mode="r", zarr_format=3)
        shape, chunks, shards = array.shape, array.chunks, array.shards
        sharding = ShardingCodec(chunk_shape=chunks, codecs=[BytesCodec(), Crc32cCodec()])
        found = array.metadata.to_dict()["codecs"]
        if (
            shards is None
            or found != (sharding.to_dict(),)
            or shards[1:] != shape[1:]
            or shards[0] % chunks[0]
            or chunks[2:] != shape[2:]
            or chunks[1:2] not in [(1,), shape[1:2]]
        ):
            raise ValueError(
                f"array '{folder.name}' in {folder.parent}: not laid out by scanner.shards.create "
                f"(shape {shape}, shards {shards}, chunks {chunks}, codecs {found})"
            )
        # A second dimension of length 1 that is no layer may be taken for one: it lies alike.
        layered = chunks[1:2] == (1,)
        stored = array.dtype.newbyteorder("<")
        return cls(
            folder=folder,
            shape=shape,
            layered=layered,
            chunk_rows=chunks[0],
            shard_rows=shards[0],
            dtype=stored,
            fill=np.array(array.fill_value, stored),
            keys="/".join(["c", "{}", *["0"] * (len(shape) - 1)]),
        )

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def rows(self) -> int:
        return self.shape[0]

    @cached_property
    def layers(self) -> int:
        return self.shape[1] if self.layered else 1

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard_rows)

    @cached_property
    def row_shape(self) -> tuple[int, ...]:
        """Of a row in one layer."""
        return self.shape[1 + self.layered :]

    @cached_property
    def row_bytes(self) -> int:
        """Of a row in one layer."""
        return self.dtype.itemsize * math.prod(self.row_shape)

    @cached_property
    def chunk_bytes(self) -> int:
        """Of a chunk without its checksum."""
        return self.chunk_rows * self.row_bytes

    def key(self, shard: int) -> str:
        return self.keys.format(shard)

    def path(self, shard: int) -> Path:
        return self.folder / self.key(shard)

    def rows_of(self, shard: int) -> tuple[int, int]:
        """The first and the last row of a shard."""
        first = shard * self.shard_rows
        return first, min(first + self.shard_rows, self.rows) - 1

    def place(self, shard: int, layer: int | None = None, row: int | None = None) -> str:
        """What messages call a shard, or in it the chunk that begins with a row."""
        first, last = self.rows_of(shard)
        if row is not None:
            first, last = row, min(row + self.chunk_rows - 1, last)
        within = f"layer {layer}, " if self.layered and layer is not None else ""
        return f"{self.name}, shard {shard}, {within}rows {first} to {last}"

    def filled(self, shard: int) -> int:
        """How many chunks of a layer are in the array; the others are left out."""
        first, last = self.rows_of(shard)
        return (last - first) // self.chunk_rows + 1

    def offset(self, shard: int, layer: int, row: int) -> int:
        """Where a row of a layer lies in the file of its shard."""
        return layer * self.layer_bytes(shard) + self.offset_in_layer(row)

    def offset_in_layer(self, row: int) -> int:
        """Where a row lies behind the first of its shard in the same layer."""
        chunk, within = divmod(row % self.shard_rows, self.chunk_rows)
        return chunk * (self.chunk_bytes + CHECKSUM_BYTES) + within * self.row_bytes

    def layer_bytes(self, shard: int) -> int:
        """From a layer to the next in the file of a shard."""
        return self.filled(shard) * (self.chunk_bytes + CHECKSUM_BYTES)

    def data_bytes(self, shard: int) -> int:
        """Where the index of a shard begins."""
        return self.layers * self.layer_bytes(shard)

    def file_bytes(self, shard: int) -> int:
        chunks = self.shard_rows // self.chunk_rows * self.layers
        return self.data_bytes(shard) + chunks * 2 * 8 + CHECKSUM_BYTES

    def chunks_of(self, shard: int) -> Iterator[_Chunk]:
        """The chunks of a shard, in the order of the file."""
        first, last = self.rows_of(shard)
        for layer in range(self.layers):
            for row in range(first, last + 1, self.chunk_rows):
                yield _Chunk(self.offset(shard, layer, row), layer, row, row + self.chunk_rows - 1)

    def index(self, shard: int) -> bytes:
        """Offset and length of each chunk, by rows and then by layers; a checksum of that."""
        table = np.full((self.shard_rows // self.chunk_rows, self.layers, 2), MISSING, "<u8")
        first = shard * self.shard_rows
        for chunk in self.chunks_of(shard):
            place = (chunk.first_row - first) // self.chunk_rows
            table[place, chunk.layer] = chunk.offset, self.chunk_bytes + CHECKSUM_BYTES
        encoded = table.tobytes()
        return encoded + _little_endian(google_crc32c.value(encoded))

    def sealed(self, shard: int) -> bool:
        """Whether a file ends in the index of its shard, which is written after all else."""
        if self.path(shard).stat().st_size != self.file_bytes(shard):
            return False
        index = self.index(shard)
        with self.reading(shard) as file:
            return os.pread(file, len(index), self.data_bytes(shard)) == index

    def check(self, rows: np.ndarray, values: np.ndarray, layer: int | None) -> None:
        """Refuse rows, values and a layer that do not fit."""
        if layer is not None and not (self.layered and 0 <= layer < self.layers):
            raise ValueError(f"array '{self.name}': there is no layer {layer}")
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise ValueError(
                f"array '{self.name}': rows are {rows.dtype} of shape {rows.shape}; "
                "give a list of whole numbers"
            )
        wanted = (len(rows), *self.shape[1 if layer is None else 2 :])
        if values.shape != wanted or values.dtype.newbyteorder("<") != self.dtype:
            raise ValueError(
                f"array '{self.name}': values are {values.dtype} of shape {values.shape}; "
                f"{len(rows)} rows are {self.dtype} of shape {wanted}"
            )

    def check_rows(self, ordered: np.ndarray) -> None:
        """Refuse rows that are not in the array, or given twice."""
        if len(ordered) and not 0 <= ordered[0] <= ordered[-1] < self.rows:
            outside = ordered[0] if ordered[0] < 0 else ordered[-1]
            raise ValueError(f"array '{self.name}': row {outside} is not in 0 to {self.rows - 1}")
        if (ordered[1:] == ordered[:-1]).any():
            raise ValueError(f"array '{self.name}': a row is given twice; give it once")

    @contextmanager
    def reading(self, shard: int) -> Iterator[int]:
        file = os.open(self.path(shard), os.O_RDONLY)
        try:
            yield file
        finally:
            os.close(file)

    def flush_folders(self, shard: int) -> None:
        """See onto the disk that a new file is there."""
        for folder in self.path(shard).parents[: len(self.shape)]:
            flush_folder(folder)

    def open(self, shard: int) -> int:
        """A shard's file, without its index: what is about to change is not sealed any more."""
        path = self.path(shard)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if os.fstat(file).st_size > self.data_bytes(shard):
                os.ftruncate(file, self.data_bytes(shard))
        except BaseException:
            os.close(file)
            raise
        return file

    @contextmanager
    def writing(self, shard: int) -> Iterator[int]:
        file = self.open(shard)
        try:
            yield file
        finally:
            os.close(file)


def flush_folder(path: Path) -> None:
    """See onto the disk what names a folder holds."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _close(files: dict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])


def _shards(layout: Layout, rows: np.ndarray) -> list[int]:
    """The shards of rows that are in order."""
    return np.unique(rows // layout.shard_rows).tolist()


class _Grown:
    """How far a shard's file is as it will be: its beginning, as far as all rows have come.

    Of each chunk of it the checksum is in the file, and all of it is in the digest. It holds a byte
    for each row and layer.

    Attributes
    ----------
    shard : int
    """

    def __init__(self, layout: Layout, shard: int) -> None:
        self.shard, self._layout = shard, layout
        self._first, last = layout.rows_of(shard)
        self._chunks = list(layout.chunks_of(shard))
        self._missing = np.ones((layout.layers, last + 1 - self._first), bool)
        self._done, self._sha256 = 0, hashlib.sha256()  # chunks, and their bytes

    def _within(self, rows: np.ndarray) -> np.ndarray:
        """Of rows in order, those of this shard, counted from its first."""
        start, stop = np.searchsorted(rows, [self._first, self._first + self._missing.shape[1]])
        return rows[start:stop] - self._first

    def changes(self, rows: np.ndarray, layers: range) -> None:
        """Take note that rows are going to be written, maybe again."""
        chunk = int(self._within(rows)[0]) // self._layout.chunk_rows
        if layers.start * self._layout.filled(self.shard) + chunk < self._done:
            self._done, self._sha256 = 0, hashlib.sha256()

    def there(self, rows: np.ndarray, layers: range) -> None:
        """Take note that rows have been written."""
        self._missing[layers.start : layers.stop, self._within(rows)] = False

    def go_on(self, file: int, *, whole: bool = False) -> None:
        """Go on up to a chunk of which rows are missing, or to the end: they read as zeros then."""
        layout = self._layout
        for chunk in self._chunks[self._done :]:
            start = chunk.first_row - self._first
            if not whole and self._missing[chunk.layer, start : start + layout.chunk_rows].any():
                return
            end = chunk.offset + layout.chunk_bytes
            padding = chunk.last_row + 1 - layout.rows
            if padding > 0:
                _pad(layout, file, end, padding)
            checksum = _checksum(file, chunk.offset, layout.chunk_bytes, self._sha256)
            _write(file, checksum, end)
            self._sha256.update(checksum)
            self._done += 1

    def digest(self, index: bytes) -> str:
        """sha256 of the whole file, given what it ends with."""
        self._sha256.update(index)
        return self._sha256.hexdigest()


def _pad(layout: Layout, file: int, end: int, rows: int) -> None:
    """Fill up the last rows of a chunk that ends there."""
    start, step = end - rows * layout.row_bytes, PIECE_BYTES // layout.dtype.itemsize
    for offset in range(start, end, step * layout.dtype.itemsize):
        left = (end - offset) // layout.dtype.itemsize
        _write(file, np.repeat(layout.fill, min(step, left)).tobytes(), offset)


def _checksum(file: int, offset: int, length: int, sha256: Any = None) -> bytes:
    """The crc32c of a part of a file, as zarr stores it; a digest is told the same bytes."""
    checksum, end = 0, offset + length
    while offset < end:
        piece = os.pread(file, min(STEP_BYTES, end - offset), offset)
        # Past the end of a file that has not grown so far lie zeros, as in a hole.
        piece = piece or bytes(min(STEP_BYTES, end - offset))
        checksum = google_crc32c.extend(checksum, piece)
        if sha256 is not None:
            sha256.update(piece)
        offset += len(piece)
    return _little_endian(checksum)


def _little_endian(checksum: int) -> bytes:
    return checksum.to_bytes(CHECKSUM_BYTES, "little")


def _write(file: int, content: memoryview | bytes, offset: int) -> None:
    """Write all of it: the system may take less than it is given."""
    written = os.pwrite(file, content, offset)
    while written < len(content):
        written += os.pwrite(file, memoryview(content)[written:], offset + written)
