"""The words of the gate: a hypothesis, a check, a verdict."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Status = Literal["supported", "null", "inconclusive", "rejected", "invalid"]
Kind = Literal["null", "replication"]
Reduction = Literal["selected", "mean", "max", "min", "steepest", "dip"]
# In the place of a subject: each of the protocol, and the claim is about all that are like them.
EVERY = "every"
Sentence = Annotated[str, StringConstraints(min_length=10, strip_whitespace=True)]


class Where(BaseModel):
    """At which layer: a number, one chosen on the selection items, or a reduction over all."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    layer: Annotated[int, Field(ge=0)] | Reduction


class Published(BaseModel):
    """What others found of the same, to stand beside it.

    Attributes
    ----------
    found : str
        The figure, with what it is of: ``0.97 in Qwen2.5-7B``.
    by : str
        Where it is published: ``Tanwar et al. 2025, table 5``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    found: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    by: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


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
        The subject it speaks of; may be left out when the protocol has one. ``every`` is a claim
        about models, of which those of the protocol are a sample.
    among : list of str, optional
        Of a claim about every subject: the subjects that are the sample, where others of the
        protocol are none of it.
    minus : list of str, optional
        Of a claim about every subject: of each of `among` in turn, the subject that it is held
        against. The claim is then about the mean of their differences.
    beside : str, optional
        The subject that it is compared with, if the analysis compares two.
    follows : str, optional
        Of a claim about every subject: a score of theirs, with whose order the measure is to rise
        and fall. The claim is then about their rank correlation.
    alternatives : mapping of str to list, optional
        Of settings of the analysis: what they might as well have been. Every combination is shown
        beside the verdict, which they do not change.
    published : Published, optional
        What others found, which reports show beside what was found. It decides nothing, and is no
        part of the registration.
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
    # Left out of the canonical form where it says nothing, so that older registrations stand.
    among: Annotated[
        list[str] | None, Field(min_length=1, exclude_if=lambda among: among is None)
    ] = None
    minus: Annotated[
        list[str] | None, Field(min_length=1, exclude_if=lambda minus: minus is None)
    ] = None
    beside: Annotated[str | None, Field(exclude_if=lambda beside: beside is None)] = None
    follows: Annotated[str | None, Field(exclude_if=lambda follows: follows is None)] = None
    alternatives: Annotated[
        dict[str, Annotated[list[Any], Field(min_length=1)]] | None,
        Field(exclude_if=lambda alternatives: alternatives is None),
    ] = None
    published: Annotated[Published | None, Field(exclude=True)] = None


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
    kept : float
        What is held against the margin: by how much the effect exceeds that world's, or the effect
        that is left.
    """

    control: str
    kind: Kind
    passed: bool | None
    estimate: float
    interval: tuple[float, float]
    margin: float
    reason: str
    kept: float


@dataclass(frozen=True)
class Member:
    """One subject of a claim about every subject, in units of the measure."""

    subject: str
    estimate: float
    interval: tuple[float, float]
    score: float | None
    worlds: Mapping[str, float]


@dataclass(frozen=True)
class Specification:
    """What the effect is with some settings of the analysis, those registered or others.

    `p` is one-sided against no effect. What could not be computed is NaN, with the `reason`.
    """

    settings: Mapping[str, Any]
    registered: bool
    effect: float
    interval: tuple[float, float]
    p: float
    reason: str


@dataclass(frozen=True)
class Curve:
    """All specifications of a claim.

    Attributes
    ----------
    specifications : tuple of Specification
        The smallest effect first.
    median : float
        Of their effects.
    same_sign, significant : int
        How many have an effect on the expected side, and how many at the registered error rate.
    p : float
        How often labels dealt out anew give a median as large, over all specifications at once; NaN
        of a claim of absence, and where no label is read.
    dealings : int
        Of labels.
    """

    specifications: tuple[Specification, ...]
    median: float
    same_sign: int
    significant: int
    p: float
    dealings: int


@dataclass(frozen=True)
class Verdict:
    """The judgement of one hypothesis. Only the gate makes one.

    `estimate`, `interval` and `reference` are in units of the measure; `effect` is their distance
    on the expected side. `p` is one-sided against no effect, `p_holm` adjusted for the protocol's
    hypotheses; `bayes_factor` weighs an effect against none. Numbers that could not
    be computed are NaN here and null on disk, with the `reason`. Of a claim about every subject
    `members` has what was found in each. `curve` has the effect under the alternatives that the
    hypothesis lists; like the Bayes factor it decides nothing.
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
    bayes_factor: float
    exploratory: bool
    items: int
    items_needed: int | None  # subjects, of a claim about every one
    registration: str
    checks: tuple[Check, ...]
    volumes: tuple[Mapping[str, str], ...]
    members: tuple[Member, ...] = ()
    curve: Curve | None = None

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
