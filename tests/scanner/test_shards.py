"""Shards written in place are what zarr reads, in whatever order and however often killed."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from scanner import shards
from scanner.shards import ShardWriter, create, damaged

SHAPES = {  # name: shape, layered
    "layers": ((53, 3, 8), True),
    "heads": ((53, 3, 4, 2), True),
    "three": ((53, 2, 2, 2, 2), True),
    "flat": ((101, 8), False),
    "flat heads": ((53, 4, 2), False),
    "one layer": ((53, 1, 8), True),
    "one row": ((1, 3, 8), True),
    "whole shards": ((63, 3, 8), True),
}
DIMS = ("stimulus", "layer", "head", "unit", "part")


@pytest.fixture(autouse=True)
def flushed(monkeypatch) -> list[int]:
    """The files and folders that would have been flushed, which takes long: their inodes."""
    inodes = []

    def remember(file: int) -> None:
        inodes.append(os.fstat(file).st_ino)

    monkeypatch.setattr(shards, "_flush", remember)
    monkeypatch.setattr(os, "fsync", remember)
    return inodes


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Seven rows of 8 float32 a chunk, three chunks of three layers a shard, two rows a piece."""
    monkeypatch.setattr(shards, "CHUNK_BYTES", 7 * 32)
    monkeypatch.setattr(shards, "SHARD_BYTES", 3 * 3 * 7 * 32)
    monkeypatch.setattr(shards, "PIECE_BYTES", 64)
    monkeypatch.setattr(shards, "STEP_BYTES", 48)


def empty(folder: Path, shape=(53, 3, 8), layered=True, dtype="float32") -> Path:
    """A volume with one array and nothing in it; the folder of the array."""
    group = zarr.create_group(folder, zarr_format=3)
    dims = (
        DIMS[: len(shape)] if layered else ("stimulus", "head", "unit")[: len(shape) - 1] + ("end",)
    )
    create(group, "resid_post", shape=shape, layered=layered, dims=dims, dtype=dtype)
    return folder / "resid_post"


def some_values(shape=(53, 3, 8), dtype="float32") -> np.ndarray:
    values = 100 * np.random.default_rng(0).standard_normal(shape)
    values.flat[0] = -0.0
    return values.astype(dtype)


def fill(folder: Path, values: np.ndarray, *, rng: np.random.Generator | None = None) -> Path:
    """Write all rows: at once, or in random groups, in any order, by several writers."""
    if rng is None:
        with ShardWriter(folder) as writer:
            writer.write(np.arange(len(values)), values)
            writer.seal()
        return folder
    rows = rng.permutation(len(values))
    cuts = np.sort(rng.integers(0, len(rows) + 1, size=6))
    for group in np.split(rows, cuts):
        with ShardWriter(folder) as writer:
            writer.write(group, values[group])
    with ShardWriter(folder) as writer:
        writer.seal()
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "float64"])
@pytest.mark.parametrize("name", SHAPES)
def test_zarr_and_xarray_read_what_was_written(tmp_path, name, dtype):
    shape, layered = SHAPES[name]
    values = some_values(shape, dtype)
    for seed in range(3):
        folder = empty(tmp_path / f"{seed}", shape, layered, dtype)
        fill(folder, values, rng=np.random.default_rng(seed))
        array = zarr.open_array(folder, mode="r")
        assert array.dtype == np.dtype(dtype)
        assert np.asarray(array[:]).tobytes() == values.tobytes()
        site = xr.open_zarr(folder.parent, consolidated=False)["resid_post"]
        assert site.dtype == np.dtype(dtype)
        assert site.dims[0] == "stimulus"
        assert site.to_numpy().tobytes() == values.tobytes()
        for row in (0, shape[0] // 2, shape[0] - 1):
            assert np.array_equal(site.isel(stimulus=row), values[row])
        if layered:
            for layer in range(shape[1]):
                assert np.array_equal(site.isel(layer=layer), values[:, layer])
        assert not list(damaged(folder))


@pytest.mark.parametrize("name", SHAPES)
def test_bytes_do_not_depend_on_the_way_of_writing(tmp_path, name):
    shape, layered = SHAPES[name]
    values = some_values(shape)
    plain = files(fill(empty(tmp_path / "plain", shape, layered), values))
    assert len(plain) == 1 + -(
        -shape[0] // zarr.open_array(tmp_path / "plain/resid_post").shards[0]
    )
    for seed in range(5):
        folder = fill(
            empty(tmp_path / f"{seed}", shape, layered), values, rng=np.random.default_rng(seed)
        )
        assert files(folder) == plain
    assert files(fill(empty(tmp_path / "other", shape, layered), values + 1)) != plain


def test_layers_written_one_by_one_give_the_same_bytes(tmp_path):
    values = some_values((53, 3, 4, 2))
    plain = files(fill(empty(tmp_path / "plain", values.shape), values))
    folder = empty(tmp_path / "layers", values.shape)
    rng = np.random.default_rng(0)
    with ShardWriter(folder) as writer:
        for layer in (2, 0, 1):
            for rows in np.split(rng.permutation(53), [20, 21]):
                writer.write(rows, values[rows, layer], layer=layer)
        writer.seal()
        assert files(folder) == plain
        with pytest.raises(ValueError, match="there is no layer 3"):
            writer.write(np.arange(53), values[:, 0], layer=3)
        with pytest.raises(ValueError, match=r"53 rows are float32 of shape \(53, 4, 2\)"):
            writer.write(np.arange(53), values, layer=1)
    flat = empty(tmp_path / "flat", (53, 8), layered=False)
    with pytest.raises(ValueError, match="there is no layer 0"), ShardWriter(flat) as writer:
        writer.write(np.arange(53), some_values((53, 8)), layer=0)


def test_values_in_any_memory_layout(tmp_path):
    values = some_values()
    plain = files(fill(empty(tmp_path / "plain"), values))
    assert files(fill(empty(tmp_path / "columns"), np.asfortranarray(values))) == plain
    strided = np.repeat(values, 2, axis=0)[::2]
    assert files(fill(empty(tmp_path / "strided"), strided)) == plain
    swapped = values.astype(values.dtype.newbyteorder(">"))
    assert files(fill(empty(tmp_path / "swapped"), swapped)) == plain


def test_a_row_written_again_replaces_the_old_one_also_when_sealed(tmp_path):
    values = some_values()
    plain = files(fill(empty(tmp_path / "plain"), values))
    folder = empty(tmp_path / "again")
    wrong = values.copy()
    wrong[[3, 30]] = 7
    fill(folder, wrong)
    assert files(folder) != plain
    with ShardWriter(folder) as writer:
        writer.write(np.array([30, 3]), values[[30, 3]])
        with pytest.raises(ValueError):
            zarr.open_array(folder, mode="r")[:]
        writer.seal()
    assert files(folder) == plain


def test_chunks_outside_the_array_are_left_out_and_edges_padded(tmp_path):
    folder = fill(empty(tmp_path / "v"), some_values())
    array = zarr.open_array(folder, mode="r")
    rows, padded = array.shards[0], -(-53 // array.chunks[0]) * array.chunks[0]
    assert 53 % rows and 53 % array.chunks[0]
    slot = array.chunks[0] * 32 + 4
    last = (folder / f"c/{53 // rows}/0/0").read_bytes()
    chunks = (padded - 53 // rows * rows) // array.chunks[0]
    assert chunks < rows // array.chunks[0]
    assert len(last) == 3 * chunks * slot + 3 * rows // array.chunks[0] * 16 + 4
    end = chunks * slot - 4  # of the first layer
    padding = np.frombuffer(last[end - (padded - 53) * 32 : end], "<f4")
    assert np.isnan(padding).all()
    index = np.frombuffer(last[3 * chunks * slot : -4], "<u8").reshape(-1, 3, 2)
    assert (index[chunks:] == 2**64 - 1).all()
    assert sorted(index[:chunks, :, 0].flat) == list(range(0, 3 * chunks * slot, slot))
    assert (index[:chunks, :, 1] == slot).all()


@pytest.mark.parametrize("place", ["first", "middle", "checksum", "padding"])
def test_one_flipped_byte_stops_zarr_and_is_named(tmp_path, place):
    folder = fill(empty(tmp_path / "v"), some_values())
    array = zarr.open_array(folder, mode="r")
    chunk = array.chunks[0]
    per_shard = array.shards[0] // chunk
    slot = chunk * 32 + 4
    # The second layer of the last shard, its last chunk.
    shard = 53 // array.shards[0]
    here = (53 - 1) // chunk - shard * per_shard
    in_layer = (53 - 1) // chunk - shard * per_shard + 1
    start = (in_layer + here) * slot
    within = {"first": 0, "middle": 37, "checksum": slot - 2, "padding": slot - 5}[place]
    path = folder / f"c/{shard}/0/0"
    content = bytearray(path.read_bytes())
    content[start + within] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum do not match"):
        array[:, 1]
    assert np.array_equal(array[:, 0], some_values()[:, 0])
    first = (53 - 1) // chunk * chunk
    assert list(damaged(folder)) == [f"resid_post, shard {shard}, layer 1, rows {first} to 52"]


def test_every_chunk_can_be_named(tmp_path):
    folder = fill(empty(tmp_path / "v"), some_values())
    array = zarr.open_array(folder, mode="r")
    slot = array.chunks[0] * 32 + 4
    wanted = []
    for shard in range(-(-53 // array.shards[0])):
        path = folder / f"c/{shard}/0/0"
        content = bytearray(path.read_bytes())
        first, end = shard * array.shards[0], min(53, (shard + 1) * array.shards[0])
        starts = range(first, end, array.chunks[0])
        for number, (layer, start) in enumerate((y, x) for y in range(3) for x in starts):
            content[number * slot + 5] ^= 0x80
            last = min(start + array.chunks[0], 53) - 1
            wanted.append(f"resid_post, shard {shard}, layer {layer}, rows {start} to {last}")
        path.write_bytes(content)
    assert list(damaged(folder)) == wanted


def test_missing_and_truncated_shards_and_a_wrong_index_are_named(tmp_path):
    folder = fill(empty(tmp_path / "v"), some_values())
    (folder / "c/0/0/0").unlink()
    whole = (folder / "c/1/0/0").stat().st_size
    os.truncate(folder / "c/1/0/0", whole - 1)
    content = bytearray((folder / "c/2/0/0").read_bytes())
    content[-10] ^= 1
    (folder / "c/2/0/0").write_bytes(content)
    rows = zarr.open_array(folder, mode="r").shards[0]
    assert list(damaged(folder)) == [
        f"resid_post, shard 0, rows 0 to {rows - 1}: no file",
        f"resid_post, shard 1, rows {rows} to {2 * rows - 1}: {whole - 1} bytes instead of {whole}",
        f"resid_post, shard 2, rows {2 * rows} to 52: its index is wrong",
    ]


def test_an_array_without_layers_names_none(tmp_path):
    folder = fill(empty(tmp_path / "v", (53, 8), layered=False), some_values((53, 8)))
    content = bytearray((folder / "c/0/0").read_bytes())
    content[0] ^= 1
    (folder / "c/0/0").write_bytes(content)
    last = zarr.open_array(folder, mode="r").chunks[0] - 1
    assert list(damaged(folder)) == [f"resid_post, shard 0, rows 0 to {last}"]


@pytest.mark.parametrize("way", ["killed", "after a part", "full disk"])
def test_a_seal_cut_short_at_any_write_is_taken_up_again(tmp_path, monkeypatch, way):
    values, pwrite = some_values(), os.pwrite
    plain = files(fill(empty(tmp_path / "plain"), values))
    folder = empty(tmp_path / "cut")
    with ShardWriter(folder) as writer:
        writer.write(np.arange(53), values)
    left = 0

    def cut(file, content, offset):
        nonlocal left
        left -= 1
        if left >= 0:
            return pwrite(file, content, offset)
        if way == "after a part":
            pwrite(file, content[: len(content) // 2], offset)
        raise OSError(errno.ENOSPC, "No space left") if way == "full disk" else KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", cut)
    cuts = 0
    while True:
        left = cuts
        try:
            ShardWriter(folder).seal()
        except (KeyboardInterrupt, OSError):
            cuts += 1
            with pytest.raises(ValueError):
                np.asarray(zarr.open_array(folder, mode="r")[:])
            assert list(damaged(folder))
        else:
            break
    assert cuts > 5
    assert files(folder) == plain


def test_sealing_twice_reads_nothing_again(tmp_path, monkeypatch):
    folder = fill(empty(tmp_path / "v"), some_values())
    before = files(folder)

    def refuse(*_):
        raise AssertionError("a sealed chunk was read again")

    monkeypatch.setattr(shards, "_checksum", refuse)
    with ShardWriter(folder) as writer:
        writer.seal()
        assert files(folder) == before
        writer.write(np.array([0]), some_values()[:1])
        with pytest.raises(AssertionError, match="read again"):
            writer.seal()


def hashed(folder: Path) -> dict[str, str]:
    """The sha256 of each file of shards, as it lies on the disk."""
    found = files(folder / "c")
    return {f"c/{name}": hashlib.sha256(content).hexdigest() for name, content in found.items()}


@pytest.mark.parametrize("name", SHAPES)
def test_a_seal_gives_the_sha256_of_the_files_as_they_are(tmp_path, name):
    shape, layered = SHAPES[name]
    values, rng = some_values(shape), np.random.default_rng(1)
    folder = empty(tmp_path / "v", shape, layered)
    with ShardWriter(folder) as writer:
        for rows in np.array_split(rng.permutation(shape[0]), 5):
            for layer in rng.permutation(shape[1]) if layered else [None]:
                some = values[rows] if layer is None else values[rows, layer]
                writer.write(rows, some, layer=layer)
        sealed = writer.seal()
        assert sealed and sealed == hashed(folder)
        assert writer.seal() == {}  # what was sealed before is not hashed again
    assert files(folder) == files(fill(empty(tmp_path / "plain", shape, layered), values))


def test_what_has_come_from_the_beginning_is_hashed_before_the_seal(tmp_path, monkeypatch):
    folder, values = empty(tmp_path / "v"), some_values()
    with ShardWriter(folder) as writer:
        writer.write(np.arange(1, 53), values[1:])
        read, checksum = [], shards._checksum
        monkeypatch.setattr(shards, "_checksum", lambda *a: read.append(a[1]) or checksum(*a))
        writer.seal()
        assert len(read) == 9  # of the first shard nothing was whole up to then
        read.clear()
        writer.write(np.arange(53), values)
        assert len(read) == 9 + 9 + 6
        read.clear()
        assert writer.seal() == hashed(folder)
        assert not read


def test_a_row_that_comes_again_after_it_was_hashed_is_hashed_anew(tmp_path):
    folder, values = empty(tmp_path / "v"), some_values()
    with ShardWriter(folder) as writer:
        writer.write(np.arange(53), -values)
        for row, layer in ((0, 0), (30, 2), (52, 1)):
            writer.write(np.array([row]), values[[row], layer], layer=layer)
        assert writer.seal() == hashed(folder)
    assert not list(damaged(folder))
    read = zarr.open_array(folder, mode="r")[:]
    np.testing.assert_array_equal(read[0, 0], values[0, 0])
    np.testing.assert_array_equal(read[0, 1], -values[0, 1])


def test_what_another_writer_began_is_hashed_at_the_seal(tmp_path):
    folder, values = empty(tmp_path / "v"), some_values()
    with ShardWriter(folder) as writer:
        writer.write(np.arange(0, 53, 2), values[::2])
    with ShardWriter(folder) as writer:
        writer.write(np.arange(1, 53, 2), values[1::2])
        assert writer.seal() == hashed(folder)


def test_unsealed_files_are_not_valid(tmp_path):
    folder = empty(tmp_path / "v")
    with ShardWriter(folder) as writer:
        writer.write(np.arange(53), some_values())
        writer.sync()
        for layer in range(3):
            with pytest.raises(ValueError):
                zarr.open_array(folder, mode="r")[:, layer]
    assert len(list(damaged(folder))) == 3


def test_a_full_disk_is_an_oserror_and_with_room_it_goes_on(tmp_path, monkeypatch):
    values, pwrite = some_values(), os.pwrite
    plain = files(fill(empty(tmp_path / "plain"), values))
    folder = empty(tmp_path / "full")
    room = 500

    def limited(file, content, offset):
        nonlocal room
        taken = min(room, len(content))
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room -= taken
        return pwrite(file, content[:taken], offset)

    monkeypatch.setattr(os, "pwrite", limited)
    with pytest.raises(OSError, match="No space left"), ShardWriter(folder) as writer:
        writer.write(np.arange(53), values)
    monkeypatch.setattr(os, "pwrite", lambda file, content, at: pwrite(file, content[:11], at))
    assert files(fill(folder, values)) == plain


def test_consecutive_rows_go_in_one_write_a_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PIECE_BYTES", 1 << 20)
    folder, pwrite, calls = empty(tmp_path / "v"), os.pwrite, []

    def counted(file, content, offset):
        calls.append(len(content))
        return pwrite(file, content, offset)

    monkeypatch.setattr(os, "pwrite", counted)
    with ShardWriter(folder) as writer:
        writer.write(np.array([4, 1, 20, 3, 2]), some_values((5, 3, 8)))
    assert calls == [4 * 32] * 3 + [32] * 3


def test_sync_flushes_what_was_written_and_no_more(tmp_path, flushed):
    folder = empty(tmp_path / "v")
    fill(folder, some_values())
    inodes = [
        [(folder / place).stat().st_ino for place in (f"c/{shard}/0/0", f"c/{shard}/0", "c")]
        for shard in range(3)
    ]
    flushed.clear()
    with ShardWriter(folder) as writer:
        writer.sync()
        assert not flushed
        writer.write(np.array([50, 1]), some_values()[:2])
        writer.sync()
        assert {*inodes[0], *inodes[2]} <= set(flushed)
        assert inodes[1][0] not in flushed
        flushed.clear()
        writer.write(np.array([2]), some_values()[:1])
        writer.sync()
        assert flushed == [inodes[0][0]]  # its folders are there by now
        writer.write(np.array([2]), some_values()[:1])
    assert flushed == [inodes[0][0]] * 2


def test_checksums_are_on_the_disk_before_the_index(tmp_path, monkeypatch):
    folder, sizes = empty(tmp_path / "v"), {}
    with ShardWriter(folder) as writer:
        writer.write(np.arange(53), some_values())

    def remember(file):  # shards are sealed at once
        seen = os.fstat(file)
        sizes.setdefault(seen.st_ino, []).append(seen.st_size)

    monkeypatch.setattr(shards, "_flush", remember)
    ShardWriter(folder).seal()
    assert len(sizes) == 3
    for shard in range(3):
        whole = (folder / f"c/{shard}/0/0").stat()
        assert sizes[whole.st_ino] == [whole.st_size - 3 * 3 * 16 - 4, whole.st_size]


def test_what_does_not_fit_is_refused(tmp_path):
    folder, values = empty(tmp_path / "v"), some_values()
    with ShardWriter(folder) as writer:
        with pytest.raises(ValueError, match="values are float64 of .* rows are float32 of shape"):
            writer.write(np.arange(53), values.astype("float64"))
        with pytest.raises(ValueError, match=r"shape \(53, 3, 7\); 53 rows are float32"):
            writer.write(np.arange(53), values[:, :, 1:])
        with pytest.raises(ValueError, match="row 53 is not in 0 to 52"):
            writer.write(np.arange(1, 54), values)
        with pytest.raises(ValueError, match="row -1 is not in 0 to 52"):
            writer.write(np.arange(-1, 52), values)
        with pytest.raises(ValueError, match="a row is given twice"):
            writer.write(np.array([1, 2, 1]), values[:3])
        with pytest.raises(ValueError, match="rows are float64 of shape"):
            writer.write(np.ones(1), values[:1])
        writer.write(np.arange(0), values[:0])
        writer.write(np.arange(5), values[:5])
        with pytest.raises(
            ValueError, match="2 of 3 shards were never written, the first with row"
        ):
            writer.seal()
    with pytest.raises(ValueError, match="its writer is closed"):
        writer.write(np.arange(5), values[:5])
    with pytest.raises(ValueError, match="its writer is closed"):
        writer.seal()


def test_arrays_that_cannot_be_are_refused(tmp_path):
    group = zarr.create_group(tmp_path / "v", zarr_format=3)
    dims = ("stimulus", "layer", "unit")
    with pytest.raises(ValueError, match="is empty along 'stimulus'"):
        create(group, "a", shape=(0, 3, 8), layered=True, dims=dims, dtype="float32")
    with pytest.raises(ValueError, match="has not the dimensions"):
        create(group, "a", shape=(5, 3, 8), layered=True, dims=dims[:2], dtype="float32")
    group.create_array("b", shape=(5, 3, 8), chunks=(5, 3, 8), dtype="float32")
    with pytest.raises(ValueError, match="'b' in .* not laid out by scanner.shards.create"):
        ShardWriter(tmp_path / "v" / "b")
    with pytest.raises(ValueError, match="not laid out"):
        list(damaged(tmp_path / "v" / "b"))
    group.create_array(
        "c", shape=(8, 8), shards=(4, 8), chunks=(2, 8), dtype="float32", compressors=None
    )
    with pytest.raises(ValueError, match="not laid out"):
        ShardWriter(tmp_path / "v" / "c")


MEMORY = """
import importlib.util, sys
from pathlib import Path
import numpy as np, zarr

spec = importlib.util.spec_from_file_location("shards", sys.argv[1])
sys.modules["shards"] = shards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shards)

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def run(name, rows, kept=None):
    group = zarr.create_group(Path(sys.argv[2]) / name, zarr_format=3)
    dims = ("stimulus", "layer", "unit")
    shards.create(group, "a", shape=(rows, 10, 500), layered=True, dims=dims, dtype="float32")
    folder = Path(sys.argv[2]) / name / "a"
    values = np.ones((100, 10, 500), "float32")
    with shards.ShardWriter(folder) as writer:
        for batch in np.random.default_rng(0).permutation(rows).reshape(-1, 100):
            writer.write(batch, values)
        writer.sync()
        writer.seal()
    assert not list(shards.damaged(folder))
    if kept is not None:
        kept.append(np.fromfile(folder / "c/0/0/0", "u1"))

run("small", 200)
before = peak()
run("large", 6000)
print(peak() - before)
kept = []
run("control", 2000, kept)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_does_not_grow_with_the_array(tmp_path):
    bound = 12_000_000  # the array is ten times that: 6000 x 10 x 500 x 4 bytes
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, shards.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    written, control = map(int, ran.stdout.split())
    assert written < bound
    assert control > 2 * bound  # a shard held in memory would have been seen


def test_files_stay_open_between_writes_few_at_a_time_and_are_closed_at_the_end(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(shards, "OPEN_FILES", 2)
    plain = files(fill(empty(tmp_path / "plain"), some_values()))
    folder, opened, closed = empty(tmp_path / "v"), [], []
    real_open, real_close = os.open, os.close

    def watched_open(path, *rest, **others):
        file = real_open(path, *rest, **others)
        if str(path).startswith(str(folder / "c")):
            opened.append(file)
        return file

    def watched_close(file):
        closed.append(file)
        real_close(file)

    writer = ShardWriter(folder)
    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(os, "close", watched_close)
    for row in range(20):
        writer.write(np.array([row]), some_values()[[row]])
    assert len(opened) == 1
    assert not closed
    writer.write(np.arange(20, 53), some_values()[20:])
    assert len(opened) == 3
    assert len(closed) == 1
    writer.seal()
    assert sorted(closed) == sorted(opened)
    assert files(folder) == plain
    writer.write(np.array([0]), some_values()[:1])  # the index goes before it is written
    with pytest.raises(ValueError):
        zarr.open_array(folder, mode="r")[:]
    del writer  # not closed: a recording that failed
    assert sorted(closed) == sorted(opened)
