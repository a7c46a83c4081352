"""Loaded by each dask worker of the tests: small batches and shards, and passes that are logged.

``SCAN_LOG`` names a folder. A line of ``passes`` there is the process that begins a pass and the
pass's first stimulus, one of ``loads`` a process and what it loads. Each pass takes a moment, so
that a process can be killed in one.
"""

import os
import time
from pathlib import Path

from scanner import batches, cluster, passes, shards

MOMENT = 0.05


def small(patch) -> None:
    """Many batches and shards, set by ``patch(module, name, value)``."""
    patch(passes, "batch_tokens", lambda _device: 64)
    patch(batches, "ROW_TOKENS", 16)
    patch(shards, "CHUNK_BYTES", 1000)
    patch(shards, "SHARD_BYTES", 12000)


def log(name: str, line: str) -> None:
    with (Path(os.environ["SCAN_LOG"]) / name).open("a") as file:
        file.write(f"{os.getpid()} {line}\n")


def dask_setup(_worker) -> None:
    small(setattr)
    forward, load = passes.Passes._forward, cluster._model

    def slow(self, rows, stream):
        log("passes", str(rows[0][0]))
        time.sleep(MOMENT)
        forward(self, rows, stream)

    def noted(job):
        log("loads", job.recording.subject)
        return load(job)

    passes.Passes._forward, cluster._model = slow, noted
