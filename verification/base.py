"""The words of the gate: a hypothesis, a check, a verdict, and what a control is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from scanner import Subject

if TYPE_CHECKING:
    from verification.measure import Measure
    from verification.statistics import Estimate

Status = Literal["supported", "null", "inconclusive", "rejected", "invalid"]
Kind = Literal["null", "replication"]
Reduction = Literal["selected", "mean", "max", "min"]
Sentence = Annotated[str, StringConstraints(min_length=10, strip_whitespace=True)]


class Where(BaseModel):
    """At which layer: a number, one chosen on the selection items, or a reduction over all."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    layer: Annotated[int, Field(ge=0)] | Reduction


class Hypothesis(BaseModel):
    """A claim with everything that is needed to judge it, and nothing left to choose afterwards.

    Attributes
    ----------
    id : str
        Short name, unique in its study.
    claim, rationale : str
        What is claimed, in one sentence, and why this is expected and these thresholds chosen.
    measure : str
        ``analysis.variable``: a measure of an analysis of the protocol.
    at : Where
        The layer.
    selection : float
        Share of each category's items that select the layer and are then left out.
    expect : {'greater', 'less'}
        The direction.
    than : float or 'chance'
        What the measure is compared with.
    smallest_effect : float
        The smallest distance from `than` that matters, in units of the measure.
    alpha : float
        Error rate, one-sided.
    controls : mapping of str to mapping
        The controls to survive, with their settings.
    subject : str, optional
        The subject it speaks of; may be left out when the protocol has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$")]
    claim: Sentence
    rationale: Sentence
    measure: Annotated[str, StringConstraints(pattern=r"^\w+\.\w+$")]
    at: Where
    selection: Annotated[float, Field(gt=0, lt=1)] = 0.25
    expect: Literal["greater", "less"]
    than: float | Literal["chance"]
    smallest_effect: Annotated[float, Field(gt=0)]
    alpha: Annotated[float, Field(gt=0, le=0.1)]
    controls: dict[str, dict[str, Any]]
    subject: str | None = None


@dataclass(frozen=True)
class Check:
    """What one control found.

    Attributes
    ----------
    control : str
    kind : {'null', 'replication'}
    passed : bool or None
        None if it could not be run.
    estimate : float
        The effect in the world that the control made (for a replication, the weaker effect).
    interval : tuple of float
        What `reason` says it is.
    margin : float
        What it was registered to keep.
    reason : str
        The outcome in words.
    """

    control: str
    kind: Kind
    passed: bool | None
    estimate: float
    interval: tuple[float, float]
    margin: float
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The judgement of one hypothesis. Only the gate makes one.

    `estimate`, `interval` and `reference` are in units of the measure; `effect` is their distance
    on the expected side. `p` is one-sided against no effect, `p_holm` adjusted for the protocol's
    hypotheses. Numbers that could not be computed are NaN here and null on disk, with the `reason`.
    """

    id: str
    claim: str
    status: Status
    reason: str
    measure: str
    layer: int | str
    estimate: float
    interval: tuple[float, float]
    reference: float
    effect: float
    smallest_effect: float
    alpha: float
    p: float
    p_holm: float
    exploratory: bool
    items: int
    items_needed: int | None
    registration: str
    checks: tuple[Check, ...]
    volumes: tuple[Mapping[str, str], ...]

    @property
    def finding(self) -> bool:
        """Supported, on data recorded after the hypothesis was registered."""
        return self.status == "supported" and not self.exploratory

    def as_json(self) -> dict[str, Any]:
        """For `verdicts.json`: NaN becomes null."""
        return _without_nan(asdict(self))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


@dataclass(frozen=True)
class Control(ABC):
    """A world built so that a claim must fail in it, or a part of the world where it must hold.

    A control changes the subject and asks the same measure again. One file each; the file's name
    is its name in a protocol, its fields are the settings that a protocol may give.
    """

    kind: ClassVar[Kind]
    margin: float

    @abstractmethod
    def __call__(
        self,
        subject: Subject,
        measure: "Measure",
        observed: "Estimate",
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        """Judge the measure in this control's world.

        Parameters
        ----------
        subject : Subject
            The subject that the claim is about, with the stimuli that judge.
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
        self, subject: Subject, measure: "Measure", *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        """The measure at every layer of the control's world (draw, layer), for the report.

        None where this world has no layers to show.
        """
        return None

    def beaten(self, observed: "Estimate", world: "Estimate", alpha: float, what: str) -> Check:
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
        )


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
