"""A category that is one atom is told by one feature, and a grouping at random by no fewer."""

import numpy as np
import pytest
import xarray as xr

from analyses import AnalysisError
from analyses.localisation import Localisation
from scanner import Subject
from verification.worlds import world

UNITS, ATOMS, ITEMS = 200, 300, 24


def toy(seed: int, *, one_atom: bool) -> Subject:
    """Items of two frames, each a few atoms; the right features are known."""
    rng = np.random.default_rng(seed)
    subject = world(rng, layers=1, items=ITEMS, units=UNITS)
    volume = subject.volume
    names, which = np.unique(volume["item"].to_numpy(), return_inverse=True)
    _, code = np.unique(volume["category"].to_numpy(), return_inverse=True)
    weights = np.zeros((len(names), ATOMS))
    for row in weights:
        row[rng.choice(np.arange(20, ATOMS), 5, replace=False)] = rng.uniform(0.8, 1.2, 5)
    features = weights[which]
    if one_atom:
        features[np.arange(len(which)), code] = 3.0
    atoms = rng.normal(size=(ATOMS, UNITS))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    kept = volume.drop_vars([str(name) for name in volume.data_vars])
    return subject.replace_volume(
        kept.assign(
            told=(("stimulus", "layer", "feature"), features[:, None]),
            units=(("stimulus", "layer", "unit"), (features @ atoms)[:, None]),
        )
    )


def found(subject: Subject, **settings) -> xr.Dataset:
    return Localisation("told", **settings)(subject, rng=np.random.default_rng(0))


def test_one_atom_is_one_feature_and_half_of_the_units() -> None:
    result = found(toy(0, one_atom=True))
    # Of two categories the difference has both atoms.
    several = result.sizes["category"]
    assert several >= 2
    assert (result["needed_features"] <= several).all()
    share = result["needed_units"].to_numpy() / UNITS
    # Of a normal vector 44.5 % of the entries have 90 % of the square.
    np.testing.assert_allclose(share, 0.445, atol=0.07)
    assert result["factor"].item() > 5 * result["dealt_factor"].item()
    alive = result["factor"] / result["normed_factor"]
    fired = (toy(0, one_atom=True).volume["told"] != 0).any("stimulus").sum().item()
    assert alive.item() == pytest.approx(UNITS / fired)


def test_a_grouping_at_random_is_found_in_no_fewer_features() -> None:
    ratio = [found(toy(seed, one_atom=False)) for seed in range(6)]
    values = [(one["factor"] / one["dealt_factor"]).item() for one in ratio]
    assert np.mean(values) == pytest.approx(1, abs=0.15)


def test_what_are_no_features_is_refused() -> None:
    subject = world(np.random.default_rng(0))
    with pytest.raises(AnalysisError, match="'resid_post' are no features of a dictionary"):
        Localisation("resid_post")(subject, rng=np.random.default_rng(0))
    assert "has units, not features" in Localisation("z").misfit(("stimulus", "layer", "unit"))
    assert not Localisation("told").misfit(("stimulus", "layer", "feature"))
    with pytest.raises(ValueError, match="share of 1"):
        Localisation("told", share=1.0)
