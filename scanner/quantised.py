"""Weights of blocks rounded to few bits, by torchao, which comes with ``lmfmri[quantised]``.

Only weights are rounded; activations are computed with what these weights stand for, in the dtype
of the model, so that a text does not depend on its batch. Embeddings, norms and the vocabulary head
stay as they are.

======  ==========================================================================================
int8    whole numbers from -128 to 127, and a scale for each output
int4    whole numbers from -8 to 7, and a scale and a zero for each 32 weights of an output. They
        are held in a byte each: their values are those of 4 bits, their memory is not
======  ==========================================================================================
"""

import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from scanner.sites import SiteError

Bits = Literal["int8", "int4"]
# Of the weights of blocks, of which less would be no quantised model.
LEAST = 0.5
# Weights that share a scale, in 4 bits.
GROUP = 32


def library(who: str) -> str:
    """The library that rounds, with its version.

    Parameters
    ----------
    who : str
        For the message.

    Raises
    ------
    SiteError
        If it is not installed.
    """
    try:
        return f"torchao {version('torchao')}"
    except PackageNotFoundError:
        raise SiteError(
            f"{who}: rounded weights are made by torchao, which is not installed; install "
            "lmfmri[quantised], or leave `weights` out of the subject"
        ) from None


def quantise(blocks: nn.ModuleList, bits: Bits, who: str) -> None:
    """Round the weights of all linear maps in some blocks, in place.

    Parameters
    ----------
    blocks : torch.nn.ModuleList
    bits : str
    who : str
        For messages.

    Raises
    ------
    SiteError
        If torchao is missing, most weights are in other things than linear maps, or the inputs of
        one are not whole groups.
    """
    library(who)
    maps = [one for one in blocks.modules() if type(one) is nn.Linear]
    rounded = sum(one.weight.numel() for one in maps)
    whole = sum(one.numel() for one in blocks.parameters())
    if rounded < LEAST * whole:
        raise SiteError(
            f"{who}: {rounded / whole:.0%} of the weights of its blocks are in linear maps, the "
            f"rest, such as experts, would not be rounded; leave out `weights: {bits}`"
        )
    odd = next((one for one in maps if one.in_features % GROUP), None)
    if bits == "int4" and odd is not None:
        raise SiteError(
            f"{who}: a map from {odd.in_features} units does not divide into groups of {GROUP}; "
            "take `weights: int8`"
        )
    from torchao.quantization import (  # pyright: ignore[reportMissingImports]
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.granularity import PerGroup  # pyright: ignore[reportMissingImports]

    four: Any = getattr(torch, "int4")  # noqa: B009  # not in the stubs
    of_bits = {
        "int8": Int8WeightOnlyConfig(),
        "int4": IntxWeightOnlyConfig(weight_dtype=four, granularity=PerGroup(GROUP)),
    }
    quantize_(blocks, of_bits[bits], filter_fn=lambda module, _: type(module) is nn.Linear)


def unrounded(folder: Path) -> dict[str, Any]:
    """How to load weights that are published in MXFP4 (GPT-OSS) in the dtype of the model.

    Left to itself transformers does so only where it has no kernels for them: what is recorded
    would depend on what else is installed, and there would be no gradients.
    """
    config = json.loads((folder / "config.json").read_text())
    if (config.get("quantization_config") or {}).get("quant_method") != "mxfp4":
        return {}
    from transformers.utils.quantization_config import Mxfp4Config

    return {"quantization_config": Mxfp4Config(dequantize=True)}


def plain(tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a tensor is made of, each with what its name has more."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield "", tensor
        return
    names, _ = tensor.__tensor_flatten__()  # pyright: ignore[reportAttributeAccessIssue]
    for name in sorted(names):
        for inside, one in plain(getattr(tensor, name)):
            yield f".{name}{inside}", one
