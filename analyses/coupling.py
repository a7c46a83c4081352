"""Whether heads that are wired to each other go together: structural and functional connectome.

Of two heads of different layers, the weights tell how much of what one writes the other reads
(`scanner.wiring`), and stimuli tell how far their activities go together; the two are correlated
over pairs (Honey et al. 2009). Both fall with the distance of layers, so that some correlation is
had for nothing: beside it stands the same with the heads of each layer dealt out anew.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from analyses.base import Analysis, AnalysisError, Asks, check_recorded, misfit, register
from analyses.words import same_words
from scanner import Subject


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

    asks: ClassVar[Asks] = "structure"

    site: str
    draws: int = 199

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
            ``coupling`` (scalar): Spearman's correlation, over pairs of heads of different layers,
            of the size of the correlation of their activities over items with how strongly they are
            wired; ``coupling_dealt``: the same on average with heads dealt out within layers, and
            ``coupling_p``: how often that is as much.

        Raises
        ------
        AnalysisError
            If what it reads are not the heads of all layers, or there are fewer than eight items.
        """
        (subject,) = subjects
        check_recorded(subject, self.site)
        volume = subject.volume
        if "wired" not in volume.coords or volume.sizes["layer"] != 1:
            raise AnalysisError(f"{subject.name}: '{self.site}' are not the heads of all layers")
        ((words,), names) = same_words([subject], self.site)
        if len(names) < 8:
            raise AnalysisError(f"coupling: {len(names)} items; 8 are needed")
        wired = volume["wired"].transpose("parcel", "other_parcel").to_numpy()
        layers = volume["parcel_layer"].to_numpy()
        writer, reader = np.nonzero(layers[:, None] < layers)
        together = rankdata(np.abs(_correlations(words[0]))[writer, reader])
        ranks = np.zeros(wired.shape)
        ranks[writer, reader] = rankdata(wired[writer, reader])
        together -= together.mean()

        def correlation(order: np.ndarray) -> float:
            # Heads that change places within layers leave all pairs of layers what they are.
            own = ranks[order[writer], order[reader]]
            own = own - own.mean()
            length = np.sqrt(together @ together * (own @ own))
            return float(together @ own / length) if length > 0 else 0.0

        found = correlation(np.arange(len(layers)))
        dealt = np.array([correlation(_within(layers, rng)) for _ in range(self.draws)])
        return xr.Dataset(
            {
                "coupling": found,
                "coupling_dealt": dealt.mean(),
                "coupling_p": (1 + np.sum(dealt >= found)) / (1 + self.draws),
            }
        )


def _correlations(words: np.ndarray) -> np.ndarray:
    """Of every two columns, node x node, from item x node; 0 of one that does nothing."""
    around = words - words.mean(0)
    length = np.linalg.norm(around, axis=0)
    scaled = np.divide(around, length, out=np.zeros_like(around), where=length > 0)
    return scaled.T @ scaled


def _within(layers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of nodes with those of each layer dealt out anew."""
    order = np.arange(len(layers))
    for layer in np.unique(layers):
        own = np.flatnonzero(layers == layer)
        order[own] = rng.permutation(own)
    return order
