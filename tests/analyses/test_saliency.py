"""Saliency finds what was planted, is that of the scanner, and is held against twins."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analyses import AnalysisError
from analyses.acting import aimed
from analyses.saliency import Saliency
from scanner import Live, Subject
from scanner.gradients import integrated_gradients, weight_slopes
from scanner.volume import DIMENSIONS, EFFECTS
from tests.conftest import sentences_of
from verification.effect_worlds import effect_world


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def effects(live: Live, subject: Subject, analysis: Saliency) -> xr.Dataset:
    parts = [
        analysis.act(live, subject, run, rng=generator()) for run in analysis.runs(live, subject)
    ]
    whole = xr.combine_by_coords(parts, combine_attrs="override", data_vars="minimal")
    labels = {name: ("stimulus", subject.volume[name].values) for name in ("item", "category")}
    return whole.drop_vars("stimulus").assign_coords(labels)


def test_what_is_kept_is_what_the_scanner_gives(tiny_model, tmp_path) -> None:
    analysis = Saliency("animals", before=4, steps=48, random=3)
    live, subject = sentences_of(tiny_model("llama", seed=5), tmp_path / "one")
    found = effects(live, subject, analysis)
    for row in (0, 7, 23):
        text, target = live.ids[row], live.targets[row]
        loss, slopes = weight_slopes(live.model, text, target, ("attention", "mlp"))
        assert float(found["loss"][row]) == pytest.approx(loss, rel=1e-5)
        for name, values in slopes.items():
            np.testing.assert_allclose(found[name][row], values, rtol=1e-4)
        tokens, _ = integrated_gradients(live.model, text, target, steps=48)
        told = found["inputs"][row, -min(4, target[0]) :]
        np.testing.assert_allclose(told, tokens[: target[0]][-4:], rtol=1e-3, atol=1e-6)
    # Items, not stimuli, change labels.
    for target in range(4):
        of_items = pd.Series(found["inside"][:, target]).groupby(subject.volume["item"].values)
        assert (of_items.nunique() == 1).all()
        assert found["inside"][:, target].sum() == found["inside"][:, 0].sum()
    np.testing.assert_array_equal(
        found["inside"][:, 0], subject.volume["category"].values.astype(object) == "animals"
    )

    other, again = sentences_of(tiny_model("llama", seed=6), tmp_path / "other")
    twin = effects(other, again, analysis)
    measured = analysis(Subject("toy", found, {0: twin}), rng=generator())
    itself = analysis(Subject("toy", found, {0: found}), rng=generator())
    assert float(itself["twin_weights"]) == float(itself["twin_tokens"]) == pytest.approx(1)
    assert float(measured["twin_tokens"]) < 0.8
    np.testing.assert_array_equal(found["first_fresh"], [0, 1, 2, 3])
    assert set(found.dims) <= {*DIMENSIONS, *EFFECTS}  # a volume of effects holds no others
    # With fresh weights in no block it is the model itself.
    tried = found["tried_stimulus"].values
    for name in ("magnitude", "by_weight", "fisher"):
        np.testing.assert_allclose(found[f"fresh_{name}"][-1], found[name][tried], rtol=1e-4)
    there = np.isfinite(found["fresh_inputs"][-1].values)
    np.testing.assert_array_equal(there.sum(1), np.minimum(found["reached"].values[tried], 4))
    np.testing.assert_allclose(
        found["fresh_inputs"][-1].values[there], found["inputs"].values[tried][there], rtol=1e-3
    )
    assert measured["fresh_tokens"].shape == measured["fresh_weights"].shape == (3,)
    assert float(measured["fresh_tokens"][0]) < 0.8
    # Judged on a part of the stimuli, the check is the same.
    part = Subject("toy", found, {0: twin}).take(np.arange(12))
    again = analysis(part, rng=generator())
    np.testing.assert_array_equal(again["fresh_weights"], measured["fresh_weights"])
    assert float(measured["missed_share"]) < 0.1


def test_a_larger_slope_is_found_for_its_category_and_its_layer() -> None:
    analysis = Saliency("category0", random=3)
    found, noise = (
        analysis(effect_world(generator(), analysis, size=size, spread=0.05), rng=generator())
        for size in (0.5, 0.0)
    )
    np.testing.assert_allclose(found["contrast"], 0.5, atol=0.1)
    np.testing.assert_allclose(found["contrast_of"].sel(arm="dealings of labels"), 0, atol=0.15)
    np.testing.assert_allclose(noise["contrast"], 0, atol=0.1)


def test_what_the_surprisal_explains_is_no_contrast() -> None:
    """Words that are harder to predict have larger slopes, whatever they are."""
    analysis = Saliency("category0", random=3)
    subject = effect_world(generator(), analysis, size=0.0)
    volume = subject.volume
    harder = np.exp(generator().normal(size=volume.sizes["stimulus"]))
    inside = volume["inside"].values[:, 0]
    harder[inside] *= 3
    moved = {
        name: volume[name] * xr.DataArray(harder**0.7, dims="stimulus")
        for name in ("magnitude", "by_weight", "fisher")
    }
    assert np.log(harder[inside]).mean() > np.log(harder[~inside]).mean() + 0.5
    found = analysis(
        subject.replace_volume(volume.assign(loss=("stimulus", harder), **moved)), rng=generator()
    )
    np.testing.assert_allclose(found["contrast"], 0, atol=0.1)


def test_what_cannot_be_asked_is_said(tiny_model, tmp_path, toy_stimuli) -> None:
    live, subject = sentences_of(tiny_model("llama", seed=5), tmp_path / "one")
    with pytest.raises(AnalysisError, match="no 'stars' among 'category'"):
        Saliency("stars").runs(live, subject)
    with pytest.raises(ValueError, match="summary: no 'size'; there is magnitude"):
        Saliency(**{"category": "animals", "summary": "size"})
    with pytest.raises(ValueError, match="before must be at least 1"):
        Saliency("animals", before=0)
    every = effect_world(generator(), Saliency("category0"))
    one = every.relabel("category", np.full(every.volume.sizes["stimulus"], "category0"))
    with pytest.raises(AnalysisError, match="cannot be held against others"):
        Saliency("category0")(one, rng=generator())


def test_a_dealing_that_leaves_nothing_on_a_side_has_no_contrast() -> None:
    analysis = Saliency("category0", random=3)
    subject = effect_world(generator(), analysis, size=0.5, twins=1)
    inside = subject.volume["inside"].values
    kept = np.flatnonzero(~inside[:, 1] | inside[:, 0])
    few = subject.take(kept[~inside[kept, 1]])
    assert not few.volume["inside"].values[:, 1].any()
    assert np.isfinite(analysis(few, rng=generator())["contrast_of"]).all()
    assert (analysis(aimed(few, 1), rng=generator())["contrast"] == 0).all()
