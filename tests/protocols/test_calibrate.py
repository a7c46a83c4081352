"""`scan calibrate`: what is measured is told, what is done is not done again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from protocols import calibrate
from protocols.calibrate import Calibration, Row, shortfalls
from protocols.cli import app
from protocols.folders import folders_at
from protocols.run import RunError
from tests.conftest import run
from verification.calibration import Caught, FalseFindings, Planted, kinds
from verification.red_team import FAULTS


@pytest.fixture
def few(monkeypatch) -> None:
    """One kind of measure and two faults."""
    kept = ("twin-is-the-trained-model", "architecture-taken-for-learning")
    one = {"selectivity.profile": kinds()["selectivity.profile"]}
    monkeypatch.setattr(calibrate, "kinds", lambda: one)
    monkeypatch.setattr(calibrate, "FAULTS", {name: FAULTS[name] for name in kept})


def test_a_calibration_is_written_and_goes_on_where_it_was_interrupted(
    few, tmp_path: Path, monkeypatch, capsys
) -> None:
    sizes = ["--studies", "3", "--planted", "1", "--seeds", "1"]
    app(["calibrate", "-r", str(tmp_path), *sizes], result_action="return_value")
    folder = tmp_path / "calibration"
    assert f"calibrated: {folder / 'calibration.md'}" in capsys.readouterr().out
    written = (folder / "calibration.md").read_text()
    rows = json.loads((folder / "calibration.json").read_text())["rows"]
    assert rows["false selectivity.profile"]["counted"]["studies"] == 3
    assert rows["faults architecture-taken-for-learning"]["counted"]["slipped"] == {
        "untrained_twin": 1
    }
    assert "| `untrained_twin` | twin-is-the-trained-model, architecture-taken-for-lea" in written
    assert "Not measured yet" not in written

    monkeypatch.setattr(calibrate, "false_findings", refuse)
    monkeypatch.setattr(calibrate, "planted", refuse)
    monkeypatch.setattr(calibrate, "red_team", refuse)
    (folder / "calibration.md").unlink()
    Calibration(folder, 3, 1, 1).run()
    assert (folder / "calibration.md").read_text() == written


def test_two_calibrations_do_not_write_over_each_other(few, tmp_path: Path, capfd) -> None:
    folder = tmp_path / "calibration"
    with folders_at(folder, "").alone():
        run("calibrate", "-r", tmp_path, code=1)
    assert f"another run is writing to {folder}; wait" in " ".join(capfd.readouterr().err.split())


def refuse(*_given, **_named):
    raise AssertionError("it is there")


@pytest.fixture
def quick(few, monkeypatch) -> None:
    """Beside them, no search for how strong a code must be."""

    def nothing(_kind, _effect, studies: range, **_named) -> Planted:
        return Planted(len(studies), 0.0, {"null": len(studies)})

    monkeypatch.setattr(calibrate, "planted", nothing)


def test_more_studies_are_added_to_those_that_are_there(quick, tmp_path: Path, monkeypatch) -> None:
    asked = []
    counted = calibrate.false_findings

    def noted(kind, studies: range, **named):
        asked.append(studies)
        return counted(kind, studies, **named)

    monkeypatch.setattr(calibrate, "false_findings", noted)
    monkeypatch.setattr(calibrate, "BATCH", 2)
    names = ("selectivity.profile",)
    Calibration(tmp_path / "more", 3, 1, 1, names).run()
    Calibration(tmp_path / "more", 5, 1, 1, names).run()
    assert asked == [range(2), range(2, 3), range(3, 5)]
    Calibration(tmp_path / "whole", 5, 1, 1, names).run()
    key = "false selectivity.profile"
    more, whole = (
        json.loads((tmp_path / name / "calibration.json").read_text())["rows"][key]["counted"]
        for name in ("more", "whole")
    )
    assert more == whole
    assert "- faults twin-is-the-trained-model" in (tmp_path / "more/calibration.md").read_text()


def test_a_row_of_older_code_stands_and_says_so_until_it_is_measured_whole_again(
    quick, tmp_path: Path, monkeypatch
) -> None:
    names = ("selectivity.profile",)
    Calibration(tmp_path, 2, 1, 1, names).run()
    assert ", older code |" not in (tmp_path / "calibration.md").read_text()
    monkeypatch.setattr(type(kinds()["selectivity.profile"]), "made_with", "another")
    Calibration(tmp_path, 2, 1, 1, ("twin-is-the-trained-model",)).run()
    assert (tmp_path / "calibration.md").read_text().count(", older code |") == 3

    counted = calibrate.false_findings

    def killed(kind, studies: range, **named):
        if studies.start:
            raise KeyboardInterrupt
        return counted(kind, studies, **named)

    monkeypatch.setattr(calibrate, "BATCH", 1)
    monkeypatch.setattr(calibrate, "false_findings", killed)
    with pytest.raises(KeyboardInterrupt):
        Calibration(tmp_path, 2, 1, 1, names).run()
    written = json.loads((tmp_path / "calibration.json").read_text())
    key = "false selectivity.profile"
    assert written["rows"][key]["made_with"] != "another"
    assert written["begun"][key]["counted"]["studies"] == 1
    monkeypatch.setattr(calibrate, "false_findings", counted)
    Calibration(tmp_path, 2, 1, 1, names).run()
    written = json.loads((tmp_path / "calibration.json").read_text())
    assert written["rows"][key]["made_with"] == "another"
    assert not written["begun"]


def test_a_name_that_is_none_is_told_with_the_nearest(few, tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"'selectivty\.profile'.*did you mean 'selectivity\.profile'"
    ):
        Calibration(tmp_path, 2, 1, 1, ("selectivty.profile",)).run()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"supported": 8}, "profile: false findings 8.0%"),
        ({"power": 89}, "profile, effect 0.6: 89.0%"),
        ({"null": 79}, "profile, effect 0: 79.0%"),
        ({"caught": 94}, "no-twin-at-all: caught 94.0%"),
        ({"flagged": 6}, "no-twin-at-all: clean twin flagged 6.0%"),
    ],
)
def test_what_misses_the_standard_is_said(change: dict[str, int], said: str | None) -> None:
    got = {"supported": 1, "power": 95, "null": 85, "caught": 100, "flagged": 0} | change
    found = {
        "false": [
            row("profile", FalseFindings(100, 40, {"noise": 100}, {"noise": got["supported"]}))
        ],
        "planted": [row("profile", Planted(100, 60.0, {"supported": got["power"]}))],
        "zero": [row("profile", Planted(100, 0.0, {"null": got["null"]}))],
        "faults": [row("no-twin-at-all", Caught(100, got["caught"], got["flagged"], {}, "", ""))],
    }
    missed = shortfalls(found)
    assert [one[: len(said)] for one in missed] == [said] if said else missed == []


def row(name: str, counted) -> Row:
    return Row(name, counted, "2026-11-28", "v", stale=False)


def test_without_the_packages_of_extras_scan_starts_and_calibrate_says_what_to_install(
    tmp_path: Path,
) -> None:
    # As after the installation that the quickstart does: no package of any extra.
    bare = """
import sys
from importlib.abc import MetaPathFinder
class Bare(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("lm_eval", "rouge_score", "umap", "sae_lens", "torchao", "datasets"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Bare())
import importlib.util
found = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return found(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_spec
from protocols.cli import main
sys.argv = ["scan", *sys.argv[1:]]
main()
"""
    quickstart = Path(__file__).parents[2] / "protocols" / "quickstart.yaml"
    runs = [
        subprocess.run(
            [sys.executable, "-c", bare, *arguments], capture_output=True, text=True, check=False
        )
        for arguments in (["check", str(quickstart)], ["calibrate", "--results", str(tmp_path)])
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[1].returncode != 0
    assert "Traceback" not in runs[1].stderr
    assert "pip install 'lmfmri[behaviour]'" in runs[1].stderr
