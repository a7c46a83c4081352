"""Where in a model an activation is taken, in the words of this field.

A site is a kind and a layer, written ``resid_post.12``. Layers count from 0: ``resid_post.0`` is
the residual stream after the first block. Sites are found by the structure of the model: the blocks
are the one ``ModuleList`` as long as ``num_hidden_layers``, whatever the family calls it.

========== ======================== ====================================================
kind       dims                     meaning
========== ======================== ====================================================
resid_pre  stimulus, layer, unit    residual stream that enters a block
resid_post stimulus, layer, unit    residual stream that leaves a block
========== ======================== ====================================================
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

Kind = Literal["resid_pre", "resid_post"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class SiteError(ValueError):
    """A site that this model does not have, or that does not satisfy its identities."""


@dataclass(frozen=True)
class Site:
    """One place of one layer, ``resid_post.12``."""

    kind: Kind
    layer: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"


def find_blocks(base: nn.Module, layers: int) -> nn.ModuleList:
    """The list of transformer blocks of a base model.

    Raises
    ------
    SiteError
        If not exactly one ``ModuleList`` has `layers` entries that all own parameters.
    """
    found = [
        (name, module)
        for name, module in base.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == layers
        and all(any(True for _ in block.parameters()) for block in module)
    ]
    # An outer list hides lists of the same length inside its own blocks.
    outer = [
        (name, module)
        for name, module in found
        if not any(name.startswith(f"{other}.") for other, _ in found)
    ]
    if len(outer) != 1:
        names = ", ".join(name for name, _ in outer) or "none"
        raise SiteError(
            f"{type(base).__name__}: expected one list of {layers} blocks, found {names}; "
            "this architecture offers no residual sites yet"
        )
    return outer[0][1]


def hidden_states(value: object) -> torch.Tensor:
    """The hidden states in what a block is called with or returns.

    Blocks returned a tuple before transformers 4.54 and return the tensor since.
    """
    tensor = value[0] if isinstance(value, tuple) else value
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 3:
        raise SiteError(f"a block passed on {type(tensor).__name__}, not batch x position x unit")
    return tensor
