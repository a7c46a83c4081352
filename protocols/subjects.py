"""The anatomy of a subject, for people and for machines."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from protocols.report import words
from scanner import Model
from scanner.sites import KINDS, MEANINGS, PAIRED, sites_of


@dataclass(frozen=True)
class Place:
    """A kind of site that a model has.

    Attributes
    ----------
    kind : str
    shape : dict of str to int
        Its dimensions beside text, layer and, of attention weights, key.
    layers, bytes : int
        In how many layers it is; what a token takes in all of them, in float32.
    where : str
        The module, and which side of it.
    """

    kind: str
    shape: dict[str, int]
    layers: int
    bytes: int
    where: str


def places(model: Model) -> list[Place]:
    """The sites that a model has; within blocks all layers are alike."""
    structure, found = model.structure, []
    first = f"{structure.blocks}.0"
    for kind in structure.kinds:
        sites = sites_of(kind, model.layers)
        sizes = structure.sizes[kind]
        path, side = structure.port(sites[0])
        where = "the block" if path == first else path.removeprefix(f"{first}.") or "the network"
        found.append(
            Place(
                kind,
                dict(zip(MEANINGS[kind].dims, sizes, strict=True)),
                len(sites),
                4 * len(sites) * math.prod(sizes),
                f"the block + {where} (sum)" if side == "sum" else f"{where} ({side})",
            )
        )
    return found


def table(model: Model) -> Table:
    """The sites, for a terminal."""
    shown = Table(box=None, pad_edge=False)
    for column in ("site", "shape", "bytes", "where"):
        right = column == "bytes"
        shown.add_column(column, justify="right" if right else "left", overflow="fold")
    for one in places(model):
        shape = words.shape(one.shape)
        paired = f"{shape} a key" if one.kind in PAIRED else shape
        shown.add_row(one.kind, paired, f"{one.bytes:,}", one.where)
    return shown


def heading(model: Model) -> list[str]:
    """What a model is, in lines."""
    weights = _weights(model)
    size = f"{weights / 1e6:.0f} million" if weights >= 1e6 else f"{weights:,}"
    window = "" if model.window is None else f", windows of {model.window}"
    return [
        f"{model.source.name}: {type(model.network).__name__}, {size} weights "
        f"({model.source.weights}), on {model.device} in {model.dtype}",
        f"{model.layers} layers of {model.width} units, context of {model.context or 'any'} "
        f"tokens{window}",
        f"blocks: {model.structure.blocks}.N; modules inside are named from there",
        "bytes: of a token in all layers, in float32 (of attention weights, with one key)",
    ]


def remarks(model: Model) -> Iterator[str]:
    """What its proofs say: what it lacks and why, how exact the rest is, what cannot be written."""
    structure, proof = model.structure, model.proof
    for why in dict.fromkeys(structure.refused.values()):
        lacking = ", ".join(kind for kind in KINDS if structure.refused.get(kind) == why)
        yield f"no {lacking}: {why}"
    worst = max(proof.deviations, key=lambda one: np.nan_to_num(proof.deviations[one], nan=np.inf))
    yield (
        f"{len(proof.deviations)} identities were checked; the largest deviation was "
        f"{proof.deviations[worst]:.1e} ({worst})"
    )
    if structure.multiplier != 1:
        yield f"attention and MLP outputs are added times {structure.multiplier:g}"
    if structure.entry != "embeddings":
        yield f"the stream begins as {structure.entry}"
    how = f"apart: {proof.sharing}" if proof.sharing else "together"
    yield f"texts that begin alike are computed {how}"
    for kind, why in proof.unwritable.items():
        yield f"{kind} can be recorded but not written: {why}"


def as_json(model: Model) -> dict[str, Any]:
    """The same for machines; keys are stable."""
    structure, proof = model.structure, model.proof
    return {
        "subject": model.source.name,
        "architecture": type(model.network).__name__,
        "parameters": _weights(model),
        "weights": model.source.weights,
        "weights_sha256": model.source.weights_sha256,
        "device": model.device,
        "dtype": model.dtype,
        "layers": model.layers,
        "width": model.width,
        "context": model.context,
        "window": model.window,
        "blocks": structure.blocks,
        "sites": {
            one.kind: {
                "shape": one.shape, "layers": one.layers, "bytes": one.bytes, "where": one.where
            }
            for one in places(model)
        },
        "refused": dict(structure.refused),
        "deviations": {
            name: value if math.isfinite(value) else None
            for name, value in proof.deviations.items()
        },
        "unwritable": dict(proof.unwritable),
    }  # fmt: skip


def _weights(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())
