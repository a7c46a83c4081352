"""What every analysis must keep, checked over the registry: a new file is checked for free."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses import REGISTRY, Analysis, AnalysisError
from analyses.acting import Acting, alone
from analyses.base import DIMENSIONS, label_of
from analyses.choices import Choices
from analyses.splits import item_groups
from protocols.report.described import Found, panels
from scanner import Subject
from verification.effect_worlds import effect_world
from verification.worlds import world

SETTINGS = {
    "probe": {"item_folds": 3},
    "selectivity": {"splits": 5},
    "contrast": {"contrast": "category0 - rest", "permutations": 39},
    "localiser": {"contrast": "category0 - rest", "splits": 5},
    "mlp_probe": {"item_folds": 3},
    "span": {"permutations": 19},
    "time_course": {"before": 1, "after": 1, "item_folds": 3},
    "views": {"layers": 1, "seeds": 2, "neighbours": 5},
    "collapse": {"splits": 4},
    "number_line": {"label": "zipf"},
    "circularity": {"label": "zipf"},
    "rsa_models": {"draws": 20, "models": ("category", "zipf")},
    "rank": {"limit": 3, "shuffles": 4},
    "dimensionality": {"splits": 5},
    "participation": {"splits": 5},
    "ablation": {"layers": (0, 1), "later": (1, 2)},
    "steering": {"layers": (0, 1)},
    "bus": {"layers": (0, 1)},
    "scaling": {"layers": (0, 1)},
    "saliency": {"category": "category0"},
    "features": {"layers": (0, 1)},
    "stitching": {"layers": (0, 1), "donor": "another"},
    "lesion": {"category": "category0"},
    "knowledge_map": {"rest": "category0", "dealings": 19, "permutations": 19},
    "groupings": {"rival": "group"},
    "discontinuity": {"of": "category0", "at": 9},
    "tuning": {"category": "category0", "layers": (0, 1)},
    "weights": {"base": "one", "other": "another"},
    "tuning_vector": {
        "of": "base",
        "vector": "tuned",
        "category": "category0",
        "label": "category",
    },
    "gates": {"donor": "another"},
    "circuits": {"donor": "another"},
    "domain_neurons": {"domain": "category0"},
}
# Analyses that act and have measures.
ACTING = (
    "ablation", "bus", "choices", "circuits", "domain_neurons", "gates", "knowledge_map", "lesion",
    "neurons", "patching", "paths", "replies", "saliency", "scaling", "steering", "stitching",
    "tuning", "tuning_vector", "weight_modules", "weights",
)  # fmt: skip
# Of these, what knows labels when it acts, and not when it averages.
ALONG = (
    "bus", "knowledge_map", "lesion", "neurons", "saliency", "scaling", "steering", "stitching",
)  # fmt: skip
# What is told in relation to all layers.
ACROSS = {
    "saliency": ("weights", "twin_weights"),
    "connectome": ("matrix", "node", "other_node", "module"),
    "universality": ("path",),
    "knowledge_map": (
        "lens_contrast", "lens_profile", "lens_profile_low", "lens_profile_high", "chosen_null",
        "chosen_paper", "agreed_null",
        "agreed_paper", "lens_agreement", "lens_agreement_p", "lens_concordance", "lens_overlap",
        "lens_apart", "part_contrast", "chosen_part", "centre", "centre_low", "centre_high",
    ),
}  # fmt: skip
# Analyses that read other sites than the residual stream.
SITES = {"topography": "z", "localisation": "told", "coupling": "told", "standings": "told"}


# Analyses that read numbers, which stand in each sentence.
FRAMES = {"discontinuity": 24}
# Analyses that compare two subjects.
PAIRS = ("universality", "transfer", "matching")


def made(name: str) -> Analysis:
    fields = [field.name for field in dataclasses.fields(REGISTRY[name])]
    site = {"site": SITES.get(name, "resid_post")} if "site" in fields else {}
    return REGISTRY[name](**site, **SETTINGS.get(name, {}))


def reads_site(name: str) -> bool:
    """And not before it acts: then it is given what came of that."""
    if issubclass(REGISTRY[name], Acting):
        return False
    return "site" in (field.name for field in dataclasses.fields(REGISTRY[name]))


def subject_of(name: str, **settings: Any) -> Subject:
    """A world with the site that an analysis reads, in heads or in tokens where it has some."""
    if name in ACTING:
        layers = settings.get("layers", 2)
        return effect_world(np.random.default_rng(0), made(name), size=0.5, layers=layers)
    subject = world(
        np.random.default_rng(0), beside=name in PAIRS, frames=FRAMES.get(name, 4), **settings
    )
    if name == "time_course":
        return in_tokens(subject)
    if name == "standings":
        settings.pop("code", None)
        asked = effect_world(np.random.default_rng(0), Choices(), size=0.5, **settings)
        return asked.replace_volume(asked.volume.rename(choices="told")[["told"]])
    if name in ("features", "localisation"):
        return in_features(subject)
    if name == "parcels":
        return in_parcels(subject)
    if name == "coupling":
        return in_parcels(subject.at(0))
    if name not in SITES:
        return subject
    x = subject.volume["resid_post"]
    heads = x.to_numpy().reshape(*x.shape[:2], 6, -1)
    volume = subject.volume.drop_dims("unit").assign(
        {SITES[name]: (("stimulus", "layer", "head", "head_unit"), heads)}
    )
    return subject.replace_volume(volume)


def in_features(subject: Subject) -> Subject:
    """The same told by twice as many directions, of which those are active that are above 0."""
    x = subject.volume["resid_post"].transpose("stimulus", "layer", "unit")
    directions = np.random.default_rng(1).normal(size=(x.sizes["unit"], 2 * x.sizes["unit"]))
    directions /= np.linalg.norm(directions, axis=0)
    told = np.maximum(x.to_numpy() @ directions, 0)
    tried = np.random.default_rng(2).uniform(1, 3, size=(3, x.sizes["layer"], 5)).cumsum(0)
    names = ("surprisal", "surprisal_rebuilt", "surprisal_without")
    return subject.replace_volume(
        subject.volume.drop_vars("resid_post")
        .assign(
            told=(("stimulus", "layer", "feature"), told),
            units=x,
            rebuilt=(x.dims, 0.5 * told @ directions.T),
        )
        .assign_coords({
            "tokens_read": ("layer", np.full(x.sizes["layer"], 1000)),
            **{name: (("layer", "tried"), one) for name, one in zip(names, tried, strict=True)},
        })
    )  # fmt: skip


def in_parcels(subject: Subject) -> Subject:
    """The same told by the means of six times as few units."""
    x = subject.volume["resid_post"].transpose("stimulus", "layer", "unit")
    told = x.to_numpy().reshape(*x.shape[:2], -1, 6).mean(-1)
    shares = np.random.default_rng(1).uniform(size=told.shape[1:])
    return subject.replace_volume(
        subject.volume.drop_vars("resid_post")
        .assign(told=(("stimulus", "layer", "parcel"), told))
        .assign_coords(
            parcel_explained=(("layer", "parcel"), shares),
            parcel_units=(("layer", "parcel"), np.full(shares.shape, 6)),
            parcel_layer=("parcel", np.arange(told.shape[2]) // 2),
            wired=(
                ("parcel", "other_parcel"),
                np.random.default_rng(2).uniform(size=(told.shape[2],) * 2),
            ),
        )
    )


def in_tokens(subject: Subject) -> Subject:
    """The same with three tokens a stimulus: noise, then twice what was recorded of the target."""
    x = subject.volume["resid_post"]
    noise = np.random.default_rng(1).normal(size=x.shape)
    rows = np.stack([noise, x.to_numpy(), x.to_numpy()], axis=1).reshape(-1, *x.shape[1:])
    at = subject.volume["target_position"].to_numpy()
    return subject.replace_volume(
        subject.volume.drop_vars("resid_post")
        .assign(resid_post=(("token", *x.dims[1:]), rows))
        .assign_coords(
            token_stimulus=("token", np.repeat(np.arange(len(x)), 3)),
            token_position=("token", (at[:, None] + [-1, 0, 1]).ravel()),
        )
    )


# Analyses that read a site.
every_site = pytest.mark.parametrize("name", sorted(name for name in REGISTRY if reads_site(name)))
every = pytest.mark.parametrize("name", sorted(REGISTRY))
every_reader = pytest.mark.parametrize(
    "name", sorted(n for n in REGISTRY if hasattr(made(n), "label") and n not in ALONG)
)


def test_the_files_of_analyses_are_found() -> None:
    known = {
        "probe",
        "selectivity",
        "contrast",
        "localiser",
        "topography",
        "rsa",
        "geometry",
        "cka",
        "time_course",
        "views",
        "collapse",
        "control_task",
        "span",
        "retention",
        "number_line",
        "circularity",
        "similarity",
        "rsa_models",
        "mlp_probe",
        "rank",
        "dimensionality",
        "participation",
        "lesion",
        "ablation",
        "patching",
        "steering",
        "bus",
        "scaling",
        "saliency",
    }
    assert known <= set(REGISTRY)


@every
def test_settings_cannot_be_changed_after_construction(name: str) -> None:
    field = dataclasses.fields(made(name))[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made(name), field, "other")


@every
def test_same_generator_same_answer_and_the_recording_is_left_alone(name: str) -> None:
    subject = subject_of(name, code="direction")
    before = subject.volume.copy(deep=True)
    first, second = (made(name)(*subject.together, rng=np.random.default_rng(3)) for _ in range(2))
    xr.testing.assert_identical(first, second)
    xr.testing.assert_identical(before, subject.volume)


@every
def test_dimensions_are_in_the_vocabulary_and_measures_tell_their_chance(name: str) -> None:
    result = made(name)(*subject_of(name).together, rng=np.random.default_rng(0))
    assert set(map(str, result.dims)) <= set(DIMENSIONS)
    for measure, quantity in made(name).measures.items():
        assert result[measure].dims == ("layer",)
        assert quantity.least <= result[measure].attrs["chance"] < quantity.greatest


@pytest.mark.parametrize("name", sorted(n for n in REGISTRY if REGISTRY[n].measures))
def test_layers_are_independent_as_the_gate_relies_on(name: str) -> None:
    subject = subject_of(name, code="direction", layers=3)
    whole = made(name)(*subject.together, rng=np.random.default_rng(3))
    last = int(subject.volume["layer"][-1])  # layer 0 of what is of all layers
    alone = made(name)(*subject.at(last).together, rng=np.random.default_rng(3))
    left, right = (one.drop_vars(ACROSS.get(name, ())) for one in (whole.sel(layer=[last]), alone))
    xr.testing.assert_allclose(left, right)


@pytest.mark.parametrize("name", sorted(n for n in REGISTRY if REGISTRY[n].measures))
def test_what_the_gate_is_given_of_parts_is_what_the_analysis_finds_in_each(name: str) -> None:
    subject, analysis = subject_of(name, code="direction"), made(name)
    half = item_groups(
        *(subject.volume[one].to_numpy().astype(str) for one in ("item", "category")),
        groups=2,
        rng=np.random.default_rng(1),
    )
    parts = [np.flatnonzero(half == side) for side in (0, 1)]
    worlds = [subject.take(rows).together for rows in parts]
    found = [analysis(*group, rng=np.random.default_rng(3)) for group in worlds]
    for variable in analysis.measures:
        rng = np.random.default_rng(3)
        asked = {"variable": variable, "rng": rng}
        given = analysis.measured_in(*subject.together, parts=parts, **asked)
        for one, whole in zip(given, found, strict=True):
            np.testing.assert_allclose(one, whole[variable], rtol=1e-12, atol=1e-12)
            assert one.dims == ("layer",)
            assert one.attrs["chance"] == pytest.approx(whole[variable].attrs["chance"], abs=1e-12)


@every
def test_the_order_of_stimuli_changes_nothing(name: str) -> None:
    subject = subject_of(name, code="direction")
    order = np.random.default_rng(1).permutation(subject.volume.sizes["stimulus"])
    mixed = subject.take(order)
    found, again = (
        made(name)(*one.together, rng=np.random.default_rng(3)) for one in (subject, mixed)
    )
    xr.testing.assert_allclose(found, again, rtol=1e-9, atol=1e-9)


@every
def test_a_report_draws_what_it_gives(name: str) -> None:
    subject, analysis = subject_of(name, code="direction"), made(name)
    found = analysis(*subject.together, rng=np.random.default_rng(3))
    twin = analysis(*alone(subject).together, rng=np.random.default_rng(4))
    drawn = panels(Found(found, [twin], ["one"], next(iter(analysis.measures), None)), analysis)
    assert len({panel.name for panel in drawn}) == len(drawn)
    for panel in drawn:
        assert panel.rows if panel.figure is None else panel.figure.to_plotly_json()["data"]
        assert not set("{}") & set(panel.reading)


@every_site
def test_an_unknown_site_is_named(name: str) -> None:
    subject, other = subject_of(name), "q" if name in SITES else "mlp_act"
    known = SITES.get(name, "resid_post")
    with pytest.raises(AnalysisError, match=f"no site '{other}'.*recorded are {known}"):
        dataclasses.replace(made(name), site=other)(*subject.together, rng=np.random.default_rng(0))


@every_reader
def test_an_unknown_label_is_named(name: str) -> None:
    subject = subject_of(name)
    rng = np.random.default_rng(0)
    with pytest.raises(AnalysisError, match="no label 'valence'; they have text, item"):
        dataclasses.replace(made(name), label="valence")(*subject.together, rng=rng)
    if name in ("lesion", "steering"):
        return  # which describe one category as well as two
    label = label_of(made(name))
    one = subject.volume[label].to_numpy()[0]
    same = subject.relabel(label, np.full(subject.volume.sizes["stimulus"], one))
    with pytest.raises(AnalysisError, match=f"'{label}' has one value"):
        made(name)(*same.together, rng=rng)
