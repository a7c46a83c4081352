"""Views: the numbers beside a plane are known where its points are."""

import sys

import numpy as np
import pytest
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
    assert (there["stability"] > noise["stability"]).all()
    assert (abs(noise["silhouette"]) < 0.05).all()
    np.testing.assert_allclose(noise["purity"], noise["chance_purity"], atol=0.1)
    plane = silhouette_score(there["umap"][0], there["label"])
    assert plane > float(there["silhouette"][0]) + 0.1


def test_a_few_layers_are_drawn_from_the_first_to_the_last() -> None:
    found = measured(planted(1.0))
    assert found["layer"].values.tolist() == [0, 2]
    assert found["umap"].shape == found["pca"].shape == (2, 48, 2)
    assert sorted(set(found["label"].values)) == [f"category{n}" for n in range(4)]


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
