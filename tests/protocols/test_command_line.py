"""The command `scan`: help with examples, lists, JSON for machines, statuses."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import stimuli
from analyses import REGISTRY
from protocols import cli, output
from protocols.cli import app
from protocols.examples import EXAMPLES
from protocols.parts import parts
from protocols.schema import load_study
from scanner.sites import KINDS
from scanner.sources import EMBEDDED
from tests.conftest import run
from verification import CONTROLS

PAGE = Path(__file__).parents[2] / "docs" / "command_line.md"
COMMANDS = [name for name in app if not name.startswith("-")]
EXPLAINED = [*COMMANDS, "--install-completion"]


def documented(command: str) -> set[str]:
    """What the page names in the row of a command."""
    (row,) = [
        line for line in PAGE.read_text().splitlines() if line.startswith(f"| `scan {command}")
    ][-1:]
    return set(re.findall(r"`(\w+)`", row))


def keys(value: object) -> set[str]:
    """Those of an object and of what lies in it that are words of ours, not names of things."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = set(value) if isinstance(value, dict) else set()
    return own.union(*map(keys, inner))


@pytest.fixture
def printed(capfd):
    """``printed(*arguments)``: the object that is printed."""

    def print_it(*arguments: object) -> dict:
        run(*arguments, "--json")
        found = json.loads(capfd.readouterr().out)
        assert list(found)[:2] == ["command", "lmfmri"]
        assert found.pop("command") == f"scan {arguments[0]}" and found.pop("lmfmri")
        return found

    return print_it


@pytest.fixture
def protocol(tmp_path: Path, tiny_source, toy_csv) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"study: toy\nsubjects: [{tiny_source('llama').folder}]\nstimuli: {toy_csv}\n"
        "scan: {sites: [resid_post], twins: 1}\n"
        "analyses: {shape: {geometry: {site: resid_post}}}\n"
    )
    return path


@pytest.mark.parametrize("command", EXPLAINED)
def test_the_help_of_each_command_ends_with_examples(command: str, capfd) -> None:
    run(command, "--help")
    said = " ".join(capfd.readouterr().out.split())
    _, _, examples = said.partition("Examples:")
    for line in EXAMPLES[command]:
        assert line in examples
    assert "Exit status" not in examples


@pytest.mark.parametrize("line", [line for known in EXAMPLES.values() for line in known])
def test_examples_can_be_typed(line: str) -> None:
    _, *words = shlex.split(line)
    command, bound, unused = app.parse_known_args(words, console=None)[:3]
    named = app[words[0]] if words[0] in EXPLAINED else app
    assert command is named.default_command
    assert not unused and len(bound.arguments) >= min(1, len(words) - (named is not app))


def test_examples_name_what_there_is() -> None:
    assert set(EXAMPLES) == {"", *EXPLAINED}
    lines = [line for known in EXAMPLES.values() for line in known]
    root = Path(__file__).parents[2]
    for path in (word for line in lines for word in line.split() if word.startswith("protocols/")):
        assert (root / path).is_file()


def test_the_help_and_the_page_say_what_statuses_mean(capfd) -> None:
    run("--help")
    said = capfd.readouterr().out
    for status in ("0", "1", "2", "130"):
        assert re.search(rf"\b{status},", said) and f"| {status} |" in PAGE.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_options_and_kinds(shell) -> None:
    script = app.generate_completion(shell=shell)
    assert all(command in script for command in COMMANDS)
    assert "controls" in script and "dry-run" in script


def test_a_list_names_all_that_there_is_with_a_line_about_each(printed) -> None:
    found = printed("list")
    assert set(found["analyses"]) == set(REGISTRY)
    assert set(found["controls"]) == set(CONTROLS)
    assert list(found["stimuli"]) == stimuli.shipped()
    assert list(found["sites"]) == list(KINDS)
    assert list(found["subjects"]) == list(EMBEDDED)
    for known in found.values():
        for name, what in known.items():
            assert what and "\n" not in what, name
    assert documented("list") >= set(found)


def test_shipped_protocols_are_listed_as_they_can_be_run(printed, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    (found,) = printed("list", "protocols").values()
    assert found["protocols/quickstart.yaml"] == "Categories of words in a small language model"
    monkeypatch.chdir(tmp_path)
    away = parts("protocols")["protocols"]
    assert len(away) == len(found)
    assert load_study(Path(next(iter(away)))).protocol.study


def test_one_kind_is_listed_alone_and_in_a_pipe_each_name_has_one_line(capfd) -> None:
    run("list", "stimuli")
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "stimuli" and len(lines) == 1 + len(stimuli.shipped())
    assert lines[2].split("  ", 2)[1] == "concepts" and lines[2].endswith("2400 stimuli.")
    run("list", "kontrols", code=2)
    assert 'Did you mean "controls"?' in " ".join(capfd.readouterr().err.split())


def test_on_a_terminal_what_is_long_is_wrapped_beside_its_name(monkeypatch, capfd) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", "40")
    output.print_columns([("short", "word " * 12), ("a-longer-name", "end")])
    lines = [line.rstrip() for line in capfd.readouterr().out.splitlines()]
    assert lines[0].startswith("  short          word word") and lines[-1].endswith("  end")
    assert len(lines) > 3 and max(map(len, lines)) <= 40
    assert all(line.startswith(" " * 17 + "word") for line in lines[1:-1])


def test_costs_for_machines(protocol: Path, printed) -> None:
    found = printed("check", protocol)
    (cost,) = found["subjects"].values()
    assert cost["recordings"] == 2 and cost["stimuli"] == 36
    assert found["disk_bytes"] == 2 * cost["recording_bytes"] == 2 * 36 * 3 * 32 * 4
    assert cost["seconds"] == pytest.approx(cost["operations"] / 1e11)
    assert documented("check") >= set(found) | set(cost)


def test_a_ledger_for_machines(protocol: Path, printed, capfd, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert printed("ledger", "--results", results)["registered"] == []
    shipped = Path(__file__).parents[2] / "protocols" / "quickstart.yaml"
    text = shipped.read_text().replace("[smollm2-135m-instruct]", "[{}]")
    model = load_study(protocol).protocol.subjects[0].model
    protocol.write_text(text.replace("{}", model).replace("layer: 15", "layer: 2"))
    run("register", protocol, "--results", results)
    capfd.readouterr()
    found = printed("ledger", "--results", results)
    first = found["registered"][0]
    assert first["study"] == "quickstart" and first["id"] == "decodable"
    assert first["verdict"] is None and not first["superseded"]
    assert documented("ledger") >= set(found) | set(first)


def test_an_anatomy_for_machines(printed, tiny_source) -> None:
    found = printed("subjects", tiny_source("llama").folder)
    assert found["parameters"] == 53472 and found["layers"] == 3
    q = {"shape": {"head": 4, "head_unit": 8}, "layers": 3, "bytes": 384,
         "where": "self_attn (operation)"}  # fmt: skip
    assert found["sites"]["q"] == q
    assert list(found["refused"]) == ["router"]
    assert 0 <= max(found["deviations"].values()) < 1e-4
    assert documented("subjects") >= set(found) | set(q)


def test_a_doctor_for_machines(printed, monkeypatch) -> None:
    monkeypatch.setattr("protocols.doctor.offered", lambda requirement: "nothing")
    found = printed("doctor")
    for name in ("versions", "unmet", "extras"):
        found[name] = None  # keys are names of packages
    for name in ("subjects", "devices"):
        for one in found[name].values() if isinstance(found[name], dict) else found[name]:
            assert documented("doctor") >= set(one)
    assert documented("doctor") >= set(found) | keys(found["advice"]) | keys(found["places"])


def test_a_mistake_prints_no_object(tmp_path: Path, capfd) -> None:
    run("check", tmp_path / "nowhere.yaml", "--json", code=1)
    said = capfd.readouterr()
    assert said.out == "" and "no such file" in said.err


@pytest.mark.parametrize(
    ("word", "hint"), [("chek", "did you mean 'scan check'?"), ("xyz", "commands: ")]
)
def test_a_word_that_is_no_command_is_met_with_one_that_is(word, hint, capfd) -> None:
    for more in ((), ("protocols/quickstart.yaml",)):
        run(word, *more, code=2)
        said = capfd.readouterr().err
        assert f"'{word}' is neither a command nor a protocol" in said and hint in said


def test_whoever_has_read_enough_is_no_mistake(monkeypatch, capfd) -> None:
    def closed(*given: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "parts", closed)
    run("list")
    assert capfd.readouterr().err == ""
    assert sys.stdout.writable()
