"""Whether a category can be told by how units go together, whatever their means.

Of the items of each category in one half there is a network: which units rise and fall together
over them. It is held against the networks of all categories in the other half, as scans of people
are told apart by theirs (Finn et al. 2015). What a category adds to all of its items alike is no
part of it.

Networks are correlations, partial correlations, or how they differ from the middle of all networks
in the space that is tangent there (Varoquaux et al. 2010), all by nilearn, of covariances that are
shrunk as much as so few items need (Ledoit & Wolf 2004).
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import xarray as xr
from nilearn.connectome import ConnectivityMeasure
from sklearn.covariance import LedoitWolf

from analyses.base import Analysis, AnalysisError, Quantity, register
from analyses.words import Words, in_spreads, read_words
from scanner import Subject

Edges = Literal["correlation", "partial correlation", "tangent"]
# Items of a category in a half.
FEWEST = 3
# Variance that each unit has of its own, of 1 over all items: a category may not vary at all.
FLOOR = 0.01


class _Shrunk(LedoitWolf):
    """A covariance after shrinkage that has an inverse, whatever the items."""

    def fit(self, X: np.ndarray, y: None = None) -> "_Shrunk":  # noqa: N803
        super().fit(X, y)
        self.covariance_ = self.covariance_ + FLOOR * np.eye(X.shape[1])
        return self


@register
@dataclass(frozen=True)
class Fingerprint(Analysis):
    """Tell categories apart by their networks.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table.
    edges : {'correlation', 'partial correlation', 'tangent'}
        Of nilearn.
    nodes : int
        Units, drawn at random; all where there are fewer.
    splits : int
        Halvings of the items.
    """

    site: str
    label: str = "category"
    edges: Edges = "tangent"
    nodes: int = 40
    splits: int = 4

    measures: ClassVar[Mapping[str, Quantity]] = {
        "nearer": Quantity(
            "how often the network of a category is more like its own of other items than like "
            "that of another category",
            0.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if self.edges not in get_args(Edges):
            raise ValueError(f"edges: no '{self.edges}'; there is {', '.join(get_args(Edges))}")
        if self.nodes < 2 or self.splits < 1:
            raise ValueError("nodes must be at least 2, splits at least 1")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare networks.

        Returns
        -------
        xarray.Dataset
            ``nearer`` (layer): a half where nothing tells them apart; ``identified`` (layer): the
            share of categories whose network is most like their own; ``networks_apart`` (layer,
            category, other_category): one less the correlation of the network of a category with
            that of another one in other items, on average over halves.

        Raises
        ------
        AnalysisError
            If there are fewer than two categories, or six items of one.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        alike = self._alike(words, rng)
        own = np.diagonal(alike, axis1=2, axis2=3)
        best = (alike.argmax(3) == np.arange(len(words.names))).mean((1, 2))
        return xr.Dataset(
            {
                "nearer": ("layer", _nearer(alike, own), {"chance": 0.5}),
                "identified": ("layer", best, {"chance": 1 / len(words.names)}),
                "networks_apart": (("layer", "category", "other_category"), 1 - alike.mean(1)),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "category": words.names,
                "other_category": words.names,
            },
        )

    def _alike(self, words: Words, rng: np.random.Generator) -> np.ndarray:
        """Of networks of two halves: layer x half x category x other category."""
        parts = words.parts(2, each=FEWEST, splits=self.splits, rng=rng)
        units = words.patterns.shape[2]
        if units < 2:
            raise AnalysisError(f"fingerprint: {units} units; 2 are needed")
        chosen = rng.permutation(units)[: self.nodes]
        found = []
        for layer in words.patterns[..., chosen]:
            active = layer[:, np.ptp(layer, axis=0) > 0]
            if active.shape[1] < 2:
                found.append(np.zeros((2 * len(parts), *(len(words.names),) * 2)))
                continue
            scaled = in_spreads(active - active.mean(0), active)
            found.append([one for halves in parts for one in self._of_halves(scaled, halves)])
        return np.array(found)

    def _of_halves(self, layer: np.ndarray, halves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correlations of the networks of one half with those of the other, both ways.

        Of item x node, and half x category x item.
        """
        first, other = ([layer[one] for one in half] for half in halves)
        measure = ConnectivityMeasure(
            _Shrunk(), kind=self.edges, vectorize=True, discard_diagonal=True, standardize=False
        )  # fmt: skip
        # The middle is that of one half: of both, each would lie where the other drew it.
        with warnings.catch_warnings():
            # To a tolerance it may not come; what is near the middle of networks will do as well.
            warnings.filterwarnings("ignore", "Maximum number of iterations", UserWarning)
            networks = measure.fit(first).transform(first), measure.transform(other)
        rows = [one - one.mean(1, keepdims=True) for one in networks]
        sizes = [np.linalg.norm(one, axis=1, keepdims=True) for one in rows]
        unit = [
            np.divide(one, size, out=np.zeros_like(one), where=size > 0)
            for one, size in zip(rows, sizes, strict=True)
        ]
        alike = unit[0] @ unit[1].T
        return alike, alike.T


def _nearer(alike: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How often own is more than another, ties a half: layer."""
    count = alike.shape[3]
    more = (own[..., None] > alike).sum((2, 3)) + 0.5 * (own[..., None] == alike).sum((2, 3))
    # Each is as much as itself.
    return ((more - 0.5 * count) / (count * (count - 1))).mean(1)
