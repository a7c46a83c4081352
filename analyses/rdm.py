"""Representational dissimilarity matrices and their comparison.

An RDM is a vector of pairs of items, in the order of `scipy.spatial.distance.squareform`. Names of
distances and comparisons are those of rsatoolbox, and so are their values (Schütt et al. 2023); all
come from one Gram matrix, so that a gate can ask for thousands.
"""

from typing import Literal, get_args

import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import rankdata
from sklearn.feature_extraction.text import CountVectorizer

Distance = Literal["crossnobis", "euclidean", "correlation"]
Comparison = Literal["corr", "spearman", "rho-a"]
DISTANCES, COMPARISONS = get_args(Distance), get_args(Comparison)


def squared_euclidean(patterns: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of patterns over the number of units.

    Parameters
    ----------
    patterns : numpy.ndarray
        item x unit.

    Returns
    -------
    numpy.ndarray
        pair.
    """
    # Around the mean, so that what all patterns share is not lost in rounding.
    centred = patterns - patterns.mean(0)
    # Rounding can leave an identical pair a little below zero.
    return np.maximum(_distances(centred @ centred.T), 0) / patterns.shape[1]


def correlation(patterns: np.ndarray) -> np.ndarray:
    """One less the Pearson correlation over units; parameters as `squared_euclidean`.

    A pattern that is the same in all units has no correlation, and a distance of one to all.
    """
    centred = patterns - patterns.mean(1, keepdims=True)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, size, out=np.zeros_like(centred), where=size > 1e-12 * size.max())
    return 1 - (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def crossnobis(folds: np.ndarray) -> np.ndarray:
    """Cross-validated squared distance over the number of units (Walther et al. 2016).

    Products of differences in one fold and in another, so that noise, which is not the same in
    both, does not count: the distance of identical items is zero on average, and may be negative.
    Units are weighed as they come: whoever wants noise to be normalised scales them first.

    Parameters
    ----------
    folds : numpy.ndarray
        fold x item x unit; the same items, measured apart.

    Returns
    -------
    numpy.ndarray
        pair.
    """
    count, _, units = folds.shape
    together = folds.sum(0)
    gram = together @ together.T - np.einsum("fiu,fju->ij", folds, folds, optimize=True)
    return _distances(gram / (count * (count - 1))) / units


def _distances(gram: np.ndarray) -> np.ndarray:
    one, other = np.triu_indices(len(gram), 1)
    size = np.diag(gram)
    return size[one] + size[other] - 2 * gram[one, other]


def model_rdm(values: np.ndarray) -> np.ndarray:
    """What a property of items predicts: how far its numbers are apart, or whether names differ.

    Parameters
    ----------
    values : numpy.ndarray
        ... x item.

    Returns
    -------
    numpy.ndarray
        ... x pair.
    """
    one, other = np.triu_indices(values.shape[-1], 1)
    if values.dtype.kind == "f":
        return np.abs(values[..., one] - values[..., other])
    return (values[..., one] != values[..., other]).astype(float)


def by_letters(words: np.ndarray) -> np.ndarray:
    """Share of the pairs of letters of two words that one of them does not have (Jaccard 1912).

    Parameters
    ----------
    words : numpy.ndarray
        item, text.

    Returns
    -------
    numpy.ndarray
        pair.
    """
    pairs = CountVectorizer(analyzer="char_wb", ngram_range=(2, 2)).fit(words)
    return pdist(pairs.transform(words).toarray() > 0, "jaccard")


def compared(
    rdms: np.ndarray,
    models: np.ndarray,
    comparison: Comparison,
    confounds: np.ndarray | None = None,
) -> np.ndarray:
    """How alike RDMs and models are.

    Parameters
    ----------
    rdms, models : numpy.ndarray
        rdm x pair, model x pair.
    comparison : str
        ``corr`` is Pearson's; ``spearman`` has tied ranks averaged; ``rho-a`` is the mean of
        Spearman's over all ways to break ties (Schütt et al. 2023).
    confounds : numpy.ndarray, optional
        confound x pair. What they predict, by their ranks unless the comparison is ``corr``, is
        taken out of both sides, and what is left is correlated: a partial correlation.

    Returns
    -------
    numpy.ndarray
        rdm x model. NaN where one of the two does not vary.
    """
    known = None if confounds is None else prepared(confounds, comparison)
    return alike(prepared(rdms, comparison), prepared(models, comparison), comparison, known)


def prepared(rdms: np.ndarray, comparison: Comparison) -> np.ndarray:
    """RDMs around their mean, or the ranks of their pairs around theirs; zero where all are one."""
    values = rdms if comparison == "corr" else rankdata(rdms, axis=-1)
    centred = values - values.mean(-1, keepdims=True)
    # What is left of a constant by rounding would be blown up to a correlation.
    flat = np.ptp(rdms, axis=-1) <= 1e-12 * np.abs(rdms).max(-1)
    return np.where(flat[..., None], 0.0, centred)


def alike(
    left: np.ndarray, right: np.ndarray, comparison: Comparison, known: np.ndarray | None = None
) -> np.ndarray:
    """`compared`, of what is `prepared` already."""
    if known is not None and len(known):
        left, right = (beyond(some, known) for some in (left, right))
    elif comparison == "rho-a":
        pairs = left.shape[1]
        rho = 12 * (left @ right.T) / (pairs**3 - pairs)
        return np.where(np.outer(left.any(1), right.any(1)), rho, np.nan)
    sizes = np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
    return np.divide(left @ right.T, sizes, out=np.full(sizes.shape, np.nan), where=sizes > 0)


def beyond(rdms: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What is left of RDMs when what models predict of them is taken out; all `prepared`."""
    basis = np.linalg.qr(known.T)[0]
    left = rdms - (rdms @ basis) @ basis.T
    # An RDM that the confounds explain wholly leaves rounding.
    small = np.linalg.norm(left, axis=1) <= 1e-9 * np.linalg.norm(rdms, axis=1)
    return np.where(small[:, None], 0.0, left)
