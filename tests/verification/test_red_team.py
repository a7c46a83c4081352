"""Each planted fault is caught for the right reason, and its clean twin is left in peace."""

import numpy as np
import pytest

from scanner import Subject
from verification.calibration import slips
from verification.cases import Case
from verification.gate import judge
from verification.red_team import FAULTS
from verification.red_team.fault import PRESENCE, PROBE, claim
from verification.worlds import world


def test_there_are_as_many_faults_as_a_gate_has_to_stand() -> None:
    assert len(FAULTS) >= 25
    assert all(fault.breaks.endswith(".") for fault in FAULTS.values())


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_caught_for_the_right_reason(name: str) -> None:
    caught, outcome = FAULTS[name].caught(0)
    assert caught, f"{outcome.said}: {outcome.reason}"


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_the_clean_twin_of_a_fault_is_not_flagged(name: str) -> None:
    flagged, outcome = FAULTS[name].flagged(0)
    assert not flagged, f"{outcome.said}: {outcome.reason}"


def verdict_of(subject: Subject, **changed):
    return judge([Case(claim(**changed), PROBE, subject, "", False, ())], seed=0)[0]


def test_a_fault_that_one_control_stops_slips_if_that_control_is_switched_off(monkeypatch) -> None:
    subject = world(
        np.random.default_rng(0), code="direction", size=2, layers=1, twin_code="direction"
    )
    found = verdict_of(subject)
    assert (found.status, slips(found)) == ("rejected", ["untrained_twin"])
    monkeypatch.setattr("verification.cases.REQUIRED", {"labels": {"greater": ()}})
    kept = {name: settings for name, settings in PRESENCE.items() if name != "untrained_twin"}
    assert verdict_of(subject, controls=kept).status == "supported"


def test_what_two_controls_stop_does_not_slip_through_without_one() -> None:
    everywhere = world(
        np.random.default_rng(0), code="token", confound="token", size=2, layers=1,
        twin_code="token",
    )  # fmt: skip
    found = verdict_of(everywhere)
    failed = [check.control for check in found.checks if not check.passed]
    assert failed == ["untrained_twin", "surface_only"]
    assert slips(found) == []
    assert "untrained_twin: " in found.reason and "; surface_only: " in found.reason


def test_what_is_not_there_slips_through_nothing() -> None:
    found = verdict_of(world(np.random.default_rng(0), layers=1))
    assert found.status != "supported"
    assert slips(found) == []


def test_one_large_unit_that_two_models_share_would_be_taken_for_likeness(monkeypatch) -> None:
    monkeypatch.setattr("analyses.universality.without_outliers", lambda patterns: patterns)
    outcome = FAULTS["alike-in-one-unit"].study(0, True)
    assert outcome.said == "supported", outcome.reason
