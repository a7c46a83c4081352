"""A recording that was killed goes on where it was, and ends as the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from scanner import Recording, open_volume, record, recording
from scanner.volume import digest_file, volume_digest

SCRIPT = Path(__file__).with_name("die_recording.py")
ROOT = Path(__file__).parents[2]


def files(folder):
    """Names and bytes of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def deaths(tiny_source, toy_csv, tmp_path_factory):
    """Recordings killed at many moments and taken up again: their folders, and what was seen."""
    root = tmp_path_factory.mktemp("deaths")
    done = subprocess.run(
        [
            sys.executable,
            SCRIPT,
            tiny_source("llama").folder,
            toy_csv,
            root,
            # Elsewhere each moment takes two processes that import everything anew.
            "1" if sys.platform == "linux" else "6",
        ],
        env={**os.environ, "SOURCE_DATE_EPOCH": "0", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return root, [json.loads(line) for line in done.stdout.splitlines()]


def test_kill_9_at_any_moment_and_the_same_command_ends_as_the_same_bytes(deaths):
    root, seen = deaths
    whole = files(root / "whole")
    assert any(name.endswith(".sha256") for name in whole)
    assert all(line["died"] for line in seen[:-1])
    for line in seen:
        assert line["resumed"] == 0, line
        assert files(root / str(line["moment"])) == whole, line
    # Moments before the first of six chunks, between them, and behind the last are among them.
    assert {0, 6} <= {line["chunks"] for line in seen[:-1]}
    assert sys.platform != "linux" or {line["chunks"] for line in seen} == set(range(7))


def test_chunks_that_were_finished_when_it_was_killed_are_not_written_again(deaths):
    _, seen = deaths
    assert max(line["chunks"] for line in seen[:-1]) == 6
    assert [line for line in seen if line["touched"]] == []


def test_the_time_in_a_volume_is_the_source_date_epoch(deaths):
    root, _ = deaths
    (path,) = (root / "whole").glob("*.zarr")
    assert open_volume(path).attrs["time"] == "1970-01-01T00:00:00+00:00"


@pytest.fixture
def plan(tiny_source, toy_stimuli):
    return Recording(tiny_source("llama"), toy_stimuli, ("resid_post",), "target", "float32")


def refuse_to_load():
    raise AssertionError("the model was loaded")


def test_what_is_recorded_is_not_recorded_again_and_the_model_not_loaded(
    plan, tiny_model, tmp_path
):
    told = []
    with pytest.raises(AssertionError, match="was loaded"):
        record(plan, tmp_path, refuse_to_load, protocol_sha256="0" * 64)
    first = record(
        plan, tmp_path, lambda: tiny_model("llama"), protocol_sha256="0" * 64, advance=told.append
    )
    before = files(tmp_path)
    second = record(plan, tmp_path, refuse_to_load, protocol_sha256="1" * 64, advance=told.append)
    assert (first, sum(told)) == (second, 2 * 36)
    assert files(tmp_path) == before


def test_only_the_chunks_that_are_missing_are_computed(plan, tiny_model, tmp_path, monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(recording, "CHUNK_BYTES", 10 * model.layers * model.width * 4)
    rows = []
    model.blocks[0].register_forward_hook(lambda _m, _a, output: rows.append(len(output)))

    class StopError(Exception):
        pass

    last = iter([False, True])

    def stop_after_two(_count):
        if next(last):
            raise StopError

    with pytest.raises(StopError):
        record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64, advance=stop_after_two)
    assert rows[-2:] == [10, 10]
    rows.clear()
    record(plan, tmp_path, lambda: model, protocol_sha256="0" * 64)
    assert rows == [10, 6]  # and no identities are proved a second time


def test_two_recordings_of_the_same_are_the_same_bytes(plan, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    for place in ("one", "two"):
        record(plan, tmp_path / place, lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(digest_file(plan.path(tmp_path / "one")).read_text().strip()) == 64


def test_what_was_recorded_and_then_damaged_is_not_taken_for_recorded(plan, tiny_model, tmp_path):
    from scanner import VolumeError

    path = record(plan, tmp_path, lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    (path / "resid_post/c/0/0/0").unlink()
    with pytest.raises(VolumeError, match="its bytes are not those that were recorded"):
        record(plan, tmp_path, refuse_to_load, protocol_sha256="0" * 64)


def test_a_recording_begun_otherwise_is_begun_anew_and_not_mixed(
    tiny_model, toy_stimuli, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    monkeypatch.setattr(recording, "CHUNK_BYTES", 4000)
    model = tiny_model()
    wanted = Recording(model.source, toy_stimuli, ("resid_post",), "target", "float32")
    whole = record(wanted, tmp_path / "whole", lambda: model, protocol_sha256="p")

    def stop_after_one_chunk(stimuli: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(
            wanted, tmp_path / "mixed", lambda: model, protocol_sha256="p",
            advance=stop_after_one_chunk,
        )  # fmt: skip
    (partial,) = (tmp_path / "mixed").glob("*.partial")
    zarr.open_group(partial).attrs["device"] = "another"
    chunk = partial / "resid_post/c/0/0/0"
    chunk.write_bytes(bytes(chunk.stat().st_size))  # what that device recorded
    again = record(wanted, tmp_path / "mixed", lambda: model, protocol_sha256="p")
    assert volume_digest(again) == volume_digest(whole)
