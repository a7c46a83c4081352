"""Least-squares concept erasure: the smallest change after which nothing linear tells a label.

After Belrose et al. (2023). The eraser is an oblique projection that makes the means of all
categories the same in what it was fitted on, so that there no linear probe is better than the mean.
Its rank is that of the means, at most one less than there are categories: a binary label always
goes with one direction, which is a theorem and no finding about the model.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Eraser:
    """Takes a label out of patterns.

    Attributes
    ----------
    mean : numpy.ndarray
        unit.
    read, write : numpy.ndarray
        unit x direction: what is measured of a pattern, and what is taken away for it.
    """

    mean: np.ndarray
    read: np.ndarray
    write: np.ndarray

    @property
    def rank(self) -> int:
        return self.read.shape[1]

    def __call__(self, patterns: np.ndarray) -> np.ndarray:
        """Patterns (... x unit) without the label."""
        return patterns - ((patterns - self.mean) @ self.read) @ self.write.T


def leace(patterns: np.ndarray, targets: np.ndarray) -> Eraser:
    """Fit the eraser.

    Parameters
    ----------
    patterns : numpy.ndarray
        item x unit.
    targets : numpy.ndarray
        item x category: the label as numbers, one-hot for instance.

    Returns
    -------
    Eraser

    Notes
    -----
    The covariance is shrunk (Ledoit & Wolf 2004), since there are more units than items. That
    changes which projection is taken, not that the means become equal.
    """
    mean = patterns.mean(0)
    centred, wanted = patterns - mean, targets - targets.mean(0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    kept = sizes > 1e-10 * max(sizes.max(initial=0), np.finfo(float).tiny)
    left, sizes, right = left[:, kept], sizes[kept], right[kept]
    share = shrinkage(centred)
    level = np.mean(centred**2)
    spread = np.sqrt((1 - share) * sizes**2 / len(patterns) + share * level)
    # What goes along with the label, in coordinates in which the covariance is one.
    along = (sizes / spread)[:, None] * (left.T @ wanted)
    basis, strength, _ = np.linalg.svd(along, full_matrices=False)
    basis = basis[:, strength > 1e-10 * max(strength.max(initial=0), np.finfo(float).tiny)]
    return Eraser(mean, right.T @ (basis / spread[:, None]), right.T @ (basis * spread[:, None]))


def shrinkage(centred: np.ndarray) -> float:
    """How far a covariance is drawn to a multiple of one (Ledoit & Wolf 2004).

    scikit-learn's `ledoit_wolf_shrinkage`, from products of items instead of units.

    Parameters
    ----------
    centred : numpy.ndarray
        item x unit, of mean zero.
    """
    items, units = centred.shape
    gram = centred @ centred.T
    level = np.trace(gram) / (items * units)
    squared = np.sum(gram**2) / items**2
    noise = (np.sum(np.diag(gram) ** 2) / items - squared) / items
    apart = squared - units * level**2
    return float(min(noise, apart) / apart) if apart > 0 else 0.0
