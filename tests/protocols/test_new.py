"""`scan new`: what it writes can be checked and run as it stands."""

import json
import os
from pathlib import Path

import pytest
import yaml

from protocols.schema import load_study
from tests.conftest import run
from verification import Ledger, required


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_accepted_as_it_is_and_takes_minutes(here: Path, capfd) -> None:
    run("new", "mine")
    assert "protocol: mine.yaml" in capfd.readouterr().out
    run("check", "mine.yaml", "--json")
    told = json.loads(capfd.readouterr().out)
    (cost,) = told["subjects"].values()
    assert told["study"] == "mine" and cost["seconds"] < 60 and told["disk_bytes"] < 100e6
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


def test_every_block_is_explained_and_none_of_the_quickstart_is_missing(here: Path) -> None:
    run("new", "mine")
    lines = Path("mine.yaml").read_text().splitlines()
    shipped = Path(__file__).parents[2] / "protocols" / "quickstart.yaml"
    blocks = list(yaml.safe_load(shipped.read_text()))
    assert list(yaml.safe_load("\n".join(lines))) == blocks
    for block in blocks:
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{block}:"))
        explained = "#" in lines[at] or lines[at - 1].startswith("#")
        assert explained or lines[at - 1].startswith("study:"), block
    assert max(map(len, lines)) <= 100 and not any("{{" in line for line in lines)


def test_it_can_be_registered_as_it_is_and_judged_by_the_controls_it_needs(
    here: Path, tiny_source
) -> None:
    run("new", "mine", "--subject", tiny_source("llama").folder)
    run("register", "mine.yaml")
    (filed,) = Ledger(Path("results/ledger.jsonl")).drawer()
    assert (filed.study, filed.id) == ("mine", "decodable")
    study = load_study(Path("mine.yaml"))
    (claim,) = study.protocol.hypotheses
    assert set(claim.controls) >= set(required(claim, study.analyses["decode"]))


@pytest.mark.parametrize("name", ["mine", "mine.yaml", "mine.yml"])
def test_a_protocol_that_is_there_is_left_as_it_is(here: Path, name: str, capfd) -> None:
    Path("mine.yaml").write_text("precious")
    run("new", name, code=1)
    assert "mine.yaml is there already and is left as it is" in capfd.readouterr().err
    assert Path("mine.yaml").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("My Study", "scan new my-study"),
        ("x/2nd try", "scan new x/nd-try"),
        ("é", "scan new study"),
    ],
)
def test_a_name_that_cannot_be_one_is_met_with_one_that_can(here, name, hint, capfd) -> None:
    run("new", name, code=1)
    said = capfd.readouterr().err
    assert "cannot name a study" in said and f"Try `{hint}`" in said
    assert not list(here.iterdir())


def test_folders_and_subjects_are_named_in_full(here: Path, tiny_source) -> None:
    """Also a folder whose name would be something else in YAML."""
    strange = here / "a, b: #c"
    os.symlink(tiny_source("llama").folder, strange)
    run("new", "deep/er/mine", "--subject", strange.name)
    study = load_study(Path("deep/er/mine.yaml"))
    assert study.protocol.study == "mine"
    assert study.protocol.subjects[0].model == str(strange.resolve())
