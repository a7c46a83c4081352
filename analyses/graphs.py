"""Graphs of nodes that go together, as matrices: what networks are measured by.

Of graphs with some hundred nodes, products of matrices are the fast way, and many graphs are
measured at once: all functions take arrays with further dimensions in front. Communities are found
by networkx.
"""

from collections.abc import Iterator

import networkx as nx
import numpy as np

# Of the pairs of nodes, how many are proposed at once as new edges: more get in each other's way.
PROPOSED = 0.125
# Steps that tell how many of these are done.
PILOT = 10


def strongest(weights: np.ndarray, density: float) -> np.ndarray:
    """The graph of the strongest connections.

    Parameters
    ----------
    weights : numpy.ndarray
        ... x node x node, symmetric.
    density : float
        The share of all pairs of nodes that are connected (proportional thresholding).

    Returns
    -------
    numpy.ndarray
        ... x node x node, bool.
    """
    nodes = weights.shape[-1]
    rows, columns = np.triu_indices(nodes, 1)
    pairs = weights[..., rows, columns]
    chosen = np.argpartition(-pairs, edges_of(nodes, density) - 1, axis=-1)
    chosen = chosen[..., : edges_of(nodes, density)]
    kept = np.zeros(pairs.shape, dtype=bool)
    np.put_along_axis(kept, chosen, True, axis=-1)
    graph = np.zeros(weights.shape, dtype=bool)
    graph[..., rows, columns] = kept
    return graph | graph.swapaxes(-1, -2)


def edges_of(nodes: int, density: float) -> int:
    """How many pairs of nodes are a share of all of them; at least one."""
    return max(1, round(density * nodes * (nodes - 1) / 2))


def communities(graph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Communities of one graph by the Louvain method (Blondel et al. 2008), of networkx.

    Parameters
    ----------
    graph : numpy.ndarray
        node x node, of weights that are not negative, or bool.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        node; from 0 on.
    """
    found = np.empty(len(graph), dtype=int)
    network = nx.Graph()
    network.add_nodes_from(range(len(graph)))
    one, other = np.nonzero(np.triu(graph))
    edges = zip(one.tolist(), other.tolist(), graph[one, other].astype(float).tolist(), strict=True)
    network.add_weighted_edges_from(edges)
    seed = int(rng.integers(2**31))
    for number, members in enumerate(nx.community.louvain_communities(network, seed=seed)):
        found[list(members)] = number
    return found


def consensus(graph: np.ndarray, rng: np.random.Generator, *, runs: int = 20) -> np.ndarray:
    """Communities that runs of the Louvain method agree on (Lancichinetti & Fortunato 2012).

    Parameters
    ----------
    graph : numpy.ndarray
        node x node.
    rng : numpy.random.Generator
    runs : int

    Returns
    -------
    numpy.ndarray
        node; from 0 on. Nodes that share a community in less than half of the runs share none.
    """
    while True:
        found = np.array([communities(graph, rng) for _ in range(runs)])
        agreed = np.mean(found[:, :, None] == found[:, None, :], axis=0)
        if np.isin(agreed, (0.0, 1.0)).all():
            return found[0]
        graph = np.where((agreed >= 0.5) & ~np.eye(len(agreed), dtype=bool), agreed, 0.0)


def modularity(graphs: np.ndarray, modules: np.ndarray) -> np.ndarray:
    """By how much more edges lie within modules than between nodes of such degrees by chance.

    Parameters
    ----------
    graphs : numpy.ndarray
        ... x node x node; numbers are weights.
    modules : numpy.ndarray
        ... x node, from 0 on.

    Returns
    -------
    numpy.ndarray
        ...; 0 for a graph without edges. Newman & Girvan (2004).
    """
    graphs = graphs.astype(float)
    member = modules[..., None] == np.arange(modules.max(initial=0) + 1)
    within = np.einsum("...im,...ij,...jm->...", member, graphs, member, optimize=True)
    degrees = graphs.sum(-1)
    expected = np.sum(np.einsum("...i,...im->...m", degrees, member) ** 2, axis=-1)
    whole = degrees.sum(-1)
    filled = np.where(whole > 0, whole, 1)
    return within / filled - expected / filled**2


def clustering(graphs: np.ndarray) -> np.ndarray:
    """How many of a node's neighbours are neighbours, on average over nodes.

    Parameters
    ----------
    graphs : numpy.ndarray
        ... x node x node, bool.

    Returns
    -------
    numpy.ndarray
        ...; nodes of fewer than two neighbours count as 0. Watts & Strogatz (1998).
    """
    edges = graphs.astype(np.float32)
    degrees = edges.sum(-1)
    triangles = np.sum((edges @ edges) * edges, axis=-1)
    pairs = degrees * (degrees - 1)
    each = np.divide(triangles, pairs, out=np.zeros_like(pairs), where=pairs > 0)
    return each.astype(float).mean(-1)


def efficiency(graphs: np.ndarray) -> np.ndarray:
    """The inverse of the harmonic mean of the lengths of the shortest paths.

    Parameters
    ----------
    graphs : numpy.ndarray
        ... x node x node, bool.

    Returns
    -------
    numpy.ndarray
        ...; pairs that no path connects count as 0, so that graphs in pieces have one, too. Latora
        & Marchiori (2001).
    """
    nodes = graphs.shape[-1]
    edges = graphs.astype(np.float32)
    seen = graphs | np.eye(nodes, dtype=bool)
    newest, total, length = graphs & ~np.eye(nodes, dtype=bool), 0.0, 1
    while newest.any():
        total = total + newest.sum((-1, -2)) / length
        newest = (newest.astype(np.float32) @ edges > 0) & ~seen
        seen |= newest
        length += 1
    return np.broadcast_to(total / (nodes * (nodes - 1)), graphs.shape[:-2])


def rich_club(graphs: np.ndarray) -> np.ndarray:
    """How many of all pairs of nodes with more than k neighbours are connected, for each k.

    Parameters
    ----------
    graphs : numpy.ndarray
        ... x node x node, bool.

    Returns
    -------
    numpy.ndarray
        ... x degree, from 0 to the number of nodes less one; NaN where fewer than two nodes have
        more. Not normalised: hold it against `rewired` graphs (Colizza et al. 2006).
    """
    nodes = graphs.shape[-1]
    degrees = graphs.sum(-1)
    # An edge counts for every k below the lower degree of its two ends.
    lower = np.minimum(degrees[..., :, None], degrees[..., None, :])
    flat = lower.reshape(-1, nodes, nodes)
    counts = np.array(
        [
            np.bincount(one[graph], minlength=nodes)
            for one, graph in zip(flat, graphs.reshape(flat.shape), strict=True)
        ]
    ).reshape(*graphs.shape[:-2], nodes)
    edges = _above(counts) / 2
    rich = _above(np.sum(degrees[..., None] == np.arange(nodes), axis=-2))
    pairs = rich * (rich - 1) / 2
    return np.divide(edges, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)


def _above(counts: np.ndarray) -> np.ndarray:
    """Of counts by value, how many are of a greater one."""
    return counts.sum(-1, keepdims=True) - np.cumsum(counts, axis=-1)


def participation(graph: np.ndarray, modules: np.ndarray) -> np.ndarray:
    """How evenly the edges of each node go to all modules.

    Parameters
    ----------
    graph : numpy.ndarray
        node x node; numbers are weights.
    modules : numpy.ndarray
        node, from 0 on.

    Returns
    -------
    numpy.ndarray
        node; 0 where all go to one, 1 - 1 / modules where as many go to each, NaN for nodes
        without edges. Guimerà & Amaral (2005).
    """
    member = modules[:, None] == np.arange(modules.max(initial=0) + 1)
    to_each = graph.astype(float) @ member
    degrees = to_each.sum(1, keepdims=True)
    shares = np.divide(to_each, degrees, out=np.full(to_each.shape, np.nan), where=degrees > 0)
    return 1 - np.sum(shares**2, axis=1)


def rewired(
    graph: np.ndarray, *, count: int, swaps: float = 10.0, rng: np.random.Generator
) -> np.ndarray:
    """Graphs whose nodes have as many neighbours, and which are random otherwise.

    Two edges a-b and c-d become a-d and c-b, again and again (Maslov & Sneppen 2002). Many are
    tried at once, and none is done that is in the way of another, so that each step can be undone
    as easily as done: every graph of these degrees is as likely as any other.

    Parameters
    ----------
    graph : numpy.ndarray
        node x node, bool.
    count : int
        Of graphs.
    swaps : float
        About how many are done, for each edge.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        graph x node x node, bool. Of a graph that allows few swaps or none, fewer are done.
    """
    nodes, ends = len(graph), np.argwhere(np.triu(graph, 1))
    pairs = min(len(ends) // 2, max(1, int(PROPOSED * nodes * (nodes - 1) / 2)))
    if not pairs:
        return np.repeat(graph[None], count, axis=0)
    # As many trials for each: to end with a swap that was done would favour graphs with many ways
    # on.
    tried = _Chains(graph, ends, 1, pairs, rng)
    for _ in range(PILOT):
        tried.step()
    done = max(tried.done / PILOT, 0.01 * pairs)
    chains = _Chains(graph, ends, count, pairs, rng)
    for _ in range(int(np.ceil(swaps * len(ends) / done))):
        chains.step()
    return chains.graphs


class _Chains:
    """Graphs that are rewired side by side."""

    def __init__(
        self, graph: np.ndarray, ends: np.ndarray, count: int, pairs: int, rng: np.random.Generator
    ) -> None:
        self.graphs = np.repeat(graph[None], count, axis=0)
        # chain x edge
        self.one, self.other = (np.repeat(end[None], count, axis=0) for end in ends.T)
        self.pairs, self.rng, self.done = pairs, rng, 0

    def step(self) -> None:
        """Exchange the ends of some pairs of edges."""
        chains, nodes = len(self.graphs), self.graphs.shape[1]
        row = np.arange(chains)[:, None]
        order = self.rng.random(self.one.shape).argsort(1)
        first, second = order[:, : self.pairs], order[:, self.pairs : 2 * self.pairs]
        turned = self.rng.random(first.shape) < 0.5
        a, b, c, d = (
            self.one[row, first],
            self.other[row, first],
            self.one[row, second],
            self.other[row, second],
        )
        c, d = np.where(turned, d, c), np.where(turned, c, d)

        def key(one: np.ndarray, other: np.ndarray) -> np.ndarray:
            return (row * nodes + np.minimum(one, other)) * nodes + np.maximum(one, other)

        new = np.stack([key(a, d), key(c, b)])
        proposed = np.bincount(new.ravel(), minlength=chains * nodes**2)
        there = self.graphs.reshape(-1)
        free = (a != c) & (a != d) & (b != c) & (b != d) & ~there[new].any(0)
        # In the way: proposed by another pair as well, or to be removed here and proposed there.
        free &= (proposed[new] == 1).all(0)
        free &= (proposed[key(a, b)] == 0) & (proposed[key(c, d)] == 0)
        chain, _ = np.nonzero(free)
        a, b, c, d = (one[free] for one in (a, b, c, d))
        for one, other, now in ((a, b, False), (c, d, False), (a, d, True), (c, b, True)):
            self.graphs[chain, one, other] = self.graphs[chain, other, one] = now
        self.one[chain, first[free]], self.other[chain, first[free]] = a, d
        self.one[chain, second[free]], self.other[chain, second[free]] = c, b
        self.done += len(a)


def lattice(nodes: int, edges: int) -> np.ndarray:
    """A ring of nodes, each connected with the nearest: the most clustered graph of this size.

    Parameters
    ----------
    nodes, edges : int

    Returns
    -------
    numpy.ndarray
        node x node, bool.
    """
    graph = np.zeros((nodes, nodes), dtype=bool)
    for number, (one, other) in enumerate(_ring(nodes)):
        if number == edges:
            break
        graph[one, other] = graph[other, one] = True
    return graph


def _ring(nodes: int) -> Iterator[tuple[int, int]]:
    """Pairs of nodes on a ring, the nearest first."""
    for apart in range(1, nodes // 2 + 1):
        for one in range(nodes if 2 * apart < nodes else nodes // 2):
            yield one, (one + apart) % nodes
