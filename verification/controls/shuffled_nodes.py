"""With the nodes of each layer dealt out anew, how they go together must not follow their wiring.

Two networks of the same nodes are alike for what has nothing to do with who is who: both fall with
the distance of layers, in activity and in weights. Nodes that change places within their layers
leave all of that as it is (as spatial nulls of brain maps do, Alexander-Bloch et al. 2018).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses.base import Asks
from analyses.coupling import dealt_within
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class ShuffledNodes(Control):
    """Null control: a permutation test over the nodes of each layer.

    Attributes
    ----------
    margin : float
        How far the effect must lie above the mean of the permutations.
    permutations : int
    """

    kind: ClassVar[Kind] = "null"
    of: ClassVar[tuple[Asks, ...]] = ("wiring",)
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
            [measure.effect(rewired(subject, rng)) for _ in range(self.permutations)]
        )
        return self.outdone(observed, shuffled, hypothesis.alpha, "the nodes of each layer")


def rewired(subject: Subject, rng: np.random.Generator) -> Subject:
    """The subject with the wiring of each node under the name of another one of its layer."""
    volume = subject.volume
    order = dealt_within(volume["parcel_layer"].to_numpy(), rng)
    wired = volume["wired"].isel(parcel=order, other_parcel=order).to_numpy()
    return subject.replace_volume(volume.assign_coords(wired=(volume["wired"].dims, wired)))
