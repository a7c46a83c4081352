"""The one place where a live model is listened to and acted on.

Hooks are placed in a ``with``, removed in ``finally`` and counted. Recording and intervening share
them: a visitor is shown each activation, and what it gives back, if anything, takes its place.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from scanner.operations import AttentionOperations, Role, RouterOperations
from scanner.sites import Site, SiteError
from scanner.structure import Port, Structure, added_to, as_heads, first_tensor, listening_inside

# Shown a site and its activation; gives what takes its place, or None to leave it.
Visitor = Callable[[Site, torch.Tensor], torch.Tensor | None]


@contextmanager
def visiting(
    network: nn.Module,
    structure: Structure,
    sites: Collection[Site],
    visitor: Visitor,
    *,
    gather: bool = True,
) -> Iterator[None]:
    """Show each site's activation to `visitor` in every forward pass of the body.

    Activations come as batch x position x the dimensions of their kind; ``attn_scores`` and
    ``attn_probs`` as batch x head x query x key. They belong to the model: copy what is kept.

    Parameters
    ----------
    network : torch.nn.Module
        The model with its vocabulary head.
    structure : Structure
    sites : collection of Site
    visitor : callable
    gather : bool
        Where a model lies on several devices, whether activations are shown on the one that the
        texts are given on; if not, on that which they are computed on.

    Raises
    ------
    SiteError
        If the model lacks a site, or if, when the body has ended well, a site did not fire exactly
        once in each forward pass.
    """
    ports = {site: structure.port(site) for site in sites}
    hearing = _Hearing(network, structure, visitor, gather)
    with ExitStack() as stack:
        hearing.count_passes(stack)
        hearing.place_modules(stack, ports)
        hearing.place_operations(stack, ports)
        yield
    for site, port in ports.items():
        if hearing.fired[site] != hearing.passes:
            raise SiteError(
                f"{site} fired {hearing.fired[site]} times in {hearing.passes} forward passes at "
                f"{port}, not once in each; its activations cannot be trusted"
            )


@contextmanager
def starting(
    network: nn.Module, structure: Structure, layer: int, stream: torch.Tensor
) -> Iterator[None]:
    """Have every forward pass of the body start at a block: those before it are not computed.

    Parameters
    ----------
    network : torch.nn.Module
    structure : Structure
    layer : int
        The first block that is computed; the number of layers if none is.
    stream : torch.Tensor
        batch x position x unit: what enters that block.
    """

    def hand_on(*_args: Any, **_kwargs: Any) -> Any:
        return (stream,) if structure.packed else stream

    blocks = list(network.get_submodule(structure.blocks).children())[:layer]
    # One of its own it has where a library moves weights between devices; else its class's counts.
    own = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = hand_on
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


class _Hearing:
    """The hooks of one `visiting` and what they count."""

    def __init__(self, network: nn.Module, structure: Structure, visitor: Visitor, gather: bool):
        self.network, self.structure, self.visitor = network, structure, visitor
        self.gather = gather
        self.fired: Counter[Site] = Counter()
        self.passes = 0
        self.batch = 0
        self.home = torch.device("cpu")

    def show(self, site: Site, activation: torch.Tensor) -> torch.Tensor | None:
        self.fired[site] += 1
        there = activation.device
        changed = self.visitor(site, activation.to(self.home) if self.gather else activation)
        return None if changed is None else changed.to(there)

    def count_passes(self, stack: ExitStack) -> None:
        """Note how often the list of blocks is gone through, and with how many rows."""

        def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.passes += 1
            given = (*args, *kwargs.values())
            tensors = (one for one in given if isinstance(one, torch.Tensor))
            self.home = next((one.device for one in tensors), self.home)

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.batch = len(_given(args, kwargs))

        # Not counted at the first block: it may itself run twice, or late, or not at all.
        owner = self.network.get_submodule(self.structure.blocks.rpartition(".")[0])
        stack.callback(owner.register_forward_pre_hook(begin, with_kwargs=True).remove)
        for block in self.network.get_submodule(self.structure.blocks).children():
            stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)

    def place_modules(self, stack: ExitStack, ports: dict[Site, Port]) -> None:
        for site, port in ports.items():
            module = self.network.get_submodule(port.path)
            if port.side == "input":
                hook = self._before(site)
                stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            elif port.side == "output":
                stack.callback(module.register_forward_hook(self._after(site)).remove)
            elif port.side == "sum":
                self._place_sum(stack, site, module)

    def _before(self, site: Site) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given = _given(args, kwargs)
            changed = self.show(site, self._shaped(site, given))
            if changed is None:
                return None
            changed = changed.reshape(given.shape)
            if args:
                return (changed, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": changed}

        return hook

    def _after(self, site: Site) -> Callable[..., Any]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            returned = output.logits if site.kind == "logits" else first_tensor(output)
            if returned is None:
                raise SiteError(f"{site}: its module returned {type(output).__name__}, no tensor")
            changed = self.show(site, self._shaped(site, returned))
            return None if changed is None else _replaced(output, changed.reshape(returned.shape))

        return hook

    def _place_sum(self, stack: ExitStack, site: Site, module: nn.Module) -> None:
        """Hear what the block adds up; write by changing the part that is added."""
        entered: list[torch.Tensor] = []
        multiplier = self.structure.multiplier
        block = self.network.get_submodule(f"{self.structure.blocks}.{site.layer}")

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entered[:] = [_given(args, kwargs)]

        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            part = first_tensor(output)
            assert part is not None
            (stream,) = entered
            middle = added_to(stream.to(part.device), part, multiplier)
            changed = self.show(site, middle)
            if changed is None:
                return None
            # An unchanged stream changes the part by nothing, to the last bit.
            moved = part + ((changed - middle) / multiplier).reshape(part.shape)
            return _replaced(output, moved)

        stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(module.register_forward_hook(hook).remove)
        stack.callback(entered.clear)

    def place_operations(self, stack: ExitStack, ports: dict[Site, Port]) -> None:
        inside: dict[str, dict[str, Site]] = {}
        for site, port in ports.items():
            if port.side == "operation":
                inside.setdefault(port.path, {})[site.kind] = site
        for path, wanted in inside.items():
            stack.enter_context(
                listening_inside(
                    self.network.get_submodule(path),
                    lambda wanted=wanted: (
                        RouterOperations(self._through(wanted))
                        if "router" in wanted
                        else AttentionOperations(self._through(wanted))
                    ),
                )
            )

    def _through(self, wanted: dict[str, Site]) -> Callable[[Role, torch.Tensor], torch.Tensor]:
        def through(role: Role, tensor: torch.Tensor) -> torch.Tensor:
            site = wanted.get(role)
            if site is None:
                return tensor
            if role == "router":
                changed = self.show(site, self._shaped(site, tensor))
            elif role in ("attn_scores", "attn_probs"):
                return self._weights(site, tensor)
            else:
                return self._heads(site, tensor)
            return tensor if changed is None else changed.reshape(tensor.shape)

        return through

    def _weights(self, site: Site, tensor: torch.Tensor) -> torch.Tensor:
        """Scores or probabilities, without the column of an attention sink."""
        weights = as_heads(tensor, self.batch)
        keys = weights.shape[-1] - self.structure.sinks
        changed = self.show(site, weights[..., :keys])
        if changed is None:
            return tensor
        return torch.cat([changed, weights[..., keys:]], dim=-1).reshape(tensor.shape)

    def _heads(self, site: Site, tensor: torch.Tensor) -> torch.Tensor:
        """Queries, keys or values: shown as batch x position x head x unit, each head once."""
        heads = as_heads(tensor, self.batch)
        wanted = self.structure.sizes[site.kind][0]
        repeats = heads.shape[1] // wanted
        changed = self.show(site, heads[:, ::repeats].transpose(1, 2))
        if changed is None:
            return tensor
        whole = changed.transpose(1, 2).repeat_interleave(repeats, dim=1)
        return whole.reshape(tensor.shape)

    def _shaped(self, site: Site, tensor: torch.Tensor) -> torch.Tensor:
        """Batch x position x the dimensions of the kind, from modules that flatten them."""
        size = self.structure.sizes[site.kind]
        if site.kind in ("embeddings", "final_norm", "logits"):
            return tensor
        return tensor.reshape(self.batch, -1, *size)


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _replaced(output: Any, changed: torch.Tensor) -> Any:
    """What a module returned, with another tensor in the place of its activation."""
    if isinstance(output, torch.Tensor):
        return changed
    if isinstance(output, tuple):
        return (changed, *output[1:])
    output.logits = changed
    return output
