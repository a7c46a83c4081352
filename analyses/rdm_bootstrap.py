"""Inference on RDMs over items and over subjects, from quadratic forms.

A bootstrap sample of items gives each pair of different items the product of how often they were
drawn, and leaves out pairs of an item with itself (Nili et al. 2014; Schütt et al. 2023). Sums over
pairs are then quadratic forms w'Dw of the counts w, so that a thousand samples are one matrix
product for each pair of RDMs, where resampling takes a thousand passes; which subjects were drawn
only weighs what comes of it. Ranks are others in each sample, and make no such form: they are
counted anew from pairs that are sorted once, which takes twenty times as long as the product, and
a hundredth of the time of resampling. The values are those of
rsatoolbox's `eval_dual_bootstrap`; the same RDM x RDM products give its noise ceilings.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.linalg import get_blas_funcs
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from analyses.rdm import compared

Quadratic = Literal["corr", "cosine"]
Ranked = Literal["spearman", "rho-a"]
Held = Literal[Quadratic, Ranked]
HELD, RANKED = get_args(Held), get_args(Ranked)


class Evaluated(NamedTuple):
    """How alike models and RDMs are in samples.

    Attributes
    ----------
    similarity : numpy.ndarray
        sample x model, the mean over the RDMs of a sample; NaN where one of the two does not vary.
    ceiling : numpy.ndarray
        sample x 2: how alike each RDM is to the mean of the others (the least that the true model
        would reach), and to the mean of all (the most that any model can). NaN where a sample has
        one RDM, and of ranks, whose mean has ranks of its own: `ranked_ceiling` gives those of all.
    """

    similarity: np.ndarray
    ceiling: np.ndarray


def evaluated(
    rdms: np.ndarray,
    models: np.ndarray,
    comparison: Held,
    *,
    items: np.ndarray,
    subjects: np.ndarray,
) -> Evaluated:
    """Hold models against RDMs in samples of items and of RDMs.

    Parameters
    ----------
    rdms, models : numpy.ndarray
        rdm x pair, model x pair.
    comparison : {'corr', 'cosine', 'spearman', 'rho-a'}
    items : numpy.ndarray
        sample x item; how often each was drawn.
    subjects : numpy.ndarray
        sample x rdm; how often each was drawn.
    """
    found = over_subjects(likeness(rdms, models, comparison, items=items), subjects)
    return (
        found._replace(ceiling=np.full_like(found.ceiling, np.nan))
        if (comparison in RANKED)
        else found
    )


def likeness(
    rdms: np.ndarray, models: np.ndarray, comparison: Held, *, items: np.ndarray
) -> np.ndarray:
    """How alike each RDM is to the others and to models, in samples of items.

    Parameters
    ----------
    rdms, models, comparison, items
        As of `evaluated`.

    Returns
    -------
    numpy.ndarray
        sample x rdm x rdms and models; NaN where one of the two does not vary.
    """
    known = len(rdms)
    values = np.concatenate([rdms, models])
    if comparison in RANKED:
        return _ranked(values, items, expected=comparison == "rho-a")[:, :known]
    if comparison == "corr":
        # The mean does not matter, and would only be rounded.
        values = values - values.mean(1, keepdims=True)
    counts = items.astype(float)
    pairs = (counts.sum(1) ** 2 - np.sum(counts**2, axis=1)) / 2
    # RDM x RDM and RDM x model, each model with itself: what similarity and ceilings are made of.
    wanted = [(k, m) for k in range(known) for m in range(k, len(values))]
    wanted += [(m, m) for m in range(known, len(values))]
    products = np.full((len(counts), len(values), len(values)), np.nan)
    means = np.zeros((len(counts), len(values)))
    if comparison == "corr":
        means = np.array([_form(counts, one) / pairs for one in values]).T
    for a, b in wanted:
        apart = _form(counts, values[a] * values[b]) / pairs - means[:, a] * means[:, b]
        products[:, a, b] = products[:, b, a] = apart
    spread = np.diagonal(products, axis1=1, axis2=2)
    # Relative to the whole: what is constant in a sample leaves rounding.
    flat = spread <= 1e-12 * np.maximum(np.mean(values**2, axis=1), np.finfo(float).tiny)
    size = np.where(flat, np.nan, np.sqrt(np.maximum(spread, 0)))
    return products[:, :known] / (size[:, :known, None] * size[:, None, :])


def _ranked(values: np.ndarray, items: np.ndarray, *, expected: bool) -> np.ndarray:
    """Correlations of ranks in samples of items: sample x value x value.

    Parameters
    ----------
    values : numpy.ndarray
        value x pair.
    items : numpy.ndarray
        sample x item; how often each was drawn.
    expected : bool
        Over all ways to break ties (`rho-a`), in the place of tied ranks averaged.
    """
    one, other = np.triu_indices(items.shape[1], 1)
    groups = [np.unique(row, return_inverse=True)[1] for row in values]  # of equal pairs, in order
    found = np.empty((len(items), len(values), len(values)))
    for place, drawn in enumerate(items.astype(float)):
        copies = drawn[one] * drawn[other]
        count = copies.sum()
        ranks = np.empty(values.shape)
        for row, group in enumerate(groups):
            sizes = np.bincount(group, copies)
            # All copies of equal pairs share the mean of their ranks.
            ranks[row] = (np.cumsum(sizes) - sizes / 2 - count / 2)[group]
        products = (ranks * copies) @ ranks.T
        spread = np.diag(products).copy()
        spread[spread <= 1e-12 * count**3] = np.nan
        size = np.sqrt(np.outer(spread, spread))
        if expected:
            size = np.where(np.isnan(size), np.nan, (count**3 - count) / 12)
        found[place] = products / size
    return found


def ranked_ceiling(rdms: np.ndarray, comparison: Ranked) -> np.ndarray:
    """How alike each RDM is to the mean of the ranks of the others, and of all: lower, upper."""
    if len(rdms) < 2:
        return np.full(2, np.nan)
    ranks = rankdata(rdms, axis=1)
    others = (ranks.sum(0) - ranks) / (len(rdms) - 1)
    lower = [
        compared(one[None], rest[None], comparison) for one, rest in zip(rdms, others, strict=True)
    ]
    upper = compared(rdms, ranks.mean(0)[None], comparison)
    return np.array([np.mean(lower), np.mean(upper)])


def over_subjects(alike: np.ndarray, subjects: np.ndarray) -> Evaluated:
    """What samples of RDMs make of how alike each is.

    Parameters
    ----------
    alike : numpy.ndarray
        sample x rdm x rdms and models, or one sample for all.
    subjects : numpy.ndarray
        sample x rdm; how often each was drawn.
    """
    known = subjects.shape[1]
    share = (subjects / subjects.sum(1, keepdims=True))[:, :, None]
    drawn = np.where(share > 0, alike, 0)  # what is NaN in others does not count
    return Evaluated(
        np.sum(share * drawn[:, :, known:], axis=1),
        _ceilings(drawn[:, :, :known], subjects.astype(float)),
    )


def _form(counts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Sums over pairs of different items, weighed by the counts of both: sample."""
    square = squareform(pairs, checks=False)
    (product,) = get_blas_funcs(("trmm",), (square,))
    # Each pair once: a product with half of the matrix, which takes half the time.
    half = product(1.0, square.T, counts.T, lower=1)
    return np.einsum("ib,bi->b", half, counts)


def _ceilings(alike: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Lower and upper noise ceiling, from how alike RDMs are: sample x rdm x rdm."""
    weighed = np.where(counts[:, None, :] > 0, alike, 0) * counts[:, :, None] * counts[:, None, :]
    rows = weighed.sum(2)  # counts of j times sum over k of m_k r_jk
    total = rows.sum(1, keepdims=True)
    own = counts**2  # copies of an RDM leave together, and are alike by one
    drawn = np.maximum(counts, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        upper = rows / drawn / np.sqrt(total)
        lower = (rows - own) / drawn / np.sqrt(total - 2 * rows + own)
    there = counts > 0
    alone = there.sum(1) < 2
    found = np.stack(
        [np.where(there, each, 0).sum(1) / there.sum(1) for each in (lower, upper)], axis=1
    )
    return np.where(alone[:, None], np.nan, found)


class Inference(NamedTuple):
    """What models reach, how sure it is, and what they could reach.

    Attributes
    ----------
    similarity, error : numpy.ndarray
        model; the standard error over items, and over subjects if there are several.
    freedom : int
        Degrees of freedom of the error.
    ceiling : numpy.ndarray
        Lower and upper; NaN for one subject.
    """

    similarity: np.ndarray
    error: np.ndarray
    freedom: int
    ceiling: np.ndarray


def infer(
    rdms: np.ndarray,
    models: np.ndarray,
    comparison: Held,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Inference:
    """Similarity of models with its error, by the dual bootstrap (Schütt et al. 2023).

    Parameters
    ----------
    rdms, models : numpy.ndarray
        rdm x pair, one RDM a subject; model x pair.
    comparison : {'corr', 'cosine', 'spearman', 'rho-a'}
    draws : int
        Bootstrap samples.
    rng : numpy.random.Generator

    Returns
    -------
    Inference
        Of one subject the error is over its items alone, where rsatoolbox raises.
    """
    count, n = len(rdms), squareform(rdms[0]).shape[0]
    items, subjects = (_counts(size, draws, rng) for size in (n, count))
    each = np.ones((1, count))
    of_all = likeness(rdms, models, comparison, items=np.ones((1, n)))
    of_samples = likeness(rdms, models, comparison, items=items)
    whole, over_items = (over_subjects(one, each) for one in (of_all, of_samples))
    if count == 1:
        variance = n / (n - 1) * _variance(over_items.similarity)
        freedom = n - 1
    else:
        both, over_rdms = (over_subjects(one, subjects) for one in (of_samples, of_all))
        variance = dual_variance(
            *(_variance(one.similarity) for one in (both, over_rdms, over_items)),
            subjects=count,
            items=n,
        )
        freedom = min(count, n) - 1
    ceiling = whole.ceiling[0]
    if comparison == "spearman" or comparison == "rho-a":
        ceiling = ranked_ceiling(rdms, comparison)
    return Inference(whole.similarity[0], np.sqrt(variance), freedom, ceiling)


def dual_variance(
    both: np.ndarray,
    over_subjects: np.ndarray,
    over_items: np.ndarray,
    *,
    subjects: int,
    items: int,
) -> np.ndarray:
    """The variance of a mean over subjects and items from those of three bootstraps.

    Equation 9 of Schütt et al. (2023) with the corrections for small samples, between the larger of
    the two single variances and that of sampling both.
    """
    of_subjects = subjects / (subjects - 1) * over_subjects
    of_items = items / (items - 1) * over_items
    shared = both - over_subjects - over_items
    correction = subjects / (subjects - 1) * items / (items - 1)
    variance = of_subjects + of_items - correction * shared
    return np.minimum(np.maximum(np.maximum(variance, of_subjects), of_items), both)


def _variance(values: np.ndarray) -> np.ndarray:
    """Over the samples that have a number, by model; NaN where fewer than two have."""
    known = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.var(one, ddof=1) if len(one) > 1 else np.nan for one in known])


def _counts(size: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of so many is drawn, sample x one."""
    return rng.multinomial(size, np.full(size, 1 / size), size=draws)
