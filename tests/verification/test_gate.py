"""The gate: each verdict, each refusal, and how often it is wrong."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses.base import Analysis, Quantity
from analyses.probe import Probe
from analyses.selectivity import Selectivity
from scanner import Subject
from verification import CONTROLS, REQUIRED, Case, Verdict, evidence, judge
from verification.red_team.fault import PRESENCE, claim
from verification.worlds import world

PROBE = Probe(site="resid_post", item_folds=3, frame_folds=2)


def case(subject: Subject, analysis: Analysis = PROBE, *, exploratory=False, **changed) -> Case:
    return Case(claim(**changed), analysis, subject, "sha", exploratory, ())


def verdict(subject: Subject, analysis: Analysis = PROBE, **changed) -> Verdict:
    return judge([case(subject, analysis, **changed)], seed=0)[0]


@dataclass(frozen=True)
class Shift(Analysis):
    """The mean of unit 0, the easiest measure to plant: the world's code does not matter."""

    site: str = "resid_post"
    label: str = "category"
    measures = {"mean": Quantity("mean of unit 0", -np.inf, np.inf)}

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        unit = subjects[0].volume["resid_post"].isel(unit=0).mean("stimulus")
        return xr.Dataset({"mean": unit.drop_vars("unit").assign_attrs(chance=0.0)})


def shifted(size: float, *, seed: int = 0, items: int = 40, spread: float = 1.0) -> Subject:
    """Items around a planted mean of unit 0; nothing but the items varies."""
    subject = world(
        np.random.default_rng(seed), items=items, noise=0, item_spread=0, layers=1, frames=2
    )
    item = subject.volume["item"].to_numpy()
    names, which = np.unique(item, return_inverse=True)
    values = size + spread * np.random.default_rng(seed).normal(size=len(names))[which]
    x = np.zeros((len(item), 1, 60))
    x[:, 0, 0] = values
    return subject.replace_volume(
        subject.volume.assign(resid_post=(("stimulus", "layer", "unit"), x))
    )


# With controls that hardly ask anything, so that only the rule is tested.
OF_SHIFT: dict[str, Any] = {
    "measure": "m.mean",
    "expect": "less",
    "than": 0.0,
    "smallest_effect": 0.3,
    "controls": {
        "split_half": {"margin": 0.0, "splits": 3},
        "planted_units": {"margin": 0.001, "units": 15},  # every unit, the first among them
    },
}


def of_shift(subject: Subject, **changed) -> Verdict:
    """A verdict on the planted mean."""
    return judge([case_of_shift(subject, **changed)], seed=0)[0]


def case_of_shift(subject: Subject, **changed) -> Case:
    return case(subject, Shift(), **OF_SHIFT | changed)


def test_a_planted_effect_is_supported_and_every_control_reports() -> None:
    found = verdict(world(np.random.default_rng(0), code="direction", size=2))
    assert found.status == "supported"
    assert found.finding
    assert found.estimate > 0.8
    assert found.reference == 0.25
    assert found.interval[0] < found.estimate <= found.interval[1] <= 1
    assert [check.control for check in found.checks] == list(PRESENCE)
    assert all(check.passed for check in found.checks)


def test_the_same_seed_gives_the_same_verdict_whatever_the_number_of_workers() -> None:
    cases = [case(world(np.random.default_rng(0), code="direction"), id=name) for name in "ab"]
    assert judge(cases, seed=0) == judge(cases, seed=0, workers=2)
    assert judge(cases, seed=0)[0].interval != judge(cases, seed=1)[0].interval


@pytest.mark.parametrize(
    ("size", "status"),
    [(-0.9, "supported"), (0.0, "null"), (-0.3, "inconclusive"), (0.9, "null")],
)
def test_the_interval_decides_between_effect_null_and_neither(size: float, status: str) -> None:
    found = of_shift(shifted(size))
    assert found.status == status
    assert (found.items_needed is not None) == (status == "inconclusive")


def test_inconclusive_says_how_many_items_would_decide_and_they_do() -> None:
    few = of_shift(shifted(-0.1, items=12, seed=3))
    assert few.status == "inconclusive"
    assert "items (now 48) would decide" in few.reason
    assert few.items_needed is not None
    many = of_shift(shifted(-0.1, items=2 * few.items_needed // 4, seed=3))
    assert many.status == "null"


def test_beside_other_claims_more_items_are_needed_than_there_are() -> None:
    alone = of_shift(shifted(-0.35, items=12, seed=3))
    assert alone.status == "supported"
    others = [
        case_of_shift(shifted(0.0, items=12, seed=seed), id=f"other{seed}")
        for seed in range(10, 17)
    ]
    this = case_of_shift(shifted(-0.35, items=12, seed=3), id="this")
    found, *_ = judge([this, *others], seed=0)
    assert found.effect >= found.smallest_effect
    assert found.p < found.alpha < found.p_holm
    assert found.status == "inconclusive"
    assert found.items_needed is not None
    assert found.items_needed > found.items
    assert f"about {found.items_needed} items (now 48) would decide" in found.reason


def test_significant_but_smaller_than_what_matters_is_not_supported() -> None:
    tiny = of_shift(shifted(-0.15, items=400))
    assert tiny.p < 0.001
    assert tiny.status == "null"


def test_surely_on_the_wrong_side_of_chance_is_an_alarm() -> None:
    found = of_shift(shifted(0.9), than="chance")
    assert found.status == "invalid"
    assert "wrong side of chance" in found.reason


def test_a_constant_measure_is_invalid() -> None:
    found = of_shift(shifted(-1.0, spread=0.0))
    assert found.status == "invalid"
    assert "constant" in found.reason


def test_too_few_items_are_invalid_and_leave_no_number() -> None:
    found = verdict(world(np.random.default_rng(0), code="direction", items=3))
    assert found.status == "invalid"
    assert "3 items; at least 4" in found.reason
    written = found.as_json()
    assert written["estimate"] is None and written["interval"] == [None, None]


@pytest.mark.parametrize("expect", sorted(REQUIRED["labels"]))
def test_no_required_control_can_be_left_out(expect: str) -> None:
    subject = world(np.random.default_rng(0), code="direction", size=2)
    settings = PRESENCE | {"planted_units": {"margin": 0.1}}
    for left_out in REQUIRED["labels"][expect]:
        kept = {name: settings[name] for name in REQUIRED["labels"][expect] if name != left_out}
        found = verdict(subject, expect=expect, than=0.9, controls=kept)
        assert found.status == "invalid"
        assert found.reason == f"required control {left_out} was not run"


def test_a_control_whose_file_is_lost_makes_the_verdict_invalid(monkeypatch) -> None:
    subject = world(np.random.default_rng(0), code="direction", size=2)
    assert verdict(subject).status == "supported"
    monkeypatch.delitem(CONTROLS, "untrained_twin")
    found = verdict(subject)
    assert (found.status, found.reason) == (
        "invalid",
        "required control untrained_twin was not run",
    )


def test_a_control_that_cannot_run_makes_the_verdict_invalid() -> None:
    found = verdict(world(np.random.default_rng(0), code="direction", size=2, twins=0))
    assert found.status == "invalid"
    assert "untrained_twin could not be run: no twin was recorded" in found.reason


def test_a_selected_layer_is_chosen_on_items_that_do_not_judge() -> None:
    rng = np.random.default_rng(0)
    subject = world(rng, code="direction", size=2, layers=4, items=16)
    flat = subject.volume["resid_post"].to_numpy().copy()
    for layer in (0, 1, 3):  # only layer 2 keeps the code
        flat[:, layer] = rng.normal(size=flat[:, layer].shape)
    only = Subject(
        "toy",
        subject.volume.assign(resid_post=(("stimulus", "layer", "unit"), flat)),
        subject.twins,
    )
    found = verdict(only, at={"layer": "selected"}, selection=0.25)
    assert (found.status, found.layer) == ("supported", 2)
    assert found.items == 48
    assert verdict(only, at={"layer": 2}).items == 64


def test_choosing_the_best_of_many_layers_of_noise_finds_nothing() -> None:
    statuses = [
        verdict(
            world(np.random.default_rng(seed), layers=12, items=16, units=20),
            at={"layer": "selected"},
        ).status
        for seed in range(6)
    ]
    assert statuses.count("supported") == 0


def test_holm_corrects_confirmatory_hypotheses_and_leaves_exploratory_ones_out() -> None:
    subject = shifted(-0.30, items=25)
    fields = OF_SHIFT | {"smallest_effect": 0.1}
    cases = [case(subject, Shift(), id=name, **fields) for name in ("a", "b", "c")]
    cases.append(case(subject, Shift(), id="d", exploratory=True, **fields))
    *three, last = judge(cases, seed=0)
    for one in three:
        assert one.p_holm > one.p
    assert max(one.p_holm for one in three) <= 3 * max(one.p for one in three)
    assert last.p_holm == last.p
    assert last.exploratory and not last.finding


def test_noise_is_supported_no_more_often_than_alpha() -> None:
    """Half of 80 studies of noise lie on the expected side; one in twenty may be called."""
    statuses = [of_shift(shifted(0, seed=s, items=10), smallest_effect=0.001) for s in range(80)]
    found = sum(one.status == "supported" for one in statuses)
    assert found <= 9  # 4 expected; more than 9 has a probability of 0.7 %
    assert sum(one.p < 0.5 for one in statuses) > 25


def test_decoding_of_noise_is_not_supported() -> None:
    statuses = [
        verdict(world(np.random.default_rng(seed), units=30, layers=1)).status for seed in range(12)
    ]
    assert statuses.count("supported") == 0


def test_an_effect_of_twice_the_smallest_that_matters_is_mostly_supported() -> None:
    statuses = [of_shift(shifted(-0.6, seed=seed, items=15)).status for seed in range(30)]
    assert statuses.count("supported") >= 27


def test_evidence_shows_every_layer_in_the_world_and_in_its_controls() -> None:
    one = case(world(np.random.default_rng(0), code="direction", size=2, layers=3))
    (shown,) = evidence([one], seed=0)
    found = judge([one], seed=0)[0]
    assert shown["observed"].dims == ("layer",)
    assert float(shown["observed"].sel(layer=0)) == pytest.approx(found.estimate)
    assert shown["untrained_twin"].sizes == {"untrained_twin_draw": 2, "layer": 3}
    assert shown["surface_only"].sizes == {"surface_only_draw": 9, "layer": 3}
    assert shown["shuffled_labels"].sizes["layer"] == 3
    assert float(shown["half_samples"].std()) > 0


def test_the_published_dissociation_can_be_told_in_a_toy_world() -> None:
    """A dense code: top units do not replicate, planted ones would, and the profile does."""
    subject = world(
        np.random.default_rng(0), code="graded", size=0.15, units=1500, layers=1, items=24,
        categories=3,
    )  # fmt: skip
    analysis = Selectivity(site="resid_post", top=20, splits=10)
    absent = verdict(
        subject,
        analysis,
        measure="prefer.overlap",
        expect="less",
        than=0.3,
        controls={
            "planted_units": {"margin": 0.2, "strength": 2.0},
            "split_half": {"margin": 0.0, "splits": 5},
        },
    )
    present = verdict(
        subject, analysis, measure="prefer.profile", smallest_effect=0.1,
        controls=PRESENCE | {"surface_only": {"margin": 0.001}},
    )  # fmt: skip
    assert absent.status == "supported"
    assert present.status == "supported"
