"""How often the gate errs, as the appendix of a report tells it.

The numbers are shipped with the suite: what `scan calibrate` wrote when it was last run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.report.words import Table, percent, plain

SHIPPED = Path(__file__).parent / "calibration.json"


@dataclass(frozen=True)
class Calibrated:
    """The appendix.

    Attributes
    ----------
    version : str
        The code that was measured.
    sizes : mapping of str to int
        How many studies of each sort were simulated.
    rates : Table
        A row for each measure.
    faults : Table
        A row for each planted fault.
    caught, flagged : str
        Of all faults and all clean twins.
    """

    version: str
    sizes: Mapping[str, int]
    rates: Table
    faults: Table
    caught: str
    flagged: str


def calibrated() -> Calibrated:
    """Read what is shipped."""
    found = json.loads(SHIPPED.read_text(encoding="utf-8"))
    faults = found["faults"].values()
    return Calibrated(
        found["code_version"],
        found["sizes"],
        Table(
            ("measure", "false claim supported", "real effect supported", "no effect null"),
            tuple(_rates(name, found) for name in found["false"]),
        ),
        Table(
            ("check", "what is broken", "verdict", "caught", "clean twin flagged", "stopped by"),
            tuple(_fault(one) for one in faults),
        ),
        _share([one["caught"] for one in faults]),
        _share([one["flagged"] for one in faults]),
    )


def _rates(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    nothing = {"hits": 0, "of": found["sizes"]["planted"]}
    return (
        plain(name.replace(".", ": ")),
        _share([found["false"][name]["supported"]]),
        _share([found["planted"][name]["said"].get("supported", nothing)]),
        _share([found["zero"][name]["said"].get("null", nothing)]),
    )


def _fault(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        one["check"],
        one["breaks"],
        " or ".join(one["said"]),
        _counted(one["caught"]),
        _counted(one["flagged"]),
        ", ".join(map(plain, one["slips"])) or "several, or no control",
    )


def _counted(rate: Mapping[str, Any]) -> str:
    """``49 of 50``, never broken into two lines."""
    return f"{rate['hits']} of {rate['of']}".replace(" ", "\N{NO-BREAK SPACE}")


def _share(rates: list[Mapping[str, Any]]) -> str:
    """``98% (49 of 50)``."""
    hits, of = (sum(one[key] for one in rates) for key in ("hits", "of"))
    return f"{percent(round(hits / of, 3))} ({hits} of {of})"
