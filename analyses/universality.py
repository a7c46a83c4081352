"""How alike two models are in what they make of the same items.

Each layer of one is held against the layer of the other that is most alike, and that layer is found
in one half of the items and judged in the other: the best of many layers, told on the items that
chose it, is alike to some extent whatever they hold. Three readings: CKA in its debiased form
(Kornblith et al. 2019; Song et al. 2012), the correlation of distances of items (Kriegeskorte et
al. 2008), and whether items have the same neighbours (Huh et al. 2024).

Two networks that have learned nothing are alike, too, since they read the same tokens. So twins
stand beside: each model's with the other model, and both twins with each other.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, Asks, Quantity, register
from analyses.cka import among, grams
from analyses.geometry import without_outliers
from analyses.rdm import alike, prepared
from analyses.splits import item_groups
from analyses.words import same_words
from scanner import Subject

READINGS = ("cka", "rsa", "neighbours")
UNTRAINED = ("neither", "first", "second", "both")


@register
@dataclass(frozen=True)
class Universality(Analysis):
    """Hold the layers of two subjects against each other.

    Attributes
    ----------
    site : str
        Kind of site to read.
    neighbours : float
        How many items are neighbours of one, as a share of the others.
    splits : int
        Halvings of the items.
    depths : int
        Layers of the other model among which the most alike is sought, evenly through its depth;
        all if it has fewer.
    """

    asks: ClassVar[Asks] = "likeness"

    site: str
    neighbours: float = 0.1
    splits: int = 2
    depths: int = 6

    measures: ClassVar[Mapping[str, Quantity]] = {
        "cka": Quantity(
            "debiased CKA with the layer of the other model that is most alike in other items",
            -1.0,
            1.0,
        ),
        "rsa": Quantity(
            "rank correlation of the distances of items with those in the layer of the other "
            "model that is most alike in other items",
            -1.0,
            1.0,
        ),
        "neighbours": Quantity(
            "share of an item's neighbours that are its neighbours as well in the layer of the "
            "other model that is most alike in other items, beyond chance",
            -1.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if not 0 < self.neighbours <= 0.5:
            raise ValueError("neighbours must be a share of the items above 0, at most 0.5")
        if self.splits < 1:
            raise ValueError("splits must be at least 1")
        if self.depths < 1:
            raise ValueError("depths must be at least 1")

    @property
    def takes(self) -> int:
        return 2

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            ``cka``, ``rsa``, ``neighbours`` (layer): the likeness of each layer of the first
            subject with the layer of the second that is most alike in other items; 0 for none, 1
            for the same. ``cka_map``, ``rsa_map``, ``neighbours_map`` (layer, other_layer): over
            all items. ``path`` (layer): the layers of the second that match those of the first
            best by CKA, if depth is to grow with depth. With twins, ``by_training`` (untrained,
            layer): ``cka`` of the two (``neither`` is untrained), with a twin in the place of the
            first, of the second, and of both, on average over seeds. Units of outlying spread
            are left out (Davari et al. 2022).

        Raises
        ------
        AnalysisError
            If there are fewer than eight items, or the subjects have read other ones.
        """
        one, other = subjects
        left, right = self._grams(one, other)
        layer, other_layer = (each.volume["layer"].to_numpy() for each in subjects)
        found = {
            name: self.measured(one, other, variable=name, rng=deepcopy(rng)) for name in READINGS
        }
        every = np.arange(left.shape[1])
        maps = {name: self._map(name, left, right, every) for name in READINGS}
        result = xr.Dataset(
            {
                **found,
                **{f"{name}_map": (("layer", "other_layer"), one) for name, one in maps.items()},
                "path": ("layer", other_layer[path(maps["cka"])].astype(float)),
            },
            coords={"layer": layer, "other_layer": other_layer},
        )
        seeds = [seed for seed in one.twins if seed in other.twins]
        if not seeds:
            return result
        twins = np.mean([self._of_twins(one, other, seed, rng) for seed in seeds], axis=0)
        rows = np.concatenate([result["cka"].to_numpy()[None], twins])
        return result.assign(by_training=(("untrained", "layer"), rows)).assign_coords(
            untrained=list(UNTRAINED)
        )

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        one, other = subjects
        left, right = self._grams(one, at_depths(other, self.depths))
        return xr.DataArray(
            self._judged(variable, left, right, rng),
            dims="layer",
            coords={"layer": one.volume["layer"].to_numpy()},
            attrs={"chance": 0.0},
        )

    def _of_twins(
        self, one: Subject, other: Subject, seed: int, rng: np.random.Generator
    ) -> np.ndarray:
        """CKA of pairs of which one is untrained, or both: pair x layer."""
        twin, other_twin = one.twin(seed), other.twin(seed)
        pairs = ((twin, other), (one, other_twin), (twin, other_twin))
        return np.array([self.measured(*pair, variable="cka", rng=deepcopy(rng)) for pair in pairs])

    def _grams(self, *subjects: Subject) -> list[np.ndarray]:
        """Products of the patterns of every two items: of each subject layer x item x item."""
        words, names = same_words(subjects, self.site)
        if len(names) < 8:
            raise AnalysisError(f"universality: {len(names)} items; 8 are needed")
        return [grams(without_outliers(patterns)) for patterns in words]

    def _judged(
        self, name: str, left: np.ndarray, right: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Likeness with the layer that is most alike in other items: layer."""
        every, found = np.arange(left.shape[1]), []
        for _ in range(self.splits):
            half = item_groups(every, np.zeros(len(every)), groups=2, rng=rng)
            maps = [self._map(name, left, right, every[half == side]) for side in (0, 1)]
            found += [chosen(*maps), chosen(*maps[::-1])]
        return np.mean(found, axis=0)

    def _map(self, name: str, left: np.ndarray, right: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Likeness of every layer of one with every layer of the other among some items."""
        if name == "cka":
            return among(left, right, rows)
        pairs = [cosines(some[:, rows][:, :, rows]) for some in (left, right)]
        if name == "rsa":
            upper = np.triu_indices(len(rows), 1)
            one, other = (prepared(some[:, *upper], "spearman") for some in pairs)
            return alike(one, other, "spearman")
        count = max(1, round(self.neighbours * (len(rows) - 1)))
        one, other = (nearest(some, count) for some in pairs)
        shared = np.einsum("lij,mij->lm", one, other, optimize=True) / (count * len(rows))
        chance = count / (len(rows) - 1)
        return (shared - chance) / (1 - chance)


def at_depths(subject: Subject, count: int) -> Subject:
    """The subject with so many of its layers, evenly from the first to the last."""
    layers = subject.volume.sizes["layer"]
    kept = np.unique(np.linspace(0, layers - 1, min(count, layers)).round().astype(int))
    return subject.without_twins().replace_volume(subject.volume.isel(layer=kept))


def chosen(chooses: np.ndarray, judges: np.ndarray) -> np.ndarray:
    """The likeness with the other layer that another map finds most alike: layer."""
    best = np.where(np.isnan(chooses), -np.inf, chooses).argmax(1)
    return judges[np.arange(len(judges)), best]


def cosines(products: np.ndarray) -> np.ndarray:
    """Cosine of every two patterns: layer x item x item, of their products; NaN without length."""
    length = np.sqrt(np.diagonal(products, axis1=1, axis2=2))
    flat = length <= 1e-9 * length.max(1, keepdims=True)
    length = np.where(flat, np.nan, length)
    return products / length[:, :, None] / length[:, None, :]


def nearest(pairs: np.ndarray, count: int) -> np.ndarray:
    """Whether an item is among so many nearest ones of another: layer x item x item, 0 or 1."""
    away = -pairs.copy()
    away[:, np.arange(pairs.shape[1]), np.arange(pairs.shape[1])] = np.inf
    near = np.zeros(pairs.shape)
    np.put_along_axis(near, np.argpartition(away, count, axis=2)[..., :count], 1.0, axis=2)
    return np.where(np.isnan(pairs).any((1, 2), keepdims=True), np.nan, near)


def path(likeness: np.ndarray) -> np.ndarray:
    """The column of each row that makes the sum greatest, if columns never go back.

    Dynamic time warping without its steps along a row (Sakoe & Chiba 1978).

    Parameters
    ----------
    likeness : numpy.ndarray
        row x column; NaN counts for nothing.

    Returns
    -------
    numpy.ndarray
        row; columns.
    """
    values = np.nan_to_num(likeness)
    total = np.zeros(values.shape)
    total[0] = values[0]
    for row in range(1, len(values)):
        total[row] = values[row] + np.maximum.accumulate(total[row - 1])
    columns = np.empty(len(values), dtype=int)
    columns[-1] = total[-1].argmax()
    for row in range(len(values) - 2, -1, -1):
        columns[row] = total[row, : columns[row + 1] + 1].argmax()
    return columns
