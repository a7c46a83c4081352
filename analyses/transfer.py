"""Whether what one model tells apart can be read from another by the same directions.

A probe is trained on the items of one model. A linear map, fitted on *other* items, carries the
activations of another model into its space, and the probe reads them there, in items that neither
has seen. If it reads them as well as its own, both models tell the label apart by directions that
one map makes the same (after Lenc & Vedaldi 2015; Bansal et al. 2021).

Fitted on the items of the probe, the map would be a probe of its own: it would lead a test item to
where the items of its kind lie, which the probe has learned to tell apart whatever they share, and
an untrained network would read a trained one nearly as well as a trained one does.

The layer of the other is the one that is most alike in the items that train, by debiased CKA.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, Quantity, register
from analyses.cka import among, grams
from analyses.geometry import without_outliers
from analyses.probe import decode, recalls, ridge, standardised
from analyses.splits import Fold, folds_of, item_groups
from analyses.universality import at_depths
from analyses.words import Words, read_words, same_words
from scanner import Subject


@register
@dataclass(frozen=True)
class Transfer(Analysis):
    """Read one subject by the probe of another.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        Column of the stimulus table.
    item_folds : int
        Groups of items that take turns as the test.
    penalty : float
        Of probe and map, in units of the mean squared length of a training pattern.
    depths : int
        Layers of the other model among which the most alike is sought, evenly through its depth;
        all if it has fewer.
    """

    site: str
    label: str = "category"
    item_folds: int = 4
    penalty: float = 1.0
    depths: int = 6

    measures: ClassVar[Mapping[str, Quantity]] = {
        "balanced_accuracy": Quantity(
            "share of a category's items that the probe of this model reads right in another "
            "model, averaged over categories",
            0.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if self.item_folds < 2:
            raise ValueError("item_folds must be at least 2")
        if not self.penalty > 0:
            raise ValueError("penalty must be above 0")
        if self.depths < 1:
            raise ValueError("depths must be at least 1")

    @property
    def takes(self) -> int:
        return 2

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Read.

        Returns
        -------
        xarray.Dataset
            ``balanced_accuracy`` (layer): of the probe of each layer of the first subject, reading
            the second through the map. ``own_accuracy`` (layer): reading the first itself.
            ``mapped`` (layer): how much of the variance of the first's patterns the map gives, in
            items that did not fit it; may be below 0.

        Raises
        ------
        AnalysisError
            If a category has too few items, or the subjects have read other items.
        """
        one, other = subjects
        words, folds, left, carried, mapped = self._carried(one, other, rng)
        own = [decode(layer, words.codes, folds, penalty=self.penalty).argmax(1) for layer in left]
        count = len(words.names)
        return xr.Dataset(
            {
                "balanced_accuracy": carried,
                "own_accuracy": (
                    "layer",
                    np.array([recalls(words.codes, one, count).mean() for one in own]),
                ),
                "mapped": ("layer", mapped),
            },
        )

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        """Without what the first subject reads itself."""
        one, other = subjects
        return self._carried(one, other, rng)[3]

    def _carried(
        self, one: Subject, other: Subject, rng: np.random.Generator
    ) -> tuple[Words, list[Fold], np.ndarray, xr.DataArray, np.ndarray]:
        """What a probe of one reads in the other, and how much of the variance the map gives.

        With the words, their folds and the patterns of the first subject.
        """
        words = read_words(one, self.site, self.label)
        (left, right), _ = same_words((one, at_depths(other, self.depths)), self.site)
        products = [grams(without_outliers(patterns)) for patterns in (left, right)]
        codes, count = words.codes, len(words.names)
        folds = folds_of(words.groups(self.item_folds, rng=rng))
        read = np.zeros((len(left), len(codes), count))
        missed, spread = np.zeros(len(left)), np.zeros(len(left))
        for fold in folds:
            likeness = among(products[0], products[1], fold.train)
            best = np.where(np.isnan(likeness), -np.inf, likeness).argmax(1)
            half = self._halves(words, fold, rng)
            for layer, match in enumerate(best):
                for probes, maps in ((half == 0, half == 1), (half == 1, half == 0)):
                    scores, left_over, whole = self._read(
                        Fold(fold.train[probes], fold.test),
                        Fold(fold.train[maps], fold.test),
                        left[layer], right[match], codes,
                    )  # fmt: skip
                    read[layer, fold.test] += scores
                    missed[layer] += left_over
                    spread[layer] += whole
        carried = xr.DataArray(
            [recalls(codes, one.argmax(1), count).mean() for one in read],
            dims="layer",
            coords={"layer": one.volume["layer"].to_numpy()},
            attrs={"chance": 1 / count},
        )
        mapped = 1 - np.divide(missed, spread, out=np.ones(len(left)), where=spread > 0)
        return words, folds, left, carried, mapped

    def _halves(self, words: Words, fold: Fold, rng: np.random.Generator) -> np.ndarray:
        """The items that train, dealt into those of the probe and those of the map: 0 or 1."""
        items, codes = words.items[fold.train], words.codes[fold.train]
        try:
            return item_groups(items, words.names[codes], groups=2, rng=rng)
        except ValueError as error:
            raise AnalysisError(f"transfer: '{self.label}': {error}") from None

    def _read(
        self, probe: Fold, carry: Fold, one: np.ndarray, other: np.ndarray, codes: np.ndarray
    ) -> tuple[np.ndarray, float, float]:
        """Scores of the tested items, and what the map leaves of their patterns, and of all.

        The two are sums of squares.
        """
        known, judged = standardised(one, carry)
        given, asked = standardised(other, carry)
        (weights,) = ridge(given, known, penalties=(self.penalty,))
        carried = asked @ weights
        left_over = float(np.sum((judged - carried) ** 2))
        # In the units of the first model again, then in those of the probe.
        mean, spread = one[carry.train].mean(0), one[carry.train].std(0)
        trained = one[probe.train]
        scale = trained.std(0)
        scale = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        fitted = (trained - trained.mean(0)) * scale
        targets = np.eye(codes.max() + 1)[codes[probe.train]]
        offset = targets.mean(0)
        (reads,) = ridge(fitted, targets - offset, penalties=(self.penalty,))
        scores = (mean + carried * spread - trained.mean(0)) * scale @ reads + offset
        return scores, left_over, float(np.sum(judged**2))
