"""Whether a nonlinear probe reads more than a linear one, both tuned alike.

A weak network proves nothing: stock settings miss a product of two directions that a tuned one
finds (Hewitt & Liang 2019; Pimentel et al. 2020). So the network is one hidden layer of rectified
linear units at infinite width, which is ridge regression with the arc-cosine kernel (Neal 1996; Cho
& Saul 2009): it has a closed form, no training to fail, and the linear probe among its limits. The
linear probe is ridge regression on the same principal components. Each is tuned over the same
numbers of components and the same penalties, by cross-validation inside the training items.

The positive control plants the product of two directions in the same activations. Where the network
does not find it, that it finds nothing else says nothing; and where the linear probe is near one,
there is nothing left to gain.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.linalg import cho_solve

from analyses.base import Analysis, Quantity, Reading, register
from analyses.probe import penalised, recalls, standardised
from analyses.splits import folds_of, item_groups
from analyses.words import read_words
from scanner import Subject

# What both probes are tuned over: components (None is all of them), and ridge penalties in units of
# the mean of the diagonal of the kernel.
COMPONENTS: tuple[int | None, ...] = (20, 50, None)
PENALTIES = (0.01, 0.1, 1.0)

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


@register
@dataclass(frozen=True)
class MlpProbe(Analysis):
    """Decode with and without nonlinearity.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        What to decode, a column of the stimulus table.
    item_folds : int
        Groups of items that take turns as the test; the others take turns in tuning.
    planted : float
        Share of the variance of all units that each direction of the positive control has; 0 for
        no control.
    """

    site: str
    label: str = "category"
    item_folds: int = 5
    planted: float = 0.05

    measures: ClassVar[Mapping[str, Quantity]] = {
        "gap": Quantity("balanced accuracy of a nonlinear probe less that of a linear one", -1, 1),
    }

    def __post_init__(self) -> None:
        if self.item_folds < 3:
            raise ValueError("item_folds must be at least 3: one tests, and two tune in turn")
        if not 0 <= self.planted < 1:
            raise ValueError(f"planted of {self.planted:g} is no share, from 0 to below 1")

    @property
    def reads(self) -> Reading:
        return "nonlinear"

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Decode.

        Returns
        -------
        xarray.Dataset
            ``gap``, ``linear`` and ``mlp`` (layer): balanced accuracies and their difference;
            ``control`` (layer): the same difference for a planted product of two directions.

        Raises
        ------
        AnalysisError
            If a category has fewer items than there are folds.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        group = words.groups(self.item_folds, rng=rng)
        linear, mlp = np.array([accuracies(x, words.codes, group) for x in words.patterns]).T
        result = xr.Dataset(
            {
                "gap": ("layer", mlp - linear, {"chance": 0.0}),
                "linear": ("layer", linear),
                "mlp": ("layer", mlp),
            },
            coords={"layer": subject.volume["layer"].to_numpy()},
        )
        if not self.planted:
            return result
        # Two signs an item, as often one as the other, and their product as the label.
        cell = item_groups(words.items, np.zeros(len(words.items)), groups=4, rng=rng)
        dealt = item_groups(
            words.items, np.zeros(len(words.items)), groups=self.item_folds, rng=rng
        )
        signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])[cell]
        product = (signs.prod(1) > 0).astype(int)
        turned = rng.normal(size=(2, words.patterns.shape[2]))
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        control = []
        for patterns in words.patterns:
            scale = patterns.std(0)
            size = np.sqrt(self.planted * (scale > 0).sum())
            of_line, of_mlp = accuracies(patterns + scale * (size * signs @ turned), product, dealt)
            control.append(of_mlp - of_line)
        return result.assign(control=("layer", np.array(control)))

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        """What is planted beside the gap is drawn after it, and left out."""
        return replace(self, planted=0.0)(*subjects, rng=rng)[variable]


def accuracies(patterns: np.ndarray, codes: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy of the linear and of the nonlinear probe.

    Parameters
    ----------
    patterns : numpy.ndarray
        item x unit.
    codes : numpy.ndarray
        item; label codes 0 to K - 1.
    group : numpy.ndarray
        item; which items are tested together.
    """
    targets = np.eye(codes.max() + 1)[codes]
    decoded = np.empty((2, len(codes)), dtype=int)
    for fold in folds_of(group):
        fitted, judged = standardised(patterns, fold)
        known, asked = _components(fitted, judged)
        inner = group[fold.train]
        for place, kernel in enumerate((linear, arc_cosine)):
            scores = _tuned(kernel, known, asked, targets[fold.train], inner)
            decoded[place, fold.test] = scores.argmax(1)
    of_linear, of_mlp = (float(recalls(codes, one, targets.shape[1]).mean()) for one in decoded)
    return of_linear, of_mlp


def linear(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Products of rows, left x right."""
    return left @ right.T


def arc_cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What two inputs share in infinitely many rectified linear units (Cho & Saul 2009, degree 1).

    Parameters
    ----------
    left, right : numpy.ndarray
        row x input. A bias is added, as large as an input of root mean square length one.

    Returns
    -------
    numpy.ndarray
        left x right: 2 E[relu(w.x) relu(w.y)] over normal weights.
    """
    left, right = (np.column_stack([some, np.ones(len(some))]) for some in (left, right))
    sizes = np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
    cosine = np.clip(left @ right.T / sizes, -1, 1)
    angle = np.arccos(cosine)
    return sizes * (np.sin(angle) + (np.pi - angle) * cosine) / np.pi


def _components(fitted: np.ndarray, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of training and test patterns along the principal axes of training, largest first."""
    values, vectors = np.linalg.eigh(fitted @ fitted.T)
    kept = np.flatnonzero(values > 1e-10 * max(values.max(), np.finfo(float).tiny))[::-1]
    known = vectors[:, kept] * np.sqrt(values[kept])
    return known, judged @ (fitted.T @ (vectors[:, kept] / np.sqrt(values[kept])))


def _tuned(
    kernel: Kernel, known: np.ndarray, asked: np.ndarray, targets: np.ndarray, inner: np.ndarray
) -> np.ndarray:
    """Scores of test items, test x category, with the settings that do best inside the training."""
    codes, best = targets.argmax(1), (-1.0, np.zeros((len(asked), targets.shape[1])))
    counts = dict.fromkeys(min(one or known.shape[1], known.shape[1]) for one in COMPONENTS)
    for count in counts:
        # Of root mean square length one, so that a bias and a bend mean the same in all layers.
        length = np.sqrt(np.mean(np.sum(known[:, :count] ** 2, axis=1))) or 1.0
        rows, tests = known[:, :count] / length, asked[:, :count] / length
        gram, cross = kernel(rows, rows), kernel(tests, rows)
        right = np.zeros((len(PENALTIES), len(codes)), dtype=bool)
        for fit, judge in folds_of(inner):
            parts = gram[np.ix_(fit, fit)], gram[np.ix_(judge, fit)], targets[fit]
            for place, penalty in enumerate(PENALTIES):
                found = kernel_ridge(*parts, penalty=penalty).argmax(1)
                right[place, judge] = found == codes[judge]
        for place, penalty in enumerate(PENALTIES):
            score = float(np.mean([right[place, codes == code].mean() for code in set(codes)]))
            if score > best[0]:
                best = score, kernel_ridge(gram, cross, targets, penalty=penalty)
    return best[1]


def kernel_ridge(
    gram: np.ndarray, cross: np.ndarray, targets: np.ndarray, *, penalty: float
) -> np.ndarray:
    """Scores of kernel ridge regression with an intercept.

    Parameters
    ----------
    gram : numpy.ndarray
        train x train.
    cross : numpy.ndarray
        test x train.
    targets : numpy.ndarray
        train x target.
    penalty : float
        In units of the mean of the diagonal of the centred Gram matrix.

    Returns
    -------
    numpy.ndarray
        test x target.
    """
    mean = gram.mean(0)
    centred = gram - mean - mean[:, None] + mean.mean()
    moved = cross - mean - cross.mean(1, keepdims=True) + mean.mean()
    offset = targets.mean(0)
    factor = penalised(centred, penalty, patterns=len(centred))
    return moved @ cho_solve(factor, targets - offset, check_finite=False) + offset
