"""Hypotheses that were made, changed or left out after a look at the data."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

from verification.cases import REQUIRED
from verification.control import CONTROLS
from verification.ledger import Ledger, LedgerError, Registration
from verification.red_team.fault import PRESENCE, Outcome, claim, fault, judged, planted

VOLUME = ("toy.zarr", "0" * 64)


def registration(items: int = 8, **changed: Any) -> Registration:
    """A claim about the first so many items."""
    return Registration(
        study="red-team",
        hypothesis=claim(**changed),
        analysis={"probe": {"site": "resid_post"}},
        stimuli_sha256=f"{items:064d}",
        items=tuple(f"item{number}" for number in range(items)),
        scan={"model": "toy"},
        seed=0,
    )


@lru_cache(maxsize=256)
def _good_study(seed: int, exploratory: bool = False) -> Outcome:
    """A study with a real effect: its standing is all that the faults of this file change."""
    return judged(planted(seed, "ledger"), seed=seed, exploratory=exploratory)


def _written(write: Callable[[Ledger], bool], seed: int) -> Outcome:
    """The outcome of a good study whose standing the ledger tells."""
    with tempfile.TemporaryDirectory() as folder:
        exploratory = write(Ledger(Path(folder) / "ledger.jsonl"))
    return _good_study(seed, exploratory)


def _judge(ledger: Ledger, sha256: str, status: str = "inconclusive") -> None:
    ledger.judged("red-team", {}, {sha256: {"status": status, "exploratory": False}})


def _changed_after_the_look(seed: int, broken: bool, other: Registration) -> Outcome:
    """Registered, recorded, judged; then changed and judged again on the same volume."""

    def write(ledger: Ledger) -> bool:
        sha256 = ledger.register(registration() if broken else other)
        ledger.recorded(*VOLUME)
        if broken:
            _judge(ledger, sha256)
            sha256 = ledger.register(other)
        return ledger.exploratory(sha256, [VOLUME])

    return _written(write, seed)


def _with_one_look_after_the_other(seed: int, *looks: int) -> Outcome:
    """Registered, recorded and judged with so many items; the outcome is that of the last look."""

    def write(ledger: Ledger) -> bool:
        exploratory = False
        for items in looks:
            sha256 = ledger.register(registration(items))
            volume = (f"toy-{items}.zarr", f"{items:064d}")
            ledger.recorded(*volume)
            exploratory = ledger.exploratory(sha256, [volume])
            _judge(ledger, sha256)
        return exploratory

    return _written(write, seed)


@fault("registration", "exploratory", "")
def registered_after_recording(seed: int, broken: bool) -> Outcome:
    """The hypothesis was written down when the volume was there."""

    def write(ledger: Ledger) -> bool:
        if broken:
            ledger.recorded(*VOLUME)
        sha256 = ledger.register(registration())
        ledger.recorded(*VOLUME)
        return ledger.exploratory(sha256, [VOLUME])

    return _written(write, seed)


@fault("registration", "exploratory", "")
def recorded_elsewhere(seed: int, broken: bool) -> Outcome:
    """The volume was brought from elsewhere, and nobody knows when it was recorded."""

    def write(ledger: Ledger) -> bool:
        sha256 = ledger.register(registration())
        if not broken:
            ledger.recorded(*VOLUME)
        return ledger.exploratory(sha256, [VOLUME])

    return _written(write, seed)


@fault("deviations", "exploratory", "")
def threshold_lowered_after_the_look(seed: int, broken: bool) -> Outcome:
    """The smallest effect that matters was made smaller when the effect was known."""
    return _changed_after_the_look(seed, broken, registration(smallest_effect=0.05))


@fault("registration", "exploratory", "")
def direction_turned_after_the_look(seed: int, broken: bool) -> Outcome:
    """What was expected to be less is expected to be greater, once it is."""
    return _changed_after_the_look(seed, broken, registration(than=0.3))


@fault("deviations", "exploratory", "")
def settings_changed_after_the_look(seed: int, broken: bool) -> Outcome:
    """The probe's penalty was tuned on the result."""
    other = replace(registration(), analysis={"probe": {"site": "resid_post", "penalty": 0.1}})
    return _changed_after_the_look(seed, broken, other)


@fault("seeds", "exploratory", "")
def seed_changed_after_the_look(seed: int, broken: bool) -> Outcome:
    """The study was run with other seeds until one gave the result."""
    return _changed_after_the_look(seed, broken, replace(registration(), seed=1))


@fault("looks", "exploratory", "")
def looking_again_and_again(seed: int, broken: bool) -> Outcome:
    """Items were added, and recorded anew, until the result was significant."""

    return _with_one_look_after_the_other(seed, *((8, 10, 12) if broken else (12,)))


@fault("deviations", "exploratory", "")
def items_left_out_after_the_look(seed: int, broken: bool) -> Outcome:
    """Words that spoiled the result were left out, and the rest was recorded anew."""

    return _with_one_look_after_the_other(seed, *((12, 8) if broken else (8,)))


@fault("registration", "shown", "left out of the protocol: decodable-too")
def failing_hypothesis_dropped(seed: int, broken: bool) -> Outcome:
    """A hypothesis that failed is quietly dropped from the protocol."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        ledger.register(registration())
        if broken:
            _judge(ledger, ledger.register(registration(id="decodable-too")), "null")
        dropped = ledger.dropped("red-team", {claim().id})
    if dropped:
        return Outcome("shown", f"left out of the protocol: {dropped[0].id}")
    return _good_study(seed)


def _tampered(seed: int, broken: bool, change: Callable[[list[str]], list[str]]) -> Outcome:
    """A ledger whose lines were changed by hand; it is read again before anything is judged."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger(path)
        sha256 = ledger.register(registration())
        ledger.recorded(*VOLUME)
        _judge(ledger, sha256)
        if broken:
            lines = change(path.read_text().splitlines())
            path.write_text("\n".join(lines) + "\n")
        try:
            Ledger(path)
        except LedgerError as error:
            return Outcome("refused", str(error))
    return _good_study(seed)


@fault("registration", "refused", "line 3: the chain is broken")
def verdict_in_the_ledger_edited(seed: int, broken: bool) -> Outcome:
    """The ledger's verdict was changed by hand."""
    return _tampered(
        seed, broken, lambda lines: [line.replace("inconclusive", "supported") for line in lines]
    )


@fault("registration", "refused", "line 1: the chain is broken")
def registration_in_the_ledger_edited(seed: int, broken: bool) -> Outcome:
    """The threshold was lowered in the line that had registered it."""

    def lower(lines: list[str]) -> list[str]:
        entry = json.loads(lines[0])
        entry["content"]["hypothesis"]["smallest_effect"] = 0.01
        return [json.dumps(entry), *lines[1:]]

    return _tampered(seed, broken, lower)


@fault("registration", "refused", "line 1: the chain is broken")
def line_of_the_ledger_removed(seed: int, broken: bool) -> Outcome:
    """The first registration was taken out."""
    return _tampered(seed, broken, lambda lines: lines[1:])


@fault("registration", "refused", "line 1: the chain is broken")
def lines_of_the_ledger_exchanged(seed: int, broken: bool) -> Outcome:
    """The registration was put before the recording that it had followed."""
    return _tampered(seed, broken, lambda lines: [lines[1], lines[0], *lines[2:]])


@fault("registration", "invalid", "required control .* was not run")
def control_removed_from_the_protocol(seed: int, broken: bool) -> Outcome:
    """A control that the effect would not survive is not asked for."""
    needed = REQUIRED["labels"]["greater"]
    if not broken:
        return _good_study(seed)
    left_out = needed[seed % len(needed)]
    kept = {name: settings for name, settings in PRESENCE.items() if name != left_out}
    return judged(planted(seed, "removed"), seed=seed, controls=kept)


@fault("registration", "invalid", "required control .* was not run")
def file_of_a_control_deleted(seed: int, broken: bool) -> Outcome:
    """The file of a control is gone, and with it what it would have asked."""
    if not broken:
        return _good_study(seed)
    left = {name: cls for name, cls in CONTROLS.items() if name != "surface_only"}
    with mock.patch.dict(CONTROLS, left, clear=True):
        return judged(planted(seed, "deleted"), seed=seed)


@fault("margins", "refused", "a margin of 0 asks for nothing")
def margin_of_zero(seed: int, broken: bool) -> Outcome:
    """To be better than the twin by a hair is called enough."""
    if not broken:
        return _good_study(seed)
    controls = PRESENCE | {"untrained_twin": {"margin": 0.0}}
    try:
        return judged(planted(seed, "margin"), seed=seed, controls=controls)
    except ValueError as error:
        return Outcome("refused", str(error))


@fault("equivalence", "null", "surely on the other side")
def one_sided_test_turned_round(seed: int, broken: bool) -> Outcome:
    """The effect lies on the side that was not tested, and would be taken for support."""
    if not broken:
        return _good_study(seed)
    subject = planted(seed, "turned")
    controls = {"planted_units": {"margin": 0.1, "units": 5}, "split_half": PRESENCE["split_half"]}
    return judged(subject, seed=seed, expect="less", than=0.3, controls=controls)
