"""How strongly heads are wired: how much of what one writes to the stream another reads of it.

Of two linear maps, what a head writes and what a later one reads, the size of their product over
the product of their sizes (composition, Elhage et al. 2021). Both are slopes at the end of a text:
of what attention adds over what heads give, and of queries, keys and values over the stream. So
norms count as they stand there, and no family has to be known. What blocks in between make of it is
left out: this is the direct way through the stream.
"""

from collections.abc import Sequence

import numpy as np
import torch

from scanner.gradients import gradients_of
from scanner.hooks import visiting
from scanner.model import Model
from scanner.sites import Kind, Site

READ: tuple[Kind, ...] = ("q", "k", "value")


def wiring(model: Model, text: Sequence[int]) -> np.ndarray:
    """How much of what each head writes each later head reads.

    Parameters
    ----------
    model : Model
    text : sequence of int
        Token ids; a few are enough.

    Returns
    -------
    numpy.ndarray
        writer x reader, heads counted through all layers, float32: 0 for none or if the reader does
        not stand in a later layer, at most 1; two maps at random have about one over the square
        root of the width of the stream.

    Raises
    ------
    SiteError
        If the model has no heads.
    """
    model.structure.port(Site("z", 0))
    heads = model.structure.sizes["z"][0]
    writes, reads = _slopes(model, text)
    made = np.zeros((model.layers, heads, model.layers, heads), dtype=np.float32)
    for later in range(1, model.layers):
        read = torch.cat(reads[later], dim=1)  # head x row x unit
        size = read.norm(dim=(1, 2))
        for earlier in range(later):
            written = writes[earlier]  # head x unit x head unit
            both = torch.einsum("bru,auz->abrz", read, written).norm(dim=(2, 3))
            whole = written.norm(dim=(1, 2))[:, None] * size
            share = both / torch.where(whole > 0, whole, 1)
            made[earlier, :, later] = share.cpu().numpy()
    return made.reshape(model.layers * heads, -1)


def _slopes(
    model: Model, text: Sequence[int]
) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
    """Of each layer what heads write, head x unit x head unit, and what they read, each kind."""
    leaves: dict[Site, torch.Tensor] = {}
    ends: dict[Site, torch.Tensor] = {}
    begun: tuple[Kind, ...] = ("resid_pre", "z")

    def keep(site: Site, activation: torch.Tensor) -> torch.Tensor | None:
        if site.kind not in begun:
            ends[site] = activation[0, -1]
            return None
        leaves[site] = activation.detach().clone().requires_grad_()
        return leaves[site].clone()

    kinds: tuple[Kind, ...] = (*begun, *READ, "attn_out_post")
    sites = [Site(kind, layer) for layer in range(model.layers) for kind in kinds]
    writes, reads = [], []
    with torch.enable_grad(), gradients_of(model.network, ()):
        with visiting(model.network, model.structure, sites, keep):
            model.forward(model.batch([text]))
        for layer in range(model.layers):
            out = _jacobian(ends.pop(Site("attn_out_post", layer)), leaves.pop(Site("z", layer)))
            writes.append(out.permute(1, 0, 2))
            stream = leaves.pop(Site("resid_pre", layer))
            slopes = [_jacobian(ends.pop(Site(kind, layer)), stream) for kind in READ]
            count = len(writes[-1])
            # Heads that share keys and values read the same of the stream by them.
            reads.append([one.repeat_interleave(count // len(one), dim=0) for one in slopes])
    return writes, reads


def _jacobian(end: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """The slope of what was heard over what stood at the same, last token; dimensions of both."""
    every = torch.eye(end.numel(), dtype=end.dtype, device=end.device)
    (found,) = torch.autograd.grad(
        end.reshape(-1), start, every, is_grads_batched=True, retain_graph=True
    )
    return found[:, 0, -1].reshape(*end.shape, *start.shape[2:]).float()
