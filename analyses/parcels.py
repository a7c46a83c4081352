"""A site in parcels: each of many units that go together as one number, as an atlas tells a brain.

A parcel is a head, or a cluster of units of a layer whose activities are alike over the tokens of
*other* texts (Craddock et al. 2012): a parcellation of what it is used on would put together what
lies together by luck. A head has one number a stimulus along the
direction in which its output varies most over these tokens (the first eigenvariate, as SPM sums up
a region), a cluster the mean of its units in their standard deviations.

Heads of all layers come with how strongly they are wired by their weights (`scanner.wiring`), the
structural connectome that a functional one can be held against.

The parcels stand in a volume that other analyses read as a site of their own, by the name that this
has in the protocol; those of all layers side by side, as layer 0, or layer by layer.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from sklearn.cluster import KMeans

from analyses.acting import Acting
from analyses.base import AnalysisError, misfit, register, vectors
from scanner import Live, Site, Subject
from scanner.sites import Kind
from scanner.token_activations import each_once, token_activations
from scanner.wiring import wiring
from stimuli import load, shipped

# Bytes of activations of tokens that are held at once.
HELD = 2**30
# Directions in which units are told apart before they are clustered.
COMPONENTS = 50


@register
@dataclass(frozen=True)
class Parcels(Acting):
    """Tell a site as parcels.

    Attributes
    ----------
    site : str
        Kind of site to read.
    by : {'head', 'cluster'}
        What is a parcel.
    count : int
        Clusters of a layer.
    across : bool
        Whether the parcels of all layers stand side by side, as layer 0.
    text : str
        A shipped set of stimuli, over the tokens of which units are held to go together.
    """

    site: Kind
    by: Literal["head", "cluster"] = "head"
    count: int = 8
    across: bool = True
    text: str = "language"

    makes: ClassVar[tuple[str, ...]] = ("stimulus", "layer", "parcel")

    def __post_init__(self) -> None:
        if self.by not in ("head", "cluster"):
            raise ValueError(f"by: '{self.by}' is none of head, cluster")
        if self.count < 2:
            raise ValueError("count must be at least 2")
        if self.text not in shipped():
            raise ValueError(f"text: no set '{self.text}'; there is {', '.join(shipped())}")

    def misfit(self, dims: Collection[str]) -> str:
        if self.by == "head" and "head" not in dims:
            return f"'{self.site}' has no heads; z has, or take parcels by cluster"
        return misfit(self.site, dims)

    @property
    def stands_at(self) -> tuple[int, ...] | None:
        return (0,) if self.across else None

    def runs(self, live: Live, subject: Subject) -> Sequence[range]:
        """Layers whose tokens are held at once."""
        layers = subject.volume.sizes["layer"]
        (units,) = {vectors(subject, self.site).shape[2]}
        tokens = sum(map(len, self._read(live)))
        some = max(1, HELD // (4 * tokens * units))
        return [range(first, min(first + some, layers)) for first in range(0, layers, some)]

    def _read(self, live: Live) -> list[list[int]]:
        """The texts over which units go together."""
        return Live(live.model, replace(live.recording, stimuli=load(self.text))).ids

    def act(
        self, live: Live, subject: Subject, run: range, *, rng: np.random.Generator
    ) -> xr.Dataset:
        ids, numbers = self._read(live), subject.volume["layer"].to_numpy()
        sites = [Site(self.site, int(numbers[place])) for place in run]
        tokens = token_activations(live.model, ids, sites)
        x = vectors(subject, self.site)
        series, explained, sizes = [], [], []
        for place, site in zip(run, sites, strict=True):
            read = each_once(ids, tokens.pop(site)).astype(float)
            weights = self._weights(read, subject, rng)
            centred = x[place] - read.mean(0)
            made = centred @ weights.T
            series.append(made)
            explained.append(_explained(centred, made, weights))
            sizes.append((weights != 0).sum(1))
        many = len(series[0].T)
        at = np.asarray(numbers[list(run)])
        if self.across:
            parcels = (np.array(run)[:, None] * many + np.arange(many)).ravel()
            told = np.concatenate(series, axis=1)[:, None]
            names = [f"{self.by} {one} of layer {layer}" for layer in at for one in range(many)]
            explained, sizes = (np.concatenate(one)[None] for one in (explained, sizes))
            beside = self._wired(live, parcels, np.repeat(at, many))
            at = np.array([0])
        else:
            parcels, told, beside = np.arange(many), np.stack(series, axis=1), {}
            names = [f"{self.by} {one}" for one in range(many)]
        return xr.Dataset(
            {"parcels": (self.makes, told.astype(np.float32))},
            coords={
                "stimulus": np.arange(len(told)),
                "layer": at,
                "parcel": parcels,
                "parcel_explained": (("layer", "parcel"), np.array(explained)),
                "parcel_units": (("layer", "parcel"), np.array(sizes)),
                "parcel_name": ("parcel", names),
                **beside,
            },
        )

    def _wired(
        self, live: Live, parcels: np.ndarray, layers: np.ndarray
    ) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """The layer of each parcel; of heads, how much of what it writes each other reads."""
        made = {"parcel_layer": (("parcel",), layers)}
        if self.by != "head":
            return made
        wired = wiring(live.model, live.ids[0])
        other = np.arange(len(wired))
        return {
            **made,
            "wired": (("parcel", "other_parcel"), wired[parcels]),
            "other_parcel": (("other_parcel",), other),
        }

    def _weights(
        self, tokens: np.ndarray, subject: Subject, rng: np.random.Generator
    ) -> np.ndarray:
        """What each unit counts for in each parcel (parcel x unit), from token x unit."""
        if self.by == "cluster":
            return clusters(tokens, self.count, rng)
        heads = subject.volume.sizes["head"]
        size = tokens.shape[1] // heads
        weights = np.zeros((heads, tokens.shape[1]))
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            weights[head, own] = eigenvariate(tokens[:, own])
        return weights

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say what parcels are worth.

        Returns
        -------
        xarray.Dataset
            By layer, on average over parcels: ``units_each``, units of a parcel; ``told_each``, the
            share of their variance over stimuli that the one number tells.

        Raises
        ------
        AnalysisError
            If nothing was told as parcels.
        """
        (subject,) = subjects
        volume = subject.volume
        if "parcel" not in volume.dims:
            raise AnalysisError(f"{subject.name}: its volume has no parcels")
        sizes, explained = (
            volume[name].transpose("layer", "parcel").to_numpy().astype(float)
            for name in ("parcel_units", "parcel_explained")
        )
        return xr.Dataset(
            {
                "units_each": ("layer", sizes.mean(1)),
                "told_each": ("layer", np.nanmean(explained, axis=1)),
            },
            coords={"layer": volume["layer"].to_numpy()},
        )


def eigenvariate(tokens: np.ndarray) -> np.ndarray:
    """The direction of largest variance, of length 1, turned so that more of it is above 0.

    Parameters
    ----------
    tokens : numpy.ndarray
        token x unit.

    Returns
    -------
    numpy.ndarray
        unit.
    """
    covariance = np.cov(tokens, rowvar=False)
    direction = np.linalg.eigh(covariance)[1][:, -1]
    return direction if direction.sum() >= 0 else -direction


def clusters(tokens: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of the units of each cluster, in standard deviations, as weights.

    Units are clustered by how they correlate with all others, k-means on the leading directions of
    that matrix.

    Parameters
    ----------
    tokens : numpy.ndarray
        token x unit.
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        cluster x unit; units that do not vary count for nothing.

    Raises
    ------
    AnalysisError
        If fewer units vary than there are to be clusters.
    """
    spread = tokens.std(0)
    varies = np.flatnonzero(spread > 1e-9 * spread.max())
    if len(varies) < count:
        raise AnalysisError(f"parcels: {len(varies)} units vary, and {count} clusters are asked")
    values, vectors_ = np.linalg.eigh(np.corrcoef(tokens[:, varies], rowvar=False))
    leading = vectors_[:, -COMPONENTS:] * np.sqrt(np.maximum(values[-COMPONENTS:], 0))
    seed = int(rng.integers(2**31))
    member = KMeans(count, random_state=seed).fit_predict(leading)
    weights = np.zeros((count, tokens.shape[1]))
    weights[member, varies] = 1 / spread[varies]
    return weights / np.bincount(member, minlength=count)[:, None]


def _explained(x: np.ndarray, series: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of the variance of each parcel's units that its series predicts: parcel."""
    around, along = x - x.mean(0), series - series.mean(0)
    found = np.full(len(weights), np.nan)
    for parcel, (own, told) in enumerate(zip(weights != 0, along.T, strict=True)):
        units = around[:, own]
        whole, length = np.square(units).sum(), told @ told
        if whole > 0 and length > 0:
            found[parcel] = np.square(told @ units).sum() / length / whole
    return found
