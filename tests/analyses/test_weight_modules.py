"""Modules of weights are found where they are planted, and told from what sparse weights have."""

from itertools import product

import networkx as nx
import numpy as np
import pytest
import xarray as xr

from analyses.graphs import modularity, two_sided_modularity
from analyses.weight_modules import WeightModules, sorted_into_modules
from scanner import Live, Recording, Subject
from scanner.components import MATRICES
from scanner.weights import Folder
from tests.conftest import acts
from verification.effect_worlds import effect_world

ANALYSIS = WeightModules(random=3)


def blocks(rng: np.random.Generator, *, within: float) -> np.ndarray:
    """Sizes of 60 x 36 weights, so many times as large within four modules."""
    member = np.arange(60)[:, None] % 4 == np.arange(36) % 4
    return np.abs(rng.normal(size=(60, 36))) * np.where(member, within, 1)


def test_modules_of_two_sides_have_the_modularity_that_they_must() -> None:
    """Derived: of k modules without an edge between them, 1 - 1/k, whatever their sides."""
    for modules, shape in ((2, (4, 5)), (4, (16, 3)), (5, (2, 8))):
        graph = np.kron(np.eye(modules), np.ones(shape))
        found = two_sided_modularity(graph, np.random.default_rng(0))
        assert found == pytest.approx(1 - 1 / modules)
    assert two_sided_modularity(np.zeros((4, 5)), np.random.default_rng(0)) == 0


def test_what_is_found_is_the_best_of_all_partitions_of_a_small_graph() -> None:
    """By hand, over every pair of halves of both sides; and no less than one-sided Louvain finds.

    The same communities have, by the chance that knows no sides, what networkx says of them.
    """
    rng = np.random.default_rng(0)
    weights = blocks(rng, within=6)[:6, :4]
    beyond = weights - np.outer(weights.sum(1), weights.sum(0)) / weights.sum()
    halves = (np.array(sides) for sides in product((0, 1), repeat=10))
    best = max(np.sum(beyond * (half[:6, None] == half[6:])) / weights.sum() for half in halves)
    found = max(float(two_sided_modularity(weights, rng)) for _ in range(10))
    assert found >= best - 1e-12
    whole = np.zeros((10, 10))
    whole[:6, 6:], whole[6:, :6] = weights, weights.T
    graph = nx.from_numpy_array(whole)
    communities = nx.community.louvain_communities(graph, seed=1)
    modules = np.zeros(10, dtype=int)
    for number, members in enumerate(communities):
        modules[list(members)] = number
    theirs = nx.community.modularity(graph, communities)
    assert float(modularity(whole, modules)) == pytest.approx(theirs)


def test_planted_modules_are_told_from_the_same_weights_elsewhere() -> None:
    """Derived: of six times as large ones, two thirds lie within, where a quarter would."""
    rng = np.random.default_rng(0)
    for within, least, most in ((6, 0.15, 1), (1, -0.05, 0.05)):
        graph = blocks(rng, within=within)
        elsewhere = np.stack([rng.permutation(graph.ravel()).reshape(60, 36) for _ in range(10)])
        found = two_sided_modularity(graph, rng)
        if within > 1:
            assert found == pytest.approx(2 / 3 - 1 / 4, abs=0.03)
        assert least < found - two_sided_modularity(elsewhere, rng).mean() < most


def test_sparse_weights_alone_are_more_modular_and_no_more_than_elsewhere() -> None:
    """The world in which the published measure is fooled."""
    rng = np.random.default_rng(0)
    dense = np.abs(rng.normal(size=(60, 40)))
    sparse = dense * (rng.random((60, 40)) < 0.1)
    found = two_sided_modularity(np.stack([dense, sparse]), rng)
    assert found[1] > found[0] + 0.2
    dealt = two_sided_modularity(rng.permutation(sparse.ravel()).reshape(1, 60, 40), rng)
    assert abs(found[1] - dealt[0]) < 0.05


def test_weights_that_are_sorted_into_modules_are_the_same_weights() -> None:
    rng = np.random.default_rng(0)
    sizes = blocks(rng, within=1)
    known = sorted_into_modules(sizes, 4, rng)
    assert sorted(known.ravel()) == sorted(sizes.ravel())
    assert two_sided_modularity(known, rng) > two_sided_modularity(sizes, rng) + 0.1


@pytest.fixture
def live(tiny_model, toy_stimuli) -> Live:
    source = tiny_model("llama").source
    recording = Recording(source, toy_stimuli, ("resid_post",), "target", "float32")
    return Live(tiny_model("llama"), recording, {})


def test_each_matrix_of_a_model_is_one_graph(live) -> None:
    volume = acts(live, Subject("one", xr.Dataset(), {}), ANALYSIS)
    names = volume["item"].to_numpy().tolist()
    pieces = Folder.open(live.recording.source.folder).pieces
    assert names == [one.name for one in pieces if one.component in MATRICES]
    kinds = volume["target_kind"].to_numpy().tolist()
    assert kinds == ["own", "known", *["equal"] * 3, *["matched"] * 3]
    drawn = volume["modularity"].isel(target=slice(2, None)).mean("target").squeeze("layer")
    np.testing.assert_allclose(volume["dealt"], drawn)
    assert np.isnan(volume["loss"]).all()  # it was not trained here
    found = ANALYSIS(Subject("one", volume, {}), rng=np.random.default_rng(0))
    assert float(found["modularity"][0]) == pytest.approx(
        float(volume["modularity"].isel(target=0).mean())
    )
    assert found["modularity"].attrs["chance"] == pytest.approx(float(volume["dealt"].mean()))
    assert found["category"].to_numpy().tolist() == list(MATRICES)
    assert "loss" not in found


def test_units_of_large_matrices_are_drawn(live) -> None:
    few = WeightModules(components=("gate",), nodes=10, random=1)
    volume = acts(live, Subject("one", xr.Dataset(), {}), few)
    assert set(volume["component"].to_numpy()) == {"gate"}
    assert (volume["modularity"] > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": ("norm",)}, "components: some of q, k, v"),
        ({"components": ()}, "components: some of q"),
        ({"nodes": 9}, "nodes must be at least 10"),
        ({"random": 0}, "random must be at least 1"),
    ],
)
def test_settings_are_held_to_what_can_be_measured(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightModules(**settings)


def test_a_loss_that_is_known_is_told() -> None:
    subject = effect_world(np.random.default_rng(0), WeightModules(), size=0.3)
    found = WeightModules()(subject, rng=np.random.default_rng(0))
    assert float(found["loss"]) == pytest.approx(1.7)
    assert float(found["modularity"][0]) - found["modularity"].attrs["chance"] > 0.2
