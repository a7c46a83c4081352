"""What to act on: directions and units that carry a label, and others to hold them against.

All are found in training items. Directions at random are drawn from a power of the covariance of
the activations, the power so chosen that as much goes with them as with what they are held against:
isotropic ones have almost no variance, and taking them away does nothing (Elazar et al. 2021).
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from analyses.base import AnalysisError
from analyses.erasure import leace
from analyses.probe import ridge
from scanner import Subject

Way = Literal["mean_difference", "probe", "leace", "subspace", "units", "features"]
# Powers of the covariance that are tried: from what varies least to the principal components.
POWERS = (-4.0, 8.0)
STEPS = 40
# How much stronger than it was drawn a target at random may be made.
STRONGEST = 16.0


class Told(NamedTuple):
    """A layer as a dictionary tells it.

    Attributes
    ----------
    features : numpy.ndarray
        stimulus x feature.
    written : numpy.ndarray
        feature x unit: what each feature adds.
    """

    features: np.ndarray
    written: np.ndarray


def told(subject: Subject, layer: int) -> Told | None:
    """A layer of the dictionary that is beside a subject; None if there is none."""
    if not subject.beside:
        return None
    here = subject.beside[0].volume.sel(layer=layer)
    return Told(
        here["features"].transpose("stimulus", "feature").to_numpy().astype(float),
        here["directions"].transpose("feature", "unit").to_numpy().astype(float),
    )


def check_dictionary(way: Way, dictionary: str | None) -> None:
    """Hold what names a dictionary to need one, and what needs one to name it.

    Raises
    ------
    ValueError
    """
    if way == "features" and dictionary is None:
        raise ValueError("way: 'features' needs `dictionary`, the analysis that makes them")
    if way != "features" and dictionary is not None:
        raise ValueError(f"dictionary: '{way}' reads none; leave it out, or say `way: features`")


@dataclass(frozen=True)
class Patterns:
    """Training patterns of one layer.

    Attributes
    ----------
    stimuli : numpy.ndarray
        stimulus x unit.
    items : numpy.ndarray
        item x unit: the means of their stimuli.
    wanted : numpy.ndarray
        item x column: one-hot labels, or a single column for one category against the rest.
    told : Told or None
        The items as a dictionary tells them.
    """

    stimuli: np.ndarray
    items: np.ndarray
    wanted: np.ndarray
    told: Told | None = None

    @classmethod
    def of(
        cls, stimuli: np.ndarray, items: np.ndarray, wanted: np.ndarray, told: Told | None = None
    ) -> "Patterns":
        """From the item and the targets of each stimulus, and what a dictionary tells of it."""
        _, first, which = np.unique(items, return_index=True, return_inverse=True)
        member = which == np.arange(len(first))[:, None]
        mean = member / member.sum(1, keepdims=True)
        if told is not None:
            told = told._replace(features=mean @ told.features)
        return cls(stimuli, mean @ stimuli, wanted[first], told)

    @property
    def center(self) -> np.ndarray:
        return self.stimuli.mean(0)

    def dealt(self, rng: np.random.Generator) -> "Patterns":
        """The same with the labels dealt out anew among the items."""
        return replace(self, wanted=rng.permutation(self.wanted))


@dataclass(frozen=True)
class Target:
    """Something to act on.

    Attributes
    ----------
    kind : str
        As `analyses.acting` has them.
    along, readout : numpy.ndarray
        direction x unit: what is taken away of an activation, and how much of it there is. No
        directions stand for all of it.
    strength : float
        How often it is taken away; 1 leaves nothing of it.
    """

    kind: str
    along: np.ndarray
    readout: np.ndarray
    strength: float = 1.0

    def energy(self, patterns: np.ndarray) -> float:
        """The mean squared length of what is taken away of patterns around their mean."""
        has = (patterns - patterns.mean(0)) @ self.readout.T
        return float(np.mean(np.sum((has @ self.along) ** 2, axis=1)))


def aim(kind: str, patterns: Patterns, way: Way, *, count: int) -> Target:
    """Find what carries the label.

    Parameters
    ----------
    kind : str
    patterns : Patterns
    way : {'mean_difference', 'probe', 'leace', 'subspace', 'units', 'features'}
        The differences of the means of categories; the weights of a ridge probe; least-squares
        erasure (Belrose et al. 2023); the weights of several probes, each trained on what those
        before it leave (Ravfogel et al. 2020); the units of largest d'; or what the features of
        largest d' write.
    count : int
        Of units, of features, or of such probes.

    Raises
    ------
    AnalysisError
        If nothing differs between the categories.
    """
    if way == "units":
        return _one_hot(kind, np.argsort(-dprime(patterns), kind="stable")[:count], patterns)
    if way == "features":
        assert patterns.told is not None
        of_features = replace(patterns, items=patterns.told.features)
        best = np.argsort(-dprime(of_features), kind="stable")[:count]
        return _spanned(kind, patterns.told.written[best])
    if way == "leace":
        eraser = leace(patterns.items, patterns.wanted)
        return Target(kind, eraser.write.T, eraser.read.T)
    wanted = patterns.wanted - patterns.wanted.mean(0)
    centred = patterns.items - patterns.items.mean(0)
    if way == "mean_difference":
        found = wanted.T @ centred / np.maximum(np.sum(wanted**2, axis=0), 1e-12)[:, None]
        return _spanned(kind, found)
    spread = centred.std(0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    directions = np.empty((0, len(scale)))
    for _ in range(count if way == "subspace" else 1):
        left = centred - centred @ directions.T @ directions
        if np.sum(left**2) < 1e-12 * np.sum(centred**2):  # there are no more than items
            break
        (weights,) = ridge(left * scale, wanted, penalties=(1.0,))
        found = weights.T * scale
        found -= found @ directions.T @ directions
        directions = np.concatenate([directions, _spanned(kind, found).along])
    return Target(kind, directions, directions)


def matched(rng: np.random.Generator, patterns: Patterns, own: Target) -> Target:
    """Directions at random, as many, with as much of the activations along them."""
    centred = patterns.stimuli - patterns.center
    _, sizes, right = np.linalg.svd(centred, full_matrices=False)
    kept = sizes > 1e-8 * sizes[0]
    sizes, right = sizes[kept] / sizes[0], right[kept]
    noise = rng.normal(size=(len(own.along), len(sizes)))
    wanted = own.energy(patterns.stimuli)
    low, high = POWERS
    made = own
    for _ in range(STEPS):
        power = (low + high) / 2
        made = _spanned("matched", (noise * sizes**power) @ right)
        if made.energy(patterns.stimuli) < wanted:
            low = power
        else:
            high = power
    return made


def matched_units(rng: np.random.Generator, patterns: Patterns, own: Target) -> Target:
    """Units at random that are not the own, each one of the ten nearest in variance to one."""
    variance = patterns.stimuli.var(0)
    chosen = own.along.argmax(1)
    free = np.setdiff1d(np.arange(len(variance)), chosen)
    found = []
    for unit in chosen:
        near = free[np.argsort(np.abs(np.log((variance[free] + 1e-12) / (variance[unit] + 1e-12))))]
        found.append(rng.choice(near[:10]))
        free = free[free != found[-1]]
    return _one_hot("matched", np.array(found), patterns)


def strength(wanted: float, suffered: float) -> float:
    """How often something at random is done to do as much harm: as often as it is, at least.

    Divergence grows with the square of a small change.
    """
    return float(np.clip(np.sqrt(wanted / max(suffered, 1e-12)), 1.0, STRONGEST))


def _one_hot(kind: str, units: np.ndarray, patterns: Patterns) -> Target:
    along = np.eye(patterns.stimuli.shape[1])[units]
    return Target(kind, along, along)


def _spanned(kind: str, vectors: np.ndarray) -> Target:
    """The span of some vectors, as directions of length one at right angles."""
    _, sizes, right = np.linalg.svd(vectors, full_matrices=False)
    if not sizes[0] > 0:
        raise AnalysisError("the categories have the same mean, so no direction tells them apart")
    along = right[sizes > 1e-6 * sizes[0]]
    return Target(kind, along, along)


def dprime(patterns: Patterns) -> np.ndarray:
    """The largest |d'| of each unit over the categories, each against the rest."""
    best = np.zeros(patterns.items.shape[1])
    for column in patterns.wanted.T:
        inside, outside = patterns.items[column > 0.5], patterns.items[column <= 0.5]
        spread = np.sqrt((inside.var(0) + outside.var(0)) / 2)
        apart = np.abs(inside.mean(0) - outside.mean(0))
        best = np.maximum(
            best, np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0)
        )
    return best
