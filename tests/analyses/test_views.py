"""Views: the numbers beside a plane are known where its points are."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import silhouette_score

from analyses import AnalysisError
from analyses.views import Views
from verification.worlds import SITE, world

PLAIN = Views(SITE, layers=2, seeds=2, neighbours=5)


def planted(size: float, *, code="direction"):
    return world(np.random.default_rng(0), code=code, size=size, layers=3, units=100, twins=0)


def measured(subject, analysis: Views = PLAIN):
    return analysis(subject, rng=np.random.default_rng(0))


def test_groups_that_are_far_apart_are_seen_and_noise_is_not_grouped() -> None:
    """METHODS B1: trustworthiness .97 and .63; the silhouette of a plane says too much."""
    there, noise = measured(planted(3.0)), measured(planted(0.0))
    assert (there["purity"] > 0.95).all()
    assert (there["trustworthiness"] > noise["trustworthiness"] + 0.1).all()
    assert (abs(noise["silhouette"]) < 0.05).all()
    np.testing.assert_allclose(noise["purity"], noise["chance_purity"], atol=0.1)
    plane = silhouette_score(there["umap"][0], there["label"])
    assert plane > float(there["silhouette"][0]) + 0.1


def test_a_plane_is_stable_where_the_units_decide_it_and_not_where_the_seed_does() -> None:
    """Items along an arc, and noise; groups far apart do not say where each is to lie."""
    noise = planted(0.0)
    items, which = np.unique(noise.volume["item"], return_inverse=True)
    angle = np.linspace(0, np.pi, len(items))[which]
    x = noise.volume[SITE].to_numpy()
    # Over all units: the few of a plane of axes would be left out as outliers.
    axes = np.random.default_rng(1).normal(size=(2, x.shape[-1]))
    x = 0.05 * x + (np.stack([np.cos(angle), np.sin(angle)], 1) @ axes)[:, None]
    arc = noise.replace_volume(noise.volume.assign({SITE: (noise.volume[SITE].dims, x)}))
    six = Views(SITE, layers=2, seeds=6, neighbours=5)  # one pair of seeds may be lucky
    found = [float(measured(subject, six)["stability"].mean()) for subject in (arc, noise)]
    assert found[0] > 0.8 > found[1] + 0.05


def test_a_few_layers_are_drawn_from_the_first_to_the_last() -> None:
    found = measured(planted(1.0))
    assert found["layer"].values.tolist() == [0, 2]
    assert found["umap"].shape == found["pca"].shape == (2, 48, 2)
    assert sorted(set(found["label"].values)) == [f"category{n}" for n in range(4)]


def test_one_value_is_drawn_as_if_there_were_no_other() -> None:
    subject = planted(1.0)
    which = np.unique(subject.volume["item"], return_inverse=True)[1]
    halves = subject.relabel("half", np.array(["one", "other"])[which % 2])
    some = halves.take(np.flatnonzero(which % 2 == 0))
    found = measured(halves, replace(PLAIN, of="one", among="half"))
    xr.testing.assert_identical(found, measured(some))
    with pytest.raises(AnalysisError, match="'half' is nowhere 'third'; it is one, other"):
        measured(halves, replace(PLAIN, of="third", among="half"))


def test_the_label_does_not_move_a_point() -> None:
    subject = planted(1.0)
    mixed = np.random.default_rng(1).permutation(48)
    items, which = np.unique(subject.volume["item"], return_inverse=True)
    names = np.array([f"category{n % 4}" for n in range(48)])[mixed][which]
    again = measured(subject.relabel("category", names))
    np.testing.assert_array_equal(measured(subject)["umap"], again["umap"])


def test_a_layer_that_does_not_vary_is_not_drawn() -> None:
    subject = planted(1.0)
    x = subject.volume[SITE].to_numpy().copy()
    x[:, 0] = 7.0
    volume = subject.volume.assign({SITE: (subject.volume[SITE].dims, x)})
    found = measured(subject.replace_volume(volume))
    assert np.isnan(found["umap"][0]).all() and np.isfinite(found["umap"][1]).all()
    assert np.isnan(found["silhouette"][0])


def test_without_umap_the_command_that_mends_it_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr("analyses.views.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs umap-learn; .*pip install 'lmfmri\[views\]'"):
        Views(SITE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"layers": 0}, "layers must be at least 1"), ({"min_dist": -1.0}, "min_dist of -1")],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Views(SITE, **settings)


def test_too_few_items_are_told() -> None:
    with pytest.raises(AnalysisError, match="48 items; 62 are needed for 30 neighbours"):
        measured(planted(1.0), Views(SITE, neighbours=30))
