"""Topography: planted layouts, shuffled ones, closed forms, and where the word means nothing."""

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter1d

from analyses import AnalysisError
from analyses.topography import (
    LAYOUTS,
    Topography,
    by_distance,
    by_head,
    morans_i,
    paired,
    tuned,
)
from scanner import Subject
from verification.worlds import world

HEADS, EACH = 6, 10
TOPOGRAPHY = Topography("z", splits=5, permutations=99, reach=5)


def subject(
    patterns: np.ndarray, *, seed: int = 0, items: int = 12, shared: float = 0.0
) -> Subject:
    """Categories have these patterns (category x unit); the units of a head share noise."""
    rng = np.random.default_rng(seed)
    one = world(rng, items=items, layers=1, twins=0)
    category = np.unique(one.volume["category"].to_numpy(), return_inverse=True)[1]
    x = one.volume["resid_post"].to_numpy() + patterns[category][:, None]
    x = x.reshape(len(category), 1, HEADS, EACH)
    x += shared * rng.normal(size=(len(category), 1, HEADS, 1))
    return one.replace_volume(
        one.volume.drop_dims("unit").assign(z=(("stimulus", "layer", "head", "head_unit"), x))
    )


def measured(one: Subject) -> xr.Dataset:
    return TOPOGRAPHY(one, rng=np.random.default_rng(0)).isel(layer=0)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


def test_means_over_pairs_are_those_of_a_loop_over_pairs() -> None:
    codes, part = np.tile(np.arange(4), 8), np.repeat(np.arange(4), 8)
    words = drawn(32, 12)
    member = np.array([[(codes == c) & (part == p) for c in range(4)] for p in range(4)])[None]
    profiles = tuned(words, member)
    tuning = paired(profiles)
    means = np.array(
        [[words[(codes == c) & (part == p)].mean(0) for c in range(4)] for p in range(4)]
    )

    def alike(i: int, j: int) -> float:
        r = [np.corrcoef(means[a][:, i], means[b][:, j])[0, 1] for a, b in ((0, 1), (2, 3))]
        return r[0] * r[1]

    head = np.array([np.arange(12) // 4, np.random.default_rng(0).permuted(np.arange(12) % 3)])
    within, between = by_head(tuning, head)
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    for draw, of in enumerate(head):
        same = np.mean([alike(i, j) for i, j in pairs if of[i] == of[j]])
        other = np.mean([alike(i, j) for i, j in pairs if of[i] != of[j]])
        assert within[draw] == pytest.approx(same, abs=1e-12)
        assert between[draw] == pytest.approx(other, abs=1e-12)
    for distance, found in enumerate(by_distance(tuning, 3, 3), start=1):
        apart = [alike(i, j) for i, j in pairs if i // 4 == j // 4 and abs(i - j) == distance]
        assert found == pytest.approx(np.mean(apart), abs=1e-12)


def test_morans_i_of_known_chains() -> None:
    """By alternation -1, of noise -1 / (n - 1), smoothed by a Gaussian exp(-1 / 4 s^2)."""
    assert morans_i(np.tile([1.0, -1], 50), 1) == pytest.approx(-1)
    noise = morans_i(drawn(4000, 20), 1)
    assert noise.mean() == pytest.approx(-1 / 19, abs=4 * noise.std() / np.sqrt(4000))
    smooth = gaussian_filter1d(drawn(100_000), 2.0)
    assert morans_i(smooth, 1) == pytest.approx(np.exp(-1 / 16), abs=0.02)
    assert np.isnan(morans_i(np.ones(10), 2))


def test_neighbours_at_the_border_of_heads_are_none() -> None:
    blocks = np.repeat(drawn(50), 10)
    assert morans_i(blocks, 50) == pytest.approx(1)


def test_heads_that_are_tuned_as_one_are_found() -> None:
    """Whatever the signs of their units, which are arbitrary."""
    signs = np.sign(np.random.default_rng(2).normal(size=60))
    found = measured(subject(4 * signs * np.repeat(drawn(4, HEADS), EACH, axis=1)))
    assert float(found["within_heads"]) > 0.8
    assert float(found["between_heads"]) < 0.5
    assert float(found["clustering_p"]) == 0.01
    np.testing.assert_allclose(found["neighbours"], float(found["within_heads"]), atol=0.05)
    assert float(found["moran"].min()) > 0.5


def test_tuning_that_has_no_order_is_not_clustered() -> None:
    """As strong, and dealt out among units: of 20 worlds about one has p below 0.05."""
    found = [measured(subject(2 * drawn(20, 4, 60)[seed], seed=seed)) for seed in range(20)]
    assert abs(np.mean([float(one["clustering"]) for one in found])) < 0.02
    assert sum(float(one["clustering_p"]) <= 0.05 for one in found) <= 4


def test_noise_that_heads_share_is_no_tuning() -> None:
    """Its correlation would be found in the same items; other items have other noise."""
    found = [measured(subject(np.zeros((4, 60)), seed=seed, shared=2.0)) for seed in range(20)]
    clustering = np.array([float(one["clustering"]) for one in found])
    assert abs(clustering.mean()) < 3.5 * clustering.std() / np.sqrt(20)


def test_what_falls_off_with_distance_is_seen_to() -> None:
    patterns = gaussian_filter1d(drawn(4, HEADS, EACH), 1.5, axis=-1, mode="wrap").reshape(4, -1)
    near = measured(subject(8 * patterns))["neighbours"].to_numpy()
    assert near[0] > near[2] > near[4]


@pytest.mark.parametrize("site", ["resid_post", "mlp_act", "logits", "attn_probs"])
def test_where_the_order_of_units_means_nothing_it_is_not_applicable(site: str) -> None:
    assert LAYOUTS == ("q", "k", "value", "z")
    with pytest.raises(
        ValueError, match=f"not applicable to '{site}'.*q, k, value, z stand in heads"
    ):
        Topography(site)


def test_what_cannot_be_computed_is_told() -> None:
    with pytest.raises(
        AnalysisError, match="'category0' of 'category' has 3 items; 4 are needed, 1 in"
    ):
        measured(subject(np.zeros((4, 60)), items=3))
    one = subject(np.zeros((4, 60)))
    with pytest.raises(AnalysisError, match="1 heads of 10 units; 2 of each"):
        measured(one.replace_volume(one.volume.isel(head=[0])))
    with pytest.raises(ValueError, match="reach must be at least 1"):
        Topography("z", reach=0)
