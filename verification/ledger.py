"""The ledger: an append-only file of what was registered, recorded and judged, in that order.

Each line is a JSON object that carries the digest of the line before, so that nothing can be
changed, dropped or put in later without breaking the chain. Order in the chain, not a clock, says
whether a hypothesis was there before its data.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanner.provenance import canonical, code_version, digest, environment, now
from verification.base import Hypothesis

START = "0" * 64


class LedgerError(ValueError):
    """A ledger whose chain is broken; the message names the line."""


@dataclass(frozen=True)
class Registration:
    """A frozen hypothesis, with the digests of all that its outcome depends on.

    Attributes
    ----------
    study : str
    hypothesis : Hypothesis
    analysis : mapping
        Name and settings of the analysis.
    stimuli_sha256 : str
    items : tuple of str
        A short digest of each item, so that it is known which were looked at before.
    scan : mapping
        Subject, sites, tokens, dtype and number of twins.
    seed : int
    """

    study: str
    hypothesis: Hypothesis
    analysis: Mapping[str, Any]
    stimuli_sha256: str
    items: tuple[str, ...]
    scan: Mapping[str, Any]
    seed: int

    def content(self) -> dict[str, Any]:
        """What is hashed."""
        return {
            "study": self.study,
            "hypothesis": self.hypothesis.model_dump(mode="json"),
            "analysis": dict(self.analysis),
            "stimuli_sha256": self.stimuli_sha256,
            "items": list(self.items),
            "scan": dict(self.scan),
            "seed": self.seed,
        }

    @property
    def sha256(self) -> str:
        return digest(self.content())


@dataclass(frozen=True)
class Filed:
    """A registration in the file drawer, and what has become of it.

    Attributes
    ----------
    study, id, claim : str
    version : int
        1 for the first registration under this id in the study.
    sha256, time : str
        Of the registration.
    superseded : bool
        Whether a later version was registered.
    verdict : str or None
        The latest one; None if none was ever reported.
    exploratory : bool
        Whether that verdict is on data that were there before the registration.
    """

    study: str
    id: str
    claim: str
    version: int
    sha256: str
    time: str
    superseded: bool
    verdict: str | None
    exploratory: bool


class Ledger:
    """The ledger file. Reading checks the whole chain.

    Parameters
    ----------
    path : pathlib.Path
    written : callable
        Called when a line was written, before anything is done that rests on it.

    Raises
    ------
    LedgerError
        If a line is not what was written.
    """

    def __init__(self, path: Path, *, written: Callable[[], None] = lambda: None) -> None:
        self.path, self._written = path, written
        self.entries: list[dict[str, Any]] = []
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            self.entries.append(self._checked(line, number, last=number == len(lines)))
        if text and not text.endswith("\n"):
            raise LedgerError(
                f"ledger {path}, line {len(lines)}: cut short while it was written; "
                "remove that line, nothing before it is lost"
            )

    def _checked(self, line: str, number: int, *, last: bool) -> dict[str, Any]:
        try:
            entry = json.loads(line)
            stated = entry.pop("digest")
            broken = stated != digest(entry) or entry["previous"] != self.head
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError):
            entry, stated, broken = {}, "", True
        if broken:
            hint = " (if writing it was interrupted, remove that last line)" if last else ""
            raise LedgerError(
                f"ledger {self.path}, line {number}: the chain is broken here{hint}; this line, or "
                "the order of the lines, is not what was written"
            )
        return {**entry, "digest": stated}

    @property
    def head(self) -> str:
        """Digest of the last line: publishing it fixes everything before it in time."""
        return self.entries[-1]["digest"] if self.entries else START

    def register(self, registration: Registration) -> str:
        """Freeze a hypothesis, unless it stands there already.

        Returns
        -------
        str
            Its sha256.
        """
        sha256 = registration.sha256
        if self.find("registration", sha256=sha256) is None:
            earlier = [
                entry["sha256"]
                for entry in self.entries
                if entry["kind"] == "registration"
                and _name(entry) == (registration.study, registration.hypothesis.id)
            ]
            self._append(
                "registration",
                sha256=sha256,
                supersedes=earlier[-1] if earlier else None,
                content=registration.content(),
                code_version=code_version(),
                environment=dict(environment()),
            )
        return sha256

    def recorded(self, volume: str, sha256: str) -> None:
        """Note that a volume was recorded just now."""
        if self.find("recording", volume=volume, sha256=sha256) is None:
            self._append("recording", volume=volume, sha256=sha256)

    def judged(
        self, study: str, files: Mapping[str, str], verdicts: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Note the verdicts of a study and the digests of all files that it left.

        Parameters
        ----------
        study : str
        files : mapping of str to str
        verdicts : mapping
            ``status`` and ``exploratory`` by the sha256 of the registration.
        """
        content = {
            "files": dict(files),
            "verdicts": {sha256: dict(verdict) for sha256, verdict in verdicts.items()},
        }
        latest = self.latest_judgement(study)
        if latest is None or any(latest[key] != content[key] for key in content):
            self._append("verdicts", study=study, **content)

    def latest_judgement(self, study: str) -> dict[str, Any] | None:
        """The newest entry of verdicts of a study."""
        found = [e for e in self.entries if e["kind"] == "verdicts" and e["study"] == study]
        return found[-1] if found else None

    def drawer(self) -> list[Filed]:
        """The file drawer: everything that was registered, in that order, with what became of it.

        A hypothesis that was dropped after a look at the data stays here.
        """
        registered = [entry for entry in self.entries if entry["kind"] == "registration"]
        reported: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            if entry["kind"] == "verdicts":
                reported |= entry["verdicts"]
        versions: dict[tuple[str, str], list[str]] = {}
        for entry in registered:
            versions.setdefault(_name(entry), []).append(entry["sha256"])
        filed = []
        for entry in registered:
            sha256, same = entry["sha256"], versions[_name(entry)]
            verdict = reported.get(sha256)
            filed.append(
                Filed(
                    *_name(entry),
                    claim=entry["content"]["hypothesis"]["claim"],
                    version=same.index(sha256) + 1,
                    sha256=sha256,
                    time=entry["time"],
                    superseded=sha256 != same[-1],
                    verdict=None if verdict is None else verdict["status"],
                    exploratory=verdict is not None and verdict["exploratory"],
                )
            )
        return filed

    def anchor(self, registrations: Iterable[str], volumes: Iterable[tuple[str, str]]) -> str:
        """Digest of the last line that verdicts rest on: a registration or a recording."""
        places = [self.find("registration", sha256=sha256) for sha256 in registrations]
        places += [self.find("recording", volume=name, sha256=sha) for name, sha in volumes]
        known = [place for place in places if place is not None]
        return self.entries[max(known)]["digest"] if known else self.head

    def find(self, kind: str, **fields: str) -> int | None:
        """Place in the chain of the first entry of that kind with these fields."""
        for place, entry in enumerate(self.entries):
            if entry["kind"] == kind and all(entry[key] == fields[key] for key in fields):
                return place
        return None

    def exploratory(self, registration: str, volumes: list[tuple[str, str]]) -> bool:
        """Whether the data, or some of them, were there before the hypothesis.

        Parameters
        ----------
        registration : str
            sha256 of the registered hypothesis.
        volumes : list of tuple of str
            Name and sha256 of each volume that it is judged on.

        Returns
        -------
        bool
            True if any volume was not recorded after the registration, or another version of the
            hypothesis was judged before on some of the same items and the same subject.
        """
        registered = self.find("registration", sha256=registration)
        if registered is None:
            return True
        places = [self.find("recording", volume=name, sha256=sha256) for name, sha256 in volumes]
        recorded_before = any(place is None or place < registered for place in places)
        return recorded_before or self._looked_at(registered)

    def _looked_at(self, registered: int) -> bool:
        """Whether an earlier version was judged on items of this one, and then changed."""
        mine = self.entries[registered]
        model, items = mine["content"]["scan"].get("model"), set(mine["content"].get("items", []))
        judged = {
            sha256
            for entry in self.entries[:registered]
            if entry["kind"] == "verdicts"
            for sha256 in entry["verdicts"]
        }
        return any(
            entry["kind"] == "registration"
            and entry["sha256"] in judged
            and _name(entry) == _name(mine)
            and entry["content"]["scan"].get("model") == model
            and not items.isdisjoint(entry["content"].get("items", []))
            for entry in self.entries[:registered]
        )

    def dropped(self, study: str, kept: Collection[str]) -> list[Filed]:
        """What was registered in a study under ids that its protocol does not have any more.

        Parameters
        ----------
        study : str
        kept : collection of str
            The ids of the protocol.
        """
        return [
            one
            for one in self.drawer()
            if one.study == study and one.id not in kept and not one.superseded
        ]

    def _append(self, kind: str, **fields: Any) -> None:
        entry = {"kind": kind, "time": now(), "previous": self.head, **fields}
        entry["digest"] = digest(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(canonical(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(entry)
        self._written()


def _name(registration: Mapping[str, Any]) -> tuple[str, str]:
    """Study and id of an entry that registers a hypothesis."""
    content = registration["content"]
    return content["study"], content["hypothesis"]["id"]
