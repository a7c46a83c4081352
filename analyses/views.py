"""Items in a plane, by UMAP and by principal components, with numbers that say what to believe.

What is seen in a plane of UMAP (McInnes et al. 2018) is its neighbourhoods; distances between
groups, and how far apart groups are, mean nothing (Chari & Pachter 2023). So silhouette (Rousseeuw
1987) and purity of neighbours are those of all units, and the plane is judged by its
trustworthiness (Venna & Kaski 2001) and by how alike the planes of several seeds are. Units of
outlying spread are left out, since they would make all items alike, and items are told apart by
their cosine.
"""

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from analyses.base import Analysis, AnalysisError, labels, register
from analyses.geometry import outliers
from analyses.words import read_words
from scanner import Subject


@register
@dataclass(frozen=True)
class Views(Analysis):
    """Draw the items of a few layers.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table; it colours the items, and does not place them.
    of : str, optional
        The value of `among` whose items alone are drawn; all items by default.
    among : str
        A column of the stimulus table.
    layers : int
        How many layers are drawn, at even steps from the first to the last.
    neighbours : int
        Of UMAP, and of purity and trustworthiness.
    min_dist : float
        Of UMAP: how close points may lie.
    seeds : int
        Planes of UMAP that are compared; the first is drawn.
    """

    site: str
    label: str = "category"
    of: str | None = None
    among: str = "category"
    layers: int = 6
    neighbours: int = 15
    min_dist: float = 0.1
    seeds: int = 3

    def __post_init__(self) -> None:
        if find_spec("umap") is None:
            raise ValueError("needs umap-learn; install it with: pip install 'lmfmri[views]'")
        if self.layers < 1 or self.neighbours < 2 or self.seeds < 2:
            raise ValueError("layers must be at least 1, neighbours and seeds at least 2")
        if not self.min_dist >= 0:
            raise ValueError(f"min_dist of {self.min_dist:g}; it must not be below 0")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Draw.

        Returns
        -------
        xarray.Dataset
            ``umap`` and ``pca`` (layer, item, axis), with the label of each item as coordinate
            ``label``; by layer ``silhouette`` and ``purity`` of the categories in all units (chance
            of purity is ``chance_purity``), ``trustworthiness`` and ``trustworthiness_pca`` of the
            planes, and ``stability``: the mean correlation of distances between the planes of two
            seeds. Layers in which all items are the same are NaN.

        Raises
        ------
        AnalysisError
            If there are fewer items than twice the neighbours and one, or none of that value.
        """
        (subject,) = subjects
        if self.of is not None:
            names = labels(subject, self.among)
            if self.of not in names:
                known = ", ".join(np.unique(names))
                raise AnalysisError(f"views: '{self.among}' is nowhere '{self.of}'; it is {known}")
            subject = subject.take(np.flatnonzero(names == self.of))
        words = read_words(subject, self.site, self.label)
        count = words.patterns.shape[1]
        if count < 2 * self.neighbours + 2:
            raise AnalysisError(
                f"views: {count} items; {2 * self.neighbours + 2} are needed for "
                f"{self.neighbours} neighbours"
            )
        every = subject.volume["layer"].to_numpy()
        shown = np.unique(np.linspace(0, len(every) - 1, self.layers).round().astype(int))
        seeds = rng.integers(2**31, size=self.seeds).tolist()
        found = [self._view(words.patterns[layer], words.codes, seeds) for layer in shown]
        sizes = np.bincount(words.codes)
        dims = ("layer", "item", "axis")
        return xr.Dataset(
            {
                name: (dims[: 1 + np.ndim(found[0][name])], np.array([one[name] for one in found]))
                for name in found[0]
            },
            coords={
                "layer": every[shown],
                "item": words.items,
                "axis": np.arange(2),
                "label": ("item", words.names[words.codes]),
                "chance_purity": np.sum(sizes * (sizes - 1)) / (count * (count - 1)),
            },
        )

    def _view(self, patterns: np.ndarray, codes: np.ndarray, seeds: list[int]) -> dict[str, Any]:
        even = patterns[:, ~outliers(patterns)]
        centred = even - even.mean(0)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        if not (length > 1e-12 * np.linalg.norm(patterns)).all():
            plane = np.full((len(codes), 2), np.nan)
            names = ("silhouette", "purity", "trustworthiness", "trustworthiness_pca", "stability")
            return {"umap": plane, "pca": plane, **dict.fromkeys(names, np.nan)}
        unit = centred / length
        planes = [self._umap(unit, seed) for seed in seeds]
        apart = np.asarray(np.corrcoef([pdist(plane) for plane in planes]))
        flat = PCA(2, svd_solver="full").fit_transform(unit)
        near = NearestNeighbors(n_neighbors=self.neighbours, metric="cosine").fit(unit)
        same = codes[near.kneighbors(return_distance=False)] == codes[:, None]
        return {
            "umap": planes[0],
            "pca": flat,
            "silhouette": silhouette_score(unit, codes, metric="cosine"),
            "purity": same.mean(),
            "trustworthiness": self._trust(unit, planes[0]),
            "trustworthiness_pca": self._trust(unit, flat),
            "stability": apart[np.triu_indices(len(seeds), 1)].mean(),
        }

    def _trust(self, unit: np.ndarray, plane: np.ndarray) -> float:
        return float(trustworthiness(unit, plane, n_neighbors=self.neighbours, metric="cosine"))

    def _umap(self, unit: np.ndarray, seed: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it has not, and of its own settings
            from umap import UMAP  # seconds, and only where it is asked for

            drawn = UMAP(
                n_neighbors=self.neighbours, min_dist=self.min_dist, metric="cosine",
                random_state=seed, n_jobs=1,
            )  # fmt: skip
            return np.asarray(drawn.fit_transform(unit), dtype=float)
