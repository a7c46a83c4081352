"""The ledger: frozen once, chained, and honest about what came first."""

import json
from pathlib import Path

import pytest

from verification import Ledger, LedgerError, Registration
from verification.ledger import START
from verification.red_team.fault import claim


def registration(**changed) -> Registration:
    fields = {
        "study": "s",
        "hypothesis": claim(),
        "analysis": {"probe": {"site": "resid_post"}},
        "stimuli_sha256": "0",
        "items": ("a", "b"),
        "scan": {"model": "m"},
        "seed": 0,
    }
    return Registration(**fields | changed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def filled(path: Path) -> Ledger:
    ledger = Ledger(path)
    sha256 = ledger.register(registration())
    ledger.recorded("v.zarr", "abc")
    ledger.judged("s", {"verdicts.json": "1"}, {sha256: {"status": "null", "exploratory": False}})
    return ledger


def test_what_is_written_is_read_back_and_writing_it_again_adds_nothing(path: Path) -> None:
    assert Ledger(path).head == START
    ledger = filled(path)
    before = path.read_bytes()
    again = filled(path)
    assert path.read_bytes() == before
    assert again.head == ledger.head
    assert [entry["kind"] for entry in again.entries] == ["registration", "recording", "verdicts"]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_any_edit_breaks_the_chain_at_its_line(path: Path, line: int) -> None:
    filled(path)
    lines = path.read_text().splitlines()
    entry = json.loads(lines[line])
    entry["time"] = "1999-01-01T00:00:00+00:00"
    lines[line] = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(LedgerError, match=f"line {line + 1}: the chain is broken here"):
        Ledger(path)


def test_dropping_and_reordering_lines_break_the_chain(path: Path) -> None:
    filled(path)
    first, second, third = path.read_text().splitlines()
    for lines in ([second, third], [first, third], [second, first, third]):
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(LedgerError, match="the chain is broken"):
            Ledger(path)


def test_a_line_cut_short_by_a_crash_is_named_with_its_mend(path: Path) -> None:
    filled(path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(LedgerError, match="line 3: .*remove that last line"):
        Ledger(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"hypothesis": claim(smallest_effect=0.2)},
        {"hypothesis": claim(expect="less")},
        {"hypothesis": claim(controls={"untrained_twin": {"margin": 0.0}})},
        {"analysis": {"probe": {"site": "resid_pre"}}},
        {"stimuli_sha256": "1"},
        {"scan": {"model": "other"}},
        {"seed": 1},
    ],
)
def test_a_changed_hypothesis_is_a_new_version_that_names_the_old(path: Path, changed) -> None:
    ledger = Ledger(path)
    old = ledger.register(registration())
    new = ledger.register(registration(**changed))
    assert new != old
    assert ledger.entries[-1]["supersedes"] == old
    assert ledger.entries[0]["supersedes"] is None


def test_a_hypothesis_is_exploratory_on_data_that_were_there_before_it(path: Path) -> None:
    ledger = Ledger(path)
    early = ledger.register(registration())
    ledger.recorded("v.zarr", "abc")
    late = ledger.register(registration(seed=1))
    assert not ledger.exploratory(early, [("v.zarr", "abc")])
    assert ledger.exploratory(late, [("v.zarr", "abc")])
    assert ledger.exploratory(early, [("v.zarr", "other bytes")])
    assert ledger.exploratory(early, [("v.zarr", "abc"), ("unknown.zarr", "abc")])
    assert ledger.exploratory("never registered", [])


def test_the_anchor_of_verdicts_is_the_last_line_that_they_rest_on(path: Path) -> None:
    ledger = Ledger(path)
    sha256 = ledger.register(registration())
    ledger.recorded("v.zarr", "abc")
    anchor = ledger.anchor([sha256], [("v.zarr", "abc")])
    assert anchor == ledger.head
    ledger.judged("s", {}, {})
    assert ledger.anchor([sha256], [("v.zarr", "abc")]) == anchor != ledger.head


def test_the_drawer_holds_what_was_registered_and_never_reported(path: Path) -> None:
    ledger = Ledger(path)
    kept = ledger.register(registration())
    dropped = ledger.register(registration(hypothesis=claim(id="dropped")))
    ledger.judged("s", {}, {kept: {"status": "null", "exploratory": False}})
    first, second = ledger.drawer()
    assert (first.sha256, first.verdict, first.exploratory) == (kept, "null", False)
    assert (second.sha256, second.id, second.verdict) == (dropped, "dropped", None)
    # A later judgement of the protocol without the null one does not take its verdict away.
    ledger.judged("s", {"f": "1"}, {dropped: {"status": "supported", "exploratory": True}})
    assert [one.verdict for one in Ledger(path).drawer()] == ["null", "supported"]
    assert [one.exploratory for one in Ledger(path).drawer()] == [False, True]


def test_versions_are_counted_by_study_and_id_and_the_last_one_stands(path: Path) -> None:
    ledger = Ledger(path)
    ledger.register(registration())
    ledger.register(registration(study="other"))
    ledger.register(registration(seed=1))
    ledger.register(registration(seed=2))
    found = [(one.study, one.version, one.superseded) for one in ledger.drawer()]
    assert found == [("s", 1, True), ("other", 1, False), ("s", 2, True), ("s", 3, False)]


@pytest.mark.parametrize(
    ("changed", "exploratory"),
    [
        ({"items": ("b", "c"), "stimuli_sha256": "1"}, True),  # b was looked at
        ({"items": ("c", "d"), "stimuli_sha256": "1"}, False),  # nothing was
        ({"scan": {"model": "other"}}, False),  # not in this subject
        ({"study": "another"}, False),  # the drawer shows both
    ],
)
def test_another_version_is_confirmatory_only_on_items_that_were_not_looked_at(
    path: Path, changed: dict[str, object], exploratory: bool
) -> None:
    ledger = filled(path)
    again = ledger.register(registration(**{"seed": 1, **changed}))
    ledger.recorded("new.zarr", "def")
    assert ledger.exploratory(again, [("new.zarr", "def")]) is exploratory
    first = ledger.entries[0]["sha256"]
    assert ledger.exploratory(first, [("v.zarr", "abc")]) is False


def test_a_version_that_was_never_judged_spoils_nothing(path: Path) -> None:
    ledger = Ledger(path)
    ledger.register(registration())
    again = ledger.register(registration(seed=1))
    ledger.recorded("v.zarr", "abc")
    assert ledger.exploratory(again, [("v.zarr", "abc")]) is False


def test_what_a_protocol_leaves_out_is_named_with_its_verdict(path: Path) -> None:
    ledger = filled(path)
    ledger.register(registration(hypothesis=claim(id="other"), study="another"))
    assert ledger.dropped("s", {claim().id}) == []
    (dropped,) = ledger.dropped("s", set())
    assert (dropped.id, dropped.verdict) == (claim().id, "null")
