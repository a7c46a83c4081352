"""Which units tell categories apart, and how many by luck: a t map with familywise thresholds.

A contrast is written in the language of the field, ``animals - 0.5*tools - 0.5*vehicles``, or
``animals - rest``. Each unit gets the t of the contrast in a linear model of one mean a category.
The largest |t| of all units of a layer, over permutations, says what luck alone would reach
(Westfall & Young 1993). What is tested changes places among items, and what the other means and the
confounds explain is taken out of it and of the units (Draper & Stoneman 1966; Winkler et al. 2014).
That takes one matrix product, where nilearn's `permuted_ols`, the oracle of the tests, fits a model
a permutation (Freedman & Lane 1983).

Items, not stimuli, are the sample: the mean over an item's frames is one observation. Permuting
stimuli, of which each item has many, would find units in noise nearly always.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.linalg import null_space, orth
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from analyses.base import Analysis, AnalysisError, labels, of_items, register
from analyses.words import read_words
from scanner import Subject

# Correlations of permuted designs with units that are held at once: as many as caches hold.
AT_ONCE = 2**17
# What a contrast may be made of; more would be a program.
EXPRESSION = re.compile(r"(?:\s|[-+*/()]|\d+(?:\.\d*)?|\.\d+|[^\W\d]\w*)+")
REST = "rest"


@register
@dataclass(frozen=True)
class Contrast(Analysis):
    """The t of a contrast of categories in each unit.

    Attributes
    ----------
    site : str
        Kind of site to read.
    contrast : str
        Sums and differences of categories whose weights add up to zero; ``rest`` is the mean of all
        categories that are not named. In names, whatever is no letter or digit is written ``_``.
    label : str
        The column of the stimulus table that has the categories.
    confounds : tuple of str
        Columns of numbers that are taken out.
    permutations : int
    alpha : float
        Familywise error, and the rate of false discoveries.
    """

    site: str
    contrast: str
    label: str = "category"
    confounds: tuple[str, ...] = ()
    permutations: int = 1000
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha of {self.alpha:g} is no probability between 0 and 1")
        least = int(np.ceil(1 / self.alpha)) - 1
        if self.permutations < least:
            raise ValueError(
                f"{self.permutations} permutations cannot reach an alpha of {self.alpha:g}; "
                f"{least} can"
            )

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Map.

        Returns
        -------
        xarray.Dataset
            ``t`` and ``p`` (layer, unit): the t of the contrast, 0 where a unit does not vary, and
            its two-sided p, familywise over the units of the layer. By layer: ``critical``, the |t|
            that is significant; ``significant``, the share of units that reach it; ``discovered``,
            the share that is found where a share of ``alpha`` may be false (Benjamini &
            Hochberg 1995).

        Raises
        ------
        AnalysisError
            If the contrast is none of these categories, the items are too few for the model, or the
            confounds explain all of it.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        try:
            tested = partition(
                weights(self.contrast, words.names), words.codes, self._confounds(subject)
            )
        except ValueError as error:
            raise AnalysisError(f"contrast '{self.contrast}': {error}") from None
        order = np.tile(np.arange(len(words.codes)), (self.permutations, 1))
        draws = permuted(tested, rng.permuted(order, axis=1))
        maps = [t_map(word, tested, draws) for word in words.patterns]
        t = np.array([found for found, _ in maps])
        largest = np.sort([most for _, most in maps], axis=1)
        # Equal in theory may differ in rounding; what ties counts against the claim.
        beaten = [
            np.searchsorted(luck, np.abs(row) * (1 - 1e-12))
            for luck, row in zip(largest, t, strict=True)
        ]
        p = (1 + self.permutations - np.array(beaten)) / (1 + self.permutations)
        exceeding = int(self.alpha * (1 + self.permutations) * (1 + 1e-12)) - 1
        one_by_one = 2 * student.sf(np.abs(t), tested.freedom)
        found = np.array([false_discovery_control(row) for row in one_by_one])
        return xr.Dataset(
            {
                "t": (("layer", "unit"), t),
                "p": (("layer", "unit"), p),
                "critical": ("layer", largest[:, self.permutations - 1 - exceeding]),
                "significant": ("layer", (p <= self.alpha).mean(1)),
                "discovered": ("layer", (found <= self.alpha).mean(1)),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "unit": np.arange(t.shape[1]),
            },
        )

    def _confounds(self, subject: Subject) -> np.ndarray:
        """Item x confound."""
        items = labels(subject, "item")
        first, which = np.unique(items, return_index=True, return_inverse=True)[1:]
        columns = [of_items(subject, name, first, which) for name in self.confounds]
        for name, column in zip(self.confounds, columns, strict=True):
            if column.dtype.kind != "f":
                raise ValueError(f"'{name}' is no column of numbers, and cannot be taken out")
        return np.array(columns).reshape(-1, len(first)).T


def weights(contrast: str, names: Sequence[str] | np.ndarray) -> np.ndarray:
    """The weight of each category in a contrast.

    Parameters
    ----------
    contrast : str
        ``animals - rest``, ``animals - 0.5*tools - 0.5*body_parts``.
    names : sequence of str
        The categories.

    Returns
    -------
    numpy.ndarray
        category; the positive weights add up to what the negative ones do.

    Raises
    ------
    ValueError
        If it is not a contrast of these categories; the message says why, and names them.
    """
    return _weights(contrast, tuple(map(str, names))).copy()


@cache
def _weights(contrast: str, names: tuple[str, ...]) -> np.ndarray:
    """Kept: a gate asks for the same contrast hundreds of times."""
    # Most of a second to import, for those alone who ask.
    from nilearn.glm.contrasts import expression_to_contrast_vector

    columns = [re.sub(r"\W|^(?=\d)", "_", name) for name in names]
    known = f"categories are {', '.join(columns)}"
    if len(set(columns)) < len(columns):
        raise ValueError(f"two categories are written alike; {known}")
    if not EXPRESSION.fullmatch(contrast):
        raise ValueError(f"it is not made of +, -, *, /, numbers and categories; {known}")
    named = set(re.findall(r"[^\W\d]\w*", contrast))
    unknown = sorted(named - {*columns, REST})
    if unknown:
        raise ValueError(f"'{unknown[0]}' is no category; {known}, and {REST} for all others")
    others = REST not in columns and REST in named
    try:
        found = expression_to_contrast_vector(contrast, columns + [REST] * others)
    except (ValueError, AttributeError):
        raise ValueError("it cannot be read; write, say, 'one - 0.5*two - 0.5*three'") from None
    if others:
        rest = np.array([name not in named for name in columns])
        if not rest.any():
            raise ValueError(f"it names every category, so there is no {REST}")
        found = found[:-1] + found[-1] * rest / rest.sum()
    size = np.abs(found).sum()
    if not (np.isfinite(size) and size > 0):
        raise ValueError("it compares nothing")
    if abs(found.sum()) > 1e-6 * size:
        raise ValueError(
            f"its weights add up to {found.sum():.3g} and not to 0, so that it would not compare "
            f"categories; '{columns[0]} - {REST}' does"
        )
    return found


class Partition(NamedTuple):
    """A linear model, divided into what is tested and what is taken out (Winkler et al. 2014).

    Attributes
    ----------
    tested : numpy.ndarray
        item; of length 1, and orthogonal to all that is taken out.
    known : numpy.ndarray
        item x direction, orthonormal: what is left of the model where the contrast is zero.
    freedom : int
        Degrees of freedom of the residuals.
    """

    tested: np.ndarray
    known: np.ndarray
    freedom: int


def partition(weight: np.ndarray, codes: np.ndarray, confounds: np.ndarray) -> Partition:
    """Divide the model of one mean a category, and confounds, by a contrast of the means.

    Parameters
    ----------
    weight : numpy.ndarray
        category; adds up to zero.
    codes : numpy.ndarray
        The category of each item.
    confounds : numpy.ndarray
        item x confound.

    Raises
    ------
    ValueError
        If there are too few items, or the confounds explain all that is tested.
    """
    member = np.eye(len(weight))[codes]
    around = confounds - confounds.mean(0)
    around = around / np.maximum(np.abs(around).max(0), np.finfo(float).tiny)
    model = np.column_stack([member, around])
    kept = np.column_stack([member @ null_space(weight[None]), around])
    basis = orth(kept)
    tested = member @ (weight / member.sum(0))
    left = tested - basis @ (basis.T @ tested)
    freedom = len(codes) - int(np.linalg.matrix_rank(model))
    if freedom < 1:
        raise ValueError(f"{len(codes)} items are too few for {model.shape[1]} columns of a model")
    size = np.linalg.norm(left)
    if size < 1e-6 * np.linalg.norm(tested):
        raise ValueError("the confounds explain all of it, so nothing is left to be tested")
    return Partition(left / size, basis, freedom)


def permuted(model: Partition, order: np.ndarray) -> np.ndarray:
    """What is tested with its items in other places, and without what is known.

    Parameters
    ----------
    model : Partition
    order : numpy.ndarray
        draw x item: where each item goes.

    Returns
    -------
    numpy.ndarray
        draw x item; each draw of length 1.
    """
    moved = model.tested[order]
    moved -= (moved @ model.known) @ model.known.T
    size = np.linalg.norm(moved, axis=1, keepdims=True)
    return moved / np.maximum(size, np.finfo(float).tiny)


def t_map(words: np.ndarray, model: Partition, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The t of every unit, and the largest of all units in each permutation.

    Parameters
    ----------
    words : numpy.ndarray
        item x unit.
    model : Partition
    draws : numpy.ndarray
        draw x item, of `permuted`.

    Returns
    -------
    t : numpy.ndarray
        unit; 0 where it does not vary.
    largest : numpy.ndarray
        draw; the largest |t|.
    """
    left = words - model.known @ (model.known.T @ words)
    size = np.linalg.norm(left, axis=0)
    varies = size > 1e-9 * np.linalg.norm(words, axis=0)
    left = np.divide(left, size, out=np.zeros_like(left), where=varies)
    largest = np.empty(len(draws))
    some = max(1, AT_ONCE // left.shape[1])
    for start in range(0, len(draws), some):
        found = draws[start : start + some] @ left
        largest[start : start + some] = np.maximum(found.max(1), -found.min(1))
    return _t(model.tested @ left, model.freedom), _t(largest, model.freedom)


def _t(correlation: np.ndarray, freedom: int) -> np.ndarray:
    rest = np.maximum(1 - correlation**2, np.finfo(float).tiny)
    return correlation * np.sqrt(freedom / rest)
