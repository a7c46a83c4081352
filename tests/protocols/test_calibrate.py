"""`scan calibrate`: what is measured is told, what is done is not done again."""

import json
from pathlib import Path

import pytest

from protocols import calibrate
from protocols.calibrate import Calibration, page, shortfalls
from protocols.cli import app
from verification.calibration import KINDS
from verification.red_team import FAULTS


@pytest.fixture
def few(monkeypatch) -> None:
    """One kind of measure and two faults."""
    kept = ("twin-is-the-trained-model", "architecture-taken-for-learning")
    monkeypatch.setattr(calibrate, "KINDS", {"selectivity.profile": KINDS["selectivity.profile"]})
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
