"""Work in steps that change weights, and that goes on bit for bit where it was interrupted.

Weights, the moments of the optimiser and the losses are written now and then, whole or not at all.
A state of other code or another environment is not gone on with, since the end would be neither's.
"""

import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scanner.provenance import canonical, code_version, environment

# Seconds between two states that are kept; writing one takes a few.
EVERY = 120.0
# The share of all steps in which the rate rises.
WARM = 0.1
Advance = Callable[..., None]


def rate_at(step: int, *, steps: int, rate: float) -> float:
    """What a step moves a weight by at most: it rises at first, and then falls to nothing."""
    warm = max(1, round(WARM * steps))
    return rate * min((step + 1) / warm, 1 - step / steps)


def taken(
    take: Callable[[int], float],
    optimiser: torch.optim.Optimizer,
    weights: Sequence[torch.Tensor],
    *,
    steps: int,
    rate: float,
    state: Path,
    advance: Advance,
    every: float,
) -> list[float]:
    """Take all steps that are left.

    Parameters
    ----------
    take : callable
        Given the number of a step, takes it and returns its loss. What it does has to follow from
        the number and the weights alone.
    optimiser : torch.optim.Optimizer
        Of the weights.
    weights : sequence of torch.Tensor
    steps : int
        Of the whole work.
    rate : float
        As of `rate_at`.
    state : pathlib.Path
        Where what is needed to go on is kept in between.
    advance : callable
        Told the number of steps whenever some are done.
    every : float
        Seconds between two states that are kept.

    Returns
    -------
    list of float
        The loss of each step, of those before an interruption, too.
    """
    losses, kept = _resume(state, weights, optimiser), time.monotonic()
    advance(len(losses))
    for step in range(len(losses), steps):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps=steps, rate=rate)
        losses.append(take(step))
        if time.monotonic() - kept >= every and step + 1 < steps:
            _keep(state, weights, optimiser, losses)
            kept = time.monotonic()
        advance(1, f"{losses[-1]:.2f} nats")
    return losses


def _keep(
    state: Path, weights: Sequence[torch.Tensor], optimiser: torch.optim.Optimizer,
    losses: Sequence[float],
) -> None:  # fmt: skip
    """Write weights, moments and step, whole or not at all."""
    state.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for number, weight in enumerate(weights):
        tensors[f"weight.{number}"] = weight.detach()
        tensors |= {f"{name}.{number}": one for name, one in optimiser.state[weight].items()}
    staging = state.with_suffix(".writing")
    save_file(tensors, staging, {"losses": json.dumps(list(losses)), "making": _making()})
    os.replace(staging, state)


def _resume(
    state: Path, weights: Sequence[torch.Tensor], optimiser: torch.optim.Optimizer
) -> list[float]:
    """Go on with what this version and machine began; of another, begin anew.

    Returns
    -------
    list of float
        The losses of the steps that are done.
    """
    if not state.is_file():
        return []
    with safe_open(state, "pt") as kept:
        told = kept.metadata()
        if told["making"] != _making():
            return []
        names = {name.partition(".")[0] for name in kept.keys()} - {"weight"}  # noqa: SIM118
        with torch.no_grad():
            for number, weight in enumerate(weights):
                weight.copy_(kept.get_tensor(f"weight.{number}"))
                optimiser.state[weight] = {
                    name: kept.get_tensor(f"{name}.{number}").to(
                        "cpu" if name == "step" else weight.device
                    )
                    for name in names
                }
    return json.loads(told["losses"])


def _making() -> str:
    return canonical([code_version(), dict(environment())])


def processor() -> float:
    """Processor time of this process, seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
