"""Heads go together as they are wired where that was planted, not where depth alone makes it."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from analyses import AnalysisError
from analyses.coupling import Coupling, dealt_within
from scanner import Subject
from verification.worlds import world

LAYERS = np.repeat(np.arange(6), 5)
LATER = LAYERS[:, None] < LAYERS


def heads(strength: float, *, by_depth: float = 0.0, seed: int = 0) -> Subject:
    """Thirty heads in six layers, which take over from those that they read as much as asked."""
    rng = np.random.default_rng(seed)
    bare = world(rng, categories=2, items=60, frames=2, layers=1, units=1, twins=0)
    wired = np.where(LATER, rng.uniform(size=LATER.shape) ** 4, 0)
    wired = wired + by_depth * LATER * np.exp(-np.abs(LAYERS[:, None] - LAYERS))
    x = rng.normal(size=(bare.volume.sizes["stimulus"], 30))
    # What goes on to the next layer alone, whoever reads it.
    common = rng.normal(size=(len(x), 6))
    x += by_depth * (common[:, LAYERS] + common[:, np.minimum(LAYERS + 1, 5)])
    for layer in range(1, 6):
        own = LAYERS == layer
        x[:, own] += strength * x @ wired[:, own]
    volume = bare.volume.drop_vars(["resid_post", "unit"]).assign(
        told=(("stimulus", "layer", "parcel"), x[:, None])
    )
    return replace(
        bare,
        volume=volume.assign_coords(
            parcel_layer=("parcel", LAYERS), wired=(("parcel", "other_parcel"), wired)
        ),
    )


def measured(subject: Subject, draws: int = 99) -> xr.Dataset:
    return Coupling("told", draws=draws)(subject, rng=np.random.default_rng(0))


def test_heads_that_take_over_what_they_read_are_coupled() -> None:
    found = measured(heads(1.0))
    assert found["coupling"].item() > 0.2
    assert abs(found["coupling_dealt"].item()) < 0.1
    assert found["coupling_p"].item() == pytest.approx(0.01)


def test_what_falls_with_the_distance_of_layers_is_had_for_nothing() -> None:
    found = [measured(heads(0.0, by_depth=1.0, seed=seed)) for seed in range(8)]
    assert np.mean([one["coupling"].item() for one in found]) > 0.15
    for one in found:
        assert one["coupling"].item() == pytest.approx(one["coupling_dealt"].item(), abs=0.1)
    assert np.mean([one["coupling_p"].item() < 0.05 for one in found]) <= 0.25


def test_what_is_had_for_nothing_is_the_mean_over_dealings() -> None:
    subject = heads(0.3, by_depth=1.0)
    found = Coupling("told")(subject, rng=np.random.default_rng(0))["coupling"]
    rng = np.random.default_rng(1)
    dealt = []
    for _ in range(400):
        order = dealt_within(LAYERS, rng)
        wired = subject.volume["wired"].to_numpy()[np.ix_(order, order)]
        volume = subject.volume.assign_coords(wired=(("parcel", "other_parcel"), wired))
        one = Coupling("told").measured(
            subject.replace_volume(volume), variable="coupling", rng=np.random.default_rng(0)
        )
        assert one.attrs["chance"] == pytest.approx(found.attrs["chance"])
        dealt.append(one.item())
    assert np.mean(dealt) == pytest.approx(found.attrs["chance"], abs=4 * np.std(dealt) / 20)
    assert found.attrs["chance"] > 0.1


def test_the_measure_alone_is_that_of_the_whole() -> None:
    subject = heads(0.5)
    whole = measured(subject)["coupling"]
    alone = Coupling("told").measured(subject, variable="coupling", rng=np.random.default_rng(0))
    xr.testing.assert_identical(alone, whole.rename(None))


def test_it_is_the_rank_correlation_of_scipy() -> None:
    subject = heads(0.5)
    x = subject.volume["told"].isel(layer=0).to_numpy()
    frames, items = (subject.volume[name].to_numpy().astype(object).astype(str)
                     for name in ("frame", "item"))  # fmt: skip
    for frame in np.unique(frames):
        x[frames == frame] -= x[frames == frame].mean(0)
    means = np.array([x[items == one].mean(0) for one in np.unique(items)])
    together = np.abs(np.corrcoef(means, rowvar=False))[LATER]
    expected = spearmanr(together, subject.volume["wired"].to_numpy()[LATER])[0]
    assert measured(subject)["coupling"].item() == pytest.approx(expected, abs=1e-9)


def test_what_has_no_wiring_is_an_error() -> None:
    subject = heads(0.0)
    bare = subject.replace_volume(subject.volume.drop_vars("wired"))
    with pytest.raises(AnalysisError, match="'told' are not the heads of all layers"):
        measured(bare)
    assert "has no wiring" in Coupling("z").misfit(("stimulus", "layer", "head", "head_unit"))
    with pytest.raises(ValueError, match="draws must be at least 19"):
        Coupling("told", draws=3)
