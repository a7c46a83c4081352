"""Worlds of numbers of several things, of which it is known whether those of one break.

As `verification.worlds`, where the items are sentences and each stands at every number: what is
planted is a step of one thing, or what is taken for one: a step of all things, where numbers gain
a token; a curve that one thing follows; and a circle that it goes round every ten.
"""

import numpy as np
import xarray as xr

from scanner import Subject
from verification.worlds import SITE, world

NUMBERS, AT = 32, 18


def numbered_world(
    rng: np.random.Generator,
    *,
    step: float = 0.0,
    of_twins: float = 0.0,
    of_all: float = 0.0,
    curve: float = 0.0,
    circle: float = 0.0,
    categories: int = 4,
    items: int = 12,
    layers: int = 1,
    units: int = 40,
    noise: float = 1.0,
    twins: int = 2,
) -> Subject:
    """Make a subject and its twins.

    Parameters
    ----------
    rng : numpy.random.Generator
    step, of_twins : float
        How far ``category0`` steps at 18, in the subject and in twins, in units of the noise.
    of_all : float
        How far all categories step there.
    curve, circle : float
        How far ``category0`` alone goes along a curve that is never sudden, and round a circle.
    categories, items, layers, units, noise, twins
        As in `verification.worlds.world`.
    """
    bare = world(
        rng, categories=categories, items=items, frames=NUMBERS, layers=layers, units=units,
        noise=noise, correlated=True, twins=twins,
    )  # fmt: skip
    number = bare.volume["number"].to_numpy()
    first = (bare.volume["category"].to_numpy() == "category0").astype(float)
    along = number / NUMBERS

    def planted(volume: xr.Dataset, size: float) -> xr.Dataset:
        def direction() -> np.ndarray:
            one = rng.normal(size=units)
            return np.sqrt(10) * one / np.linalg.norm(one)

        after = (number >= AT).astype(float)
        added = np.outer(size * first * after, direction())
        added += of_all * np.outer(after, direction())
        for turns in (0.5, 1.0, 1.5):
            added += curve * np.outer(first * np.sin(2 * np.pi * turns * along), direction())
        for wave in (np.sin, np.cos):
            added += circle * np.outer(first * wave(2 * np.pi * number / 10), direction())
        x = volume[SITE].transpose("stimulus", "layer", "unit")
        moved = x.copy(data=x.to_numpy() + added[:, None])
        return volume.assign({SITE: moved})

    return Subject(
        bare.name,
        planted(bare.volume, step),
        {seed: planted(twin, of_twins) for seed, twin in bare.twins.items()},
    )
