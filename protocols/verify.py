"""Check a finished study against the ledger, and compute its verdicts again from the volumes."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from protocols.folders import Folders
from protocols.run import Recorded, Run, study_files
from protocols.schema import load_study
from scanner.volume import digest_file
from stimuli import StimulusSet
from verification import Ledger

# Sums in another order, on another processor, change the last digits; a verdict must not hang on
# them.
TOLERANCE = 1e-6
# By how much of the smallest effect that matters an estimate may differ on another device.
RERUN = 0.1


class VerifyError(ValueError):
    """The first thing about a study that no longer holds."""


def verify(home: Path) -> str:
    """Verify a study.

    Parameters
    ----------
    home : pathlib.Path
        Its folder, ``results/<study>``.

    Returns
    -------
    str
        What was checked.

    Raises
    ------
    VerifyError, LedgerError, VolumeError
        Naming the file, or the number, that is not what it was.
    """
    folders = folders_of(home)
    ledger = Ledger(folders.ledger)
    files = check_files(folders, ledger)
    study = load_study(folders.protocol, stimuli=StimulusSet.from_csv(folders.stimuli))
    stated = json.loads(folders.verdicts.read_text())
    for key, value in (
        ("study", study.protocol.study),
        ("protocol_sha256", study.sha256),
        ("stimuli_sha256", study.stimuli.digest),
    ):
        if stated[key] != value:
            raise VerifyError(f"{folders.verdicts}: {key} is {stated[key]}, found {value}")
    if not any(entry["digest"] == stated["ledger_head"] for entry in ledger.entries):
        raise VerifyError(f"{folders.verdicts}: its ledger_head is no line of {folders.ledger}")
    recorded = [Recorded(**one) for one in (*stated["recordings"], *stated["effects"])]
    check_volumes(folders, recorded, study.stimuli.digest)
    run = Run(study, folders)
    recomputed = [verdict.as_json() for verdict in run.judged(run.cases(ledger, recorded))]
    for was, now in zip(stated["verdicts"], recomputed, strict=True):
        _compare(was, json.loads(json.dumps(now)), f"verdict '{was['id']}'")
    return (
        f"{files} files, {len(recorded)} volumes and {len(ledger.entries)} lines of the ledger are "
        f"what was written; {len(recomputed)} verdicts were computed again and stand"
    )


def rerun(home: Path) -> str:
    """Record a finished study anew on this device, and hold the verdicts against those written.

    Parameters
    ----------
    home : pathlib.Path
        Its folder, ``results/<study>``. What is recorded anew is removed again.

    Returns
    -------
    str
        How far the estimates differ.

    Raises
    ------
    VerifyError
        If a verdict is another, or an estimate differs by more than `RERUN` times the smallest
        effect that matters.
    """
    folders = Folders(home.parent, home.name)
    study = load_study(folders.protocol, stimuli=StimulusSet.from_csv(folders.stimuli))
    stated = json.loads(folders.verdicts.read_text())["verdicts"]
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".rerun-") as fresh:
        run = Run(study, Folders(Path(fresh), study.protocol.study))
        run.register()
        run.record()
        found = run.judged(run.cases(Ledger(run.folders.ledger), run.recorded()))
    furthest = 0.0
    for was, now in zip(stated, found, strict=True):
        if was["status"] != now.status:
            raise VerifyError(
                f"verdict '{now.id}': written is {was['status']}, recorded anew it is "
                f"{now.status}: {now.reason}"
            )
        if was["estimate"] is None:
            continue
        apart = abs(was["estimate"] - now.estimate) / now.smallest_effect
        furthest = max(furthest, apart)
        if apart > RERUN:
            raise VerifyError(
                f"verdict '{now.id}': its estimate was {was['estimate']:.4f}, recorded anew it is "
                f"{now.estimate:.4f}; more than {RERUN:g} of the smallest effect that matters"
            )
    return (
        f"recorded anew, all {len(found)} verdicts stand; estimates differ by at most "
        f"{furthest:.2g} of the smallest effect that matters"
    )


def folders_of(home: Path) -> Folders:
    """The folders of a finished study.

    Raises
    ------
    VerifyError
        If there is none.
    """
    folders = Folders(home.parent, home.name)
    if not folders.verdicts.is_file():
        raise VerifyError(
            f"{home} holds no verdicts.json; it is not the folder of a finished study"
        )
    return folders


def check_files(folders: Folders, ledger: Ledger) -> int:
    """Hold the files of a study against the ledger. Returns how many there are.

    Raises
    ------
    VerifyError
        Naming the first that is not what was written.
    """
    entry = ledger.latest_judgement(folders.study)
    if entry is None:
        raise VerifyError(f"{folders.ledger} knows no verdicts of '{folders.study}'")
    found = study_files(folders.home)
    for name, sha256 in entry["files"].items():
        if name not in found:
            raise VerifyError(f"{folders.home / name} is gone")
        if found[name] != sha256:
            raise VerifyError(f"{folders.home / name} was changed after the verdicts were written")
    extra = set(found) - set(entry["files"])
    if extra:
        raise VerifyError(f"{folders.home / min(extra)} was not written by this study")
    return len(found)


def check_volumes(folders: Folders, recorded: list[Recorded], stimuli_sha256: str) -> None:
    """Hold recordings against those that were judged.

    The bytes themselves are checked when the volumes are opened.

    Raises
    ------
    VerifyError
        Naming the first that is another, or is gone.
    """
    for one in recorded:
        path = folders.root / one.path
        if not digest_file(path).is_file():
            raise VerifyError(f"volume {path} is gone")
        if digest_file(path).read_text().strip() != one.sha256:
            raise VerifyError(f"volume {path} is not the one that was judged")
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        if attributes["stimuli_sha256"] != stimuli_sha256:
            raise VerifyError(f"volume {path} was recorded from other stimuli")


def _compare(was: Any, now: Any, place: str) -> None:
    """Hold two values against each other, numbers within the tolerance."""
    if isinstance(was, dict) and isinstance(now, dict) and was.keys() == now.keys():
        for key in was:
            _compare(was[key], now[key], f"{place}, {key}")
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (one, other) in enumerate(zip(was, now, strict=True)):
            _compare(one, other, f"{place}, {index}")
    elif isinstance(was, float) and isinstance(now, float):
        if not math.isclose(was, now, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise VerifyError(f"{place}: written is {was}, computed again {now}")
    elif was != now and not place.endswith("reason"):  # reasons repeat the numbers in words
        raise VerifyError(f"{place}: written is {was!r}, computed again {now!r}")
