"""What a hypothesis is about: one number of one analysis, for whichever subject it is asked of.

Controls are handed a `Measure` and a changed subject. They cannot change the measure: it is the
same analysis, the same layer, the same seed and the same half-samples throughout.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy.interpolate import BSpline, make_smoothing_spline

from analyses import Analysis, AnalysisError
from analyses.acting import alone
from analyses.base import labels
from scanner import Subject
from verification.base import Hypothesis
from verification.statistics import Estimate, HalfSamples, stream

FEWEST_LAYERS = 5


class Reading(NamedTuple):
    """A measure in its own units, and the number or the subject's chance it is compared with."""

    value: float
    reference: float


@dataclass(frozen=True)
class Measure:
    """A number, oriented so that more of it speaks for the hypothesis.

    Attributes
    ----------
    hypothesis : Hypothesis
    analysis : Analysis
    layer : int or str
        A layer, or the reduction over layers ``mean``, ``max``, ``min``, ``steepest`` or ``dip``.
    seed : int
        Of the protocol.
    half_samples : HalfSamples or None
        None while a layer is being selected, where no interval is needed.
    """

    hypothesis: Hypothesis
    analysis: Analysis
    layer: int | Literal["mean", "max", "min", "steepest", "dip"]
    seed: int
    half_samples: HalfSamples | None = None

    @property
    def variable(self) -> str:
        return self.hypothesis.measure.partition(".")[2]

    def profile(self, subject: Subject) -> xr.DataArray:
        """The measure at every layer, in its own units; its chance is the attribute ``chance``."""
        # A fresh generator each time: subject and control are split alike, so that they differ
        # only by what the control changed.
        rng = stream(self.seed, self.hypothesis.id, "analysis")
        return self.analysis.measured(*subject.together, variable=self.variable, rng=rng)

    def profiles(self, subject: Subject, parts: Iterable[np.ndarray]) -> Iterator[xr.DataArray]:
        """The same in each of several parts of the stimuli."""
        rng = stream(self.seed, self.hypothesis.id, "analysis")
        return self.analysis.measured_in(
            *subject.together, variable=self.variable, parts=parts, rng=rng
        )

    def effect(self, subject: Subject) -> float:
        """How far the measure lies on the side that the hypothesis expects.

        Raises
        ------
        AnalysisError
            If it is not finite.
        """
        return self._effect(self.read(subject))

    def _effect(self, found: Reading) -> float:
        return self.sign * (found.value - found.reference)

    def weaker_half(self, subject: Subject, half: np.ndarray) -> float:
        """The smaller of the effects in two halves of the stimuli, given as 0 and 1."""
        return min(self.effect(subject.take(np.flatnonzero(half == side))) for side in (0, 1))

    def with_other_seeds(
        self, subject: Subject, *, draws: int, rng: np.random.Generator
    ) -> list[float]:
        """The effect with other seeds of the analysis."""
        seeds = rng.integers(2**32, size=draws)
        return [replace(self, seed=int(seed)).effect(subject) for seed in seeds]

    @property
    def sign(self) -> int:
        return 1 if self.hypothesis.expect == "greater" else -1

    def __call__(self, subject: Subject) -> Estimate:
        """The effect, with its values on the half-samples."""
        if self.half_samples is None:
            raise TypeError("a measure without half-samples has no interval")
        # Of twins and other layers nobody asks, and they would be taken along.
        subject = self.at_its_layer(alone(subject.without_twins())).load()
        profiles = self.profiles(subject, self.half_samples.rows)
        draws = [self._effect(self._reading(profile, subject.name)) for profile in profiles]
        return Estimate(
            self.effect(subject),
            np.array(draws),
            self.half_samples.scale,
            self.half_samples.freedom,
        )

    def read(self, subject: Subject) -> Reading:
        """The measure at its layer, and what the hypothesis compares it with.

        Raises
        ------
        AnalysisError
            If it is not finite.
        """
        return self._reading(self.profile(self.at_its_layer(subject)), subject.name)

    def _reading(self, profile: xr.DataArray, name: str) -> Reading:
        # Asked hundreds of times of one layer, where xarray would cost as much as the measure.
        if isinstance(self.layer, int):
            value = float(profile.to_numpy()[list(profile["layer"].values).index(self.layer)])
        else:
            value = float(self._reduced(profile))
        if not np.isfinite(value):
            raise AnalysisError(f"{self.hypothesis.measure} of {name} is {value}")
        return Reading(value, self._reference(profile))

    def permuted(self, subject: Subject, *, draws: int, rng: np.random.Generator) -> np.ndarray:
        """The effect with the labels dealt out anew among the items, draw.

        Raises
        ------
        AnalysisError
            If it is not finite.
        """
        profiles = self.permuted_profiles(self.at_its_layer(subject), draws=draws, rng=rng)
        return self._effects(profiles, subject.name)

    def permuted_by_the_gate(
        self, subject: Subject, *, draws: int, rng: np.random.Generator
    ) -> np.ndarray:
        """The same, one draw after the other; none if the analysis has no way of its own."""
        if type(self.analysis).permuted is Analysis.permuted:
            return np.empty(0)
        return self.dealt_by_the_gate(subject, draws=draws, rng=rng)

    def dealt_by_the_gate(
        self, subject: Subject, *, draws: int, rng: np.random.Generator
    ) -> np.ndarray:
        """The effect with labels that the gate deals out, whatever way the analysis has, draw."""
        profiles = Analysis.permuted(
            self.analysis,
            self.at_its_layer(subject),
            self.variable,
            draws=draws,
            rng=stream(self.seed, self.hypothesis.id, "analysis"),
            shuffles=rng,
        )
        return self._effects(profiles, subject.name)

    def _effects(self, profiles: xr.DataArray, name: str) -> np.ndarray:
        effects = self.sign * (self._reduced(profiles) - self._reference(profiles)).to_numpy()
        if not np.isfinite(effects).all():
            raise AnalysisError(
                f"{self.hypothesis.measure} of {name} is not finite under shuffled labels"
            )
        return effects

    def at_its_layer(self, subject: Subject) -> Subject:
        """The subject with the layers that are measured; they are independent of the others."""
        if not isinstance(self.layer, int) or list(subject.volume["layer"].values) == [self.layer]:
            return subject
        return subject.at(self.layer)

    def permuted_profiles(
        self, subject: Subject, *, draws: int, rng: np.random.Generator
    ) -> xr.DataArray:
        """The measure at every layer under shuffled labels, in its own units: draw x layer."""
        return self.analysis.permuted(
            subject,
            self.variable,
            draws=draws,
            rng=stream(self.seed, self.hypothesis.id, "analysis"),
            shuffles=rng,
        )

    def _reduced(self, profile: xr.DataArray) -> xr.DataArray:
        if isinstance(self.layer, int):
            at = list(profile["layer"].values).index(self.layer)  # a third of the cost of `sel`
            return profile.isel(layer=at)
        if self.layer in THROUGH_DEPTH:
            return THROUGH_DEPTH[self.layer](profile)
        return getattr(profile, self.layer)("layer")

    def _reference(self, profile: xr.DataArray) -> float:
        if self.layer in THROUGH_DEPTH and self.hypothesis.than == "chance":
            return 0.0  # what is the same in all layers neither rises nor dips
        than = self.hypothesis.than
        return float(profile.attrs["chance"]) if than == "chance" else float(than)


def steepest(profile: xr.DataArray) -> xr.DataArray:
    """How fast a measure rises through the depth where it rises fastest.

    The largest slope of a smoothing spline whose penalty predicts left-out layers best (Craven &
    Wahba 1979), for the whole depth; a single layer that stands out is no rise.

    Parameters
    ----------
    profile : xarray.DataArray
        ..., ``layer``.

    Raises
    ------
    AnalysisError
        If there are fewer than five layers.
    """
    fine = np.linspace(0, 1, 20 * profile.sizes["layer"])
    return _of_curves(profile, lambda curve: curve.derivative()(fine).max())


def deepest(profile: xr.DataArray) -> xr.DataArray:
    """How far a measure falls in the middle of the depth below what it is on both sides.

    Of a smoothing spline as of `steepest`: of a layer, by how much it lies below the largest before
    it and the largest after it, whichever is less; and of all layers the most. A measure that only
    rises or only falls has none, and a single layer that stands out hardly any.

    Parameters
    ----------
    profile : xarray.DataArray
        ..., ``layer``.

    Raises
    ------
    AnalysisError
        If there are fewer than five layers.
    """
    depth = np.linspace(0, 1, profile.sizes["layer"])

    def below_both(curve: BSpline) -> float:
        values = curve(depth)
        before = np.maximum.accumulate(values)[:-2]
        after = np.maximum.accumulate(values[::-1])[::-1][2:]
        return float(np.max(np.minimum(before, after) - values[1:-1]))

    return _of_curves(profile, below_both)


def _of_curves(profile: xr.DataArray, told: Callable[[BSpline], float]) -> xr.DataArray:
    """What is told of a smoothing spline over the layers of each profile, NaN of one with a NaN."""
    count = profile.sizes["layer"]
    if count < FEWEST_LAYERS:
        raise AnalysisError(
            f"{count} layers; {FEWEST_LAYERS} are needed to say where a measure rises or dips"
        )
    depth = np.linspace(0, 1, count)
    rest = profile.transpose(..., "layer").isel(layer=0, drop=True)
    rows = profile.transpose(..., "layer").to_numpy().reshape(-1, count)
    found = [
        told(make_smoothing_spline(depth, one)) if np.isfinite(one).all() else np.nan
        for one in rows
    ]
    return rest.copy(data=np.reshape(found, rest.shape)).assign_attrs(profile.attrs)


# What a measure does through the depth, by the name that protocols have for it.
THROUGH_DEPTH: dict[str | int, Callable[[xr.DataArray], xr.DataArray]] = {
    "steepest": steepest,
    "dip": deepest,
}


def item_labels(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """The item and the category of each stimulus."""
    return labels(subject, "item"), labels(subject, "category")
