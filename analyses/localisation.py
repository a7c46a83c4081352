"""Over how few features, and over how few units, what tells a category from the rest is spread.

The difference of means has a share of its square in few units or in many; the same is counted in
features of a dictionary, each by what it writes. By how much the one count is larger than the other
depends on how many features there are and how many may be active, and any grouping of words is
found in fewer features than units: so it stands beside the same for labels that were dealt out anew
among the items.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, check_recorded, misfit, register
from analyses.words import Words, read_words
from scanner import Subject


@register
@dataclass(frozen=True)
class Localisation(Analysis):
    """Count features and units.

    Attributes
    ----------
    site : str
        The features to read: the name of a ``features`` analysis.
    label : str
        A column of the stimulus table.
    share : float
        Of the squared difference, that is to be reached.
    draws : int
        Dealings of the labels.
    """

    site: str
    label: str = "category"
    share: float = 0.9
    draws: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share of {self.share:g}; it must lie between 0 and 1")
        if self.draws < 1:
            raise ValueError("draws must be at least 1")

    def misfit(self, dims: Collection[str]) -> str:
        if "feature" not in dims:
            return f"'{self.site}' has units, not features; name a `features` analysis"
        return misfit(self.site, dims)

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Count.

        Returns
        -------
        xarray.Dataset
            ``needed_units``, ``needed_features`` (layer, category): the fewest that have the share
            of the squared difference of means between a category and the rest. By layer, geometric
            means over categories: ``factor``, how many times fewer features than units;
            ``dealt_factor``, the median of that over dealings of the labels; ``normed_factor``, by
            shares of the units and of the features that are ever active, in the place of counts.
            NaN where a category does not differ.

        Raises
        ------
        AnalysisError
            If what it reads are no features, or a category has no items beside it.
        """
        (subject,) = subjects
        check_recorded(subject, self.site)
        if "units" not in subject.volume:
            raise AnalysisError(f"{subject.name}: '{self.site}' are no features of a dictionary")
        features, units = (read_words(subject, site, self.label) for site in (self.site, "units"))
        member = features.member
        dealt = np.array([member[:, rng.permutation(member.shape[1])] for _ in range(self.draws)])
        counts = [_needed(words, member[None], self.share)[0] for words in (units, features)]
        by_chance = [_needed(words, dealt, self.share) for words in (units, features)]
        alive = (subject.volume[self.site] != 0).any("stimulus").sum("feature").to_numpy()
        shares = counts[0] / units.patterns.shape[2], counts[1] / alive[:, None]
        names = ("layer", "category")
        return xr.Dataset(
            {
                "needed_units": (names, counts[0]),
                "needed_features": (names, counts[1]),
                "factor": ("layer", _times(*counts)),
                "dealt_factor": ("layer", np.median(_times(*by_chance), axis=0)),
                "normed_factor": ("layer", _times(*shares)),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "category": features.names,
            },
        )


def _needed(words: Words, member: np.ndarray, share: float) -> np.ndarray:
    """How many columns have that share of a difference: draw x layer x category.

    Parameters
    ----------
    words : Words
    member : numpy.ndarray
        draw x category x item.
    share : float
    """
    inside = member / member.sum(-1, keepdims=True)
    outside = ~member / (~member).sum(-1, keepdims=True)
    found = []
    for one, rest in zip(inside, outside, strict=True):
        energy = np.square((one - rest) @ words.patterns)  # layer x category x column
        reached = np.cumsum(np.sort(energy, axis=-1)[..., ::-1], axis=-1)
        whole = reached[..., -1:]
        count = (reached < share * whole).sum(-1) + 1.0
        found.append(np.where(whole[..., 0] > 0, count, np.nan))
    return np.array(found)


def _times(units: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The geometric mean of their ratio over the last dimension."""
    return np.exp(np.log(units / features).mean(-1))
