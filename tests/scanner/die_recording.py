"""A script: record a toy model again and again, killed each time at another moment, and resume.

``python die_recording.py MODEL STIMULI ROOT DEATHS`` records into ``ROOT/whole`` undisturbed; then
into folders of their own, in each of which it is killed (SIGKILL) up to `LIVES` times before it may
end, until it has died DEATHS times. Half of the folders see deaths at moments of the clock; half
just before a file is opened for writing, cut, renamed or removed, the last of these among them, and
one is killed when half of the batches stand in the journal. All others are drawn by one seed. Of
the many small files that a recording begins with, one in `FEW` counts. It prints one JSON object
for each folder:

    {"folder": "0", "batches": 9, "lives": [
        {"died": true, "journal": [0, 1], "noted": [0], "renamed": false, "passes": [0, 1, 2]}, …]}

``journal`` are the batches that stood in the journal when that life ended, ``noted`` those that had
ever been written there, ``renamed`` whether the volume had its name then, ``passes`` the batches
that were computed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import torch

from scanner import Model, Recording, batches, find_source, passes, record, shards, streaming
from scanner.provenance import code_version, environment
from stimuli import load

FEW = 20
HALF, HALFWAY = 6, -1
LIVES = 2
WRITES = os.O_WRONLY | os.O_RDWR
SITES = ("resid_pre", "resid_post")


def record_into(folder: Path, model: str, table: str) -> None:
    """Many batches, shards and notes; each forward pass is logged by its first stimulus."""
    streaming.COMMIT_SECONDS = 0.0
    shards.CHUNK_BYTES, shards.SHARD_BYTES = 1000, 6000
    passes.batch_tokens, batches.ROW_TOKENS = lambda _device: 16, 16
    forward, commit = passes.Passes._forward, streaming.Stream._commit

    def logged(self, rows, stream):
        log(folder.with_suffix(".passes"), [rows[0][0]])
        forward(self, rows, stream)

    def noted(stream, finished):
        numbers = list(finished)
        commit(stream, finished)
        log(folder.with_suffix(".noted"), numbers)  # whatever becomes of the journal

    passes.Passes._forward, streaming.Stream._commit = logged, noted
    loaded = loaded_once(model)
    plan = Recording(loaded.source, load(table), SITES, "target", "float32")
    record(plan, folder, lambda: loaded, protocol_sha256="0" * 64)


def log(path: Path, numbers: list[int]) -> None:
    with path.open("a") as file:
        file.write("".join(f"{number}\n" for number in numbers))


@cache
def loaded_once(model: str) -> Model:
    torch.set_num_threads(1)
    loaded = Model.load(find_source(model), device="cpu")
    assert loaded.proof
    return loaded


def watch_changes(root: Path, die_at: int | None) -> list[str]:
    """Count the changes below `root`, and die before the one with that number.

    Of `HALFWAY`, it is the change of a journal that names half of the batches.
    """
    seen: list[str] = []
    begun = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal begun
        writes = event == "open" and bool((arguments[2] or 0) & WRITES)
        if not (writes or event in ("os.rename", "os.remove", "os.truncate")):
            return
        path = str(arguments[0])
        if not path.startswith(f"{root}/"):
            return
        if ".begun/" in path:
            begun += 1
            if begun % FEW:
                return
        halfway = die_at == HALFWAY and path.endswith("/journal") and len(lines(Path(path))) >= HALF
        if len(seen) == die_at or halfway:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(path)

    sys.addaudithook(watch)
    return seen


def live(
    folder: Path,
    model: str,
    table: str,
    *,
    changes: int | None = None,
    seconds: float | None = None,
) -> int:
    """Record in a process of its own; its exit status, negative where a signal ended it.

    It is killed before the change with that number, halfway if that is `HALFWAY`, or when so many
    seconds have passed.
    """
    if sys.platform != "linux":  # frameworks of macOS do not survive a fork; imports take seconds
        called = [sys.executable, __file__, model, table, str(folder), "once", str(changes)]
        child = subprocess.Popen(called)
        try:
            return child.wait(None if seconds is None else 5 + seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            once(folder, model, table, changes)
            status = 0
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def once(folder: Path, model: str, table: str, changes: int | None) -> None:
    seen = watch_changes(folder, changes)
    record_into(folder, model, table)
    folder.with_suffix(".changes").write_text(f"{len(seen)}\n")


def lines(path: Path) -> list[int]:
    """Whole lines of a file of numbers, if it is there."""
    if not path.is_file():
        return []
    return [int(line) for line in path.read_text().split("\n")[:-1]]


def main() -> None:
    model, table, root, deaths = *sys.argv[1:3], Path(sys.argv[3]), sys.argv[4]
    if deaths == "once":
        once(root, model, table, None if sys.argv[5] == "None" else int(sys.argv[5]))
        return
    environment(), code_version(), loaded_once(model), load(table)  # seconds, before the forks
    assert threading.active_count() == 1
    assert live(root / "warm", model, table) == 0
    began = time.monotonic()
    assert live(root / "whole", model, table) == 0
    duration = time.monotonic() - began
    numbers = {first: number for number, first in enumerate(lines(root / "whole.passes"))}
    (changes,) = lines(root / "whole.changes")
    draw = random.Random(0)
    number = died = 0
    while died < int(deaths):
        folder = root / str(number)
        lives: list[dict[str, object]] = []
        while not lives or lives[-1]["died"]:
            at = seconds = None
            if len(lives) < LIVES and number % 2:
                # The first of these at once, so that one dies before anything is there.
                seconds = draw.uniform(0, duration) if lives or number > 1 else 0.0
            elif len(lives) < LIVES and (lives or number > 8):
                at = draw.randrange(changes)
            elif len(lives) < LIVES:
                # The last changes of all are each a step of their own.
                at = changes - number // 2 if number else HALFWAY
            folder.with_suffix(".passes").unlink(missing_ok=True)
            status = live(folder, model, table, changes=at, seconds=seconds)
            assert status in (0, -signal.SIGKILL), status
            lives.append(
                {
                    "died": status != 0,
                    "journal": [n for one in folder.glob("*.zarr*/journal") for n in lines(one)],
                    "noted": lines(folder.with_suffix(".noted")),
                    "renamed": any(folder.glob("*.zarr")),
                    "passes": [numbers[n] for n in lines(folder.with_suffix(".passes"))],
                }
            )
        report = {"folder": folder.name, "lives": lives, "batches": len(numbers)}
        print(json.dumps(report), flush=True)
        number, died = number + 1, died + len(lives) - 1


main()
