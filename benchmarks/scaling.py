"""What recordings of large models come to, and how analyses grow, as `docs/scaling.md` has it.

``python -m benchmarks.scaling`` writes the first table there anew. Nothing is recorded: bytes are
those that `scan check` tells, seconds and dollars are arithmetic with the rates below, which are
assumed and can be given otherwise.

``python -m benchmarks.scaling --measure FOLDER`` writes the second. An analysis runs on a cluster
of processes of this machine, on simulated volumes that are written to the folder and removed: by
size on one worker, and as many tasks as `TASKS` by workers. What is larger than was measured is
told by arithmetic, and marked.
"""

import argparse
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import zarr

from analyses.probe import Probe
from scanner import Subject
from scanner.cluster import connected, spread
from scanner.plan import stored_bytes
from scanner.reading import Tokens
from scanner.shard_reader import open_shards
from scanner.shards import ShardWriter, create
from scanner.sites import Kind
from scanner.sizes import SHIPPED, Size, size_of
from verification.gate import in_parallel

PAGE = Path(__file__).parent.parent / "docs/scaling.md"
BEGIN, END = "<!-- written by benchmarks/scaling.py -->", "<!-- end -->"
MEASURED = "<!-- measured by benchmarks/scaling.py -->"
# Of simulated volumes, as SmolLM2-135M has them; words by category, as many frames as it takes.
LAYERS, UNITS, CATEGORIES, ITEMS = 30, 576, 6, 20
SITE, TASKS, TOLD = "resid_post", 4, (10.0, 100.0)
# Those that no protocol is shipped for. 7B: Touvron et al. 2023, Llama 2; 405B: Grattafiori et al.
# 2024, table 3. The 70B model is the one of `protocols/large/`.
SHAPES = {
    "7B": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
    "405B": {
        "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
        "num_attention_heads": 128, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
LARGE = "meta-llama/Llama-3.3-70B-Instruct"
SCANS: dict[str, tuple[tuple[Kind, ...], Tokens]] = {
    "stream, one token": (("resid_post",), "target"),
    "stream, all tokens": (("resid_post",), "all"),
    "stream and neurons, all tokens": (("resid_post", "mlp_act"), "all"),
}


def sizes() -> dict[str, Size]:
    """Of each model, by its name in the table; counted in the network that would be built."""
    for name, shape in SHAPES.items():
        SHIPPED[name] = {"from": name, "config": {"model_type": "llama", **shape}}
    return {"7B": size_of("7B"), "70B": size_of(LARGE), "405B": size_of("405B")}


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def table(given: argparse.Namespace) -> Iterator[str]:
    """The lines of the table."""
    lengths = np.full(given.texts, given.tokens)
    columns = ("model", "weights", "GPUs", "loading", "passes", "what is kept", "volume",
               "to disk", "dollars", "a month of disk")  # fmt: skip
    yield f"| {' | '.join(columns)} |"
    yield "|---|" + "---:|" * 4 + "---|" + "---:|" * 4
    for name, size in sizes().items():
        weights = size.weight_bytes("bfloat16", None)
        gpus = math.ceil(weights * given.room / (given.memory * 1e9))
        loading = weights / (given.disk * 1e9)
        seconds = size.operations(given.texts * given.tokens) / (gpus * given.teraflops * 1e12)
        for what, (kinds, tokens) in SCANS.items():
            volume = stored_bytes(lengths, kinds, tokens, size.anatomy, store="float16")
            # Parts and then shards: written twice and read once.
            writing = 3 * volume / (given.disk * 1e9)
            # Parts are written beside the passes, shards after them.
            hours = (loading + max(seconds, writing / 3) + writing * 2 / 3) / 3600
            cells = (
                name, f"{_short(weights / 1e9)} GB", str(gpus), f"{_short(loading)} s",
                f"{_short(seconds)} s", what, f"{_short(volume / 1e9)} GB", f"{_short(writing)} s",
                _short(hours * gpus * given.gpu_hour),
                _short(volume / 1e9 * given.gigabyte_month),
            )  # fmt: skip
            yield f"| {' | '.join(cells)} |"


def simulated(folder: Path, gigabytes: float) -> Subject:
    """A subject whose volume is noise on the disk, laid out as recordings are."""
    row = LAYERS * UNITS * 4
    frames = max(2, round(gigabytes * 1e9 / (row * CATEGORIES * ITEMS)))
    rows = frames * CATEGORIES * ITEMS
    group, rng = zarr.open_group(folder, mode="w"), np.random.default_rng(0)
    dims = ("stimulus", "layer", "unit")
    create(group, SITE, shape=(rows, LAYERS, UNITS), layered=True, dims=dims, dtype="float32")
    with ShardWriter(folder / SITE) as writer:
        for start in range(0, rows, 1000):
            some = np.arange(start, min(start + 1000, rows))
            shape = (len(some), LAYERS, UNITS)
            writer.write(some, rng.standard_normal(shape, dtype=np.float32))
        writer.seal()
    item, frame = np.divmod(np.arange(rows), frames)
    labels = {"item": item, "frame": frame, "category": item % CATEGORIES}
    named = {name: ("stimulus", values.astype(str)) for name, values in labels.items()}
    return Subject("simulated", open_shards(folder.absolute()).assign_coords(named), {})


def _task(subject: Subject, seed: int) -> float:
    found = Probe(SITE)(subject, rng=np.random.default_rng(seed))
    return float(found["balanced_accuracy"].max())


def _used() -> tuple[float, int]:
    """Of this process: seconds of the processor, and the most memory that it has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Took(NamedTuple):
    """What some tasks took.

    Attributes
    ----------
    seconds, processor : float
        On the clock, and of all workers.
    memory : float
        The most that a worker had beyond what it had before, GB.
    """

    seconds: float
    processor: float
    memory: float


def took(subject: Subject, workers: int, tasks: int) -> Took:
    """What tasks take on a cluster of their own."""
    with connected(f"local:{workers}") as client, spread(client) as processes:
        warm = simulated_small(Path(str(subject.volume.encoding["source"])).parent)
        list(in_parallel(processes, _task, [(warm, seed) for seed in range(2 * workers)]))
        before = client.run(_used)
        began = time.perf_counter()
        list(in_parallel(processes, _task, [(subject, seed) for seed in range(tasks)]))
        seconds = time.perf_counter() - began
        after = client.run(_used)
    processor = sum(after[one][0] - before[one][0] for one in after)
    memory = max(after[one][1] - before[one][1] for one in after)
    return Took(seconds, processor, memory / 1e9)


def simulated_small(folder: Path) -> Subject:
    """What workers import and allocate once is not counted."""
    return simulated(folder / "small.zarr", 0.02)


def measured(folder: Path, sizes: Sequence[float], workers: Sequence[int]) -> Iterator[str]:
    """The lines of the second table; what was not measured is marked."""
    memory = psutil.virtual_memory().total / 1e9
    yield (
        f"Measured on {os.cpu_count()} cores and {memory:.0f} GB, which others used too; "
        f"`probe` in {LAYERS} layers of {UNITS} units, without twins."
    )
    yield ""
    yield "| volume | tasks | workers | seconds | seconds of processor | memory beyond idle |"
    yield "|---:|---:|---:|---:|---:|---:|"
    found = {}
    for size in sizes:
        subject = simulated(folder / "volume.zarr", size)
        found[size] = took(subject, 1, 1)
        yield _row(size, 1, 1, found[size])
        if size == sizes[0]:
            for count in workers:
                yield _row(size, TASKS, count, took(subject, count, TASKS))
        shutil.rmtree(folder / "volume.zarr")
    yield from _told(sizes[-1], found[sizes[-1]])


def _told(largest: float, took: Took) -> Iterator[str]:
    """Rows by arithmetic: seconds grow with the volume, and tasks are dealt out to workers."""
    for size in TOLD:
        one = took.processor * size / largest  # the clock told what others did, too
        yield _row(size, 1, 1, Took(one, one, math.nan), told=True)
        for count in (4, 8):
            yield _row(size, 8, count, Took(one * 8 / count, one * 8, math.nan), told=True)


def _row(size: float, tasks: int, workers: int, took: Took, *, told: bool = False) -> str:
    sign = "*" if told else ""
    numbers = (f"{took.seconds:.1f}", f"{took.processor:.1f}", f"{took.memory:.2f} GB")
    cells = ["-" if one.startswith("nan") else f"{sign}{one}{sign}" for one in numbers]
    return f"| {size:g} GB | {tasks} | {workers} | {' | '.join(cells)} |"


def rewritten(begin: str, lines: Sequence[str]) -> None:
    """Set lines into the page, in the place of those that a mark begins."""
    text = PAGE.read_text()
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before + begin, *lines, END + after]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("texts", 10_000), ("tokens", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("teraflops", 100.0), ("memory", 80.0), ("room", 1.2), ("disk", 1.0),
                          ("gpu-hour", 2.5), ("gigabyte-month", 0.023)):  # fmt: skip
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--measure", type=Path, metavar="FOLDER")
    parser.add_argument("--sizes", type=float, nargs="+", default=[1.0, 2.0, 4.0], metavar="GB")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    given = parser.parse_args()
    if given.measure is not None:
        given.measure.mkdir(parents=True, exist_ok=True)
        lines = []
        for line in measured(given.measure, given.sizes, given.workers):
            print(line, flush=True)
            lines.append(line)
        rewritten(MEASURED, lines)
        return
    said = (
        f"{given.texts:,} texts of {given.tokens} tokens, stored as float16, bfloat16 weights. "
        f"Assumed, not measured: {given.teraflops:g} TFLOP/s a GPU, {given.memory:g} GB in each, "
        f"weights times {given.room:g} for what a pass needs, a disk of {given.disk:g} GB/s, "
        f"{given.gpu_hour:g} dollars for a GPU and hour, {given.gigabyte_month:g} dollars for a GB "
        "and month."
    )
    rewritten(BEGIN, [said, "", *table(given)])


if __name__ == "__main__":
    main()
