"""In items that nobody has looked at the effect must be found again.

The gate sets them aside before anything is measured: they select no layer, and the estimate, its
interval and all other controls are computed without them.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure, item_labels
from verification.statistics import Estimate

# They are few, so that their halves could often not be analysed; how they are split is a draw, too.
SEEDS = 10


@control
@dataclass(frozen=True)
class HeldOutItems(Control):
    """Replication control: the whole analysis again, on items that were set aside.

    Attributes
    ----------
    margin : float
        The least effect that they must show.
    share : float
        Of each category's items; between 0 and 1.
    """

    kind: ClassVar[Kind] = "replication"
    share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"a share of {self.share:g} is none; give one between 0 and 1")

    @property
    def reserves(self) -> float:
        return self.share

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        count = len(np.unique(item_labels(subject)[0]))
        effects = measure.with_other_seeds(subject, draws=SEEDS, rng=rng)
        return self.persists(
            effects, f"in {count} items that were set aside, over {SEEDS} seeds, the analysis finds"
        )
