"""The specification curve: what a claim's effect is under other reasonable settings.

After Simonsohn, Simmons & Nelson (2020). A hypothesis lists alternatives to settings of its
analysis, in the ledger before anything is recorded; every combination of them is run at the same
layer, on the same items and half-samples. The joint test deals the labels out anew among the items
and runs all specifications on each dealing, since they are anything but independent of each other:
how often is the median effect as large? It stands beside a verdict and decides nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from analyses import Analysis, AnalysisError
from scanner import Subject
from verification.base import Curve, Hypothesis, Specification
from verification.measure import Measure
from verification.statistics import Estimate, permutation_p, stream

# Dealings of the joint test: the least with which it can reach a p of 0.01.
DEALINGS = 99


class Specified(NamedTuple):
    """One specification, with its effects under the dealings of labels; none where not asked."""

    specification: Specification
    dealt: np.ndarray


def settings_of(hypothesis: Hypothesis, analysis: Analysis) -> list[Mapping[str, Any]]:
    """Every combination of what was registered and of its alternatives, the registered one first.

    Empty where a hypothesis lists none.
    """
    listed = hypothesis.alternatives or {}
    choices = [
        [getattr(analysis, name), *(tuple(one) if isinstance(one, list) else one for one in values)]
        for name, values in listed.items()
    ]
    return [dict(zip(listed, one, strict=True)) for one in product(*choices)] if listed else []


def specify(
    subject: Subject, measure: Measure, observed: Estimate, settings: Mapping[str, Any]
) -> Specified:
    """Measure with other settings.

    Parameters
    ----------
    subject : Subject
        What judges, at the layer that is judged.
    measure : Measure
        As registered.
    observed : Estimate
        What it found.
    settings : mapping
        Of the analysis, to be set otherwise.
    """
    hypothesis, nan = measure.hypothesis, float("nan")
    level, none, same = 1 - 2 * hypothesis.alpha, np.empty(0), False
    try:
        other = replace(measure, analysis=replace(measure.analysis, **settings))
        same = other.analysis == measure.analysis
        estimate = observed if same else other(subject)
        dealt = _dealt(subject, other)
    except (AnalysisError, ValueError) as error:
        why = f"could not be computed: {error.args[0]}"
        return Specified(Specification(settings, same, nan, (nan, nan), nan, why), none)
    interval, p = estimate.interval(level), estimate.p_greater(0)
    return Specified(Specification(settings, same, estimate.value, interval, p, ""), dealt)


def _dealt(subject: Subject, measure: Measure) -> np.ndarray:
    """Effects with labels dealt out anew: in the same order whatever the settings."""
    # Of an absence, or where no label is read, labels dealt out are no world without the effect.
    if measure.analysis.asks != "labels" or measure.hypothesis.expect == "less":
        return np.empty(0)
    rng = stream(measure.seed, measure.hypothesis.id, "specifications")
    return measure.dealt_by_the_gate(subject, draws=DEALINGS, rng=rng)


def curve(found: Sequence[Specified], alpha: float) -> Curve:
    """All specifications together, the smallest effect first; what could not be computed last."""
    computed = [one for one in found if not one.specification.reason]
    effects = np.array([one.specification.effect for one in computed])
    dealt = np.array([one.dealt for one in computed])
    median = float(np.median(effects)) if len(effects) else float("nan")
    tested = dealt.size > 0
    return Curve(
        specifications=tuple(_ordered(found)),
        median=median,
        same_sign=int(np.sum(effects > 0)),
        significant=sum(one.specification.p <= alpha for one in computed),
        p=permutation_p(median, np.median(dealt, axis=0)) if tested else float("nan"),
        dealings=DEALINGS if tested else 0,
    )


def _ordered(found: Sequence[Specified]) -> Iterator[Specification]:
    every = [one.specification for one in found]
    yield from sorted((one for one in every if not one.reason), key=lambda one: one.effect)
    yield from (one for one in every if one.reason)
