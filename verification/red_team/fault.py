"""What a planted fault is, and the registry of all."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from analyses import Analysis
from analyses.probe import Probe
from scanner import Subject
from verification.base import Hypothesis, Verdict
from verification.cases import Case
from verification.gate import judge
from verification.sources import sources_digest
from verification.worlds import SITE, world

Said = Literal[
    "supported", "null", "inconclusive", "rejected", "invalid", "exploratory", "refused", "shown"
]

PROBE = Probe(site=SITE, item_folds=3, frame_folds=2)
PRESENCE: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.1},
    "shuffled_labels": {"permutations": 39},
    "surface_only": {"margin": 0.1},
    "split_half": {"margin": 0.05, "splits": 5},
}
ABSENCE: dict[str, dict[str, Any]] = {
    "planted_units": {"margin": 0.2, "strength": 2.0},
    "split_half": {"margin": 0.0, "splits": 5},
}


class Outcome(NamedTuple):
    """What became of a study.

    Attributes
    ----------
    said : str
        The status of its verdict; ``exploratory`` for a supported one that is no finding;
        ``refused`` where there is none; ``shown`` where what was hidden is named beside it.
    reason : str
    verdict : Verdict or None
    """

    said: Said
    reason: str
    verdict: Verdict | None = None


Study = Callable[[int, bool], Outcome]


@dataclass(frozen=True)
class Fault:
    """A study that is broken in one way, beside its clean twin.

    Attributes
    ----------
    name : str
    check : str
        Which of the checks of a gate it is for.
    breaks : str
        What is wrong with it.
    said : tuple of str
        What the gate must say to it, or one of these.
    because : str
        What the reason must match.
    study : callable
        ``study(seed, broken)`` runs it, or its clean twin.
    clean : str
        What the gate must say to the clean twin. Where nothing is there, ``null`` is what it should
        say and ``inconclusive`` what it may.
    """

    name: str
    check: str
    breaks: str
    said: tuple[Said, ...]
    because: str
    study: Study
    clean: Said

    @property
    def made_with(self) -> str:
        """Digest of the code of the study and of all that judges it."""
        return sources_digest([self.study.__module__, "verification.gate"])

    def caught(self, seed: int) -> tuple[bool, Outcome]:
        """Whether the fault is found, for the right reason."""
        outcome = self.study(seed, True)
        right = outcome.said in self.said and bool(re.search(self.because, outcome.reason))
        return right, outcome

    def flagged(self, seed: int) -> tuple[bool, Outcome]:
        """Whether the clean twin is taken for faulty."""
        outcome = self.study(seed, False)
        right = ("null", "inconclusive") if self.clean == "null" else (self.clean,)
        return outcome.said not in right, outcome


FAULTS: dict[str, Fault] = {}


def fault(
    check: str, said: Said | tuple[Said, ...], because: str, *, clean: Said = "supported"
) -> Callable[[Study], Study]:
    """Enter a study under the name of its function, whose docstring says what is broken."""

    def enter(study: Study) -> Study:
        name = study.__name__.replace("_", "-")
        if name in FAULTS:
            raise TypeError(f"two faults are named '{name}'")
        breaks = (study.__doc__ or "").strip().splitlines()[0]
        statuses = said if isinstance(said, tuple) else (said,)
        FAULTS[name] = Fault(name, check, breaks, statuses, because, study, clean)
        return study

    return enter


def judged(
    subject: Subject,
    analysis: Analysis = PROBE,
    *,
    seed: int,
    exploratory: bool = False,
    **changed: Any,
) -> Outcome:
    """The outcome of a claim about decoding, or of one that differs from it in some fields."""
    hypothesis = claim(**changed)
    (verdict,) = judge([Case(hypothesis, analysis, subject, "", exploratory, ())], seed=seed)
    said = "exploratory" if verdict.status == "supported" and exploratory else verdict.status
    return Outcome(said, verdict.reason, verdict)


def claim(**changed: Any) -> Hypothesis:
    """That the category can be decoded, unless it is changed."""
    fields = {
        "id": "decodable",
        "claim": "The category can be decoded.",
        "rationale": "It was planted, or was not.",
        "measure": "decode.balanced_accuracy",
        "at": {"layer": 0},
        "expect": "greater",
        "than": "chance",
        "smallest_effect": 0.1,
        "alpha": 0.05,
        "controls": PRESENCE,
    }
    return Hypothesis.model_validate(fields | changed)


def randomness(seed: int, name: str) -> np.random.Generator:
    """For one study of one fault."""
    return np.random.default_rng([seed, *name.encode()])


def planted(seed: int, name: str, **changed: Any) -> Subject:
    """A subject with a real code."""
    fields = {"code": "direction", "size": 2, "layers": 1, "items": 8, "units": 40}
    return world(randomness(seed, name), **{**fields, **changed})
