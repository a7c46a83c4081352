"""With the items of one model dealt out anew, likeness with the other must vanish.

Two sets of patterns are alike to some extent whichever belongs to which: both have few directions
of large variance, and the best of many layers is told. Only what needs each item to stand for the
same item in both is likeness.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses import AnalysisError
from analyses.base import Asks, labels
from scanner import Subject
from verification.control import ShuffledControl, control


@control
@dataclass(frozen=True)
class ShuffledItems(ShuffledControl):
    """Null control: a permutation test over the items of the subject beside."""

    of: ClassVar[tuple[Asks, ...]] = ("likeness",)
    shuffles: ClassVar[str] = "the items of the other model"

    def shuffled(self, subject: Subject, rng: np.random.Generator) -> Subject:
        if not subject.beside:
            raise AnalysisError("shuffled_items needs two subjects")
        (other,) = subject.beside
        names, which = np.unique(labels(other, "item"), return_inverse=True)
        return subject.set_beside(other.relabel("item", rng.permutation(names)[which]))
