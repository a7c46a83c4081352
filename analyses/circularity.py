"""Whether the values of an ordered label close a circle, or only bend.

Values along a line that units are tuned to make an arch in the plane of their principal components,
whose ends come near each other (the horseshoe; Diaconis et al. 2008), so that a picture of a loop
is no evidence. Distances between all values are held against those on a line and those on a circle,
and the last value must be nearer to the first than the farthest is. All from cross-validated
distances (Walther et al. 2016) in all units.

"Circular" asks for both: a wrap above 0 and a circle that fits better than a line and than an arch.
By ranks an arch of less than half a circle is a line, since distances along it grow with distance
in order; the one that is held against a circle here goes three quarters round.

By how much the circle fits better than either may be claimed; it is 0 on average or below where
there is nothing. The others describe: what is nearest of noisy distances is above 0 whatever lies
there (``wrap``), as are the better of two directions of turning (``turn``) and the longest life of
any loop (``loop``; persistent homology, Edelsbrunner et al. 2002, by ripser, Bauer 2021). Distances
for it are plain ones: noise adds much the same to all of them, which can hide a loop and makes
none, where cross-validated ones near 0 make many. With five or six values only a nearly perfect
circle has a loop at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from ripser import ripser
from scipy.spatial.distance import squareform

from analyses.base import Analysis, AnalysisError, Quantity, Reading, register
from analyses.number_line import values_of
from analyses.rdm import compared, crossnobis, squared_euclidean
from scanner import Subject

# With fewer, a line and a circle have nearly the same neighbours.
FEWEST = 5
# The longest arch that is no circle, in radians: three quarters of the way round.
ARCH = 1.5 * np.pi


@register
@dataclass(frozen=True)
class Circularity(Analysis):
    """Hold a line and a circle against the values of a number.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table that holds numbers; only their order counts.
    """

    site: str
    label: str

    reads: ClassVar[Reading] = "number"
    measures: ClassVar[Mapping[str, Quantity]] = {
        "closes": Quantity(
            "by how much a circle fits distances better than a line or an arch does", -2, 2
        ),
    }

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            By layer: ``on_a_line``, ``on_an_arch`` and ``on_a_circle``, Spearman's correlation of
            distances with those of each; ``closes``: the last less the larger of the others;
            ``wrap``: how much nearer the last value is to the first than the
            farthest, 0 on a line and nearly 1 on a circle; ``turn``: how evenly angles grow with
            order, in the plane of one half of the frames and seen in the other, 1 for a circle in
            order, near 0 for none; ``loop``: how long a loop of the values lives while they are
            connected at larger and larger distances, over the largest distance: 0 if there is
            none, 0.37, 0.53, 0.73 and 0.81 for perfect circles of 6, 9, 20 and 60 values. NaN
            where all values are the same.

        Raises
        ------
        AnalysisError
            If the label is no number or has fewer than five values, there are fewer than two
            frames, or a value is in no frame of a half.
        """
        (subject,) = subjects
        halves, rdms = self._distances(subject, rng)
        count = halves.shape[2]
        alike = _fits(rdms, count)
        columns = {
            "on_a_line": alike[:, 0],
            "on_an_arch": alike[:, 1],
            "on_a_circle": alike[:, 2],
            "wrap": np.array([wrap(rdm[: count - 1]) for rdm in rdms]),
            "turn": np.array([turn(one) for one in halves]),
            "loop": np.array([loop(squared_euclidean(one.mean(0))) for one in halves]),
        }
        return xr.Dataset(
            {name: ("layer", values) for name, values in columns.items()},
            coords={"layer": subject.volume["layer"].to_numpy()},
        ).assign(closes=_closes(alike, subject))

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        """Without what describes."""
        (subject,) = subjects
        halves, rdms = self._distances(subject, rng)
        return _closes(_fits(rdms, halves.shape[2]), subject)

    def _distances(
        self, subject: Subject, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Patterns of values, layer x half x value x unit, and their distances, layer x pair."""
        found = values_of(subject, self.site, self.label, rng)
        count = len(found.values)
        if count < FEWEST:
            raise AnalysisError(
                f"circularity: '{self.label}' has {count} values; {FEWEST} are needed"
            )
        return found.halves, np.array([crossnobis(halves) for halves in found.halves])


def _fits(rdms: np.ndarray, count: int) -> np.ndarray:
    """How well distances are those of so many values on a line, an arch, a circle: layer x 3."""
    one, other = np.triu_indices(count, 1)
    steps = (other - one).astype(float)
    arch = np.sin(ARCH / 2 * steps / (count - 1))
    return compared(rdms, np.array([steps, arch, np.minimum(steps, count - steps)]), "spearman")


def _closes(alike: np.ndarray, subject: Subject) -> xr.DataArray:
    """By how much the circle fits better, by layer."""
    return xr.DataArray(
        alike[:, 2] - alike[:, :2].max(1),
        dims="layer",
        coords={"layer": subject.volume["layer"].to_numpy()},
        attrs={"chance": 0.0},
    )


def loop(distances: np.ndarray) -> float:
    """The longest life of a loop among points, over their largest distance.

    Parameters
    ----------
    distances : numpy.ndarray
        Squared distances of all pairs.

    Returns
    -------
    float
        0 if there is no loop; NaN if all points are the same.
    """
    apart = np.sqrt(distances)
    if not apart.any():
        return float("nan")
    lives = ripser(squareform(apart, checks=False), maxdim=1, distance_matrix=True)["dgms"][1]
    return float(np.max(lives[:, 1] - lives[:, 0], initial=0) / apart.max())


def wrap(from_first: np.ndarray) -> float:
    """One less the squared distance of the last value over that of the farthest.

    Parameters
    ----------
    from_first : numpy.ndarray
        Squared distances of all other values from the first, in order; noise may make some
        negative.
    """
    farthest = from_first.max()
    return float(1 - max(from_first[-1], 0) / farthest) if farthest > 0 else float("nan")


def turn(halves: np.ndarray) -> float:
    """How evenly the angles of values grow with their order.

    Parameters
    ----------
    halves : numpy.ndarray
        half x value x unit; each half gives a plane in which the other is seen.

    Returns
    -------
    float
        Mean resultant length of the angles less those of an even turn, in the better of the two
        directions, averaged over halves (Fisher 1993); NaN if there is no plane.
    """
    even = 2 * np.pi * np.arange(halves.shape[1]) / halves.shape[1]
    found = []
    for plane, seen in (halves, halves[::-1]):
        centred = plane - plane.mean(0)
        _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
        if sizes[1] <= 1e-9 * np.linalg.norm(plane) or sizes[1] == 0:
            return float("nan")
        across, up = ((seen - seen.mean(0)) @ axes[:2].T / sizes[:2]).T
        angle = np.arctan2(up, across)
        found.append(max(np.abs(np.mean(np.exp(1j * (angle - sign * even)))) for sign in (1, -1)))
    return float(np.mean(found))
