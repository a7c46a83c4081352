"""Measure how often the gate errs, section by section, and write the page that says so."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from joblib import cpu_count

from protocols.progress import step
from protocols.run import RunError, save_text
from protocols.schema import nearest
from scanner.provenance import code_version, now
from verification.calibration import (
    QUICKSTART,
    SECTIONS,
    SMALL,
    Rate,
    Tally,
    false_findings,
    kinds,
    planted,
    red_team,
)
from verification.controls import CONTROLS
from verification.red_team import FAULTS

# What the gate is held to: shares, in the order of the page's columns.
ALPHA, POWER, NULLS, CAUGHT, FLAGGED = 0.05, 0.9, 0.8, 0.95, 0.05
# How many studies are simulated before what was counted is written down.
BATCH = 50


@dataclass(frozen=True)
class Part:
    """One row of the page: what is simulated for one measure or one fault.

    Attributes
    ----------
    section : str
        ``faults``, ``false``, ``planted`` or ``zero``.
    name : str
        Of the measure or the fault.
    size : int
        Studies that are asked for.
    made_with : str
        Digest of the code that decides its numbers.
    work : callable
        ``work(studies, workers=, step=)`` simulates some.
    """

    section: str
    name: str
    size: int
    made_with: str
    work: Callable[..., Tally]

    @property
    def key(self) -> str:
        return f"{self.section} {self.name}"


@dataclass(frozen=True)
class Calibration:
    """How much is simulated, and where the outcome is kept.

    A row says with which code it was measured. It stands until it has been measured again, and the
    page marks it where the code that decides it has changed since.

    Attributes
    ----------
    folder : pathlib.Path
        With ``calibration.json``, which is written after every batch, so that an interrupted
        calibration goes on.
    studies : int
        Without an effect, for each kind of measure.
    planted : int
        With an effect, and with none at the size of a quickstart, for each kind of measure.
    seeds : int
        Of each fault and its clean twin.
    names : tuple of str
        Measures and faults to simulate; empty for all.
    """

    folder: Path
    studies: int = 2000
    planted: int = 100
    seeds: int = 50
    names: tuple[str, ...] = ()

    def run(self) -> Path:
        """Simulate what is missing and write the page.

        Returns
        -------
        pathlib.Path
            ``calibration.md``, beside ``calibration.json``.

        Raises
        ------
        RunError
            If a name is of no measure and no fault, or a package is missing.
        """
        parts = self._parts()
        known = {part.name for part in parts}
        for name in self.names:
            if name not in known:
                raise RunError(
                    f"calibrate: '{name}' is neither a measure nor a planted fault"
                    f"{nearest(name, known)}"
                )
        done = self._written()
        for part in parts:
            if not self.names or part.name in self.names:
                self._measure(part, done)
        save_text(page(done, parts), self.folder / "calibration.md")
        return self.folder / "calibration.md"

    def _written(self) -> dict[str, Any]:
        """Rows that are there, and what was begun."""
        path = self.folder / "calibration.json"
        if not path.is_file():
            return {"rows": {}, "begun": {}}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise RunError(f"{path} is no JSON; delete it, and all is measured anew") from None

    def _parts(self) -> list[Part]:
        try:  # first, so that a missing package is said at once
            every = kinds()
        except ValueError as error:
            raise RunError(f"calibrate: {error}") from None
        found = [
            Part("faults", name, self.seeds, fault.made_with, partial(red_team, fault))
            for name, fault in FAULTS.items()
        ]
        for name, kind in every.items():
            made_with, twice = kind.made_with, 2 * kind.smallest_effect
            none, some = partial(false_findings, kind), partial(planted, kind, twice)
            found += [
                Part("false", name, self.studies, made_with, none),
                Part("planted", name, self.planted, made_with, some),
                Part("zero", name, self.planted, made_with, partial(planted, kind, 0.0)),
            ]
        return found

    def _measure(self, part: Part, done: dict[str, Any]) -> None:
        """Add studies to a row until it has as many as asked, and write it down now and then."""
        key = part.key
        tally, begun = None, done["begun"].pop(key, None)
        for row in (begun, done["rows"].get(key)):
            if tally is None and row is not None and row["made_with"] == part.made_with:
                tally = SECTIONS[part.section](**row["counted"])
        counted = 0 if tally is None else tally.studies
        with step(key, part.size, "studies") as told:
            told(min(counted, part.size))
            while counted < part.size:
                some = range(counted, min(counted + BATCH, part.size))
                more = part.work(some, workers=cpu_count(), step=lambda what: told(1))
                tally = more if tally is None else tally + more
                counted = tally.studies
                row = {
                    "made_with": part.made_with,
                    "code_version": code_version(),
                    "day": now()[:10],
                    "counted": asdict(tally),
                }
                whole = counted >= part.size
                done["begun"].pop(key, None)
                done["rows" if whole else "begun"][key] = row
                save_text(json.dumps(done, indent=1) + "\n", self.folder / "calibration.json")


class Row(NamedTuple):
    """One row of the page.

    Attributes
    ----------
    name : str
    counted : Tally
    day : str
        When it was measured, ISO 8601.
    code_version : str
    stale : bool
        Whether the code that decides it has changed since.
    """

    name: str
    counted: Any
    day: str
    code_version: str
    stale: bool


def rows_of(done: Mapping[str, Any], parts: Iterable[Part]) -> dict[str, list[Row]]:
    """What has been measured, by section, in the order of the parts."""
    found: dict[str, list[Row]] = {section: [] for section in SECTIONS}
    for part in parts:
        row = done["rows"].get(part.key)
        if row is not None:
            counted = SECTIONS[part.section](**row["counted"])
            stale = row["made_with"] != part.made_with
            one = Row(part.name, counted, row["day"], row["code_version"], stale)
            found[part.section].append(one)
    return found


def shortfalls(found: Mapping[str, list[Row]]) -> list[str]:
    """What misses the standard that the gate is held to, in words."""
    missed = [
        f"{name}: false findings {_rate(one.supported)}"
        for name, one, *_ in found["false"]
        if one.supported.high > 1.3 * ALPHA
    ]
    for section, status, least in (("planted", "supported", POWER), ("zero", "null", NULLS)):
        for name, one, *_ in found[section]:
            if one.share(status).share < least:
                effect = f"{one.measured:.2g}" if section == "planted" else "0"
                missed.append(f"{name}, effect {effect}: {_rate(one.share(status))} {status}")
    for name, one, *_ in found["faults"]:
        if one.caught.share < CAUGHT:
            missed.append(f"{name}: caught {_rate(one.caught)}; else {one.missed[:200]}")
        if one.flagged.share > FLAGGED:
            missed.append(f"{name}: clean twin flagged {_rate(one.flagged)}: {one.alarm[:200]}")
    return missed


def page(done: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """The outcome as Markdown."""
    found = rows_of(done, parts)
    versions = sorted({row.code_version for rows in found.values() for row in rows})
    lines = [
        "# The gate, judged by its own standard",
        "",
        "Written by `scan calibrate`: simulated worlds, all through the gate that judges studies.",
        "Shares are with exact 95 % intervals. Worlds are in `verification/worlds.py` and beside",
        "it, faults in `verification/red_team/`. A row stands until it is measured again; one",
        "whose code has changed since is marked *older code*. Measured with:",
        "",
        *(f"- {version}" for version in versions),
        *_false_findings(found),
        *_power(found),
        *_faults(found),
    ]
    missed = shortfalls(found)
    lines += ["", "## What misses the standard", ""]
    lines += [f"- {one}" for one in missed] or ["Nothing of what was measured."]
    waiting = [part.key for part in parts if part.key not in done["rows"]]
    if waiting:
        lines += ["", "## Not measured yet", ""]
        lines += [f"- {one}" for one in waiting]
    return "\n".join(lines) + "\n"


def _false_findings(found: Mapping[str, list[Row]]) -> Iterator[str]:
    yield from (
        "",
        "## False findings",
        "",
        "Studies in which the claim is false. A third is noise; in a third the surface of the",
        "words knows the category, and is all that is coded; in a third an untrained architecture",
        "shows the same. Half have heavy tails (t with 3 degrees of freedom), half correlated",
        "units. A claim of absence is tried at its limit.",
        f"{SMALL['categories']} categories, {SMALL['items']} items each, {SMALL['frames']} frames. "
        f"Asked: at most {ALPHA:.0%} supported, upper limit at most {1.3 * ALPHA:.1%}.",
        "",
        "| measure | studies | supported | believed without controls | supported, by what explains "
        "it | day |",
        "|---|---|---|---|---|---|",
    )
    for row in found["false"]:
        one = row.counted
        worlds = ", ".join(f"{what} {_rate(rate)}" for what, rate in one.by_world.items())
        yield (
            f"| `{row.name}` | {one.studies} | {_rate(one.supported)} | {_rate(one.significant)} | "
            f"{worlds} | {_day(row)} |"
        )


def _power(found: Mapping[str, list[Row]]) -> Iterator[str]:
    yield from (
        "",
        "## Power",
        "",
        f"Studies of {QUICKSTART['categories']} categories, {QUICKSTART['items']} items each and "
        f"{QUICKSTART['frames']} frames:",
        "what a quickstart has left to judge when its layer is chosen. Asked: "
        f"{POWER:.0%} supported at twice the smallest effect that matters, {NULLS:.0%} null at 0.",
        "",
        "| measure | planted | studies | measured | verdicts | day |",
        "|---|---|---|---|---|---|",
    )
    for section, planted_there in (("planted", "twice"), ("zero", "nothing")):
        for row in found[section]:
            one = row.counted
            said = ", ".join(f"{status} {_rate(rate)}" for status, rate in one.said.items())
            yield (
                f"| `{row.name}` | {planted_there} | {one.studies} | {one.measured:.3f} | {said} | "
                f"{_day(row)} |"
            )


def _faults(found: Mapping[str, list[Row]]) -> Iterator[str]:
    yield from (
        "",
        "## Planted faults",
        "",
        f"{len(found['faults'])} studies, each broken in one way, and the same study unbroken,",
        "over several seeds. Caught is the right verdict for the right reason.",
        f"Asked: {CAUGHT:.0%} caught, at most {FLAGGED:.0%} of clean twins flagged.",
        "Stimuli, volumes and verdicts edited on disk meet digests, not chances: the tests of",
        "`scan verify` change them byte by byte.",
        "",
        "| check | what is broken | verdict | seeds | caught | clean twin flagged | without this "
        "control | day |",
        "|---|---|---|---|---|---|---|---|",
    )
    for row in found["faults"]:
        one, fault = row.counted, FAULTS[row.name]
        slips = ", ".join(f"`{control}` {_rate(rate)}" for control, rate in one.slips.items())
        yield (
            f"| {fault.check} | {fault.breaks} | {' or '.join(fault.said)} | {one.studies} | "
            f"{_rate(one.caught)} | {_rate(one.flagged)} | {f'{slips} slip' if slips else '-'} | "
            f"{_day(row)} |"
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
        slip = [row.name for row in found["faults"] if control in row.counted.slipped]
        yield f"| `{control}` | {', '.join(slip) or 'none of these'} |"


def _rate(rate: Rate) -> str:
    return f"{rate.share:.1%} ({rate.low:.1%} to {rate.high:.1%})"


def _day(row: Row) -> str:
    return f"{row.day}, older code" if row.stale else row.day
