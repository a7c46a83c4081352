"""Where modules of units have been planted, a claim that there are none must fail.

The control for claims that a network has little structure: it shows that the same analysis, on the
same items, would have found what it says is not there.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.base import Asks, labels, vectors
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control, with_activations
from verification.measure import Measure
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class PlantedModules(Control):
    """Null control of an absence: units of a module share what they do over items.

    Attributes
    ----------
    margin : float
    modules : int
        Of as many units each.
    strength : float
        The correlation of two units of a module that is added, between 0 and 1.
    """

    kind: ClassVar[Kind] = "null"
    of: ClassVar[tuple[Asks, ...]] = ("structure",)
    modules: int = 6
    strength: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modules < 2 or not 0 < self.strength < 1:
            raise ValueError("modules must be at least 2, strength between 0 and 1")

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        return self.beaten(
            observed,
            measure(self.plant(measure.at_its_layer(subject), measure, rng)),
            hypothesis.alpha,
            f"a model with {self.modules} planted modules, of units that correlate by "
            f"{self.strength:g},",
        )

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        return measure.profile(self.plant(subject, measure, rng)).expand_dims("draw")

    def plant(self, subject: Subject, measure: Measure, rng: np.random.Generator) -> Subject:
        """The subject with modules.

        Raises
        ------
        AnalysisError
            If the analysis reads no site.
        """
        site = getattr(measure.analysis, "site", None)
        if site is None:
            raise AnalysisError("planted_modules needs an analysis that reads a site")
        x = vectors(subject, site)
        _, which = np.unique(labels(subject, "item"), return_inverse=True)
        made = np.empty_like(x)
        for layer, values in enumerate(x):
            module = rng.permutation(values.shape[1]) % self.modules
            shared = rng.normal(size=(which.max() + 1, self.modules))[which][:, module]
            middle, spread = values.mean(0), values.std(0)
            own = np.sqrt(1 - self.strength) * (values - middle)
            made[layer] = middle + own + np.sqrt(self.strength) * spread * shared
        return with_activations(subject, site, made)
