"""Where modules of units have been planted, a claim that there are none must fail.

The control for claims that a network has little structure: it shows that the same analysis, on the
same items, would have found what it says is not there.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses import AnalysisError
from analyses.base import Asks, labels, vectors
from scanner import Subject
from verification.control import PlantedControl, control, with_activations
from verification.measure import Measure


@control
@dataclass(frozen=True)
class PlantedModules(PlantedControl):
    """Null control of an absence: units of a module share what they do over items.

    Attributes
    ----------
    margin : float
    modules : int
        Of as many units each.
    strength : float
        The correlation of two units of a module that is added, between 0 and 1.
    """

    of: ClassVar[tuple[Asks, ...]] = ("structure",)
    modules: int = 6
    strength: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modules < 2 or not 0 < self.strength < 1:
            raise ValueError("modules must be at least 2, strength between 0 and 1")

    @property
    def planted(self) -> str:
        return (
            f"a model with {self.modules} planted modules, of units that correlate by "
            f"{self.strength:g},"
        )

    def plant(self, subject: Subject, measure: Measure, rng: np.random.Generator) -> Subject:
        site = getattr(measure.analysis, "site", None)
        if site is None:
            raise AnalysisError("planted_modules needs an analysis that reads a site")
        x = vectors(subject, site)
        _, which = np.unique(labels(subject, "item"), return_inverse=True)
        made = np.empty(x.shape)
        for layer, values in enumerate(x):
            module = rng.permutation(values.shape[1]) % self.modules
            shared = rng.normal(size=(which.max() + 1, self.modules))[which][:, module]
            middle, spread = values.mean(0), values.std(0)
            own = np.sqrt(1 - self.strength) * (values - middle)
            made[layer] = middle + own + np.sqrt(self.strength) * spread * shared
        return with_activations(subject, site, made)
