"""What a layer shows must not be there in any other basis of the same activations.

A random rotation keeps all variances and covariances of a layer, so all distances between stimuli,
and forgets which unit is which. Activity of few dimensions makes networks with modules that are
small worlds in any basis; what is claimed of units must be more than that.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import Analysis, AnalysisError
from analyses.base import Asks, vectors
from analyses.connectome import directions_at_random
from scanner import Subject
from scanner.sites import MEANINGS
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control, with_activations
from verification.measure import Measure
from verification.statistics import Estimate, strongest


@control
@dataclass(frozen=True)
class RotatedUnits(Control):
    """Null control: several rotations; the strongest is compared.

    Attributes
    ----------
    margin : float
    rotations : int
    """

    kind: ClassVar[Kind] = "null"
    of: ClassVar[tuple[Asks, ...]] = ("structure",)
    rotations: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotations < 1:
            raise ValueError("rotations must be at least 1")

    @classmethod
    def misfit(cls, analysis: Analysis) -> str:
        why, site = super().misfit(analysis), getattr(analysis, "site", None)
        if why or site is None or site in MEANINGS and "unit" in MEANINGS[site].dims:
            return why
        return (
            f"'{site}' is computed in a basis of its own, so that turned round it is a world that "
            "could not be; only the stream and what is added to it have none"
        )

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        subject = measure.at_its_layer(subject)
        shares, world = strongest(
            {
                f"rotation {number}": measure(rotated(subject, measure, rng))
                for number in range(1, 1 + self.rotations)
            }
        )
        what = f"the strongest of {self.rotations} rotations of the units ({shares})"
        return self.beaten(observed, world, hypothesis.alpha, what)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        profiles = [measure.profile(rotated(subject, measure, rng)) for _ in range(self.rotations)]
        return xr.concat(profiles, "draw", combine_attrs="override")


def rotated(subject: Subject, measure: Measure, rng: np.random.Generator) -> Subject:
    """The subject in a basis at random, another in each layer.

    Raises
    ------
    AnalysisError
        If the analysis reads no site.
    """
    site = getattr(measure.analysis, "site", None)
    if site is None:
        raise AnalysisError("rotated_units needs an analysis that reads a site")
    x = vectors(subject, site)
    units = x.shape[2]
    turned = [layer @ directions_at_random(units, units, rng) for layer in x]
    return with_activations(subject, site, np.stack(turned))
