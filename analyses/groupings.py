"""By which of two groupings of the same items a layer tells them apart.

Drugs may lie together by what they are given for, or by how they act. Each grouping is judged on
pairs of items that it alone puts together, so that neither has the other's share, and how fine it
is has no say: how often such a pair is nearer than one that neither puts together. What spelling,
length and frequency predict of distances is taken out of their ranks before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from analyses.base import Analysis, AnalysisError, Quantity, labels, of_items, one_value, register
from analyses.rdm import Distance, beyond, by_letters, model_rdm, prepared
from analyses.rsa import item_rdms
from scanner import Subject

MEASURES = ("by_label", "by_rival", "rather")
CHANCE = {"by_label": 0.5, "by_rival": 0.5, "rather": 0.0}


@register
@dataclass(frozen=True)
class Groupings(Analysis):
    """Hold two groupings against each other.

    Attributes
    ----------
    site : str
        Kind of site to read.
    rival : str
        A column of the stimulus table: the other grouping.
    label : str
        A column of the stimulus table.
    distance : {'crossnobis', 'euclidean', 'correlation'}
        Of items: cross-validated over groups of frames, or of means over frames.
    confounds : tuple of str
        Columns whose RDMs are taken out, beside letters.
    frame_folds : int
        Groups of frames.
    """

    site: str
    rival: str
    label: str = "category"
    distance: Distance = "crossnobis"
    confounds: tuple[str, ...] = ("n_chars", "n_tokens", "zipf")
    frame_folds: int = 2

    measures: ClassVar[Mapping[str, Quantity]] = {
        "by_label": Quantity(
            "how often two items with the same label, and not the same of the rival, are nearer "
            "than two that have neither in common, whatever their letters",
            0.0,
            1.0,
        ),
        "rather": Quantity(
            "how much more often two items are nearer than others for the label alone than for the "
            "rival alone, whatever their letters",
            -1.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if self.rival == self.label:
            raise ValueError(f"rival: '{self.rival}' is the label itself; name another column")

    @property
    def dealt(self) -> tuple[str, ...]:
        return self.label, self.rival

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            By layer: ``by_label``, how often a pair of items that the label alone puts together is
            nearer than one that neither grouping does; ``by_rival``, the same for the rival;
            ``rather``, the first less the second.

        Raises
        ------
        AnalysisError
            If one of the groupings puts no two items together that the other keeps apart, or items
            or frames are too few.
        """
        (subject,) = subjects
        distances, (same, rival) = self._pairs(subject, rng)
        found = _held(distances, same[None], rival[None])
        return xr.Dataset(
            {
                name: ("layer", one[0], {"chance": CHANCE[name]})
                for name, one in zip(MEASURES, found, strict=True)
            },
            coords={"layer": subject.volume["layer"].to_numpy()},
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
        """All draws from the same distances: only the groupings change (Mantel 1967)."""
        distances, groupings = self._pairs(subject, rng)
        squares = [squareform(one) for one in groupings]
        one, other = np.triu_indices(len(squares[0]), 1)
        orders = np.array([shuffles.permutation(len(squares[0])) for _ in range(draws)])
        same, rival = (square[orders[:, one], orders[:, other]] for square in squares)
        return xr.DataArray(
            _held(distances, same, rival)[MEASURES.index(variable)],
            dims=("draw", "layer"),
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": CHANCE[variable]},
        )

    def _pairs(
        self, subject: Subject, rng: np.random.Generator
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Distances without what is known (layer x pair), and which pairs each grouping joins."""
        found = item_rdms(
            subject, self.site, distance=self.distance, frame_folds=self.frame_folds, rng=rng
        )
        label, rival = (labels(subject, name)[found.first] for name in (self.label, self.rival))
        for name, values in ((self.label, label), (self.rival, rival)):
            if len(np.unique(values)) < 2:
                raise AnalysisError(one_value(name, values[0]))
        joined = tuple(model_rdm(values) == 0 for values in (label, rival))
        for name, own, other in (
            (self.label, joined[0], joined[1]),
            (self.rival, joined[1], joined[0]),
        ):
            if not (own & ~other).any():
                raise AnalysisError(
                    f"groupings: no two items have '{name}' alone in common; items of one value of "
                    f"'{self.label}' must have several of '{self.rival}', and the other way round"
                )
        letters = by_letters(labels(subject, "item")[found.first])
        columns = [of_items(subject, name, found.first, found.which) for name in self.confounds]
        known = [letters, *map(model_rdm, columns)]
        known = prepared(np.array([one for one in known if np.ptp(one) > 0]), "spearman")
        ranks = prepared(found.rdms, "spearman")
        return (beyond(ranks, known) if len(known) else ranks), (joined[0], joined[1])


def _held(distances: np.ndarray, same: np.ndarray, rival: np.ndarray) -> np.ndarray:
    """`MEASURES` x draw x layer, of layer x pair and which pairs are joined, draw x pair."""
    found = []
    for own, other in zip(same, rival, strict=True):
        neither = ~(own | other)
        of_label = _nearer(distances, own & ~other, neither)
        of_rival = _nearer(distances, other & ~own, neither)
        found.append([of_label, of_rival, of_label - of_rival])
    return np.array(found).swapaxes(0, 1)


def _nearer(distances: np.ndarray, near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """How often one of the first pairs is nearer than one of the others (Mann & Whitney 1947)."""
    some = near | far
    ranks = rankdata(distances[:, some], axis=1)[:, far[some]].sum(1)
    count, others = far.sum(), near.sum()
    return (ranks - count * (count + 1) / 2) / (count * others)
