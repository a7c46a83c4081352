"""`scan calibrate`: what is measured is told, what is done is not done again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from protocols import calibrate
from protocols.calibrate import Calibration, page, shortfalls
from protocols.cli import app
from verification.calibration import kinds
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
    summary = json.loads((folder / "calibration.json").read_text())
    assert summary["false"]["selectivity.profile"]["supported"]["of"] == 3
    assert summary["faults"]["architecture-taken-for-learning"]["slips"].keys() == {
        "untrained_twin"
    }
    assert "| `untrained_twin` | twin-is-the-trained-model, architecture-taken-for-lea" in written

    def refuse(*_given, **_named):
        raise AssertionError("it is there")

    for work in ("false_findings", "planted", "red_team"):
        monkeypatch.setattr(calibrate, work, refuse)
    (folder / "calibration.md").unlink()
    Calibration(folder, 3, 1, 1).run()
    assert (folder / "calibration.md").read_text() == written
    monkeypatch.setattr(calibrate, "code_version", lambda: "another")
    with pytest.raises(AssertionError, match="it is there"):
        Calibration(folder, 3, 1, 1).run()


BROKEN = {"check": "untrained twin", "breaks": "It is broken.", "said": ["null"]}


def rate(count: int, of: int = 100) -> dict[str, float]:
    return {"hits": count, "of": of, "low": count / of, "high": count / of}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "Nothing."),
        ({"supported": 8}, "profile: false findings 8.0%"),
        ({"power": 89}, "profile, effect 0.6: 89.0%"),
        ({"null": 79}, "profile, effect 0: 79.0%"),
        ({"caught": 94}, "no-twin-at-all: caught 94.0%"),
        ({"flagged": 6}, "no-twin-at-all: clean twin flagged 6.0%"),
    ],
)
def test_the_page_says_what_misses_the_standard(change: dict[str, int], said: str) -> None:
    got = {"supported": 1, "power": 95, "null": 85, "caught": 100, "flagged": 0} | change
    summary = {
        "code_version": "v", "sizes": {"studies": 100, "planted": 100, "seeds": 100},
        "false": {"profile": {"supported": rate(got["supported"]), "significant": rate(40),
                              "by_world": {"noise": rate(1)}}},
        "planted": {"profile": {"effect": 0.6, "measured": 0.6,
                                "said": {"supported": rate(got["power"])}}},
        "zero": {"profile": {"effect": 0.0, "measured": 0.0, "said": {"null": rate(got["null"])}}},
        "faults": {"no-twin-at-all": {"caught": rate(got["caught"]), "slips": {},
                                      "flagged": rate(got["flagged"]), "missed": "", "alarm": "",
                                      **BROKEN}},
    }  # fmt: skip
    assert said in page(summary)
    assert bool(shortfalls(summary)) == bool(change)


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
