"""How alike the layers of a model are: centred kernel alignment of every pair.

Linear CKA (Kornblith et al. 2019) in the debiased form (Song et al. 2012; Nguyen et al. 2021). The
plain form is near one for any two layers with more units than items, whatever they hold, and is
given beside it to be seen. Each Gram matrix is computed once, and all pairs are one product.

Items are the sample: the mean over an item's frames, after the mean of each frame has been taken
out, since frames are shared and would make all layers alike.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, labels, register, vectors
from analyses.words import word_means
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
    cross, of_left, of_right = 0.0, 0.0, 0.0
    # Of nearly equal size, none smaller than asked: the debiased form needs four.
    for rows in np.array_split(order, count):
        one = _grams(left[:, rows])
        other = one if right is left else _grams(right[:, rows])
        cross = cross + hsic(one, other, "lij,mij->lm")
        of_left = of_left + hsic(one, one, "lij,lij->l")
        of_right = of_right + hsic(other, other, "lij,lij->l")
    sizes = np.einsum("fl,fm->flm", of_left, of_right)
    alike = np.einsum("fl,fm->flm", of_left > 0, of_right > 0)
    debiased, plain = np.divide(
        cross, np.sqrt(np.abs(sizes)), out=np.full(sizes.shape, np.nan), where=alike
    )
    return debiased, plain


def _grams(x: np.ndarray) -> np.ndarray:
    """layer x item x item, of layer x item x unit around its mean."""
    centred = x - x.mean(1, keepdims=True)
    grams = centred @ centred.swapaxes(1, 2)
    # What is the same for all items leaves rounding, and would be scaled up to a similarity.
    size = np.einsum("liu,liu->l", x, x)
    grams[np.trace(grams, axis1=1, axis2=2) <= 1e-24 * size] = 0
    return grams


def hsic(left: np.ndarray, right: np.ndarray, pairs: str) -> np.ndarray:
    """The Hilbert-Schmidt independence criterion of Gram matrices, debiased and plain.

    Debiased is the unbiased estimator of Song et al. (2012), equation 5, in which the diagonals do
    not count; plain is of centred matrices, up to a constant.

    Parameters
    ----------
    left, right : numpy.ndarray
        layer x item x item.
    pairs : str
        For `numpy.einsum`: which layer of one goes with which of the other.

    Returns
    -------
    numpy.ndarray
        form x what `pairs` gives.
    """
    n = left.shape[1]

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum(pairs, a, b, optimize=True)

    diagonal, other = (np.diagonal(some, axis1=1, axis2=2)[:, None] for some in (left, right))
    rows, others = (some.sum(1, keepdims=True) for some in (left, right))
    rows, others = rows - diagonal, others - other
    total = product(rows.sum(2, keepdims=True), others.sum(2, keepdims=True))
    plain = product(left, right)
    debiased = (
        plain
        - product(diagonal, other)
        + total / ((n - 1) * (n - 2))
        - 2 * product(rows, others) / (n - 2)
    ) / (n * (n - 3))
    return np.array([debiased, plain])
