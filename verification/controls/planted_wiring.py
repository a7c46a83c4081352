"""Where heads do take over what they read, a claim that wiring has no say must fail.

The control for claims that activity does not follow the weights: it shows that the same analysis,
on the same items and the same wiring, would have found what it says is not there.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analyses.base import Asks, vectors
from scanner import Subject
from verification.control import PlantedControl, control
from verification.measure import Measure


@control
@dataclass(frozen=True)
class PlantedWiring(PlantedControl):
    """Null control of an absence: each node has a part of its activity from those that it reads.

    Attributes
    ----------
    margin : float
    strength : float
        The share of the variance of a node that comes from those that it reads more of than others
        of its layer do, between 0 and 1.
    """

    of: ClassVar[tuple[Asks, ...]] = ("wiring",)
    strength: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.strength < 1:
            raise ValueError("strength must lie between 0 and 1")

    @property
    def planted(self) -> str:
        return (
            f"a model whose nodes have a share of {self.strength:g} of their variance from those "
            "that they read"
        )

    def plant(self, subject: Subject, measure: Measure, rng: np.random.Generator) -> Subject:
        site = getattr(measure.analysis, "site", "")
        volume = subject.volume
        (x,) = vectors(subject, site)
        wired = volume["wired"].transpose("parcel", "other_parcel").to_numpy()
        made = along_wires(x, wired, volume["parcel_layer"].to_numpy(), self.strength)
        told = volume[site].transpose("stimulus", "layer", "parcel")
        return subject.replace_volume(volume.assign({site: told.copy(data=made[:, None])}))


def along_wires(
    x: np.ndarray, wired: np.ndarray, layers: np.ndarray, strength: float
) -> np.ndarray:
    """Activity in which nodes have a share of their variance from those that they read.

    Parameters
    ----------
    x : numpy.ndarray
        stimulus x node.
    wired : numpy.ndarray
        writer x reader.
    layers : numpy.ndarray
        node.
    strength : float
        The share of variance.
    """
    middle, spread = x.mean(0), x.std(0)
    made = np.divide(x - middle, spread, out=np.zeros_like(x, float), where=spread > 0)
    for layer in np.unique(layers):
        own = np.flatnonzero(layers == layer)
        read = wired[:, own] - wired[:, own].mean(1, keepdims=True)
        heard = made @ np.maximum(read, 0)
        size = heard.std(0)
        some = size > 0
        heard = (heard[:, some] - heard[:, some].mean(0)) / size[some]
        own = own[some]
        made[:, own] = np.sqrt(1 - strength) * made[:, own] + np.sqrt(strength) * heard
    return middle + spread * made
