"""Listening to a live model: hooks placed in a ``with``, removed in ``finally``, and counted."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from scanner.sites import Kind, Site, SiteError, hidden_states

Listener = Callable[[Site, torch.Tensor], None]


@contextmanager
def listening(blocks: nn.ModuleList, kinds: Sequence[Kind], heard: Listener) -> Iterator[None]:
    """Call `heard` with each site and its activation during the one forward pass of the body.

    Parameters
    ----------
    blocks : torch.nn.ModuleList
        The blocks of the model, in order.
    kinds : sequence of str
        Kinds of site to listen to, in every layer.
    heard : callable
        Takes a `Site` and a tensor, batch x position x unit, on the device. The tensor belongs to
        the model: copy what is to be kept.

    Raises
    ------
    SiteError
        If, when the body has ended well, a site did not fire exactly once.
    """
    fired: Counter[Site] = Counter()
    handles = []

    def tell(site: Site, value: object) -> None:
        fired[site] += 1
        heard(site, hidden_states(value))

    def before(site: Site) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            tell(site, args[0] if args else kwargs["hidden_states"])

        return hook

    def after(site: Site) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            tell(site, output)

        return hook

    try:
        for layer, block in enumerate(blocks):
            if "resid_pre" in kinds:
                site = Site("resid_pre", layer)
                handles.append(block.register_forward_pre_hook(before(site), with_kwargs=True))
            if "resid_post" in kinds:
                handles.append(block.register_forward_hook(after(Site("resid_post", layer))))
        yield
    finally:
        for handle in handles:
            handle.remove()
    for layer in range(len(blocks)):
        for kind in kinds:
            if fired[Site(kind, layer)] != 1:
                raise SiteError(
                    f"{kind}.{layer} fired {fired[Site(kind, layer)]} times in one forward pass, "
                    "not once; its activations cannot be trusted"
                )
