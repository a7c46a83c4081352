"""Worlds of heads whose wiring is known, and of which it is known whether they follow it.

As `verification.worlds`, for analyses that hold activity against wiring: what is planted is what
heads take over from those that they read, and what falls with the distance of layers for no such
reason, in weights and in activity.
"""

import numpy as np
import xarray as xr

from scanner import Subject
from verification.controls.planted_wiring import along_wires
from verification.worlds import SITE, world


def wired_world(
    rng: np.random.Generator,
    *,
    size: float = 0.0,
    of_twins: float = 0.0,
    by_depth: float = 0.0,
    categories: int = 4,
    items: int = 12,
    frames: int = 4,
    layers: int = 8,
    heads: int = 8,
    twins: int = 2,
) -> Subject:
    """Make a subject and its twins.

    Parameters
    ----------
    rng : numpy.random.Generator
    size, of_twins : float
        The share of the variance of a head that comes from those that it reads, in the subject and
        in twins; 0 to 1.
    by_depth : float
        How much more heads of near layers are wired, and have in common, than those of far ones.
    categories, items, frames : int
        As in `verification.worlds.world`.
    layers, heads : int
        How many; heads in each layer.
    twins : int
    """
    bare = world(
        rng, categories=categories, items=items, frames=frames, layers=1, units=1, twins=twins
    )
    _, which = np.unique(bare.volume["item"].to_numpy(), return_inverse=True)
    layer = np.repeat(np.arange(layers), heads)
    apart = layer - layer[:, None]

    def acted(volume: xr.Dataset, share: float) -> xr.Dataset:
        wired = np.where(apart > 0, rng.uniform(size=apart.shape) ** 4, 0)
        wired += by_depth * np.where(apart > 0, np.exp(-apart.astype(float)), 0)

        own = rng.normal(size=(1 + which.max(), layers, heads))
        # What layers share with those before, whoever reads whom.
        common = rng.normal(size=(1 + which.max(), layers))
        for later in range(1, layers):
            common[:, later] = (common[:, later] + common[:, later - 1]) / np.sqrt(2)
        of_items = (own + by_depth * common[..., None]).reshape(len(own), -1)
        x = of_items[which] + 0.5 * rng.normal(size=(len(which), layers * heads))
        told = along_wires(x, wired, layer, share)
        return volume.drop_vars([SITE, "unit"]).assign(
            {SITE: (("stimulus", "layer", "parcel"), told[:, None])}
        ).assign_coords(
            parcel=np.arange(layers * heads),
            other_parcel=np.arange(layers * heads),
            parcel_layer=("parcel", layer),
            wired=(("parcel", "other_parcel"), wired),
        )  # fmt: skip

    return Subject(
        bare.name,
        acted(bare.volume, size),
        {seed: acted(twin, of_twins) for seed, twin in bare.twins.items()},
    )
