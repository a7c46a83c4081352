"""Four lenses, against what is known: of nothing our map is empty, and the published one is not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import friedmanchisquare, spearmanr, ttest_ind
from sklearn.metrics import silhouette_samples
from torch.utils.flop_counter import FlopCounterMode

from analyses import AnalysisError
from analyses.base import labels
from analyses.knowledge_map import (
    LAID,
    LENSES,
    KnowledgeMap,
    apart,
    centre,
    effect_size,
    student_t,
)
from analyses.layer_choice import (
    agreement,
    beyond_chance,
    largest_rise,
    overlap,
    shifted,
    upper_quarter,
)
from analyses.patching import Patching
from analyses.silhouettes import silhouette, silhouettes
from scanner import Live, Recording, Subject, lesioned, open_volume, record
from scanner.gradients import weight_slopes
from scanner.sizes import size_of
from stimuli import load
from tests.conftest import sentences_of
from verification.worlds import world

LAYERS = 12
# How strong what is planted is in each lens, in spreads over items.
STRONG = 4.0


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Noise that is alike in neighbouring layers, as that of a network is, along the last."""
    walk = rng.normal(size=(*shape[:-1], shape[-1] + 2))
    return (walk[..., :-2] + walk[..., 1:-1] + walk[..., 2:]) / np.sqrt(3)


def seen(
    rng: np.random.Generator,
    planted: dict[str, np.ndarray],
    *,
    analysis: KnowledgeMap,
    categories: int = 3,
    items: int = 12,
) -> Subject:
    """Effects of `categories` domains, the first of which is the rest, the second has a place.

    `planted` (layer) is by lens; beside it there is noise by item, alike in neighbouring layers.
    """
    bare = world(rng, categories=categories, items=items, frames=2, layers=LAYERS, units=1, twins=0)
    told_of = bare.volume.drop_vars(["resid_post", "unit"])
    domain = labels(bare, "category")
    _, which = np.unique(labels(bare, "item"), return_inverse=True)
    there = (domain == "category1").astype(float)[:, None]

    def told(lens: str) -> np.ndarray:
        noise = smooth(rng, which.max() + 1, LAYERS)[which]
        return noise + STRONG * there * planted.get(lens, np.zeros(LAYERS))

    count = len(domain)
    dealt = smooth(rng, which.max() + 1, analysis.dealings, LAYERS).swapaxes(1, 2)[which]
    dims = ("stimulus", "layer")
    volume = told_of.assign({
        "separation": (dims, told("separation")),
        "dealt": ((*dims, "draw"), dealt),
        "inside": (("stimulus", "target"), (domain != analysis.rest)[:, None]),
        "slopes": ((*dims, "part"), np.exp(np.stack([told("saliency"), told("mlp")], axis=2))),
        "lost": (dims, np.exp(told("lesion"))),
        "moved": (dims, 3.0 * told("patching")),
        "whole": ("stimulus", np.full(count, 3.0)),
        "loss": ("stimulus", np.exp(rng.normal(size=count))),
    }).assign_coords(
        draw=np.arange(analysis.dealings), target_kind=("target", ["own"]),
        earliness=("layer", np.linspace(1, -1, LAYERS)),
        predicted=("stimulus", np.ones(count, dtype=int)),
    )  # fmt: skip
    return Subject("made", volume, {})


def mapped(subject: Subject, analysis: KnowledgeMap, seed: int = 0) -> xr.Dataset:
    return analysis(subject, rng=generator(seed))


MAP = KnowledgeMap("resid_post", "category0", dealings=99, permutations=199)


# --- which layers stand out


def test_the_published_rule_takes_the_upper_quarter_in_runs_and_the_steepest_rise() -> None:
    step = np.r_[np.zeros(10), np.linspace(0, 5, 4), np.full(10, 5.0)]
    assert set(np.flatnonzero(largest_rise(step))) <= set(range(9, 15))
    assert largest_rise(step).sum() == 3
    hills = np.zeros(40)
    for at, height in ((5, 3.0), (15, 2.0), (25, 4.0), (35, 1.0)):
        hills[at - 1 : at + 2] = height
    taken = upper_quarter(hills)
    assert {5, 15, 25} <= set(np.flatnonzero(taken)) and not taken[32:].any()
    assert upper_quarter(np.arange(8.0)).tolist() == [False] * 6 + [True] * 2


def test_layers_beyond_chance_are_found_where_they_are_and_in_nothing_as_rarely_as_asked() -> None:
    rng, found = generator(), []
    for _ in range(400):
        profiles = smooth(rng, 100, LAYERS)
        found.append(beyond_chance(profiles[0], profiles[1:], alpha=0.05).any())
    assert 0.02 <= np.mean(found) <= 0.085
    profile = smooth(rng, LAYERS)
    profile[4] += 9
    taken = beyond_chance(profile, smooth(rng, 99, LAYERS), alpha=0.05)
    assert np.flatnonzero(taken).tolist() == [4]


def test_agreement_is_the_mean_correlation_of_ranks_and_kendalls_w_in_another_scale() -> None:
    profiles = generator().normal(size=(4, 30))
    pairs = [spearmanr(profiles[i], profiles[j])[0] for i in range(4) for j in range(i)]
    assert float(agreement(profiles)) == pytest.approx(np.mean(pairs), abs=1e-12)
    w = friedmanchisquare(*profiles.T).statistic / (4 * 29)
    assert (1 + 3 * float(agreement(profiles))) / 4 == pytest.approx(w, abs=1e-12)
    assert np.isnan(agreement(np.stack([np.ones(5), np.arange(5.0)])))


def test_turned_profiles_judge_smooth_noise_fairly_where_dealt_layers_do_not() -> None:
    rng, turned, dealt = generator(), [], []
    for _ in range(200):
        walks = rng.normal(size=(3, 40)).cumsum(1)
        walks -= np.linspace(0, 1, 40) * (walks[:, -1:] - walks[:, :1])  # closed, as what is turned
        found = agreement(walks)
        turned.append((agreement(shifted(walks, draws=99, rng=rng)) >= found).mean() <= 0.05)
        orders = rng.permuted(np.broadcast_to(walks, (99, *walks.shape)), axis=-1)
        dealt.append((agreement(orders) >= found).mean() <= 0.05)
    assert np.mean(turned) <= 0.1
    assert np.mean(dealt) >= 0.12


def test_overlap_is_intersection_over_union() -> None:
    chosen = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
    assert overlap(chosen) == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert np.isnan(overlap(np.zeros((2, 3), dtype=bool)))


# --- kernels


def test_silhouettes_are_those_of_scikit_learn() -> None:
    rng = generator()
    points = rng.normal(size=(20, 5))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    codes = np.array([rng.permutation(np.arange(20) % 4) for _ in range(3)])
    found = silhouette(distances, codes)
    for row, code in zip(found, codes, strict=True):
        np.testing.assert_allclose(row, silhouette_samples(distances, code, metric="precomputed"))
    alone = silhouette(distances, np.array([[0, *[1] * 10, *[2] * 9]]))
    assert alone[0, 0] == 0


def test_groups_of_a_domain_are_told_apart_within_it_whatever_lies_between_domains() -> None:
    rng = generator()
    subject = world(rng, code="direction", size=8.0, categories=2, items=12, frames=2, units=30)
    x = subject.volume["resid_post"].transpose("layer", "stimulus", "unit").to_numpy().astype(float)
    found = silhouettes(x, subject, "category", "group", 99, rng=rng)
    of_chance = found[..., 1:].mean(0)
    assert np.all(np.abs(found[..., 0].mean(0) - of_chance.mean(1)) < 3.5 * of_chance.std(1))
    group = labels(subject, "group")
    moved = x + 3 * (group == "group1")[:, None] * np.sign(rng.normal(size=x.shape[2]))
    planted = silhouettes(moved, subject, "category", "group", 99, rng=rng)
    assert np.all(planted[..., 0].mean(0) > planted[..., 1:].mean(0).max(1))
    one = subject.relabel("group", np.full(len(group), "alone"))
    with pytest.raises(AnalysisError, match="'category0' of 'category' has one value of 'group'"):
        silhouettes(x, one, "category", "group", 9, rng=rng)


def test_t_and_effect_size_are_those_of_scipy() -> None:
    rng = generator()
    values, inside = rng.normal(size=(6, 25)), np.arange(25) < 10
    known = ttest_ind(values[:, inside], values[:, ~inside], axis=1).statistic
    np.testing.assert_allclose(student_t(values, inside[None])[0], known)
    pooled = np.sqrt((9 * values[:, :10].var(1, ddof=1) + 14 * values[:, 10:].var(1, ddof=1)) / 23)
    d = (values[:, :10].mean(1) - values[:, 10:].mean(1)) / pooled
    np.testing.assert_allclose(effect_size(values, inside), d)
    assert not effect_size(values, np.ones(25, dtype=bool)).any()


def test_the_centre_of_a_profile_is_its_centre_of_mass_above_nothing() -> None:
    assert centre(np.array([0, 0, 1.0, 0, 0])) == 0.5
    assert centre(np.array([3.0, -9.0, 1.0])) == 0.25
    assert np.isnan(centre(-np.ones(4)))


def test_lenses_are_apart_by_their_ranks_and_by_six_tenths_where_there_is_nothing_in_common() -> (
    None
):
    line = np.arange(5.0)
    assert not apart(np.stack([line, np.exp(line), 3 * line])).any()
    np.testing.assert_allclose(apart(np.stack([line, -line])), [1, 0.5, 0, 0.5, 1])
    unseen = np.stack([line, -line, np.full(5, np.nan)])
    np.testing.assert_allclose(apart(unseen), [1, 0.5, 0, 0.5, 1])
    assert np.isnan(apart(unseen[1:])).all()
    noise = [apart(one) for one in generator().normal(size=(400, 4, 40))]
    assert np.mean(noise) == pytest.approx(0.6, abs=0.02)


# --- the map


def test_what_is_planted_in_one_layer_is_mapped_there_in_all_lenses_and_in_no_other_domain() -> (
    None
):
    at = np.zeros(LAYERS)
    at[4] = 1.0
    behind = (np.arange(LAYERS) >= 4).astype(float)  # what is told apart stays told apart
    planted = {"separation": behind, "saliency": at, "lesion": at, "patching": at}
    found = mapped(seen(generator(1), planted, analysis=MAP), MAP)
    chosen = found["chosen_null"]
    for lens in LAID:
        taken = chosen.sel(lens=lens, category="category1")
        assert np.flatnonzero(taken).tolist() == [4], lens
    assert np.flatnonzero(chosen.sel(lens="separation", category="category1")).tolist() == [
        *range(4, LAYERS)
    ]
    assert int(found["agreed_null"].sel(layer=4, category="category1")) == 4
    assert float(found["agreed_null"].sel(category="category2").max()) <= 1
    assert np.isnan(found["agreed_null"].sel(category="category0")).all()
    assert float(found["lens_overlap"].sel(category="category1")) == 1
    agree = found["lens_concordance"].sel(category="category1")
    assert float(agree) == pytest.approx((1 + 3 * found["lens_agreement"][0]) / 4)


@pytest.mark.parametrize(
    "layers, each, two, three", [(28, 0.22, 0.95, 0.20), (80, 0.14, 0.93, 0.13)]
)
def test_of_noise_the_published_rule_makes_lenses_agree_in_nearly_every_map(
    layers: int, each: float, two: float, three: float
) -> None:
    rng, share, agreed = generator(), [], []
    for _ in range(400):
        taken = np.array([upper_quarter(one) for one in rng.normal(size=(3, layers))])
        share.append(taken.mean())
        agreed.append(taken.sum(0).max())
    assert np.mean(share) == pytest.approx(each, abs=0.02)
    assert np.mean(np.array(agreed) >= 2) == pytest.approx(two, abs=0.04)
    assert np.mean(np.array(agreed) >= 3) == pytest.approx(three, abs=0.06)


def test_of_noise_our_map_is_empty() -> None:
    analysis = KnowledgeMap("resid_post", "category0", dealings=39, permutations=39)
    agreed, taken = [], []
    for seed in range(60):
        subject = seen(generator(seed), {}, analysis=analysis, items=8)
        found = mapped(subject, analysis, seed).sel(category=["category1", "category2"])
        agreed += [*(found["agreed_null"].max("layer") >= 2).values]
        taken += [*(found["chosen_null"].sel(lens=list(LAID)).max("layer") > 0).values.ravel()]
        assert (found["agreed_paper"].max("layer") > 0).all()
    assert np.mean(agreed) <= 0.05
    assert 0.01 <= np.mean(taken) <= 0.09  # of 480 lenses, at an alpha of 0.05


def test_lenses_that_see_the_same_hill_agree_more_than_when_turned_round() -> None:
    hill = np.exp(-((np.arange(LAYERS) - 7.0) ** 2) / 6)
    planted = {lens: hill for lens in ("saliency", "lesion", "patching")}
    planted["separation"] = hill.cumsum() / 2
    found = mapped(seen(generator(5), planted, analysis=MAP), MAP)
    assert float(found["lens_agreement"].sel(category="category1")) > 0.3
    assert float(found["lens_agreement_p"].sel(category="category1")) < 0.05
    assert float(found["lens_agreement_p"].sel(category="category2")) > 0.05


def test_centres_of_what_is_early_and_late_lie_there_with_intervals() -> None:
    early = np.where(np.arange(LAYERS) < 3, 1.0, 0.0)
    subject = seen(generator(2), {"patching": early, "separation": early}, analysis=MAP)
    found = mapped(subject, MAP)
    for lens in ("patching", "separation"):
        at = {"lens": lens, "category": "category1"}
        assert float(found["centre_high"].sel(at)) < 0.45
        low, middle, high = (float(found[name].sel(at))
                             for name in ("centre_low", "centre", "centre_high"))  # fmt: skip
        assert low <= middle <= high
    # Of logarithms what is far above all others is what weighs.
    late = seen(generator(2), {"lesion": early[::-1]}, analysis=MAP)
    assert float(mapped(late, MAP)["centre"].sel(lens="lesion", category="category1")) > 0.7


def test_what_is_early_is_positive_and_what_is_late_negative() -> None:
    early = np.linspace(1, -1, LAYERS)
    for lens in ("separation", "saliency", "lesion"):
        for sign in (1, -1):
            subject = seen(generator(3), {lens: sign * early}, analysis=MAP)
            told = MAP.measured(subject, variable=f"{lens}_early", rng=generator())
            assert sign * float(told.mean()) > 0.3
            other = next(one for one in ("saliency", "lesion") if one != lens)
            other = MAP.measured(subject, variable=f"{other}_early", rng=generator())
            assert abs(float(other.mean())) < 0.15


def test_what_is_planted_in_mlps_is_found_in_mlps_alone() -> None:
    at = np.zeros(LAYERS)
    at[4] = 1.0
    subject = seen(generator(6), {"mlp": at}, analysis=MAP)
    chosen = mapped(subject, MAP)["chosen_part"].sel(category="category1")
    assert np.flatnonzero(chosen.sel(part="mlp")).tolist() == [4]
    assert not chosen.sel(part="attention").any()


def test_intervals_of_profiles_are_about_them_and_narrower_of_more_items() -> None:
    width = []
    for items in (8, 32):
        found = mapped(seen(generator(7), {}, analysis=MAP, items=items), MAP)
        low, middle, high = (found[f"lens_profile{end}"] for end in ("_low", "", "_high"))
        assert (low <= middle).all() and (middle <= high).all()
        width.append(float((high - low).sel(lens="separation").mean()))
    assert width[1] < 0.7 * width[0]


def test_without_gradients_three_lenses_are_left_and_saliency_is_no_claim() -> None:
    at = np.zeros(LAYERS)
    at[4] = 1.0
    rounded = replace(MAP, gradients=False)
    assert MAP.moves_weights and not rounded.moves_weights
    assert MAP.passes(30) - rounded.passes(30) == 3
    subject = seen(generator(1), {"lesion": at, "patching": at}, analysis=MAP)
    bare = subject.replace_volume(subject.volume.drop_vars(["slopes", "loss"]))
    found = mapped(bare, rounded)
    assert np.isnan(found["lens_contrast"].sel(lens="saliency")).all()
    assert not found["chosen_null"].sel(lens="saliency").any()
    assert "part_contrast" not in found and "saliency_early" not in found
    assert int(found["agreed_null"].sel(layer=4, category="category1")) == 2
    assert np.isfinite(found["lens_agreement"].sel(category="category1"))
    with pytest.raises(AnalysisError, match="no saliency where `gradients` is false"):
        rounded.measured(bare, variable="saliency_early", rng=generator())


def test_undecided_pairs_are_left_out_and_said() -> None:
    at = np.ones(LAYERS)
    subject = seen(generator(4), {"patching": at}, analysis=MAP)
    volume, domain = subject.volume, labels(subject, "category")
    few = volume.assign(whole=("stimulus", np.where(domain == "category1", 0.2, 3.0)))
    found = mapped(subject.replace_volume(few), MAP)
    assert float(found["lens_decided"].sel(category="category1")) == 0
    assert np.isnan(found["lens_contrast"].sel(lens="patching", category="category1")).all()
    assert not found["chosen_null"].sel(lens="patching", category="category1").any()
    assert np.isfinite(found["lens_contrast"].sel(lens="patching", category="category2")).all()


def test_too_few_items_and_an_unknown_rest_are_named() -> None:
    subject = seen(generator(), {}, analysis=MAP, items=4)
    with pytest.raises(AnalysisError, match="'category0' of 'category' has 4 items; 5 are needed"):
        mapped(subject, MAP)
    wrong = KnowledgeMap("resid_post", "general", dealings=99, permutations=199)
    with pytest.raises(AnalysisError, match="'general' cannot be held against others"):
        mapped(seen(generator(), {}, analysis=MAP), wrong)
    assert "at: {layer: mean}" in MAP.identity_at("lesion_early", 3, 30)
    with pytest.raises(ValueError, match="dealings and permutations must be at least 19"):
        KnowledgeMap("resid_post", "general", dealings=3)


# --- acting


@pytest.fixture
def pairs(tiny_model, tmp_path) -> tuple[Live, Subject]:
    model = tiny_model("llama", seed=5)
    words = {"animals": ["dog", "pig", "elk"], "tools": ["fox", "ivy", "yak"]}
    live, _ = sentences_of(model, tmp_path / "words", words)
    table = live.recording.stimuli.table
    rows = [
        {**row, "group": f"group{number % 2}", "corrupt": "dog" if row["item"] != "dog" else "pig",
         "answer": "is", "foil": "a"}
        for number, row in enumerate(table.to_dict("records"))
    ]  # fmt: skip
    path = tmp_path / "pairs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    stimuli = load(str(path))
    recording = Recording(model.source, stimuli, ("resid_post",), "target", "float32")
    made = record(recording, tmp_path, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(made), {})


def effects(live: Live, subject: Subject, analysis: Any) -> xr.Dataset:
    parts = [analysis.act(live, subject, one, rng=generator())
             for one in analysis.runs(live, subject)]  # fmt: skip
    return xr.combine_by_coords(parts, combine_attrs="override", data_vars="minimal")


def test_the_passes_that_are_told_are_about_those_that_are_made(pairs) -> None:
    live, subject = pairs
    analysis = KnowledgeMap("resid_post", "tools", dealings=19, permutations=19, random=3)
    assert live.model.sharing(max(live.ids, key=len)) == ""  # tried before it is counted
    with FlopCounterMode(display=False) as counted:
        for run in analysis.runs(live, subject):
            analysis.act(live, subject, run, rng=generator())
    size = size_of(str(live.model.source.folder))
    passes = analysis.passes(live.model.layers)
    tokens, texts = sum(map(len, live.ids)), len(live.ids)
    told = passes * size.operations(tokens, predicted=texts)
    # The vocabulary is asked for after every trial, which is much of a model as small as this.
    assert 0.7 < told / counted.get_total_flops() <= 1


def test_what_is_done_is_what_single_analyses_do(pairs) -> None:
    live, subject = pairs
    analysis = KnowledgeMap("resid_post", "tools", dealings=19, permutations=19, random=3)
    found = effects(live, subject, analysis)
    assert found["target_kind"].values.astype(str).tolist() == ["own", *["shuffled"] * 3]
    tools = labels(subject, "category") == "tools"
    np.testing.assert_array_equal(found["inside"].isel(target=0), ~tools)

    patches = effects(live, subject, Patching(sites=("resid_post",), places=("target",), random=0))
    moved = patches["every"].isel(kind=0, place=0) - patches["base"]
    np.testing.assert_allclose(
        found["moved"], moved.transpose("stimulus", "layer"), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found["whole"], patches["donor"] - patches["base"], atol=1e-5)

    lost = lesioned(live.model, live.ids, ["block"])["divergence"][:, :, 0]
    np.testing.assert_allclose(found["lost"], lost, rtol=1e-4, atol=1e-7)

    tokenize: Any = live.model.tokenizer
    text = live.recording.stimuli.table["text"][3]
    whole = tokenize(f"{text} is")["input_ids"]
    answered = range(len(whole) - 1, len(whole))
    loss, slopes = weight_slopes(live.model, whole, answered, ("attention", "mlp"))
    np.testing.assert_allclose(found["loss"][3], loss, rtol=1e-5)
    np.testing.assert_allclose(found["slopes"][3], slopes["by_weight"], rtol=1e-4)

    depth = np.linspace(0, 1, live.model.layers)
    line = found["earliness"].values @ (2 - 3 * depth) / live.model.layers
    assert line == pytest.approx(3.0)  # what falls by 3 from the first layer to the last


def test_without_gradients_none_are_asked_for_and_all_else_is_done_alike(pairs) -> None:
    live, subject = pairs
    analysis = KnowledgeMap("resid_post", "tools", dealings=19, permutations=19, random=3)
    found = effects(live, subject, analysis)
    without = effects(live, subject, replace(analysis, gradients=False))
    assert set(found.data_vars) - set(without.data_vars) == {"slopes", "loss"}
    for name in without.data_vars:
        np.testing.assert_array_equal(without[name], found[name])


def test_a_rest_that_is_none_of_the_domains_is_named_before_anything_is_done(pairs) -> None:
    with pytest.raises(AnalysisError, match="knowledge_map: no 'general' among 'category'"):
        KnowledgeMap("resid_post", "general").runs(*pairs)
    assert len(LENSES) == 5
