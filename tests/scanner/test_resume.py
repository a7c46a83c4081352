"""A recording that was killed goes on where it was, and ends as the same bytes."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from scanner import Recording, VolumeError, open_volume, passes, record, recording, streaming
from scanner.volume import digest_file, volume_digest

SCRIPT = Path(__file__).with_name("die_recording.py")
ROOT = Path(__file__).parents[2]
DEATHS = 20


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
        [sys.executable, SCRIPT, tiny_source("llama").folder, toy_csv, root, str(DEATHS)],
        env={**os.environ, "SOURCE_DATE_EPOCH": "0", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return root, [json.loads(line) for line in done.stdout.splitlines()]


def test_kill_9_at_random_moments_and_the_same_command_ends_as_the_same_bytes(deaths):
    root, seen = deaths
    whole = files(root / "whole")
    assert any(name.endswith(".sha256") for name in whole)
    assert sum(life["died"] for line in seen for life in line["lives"]) >= DEATHS
    for line in seen:
        assert files(root / line["folder"]) == whole, line


def test_the_moments_are_before_between_and_behind_the_batches(deaths):
    _, seen = deaths
    died = [life for line in seen for life in line["lives"] if life["died"]]
    batches = seen[0]["batches"]
    assert batches >= 8
    assert any(not life["journal"] and not life["renamed"] for life in died)
    assert any(0 < len(life["journal"]) < batches for life in died)
    assert any(len(life["journal"]) == batches and not life["renamed"] for life in died)
    assert any(life["renamed"] for life in died)


def test_what_the_journal_names_is_never_computed_again(deaths):
    _, seen = deaths
    spared = 0
    for line in seen:
        there = set()
        for life in line["lives"]:
            left = [n for n in range(line["batches"]) if n not in there]
            assert life["passes"] == left[: len(life["passes"])], line
            assert life["died"] or len(life["passes"]) == len(left), line
            spared += line["batches"] - len(left)
            there |= {*life["journal"], *life["noted"]}
    assert spared > 0


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


@pytest.fixture
def begun(plan, tiny_model, tmp_path, monkeypatch):
    """``begun(folder)``: a recording that was stopped after two of several batches; its folder."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    monkeypatch.setattr(passes, "batch_tokens", lambda _device: 40)
    monkeypatch.setattr("scanner.batches.ROW_TOKENS", 20)
    monkeypatch.setattr(streaming, "COMMIT_SECONDS", 0.0)

    class StopError(Exception):
        pass

    def begin(folder):
        told = iter(range(100))

        def stop(_count):
            if next(told) == 2:  # 0 tells what was there before
                raise StopError

        with pytest.raises(StopError):
            record(
                plan, folder, lambda: tiny_model("llama"), protocol_sha256="0" * 64, advance=stop
            )
        return plan.path(folder).with_suffix(".zarr.partial")

    return begin


@pytest.fixture
def batches(plan, tiny_model):
    """First stimuli of the batches that are computed, as long as this fixture is used."""
    computed = []
    forward = passes.Passes._forward

    def count(self, rows, stream):
        computed.append(np.concatenate(rows).tolist())
        forward(self, rows, stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes.Passes, "_forward", count)
        yield computed


def test_only_the_batches_that_are_missing_are_computed(plan, tiny_model, tmp_path, begun, batches):
    partial = begun(tmp_path)
    assert (partial / "journal").read_text() == "0\n1\n"
    before = list(batches)
    batches.clear()
    told = []
    record(
        plan, tmp_path, lambda: tiny_model("llama"), protocol_sha256="0" * 64, advance=told.append
    )
    assert len(before) == 2
    assert sorted(sum(before + batches, [])) == list(range(36))  # none twice
    assert told == [len(sum(before, [])), *map(len, batches)]


def test_a_recording_goes_on_where_its_folder_is_seen_under_another_path(
    plan, tiny_model, tmp_path, begun, batches
):
    """As on another machine: nothing in what was begun names where it lay."""
    whole = record(plan, tmp_path / "w", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    every = list(batches)
    begun(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    batches.clear()
    again = record(plan, tmp_path / "there", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    assert batches == every[2:]
    assert files(again) == files(whole)


@pytest.mark.parametrize("torn", ["1", "17", "garbage"])
def test_a_line_of_the_journal_that_was_being_written_does_not_count(
    plan, tiny_model, tmp_path, begun, batches, torn
):
    whole = record(plan, tmp_path / "w", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    every = list(batches)
    partial = begun(tmp_path / "t")
    (partial / "journal").write_text(f"0\n{torn}")
    batches.clear()
    again = record(plan, tmp_path / "t", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    assert batches == every[1:]
    assert files(again) == files(whole)


def test_a_beginning_that_was_being_cleared_away_is_no_beginning(plan, tiny_model, tmp_path, begun):
    whole = record(plan, tmp_path / "w", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    partial = begun(tmp_path / "t")
    (partial / "zarr.json").unlink()
    again = record(plan, tmp_path / "t", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    assert files(tmp_path / "t").keys() == files(tmp_path / "w").keys()
    assert files(again) == files(whole)


def test_a_volume_that_was_renamed_and_not_sealed_is_sealed_and_not_computed(
    plan, tiny_model, tmp_path, begun
):
    begun(tmp_path / "t")
    whole = record(plan, tmp_path / "w", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "seal", lambda _path, _known: 1 / 0)  # killed there
        with pytest.raises(ZeroDivisionError):
            record(plan, tmp_path / "t", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    path = record(plan, tmp_path / "t", refuse_to_load, protocol_sha256="0" * 64)
    assert files(path.parent) == files(whole.parent)


def test_a_finished_volume_holds_no_journal_and_nothing_lies_beside_it_but_its_digest(
    plan, tiny_model, tmp_path
):
    path = record(plan, tmp_path, lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        [path.name, digest_file(path).name]
    )
    assert not (path / "journal").exists()


def test_two_recordings_of_the_same_are_the_same_bytes(plan, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    for place in ("one", "two"):
        record(plan, tmp_path / place, lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    path = plan.path(tmp_path / "one")
    # Hashed while it was written, it is what its files say.
    assert digest_file(path).read_text().strip() == volume_digest(path)


def test_what_was_recorded_and_then_damaged_is_not_taken_for_recorded(plan, tiny_model, tmp_path):
    path = record(plan, tmp_path, lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    (path / "resid_post/c/0/0/0").unlink()
    with pytest.raises(VolumeError, match="its bytes are not those that were recorded"):
        record(plan, tmp_path, refuse_to_load, protocol_sha256="0" * 64)


def test_a_volume_of_another_revision_in_its_place_is_refused(
    plan, tiny_source, tiny_model, tmp_path
):
    other = replace(plan, source=tiny_source("llama", seed=1))
    model = tiny_model("llama", seed=1)
    recorded = record(other, tmp_path, lambda: model, protocol_sha256="0" * 64)
    mine = plan.path(tmp_path)
    shutil.move(recorded, mine)
    shutil.move(digest_file(recorded), digest_file(mine))
    with pytest.raises(
        VolumeError, match=r"recorded with other weights \(.*Remove it and .*sha256"
    ):
        record(plan, tmp_path, refuse_to_load, protocol_sha256="0" * 64)


@pytest.mark.parametrize(
    "key", ["device", "sharing", "threads", "code_version", "environment", "tokens_sha256"]
)
def test_a_recording_begun_otherwise_is_begun_anew_and_not_mixed(
    plan, tiny_model, tmp_path, begun, batches, key
):
    whole = record(plan, tmp_path / "w", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    partial = begun(tmp_path / "mixed")
    zarr.open_group(partial).attrs[key] = "another"
    for shard in partial.rglob("c/0/0/0"):
        shard.write_bytes(bytes(shard.stat().st_size))  # what that device recorded
    batches.clear()
    again = record(plan, tmp_path / "mixed", lambda: tiny_model("llama"), protocol_sha256="0" * 64)
    assert sorted(sum(batches, [])) == list(range(36))
    assert volume_digest(again) == volume_digest(whole)
