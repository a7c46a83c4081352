"""What can be seen on the surface of the words must not come within the margin of the effect.

The activations are replaced by properties of the text that need no model, in four families: counts
(length in characters and tokens, word frequency, position), tokens (the first and the last),
letters (first, last two, pairs), and all together. The strongest family counts: one good feature
drowns among hundreds of poor ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.base import labels
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class SurfaceOnly(Control):
    """Null control: the same analysis, reading surface properties instead of activations."""

    kind: ClassVar[Kind] = "null"

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        family, world = strongest(subject, measure)
        what = f"the surface of the words ({family})"
        return self.beaten(observed, measure(world), hypothesis.alpha, what)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        layers = subject.volume["layer"].to_numpy()
        _, world = strongest(subject, measure)
        # The surface is the same at each layer: one is computed, and shown at all.
        flat = measure.profile(world.at(int(layers[0])))
        return flat.isel(layer=[0] * len(layers)).assign_coords(layer=layers)


def strongest(subject: Subject, measure: Measure) -> tuple[str, Subject]:
    """The family of surface features with the largest effect, and the subject that shows it.

    Raises
    ------
    AnalysisError
        If the measure can be taken of no family.
    """
    effects: dict[str, float] = {}
    worlds, refusal = surfaces(subject), AnalysisError("no surface features")
    for family, world in worlds.items():
        try:
            effects[family] = measure.effect(world)
        except AnalysisError as error:
            refusal = error  # a small family can have fewer units than an analysis asks for
    if not effects:
        raise refusal
    family = max(effects, key=lambda name: effects[name])
    return family, worlds[family]


def surfaces(subject: Subject) -> dict[str, Subject]:
    """The subject with surface features, the same in each layer, in the place of activations.

    Raises
    ------
    KeyError
        If the volume lacks one of the surface columns.
    """
    families = features(subject.volume, labels(subject, "item"))
    return {name: _in_place(subject, values) for name, values in families.items()}


def features(volume: xr.Dataset, items: np.ndarray) -> Mapping[str, np.ndarray]:
    """Surface features by family, each stimulus x feature."""
    numbers = {name: volume[name].to_numpy().astype(float)
               for name in ("n_chars", "n_tokens", "zipf", "target_position")}  # fmt: skip
    counts = np.concatenate(
        [
            *(values[:, None] for values in numbers.values()),
            numbers["zipf"][:, None] ** 2,
            # One column a length: what is read need not grow with it.
            _one_hot(numbers["n_chars"]),
            _one_hot(numbers["n_tokens"]),
        ],
        axis=1,
    )
    tokens = np.concatenate(
        [_one_hot(volume[name].to_numpy()) for name in ("first_token", "last_token")], axis=1
    )
    letters = _letters(items)
    every = np.concatenate([counts, tokens, letters], axis=1)
    return {"counts": counts, "tokens": tokens, "letters": letters, "all": every}


def _in_place(subject: Subject, values: np.ndarray) -> Subject:
    volume = subject.volume
    layers = volume.sizes["layer"]
    repeated = np.broadcast_to(values[:, None], (len(values), layers, values.shape[1]))
    dims = ("stimulus", "layer", "unit")
    return subject.replace_volume(
        volume.drop_vars([*volume.data_vars, "unit"], errors="ignore")
        .assign({kind: (dims, repeated) for kind in volume.data_vars})
        .assign_coords(unit=np.arange(values.shape[1]))
    )


def _one_hot(values: np.ndarray) -> np.ndarray:
    return (values[:, None] == np.unique(values)).astype(float)


def _letters(items: np.ndarray) -> np.ndarray:
    """First letter, last one and two letters, and pairs of letters of each item, counted."""
    words, which = np.unique(items, return_inverse=True)
    pairs = [[word[i : i + 2] for i in range(len(word) - 1)] for word in words]
    marked = [
        [f"^{word[0]}", f"{word[-1]}$", f"{word[-2:]}$", *pair]
        for word, pair in zip(words, pairs, strict=True)
    ]
    known = sorted({mark for marks in marked for mark in marks})
    counts = np.array([[marks.count(mark) for mark in known] for marks in marked], dtype=float)
    return counts[which]
