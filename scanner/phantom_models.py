"""The models that a device is checked on: small, of fixed weights, and known in float64.

They are made from configurations, so that nothing is fetched. Llama has fused attention with heads
that share keys; Gemma 3 has windows, normed queries and norms behind its parts; Gemma 2 caps its
scores and logits, and has no fused attention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from scanner.device import DeviceName, DtypeName, attention_implementation
from scanner.model import Model
from scanner.sources import Source
from scanner.structure import Structure

# Heads of 64 components and contexts beyond 1,024 tokens: kernels of their own begin there. The
# root of the width is a power of two, so that Gemma's scale of embeddings is no rounding.
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 256, "max_position_embeddings": 2048,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WINDOW = 16
_GEMMA = {
    "sliding_window": WINDOW, "query_pre_attn_scalar": 64,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0},
    "gemma3_text": _GEMMA,
}


def phantom_model(family: str, dtype: DtypeName, device: DeviceName) -> Model:
    """A reference model, its weights rounded to a dtype, on the CPU.

    Parameters
    ----------
    family : str
        Of `FAMILIES`.
    dtype : str
    device : str
        Whose way to compute attention it has; `placed` brings it there.
    """
    network = _network(family, getattr(torch, dtype), attention_implementation(device))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            drawn = rng.standard_normal(weight.shape)
            if weight.ndim == 1:  # around what a norm begins with
                weight.add_(torch.from_numpy(0.1 * drawn))
                continue
            # Larger than fresh weights are: attention that is nearly even hides a wrong softmax.
            size = 1.0 if "embed" in name else weight.shape[1] ** -0.5
            weight.copy_(torch.from_numpy(size * drawn))
    source = Source(family, Path(), "made by lmfmri", "drawn", "", "", "")
    # Of a tokenizer it needs no more than what rows are filled up with.
    tokenizer = SimpleNamespace(pad_token_id=SIZES["pad_token_id"])
    return Model(source, network, tokenizer, "cpu", dtype)


def placed(model: Model, device: DeviceName, found: Structure) -> Model:
    """The model on its device, with its sites as they were found elsewhere."""
    moved = replace(model, network=model.network.to(device), device=device)
    # They are the same modules everywhere; a device that is wrong might not find them by itself.
    vars(moved)["found"] = found
    return moved


def exact_model(model: Model) -> Model:
    """The same weights in float64, on the CPU, attention computed step by step."""
    network = _network(model.source.name, torch.float64, "eager")
    network.load_state_dict(model.network.state_dict())
    return replace(
        model,
        network=network,
        dtype="float64",  # pyright: ignore[reportArgumentType]  # of no recording
    )


@contextmanager
def exactly() -> Iterator[None]:
    """Compute in float64 throughout: norms, rotations and softmaxes ask for float32 by name."""
    with _Float64():
        yield


class _Float64(TorchFunctionMode):
    """Gives float64 wherever float32 is asked for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(_wider, args), **{key: _wider(one) for key, one in (kwargs or {}).items()})


def _wider(given: object) -> object:
    return torch.float64 if given is torch.float32 else given


def _network(family: str, dtype: torch.dtype, attention: str | None) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    with torch.random.fork_rng(devices=[]):
        network = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention
        )
    return network.eval()
