"""A study whose subjects are trained here, through the command line: what the tiny form takes."""

import json
from pathlib import Path

import pytest

from scanner import made, trained
from tests.conftest import run

# So many that a quarter of them, of which a control makes a network, are enough.
NOUNS = [f"noun{number}" for number in range(40)]
SUBJECT = """\
  - model: {name}
    trained: {{grammar: toy.csv, layers: 1, width: 16, heads: 2, neurons: 24, steps: 6, batch: 8,
              rate: 0.01, penalty: {{kind: {kind}, strength: {strength}}}}}
"""
PROTOCOL = """\
study: toy
subjects:
{subjects}
stimuli: nouns.csv
scan: {{sites: [resid_post], tokens: last, twins: 1}}
analyses:
  network: {{connectome: {{site: resid_post, nodes: 12, densities: [0.2], splits: 1, nulls: 0}}}}
hypotheses:
  - id: dose
    claim: Modules are the clearer, the more long wires cost.
    rationale: It is tried.
    measure: network.modularity
    subject: every
    among: [{among}]
    follows: strength
    at: {{layer: 0}}
    expect: greater
    than: chance
    smallest_effect: 0.3
    alpha: 0.05
    controls:
      untrained_twin: {{margin: 0.3}}
      rotated_units: {{margin: 0.3, rotations: 1}}
      split_half: {{margin: 0.3, splits: 2}}
"""
STRENGTHS = {"plain": "0", "low": "1e-4", "middle": "1e-3", "high": "1e-2", "most": "1e-1"}


@pytest.fixture
def protocol(tmp_path, monkeypatch) -> Path:
    for module in (made, trained):
        monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(trained, "HELD_OUT", 50)
    rules = ["symbol,share,gives", "text,1,the noun sleeps ."]
    rules += [f"noun,{1 / len(NOUNS)!r},{noun}" for noun in NOUNS]
    (tmp_path / "toy.csv").write_text("\n".join(rules) + "\n")
    rows = ["text,item,frame,category", *(f"the {one},{one},the,animals" for one in NOUNS)]
    (tmp_path / "nouns.csv").write_text("\n".join(rows) + "\n")
    every = [(name, "wiring", strength) for name, strength in STRENGTHS.items()]
    every.append(("sparse", "l1", "1e-3"))
    subjects = "".join(SUBJECT.format(name=a, kind=b, strength=c) for a, b, c in every)
    path = tmp_path / "protocol.yaml"
    path.write_text(PROTOCOL.format(subjects=subjects, among=", ".join(STRENGTHS)))
    return path


def test_trained_subjects_are_recorded_and_judged_by_their_dose_as_any(
    protocol, tmp_path, capfd
) -> None:
    results = tmp_path / "results"
    run(protocol, "--results", results, "--dry-run")
    assert "middle would be made first: 6 steps\n" in capfd.readouterr().out

    run(protocol, "--results", results)
    assert "training middle: 6 steps" in capfd.readouterr().err
    names = {path.name.split("--")[0] for path in (results / "volumes").glob("*.zarr")}
    subjects = {*STRENGTHS, "sparse"}
    assert names == subjects | {f"{one}.twin0" for one in subjects}
    (verdict,) = json.loads((results / "toy/verdicts.json").read_text())["verdicts"]
    assert {one["subject"].partition(".")[0] for one in verdict["volumes"]} == set(STRENGTHS)
    assert verdict["status"] != "invalid", verdict["reason"]
    assert {one["control"] for one in verdict["checks"]} == {
        "untrained_twin", "rotated_units", "split_half",
    }  # fmt: skip
    scan = json.loads((results / "ledger.jsonl").read_text().splitlines()[0])["content"]["scan"]
    assert (
        [one["model"] for one in scan["subjects"]]
        == list(STRENGTHS)
        == sorted(scan["made"], key=list(STRENGTHS).index)
    )
    assert scan["made"]["high"]["trained"]["penalty"] == {
        "kind": "wiring", "strength": 0.01, "seed": 0,
    }  # fmt: skip
    assert "a rank correlation with strength" in (results / "toy/report.html").read_text()

    folders = sorted(path.name for path in (tmp_path / "cache").glob("toy*"))
    assert len(folders) == 1 + len(subjects)  # the fresh network is one for all
