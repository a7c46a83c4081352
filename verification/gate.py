"""The gate: judge hypotheses under their controls, by the rules of README.md beside this file."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr
from joblib import Parallel, delayed

from analyses import AnalysisError, Quantity
from analyses.base import label_of
from analyses.splits import item_groups
from scanner import Subject
from verification.base import Check, Curve, Hypothesis, Member, Status, Verdict
from verification.cases import Case, Population, required
from verification.design import check_design
from verification.measure import THROUGH_DEPTH, Measure, item_labels
from verification.population import over_subjects
from verification.specifications import Specified, curve, specify
from verification.statistics import Estimate, HalfSamples, holm, items_needed, stream

FEWEST_ITEMS = 4
SHOWN_HALF_SAMPLES = 16

Step = Callable[[str], None]


@dataclass(frozen=True)
class _Observed:
    """What the measure found, before any control has spoken.

    Attributes
    ----------
    rows, held : numpy.ndarray
        The stimuli that judge, and those that were kept for a control.
    measure : Measure or None
        None where nothing could be measured; `impossible` then says why.
    """

    rows: np.ndarray
    held: np.ndarray
    items: int
    measure: Measure | None = None
    value: float = np.nan
    reference: float = np.nan
    estimate: Estimate | None = None
    impossible: str = ""
    members: tuple[Member, ...] = ()


def judge(
    cases: Sequence[Case | Population],
    *,
    seed: int,
    step: Step = lambda what: None,
    workers: int = 1,
) -> list[Verdict]:
    """Judge the hypotheses of one protocol together.

    Parameters
    ----------
    cases : sequence of Case or Population
    seed : int
        Of the protocol; the only source of randomness.
    step : callable
        Told what has been done, `steps` times for each case.
    workers : int
        Processes. The verdicts do not depend on it.

    Returns
    -------
    list of Verdict
        In the order of the cases.
    """
    every = [one for case in cases for one in case.members]
    observed = []
    for case, found in zip(
        every, in_parallel(workers, _observe, [(case, seed) for case in every]), strict=True
    ):
        observed.append(found)
        step(f"{case.hypothesis.id}: observed")
    asked = [(place, name) for place, case in enumerate(every) for name in case.controls]
    tasks = [(every[place], observed[place], name, seed) for place, name in asked]
    checks: list[list[Check]] = [[] for _ in every]
    for (place, name), check in zip(asked, in_parallel(workers, _check, tasks), strict=True):
        if check is not None:
            checks[place].append(check)
        step(f"{every[place].hypothesis.id}: {name}")
    curves = _curves(every, observed, seed, step, workers)
    heard = zip(observed, map(tuple, checks), strict=True)
    found = [
        _together(case, list(islice(heard, len(case.members))))
        if isinstance(case, Population)
        else next(heard)
        for case in cases
    ]
    adjusted = _adjusted(cases, [one for one, _ in found])
    return [
        replace(_decide(case, *one, p), curve=curves.get(case.hypothesis.id))
        for case, one, p in zip(cases, found, adjusted, strict=True)
    ]


def _curves(
    cases: Sequence[Case], observed: Sequence[_Observed], seed: int, step: Step, workers: int
) -> dict[str, Curve]:
    """The specification curve of each hypothesis that lists alternatives, by its id."""
    asked = [(place, one) for place, case in enumerate(cases) for one in case.settings]
    tasks = [(cases[place], observed[place], settings) for place, settings in asked]
    found: dict[int, list[Specified]] = {}
    for (place, _), specified in zip(asked, in_parallel(workers, _specified, tasks), strict=True):
        if specified is not None:
            found.setdefault(place, []).append(specified)
        step(f"{cases[place].hypothesis.id}: specifications")
    return {
        cases[place].hypothesis.id: curve(those, cases[place].hypothesis.alpha)
        for place, those in found.items()
    }


def _specified(case: Case, observed: _Observed, settings: Mapping[str, Any]) -> Specified | None:
    """The claim under some settings; None where nothing could be measured."""
    if observed.measure is None or observed.estimate is None:
        return None
    subject = observed.measure.at_its_layer(case.subject.take(observed.rows).without_twins())
    return specify(subject.load(), observed.measure, observed.estimate, settings)


def believed(case: Case, *, seed: int) -> tuple[bool, bool]:
    """Whether a claim would be believed without controls, and whether it is with them.

    As `judge` says of the case by itself, where all that is asked is whether it is supported: no
    control can mend what another has stopped, so the first that does not pass is the last.
    """
    observed = _observe(case, seed)
    (p,) = _adjusted([case], [observed])
    if not significant(_decide(case, observed, (), p)):
        return False, False
    checks: list[Check] = []
    for name in case.controls:
        check = _check(case, observed, name, seed)
        if check is None or not check.passed:
            return True, False
        checks.append(check)
    return True, _decide(case, observed, tuple(checks), p).status == "supported"


def significant(verdict: Verdict) -> bool:
    """Whether the measure alone, whatever controls say, would be believed."""
    return verdict.p_holm <= verdict.alpha and verdict.effect >= verdict.smallest_effect


def evidence(
    cases: Sequence[Case], *, seed: int, step: Step = lambda what: None, workers: int = 1
) -> list[xr.Dataset]:
    """The measure at every layer, in the world and in its controls, for the figure of a verdict.

    Parameters are those of `judge`.

    Returns
    -------
    list of xarray.Dataset
        For each case ``observed`` (layer) with ``half_samples`` (half_sample, layer), and one
        variable for each control that has layers to show. Empty where nothing can be measured.
    """
    asked = [
        (place, name) for place, case in enumerate(cases) for name in ("observed", *case.controls)
    ]
    tasks = [(cases[place], name, seed) for place, name in asked]
    shown = [xr.Dataset() for _ in cases]
    for (place, name), world in zip(asked, in_parallel(workers, _world, tasks), strict=True):
        shown[place] = shown[place].assign(world.data_vars).assign_attrs(world.attrs)
        step(f"{cases[place].hypothesis.id}: {name}")
    return shown


def in_parallel(
    workers: int, work: Callable[..., Any], tasks: list[tuple[Any, ...]]
) -> Iterator[Any]:
    """Results in the order of the tasks, as they are done; one worker is this process."""
    if workers == 1:
        yield from (work(*task) for task in tasks)
        return
    with warnings.catch_warnings():
        # A worker that holds much memory is begun anew between tasks; nothing is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        yield from Parallel(n_jobs=workers, return_as="generator")(
            delayed(work)(*task) for task in tasks
        )


def _observe(case: Case, seed: int) -> _Observed:
    """Choose the layer if it is to be chosen, and measure on the items that judge."""
    everything = np.arange(case.subject.volume.sizes["stimulus"])
    all_items = len(np.unique(item_labels(case.subject)[0]))
    try:
        subject, measure, rows, held = _judged(case, seed)
        items = len(np.unique(item_labels(subject)[0]))
        return _Observed(rows, held, items, measure, *measure.read(subject), measure(subject))
    except AnalysisError as error:
        return _Observed(everything, everything, all_items, impossible=str(error))


def _check(case: Case, observed: _Observed, name: str, seed: int) -> Check | None:
    """Let one control accuse; None where there is nothing to accuse."""
    if observed.measure is None or observed.estimate is None:
        return None
    control, hypothesis = case.controls[name], case.hypothesis
    subject = case.subject.take(observed.held if control.reserves else observed.rows)
    subject = observed.measure.at_its_layer(subject).load()
    rng = stream(seed, hypothesis.id, name)
    try:
        why = control.misfit(case.analysis)
        if why:
            raise AnalysisError(why)
        return control(subject, observed.measure, observed.estimate, hypothesis, rng=rng)
    except (AnalysisError, KeyError) as error:
        nan = float("nan")
        reason = f"could not be run: {error.args[0]}"
        return Check(name, control.kind, None, nan, (nan, nan), control.margin, reason, nan)


def _world(case: Case, name: str, seed: int) -> xr.Dataset:
    """The measure at every layer, of the subject or in the world of one control."""
    try:
        subject, measure, _, _ = _judged(case, seed)
        if name != "observed":
            rng = stream(seed, case.hypothesis.id, name)
            world = case.controls[name].profile(subject, measure, rng=rng)
            if world is None:
                return xr.Dataset()
            renamed = world.rename(draw=f"{name}_draw") if "draw" in world.dims else world
            return xr.Dataset({name: renamed.drop_attrs()})
        observed, halves = measure.profile(subject), measure.half_samples
        assert halves is not None
        shown = measure.profiles(subject, halves.rows[:SHOWN_HALF_SAMPLES])
        profiles = [profile.drop_attrs() for profile in shown]
    except (AnalysisError, KeyError):
        return xr.Dataset()  # the verdict says why
    return xr.Dataset(
        {"observed": observed.drop_attrs(), "half_samples": xr.concat(profiles, "half_sample")},
        attrs={
            "chance": float(observed.attrs["chance"]),
            "scale": halves.scale,
            "freedom": halves.freedom,
        },
    )


def _judged(case: Case, seed: int) -> tuple[Subject, Measure, np.ndarray, np.ndarray]:
    """What judges: the subject with its items, the measure at its layer, and rows of the volume.

    Rows are those that judge and those that are kept for a control; neither selects the layer.

    Raises
    ------
    AnalysisError
        If the measure can be no finding, a category has too few items, the stimuli cannot be judged
        on (`check_design`), or the analysis cannot be computed.
    """
    variable = case.hypothesis.measure.partition(".")[2]
    if variable in case.analysis.identities:
        raise AnalysisError(no_finding(variable, case.analysis.identities[variable]))
    # What is measured hundreds of times is read from disk once.
    hypothesis, subject = case.hypothesis, case.subject.load()
    check_design(subject, label_of(case.analysis))
    rows, layer = np.arange(subject.volume.sizes["stimulus"]), hypothesis.at.layer
    held = rows[:0]
    kept = sum(control.reserves for control in case.controls.values())
    if kept:
        held, rows = _divided(subject, rows, kept, stream(seed, hypothesis.id, "held out"))
    if layer == "selected":
        rng = stream(seed, hypothesis.id, "selection")
        selects, rows = _divided(subject, rows, hypothesis.selection, rng)
        chooser = Measure(hypothesis, case.analysis, "max", seed)
        profile = chooser.sign * chooser.profile(subject.take(selects))
        layer = int(profile["layer"][int(profile.argmax("layer"))])
    subject = subject.take(rows)
    items, categories = item_labels(subject)
    _enough_items(items, categories)
    measure = Measure(hypothesis, case.analysis, layer, seed)
    halves = HalfSamples.draw(
        items,
        categories,
        deleted=2 if case.analysis.measures[measure.variable].smooth else 3,
        rng=stream(seed, hypothesis.id, "half samples"),
    )
    return subject, replace(measure, half_samples=halves), rows, held


def no_finding(variable: str, why: str) -> str:
    """What is said of a claim about an identity."""
    return f"'{variable}' can be no finding, whatever it is: {why}"


def _divided(
    subject: Subject, rows: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows divided by items: a share of each category's, and the rest."""
    items, categories = item_labels(subject.take(rows))
    _enough_items(items, categories)
    # Dealt into as many groups as the smallest category has items: one item of it in each.
    groups = int(min(np.bincount(_codes(items, categories))))
    dealt = item_groups(items, categories, groups=groups, rng=rng)
    some = dealt < max(1, round(share * groups))
    return rows[some], rows[~some]


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


def _adjusted(cases: Sequence[Case | Population], observed: Sequence[_Observed]) -> list[float]:
    """Holm over the confirmatory hypotheses; an exploratory one keeps its own p."""
    raw = [np.nan if o.estimate is None else o.estimate.p_greater(0) for o in observed]
    confirmatory = [
        i for i, case in enumerate(cases) if not case.exploratory and not np.isnan(raw[i])
    ]
    adjusted = list(raw)
    for i, p in zip(confirmatory, holm([raw[i] for i in confirmatory]), strict=True):
        adjusted[i] = p
    return adjusted


def _together(
    population: Population, found: list[tuple[_Observed, tuple[Check, ...]]]
) -> tuple[_Observed, tuple[Check, ...]]:
    """What is observed over subjects, and what controls say of it, from what each of them gave."""
    hypothesis, observed = population.hypothesis, [one for one, _ in found]
    first = observed[0]
    for case, one in zip(population.members, observed, strict=True):
        if one.estimate is None:
            return replace(one, impossible=f"{case.subject.name}: {one.impossible}"), ()
    estimates = [one.estimate for one in observed if one.estimate is not None]
    scores = None if population.scores is None else np.array(population.scores)
    # All were split alike, as they have read the same items.
    within = Estimate(
        float(np.mean([one.value for one in estimates])),
        np.mean([one.draws for one in estimates], axis=0),
        estimates[0].scale,
        estimates[0].freedom,
    )
    estimate = over_subjects(np.array([one.value for one in estimates]), scores, within)
    sign = 1 if hypothesis.expect == "greater" else -1
    if scores is None:
        value, reference = (
            float(np.mean([getattr(one, name) for one in observed]))
            for name in ("value", "reference")
        )
    else:
        value, reference = sign * estimate.value, 0.0
    heard = [
        _over_members(population, list(same))
        for same in zip(*(checks for _, checks in found), strict=True)
    ]
    members = tuple(
        Member(
            case.subject.name,
            one.value,
            _ends(one.reference, sign, estimate, hypothesis.alpha),
            None if scores is None else float(scores[place]),
            {check.control: one.reference + sign * check.estimate for check in checks},
        )
        for place, (case, (one, checks), estimate) in enumerate(
            zip(population.members, found, estimates, strict=True)
        )
    )
    nothing = np.empty(0, dtype=int)
    together = _Observed(
        nothing, nothing, first.items, first.measure, value, reference, estimate, members=members
    )
    return together, tuple(heard)


def _over_members(population: Population, checks: list[Check]) -> Check:
    """The rule of a control over subjects: what it keeps in each, as one number of each."""
    hypothesis, first = population.hypothesis, checks[0]
    for case, check in zip(population.members, checks, strict=True):
        if check.passed is None:
            return replace(check, reason=f"{check.reason} (in {case.subject.name})")
    scores = None if population.scores is None else np.array(population.scores)
    worlds = over_subjects(np.array([check.estimate for check in checks]), scores)
    kept = over_subjects(np.array([check.kept for check in checks]), scores)
    low, high = kept.interval(1 - 2 * hypothesis.alpha)
    reached = low if first.kind == "null" else kept.value
    passed = bool(reached >= first.margin)
    what = "the effect" if hypothesis.follows is None else "the correlation"
    beyond = "beyond this world" if first.kind == "null" else "here"
    return replace(
        first,
        passed=passed,
        estimate=worlds.value,
        interval=(low, high),
        kept=kept.value,
        reason=(
            f"over {len(checks)} subjects {what} {beyond} is {kept.value:.3f} ({low:.3f} to "
            f"{high:.3f}), {'at least' if passed else 'not surely'} the margin {first.margin:g}; "
            f"{sum(bool(check.passed) for check in checks)} of them pass by themselves"
        ),
    )


def _ends(reference: float, sign: int, estimate: Estimate, alpha: float) -> tuple[float, float]:
    """The interval in units of the measure."""
    low, high = sorted(reference + sign * end for end in estimate.interval(1 - 2 * alpha))
    return low, high


def _decide(
    case: Case | Population, observed: _Observed, checks: tuple[Check, ...], p_holm: float
) -> Verdict:
    """The verdict, by the rules of README.md."""
    hypothesis, estimate, measure = case.hypothesis, observed.estimate, observed.measure
    nan = float("nan")
    verdict = Verdict(
        id=hypothesis.id,
        claim=hypothesis.claim,
        status="invalid",
        reason=observed.impossible,
        measure=hypothesis.measure,
        layer=measure.layer if measure else hypothesis.at.layer,
        estimate=observed.value,
        interval=(nan, nan),
        reference=observed.reference,
        effect=nan,
        smallest_effect=hypothesis.smallest_effect,
        alpha=hypothesis.alpha,
        p=nan,
        p_holm=p_holm,
        bayes_factor=nan,
        exploratory=case.exploratory,
        items=observed.items,
        items_needed=None,
        registration=case.registration,
        checks=checks,
        volumes=case.volumes,
        members=observed.members,
    )
    if estimate is None or measure is None:
        return verdict
    ends = _ends(observed.reference, measure.sign, estimate, hypothesis.alpha)
    quantity = case.analysis.measures[measure.variable]
    if hypothesis.follows is not None:
        quantity = Quantity("rank correlation", -1.0, 1.0)
    elif measure.layer in THROUGH_DEPTH:
        # How a measure changes from layer to layer is none of its values.
        quantity = Quantity("change through the depth", -np.inf, np.inf)
    # By the t distribution an interval may reach beyond what the measure can be.
    shown = np.clip(ends, quantity.least, quantity.greatest)
    # At an end of its scale a measure may well be the same in every draw; an identity, too, but
    # that is the same in every control's world.
    stuck = estimate.constant and observed.value not in (quantity.least, quantity.greatest)
    needed = required(hypothesis, case.analysis)
    status, reason = _rule(hypothesis, needed, checks, estimate, p_holm, stuck=stuck)
    p, enough = estimate.p_greater(0), None
    if status == "inconclusive":
        size = len(observed.members) or observed.items
        enough = _enough(size, estimate, hypothesis, stricter=min(1.0, p / p_holm))
        if enough is not None:
            unit = "subjects" if observed.members else "items"
            reason += f"; about {enough} {unit} (now {size}) would decide"
    return replace(
        verdict,
        status=status,
        reason=reason,
        interval=(float(shown[0]), float(shown[1])),
        effect=estimate.value,
        p=p,
        bayes_factor=estimate.bayes_factor,
        items_needed=enough,
    )


def _enough(
    size: int, estimate: Estimate, hypothesis: Hypothesis, *, stricter: float
) -> int | None:
    """How many items or subjects would decide, in the place of so many; None if none can.

    Where what lacks is support, of which Holm asks more where a claim stands beside others, alpha
    is the stricter by that.
    """
    distance, alpha = hypothesis.smallest_effect - estimate.value, hypothesis.alpha
    if distance <= 0:
        distance, alpha = estimate.value, alpha * stricter
    low, high = estimate.interval(1 - 2 * alpha)
    return items_needed(size, (high - low) / 2, distance)


def _rule(
    hypothesis: Hypothesis,
    needed: Sequence[str],
    checks: tuple[Check, ...],
    estimate: Estimate,
    p_holm: float,
    *,
    stuck: bool,
) -> tuple[Status, str]:
    """Status and reason, in the order of README.md."""
    delta, alpha = hypothesis.smallest_effect, hypothesis.alpha
    low, high = estimate.interval(1 - 2 * alpha)
    effect = f"effect {estimate.value:.3f} ({low:.3f} to {high:.3f})"
    for name in needed:
        if name not in {check.control for check in checks}:
            return "invalid", f"required control {name} was not run"
    for check in checks:
        if check.passed is None:
            return "invalid", f"control {check.control} {check.reason}"
    if stuck:
        return "invalid", "the measure is constant over half-samples; nothing can be inferred"
    # Of a correlation with scores the other sign is as likely as this one.
    if hypothesis.than == "chance" and hypothesis.follows is None and high <= -delta:
        return "invalid", (
            f"{effect}: surely on the wrong side of chance by more than the smallest effect; "
            "test items have been seen, or labels are turned round"
        )
    if p_holm <= alpha and estimate.value >= delta:
        failed = [f"{check.control}: {check.reason}" for check in checks if not check.passed]
        if failed:
            return "rejected", "; ".join(failed)
        return "supported", f"{effect} and every control passed"
    if high < delta:
        where = f", and surely on the other side of {hypothesis.than}" if high < 0 else ""
        return "null", (
            f"{effect}, surely smaller than the smallest that matters ({delta:g}){where}"
        )
    return "inconclusive", (
        f"{effect} is neither shown to be there nor shown to be smaller than {delta:g}"
    )
