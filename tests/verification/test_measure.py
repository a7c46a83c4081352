"""What a measure does through the depth: a dip in the middle, and what is none."""

import numpy as np
import pytest
import xarray as xr

from analyses.base import AnalysisError
from analyses.rsa import Rsa
from scanner import Subject
from verification.cases import Case
from verification.gate import judge
from verification.measure import deepest
from verification.red_team.fault import claim
from verification.worlds import SITE, world

DEPTH = np.linspace(0, 1, 30)
LAYERS = 9
CONTROLS = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_labels": {"permutations": 39},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 5},
}


def dip(values: np.ndarray) -> float:
    return float(deepest(xr.DataArray(values, dims="layer")))


@pytest.mark.parametrize("depth", [0.1, 0.3, 0.6])
def test_the_depth_of_a_known_valley_is_recovered(depth: float) -> None:
    """Between a left side of 0.8 and a right side of 0.7, of which the lower counts."""
    sides = 0.8 - 0.1 / (1 + np.exp(-20 * (DEPTH - 0.5)))
    valley = (depth + 0.05) * np.exp(-(((DEPTH - 0.5) / 0.12) ** 2))
    noise = 0.002 * np.random.default_rng(0).normal(size=30)
    assert dip(sides - valley + noise) == pytest.approx(depth, abs=0.02)


def test_what_rises_falls_or_is_noise_has_hardly_any() -> None:
    noise = 0.02 * np.random.default_rng(0).normal(size=(20, 30))
    found = deepest(xr.DataArray(noise, dims=("draw", "layer")))
    assert float(found.mean()) < 0.01  # where that of the values themselves is above 0.04
    for curve in (DEPTH, -DEPTH, np.sqrt(DEPTH), 1 - DEPTH**2):
        assert dip(curve) < 0.01
    hill = np.exp(-(((DEPTH - 0.5) / 0.2) ** 2))
    assert dip(hill) < 0.02


def test_few_layers_have_no_dip() -> None:
    with pytest.raises(AnalysisError, match="4 layers; 5 are needed to say where .* dips"):
        deepest(xr.DataArray(np.arange(4.0), dims="layer"))


def valley(*, of_twins: bool = False, seed: int = 0) -> Subject:
    """Categories that all layers have, but for those in the middle."""
    subject = world(
        np.random.default_rng(seed), code="direction", size=2.0, layers=LAYERS, units=40,
        twin_code="direction" if of_twins else "none",
    )  # fmt: skip

    def lost(volume: xr.Dataset) -> xr.Dataset:
        x = volume[SITE].transpose("stimulus", "layer", "unit").copy(deep=True)
        rng = np.random.default_rng(seed + 1)
        x.values[:, 3:6] = rng.normal(size=x[:, 3:6].shape)
        return volume.assign({SITE: x})

    twins = {name: lost(twin) if of_twins else twin for name, twin in subject.twins.items()}
    return Subject(subject.name, lost(subject.volume), twins)


def verdict(subject: Subject) -> tuple[str, list[str]]:
    hypothesis = claim(
        measure="rsa.similarity", at={"layer": "dip"}, smallest_effect=0.1, controls=CONTROLS
    )
    (found,) = judge([Case(hypothesis, Rsa(SITE), subject, "", False, ())], seed=0)
    return found.status, [check.control for check in found.checks if not check.passed]


def test_categories_that_are_lost_in_the_middle_and_found_again_are_a_finding() -> None:
    assert verdict(valley()) == ("supported", [])


def test_a_dip_that_untrained_twins_have_too_is_rejected() -> None:
    assert verdict(valley(of_twins=True)) == ("rejected", ["untrained_twin"])


def test_what_all_layers_have_is_no_dip() -> None:
    flat = world(np.random.default_rng(0), code="direction", size=2.0, layers=LAYERS, units=40)
    assert verdict(flat)[0] == "null"
