"""How often the gate errs, as the appendix of a report tells it.

The numbers are shipped with the suite: what `scan calibrate` wrote when it was last run.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.report.words import Table, percent, plain
from verification.calibration import SECTIONS, Caught, FalseFindings, Planted, Rate
from verification.red_team import FAULTS

SHIPPED = Path(__file__).parent / "calibration.json"


@dataclass(frozen=True)
class Calibrated:
    """The appendix.

    Attributes
    ----------
    days : str
        When it was measured, ``2026-11-28`` or ``2026-11-26 to 2026-11-28``.
    rates : Table
        A row for each measure.
    faults : Table
        A row for each planted fault.
    caught, flagged : str
        Of all faults and all clean twins.
    """

    days: str
    rates: Table
    faults: Table
    caught: str
    flagged: str


def calibrated() -> Calibrated:
    """Read what is shipped."""
    rows = json.loads(SHIPPED.read_text(encoding="utf-8"))["rows"]
    found: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for key, row in rows.items():
        section, _, name = key.partition(" ")
        found[section][name] = SECTIONS[section](**row["counted"])
    faults: dict[str, Caught] = found["faults"]
    days = sorted({row["day"] for row in rows.values()})
    return Calibrated(
        " to ".join(dict.fromkeys((days[0], days[-1]))),
        Table(
            ("measure", "false claim supported", "real effect supported", "no effect null"),
            tuple(
                _rates(name, found["false"][name], found["planted"][name], found["zero"][name])
                for name in found["false"]
                if name in found["planted"] and name in found["zero"]
            ),
        ),
        Table(
            ("check", "what is broken", "verdict", "caught", "clean twin flagged", "stopped by"),
            tuple(_fault(name, one) for name, one in faults.items() if name in FAULTS),
        ),
        _share(one.caught for one in faults.values()),
        _share(one.flagged for one in faults.values()),
    )


def _rates(name: str, false: FalseFindings, some: Planted, none: Planted) -> tuple[str, ...]:
    return (
        plain(name.replace(".", ": ")),
        _share([false.supported]),
        _share([some.share("supported")]),
        _share([none.share("null")]),
    )


def _fault(name: str, one: Caught) -> tuple[str, ...]:
    fault = FAULTS[name]
    return (
        fault.check,
        fault.breaks,
        " or ".join(fault.said),
        _counted(one.caught),
        _counted(one.flagged),
        ", ".join(map(plain, one.slips)) or "several, or no control",
    )


def _counted(rate: Rate) -> str:
    """``49 of 50``, never broken into two lines."""
    return f"{rate.hits} of {rate.of}".replace(" ", "\N{NO-BREAK SPACE}")


def _share(rates: Iterable[Rate]) -> str:
    """``98% (49 of 50)``."""
    some = list(rates)
    hits, of = sum(one.hits for one in some), sum(one.of for one in some)
    return f"{percent(round(hits / of, 3))} ({hits} of {of})"
