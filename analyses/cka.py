"""How alike the layers of a model are, or of two: centred kernel alignment of every pair.

Linear CKA (Kornblith et al. 2019) in the debiased form (Song et al. 2012; Nguyen et al. 2021), or
with a Gaussian kernel. The plain form is near one for any two layers with more units than items,
whatever they hold, and is given beside it to be seen. So is the debiased form without the units of
outlying spread, which can make two layers alike on their own (Davari et al. 2022). Each Gram matrix
is computed once, and all pairs are one product.

Items are the sample: the mean over an item's frames, after the mean of each frame has been taken
out, since frames are shared and would make all layers alike.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, register
from analyses.geometry import without_outliers
from analyses.words import same_words
from scanner import Subject

Kernel = Literal["linear", "rbf"]


@register
@dataclass(frozen=True)
class Cka(Analysis):
    """Similarity of layers.

    Attributes
    ----------
    site : str
        Kind of site to read.
    across : bool
        Between every two subjects, in the place of between the layers of each.
    kernel : {'linear', 'rbf'}
    width : float
        Of the Gaussian kernel, in units of the median distance of two items.
    batch : int
        From twice as many items on, they are taken in random batches of at least this size, each
        item in one, and their sums averaged (Nguyen et al. 2021): memory is bounded, and the
        debiased form stays unbiased.
    """

    site: str
    across: bool = False
    kernel: Kernel = "linear"
    width: float = 1.0
    batch: int = 1000

    def __post_init__(self) -> None:
        """Refuse batches that are too small for the debiased form, and kernels of no width.

        Raises
        ------
        ValueError
        """
        if self.batch < 4:
            raise ValueError(f"batches of {self.batch} items; the debiased form needs 4")
        if not self.width > 0:
            raise ValueError(f"a width of {self.width:g}; it must be above 0")

    @property
    def takes(self) -> int:
        return 2 if self.across else 1

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare all layers with all.

        Returns
        -------
        xarray.Dataset
            ``debiased``, ``plain`` and ``debiased_without_outliers`` (layer, other_layer); the
            layers of the first subject and of the second, or of the same. NaN where a layer is the
            same for all items.

        Raises
        ------
        AnalysisError
            If there are fewer than four items, or the subjects have read other ones.
        """
        words, names = same_words(subjects, self.site)
        if len(names) < 4:
            raise AnalysisError(f"cka: {len(names)} items; 4 are needed")
        even = [without_outliers(patterns) for patterns in words]
        found = []
        # Dealt into the same batches, so that the two differ by the outliers.
        seed = rng.integers(2**32)
        for patterns in (words, even):
            found.append(
                compared(
                    patterns[0], patterns[-1],
                    kernel=self.kernel, width=self.width, batch=self.batch,
                    rng=np.random.default_rng(seed),
                )
            )  # fmt: skip
        pairs = ("layer", "other_layer")
        return xr.Dataset(
            {
                "debiased": (pairs, found[0][0]),
                "plain": (pairs, found[0][1]),
                "debiased_without_outliers": (pairs, found[1][0]),
            },
            coords={
                "layer": subjects[0].volume["layer"].to_numpy(),
                "other_layer": subjects[-1].volume["layer"].to_numpy(),
            },
        )


def compared(
    left: np.ndarray,
    right: np.ndarray,
    *,
    kernel: Kernel = "linear",
    width: float = 1.0,
    batch: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """CKA of every layer of one with every layer of another, debiased and plain.

    Parameters
    ----------
    left, right : numpy.ndarray
        layer x item x unit; the same items.
    kernel, width : str, float
        As of `Cka`; the median distance is that of a batch.
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
    cross, of_left, of_right = np.zeros(()), np.zeros(()), np.zeros(())
    # Of nearly equal size, none smaller than asked: the debiased form needs four.
    for rows in np.array_split(order, count):
        one = grams(left[:, rows], kernel, width)
        other = one if right is left else grams(right[:, rows], kernel, width)
        cross = cross + hsic(one, other, crossed=True)
        of_left = of_left + hsic(one, one)
        of_right = of_right + hsic(other, other)
    debiased, plain = _normalised(cross, of_left, of_right)
    return debiased, plain


def among(left: np.ndarray, right: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Debiased CKA among some items, of `grams` of all: theirs need not be computed anew.

    Parameters
    ----------
    left, right : numpy.ndarray
        layer x item x item. The debiased form does not change with their centre.
    rows : numpy.ndarray
        Items, four or more.

    Returns
    -------
    numpy.ndarray
        layer of left x layer of right. NaN where a layer is the same for all items.
    """
    one, other = (some[:, rows][:, :, rows] for some in (left, right))
    products = (hsic(one, other, crossed=True), hsic(one, one), hsic(other, other))
    return _normalised(*products)[0]


def _normalised(cross: np.ndarray, of_left: np.ndarray, of_right: np.ndarray) -> np.ndarray:
    """Form x layer x layer; NaN where a layer has no spread."""
    sizes = np.einsum("fl,fm->flm", of_left, of_right)
    alike = np.einsum("fl,fm->flm", of_left > 0, of_right > 0)
    return np.divide(cross, np.sqrt(np.abs(sizes)), out=np.full(sizes.shape, np.nan), where=alike)


def grams(x: np.ndarray, kernel: Kernel = "linear", width: float = 1.0) -> np.ndarray:
    """Centred kernel matrices, layer x item x item, of layer x item x unit."""
    centred = x - x.mean(1, keepdims=True)
    # Layer by layer, numpy sees that one factor is the other turned, and computes half.
    found = np.array([layer @ layer.T for layer in centred])
    # What is the same for all items leaves rounding, and would be scaled up to a similarity.
    size = np.einsum("liu,liu->l", x, x)
    same = np.trace(found, axis1=1, axis2=2) <= 1e-24 * size
    if kernel == "rbf":
        found = np.array([_gaussian(gram, width) for gram in found])
        means = found.mean(1, keepdims=True)
        found += means.mean(2, keepdims=True) - means - means.swapaxes(1, 2)
    found[same] = 0
    return found


def _gaussian(gram: np.ndarray, width: float) -> np.ndarray:
    """exp(-distance^2 / 2 sigma^2), with a sigma of so many median distances."""
    length = np.diag(gram)
    squared = np.maximum(length[:, None] + length - 2 * gram, 0)
    median = np.median(squared[np.triu_indices(len(gram), 1)])
    return np.exp(-squared / (2 * width**2 * median)) if median > 0 else np.ones_like(gram)


def hsic(left: np.ndarray, right: np.ndarray, *, crossed: bool = False) -> np.ndarray:
    """The Hilbert-Schmidt independence criterion of Gram matrices, debiased and plain.

    Debiased is the unbiased estimator of Song et al. (2012), equation 5, in which the diagonals do
    not count; plain is of centred matrices, up to a constant.

    Parameters
    ----------
    left, right : numpy.ndarray
        layer x item x item.
    crossed : bool
        Every layer of one with every layer of the other, in the place of each with its own.

    Returns
    -------
    numpy.ndarray
        form x layer, or form x layer x layer.
    """
    n = left.shape[1]

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        return a @ b.T if crossed else np.einsum("lx,lx->l", a, b)

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
