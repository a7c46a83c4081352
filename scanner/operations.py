"""Operations inside attention and router modules that no module of their own stands for.

Queries, keys, values, scores and probabilities are arguments and results of two matrix products
and a softmax, or of one fused call. Families write these lines differently and name nothing alike,
but all of them call torch; a `TorchFunctionMode` that lives as long as the module runs hears them.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

Role = Literal["q", "k", "value", "attn_scores", "attn_probs", "router"]
# Takes a role and the tensor; gives the tensor to go on with.
Through = Callable[[Role, torch.Tensor], torch.Tensor]

_PRODUCTS: tuple[Any, ...] = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__,
                              torch.bmm, torch.Tensor.bmm)  # fmt: skip
_BIASED_PRODUCTS: tuple[Any, ...] = (torch.baddbmm, torch.Tensor.baddbmm)
_SOFTMAXES: tuple[Any, ...] = (F.softmax, torch.softmax, torch.Tensor.softmax)


class AttentionOperations(TorchFunctionMode):
    """Hears one attention: the product before its softmax, the softmax, the product after it.

    Parameters
    ----------
    through : callable
        Each tensor goes through it with its role. Queries, keys and values come with the position
        last but one, ``... x position x head_unit``; scores and probabilities ``... x query x key``
        (and a column more where a family has attention sinks).
    """

    def __init__(self, through: Through):
        super().__init__()
        self.through = through
        self.softmaxed = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            args = self._fused(list(args), kwargs)
        elif func in _PRODUCTS and _both_batched(args):
            args = self._product(list(args), kwargs, ("input", "other"), first=0)
        elif func in _BIASED_PRODUCTS:
            args = self._product(list(args), kwargs, ("batch1", "batch2"), first=1)
        elif func in _SOFTMAXES:
            args = list(args)
            _change(args, kwargs, 0, "input", lambda scores: self.through("attn_scores", scores))
            self.softmaxed = True
            return self.through("attn_probs", func(*args, **kwargs))
        return func(*args, **kwargs)

    def _fused(self, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
        roles: tuple[tuple[Role, str], ...] = (("q", "query"), ("k", "key"), ("value", "value"))
        for place, (role, name) in enumerate(roles):
            _change(args, kwargs, place, name, lambda given, role=role: self.through(role, given))
        return args

    def _product(
        self, args: list[Any], kwargs: dict[str, Any], names: tuple[str, str], *, first: int
    ) -> list[Any]:
        if self.softmaxed:
            _change(args, kwargs, first + 1, names[1], lambda given: self.through("value", given))
            return args
        _change(args, kwargs, first, names[0], lambda given: self.through("q", given))
        # The second operand of q kᵀ is the transposed key.
        _change(args, kwargs, first + 1, names[1], lambda given: self.through("k", given.mT).mT)
        return args


class RouterOperations(TorchFunctionMode):
    """Hears the linear map that scores the experts: what a router returns may come too late."""

    def __init__(self, through: Through):
        super().__init__()
        self.through = through

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return self.through("router", result) if func is F.linear else result


def _both_batched(args: Any) -> bool:
    """Whether it is a product of two activations: a weight has no dimension of stimuli."""
    return len(args) == 2 and all(operand.ndim >= 3 for operand in args)


def _change(
    args: list[Any],
    kwargs: dict[str, Any],
    place: int,
    name: str,
    change: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Send one argument of a call, wherever it was given, through `change`."""
    if place < len(args):
        args[place] = change(args[place])
    else:
        kwargs[name] = change(kwargs[name])
