"""Claims about every subject: the error between them, of items, and of orders."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp

from analyses.probe import Probe
from verification import Case, Population, Verdict, judge
from verification.population import Association, over_subjects, spearman
from verification.red_team.fault import PRESENCE, claim
from verification.statistics import Estimate
from verification.worlds import world

PROBE = Probe(site="resid_post", item_folds=3, frame_folds=2)
SMALL = {"categories": 4, "items": 8, "frames": 2, "layers": 1, "units": 30}


def test_a_mean_over_subjects_is_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 7)
    found = over_subjects(values)
    oracle = ttest_1samp(values, 0, alternative="greater")
    assert found.p_greater(0) == pytest.approx(oracle.pvalue)
    oracle = ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx((oracle.low, oracle.high))


def test_what_all_subjects_share_over_items_is_an_error_besides() -> None:
    values = np.array([0.8, 1.0, 1.2, 1.0])
    items = Estimate(1.0, np.random.default_rng(0).normal(1, 0.2, 100), 1.0, 30)
    found = over_subjects(values, within=items)
    expected = np.sqrt(values.var(ddof=1) / 4 + items.standard_error**2)
    assert found.standard_error == pytest.approx(expected)
    assert 3 < found.freedom < 33


def test_subjects_that_are_all_the_same_leave_the_error_of_items() -> None:
    items = Estimate(1.0, np.random.default_rng(0).normal(1, 0.2, 100), 1.0, 30)
    assert over_subjects(np.ones(4), within=items) is items
    assert over_subjects(np.ones(4)).constant


def test_subjects_drawn_anew_and_items_drawn_anew_are_covered() -> None:
    """A mean of 0 is called above 0 at 0.05 as often as that, where both vary."""
    rng, high = np.random.default_rng(0), 0
    for _ in range(2000):
        of_items = rng.normal(0, 1, 40)  # what an item adds to every subject
        draws = [of_items[rng.permutation(40)[:20]].mean() for _ in range(60)]
        values = of_items.mean() + rng.normal(0, 0.2, 5)
        within = Estimate(values.mean(), np.array(draws), 1.0, 39)
        high += over_subjects(values, within=within).p_greater(0) <= 0.05
    assert 0.035 <= high / 2000 <= 0.06
    # Without the items it would be far more.
    alone = 0
    for _ in range(500):
        values = rng.normal(0, 1, 40).mean() + rng.normal(0, 0.2, 5)
        alone += over_subjects(values).p_greater(0) <= 0.05
    assert alone / 500 > 0.15


def test_a_rank_correlation_is_scipys_and_its_p_counts_all_orders() -> None:
    rng = np.random.default_rng(1)
    values, scores = rng.normal(size=6), rng.normal(size=6)
    found = over_subjects(values, scores)
    assert isinstance(found, Association)
    assert found.value == pytest.approx(spearmanr(values, scores).statistic)
    orders = [spearman(np.array(one), scores) for one in permutations(values)]
    assert found.p_greater(0) == pytest.approx(np.mean(np.array(orders) >= found.value - 1e-12))


def test_five_subjects_in_perfect_order_are_as_sure_as_that_can_be() -> None:
    """Derived: the smallest one-sided p of five is 1/120."""
    found = over_subjects(np.arange(5.0), np.array([1, 2, 4, 8, 16.0]))
    assert found.value == 1
    assert found.p_greater(0) == pytest.approx(1 / 120)
    low, high = found.interval(0.9)
    assert 0 < low < 1 == high


def test_intervals_of_rank_correlations_cover() -> None:
    rng, covered, of = np.random.default_rng(2), 0, 1000
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's of two normals with correlation 0.6
    for _ in range(of):
        pairs = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=12)
        low, high = Association.of(*pairs.T).interval(0.9)
        covered += low <= truth <= high
    assert 0.86 <= covered / of <= 0.95


def population(
    sizes: list[float], *, follows: str | None = None, scores=None, twins=(), **changed
) -> Verdict:
    given = {"subject": "every", "follows": follows, "alpha": 0.05, **changed}
    hypothesis = claim(controls=PRESENCE, **given)
    members = []
    for seed, size in enumerate(sizes):
        code = "direction" if size else "none"
        of_twins = {"twin_code": "direction"} if seed in twins else {}
        subject = world(np.random.default_rng(seed), code=code, size=size, **of_twins, **SMALL)
        members.append(Case(hypothesis, PROBE, subject, "sha", False, ()))
    return judge([Population(tuple(members), scores)], seed=0)[0]


def test_what_is_in_every_subject_is_supported_and_each_is_told() -> None:
    found = population([3.0, 2.5, 3.5, 3.0])
    assert found.status == "supported", found.reason
    assert len(found.members) == 4
    middle = np.mean([one.estimate for one in found.members])
    assert found.estimate == pytest.approx(middle)
    for one in found.members:
        assert one.interval[0] <= one.estimate <= one.interval[1]
        assert one.worlds.keys() == PRESENCE.keys()
        assert one.score is None


def test_what_one_subject_has_alone_is_not_said_of_all() -> None:
    found = population([4.0, 0, 0, 0])
    assert found.status == "inconclusive", found.reason
    assert "subjects (now 4) would decide" in found.reason


def test_what_twins_have_as_well_is_rejected_of_all() -> None:
    found = population([3.0, 3.0, 3.0, 3.0], twins=(0, 1, 2, 3))
    assert found.status == "rejected", found.reason
    assert "untrained_twin: over 4 subjects" in found.reason


def test_what_rises_with_a_score_follows_it_and_what_falls_does_not() -> None:
    sizes, scores = [0.5, 1.0, 1.6, 2.4, 4.0], (0.1, 0.2, 0.3, 0.4, 0.5)
    found = population(sizes, follows="bench", scores=scores, smallest_effect=0.5)
    assert found.estimate > 0.8
    assert found.reference == 0
    assert [one.score for one in found.members] == list(scores)
    turned = population(
        sizes, follows="bench", scores=scores[::-1], smallest_effect=0.5, expect="greater"
    )
    assert turned.status == "null", turned.reason


def test_a_subject_that_cannot_be_measured_is_named() -> None:
    hypothesis = claim(subject="every", controls=PRESENCE)
    few = {**SMALL, "items": 3}
    members = tuple(
        Case(hypothesis, PROBE, world(np.random.default_rng(seed), **size), "sha", False, ())
        for seed, size in enumerate((SMALL, few, SMALL))
    )
    (found,) = judge([Population(members, None)], seed=0)
    assert found.status == "invalid"
    assert found.reason.startswith(members[1].subject.name)
