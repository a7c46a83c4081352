"""What can be seen on the surface of the words must not come within the margin of the effect.

The activations are replaced by properties of the text that need no model: length in characters and
tokens, word frequency, position, first and last token, first and last letters, pairs of letters.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.base import labels
from scanner import Subject
from verification.base import Check, Control, Hypothesis, Kind, control
from verification.measure import Measure
from verification.statistics import Estimate

COUNTS = ("n_chars", "n_tokens", "zipf", "target_position")
TOKENS = ("first_token", "last_token")


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
        return self.beaten(
            observed,
            measure(surface(subject)),
            hypothesis.alpha,
            "the surface of the words alone",
        )

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        first = int(subject.volume["layer"][0])
        flat = measure.profile(surface(subject.at(first)))
        return flat.isel(layer=[0] * subject.volume.sizes["layer"]).assign_coords(
            layer=subject.volume["layer"].to_numpy()
        )


def surface(subject: Subject) -> Subject:
    """The subject with surface features, the same in each layer, in the place of activations.

    Raises
    ------
    KeyError
        If the volume lacks one of the surface columns.
    """
    volume = subject.volume
    columns = [volume[name].to_numpy().astype(float)[:, None] for name in COUNTS]
    columns += [_one_hot(volume[name].to_numpy()) for name in TOKENS]
    columns.append(_letters(labels(subject, "item")))
    features = np.concatenate(columns, axis=1)
    layers = volume["layer"].to_numpy()
    values = np.broadcast_to(features[:, None], (len(features), len(layers), features.shape[1]))
    kept = volume.drop_vars([*volume.data_vars, "unit"])
    return subject.replace_volume(
        kept.assign({kind: (("stimulus", "layer", "unit"), values) for kind in volume.data_vars})
        .assign_coords(unit=np.arange(features.shape[1]))
        .assign_attrs(volume.attrs)
    )


def _one_hot(values: np.ndarray) -> np.ndarray:
    return (values[:, None] == np.unique(values)).astype(float)


def _letters(items: np.ndarray) -> np.ndarray:
    """First letter, last one and two letters, and pairs of letters of each item, counted."""
    words, which = np.unique(items, return_inverse=True)
    marked = [
        [
            f"^{word[0]}",
            f"{word[-1]}$",
            f"{word[-2:]}$",
            *map("".join, zip(word, word[1:], strict=False)),
        ]
        for word in words
    ]
    known = sorted({mark for marks in marked for mark in marks})
    counts = np.array([[marks.count(mark) for mark in known] for marks in marked], dtype=float)
    return counts[which]
