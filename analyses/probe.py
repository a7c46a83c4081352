"""Linear decoding of a stimulus label from each layer.

After Alain & Bengio (2016). Ridge regression on the one-hot label, read out by its largest score
(Hastie, Tibshirani & Friedman 2009, 4.2), in the place of multinomial logistic regression, which
can be asked for: it is solved in closed form, has one setting that is fixed in advance, and needs
no tuning on the items.
Test items *and* test frames are kept out of training. Everything fitted (centring, scaling,
weights) is fitted on the training part.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from scipy.linalg import cho_factor, cho_solve, get_blas_funcs, get_lapack_funcs
from scipy.sparse import coo_array, csr_array
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from analyses.base import (
    Analysis,
    AnalysisError,
    Quantity,
    coded,
    labels,
    read,
    register,
    vectors,
)
from analyses.splits import Fold, cross_grouped, permuted_within
from scanner import Subject

Model = Literal["ridge", "logistic", "one_vs_rest"]
# Draws whose scores are held at once: few enough for a processor's cache.
AT_ONCE = 128
# From so many patterns on a fit in single precision, corrected in double, is the faster one.
MANY = 128
CORRECTIONS = 3
# By how much a score of shuffled labels may be off, labels being 0 and 1.
EXACT = 1e-4


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
    penalties : tuple of float
        Others, to be seen beside it; nothing is chosen among them.
    model : {'ridge', 'logistic', 'one_vs_rest'}
        Ridge regression, or logistic regression: multinomial, or each category against the rest.
        For these 1 / C is the penalty in the same units times the mean variance of the one-hot
        label, by which the curvature of their loss is the smaller. They take many times as long.
    """

    site: str
    label: str = "category"
    item_folds: int = 5
    frame_folds: int = 2
    penalty: float = 1.0
    penalties: tuple[float, ...] = ()
    model: Model = "ridge"

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
            each category's stimuli that was decoded right. With `penalties`, ``accuracy`` (layer,
            penalty): the balanced accuracy with each.
        """
        (subject,) = subjects
        x, codes, names = read(subject, self.site, self.label)
        folds = self._folds(subject, rng)
        penalties = (self.penalty, *self.penalties)
        found = [self._decoded(layer, codes, folds, penalties) for layer in x]
        decoded = [scores[0] for scores in found]
        recall = np.array([recalls(codes, scores.argmax(1), len(names)) for scores in decoded])
        auc = [fold_auc(scores, codes, folds) for scores in decoded]
        result = xr.Dataset(
            {
                "balanced_accuracy": ("layer", recall.mean(1), {"chance": 1 / len(names)}),
                "auc": ("layer", np.array(auc), {"chance": 0.5}),
                "recall": (("layer", "category"), recall),
            },
            coords={"layer": subject.volume["layer"].to_numpy(), "category": names},
        )
        if not self.penalties:
            return result
        by_penalty = [
            [recalls(codes, one.argmax(1), len(names)).mean() for one in scores[1:]]
            for scores in found
        ]
        return result.assign(accuracy=(("layer", "penalty"), np.array(by_penalty))).assign_coords(
            penalty=np.array(self.penalties)
        )

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        every = np.arange(subjects[0].volume.sizes["stimulus"])
        (found,) = self.measured_in(*subjects, variable=variable, parts=[every], rng=rng)
        return found

    def measured_in(
        self,
        *subjects: Subject,
        variable: str,
        parts: Iterable[np.ndarray],
        rng: np.random.Generator,
    ) -> Iterator[xr.DataArray]:
        """Recordings and labels are read once, and no more is computed than is asked."""
        (subject,) = subjects
        x = vectors(subject, self.site)
        columns = [labels(subject, column) for column in ("item", "frame", self.label)]
        made = xr.DataArray(
            np.zeros(len(x)), dims="layer", coords={"layer": subject.volume["layer"].to_numpy()}
        )
        begun = rng.bit_generator.state
        for rows in parts:
            rng.bit_generator.state = begun
            items, frames, values = (column[rows] for column in columns)
            codes, names = coded(values, self.label)
            folds = self._divided(items, frames, values, rng)
            scores = [self._decoded(one[rows], codes, folds, (self.penalty,))[0] for one in x]
            if variable == "auc":
                found, chance = [fold_auc(one, codes, folds) for one in scores], 0.5
            else:
                found = [recalls(codes, one.argmax(1), len(names)).mean() for one in scores]
                chance = 1 / len(names)
            yield made.copy(deep=False, data=np.array(found)).assign_attrs(chance=chance)

    def _decoded(
        self, layer: np.ndarray, codes: np.ndarray, folds: list[Fold], penalties: Sequence[float]
    ) -> np.ndarray:
        """Penalty x stimulus x category."""
        if self.model == "ridge":
            return decode_path(layer, codes, folds, penalties=penalties)
        return np.array(
            [
                decode_logistic(layer, codes, folds, penalty=one, rest=self.model == "one_vs_rest")
                for one in penalties
            ]
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
        if self.model != "ridge":
            settings = {"draws": draws, "rng": rng, "shuffles": shuffles}
            return super().permuted(subject, variable, **settings)
        x, codes, names = read(subject, self.site, self.label)
        folds, items = self._folds(subject, rng), labels(subject, "item")
        groups = np.empty(len(codes), dtype=int)
        for number, fold in enumerate(folds):
            groups[fold.test] = number // self.frame_folds
        dealt = permuted_within(codes, items, groups, draws=draws, rng=shuffles)
        values = np.zeros((draws, len(x)))
        worth = _shares(dealt, len(names))
        some = np.array_split(np.arange(draws), -(-draws // AT_ONCE))
        for fold in folds:
            # An item's stimuli share its label, so their weights are summed before all else.
            _, first, which = np.unique(items[fold.train], return_index=True, return_inverse=True)
            together = np.eye(len(first), dtype=np.float32)[which]
            known = [
                _targets(dealt[now][:, fold.train[first]], together.mean(0), len(names))
                for now in some
            ]
            truth = [dealt[now][:, fold.test] for now in some]
            places = [_places(right) for right in truth]
            shares = [worth[now][:, fold.test] for now in some]
            for layer, one in enumerate(x):
                hat = smoother(one, fold, penalty=self.penalty, sums=together)
                hat = np.concatenate([hat.T, 1 - hat.sum(1)[None]], dtype=np.float32)
                for part, now in enumerate(some):
                    scores = (known[part] @ hat).reshape(len(names), len(now), -1)
                    values[now, layer] += (
                        np.einsum(
                            "ds,ds->d", _hits(scores, truth[part], places[part]), shares[part]
                        )
                        if variable == "balanced_accuracy"
                        else mean_auc(scores.T, truth[part].T) / len(folds)
                    )
        return xr.DataArray(
            values,
            dims=("draw", "layer"),
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 1 / len(names) if variable == "balanced_accuracy" else 0.5},
        )

    def _folds(self, subject: Subject, rng: np.random.Generator) -> list[Fold]:
        items, frames, values = (labels(subject, one) for one in ("item", "frame", self.label))
        return self._divided(items, frames, values, rng)

    def _divided(
        self, items: np.ndarray, frames: np.ndarray, values: np.ndarray, rng: np.random.Generator
    ) -> list[Fold]:
        try:
            return cross_grouped(
                items,
                frames,
                values,
                item_folds=self.item_folds,
                frame_folds=self.frame_folds,
                rng=rng,
            )
        except ValueError as error:
            raise AnalysisError(f"probe of '{self.label}': {error}") from None


def decode(x: np.ndarray, codes: np.ndarray, folds: list[Fold], *, penalty: float) -> np.ndarray:
    """`decode_path` with one penalty: stimulus x category."""
    return decode_path(x, codes, folds, penalties=(penalty,))[0]


def decode_path(
    x: np.ndarray, codes: np.ndarray, folds: list[Fold], *, penalties: Sequence[float]
) -> np.ndarray:
    """Scores of every stimulus from the fold that did not train on it, with several penalties.

    Parameters
    ----------
    x : numpy.ndarray
        stimulus x unit.
    codes : numpy.ndarray
        stimulus; label codes 0 to K - 1.
    folds : list of Fold
    penalties : sequence of float
        In units of the mean squared length of a training pattern.

    Returns
    -------
    numpy.ndarray
        penalty x stimulus x category.
    """
    targets = np.eye(codes.max() + 1)[codes]
    scores = np.full((len(penalties), *targets.shape), np.nan)
    for fold in folds:
        fitted, judged = standardised(x, fold)
        offset = targets[fold.train].mean(0)
        weights = ridge(fitted, targets[fold.train] - offset, penalties=penalties)
        scores[:, fold.test] = judged @ weights + offset
    return scores


def decode_logistic(
    x: np.ndarray, codes: np.ndarray, folds: list[Fold], *, penalty: float, rest: bool
) -> np.ndarray:
    """The same by scikit-learn's logistic regression: log-odds, stimulus x category.

    Parameters
    ----------
    x, codes, folds
        As of `decode_path`.
    penalty : float
        As of `Probe`.
    rest : bool
        Each category against the rest, in the place of all at once.
    """
    count = codes.max() + 1
    scores = np.full((len(codes), count), np.nan)
    for fold in folds:
        fitted, judged = standardised(x, fold)
        shares = np.bincount(codes[fold.train], minlength=count) / len(fold.train)
        length = np.mean(np.sum(fitted**2, axis=1)) or 1.0
        strength = 1 / (penalty * length * np.mean(shares * (1 - shares)))
        model = LogisticRegression(C=float(strength), max_iter=1000)
        if rest:
            model = OneVsRestClassifier(model)
        found = model.fit(fitted, codes[fold.train]).decision_function(judged)
        # Of two categories scikit-learn gives the odds of the second alone.
        scores[fold.test] = found if count > 2 else np.column_stack([-found, found])
    return scores


def smoother(x: np.ndarray, fold: Fold, *, penalty: float, sums: np.ndarray) -> np.ndarray:
    """The matrix that turns centred training targets into scores: test stimulus x sum.

    Of ridge regression in the space of patterns or in that of units, whichever is smaller (Hastie,
    Tibshirani & Friedman 2009, 18.3). In that of patterns in single precision where the penalty is
    large enough that its error stays below `EXACT`, in parts of the largest eigenvalue.

    Parameters
    ----------
    x, fold, penalty
        As for `decode_path`.
    sums : numpy.ndarray
        training stimulus x sum; what has one target together.
    """
    if len(fold.train) > x.shape[1]:
        fitted, judged = standardised(x, fold)
        factor = penalised(fitted.T @ fitted, penalty, patterns=len(fitted))
        return judged @ cho_solve(factor, fitted.T @ sums, check_finite=False)
    if len(fold.train) <= EXACT / np.finfo(np.float32).eps * penalty:
        fitted, judged = standardised(x, fold, np.float32)
        size = penalty * np.vdot(fitted, fitted) / len(fitted) or 1.0
        factorised = _factorised(fitted, size)
        if factorised is not None:
            return factorised(fitted @ judged.T).T @ sums
    fitted, judged = standardised(x, fold)
    factor = penalised(fitted @ fitted.T, penalty, patterns=len(fitted))
    return cho_solve(factor, fitted @ judged.T, check_finite=False).T @ sums


def ridge(fitted: np.ndarray, wanted: np.ndarray, *, penalties: Sequence[float]) -> np.ndarray:
    """Weights of ridge regression with several penalties.

    Solved in the space of patterns or in that of units, whichever is smaller (Hastie, Tibshirani &
    Friedman 2009, 18.3).

    Parameters
    ----------
    fitted : numpy.ndarray
        pattern x unit, centred.
    wanted : numpy.ndarray
        pattern x target, centred.
    penalties : sequence of float
        In units of the mean squared length of a pattern.

    Returns
    -------
    numpy.ndarray
        penalty x unit x target.
    """
    patterns, units = fitted.shape
    dual = patterns <= units
    if dual and len(penalties) == 1 and patterns >= MANY:
        found = _refined(fitted, wanted, penalties[0])
        if found is not None:
            return found[None]
    inner, right = (fitted @ fitted.T, wanted) if dual else (fitted.T @ fitted, fitted.T @ wanted)
    factors = [penalised(inner, one, patterns=patterns) for one in penalties]
    solved = [cho_solve(factor, right, check_finite=False).T for factor in factors]
    if not dual:
        return np.array(solved).swapaxes(1, 2)
    # Those of all penalties in one product.
    weights = np.concatenate(solved) @ fitted
    return weights.reshape(len(factors), -1, units).swapaxes(1, 2)


def _refined(fitted: np.ndarray, wanted: np.ndarray, penalty: float) -> np.ndarray | None:
    """The same in the space of patterns, with one penalty: unit x target.

    The matrix is made and factorised in single precision, which takes half the time, and what that
    leaves over is computed and solved for in double, until it is below what double can tell
    (iterative refinement; Wilkinson 1963; Langou et al. 2006).

    Returns
    -------
    numpy.ndarray or None
        None where the matrix is too near to singular for this.
    """
    single = fitted.astype(np.float32)
    size = penalty * np.vdot(fitted, fitted) / len(fitted) or 1.0
    solved = _factorised(single, size)
    if solved is None:
        return None
    dual = solved(wanted.astype(np.float32)).astype(float)
    weights = dual.T @ fitted
    for _ in range(CORRECTIONS):
        left = wanted - size * dual - (weights @ fitted.T).T
        correction = solved(left.astype(np.float32))
        dual += correction
        weights += correction.T @ single
        # A correction is as exact as single precision made the first answer: what is left of it
        # is to it as it is to the answer.
        if np.linalg.norm(correction) <= 1e-6 * np.linalg.norm(dual):
            return weights.T
    return None


def _factorised(single: np.ndarray, size: float) -> Callable[[np.ndarray], np.ndarray] | None:
    """What solves for the products of patterns with a ridge, all in single precision.

    Returns
    -------
    callable or None
        None where the matrix is too near to singular for this.
    """
    (product,) = get_blas_funcs(("syrk",), (single,))
    factorise, solve = get_lapack_funcs(("potrf", "potrs"), (single,))
    inner = product(1.0, single.T, trans=1, lower=1)
    inner.ravel(order="K")[:: len(inner) + 1] += size
    factor, failed = factorise(inner, lower=1, overwrite_a=1, clean=0)
    return None if failed else lambda right: solve(factor, right, lower=1)[0]


def penalised(inner: np.ndarray, penalty: float, *, patterns: int) -> tuple[np.ndarray, bool]:
    """The factor of X X' or X' X of so many patterns with a ridge, as `ridge` measures it."""
    # Without any varying unit the matrix is zero, and every score is the mean target.
    size = penalty * np.trace(inner) / patterns or 1.0
    made = inner.copy()
    made.ravel()[:: len(made) + 1] += size
    # It is symmetric, and turned over it lies as LAPACK wants it.
    return cho_factor(made.T, lower=True, overwrite_a=True, check_finite=False)


def standardised(
    x: np.ndarray, fold: Fold, precision: type[np.floating] = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test patterns in units of each unit's spread in training, around its mean.

    Means and spreads are computed as `x` is given, and what is left of it in that precision.
    """
    known, asked = x.take(fold.train, axis=0), x.take(fold.test, axis=0)
    mean = np.full(len(known), 1 / len(known)) @ known
    known -= mean
    asked -= mean
    spread = np.sqrt(np.einsum("su,su->u", known, known) / len(known))
    # Units that are constant in training say nothing, and dividing by them would.
    varies = spread > 1e-9 * np.maximum(np.abs(mean), spread.max())
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=varies).astype(precision)
    known, asked = known.astype(precision, copy=False), asked.astype(precision, copy=False)
    known *= scale
    asked *= scale
    return known, asked


def _targets(dealt: np.ndarray, weights: np.ndarray, categories: int) -> csr_array:
    """What items are fitted to in each draw, and the mean below: row x item + 1.

    Rows are categories, in each the draws; `weights` are the shares of items in the training. Of
    an item all categories but one are zero, and products pass them over.
    """
    draws, items = dealt.shape
    of_items = (dealt * draws + np.arange(draws)[:, None]).ravel()
    rows = np.arange(categories * draws)
    means = np.bincount(of_items, np.tile(weights, draws), minlength=len(rows))
    entries = np.concatenate([np.ones(len(of_items)), means], dtype=np.float32)
    columns = np.concatenate([np.tile(np.arange(items), draws), np.full(len(rows), items)])
    made = coo_array(
        (entries, (np.concatenate([of_items, rows]), columns)), shape=(len(rows), items + 1)
    )
    return made.tocsr()


def _places(codes: np.ndarray) -> np.ndarray:
    """Where the score of the right category stands among all of them: draw x stimulus."""
    return codes * codes.size + np.arange(codes.size).reshape(codes.shape)


def _hits(scores: np.ndarray, codes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Where the largest score, the first of equal ones, is of the right category.

    Parameters
    ----------
    scores : numpy.ndarray
        category x draw x stimulus.
    codes : numpy.ndarray
        draw x stimulus.
    places : numpy.ndarray
        As `_places` has them.
    """
    largest = scores.max(0)
    if np.count_nonzero(scores == largest) > largest.size:
        return scores.argmax(0) == codes
    # Without ties the place is not asked for, which takes several times as long.
    return scores.take(places) == largest


def _shares(dealt: np.ndarray, categories: int) -> np.ndarray:
    """What each stimulus is worth in the balanced accuracy of each draw: draw x stimulus."""
    # As many stimuli as a category has in this draw: where items have unequal numbers they differ.
    sizes = np.stack([np.count_nonzero(dealt == one, axis=1) for one in range(categories)], axis=1)
    return 1 / (categories * np.take_along_axis(sizes, dealt, 1))


def recalls(codes: np.ndarray, decoded: np.ndarray, categories: int) -> np.ndarray:
    """Share of each category's stimuli decoded right, category."""
    return np.array([np.mean(decoded[codes == code] == code) for code in range(categories)])


def fold_auc(scores: np.ndarray, codes: np.ndarray, folds: list[Fold]) -> float:
    """`mean_auc` within each fold, averaged: scores of different fits do not pool.

    Parameters
    ----------
    scores : numpy.ndarray
        stimulus x category.
    codes : numpy.ndarray
        stimulus.
    folds : list of Fold
    """
    areas: list[float] = []
    for size in {len(fold.test) for fold in folds}:
        # Folds of one size are computed together, as if they were draws.
        tests = np.stack([fold.test for fold in folds if len(fold.test) == size], axis=1)
        areas.extend(mean_auc(scores[tests], codes[tests]))
    return float(np.mean(areas))


def mean_auc(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`aucs`, averaged over the categories that have one: draw."""
    return np.nanmean(aucs(scores, codes), axis=1)


def aucs(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each category against the rest.

    Parameters
    ----------
    scores : numpy.ndarray
        stimulus x draw x category.
    codes : numpy.ndarray
        stimulus x draw.

    Returns
    -------
    numpy.ndarray
        draw x category; NaN where all stimuli are of the category, or none.
    """
    columns = np.ascontiguousarray(scores.transpose(1, 2, 0))
    inside = codes.T[:, None] == np.arange(scores.shape[2])[:, None]
    order = columns.argsort(2)
    order += np.arange(0, inside.size, len(scores)).reshape(*inside.shape[:2], 1)
    ranks = inside.astype(float).take(order) @ np.arange(1.0, len(scores) + 1)
    # Those that are equal share their ranks, which takes longer and is seldom.
    tied = ~np.diff(np.sort(columns, 2)).all(2)
    if tied.any():
        ranks[tied] = (rankdata(columns[tied], axis=1) * inside[tied]).sum(1)
    n = inside.sum(2)
    pairs = n * (len(scores) - n)
    return np.divide(
        ranks - n * (n + 1) / 2, pairs, out=np.full(ranks.shape, np.nan), where=pairs > 0
    )
