"""Representational similarity analysis: whether a layer tells items apart as a label does.

After Kriegeskorte et al. (2008). The dissimilarity of items in a layer is held against a model that
a label makes (the same or another category, or the difference of a number), and again after
properties of the words that could make the same pattern have been taken out.

Where we differ: runs are groups of sentence frames or, for categories, their items, and never
repetitions, since a model that is asked twice answers the same. Units are scaled by their spread
over stimuli and not whitened, since there are more of them than stimuli; without scaling a few
units of large variance decide (Timkey & van Schijndel 2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial.distance import squareform

from analyses.base import (
    Analysis,
    AnalysisError,
    Quantity,
    labels,
    of_items,
    one_value,
    register,
    vectors,
)
from analyses.rdm import (
    Comparison,
    Distance,
    alike,
    compared,
    correlation,
    crossnobis,
    model_rdm,
    prepared,
    squared_euclidean,
)
from analyses.selectivity import row_correlation, stepped_up
from analyses.splits import item_groups
from analyses.words import in_spreads, without_frames
from scanner import Subject

# Permutations whose models are held at once.
AT_ONCE = 128


@register
@dataclass(frozen=True)
class Rsa(Analysis):
    """Compare the RDM of each layer with the RDM of a label.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table; of numbers, items differ by their difference.
    distance : {'crossnobis', 'euclidean', 'correlation'}
        Of items: cross-validated over groups of frames, or of means over frames.
    comparison : {'spearman', 'corr', 'rho-a'}
        Of RDMs.
    confounds : tuple of str
        Columns whose RDMs are taken out for the partial correlation. What acts on distances in a
        curve is taken out of ranks alone: with ``corr`` it leaves a trace of the other sign.
    frame_folds : int
        Groups of frames.
    """

    site: str
    label: str = "category"
    distance: Distance = "crossnobis"
    comparison: Comparison = "spearman"
    confounds: tuple[str, ...] = ("n_chars", "n_tokens", "zipf")
    frame_folds: int = 2

    measures: ClassVar[Mapping[str, Quantity]] = {
        "similarity": Quantity("correlation of the RDM of a layer with that of the label", -1, 1),
        "partial": Quantity("the same, without what the confounds explain", -1, 1),
    }

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            ``similarity`` and ``partial`` (layer), NaN where all items are the same;
            ``reliability`` (layer), the correlation of RDMs between groups of frames, stepped up to
            all of them: its root is the most that any model can reach. For labels that are no
            numbers ``rdm`` (layer, category, other_category), the mean distance of their items;
            ``contrast`` of the same shape, the distance of categories cross-validated over their
            items, 0 on average where they do not differ; and ``separation`` (layer, category): how
            much further the items of a category are from all others than from each other, over
            the spread of distances.
        """
        (subject,) = subjects
        rdms, reliability, values = self._rdms(subject, rng)
        model = model_rdm(values)[None]
        similar = compared(rdms, model, self.comparison)[:, 0]
        partial = compared(rdms, model, self.comparison, self._confounds(subject))[:, 0]
        found = {
            "similarity": ("layer", similar, {"chance": 0.0}),
            "partial": ("layer", partial, {"chance": 0.0}),
            "reliability": ("layer", reliability),
        }
        coords: dict[str, np.ndarray] = {"layer": subject.volume["layer"].to_numpy()}
        if values.dtype.kind != "f":
            names, sizes = np.unique(values, return_counts=True)
            means = _between(rdms, values, names)
            spread = rdms.std(1, keepdims=True)
            found["rdm"] = (("layer", "category", "other_category"), means)
            found["contrast"] = (("layer", "category", "other_category"), _contrast(means))
            found["separation"] = (("layer", "category"), _separation(means, sizes, spread))
            coords |= {"category": names, "other_category": names}
        return xr.Dataset(found, coords=coords)

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        """One of the correlations, without what else is told of the distances."""
        (subject,) = subjects
        rdms, _, values = self._rdms(subject, rng)
        confounds = self._confounds(subject) if variable == "partial" else None
        return xr.DataArray(
            compared(rdms, model_rdm(values)[None], self.comparison, confounds)[:, 0],
            dims="layer",
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 0.0},
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
        """All draws from the same RDMs: only the model changes (Mantel 1967)."""
        rdms, _, values = self._rdms(subject, rng)
        confounds = self._confounds(subject)[: None if variable == "partial" else 0]
        left, known, model = (
            prepared(some, self.comparison) for some in (rdms, confounds, model_rdm(values)[None])
        )
        square = squareform(model[0], checks=False)
        one, other = np.triu_indices(len(values), 1)
        items = np.tile(np.arange(len(values)), (draws, 1))
        found = []
        for order in np.array_split(shuffles.permuted(items, axis=1), -(-draws // AT_ONCE)):
            right = square[order[:, one], order[:, other]]
            found.append(alike(left, right, self.comparison, known).T)
        return xr.DataArray(
            np.concatenate(found),
            dims=("draw", "layer"),
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 0.0},
        )

    def _rdms(
        self, subject: Subject, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The RDM of each layer (layer x pair), its reliability, and the label of each item."""
        if len(np.unique(labels(subject, self.label))) < 2:
            raise AnalysisError(one_value(self.label, labels(subject, self.label)[0]))
        found = item_rdms(
            subject, self.site, distance=self.distance, frame_folds=self.frame_folds, rng=rng
        )
        values = of_items(subject, self.label, found.first, found.which)
        return found.rdms, found.reliability, values

    def _confounds(self, subject: Subject) -> np.ndarray:
        """The RDMs of the confounds that vary, confound x pair."""
        items = labels(subject, "item")
        first, which = np.unique(items, return_index=True, return_inverse=True)[1:]
        columns = [of_items(subject, name, first, which) for name in self.confounds]
        pairs = len(first) * (len(first) - 1) // 2
        varied = [model_rdm(values) for values in columns if len(np.unique(values)) > 1]
        return np.array(varied).reshape(-1, pairs)


class ItemRdms(NamedTuple):
    """How far items are apart in each layer.

    Attributes
    ----------
    rdms : numpy.ndarray
        layer x pair.
    reliability : numpy.ndarray
        layer; the correlation of RDMs between groups of frames, stepped up to all of them.
    first, which : numpy.ndarray
        item, a stimulus of each; stimulus, the item of each.
    """

    rdms: np.ndarray
    reliability: np.ndarray
    first: np.ndarray
    which: np.ndarray


def item_rdms(
    subject: Subject, site: str, *, distance: Distance, frame_folds: int, rng: np.random.Generator
) -> ItemRdms:
    """The RDM of the items in each layer of a subject.

    Raises
    ------
    AnalysisError
        If there are fewer than four items, or not enough frames to divide.
    """
    x = vectors(subject, site)
    items, frames = labels(subject, "item"), labels(subject, "frame")
    first, which = np.unique(items, return_index=True, return_inverse=True)[1:]
    if len(first) < 4:
        raise AnalysisError(f"rsa: {len(first)} items; 4 are needed")
    try:
        group = item_groups(frames, np.zeros(len(frames), int), groups=frame_folds, rng=rng)
    except ValueError:
        raise AnalysisError(
            f"rsa: {len(np.unique(frames))} frames cannot be divided into {frame_folds} groups"
        ) from None
    cell = group * len(first) + which
    counts = np.bincount(cell, minlength=frame_folds * len(first))
    if not counts.all():
        missing = items[first][counts.argmin() % len(first)]
        raise AnalysisError(f"rsa: '{missing}' is in no frame of one group of frames")
    order, starts = np.argsort(cell, kind="stable"), np.cumsum(counts) - counts
    counts = counts.reshape(frame_folds, -1, 1)
    rdms, reliability = [], []
    for layer in x:
        sums = np.add.reduceat(in_spreads(without_frames(layer, frames), layer)[order], starts)
        sums = sums.reshape(*counts.shape[:2], -1)
        reliability.append(_reliability(sums / counts))
        if distance == "crossnobis":
            rdms.append(crossnobis(sums / counts))
        else:
            between = squared_euclidean if distance == "euclidean" else correlation
            rdms.append(between(sums.sum(0) / counts.sum(0)))
    return ItemRdms(np.array(rdms), np.array(reliability), first, which)


def _reliability(folds: np.ndarray) -> float:
    """The correlation of RDMs between folds, stepped up to all (Spearman 1910; Brown 1910)."""
    each = np.array([squared_euclidean(fold) for fold in folds])
    one, other = np.triu_indices(len(each), 1)
    return float(stepped_up(row_correlation(each[one], each[other]).mean(), len(each)))


def _between(rdms: np.ndarray, values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Mean distance of the items of two categories, layer x category x other category.

    NaN within a category of one item.
    """
    member = (values == names[:, None]).astype(float)
    size = member.sum(1)
    pairs = np.outer(size, size) - np.diag(size)  # an item is no pair with itself
    sums = np.array([member @ squareform(rdm, checks=False) @ member.T for rdm in rdms])
    return np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=pairs > 0)


def _contrast(means: np.ndarray) -> np.ndarray:
    """How far categories are apart beyond what items of one are, of the shape of `means`.

    Of squared distances it is that of the categories' means, cross-validated with each item a run
    of its own (crossnobis, Walther et al. 2016), averaged over all ways to pair the items of two
    categories in runs.
    """
    inside = np.diagonal(means, axis1=1, axis2=2)
    return means - (inside[:, :, None] + inside[:, None]) / 2


def _separation(means: np.ndarray, sizes: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Mean distance from a category's items to others, less that among them, over the spread."""
    others = np.where(np.eye(len(sizes), dtype=bool), 0.0, sizes)
    without = (np.nan_to_num(means) * others).sum(2) / others.sum(1)
    apart = without - np.diagonal(means, axis1=1, axis2=2)
    return np.divide(apart, spread, out=np.full(apart.shape, np.nan), where=spread > 0)
