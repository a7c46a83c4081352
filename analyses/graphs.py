"""Graphs of nodes that go together, as matrices: what networks are measured by.

Of graphs with some hundred nodes, products of matrices are the fast way, and many graphs are
measured at once: all functions take arrays with further dimensions in front.
"""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

# Bytes of the graphs whose communities are found at once.
HELD = 2**26
# By how many edges a node must gain to move: less is rounding.
GAIN = 1e-9
# Of the pairs of nodes, how many are proposed at once as new edges: more get in each other's way.
PROPOSED = 0.125
# Graphs that are rewired side by side: as many as a cache holds.
CHAINS = 16
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


def communities(graphs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Communities by the Louvain method (Blondel et al. 2008).

    Nodes move one after the other, in an order at random, to where modularity rises most; then
    communities are nodes, and move again, until none does. Of many graphs, each moves its own.

    Parameters
    ----------
    graphs : numpy.ndarray
        ... x node x node, symmetric, of weights that are not negative, or bool.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        ... x node; from 0 on in each graph.
    """
    return _found(graphs, _beyond_chance, rng)


def signed_communities(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same, of weights of either sign: what makes `signed_modularity` large.

    Parameters
    ----------
    weights : numpy.ndarray
        ... x node x node, symmetric.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        ... x node; from 0 on in each.
    """
    return _found(weights, _signed_beyond_chance, rng)


def two_sided_modularity(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The modularity of graphs whose edges join nodes of one side with those of another.

    As `modularity`, of communities as of `communities`, which hold nodes of both sides; what is
    expected by chance joins both sides alone, too (Barber 2007).

    Parameters
    ----------
    weights : numpy.ndarray
        ... x node x other node, not negative.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        ...; 0 for a graph without edges. The largest that is found, which is above 0 by chance.
    """
    rows, columns = weights.shape[-2:]
    flat = weights.reshape(-1, rows, columns).astype(float)
    whole = flat.sum((1, 2))[:, None, None]
    filled = np.where(whole > 0, whole, 1)
    beyond = flat - flat.sum(2, keepdims=True) * flat.sum(1, keepdims=True) / filled
    found = []
    some = max(1, HELD // (8 * (rows + columns) ** 2))
    for start in range(0, len(beyond), some):
        between = beyond[start : start + some]
        benefits = np.zeros((len(between), rows + columns, rows + columns))
        benefits[:, :rows, rows:] = between
        benefits[:, rows:, :rows] = between.swapaxes(1, 2)
        modules = _louvain(benefits, rng)
        shared = modules[:, :rows, None] == modules[:, None, rows:]
        found.append(np.sum(between * shared, axis=(1, 2)))
    return np.concatenate(found).reshape(weights.shape[:-2]) / filled.reshape(weights.shape[:-2])


def _found(
    graphs: np.ndarray,
    benefits: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    nodes = graphs.shape[-1]
    flat = graphs.reshape(-1, nodes, nodes)
    some = max(1, HELD // (8 * nodes**2))
    found = [
        _louvain(benefits(flat[start : start + some].astype(float)), rng)
        for start in range(0, len(flat), some)
    ]
    return np.concatenate(found).reshape(graphs.shape[:-1])


def _beyond_chance(weights: np.ndarray) -> np.ndarray:
    """By how much each edge is more than nodes of such degrees have by chance."""
    degrees = weights.sum(2)
    whole = degrees.sum(1)[:, None, None]
    return weights - degrees[:, :, None] * degrees[:, None] / np.where(whole > 0, whole, 1)


def _signed_beyond_chance(weights: np.ndarray) -> np.ndarray:
    """The same of positive edges, less that of negative ones as far as there are some."""
    positive, negative = np.maximum(weights, 0), np.maximum(-weights, 0)
    sizes = [one.sum((1, 2))[:, None, None] for one in (positive, negative)]
    both = np.where(sum(sizes) > 0, sum(sizes), 1)
    return _beyond_chance(positive) - sizes[0] / both * _beyond_chance(negative)


def _louvain(benefits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Communities of graphs at once (graph x node), of what it is worth to join every two nodes."""
    found = np.broadcast_to(np.arange(benefits.shape[1]), benefits.shape[:2])
    while True:
        joined, moved = _settled(benefits, rng)
        found = np.take_along_axis(joined, found, axis=1)
        if not moved:
            return found
        # Graphs of fewer communities have nodes that are worth nothing for the rest; these stay.
        member = (joined[..., None] == np.arange(joined.max() + 1)).astype(float)
        benefits = member.swapaxes(1, 2) @ benefits @ member


def _settled(benefits: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Where nodes have moved to when none gains by moving, and whether any has moved.

    Communities are counted from 0 in each graph.
    """
    graphs, nodes = benefits.shape[:2]
    between = benefits * ~np.eye(nodes, dtype=bool)
    gain = between.copy()  # of each node, in each community
    label = np.tile(np.arange(nodes), (graphs, 1))
    moving, moved = np.arange(graphs), False
    while len(moving):
        gained = np.zeros(len(moving), dtype=bool)
        row = np.arange(len(moving))
        for node in rng.random((len(moving), nodes)).argsort(1).T:
            own, here = label[moving, node], gain[moving, node]
            best = here.argmax(1)
            better = np.flatnonzero(here[row, best] > here[row, own] + GAIN)
            if not len(better):
                continue
            graph, one, old, new = moving[better], node[better], own[better], best[better]
            gain[graph, :, old] -= between[graph, one]
            gain[graph, :, new] += between[graph, one]
            label[graph, one] = new
            gained[better] = moved = True
        moving = moving[gained]
    used = np.zeros((graphs, nodes), dtype=int)
    np.put_along_axis(used, label, 1, axis=1)
    return np.take_along_axis(used.cumsum(1) - 1, label, axis=1), moved


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
        found = communities(np.broadcast_to(graph, (runs, *graph.shape)), rng)
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


def signed_modularity(weights: np.ndarray, modules: np.ndarray) -> np.ndarray:
    """Modularity of edges of either sign, in which positive ones count for more.

    That of positive edges, less that of negative ones as far as there are some (Rubinov & Sporns
    2011).

    Parameters
    ----------
    weights : numpy.ndarray
        ... x node x node, symmetric.
    modules : numpy.ndarray
        ... x node, from 0 on.

    Returns
    -------
    numpy.ndarray
        ...; 0 for no edges.
    """
    parts = [np.maximum(sign * weights, 0) for sign in (1, -1)]
    sizes = [one.sum((-2, -1)) for one in parts]
    share = sizes[1] / np.where(sum(sizes) > 0, sum(sizes), 1)
    positive, negative = (modularity(one, modules) for one in parts)
    return positive - share * negative


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
    # One by one: a graph and what is reached in it stay within a cache.
    found = [_nearness(graph) for graph in graphs.reshape(-1, nodes, nodes)]
    return np.array(found).reshape(graphs.shape[:-2]) / (nodes * (nodes - 1))


def _nearness(graph: np.ndarray) -> float:
    """The sum of the inverse lengths of the shortest paths between all nodes."""
    itself = np.eye(len(graph), dtype=bool)
    edges, seen = graph.astype(np.float32), graph | itself
    newest, total, length = graph & ~itself, 0.0, 1
    while newest.any():
        total += newest.sum() / length
        if seen.all():
            break
        newest = (newest.astype(np.float32) @ edges > 0) & ~seen
        seen |= newest
        length += 1
    return total


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


def within_module_degree(graph: np.ndarray, modules: np.ndarray) -> np.ndarray:
    """How many more neighbours a node has in its module than others there have.

    Parameters
    ----------
    graph : numpy.ndarray
        node x node, bool.
    modules : numpy.ndarray
        node, from 0 on.

    Returns
    -------
    numpy.ndarray
        node, in standard deviations within the module; 0 where all have as many. Guimerà & Amaral
        (2005).
    """
    own = np.sum(graph & (modules[:, None] == modules), axis=1).astype(float)
    sizes = np.bincount(modules)
    mean = (np.bincount(modules, own) / np.maximum(sizes, 1))[modules]
    variance = (np.bincount(modules, (own - mean) ** 2) / np.maximum(sizes, 1))[modules]
    return np.divide(own - mean, np.sqrt(variance), out=np.zeros_like(own), where=variance > 0)


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
    steps, found = int(np.ceil(swaps * len(ends) / done)), []
    for start in range(0, count, CHAINS):
        chains = _Chains(graph, ends, min(CHAINS, count - start), pairs, rng)
        for _ in range(steps):
            chains.step()
        found.append(chains.graphs)
    return np.concatenate(found)


class _Chains:
    """Graphs that are rewired side by side."""

    def __init__(
        self, graph: np.ndarray, ends: np.ndarray, count: int, pairs: int, rng: np.random.Generator
    ) -> None:
        self.graphs = np.repeat(graph[None], count, axis=0)
        self.one, self.other = (np.tile(end.astype(np.int32), count) for end in ends.T)
        self.pairs, self.rng, self.done = pairs, rng, 0
        # chain x edge, as places among the edges of all chains.
        self.edges = np.arange(count * len(ends), dtype=np.int32).reshape(count, -1)
        # Where the pairs of nodes of each chain begin among those of all.
        self.begin = np.arange(count, dtype=np.int32)[:, None] * len(graph) ** 2
        # Of each pair of nodes, a place among what was last proposed.
        self.place = np.zeros(self.graphs.size, dtype=np.int32)

    def step(self) -> None:
        """Exchange the ends of some pairs of edges."""
        nodes, there = self.graphs.shape[1], self.graphs.reshape(-1)
        self.rng.permuted(self.edges, axis=1, out=self.edges)
        first = self.edges[:, : self.pairs]
        second = self.edges[:, self.pairs : 2 * self.pairs]
        turned = self.rng.random(first.shape, dtype=np.float32) < 0.5
        a, b, c, d = (
            ends.take(edges) for edges in (first, second) for ends in (self.one, self.other)
        )
        c, d = np.where(turned, d, c), np.where(turned, c, d)

        def key(one: np.ndarray, other: np.ndarray) -> np.ndarray:
            return self.begin + np.minimum(one, other) * nodes + np.maximum(one, other)

        new = np.stack([key(a, d), key(c, b)])
        free = (a != c) & (a != d) & (b != c) & (b != d) & ~there.take(new).any(0)
        # In the way: proposed by another pair as well, or to be removed here and proposed there.
        free &= self._once(new.ravel()).reshape(new.shape).all(0)
        free &= ~self._proposed(new, key(a, b)) & ~self._proposed(new, key(c, d))
        begin = np.broadcast_to(self.begin, free.shape)[free]
        a, b, c, d, first, second = (one[free] for one in (a, b, c, d, first, second))
        for one, other, now in ((a, b, False), (c, d, False), (a, d, True), (c, b, True)):
            there[begin + one * nodes + other] = there[begin + other * nodes + one] = now
        self.one[first], self.other[first] = a, d
        self.one[second], self.other[second] = c, b
        self.done += len(a)

    def _once(self, new: np.ndarray) -> np.ndarray:
        """Which pairs of nodes are proposed once: those that are the first and the last."""
        order = np.arange(len(new), dtype=np.int32)
        self.place[new] = order
        last = self.place.take(new) == order
        self.place[new[::-1]] = order[::-1]
        return last & (self.place.take(new) == order)

    def _proposed(self, new: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Which edges are among what `_once` was just given."""
        return new.ravel().take(self.place.take(edges)) == edges


@cache
def of_lattice(nodes: int, edges: int) -> tuple[float, float]:
    """Clustering and efficiency of `lattice`."""
    graph = lattice(nodes, edges)
    return float(clustering(graph)), float(efficiency(graph))


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
