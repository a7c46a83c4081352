"""What is done to a live model, described as data: which site, which tokens and units, what.

An edit names the activations it changes and how. It goes in through the hooks that recording uses,
so that what is written is what would have been recorded. An edit that changed nothing is an error,
since "no effect" would be read from it; one that may change nothing has to say so.
"""

import hashlib
import inspect
import json
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from scanner.hooks import visiting
from scanner.sites import KINDS, MEANINGS, OUTSIDE, PAIRED, Kind, Site, SiteError, sites_of
from scanner.structure import Structure

Action = Literal["ablate", "replace", "add", "scale", "skip"]
ACTIONS: tuple[Action, ...] = get_args(Action)
Value = float | Sequence[Any] | np.ndarray | torch.Tensor
# Where leaving a part out has a meaning: it adds nothing, or the block hands on what it was given.
SKIPPABLE: tuple[Kind, ...] = ("attn_out_post", "mlp_out_post", "resid_post")


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of activations.

    All fields may be plain values, as a protocol holds them; sequences are kept as tuples. Indices
    count from 0 and are never negative.

    Attributes
    ----------
    kind : str
        Kind of site. Attention weights are computed step by step for it: compare what comes of it
        with a pass under `Model.eager`.
    action : str
        ``ablate`` (to zero), ``replace`` (by `value`), ``add`` (`value`), ``scale`` (by `value`),
        ``skip`` (leave attention, MLP or the whole block out). What a mask closes in attention
        weights, the future above all, stays closed.
    layers : sequence of int, optional
        Every layer by default.
    value : float, nested sequence or array, optional
        Laid out as the activations that `Model.activations` gives, whatever is selected: all
        dimensions of a site (1 where all share it), or only those after row and position (query
        and key, of attention weights). A tensor may require a gradient.
    rows : sequence of int, optional
        Rows of the batch; all by default.
    positions : sequence of int, optional
        Columns of the batch, the same for all rows; or a sequence of them for each row. In a pass
        that continues a cache, cached tokens count, and are not changed a second time.
    start : int
        Where no positions are given, the first that is changed. The first token of a text often
        has an activation a hundred times the others', and everything attends to it: 1 leaves it
        out, and you should unless you ask about it.
    heads : sequence of int, optional
        Heads (of keys, at ``k`` and ``value``); all by default.
    units : sequence of int, optional
        Along the last dimension: units, neurons, experts, vocabulary, or keys; all by default.
    along : nested sequence or array, optional
        Directions, ``unit`` or ``direction x unit``: ``ablate`` and ``scale`` change only what lies
        along them, from `center` on. Of four dimensions it has those of each row and position.
    readout : nested sequence or array, optional
        Laid out as `along`: how much of each direction an activation has. By default the least
        squares' answer; another one makes the projection oblique, as concept erasure does.
    center : sequence or array, optional
        ``unit``, or of each row and position: where a direction counts from; 0 by default.
    must_move : bool
        Whether it is an error if nothing changes. False for a control that writes back what was
        read, and where a unit may be silent: then look at `Applied.moved`.

    Raises
    ------
    ValueError
        If an index, the action or its value cannot be meant, whatever the model.
    """

    kind: Kind
    action: Action
    _: KW_ONLY
    layers: Sequence[int] | None = None
    value: Value | None = None
    rows: Sequence[int] | None = None
    positions: Sequence[int] | Sequence[Sequence[int]] | np.ndarray | None = None
    start: int = 0
    heads: Sequence[int] | None = None
    units: Sequence[int] | None = None
    along: Value | None = None
    readout: Value | None = None
    center: Value | None = None
    must_move: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("action", ACTIONS)):
            if getattr(self, name) not in allowed:
                given = getattr(self, name)
                raise ValueError(f"edit: no {name} '{given}'; there is {', '.join(allowed)}")
        for name in ("layers", "rows", "heads", "units"):
            self._keep(name, _indices(self, name, getattr(self, name)))
        self._keep("positions", _positions(self))
        if self.kind in OUTSIDE and self.layers is not None:
            raise ValueError(f"{self}: '{self.kind}' stands outside the blocks and has no layers")
        if self.start < 0 or (self.start and self.positions is not None):
            raise ValueError(f"{self}: start {self.start} is negative or beside positions")
        if self.action == "skip" and self.kind not in SKIPPABLE:
            raise ValueError(f"{self}: skip is possible at {', '.join(SKIPPABLE)}")
        needs = self.action in ("replace", "add", "scale")
        if needs != (self.value is not None):
            raise ValueError(f"{self}: '{self.action}' {'needs a' if needs else 'takes no'} value")
        if self.along is None and not (self.readout is None and self.center is None):
            raise ValueError(f"{self}: readout and center need directions, `along`")
        if self.along is not None and self.action not in ("ablate", "scale"):
            raise ValueError(f"{self}: '{self.action}' takes no directions; ablate and scale do")
        if self.along is not None and (self.units is not None or self.kind in PAIRED):
            raise ValueError(f"{self}: a direction has all units of a token; name no `units`")
        for name in ("value", "along", "readout", "center"):
            if getattr(self, name) is not None:
                self._keep(name, _checked(self, name, getattr(self, name)))

    def at(self, positions: Sequence[int]) -> "Edit":
        """The same at some positions; its numbers, which may be many, are not checked again."""
        return self.having(start=0, positions=_indices(self, "positions", positions))

    def at_rows(self, positions: Mapping[int, Sequence[int]]) -> "Edit":
        """The same in some rows of a batch, at some positions of each."""
        where = tuple(tuple(one) for one in positions.values())
        return self.having(start=0, rows=tuple(positions), positions=where)

    def having(self, **fields: object) -> "Edit":
        """The same with other fields, which are taken as they are."""
        made = copy(self)
        for name, value in fields.items():
            made._keep(name, value)
        return made

    def _keep(self, name: str, made: object) -> None:
        object.__setattr__(self, name, made)

    def __str__(self) -> str:
        # Not a tuple yet where they are what is wrong.
        layers = self.layers if isinstance(self.layers, tuple) else ()
        where = f".{','.join(map(str, layers))}" if layers else ""
        return f"{self.action} {self.kind}{where}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edit) and self.plain() == other.plain()

    def __hash__(self) -> int:
        return hash(json.dumps(self.plain()))

    def plain(self) -> dict[str, Any]:
        """All of it in plain values; an array is told by shape, type and sha256 of its bytes."""
        made = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: _told(one) if isinstance(one, torch.Tensor) else one
                for name, one in made.items()}  # fmt: skip

    def sites(self, layers: int) -> list[Site]:
        """The sites that it changes, in a model of that many layers."""
        if self.layers is None:
            return sites_of(self.kind, layers)
        return [Site(self.kind, layer) for layer in self.layers]


def _told(value: torch.Tensor) -> dict[str, object]:
    """A tensor by its shape, type and the sha256 of its bytes."""
    value = value.detach().cpu().contiguous()
    bytes_ = value.reshape(-1).view(torch.uint8).numpy().tobytes()
    return {
        "shape": tuple(value.shape),
        "dtype": str(value.dtype).removeprefix("torch."),
        "sha256": hashlib.sha256(bytes_).hexdigest(),
    }


class Applied:
    """What edits have done so far."""

    def __init__(self, edits: Sequence[Edit]):
        self.edits = tuple(edits)
        self.steps: list[list[torch.Tensor]] = [[] for _ in edits]

    @property
    def moved(self) -> list[float]:
        """Of each edit, the largest change of an activation that it made at a token."""
        return [float(torch.stack(steps).max()) if steps else 0.0 for steps in self.steps]

    def check(self) -> None:
        """Hold each edit to having changed something.

        Raises
        ------
        SiteError
            If one that must has not, or has changed something to what is no number.
        """
        for edit, moved, steps in zip(self.edits, self.moved, self.steps, strict=True):
            if not moved < float("inf"):
                raise SiteError(f"{edit}: its activations are no finite numbers any more")
            if edit.must_move and moved == 0:
                raise SiteError(
                    f"{edit}: applied {len(steps)} times, it changed nothing, so no effect of it "
                    "can be told; a control that may change nothing says must_move=False"
                )


@contextmanager
def applying(network: nn.Module, structure: Structure, edits: Sequence[Edit]) -> Iterator[Applied]:
    """Apply edits in every forward pass of the body. See `scanner.model.Model.intervene`.

    Raises
    ------
    SiteError
        If an edit does not fit a batch, or if, when the body has ended well, an edit has moved
        nothing that must.
    """
    at: dict[Site, list[int]] = {}
    for number, edit in enumerate(edits):
        for site in edit.sites(structure.layers):
            at.setdefault(site, []).append(number)
    # What edits need to know beside what they change.
    wholes = {
        site
        for site, numbers in at.items()
        if site.kind == "resid_post" and any(edits[number].action == "skip" for number in numbers)
    }
    entries = {Site("resid_pre", site.layer) for site in wholes}
    masked = {Site("attn_scores", site.layer) for site in at if site.kind in PAIRED}
    lowest = torch.finfo(next(network.parameters()).dtype).min / 2
    applied, now = Applied(edits), _Pass()
    entered: dict[int | None, torch.Tensor] = {}
    seen: dict[int | None, torch.Tensor] = {}

    def change(site: Site, activation: torch.Tensor) -> torch.Tensor | None:
        if site in masked:
            seen[site.layer] = activation > lowest
        changed = activation
        for number in at.get(site, []):
            edit, before = edits[number], changed
            selected = _selected(edit, before, now)
            if site.kind in PAIRED:
                selected = selected & seen[site.layer]
            # A whole block that is skipped hands on what it was given.
            given = entered[site.layer] if edit.action == "skip" and site in wholes else None
            made = _made(edit, before, given) if selected.any() else before
            changed = torch.where(selected, made, before)
            applied.steps[number].append(_moved(site, changed, before, selected, now))
        if site in entries:
            entered[site.layer] = changed
        return changed if site in at else None

    # In the order in which they are computed: kinds may share a module, whose hooks have an order.
    order = sorted({*at, *entries, *masked}, key=lambda site: KINDS.index(site.kind))
    with (
        _entering_once(network, at, wholes),
        now.following(network, structure.blocks),
        visiting(network, structure, order, change),
    ):
        yield applied
    applied.check()


# Of models that are acted on: streams whose edits an intervention further out would not hear of.
_ENTERED: WeakKeyDictionary[nn.Module, list[Site]] = WeakKeyDictionary()


@contextmanager
def _entering_once(
    network: nn.Module, at: Collection[Site], wholes: Collection[Site]
) -> Iterator[None]:
    """Refuse to change what enters a block after an edit further out has taken note of it."""
    known = _ENTERED.setdefault(network, [])
    late = next((site for site in at if site in known), None)
    if late is not None:
        raise SiteError(
            f"{late} is edited inside an intervention at resid_mid.{late.layer} or that skips "
            "the block, which would not hear of it; give all edits to one intervention"
        )
    middles = [site for site in at if site.kind == "resid_mid"]
    own = [Site("resid_pre", site.layer) for site in (*middles, *wholes)]
    known += own
    try:
        yield
    finally:
        del known[len(known) - len(own) :]


def check_edit(edit: Edit, structure: Structure, unwritable: Mapping[Kind, str]) -> None:
    """Hold an edit against a model.

    Raises
    ------
    SiteError
        If the model lacks the site, a head or a unit, or cannot be written there.
    """
    for site in edit.sites(structure.layers):
        structure.port(site)
    if edit.kind in unwritable:
        raise SiteError(f"{edit}: {unwritable[edit.kind]}")
    dims, size = MEANINGS[edit.kind].dims, structure.sizes[edit.kind]
    if "head" in dims[0]:
        _within(edit, "heads", edit.heads, size[0])
    elif edit.heads is not None:
        raise SiteError(f"{edit}: '{edit.kind}' has no heads")
    if edit.kind not in PAIRED:
        _within(edit, "units", edit.units, size[-1])


class _Pass:
    """The forward pass that is under way."""

    def __init__(self) -> None:
        self.columns = 0
        # Tokens that a cache holds already; None where it does not tell.
        self.past: int | None = 0
        # row x column, false where a row is filled up; None where the mask does not tell.
        self.tokens: torch.Tensor | None = None

    @contextmanager
    def following(self, network: nn.Module, blocks: str) -> Iterator[None]:
        """Note of each forward pass what positions refer to."""
        # What runs the blocks: OPT's head passes its base model by.
        runner = network.get_submodule(blocks.rpartition(".")[0])
        signature = inspect.signature(runner.forward)

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = signature.bind_partial(*args, **kwargs).arguments
            ids = given.get("input_ids")
            self.columns = (given["inputs_embeds"] if ids is None else ids).shape[1]
            self.past = _cached(given.get("past_key_values"), given.get("cache_params"))
            mask = given.get("attention_mask")
            if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
                mask = None  # texts that share tokens have a mask of pairs of them
            self.tokens = None if mask is None else mask[:, -self.columns :] != 0

        hook = runner.register_forward_pre_hook(enter, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


def _cached(*caches: Any) -> int | None:
    for cache in caches:
        if cache is not None:
            try:
                return int(cache.get_seq_length())
            except ValueError:  # a recurrent state does not count its tokens
                return None
    return 0


def _selected(edit: Edit, activation: torch.Tensor, now: _Pass) -> torch.Tensor:
    """Which components are changed: true and false, in a shape that broadcasts."""
    paired = edit.kind in PAIRED
    row, position, head = (0, 2, 1) if paired else (0, 1, activation.ndim - 2)
    size = activation.shape
    if paired and now.past != 0:
        raise SiteError(
            f"{edit}: attention weights are not edited in a pass that continues a cache; "
            "run it with use_cache=False"
        )
    if (edit.start or edit.positions is not None) and (
        size[position] != now.columns or now.past is None
    ):
        raise SiteError(
            f"{edit}: this pass has {now.columns} columns and '{edit.kind}' {size[position]}, or "
            "a cache that does not count its tokens, so positions cannot be told; run it with "
            "use_cache=False and without logits_to_keep"
        )
    chosen = _tokens(edit, now, rows=size[row], columns=size[position])
    selected = _along(chosen.to(activation.device), (row, position), activation.ndim)
    unit = activation.ndim - 1
    for name, dim, wanted in (("heads", head, edit.heads), ("units", unit, edit.units)):
        if wanted is not None:
            _within(edit, name, wanted, size[dim])
            of_dim = torch.zeros(size[dim], dtype=torch.bool, device=activation.device)
            of_dim[list(wanted)] = True
            selected = selected & _along(of_dim, (dim,), activation.ndim)
    return selected


def _tokens(edit: Edit, now: _Pass, *, rows: int, columns: int) -> torch.Tensor:
    """row x column, true where a token is changed."""
    chosen = torch.zeros(rows, columns, dtype=torch.bool)
    _within(edit, "rows", edit.rows, rows)
    wanted = list(range(rows) if edit.rows is None else edit.rows)
    past = now.past or 0
    if edit.positions is None:
        chosen[wanted, max(edit.start - past, 0) :] = True
        return chosen
    of_rows: Any = edit.positions
    if not isinstance(of_rows[0], tuple):
        of_rows = [of_rows] * len(wanted)
    if len(of_rows) != len(wanted):
        raise SiteError(f"{edit}: positions of {len(of_rows)} rows, but {len(wanted)} rows")
    for row, positions in zip(wanted, of_rows, strict=True):
        _within(edit, "positions", positions, past + columns)
        new = [position - past for position in positions if position >= past]
        if now.tokens is not None and not bool(now.tokens[row, new].all()):
            raise SiteError(
                f"{edit}: positions {positions} of row {row} reach what fills it up; it has "
                f"{int(now.tokens[row].sum())} tokens"
            )
        chosen[row, new] = True
    return chosen


def _made(edit: Edit, activation: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor:
    """What the edit makes of an activation, if it changes all of it."""
    if edit.along is not None:
        return _made_along(edit, activation)
    if edit.action in ("ablate", "skip"):
        return torch.zeros_like(activation) if given is None else given
    value = _valued(edit, activation)
    if edit.action == "replace":
        return value.expand_as(activation)
    return activation * value if edit.action == "scale" else activation + value


def _valued(edit: Edit, activation: torch.Tensor) -> torch.Tensor:
    """The value of an edit, which broadcasts against the activation."""
    value = _like(edit.value, activation)
    shape, size = tuple(value.shape), tuple(activation.shape)
    # A row's values without their positions would be taken for a position's without its rows.
    whole = value.ndim in (*range(activation.ndim - 1), activation.ndim)
    if not whole or any(a not in (1, b) for a, b in zip(shape[::-1], size[::-1], strict=False)):
        raise SiteError(
            f"{edit}: a value of shape {shape} does not fit activations of shape {size}; it has "
            f"all {activation.ndim} dimensions, 1 where they share it, or the last "
            f"{activation.ndim - 2}"
        )
    return value


def _made_along(edit: Edit, activation: torch.Tensor) -> torch.Tensor:
    """The activation with what it has along some directions scaled, or taken away."""
    along = _directions(edit, "along", activation)
    # In float64: the inverse of nearly parallel directions loses digits.
    readout = (
        torch.linalg.pinv(along.double()).mT.to(along.dtype)
        if edit.readout is None
        else _directions(edit, "readout", activation)
    )
    if readout.shape != along.shape:
        raise SiteError(
            f"{edit}: readout of shape {tuple(readout.shape)} for directions {tuple(along.shape)}"
        )
    center = 0 if edit.center is None else _like(edit.center, activation)
    has = torch.einsum("...ku,...u->...k", readout, activation - center)
    less = 1 if edit.action == "ablate" else 1 - _amount(edit, activation)
    return activation - torch.einsum("...k,...ku->...u", has, along) * less


def _amount(edit: Edit, activation: torch.Tensor) -> torch.Tensor:
    """By how much directions are scaled: a number, or one of each row and position."""
    value = _like(edit.value, activation)
    if value.ndim not in (0, 3) or value.shape[-1:] not in ((), (1,)):
        raise SiteError(f"{edit}: directions are scaled by a number, not {tuple(value.shape)}")
    return value


def _directions(edit: Edit, name: str, activation: torch.Tensor) -> torch.Tensor:
    """(row x position x) direction x unit."""
    made = _like(getattr(edit, name), activation)
    made = made[None] if made.ndim == 1 else made
    if made.ndim not in (2, activation.ndim + 1) or made.shape[-1] != activation.shape[-1]:
        raise SiteError(
            f"{edit}: {name} of shape {tuple(made.shape)} is no direction x unit; a unit vector "
            f"has {activation.shape[-1]} components here"
        )
    return made


def _like(value: Any, activation: torch.Tensor) -> torch.Tensor:
    if isinstance(value, torch.Tensor) and value.is_inference():
        value = value.clone()  # autograd takes no tensor that was made in inference mode
    return torch.as_tensor(value, dtype=activation.dtype, device=activation.device)


def _moved(
    site: Site, changed: torch.Tensor, before: torch.Tensor, selected: torch.Tensor, now: _Pass
) -> torch.Tensor:
    """The largest change at a token; what fills a row up does not count."""
    rows_and_columns = (0, 2) if site.kind in PAIRED else (0, 1)
    if now.tokens is not None and tuple(now.tokens.shape) == tuple(
        before.shape[dim] for dim in rows_and_columns
    ):
        selected = selected & _along(now.tokens.to(before.device), rows_and_columns, before.ndim)
    change = (changed - before).detach()  # where a mask is -inf it is no number
    return torch.where(selected, change, torch.zeros_like(change)).abs().max().float()


def _along(chosen: torch.Tensor, dims: tuple[int, ...], ndim: int) -> torch.Tensor:
    """Put the dimensions of a choice where they belong among `ndim`."""
    sizes = iter(chosen.shape)
    return chosen.reshape([next(sizes) if dim in dims else 1 for dim in range(ndim)])


def _within(edit: Edit, name: str, wanted: Sequence[int] | None, size: int) -> None:
    beyond = [one for one in wanted or () if one >= size]
    if beyond:
        raise SiteError(f"{edit}: there are no {name} {beyond}; they are 0 to {size - 1} here")


def _indices(edit: Edit, name: str, given: Any) -> tuple[int, ...] | None:
    """A selection as a tuple of indices."""
    if given is None:
        return None
    try:
        made = tuple(operator.index(one) for one in given)
    except TypeError:
        raise ValueError(f"{edit}: {name} {given} is no sequence of integers") from None
    if not made:
        raise ValueError(f"{edit}: {name} is empty; leave the edit out")
    if min(made) < 0 or len(set(made)) < len(made):
        raise ValueError(f"{edit}: {name} {made} has negative or repeated indices")
    return made


def _positions(edit: Edit) -> tuple[int, ...] | tuple[tuple[int, ...] | None, ...] | None:
    """Positions as a tuple of indices, or one of each row."""
    given = edit.positions
    if given is None or len(given) == 0 or np.ndim(given[0]) == 0:
        return _indices(edit, "positions", given)
    return tuple(_indices(edit, "positions", row) for row in given)


def _checked(edit: Edit, name: str, value: Value) -> Value:
    """A value whose numbers are finite: a number, nested tuples, or a tensor."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())  # torch warns of an array that may not be written
    try:
        made = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{edit}: its {name} is no array of numbers: {error}") from None
    if not bool(torch.isfinite(made).all()):
        raise ValueError(f"{edit}: its {name} is not finite")
    return value if isinstance(value, torch.Tensor) else _tuples(value)


def _tuples(value: Any) -> Any:
    if isinstance(value, Sequence):
        return tuple(_tuples(one) for one in value)
    return float(value)
