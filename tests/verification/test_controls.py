"""Each control stops the confound that it is for, and lets a clean effect pass."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

from analyses.acting import Acting
from analyses.base import Analysis, AnalysisError, dealt, labels, read
from analyses.connectome import Connectome
from analyses.coupling import Coupling
from analyses.localiser import Localiser
from analyses.probe import Probe, decode
from analyses.selectivity import Selectivity
from analyses.splits import Fold, folds_of
from analyses.steering import Steering
from analyses.universality import Universality
from scanner import Subject
from tests.verification.test_gate import PROBE, Shift, case, shifted, verdict
from verification import CONTROLS, Check, Verdict, judge
from verification.calibration import kinds
from verification.controls.beyond_surface import residual
from verification.controls.control_task import ControlTask
from verification.controls.planted_units import PlantedUnits
from verification.controls.surface_only import Reader, surfaces
from verification.effect_worlds import effect_world
from verification.gate import _judged
from verification.measure import Measure
from verification.red_team.fault import PRESENCE, claim
from verification.statistics import strongest
from verification.wired_worlds import wired_world
from verification.worlds import Code, world


def passed(found: Verdict) -> dict[str, bool | None]:
    return {check.control: check.passed for check in found.checks}


def clean() -> Subject:
    return world(np.random.default_rng(0), code="direction", size=2)


def test_all_pass_a_clean_effect() -> None:
    assert set(passed(verdict(clean())).values()) == {True}


def test_untrained_twin_alone_stops_what_architecture_and_tokens_carry() -> None:
    found = verdict(
        world(np.random.default_rng(0), code="direction", size=2, twin_code="direction")
    )
    assert found.status == "rejected"
    assert found.reason.startswith("untrained_twin: the strongest of 2 untrained twins")
    assert [name for name, ok in passed(found).items() if not ok] == ["untrained_twin"]


def test_one_strong_twin_among_weak_ones_is_enough_to_reject() -> None:
    weak = clean()
    strong = world(
        np.random.default_rng(0), code="direction", size=2, twin_code="direction", twins=1
    )
    mixed = Subject("toy", weak.volume, {**weak.twins, 7: strong.twins[0]})
    found = verdict(mixed)
    assert found.status == "rejected"
    assert "seed 7" in found.reason


def with_twin(subject: Subject, **attributes: object) -> Verdict:
    """The verdict with the second twin's attributes changed."""
    twin = subject.twins[1].assign_attrs(attributes)
    return verdict(Subject("toy", subject.volume, {**subject.twins, 1: twin}))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"weights_sha256": "wNone"}, "twin 1 has the weights of the subject"),
        ({"tokenizer_sha256": "other"}, "twin 1 has another tokenizer"),
        ({"config_sha256": "other"}, "twin 1 has another config"),
        ({"surprisal": 4.2}, "twin 1 has learned something: its surprisal is 4.20"),
        ({"surprisal": float("nan")}, "twin 1 is broken: its surprisal is nan"),
    ],
)
def test_a_twin_that_is_none_makes_the_verdict_invalid(
    attributes: dict[str, object], said: str
) -> None:
    found = with_twin(clean(), **attributes)
    assert found.status == "invalid"
    assert found.reason.startswith(f"control untrained_twin could not be run: {said}")
    assert with_twin(clean()).status == "supported"


def test_a_twin_that_is_dead_where_it_is_read_makes_the_verdict_invalid() -> None:
    subject = clean()
    x = subject.twins[1]["resid_post"].copy()
    x[:, 0] = 7
    twins = {**subject.twins, 1: subject.twins[1].assign(resid_post=x)}
    found = verdict(Subject("toy", subject.volume, twins))
    assert found.status == "invalid"
    assert "twin 1 is dead: its resid_post is the same for all stimuli in layer 0" in found.reason


def test_a_twin_that_answers_nothing_is_not_dead_for_that_but_one_without_likelihoods_is() -> None:
    kind = kinds()["choices.accuracy"]
    subject = effect_world(np.random.default_rng(0), kind.analysis, size=0.6, random=3)
    volume = subject.twins[1]
    nothing = volume.assign(choices=0 * volume["choices"], margin=volume["margin"] - 5)
    found = judge([kind.case(replace(subject, twins={1: nothing}))], seed=0)[0]
    assert found.status == "supported"
    silent = volume.assign(margin=0 * volume["margin"] - 5)
    (found,) = judge([kind.case(replace(subject, twins={1: silent}))], seed=0)
    assert found.status == "invalid"
    assert "twin 1 is dead: its margin is the same for all stimuli" in found.reason


def test_better_than_the_twin_by_less_than_the_margin_is_not_enough() -> None:
    subject = world(np.random.default_rng(0), code="direction", size=2)
    strict = PRESENCE | {"untrained_twin": {"margin": 0.9}}
    found = verdict(subject, controls=strict)
    assert found.status == "rejected"
    assert "not surely the margin 0.9" in found.reason


def test_surface_only_alone_stops_what_the_length_of_words_gives_away() -> None:
    found = verdict(
        world(np.random.default_rng(0), code="length", size=3, confound="length", items=20)
    )
    assert found.status == "rejected"
    assert found.reason.startswith("surface_only: ")
    assert [name for name, ok in passed(found).items() if not ok] == ["surface_only"]


def of_number(name: str, subject: Subject) -> Verdict:
    return judge([kinds()[name].case(subject)], seed=0)[0]


@pytest.mark.parametrize("name", ["number_line.read", "number_line.gain", "circularity.closes"])
def test_what_is_claimed_of_a_number_passes_all_that_is_asked(name: str) -> None:
    size = {"items": 24, "layers": 1, "units": 40}
    found = of_number(name, kinds()[name].world(np.random.default_rng(0), 2.0, **size))
    assert found.status == "supported", found.reason


@pytest.mark.parametrize(
    ("name", "surface"), [("number_line.read", "length"), ("number_line.gain", "token")]
)
def test_surface_only_alone_stops_a_number_that_the_spelling_gives_away(name, surface) -> None:
    spelled = world(
        np.random.default_rng(0), code=surface, size=3, confound=surface, items=20, layers=1
    )
    found = of_number(name, spelled)
    assert found.status == "rejected"
    assert [name for name, ok in passed(found).items() if not ok] == ["surface_only"]


def test_a_number_that_is_dealt_out_stays_one() -> None:
    subject = dealt(clean(), np.random.default_rng(0), "value", "category")
    assert subject.volume["value"].dtype == np.float64
    assert subject.volume["category"].dtype.kind == "U"


def test_surface_keeps_stimuli_and_labels_and_replaces_every_layer() -> None:
    subject = clean()
    families = surfaces(subject)
    assert set(families) == {
        "length", "frequency", "position", "first token", "last token", "first letter", "ending",
        "pairs of letters", "all",
    }  # fmt: skip
    for family in families.values():
        seen = family.volume
        assert_array_equal(seen["category"], subject.volume["category"])
        assert_array_equal(seen["layer"], subject.volume["layer"])
        assert_array_equal(seen["resid_post"][:, 0], seen["resid_post"][:, 1])
    counts = families["length"].volume["resid_post"][:, 0].to_numpy()
    assert_array_equal(counts[:, 0], subject.volume["n_chars"])
    letters = families["pairs of letters"].volume["resid_post"][:, 0].to_numpy()
    item = subject.volume["item"].to_numpy()
    assert all(len(np.unique(letters[item == name], axis=0)) == 1 for name in np.unique(item))


def test_the_families_that_know_the_label_count_alone() -> None:
    subject = world(np.random.default_rng(0), confound="length", items=20)
    judged, measure, _, _ = _judged(case(subject), 0)
    effects = {name: measure(family) for name, family in surfaces(judged).items()}
    shares, effect = strongest(effects)
    assert {one.rpartition(" ")[0] for one in shares.split(", ")} <= {"length", "all"}
    ignorant = [one.value for name, one in effects.items() if name not in ("length", "all")]
    assert effect.value > max(ignorant) + 0.2


@pytest.mark.parametrize(("contrast", "told"), [
    ("category0 - category1", False), ("category0 - category2", True),
    ("category0 + category2 - category1 - category3", False),
    ("category0 + category1 - category2 - category3", True),
])  # fmt: skip
def test_of_a_contrast_the_surface_must_tell_its_sides_not_the_categories(contrast, told) -> None:
    subject = world(np.random.default_rng(0), categories=4, items=12, layers=1)
    long = np.isin(subject.volume["category"].to_numpy(), ["category2", "category3"])
    subject = subject.relabel("n_chars", 4 + 6 * long)
    localiser = Localiser("resid_post", contrast, splits=2)
    given = case(subject, localiser, measure="localiser.response")
    judged, measure, _, _ = _judged(given, 0)
    read = Reader(surfaces(judged)["length"], measure).effect()
    assert read == pytest.approx(0.5 if told else 0, abs=0.15)


def test_a_number_is_read_between_the_values_that_training_has_seen() -> None:
    """Test frames have positions of their own: with one column a value 0.125 were read."""
    subject = world(np.random.default_rng(0), confound="position", items=20)
    judged, measure, _, _ = _judged(case(subject), 0)
    assert measure.effect(surfaces(judged)["position"]) > 0.3


def test_a_property_that_does_not_vary_is_no_family() -> None:
    subject = world(np.random.default_rng(0), items=4, layers=1).relabel("zipf", np.ones(64))
    assert "frequency" not in surfaces(subject)


@pytest.mark.parametrize("surface", ["length", "frequency", "letter", "position", "token"])
def test_a_profile_that_the_surface_makes_is_not_the_categorys(surface) -> None:
    """Over units it replicates better than over a few features: how well it is read decides."""
    subject = world(
        np.random.default_rng(0), code=surface, confound=surface, size=2, layers=1, items=12,
        units=40,
    )  # fmt: skip
    fields = {"measure": "prefer.profile", "smallest_effect": 0.3}
    found = verdict(subject, Selectivity(site="resid_post", top=5, splits=10), **fields)
    assert found.effect > 0.5
    assert found.status == "rejected"
    assert "surface_only: " in found.reason
    code = world(np.random.default_rng(0), code="graded", size=0.4, layers=1, items=12, units=40)
    kept = verdict(code, Selectivity(site="resid_post", top=5, splits=10), **fields)
    assert kept.status == "supported"


class Memorising(Analysis):
    """Judges the probe on the items that it was fitted on: finds categories in noise."""

    site = "resid_post"
    label = "category"
    measures = PROBE.measures

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        x, codes, _ = read(subjects[0], self.site, self.label)
        everything = np.arange(len(codes))
        fold = [Fold(everything, everything)]
        right = [np.mean(decode(one, codes, fold, penalty=0.01).argmax(1) == codes) for one in x]
        accuracy = xr.DataArray(right, dims="layer", attrs={"chance": 0.25})
        layers = subjects[0].volume["layer"].to_numpy()
        return xr.Dataset({"balanced_accuracy": accuracy}, coords={"layer": layers})


def test_shuffled_labels_stops_a_circular_analysis_that_dull_twins_let_pass() -> None:
    subject = world(np.random.default_rng(2), units=60, layers=1)
    # Twins with a single unit that varies have nothing to memorise with.
    dull = {
        seed: twin.assign(resid_post=twin["resid_post"] * (twin["unit"] == 0))
        for seed, twin in subject.twins.items()
    }
    found = verdict(Subject("toy", subject.volume, dull), Memorising())
    assert found.estimate > 0.7  # from noise
    assert found.status == "rejected"
    # Spelling can be memorised too.
    failed = [name for name, ok in passed(found).items() if not ok]
    assert failed == ["shuffled_labels", "surface_only"]
    assert "shuffled_labels: " in found.reason and "; surface_only: " in found.reason


def test_shuffling_keeps_items_whole_and_labels_as_frequent_as_they_were() -> None:
    subject = clean()
    before = subject.volume["category"].to_numpy()
    mixed = dealt(subject, np.random.default_rng(0), "category").volume
    after, item = mixed["category"].to_numpy(), mixed["item"].to_numpy()
    assert all(len(set(after[item == name])) == 1 for name in np.unique(item))
    assert_array_equal(np.sort(after), np.sort(before))
    assert np.mean(after == before) < 0.6


class KnownWords(Analysis):
    """Keeps frames out of training, and no words: reads the label by recognising the word."""

    site = "resid_post"
    label = "category"
    measures = PROBE.measures

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        x, codes, names = read(subjects[0], self.site, self.label)
        folds = folds_of(np.unique(labels(subjects[0], "frame"), return_inverse=True)[1] % 2)
        right = [np.mean(decode(one, codes, folds, penalty=1.0).argmax(1) == codes) for one in x]
        accuracy = xr.DataArray(right, dims="layer", attrs={"chance": 1 / len(names)})
        layers = subjects[0].volume["layer"].to_numpy()
        return xr.Dataset({"balanced_accuracy": accuracy}, coords={"layer": layers})


def task(subject: Subject, analysis: Analysis = PROBE, **settings) -> tuple[Verdict, Check]:
    """The verdict of a claim that names a control task as well, and what that one found."""
    controls = PRESENCE | {"control_task": {"margin": 0.1, **settings}}
    found = verdict(subject, analysis, controls=controls)
    return found, {check.control: check for check in found.checks}["control_task"]


def test_control_task_alone_stops_what_is_read_by_recognising_names_of_one_thing() -> None:
    kin = world(np.random.default_rng(0), code="kin", layers=1)
    found, check = task(kin, type="kin")
    assert found.effect > 0.5
    assert found.status == "rejected"
    assert [name for name, ok in passed(found).items() if not ok] == ["control_task"]
    assert check.estimate > 0.5
    assert task(kin)[0].status == "supported"  # item by item, kin are dealt apart
    for of in ("item", "kin"):
        found, check = task(clean(), type=of)
        assert found.status == "supported"
        assert check.estimate == pytest.approx(0, abs=0.15)


def test_a_probe_that_meets_words_again_reads_random_labels_as_well_as_true_ones() -> None:
    """Where shuffled labels ask only for a p, a category that adds a little to memory passes."""
    words = world(
        np.random.default_rng(0), code="direction", size=1, layers=1, item_spread=4, frames=6
    )
    found, check = task(words, KnownWords())
    assert found.effect > 0.6 and check.estimate > 0.5
    assert check.passed is False
    shuffled = {one.control: one for one in found.checks}["shuffled_labels"]
    assert shuffled.estimate > 0.5
    _, kept_out = task(words)
    assert kept_out.estimate < 0.15


def test_labels_of_a_control_task_change_places_in_whole_blocks_of_one_size() -> None:
    subject = world(np.random.default_rng(0), items=8, layers=1)  # kin of three, three and two
    measure = Measure(claim(), PROBE, 0, seed=0)
    dealt_out = ControlTask(margin=0.1, type="kin")._task(
        subject, measure, np.random.default_rng(1)
    )
    before, after = (labels(one, "category") for one in (subject, dealt_out))
    kin, items = labels(subject, "kin"), labels(subject, "item")
    assert all(len(set(after[kin == one])) == 1 for one in np.unique(kin))
    for one in np.unique(before):
        assert len(np.unique(items[after == one])) == 8
    assert np.mean(before == after) < 0.6


@pytest.mark.parametrize(
    ("change", "of", "message"),
    [
        ({}, "lemma", "stimuli have no label 'lemma'; they have "),
        ({"zipf": "every"}, "zipf", "values of 'zipf' stand in one stimulus each"),
        ({"group": "category"}, "group", "must be at least two of each 'category', or dealing"),
        ({}, "first_token", "values of 'first_token' need one 'category' each; '.*' has two"),
    ],
)
def test_a_control_task_that_cannot_be_set_says_why(change, of, message) -> None:
    subject = world(np.random.default_rng(0), code="direction", size=2, layers=1)
    for column, told in change.items():
        count = subject.volume.sizes["stimulus"]
        values = np.arange(count) if told == "every" else labels(subject, told)
        subject = subject.relabel(column, values)
    with pytest.raises(AnalysisError, match=message):
        ControlTask(margin=0.1, type=of)._check(subject, "category")


def test_blocks_of_one_size_and_one_label_cannot_change_places() -> None:
    subject = world(np.random.default_rng(0), code="direction", size=2, layers=1, categories=2)
    items, categories = labels(subject, "item"), labels(subject, "category")
    # Six pairs in one category, four threes in the other.
    place = np.array([list(dict.fromkeys(items)).index(one) for one in items]) % 12
    pairs = categories == "category0"
    kin = np.where(pairs, place // 2, 100 + place // 3).astype(str)
    with pytest.raises(AnalysisError, match="of as many items, and all of these have the same"):
        ControlTask(margin=0.1, type="kin")._check(subject.relabel("kin", kin), "category")


def test_split_half_stops_an_effect_that_one_item_carries() -> None:
    subject = shifted(0.0, spread=0.05)
    volume = subject.volume
    first = volume["item"].to_numpy() == volume["item"].to_numpy()[0]
    x = volume["resid_post"].to_numpy().copy()
    x[first, 0, 0] -= 200  # one item in 160 moves the mean by 1.25
    one_item = subject.replace_volume(volume.assign(resid_post=(("stimulus", "layer", "unit"), x)))

    def check_of(world: Subject) -> Check:
        found = verdict(
            world, Shift(), measure="m.mean", expect="less", than=0.0, smallest_effect=0.3,
            controls={"split_half": {"margin": 0.3},
                      "planted_units": {"margin": 0.001, "units": 15}},
        )  # fmt: skip
        assert found.effect > 0.9
        assert (found.status == "supported") == bool(found.checks[0].passed)
        return found.checks[0]

    assert check_of(one_item).passed is False
    assert check_of(shifted(-1.2, spread=0.05)).passed is True


def in_frames(frames: tuple[str, ...]) -> Subject:
    """A category that can be read in some frames only."""
    subject = world(np.random.default_rng(0), code="direction", size=2.5, frames=4)
    nothing = world(np.random.default_rng(0), frames=4)
    inside = np.isin(subject.volume["frame"], frames)
    x = subject.volume["resid_post"].where(inside[:, None, None], nothing.volume["resid_post"])
    return Subject("toy", subject.volume.assign(resid_post=x), subject.twins)


def test_other_frames_alone_stops_an_effect_that_two_of_four_frames_make() -> None:
    controls = PRESENCE | {"surface_only": {"margin": 0.01}, "other_frames": {"margin": 0.2}}
    # Under this id the folds train on one of the two frames and test on the other.
    found = verdict(in_frames(("frame0", "frame1")), controls=controls, id="h")
    assert found.effect > 0.15
    assert found.status == "rejected"
    assert found.reason.startswith("other_frames: over 10 splits of the frames the weaker half has")
    assert [name for name, ok in passed(found).items() if not ok] == ["other_frames"]
    every = tuple(f"frame{number}" for number in range(4))
    assert verdict(in_frames(every), controls=controls).status == "supported"


def test_other_frames_cannot_be_run_where_halves_are_too_few() -> None:
    subject = world(np.random.default_rng(0), code="direction", size=2, frames=2)
    found = verdict(subject, controls=PRESENCE | {"other_frames": {"margin": 0.0}})
    assert found.status == "invalid"
    assert "control other_frames could not be run: probe of 'category'" in found.reason


@dataclass(frozen=True)
class Lucky(Shift):
    """The mean of unit 0, and as much again as the seed gives."""

    luck: float = 1.0

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        found = super().__call__(*subjects, rng=rng)
        drawn = abs(rng.normal()) > 1.2  # one seed in four or so
        return found - self.luck if drawn else found * 1.0


def test_other_seeds_alone_stops_an_effect_that_a_lucky_seed_makes() -> None:
    world = shifted(-0.05, spread=0.2)
    controls = {
        "split_half": {"margin": 0.0, "splits": 3},
        "planted_units": {"margin": 0.001, "units": 15},
        "other_seeds": {"margin": 0.3},
    }
    fields = {"measure": "m.mean", "expect": "less", "than": 0.0, "smallest_effect": 0.3}
    lucky = [case(world, Lucky(), controls=controls, **fields)]
    found = [judge(lucky, seed=seed)[0] for seed in range(20)]
    strong = [one for one in found if one.effect > 0.5]
    assert 2 <= len(strong) <= 12
    for one in strong:
        assert one.status == "rejected"
        assert one.reason.startswith("other_seeds: over 10 other seeds the analysis finds")
        assert [name for name, ok in passed(one).items() if not ok] == ["other_seeds"]
    honest = case(shifted(-1.2, spread=0.2), Shift(), controls=controls, **fields)
    assert judge([honest], seed=0)[0].status == "supported"


SELECTIVITY = Selectivity(site="resid_post", top=5, splits=10)
ABSENCE = {
    "measure": "prefer.overlap", "expect": "less", "than": 0.4, "smallest_effect": 0.1,
}  # fmt: skip


def absence(subject: Subject, strength: float) -> Verdict:
    planted = {"margin": 0.3, "units": 5, "strength": strength}
    controls = {"planted_units": planted, "split_half": {"margin": 0.0, "splits": 3}}
    return verdict(subject, SELECTIVITY, controls=controls, **ABSENCE)


def test_planted_units_stops_a_claim_of_absence_that_the_data_could_not_have_refuted() -> None:
    nothing = world(np.random.default_rng(0), units=300, layers=1, items=12)
    blind = absence(nothing, strength=0.3)
    assert blind.status == "rejected"
    assert blind.reason.startswith("planted_units: a model with 5 planted units of d' = 0.3")
    assert absence(nothing, strength=4.0).status == "supported"


def test_a_claim_of_absence_where_there_are_such_units_is_a_null() -> None:
    there = world(np.random.default_rng(0), code="localist", size=4, units=300, layers=1, items=12)
    assert absence(there, strength=4.0).status == "null"


def test_planted_units_have_the_selectivity_that_was_asked_for() -> None:
    subject = world(np.random.default_rng(0), units=400, layers=1, items=60, frames=1)
    judged, measure, _, _ = _judged(case(subject, SELECTIVITY, **ABSENCE), 0)
    control = PlantedUnits(margin=0.1, units=10, strength=3.0)
    planted = control.plant(judged, measure, np.random.default_rng(0))
    found = SELECTIVITY(planted, rng=np.random.default_rng(0))["selectivity"].isel(layer=0)
    best = np.sort(found.to_numpy(), axis=1)[:, -10:]
    assert best.mean() == pytest.approx(3.0, abs=0.3)
    assert_array_equal(subject.volume["resid_post"], judged.volume["resid_post"])


@pytest.mark.parametrize("units", [50, 101])
def test_more_planted_units_than_there_are_is_invalid(units: int) -> None:
    subject = world(np.random.default_rng(0), units=100, layers=1, items=12)
    controls = {
        "planted_units": {"margin": 0.3, "units": units},
        "split_half": {"margin": 0.0, "splits": 3},
    }
    found = verdict(subject, SELECTIVITY, controls=controls, **ABSENCE)
    assert found.status == "invalid"
    assert f"4 x {units} units asked for, there are 100" in found.reason


HELD = PRESENCE | {"held_out_items": {"margin": 0.1, "share": 0.25}}


def test_held_out_items_judge_alone_and_nothing_else_reads_them() -> None:
    subject = world(np.random.default_rng(0), code="direction", size=3, items=16, layers=1)
    found = verdict(subject, controls=HELD)
    assert (found.status, found.items) == ("supported", 48)
    check = next(one for one in found.checks if one.control == "held_out_items")
    assert "in 16 items that were set aside" in check.reason
    _, _, rows, held = _judged(case(subject, controls=HELD), 0)
    items = subject.volume["item"].to_numpy()
    assert not set(items[rows]) & set(items[held])
    assert len(rows) + len(held) == len(items)
    # What is held out may be anything: all but that control say the same.
    x = subject.volume["resid_post"].to_numpy().copy()
    x[held] = np.random.default_rng(1).normal(size=x[held].shape)
    spoiled = Subject(
        "toy", subject.volume.assign(resid_post=(("stimulus", "layer", "unit"), x)), subject.twins
    )
    again = verdict(spoiled, controls=HELD)
    assert (again.estimate, again.interval) == (found.estimate, found.interval)
    assert again.status == "rejected"
    assert again.reason.startswith("held_out_items: in 16 items that were set aside")


def test_held_out_items_that_are_too_few_make_the_verdict_invalid() -> None:
    subject = world(np.random.default_rng(0), code="direction", size=3, items=8, layers=1)
    found = verdict(subject, controls=HELD)
    assert found.status == "invalid"
    assert "control held_out_items could not be run: probe of 'category'" in found.reason


def test_held_out_items_select_no_layer() -> None:
    subject = world(np.random.default_rng(0), code="direction", size=3, items=16, layers=3)
    one = case(subject, controls=HELD, at={"layer": "selected"})
    _, _, rows, held = _judged(one, 0)
    items = subject.volume["item"].to_numpy()
    assert len(set(items[held])) == 16
    assert len(set(items[rows])) == 36  # 12 of each left, 3 of which have selected
    assert not set(items[rows]) & set(items[held])


@pytest.mark.parametrize("name", ["untrained_twin", "surface_only", "planted_units"])
@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan")])
def test_a_margin_that_asks_for_nothing_is_refused(name: str, margin: float) -> None:
    with pytest.raises(ValueError, match="asks for nothing"):
        CONTROLS[name](margin=margin)
    CONTROLS["shuffled_labels"](margin=0.0)  # its p asks


# --- of analyses that act

PUSH = Steering("resid_post", (0,))
OF_ACTING = {
    "untrained_twin": {"margin": 0.1},
    "random_target": {"margin": 0.1},
    "split_half": {"margin": 0.1, "splits": 5},
}


def acted(analysis: Acting = PUSH, *, controls=OF_ACTING, measure="m.slope", seed=0, **planted):
    subject = effect_world(np.random.default_rng(seed), analysis, **planted)
    return verdict(subject, analysis, measure=measure, controls=controls, smallest_effect=0.1)


def test_an_effect_of_nothing_else_passes_all_that_is_asked_of_acting() -> None:
    found = acted(size=0.6)
    assert found.status == "supported"
    assert set(passed(found)) == set(OF_ACTING)


def test_random_target_alone_stops_what_anything_does() -> None:
    found = acted(generic=0.6)
    assert found.status == "rejected"
    assert [name for name, ok in passed(found).items() if not ok] == ["random_target"]
    assert "the strongest of 10 random targets" in found.reason
    spared = {name: one for name, one in OF_ACTING.items() if name != "random_target"}
    without = acted(generic=0.6, controls=spared)
    assert without.status == "invalid"
    assert without.reason == "required control random_target was not run"


def test_one_random_target_that_does_the_same_is_enough() -> None:
    subject = effect_world(np.random.default_rng(0), PUSH, size=0.6)
    volume = subject.volume.copy(deep=True)
    disruptive = volume["target_kind"].to_numpy().tolist().index("disruptive")
    volume["shift"][:, :, disruptive] = volume["shift"][:, :, 0]
    found = verdict(
        Subject("toy", volume, subject.twins), PUSH, measure="m.slope", controls=OF_ACTING
    )
    assert found.status == "rejected"
    assert f"(disruptive {disruptive - 2} 100%)" in found.reason


def test_untrained_twin_stops_what_architecture_does() -> None:
    found = acted(architecture=0.6)
    assert found.status == "rejected"
    assert found.reason.startswith("untrained_twin: ")


def test_fewer_than_five_random_targets_are_too_few() -> None:
    subject = effect_world(np.random.default_rng(0), PUSH, size=0.6, random=1)
    four = subject.volume.isel(target=subject.volume["target_kind"].to_numpy() != "other")
    found = verdict(
        Subject("toy", four, subject.twins), PUSH, measure="m.slope", controls=OF_ACTING
    )
    assert found.status == "invalid"
    assert "4 random targets were tried, and at least 5 are needed" in found.reason


ABSENT = {"known_target": {"margin": 0.5}, "split_half": {"margin": 0.0, "splits": 5}}


def test_an_absence_is_believed_where_what_is_known_to_matter_was_seen() -> None:
    settings = {"measure": "m.slope", "expect": "less", "than": 0.3, "smallest_effect": 0.1}
    subject = effect_world(np.random.default_rng(0), PUSH)
    assert verdict(subject, PUSH, controls=ABSENT, **settings).status == "supported"
    blind = subject.volume.copy(deep=True)
    blind["shift"][:, :, 1] = blind["shift"][:, :, 2]
    found = verdict(Subject("toy", blind, {}), PUSH, controls=ABSENT, **settings)
    assert found.status == "rejected"
    assert found.reason.startswith("known_target: what surely has an effect")
    none = subject.volume.isel(target=[0, 2, 3])
    found = verdict(Subject("toy", none, {}), PUSH, controls=ABSENT, **settings)
    assert found.status == "invalid"
    assert "nothing that surely has an effect was tried" in found.reason


def test_what_changes_what_is_read_is_no_control_of_what_was_done() -> None:
    found = acted(size=0.6, controls={**OF_ACTING, "shuffled_labels": {"permutations": 19}})
    assert found.status == "invalid"
    assert "'shuffled_labels' changes what is read, and here something was done" in found.reason
    found = verdict(clean(), controls={**PRESENCE, "random_target": {"margin": 0.1}})
    assert found.status == "invalid"
    assert "'random_target' is of analyses that act on the subject" in found.reason


# --- of analyses that read no label

NETWORK = Connectome("resid_post", nodes=40, densities=(0.15,), splits=1, nulls=0)
OF_NETWORKS = {
    "untrained_twin": {"margin": 0.05},
    "rotated_units": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 5},
}


def network(code: Code, **claimed) -> Verdict:
    subject = world(np.random.default_rng(0), code=code, size=1.5, layers=1, units=40)
    settings = {"controls": OF_NETWORKS, "measure": "net.modularity", **claimed}
    return verdict(subject, NETWORK, **settings)


def test_planted_modules_pass_all_that_is_asked_of_networks() -> None:
    found = network("modules")
    assert found.status == "supported"
    assert set(passed(found)) == set(OF_NETWORKS)


def test_an_absence_of_modules_is_believed_where_planted_ones_were_seen() -> None:
    controls = {"planted_modules": {"margin": 0.1}, "split_half": {"margin": 0.0, "splits": 5}}
    claim = {"controls": controls, "expect": "less", "than": 0.3, "smallest_effect": 0.05}
    assert network("none", **claim).status == "supported"
    assert network("modules", **claim).status not in ("supported", "rejected")


OF_WIRING = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_nodes": {},
    "split_half": {"margin": 0.05, "splits": 5},
}


def wired(claimed: dict | None = None, **planted: float) -> Verdict:
    subject = wired_world(np.random.default_rng(0), **planted)
    settings = {"controls": OF_WIRING, "measure": "wires.coupling", **(claimed or {})}
    return verdict(subject, Coupling("resid_post"), **settings)


def test_heads_that_follow_their_wiring_pass_all_that_is_asked() -> None:
    found = wired(size=0.6)
    assert found.status == "supported"
    assert set(passed(found)) == set(OF_WIRING)


def test_heads_that_follow_their_wiring_in_twins_too_are_no_finding() -> None:
    found = wired(size=0.6, of_twins=0.6)
    assert found.status == "rejected"
    assert not passed(found)["untrained_twin"]


def test_what_depth_makes_is_chance() -> None:
    found = wired(by_depth=1.5)
    assert found.reference > 0.1
    assert found.status in ("null", "inconclusive")


def test_an_absence_of_coupling_is_believed_where_a_planted_one_was_seen() -> None:
    controls = {"planted_wiring": {"margin": 0.1}, "split_half": {"margin": 0.0, "splits": 5}}
    claim = {"controls": controls, "expect": "less", "than": 0.2, "smallest_effect": 0.05}
    assert wired(claim).status == "supported"
    assert wired(claim, size=0.6).status not in ("supported", "rejected")


@pytest.mark.parametrize(
    ("control", "analysis", "message"),
    [
        ("shuffled_nodes", NETWORK, "how they are wired, and this one does not"),
        ("shuffled_labels", Coupling("heads"), "Claims of wiring are held against 'shuffled_nodes"),
        ("shuffled_nodes", Coupling("heads"), "^$"),
        ("shuffled_labels", NETWORK, "tell labels apart, and this one does not.*'rotated_units'"),
        ("surface_only", NETWORK, "tell labels apart, and this one does not"),
        ("control_task", NETWORK, "tell labels apart, and this one does not"),
        ("control_task", Probe("resid_post"), "^$"),
        ("random_target", NETWORK, "act on the subject, and this one does not"),
        ("rotated_units", PUSH, "changes what is read, and here something was done"),
        (
            "rotated_units",
            Probe("resid_post"),
            "units of a model go together, and this one does not",
        ),
        (
            "planted_modules",
            Probe("resid_post"),
            "units of a model go together, and this one does not",
        ),
        ("random_target", Probe("resid_post"), "act on the subject, and this one does not"),
        ("untrained_twin", NETWORK, "^$"),
        ("rotated_units", NETWORK, "^$"),
        ("rotated_units", replace(NETWORK, site="attn_out"), "^$"),
        ("rotated_units", replace(NETWORK, site="mlp_act"), "'mlp_act' is computed in a basis of"),
        ("rotated_units", replace(NETWORK, site="z"), "'z' is computed in a basis of its own"),
        ("rotated_units", replace(NETWORK, site="dictionary"), "only the stream and what is added"),
    ],
)
def test_a_control_says_why_it_does_not_fit_an_analysis(control, analysis, message) -> None:
    assert re.search(message, CONTROLS[control].misfit(analysis))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("control_task", {"tasks": 0}, "tasks must be at least 1"),
        ("rotated_units", {"rotations": 0}, "rotations must be at least 1"),
        ("planted_modules", {"modules": 1}, "modules must be at least 2"),
        ("planted_modules", {"strength": 1.0}, "strength between 0 and 1"),
        ("planted_wiring", {"strength": 1.0}, "strength must lie between 0 and 1"),
    ],
)
def test_settings_that_plant_or_turn_nothing_are_refused(name, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        CONTROLS[name](margin=0.1, **settings)


# --- of two models

PAIR = Universality("resid_post")
OF_PAIRS = {
    "untrained_twin": {"margin": 0.1},
    "shuffled_items": {"permutations": 99},
    "beyond_surface": {"margin": 0.1},
    "split_half": {"margin": 0.1, "splits": 5},
}


def likeness(code: Code, *, made: dict | None = None, **claimed) -> Verdict:
    subject = world(
        np.random.default_rng(0), code=code, size=2, layers=1, beside=True, **(made or {})
    )
    settings = {"controls": OF_PAIRS, "measure": "pair.cka", "smallest_effect": 0.2, **claimed}
    return verdict(subject, PAIR, **settings)


def test_likeness_passes_all_that_is_asked_of_two_models() -> None:
    found = likeness("shared")
    assert found.status == "supported"
    assert set(passed(found)) == set(OF_PAIRS)


def test_likeness_of_spelling_is_stopped_by_taking_out_the_surface_alone() -> None:
    found = likeness("token", made={"confound": "token"})
    assert found.status == "rejected"
    assert [check.control for check in found.checks if not check.passed] == ["beyond_surface"]


def test_likeness_that_untrained_twins_have_as_well_is_stopped_by_them_alone() -> None:
    found = likeness("shared", made={"twin_code": "shared"})
    assert found.status == "rejected"
    assert [check.control for check in found.checks if not check.passed] == ["untrained_twin"]
    (twins,) = (check for check in found.checks if check.control == "untrained_twin")
    assert "pairs with an untrained twin" in twins.reason
    for which in ("own", "other", "both"):
        assert f"{which} " in twins.reason


def test_an_absence_of_likeness_is_believed_where_planted_likeness_was_seen() -> None:
    controls = {"planted_likeness": {"margin": 0.1}, "split_half": {"margin": 0.0, "splits": 5}}
    claim = {"controls": controls, "expect": "less", "than": 0.3, "smallest_effect": 0.05}
    assert likeness("none", **claim).status == "supported"
    assert likeness("shared", **claim).status not in ("supported", "rejected")


def test_a_claim_about_two_models_is_no_claim_about_one() -> None:
    for control in ("rotated_units", "shuffled_labels", "surface_only", "random_target"):
        assert "'shuffled_items' and 'beyond_surface'" in CONTROLS[control].misfit(PAIR)
    for control in ("shuffled_items", "beyond_surface", "planted_likeness"):
        assert "read how alike two models are, and this one does not" in CONTROLS[control].misfit(
            NETWORK
        )


def test_the_surface_is_taken_out_of_both_and_nothing_else_is() -> None:
    subject = world(
        np.random.default_rng(0), code="length", confound="length", size=2, layers=1, beside=True
    )
    measure = Measure(claim(measure="pair.cka"), PAIR, 0, seed=0)
    left = residual(subject.without_twins(), measure)
    for before, after in zip(subject.together, left.together, strict=True):
        old, new = (
            one.volume["resid_post"].isel(layer=0).groupby("item").mean().transpose("item", "unit")
            for one in (before, after)
        )
        length = before.volume["n_chars"].groupby("item").mean().to_numpy()
        old, new = old.to_numpy(), new.to_numpy()
        predicted = [abs(np.corrcoef(length, unit)[0, 1]) for unit in new.T]
        assert np.mean(predicted) < 0.2
        assert np.mean([abs(np.corrcoef(length, unit)[0, 1]) for unit in old.T]) > 0.5
    blank = world(np.random.default_rng(1), layers=1, beside=True).without_twins()
    left = residual(blank, measure)
    ratio = left.volume["resid_post"].var() / blank.volume["resid_post"].var()
    assert float(ratio) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_all_plants_nothing(share: float) -> None:
    with pytest.raises(ValueError, match="share must be between 0 and 1"):
        CONTROLS["planted_likeness"](margin=0.1, share=share)
