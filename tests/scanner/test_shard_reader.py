"""What is read straight from the shards is what plain xarray reads, whatever is asked for."""

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner import VolumeError, shards
from scanner.shard_reader import ShardArray, open_shards
from scanner.shards import ShardWriter, create

ROWS = 53
ARRAYS = {  # name: shape, layered, dims, dtype
    "resid_post": ((ROWS, 3, 8), True, ("stimulus", "layer", "unit"), "float32"),
    "attn": ((ROWS, 3, 4, 2), True, ("stimulus", "layer", "head", "head_unit"), "float16"),
    "logits_token": ((ROWS, 5), False, ("stimulus", "rank"), "int32"),
    "scale": ((ROWS,), False, ("stimulus",), "float64"),
    "z": ((101, 3, 4), True, ("token", "layer", "head"), "float32"),
    "router": ((ROWS, 1, 8), True, ("stimulus", "one", "expert"), "float32"),
}


@pytest.fixture(autouse=True, scope="module")
def small():
    """Seven rows of 8 float32 a chunk, three chunks of three layers a shard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CHUNK_BYTES", 7 * 32)
        patch.setattr(shards, "SHARD_BYTES", 3 * 3 * 7 * 32)
        yield


def write(path: Path) -> Path:
    """A volume with arrays in shards, one that zarr laid out, and labels."""
    rng = np.random.default_rng(0)
    labels = np.array([f"word {row}" for row in range(ROWS)], np.dtypes.StringDType())
    about = xr.Dataset(
        {"plain": (("stimulus", "unit"), rng.standard_normal((ROWS, 8)), {"units": "none"})},
        {"item": ("stimulus", labels), "layer": np.arange(3), "n_tokens": ("stimulus", labels)},
        {"subject": "toy", "twin_seed": 3},
    )
    about.to_zarr(path, zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    for name, (shape, layered, dims, dtype) in ARRAYS.items():
        array = create(group, name, shape=shape, layered=layered, dims=dims, dtype=dtype)
        array.attrs["meaning"] = name
        with ShardWriter(path / name) as writer:
            values = (100 * rng.standard_normal(shape)).astype(dtype)
            writer.write(np.arange(len(values)), values)
            writer.seal()
    return path


@pytest.fixture(scope="module")
def volume(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("volumes") / "toy.zarr")


@pytest.fixture
def copy(volume, tmp_path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(volume, tmp_path / "toy.zarr"))


def plainly(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, consolidated=False, chunks=None)


def straight(path: Path, name: str) -> bool:
    """Whether an array is read by us, and not by zarr."""
    return "ShardArray" in repr(open_shards(path)[name].variable._data)


def test_a_volume_is_what_plain_xarray_opens(volume):
    ours, plain = open_shards(volume), plainly(volume)
    assert {name for name in ours.variables if straight(volume, name)} == ARRAYS.keys()
    assert set(ours.variables) == set(plain.variables)  # zarr lists them in any order
    assert ours.encoding == plain.encoding
    for name, variable in plain.variables.items():
        assert ours[name].dims == variable.dims
        assert ours[name].dtype == variable.dtype
        assert repr(ours[name].encoding) == repr(variable.encoding)  # NaN is not equal to itself
    xr.testing.assert_identical(ours, plain)
    for name in ARRAYS:
        assert ours[name].to_numpy().tobytes() == plain[name].to_numpy().tobytes()
        assert ours[name].to_numpy().flags.c_contiguous
    ours["resid_post"][0] = 1  # in memory, as with plain xarray
    xr.testing.assert_identical(plainly(volume), plain)


def keys(size: int) -> st.SearchStrategy:
    """What one can index a dimension with."""
    ends = st.none() | st.integers(-size - 2, size + 2)
    every = [st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, 3])), st.just(slice(None))]
    if size:
        places = st.integers(-size, size - 1)
        lists = st.lists(places, max_size=2 * size).map(lambda many: np.array(many, int))
        masks = st.lists(st.booleans(), min_size=size, max_size=size).map(np.array)
        every += [places, lists, masks]
    return st.one_of(every)


@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("name", ARRAYS)
@given(data=st.data())
def test_any_index_gives_what_plain_xarray_gives(volume, name, data):
    ours, plain = open_shards(volume)[name], plainly(volume)[name].load()
    for _ in range(2):  # an index of an index is lazy too
        key = {dim: data.draw(keys(size)) for dim, size in ours.sizes.items()}
        ours, plain = ours.isel(key), plain.isel(key)
    assert ours.to_numpy().tobytes() == plain.to_numpy().tobytes()
    xr.testing.assert_identical(ours, plain)


@pytest.mark.parametrize("rows", [slice(None, None, -1), slice(40, 3, -7), slice(3, 40, -1)])
def test_slices_that_go_down(volume, rows):
    ours, plain = open_shards(volume)["resid_post"], plainly(volume)["resid_post"].load()
    down = slice(None, None, -1)
    assert np.array_equal(ours[rows], plain[rows])
    assert np.array_equal(ours[rows, down, down], plain[rows, down, down])
    assert np.array_equal(ours[down][5:9], plain[down][5:9])


def test_places_one_by_one(volume):
    ours, plain = open_shards(volume)["resid_post"], plainly(volume)["resid_post"]
    rows = xr.DataArray([5, 52, 5, -1], dims="draw")
    layers = xr.DataArray([2, 0, 1, 1], dims="draw")
    wanted = plain.isel(stimulus=rows, layer=layers)
    xr.testing.assert_identical(ours.isel(stimulus=rows, layer=layers), wanted)
    xr.testing.assert_identical(ours.transpose()[1:3], plain.transpose()[1:3])
    for place in ({"stimulus": ROWS}, {"stimulus": [0, ROWS]}, {"layer": 3}, {"unit": [8]}):
        with pytest.raises(IndexError):
            open_shards(volume)["resid_post"].isel(place).load()


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def chunk_of(path: Path, row: int, layer: int) -> tuple[Path, int]:
    """The shard that a row of resid_post lies in, and where the chunk of a layer begins in it."""
    layout = shards.Layout.of(path / "resid_post")
    shard = row // layout.shard_rows
    first = row // layout.chunk_rows * layout.chunk_rows
    return layout.path(shard), layout.offset(shard, layer, first)


def test_a_changed_byte_is_named_where_a_chunk_is_read_whole(copy):
    file, start = chunk_of(copy, 52, 1)
    first = 52 // 7 * 7
    flip(file, start + 2)
    site = open_shards(copy)["resid_post"]
    place = f"resid_post, shard 2, layer 1, rows {first} to 52"
    for key in ({}, {"layer": 1}, {"stimulus": slice(-3, None)}, {"unit": 7}):
        with pytest.raises(VolumeError, match=rf"toy.zarr: its bytes .* \({place}\). Remove it an"):
            site.isel(key).load()
    wanted = plainly(copy)["resid_post"][:, [0, 2]]
    xr.testing.assert_identical(site[:, [0, 2]], wanted)
    xr.testing.assert_identical(site[:first], plainly(copy)["resid_post"][:first])
    # A row alone is read as it is: to see that another one was changed takes long.
    xr.testing.assert_identical(site[52, 2], wanted[52, 1])


@pytest.mark.parametrize("within", [0, 7 * 32 - 1, 7 * 32 + 3], ids=["first", "last", "checksum"])
def test_any_changed_byte_of_a_chunk_is_found(copy, within):
    file, start = chunk_of(copy, 0, 2)
    flip(file, start + within)
    with pytest.raises(VolumeError, match=r"resid_post, shard 0, layer 2, rows 0 to 6\)"):
        open_shards(copy)["resid_post"][:, 2].load()


def test_padding_belongs_to_the_chunk(copy):
    file, start = chunk_of(copy, 52, 0)
    assert ROWS % 7
    flip(file, start + 7 * 32 - 1)
    with pytest.raises(VolumeError, match="layer 0, rows 49 to 52"):
        open_shards(copy)["resid_post"][50:, 0].load()


DAMAGE = {
    "no file": (lambda path: path.unlink(), "no file"),
    "cut short": (lambda path: os.truncate(path, 500), "500 bytes instead of"),
    "nearly empty": (lambda path: os.truncate(path, 5), "5 bytes instead of"),
    "index": (lambda path: flip(path, -9), "its index is wrong"),
    "not sealed": (
        lambda path: os.truncate(path, path.stat().st_size - 148),
        r"\d+ bytes instead of",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_shard_that_is_not_whole_is_named(copy, damage):
    damaging, reason = DAMAGE[damage]
    damaging(copy / "resid_post/c/1/0/0")
    site = open_shards(copy)["resid_post"]
    for key in ({}, {"stimulus": 30}, {"layer": 2}):
        with pytest.raises(VolumeError, match=rf"resid_post, shard 1, rows 21 to 41: {reason}"):
            site.isel(key).load()
    assert site[:21].shape == site[:21].load().shape


def test_what_zarr_wrote_with_the_same_codecs_is_read(copy, tmp_path):
    """Zarr orders chunks in its own way, and leaves out those that hold the fill value only."""
    volume = plainly(copy).load()
    volume["logits_token"][7:20] = 0
    volume["resid_post"][:7, 1] = np.nan
    volume["resid_post"][30:, 2] = 5
    volume.to_zarr(tmp_path / "again.zarr", zarr_format=3, consolidated=False)
    assert straight(tmp_path / "again.zarr", "resid_post")
    xr.testing.assert_identical(open_shards(tmp_path / "again.zarr").load(), volume)
    zarr.open_group(copy, mode="r+")["resid_post"][30] = 3
    xr.testing.assert_identical(open_shards(copy).load(), plainly(copy).load())


def test_values_that_xarray_decodes_are_decoded(copy):
    zarr.open_group(copy, mode="r+")["logits_token"].attrs.update(scale_factor=0.5, add_offset=3.0)
    assert plainly(copy)["logits_token"].dtype == "float64"
    xr.testing.assert_identical(open_shards(copy).load(), plainly(copy).load())


def layer_of(site: xr.DataArray, layer: int) -> np.ndarray:
    return site.isel(layer=layer).to_numpy()


def test_it_can_be_sent_to_other_processes_and_read_by_many_threads(volume):
    site = open_shards(volume)["resid_post"]
    wanted = plainly(volume)["resid_post"].to_numpy()
    copied = pickle.loads(pickle.dumps(open_shards(volume)))
    xr.testing.assert_identical(copied, plainly(volume))
    layers = [0, 1, 2] * 20
    with ThreadPoolExecutor(8) as pool:
        for layer, found in zip(layers, pool.map(layer_of, [site] * 60, layers), strict=True):
            assert np.array_equal(found, wanted[:, layer])
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert np.array_equal(pool.submit(np.asarray, site[:, 1]).result(), wanted[:, 1])


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_no_file_stays_open(volume, copy):
    (copy / "resid_post/c/1/0/0").unlink()
    before = os.listdir("/proc/self/fd")
    with open_shards(volume) as ours:
        ours["resid_post"][:, 1].load()
        assert os.listdir("/proc/self/fd") == before
    with pytest.raises(VolumeError):
        open_shards(copy)["resid_post"].load()
    assert os.listdir("/proc/self/fd") == before


def test_reading_nothing_reads_nothing(copy):
    shutil.rmtree(copy / "resid_post/c")
    site = open_shards(copy)["resid_post"]
    for key in ({"stimulus": []}, {"layer": slice(0)}, {"unit": np.zeros(8, bool)}):
        assert site.isel(key).to_numpy().size == 0


def test_a_short_read_goes_on(volume, monkeypatch):
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, to, at: preadv(file, [to[0][:11]], at))
    xr.testing.assert_identical(open_shards(volume), plainly(volume))


def test_an_array_that_is_laid_out_otherwise_is_refused(volume):
    with pytest.raises(ValueError, match="'plain' in .* not laid out by scanner.shards.create"):
        ShardArray(volume / "plain")


MEMORY = """
import sys
from pathlib import Path
import numpy as np, zarr
from scanner.shard_reader import open_shards
from scanner.shards import ShardWriter, create

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def volume(name, rows):
    group = zarr.create_group(Path(sys.argv[1]) / name, zarr_format=3)
    dims = ("stimulus", "layer", "unit")
    create(group, "a", shape=(rows, 3, 500), layered=True, dims=dims, dtype="float32")
    with ShardWriter(Path(sys.argv[1]) / name / "a") as writer:
        for start in range(0, rows, 100):
            writer.write(np.arange(start, start + 100), np.ones((100, 3, 500), "float32"))
        writer.seal()
    return open_shards(Path(sys.argv[1]) / name)["a"]

small, large = volume("small", 2000), volume("large", 20_000)
small.isel(layer=1).to_numpy(), small.isel(unit=3).to_numpy()
before = peak()
assert large.isel(unit=3).to_numpy().sum() == 60_000
print(peak() - before)
assert large.isel(layer=1).to_numpy().sum() == 10_000_000
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_reading_takes_the_memory_of_the_result_and_of_a_chunk(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(shards.__file__).parents[1],
    )
    unit, layer = map(int, ran.stdout.split())
    assert unit < 6_000_000
    assert 35_000_000 < layer < 40_000_000 + 6_000_000
