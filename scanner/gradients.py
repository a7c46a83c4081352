"""How what a model says would change with its activations: one backward pass for all of them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from scanner.batches import Batch
from scanner.hooks import visiting
from scanner.model import Model
from scanner.sites import Kind, Site


class Slopes(NamedTuple):
    """Activations, and the gradient of a score with respect to them.

    Attributes
    ----------
    score : torch.Tensor
        row.
    activations, gradients : mapping of Site to torch.Tensor
        row x column x the dimensions of the kind; of a row, those of its own score.
    """

    score: torch.Tensor
    activations: Mapping[Site, torch.Tensor]
    gradients: Mapping[Site, torch.Tensor]


def slopes(
    model: Model,
    batch: Batch,
    sites: Collection[Site],
    score: Callable[[torch.Tensor], torch.Tensor],
    *,
    columns: torch.Tensor | None = None,
) -> Slopes:
    """Follow a score back to what it came from.

    Parameters
    ----------
    model : Model
    batch : Batch
        On the device, a text a row.
    sites : collection of Site
        Before the logits.
    score : callable
        Gives a number for each row, from logits: row x column x vocabulary.
    columns : torch.Tensor, optional
        The columns whose logits are scored; all by default.

    Returns
    -------
    Slopes

    Raises
    ------
    SiteError
        If the model does not have a site, or one does not reach the score.
    """
    heard: dict[Site, torch.Tensor] = {}

    def keep(site: Site, activation: torch.Tensor) -> torch.Tensor:
        kept = activation.clone() if activation.requires_grad else activation.detach().clone()
        heard[site] = kept if kept.requires_grad else kept.requires_grad_()
        # What the model goes on with is another tensor, which it may change in place.
        return heard[site].clone()

    kinds: list[Kind] = list(dict.fromkeys(site.kind for site in sites))
    with (
        torch.enable_grad(),
        _weights_without_gradients(model.network),
        model.listening(kinds),
        visiting(model.network, model.structure, sites, keep),
    ):
        logits = model.forward(batch, head=True, columns=columns)
        assert logits is not None
        scored = score(logits.float())
        found = torch.autograd.grad(scored.sum(), list(heard.values()))
    return Slopes(
        scored.detach(),
        {site: activation.detach() for site, activation in heard.items()},
        dict(zip(heard, found, strict=True)),
    )


@contextmanager
def _weights_without_gradients(network: nn.Module) -> Iterator[None]:
    """Half of a backward pass is the gradients of weights, which nobody asked for."""
    wanted = [one for one in network.parameters() if one.requires_grad]
    try:
        for one in wanted:
            one.requires_grad_(False)
        yield
    finally:
        for one in wanted:
            one.requires_grad_(True)
