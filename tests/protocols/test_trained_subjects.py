"""A study whose subjects are trained here, through the command line: what the tiny form takes."""

import json
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from protocols.report.doses import Charged, arms, half_width, in_percent
from protocols.run import Folders, Run
from protocols.schema import load_study
from scanner import made, trained
from tests.conftest import run

# So many that a quarter of them, of which a control makes a network, are enough.
NOUNS = [f"noun{number}" for number in range(40)]
SUBJECT = """\
  - model: {name}
    trained: {{grammar: toy.csv, layers: 1, width: 16, heads: 2, neurons: 24, steps: 6, batch: 8,
              rate: 0.01, seed: {seed}, penalty: {{kind: {kind}, strength: {strength}}}}}
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
PAIRS = """\
  - id: pairs
    claim: Modules are clearer with a charge than without.
    rationale: It is tried.
    measure: joined.modularity
    subject: every
    among: [{charged}]
    minus: [{plain}]
    at: {{layer: 0}}
    expect: greater
    than: 0
    smallest_effect: 0.02
    alpha: 0.1
    controls:
      untrained_twin: {{margin: 0.01}}
      random_target: {{margin: 0.01}}
      split_half: {{margin: 0, splits: 2}}
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
    subjects = "".join(SUBJECT.format(name=a, kind=b, strength=c, seed=0) for a, b, c in every)
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

    # What was learned is a score as well, and that of a card.
    protocol.write_text(protocol.read_text().replace("follows: strength", "follows: learned"))
    study = load_study(protocol)
    scores = Run(study, Folders(results, "toy"))._scores(study.protocol.hypotheses[0], ())
    assert scores is not None
    cards = {one["name"]: one for one in (
        json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*/making.json")
    ) if "name" in one}  # fmt: skip
    assert scores == tuple(-cards[one]["held_out"]["nats_a_word"] for one in STRENGTHS)
    assert len(set(scores)) == len(STRENGTHS)

    folders = sorted(path.name for path in (tmp_path / "cache").glob("toy*"))
    assert len(folders) == 1 + len(subjects)  # the fresh network is one for all


def test_networks_of_one_seed_are_pairs_and_drawn_by_strength(protocol, tmp_path, capfd) -> None:
    """Charged as much as this, weights of a network with few steps hardly change their modules."""
    plain, charged = ([f"{side}{seed}" for seed in range(4)] for side in ("plain", "charged"))
    every = [(name, "none", "0", seed) for seed, name in enumerate(plain)]
    every += [(name, "wiring", "1e-2", seed) for seed, name in enumerate(charged)]
    every.append(("sparse", "l1", "1e-3", 0))
    subjects = "".join(
        SUBJECT.format(name=name, kind=kind, strength=strength, seed=seed)
        for name, kind, strength, seed in every
    )
    text = PROTOCOL.format(subjects=subjects, among="").replace("6, batch", "3, batch")
    text = text[: text.index("  network:")] + "  joined: {weight_modules: {random: 3}}\n"
    text += "hypotheses:\n" + PAIRS.format(charged=", ".join(charged), plain=", ".join(plain))
    protocol.write_text(text)
    results = tmp_path / "results"
    run(protocol, "--results", results)
    capfd.readouterr()
    (verdict,) = json.loads((results / "toy/verdicts.json").read_text())["verdicts"]
    assert verdict["status"] != "invalid", verdict["reason"]
    assert [one["subject"] for one in verdict["members"]] == [*charged, *plain]
    values = np.array([one["estimate"] for one in verdict["members"]]).reshape(2, 4)
    assert verdict["estimate"] == pytest.approx(np.mean(values[0] - values[1]))
    assert verdict["p"] * 16 == pytest.approx(round(verdict["p"] * 16))
    # Twins of one seed are the same network, and what is left of a pair is the pair itself.
    twins = np.array([one["worlds"]["untrained_twin"] for one in verdict["members"]])
    assert np.ptp(twins.reshape(2, 4), axis=0) == pytest.approx(0)
    page = unescape((results / "toy/report.html").read_text())
    assert "a mean difference over pairs of subjects greater than 0" in page
    assert "wiring at 0.01:" in page and "l1 at 0.001:" in page and "4 pairs" in page
    assert "What a word costs more, in percent: wiring at 0.01" in page
    assert "charged0 less plain0" in page and "Fisher, R. A. (1935)" in page


def test_pairs_are_told_apart_by_strength_and_losses_in_percent() -> None:
    pairs = [Charged("a", "p", "wiring", 0.1), Charged("b", "q", "wiring", 0.1),
             Charged("c", "p", "l1", 0.3), Charged("d", "r", "l1", 0.3)]  # fmt: skip
    values = {"a": 1.02, "b": 2.2, "c": 0.5, "d": 9.0, "p": 1.0, "q": 2.0}
    wiring, sparse = arms(pairs, values)
    assert (wiring.kind, wiring.strength) == ("wiring", 0.1)
    assert wiring.differences == pytest.approx([0.02, 0.2])
    assert sparse.differences == pytest.approx([-0.5])  # r was not measured
    relative, _ = in_percent(pairs, values)
    assert relative.differences == pytest.approx([2, 10])
    low, high = ttest_1samp(wiring.differences, 0).confidence_interval(0.95)
    assert half_width(wiring.differences) == pytest.approx((high - low) / 2)
    assert half_width(sparse.differences) is None
