"""With the labels dealt out anew among the items, the effect must vanish.

Items, not stimuli, change labels: the stimuli of an item are one observation, and shuffling them
one by one hides what a probe can learn of items (Winkler et al. 2015, exchangeability blocks).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.base import Asks
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import SHOWN, Control, control
from verification.measure import Measure
from verification.statistics import Estimate

# How often the gate deals the labels out itself, to see whether an analysis that does all draws at
# once does it by items; and how many standard errors the two may differ.
DEALT, APART = 5, 5.0


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
    of: ClassVar[tuple[Asks, ...]] = ("labels",)
    decided_by_p: ClassVar[bool] = True
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
        _check_dealing(shuffled, measure.permuted_by_the_gate(subject, draws=DEALT, rng=rng))
        return self.outdone(observed, shuffled, hypothesis.alpha, "the labels among items")

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        return measure.permuted_profiles(subject, draws=SHOWN, rng=rng)


def _check_dealing(own: np.ndarray, gates: np.ndarray) -> None:
    """Hold an analysis's permutations against some that the gate made.

    Raises
    ------
    AnalysisError
        If their means differ by more than luck.
    """
    if not len(gates):
        return
    spread = max(own.std(ddof=1), gates.std(ddof=1)) * np.sqrt(1 / len(own) + 1 / len(gates))
    if abs(own.mean() - gates.mean()) > APART * spread + 1e-9:
        raise AnalysisError(
            f"the permutations of this analysis ({own.mean():.3f} on average) are not those of "
            f"items dealt out anew ({gates.mean():.3f}); it may permute stimuli one by one"
        )
