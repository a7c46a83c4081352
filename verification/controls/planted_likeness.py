"""Where one model has been made like the other, a claim that they are not alike must fail.

The control for claims of absence: it shows that the same analysis, on the same items, would have
found the likeness that it says is not there.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses import AnalysisError
from analyses.base import Asks, vectors
from analyses.connectome import directions_at_random
from scanner import Subject
from verification.control import PlantedControl, control, with_activations
from verification.measure import Measure


@control
@dataclass(frozen=True)
class PlantedLikeness(PlantedControl):
    """Null control of an absence: half of the variance is that of the other model, turned.

    Attributes
    ----------
    margin : float
    share : float
        Of the variance over stimuli, how much is of the other model, between 0 and 1.
    """

    of: ClassVar[tuple[Asks, ...]] = ("likeness",)
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError("share must be between 0 and 1")

    @property
    def planted(self) -> str:
        return f"a model of whose variance a share of {self.share:g} is the other's"

    def plant(self, subject: Subject, measure: Measure, rng: np.random.Generator) -> Subject:
        site = getattr(measure.analysis, "site", None)
        if site is None or not subject.beside:
            raise AnalysisError("planted_likeness needs an analysis that compares a site of two")
        own, (other,) = vectors(subject, site), subject.beside
        theirs = vectors(other, site)
        # Of the same relative depth; into fewer units they do not go without loss.
        depth = np.linspace(0, len(theirs) - 1, len(own)).round().astype(int)
        width = max(own.shape[2], theirs.shape[2])
        made = np.zeros((*own.shape[:2], width))
        for layer, place in enumerate(depth):
            turned = (
                _centred(theirs[place]) @ directions_at_random(width, width, rng)[: theirs.shape[2]]
            )
            made[layer] = np.sqrt(self.share) * turned
            made[layer, :, : own.shape[2]] += np.sqrt(1 - self.share) * _centred(own[layer])
        return with_activations(subject, site, made)


def _centred(x: np.ndarray) -> np.ndarray:
    """Patterns around their mean, of a mean squared length of one."""
    around = x - x.mean(0)
    size = np.sqrt(np.mean(np.sum(around**2, axis=1)))
    return around / size if size > 0 else around
