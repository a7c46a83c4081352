"""Where the model runs. Activations leave the device in the dtype they were computed in.

Statistics are float64 on the CPU (MPS has no float64, and numbers must not depend on the machine),
so nothing in this package may put a float64 tensor on a device; a test holds that.
"""

from typing import Literal

import torch

DeviceName = Literal["cpu", "cuda", "mps"]


def best_device() -> DeviceName:
    """CUDA where there is one, then Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


class DeviceError(ValueError):
    """A device that this machine does not have."""


def check_device(device: DeviceName) -> DeviceName:
    """The same device, if it is there.

    Raises
    ------
    DeviceError
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(),
             "mps": torch.backends.mps.is_available()}  # fmt: skip
    if there[device]:
        return device
    raise DeviceError(
        f"torch {torch.__version__} finds no {device} on this machine, only "
        f"{', '.join(name for name, found in there.items() if found)}"
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
