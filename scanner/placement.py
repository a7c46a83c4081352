"""A model that is larger than a device: laid over several, and on the disk, by accelerate.

Accelerate puts hooks of its own around the forward pass of each module: they fetch weights that lie
elsewhere, and move what the module is given to where it computes. Ours stand outside of these, so
activations are what they are in an undivided model. Weights that lie on the disk, or in the CPU's
memory beside a GPU, are at their module only while it runs; what needs them for longer is refused
by name.
"""

import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from platformdirs import user_cache_path
from torch import nn

from scanner.device import DeviceName, best_device
from scanner.sites import SiteError

# An accelerator by its number, or a device by name; the disk is one.
Where = int | str


@dataclass(frozen=True)
class Placement:
    """Where the parts of a model lie. No number follows from it, but for the rounding of devices.

    Attributes
    ----------
    device_map : str or mapping of str to int or str
        ``auto`` fills accelerators, then the CPU's memory, then the disk. Otherwise modules by
        their path, each on an accelerator by its number, ``cpu`` or ``disk``.
    max_memory : mapping of int or str to int or str, optional
        With ``auto``, how much each device may hold: bytes, or ``40GB``.
    offload_folder : pathlib.Path, optional
        Where weights are written that the disk does not hold as they are computed with: experts,
        that files have one by one, and twins. The user's cache by default; removed at the end.
    """

    device_map: Literal["auto"] | Mapping[str, Where]
    max_memory: Mapping[Where, int | str] | None = None
    offload_folder: Path | None = None

    @property
    def device(self) -> DeviceName:
        """The kind of device that computes."""
        if isinstance(self.device_map, str):
            return best_device()
        computing = {str(one).partition(":")[0] for one in self.device_map.values()} - {"disk"}
        return best_device() if computing - {"cpu"} else "cpu"

    def check(self, name: str) -> None:
        """Refuse devices that are not there, and the whole beside parts of it.

        Parameters
        ----------
        name : str
            The subject, for the message.

        Raises
        ------
        SiteError
        """
        if isinstance(self.device_map, str):
            return
        if "" in self.device_map and len(self.device_map) > 1:
            raise SiteError(
                f"subject '{name}': device_map has '', which is the whole model, beside "
                f"{len(self.device_map) - 1} parts of it; name each part of the model, or '' alone"
            )
        there = devices()
        for module, where in self.device_map.items():
            if str(where) not in there:
                raise SiteError(
                    f"subject '{name}': device_map puts '{module}' on '{where}', which this "
                    f"machine does not have; it has {', '.join(there)}. Take one, or `auto`."
                )


def devices() -> list[str]:
    """What a part of a model can be put on here."""
    accelerators = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    kind = best_device()
    named = [f"{kind}:{number}" for number in range(accelerators)]
    return [*map(str, range(accelerators)), *named, *([kind] * bool(accelerators)), "cpu", "disk"]


def load_divided(load: Callable[..., Any], placement: Placement, name: str) -> Any:
    """Load a model over several devices.

    Parameters
    ----------
    load : callable
        Gives the network from ``device_map``, ``max_memory`` and ``offload_folder``.
    placement : Placement
    name : str
        The subject, for messages.

    Raises
    ------
    SiteError
        If a device is not there, or the model has no such modules.
    """
    placement.check(name)
    where = placement.device_map
    where = where if isinstance(where, str) else dict(where)
    most = None if placement.max_memory is None else dict(placement.max_memory)

    def laid_out(folder: str) -> Any:
        try:
            return load(device_map=where, max_memory=most, offload_folder=folder)
        except ValueError as error:
            raise SiteError(
                f"subject '{name}' cannot be laid out by its device_map: "
                f"{str(error).splitlines()[0]} Mend the map, or take `auto`."
            ) from None

    return _beside_a_folder(laid_out, placement)


def divide_alike(network: nn.Module, like: nn.Module, placement: Placement) -> nn.Module:
    """Lay a network out as another of the same architecture is."""
    from accelerate import dispatch_model

    def laid_out(folder: str) -> nn.Module:
        skipped = getattr(network, "_skip_keys_device_placement", None)
        where: dict[str, Any] = {**parts(like)}
        return dispatch_model(network, device_map=where, offload_dir=folder, skip_keys=skipped)

    return _beside_a_folder(laid_out, placement)


def _beside_a_folder(make: Callable[[str], Any], placement: Placement) -> Any:
    """A network, and a folder for those of its weights that have to be written: it goes with it."""
    above = placement.offload_folder or user_cache_path("lmfmri") / "offload"
    above.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=above, prefix="weights-")
    try:
        network = make(folder.name)
    except BaseException:
        folder.cleanup()
        raise
    weakref.finalize(network, folder.cleanup)
    return network


def parts(network: nn.Module) -> dict[str, Where]:
    """Where each part of a network lies; nothing if it is undivided."""
    found: Mapping[str, Any] = getattr(network, "hf_device_map", None) or {}
    where = {name: one if isinstance(one, int) else str(one) for name, one in found.items()}
    return where if len(set(where.values())) > 1 or "disk" in where.values() else {}


def away(network: nn.Module) -> list[str]:
    """The weights that are at their module only while it runs."""
    return [name for name, one in network.named_parameters() if one.is_meta]


def weight(network: nn.Module, name: str) -> torch.Tensor:
    """A weight by its name, wherever it lies."""
    path, _, own = name.rpartition(".")
    module = network.get_submodule(path)
    found = getattr(module, own)
    if not found.is_meta:
        return found
    from accelerate.utils import align_module_device

    with align_module_device(module, execution_device=torch.device("cpu")):
        return getattr(module, own).detach()
