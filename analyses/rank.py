"""How many directions a category takes: removed one after the other until nothing is left to read.

Iterative nullspace projection (Ravfogel et al. 2020): a linear probe tells a category from the
rest, its direction is removed, and a new probe is trained on what is left. Probes are trained and
judged on different items, and held against the same with labels dealt out anew, since with more
units than items one direction is never the last: a planted one takes several probes to go. What is
counted are probes, and not kinds within a category, whose mean may carry them all.

Beside it stands erasure by least squares (LEACE; Belrose et al. 2023): what a probe still reads in
other items after the eraser of the training items. That it reads nothing in the training items is a
theorem.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.linalg import cho_solve

from analyses.base import Analysis, Quantity, register
from analyses.erasure import leace
from analyses.probe import aucs, penalised, ridge, standardised
from analyses.splits import folds_of, permuted_within
from analyses.words import Words, read_words
from scanner import Subject

# Draws whose probes are trained at once.
AT_ONCE = 32


@register
@dataclass(frozen=True)
class Rank(Analysis):
    """Remove direction after direction, and read again.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table; each of its categories is told from the rest.
    limit : int
        How many directions are removed at most.
    shuffles : int
        How often labels are dealt out anew; the largest value is what counts as chance.
    item_folds : int
        Groups of items that take turns as the test.
    penalty : float
        Ridge penalty, in units of the mean squared length of a training pattern.
    """

    site: str
    label: str = "category"
    limit: int = 10
    shuffles: int = 19
    item_folds: int = 5
    penalty: float = 1.0

    measures: ClassVar[Mapping[str, Quantity]] = {
        "left": Quantity("area under the ROC curve after one direction has been removed", 0, 1),
    }

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError("limit must be at least 1")
        if self.shuffles < 1:
            raise ValueError("shuffles must be at least 1; they tell what chance is")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Remove and read.

        Returns
        -------
        xarray.Dataset
            ``left`` (layer); ``auc`` (layer, removed), the mean over categories of the area under
            the ROC curve after so many directions; ``shuffled`` (layer, removed), the largest of
            the same with shuffled labels; ``directions`` (layer, category), how many must go before
            a category is read no better than that, one more than `limit` if it still is; ``erased``
            (layer), what an intact probe reads in other items after LEACE.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        group = words.groups(self.item_folds, rng=rng)
        dealt = permuted_within(words.codes, words.items, group, draws=self.shuffles, rng=rng)
        curves = self._curves(words, group, np.concatenate([words.codes[None], dealt]), self.limit)
        observed, chance = curves[0], curves[1:]
        mean = observed.mean(-1)
        above = observed > chance.max(0)
        return xr.Dataset(
            {
                "left": ("layer", mean[:, 1], {"chance": 0.5}),
                "auc": (("layer", "removed"), mean),
                "shuffled": (("layer", "removed"), chance.mean(-1).max(0)),
                # The first that is not above; all are, if none is.
                "directions": (("layer", "category"), np.cumprod(above, axis=1).sum(1)),
                "erased": ("layer", self._erased(words, group)),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "removed": np.arange(self.limit + 1),
                "category": words.names,
            },
        )

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        """What is left asks for one removal, and for no shuffled labels and no eraser."""
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        group = words.groups(self.item_folds, rng=rng)
        return xr.DataArray(
            self._curves(words, group, words.codes[None], 1)[0, :, 1].mean(-1),
            dims="layer",
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 0.5},
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
        """Probes of all draws are trained at once: they share one Gram matrix."""
        words = read_words(subject, self.site, self.label)
        group = words.groups(self.item_folds, rng=rng)
        dealt = permuted_within(words.codes, words.items, group, draws=draws, rng=shuffles)
        return xr.DataArray(
            self._curves(words, group, dealt, 1)[:, :, 1].mean(-1),
            dims=("draw", "layer"),
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 0.5},
        )

    def _curves(self, words: Words, group: np.ndarray, dealt: np.ndarray, limit: int) -> np.ndarray:
        """Areas under the curve of labellings (draw x item): draw x layer x removed x category."""
        count = len(words.names)
        areas = np.zeros((len(dealt), len(words.patterns), limit + 1, count))
        for layer, patterns in enumerate(words.patterns):
            for fold in folds_of(group):
                fitted, judged = standardised(patterns, fold)
                gram, cross = fitted @ fitted.T, judged @ fitted.T
                for now in np.array_split(np.arange(len(dealt)), -(-len(dealt) // AT_ONCE)):
                    # item x draw x category
                    wanted = dealt[now][:, fold.train].T[:, :, None] == np.arange(count)
                    scores = nullspace_scores(
                        gram, cross, wanted.reshape(len(gram), -1),
                        penalty=self.penalty, limit=limit,
                    )  # fmt: skip
                    right = dealt[now][:, fold.test].T
                    for removed, one in enumerate(scores):
                        found = aucs(one.reshape(len(one), -1, count), right)
                        areas[now, layer, removed] += found / self.item_folds
        return areas

    def _erased(self, words: Words, group: np.ndarray) -> np.ndarray:
        """What intact probes read in erased test items, layer."""
        targets = np.eye(len(words.names))[words.codes]
        areas = np.zeros(len(words.patterns))
        for layer, patterns in enumerate(words.patterns):
            for fold in folds_of(group):
                fitted, judged = standardised(patterns, fold)
                wanted = targets[fold.train] - targets[fold.train].mean(0)
                (weights,) = ridge(fitted, wanted, penalties=(self.penalty,))
                scores = leace(fitted, targets[fold.train])(judged) @ weights
                found = aucs(scores[:, None], words.codes[fold.test][:, None])
                areas[layer] += found.mean() / self.item_folds
        return areas


def nullspace_scores(
    gram: np.ndarray, cross: np.ndarray, wanted: np.ndarray, *, penalty: float, limit: int
) -> np.ndarray:
    """Scores of test items by ridge probes, each trained after the directions of those before it
    were removed.

    All labellings at once and never in the space of units: removing a unit vector w takes
    (Xw)(Xw)' from the Gram matrix of X, and the inverse follows by Woodbury's identity.

    Parameters
    ----------
    gram : numpy.ndarray
        train x train, of centred patterns.
    cross : numpy.ndarray
        test x train.
    wanted : numpy.ndarray
        train x labelling: what each probe tells from the rest.
    penalty : float
        In units of the mean squared length of a training pattern, before anything is removed.
    limit : int

    Returns
    -------
    numpy.ndarray
        removed (0 to `limit`) x test x labelling.
    """
    targets = wanted - wanted.mean(0)
    factor = penalised(gram, penalty, patterns=len(gram))
    first = cho_solve(factor, targets, check_finite=False)
    # What has been removed: the items' places along each direction, and the same solved for.
    train = np.zeros((limit, *targets.shape))
    solved = np.zeros_like(train)
    test = np.zeros((limit, len(cross), targets.shape[1]))
    scores = np.empty((limit + 1, *test.shape[1:]))
    for removed in range(limit + 1):
        u, v, t = train[:removed], solved[:removed], test[:removed]
        if removed:
            inner = np.eye(removed) - np.einsum("rnc,snc->crs", u, v, optimize=True)
            outer = np.einsum("rnc,nc->cr", u, first)
            mended = np.linalg.solve(inner, outer[:, :, None])[:, :, 0]
            dual = first + np.einsum("rnc,cr->nc", v, mended)
        else:
            dual = first
        along = np.einsum("rnc,nc->rc", u, dual)
        places = gram @ dual - np.einsum("rnc,rc->nc", u, along)
        scores[removed] = cross @ dual - np.einsum("rmc,rc->mc", t, along)
        if removed < limit:
            # The length of the direction; nothing is removed where nothing was found.
            length = np.sqrt(np.maximum(np.einsum("nc,nc->c", dual, places), 0))
            scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
            train[removed], test[removed] = places * scale, scores[removed] * scale
            solved[removed] = cho_solve(factor, train[removed], check_finite=False)
    return scores
