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


def attention_implementation(device: DeviceName) -> str:
    """The attention kernel to load a model with.

    MPS has had several fused kernels that were silently wrong (pytorch#181133, #195910), so the
    plain one is used there.
    """
    return "eager" if device == "mps" else "sdpa"
