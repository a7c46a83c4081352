"""A script: record a toy model again and again, killed each time at another moment, and resume.

``python die_recording.py MODEL STIMULI ROOT STEP`` records into ``ROOT/whole`` undisturbed; then,
for k = 0, STEP, 2 STEP, …, into ``ROOT/k`` and is killed (SIGKILL) just before the k-th file that
it opens for writing, renames or removes, and records there once more. Of the many small files that
a recording begins with, one in `FEW` counts. It ends with the first k that is more than there are,
and prints one JSON object a line:

    {"moment": k, "died": true, "chunks": 2, "touched": [], "resumed": 0}

``chunks`` were finished when it died, ``touched`` are those that were written anew, ``resumed`` is
the exit status of the second recording.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from scanner import Model, Recording, find_source, record, recording
from scanner.provenance import code_version, environment
from stimuli import load

PER_CHUNK = 14  # of 36 stimuli: three chunks, the last one short
FEW = 20
WRITES = os.O_WRONLY | os.O_RDWR


def record_into(volumes: Path, model: str, table: str) -> None:
    torch.set_num_threads(1)
    loaded, stimuli = loaded_once(model), load(table)
    plan = Recording(loaded.source, stimuli, ("resid_pre", "resid_post"), "target", "float32")
    recording.CHUNK_BYTES = PER_CHUNK * loaded.layers * loaded.width * 4
    record(plan, volumes, lambda: loaded, protocol_sha256="0" * 64)


@cache
def loaded_once(model: str) -> Model:
    return Model.load(find_source(model), device="cpu")


def die_at(moment: int, root: Path) -> None:
    """Count the changes below `root`, and die before the one numbered `moment`."""
    begun = seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal begun, seen
        writes = event == "open" and bool(arguments[2] & WRITES)
        if not (writes or event in ("os.rename", "os.remove")):
            return
        path = str(arguments[0])
        if ".begun" in path:
            begun += 1
        if not path.startswith(str(root)) or (".begun/" in path and begun % FEW):
            return
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    sys.addaudithook(watch)


def apart(volumes: Path, model: str, table: str, moment: int | None) -> int:
    """Record in a process of its own; its exit status, negative where a signal ended it."""
    if sys.platform != "linux":  # frameworks of macOS do not survive a fork; imports take seconds
        called = [sys.executable, __file__, model, table, str(volumes), "once", str(moment)]
        return subprocess.run(called).returncode
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if moment is not None:
                die_at(moment, volumes)
            record_into(volumes, model, table)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def chunks(volumes: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Finished chunks of activations, each with what changes when it is written anew."""
    for site in ("resid_pre", "resid_post"):
        for path in sorted(volumes.glob(f"*.zarr*/{site}/c/*/0/0")):
            yield f"{site}/{path.parts[-3]}", (path.stat().st_ino, path.stat().st_mtime_ns)


def main() -> None:
    model, table, root, step = *sys.argv[1:3], Path(sys.argv[3]), sys.argv[4]
    if step == "once":
        if sys.argv[5] != "None":
            die_at(int(sys.argv[5]), root)
        record_into(root, model, table)
        return
    environment(), code_version(), loaded_once(model)  # what takes seconds, before the forks
    assert apart(root / "whole", model, table, None) == 0
    moment, died = 0, True
    while died:
        volumes = root / str(moment)
        died = apart(volumes, model, table, moment) == -signal.SIGKILL
        before = dict(chunks(volumes))
        resumed = apart(volumes, model, table, None)
        after = dict(chunks(volumes))
        line = {
            "moment": moment,
            "died": died,
            "chunks": len(before),
            "touched": [name for name in before if after.get(name) != before[name]],
            "resumed": resumed,
        }
        print(json.dumps(line), flush=True)
        moment += int(step)


main()
