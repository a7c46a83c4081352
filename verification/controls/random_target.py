"""What was done at random must not do what is claimed of what was aimed at.

Whatever is taken from a stream, or added to it, changes what comes after. A claim that it was this
direction is held against others that change as much: drawn from the covariance of the activations
and matched in the variance that goes with them or in what they do to unrelated texts, found from
labels dealt out anew, or those of other categories. Directions of no variance, as isotropic noise
mostly is, do nothing and are no control (Elazar et al. 2021).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.acting import RANDOM, aimed, kinds
from analyses.base import Asks
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate, strongest

# Fewer say little of what is random.
FEWEST = 5
LARGEST = 5


@control
@dataclass(frozen=True)
class RandomTarget(Control):
    """Null control: all targets that were drawn; the strongest is compared."""

    kind: ClassVar[Kind] = "null"
    of: ClassVar[tuple[Asks, ...]] = ("acts",)

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        found = kinds(subject.volume)
        drawn = _drawn(found)
        worlds = {
            f"{found[target]} {number}": aimed(subject, int(target))
            for number, target in enumerate(drawn)
        }
        effects = {name: measure.effect(world) for name, world in worlds.items()}
        # What is far from the largest is the strongest in no half-sample.
        largest = sorted(worlds, key=lambda name: -effects[name])[:LARGEST]
        shares, random = strongest({name: measure(worlds[name]) for name in largest})
        what = f"the strongest of {len(drawn)} random targets ({shares})"
        return self.beaten(observed, random, hypothesis.alpha, what)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        drawn = _drawn(kinds(subject.volume))
        return xr.concat([measure.profile(aimed(subject, int(one))) for one in drawn], "draw")


def _drawn(found: np.ndarray) -> np.ndarray:
    drawn = np.flatnonzero(np.isin(found, RANDOM))
    if len(drawn) < FEWEST:
        raise AnalysisError(
            f"{len(drawn)} random targets were tried, and at least {FEWEST} are needed; give the "
            "analysis more"
        )
    return drawn
