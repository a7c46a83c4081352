"""What recording costs, side by side in one run: ours, the bare forward, the usual call, the peers.

``make bench`` runs it and writes the tables into ``benchmarks/README.md``, with the machine.

The yardstick is the bare forward of the base model (no vocabulary head, inference mode, batches of
like length) on the same texts. Ours is `scanner.record` from texts to a finished, checksummed
volume of ``resid_post``, ``attn_out_post``, ``mlp_out_post`` and ``mlp_act`` in all layers; the
proofs at load are left out, as every peer's loading is. On CUDA, where there is a device, a random
model of a billion weights in bfloat16.
"""

import argparse
import gc
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch

import stimuli
from benchmarks import texts as benchmark_texts
from benchmarks import yardstick
from benchmarks.reading import measure
from benchmarks.texts import Texts
from scanner import Model, Recording, find_source, record
from scanner.batches import unique_tokens
from scanner.device import best_device
from scanner.passes import Passes
from scanner.provenance import code_version
from scanner.streaming import Stream
from stimuli import StimulusSet

SITES = ("resid_post", "attn_out_post", "mlp_out_post", "mlp_act")
PEERS = ("transformer-lens", "nnsight", "hidden-states", "sae-lens")
README = Path(__file__).parent / "README.md"


@dataclass(frozen=True)
class Timed:
    """Seconds of each repetition, and the median."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def stimuli_of(some: Texts) -> StimulusSet:
    """The texts of a benchmark as stimuli: what the scanner reads."""
    table = pd.DataFrame({"text": some.texts})
    table["target_start"] = [start for start, _ in some.spans]
    table["target_end"] = [end for _, end in some.spans]
    for label in ("item", "frame", "category"):
        table[label] = "none"
    return StimulusSet(some.name, table)


def ours(model: Model, stimuli_set: StimulusSet, tokens: Any, folder: Path) -> float:
    """Seconds from texts to a finished volume."""
    recording = Recording(model.source, stimuli_set, SITES, tokens, model.dtype)
    with tempfile.TemporaryDirectory(dir=folder) as volumes:
        start = time.perf_counter()
        record(recording, Path(volumes), lambda: model, protocol_sha256="0" * 64)
        return time.perf_counter() - start


def interleaved(calls: dict[str, Callable[[], float]], repeats: int) -> dict[str, Timed]:
    """Each call in turn, several times, so that a slow moment of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            gc.collect()
            seconds[name].append(call())
    return {name: Timed(some) for name, some in seconds.items()}


def side_by_side(model: Model, some: Texts, folder: Path, repeats: int) -> dict[str, Timed]:
    """Bare, usual and ours on one set of texts."""
    ids, chosen = some.ids(model.tokenizer), stimuli_of(some)
    return interleaved(
        {
            "bare": lambda: yardstick.bare(model.network, ids),
            "usual": lambda: yardstick.usual(model.network, ids),
            "target": lambda: ours(model, chosen, "target", folder),
            "all": lambda: ours(model, chosen, "all", folder),
        },
        repeats,
    )


@contextmanager
def one_core() -> Iterator[None]:
    """Threads begun here share a core, so that writing costs what it costs. Linux only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def hidden(model: Model, chosen: StimulusSet, folder: Path) -> float:
    """Share of the writer's time that lies behind the forward, of all tokens.

    What it works before the last pass has ended, less what the model waited for it, over all.
    """
    spans: dict[str, list[tuple[float, float]]] = {}

    def timed(owner: type, name: str) -> Callable[..., None]:
        work = getattr(owner, name)

        def run(*given: object, **named: object) -> None:
            start = time.perf_counter()
            work(*given, **named)
            spans.setdefault(name, []).append((start, time.perf_counter()))

        return run

    with ExitStack() as stack:
        for owner, name in (
            (Passes, "run"),
            (Stream, "put"),
            (Stream, "_write"),
            (Stream, "_sync"),
        ):
            stack.enter_context(mock.patch.object(owner, name, timed(owner, name)))
        ours(model, chosen, "all", folder)
    end = spans["run"][-1][1]
    writing = [*spans["_write"], *spans["_sync"]]
    behind = sum(max(0.0, min(stop, end) - start) for start, stop in writing)
    waited = sum(stop - start for start, stop in spans["put"])
    return (behind - waited) / sum(stop - start for start, stop in writing)


def peer(
    python: str, name: str, model: Model, some: Texts, tokens: str, folder: Path, *options: str
) -> float | None:
    """Seconds of one peer in its own environment, or None where it fails."""
    file = benchmark_texts.write(some, model.tokenizer, folder / f"{some.name}.json")
    script = Path(__file__).parent / "peers.py"
    out = folder / "peer"
    done = subprocess.run(
        [python, str(script), name, str(model.source.folder), str(file), str(out), "--tokens",
         tokens, *options],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds"]


class Peak(threading.Thread):
    """The largest resident memory of this process, sampled while a `with` lasts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self._over = 0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.005):
            self.bytes = max(self.bytes, _resident())

    def __enter__(self) -> "Peak":
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self.join()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def memory(model: Model, folder: Path) -> Iterator[tuple[str, int, int, float]]:
    """Peak memory beyond the model, of recording all sites at all tokens: few and many stimuli."""
    kinds = tuple(kind for kind in model.structure.kinds)
    for items, frames in ((2, 2), (6, 4)):
        some = stimuli.load("concepts").part(items=items, frames=frames)
        recording = Recording(model.source, some, kinds, "all", model.dtype)
        gc.collect()
        before = _resident()
        with tempfile.TemporaryDirectory(dir=folder) as volumes, Peak() as peak:
            path = record(recording, Path(volumes), lambda: model, protocol_sha256="0" * 64)
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        yield f"{len(kinds)} kinds of site", len(some), size, (peak.bytes - before) / 1e6


def machine() -> str:
    """The machine in a line."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.processor(),
    )  # fmt: skip
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} thread of torch "
        f"{torch.__version__}, Python {platform.python_version()}"
    )


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cpu(folder: Path, python: str | None, repeats: int) -> Iterator[str]:
    """The sections of the page, one after the other."""
    model = Model.load(find_source("smollm2-135m-instruct"), device="cpu")
    start = time.perf_counter()
    _ = model.structure
    proofs = time.perf_counter() - start
    _ = model.weights_sha256, model.surprisal
    yield (
        f"Version {code_version()}. Machine: {machine()}. SmolLM2-135M in float32; proofs at load "
        f"{proofs:.1f} s."
    )
    rows, measured = [], {}
    alone: list[list[str]] = []
    for name, make in benchmark_texts.SETS.items():
        some = make()
        ids = some.ids(model.tokenizer)
        tokens = sum(map(len, ids))
        gain = tokens / unique_tokens(ids)
        found = measured[name] = side_by_side(model, some, folder, repeats)
        bare = found["bare"].median
        rows.append(
            [name, str(len(ids)), str(tokens), f"{gain:.2f}", f"{bare:.2f} s"]
            + [f"{found[what].median / bare:.2f}" for what in ("usual", "target", "all")]
            + [f"{hidden(model, stimuli_of(some), folder):.0%}"]
        )
        print(rows[-1], file=sys.stderr)
        with one_core():
            found = side_by_side(model, some, folder, repeats)
        bare = found["bare"].median
        shares = [f"{found[what].median / bare:.2f}" for what in ("usual", "target", "all")]
        alone.append([name, f"{bare:.2f} s", *shares])
        print(alone[-1], file=sys.stderr)
    columns = ["texts", "stimuli", "tokens", "tokens / unique tokens", "bare forward",
               "usual call", "ours, target", "ours, all", "writing hidden"]  # fmt: skip
    yield (
        f"## Against the bare forward\n\n{table(columns, rows)}\n\n"
        f"Times are multiples of the bare forward, medians of {repeats} interleaved runs, from "
        "texts to a checksummed volume of target or all tokens. *Writing hidden*: the share of the "
        "writer's time, for all tokens, that lies behind the forward on another core."
    )
    columns = ["texts", "bare forward", "usual call", "ours, target", "ours, all"]
    yield "On one core, which the writer shares with the model:\n\n" + table(columns, alone)
    if python:
        yield "## Against the peers\n\n" + peers(model, measured, folder, python)
    lines = [
        [what, str(count), f"{size / 1e6:.0f} MB", f"{peak:.0f} MB"]
        for what, count, size, peak in memory(model, folder)
    ]
    yield "## Memory\n\n" + table(
        ["sites, at all tokens", "stimuli", "volume", "peak beyond the model"], lines
    )
    parts = [
        [part, *(f"{medians[way]:.1f} ms" for way in medians),
         f"{medians['open_volume'] / medians['np.memmap']:.2f}"]
        for part, medians in measure(5, 9).items()
    ]  # fmt: skip
    ways = ["np.memmap", "plain xarray", "open_volume", "open_volume / np.memmap"]
    yield "## Reading 5 GB\n\n" + table(["what", *ways], parts)


def peers(model: Model, measured: dict[str, dict[str, Timed]], folder: Path, python: str) -> str:
    """Seconds of each peer on the crossed texts, and how much faster ours is than the best."""
    ways: dict[str, tuple[str, ...]] = {
        "one text at a time": ("--batch", "1"),
        "at its fastest": (),
    }
    rows = []
    for name in ("crossed60", "crossed240"):
        some = benchmark_texts.SETS[name]()
        for tokens, (way, options) in itertools.product(("target", "all"), ways.items()):
            # A run of sae-lens for each hook point takes minutes; it cannot choose tokens.
            names = [one for one in PEERS if one != "sae-lens" or (name, tokens, options)
                     == ("crossed60", "all", ())]  # fmt: skip
            found = {one: peer(python, one, model, some, tokens, folder, *options) for one in names}
            seconds = {one: took for one, took in found.items() if took is not None}
            # That of those which record the same sites.
            best = min(seconds.keys() - {"hidden-states"}, key=lambda one: seconds[one])
            mine = measured[name][tokens].median
            rows.append(
                [name, tokens, way]
                + [f"{seconds[one]:.2f} s" if one in seconds else "-" for one in PEERS]
                + [f"{mine:.2f} s", f"{seconds[best] / mine:.1f} x ({best})"]
            )
            print(rows[-1], file=sys.stderr)
    columns = ["texts", "tokens", "peers are used", *PEERS, "ours", "faster than the best"]
    return table(columns, rows) + (
        "\n\n*One text at a time* is how most scripts use them; *at its fastest*: in batches of "
        "texts of like length, with only these sites and no vocabulary head "
        "(`benchmarks/peers.py`). hidden-states records the residual stream only, so the last "
        "column is of the others."
    )


def cuda(folder: Path, repeats: int) -> Iterator[str]:
    """A random model of a billion weights in bfloat16, against its bare forward."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    small = find_source("smollm2-135m-instruct")
    config = AutoConfig.for_model(
        "llama", hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8, vocab_size=49152,
    )  # fmt: skip
    network: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(small.folder)
    model = Model(small, network.eval().to("cuda"), tokenizer, "cuda", "bfloat16")
    _ = model.structure, model.weights_sha256, model.surprisal
    rows = []
    for name, some in (("crossed2400", benchmark_texts.crossed(24, 10)),
                       ("unshared2400", benchmark_texts.unshared(900))):  # fmt: skip
        ids, chosen = some.ids(tokenizer), stimuli_of(some)
        found = interleaved(
            {
                "bare": lambda ids=ids: _synchronised(lambda: yardstick.bare(network, ids)),
                "target": lambda chosen=chosen: ours(model, chosen, "target", folder),
                "all": lambda chosen=chosen: ours(model, chosen, "all", folder),
            },
            repeats,
        )
        bare = found["bare"].median
        gain = sum(map(len, ids)) / unique_tokens(ids)
        times = [f"{found[what].median / bare:.2f}" for what in ("target", "all")]
        share = f"{hidden(model, chosen, folder):.0%}"
        rows.append([name, str(len(ids)), f"{gain:.2f}", f"{bare:.2f} s", *times, share])
    yield f"## On {torch.cuda.get_device_name()}\n\n" + table(
        [
            "texts",
            "stimuli",
            "tokens / unique tokens",
            "bare forward",
            "ours, target",
            "ours, all",
            "writing hidden",
        ],
        rows,
    )


def _synchronised(call: Callable[[], float]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python of an environment made of benchmarks/peers.txt")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sections = list(cpu(Path(folder), given.peers, given.repeats))
        if best_device() == "cuda":
            sections += cuda(Path(folder), given.repeats)
    page = ["# What recording costs", "Written by `make bench`; see `benchmarks/scanner.py`."]
    README.write_text("\n\n".join([*page, *sections]) + "\n")
    print(README.read_text())


if __name__ == "__main__":
    main()
