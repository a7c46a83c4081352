"""The gate's error rates, in short, and the rates that they are told as."""

import numpy as np
import pytest

from analyses import REGISTRY
from verification import cases
from verification.calibration import QUICKSTART, SMALL, Rate, false_findings, kinds, planted
from verification.gate import believed, judge, significant
from verification.measure import Measure
from verification.worlds import world

DECODING = kinds()["probe.balanced_accuracy"]


def test_every_measure_that_a_hypothesis_may_name_is_calibrated() -> None:
    named = {f"{name}.{one}" for name, analysis in REGISTRY.items() for one in analysis.measures}
    assert set(kinds()) == named


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (100, 100, 0.9638, 1.0)],
)
def test_intervals_of_shares_are_those_of_clopper_and_pearson(
    count: int, of: int, low: float, high: float
) -> None:
    rate = Rate.of_count(count, of)
    assert rate == (count, of, pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize("name", sorted(kinds()))
def test_what_is_false_is_not_supported(name: str) -> None:
    found = false_findings(kinds()[name], range(6))
    assert found.supported.hits <= 1  # at one in twenty, two of six have a probability of 3 %
    assert sum(rate.of for rate in found.by_world.values()) == 6
    # Worlds that something else explains would be believed, if nobody asked the controls.
    assert found.significant.hits > 0 or kinds()[name].than is not None


def test_what_is_asked_until_one_control_stops_it_is_what_the_gate_says() -> None:
    said = set()
    for seed in range(9):
        case = DECODING.case(DECODING.empty(seed)[1])
        (verdict,) = judge([case], seed=seed)
        expected = (significant(verdict), verdict.status == "supported")
        assert believed(case, seed=seed) == expected
        said.add(expected)
    planted = DECODING.case(world(np.random.default_rng(0), code="direction", size=2, **SMALL))
    assert believed(planted, seed=0) == (True, True)
    assert said >= {(False, False), (True, False)}


def test_without_controls_what_is_false_is_found(monkeypatch) -> None:
    """The rate is one that can be missed."""
    monkeypatch.setattr(cases, "REQUIRED", {"labels": {"greater": ()}})
    careless = type(DECODING)(DECODING.measure, DECODING.analysis, 0.1, controls={})
    found = false_findings(careless, range(12))
    assert found.supported.hits == found.significant.hits > 2
    assert found.by_world["noise"].hits <= 1


@pytest.mark.parametrize("name", sorted(kinds()))
def test_a_planted_effect_is_as_large_as_it_was_asked_to_be(name: str) -> None:
    kind = kinds()[name]
    measure = Measure(kind.hypothesis, kind.analysis, 0, seed=0)
    effect = 2 * kind.smallest_effect
    found = [measure.effect(kind.planted(effect, seed, **SMALL)) for seed in range(24)]
    assert np.mean(found) == pytest.approx(effect, abs=0.25 * effect)


def test_an_effect_of_twice_the_smallest_that_matters_is_found() -> None:
    found = planted(DECODING, 0.2, range(3))
    assert found.said["supported"].hits >= 2
    assert sum(rate.hits for rate in found.said.values()) == 3
    assert QUICKSTART["categories"] == 10
