"""Where the sites of a model are, found by what its modules compute, not by what they are called.

One random prompt goes through the model while every module is watched. What leaves a block less
what enters it is the sum of two of the tensors inside: those are what attention and MLP add to the
stream. The attention is the module in which queries meet keys; the neurons are what enters the
projection that returns the MLP's output; and so on. A site that cannot be told by such an identity
is refused, with the reason.
"""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from scanner.operations import AttentionOperations, Role, RouterOperations
from scanner.sites import KINDS, MEANINGS, OUTSIDE, Kind, Site, SiteError

# Relative error of an identity, where a site of 1.05 times its size is off by 0.048. The best wrong
# pair of modules was off by 0.47 over 25 families.
EXACT = {
    torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 1e-2,
}  # fmt: skip
_IN_ATTENTION: tuple[Kind, ...] = ("q", "k", "value", "attn_scores", "attn_probs")


class Port(NamedTuple):
    """Where a site is heard and written.

    Attributes
    ----------
    path : str
        Module, as `torch.nn.Module.get_submodule` takes it from the network.
    side : str
        ``input`` or ``output`` of the module, ``operation`` inside it, or ``sum``: what enters the
        block and what the module returns, added as the block adds them.
    """

    path: str
    side: Literal["input", "output", "operation", "sum"]

    def __str__(self) -> str:
        return f"{self.path or 'the network'} ({self.side})"


@dataclass(frozen=True)
class Structure:
    """The sites of one model.

    Attributes
    ----------
    layers : int
    blocks : str
        Path of the list of blocks.
    ports : mapping of Site to Port
    sizes : mapping of str to tuple of int
        Of each kind, along the dimensions of `scanner.sites.MEANINGS`.
    refused : mapping of str to str
        Kinds that this model does not have, and why.
    multiplier : float
        What attention and MLP outputs are multiplied by before they are added to the stream.
    entry : str
        How the embeddings become the stream, ``embeddings + transformer.wpe``.
    groups : int
        Heads of queries that share a head of keys, where the model repeats keys; 1 elsewhere.
    sinks : int
        Columns of the softmax over keys that belong to no token.
    packed : bool
        Whether a block returns the stream first in a tuple, and not alone.
    """

    layers: int
    blocks: str
    ports: Mapping[Site, Port]
    sizes: Mapping[Kind, tuple[int, ...]]
    refused: Mapping[Kind, str]
    multiplier: float
    entry: str
    groups: int
    sinks: int
    packed: bool

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that this model has."""
        return tuple(kind for kind in KINDS if kind not in self.refused)

    def port(self, site: Site) -> Port:
        """Where a site is.

        Raises
        ------
        SiteError
            If the model has no such site; the message says why.
        """
        if site in self.ports:
            return self.ports[site]
        if site.kind in self.refused:
            raise SiteError(f"this model has no '{site.kind}': {self.refused[site.kind]}")
        raise SiteError(f"no site {site}: the model's layers are 0 to {self.layers - 1}")

    @property
    def names(self) -> dict[str, Site]:
        """The sites by module path and side, ``model.layers.3.mlp:output``, for `aliases.resolve`.

        Where two kinds are one tensor the first in the order of `KINDS` has the name.
        """
        named: dict[str, Site] = {}
        for site in sorted(self.ports, key=lambda site: KINDS.index(site.kind)):
            port = self.ports[site]
            if port.side in ("input", "output") and port.path:
                named.setdefault(f"{port.path}:{port.side}", site)
        return named

    def without(self, refused: Mapping[Kind, str]) -> "Structure":
        """The same structure with some kinds refused."""
        return replace(
            self,
            ports={site: port for site, port in self.ports.items() if site.kind not in refused},
            sizes={kind: size for kind, size in self.sizes.items() if kind not in refused},
            refused={**self.refused, **refused},
        )


def explore(network: nn.Module, base: nn.Module, layers: int, ids: torch.Tensor) -> Structure:
    """Find the sites of a model on one prompt.

    Parameters
    ----------
    network : torch.nn.Module
        The model with its vocabulary head.
    base : torch.nn.Module
        The part of it without.
    layers : int
        Number of its blocks.
    ids : torch.Tensor
        1 x position, token ids on the device.

    Raises
    ------
    SiteError
        If there are no blocks to be found.
    """
    blocks = find_blocks(base, layers)
    prefix = next(name for name, module in network.named_modules() if module is blocks)
    watched = _watch(network, base, prefix, layers, ids)
    constants = [1.0, *_constants(network)]
    found = [
        _Block(watched, f"{prefix}.{layer}", ids.numel(), constants) for layer in range(layers)
    ]
    ports, sizes, refused = _merge([block.search() for block in found])
    entry = _outside(network, base, watched, found, constants, ports, sizes, refused)
    multipliers = [block.multiplier for block in found if "attn_out_post" in block.ports] or [1.0]
    structure = Structure(
        layers,
        prefix,
        ports,
        sizes,
        refused,
        statistics.median_low(multipliers),
        entry,
        found[0].groups,
        found[0].sinks,
        watched.events[f"{prefix}.0"].packed,
    )
    # One that was fitted, and not read off the model, is rounded in each block.
    spread = max(multipliers) - min(multipliers)
    if spread <= EXACT[found[0].pre.dtype] * max(map(abs, multipliers)):
        return structure
    why = f"its blocks add with different factors, {min(multipliers):g} to {max(multipliers):g}"
    return structure.without(dict.fromkeys(("attn_out_post", "mlp_out_post", "resid_mid"), why))


def find_blocks(base: nn.Module, layers: int) -> nn.ModuleList:
    """The list of transformer blocks of a base model.

    Raises
    ------
    SiteError
        If not exactly one ``ModuleList`` has `layers` entries that all own parameters.
    """
    found = [
        (name, module)
        for name, module in base.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == layers
        and all(any(True for _ in block.parameters()) for block in module)
    ]
    # An outer list hides lists of the same length inside its own blocks.
    outer = [
        (name, module)
        for name, module in found
        if not any(name.startswith(f"{other}.") for other, _ in found)
    ]
    if len(outer) != 1:
        names = ", ".join(name for name, _ in outer) or "none"
        raise SiteError(
            f"{type(base).__name__}: expected one list of {layers} blocks, found {names}; "
            "this architecture offers no residual sites yet"
        )
    return outer[0][1]


def first_tensor(value: object) -> torch.Tensor | None:
    """The tensor that a module passes on: alone, first in a tuple, or the last hidden state."""
    value = getattr(value, "last_hidden_state", value)
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, torch.Tensor) else None


class _Event(NamedTuple):
    """What one module was given and what it returned."""

    order: int
    path: str
    module: nn.Module
    given: torch.Tensor | None
    returned: torch.Tensor | None
    others: tuple[torch.Tensor, ...]
    packed: bool

    @property
    def leaf(self) -> bool:
        return next(self.module.children(), None) is None

    @property
    def projects(self) -> bool:
        """Whether it is one linear map: a leaf with a matrix from what it is given."""
        weight = getattr(self.module, "weight", None)
        if not self.leaf or self.given is None or not isinstance(weight, torch.Tensor):
            return False
        return weight.ndim == 2 and self.given.shape[-1] in weight.shape

    @property
    def mixes(self) -> bool:
        """Whether units can meet inside: norms and dropouts have no matrix."""
        return any(parameter.ndim >= 2 for parameter in self.module.parameters())


@dataclass
class _Watched:
    """All that was seen of one prompt."""

    events: dict[str, _Event] = field(default_factory=dict)
    # By the direct child of a block: roles in the order in which they were heard.
    attention: dict[str, list[tuple[Role, torch.Tensor]]] = field(default_factory=dict)
    routers: dict[str, torch.Tensor] = field(default_factory=dict)
    experts: int | None = None


def _watch(
    network: nn.Module, base: nn.Module, prefix: str, layers: int, ids: torch.Tensor
) -> _Watched:
    watched, fired = _Watched(experts=_experts(network)), Counter[str]()
    inputs: dict[str, list[torch.Tensor]] = {}
    child = re.compile(re.escape(prefix) + r"\.\d+\.[^.]+")

    def kept(tensor: torch.Tensor) -> torch.Tensor:
        # Where a model lies on several devices, tensors of two of them are compared.
        return tensor.to(ids.device, copy=True)

    def before(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
            inputs[path] = [kept(one) for one in tensors[:1]]

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            fired[path] += 1
            parts = output if isinstance(output, tuple) else (output,)
            tensors = tuple(kept(one) for one in parts if isinstance(one, torch.Tensor))
            first = first_tensor(output)
            watched.events[path] = _Event(
                len(watched.events),
                path,
                module,
                next(iter(inputs.pop(path, [])), None),
                None if first is None else kept(first),
                tensors,
                isinstance(output, tuple),
            )

        return hook

    with ExitStack() as stack:
        for path, module in network.named_modules():
            if isinstance(module, nn.ModuleList | nn.ModuleDict):
                continue
            stack.callback(module.register_forward_pre_hook(before(path), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after(path)).remove)
            if child.fullmatch(path):
                heard = watched.attention.setdefault(path, [])
                stack.enter_context(listening_inside(module, _hearing_attention(heard, kept)))
        stack.enter_context(torch.inference_mode())
        base(input_ids=ids, use_cache=False)
    for path, times in fired.items():
        if times != 1:
            del watched.events[path]
    return watched


def _hearing_attention(
    heard: list[tuple[Role, torch.Tensor]], kept: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[], AttentionOperations]:
    def through(role: Role, tensor: torch.Tensor) -> torch.Tensor:
        heard.append((role, kept(tensor)))
        return tensor

    return lambda: AttentionOperations(through)


# The mode of each module that is running.
_ALIVE: dict[nn.Module, AttentionOperations | RouterOperations] = {}


@contextmanager
def listening_inside(
    module: nn.Module, operations: Callable[[], AttentionOperations | RouterOperations]
) -> Iterator[None]:
    """Let a mode live from the moment a module is called until it returns or fails."""

    def begin(running: nn.Module, _args: Any) -> None:
        mode = operations()
        if running not in _ALIVE:
            _ALIVE[running] = mode
            mode.__enter__()
            return
        # Of two modes, the later would hear arguments before the earlier one has changed them.
        first, then = _ALIVE[running].through, mode.through
        _ALIVE[running].through = lambda role, tensor: then(role, first(role, tensor))

    def end(running: nn.Module, _args: Any, _output: Any) -> None:
        if running in _ALIVE:
            _ALIVE.pop(running).__exit__(None, None, None)

    hooks = [
        module.register_forward_pre_hook(begin),
        module.register_forward_hook(end, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        end(module, None, None)


def _experts(network: Any) -> int | None:
    """Number of experts of a mixture, by any of the names that configurations give it."""
    config = network.config.get_text_config()
    names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    return next((getattr(config, name) for name in names if getattr(config, name, None)), None)


def _constants(network: Any) -> list[float]:
    """Numbers that it was built with: a multiplier that is fitted is one of them, to all digits."""
    given = list(network.config.get_text_config().to_dict().values())
    for module in network.modules():  # MiniCPM's follows from its depth
        given += vars(module).values()
    return sorted({value for value in given if isinstance(value, float) and value > 0})


def _nearest(fitted: float, constants: list[float], tolerance: float) -> float:
    near = min(constants, key=lambda constant: abs(constant - fitted))
    return near if abs(near - fitted) < tolerance * abs(fitted) else fitted


class _Found(NamedTuple):
    """The sites of one block."""

    ports: dict[Kind, Port]
    sizes: dict[Kind, tuple[int, ...]]
    refused: dict[Kind, str]


class _Block:
    """The search in one block. Each step may use what the steps before it have found."""

    def __init__(self, watched: _Watched, path: str, positions: int, constants: list[float]):
        self.watched, self.path, self.positions = watched, path, positions
        self.constants = constants
        block = watched.events.get(path)
        pre, post = (None, None) if block is None else (block.given, block.returned)
        if pre is None or post is None or pre.ndim != 3 or pre.shape != post.shape:
            raise SiteError(
                f"block '{path}' does not take and return batch x position x unit; "
                "this architecture offers no residual sites yet"
            )
        self.pre, self.post = pre, post
        self.width = pre.shape[-1]
        self.inside = sorted(
            (event for name, event in watched.events.items() if name.startswith(f"{path}.")),
            key=lambda event: (event.path.count("."), event.order),
        )
        self.ports: dict[Kind, Port] = {
            "resid_pre": Port(path, "input"),
            "resid_post": Port(path, "output"),
        }
        self.sizes: dict[Kind, tuple[int, ...]] = {
            "resid_pre": (self.width,),
            "resid_post": (self.width,),
        }
        self.refused: dict[Kind, str] = {}
        self.multiplier, self.groups, self.sinks = 1.0, 1, 0
        self.attention: str | None = None
        self.heads = self.kv_heads = 0

    def search(self) -> _Found:
        self._find_attention()
        added = self._find_added()
        attention = self._find_attention_out(added)
        mlp = self._find_mlp(added)
        self._find_middle()
        if attention is not None:
            self._find_z(attention)
        self._find_neurons(mlp)
        self._find_router()
        return _Found(self.ports, self.sizes, self.refused)

    def _refuse(self, kinds: tuple[Kind, ...], why: str) -> None:
        for kind in kinds:
            self.refused.setdefault(kind, why)

    def _stream(self, kind: Kind, port: Port) -> None:
        self.ports[kind], self.sizes[kind] = port, (self.width,)

    def _find_attention(self) -> None:
        """The child in which queries meet keys, and keys' probabilities meet values, once."""
        for path, heard in self.watched.attention.items():
            roles = Counter(role for role, _ in heard)
            if not path.startswith(f"{self.path}.") or any(
                roles[role] != 1 for role in ("q", "k", "value")
            ):
                continue
            self.attention = path
            tensors = dict(heard)
            batch = self.pre.shape[0]
            q, k, value = (as_heads(tensors[role], batch) for role in ("q", "k", "value"))
            self.heads = q.shape[1]
            self.groups = _repeats(value)
            self.kv_heads = value.shape[1] // self.groups
            if "attn_probs" in tensors:  # fused attention has no sinks
                self.sinks = tensors["attn_probs"].shape[-1] - self.positions
            found: tuple[tuple[Kind, torch.Tensor, int], ...] = (
                ("q", q, self.heads), ("k", k, self.kv_heads), ("value", value, self.kv_heads)
            )  # fmt: skip
            for role, tensor, heads in found:
                self.ports[role] = Port(path, "operation")
                self.sizes[role] = (heads, tensor.shape[-1])
            for role in ("attn_scores", "attn_probs"):
                self.ports[role] = Port(path, "operation")
                self.sizes[role] = (self.heads,)
            return
        self._refuse(
            (*_IN_ATTENTION, "z", "attn_out", "attn_out_post", "resid_mid"),
            "no attention was heard in its blocks (a softmax of queries and keys, "
            "and a product with values)",
        )

    def _find_added(self) -> list[_Event]:
        """The two tensors inside whose sum, times a constant, the block adds to the stream."""
        parts: list[_Event] = []
        for event in self.inside:
            out = event.returned
            if out is None or not out.is_floating_point() or out.numel() != self.pre.numel():
                continue
            if not any(_same(out, part.returned) for part in parts):
                parts.append(event)
        if self.attention is None or len(parts) < 2:
            self._refuse_added("its blocks have no attention and MLP that add to the stream")
            return []
        # Tokens count alike: the stream of a first token may be a thousand times the others'.
        pre, post = self.pre.float(), self.post.float()
        size = (pre.norm(dim=-1, keepdim=True) + post.norm(dim=-1, keepdim=True)).clamp_min(1e-30)
        flat = torch.stack(
            [(_tensor(part).float().reshape(pre.shape) / size).flatten() for part in parts]
        )
        delta = ((post - pre) / size).flatten()
        gram, along = flat @ flat.T, flat @ delta
        square = gram.diagonal()[:, None] + gram.diagonal()[None] + 2 * gram
        inner = along[:, None] + along[None]
        factor = inner / square.clamp_min(1e-30)
        error = (delta @ delta - 2 * factor * inner + factor**2 * square).fill_diagonal_(torch.inf)
        first, second = divmod(int(error.argmin()), len(parts))
        tolerance = EXACT[self.pre.dtype]
        self.multiplier = _nearest(float(factor[first, second]), self.constants, tolerance)
        off = min(
            float(((post - made) / size).norm() / delta.norm())
            for made in put_together(
                self.pre, _tensor(parts[first]), _tensor(parts[second]), self.multiplier
            )
        )
        if not off < tolerance:
            self._refuse_added(
                "what leaves a block is not what enters it plus what two of its modules return "
                f"(best pair off by {off:.2g})"
            )
            return []
        chosen = [parts[first], parts[second]]
        descended = self._descended_from_attention()
        chosen.sort(key=lambda part: (part.path not in descended, part.order))
        for kind, part in zip(("attn_out_post", "mlp_out_post"), chosen, strict=True):
            self._stream(kind, Port(part.path, "output"))
        return chosen

    def _refuse_added(self, why: str) -> None:
        self._refuse(
            ("attn_out_post", "mlp_out_post", "resid_mid", "mlp_out", "mlp_act", "mlp_pre"), why
        )

    def _descended_from_attention(self) -> set[str]:
        """Modules that only pass on, normed or scaled, what the attention returned."""
        inside = [e for e in self.inside if e.path.startswith(f"{self.attention}.")]
        own = self.watched.events.get(self.attention or "")
        values = [_tensor(e) for e in (*inside, own) if e is not None and e.returned is not None]
        paths = {e.path for e in inside} | {self.attention or ""}
        for event in sorted(self.inside, key=lambda event: event.order):
            if event.mixes or event.given is None or event.returned is None:
                continue
            if any(_same(event.given, value) for value in values):
                values.append(event.returned)
                paths.add(event.path)
        return paths

    def _source(self, event: _Event) -> _Event:
        """Back from what is added to the stream, through norms, to the module that computed it."""
        while not event.mixes and event.given is not None:
            maker = next(
                (
                    one
                    for one in self.inside
                    if one.order < event.order and _same(one.returned, event.given)
                ),
                None,
            )
            if maker is None:
                break
            event = maker
        return event

    def _find_attention_out(self, added: list[_Event]) -> _Event | None:
        if self.attention is None:
            return None
        # Where the module adds the stream itself (BLOOM), what it computed before it did.
        event = self._source(added[0]) if added else self.watched.events.get(self.attention)
        if event is None or event.returned is None:
            self._refuse(("attn_out", "z"), "what its attention returns was not seen once")
            return None
        self._stream("attn_out", Port(event.path, "output"))
        return event

    def _find_mlp(self, added: list[_Event]) -> _Event | None:
        if not added:
            return None
        event = self._source(added[1])
        self._stream("mlp_out", Port(event.path, "output"))
        return event

    def _find_middle(self) -> None:
        """Between attention and MLP there is a state only if some module reads it."""
        if "attn_out_post" not in self.ports or "resid_mid" in self.refused:
            return
        path = self.ports["attn_out_post"].path
        middle = added_to(self.pre, _tensor(self.watched.events[path]), self.multiplier)
        if any(_same(event.given, middle) for event in self.inside):
            self._stream("resid_mid", Port(path, "sum"))
        else:
            self._refuse(
                ("resid_mid",),
                "attention and MLP of a block read the same stream side by side, "
                "so there is no state between them",
            )

    def _find_z(self, attention: _Event) -> None:
        event = self._projection(attention, within=self.attention or "")
        if event is None or event.given is None:
            self._refuse(("z",), "no projection was found that returns what the attention does")
            return
        if event.given.shape[-1] % self.heads:
            self._refuse(("z",), "what enters the output projection does not split into heads")
            return
        self.ports["z"] = Port(event.path, "input")
        self.sizes["z"] = (self.heads, event.given.shape[-1] // self.heads)

    def _projection(self, target: _Event, *, within: str) -> _Event | None:
        """The last linear map that returns what `target` returns."""
        made = [
            event
            for event in self.inside
            if event.path == within or event.path.startswith(f"{within}.")
            if event.projects and _same(event.returned, target.returned)
        ]
        return max(made, key=lambda event: event.order, default=None)

    def _find_neurons(self, mlp: _Event | None) -> None:
        if mlp is None:
            return
        down = self._projection(mlp, within=mlp.path)
        if down is None or down.given is None:
            why = (
                "a mixture of experts has no neurons that all tokens share"
                if self.watched.experts
                else "no projection was found that returns what the MLP does"
            )
            self._refuse(("mlp_act", "mlp_pre"), why)
            return
        neurons = down.given.shape[-1]
        self.ports["mlp_act"], self.sizes["mlp_act"] = Port(down.path, "input"), (neurons,)
        activation = self._activation(down)
        if activation is None:
            self._refuse(("mlp_pre",), "its activation function is no module that can be heard")
            return
        self.ports["mlp_pre"] = Port(activation.path, "input")
        self.sizes["mlp_pre"] = (neurons,)

    def _activation(self, down: _Event) -> _Event | None:
        """The module that, alone or times a gate, turns its input into the neurons."""
        neurons = _rows(down.given, self.positions)
        near = down.path.rpartition(".")[0]
        for event in sorted(self.inside, key=lambda event: -event.order):
            if event.order > down.order or not event.path.startswith(f"{near}."):
                continue
            if event.given is None or event.returned is None or event.mixes or not event.leaf:
                continue
            if event.given.shape[-1] != neurons.shape[-1] or _same(event.given, event.returned):
                continue
            out = _rows(event.returned, self.positions)
            if _same(out, neurons) or any(
                torch.allclose(out * gate, neurons, rtol=EXACT[out.dtype], atol=EXACT[out.dtype])
                for gate in self._gates(down, neurons.shape[-1])
            ):
                return event
        return None

    def _gates(self, down: _Event, neurons: int) -> Iterator[torch.Tensor]:
        """What the activation may be multiplied by: a projection's output, or half of one."""
        for event in self.inside:
            if event.order < down.order and event.projects and event.returned is not None:
                out = _rows(event.returned, self.positions)
                if out.shape[-1] == neurons:
                    yield out
                elif out.shape[-1] == 2 * neurons:
                    yield from out.chunk(2, dim=-1)

    def _find_router(self) -> None:
        experts = self.watched.experts
        if not experts:
            self._refuse(("router",), "it is no mixture of experts")
            return
        for event in sorted(self.inside, key=lambda event: event.order):
            weight = getattr(event.module, "weight", None)
            scores = [one for one in event.others if one.numel() == self.positions * experts]
            if weight is None or tuple(weight.shape) != (experts, self.width) or not scores:
                continue
            self.ports["router"] = Port(event.path, "operation")
            self.sizes["router"] = (experts,)
            return
        self._refuse(("router",), "no module was found that scores its experts")


def _merge(
    found: list[_Found],
) -> tuple[dict[Site, Port], dict[Kind, tuple[int, ...]], dict[Kind, str]]:
    """The kinds that every block has, with the same sizes."""
    ports: dict[Site, Port] = {}
    sizes: dict[Kind, tuple[int, ...]] = {}
    refused: dict[Kind, str] = {}
    for kind in KINDS:
        if kind in OUTSIDE:
            continue
        has = [layer for layer, block in enumerate(found) if kind in block.ports]
        if len(has) < len(found):
            why = next(b.refused.get(kind, "not found") for b in found if kind not in b.ports)
            some = f"only layers {', '.join(map(str, has))} have it; elsewhere " if has else ""
            refused[kind] = some + why
        elif len({block.sizes[kind] for block in found}) > 1:
            shapes = sorted({block.sizes[kind] for block in found})
            refused[kind] = f"its layers differ in shape ({', '.join(map(str, shapes))})"
        else:
            sizes[kind] = found[0].sizes[kind]
            ports |= {Site(kind, layer): block.ports[kind] for layer, block in enumerate(found)}
    return ports, sizes, refused


def _outside(
    network: Any,
    base: nn.Module,
    watched: _Watched,
    blocks: list[_Block],
    constants: list[float],
    ports: dict[Site, Port],
    sizes: dict[Kind, tuple[int, ...]],
    refused: dict[Kind, str],
) -> str:
    """Sites before and after the blocks; tells how the embeddings become the stream."""
    paths = {module: name for name, module in network.named_modules()}
    first, last = blocks[0], blocks[-1]
    outside = sorted(
        (
            event
            for event in watched.events.values()
            if event.returned is not None
            and event.returned.is_floating_point()
            and not event.path.startswith(first.path.rpartition(".")[0] + ".")
        ),
        key=lambda event: event.order,
    )
    entry = "unknown"
    embedding = watched.events.get(paths.get(network.get_input_embeddings(), ""))
    if embedding is None or embedding.returned is None:
        refused["embeddings"] = "its token embedding was not seen once"
    else:
        ports[Site("embeddings")] = Port(embedding.path, "output")
        sizes["embeddings"] = (embedding.returned.shape[-1],)
        entry = _entry(embedding, outside, first.pre, constants)
        if entry == "unknown":
            del ports[Site("embeddings")], sizes["embeddings"]
            refused["embeddings"] = (
                "the stream that enters the first block is neither the token embedding, "
                "nor that with positions, normed or scaled"
            )
    norm = next(
        (event for event in outside if not event.mixes and _same(event.given, last.post)), None
    )
    own = watched.events.get(paths.get(base, ""))
    if norm is None or own is not None and not _same(own.returned, norm.returned):
        refused["final_norm"] = "no norm was found between the last block and the model's output"
    else:
        ports[Site("final_norm")] = Port(norm.path, "output")
        sizes["final_norm"] = (last.width,)
    ports[Site("logits")] = Port("", "output")
    sizes["logits"] = (network.config.get_text_config().vocab_size,)
    return entry


def _entry(
    embedding: _Event, outside: list[_Event], stream: torch.Tensor, constants: list[float]
) -> str:
    """In words, what turns the token embedding into the stream that enters the first block."""
    for constant in constants:
        if _same(_tensor(embedding) * constant, stream):
            return "embeddings" if constant == 1 else f"embeddings * {constant:g}"
    made, flat = "embeddings", _tensor(embedding)
    for _ in range(3):  # positions, a norm and a projection at most
        if _same(flat, stream):
            return made
        for event in outside:
            out = _tensor(event)
            if event is embedding or out.shape[-1] != stream.shape[-1]:
                continue
            if _same(event.given, flat):
                made, flat = f"{event.path}({made})", out
                break
            if out.shape[-2:] == flat.shape[-2:] and _same(flat + out, stream):
                made, flat = f"{made} + {event.path}", flat + out
                break
    return made if _same(flat, stream) else "unknown"


def added_to(stream: torch.Tensor, part: torch.Tensor, multiplier: float) -> torch.Tensor:
    """What a block makes of the stream and of what a part returns, added as blocks add."""
    part = part.reshape(stream.shape)
    return stream + part if multiplier == 1 else stream + part * multiplier


def put_together(
    stream: torch.Tensor, attention: torch.Tensor, mlp: torch.Tensor, multiplier: float
) -> tuple[torch.Tensor, ...]:
    """What leaves a block, in each order in which blocks add: half precision tells them apart."""
    attention, mlp = attention.reshape(stream.shape), mlp.reshape(stream.shape)
    return (
        added_to(added_to(stream, attention, multiplier), mlp, multiplier),
        added_to(added_to(stream, mlp, multiplier), attention, multiplier),
        added_to(stream, attention + mlp, multiplier),
    )


def as_heads(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    """Batch x head x position x unit, from families that fold heads into the batch, too."""
    return tensor if tensor.ndim == 4 else tensor.reshape(batch, -1, *tensor.shape[-2:])


def _repeats(value: torch.Tensor) -> int:
    """How many neighbouring heads hold the same values: keys and values repeated for queries."""
    heads = value.shape[1]
    for groups in range(heads, 1, -1):
        if heads % groups == 0:
            apart = value.reshape(value.shape[0], heads // groups, groups, *value.shape[2:])
            if bool((apart == apart[:, :, :1]).all()):
                return groups
    return 1


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    """Whether two tensors hold the same numbers, however they are shaped."""
    return (
        a is not None
        and b is not None
        and a.numel() == b.numel()
        and a.dtype == b.dtype
        and torch.equal(a.flatten(), b.flatten())
    )


def _rows(tensor: torch.Tensor | None, positions: int) -> torch.Tensor:
    assert tensor is not None
    return tensor.reshape(positions, -1)


def _tensor(event: _Event) -> torch.Tensor:
    assert event.returned is not None
    return event.returned


assert set(MEANINGS) == set(KINDS)
