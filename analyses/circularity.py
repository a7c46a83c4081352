"""Whether the values of an ordered label close a circle, or only bend.

Values along a line that units are tuned to make an arch in the plane of their principal components,
whose ends come near each other (the horseshoe; Diaconis et al. 2008), so that a picture of a loop
is no evidence. Distances between all values are held against those on a line and those on a circle,
and the last value must be nearer to the first than the farthest is. All from cross-validated
distances (Walther et al. 2016) in all units.

"Circular" asks for both: a wrap above 0 and a circle that fits better than a line and than an arch.
By ranks an arch of less than half a circle is a line, since distances along it grow with distance
in order; the one that is held against a circle here goes three quarters round. Of five or six
values it goes less far, so that its ends are two steps apart: with one of five only a little
shorter than a circle, hardly anything would fit a circle better.

By how much the circle fits better than either may be claimed; it is 0 on average or below where
there is nothing. The others describe: what is nearest of noisy distances is above 0 whatever lies
there (``wrap``), as are the better of two directions of turning (``turn``) and the longest life of
any loop (``loop``; persistent homology, Edelsbrunner et al. 2002, by ripser, Bauer 2021). Distances
for it are plain ones: noise adds much the same to all of them, which can hide a loop and makes
none, where cross-validated ones near 0 make many. With five or six values only a nearly perfect
circle has a loop at all.

Values can stand in the frames instead, as stages do in sentences about a disease (`of`, `number`).
Then each disease is a course of its own, with as many stages as it has, and what may be claimed is
the mean over those of one category. Its distances are plain ones: noise adds much the same to all
of them, and leaves their ranks as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from ripser import ripser
from scipy.spatial.distance import squareform

from analyses.base import Analysis, AnalysisError, Quantity, Reading, by_layer, register
from analyses.courses import Courses, courses_of, dealt_names, over_items
from analyses.number_line import check_of, values_of
from analyses.rdm import compared, crossnobis, squared_euclidean
from scanner import Subject

# With fewer, a line and a circle have nearly the same neighbours.
FEWEST = 5
# The longest arch that is no circle, in turns.
ARCH = 0.75


@register
@dataclass(frozen=True)
class Circularity(Analysis):
    """Hold a line and a circle against the values of a number.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table that holds numbers, of which only the order counts; with
        `of`, one that holds categories.
    of : str, optional
        The category whose items go along the numbers; without it, numbers are those of items.
    number : str, optional
        With `of`, a column that holds numbers; items may have different ones.
    """

    site: str
    label: str
    of: str | None = None
    number: str | None = None

    measures: ClassVar[Mapping[str, Quantity]] = {
        "closes": Quantity(
            "by how much a circle fits distances better than a line or an arch does", -2, 2
        ),
    }

    def __post_init__(self) -> None:
        check_of(self.of, self.number)

    @property
    def reads(self) -> Reading:
        return "number" if self.of is None else "linear"

    def sides(self, names: np.ndarray) -> np.ndarray:
        return np.arange(len(names)) if self.of is None else (names != self.of).astype(int)

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

            With `of` all but ``turn`` are means over the items of that category whose values are
            not all the same; ``closes_by_item`` (layer, item) is that of each, and
            ``closes_by_category`` (layer, category) the mean of each category.

        Raises
        ------
        AnalysisError
            If the label is no number or has fewer than five values, there are fewer than two
            frames, or a value is in no frame of a half; with `of`, if an item has fewer than five
            values.
        """
        (subject,) = subjects
        if self.of is not None:
            return self._along(subject)
        halves, rdms = self._distances(subject, rng)
        columns = _told(rdms, halves.shape[2]) | {
            "turn": np.array([turn(one) for one in halves]),
            "loop": np.array([loop(squared_euclidean(one.mean(0))) for one in halves]),
        }
        return _labelled({name: ("layer", values) for name, values in columns.items()}, subject)

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        """Without what describes."""
        (subject,) = subjects
        if self.of is not None:
            closing = self._closing(self._courses(subject, rest=False))
            return by_layer(over_items(closing, np.ones((1, len(closing)), bool))[0], subject)
        halves, rdms = self._distances(subject, rng)
        return by_layer(_closes(_fits(rdms, halves.shape[2])), subject)

    def permuted(
        self,
        subject: Subject,
        variable: str,
        *,
        draws: int,
        rng: np.random.Generator,
        shuffles: np.random.Generator,
    ) -> xr.DataArray:
        """With `of`, all draws from the same courses: only which item is of what changes."""
        if self.of is None:
            return super().permuted(subject, variable, draws=draws, rng=rng, shuffles=shuffles)
        courses = self._courses(subject, rest=True)
        dealt = dealt_names(courses.names, self.of, draws=draws, shuffles=shuffles)
        return by_layer(over_items(self._closing(courses), dealt), subject)

    def _along(self, subject: Subject) -> xr.Dataset:
        """What `__call__` gives where items go along the numbers."""
        courses = self._courses(subject, rest=True)
        told = [
            _told(rdms, len(values)) | {"loop": np.array([loop(one) for one in rdms])}
            for rdms, values in zip(_rdms(courses), courses.values, strict=True)
        ]
        by_item = {name: np.array([one[name] for one in told]) for name in told[0]}
        own, kinds = courses.names == self.of, np.unique(courses.names)
        of_kinds = over_items(by_item["closes"], courses.names == kinds[:, None])
        columns = {
            **{name: ("layer", over_items(one, own[None])[0]) for name, one in by_item.items()},
            "closes_by_item": (("item", "layer"), by_item["closes"][own]),
            "closes_by_category": (("category", "layer"), of_kinds),
        }
        found = _labelled(columns, subject)
        return found.assign_coords(item=courses.items[own], category=kinds)

    def _courses(self, subject: Subject, *, rest: bool) -> Courses:
        courses = courses_of(
            subject, self.site, self.label, str(self.number), of=str(self.of), rest=rest
        )
        for item, values in zip(courses.items, courses.values, strict=True):
            if len(values) < FEWEST:
                raise AnalysisError(
                    f"circularity: '{item}' has {len(values)} values of '{self.number}'; "
                    f"{FEWEST} are needed"
                )
        return courses

    def _closing(self, courses: Courses) -> np.ndarray:
        """By how much a circle fits each item better: item x layer."""
        pairs = zip(_rdms(courses), courses.values, strict=True)
        return np.array([_closes(_fits(rdms, len(values))) for rdms, values in pairs])

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


def _rdms(courses: Courses) -> list[np.ndarray]:
    """Distances of the values of each item: layer x pair."""
    return [np.array([squared_euclidean(one) for one in some]) for some in courses.patterns]


def _told(rdms: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """What distances of so many values tell, by layer."""
    alike = _fits(rdms, count)
    return {
        "on_a_line": alike[:, 0],
        "on_an_arch": alike[:, 1],
        "on_a_circle": alike[:, 2],
        "wrap": np.array([wrap(rdm[: count - 1]) for rdm in rdms]),
        "closes": _closes(alike),
    }


def _labelled(columns: dict[str, tuple], subject: Subject) -> xr.Dataset:
    found = xr.Dataset(columns, coords={"layer": subject.volume["layer"].to_numpy()})
    found["closes"].attrs["chance"] = 0.0
    return found


def _fits(rdms: np.ndarray, count: int) -> np.ndarray:
    """How well distances are those of so many values on a line, an arch, a circle: layer x 3."""
    one, other = np.triu_indices(count, 1)
    steps = (other - one).astype(float)
    # In turns; as if one more value closed it, where that is shorter.
    step = min(ARCH / (count - 1), 1 / (count + 1))
    # What rounding tells apart would have ranks of its own.
    arch = np.round(np.sin(np.pi * step * steps), 9)
    return compared(rdms, np.array([steps, arch, np.minimum(steps, count - steps)]), "spearman")


def _closes(alike: np.ndarray) -> np.ndarray:
    """By how much the circle fits better, by layer."""
    return alike[:, 2] - alike[:, :2].max(1)


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
