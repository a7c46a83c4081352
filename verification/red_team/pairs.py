"""Faults of claims about two models."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from analyses.universality import Universality
from scanner import Subject
from verification.red_team.fault import Outcome, fault, judged, randomness
from verification.worlds import SITE, world

PAIR = Universality(SITE)
LIKENESS: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.1},
    "shuffled_items": {"permutations": 39},
    "beyond_surface": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 5},
}
UNLIKENESS: dict[str, dict[str, Any]] = {
    "planted_likeness": {"margin": 0.1},
    "split_half": {"margin": 0.0, "splits": 5},
}


def pair(rng: np.random.Generator, **settings: Any) -> Subject:
    """Two models over the same items, of one layer."""
    return world(rng, layers=1, items=12, beside=True, **settings)


@fault("surface", "rejected", "beyond_surface: ")
def alike_in_spelling(seed: int, broken: bool) -> Outcome:
    """All that two models have in common is that they write down how a word ends."""
    made = {"code": "token", "confound": "token"} if broken else {"code": "shared"}
    subject = pair(randomness(seed, "spelling"), size=2.0, **made)
    return judged(
        subject, PAIR, seed=seed, measure="pair.cka", controls=LIKENESS, smallest_effect=0.2
    )


@dataclass(frozen=True)
class Sorted(Universality):
    """Puts the items of each model in the order of their place along its own first component."""

    def _grams(self, *subjects: Subject) -> list[np.ndarray]:
        found = []
        for products in super()._grams(*subjects):
            order = np.linalg.eigh(products[0])[1][:, -1].argsort()
            found.append(products[:, order][:, :, order])
        return found


@fault("leak", "rejected", "shuffled_items: ")
def alike_in_order(seed: int, broken: bool) -> Outcome:
    """Items are matched by where they lie in each model, and not by which they are."""
    rng = randomness(seed, "order")
    few = {"correlated": True, "item_spread": 4.0}
    subject = pair(rng, **few) if broken else pair(rng, code="shared", size=2.0)
    kind = Sorted if broken else Universality
    return judged(
        subject, kind(SITE), seed=seed, measure="pair.cka", controls=LIKENESS, smallest_effect=0.1
    )


@dataclass(frozen=True)
class Biased(Universality):
    """Has a CKA that grows with units for so many items, whatever the models."""

    def _map(self, name: str, left: np.ndarray, right: np.ndarray, rows: np.ndarray) -> np.ndarray:
        one, other = (_around_mean(some[:, rows][:, :, rows]) for some in (left, right))
        sizes = np.outer(np.linalg.norm(one, axis=(1, 2)), np.linalg.norm(other, axis=(1, 2)))
        return np.einsum("lij,mij->lm", one, other) / sizes


def _around_mean(products: np.ndarray) -> np.ndarray:
    """Products of items as they are around the mean of these items."""
    means = products.mean(1, keepdims=True)
    return products - means - means.transpose(0, 2, 1) + means.mean(2, keepdims=True)


@fault("bias", "rejected", "(untrained_twin|shuffled_items): ", clean="null")
def alike_by_few_items(seed: int, broken: bool) -> Outcome:
    """Any two models are alike in so few items of so many units, when CKA is not debiased."""
    kind = Biased if broken else Universality
    subject = pair(randomness(seed, "few items"), units=120)
    return judged(
        subject, kind(SITE), seed=seed, measure="pair.cka", controls=LIKENESS, smallest_effect=0.2
    )


@fault("outliers", ("null", "inconclusive"), "surely smaller|neither shown to be there")
def alike_in_one_unit(seed: int, broken: bool) -> Outcome:
    """All that two models have in common is one unit each, a hundred times as large as others."""
    rng = randomness(seed, "outlier")
    subject = pair(rng) if broken else pair(rng, code="shared", size=2.0)
    items, which = np.unique(subject.volume["item"].to_numpy(), return_inverse=True)
    size = 100 * np.abs(subject.volume[SITE]).mean().item() * rng.normal(size=len(items))[which]
    one, other = (_with_unit(each, size) for each in subject.together)
    return judged(
        one.set_beside(other), PAIR, seed=seed, measure="pair.cka", controls=LIKENESS,
        smallest_effect=0.2,
    )  # fmt: skip


def _with_unit(subject: Subject, values: np.ndarray) -> Subject:
    """A model whose first unit, of every layer, has this value at each stimulus."""
    site = subject.volume[SITE].transpose("stimulus", ..., "unit").copy()
    site[{"unit": 0}] = values.reshape(-1, *[1] * (site.ndim - 2))
    return replace(subject, volume=subject.volume.assign({SITE: site}))


@dataclass(frozen=True)
class BlindPair(Universality):
    """Deals the items of the second model out anew before it compares."""

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        one, other = subjects
        names, which = np.unique(other.volume["item"].to_numpy(), return_inverse=True)
        mixed = other.relabel("item", rng.permutation(names)[which])
        return super().measured(one, mixed, variable=variable, rng=rng)


@fault("power", "rejected", "planted_likeness: ")
def blind_to_likeness(seed: int, broken: bool) -> Outcome:
    """That two models are not alike is claimed by an analysis that could not have seen it."""
    subject = pair(randomness(seed, "unlike"))
    kind = BlindPair if broken else Universality
    return judged(
        subject,
        kind(SITE),
        seed=seed,
        measure="pair.cka",
        expect="less",
        than=0.4,
        controls=UNLIKENESS,
    )
