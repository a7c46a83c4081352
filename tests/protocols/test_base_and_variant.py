"""A whole study of a base model and its variant: what the gate says of gates and of maps."""

import json
from pathlib import Path

import pytest
import torch

from scanner import Model
from scanner.moved_weights import weights_of
from tests.conftest import run

WORDS = {
    "animals": ["cat", "beaver", "horse", "otter", "mole", "deer"],
    "tools": ["hammer", "saw", "chisel", "wrench", "drill", "file"],
}
FRAMES = ["There was {} here.", "The word is {} now."]
CLAIM = """
  - id: {id}
    claim: The gates of the variant are moved by its tuning.
    rationale: More than noise of the same size would move them.
    measure: opened.{measure}
    subject: {subject}
    at: {{layer: mean}}
    expect: {expect}
    than: {than}
    smallest_effect: 0.01
    alpha: 0.05
    controls:
{controls}
      split_half: {{margin: 0.0, splits: 3}}"""
PRESENCE = "      untrained_twin: {margin: 0.001}\n      random_target: {margin: 0.01}"


def told(subject: Path, **settings: str) -> str:
    known = {"expect": "greater", "than": "chance", "controls": PRESENCE, "measure": "moved"}
    return CLAIM.format(subject=subject, **{**known, **settings})


@pytest.fixture
def folders(tiny_source, tmp_path) -> tuple[Path, Path]:
    """A base, and a variant whose first gates were all pushed the same way."""
    source = tiny_source("llama", seed=100)
    model = Model.load(source, device="cpu")
    with torch.no_grad():
        for name, weight in weights_of(model).items():
            if "gate_proj" in name:
                weight += 2 * weight.std() * weight.flip(0).sign() * (torch.arange(32) < 4)
    folder = tmp_path / "variant"
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    rows = [
        f"{frame.format(item)},{item},frame{number},{category}"
        for number, frame in enumerate(FRAMES)
        for category, items in WORDS.items()
        for item in items
    ]
    (tmp_path / "words.csv").write_text("\n".join(["text,item,frame,category", *rows]) + "\n")
    return source.folder, folder


def test_gates_of_a_variant_are_judged_beside_its_base(tmp_path, folders) -> None:
    base, variant = folders
    known = "      known_target: {margin: 0.05}"
    claims = [
        told(variant, id="moved"),
        told(variant, id="small", measure="edited", expect="less", than="0.01", controls=known),
    ]
    protocol = tmp_path / "protocol.yaml"
    protocol.write_text(
        f"study: toy\nsubjects: [{base}, {variant}]\nstimuli: words.csv\n"
        "scan: {sites: [resid_post], twins: 1}\n"
        f"analyses:\n  opened: {{gates: {{donor: {base}}}}}\nhypotheses:{''.join(claims)}\n"
    )
    run(protocol, "--results", tmp_path / "results")
    moved, small = json.loads((tmp_path / "results/toy/verdicts.json").read_text())["verdicts"]
    assert moved["estimate"] > 0.05
    assert {check["control"] for check in moved["checks"]} >= {"untrained_twin", "random_target"}
    assert all(check["passed"] is not None for check in moved["checks"])
    assert small["status"] in ("null", "rejected")  # gates are edited by more than that
    assert any(one["control"] == "known_target" and one["passed"] for one in small["checks"])
    # What is held against the base is the variant, and not the base itself.
    measured = sorted(path.name for path in (tmp_path / "results/toy/measures").iterdir())
    assert measured == ["opened--variant.nc", "opened--variant.twin0.nc"]
    page = (tmp_path / "results/toy/report.html").read_text()
    for panel in ("share of open gates", "gates that differ", "edit distance of patterns of gates"):
        assert panel in page
    run("verify", tmp_path / "results/toy")


def test_a_claim_about_the_base_itself_is_refused(tmp_path, folders, capsys) -> None:
    base, variant = folders
    protocol = tmp_path / "protocol.yaml"
    protocol.write_text(
        f"study: toy\nsubjects: [{base}, {variant}]\nstimuli: words.csv\n"
        "scan: {sites: [resid_post], twins: 1}\n"
        f"analyses:\n  opened: {{gates: {{donor: {base}}}}}\nhypotheses:{told(base, id='moved')}\n"
    )
    run(protocol, "--results", tmp_path / "results", code=1)
    assert "is only given to 'opened'" in " ".join(capsys.readouterr().err.split())
