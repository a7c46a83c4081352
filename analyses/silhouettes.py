"""How much nearer items are to their group than to the next one, in the full space.

Rousseeuw (1987), of patterns of items and not of a plane that shows them, which makes clusters of
its own (Chari & Pachter 2023). What is expected of groups of nothing is below 0, and depends on
their number and sizes, so that groups are held against the same dealt out anew.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import pdist, squareform

from analyses.base import AnalysisError, labels
from analyses.words import in_spreads, word_means
from scanner import Subject


def silhouettes(
    x: Sequence[np.ndarray],
    subject: Subject,
    label: str,
    group: str,
    dealings: int,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """How much nearer an item is to its group than to the next one, within its domain.

    Of patterns of items, frames taken out, in spreads of each unit over the items of the domain.

    Parameters
    ----------
    x : sequence of numpy.ndarray
        Of each layer stimulus x unit.
    subject : Subject
    label, group : str
        Columns of the stimulus table.
    dealings : int
        Of the groups among the items of a domain.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        stimulus x layer x (1 + dealing): -1 to 1; first with the groups as they are.

    Raises
    ------
    AnalysisError
        If a domain has a single group.
    """
    items, frames, groups = (labels(subject, name) for name in ("item", "frame", group))
    domains = labels(subject, label)
    found = np.empty((len(items), len(x), 1 + dealings))
    for domain in np.unique(domains):
        inside = np.flatnonzero(domains == domain)
        names, codes = np.unique(groups[inside], return_inverse=True)
        if len(names) < 2:
            raise AnalysisError(f"'{domain}' of '{label}' has one value of '{group}'; needed are 2")
        first, which = np.unique(items[inside], return_index=True, return_inverse=True)[1:]
        of_words = codes[first]
        dealt = np.array([of_words, *(rng.permutation(of_words) for _ in range(dealings))])
        for layer, values in enumerate(x):
            some = values[inside]
            words, _, _ = word_means([some], items[inside], frames[inside], codes)
            pattern = in_spreads(words[0], some)
            found[inside, layer] = silhouette(squareform(pdist(pattern)), dealt).T[which]
    return found


def silhouette(distances: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The silhouette of each item in several groupings of them at once (Rousseeuw 1987).

    Parameters
    ----------
    distances : numpy.ndarray
        item x item.
    codes : numpy.ndarray
        grouping x item: from 0, each once at least.

    Returns
    -------
    numpy.ndarray
        grouping x item; 0 of an item that is alone in its group.
    """
    member = codes[:, None] == np.arange(codes.max() + 1)[:, None]  # grouping x group x item
    size = member.sum(2)
    sums = np.einsum("rgj,ij->rgi", member.astype(float), distances)
    own_size = np.take_along_axis(size, codes, 1)
    within = np.take_along_axis(sums, codes[:, None], 1)[:, 0] / np.maximum(own_size - 1, 1)
    means = np.where(member, np.inf, sums / size[:, :, None])
    next_one = means.min(1)
    larger = np.maximum(within, next_one)
    made = np.divide(next_one - within, larger, out=np.zeros_like(within), where=larger > 0)
    return np.where(own_size > 1, made, 0.0)
