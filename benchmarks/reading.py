"""What reading a volume takes: as raw bytes, by plain xarray, by `scanner.open_volume`.

``python -m benchmarks.reading [GIGABYTES [REPEATS]]`` makes an array in a temporary folder (5 GB by
default), reads it in turn in all ways, and prints medians in milliseconds.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from scanner.shard_reader import open_shards
from scanner.shards import ShardWriter, create

LAYERS, UNITS, NAME = 30, 576, "resid_post"  # 4 bytes each


def make(folder: Path, rows: int) -> tuple[Path, Path]:
    """A volume with one array, and a raw file with the bytes of one of its layers."""
    volume, raw = folder / "volume.zarr", folder / "layer.raw"
    dims = ("stimulus", "layer", "unit")
    group = zarr.create_group(volume, zarr_format=3)
    shape = (rows, LAYERS, UNITS)
    create(group, NAME, shape=shape, layered=True, dims=dims, dtype="float32")
    rng = np.random.default_rng(0)
    with ShardWriter(volume / NAME) as writer, raw.open("wb") as layer:
        for start in range(0, rows, 1000):
            values = rng.random((min(1000, rows - start), LAYERS, UNITS), "float32")
            writer.write(np.arange(start, start + len(values)), values)
            layer.write(values[:, 7].tobytes())
        writer.seal()
    for path in [raw, *(volume / NAME / "c").glob("*/0/0")]:
        _reread(path)
    return volume, raw


def _reread(path: Path) -> None:
    """Bring a file anew into the page cache, from its beginning to its end.

    What was written in small pieces lies there in small pages, which takes longer to copy. So all
    files get the same history, that of a volume which was verified after a restart.
    """
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 20):
            pass


def ways(volume: Path, raw: Path, rows: int) -> dict[str, dict[str, Callable[[], np.ndarray]]]:
    """For each part of the array, the ways to read it or as many bytes."""
    mapped = np.memmap(raw, "float32", "r")
    some = slice(rows // 2, rows // 2 + 100)
    parts = {
        "one layer of all rows": ({"layer": 7}, slice(None)),
        "one row of all layers": ({"stimulus": rows // 2}, slice(LAYERS * UNITS)),
        "100 rows of all layers": ({"stimulus": some}, slice(100 * LAYERS * UNITS)),
    }
    ours, plain = open_shards(volume)[NAME], xr.open_zarr(volume, consolidated=False, chunks=None)
    return {
        part: {
            "np.memmap": lambda place=place: np.array(mapped[place]),
            "plain xarray": lambda key=key: plain[NAME].isel(key).to_numpy(),
            "open_volume": lambda key=key: ours.isel(key).to_numpy(),
        }
        for part, (key, place) in parts.items()
    }


def measure(gigabytes: float, repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds for each part and way, read in turn; from the page cache if it fits."""
    rows = round(gigabytes * 1e9 / (LAYERS * UNITS * 4))
    with tempfile.TemporaryDirectory() as folder:
        read = ways(*make(Path(folder), rows), rows)
        seconds = {(part, way): [] for part in read for way in read[part]}
        for _ in range(repeats + 1):
            for part, way in seconds:
                start = time.perf_counter()
                read[part][way]()
                seconds[part, way].append(time.perf_counter() - start)
    return {
        part: {way: 1000 * statistics.median(seconds[part, way][1:]) for way in read[part]}
        for part in read
    }


if __name__ == "__main__":
    gigabytes, repeats = [*map(float, sys.argv[1:]), *(5, 9)[len(sys.argv) - 1 :]]
    for part, medians in measure(gigabytes, int(repeats)).items():
        print(part, *(f"{way} {median:.2f} ms" for way, median in medians.items()), sep="  ")
