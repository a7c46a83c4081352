"""Whether heads that are wired to each other go together: structural and functional connectome.

Of two heads of different layers, the weights tell how much of what one writes the other reads
(`scanner.wiring`), and stimuli tell how far their activities go together; the two are correlated
over pairs (Honey et al. 2009). Both fall with the distance of layers, so that some correlation is
had for nothing: beside it stands the same with the heads of each layer dealt out anew.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from analyses.base import (
    Analysis,
    AnalysisError,
    Asks,
    Quantity,
    check_recorded,
    misfit,
    register,
)
from analyses.words import same_words
from scanner import Subject

FEWEST = 8


@register
@dataclass(frozen=True)
class Coupling(Analysis):
    """Correlate what heads do with how they are wired.

    Attributes
    ----------
    site : str
        The heads to read: the name of a ``parcels`` analysis of heads of all layers.
    draws : int
        Dealings of the heads of each layer.
    """

    asks: ClassVar[Asks] = "wiring"

    site: str
    draws: int = 199

    measures: ClassVar[Mapping[str, Quantity]] = {
        "coupling": Quantity(
            "Spearman's correlation, over pairs of heads of different layers, of how strongly they "
            "are wired with how far they go together",
            -1.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if self.draws < 19:
            raise ValueError("draws must be at least 19")

    def misfit(self, dims: Collection[str]) -> str:
        if "parcel" not in dims:
            return f"'{self.site}' has no wiring; name a `parcels` analysis of heads"
        return misfit(self.site, dims)

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Correlate.

        Returns
        -------
        xarray.Dataset
            Of layer 0, for all layers: ``coupling`` (layer): Spearman's correlation, over pairs of
            heads of different layers, of the size of the correlation of their activities over items
            with how strongly they are wired; its chance is what it is on average over all dealings
            of heads within layers. ``coupling_dealt`` (layer): that average; ``coupling_p``
            (layer): how often one of `draws` dealings has as much.

        Raises
        ------
        AnalysisError
            If what it reads are not the heads of all layers, or there are fewer than eight items.
        """
        (subject,) = subjects
        pairs = self._pairs(subject)
        found, by_depth = pairs.correlation(np.arange(len(pairs.layers))), pairs.by_depth
        dealt = np.array(
            [pairs.correlation(dealt_within(pairs.layers, rng)) for _ in range(self.draws)]
        )
        p = (1 + np.sum(dealt >= found)) / (1 + self.draws)
        return xr.Dataset(
            {
                "coupling": ("layer", [found], {"chance": by_depth}),
                "coupling_dealt": ("layer", [by_depth]),
                "coupling_p": ("layer", [p]),
            },
            coords={"layer": subject.volume["layer"].to_numpy()},
        )

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        pairs = self._pairs(subject)
        found = pairs.correlation(np.arange(len(pairs.layers)))
        layer = subject.volume["layer"].to_numpy()
        return xr.DataArray([found], {"layer": layer}, attrs={"chance": pairs.by_depth})

    def _pairs(self, subject: Subject) -> "Pairs":
        check_recorded(subject, self.site)
        volume = subject.volume
        if "wired" not in volume.coords or volume.sizes["layer"] != 1:
            raise AnalysisError(f"{subject.name}: '{self.site}' are not the heads of all layers")
        ((words,), names) = same_words([subject], self.site)
        if len(names) < FEWEST:
            raise AnalysisError(f"coupling: {len(names)} items; {FEWEST} are needed")
        wired = volume["wired"].transpose("parcel", "other_parcel").to_numpy()
        return Pairs(_correlations(words[0]), wired, volume["parcel_layer"].to_numpy())


class Pairs:
    """Pairs of nodes of different layers: ranks of what they do and of how they are wired.

    Parameters
    ----------
    correlations, wired : numpy.ndarray
        Node x node; of wiring, writer x reader.
    layers : numpy.ndarray
        Of each node.
    """

    def __init__(self, correlations: np.ndarray, wired: np.ndarray, layers: np.ndarray) -> None:
        self.layers = layers
        self.writer, self.reader = np.nonzero(layers[:, None] < layers)
        pairs = self.writer, self.reader
        self.together = _around(rankdata(np.abs(correlations)[pairs]))
        self.ranks = np.zeros(wired.shape)
        # Heads that change places within layers leave all ranks what they are, and their mean.
        self.ranks[pairs] = _around(rankdata(wired[pairs]))
        self.length = np.linalg.norm(self.together) * np.linalg.norm(self.ranks[pairs])

    def correlation(self, order: np.ndarray) -> float:
        """With the wiring of the nodes in another order, which leaves layers what they are."""
        own = self.ranks[order[self.writer], order[self.reader]]
        return float(self.together @ own / self.length) if self.length > 0 else 0.0

    @property
    def by_depth(self) -> float:
        """Its mean over all orders: each pair of layers has the mean of its ranks everywhere."""
        if not self.length > 0:
            return 0.0
        _, layer = np.unique(self.layers, return_inverse=True)
        which = layer[self.writer] * (1 + layer.max()) + layer[self.reader]
        count = np.bincount(which)
        sums = (
            np.bincount(which, one) for one in (self.together, self.ranks[self.writer, self.reader])
        )
        both = np.prod(list(sums), axis=0)
        return float(np.sum(both[count > 0] / count[count > 0]) / self.length)


def _around(ranks: np.ndarray) -> np.ndarray:
    return ranks - ranks.mean()


def _correlations(words: np.ndarray) -> np.ndarray:
    """Of every two columns, node x node, from item x node; 0 of one that does nothing."""
    around = words - words.mean(0)
    length = np.linalg.norm(around, axis=0)
    scaled = np.divide(around, length, out=np.zeros_like(around), where=length > 0)
    return scaled.T @ scaled


def dealt_within(layers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of nodes with those of each layer dealt out anew."""
    order = np.arange(len(layers))
    for layer in np.unique(layers):
        own = np.flatnonzero(layers == layer)
        order[own] = rng.permutation(own)
    return order
