"""A world with a planted truth: subjects whose activations are made, not recorded."""

from typing import Literal

import numpy as np
import xarray as xr

from scanner import Subject
from verification import Hypothesis

Code = Literal["none", "direction", "graded", "localist", "length", "item"]


FOUR = {
    "untrained_twin": {"margin": 0.1},
    "shuffled_labels": {"permutations": 39},
    "surface_only": {"margin": 0.1},
    "split_half": {"margin": 0.05, "splits": 5},
}


def hypothesis(**changed: object) -> Hypothesis:
    """A hypothesis about a probe under the four controls of a claim of presence."""
    fields = {
        "id": "h",
        "claim": "The category can be decoded.",
        "rationale": "Because it was planted.",
        "measure": "decode.balanced_accuracy",
        "at": {"layer": 0},
        "expect": "greater",
        "than": "chance",
        "smallest_effect": 0.1,
        "alpha": 0.05,
        "controls": FOUR,
    }
    return Hypothesis.model_validate(fields | changed)


def subject(
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
    twin_code: Code = "none",
    twins: int = 2,
    own_frames: bool = False,
    long_words: bool = False,
) -> Subject:
    """Items nested in categories, crossed with frames.

    Parameters
    ----------
    code : str
        What carries the category: nothing; one random direction a category; every unit a little;
        five units a category; the length of the word; or the item alone (no category).
    size : float
        Strength of the code, in units of the noise.
    own_frames : bool
        Each category has frames of its own, as no stimulus set should.
    long_words : bool
        Words of later categories are longer.
    """
    n = categories * items
    category = np.repeat(np.arange(categories), items * frames)
    item = np.repeat(np.arange(n), frames)
    frame = np.tile(np.arange(frames), n) + (category * frames if own_frames else 0)
    length = rng.integers(3, 9, n)[item] + (4 * category if long_words else 0)
    labels = {
        "text": np.array([f"word {i} in frame {f}" for i, f in zip(item, frame, strict=True)]),
        # Letters at random and numbers in no order: spelling tells nothing.
        "item": np.array(
            ["".join(rng.choice(list("abcdefgh"), 6)) + str(i) for i in rng.permutation(n)]
        )[item],
        "frame": np.array([f"frame{f}" for f in frame]),
        "category": np.array([f"category{c}" for c in category]),
        "n_chars": length,
        "n_tokens": rng.integers(1, 3, n)[item],
        "zipf": rng.normal(4, 1, n)[item],
        "target_position": frame,
        "first_token": rng.integers(0, 20, n)[item],
        "last_token": rng.integers(0, 20, n)[item],
    }
    shared = rng.normal(size=(layers, 1 + frame.max(), units))[:, frame]

    def recorded(planted: Code, seed: int | None = None) -> xr.Dataset:
        x = noise * rng.normal(size=(layers, len(item), units)) + shared
        x += item_spread * rng.normal(size=(layers, n, units))[:, item]
        x += size * _coded(planted, category, length, layers, units, rng)
        if planted == "item":
            x += 5 * rng.normal(size=(layers, n, units))[:, item]
        return xr.Dataset(
            {"resid_post": (("stimulus", "layer", "unit"), x.transpose(1, 0, 2))},
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

    volume = recorded(code)
    return Subject("toy", volume, {seed: recorded(twin_code, seed) for seed in range(twins)})


def _coded(
    code: Code,
    category: np.ndarray,
    length: np.ndarray,
    layers: int,
    units: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The planted part, layer x stimulus x unit."""
    count = category.max() + 1
    if code == "direction":
        directions = rng.normal(size=(layers, count, units))
        directions /= np.linalg.norm(directions, axis=2, keepdims=True) / np.sqrt(10)
        return directions[:, category]
    if code == "graded":
        return rng.normal(size=(layers, count, units))[:, category]
    if code == "localist":
        tuned = np.zeros((count, units))
        for c in range(count):
            tuned[c, 5 * c : 5 * c + 5] = 1
        return np.broadcast_to(tuned[category], (layers, len(category), units))
    if code == "length":
        direction = rng.normal(size=(layers, 1, units))
        return direction * (length - length.mean())[:, None] / 3
    return np.zeros((layers, len(category), units))
