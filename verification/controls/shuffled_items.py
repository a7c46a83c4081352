"""With the items of one model dealt out anew, likeness with the other must vanish.

Two sets of patterns are alike to some extent whichever belongs to which: both have few directions
of large variance, and the best of many layers is told. Only what needs each item to stand for the
same item in both is likeness.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.base import Asks, labels
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate

SHOWN = 6


@control
@dataclass(frozen=True)
class ShuffledItems(Control):
    """Null control: a permutation test over the items of the subject beside.

    Attributes
    ----------
    margin : float
        How far the effect must lie above the mean of the permutations.
    permutations : int
    """

    kind: ClassVar[Kind] = "null"
    of: ClassVar[tuple[Asks, ...]] = ("likeness",)
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
        subject = measure.at_its_layer(subject).without_twins()
        shuffled = np.array(
            [measure.effect(dealt_beside(subject, rng)) for _ in range(self.permutations)]
        )
        return self.outdone(observed, shuffled, hypothesis.alpha, "the items of the other model")

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        subject = subject.without_twins()
        profiles = [measure.profile(dealt_beside(subject, rng)) for _ in range(SHOWN)]
        return xr.concat(profiles, "draw", combine_attrs="override")


def dealt_beside(subject: Subject, rng: np.random.Generator) -> Subject:
    """The subject with each item of the one beside it under the name of another item.

    Raises
    ------
    AnalysisError
        If nothing is beside it.
    """
    if not subject.beside:
        raise AnalysisError("shuffled_items needs two subjects")
    (other,) = subject.beside
    names, which = np.unique(labels(other, "item"), return_inverse=True)
    return subject.set_beside(other.relabel("item", rng.permutation(names)[which]))
