"""How alike the layers of a model are: centred kernel alignment of every pair.

Linear CKA (Kornblith et al. 2019) in the debiased form (Song et al. 2012; Nguyen et al. 2021). The
plain form is near one for any two layers with more units than items, whatever they hold, and is
given beside it to be seen. Each Gram matrix is computed once, and all pairs are one product.

Items are the sample: the mean over an item's frames, after the mean of each frame has been taken
out, since frames are shared and would make all layers alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, labels, register, vectors
from analyses.selectivity import word_means
from scanner import Subject


@register
@dataclass(frozen=True)
class Cka(Analysis):
    """Similarity of layers.

    Attributes
    ----------
    site : str
        Kind of site to read.
    batch : int
        From twice as many items on, they are taken in random batches of at least this size, each
        item in one, and their sums averaged (Nguyen et al. 2021): memory is bounded, and the
        debiased form stays unbiased.
    """

    site: str
    batch: int = 1000

    def __post_init__(self) -> None:
        """Refuse batches that are too small for the debiased form.

        Raises
        ------
        ValueError
        """
        if self.batch < 4:
            raise ValueError(f"batches of {self.batch} items; the debiased form needs 4")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare all layers with all.

        Returns
        -------
        xarray.Dataset
            ``debiased`` and ``plain`` (layer, other_layer); NaN where a layer is the same for all
            items.
        """
        (subject,) = subjects
        x = vectors(subject, self.site)
        items, frames = labels(subject, "item"), labels(subject, "frame")
        words, _, names = word_means(x, items, frames, np.zeros(len(items), dtype=int))
        if len(names) < 4:
            raise AnalysisError(f"cka: {len(names)} items; 4 are needed")
        layers = subject.volume["layer"].to_numpy()
        pairs = ("layer", "other_layer")
        found = compared(words, words, batch=self.batch, rng=rng)
        return xr.Dataset(
            {"debiased": (pairs, found[0]), "plain": (pairs, found[1])},
            coords={"layer": layers, "other_layer": layers},
        )


def compared(
    left: np.ndarray, right: np.ndarray, *, batch: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """CKA of every layer of one with every layer of another, debiased and plain.

    Parameters
    ----------
    left, right : numpy.ndarray
        layer x item x unit; the same items.
    batch : int
    rng : numpy.random.Generator
        Deals items into batches, if there are more than one.

    Returns
    -------
    debiased, plain : numpy.ndarray
        layer of left x layer of right.
    """
    n = left.shape[1]
    count = max(1, n // batch)
    order = rng.permutation(n) if count > 1 else np.arange(n)
    found = []
    for hsic in (debiased_hsic, plain_hsic):
        cross, of_left, of_right = 0.0, 0.0, 0.0
        # Of nearly equal size, none smaller than asked: the debiased form needs four.
        for rows in np.array_split(order, count):
            one = _grams(left[:, rows])
            other = one if right is left else _grams(right[:, rows])
            cross = cross + hsic(one, other)
            of_left = of_left + _with_itself(hsic, one)
            of_right = of_right + _with_itself(hsic, other)
        sizes = np.outer(of_left, of_right)
        alike = np.outer(of_left > 0, of_right > 0)
        found.append(
            np.divide(cross, np.sqrt(np.abs(sizes)), out=np.full(sizes.shape, np.nan), where=alike)
        )
    return found[0], found[1]


Hsic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _with_itself(hsic: Hsic, grams: np.ndarray) -> np.ndarray:
    """Of each layer, layer."""
    return np.array([hsic(gram[None], gram[None])[0, 0] for gram in grams])


def _grams(x: np.ndarray) -> np.ndarray:
    """layer x item x item, of layer x item x unit around its mean."""
    centred = x - x.mean(1, keepdims=True)
    # What is the same for all items leaves rounding, and would be scaled up to a similarity.
    size = np.sqrt(np.mean(x**2, axis=(1, 2), keepdims=True))
    centred = np.where(np.abs(centred).max((1, 2), keepdims=True) > 1e-12 * size, centred, 0.0)
    return centred @ centred.swapaxes(1, 2)


def plain_hsic(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The Hilbert-Schmidt independence criterion of centred Gram matrices, up to a constant.

    Parameters
    ----------
    left, right : numpy.ndarray
        layer x item x item.

    Returns
    -------
    numpy.ndarray
        layer of left x layer of right.
    """
    return left.reshape(len(left), -1) @ right.reshape(len(right), -1).T


def debiased_hsic(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The unbiased estimator of Song et al. (2012), equation 5; parameters as for `plain_hsic`."""
    n = left.shape[1]
    off = ~np.eye(n, dtype=bool)
    left, right = left * off, right * off
    rows = left.sum(2) @ right.sum(2).T
    totals = np.outer(left.sum((1, 2)), right.sum((1, 2)))
    both = plain_hsic(left, right)
    return (both + totals / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))
