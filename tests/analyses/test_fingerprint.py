"""Networks of categories: planted in the covariance, absent from means, and by hand."""

import numpy as np
import pytest
from nilearn.connectome import ConnectivityMeasure
from sklearn.covariance import LedoitWolf

from analyses.base import AnalysisError
from analyses.fingerprint import FLOOR, Fingerprint, _Shrunk
from analyses.words import read_words
from verification.worlds import world

SIZE = {"categories": 4, "items": 20, "frames": 2, "layers": 1, "units": 20}


def nearer(edges: str, *, seed: int = 0, **settings: object) -> float:
    subject = world(np.random.default_rng(seed), **(SIZE | settings))
    found = Fingerprint("resid_post", edges=edges)(subject, rng=np.random.default_rng(1))
    return float(found["nearer"][0])


@pytest.mark.parametrize("edges", ["correlation", "partial correlation", "tangent"])
def test_what_each_category_moves_along_is_its_fingerprint(edges: str) -> None:
    """One direction a category, of either sign: no mean differs, and every covariance does."""
    assert nearer(edges, code="paired", size=3.0) > 0.9


@pytest.mark.parametrize("edges", ["correlation", "partial correlation", "tangent"])
@pytest.mark.parametrize("code", ["none", "direction", "item"])
def test_means_and_items_are_no_fingerprint(edges: str, code: str) -> None:
    found = [nearer(edges, code=code, size=3.0, seed=seed) for seed in range(12)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - 0.5) < 4 * error + 0.01


def test_networks_that_all_share_are_told_apart_in_the_tangent_space() -> None:
    """A strong factor of all categories hides in correlations what the tangent space shows."""
    weak = {"code": "paired", "size": 1.2, "correlated": True}
    found = {
        edges: np.mean([nearer(edges, seed=seed, **weak) for seed in range(8)])
        for edges in ("correlation", "tangent")
    }
    assert found["tangent"] > found["correlation"] - 0.02
    assert found["tangent"] > 0.6


def test_the_numbers_are_those_of_a_loop() -> None:
    subject = world(np.random.default_rng(3), code="paired", size=1.5, **SIZE)
    analysis = Fingerprint("resid_post", edges="tangent", splits=1)
    found = analysis(subject, rng=np.random.default_rng(1))
    rng = np.random.default_rng(1)
    words = read_words(subject, "resid_post", "category")
    ((first, other),) = words.parts(2, each=3, splits=1, rng=rng)
    x = words.patterns[0][:, rng.permutation(20)]
    x = (x - x.mean(0)) / x.std(0)
    measure = ConnectivityMeasure(
        _Shrunk(), kind="tangent", vectorize=True, discard_diagonal=True, standardize=False
    )
    one = measure.fit_transform([x[some] for some in first])
    two = measure.transform([x[some] for some in other])
    table = np.array([[np.corrcoef(a, b)[0, 1] for b in two] for a in one])
    np.testing.assert_allclose(found["networks_apart"][0], 1 - (table + table.T) / 2, atol=1e-10)
    right = [one[c].argmax() == c for one in (table, table.T) for c in range(4)]
    assert float(found["identified"][0]) == pytest.approx(np.mean(right))
    pairs = [(c, d) for c in range(4) for d in range(4) if c != d]
    wins = [table[c, c] > table[c, d] for c, d in pairs]
    wins += [table[c, c] > table[d, c] for c, d in pairs]
    assert float(found["nearer"][0]) == pytest.approx(np.mean(wins))


def test_units_that_do_not_vary_in_a_category_leave_it_a_network() -> None:
    x = np.random.default_rng(0).normal(size=(9, 5))
    expected = LedoitWolf().fit(x).covariance_ + FLOOR * np.eye(5)
    np.testing.assert_allclose(_Shrunk().fit(x).covariance_, expected)
    assert np.linalg.eigvalsh(_Shrunk().fit(np.ones((9, 5))).covariance_).min() > 0


def test_few_items_are_refused() -> None:
    subject = world(np.random.default_rng(0), **(SIZE | {"items": 5}))
    with pytest.raises(AnalysisError, match="has 5 items; 6 are needed"):
        Fingerprint("resid_post")(subject, rng=np.random.default_rng(0))


def test_a_layer_in_which_nothing_varies_tells_nothing() -> None:
    subject = world(np.random.default_rng(0), **SIZE)
    flat = subject.volume["resid_post"] * 0 + 1
    subject = subject.replace_volume(subject.volume.assign(resid_post=flat))
    found = Fingerprint("resid_post")(subject, rng=np.random.default_rng(0))
    assert float(found["nearer"][0]) == 0.5
