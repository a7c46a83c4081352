"""A volume that a cluster of real processes records is that of one process, byte by byte."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from scanner import Recording, VolumeError, cluster, parts, record, recording
from scanner.cluster import ClusterError, Wanted, connected, record_on
from scanner.cluster import spread as spread_analyses
from scanner.recording import partial_of
from stimuli import StimulusSet
from tests.conftest import run
from verification.gate import in_parallel

WORKER = Path(__file__).with_name("slow_worker.py")
SITES = ("embeddings", "resid_post", "attn_probs", "logits")


def load_worker():
    spec = importlib.util.spec_from_file_location("slow_worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def many():
    """Many batches and shards in this process, as in the workers; one thread; a fixed time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        load_worker().small(patch.setattr)
        patch.setenv("SOURCE_DATE_EPOCH", "0")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def client(many, tmp_path_factory):
    """A cluster of two processes."""
    import dask
    import distributed  # its defaults stand before one is set, else they would go with that one

    assert distributed
    log = tmp_path_factory.mktemp("log")
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.worker.preload": [str(WORKER)]}),
    ):
        patch.setenv("SCAN_LOG", str(log))
        with connected("local:2") as found:
            found.log = log
            yield found


@pytest.fixture(scope="module")
def texts():
    ends = ("hammer", "bread and cheese", "otter", "the saw", "noodle", "horse was")
    words = [f"{a} {b} {a}" for a in ("cat", "dog today", "we saw", "soup") for b in ends]
    spans = {"target_start": 0, "target_end": 3}
    rows = [{"text": one, **spans, "item": one, "frame": "f", "category": "c"} for one in words]
    return StimulusSet("mine", pd.DataFrame(rows))


@pytest.fixture
def plan(tiny_source, texts):
    return Recording(tiny_source("llama"), texts, SITES, "all", "float32", top=1)


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def alone(plan, tiny_model, folder):
    """Recorded by this process: the files of the folder."""
    model = tiny_model("llama")
    model = model if plan.seed is None else model.twin(plan.seed)
    record(plan, folder, lambda: model, protocol_sha256="0" * 64)
    return files(folder)


def spread(client, plans, folder, **settings):
    wanted = [Wanted(plan, None) for plan in plans]
    return list(record_on(client, wanted, folder, protocol_sha256="0" * 64, **settings))


def lines(client, name):
    path = client.log / name
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_subjects_and_twins_are_the_same_bytes_and_each_worker_loads_one_at_a_time(
    client, plan, tiny_model, tmp_path
):
    plans = [plan, replace(plan, seed=0)]
    for one in plans:
        expected = alone(one, tiny_model, tmp_path / "alone")
    assert sum("/c/" in name for name in expected) > 2 * 8  # shards
    told = []
    done = spread(client, plans, tmp_path / "spread", advance=told.append)
    assert {one.subject for one, new in done if new} == {one.subject for one in plans}
    assert files(tmp_path / "spread") == expected
    assert sum(told) == 2 * len(plan.stimuli)
    assert len({pid for pid, _ in lines(client, "passes")}) == 2
    loads = lines(client, "loads")
    assert len(loads) <= 4  # not one for each part
    # What is there is neither recorded again nor counted as new.
    again = spread(client, plans, tmp_path / "spread")
    assert [new for _, new in again] == [False, False] and lines(client, "loads") == loads


def test_a_worker_killed_in_a_pass_costs_its_part_and_nothing_else(
    client, plan, tiny_model, tmp_path
):
    expected = alone(plan, tiny_model, tmp_path / "alone")
    before = len(lines(client, "passes"))
    done, failed = [], []

    def run():
        try:
            done.extend(spread(client, [plan], tmp_path / "spread"))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    partial = partial_of(plan, tmp_path / "spread")
    while not parts.parts_of(partial):
        assert thread.is_alive(), failed
        time.sleep(0.005)
    victim = int(lines(client, "passes")[-1][0])
    os.kill(victim, signal.SIGKILL)
    thread.join(60)
    assert not failed and len(done) == 1
    assert files(tmp_path / "spread") == expected
    passes = [first for _, first in lines(client, "passes")[before:]]
    batches = len(set(passes))
    lost = len(passes) - batches
    # A part has a few of the batches; only those of one part were computed twice.
    assert 0 < lost <= -(-batches // (parts.PARTS_EACH * 2)) + 1


@pytest.fixture
def half(client, plan, tmp_path):
    """A recording of which a cluster has made some parts: its folder."""

    class StopError(Exception):
        pass

    told = []

    def stop(count):
        told.append(count)
        if sum(told) > 6:
            raise StopError

    with pytest.raises(StopError):
        spread(client, [plan], tmp_path / "half", advance=stop)
    assert parts.parts_of(partial_of(plan, tmp_path / "half"))
    return tmp_path / "half"


def test_what_a_cluster_has_begun_one_process_ends_without_computing_it_again(
    half, plan, tiny_model, tmp_path, monkeypatch
):
    expected = alone(plan, tiny_model, tmp_path / "alone")
    there = sum(len(part.batches) for part in parts.parts_of(partial_of(plan, half)))
    computed = []
    forward = recording.Passes._forward

    def count(self, rows, stream):
        computed.append(rows)
        forward(self, rows, stream)

    monkeypatch.setattr(recording.Passes, "_forward", count)
    assert alone(plan, tiny_model, half) == expected
    computed, after = [], len(computed)
    alone(plan, tiny_model, tmp_path / "again")
    assert after + there <= len(computed) and there > 0


def test_what_one_process_has_begun_a_cluster_ends(client, plan, tiny_model, tmp_path, monkeypatch):
    expected = alone(plan, tiny_model, tmp_path / "alone")
    monkeypatch.setattr("scanner.streaming.COMMIT_SECONDS", 0.0)
    told = iter(range(100))

    def stop(_count):
        if next(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(plan, tmp_path / "s", lambda: tiny_model("llama"), protocol_sha256="0" * 64,
               advance=stop)  # fmt: skip
    assert (partial_of(plan, tmp_path / "s") / "journal").read_text()
    spread(client, [plan], tmp_path / "s")
    assert files(tmp_path / "s") == expected


def test_a_mistake_on_a_worker_is_the_same_mistake_here(client, plan, tmp_path, monkeypatch):
    wide = replace(plan, tokens="target_mean")
    with pytest.raises(ValueError, match="attention weights have no mean over tokens"):
        spread(client, [wide], tmp_path)
    monkeypatch.setattr(cluster, "_code", lambda: "other code")
    with pytest.raises(ClusterError, match="and `scan` other code; install the same on all"):
        spread(client, [replace(plan, seed=5)], tmp_path)


def test_a_worker_with_other_code_is_given_no_analysis(client, monkeypatch):
    monkeypatch.setattr(cluster, "_code", lambda: "other code")
    with pytest.raises(ClusterError, match=r"the worker at tcp://.* and `scan` other code; in"):
        with spread_analyses(client):
            pass


def test_analyses_that_end_worker_after_worker_end_with_one_line(client, monkeypatch):
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)  # of three
    with pytest.raises(ClusterError, match="several workers ended one after the other over the sa"):
        with spread_analyses(client) as processes:
            list(in_parallel(processes, os.abort, [()]))
    client.wait_for_workers(2)  # for the tests that come


def test_a_damaged_volume_is_refused_before_any_work(client, plan, tiny_model, tmp_path):
    alone(plan, tiny_model, tmp_path)
    (plan.path(tmp_path) / "resid_post/c/0/0/0").unlink()
    with pytest.raises(VolumeError, match="not those that were recorded"):
        spread(client, [plan], tmp_path)


def test_a_scheduler_that_runs_is_used_by_its_address(client, plan, tiny_model, tmp_path):
    with connected(client.scheduler.address) as other:
        spread(other, [plan], tmp_path / "s")
    assert files(tmp_path / "s") == alone(plan, tiny_model, tmp_path / "alone")
    assert len(client.nthreads()) == 2  # it goes on


def begun(protocol, results, log):
    """`scan record` in processes of its own, as a terminal starts it."""
    # Who runs tests in the background may not hear of Ctrl-C; a terminal's programs do.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    called = [sys.executable, "-c", f"{heard}; from protocols.cli import main; main()", "record"]
    return subprocess.Popen(
        [*called, str(protocol), "--results", str(results), "--cluster", "local:2"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SCAN_LOG": str(log),
             "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(WORKER)])},
        cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True,
        process_group=0,
    )  # fmt: skip


def ended(scan):
    """What a process said, when it and all that it started are gone."""
    said = scan.communicate(timeout=60)[1]
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.killpg(scan.pid, 0)
        except ProcessLookupError:
            return said
        time.sleep(0.1)
    raise AssertionError("processes of the cluster outlive it")


def test_ctrl_c_keeps_what_was_recorded_and_leaves_no_process(
    tiny_source, texts, tmp_path, monkeypatch
):
    (tmp_path / "words.csv").write_text(texts.table.to_csv(index=False))
    protocol, log = tmp_path / "protocol.yaml", tmp_path / "log"
    model = tiny_source("llama").folder
    protocol.write_text(
        f"study: toy\nsubjects: [{model}]\nstimuli: words.csv\n"
        "scan: {sites: [resid_post, z], tokens: target, twins: 1}\n"
        "analyses: {prefer: {selectivity: {site: resid_post}}}\n"
    )
    log.mkdir()
    results = tmp_path / "spread"
    scan = begun(protocol, results, log)
    while not (there := [*results.glob("volumes/*.partial/parts/[0-9]*")]):
        assert scan.poll() is None, scan.stderr.read()
        time.sleep(0.01)
    os.killpg(scan.pid, signal.SIGINT)  # a terminal tells all processes
    said = ended(scan)
    assert scan.returncode == 130 and "interrupted; run the same command to go on" in said
    assert "Traceback" not in said
    assert all(part.is_dir() for part in there)
    kept = [part for one in results.glob("volumes/*.partial") for part in parts.parts_of(one)]
    before = len((log / "passes").read_text().splitlines())
    scan = begun(protocol, results, log)
    said = ended(scan)
    assert scan.returncode == 0, said
    computed, forward = [], recording.Passes._forward
    monkeypatch.setattr(
        recording.Passes, "_forward", lambda *a: (computed.append(a[1]), forward(*a))[1]
    )
    run("record", protocol, "--results", tmp_path / "alone")
    assert files(results / "volumes") == files(tmp_path / "alone/volumes")
    again = len((log / "passes").read_text().splitlines()) - before
    assert again == len(computed) - sum(len(part.batches) for part in kept)


@pytest.mark.parametrize("where", ["local", "local:0", "local:x", "slurm", "tcp://here"])
def test_a_cluster_that_is_none_is_refused(where):
    with pytest.raises(ClusterError, match=f"no cluster '{where}'; give `local:4`"):
        with connected(where):
            pass


def test_no_scheduler_and_no_dask_are_said_with_their_mend(monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER", 0.2)
    with pytest.raises(ClusterError, match="no scheduler of dask answers at tcp://127.0.0.1:9; st"):
        with connected("tcp://127.0.0.1:9"):
            pass
    monkeypatch.setattr(cluster, "find_spec", lambda _name: None)
    with pytest.raises(ClusterError, match=r"needs dask; install it with: pip install 'lmfmri\["):
        with connected("local:2"):
            pass


@pytest.mark.parametrize("processes", [1, 3])
def test_batches_are_divided_into_runs_that_are_there_once_and_not_too_large(processes):
    left, sizes = [0, 1, 2, 5, 6, 7, 8, 9], [10, 10, 10, 10, 90, 10, 10, 10]
    found = list(parts.divide(left, sizes, processes))
    assert [number for some in found for number in some] == left
    most = sum(sizes) // (parts.PARTS_EACH * processes)
    size = dict(zip(left, sizes, strict=True))
    assert all(len(some) == 1 or sum(size[n] for n in some) <= most for some in found)
    assert list(parts.divide([], [], processes)) == []
