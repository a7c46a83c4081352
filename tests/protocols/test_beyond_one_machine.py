"""Studies on a cluster and with results in object storage: as by one process in a folder."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import obstore
import pytest

from analyses.probe import Probe
from protocols import run as study
from protocols.folders import RemoteFolders, folders_at
from scanner import object_store, open_volume, verify_volume
from scanner.object_store import Store
from scanner.passes import Passes
from tests.conftest import FRAMES, WORDS, run

PROTOCOL = """\
study: toy
subjects: [{model}]
stimuli: words.csv
scan: {{sites: [resid_post], twins: 2}}
analyses:
  decode: {{probe: {{site: resid_post, item_folds: 2}}}}
hypotheses:
  - id: decodable
    claim: The category can be read.
    rationale: A model that was never trained should not know it.
    measure: decode.balanced_accuracy
    at: {{layer: 1}}
    expect: greater
    than: chance
    smallest_effect: 0.2
    alpha: 0.05
    controls:
      untrained_twin: {{margin: 0.1}}
      shuffled_labels: {{permutations: 19}}
      surface_only: {{margin: 0.05}}
      split_half: {{margin: 0.0, splits: 3}}
"""


@pytest.fixture(scope="module")
def protocol(tmp_path_factory, tiny_source) -> Path:
    folder = tmp_path_factory.mktemp("protocol")
    rows = [
        f"{frame.format(item)},{item},{name},{category}"
        for name, frame in FRAMES.items()
        for category, items in WORDS.items()
        for item in items
    ]
    (folder / "words.csv").write_text("\n".join(["text,item,frame,category", *rows]) + "\n")
    model = tiny_source("llama", seed=100).folder
    (folder / "protocol.yaml").write_text(PROTOCOL.format(model=model))
    return folder / "protocol.yaml"


@pytest.fixture(scope="module")
def local(protocol, tmp_path_factory) -> Path:
    """The results of the study in a folder."""
    results = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "0")
        run(protocol, "--results", results)
    return results


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Be on another machine, which has nothing in its cache."""

    def be(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    be("first")
    return be


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def objects(url: str) -> dict[str, bytes]:
    store = Store(url)
    return {name: store.get(name).content for name in store.names()}


def error_of(capfd) -> str:
    err = capfd.readouterr().err
    assert "Traceback" not in err
    (line,) = (line for line in err.splitlines() if line.startswith("error:"))
    return line


def test_a_study_in_a_bucket_is_byte_for_byte_that_in_a_folder(
    protocol, local, bucket, machine, capfd
):
    url = f"{bucket}/lab"
    run(protocol, "--results", url)
    expected = files(local)
    assert objects(url) == expected
    assert sum("/c/" in name for name in expected) >= 3 and "ledger.jsonl" in expected
    for name in (name for name in expected if name.endswith(".sha256")):
        volume = f"{url}/{name.removesuffix('.sha256')}.zarr"
        verify_volume(volume)
        here = open_volume(local / f"{name.removesuffix('.sha256')}.zarr")
        assert open_volume(volume).load().identical(here.load())
    # Another machine has nothing to do, and finds nothing to say against it.
    machine("second")
    capfd.readouterr()
    run(protocol, "--results", url)
    assert "nothing has changed since the verdicts were written" in capfd.readouterr().err
    assert objects(url) == expected
    run("verify", f"{url}/toy")
    run("ledger", "--results", url)
    out = capfd.readouterr().out
    assert "verified: " in out and "1 verdicts were computed again" in out
    assert f"{url}/ledger.jsonl: the file drawer" in out and "decodable" in out
    obstore.put(Store(url).objects, "toy/report.html", b"changed")
    run("verify", f"{url}/toy", code=1)
    assert "report.html was changed after the verdicts were written" in error_of(capfd)


def test_a_study_on_a_cluster_is_byte_for_byte_that_of_one_machine(
    protocol, local, machine, monkeypatch, tmp_path, capfd
):
    def here(*_arguments, **_settings):
        pytest.fail("computed in this process, not on the cluster")

    monkeypatch.setattr(Probe, "__call__", here)
    capfd.readouterr()
    run(protocol, "--results", tmp_path / "results", "--cluster", "local:2")
    found, expected = files(tmp_path / "results"), files(local)
    told = [json.loads(one.pop("toy/verdicts.json")) for one in (found, expected)]
    # Recordings are noted in the order in which they are finished: the chain is another, and what
    # names its head.
    for one in (found, expected, *told):
        for name in ("ledger.jsonl", "toy/report.html", "ledger_head"):
            one.pop(name, None)
    assert found == expected and sum(name.endswith(".nc") for name in found) == 4
    assert told[0] == told[1]
    said = capfd.readouterr().err
    assert "on local:2: " in said and "analysing: 3 analyses" in said and "judging: " in said


def test_a_study_that_was_interrupted_goes_on_where_it_is_seen_under_another_path(
    protocol, local, machine, monkeypatch, tmp_path
):
    monkeypatch.setattr("scanner.passes.batch_tokens", lambda _device: 16)
    monkeypatch.setattr("scanner.batches.ROW_TOKENS", 16)
    monkeypatch.setattr("scanner.streaming.COMMIT_SECONDS", 0.0)
    passes, forward = [], Passes._forward

    def counted(self, rows, stream):
        passes.append(rows)
        if len(passes) == stop:
            raise KeyboardInterrupt
        forward(self, rows, stream)

    monkeypatch.setattr(Passes, "_forward", counted)
    stop = 0
    run("record", protocol, "--results", tmp_path / "whole")
    each, rest = divmod(len(passes), 3)
    assert each > 3 and rest == 0
    passes, stop = [], each + 4  # in the second of three recordings
    run("record", protocol, "--results", tmp_path / "one", code=130)
    volumes = tmp_path / "one/volumes"
    assert len([*volumes.glob("*.zarr")]) == 1
    (journal,) = volumes.glob("*.partial/journal")
    kept = len(journal.read_text().splitlines())
    assert kept > 0
    shutil.move(tmp_path / "one", tmp_path / "other")
    machine("second")
    passes, stop = [], 0
    run(protocol, "--results", tmp_path / "other")
    assert len(passes) == 2 * each - kept
    assert files(tmp_path / "other/volumes") == files(tmp_path / "whole/volumes")
    (verdict,) = json.loads((tmp_path / "other/toy/verdicts.json").read_text())["verdicts"]
    assert not verdict["exploratory"]


def begun(protocol: Path, url: str) -> subprocess.Popen:
    """A process that scans."""
    called = [sys.executable, "-c", "from protocols.cli import main; main()"]
    return subprocess.Popen([*called, str(protocol), "--results", url], cwd=Path.cwd())


def test_a_run_that_was_killed_goes_on_and_lets_no_other_in_before(
    protocol, local, bucket, machine, monkeypatch, capfd
):
    url = f"{bucket}/lab"
    scan = begun(protocol, url)
    while not any(name.endswith(".sha256") for name in Store(url).names()):
        assert scan.poll() is None
        time.sleep(0.01)
    machine("second")
    run(protocol, "--results", url, code=1)
    said = error_of(capfd)
    assert re.search(
        rf"another run \(\w+, process {scan.pid} on .*\) is writing to {url}; wait", said
    )
    os.kill(scan.pid, signal.SIGKILL)
    scan.wait()
    there = objects(url)
    assert ".lock" in there and "toy/verdicts.json" not in there
    # Another machine is told that it is not known to be dead; after a while it goes on.
    run(protocol, "--results", url, code=1)
    assert "it is forgotten after 60 s" in error_of(capfd)
    # The machine that it was killed on need not wait.
    machine("first")
    computed = recordings(monkeypatch)
    run(protocol, "--results", url)
    assert objects(url) == files(local)
    assert len(computed) < 3  # what was kept is not recorded again


def recordings(patch) -> list[str]:
    """Names of the subjects that are loaded from now on."""
    loaded, load = [], study._load

    def noted(planned, models):
        loaded.append(planned.recording.subject)
        return load(planned, models)

    patch.setattr(study, "_load", noted)
    return loaded


def test_another_machine_goes_on_with_what_was_kept(
    protocol, local, bucket, machine, monkeypatch, capfd
):
    """Of a run that ended between two recordings, and whose machine is gone."""
    url = f"{bucket}/lab"
    kept, keep = [], RemoteFolders.keep_volume

    class GoneError(Exception):
        pass

    def gone(folders, path):
        keep(folders, path)
        kept.append(path.stem)
        if len(kept) == 2:
            raise GoneError

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolders, "keep_volume", gone)
        # What is killed lets go of nothing.
        patch.setattr(object_store.Lease, "__exit__", lambda self, *_: self._over.set())
        with pytest.raises(GoneError):
            run(protocol, "--results", url)
    machine("second")
    monkeypatch.setattr(object_store, "LEASE", 1)
    time.sleep(2.1)
    computed = recordings(monkeypatch)
    run(protocol, "--results", url)
    assert [one for one in computed if any(one == name.rpartition("--")[0] for name in kept)] == []
    assert len(computed) == 1
    assert objects(url) == files(local)


def test_who_is_killed_while_a_volume_is_pushed_does_not_forget_when_it_was_recorded(
    protocol, local, bucket, machine, monkeypatch
):
    url = f"{bucket}/lab"

    class GoneError(Exception):
        pass

    def gone(path, store, *, check):
        raise GoneError

    with monkeypatch.context() as patch, pytest.raises(GoneError):
        patch.setattr("protocols.folders.push", gone)
        run("record", protocol, "--results", url)
    assert [name for name in objects(url) if "volumes/" in name] == []
    run(protocol, "--results", url)
    assert objects(url) == files(local)


def test_a_line_of_the_ledger_is_not_written_over_another(local, bucket, machine, tmp_path):
    url = f"{bucket}/lab"
    text = (local / "ledger.jsonl").read_bytes()
    folders = folders_at(url, "toy")
    with folders.alone():
        folders.ledger.write_bytes(text)
        folders.keep_ledger()
        obstore.put(Store(url).objects, "ledger.jsonl", text + b"more")  # who took it for dead
        with pytest.raises(object_store.TakenError, match="another run has written to the ledger"):
            folders.keep_ledger()
    assert Store(url).get("ledger.jsonl").content == text + b"more"


@pytest.mark.parametrize(
    ("settings", "where", "said"),
    [
        ({}, "s3://nowhere/lab", "there is no bucket 'nowhere'; make it, or correct the URL"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "", "http://127.0.0.1:9 does not answer; see"),
        ({"AWS_ACCESS_KEY_ID": None}, "", "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None,
          "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"}, "", "no credentials; set AWS_ACCESS_KEY"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_store_is_one_line_and_a_status(
    protocol, bucket, machine, monkeypatch, capfd, settings, where, said
):
    for name, value in settings.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    run(protocol, "--results", where or f"{bucket}/lab", code=1)
    assert said in error_of(capfd)


def test_what_needs_a_folder_says_so(capfd) -> None:
    run("calibrate", "--results", "s3://bucket/lab", code=1)
    assert "s3://bucket/lab: this command needs a folder on this machine" in error_of(capfd)
    run("suggest", "s3://bucket/lab/toy", code=1)
    assert "s3://bucket/lab/toy: this command needs a folder on this machine" in error_of(capfd)
