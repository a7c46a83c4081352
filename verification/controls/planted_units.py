"""Where units that do select a category have been planted, a claim that there are none must fail.

The control for claims of absence: it shows that the same analysis, on the same items, would have
found what it says is not there. Without it "does not replicate"
may only mean "too few items".
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses import AnalysisError
from analyses.base import Asks, read
from analyses.base import labels as labels_of
from analyses.words import word_means
from scanner import Subject
from verification.control import PlantedControl, control, with_activations
from verification.measure import Measure


@control
@dataclass(frozen=True)
class PlantedUnits(PlantedControl):
    """Null control of an absence: plant selective units for each category.

    Attributes
    ----------
    margin : float
    units : int
        How many for each category.
    strength : float
        Their selectivity, as d' between items.
    """

    of: ClassVar[tuple[Asks, ...]] = ("labels",)
    units: int = 20
    strength: float = 2.0

    @property
    def planted(self) -> str:
        return (
            f"a model with {self.units} planted units of d' = {self.strength:g} for each category"
        )

    def plant(self, subject: Subject, measure: Measure, rng: np.random.Generator) -> Subject:
        site, label = (getattr(measure.analysis, name, None) for name in ("site", "label"))
        if site is None or label is None:
            raise AnalysisError("planted_units needs an analysis that reads a site and a label")
        x, codes, names = read(subject, site, label)
        if self.units * len(names) > x.shape[2]:
            raise AnalysisError(
                f"planted_units: {len(names)} x {self.units} units asked for, "
                f"there are {x.shape[2]}"
            )
        words, word_codes, _ = word_means(
            x, labels_of(subject, "item"), labels_of(subject, "frame"), codes
        )
        within = words - np.stack([words[:, word_codes == c].mean(1) for c in word_codes], 1)
        spread = within.std(1)  # layer x unit
        planted = np.array(x)
        for layer in range(len(x)):
            chosen = rng.permutation(x.shape[2])[: self.units * len(names)]
            for code, units in enumerate(chosen.reshape(len(names), self.units)):
                rows = np.flatnonzero(codes == code)
                planted[layer][np.ix_(rows, units)] += self.strength * spread[layer, units]
        return with_activations(subject, site, planted)
