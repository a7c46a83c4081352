"""What surely has an effect must be seen to have one before an absence is believed.

The control for claims of absence about what was done: the same was done to something that must
matter, all of what is there for instance. If that does not stand out by the margin, the measure is
blind, and that it sees nothing else says nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.acting import aimed, kinds
from analyses.base import Asks
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class KnownTarget(Control):
    """Null control of an absence: the target that surely has an effect."""

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
        what = "what surely has an effect"
        return self.beaten(observed, measure(_known(subject)), hypothesis.alpha, what)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        return measure.profile(_known(subject)).expand_dims("draw")


def _known(subject: Subject) -> Subject:
    (found,) = np.nonzero(kinds(subject.volume) == "known")
    if len(found) != 1:
        raise AnalysisError("nothing that surely has an effect was tried by this analysis")
    return aimed(subject, int(found[0]))
