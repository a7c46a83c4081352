"""Whether the values of an ordered label close a circle, or only bend.

Values along a line that units are tuned to make an arch in the plane of their principal components,
whose ends come near each other (the horseshoe; Diaconis et al. 2008), so that a picture of a loop
is no evidence. Distances between all values are held against those on a line and those on a circle,
and the last value must be nearer to the first than the farthest is. All from cross-validated
distances (Walther et al. 2016) in all units.

"Circular" asks for both: a wrap above 0 and a circle that fits better than a line. By ranks an arch
is a line, since distances along it grow with distance in order.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, register
from analyses.number_line import values_of
from analyses.rdm import compared, crossnobis
from scanner import Subject

# With fewer, a line and a circle have nearly the same neighbours.
FEWEST = 5


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

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            By layer: ``on_a_line`` and ``on_a_circle``, Spearman's correlation of distances with
            those of either; ``wrap``: how much nearer the last value is to the first than the
            farthest, 0 on a line and nearly 1 on a circle; ``turn``: how evenly angles grow with
            order, in the plane of one half of the frames and seen in the other, 1 for a circle in
            order, near 0 for none. NaN where all values are the same.

        Raises
        ------
        AnalysisError
            If the label is no number or has fewer than five values, there are fewer than two
            frames, or a value is in no frame of a half.
        """
        (subject,) = subjects
        found = values_of(subject, self.site, self.label, rng)
        count = len(found.values)
        if count < FEWEST:
            raise AnalysisError(
                f"circularity: '{self.label}' has {count} values; {FEWEST} are needed"
            )
        one, other = np.triu_indices(count, 1)
        steps = (other - one).astype(float)
        models = np.array([steps, np.minimum(steps, count - steps)])
        rdms = np.array([crossnobis(halves) for halves in found.halves])
        alike = compared(rdms, models, "spearman")
        columns = {
            "on_a_line": alike[:, 0],
            "on_a_circle": alike[:, 1],
            "wrap": np.array([wrap(rdm[: count - 1]) for rdm in rdms]),
            "turn": np.array([turn(halves) for halves in found.halves]),
        }
        return xr.Dataset(
            {name: ("layer", values) for name, values in columns.items()},
            coords={"layer": subject.volume["layer"].to_numpy()},
        )


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
