"""The shape of the cloud of activations in each layer: length, spread, dimension.

The mean cosine of two stimuli (anisotropy; Ethayarajh 2019), the effective rank (Roy & Vetterli
2007) and the participation ratio (Gao et al. 2017) of their covariance, each also without outlier
units, and the intrinsic dimension by the two nearest neighbours (Facco et al. 2017). A few outliers
can make all stimuli look alike, or all variance one-dimensional, and a "collapse" of the
representation that goes away without them is none (Timkey & van Schijndel 2021; Sun et al. 2024).

All of it describes the stimuli that were read: rank and participation cannot exceed their number,
and grow with it. No label is read, so nothing here is a measure that a hypothesis may name; what to
compare with is the same curve of untrained twins.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors

from analyses.base import Analysis, AnalysisError, labels, register, vectors
from scanner import Subject

# A unit whose size is so many times that of the median unit is an outlier.
OUTLIER = 10.0
NAMED = 3


@register
@dataclass(frozen=True)
class Geometry(Analysis):
    """Length, anisotropy, rank and dimension by layer.

    Attributes
    ----------
    site : str
        Kind of site to read.
    """

    site: str

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Describe.

        Returns
        -------
        xarray.Dataset
            By layer: ``norm``, the median length of a stimulus; ``anisotropy``, the mean cosine of
            two; ``effective_rank`` and ``participation`` of the covariance over stimuli;
            ``dimension``, intrinsic, of the means of items; ``outliers``, how many units are more
            than ten times as large as the median unit (root mean square over stimuli);
            ``anisotropy``, ``effective_rank`` and ``participation`` again ``_without_outliers``.
            Rank and dimension are NaN where all stimuli are the same.
            ``largest_unit`` and ``largest_share`` (layer, rank): the three largest units and their
            shares of the squared length.
        """
        (subject,) = subjects
        x = vectors(subject, self.site)
        stimuli, units = x.shape[1:]
        if min(stimuli, units) < 4:
            raise AnalysisError(
                f"geometry: {stimuli} stimuli of {units} units; 4 of each are needed"
            )
        _, items = np.unique(labels(subject, "item"), return_inverse=True)
        found = [_described(layer, items) for layer in x]
        columns = {name: np.array([one[name] for one in found]) for name in found[0]}
        return xr.Dataset(
            {name: (("layer", "rank")[: values.ndim], values) for name, values in columns.items()},
            coords={"layer": subject.volume["layer"].to_numpy(), "rank": np.arange(NAMED)},
        )


def _described(x: np.ndarray, items: np.ndarray) -> dict[str, float | np.ndarray]:
    size, outlying = np.sqrt(np.mean(x**2, axis=0)), outliers(x)
    largest = np.argsort(-size, kind="stable")[:NAMED]
    everything, rest = _shape(x), _shape(x[:, ~outlying])
    return {
        "norm": float(np.median(np.linalg.norm(x, axis=1))),
        **everything,
        **{f"{name}_without_outliers": value for name, value in rest.items()},
        "dimension": intrinsic_dimension(_means(x, items)),
        "outliers": float(outlying.sum()),
        "largest_unit": largest,
        "largest_share": size[largest] ** 2 / max(float(np.sum(size**2)), np.finfo(float).tiny),
    }


def outliers(x: np.ndarray) -> np.ndarray:
    """Whether each unit of stimulus x unit is `OUTLIER` times as large as the median one."""
    size = np.sqrt(np.mean(x**2, axis=0))
    middle = np.median(size)
    # Where most units are silent, those that are not are no outliers.
    return size > OUTLIER * middle if middle > 0 else np.zeros(len(size), dtype=bool)


def without_outliers(patterns: np.ndarray) -> np.ndarray:
    """Layer x item x unit with zeros in the place of the outliers of each layer."""
    return np.array([np.where(outliers(layer), 0, layer) for layer in patterns])


def _means(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    return np.add.reduceat(x[order], np.cumsum(counts) - counts) / counts[:, None]


def _shape(x: np.ndarray) -> dict[str, float]:
    spectrum = variances(x)
    return {
        "anisotropy": mean_cosine(x),
        "effective_rank": effective_rank(spectrum),
        "participation": participation(spectrum),
    }


def mean_cosine(x: np.ndarray) -> float:
    """The mean cosine of two different rows of stimulus x unit; NaN if a row is zero."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not length.all():
        return float("nan")
    n = len(x)
    return float((np.sum((x / length).sum(0) ** 2) - n) / (n * (n - 1)))


def variances(x: np.ndarray) -> np.ndarray:
    """The variances of stimulus x unit along its principal axes, unsorted; none are negative."""
    centred = x - x.mean(0)
    gram = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    values = np.maximum(np.linalg.eigvalsh(gram), 0) / (len(x) - 1)
    # Rounding leaves a little of what is the same for all stimuli.
    return np.where(values > 1e-12 * np.mean(x**2), values, 0.0)


def effective_rank(spectrum: np.ndarray) -> float:
    """The exponential of the entropy of a spectrum (Roy & Vetterli 2007); NaN if it is zero."""
    total = spectrum.sum()
    return float(np.exp(entropy(spectrum / total))) if total > 0 else float("nan")


def participation(spectrum: np.ndarray) -> float:
    """(sum of variances)^2 / sum of their squares (Gao et al. 2017); NaN if they are zero."""
    squares = np.sum(spectrum**2)
    return float(spectrum.sum() ** 2 / squares) if squares > 0 else float("nan")


def intrinsic_dimension(points: np.ndarray) -> float:
    """The dimension of the surface that points lie on, by their two nearest neighbours.

    The maximum likelihood form of Facco et al. (2017), (N - 1) / sum of log(r2 / r1), which is
    unbiased. Points that coincide are taken once.

    Parameters
    ----------
    points : numpy.ndarray
        point x unit.

    Returns
    -------
    float
        NaN for fewer than four points that differ.
    """
    points = np.unique(points, axis=0)
    if len(points) < 4:
        return float("nan")
    near, _ = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points).kneighbors()
    return float((len(points) - 1) / np.sum(np.log(near[:, 1] / near[:, 0])))
