"""Measure how often the gate errs, section by section, and write the page that says so."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from joblib import cpu_count

from protocols.progress import step
from protocols.run import RunError, save_text
from scanner.provenance import code_version, environment
from verification.calibration import (
    QUICKSTART,
    SMALL,
    Rate,
    false_findings,
    kinds,
    planted,
    red_team,
)
from verification.controls import CONTROLS
from verification.red_team import FAULTS

# What the gate is held to: shares, in the order of the page's columns.
ALPHA, POWER, NULLS, CAUGHT, FLAGGED = 0.05, 0.9, 0.8, 0.95, 0.05


@dataclass(frozen=True)
class Calibration:
    """How much is simulated, and where the outcome is kept.

    Attributes
    ----------
    folder : pathlib.Path
        One file for each part that is done, so that an interrupted calibration goes on.
    studies : int
        Without an effect, for each kind of measure.
    planted : int
        With an effect, and with none at the size of a quickstart, for each kind of measure.
    seeds : int
        Of each fault and its clean twin.
    """

    folder: Path
    studies: int = 2000
    planted: int = 100
    seeds: int = 50

    def run(self) -> Path:
        """Run what is missing and write the page.

        Returns
        -------
        pathlib.Path
            ``calibration.md``, beside ``calibration.json``.
        """
        found: dict[str, dict[str, Any]] = {"false": {}, "planted": {}, "zero": {}, "faults": {}}
        for part, name, size, work in self._parts():
            with step(f"{part} {name}", size, "studies") as done:
                found[part][name] = self._once(f"{part}-{name}", size, work, done)
            if part == "faults":
                fault = FAULTS[name]
                found[part][name] |= {
                    "check": fault.check, "breaks": fault.breaks, "said": list(fault.said)
                }  # fmt: skip
        summary = {
            "code_version": code_version(),
            "environment": dict(environment()),
            "sizes": {"studies": self.studies, "planted": self.planted, "seeds": self.seeds},
            **found,
        }
        save_text(json.dumps(summary, indent=1) + "\n", self.folder / "calibration.json")
        save_text(page(summary), self.folder / "calibration.md")
        return self.folder / "calibration.md"

    def _parts(self) -> Iterator[tuple[str, str, int, Callable[..., Any]]]:
        try:  # first, so that a missing package is said at once
            every = kinds()
        except ValueError as error:
            raise RunError(f"calibrate: {error}") from None
        for name, fault in FAULTS.items():
            yield "faults", name, self.seeds, partial(red_team, fault, range(self.seeds))
        for name, kind in every.items():
            yield "false", name, self.studies, partial(false_findings, kind, range(self.studies))
        for name, kind in every.items():
            some, twice = range(self.planted), 2 * kind.smallest_effect
            yield "planted", name, self.planted, partial(planted, kind, twice, some)
            yield "zero", name, self.planted, partial(planted, kind, 0.0, some)

    def _once(
        self, name: str, size: int, work: Callable[..., Any], done: Callable[..., None]
    ) -> dict[str, Any]:
        """The outcome of a part: from its file, if this code has done it before."""
        path = self.folder / "parts" / f"{name}.json"
        # The code that decides a number, whatever git calls it.
        stamp = {"code_version": code_version().partition(".git.")[0], "size": size}
        if path.is_file():
            kept = json.loads(path.read_text())
            if kept["stamp"] == stamp:
                done(size)
                return kept["outcome"]
        outcome = _plain(work(workers=cpu_count(), step=lambda what: done(1)))
        save_text(json.dumps({"stamp": stamp, "outcome": outcome}), path)
        return outcome


def _plain(value: Any) -> Any:
    """Named tuples as mappings, for JSON."""
    if hasattr(value, "_asdict"):
        return {key: _plain(inner) for key, inner in value._asdict().items()}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def shortfalls(summary: dict[str, Any]) -> list[str]:
    """What misses the standard that the gate is held to, in words."""
    missed = []
    for name, one in summary["false"].items():
        if Rate(**one["supported"]).high > 1.3 * ALPHA:
            missed.append(f"{name}: false findings {_rate(one['supported'])}")
    for part, status, least in (("planted", "supported", POWER), ("zero", "null", NULLS)):
        for name, one in summary[part].items():
            said = one["said"].get(status)
            if said is None or said["hits"] / said["of"] < least:
                share = "none" if said is None else _rate(said)
                missed.append(f"{name}, effect {one['effect']:g}: {share} {status}")
    for name, one in summary["faults"].items():
        if one["caught"]["hits"] / one["caught"]["of"] < CAUGHT:
            missed.append(f"{name}: caught {_rate(one['caught'])}; else {one['missed'][:200]}")
        if one["flagged"]["hits"] / one["flagged"]["of"] > FLAGGED:
            missed.append(
                f"{name}: clean twin flagged {_rate(one['flagged'])}: {one['alarm'][:200]}"
            )
    return missed


def page(summary: dict[str, Any]) -> str:
    """The outcome as Markdown."""
    lines = [
        "# The gate, judged by its own standard",
        "",
        f"Written by `scan calibrate` with {summary['code_version']}: simulated worlds,",
        "all through the gate that judges studies. Shares are with exact 95 % intervals.",
        "Worlds are in `verification/worlds.py`, faults in `verification/red_team/`.",
        *_false_findings(summary),
        *_power(summary),
        *_faults(summary),
    ]
    missed = shortfalls(summary)
    lines += ["", "## What misses the standard", ""]
    lines += [f"- {one}" for one in missed] or ["Nothing."]
    return "\n".join(lines) + "\n"


def _false_findings(summary: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## False findings",
        "",
        f"{summary['sizes']['studies']} studies of each kind in which the claim is false. A third "
        "is noise;",
        "in a third the surface of the words knows the category, and is all that is coded; in a",
        "third an untrained architecture shows the same. Half have heavy tails (t with 3 degrees",
        "of freedom), half correlated units. A claim of absence is tried at its limit.",
        f"{SMALL['categories']} categories, {SMALL['items']} items each, {SMALL['frames']} frames. "
        f"Asked: at most {ALPHA:.0%} supported, upper limit at most {1.3 * ALPHA:.1%}.",
        "",
        "| measure | supported | believed without controls | supported, by what explains it |",
        "|---|---|---|---|",
    )
    for name, one in summary["false"].items():
        worlds = ", ".join(f"{what} {_rate(rate)}" for what, rate in one["by_world"].items())
        yield f"| `{name}` | {_rate(one['supported'])} | {_rate(one['significant'])} | {worlds} |"


def _power(summary: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## Power",
        "",
        f"{summary['sizes']['planted']} studies of each kind and effect, of "
        f"{QUICKSTART['categories']} categories, {QUICKSTART['items']} items each and "
        f"{QUICKSTART['frames']} frames:",
        "what a quickstart has left to judge when its layer is chosen. Asked: "
        f"{POWER:.0%} supported at twice the smallest effect that matters, {NULLS:.0%} null at 0.",
        "",
        "| measure | effect planted | measured | verdicts |",
        "|---|---|---|---|",
    )
    for part in ("planted", "zero"):
        for name, one in summary[part].items():
            said = ", ".join(f"{status} {_rate(rate)}" for status, rate in one["said"].items())
            yield f"| `{name}` | {one['effect']:g} | {one['measured']:.3f} | {said} |"


def _faults(summary: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## Planted faults",
        "",
        f"{len(summary['faults'])} studies, each broken in one way, and the same study unbroken,",
        f"over {summary['sizes']['seeds']} seeds. Caught is the right verdict for the right "
        "reason.",
        f"Asked: {CAUGHT:.0%} caught, at most {FLAGGED:.0%} of clean twins flagged.",
        "Stimuli, volumes and verdicts edited on disk meet digests, not chances: the tests of",
        "`scan verify` change them byte by byte.",
        "",
        "| check | what is broken | verdict | caught | clean twin flagged | without this control |",
        "|---|---|---|---|---|---|",
    )
    for one in summary["faults"].values():
        slips = ", ".join(f"`{control}` {_rate(rate)}" for control, rate in one["slips"].items())
        said = " or ".join(one["said"])
        yield (
            f"| {one['check']} | {one['breaks']} | {said} | {_rate(one['caught'])} | "
            f"{_rate(one['flagged'])} | {f'{slips} slip' if slips else '-'} |"
        )
    yield from (
        "",
        "## What each control is for",
        "",
        "Faults that, in at least one seed, would be called supported if this control alone were",
        "switched off.",
        "",
        "| control | faults that slip through |",
        "|---|---|",
    )
    for control in sorted(CONTROLS):
        slip = [name for name, one in summary["faults"].items() if control in one["slips"]]
        yield f"| `{control}` | {', '.join(slip) or 'none of these'} |"


def _rate(rate: dict[str, Any]) -> str:
    one = Rate(**rate)
    return f"{one.share:.1%} ({one.low:.1%} to {one.high:.1%})"
