"""With other seeds of the analysis the effect must still matter.

Splits, and whatever else an analysis draws, follow from the registered seed. A result that hangs on
it was found by luck, or by looking for a lucky seed.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses.base import Asks
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class OtherSeeds(Control):
    """Replication control: the effect in the median over other seeds.

    Attributes
    ----------
    margin : float
        The least effect that must remain.
    seeds : int
    """

    kind: ClassVar[Kind] = "replication"
    of: ClassVar[tuple[Asks, ...]] = ("labels", "structure")
    seeds: int = 10

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        effects = measure.with_other_seeds(subject, draws=self.seeds, rng=rng)
        return self.persists(effects, f"over {self.seeds} other seeds the analysis finds")
