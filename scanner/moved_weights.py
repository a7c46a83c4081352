"""A model whose weights are moved for a while: by a tuning, or by as much that no tuning is.

What a tuning did is told by what moving all weights by as much does. In each tensor of its own, the
noise is as long as the tuning: a tuning that lies in a few tensors is held against noise in these.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from scanner.model import Model
from scanner.sites import SiteError

# Values at random, or those of the tuning in other places of their tensor.
Noise = Literal["normal", "dealt"]
Weights = dict[str, torch.nn.Parameter]


def weights_of(model: Model) -> Weights:
    """The weights of a model by name, each once."""
    return dict(model.network.named_parameters())


def check_same_shape(one: Model, other: Model) -> None:
    """That two models may be variants of each other: their weights have the same names and shapes.

    Raises
    ------
    SiteError
    """
    mine, theirs = weights_of(one), weights_of(other)
    odd = sorted(mine.keys() ^ theirs.keys()) or [
        name for name, weight in mine.items() if weight.shape != theirs[name].shape
    ]
    if odd:
        raise SiteError(
            f"{one.name} and {other.name} are no variants of one model: their weights differ in "
            f"{odd[0]}, so that a neuron of one is none of the other's"
        )


@torch.no_grad()
def relative_change(tuned: Model, base: Model) -> float:
    """How far a tuning went: the length of the change of all weights over that of the weights."""
    theirs = weights_of(base)
    squares = [
        ((weight.float() - theirs[name].float()).norm() ** 2, theirs[name].float().norm() ** 2)
        for name, weight in weights_of(tuned).items()
    ]
    changed, whole = (float(torch.stack(part).sum()) for part in zip(*squares, strict=True))
    return (changed / whole) ** 0.5


@contextmanager
def jolted(tuned: Model, base: Model, *, noise: Noise, seed: int) -> Iterator[None]:
    """Put noise as long as the tuning, tensor by tensor, in the place of the tuning.

    Parameters
    ----------
    tuned, base : Model
        The first has the weights of the second and noise in the body; afterwards its own again.
    noise : {'normal', 'dealt'}
        Gaussian, or what the tuning changed, dealt out anew among the weights of a tensor.
    seed : int
        Of what is drawn, on the CPU, so that it names the same noise whatever the device.
    """
    theirs, generator = weights_of(base), torch.Generator().manual_seed(seed)

    def make(name: str, weight: torch.Tensor) -> torch.Tensor:
        before = theirs[name].float()
        change = weight.float() - before
        return before + as_long(change, noise, generator) if change.any() else weight

    with changed(tuned, make):
        yield


@contextmanager
def transplanted(model: Model, tuned: Model, base: Model) -> Iterator[None]:
    """Add to a model what a tuning changed in another of the same shape, for a while."""
    theirs, before = weights_of(tuned), weights_of(base)

    def make(name: str, weight: torch.Tensor) -> torch.Tensor:
        return weight.float() + theirs[name].float() - before[name].float()

    with changed(model, make):
        yield


def as_long(change: torch.Tensor, noise: Noise, generator: torch.Generator) -> torch.Tensor:
    """Noise as long as the change of one tensor, drawn on the CPU."""
    if noise == "dealt":
        order = torch.randperm(change.numel(), generator=generator).to(change.device)
        return change.flatten()[order].view_as(change)
    drawn = torch.randn(change.shape, generator=generator).to(change.device)
    return drawn * (change.norm() / drawn.norm())


@contextmanager
def changed(model: Model, make: Callable[[str, torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Other weights in the body, and what they were bit for bit behind it."""
    kept = {name: weight.detach().clone() for name, weight in weights_of(model).items()}
    try:
        with torch.no_grad():
            for name, weight in weights_of(model).items():
                weight.copy_(make(name, kept[name]))
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights_of(model).items():
                weight.copy_(kept[name])
