"""In each of two halves of the items the effect must still matter.

An effect that lives in a few items, or in one lucky draw of them, is lost in a half that does not
hold them.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses.splits import item_groups
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure, item_labels
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class SplitHalf(Control):
    """Replication control: the weaker of two halves, in the median over several splits.

    Attributes
    ----------
    margin : float
        The least effect that the weaker half must keep.
    splits : int
    """

    kind: ClassVar[Kind] = "replication"
    splits: int = 20

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        items, categories = item_labels(subject)
        weaker = [
            measure.weaker_half(subject, item_groups(items, categories, groups=2, rng=rng))
            for _ in range(self.splits)
        ]
        what = f"over {self.splits} splits of the items the weaker half has"
        return self.persists(weaker, what)
