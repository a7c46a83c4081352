"""In each of two halves of the frames the effect must still matter.

Intervals come from items; frames are few and not resampled. An effect that one sentence frame, or
one pair of them, makes is lost in a half without it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses.base import labels
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class OtherFrames(Control):
    """Replication control: the weaker of two halves of the frames, in the median over splits.

    Attributes
    ----------
    margin : float
        The least effect that the weaker half must keep.
    splits : int
    """

    kind: ClassVar[Kind] = "replication"
    splits: int = 10

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        frames, which = np.unique(labels(subject, "frame"), return_inverse=True)
        weaker = [
            measure.weaker_half(subject, rng.permutation(np.arange(len(frames)) % 2)[which])
            for _ in range(self.splits)
        ]
        return self.persists(weaker, f"over {self.splits} splits of the frames the weaker half has")
