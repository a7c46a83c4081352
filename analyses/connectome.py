"""The functional connectome: which units go together over stimuli, and what network they make.

Nodes are units of a layer, drawn at random; edges join those whose activities go together most over
items, at several densities, since any one threshold is a matter of luck (van Wijk et al. 2010;
Garrison et al. 2015). Curves over densities are averaged.

Correlations alone make networks with modules that are small worlds (Zalesky et al. 2012), and more
so the fewer the stimuli are. So three things differ from what is usual. Modules are found in one
half of the items and their modularity is measured in the other: without modules it is 0, where the
largest modularity of a graph of noise is not. Beside the usual references, rewired graphs (Maslov &
Sneppen 2002) and stimuli permuted node by node, stands a random rotation of the units: it keeps all
variances and covariances of the layer and forgets which unit is which, so that what it has as well
belongs to the spectrum and not to units. Correlations at random with the mean and variance of those
observed (Hirschberger et al. 2007; Zalesky et al. 2012) are shown, and decide nothing: where few
dimensions have most of the variance they are far more modular. And the number of items and the mean
correlation are told.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from nilearn.connectome import ConnectivityMeasure
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.metrics import adjusted_rand_score

from analyses.base import Analysis, AnalysisError, Asks, Quantity, labels, register, vectors
from analyses.graphs import (
    clustering,
    communities,
    consensus,
    efficiency,
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
from analyses.splits import item_groups
from analyses.words import word_means
from scanner import Subject

Edges = Literal["correlation", "partial correlation"]
# Correlations that are shrunk to nothing have no order any more.
ESTIMATORS = {"correlation": EmpiricalCovariance, "partial correlation": LedoitWolf}
REFERENCES = ("rewired", "permuted", "moments", "rotated")
# The rich are those of whom no more than this share have more neighbours, and no fewer.
RICH = (0.05, 0.25)
# Of hubs: by how much they are, and the participation coefficients that tell their roles apart.
HUB = 2.5
ROLES = ("provincial", "connector", "kinless")
TIES = (0.3, 0.75)
CHANCE = {"modularity": 0.0, "small_world": 1.0, "rich_club": 0.0}
# Numbers that are multiplied to correlations at random, for each node: of more, a sum is normal.
MANY = 10
# Of the values that graphs at random take, what is drawn.
RANGE = (0.025, 0.975)


@register
@dataclass(frozen=True)
class Connectome(Analysis):
    """Make graphs of units, and measure them.

    Attributes
    ----------
    site : str
        Kind of site to read.
    nodes : int
        Units, drawn at random; all where there are fewer.
    edges : {'correlation', 'partial correlation'}
        Of nilearn. Partial ones are of covariances that are shrunk as much as so few items need
        (Ledoit & Wolf 2004); the order of others, which is all that a graph keeps, is the same.
    sign : {'positive', 'absolute'}
        Whether strong is positive, or of either sign.
    densities : tuple of float
        Shares of all pairs of nodes that are connected.
    splits : int
        Halvings of the items.
    nulls : int
        Graphs of each reference.
    rewirings : int
        The same for what a measure is over that of rewired graphs.
    """

    asks: ClassVar[Asks] = "structure"

    site: str
    nodes: int = 200
    edges: Edges = "correlation"
    sign: Literal["positive", "absolute"] = "positive"
    densities: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
    splits: int = 2
    nulls: int = 20
    rewirings: int = 5

    measures: ClassVar[Mapping[str, Quantity]] = {
        "modularity": Quantity(
            "how many more edges than by chance lie within modules that other items have shown",
            -1.0,
            1.0,
        ),
        "small_world": Quantity(
            "how many times more clustered a graph is than rewired ones, over how many times "
            "longer its paths are",
            0.0,
            float("inf"),
        ),
        "rich_club": Quantity(
            "how much larger the share of pairs of nodes of many neighbours is that are connected "
            "than in rewired graphs",
            -1.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if self.nodes < 10:
            raise ValueError("nodes must be at least 10")
        if not self.densities or not all(0 < one < 1 for one in self.densities):
            raise ValueError("densities must be shares between 0 and 1")
        if min(self.splits, self.rewirings) < 1 or self.nulls < 0:
            raise ValueError("splits and rewirings must be at least 1, nulls at least 0")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Describe.

        Returns
        -------
        xarray.Dataset
            ``modularity``, ``small_world``, ``rich_club`` (layer). ``agreement_of_halves`` (layer):
            of the modules in two halves of the items, the adjusted Rand index (Hubert & Arabie
            1985), 0 for none. ``signed_modularity`` (layer): of all correlations with their signs,
            none left out, in modules that the other half has shown (Rubinov & Sporns 2011).
            ``mean_correlation`` (layer): of all pairs of nodes, without sign.
            ``participation_coefficient`` (layer): on average over nodes. ``omega`` (layer): -1 for
            a ring of neighbours, 1 for a graph at random, 0 between (Telesford et al. 2011);
            ``propensity`` (layer): small-world propensity (Muldoon et al. 2016). ``hubs`` (layer,
            role): the share of nodes that are, by their modules (`hubs`). ``excess`` (layer,
            density): by how much the largest modularity is above that after rotation.
            Of the graphs (``reference``: observed, and `REFERENCES`), averaged over
            densities, the middle of all and the limits of 95 % of them: ``largest_modularity``,
            ``clustering_coefficient``, ``efficiency`` (layer, reference). ``over_reference``
            (layer, against): the small-world ratio of the graph with each, 1 for none. These only
            with `nulls`.
            ``matrix`` (node, other_node): how far nodes go together in the layer of the largest
            modularity, by modules, the largest first; NaN of a node with itself. Its coordinates:
            the names of nodes, and the ``module`` of each, from 0 on.

        Raises
        ------
        AnalysisError
            If there are fewer than eight items or ten units.
        """
        (subject,) = subjects
        series, order = self._series(subject, rng)
        found = [self._layer(one, deepcopy(rng)) for one in series]
        result = xr.concat(found, "layer").assign_coords(layer=subject.volume["layer"].to_numpy())
        for name, chance in CHANCE.items():
            result[name].attrs["chance"] = chance
        names = self._names(subject, order)
        matrix = self._matrix(series, names, result, rng)
        return result.assign(matrix=matrix)

    def _names(self, subject: Subject, order: np.ndarray) -> np.ndarray:
        """What nodes are called: parcels have a name, units a number."""
        volume = subject.volume
        if "parcel_name" in volume.coords and "parcel" in volume[self.site].dims:
            return volume["parcel_name"].to_numpy().astype(object).astype(str)[order[: self.nodes]]
        return np.array([f"unit {unit}" for unit in order[: self.nodes]])

    def _matrix(
        self,
        series: np.ndarray,
        names: np.ndarray,
        result: xr.Dataset,
        rng: np.random.Generator,
    ) -> xr.DataArray:
        """How far nodes go together where modules are clearest, module by module."""
        best = int(result["modularity"].argmax("layer"))
        nodes = series[best][:, : self.nodes]
        middle = self._graphs(nodes, rng)[len(self.densities) // 2]
        modules = consensus(middle, rng)
        sizes = np.bincount(modules)
        order = np.lexsort((modules, -sizes[modules]))
        matrix = self._weights(nodes)[np.ix_(order, order)]
        np.fill_diagonal(matrix, np.nan)
        attrs = {"layer": int(result["layer"][best]), "modules": int((sizes > 1).sum())}
        ranks = np.empty(len(sizes), dtype=int)
        ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        return xr.DataArray(
            matrix,
            dims=("node", "other_node"),
            coords={
                "node": names[order], "other_node": names[order],
                "module": ("node", ranks[modules[order]]),
            },
            attrs=attrs,
        )  # fmt: skip

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        layers, _ = self._series(subject, rng)
        values = [self._measure(variable, series, deepcopy(rng)) for series in layers]
        return xr.DataArray(
            values, dims="layer", coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": CHANCE[variable]},
        )  # fmt: skip

    def _series(self, subject: Subject, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The activity of all units over items, layer x item x unit, and which units they are.

        The first are the nodes.
        """
        items, frames = labels(subject, "item"), labels(subject, "frame")
        nothing = np.zeros(len(items), dtype=int)
        words, _, names = word_means(vectors(subject, self.site), items, frames, nothing)
        if len(names) < 8:
            raise AnalysisError(f"connectome: {len(names)} items; 8 are needed")
        if words.shape[2] < 10:
            raise AnalysisError(f"connectome: {words.shape[2]} units; 10 are needed")
        order = rng.permutation(words.shape[2])
        return words[..., order], order

    def _measure(self, name: str, series: np.ndarray, rng: np.random.Generator) -> float:
        nodes = series[:, : self.nodes]
        if name == "modularity":
            return self._halved(nodes, rng)[0]
        graphs = self._graphs(nodes, rng)
        return self._over_rewired(graphs, self._rewired(graphs, rng))[name]

    def _rewired(self, graphs: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Graphs of the same degrees, of each: draw x node x node."""
        return [rewired(graph, count=self.rewirings, rng=rng) for graph in graphs]

    def _over_rewired(self, graphs: np.ndarray, drawn: list[np.ndarray]) -> dict[str, float]:
        """What graphs have over others of the same degrees, on average over densities."""
        more = [richer(graph, some) for graph, some in zip(graphs, drawn, strict=True)]
        omega, propensity = between_lattice_and_chance(graphs, drawn)
        return {
            "small_world": float(np.mean(small_worldness(graphs, drawn))),
            "rich_club": float(np.mean(more)),
            "omega": float(np.mean(omega)),
            "propensity": float(np.mean(propensity)),
        }

    def _layer(self, series: np.ndarray, rng: np.random.Generator) -> xr.Dataset:
        nodes = series[:, : self.nodes]
        held, agreed = self._halved(nodes, deepcopy(rng))
        with_signs = self._halved_with_signs(nodes, deepcopy(rng))
        weights = self._weights(nodes)
        graphs = self._graphs(nodes, rng)
        drawn = self._rewired(graphs, rng)
        result = {
            "modularity": held,
            **self._over_rewired(graphs, drawn),
            "agreement_of_halves": agreed,
            "signed_modularity": with_signs,
        }
        modules = communities(graphs, rng)
        result["mean_correlation"] = float(np.abs(weights[np.triu_indices(len(weights), 1)]).mean())
        result["participation_coefficient"] = float(
            np.mean(
                [np.nanmean(participation(*pair)) for pair in zip(graphs, modules, strict=True)]
            )
        )
        found = xr.Dataset(result).assign(hubs=("role", hubs(graphs, modules)))
        found = found.assign_coords(role=list(ROLES))
        return found.assign(self._beside(series, graphs, drawn, rng)) if self.nulls else found

    def _halved(self, nodes: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
        """Modularity in one half of the modules of the other, and how far both agree."""
        drawn = [[self._graphs(half, rng) for half in pair] for pair in self._halves(nodes, rng)]
        graphs = np.array(drawn).swapaxes(1, 2)  # split x density x half x node x node
        modules = communities(graphs, rng)
        held = modularity(graphs, modules[..., ::-1, :])
        pairs = modules.reshape(-1, 2, modules.shape[-1])
        return float(held.mean()), float(np.mean([adjusted_rand_score(*pair) for pair in pairs]))

    def _halved_with_signs(self, nodes: np.ndarray, rng: np.random.Generator) -> float:
        """Signed modularity in one half of the modules of the other, of all edges."""
        edges = np.array(
            [[self._edges(half) for half in pair] for pair in self._halves(nodes, rng)]
        )
        edges *= ~np.eye(edges.shape[-1], dtype=bool)
        return float(signed_modularity(edges, signed_communities(edges, rng)[:, ::-1]).mean())

    def _halves(
        self, nodes: np.ndarray, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Halves of the items: each item x node."""
        every = np.arange(len(nodes))
        for _ in range(self.splits):
            half = item_groups(every, np.zeros(len(nodes)), groups=2, rng=rng)
            yield nodes[half == 0], nodes[half == 1]

    def _graphs(self, nodes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Graphs of each density: density x node x node, from item x node."""
        return self._strongest(self._weights(nodes), rng)

    def _strongest(self, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # Nodes that do nothing go together with all others alike; the first are not the strongest.
        ties = 1e-9 * rng.normal(size=weights.shape)
        return np.stack([strongest(weights + ties + ties.T, one) for one in self.densities])

    def _weights(self, nodes: np.ndarray) -> np.ndarray:
        """How far nodes go together, as strong as `sign` takes it: node x node."""
        return self._signed(self._edges(nodes))

    def _signed(self, weights: np.ndarray) -> np.ndarray:
        return np.abs(weights) if self.sign == "absolute" else weights

    def _edges(self, nodes: np.ndarray) -> np.ndarray:
        estimator = ESTIMATORS[self.edges]()
        measure = ConnectivityMeasure(estimator, kind=self.edges, standardize=False)
        active = np.flatnonzero(np.ptp(nodes, axis=0) > 0)
        weights = np.zeros((nodes.shape[1],) * 2)
        if len(active) > 1:
            (weights[np.ix_(active, active)],) = measure.fit_transform([nodes[:, active]])
        return weights

    def _beside(
        self,
        series: np.ndarray,
        graphs: np.ndarray,
        known: list[np.ndarray],
        rng: np.random.Generator,
    ) -> xr.Dataset:
        """What graphs at random have; of the rewired ones some are known."""
        count = min(self.nodes, series.shape[1])

        def others(kind: str) -> np.ndarray:
            if kind == "rewired":
                drawn = [some[: self.nulls] for some in known]
                more = self.nulls - self.rewirings
                if more > 0:
                    drawn = [
                        np.concatenate([some, rewired(graph, count=more, rng=rng)])
                        for graph, some in zip(graphs, drawn, strict=True)
                    ]
                return np.stack(drawn, axis=1)
            if kind == "moments":
                edges = self._edges(series[:, :count])
                drawn = [self._signed(of_moments(edges, rng)) for _ in range(self.nulls)]
                return np.stack([self._strongest(one, rng) for one in drawn])
            make = permuted if kind == "permuted" else rotated
            return np.stack(
                [self._graphs(make(series, count, rng), rng) for _ in range(self.nulls)]
            )

        metrics: dict[str, list[np.ndarray]] = {
            "largest_modularity": [],
            "clustering_coefficient": [],
            "efficiency": [],
        }
        for kind in ("observed", *REFERENCES):
            drawn = graphs[None] if kind == "observed" else others(kind)
            flat = drawn.reshape(-1, *drawn.shape[-2:])
            values = modularity(flat, communities(flat, rng)), clustering(flat), efficiency(flat)
            for name, each in zip(metrics, values, strict=True):
                metrics[name].append(each.reshape(drawn.shape[:2]))
        result: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        for name, of_kinds in metrics.items():
            of_curves = [values.mean(1) for values in of_kinds]
            limits = [np.quantile(curves, (0.5, *RANGE)) for curves in of_curves]
            for suffix, values in zip(("", "_low", "_high"), np.transpose(limits), strict=True):
                result[name + suffix] = ("reference",), values
        largest, clustered, efficient = metrics.values()
        result["excess"] = ("density",), largest[0][0] - largest[-1].mean(0)
        ratios = [
            clustered[0][0] / clustered[place].mean(0) * efficient[0][0] / efficient[place].mean(0)
            for place in range(1, 1 + len(REFERENCES))
        ]
        result["over_reference"] = ("against",), np.mean(ratios, axis=1)
        return xr.Dataset(
            result,
            coords={
                "reference": ["observed", *REFERENCES],
                "against": list(REFERENCES),
                "density": list(self.densities),
            },
        )


def of_moments(edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Correlations at random whose mean and variance are those of others.

    Parameters
    ----------
    edges : numpy.ndarray
        node x node, with 1 of a node with itself.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        node x node. Hirschberger, Qi & Steuer (2007): products of as many numbers for each node as
        leave a node 1 with itself on average.
    """
    nodes = len(edges)
    between = edges[np.triu_indices(nodes, 1)]
    mean, variance = max(float(between.mean()), 0.0), float(between.var())
    most = MANY * nodes
    count = min(most, (1 - mean**2) / variance) if variance > 0 else most
    if count >= most:  # sums of so many are normal, and pairs of nodes nearly independent
        upper = np.triu(rng.normal(mean, np.sqrt(variance), size=(nodes, nodes)), 1)
        return upper + upper.T + np.eye(nodes)
    count = max(2, int(count))
    centre = np.sqrt(mean / count)
    spread = np.sqrt(np.sqrt(centre**4 + variance / count) - centre**2)
    drawn = rng.normal(centre, spread, size=(nodes, count))
    covariance = drawn @ drawn.T
    size = np.sqrt(np.diag(covariance))
    return covariance / size[:, None] / size


def permuted(series: np.ndarray, nodes: int, rng: np.random.Generator) -> np.ndarray:
    """The first units, each with its items in an order of its own: item x node."""
    return rng.permuted(series[:, :nodes], axis=0)


def rotated(series: np.ndarray, nodes: int, rng: np.random.Generator) -> np.ndarray:
    """As many units of a basis at random, as all bases are: item x node.

    Parameters
    ----------
    series : numpy.ndarray
        item x unit.
    nodes : int
    rng : numpy.random.Generator
    """
    return series @ directions_at_random(series.shape[1], nodes, rng)


def directions_at_random(units: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Orthogonal directions, uniformly at random: unit x direction (Stewart 1980)."""
    directions, triangle = np.linalg.qr(rng.normal(size=(units, count)))
    return directions * np.sign(np.diag(triangle))


def small_worldness(graphs: np.ndarray, drawn: list[np.ndarray]) -> np.ndarray:
    """The small-world ratio of each graph with graphs at random (Humphries & Gurney 2008).

    Parameters
    ----------
    graphs : numpy.ndarray
        graph x node x node.
    drawn : list of numpy.ndarray
        Of each: draw x node x node.

    Returns
    -------
    numpy.ndarray
        graph. Lengths of paths are harmonic means, so that graphs in pieces have one.
    """
    clustered = [
        clustering(graph) / clustering(some).mean()
        for graph, some in zip(graphs, drawn, strict=True)
    ]
    shorter = [
        efficiency(graph) / efficiency(some).mean()
        for graph, some in zip(graphs, drawn, strict=True)
    ]
    return np.array(clustered) * np.array(shorter)


def between_lattice_and_chance(
    graphs: np.ndarray, drawn: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Where graphs stand between a ring of neighbours and graphs at random.

    Parameters
    ----------
    graphs, drawn
        As of `small_worldness`.

    Returns
    -------
    omega : numpy.ndarray
        graph; the length of paths at random over theirs, less their clustering over that of a ring
        of as many edges (Telesford et al. 2011).
    propensity : numpy.ndarray
        graph; 1 if they are as clustered as the ring and have paths as short as at random, 0.29 for
        one of the two, 0 for neither (Muldoon et al. 2016, of graphs without weights).
    """
    omega, propensity = [], []
    for graph, some in zip(graphs, drawn, strict=True):
        nodes, edges = len(graph), int(graph.sum()) // 2
        clustered, efficient = float(clustering(graph)), float(efficiency(graph))
        by_chance = float(clustering(some).mean()), float(efficiency(some).mean())
        ring = of_lattice(nodes, edges)
        omega.append(efficient / by_chance[1] - clustered / ring[0])
        missing = _share(ring[0] - clustered, ring[0] - by_chance[0])
        longer = _share(1 / efficient - 1 / by_chance[1], 1 / ring[1] - 1 / by_chance[1])
        propensity.append(1 - np.sqrt((missing**2 + longer**2) / 2))
    return np.array(omega), np.array(propensity)


def _share(part: float, whole: float) -> float:
    return float(np.clip(part / whole, 0, 1)) if whole > 0 else 0.0


def hubs(graphs: np.ndarray, modules: np.ndarray) -> np.ndarray:
    """How many nodes are hubs of their module, and to how many modules they are tied.

    Parameters
    ----------
    graphs : numpy.ndarray
        graph x node x node.
    modules : numpy.ndarray
        graph x node.

    Returns
    -------
    numpy.ndarray
        role, as of `ROLES`; shares of the nodes, on average over graphs: those with
        `HUB` standard deviations more neighbours in their module than others there, most of whose
        neighbours are there, or in several modules, or evenly in all. Guimerà & Amaral (2005).
    """
    found = []
    for graph, own in zip(graphs, modules, strict=True):
        spread = participation(graph, own)
        central = within_module_degree(graph, own) >= HUB
        role = np.digitize(np.nan_to_num(spread), TIES, right=True)
        found.append([np.mean(central & (role == one)) for one in range(len(ROLES))])
    return np.mean(found, axis=0)


def richer(graph: np.ndarray, drawn: np.ndarray) -> float:
    """How many more pairs of the rich are connected than in graphs at random, of all such pairs.

    Parameters
    ----------
    graph : numpy.ndarray
        node x node.
    drawn : numpy.ndarray
        draw x node x node, of the same degrees.

    Returns
    -------
    float
        On average over the degrees that `RICH` takes for many; 0 where none is. van den Heuvel &
        Sporns (2011); a difference in the place of their ratio, which has no bounds where few nodes
        are rich.
    """
    degrees = graph.sum(0)
    above = np.mean(degrees > np.arange(len(graph))[:, None], axis=1)
    rich = (above >= RICH[0]) & (above <= RICH[1])
    if not rich.any():
        return 0.0
    return float((rich_club(graph)[rich] - rich_club(drawn)[:, rich].mean(0)).mean())
