"""Claims about every subject: the error between them, of items, and of orders."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr, ttest_1samp

from analyses import Analysis, Quantity
from analyses.base import Asks, vectors
from analyses.probe import Probe
from scanner import Subject
from verification import Case, Population, Verdict, judge
from verification.population import Association, Paired, Side, over_subjects, spearman
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


def paired(differences: np.ndarray, rng: np.random.Generator) -> Paired:
    """Of subjects in any order, whose pairs have much in common."""
    pairs = len(differences)
    common = rng.normal(0, 10, pairs)
    values = np.concatenate([common + differences, common])
    sides = [Side(one, sign) for sign in (1, -1) for one in range(pairs)]
    order = rng.permutation(2 * pairs)
    found = over_subjects(values[order], np.array([sides[one] for one in order]))
    assert isinstance(found, Paired)
    return found


def test_pairs_are_judged_by_all_signs_of_their_differences() -> None:
    """What the subjects of a pair have in common is no error."""
    rng = np.random.default_rng(0)
    differences = rng.normal(0.3, 1, 8)
    found = paired(differences, rng)
    assert found.value == pytest.approx(differences.mean())
    for bound in (0, 0.2):
        moved = differences - bound
        means = [np.mean(signs * moved) for signs in product((1, -1), repeat=8)]
        assert found.p_greater(bound) == np.mean(np.array(means) >= moved.mean() - 1e-12)
    oracle = ttest_1samp(differences, 0).confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx((oracle.low, oracle.high))


def test_ten_pairs_that_agree_have_the_least_p_that_ten_can_have() -> None:
    """Derived: of 2^10 signs one is as large; four pairs cannot say anything at 0.05."""
    rng = np.random.default_rng(0)
    assert paired(rng.uniform(0.1, 0.2, 10), rng).p_greater(0) == 1 / 1024
    assert paired(np.full(10, 0.1), rng).p_greater(0) == 1 / 1024
    assert paired(rng.uniform(0.1, 0.2, 4), rng).p_greater(0) == 1 / 16


def test_pairs_without_a_difference_are_called_different_as_often_as_allowed() -> None:
    """Also where one pair in ten differs ten times as much, on either side."""
    rng, high, covered = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        wide = np.where(rng.random(10) < 0.1, 10, 1)
        high += paired(rng.normal(0, wide), rng).p_greater(0) <= 0.05
        low, top = paired(rng.normal(1, 1, 10), rng).interval(0.9)
        covered += low <= 1 <= top
    assert 0.03 <= high / 1000 <= 0.06
    assert 0.88 <= covered / 1000 <= 0.92


def test_ten_pairs_find_a_difference_of_one_and_a_half_spreads() -> None:
    """At 0.01 most of the time, and one of a whole spread about as often as not."""
    rng = np.random.default_rng(0)
    found = {
        size: np.mean([paired(rng.normal(size, 1, 10), rng).p_greater(0) <= 0.01
                       for _ in range(300)])
        for size in (1.0, 1.5)
    }  # fmt: skip
    assert 0.5 < found[1.0] < 0.75
    assert found[1.5] > 0.9


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


@dataclass(frozen=True)
class Together(Analysis):
    """The share of pairs of units that go together: as a network's modularity, but in no time."""

    asks: ClassVar[Asks] = "structure"
    measures: ClassVar[Mapping[str, Quantity]] = {"share": Quantity("a share of pairs", -1.0, 1.0)}
    site: str

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        (subject,) = subjects
        (layer,) = vectors(subject, self.site)
        pairs = np.corrcoef(layer.T)[np.triu_indices(layer.shape[1], 1)]
        share = xr.DataArray([np.mean(pairs > 0.5)], {"layer": [0]}, attrs={"chance": 0.0})
        return xr.Dataset({"share": share})


OF_NETWORKS = {
    "untrained_twin": {"margin": 0.02},
    "rotated_units": {"margin": 0.02, "rotations": 1},
    "split_half": {"margin": 0.02, "splits": 2},
}


def pairs(*, modules: bool, twins: bool = False) -> Verdict:
    """Five pairs of one kind of world each, of which the first have modules of units."""
    hypothesis = claim(
        subject="every", measure="net.share", controls=OF_NETWORKS, than=0.0, alpha=0.05,
        smallest_effect=0.05, among=list("abcde"), minus=list("vwxyz"),
    )  # fmt: skip
    members = []
    for number in range(10):
        planted = modules and number < 5
        subject = world(
            np.random.default_rng(number), code="modules" if planted else "none", size=1.5,
            twin_code="modules" if planted and twins else "none", categories=4, items=12, frames=1,
            layers=1, units=20, twins=1,
        )  # fmt: skip
        members.append(Case(hypothesis, Together("resid_post"), subject, "sha", False, ()))
    sides = tuple(Side(seed, sign) for sign in (1, -1) for seed in range(5))
    return judge([Population(tuple(members), sides)], seed=0)[0]


def test_modules_that_one_of_each_pair_has_are_a_difference() -> None:
    found = pairs(modules=True)
    assert found.status == "supported", found.reason
    assert found.p == 1 / 32
    assert found.reference == 0
    one, other = np.array([one.estimate for one in found.members]).reshape(2, 5)
    assert found.estimate == pytest.approx(np.mean(one - other))
    assert found.estimate > 0.05


def test_pairs_that_both_have_none_show_no_difference() -> None:
    found = pairs(modules=False)
    assert found.status == "null", found.reason
    assert found.interval[0] < 0 < found.interval[1]


def test_a_difference_that_untrained_pairs_have_as_well_is_rejected() -> None:
    found = pairs(modules=True, twins=True)
    assert found.status == "rejected", found.reason
    assert "untrained_twin: over 10 subjects" in found.reason
