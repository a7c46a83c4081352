"""Meaning against spelling: planted codes of either, and the speed of known curves."""

import numpy as np
import pytest
import xarray as xr

from analyses.abstraction import Abstraction
from analyses.base import AnalysisError
from analyses.rdm import prepared
from scanner import Subject
from verification.measure import steepest

CATEGORIES, ITEMS, UNITS = 4, 8, 40
ANALYSIS = Abstraction("resid_post", confounds=())


def speaking(meaning: np.ndarray, spelling: np.ndarray, *, seed: int = 0) -> Subject:
    """Layers in which words are what they mean and how they are written, as much as asked."""
    rng = np.random.default_rng(seed)
    words = np.array(["".join(rng.choice(list("abcde"), 5)) for _ in range(CATEGORIES * ITEMS)])
    category = np.repeat(np.arange(CATEGORIES), ITEMS)
    means = rng.normal(size=(CATEGORIES, UNITS))[category]
    seen = sorted({word[at : at + 2] for word in words for at in range(4)})
    has = np.array([[pair in word for pair in seen] for word in words], dtype=float)
    written = has @ rng.normal(size=(len(seen), UNITS)) / 2
    item, frame = np.tile(np.arange(len(words)), 4), np.repeat(np.arange(4), len(words))
    x = np.stack(
        [
            (a * means + b * written)[item] + 0.3 * rng.normal(size=(len(item), UNITS))
            for a, b in zip(meaning, spelling, strict=True)
        ]
    )
    volume = xr.Dataset(
        {"resid_post": (("layer", "stimulus", "unit"), x)},
        coords={
            "layer": np.arange(len(meaning)),
            "item": ("stimulus", words[item]),
            "frame": ("stimulus", frame.astype(str)),
            "category": ("stimulus", category[item].astype(str)),
        },
    )
    return Subject("planted", volume, {})


def test_meaning_and_spelling_are_told_apart() -> None:
    subject = speaking(np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 0, 1]))
    found = ANALYSIS(subject, rng=np.random.default_rng(0))
    nothing, written, meant, both = range(4)
    meaning, spelling = found["meaning"].to_numpy(), found["spelling"].to_numpy()
    assert meaning[meant] > 0.5 > 0.1 > abs(meaning[written])
    assert spelling[written] > 0.3 > 0.1 > abs(spelling[meant])
    assert abs(meaning[nothing]) < 0.1 > abs(spelling[nothing])
    assert meaning[both] > 0.2 < spelling[both]
    np.testing.assert_allclose(found["ahead"], meaning - spelling)


def test_partial_correlations_are_those_of_residuals() -> None:
    subject = speaking(np.array([0.7, 0.3]), np.array([0.5, 0.5]))
    subject = subject.replace_volume(
        subject.volume.assign_coords(zipf=("stimulus", np.tile(np.arange(32.0) % 7, 4)))
    )
    analysis = Abstraction("resid_post", confounds=("zipf",))
    found = analysis(subject, rng=np.random.default_rng(0))
    rdms, model, known = analysis._models(subject, np.random.default_rng(0))
    meaning = prepared(model[None], "spearman")

    def partial(x: np.ndarray, y: np.ndarray, *out: np.ndarray) -> float:
        basis = np.array(out).T
        left = [v - basis @ np.linalg.lstsq(basis, v, rcond=None)[0] for v in (x, y)]
        return float(np.corrcoef(left)[0, 1])

    for layer, rdm in enumerate(rdms):
        expected = partial(rdm, meaning[0], *known)
        assert float(found["meaning"][layer]) == pytest.approx(expected)
        expected = partial(rdm, known[0], meaning[0], known[1])
        assert float(found["spelling"][layer]) == pytest.approx(expected)


def test_labels_dealt_out_leave_what_spelling_has() -> None:
    subject = speaking(np.array([1.0]), np.array([1.0]))
    rng = np.random.default_rng(0)
    drawn = ANALYSIS.permuted(subject, "ahead", draws=30, rng=rng, shuffles=rng.spawn(1)[0])
    found = ANALYSIS(subject, rng=np.random.default_rng(0))
    assert drawn.attrs["chance"] == 0
    assert float(drawn.mean()) == pytest.approx(-float(found["spelling"][0]), abs=0.12)
    assert float(drawn.max()) < float(found["ahead"][0])


def test_words_without_letters_in_common_are_refused() -> None:
    subject = speaking(np.array([0.5]), np.array([0.5]))
    of_item = subject.volume["item"].to_numpy()
    letters = dict(zip(np.unique(of_item), "abcdefghijklmnopqrstuvwxyz012345", strict=True))
    apart = subject.relabel("item", np.array([letters[one] for one in of_item]))
    with pytest.raises(AnalysisError, match="equally many letters in common"):
        ANALYSIS(apart, rng=np.random.default_rng(0))


@pytest.mark.parametrize("slope", [1.0, 2.0, 4.0])
def test_the_speed_of_a_known_rise_is_recovered(slope: float) -> None:
    """Profiles with a known slope at the inflection, within 5 %; a rise takes eight layers."""
    depth = np.linspace(0, 1, 32)
    rise = 1 / (1 + np.exp(-4 * slope * (depth - 0.45)))
    noise = 0.002 * np.random.default_rng(0).normal(size=(5, 32))
    profiles = xr.DataArray(rise + noise, dims=("draw", "layer"))
    np.testing.assert_allclose(steepest(profiles), slope, rtol=0.05)


def test_noise_and_a_layer_that_stands_out_are_hardly_a_rise() -> None:
    flat = xr.DataArray(0.05 * np.random.default_rng(1).normal(size=30), dims="layer")
    assert float(steepest(flat)) < 0.5
    alone = flat.copy()
    alone[14] += 0.2
    assert float(steepest(alone)) < 1.0 < 0.2 * 30


def test_few_layers_have_no_rise() -> None:
    with pytest.raises(AnalysisError, match="4 layers; 5 are needed"):
        steepest(xr.DataArray(np.arange(4.0), dims="layer"))
