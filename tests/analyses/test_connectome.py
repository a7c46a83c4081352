"""Planted modules are found, noise and spectra are not taken for them, and rotations tell."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import xarray as xr

from analyses import AnalysisError
from analyses.connectome import (
    Connectome,
    between_lattice_and_chance,
    directions_at_random,
    hubs,
    of_moments,
    permuted,
    rotated,
)
from analyses.graphs import communities, modularity, rewired
from scanner import Subject

SMALL = Connectome("resid_post", nodes=60, densities=(0.1, 0.2), nulls=4)
ITEMS, UNITS = 120, 90


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def subject(*layers: np.ndarray) -> Subject:
    """Each item once, of the activations item x unit of each layer."""
    items = len(layers[0])
    volume = xr.Dataset(
        {"resid_post": (("layer", "stimulus", "unit"), np.stack(layers))},
        coords={
            "layer": np.arange(len(layers)),
            "item": ("stimulus", [f"item{number}" for number in range(items)]),
            "frame": ("stimulus", ["frame"] * items),
            "category": ("stimulus", ["one", "other"] * (items // 2)),
        },
    )
    return Subject("toy", volume, {})


def noise(seed: int = 0) -> np.ndarray:
    return generator(seed).normal(size=(ITEMS, UNITS))


def spectrum(seed: int = 0) -> np.ndarray:
    """Few dimensions in a basis at random: nothing is of a unit."""
    spread = np.arange(1, UNITS + 1) ** -1.0
    return (noise(seed) * spread) @ directions_at_random(UNITS, UNITS, generator(seed + 1))


def modules(seed: int = 0, size: float = 1.0) -> np.ndarray:
    shared = generator(seed + 1).normal(size=(ITEMS, 6))
    return noise(seed) + size * shared[:, np.arange(UNITS) % 6]


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return SMALL(subject(noise(), spectrum(), modules()), rng=generator(3))


def test_modules_of_other_items_are_found_where_they_were_planted(found: xr.Dataset) -> None:
    of_noise, of_spectrum, of_modules = found["modularity"].values
    assert abs(of_noise) < 0.03
    assert of_modules > 0.5
    agreed = found["agreement_of_halves"].values
    assert abs(agreed[0]) < 0.05 and agreed[2] > 0.7
    # What the largest modularity is of noise is why it is not what is measured.
    assert float(found["largest_modularity"].sel(reference="observed")[0]) > 0.1
    assert found.attrs == {} and found["modularity"].attrs["chance"] == 0
    assert found["matrix"].attrs["layer"] == 2
    assert found["matrix"].attrs["modules"] == 6
    assert found["node"][0].item().startswith("unit ")


def test_rotations_have_what_a_spectrum_has_and_not_what_units_have(found: xr.Dataset) -> None:
    excess = found["excess"].mean("density").values
    assert abs(excess[0]) < 0.05
    assert excess[2] > 0.2
    # A rewired graph is less modular than either: it would have let the spectrum pass.
    largest = found["largest_modularity"].sel(layer=1)
    assert float(largest.sel(reference="observed")) > float(largest.sel(reference="rewired")) + 0.15
    assert (
        float(largest.sel(reference="observed")) > float(largest.sel(reference="permuted")) + 0.15
    )
    ratios = found["over_reference"].sel(layer=1)
    assert float(ratios.sel(against="rewired")) > 1.25
    assert float(ratios.sel(against="rotated")) == pytest.approx(1, abs=0.25)


def test_a_basis_at_random_is_as_modular_as_others_on_average() -> None:
    """One basis differs from the next by 0.04 or so; eight of them, on average, by a third."""
    analysis = replace(SMALL, densities=(0.15,))
    excess = [
        float(analysis(subject(spectrum(seed)), rng=generator(seed))["excess"].mean())
        for seed in range(8)
    ]
    assert np.mean(excess) == pytest.approx(0, abs=0.05)


def test_correlations_at_random_have_the_mean_and_variance_of_others() -> None:
    rng = generator()
    data = rng.normal(size=(60, 80)) + 0.7 * rng.normal(size=(60, 1))
    edges = np.corrcoef(data, rowvar=False)
    upper = np.triu_indices(80, 1)
    drawn = np.array([of_moments(edges, rng)[upper] for _ in range(50)])
    assert drawn.mean() == pytest.approx(edges[upper].mean(), rel=0.05)
    assert drawn.std(1).mean() == pytest.approx(edges[upper].std(), rel=0.1)


def test_correlations_that_hardly_vary_are_drawn_as_they_are() -> None:
    edges = np.full((60, 60), 0.3) + np.eye(60) * 0.7
    np.testing.assert_allclose(of_moments(edges, generator()), edges, rtol=1e-9)
    small = generator().normal(0, 1e-5, size=(60, 60))
    edges = np.eye(60) + np.triu(small, 1) + np.triu(small, 1).T
    drawn = of_moments(edges, generator(1))
    np.testing.assert_array_equal(drawn, drawn.T)
    assert drawn[np.triu_indices(60, 1)].std() == pytest.approx(1e-5, rel=0.1)


def test_they_are_as_modular_as_noise_and_more_so_than_a_spectrum() -> None:
    """300 nodes, 1,200 items, 10 % of pairs: noise has 0.16, variances that fall as 1/k 0.24."""
    analysis = Connectome("resid_post", nodes=300, densities=(0.1,), sign="absolute")
    basis = np.linalg.qr(generator(1).normal(size=(300, 300)))[0]
    found = []
    for variances in (np.ones(300), 1 / np.arange(1, 301) ** 2):
        data = generator(2).normal(size=(1200, 300)) * np.sqrt(variances) @ basis.T
        edges = analysis._edges(data)
        graphs = [
            analysis._strongest(analysis._signed(one), generator())
            for one in (edges, of_moments(edges, generator()))
        ]
        found.append([modularity(one, communities(one, generator())).item() for one in graphs])
    (noise, like_noise), (spectrum, like_spectrum) = found
    assert like_noise == pytest.approx(noise, abs=0.02)
    assert like_spectrum > spectrum + 0.1


@pytest.mark.parametrize(("items", "expected"), [(50, 1.90), (100, 1.44), (400, 1.13)])
def test_noise_is_a_small_world_where_items_are_few(items: int, expected: float) -> None:
    """500 nodes of noise at a density of 5 %: correlations make triangles (Zalesky et al. 2012)."""
    world = subject(generator(items).normal(size=(items, 500)))
    absolute, positive = (
        Connectome("resid_post", nodes=500, sign=sign, densities=(0.05,)).measured(
            world, variable="small_world", rng=generator()
        )
        for sign in ("absolute", "positive")
    )
    assert float(absolute[0]) == pytest.approx(expected, rel=0.07)
    # What goes together with a third goes together; what goes against it does not.
    assert float(positive[0]) > float(absolute[0]) + 0.3


def test_small_worlds_lie_between_a_ring_and_chance() -> None:
    graphs = np.array(
        [
            nx.to_numpy_array(nx.watts_strogatz_graph(200, 10, p, seed=1)) > 0
            for p in (0.0, 0.03, 0.05, 1.0)
        ]
    )
    drawn = [rewired(graph, count=10, rng=np.random.default_rng(0)) for graph in graphs]
    omega, propensity = between_lattice_and_chance(graphs, drawn)
    # Of a ring and of chance one of two is missing: 1 less the root of a half.
    assert propensity[0] == pytest.approx(1 - np.sqrt(0.5), abs=0.01)
    assert propensity[3] == pytest.approx(1 - np.sqrt(0.5), abs=0.05)
    assert (propensity[1:3] > 0.7).all()
    assert omega[0] < -0.5 and omega[3] > 0.8
    assert (np.diff(omega) > 0).all()
    assert (np.abs(omega[1:3]) < 0.35).all()


def test_hubs_are_told_by_where_their_neighbours_are() -> None:
    rng = np.random.default_rng(0)
    modules = np.repeat(np.arange(6), 25)
    graph = (modules[:, None] == modules) & (rng.random((150, 150)) < 0.15)
    graph[0, 1:25] = True  # in one module
    graph[25, 26:50] = graph[25, 50:62] = graph[25, 75:87] = True  # in three
    graph[50] = True  # in all alike
    graph = (graph | graph.T) & ~np.eye(150, dtype=bool)
    shares = hubs(np.array([graph, graph]), np.array([modules, modules]))
    np.testing.assert_allclose(shares * 150, [1, 1, 1])


@pytest.mark.parametrize("edges", ["correlation", "partial correlation"])
@pytest.mark.parametrize("sign", ["positive", "absolute"])
def test_measures_alone_are_those_of_the_whole_and_layers_are_independent(edges, sign) -> None:
    analysis = Connectome(
        "resid_post", nodes=40, edges=edges, sign=sign, densities=(0.15,), nulls=1
    )
    world = subject(noise(), modules())
    whole = analysis(world, rng=generator(1))
    for name in analysis.measures:
        alone = analysis.measured(world, variable=name, rng=generator(1))
        xr.testing.assert_identical(alone.drop_attrs(), whole[name].drop_attrs().rename(None))
        assert alone.attrs["chance"] == whole[name].attrs["chance"]
        second = analysis.measured(world.at(1), variable=name, rng=generator(1))
        np.testing.assert_array_equal(second, alone[1:])


def test_either_sign_is_strong_where_that_was_asked() -> None:
    turned = modules() * np.where(generator(5).random(UNITS) < 0.5, 1, -1)
    positive, absolute = (
        float(
            Connectome("resid_post", nodes=60, sign=sign, densities=(0.1,)).measured(
                subject(turned), variable="modularity", rng=generator()
            )[0]
        )
        for sign in ("positive", "absolute")
    )
    straight = float(
        Connectome("resid_post", nodes=60, densities=(0.1,)).measured(
            subject(modules()), variable="modularity", rng=generator()
        )[0]
    )
    assert absolute == pytest.approx(straight, abs=0.1)
    assert positive != absolute


def test_units_that_do_nothing_have_no_first_among_them() -> None:
    silent = np.zeros((ITEMS, UNITS))
    graph = SMALL._graphs(silent[:, :60], generator())[0]
    other = SMALL._graphs(silent[:, :60], generator(1))[0]
    assert graph.sum() == other.sum() and (graph & other).sum() < 0.5 * graph.sum()


def test_references_keep_what_they_say() -> None:
    series = modules()
    shuffled = permuted(series, UNITS, generator())
    np.testing.assert_allclose(np.sort(shuffled, axis=0), np.sort(series, axis=0))
    turned = rotated(series, UNITS, generator())
    np.testing.assert_allclose(turned @ turned.T, series @ series.T, atol=1e-9)
    part = directions_at_random(50, 7, generator())
    np.testing.assert_allclose(part.T @ part, np.eye(7), atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 5}, "nodes must be at least 10"),
        ({"densities": ()}, "densities must be shares"),
        ({"densities": (0.1, 1.5)}, "densities must be shares"),
        ({"splits": 0}, "splits and rewirings must be at least 1"),
        ({"nulls": -1}, "nulls at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Connectome("resid_post", **settings)


def test_too_few_items_or_units_are_named() -> None:
    with pytest.raises(AnalysisError, match="6 items; 8 are needed"):
        SMALL(subject(noise()[:6]), rng=generator())
    with pytest.raises(AnalysisError, match="9 units; 10 are needed"):
        SMALL(subject(noise()[:, :9]), rng=generator())
