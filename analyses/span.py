"""In how many layers a label can be read, and what the layers have added to what came in.

The span is the share of layers in which decoding is better than in any layer with shuffled labels
(max-statistic; Westfall & Young 1993). A residual stream carries on what it was given, so that "at
every depth" needs nothing but the first layer: decoding from the change since then says what the
layers between have written.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import Analysis, register, vectors
from analyses.probe import Probe
from scanner import Subject


@register
@dataclass(frozen=True)
class Span(Analysis):
    """Decode each layer, and each layer less the first.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        What to decode, a column of the stimulus table.
    item_folds, frame_folds : int
        Groups of items and of frames that take turns as the test.
    penalty : float
        Ridge penalty, in units of the mean squared length of a training pattern.
    permutations : int
    alpha : float
        Familywise error over the layers.
    """

    site: str
    label: str = "category"
    item_folds: int = 5
    frame_folds: int = 2
    penalty: float = 1.0
    permutations: int = 199
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.permutations < 1 / self.alpha - 1:
            raise ValueError(
                f"alpha {self.alpha:g} cannot be reached with {self.permutations} permutations"
            )

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Decode.

        Returns
        -------
        xarray.Dataset
            ``accuracy`` and ``accuracy_since_first`` (layer): balanced accuracy of a layer, and of
            its change since the first one; ``span`` and ``span_since_first``: the share of layers
            in which these are above the largest of any layer with shuffled labels; ``onset``: the
            first layer with half of the greatest accuracy above chance, as a share of the depth;
            NaN where no layer is above.

        Raises
        ------
        AnalysisError
            If items or frames are too few.
        """
        (subject,) = subjects
        probe = Probe(self.site, self.label, self.item_folds, self.frame_folds, self.penalty)
        x = vectors(subject, self.site)
        found = {}
        for suffix, first in (("", 0.0), ("_since_first", x[0])):
            # Every layer is split, and labels are dealt out, alike.
            decoded = [
                self._decoded(probe, _of_layer(subject, self.site, place, values - first), rng)
                for place, values in enumerate(x)
            ]
            accuracy = xr.concat([one for one, _ in decoded], "layer")
            null = xr.concat([one for _, one in decoded], "layer")
            highest = np.quantile(null.max("layer"), 1 - self.alpha, method="higher")
            above = accuracy > highest
            found["accuracy" + suffix] = accuracy.drop_attrs()
            found["span" + suffix] = above.mean()
            if not suffix:
                found["onset"] = _onset(accuracy, bool(above.any()))
        return xr.Dataset(found)

    def _decoded(
        self, probe: Probe, subject: Subject, rng: np.random.Generator
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Balanced accuracy (layer), and with labels dealt out (draw, layer)."""
        shuffles = deepcopy(rng).spawn(1)[0]
        null = probe.permuted(
            subject, "balanced_accuracy", draws=self.permutations, rng=deepcopy(rng),
            shuffles=shuffles,
        )  # fmt: skip
        return probe(subject, rng=deepcopy(rng))["balanced_accuracy"], null


def _of_layer(subject: Subject, site: str, place: int, values: np.ndarray) -> Subject:
    """The subject with one layer, whose activations are these."""
    volume = subject.volume.isel(layer=[place]).drop_vars(site)
    if "unit" in volume.coords:
        volume = volume.drop_vars("unit")  # of heads there are more when they stand in a row
    return subject.replace_volume(
        volume.assign({site: (("layer", "stimulus", "unit"), values[None])})
    )


def _onset(accuracy: xr.DataArray, any_above: bool) -> float:
    """Where along the depth half of the greatest accuracy above chance is reached first."""
    if not any_above:
        return float("nan")
    chance = accuracy.attrs["chance"]
    half = (accuracy - chance) >= (accuracy.max() - chance) / 2
    return int(np.argmax(half.to_numpy())) / max(1, len(half) - 1)
