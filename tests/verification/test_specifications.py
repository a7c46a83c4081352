"""Specification curves: what they hold, what they say of noise, and that no verdict changes."""

from dataclasses import replace

import numpy as np
import pytest

from analyses.probe import Probe
from analyses.selectivity import Selectivity
from scanner import Subject
from verification import Case, Verdict, judge
from verification.base import Specification
from verification.red_team.fault import ABSENCE, PRESENCE, PROBE, claim
from verification.specifications import Specified, curve, settings_of
from verification.worlds import world

OTHERS = {"penalty": [0.1, 10.0], "frame_folds": [4]}


def judged(subject: Subject, analysis: Probe | Selectivity = PROBE, **changed) -> Verdict:
    return judge([Case(claim(**changed), analysis, subject, "", False, ())], seed=0)[0]


def small(code: str, size: float = 1.0) -> Subject:
    return world(
        np.random.default_rng(0), code=code, size=size, layers=1, items=8, units=20, frames=4
    )  # fmt: skip


def test_every_combination_is_run_and_the_verdict_is_what_it_was() -> None:
    subject = small("direction", 2)
    found = judged(subject, alternatives=OTHERS)
    assert found.curve is not None
    settings = [tuple(one.settings.values()) for one in found.curve.specifications]
    assert sorted(settings) == [
        (penalty, folds) for penalty in (0.1, 1.0, 10.0) for folds in (2, 4)
    ]
    assert replace(found, curve=None) == judged(subject)
    effects = [one.effect for one in found.curve.specifications]
    assert effects == sorted(effects)
    assert found.curve.median == np.median(effects)
    assert (found.curve.same_sign, found.curve.significant) == (6, 6)
    assert found.curve.p == 0.01
    (registered,) = (one for one in found.curve.specifications if one.registered)
    assert (registered.effect, registered.p) == (found.effect, found.p)


def test_each_specification_is_what_a_claim_with_its_settings_finds() -> None:
    subject = small("direction")
    found = judged(subject, alternatives={"penalty": [10.0]}).curve
    assert found is not None
    (other,) = (one for one in found.specifications if not one.registered)
    alone = judged(subject, replace(PROBE, penalty=10.0))
    assert (other.effect, other.p) == (alone.effect, alone.p)
    low, high = (end + alone.reference for end in other.interval)
    assert alone.interval == pytest.approx((max(low, 0), min(high, 1)))


def test_in_noise_the_joint_test_is_about_uniform_however_many_specifications() -> None:
    hypothesis = claim(alternatives={"penalty": [0.01, 0.1, 10.0]}, controls={})
    p = []
    for seed in range(12):
        subject = world(np.random.default_rng(seed), layers=1, items=4, units=8, frames=2)
        case = Case(hypothesis, replace(PROBE, item_folds=2), subject, "", False, ())
        found = judge([case], seed=seed)[0].curve
        assert found is not None
        p.append(found.p)
    assert sum(one <= 0.1 for one in p) <= 4
    assert max(p) > 0.4


def test_a_claim_of_absence_has_no_joint_test() -> None:
    found = judged(
        small("none"),
        Selectivity("resid_post", top=2, splits=2),
        measure="prefer.overlap",
        expect="less",
        than=0.5,
        controls=ABSENCE,
        alternatives={"top": [4]},
    )
    assert found.curve is not None
    assert np.isnan(found.curve.p) and found.curve.dealings == 0
    assert len(found.curve.specifications) == 2


def test_what_cannot_be_computed_is_named_and_stands_last() -> None:
    found = judged(small("direction", 2), alternatives={"item_folds": [7]}).curve
    assert found is not None
    last = found.specifications[-1]
    assert last.reason.startswith("could not be computed: probe of 'category'")
    assert np.isnan(last.effect) and not last.registered
    assert found.same_sign == found.significant == 1


def test_nothing_listed_is_no_curve() -> None:
    assert settings_of(claim(), PROBE) == []
    assert judged(small("direction", 2), controls=PRESENCE).curve is None


def test_the_joint_p_is_of_the_median_over_specifications() -> None:
    nothing = np.arange(99.0)

    def one(effect: float, dealt: np.ndarray) -> Specified:
        return Specified(Specification({}, False, effect, (0, 1), 0.5, ""), dealt)

    both = curve([one(90.0, nothing), one(100.0, nothing[::-1])], 0.05)
    assert both.median == 95
    assert both.p == 0.01  # the medians of both are 49, whatever the dealing
    alone = curve([one(90.0, nothing)], 0.05)
    assert alone.p == pytest.approx((1 + 9) / 100)
