"""A full or read-only disk is one clear error, and with room the same command goes on."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fill_disk.py")
ROOT = Path(__file__).parents[2]
PROTOCOL = """
study: small-disk
subjects: [{model}]
stimuli: {stimuli}
scan: {{sites: [resid_post], tokens: target, twins: 1}}
analyses:
  decode: {{probe: {{site: resid_post, label: category, item_folds: 2, frame_folds: 2}}}}
"""


def refused() -> str:
    """Why this machine lets nobody mount a file system of his own; empty where it does."""
    if sys.platform != "linux":
        return f"a small disk of one's own needs Linux, this is {sys.platform}"
    try:
        subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unshare is not permitted here: {getattr(error, 'stderr', '') or error}"
    return ""


@pytest.fixture(scope="module")
def steps(tiny_source, toy_csv, tmp_path_factory):
    """What happened on the small disk, by the name of the step."""
    why = refused()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("disk")
    (folder / "mounted").mkdir()
    model = tiny_source("llama").folder
    protocol = folder / "protocol.yaml"
    protocol.write_text(PROTOCOL.format(model=model, stimuli=toy_csv))
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, SCRIPT, model, toy_csv, protocol, folder / "mounted"],
        env={**os.environ, "SOURCE_DATE_EPOCH": "0", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert list((folder / "mounted").iterdir()) == []  # nothing was mounted for others to see
    found = {}
    for line in done.stdout.splitlines():
        step = json.loads(line)
        found.setdefault(step["step"], []).append(step)
    return found


def test_a_disk_that_is_full_at_any_size_is_an_error_of_the_system_until_it_is_large_enough(steps):
    *full, last = steps["full"]
    assert len(full) >= 3
    for step in full:
        assert step["errno"] == errno.ENOSPC or "No space left" in step["said"], step
    assert last["errno"] == 0


def test_with_room_the_recording_ends_as_if_the_disk_had_never_been_full(steps):
    undisturbed = steps["undisturbed"][0]["said"]
    assert len(undisturbed) == 64
    assert steps["full"][-1]["said"] == undisturbed
    assert steps["with room at the last step"][0]["said"] == undisturbed


def test_a_disk_that_is_full_when_the_digest_is_written_does_not_condemn_the_volume(steps):
    (full,), (room,) = steps["full at the last step"], steps["with room at the last step"]
    assert full["errno"] == errno.ENOSPC
    assert room["errno"] == 0


def test_a_read_only_folder_is_an_error_of_the_system_but_what_is_recorded_is_found(steps):
    assert steps["read-only"][0]["errno"] in (errno.EROFS, errno.EACCES)
    assert steps["read-only, there"][0]["errno"] == 0


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("command, full", "the disk is full"),
        ("command, read-only", "may not write here"),
    ],
)
def test_the_command_ends_with_status_1_and_one_line_that_says_what_to_do(steps, step, words):
    (found,) = steps[step]
    assert found["status"] == 1
    *before, line = found["said"].splitlines()
    assert line.startswith("error: ") and words in line
    assert "run the same command" in line or "--results" in line
    # What comes before are steps that went well: no traceback.
    assert all(re.search(r": .*\d s$", one) for one in before), before


def test_the_same_command_with_room_records_all(steps):
    (found,) = steps["command, with room"]
    assert found["status"] == 0
    assert "error" not in found["said"]
    assert found["said"].count("36 stimuli") == 2
