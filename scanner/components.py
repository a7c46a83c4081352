"""Which matrix of a model is which: queries, keys, the gate of an MLP, told by what they compute.

Two blocks of the model's real shapes, with fresh weights and a small vocabulary, read one prompt.
What a projection returns is followed forward by its gradients: the columns that reach the queries
of the attention are its query rows, whether keys and values stand behind them in the same tensor,
beside them head by head (GPT-NeoX), or in tensors of their own. So no family has to be known. What
cannot be told by this is called ``other``, and is compared, but never as a component.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from scanner.device import attention_implementation
from scanner.hooks import visiting
from scanner.sites import Kind, Site, SiteError
from scanner.structure import Structure, explore

Component = Literal[
    "q", "k", "v", "o", "gate", "up", "down", "embeddings", "positions", "head", "norm", "bias",
    "other",
]  # fmt: skip
# Those of a block, in the order in which the seven are published (Tanwar et al. 2025).
MATRICES: tuple[Component, ...] = ("q", "k", "v", "o", "gate", "up", "down")
_HEARD: tuple[tuple[Kind, Component], ...] = (("q", "q"), ("k", "k"), ("value", "v"))
_ENDS: tuple[tuple[Kind, Component], ...] = (("z", "o"), ("mlp_act", "down"))
_VOCABULARY = 256
# So many that no neuron of a ReLU is silent for all of them.
_PROMPT = 48
_BLOCKS = 2


class Piece(NamedTuple):
    """A tensor of a model, or those rows of it that are one component.

    Attributes
    ----------
    component : str
    layer : int or None
        None outside the blocks.
    tensor : str
        As the network calls it.
    rows : tuple of int or None
        What it returns of what the tensor returns, where that is several components; None for all.
    flipped : bool
        Whether the tensor is kept as input x output.
    """

    component: Component
    layer: int | None
    tensor: str
    rows: tuple[int, ...] | None
    flipped: bool

    @property
    def name(self) -> str:
        """Short, and unlike any other's."""
        told = self.component if self.component in MATRICES else self.tensor
        return told if self.layer is None else f"{told} of layer {self.layer}"


class _Told(NamedTuple):
    component: Component
    rows: tuple[int, ...] | None
    flipped: bool


@dataclass(frozen=True)
class Components:
    """What the tensors of an architecture are.

    Attributes
    ----------
    blocks, prefix : str
        Path of the list of blocks, and of the network without its head.
    inside, outside : mapping of str to tuple
        Of each tensor, by its name in a block or in the network.
    tied : mapping of str to str
        Tensors that are another tensor.
    renamed : callable
        What transformers calls a tensor today that older files call otherwise.
    """

    blocks: str
    prefix: str
    inside: Mapping[str, tuple[_Told, ...]]
    outside: Mapping[str, tuple[_Told, ...]]
    tied: Mapping[str, str]
    renamed: Callable[[str], str]

    def called(self, name: str) -> str | None:
        """What the network calls a tensor that a file may name with or without its prefix."""
        names = name, self.renamed(name)
        prefixed = [f"{self.prefix}.{one}" for one in names]
        for one in (*names, *prefixed, *(one.removeprefix(f"{self.prefix}.") for one in names)):
            if one in self.outside or one in self.tied or self._in_block(one) is not None:
                return one
        return None

    def pieces(self, tensor: str) -> tuple[Piece, ...]:
        """What a tensor is, by the name that the network has for it."""
        found = self._in_block(tensor)
        layer, told = (None, self.outside[tensor]) if found is None else found
        return tuple(Piece(one.component, layer, tensor, one.rows, one.flipped) for one in told)

    def _in_block(self, name: str) -> tuple[int, tuple[_Told, ...]] | None:
        found = re.fullmatch(rf"{re.escape(self.blocks)}\.(\d+)\.(.+)", name)
        if found is None or found[2] not in self.inside:
            return None
        return int(found[1]), self.inside[found[2]]


def components(folder: Path) -> Components:
    """Tell the tensors of the model in a folder apart, from its configuration alone.

    Parameters
    ----------
    folder : pathlib.Path
        With a ``config.json``. No weights are read.

    Raises
    ------
    SiteError
        If transformers does not know the architecture, or it has no blocks.
    """
    return _found(folder, (folder / "config.json").read_text(encoding="utf-8"))


# Asked for again with each layer of a study, of its base and of what was tuned from it.
@lru_cache(maxsize=16)
def _found(folder: Path, _config: str) -> Components:
    network = _small(folder)
    layers = network.config.get_text_config().num_hidden_layers
    ids = torch.randint(1, _VOCABULARY, (1, _PROMPT), generator=torch.Generator().manual_seed(0))
    structure = explore(network, network.base_model, layers, ids)
    told = _followed(network, structure, ids)
    inside, outside, tied = {}, {}, {}
    first: dict[nn.Parameter, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if parameter in first:
            tied[name] = first[parameter]
            continue
        first[parameter] = name
        begins = f"{structure.blocks}."
        if name.startswith(begins):
            _, _, short = name.removeprefix(begins).partition(".")
            # A tensor that the first block has is told by the first block.
            inside.setdefault(short, told.get(name) or (_plainly(network, name),))
        else:
            outside[name] = (_plainly(network, name),)
    return Components(
        structure.blocks, network.base_model_prefix, inside, outside, tied, _renamed(network)
    )


def _renamed(network: Any) -> Callable[[str], str]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, apply_renamings

    # Tensors that are put together from several when they are loaded are left as foreign.
    every = [
        one for one in get_model_conversion_mapping(network) if isinstance(one, WeightRenaming)
    ]
    return lambda name: apply_renamings(name, every)


def _small(folder: Path) -> Any:
    """A network of the same shapes with two blocks and few tokens, and fresh weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        text = config.get_text_config()
        layers = text.num_hidden_layers
        text.num_hidden_layers = _BLOCKS
        for name, values in vars(text).items():
            if isinstance(values, list) and len(values) == layers:
                setattr(text, name, values[:_BLOCKS])
        text.vocab_size = _VOCABULARY
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            setattr(text, name, 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: Any = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation=attention_implementation("cpu")
            )
    except (ValueError, KeyError, OSError) as error:
        raise SiteError(f"{folder}: {str(error).splitlines()[0]}") from None
    return network.eval()


def _plainly(network: Any, name: str) -> _Told:
    """What a tensor is that no gradient was asked about."""
    path, _, _ = name.rpartition(".")
    module = network.get_submodule(path)
    weight = getattr(module, "weight", None)
    head = network.get_output_embeddings()
    flat = network.get_parameter(name).ndim < 2
    if module is network.get_input_embeddings():
        return _Told("embeddings", None, False)
    if module is head and not flat:
        return _Told("head", None, False)
    if isinstance(module, nn.Embedding):
        return _Told("positions", None, False)
    if not flat:
        return _Told("other", None, False)
    matrix = isinstance(weight, torch.Tensor) and weight.ndim > 1
    return _Told("bias" if matrix else "norm", None, False)


def _followed(
    network: Any, structure: Structure, ids: torch.Tensor
) -> dict[str, tuple[_Told, ...]]:
    """The matrices of the first block, by the names of their tensors."""
    path = f"{structure.blocks}.0"
    heard: dict[Kind, torch.Tensor] = {}
    made: dict[str, torch.Tensor] = {}
    maps: dict[str, bool | None] = {}

    def keep(site: Site, activation: torch.Tensor) -> None:
        heard[site.kind] = activation

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(output, torch.Tensor) and output.requires_grad:
                # At once: Falcon adds to it in place.
                maps[name], made[name] = _flipped(module, args[0], output), output

        return hook

    kinds: tuple[Kind, ...] = ("q", "k", "value", "mlp_pre", "mlp_act")
    sites = [Site(kind, 0) for kind in kinds if Site(kind, 0) in structure.ports]
    block = network.get_submodule(path)
    hooks = [
        module.register_forward_hook(watch(f"{path}.{name}"))
        for name, module in block.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2
    ]
    try:
        with torch.enable_grad(), visiting(network, structure, sites, keep):
            network.base_model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    ends: dict[str, Component] = {}
    for kind, what in _ENDS:
        if Site(kind, 0) in structure.ports:
            ends[structure.port(Site(kind, 0)).path] = what
    reached: dict[str, dict[Component, np.ndarray]] = {
        name: {ends[name]: np.ones(one.shape[-1], dtype=bool)}
        if name in ends
        else _reached(one, heard)
        for name, one in made.items()
    }
    gated = any("up" in columns for columns in reached.values())
    told = {}
    for name, columns in reached.items():
        if not gated and "gate" in columns:
            # Nothing reaches the neurons but through what is activated.
            columns["up"] = columns.pop("gate")
        # What is no plain product of a matrix with what it is given is none of these.
        if maps[name] is None:
            columns.clear()
        told[f"{name}.weight"] = _shares(columns, made[name].shape[-1], bool(maps[name]))
    return told


def _reached(made: torch.Tensor, heard: Mapping[Kind, torch.Tensor]) -> dict[Component, np.ndarray]:
    """What the columns of a projection are, by what they reach first: column, bool."""
    found: dict[Component, np.ndarray] = {
        what: _reaches(heard[kind], made) for kind, what in _HEARD if kind in heard
    }
    if not any(one.any() for one in found.values()) and {"mlp_pre", "mlp_act"} <= heard.keys():
        gate = _reaches(heard["mlp_pre"], made)
        found = {"gate": gate, "up": _reaches(heard["mlp_act"], made) & ~gate}
    return {what: columns for what, columns in found.items() if columns.any()}


def _shares(columns: Mapping[Component, np.ndarray], size: int, flipped: bool) -> tuple[_Told, ...]:
    """A tensor as its components, with what is none of them or several at once as ``other``."""
    count = sum((one.astype(int) for one in columns.values()), np.zeros(size, dtype=int))
    shares: dict[Component, np.ndarray] = {
        what: np.flatnonzero(one & (count == 1)) for what, one in columns.items()
    }
    shares["other"] = np.flatnonzero(count != 1)
    return tuple(
        _Told(what, None if len(rows) == size else tuple(rows.tolist()), flipped)
        for what, rows in shares.items()
        if len(rows)
    )


def _flipped(module: nn.Module, given: torch.Tensor, made: torch.Tensor) -> bool | None:
    """Whether a projection keeps its matrix as input x output; None if it is no such map."""
    weight, bias = module.weight, getattr(module, "bias", None)
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        flat, out = given.reshape(-1, given.shape[-1]).float(), made.reshape(-1, made.shape[-1])
        out = out if bias is None else out - bias
        for flipped, matrix in ((False, weight), (True, weight.T)):
            if matrix.shape == (out.shape[1], flat.shape[1]) and torch.allclose(
                flat @ matrix.T, out, rtol=1e-3, atol=1e-5
            ):
                return flipped
    return None


def _reaches(end: torch.Tensor, start: torch.Tensor) -> np.ndarray:
    """Which columns of `start` change `end`: column, bool."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(end.shape, generator=generator)
    (slope,) = torch.autograd.grad(
        (end * weight).sum(), start, retain_graph=True, allow_unused=True
    )
    if slope is None:
        return np.zeros(start.shape[-1], dtype=bool)
    return (slope.reshape(-1, start.shape[-1]) != 0).any(0).numpy()
