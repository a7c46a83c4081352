"""Measures of graphs equal networkx and closed forms, and graphs at random are what they say."""

from collections import Counter
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from scipy.stats import chisquare
from sklearn.metrics import adjusted_rand_score

from analyses.graphs import (
    clustering,
    communities,
    consensus,
    edges_of,
    efficiency,
    lattice,
    modularity,
    of_lattice,
    participation,
    rewired,
    rich_club,
    signed_communities,
    signed_modularity,
    strongest,
    within_module_degree,
)

KARATE = nx.to_numpy_array(nx.karate_club_graph(), weight=None) > 0
WEIGHTED = nx.to_numpy_array(nx.karate_club_graph())
CLUB = np.array([one == "Officer" for _, one in nx.karate_club_graph().nodes("club")], dtype=int)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def some_graphs() -> list[np.ndarray]:
    """Dense, sparse, in pieces, and without edges."""
    drawn = [nx.gnp_random_graph(25, p, seed=seed) for seed, p in enumerate((0.5, 0.15, 0.05, 0.0))]
    return [nx.to_numpy_array(one) > 0 for one in drawn]


@pytest.mark.parametrize("graph", [KARATE, *some_graphs()])
def test_measures_equal_those_of_networkx(graph: np.ndarray) -> None:
    network = nx.from_numpy_array(graph.astype(int))
    assert float(clustering(graph)) == pytest.approx(nx.average_clustering(network), abs=1e-7)
    assert float(efficiency(graph)) == pytest.approx(nx.global_efficiency(network), abs=1e-12)
    found = rich_club(graph)
    known = nx.rich_club_coefficient(network, normalized=False) if graph.any() else {}
    for degree, value in known.items():
        assert found[degree] == pytest.approx(value, abs=1e-12)
    modules = generator().integers(0, 3, len(graph))
    if graph.any():
        parts = [set(np.flatnonzero(modules == one)) for one in range(3)]
        known = nx.community.modularity(network, parts)
        assert float(modularity(graph, modules)) == pytest.approx(known, abs=1e-12)
    else:
        assert modularity(graph, modules) == clustering(graph) == efficiency(graph) == 0
        assert np.isnan(rich_club(graph)).all()


def test_many_graphs_are_measured_at_once() -> None:
    graphs = np.stack([one for one in some_graphs()]).reshape(2, 2, 25, 25)
    modules = generator().integers(0, 3, (2, 2, 25))
    for measure in (clustering, efficiency, rich_club):
        each = [[measure(one) for one in row] for row in graphs]
        np.testing.assert_allclose(measure(graphs), each, atol=1e-7)
    each = [
        [modularity(*two) for two in zip(*row, strict=True)]
        for row in zip(graphs, modules, strict=True)
    ]
    np.testing.assert_allclose(modularity(graphs, modules), each)


def test_the_karate_club_is_to_bctpy_what_it_is_here() -> None:
    """What bctpy 0.6 says of it by its two clubs; its licence keeps it out of what is required."""
    spread = np.zeros(34)
    spread[[0, 1, 2, 8, 9, 13, 19, 27, 28, 30, 31, 32, 33]] = [
        0.117188, 0.197531, 0.48, 0.48, 0.5, 0.32, 0.444444, 0.375, 0.444444, 0.5, 0.277778,
        0.277778, 0.290657,
    ]  # fmt: skip
    np.testing.assert_allclose(participation(KARATE, CLUB), spread, atol=1e-6)
    central = [
        3.346533, 1.193898, 0.57886, 0.57886, -0.343698, -0.036179, -0.036179, -0.036179, -0.651217,
        -0.847156, -0.343698, -0.958736, -0.651217, -0.036179, -0.540738, -0.540738, -0.651217,
        -0.651217, -0.540738, -0.651217, -0.540738, -0.651217, -0.540738, 0.378517, -0.23432,
        -0.23432, -0.540738, -0.23432, -0.540738, 0.072098, -0.540738, 0.378517, 1.910608, 3.136281,
    ]  # fmt: skip
    np.testing.assert_allclose(within_module_degree(KARATE, CLUB), central, atol=1e-6)
    rich = [0.145833, 0.238095, 0.325, 0.488889, 0.52381, 0.5, 0.5, 0.5, 0.5, 1 / 3, 1 / 3, 0, 0, 0]
    np.testing.assert_allclose(rich_club(KARATE)[1:15], rich, atol=1e-6)
    assert clustering(KARATE) == pytest.approx(0.570638, abs=1e-6)
    assert efficiency(KARATE) == pytest.approx(0.492008, abs=1e-6)
    assert modularity(KARATE, CLUB) == pytest.approx(0.358235, abs=1e-6)


def test_the_karate_club_has_its_published_numbers() -> None:
    found = [communities(KARATE, generator(seed)) for seed in range(60)]
    best = max(found, key=lambda one: float(modularity(KARATE, one)))
    assert float(modularity(KARATE, best)) == pytest.approx(0.4198, abs=1e-4)  # Brandes 2008
    assert len(set(best)) == 4
    weighted = max(
        float(modularity(WEIGHTED, communities(WEIGHTED, generator(seed)))) for seed in range(60)
    )
    assert weighted == pytest.approx(0.4449, abs=1e-4)
    assert float(modularity(KARATE, CLUB)) == pytest.approx(0.3582, abs=1e-4)
    assert float(modularity(WEIGHTED, CLUB)) == pytest.approx(0.3914, abs=1e-4)
    assert float(clustering(KARATE)) == pytest.approx(0.5706, abs=1e-4)


def test_communities_are_as_good_as_those_of_networkx() -> None:
    drawn = [
        nx.gnp_random_graph(60, 0.1, seed=1),
        nx.watts_strogatz_graph(60, 6, 0.1, seed=2),
        nx.planted_partition_graph(4, 15, 0.5, 0.05, seed=3),
        nx.barabasi_albert_graph(60, 4, seed=4),
    ]
    for network in drawn:
        graph = nx.to_numpy_array(network) > 0
        found = communities(np.broadcast_to(graph, (40, 60, 60)), generator())
        ours = modularity(np.broadcast_to(graph, (40, 60, 60)), found)
        known = [
            nx.community.modularity(network, nx.community.louvain_communities(network, seed=seed))
            for seed in range(40)
        ]
        assert ours.mean() == pytest.approx(np.mean(known), abs=0.005)
        for labels, value in zip(found[:5], ours, strict=False):
            assert set(labels) == set(range(labels.max() + 1))
            # What ends the method: no two communities are better as one.
            for one, other in combinations(range(labels.max() + 1), 2):
                joined = np.where(labels == other, one, labels)
                assert float(modularity(graph, joined)) <= value + 1e-9


def test_communities_of_many_graphs_are_found_at_once() -> None:
    cliques = np.kron(np.eye(4), np.ones((5, 5))).astype(bool) & ~np.eye(20, dtype=bool)
    empty, whole = np.zeros((20, 20), dtype=bool), ~np.eye(20, dtype=bool)
    pairs = np.kron(np.eye(10), np.ones((2, 2))).astype(bool) & ~np.eye(20, dtype=bool)
    graphs = np.array([[cliques, empty], [whole, pairs]])
    found = communities(graphs, generator())
    assert found.shape == (2, 2, 20)
    assert [[len(set(one)) for one in row] for row in found] == [[4, 20], [1, 10]]
    np.testing.assert_array_equal(found[0, 0], np.repeat(np.arange(4), 5))
    shuffled = generator().permutation(20)
    again = communities(cliques[np.ix_(shuffled, shuffled)], generator())
    assert adjusted_rand_score(again, np.repeat(np.arange(4), 5)[shuffled]) == 1


def every_partition(nodes: int) -> np.ndarray:
    """All of them, as labels that begin with 0 and grow by one."""
    found = [[0]]
    for _ in range(nodes - 1):
        found = [[*one, new] for one in found for new in range(max(one) + 2)]
    return np.array(found)


@pytest.mark.parametrize("seed", range(6))
def test_signed_communities_are_nearly_the_best_of_all(seed: int) -> None:
    weights = generator(seed).normal(size=(8, 8))
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    every = every_partition(8)
    assert len(every) == 4140  # Bell's number
    values = signed_modularity(np.broadcast_to(weights, (len(every), 8, 8)), every)
    found = signed_communities(np.broadcast_to(weights, (20, 8, 8)), generator())
    best = signed_modularity(np.broadcast_to(weights, (20, 8, 8)), found).max()
    assert best == pytest.approx(values.max(), abs=1e-9)


def test_signed_modularity_is_written_out() -> None:
    """Rubinov & Sporns 2011, equation 3: positive edges by their own, negative ones by all."""
    weights = np.array([[0, 3, -1, 0], [3, 0, 0, -2], [-1, 0, 0, 1], [0, -2, 1, 0.0]])
    modules = np.array([0, 0, 1, 1])
    positive, negative = np.maximum(weights, 0), np.maximum(-weights, 0)
    same = modules[:, None] == modules
    expected = 0.0
    sizes = positive.sum(), negative.sum()
    for part, scale in ((positive, 1 / sizes[0]), (negative, -1 / sum(sizes))):
        chance = np.outer(part.sum(0), part.sum(0)) / part.sum()
        expected += scale * ((part - chance) * same).sum()
    assert float(signed_modularity(weights, modules)) == pytest.approx(expected)
    assert float(signed_modularity(positive, modules)) == pytest.approx(
        float(modularity(positive, modules))
    )
    assert float(signed_modularity(np.zeros((4, 4)), modules)) == 0


def test_modularity_of_cliques_is_what_theory_says() -> None:
    cliques = np.kron(np.eye(4), np.ones((5, 5))).astype(bool) & ~np.eye(20, dtype=bool)
    module = np.repeat(np.arange(4), 5)
    assert float(modularity(cliques, module)) == pytest.approx(0.75)
    np.testing.assert_array_equal(consensus(cliques, generator()), consensus(cliques, generator(1)))
    for found in (communities(cliques, generator()), consensus(cliques, generator())):
        assert len(set(found)) == 4
        assert all(len(set(found[module == one])) == 1 for one in range(4))
    whole = ~np.eye(8, dtype=bool)
    assert float(modularity(whole, np.zeros(8, int))) == pytest.approx(0)
    ring = nx.to_numpy_array(nx.ring_of_cliques(10, 5)) > 0
    assert float(modularity(ring, np.repeat(np.arange(10), 5))) == pytest.approx(0.8091, abs=1e-4)


def test_rings_are_clustered_as_watts_and_strogatz_say_and_rewiring_ends_it() -> None:
    ring = nx.to_numpy_array(nx.watts_strogatz_graph(200, 10, 0, seed=0)) > 0
    assert float(clustering(ring)) == pytest.approx(2 / 3)
    known = {0.0: 3.9, 0.01: 7.4, 0.1: 9.9, 1.0: 1.04}
    for p, expected in known.items():
        graph = nx.to_numpy_array(nx.watts_strogatz_graph(200, 10, p, seed=1)) > 0
        drawn = rewired(graph, count=10, rng=generator())
        network = nx.from_numpy_array(graph.astype(int))
        length = nx.average_shortest_path_length(network)
        others = [
            nx.average_shortest_path_length(nx.from_numpy_array(one.astype(int))) for one in drawn
        ]
        ratio = clustering(graph) / clustering(drawn).mean() / (length / np.mean(others))
        assert float(ratio) == pytest.approx(expected, rel=0.1)


def test_the_strongest_edges_are_kept_and_no_more() -> None:
    weights = generator().normal(size=(2, 12, 12))
    weights += weights.swapaxes(1, 2)
    graphs = strongest(weights, 0.3)
    assert graphs.sum((1, 2)).tolist() == [2 * edges_of(12, 0.3)] * 2 == [40, 40]
    assert (graphs == graphs.swapaxes(1, 2)).all() and not graphs[:, range(12), range(12)].any()
    off = ~np.eye(12, dtype=bool)
    for graph, weight in zip(graphs, weights, strict=True):
        assert weight[graph].min() > weight[off & ~graph].max()
    assert strongest(weights, 1e-9).sum() == 4


@pytest.mark.parametrize("graph", [KARATE, *some_graphs()[:3]])
def test_rewired_graphs_keep_every_degree_and_lose_the_rest(graph: np.ndarray) -> None:
    drawn = rewired(graph, count=5, rng=generator())
    assert (drawn.sum(1) == graph.sum(0)).all()
    assert (drawn == drawn.swapaxes(1, 2)).all()
    assert not drawn[:, range(len(graph)), range(len(graph))].any()
    kept = (drawn & graph).sum((1, 2)) / graph.sum()
    assert (kept < 0.8).all()
    assert len({one.tobytes() for one in drawn}) == 5


def test_every_graph_of_the_same_degrees_is_as_likely() -> None:
    degrees = [3, 2, 2, 2, 2, 1]
    pairs = list(combinations(range(6), 2))
    every = [
        edges for edges in combinations(pairs, 6)
        if np.bincount(np.ravel(edges), minlength=6).tolist() == degrees
    ]  # fmt: skip
    graph = nx.to_numpy_array(nx.havel_hakimi_graph(degrees)) > 0
    drawn = Counter(one.tobytes() for one in rewired(graph, count=7200, rng=generator()))
    assert len(drawn) == len(every) == 36
    assert chisquare(list(drawn.values())).pvalue > 0.001


@pytest.mark.parametrize("graph", [np.zeros((4, 4), bool), ~np.eye(4, dtype=bool)])
def test_a_graph_that_allows_no_swap_stays_as_it_is(graph: np.ndarray) -> None:
    np.testing.assert_array_equal(rewired(graph, count=2, rng=generator()), [graph, graph])


def test_participation_says_how_evenly_edges_go_to_modules() -> None:
    star = np.zeros((5, 5), dtype=bool)
    star[0, 1:] = star[1:, 0] = True
    found = participation(star, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(found, [0.5, 0, 0, 0, 0])
    alone = participation(np.zeros((3, 3)), np.array([0, 1, 1]))
    assert np.isnan(alone).all()


def test_a_hub_has_many_more_neighbours_in_its_module() -> None:
    star = np.zeros((12, 12), dtype=bool)
    star[0, 1:9] = star[1:9, 0] = True
    modules = np.array([0] * 9 + [1] * 3)
    z = within_module_degree(star, modules)
    own = np.array([8.0] + [1.0] * 8)
    np.testing.assert_allclose(z[:9], (own - own.mean()) / own.std())
    np.testing.assert_array_equal(z[9:], 0)


def test_a_ring_is_as_clustered_as_watts_and_strogatz_say() -> None:
    clustered, efficient = of_lattice(200, 1000)  # ten neighbours each
    assert clustered == pytest.approx(2 / 3)
    ring = nx.to_numpy_array(nx.watts_strogatz_graph(200, 10, 0, seed=0)) > 0
    assert efficient == pytest.approx(float(efficiency(ring)))
    assert lattice(200, 1000).sum() == 2000
    assert lattice(7, 9).sum() == 18
