"""What a control is, and the registry that protocols name them by."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import xarray as xr

from analyses import Analysis
from analyses.base import Asks
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.measure import Measure
from verification.statistics import Estimate, permutation_p

# Permutations that a figure shows.
SHOWN = 6
# What analyses do, and what a claim about it is held against.
READS: dict[Asks, str] = {
    "labels": "tell labels apart",
    "structure": "read how the units of a model go together",
    "wiring": "hold how units go together against how they are wired",
    "likeness": "read how alike two models are",
    "acts": "act on the subject",
}
HELD: dict[Asks, str] = {
    "labels": "Claims of what tells labels apart are held against 'shuffled_labels' and "
    "'surface_only', or 'planted_units' if they are of absence",
    "structure": "Claims of structure are held against 'rotated_units', or 'planted_modules' if "
    "they are of absence",
    "wiring": "Claims of wiring are held against 'shuffled_nodes', or 'planted_wiring' if they are "
    "of absence",
    "likeness": "Claims of likeness are held against 'shuffled_items' and 'beyond_surface', or "
    "'planted_likeness' if they are of absence",
    "acts": "Claims of what was done are held against 'random_target', or 'known_target' if they "
    "are of absence",
}


@dataclass(frozen=True)
class Control(ABC):
    """A world built so that a claim must fail in it, or a part of the world where it must hold.

    A control changes the subject and asks the same measure again. One file each; the file's name
    is its name in a protocol, its fields are the settings that a protocol may give.
    """

    kind: ClassVar[Kind]
    # What an analysis must ask for that it can be held against it.
    of: ClassVar[tuple[Asks, ...]] = get_args(Asks)
    decided_by_p: ClassVar[bool] = False  # so that a margin of zero still asks for something
    margin: float

    def __post_init__(self) -> None:
        """Refuse a margin that asks for nothing.

        Raises
        ------
        ValueError
        """
        if self.kind == "null" and not self.decided_by_p and not self.margin > 0:
            raise ValueError(
                f"a margin of {self.margin:g} asks for nothing; by how much must the effect exceed "
                "this control at least?"
            )

    @classmethod
    def misfit(cls, analysis: Analysis) -> str:
        """Why an analysis cannot be held against it; empty if it can."""
        if analysis.asks in cls.of:
            return ""
        if analysis.asks == "acts":
            return (
                f"'{name_of(cls)}' changes what is read, and here something was done: that cannot "
                f"be done anew to the changed subject. {HELD['acts']}"
            )
        of = " or ".join(READS[one] for one in cls.of)
        return (
            f"'{name_of(cls)}' is of analyses that {of}, and this one does not. "
            f"{HELD[analysis.asks]}"
        )

    @property
    def reserves(self) -> float:
        """The share of each category's items that the gate keeps for this control alone."""
        return 0.0

    @abstractmethod
    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        """Judge the measure in this control's world.

        Parameters
        ----------
        subject : Subject
            The subject that the claim is about, with the stimuli that judge, or with those that
            were kept for this control.
        measure : Measure
        observed : Estimate
            What the measure found on it.
        hypothesis : Hypothesis
        rng : numpy.random.Generator

        Raises
        ------
        AnalysisError, KeyError
            If the control cannot be run; the gate then calls the verdict invalid.
        """

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        """The measure at every layer of the control's world (draw, layer), for the report.

        None where this world has no layers to show.
        """
        return None

    def beaten(self, observed: Estimate, world: Estimate, alpha: float, what: str) -> Check:
        """The rule of null controls: the effect exceeds that of the world by the margin.

        The lower limit, at one-sided confidence 1 - `alpha`, of the paired difference must reach
        the margin; to be better by a hair is not enough.
        """
        difference = observed - world
        low, high = difference.interval(1 - 2 * alpha)
        passed = bool(low >= self.margin)
        return Check(
            control=name_of(type(self)),
            kind=self.kind,
            passed=passed,
            estimate=world.value,
            interval=(low, high),
            margin=self.margin,
            reason=(
                f"{what} has an effect of {world.value:.3f}; the observed effect exceeds it by "
                f"{difference.value:.3f} ({low:.3f} to {high:.3f}), "
                f"{'at least' if passed else 'not surely'} the margin {self.margin:g}"
            ),
            kept=difference.value,
        )

    def outdone(self, observed: Estimate, shuffled: np.ndarray, alpha: float, of: str) -> Check:
        """The rule of permutation tests: few reach the effect, and it exceeds their mean.

        Parameters
        ----------
        observed : Estimate
        shuffled : numpy.ndarray
            The effects under permutations.
        alpha : float
        of : str
            What was permuted.
        """
        p, mean = permutation_p(observed.value, shuffled), float(shuffled.mean())
        low, high = np.quantile(shuffled, [alpha, 1 - alpha])
        return Check(
            control=name_of(type(self)),
            kind=self.kind,
            passed=bool(p <= alpha and observed.value - mean >= self.margin),
            estimate=mean,
            interval=(float(low), float(high)),
            margin=self.margin,
            reason=(
                f"{np.sum(shuffled >= observed.value)} of {len(shuffled)} shufflings of {of} reach "
                f"the observed effect (p = {p:.3g}); they lie between {low:.3f} and {high:.3f}"
            ),
            kept=observed.value - mean,
        )

    def persists(self, effects: Sequence[float], what: str) -> Check:
        """The rule of replication controls: the effect keeps the margin in the median."""
        median, low, high = np.quantile(effects, [0.5, 0.05, 0.95])
        passed = bool(median >= self.margin)
        return Check(
            control=name_of(type(self)),
            kind=self.kind,
            passed=passed,
            estimate=float(median),
            interval=(float(low), float(high)),
            margin=self.margin,
            reason=(
                f"{what} an effect of {median:.3f} in the median ({low:.3f} to {high:.3f}), "
                f"{'at least' if passed else 'below'} the margin {self.margin:g}"
            ),
            kept=float(median),
        )


@dataclass(frozen=True)
class ShuffledControl(Control):
    """A permutation test: what a claim needs to belong together is dealt out anew, many times.

    Attributes
    ----------
    margin : float
        How far the effect must lie above the mean of the permutations.
    permutations : int
    """

    kind: ClassVar[Kind] = "null"
    decided_by_p: ClassVar[bool] = True
    shuffles: ClassVar[str]  # what is dealt out, in words
    margin: float = 0.0
    permutations: int = 199

    @abstractmethod
    def shuffled(self, subject: Subject, rng: np.random.Generator) -> Subject:
        """The subject after one dealing.

        Raises
        ------
        AnalysisError
            If the subject has nothing of the kind.
        """

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        subject = measure.at_its_layer(subject).without_twins()
        draws = range(self.permutations)
        effects = np.array([measure.effect(self.shuffled(subject, rng)) for _ in draws])
        return self.outdone(observed, effects, hypothesis.alpha, self.shuffles)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        subject = subject.without_twins()
        profiles = [measure.profile(self.shuffled(subject, rng)) for _ in range(SHOWN)]
        return xr.concat(profiles, "draw", combine_attrs="override")


class PlantedControl(Control):
    """A null control of an absence: what a claim denies is planted, and must be seen."""

    kind: ClassVar[Kind] = "null"

    @property
    @abstractmethod
    def planted(self) -> str:
        """The world, in words."""

    @abstractmethod
    def plant(self, subject: Subject, measure: Measure, rng: np.random.Generator) -> Subject:
        """The subject with it.

        Raises
        ------
        AnalysisError
            If it cannot be planted in what the analysis reads.
        """

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        world = measure(self.plant(subject, measure, rng))
        return self.beaten(observed, world, hypothesis.alpha, self.planted)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        return measure.profile(self.plant(subject, measure, rng)).expand_dims("draw")


CONTROLS: dict[str, type[Control]] = {}


def control(added: type[Control]) -> type[Control]:
    """Enter a control under the name of its file."""
    name = name_of(added)
    if name in CONTROLS:
        raise TypeError(f"two controls are named '{name}'")
    CONTROLS[name] = added
    return added


def name_of(cls: type) -> str:
    """The name of the file that a control is written in."""
    return cls.__module__.rpartition(".")[2]


def with_activations(subject: Subject, site: str, values: np.ndarray) -> Subject:
    """The same stimuli with other activations of one site, layer x stimulus x unit; no twins."""
    bare = subject.volume.drop_vars([*subject.volume.data_vars, "unit"], errors="ignore")
    made = bare.assign({site: (("layer", "stimulus", "unit"), values)})
    return subject.replace_volume(made.assign_coords(unit=np.arange(values.shape[2])))
