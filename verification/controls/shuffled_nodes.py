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
from verification.control import ShuffledControl, control


@control
@dataclass(frozen=True)
class ShuffledNodes(ShuffledControl):
    """Null control: a permutation test over the nodes of each layer."""

    of: ClassVar[tuple[Asks, ...]] = ("wiring",)
    shuffles: ClassVar[str] = "the nodes of each layer"

    def shuffled(self, subject: Subject, rng: np.random.Generator) -> Subject:
        volume = subject.volume
        order = dealt_within(volume["parcel_layer"].to_numpy(), rng)
        wired = volume["wired"].isel(parcel=order, other_parcel=order).to_numpy()
        return subject.replace_volume(volume.assign_coords(wired=(volume["wired"].dims, wired)))
