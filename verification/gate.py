"""The gate: judge hypotheses under their controls. The rules stand in README.md beside this file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from analyses import Analysis, AnalysisError
from analyses.splits import item_groups
from scanner import Subject
from verification.base import Check, Control, Hypothesis, Status, Verdict
from verification.controls import CONTROLS
from verification.measure import Measure, item_labels
from verification.statistics import Estimate, HalfSamples, holm, items_needed, stream

# What a claim of presence, and one of absence, cannot do without. Named here and not discovered,
# so that a control whose file is lost makes a verdict invalid instead of easier.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "greater": ("untrained_twin", "shuffled_labels", "surface_only", "split_half"),
    "less": ("planted_units", "split_half"),
}
FEWEST_ITEMS = 4
SHOWN_HALF_SAMPLES = 30

Step = Callable[[str], None]


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
    def steps(self) -> int:
        """How often `judge` and `evidence` each report that something is done."""
        return 1 + len(self.controls)


@dataclass(frozen=True)
class _Heard:
    """A case after all have spoken and before Holm's correction."""

    case: Case
    measure: Measure | None
    items: int
    value: float = np.nan
    reference: float = np.nan
    estimate: Estimate | None = None
    checks: tuple[Check, ...] = ()
    impossible: str = ""
    missing: tuple[str, ...] = field(default=())


def judge(cases: Sequence[Case], *, seed: int, step: Step = lambda what: None) -> list[Verdict]:
    """Judge the hypotheses of one protocol together.

    Parameters
    ----------
    cases : sequence of Case
    seed : int
        Of the protocol; the only source of randomness.
    step : callable
        Told what is being done, `Case.steps` times for each case.

    Returns
    -------
    list of Verdict
        In the order of the cases.
    """
    heard = [_hear(case, seed, step) for case in cases]
    adjusted = _adjusted(heard)
    return [_decide(one, p) for one, p in zip(heard, adjusted, strict=True)]


def evidence(
    case: Case, verdict: Verdict, *, seed: int, step: Step = lambda what: None
) -> xr.Dataset:
    """The measure at every layer, in the world and in its controls, for the figure of a verdict.

    Returns
    -------
    xarray.Dataset
        ``observed`` (layer) with ``half_samples`` (draw, layer), and one variable for each control
        that has layers to show. Empty if the verdict is invalid for want of a measure.
    """
    step("observed")
    if not np.isfinite(verdict.estimate):
        return xr.Dataset()
    subject, measure = _judged(case, seed)
    assert measure.half_samples is not None
    few = measure.half_samples.rows[:SHOWN_HALF_SAMPLES]
    observed = measure.profile(subject)
    shown: dict[str, Any] = {"observed": observed.drop_attrs()}
    halves = [measure.profile(subject.take(rows)).drop_attrs() for rows in few]
    shown["half_samples"] = xr.concat(halves, "half_sample")
    for name, control in case.controls.items():
        step(name)
        world = control.profile(subject, measure, rng=stream(seed, case.hypothesis.id, name))
        if world is not None:
            renamed = world.rename(draw=f"{name}_draw") if "draw" in world.dims else world
            shown[name] = renamed.drop_attrs()
    return xr.Dataset(shown, attrs={
        "chance": float(observed.attrs["chance"]),
        "scale": measure.half_samples.scale,
        "freedom": measure.half_samples.freedom,
    })  # fmt: skip


def _hear(case: Case, seed: int, step: Step) -> _Heard:
    """Measure, and let each control accuse."""
    hypothesis = case.hypothesis
    missing = tuple(
        name
        for name in REQUIRED[hypothesis.expect]
        if name not in hypothesis.controls or name not in CONTROLS
    )
    items = len(np.unique(item_labels(case.subject)[0]))
    step("observed")
    try:
        subject, measure = _judged(case, seed)
        items = len(np.unique(item_labels(subject)[0]))
        value, reference = measure.value(subject), measure.reference(subject)
        estimate = measure(subject)
    except AnalysisError as error:
        for name in case.controls:
            step(name)
        return _Heard(case, None, items, impossible=str(error), missing=missing)
    checks = []
    for name, control in case.controls.items():
        step(name)
        rng = stream(seed, hypothesis.id, name)
        try:
            checks.append(control(subject, measure, estimate, hypothesis, rng=rng))
        except (AnalysisError, KeyError) as error:
            reason = f"could not be run: {error.args[0]}"
            nan = float("nan")
            checks.append(
                Check(name, control.kind, None, nan, (nan, nan), control.margin, reason)
            )
    return _Heard(
        case, measure, items, value, reference, estimate, tuple(checks), missing=missing
    )


def _judged(case: Case, seed: int) -> tuple[Subject, Measure]:
    """The subject with the items that judge, and the measure at its layer.

    Raises
    ------
    AnalysisError
        If a category has too few items, or the analysis cannot be computed.
    """
    hypothesis, subject = case.hypothesis, case.subject
    layer = hypothesis.at.layer
    if layer == "selected":
        subject, selecting = _split_for_selection(subject, hypothesis, seed)
        chooser = Measure(hypothesis, case.analysis, "max", seed)
        profile = chooser.sign * chooser.profile(selecting)
        layer = int(profile["layer"][int(profile.argmax("layer"))])
    items, categories = item_labels(subject)
    _enough_items(items, categories)
    halves = HalfSamples.draw(items, categories, rng=stream(seed, hypothesis.id, "half samples"))
    return subject, Measure(hypothesis, case.analysis, layer, seed, halves)


def _split_for_selection(
    subject: Subject, hypothesis: Hypothesis, seed: int
) -> tuple[Subject, Subject]:
    """The subject with the items that judge, and with those that select."""
    items, categories = item_labels(subject)
    _enough_items(items, categories)
    dealt = item_groups(
        items,
        categories,
        groups=min(np.bincount(_codes(items, categories))),
        rng=stream(seed, hypothesis.id, "selection"),
    )
    # Items are dealt into as many groups as the smallest category has items: one item a group.
    groups = dealt.max() + 1
    selects = dealt < max(1, round(hypothesis.selection * groups))
    return subject.take(np.flatnonzero(~selects)), subject.take(np.flatnonzero(selects))


def _codes(items: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """The category code of each item."""
    first = np.unique(items, return_index=True)[1]
    return np.unique(categories[first], return_inverse=True)[1]


def _enough_items(items: np.ndarray, categories: np.ndarray) -> None:
    fewest = int(min(np.bincount(_codes(items, categories))))
    if fewest < FEWEST_ITEMS:
        raise AnalysisError(
            f"a category has {fewest} items; at least {FEWEST_ITEMS} are needed to judge"
        )


def _adjusted(heard: Sequence[_Heard]) -> list[float]:
    """Holm over the confirmatory hypotheses; an exploratory one keeps its own p."""
    raw = [np.nan if h.estimate is None else h.estimate.p_greater(0) for h in heard]
    confirmatory = [
        i for i, h in enumerate(heard) if h.estimate is not None and not h.case.exploratory
    ]
    adjusted = list(raw)
    for i, p in zip(confirmatory, holm([raw[i] for i in confirmatory]), strict=True):
        adjusted[i] = p
    return adjusted


def _decide(heard: _Heard, p_holm: float) -> Verdict:
    """The decision rule, in the order of README.md."""
    case, estimate = heard.case, heard.estimate
    hypothesis = case.hypothesis
    nan = float("nan")
    verdict = Verdict(
        id=hypothesis.id,
        claim=hypothesis.claim,
        status="invalid",
        reason="",
        measure=hypothesis.measure,
        layer=heard.measure.layer if heard.measure else hypothesis.at.layer,
        estimate=heard.value,
        interval=(nan, nan),
        reference=heard.reference,
        effect=nan,
        smallest_effect=hypothesis.smallest_effect,
        alpha=hypothesis.alpha,
        p=nan,
        p_holm=p_holm,
        exploratory=case.exploratory,
        items=heard.items,
        items_needed=None,
        registration=case.registration,
        checks=heard.checks,
        volumes=case.volumes,
    )
    if estimate is None or heard.measure is None:
        return replace(verdict, reason=heard.impossible)
    low, high = estimate.interval(1 - 2 * hypothesis.alpha)
    sign = heard.measure.sign
    ends = sorted(heard.reference + sign * end for end in (low, high))
    verdict = replace(
        verdict,
        effect=estimate.value,
        p=estimate.p_greater(0),
        interval=(ends[0], ends[1]),
    )
    status, reason = _rule(heard, estimate, p_holm)
    needed = None
    if status == "inconclusive":
        delta = hypothesis.smallest_effect
        distance = estimate.value if estimate.value >= delta else delta - estimate.value
        needed = items_needed(heard.items, (high - low) / 2, distance)
        if needed is not None:
            reason += f"; about {needed} items (now {heard.items}) would decide"
    return replace(verdict, status=status, reason=reason, items_needed=needed)


def _rule(heard: _Heard, estimate: Estimate, p_holm: float) -> tuple[Status, str]:
    hypothesis = heard.case.hypothesis
    delta, alpha = hypothesis.smallest_effect, hypothesis.alpha
    low, high = estimate.interval(1 - 2 * alpha)
    if heard.missing:
        return "invalid", f"required control {heard.missing[0]} was not run"
    unrun = [check for check in heard.checks if check.passed is None]
    if unrun:
        return "invalid", f"control {unrun[0].control} {unrun[0].reason}"
    if estimate.standard_error == 0:
        return "invalid", "the measure is constant over half-samples; nothing can be inferred"
    if hypothesis.than == "chance" and high <= -delta:
        return "invalid", (
            "surely on the wrong side of chance by more than the smallest effect: "
            "test items have been seen, or labels are turned round"
        )
    if p_holm <= alpha and estimate.value >= delta:
        failed = [check for check in heard.checks if not check.passed]
        if failed:
            return "rejected", f"{failed[0].control}: {failed[0].reason}"
        return "supported", (
            f"effect {estimate.value:.3f} ({low:.3f} to {high:.3f}) and every control passed"
        )
    if high < delta:
        return "null", (
            f"effect {estimate.value:.3f}, surely below {high:.3f}, "
            f"which is smaller than the smallest that matters ({delta:g})"
        )
    return "inconclusive", (
        f"effect {estimate.value:.3f} ({low:.3f} to {high:.3f}) is neither shown to be there "
        f"nor shown to be smaller than {delta:g}"
    )
