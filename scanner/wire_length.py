"""What it costs that units far from each other are wired, where units have places.

The units of a layer lie on a grid, which every layer fills alike: a square of side 1. A weight
joins one unit of one layer with one of another, and is charged its size times their distance in
the square; from layer to layer it is no way (Achterberg et al. 2023 charge recurrent weights in a
cube, Liu et al. 2023 those between layers as here). The distances of each matrix are 1 on average,
so that a charge without distances (L1) costs as much where no weight is preferred.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch

from scanner.model import Model

PenaltyKind = Literal["none", "wiring", "l1", "shuffled_distances"]
# Smaller weights are as good as none: those of fresh networks are twenty times as large.
SILENT = 1e-3


@dataclass(frozen=True)
class Penalty:
    """What is added to the loss for the sizes of weights.

    Attributes
    ----------
    kind : {'none', 'wiring', 'l1', 'shuffled_distances'}
        Nothing; sizes times distances; sizes alone; or sizes times distances that are dealt out
        anew among the weights of each matrix, so that none is the distance of anything.
    strength : float
        What the sum over all weights is multiplied by, nats.
    seed : int
        Of the dealing.
    """

    kind: PenaltyKind = "none"
    strength: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ValueError("the strength of a penalty must not be below 0")
        if self.kind == "none" and self.strength:
            raise ValueError("a penalty of kind 'none' has no strength; name another kind")

    def charges(self, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What a unit of each weight costs, before the strength: output x input of each matrix."""
        if self.kind == "none":
            return []
        if self.kind == "l1":
            return [torch.ones_like(one) for one in weights]
        found = [distances(*one.shape).to(one) for one in weights]
        if self.kind == "wiring":
            return found
        # A permutation of units, the same in all matrices, would be the same network under other
        # names; so the distances of each matrix are dealt out, one by one.
        generator = torch.Generator().manual_seed(self.seed)
        return [
            one.flatten()[torch.randperm(one.numel(), generator=generator).to(one.device)].view_as(
                one
            )
            for one in found
        ]


class Wires(NamedTuple):
    """How the weights of a network lie.

    Attributes
    ----------
    length : float
        The mean distance that weights join, weighted by their size; 1 if size and distance have
        nothing to do with each other.
    size : float
        The mean size of a weight.
    silent : float
        The share of weights that are smaller than `SILENT`.
    """

    length: float
    size: float
    silent: float


def priced(model: Model) -> list[torch.nn.Parameter]:
    """The weights that join units: the matrices of the blocks, output x input each."""
    begins = f"{model.structure.blocks}."
    named = model.network.named_parameters()
    return [one for name, one in named if name.startswith(begins) and one.ndim == 2]


def cost(weights: Sequence[torch.Tensor], charges: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of sizes times charges."""
    each = [(one.abs() * charge).sum() for one, charge in zip(weights, charges, strict=True)]
    return torch.stack(each).sum()


@torch.no_grad()
def wires(weights: Sequence[torch.Tensor]) -> Wires:
    """How long the wires of a network are, and how many there are."""
    far = float(cost(weights, [distances(*one.shape).to(one) for one in weights]))
    whole = float(sum(one.abs().sum() for one in weights))
    count = sum(one.numel() for one in weights)
    silent = float(sum((one.abs() < SILENT).sum() for one in weights))
    return Wires(far / whole if whole else float("nan"), whole / count, silent / count)


@lru_cache(maxsize=32)
def distances(outputs: int, inputs: int) -> torch.Tensor:
    """How far units of a layer lie from those of another, 1 on average: output x input."""
    apart = torch.cdist(places(outputs), places(inputs))
    return (apart / apart.mean()).float()


def places(units: int) -> torch.Tensor:
    """Where the units of a layer lie in a square of side 1: unit x axis.

    They fill a grid row by row, whose sides are as alike as the number of units lets them be.
    """
    rows = max(one for one in range(1, int(units**0.5) + 1) if units % one == 0)
    columns = units // rows
    numbers = torch.arange(units, dtype=torch.float64)
    down = torch.div(numbers, columns, rounding_mode="floor")
    return torch.stack(((down + 0.5) / rows, (numbers % columns + 0.5) / columns), dim=1)
