"""Whether the neurons of a domain are of that domain: they are silenced, and other things asked.

Without the 1 % of neurons that are most active in medical texts, medical answers fall by a fifth
(Tanwar et al. 2025); whether other answers fall as far is not asked there. A part that every text
needs is no place of a domain. Here neurons are chosen in items of the domain, and answers of the
domain and of the others are asked without them. What is claimed is the difference of the two drops,
and it is held against that of as many neurons at random, and of as many as write as much.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import kinds, own, values_of
from analyses.base import Quantity, labels, register
from analyses.neurons import TEXTS, Neurons, right
from analyses.sides import members
from scanner import Live, Subject


@register
@dataclass(frozen=True, kw_only=True)
class DomainNeurons(Neurons):
    """Silence neurons chosen in one domain, and see what is answered there and elsewhere.

    Attributes
    ----------
    domain : str
        A value of `label`. What else there is, is what the drop is held against; settings but this
        are those of `neurons`.
    """

    domain: str

    measures: ClassVar[Mapping[str, Quantity]] = {
        "selective": Quantity(
            "how many more answers of the domain become wrong than of the others, as shares of "
            "all that are asked",
            -1.0,
            1.0,
        ),
    }

    def _chooses(self, values: np.ndarray) -> np.ndarray:
        return values == self.domain

    def runs(self, live: Live, subject: Subject) -> list[tuple[int, range]]:
        members(subject, self.label, self.domain)  # what is wrong is said before anything is done
        return super().runs(live, subject)

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        inside = members(subject, self.label, self.domain)
        apart = _drops(subject, inside) - _drops(subject, ~inside)
        return xr.DataArray(
            apart[own(subject)], dims="layer",
            coords={"layer": subject.volume["layer"].to_numpy()}, attrs={"chance": 0.0},
        )  # fmt: skip

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say what is lost in the domain, as `neurons` does, and how much more than elsewhere.

        Returns
        -------
        xarray.Dataset
            ``selective`` (layer): by how much more accuracy drops in the domain. What `neurons`
            gives, of the stimuli of the domain. ``drop_apart_of``, ``drop_elsewhere_of``
            (layer, arm): of all that was done, the difference, and the drop in the others.
            ``drop_by_category`` (layer, category): without the own.

        Raises
        ------
        AnalysisError
            If there is nothing of the domain, or nothing else.
        """
        (subject,) = subjects
        inside, values = members(subject, self.label, self.domain), labels(subject, self.label)
        told = super().__call__(subject.take(np.flatnonzero(inside)), rng=rng)
        names = np.unique(values)
        of_categories = [_drops(subject, values == one)[own(subject)] for one in names]
        result = told.assign(
            selective=self.measured(subject, variable="selective", rng=rng),
            drop_by_category=(("layer", "category"), np.stack(of_categories, axis=1)),
        ).assign_coords(category=names)
        if "shown" not in kinds(subject.volume):  # a twin, or one of what it is held against
            return result
        within, elsewhere = _drops(subject, inside), _drops(subject, ~inside)
        given, arms = kinds(subject.volume), told["arm"].to_numpy().astype(str)

        def by_arm(drops: np.ndarray) -> tuple[tuple[str, str], np.ndarray]:
            return ("layer", "arm"), np.stack([drops[given == one].mean(0) for one in arms], 1)

        return result.assign(
            drop_apart_of=by_arm(within - elsewhere), drop_elsewhere_of=by_arm(elsewhere)
        )


def _drops(subject: Subject, some: np.ndarray) -> np.ndarray:
    """How many more answers are wrong of some stimuli, as a share of them: target x layer."""
    volume = subject.volume
    margins = [values_of(volume, name, "target", "layer", "stimulus")[..., some] for name in TEXTS]
    whole = [volume[f"intact_{name}"].to_numpy()[some] for name in TEXTS]
    return right(np.concatenate(whole)) - right(np.concatenate(margins, axis=-1))
