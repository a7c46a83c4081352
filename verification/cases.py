"""What the gate is given to judge: a hypothesis with its analysis and its subject, or subjects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from analyses import Analysis
from analyses.base import Asks
from scanner import Subject
from verification.base import Hypothesis
from verification.control import Control
from verification.controls import CONTROLS
from verification.population import Side
from verification.specifications import settings_of

# What a claim of presence, and one of absence, cannot do without, by what its analysis asks. Named
# here and not discovered, so that a control whose file is lost makes a verdict invalid instead of
# easier. To deal labels out anew says nothing where none are read, or after something was done.
REQUIRED: Mapping[Asks, Mapping[str, tuple[str, ...]]] = {
    "labels": {
        "greater": ("untrained_twin", "shuffled_labels", "surface_only", "split_half"),
        "less": ("planted_units", "split_half"),
    },
    "structure": {
        "greater": ("untrained_twin", "rotated_units", "split_half"),
        "less": ("planted_modules", "split_half"),
    },
    "wiring": {
        "greater": ("untrained_twin", "shuffled_nodes", "split_half"),
        "less": ("planted_wiring", "split_half"),
    },
    "likeness": {
        "greater": ("untrained_twin", "shuffled_items", "beyond_surface", "split_half"),
        "less": ("planted_likeness", "split_half"),
    },
    "acts": {
        "greater": ("untrained_twin", "random_target", "split_half"),
        "less": ("known_target", "split_half"),
    },
}


def required(hypothesis: Hypothesis, analysis: Analysis) -> tuple[str, ...]:
    """The controls that a hypothesis cannot do without."""
    return REQUIRED[analysis.asks][hypothesis.expect]


@dataclass(frozen=True)
class Case:
    """One hypothesis with what is needed to judge it.

    Attributes
    ----------
    hypothesis : Hypothesis
    analysis : Analysis
    subject : Subject
    registration : str
        sha256 under which the hypothesis stands in the ledger.
    exploratory : bool
    volumes : tuple of mapping
        ``subject``, ``path`` and ``sha256`` of each volume.
    """

    hypothesis: Hypothesis
    analysis: Analysis
    subject: Subject
    registration: str
    exploratory: bool
    volumes: tuple[Mapping[str, str], ...]

    @property
    def controls(self) -> dict[str, Control]:
        """The controls that the hypothesis names, with their settings."""
        return {
            name: CONTROLS[name](**settings)
            for name, settings in self.hypothesis.controls.items()
            if name in CONTROLS
        }

    @property
    def settings(self) -> list[Mapping[str, Any]]:
        """Those of each specification, the registered one first; none if no other is listed."""
        return settings_of(self.hypothesis, self.analysis)

    @property
    def members(self) -> tuple[Self, ...]:
        """What is measured one by one."""
        return (self,)

    @property
    def steps(self) -> int:
        """How often `judge` reports that something is done."""
        return self.worlds + len(self.settings)

    @property
    def worlds(self) -> int:
        """How often `evidence` reports that something is done."""
        return 1 + len(self.controls)


@dataclass(frozen=True)
class Population:
    """One hypothesis about every subject, each of which is a case of its own.

    Attributes
    ----------
    members : tuple of Case
        The same but for the subject.
    scores : tuple of float or Side, or None
        Of each member, where the hypothesis says that the measure follows them; or where it stands
        in a pair, where the claim is about pairs.
    """

    members: tuple[Case, ...]
    scores: tuple[float, ...] | tuple[Side, ...] | None

    @property
    def hypothesis(self) -> Hypothesis:
        return self.members[0].hypothesis

    @property
    def analysis(self) -> Analysis:
        return self.members[0].analysis

    @property
    def registration(self) -> str:
        return self.members[0].registration

    @property
    def exploratory(self) -> bool:
        """Whether it is so for any of them."""
        return any(one.exploratory for one in self.members)

    @property
    def volumes(self) -> tuple[Mapping[str, str], ...]:
        """Of all of them."""
        return tuple(volume for one in self.members for volume in one.volumes)

    @property
    def steps(self) -> int:
        """How often `judge` reports that something is done."""
        return sum(one.steps for one in self.members)
