"""With the labels dealt out anew among the items, the effect must vanish.

Items, not stimuli, change labels: the stimuli of an item are one observation, and shuffling them
one by one hides what a probe can learn of items (Winkler et al. 2015, exchangeability blocks).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate, permutation_p

SHOWN = 6


@control
@dataclass(frozen=True)
class ShuffledLabels(Control):
    """Null control: a permutation test over items.

    Attributes
    ----------
    margin : float
        How far the effect must lie above the mean of the permutations.
    permutations : int
    """

    kind: ClassVar[Kind] = "null"
    margin: float = 0.0
    permutations: int = 199

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        shuffled = measure.permuted(subject, draws=self.permutations, rng=rng)
        p = permutation_p(observed.value, shuffled)
        mean = float(shuffled.mean())
        low, high = np.quantile(shuffled, [hypothesis.alpha, 1 - hypothesis.alpha])
        passed = p <= hypothesis.alpha and observed.value - mean >= self.margin
        return Check(
            control="shuffled_labels",
            kind=self.kind,
            passed=bool(passed),
            estimate=mean,
            interval=(float(low), float(high)),
            margin=self.margin,
            reason=(
                f"{np.sum(shuffled >= observed.value)} of {self.permutations} shufflings of the "
                f"labels among items reach the observed effect (p = {p:.3g}); "
                f"they lie between {low:.3f} and {high:.3f}"
            ),
        )

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        return measure.permuted_profiles(subject, draws=SHOWN, rng=rng)
