"""Where the model runs. Activations leave the device in the dtype they were computed in.

Statistics are float64 on the CPU (MPS has no float64, and numbers must not depend on the machine),
so nothing in this package may put a float64 tensor on a device; a test holds that.
"""

import platform
from dataclasses import dataclass
from typing import Literal, get_args

import torch

DeviceName = Literal["cpu", "cuda", "mps"]
# Those that a subject may be loaded in.
DtypeName = Literal["float32", "bfloat16", "float16"]
# What a small attention may be off by, in units of the dtype's rounding.
ROUNDINGS = 8


def best_device() -> DeviceName:
    """CUDA where there is one, then Apple's MPS, else the CPU."""
    found = _there()
    return next(name for name in ("cuda", "mps", "cpu") if name in found)


def _there() -> list[DeviceName]:
    """The devices of this machine, the CPU first."""
    found: list[DeviceName] = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


class DeviceError(ValueError):
    """A device that this machine does not have."""


def check_device(device: DeviceName) -> DeviceName:
    """The same device, if it is there.

    Raises
    ------
    DeviceError
    """
    found = _there()
    if device in found:
        return device
    raise DeviceError(
        f"torch {torch.__version__} finds no {device} on this machine, only {', '.join(found)}"
    )


def attention_implementation(device: DeviceName) -> str | None:
    """The attention kernel to load a model with; None leaves it to transformers.

    MPS has had several fused kernels that were silently wrong (pytorch#181133, #195910), so the
    plain one is used there. Elsewhere transformers takes the fused one where the family has it:
    Gemma-2 has none, and refuses when it is asked for by name. A volume says which one it was.
    """
    return "eager" if device == "mps" else None


def batch_tokens(device: DeviceName) -> int:
    """Tokens of one forward pass: enough to keep the device busy, few enough for its memory."""
    return {"cpu": 1024, "cuda": 16384, "mps": 4096}[device]


@dataclass(frozen=True)
class Device:
    """A device of this machine.

    Attributes
    ----------
    name : {'cpu', 'cuda', 'mps'}
    model : str
        What its maker calls it; the kind of processor for the CPU.
    memory : int or None
        Bytes of its own memory; None where it shares that of the machine.
    dtypes : dict of str to str
        Each dtype that a subject may have, and what is wrong with it here: nothing if it works.
    """

    name: DeviceName
    model: str
    memory: int | None
    dtypes: dict[str, str]


def devices() -> list[Device]:
    """The devices of this machine, the CPU first; each dtype is tried on each of them."""
    found = []
    for name in _there():
        model, memory = platform.machine(), None
        if name == "cuda":
            properties = torch.cuda.get_device_properties(0)
            model, memory = properties.name, properties.total_memory
        found.append(
            Device(name, model, memory, {one: fault(name, one) for one in get_args(DtypeName)})
        )
    return found


def fault(device: str, dtype: DtypeName) -> str:
    """What is wrong with a dtype on a device: a small attention is computed; nothing if it works.

    Parameters
    ----------
    device : str
    dtype : {'float32', 'bfloat16', 'float16'}
    """
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    # Rounded first: what is asked is how it computes, not what rounding costs.
    parts = [torch.randn(1, 2, 16, 8, generator=generator).to(kind) for _ in range(3)]
    try:
        found = _attention(*(one.to(device) for one in parts)).cpu().double()
    except RuntimeError as error:  # NotImplementedError is one
        return str(error).splitlines()[0]
    exact = _attention(*(one.double() for one in parts))
    off = float((found - exact).abs().max() / exact.abs().max())
    if off <= ROUNDINGS * torch.finfo(kind).eps:
        return ""
    return f"a small attention is off by {off:.1g}"


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention by the kernel that models are given on the device."""
    if attention_implementation(q.device.type) is None:  # pyright: ignore[reportArgumentType]
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v
