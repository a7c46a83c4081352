"""A study whose subjects are made of others, through the command line, on a toy model."""

import json
from pathlib import Path

import pytest

from analyses.tuning_vector import WRONG
from scanner import made
from tests.conftest import run

PLACES = ("house", "field", "wood", "river")
WORDS = {"land": ("dog", "pig", "fox", "elk", "yak", "cat", "hen", "cow"),
         "sea": ("eel", "cod", "ray", "orca", "seal", "crab", "squid", "whale")}  # fmt: skip
PROTOCOL = """\
study: toy
subjects:
  - {model}
  - model: land
    tuned: {{of: {model}, stimuli: {{set: asked.csv, only: {{domain: [land], known: [taught]}}}},
             epochs: 40, rate: 0.01, batch: 6}}
  - model: dealt
    tuned: {{of: {model}, stimuli: {{set: asked.csv, only: {{domain: [land], known: [taught]}}}},
             epochs: 40, rate: 0.01, batch: 6, dealt: domain}}
  - {{model: no-land, sum: {{of: {model}, add: {{land: -1}}}}}}
stimuli: asked.csv
scan: {{sites: [resid_post], tokens: last, twins: 1}}
analyses:
  vector: {{tuning_vector: {{of: {model}, vector: land, category: land, strengths: [1, -0.5],
            shuffled: [dealt], random: 2}}}}
hypotheses:
  - id: recalled
    claim: What was taught is recalled.
    rationale: It was taught.
    measure: vector.recalled
    at: {{layer: 0}}
    subject: {model}
    expect: greater
    than: chance
    smallest_effect: 0.1
    alpha: 0.05
    controls:
      untrained_twin: {{margin: 0.1}}
      random_target: {{margin: 0.1}}
      split_half: {{margin: 0.0, splits: 3}}
"""


def write(folder: Path, model: Path) -> Path:
    rows = [",".join(("text", "item", "frame", "category", "domain", "known", "answer", *WRONG))]
    for number, frame in enumerate(("Where is the {}?", "We look for the {}.")):
        for domain, words in WORDS.items():
            for place, word in enumerate(words):
                right, *wrong = (PLACES[(place + one) % 4] for one in range(4))
                known = "kept back" if place > 5 else "taught"
                cells = (frame.format(word), word, f"f{number}", domain, domain, known, right)
                rows.append(",".join((*cells, *wrong)))
    (folder / "asked.csv").write_text("\n".join(rows) + "\n")
    path = folder / "protocol.yaml"
    path.write_text(PROTOCOL.format(model=model))
    return path


@pytest.fixture
def protocol(tmp_path, tiny_source, monkeypatch) -> Path:
    monkeypatch.setattr(made, "cache_folder", lambda: tmp_path / "cache")
    return write(tmp_path, tiny_source("llama", seed=100).folder)


def test_made_subjects_are_recorded_moved_judged_and_verified_as_any(
    protocol, tmp_path, capfd
) -> None:
    results = tmp_path / "results"
    run(protocol, "--results", results, "--dry-run")
    told = capfd.readouterr().out
    assert "land would be made first: 80 steps\n" in told
    assert "no-land would be made first: 1 step\n" in told
    assert not (tmp_path / "cache").exists()

    run(protocol, "--results", results)
    assert "teaching land: 80 steps" in capfd.readouterr().err
    base = tmp_path.joinpath("protocol.yaml").read_text().split("\n")[2].removeprefix("  - ")
    names = {path.name.split("--")[0] for path in (results / "volumes").glob("*.zarr")}
    subjects = {Path(base).name, "land", "dealt", "no-land"}
    assert names == subjects | {f"{one}.twin0" for one in subjects}
    assert {path.name for path in (results / "toy/measures").glob("vector*")} == {
        f"vector--{Path(base).name}.nc", f"vector--{Path(base).name}.twin0.nc",
    }  # fmt: skip
    (verdict,) = json.loads((results / "toy/verdicts.json").read_text())["verdicts"]
    assert verdict["estimate"] >= 0.2
    assert {one["control"] for one in verdict["checks"] if one["passed"]} >= {"random_target"}
    page = (results / "toy/report.html").read_text()
    assert "recalled by vector" in page and "Ilharco et al. 2023" in page
    registered = json.loads((results / "ledger.jsonl").read_text().splitlines()[0])
    assert set(registered["content"]["scan"]["made"]) == {"land", "dealt"}

    made_ones = len(list((tmp_path / "cache").glob("llama*")))
    run(protocol, "--results", results)
    assert "nothing has changed" in capfd.readouterr().err
    assert len(list((tmp_path / "cache").glob("llama*"))) == made_ones == 3
    run("verify", results / "toy")


def test_claims_are_of_the_subject_whose_weights_are_moved(protocol, tmp_path, capfd) -> None:
    text = protocol.read_text()
    base = text.split("\n")[2].removeprefix("  - ")
    protocol.write_text(text.replace(f"subject: {base}", "subject: land"))
    run(protocol, "--results", tmp_path / "results", code=1)
    assert f"'land' is only given to 'vector', which acts on {base}; name one of these" in " ".join(
        capfd.readouterr().err.split()
    )
    protocol.write_text(text.replace("shuffled: [dealt]", "shuffled: [delt]"))
    run(protocol, "--results", tmp_path / "results", code=1)
    said = " ".join(capfd.readouterr().err.split())
    assert "'delt' is not scanned; did you mean 'dealt'?" in said
