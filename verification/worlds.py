"""Worlds with a planted truth: subjects whose activations are made, not recorded.

Items are nested in categories and crossed with frames. Each unit is the sum of what the frame, the
item, and noise give it, and of a code that carries the category, or carries something that goes
along with it. The gate is calibrated in them, because in them it is known what it should say.
"""

from typing import Literal, get_args

import numpy as np
import xarray as xr

from scanner import Subject

Surface = Literal["length", "frequency", "letter", "position", "token"]
Code = (
    Literal[
        "none",
        "direction",
        "graded",
        "localist",
        "paired",
        "item",
        "modules",
        "shared",
        "line",
        "circle",
    ]
    | Surface
)
SITE = "resid_post"
MODULES = 6
# What items have in two models, in so many directions.
SHARED = 6


def world(
    rng: np.random.Generator,
    *,
    code: Code = "none",
    size: float = 1.0,
    categories: int = 4,
    items: int = 12,
    frames: int = 4,
    layers: int = 2,
    units: int = 60,
    noise: float = 1.0,
    item_spread: float = 0.5,
    tails: float | None = None,
    correlated: bool = False,
    confound: Surface | None = None,
    twin_code: Code = "none",
    twins: int = 2,
    own_frames: bool = False,
    beside: bool = False,
) -> Subject:
    """Make a subject and its twins.

    Parameters
    ----------
    rng : numpy.random.Generator
    code : str
        What the activations carry: nothing; one random direction a category; every unit a little;
        five units a category; one direction a category, of either sign, so that no line tells it;
        the item alone (no category); what a sixth of the units share over items, whatever their
        category; what items have in this model and in the one beside it; a number of the items
        along a line, or around a circle; or a property of the word's surface.
    size : float
        Strength of the code, in units of the noise.
    categories, items, frames, layers, units : int
        How many; items in each category.
    noise, item_spread : float
        Spread over stimuli, and over items.
    tails : float, optional
        Degrees of freedom of Student's t for both, at the same spread; Gaussian by default.
    correlated : bool
        Whether units share a few factors, as those of a network do.
    confound : str, optional
        A property of the surface that differs between categories.
    twin_code : str
        What the untrained twins carry.
    twins : int
    own_frames : bool
        Whether each category has frames of its own, as no stimulus set should.
    beside : bool
        Whether a second model that reads the same stands beside it, of two thirds as many units.
    """
    n = categories * items
    category = np.repeat(np.arange(categories), items * frames)
    item = np.repeat(np.arange(n), frames)
    frame = np.tile(np.arange(frames), n) + (category * frames if own_frames else 0)
    of_item = np.repeat(np.arange(categories), items)
    surface = _surface(rng, of_item, confound)
    words = [
        letter + "".join(rng.choice(list("abcdefgh"), 5)) + str(number)
        for letter, number in zip(surface["letter"], rng.permutation(n), strict=True)
    ]
    position = frame + (3 * category if confound == "position" else 0)
    written = np.array(words)[item]
    labels = {
        "text": np.array([f"{word} in frame {f}" for word, f in zip(written, frame, strict=True)]),
        "item": written,
        "frame": np.array([f"frame{f}" for f in frame]),
        "category": np.array([f"category{c}" for c in category]),
        # Crossed with the categories, and coded nowhere.
        "group": np.array([f"group{one}" for one in item % 3]),
        "number": frame % frames,
        "target_start": np.zeros(len(item), int),
        "target_end": np.char.str_len(written),
        # A number that grows with the categories, so that what tells them tells it.
        "value": item.astype(float),
        "n_chars": surface["length"][item],
        "n_tokens": rng.integers(1, 3, n)[item],
        "zipf": surface["frequency"][item],
        "target_position": position,
        "first_token": rng.integers(0, 20, n)[item],
        "last_token": surface["token"][item],
    }
    known = {
        "length": surface["length"][item],
        "frequency": surface["frequency"][item],
        "letter": surface["letter"][item],
        "position": position,
        "token": surface["token"][item].astype(str),  # a name, whatever its number
    }

    def modelled(name: str, units: int) -> Subject:
        mixing = _mixing(rng, units) if correlated else None
        moved = rng.normal(size=(layers, 1 + frame.max(), units))[:, frame]
        volume = recorded(code, None, mixing, moved)
        made = {seed: recorded(twin_code, seed, mixing, moved) for seed in range(twins)}
        return Subject(name, volume, made)

    def recorded(
        planted: Code, seed: int | None, mixing: np.ndarray | None, moved: np.ndarray
    ) -> xr.Dataset:
        units = moved.shape[2]

        def drawn(*shape: int) -> np.ndarray:
            values = rng.normal(size=shape) if tails is None else _heavy(rng, tails, shape)
            return values if mixing is None else values @ mixing

        x = noise * drawn(layers, len(item), units) + moved
        x += item_spread * drawn(layers, n, units)[:, item]
        if planted in get_args(Surface):
            x += size * _carried(known[planted], layers, units, rng)
        elif planted == "shared":
            x += size * (latent[item] @ rng.normal(size=(layers, SHARED, units)))
        else:
            pattern = _coded(planted, category, item, layers, units, rng)
            # Along the factors of the noise, so that a size is as hard to read in each world.
            along = planted in ("direction", "paired", "line") and mixing is not None
            x += size * (pattern @ mixing if along else pattern)
        return xr.Dataset(
            {SITE: (("stimulus", "layer", "unit"), x.transpose(1, 0, 2))},
            coords={
                **{name: ("stimulus", values) for name, values in labels.items()},
                "layer": np.arange(layers),
                "unit": np.arange(units),
            },
            attrs={
                "config_sha256": "c", "tokenizer_sha256": "t", "weights_sha256": f"w{seed}",
                "vocabulary": 1000, "surprisal": 3.0 if seed is None else np.log(1000),
            },
        )  # fmt: skip

    latent = rng.normal(size=(n, SHARED)) if "shared" in (code, twin_code) else np.empty((n, 0))
    subject = modelled("toy", units)
    return subject.set_beside(modelled("other", 2 * units // 3)) if beside else subject


def _surface(
    rng: np.random.Generator, of_item: np.ndarray, confound: Surface | None
) -> dict[str, np.ndarray]:
    """Properties of each word; only the confounded one knows the category."""
    n = len(of_item)
    letters = np.array(list("abcdefgh"))[rng.integers(0, 8, n)]
    return {
        "length": rng.integers(3, 9, n) + (4 * of_item if confound == "length" else 0),
        "frequency": rng.normal(4, 1, n) + (2 * of_item if confound == "frequency" else 0),
        "letter": np.array(list("stuvwxyz"))[of_item] if confound == "letter" else letters,
        "token": 50 + of_item if confound == "token" else rng.integers(0, 20, n),
    }


def _heavy(rng: np.random.Generator, tails: float, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t, scaled to a variance of one."""
    return rng.standard_t(tails, size=shape) * np.sqrt((tails - 2) / tails)


def _mixing(rng: np.random.Generator, units: int) -> np.ndarray:
    """A rotation with a falling spectrum, 1 / rank; each unit has a variance of one."""
    rotation = np.linalg.qr(rng.normal(size=(units, units)))[0]
    mixed = rotation / np.sqrt(np.arange(1, units + 1))[:, None]
    return mixed / np.linalg.norm(mixed, axis=0)


def _carried(values: np.ndarray, layers: int, units: int, rng: np.random.Generator) -> np.ndarray:
    """A property of the surface along a direction, or as a direction for each kind."""
    if values.dtype.kind in "if":
        return rng.normal(size=(layers, 1, units)) * ((values - values.mean()) / 3)[:, None]
    kinds, which = np.unique(values, return_inverse=True)
    return rng.normal(size=(layers, len(kinds), units))[:, which]


def _coded(
    code: Code,
    category: np.ndarray,
    item: np.ndarray,
    layers: int,
    units: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The planted part, layer x stimulus x unit."""
    count = category.max() + 1
    if code in ("direction", "paired"):
        directions = rng.normal(size=(layers, count, units))
        directions /= np.linalg.norm(directions, axis=2, keepdims=True) / np.sqrt(10)
        sign = np.where(item % 2, 1, -1)[:, None] if code == "paired" else 1
        return directions[:, category] * sign
    if code in ("line", "circle"):
        axes = rng.normal(size=(layers, 2, units))
        axes /= np.linalg.norm(axes, axis=2, keepdims=True) / np.sqrt(10)
        share = np.arange(item.max() + 1) / (item.max() + 1)
        line = np.column_stack([np.sqrt(12) * (share - share.mean()), np.zeros(len(share))])
        # Twice as far out: a curve has more to be estimated.
        circle = 2 * np.column_stack([np.cos(2 * np.pi * share), np.sin(2 * np.pi * share)])
        return (line if code == "line" else circle)[item] @ axes
    if code == "graded":
        return rng.normal(size=(layers, count, units))[:, category]
    if code == "localist":
        tuned = np.zeros((count, units))
        for c in range(count):
            tuned[c, 5 * c : 5 * c + 5] = 1
        return np.broadcast_to(tuned[category], (layers, len(category), units))
    if code == "item":
        return 5 * rng.normal(size=(layers, item.max() + 1, units))[:, item]
    if code == "modules":
        module = rng.permutation(units) % MODULES
        return rng.normal(size=(layers, item.max() + 1, MODULES))[:, item][..., module]
    return np.zeros((layers, len(category), units))
