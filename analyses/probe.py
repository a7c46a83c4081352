"""Linear decoding of a stimulus label from each layer.

After Alain & Bengio (2016). Ridge regression on the one-hot label, read out by its largest score
(Hastie, Tibshirani & Friedman 2009, 4.2), in the place of multinomial logistic regression: it is
solved in closed form, has one setting that is fixed in advance, and needs no tuning on the items.
Test items *and* test frames are kept out of training. Everything fitted (centring, scaling,
weights) is fitted on the training part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata

from analyses.base import Analysis, AnalysisError, Quantity, labels, read, register
from analyses.splits import Fold, cross_grouped, permuted_within
from scanner import Subject


@register
@dataclass(frozen=True)
class Probe(Analysis):
    """Decode a label from a site, all layers at once.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        What to decode, a column of the stimulus table.
    item_folds, frame_folds : int
        Groups of items and of frames that take turns as the test.
    penalty : float
        Ridge penalty, in units of the mean squared length of a training pattern.
    """

    site: str
    label: str = "category"
    item_folds: int = 5
    frame_folds: int = 2
    penalty: float = 1.0

    measures: ClassVar[Mapping[str, Quantity]] = {
        "balanced_accuracy": Quantity("mean over categories of the share decoded right", 0, 1),
        "auc": Quantity("area under the ROC curve, each category against the rest", 0, 1),
    }

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Decode.

        Returns
        -------
        xarray.Dataset
            ``balanced_accuracy`` and ``auc`` (layer), ``recall`` (layer, category): the share of
            each category's stimuli that was decoded right.
        """
        (subject,) = subjects
        x, codes, names = read(subject, self.site, self.label)
        folds = self._folds(subject, codes, rng)
        decoded = [decode(layer, codes, folds, penalty=self.penalty) for layer in x]
        recall = np.array([recalls(codes, scores.argmax(1), len(names)) for scores in decoded])
        auc = [np.mean([mean_auc(s[f.test], codes[f.test]) for f in folds]) for s in decoded]
        return xr.Dataset(
            {
                "balanced_accuracy": ("layer", recall.mean(1), {"chance": 1 / len(names)}),
                "auc": ("layer", np.array(auc), {"chance": 0.5}),
                "recall": (("layer", "category"), recall),
            },
            coords={"layer": subject.volume["layer"].to_numpy(), "category": names},
        )

    def permuted(
        self,
        subject: Subject,
        variable: str,
        *,
        draws: int,
        rng: np.random.Generator,
        shuffles: np.random.Generator,
    ) -> xr.DataArray:
        """All draws at once: labels enter ridge regression linearly.

        Labels change places within the groups of items that are tested together, so that every
        draw is split, and its categories balanced, as the labels that were observed.
        """
        x, codes, names = read(subject, self.site, self.label)
        folds = self._folds(subject, codes, rng)
        groups = np.empty(len(codes), dtype=int)
        for number, fold in enumerate(folds):
            groups[fold.test] = number // self.frame_folds
        dealt = permuted_within(codes, labels(subject, "item"), groups, draws=draws, rng=shuffles)
        score = {"balanced_accuracy": _accuracies, "auc": _aucs}[variable]
        values = np.zeros((draws, len(x)))
        for fold in folds:
            for layer, one in enumerate(x):
                hat = smoother(one, fold, penalty=self.penalty)
                for some in np.array_split(np.arange(draws), -(-draws // 256)):
                    values[some, layer] += score(hat, dealt[some], fold, len(names))
        if variable == "auc":
            values /= len(folds)
        return xr.DataArray(
            values,
            dims=("draw", "layer"),
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 1 / len(names) if variable == "balanced_accuracy" else 0.5},
        )

    def _folds(self, subject: Subject, codes: np.ndarray, rng: np.random.Generator) -> list[Fold]:
        try:
            return cross_grouped(
                labels(subject, "item"),
                labels(subject, "frame"),
                codes,
                item_folds=self.item_folds,
                frame_folds=self.frame_folds,
                rng=rng,
            )
        except ValueError as error:
            raise AnalysisError(f"probe of '{self.label}': {error}") from None


def decode(x: np.ndarray, codes: np.ndarray, folds: list[Fold], *, penalty: float) -> np.ndarray:
    """Scores of every stimulus from the fold that did not train on it.

    Parameters
    ----------
    x : numpy.ndarray
        stimulus x unit.
    codes : numpy.ndarray
        stimulus; label codes 0 to K - 1.
    folds : list of Fold
    penalty : float
        In units of the mean squared length of a training pattern.

    Returns
    -------
    numpy.ndarray
        stimulus x category.
    """
    targets = np.eye(codes.max() + 1)[codes]
    scores = np.full(targets.shape, np.nan)
    for fold in folds:
        fitted, judged, factor = _fitted(x, fold, penalty)
        offset = targets[fold.train].mean(0)
        weights = cho_solve(factor, targets[fold.train] - offset, check_finite=False)
        scores[fold.test] = judged @ (fitted.T @ weights) + offset
    return scores


def smoother(x: np.ndarray, fold: Fold, *, penalty: float) -> np.ndarray:
    """The matrix that turns centred training targets into scores: test stimulus x training one.

    Of ridge regression in its dual form (Hastie, Tibshirani & Friedman 2009, 18.3); parameters as
    for `decode`.
    """
    fitted, judged, factor = _fitted(x, fold, penalty)
    return cho_solve(factor, fitted @ judged.T, check_finite=False).T


def _fitted(
    x: np.ndarray, fold: Fold, penalty: float
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, bool]]:
    """Standardised training and test patterns, and the factor of the penalised Gram matrix."""
    known = x[fold.train]
    mean, spread = known.mean(0), known.std(0)
    # Units that are constant in training say nothing, and dividing by them would.
    varies = spread > 1e-9 * np.maximum(np.abs(mean), spread.max())
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=varies)
    fitted, judged = (known - mean) * scale, (x[fold.test] - mean) * scale
    gram = fitted @ fitted.T
    # Without any varying unit the Gram matrix is zero, and every score is the mean target.
    ridge = penalty * np.trace(gram) / len(fold.train) or 1.0
    gram[np.diag_indices_from(gram)] += ridge
    return fitted, judged, cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)


def _scores(hat: np.ndarray, dealt: np.ndarray, fold: Fold, categories: int) -> np.ndarray:
    """Test stimulus x draw x category."""
    targets = (dealt[:, fold.train, None] == np.arange(categories)).astype(float)
    offset = targets.mean(1, keepdims=True)
    centred = (targets - offset).transpose(1, 0, 2).reshape(len(fold.train), -1)
    return (hat @ centred).reshape(len(fold.test), *dealt.shape[:1], categories) + offset[:, 0]


def _accuracies(hat: np.ndarray, dealt: np.ndarray, fold: Fold, categories: int) -> np.ndarray:
    """What the stimuli of a fold add to the balanced accuracy of each draw."""
    decoded = _scores(hat, dealt, fold, categories).argmax(2)
    truth = dealt[:, fold.test].T
    # As many stimuli as a category has in this draw: where items have unequal numbers they differ.
    counts = np.stack([(dealt == code).sum(1) for code in range(categories)])
    draws = np.arange(len(dealt))
    return ((decoded == truth) / counts[truth, draws]).sum(0) / categories


def _aucs(hat: np.ndarray, dealt: np.ndarray, fold: Fold, categories: int) -> np.ndarray:
    """The area under the ROC curve of each draw in a fold."""
    scores = _scores(hat, dealt, fold, categories)
    return np.array(
        [mean_auc(scores[:, draw], codes[fold.test]) for draw, codes in enumerate(dealt)]
    )


def recalls(codes: np.ndarray, decoded: np.ndarray, categories: int) -> np.ndarray:
    """Share of each category's stimuli decoded right, category."""
    return np.array([np.mean(decoded[codes == code] == code) for code in range(categories)])


def mean_auc(scores: np.ndarray, codes: np.ndarray) -> float:
    """Area under the ROC curve of each category against the rest, averaged.

    Within one fold: scores of different folds come from different fits and do not pool.

    Parameters
    ----------
    scores : numpy.ndarray
        stimulus x category.
    codes : numpy.ndarray
        stimulus.
    """
    ranks = rankdata(scores, axis=0)
    areas = []
    for code in np.unique(codes):
        inside = codes == code
        n, rest = inside.sum(), (~inside).sum()
        if rest:
            areas.append((ranks[inside, code].sum() - n * (n + 1) / 2) / (n * rest))
    return float(np.mean(areas))
