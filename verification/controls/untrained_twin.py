"""The same architecture with fresh weights must not come within the margin of the effect.

What an untrained network shows comes from the architecture, the tokenizer and the stimuli, not from
learning (Zhang & Bowman 2018). Several seeds are recorded and the worst counts.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class UntrainedTwin(Control):
    """Null control: all twins that were recorded, of which the strongest is compared."""

    kind: ClassVar[Kind] = "null"

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        if not subject.twins:
            raise KeyError("no twin was recorded; set `twins` under `scan`")
        effects = {seed: measure.effect(subject.twin(seed)) for seed in subject.twins}
        worst = max(effects, key=lambda seed: effects[seed])
        return self.beaten(
            observed,
            measure(subject.twin(worst)),
            hypothesis.alpha,
            f"the strongest of {len(effects)} untrained twins (seed {worst})",
        )

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        return xr.concat([measure.profile(subject.twin(seed)) for seed in subject.twins], "draw")
