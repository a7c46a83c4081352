"""A volume before its first activation: labels, provenance, and empty arrays."""

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
import zarr
from zarr.core.common import JSON

from scanner.batches import unique_tokens
from scanner.model import Model
from scanner.plan import Recording
from scanner.provenance import now
from scanner.quantised import library
from scanner.reading import Reading
from scanner.shards import create
from scanner.sites import MEANINGS, OUTSIDE, PAIRED, Kind, sites_of

UNITS = {"attn_probs": "probability"}
# Of what is no activation, whatever these are stored as.
DTYPES = {"logits_token": "int32"}


class Variable(NamedTuple):
    """One array of a volume.

    Attributes
    ----------
    shape : tuple of int
    dims : tuple of str
        What a row is, layer where there are several, and the rest.
    layered : bool
    """

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    layered: bool


def variables(recording: Recording, model: Model, reading: Reading) -> dict[str, Variable]:
    """The arrays of a volume, by name."""
    found = {}
    for kind in recording.sites:
        if kind in PAIRED:
            rows, dim = int(reading.pair_counts.sum()), "pair"
        elif reading.ragged:
            rows, dim = int(reading.token_counts.sum()), "token"
        else:
            rows, dim = len(reading.kept), "stimulus"
        layered = kind not in OUTSIDE
        several = not isinstance(reading.tokens, str) and kind not in PAIRED
        size, rest = model.structure.sizes[kind], MEANINGS[kind].dims
        if kind == "logits" and recording.top is not None:
            size, rest = (min(recording.top, model.vocabulary),), ("rank",)
        variable = Variable(
            (rows, *(model.layers,) * layered, *(len(reading.tokens),) * several, *size),
            (dim, *("layer",) * layered, *("position",) * several, *rest),
            layered,
        )
        found[kind] = variable
        if kind == "logits" and recording.top is not None:
            found["logits_token"] = variable
    return found


def lay_down(
    partial: Path,
    recording: Recording,
    model: Model,
    reading: Reading,
    making: dict[str, object],
) -> None:
    """Lay down labels, provenance and the empty arrays; the rename makes it a beginning.

    Parameters
    ----------
    partial : pathlib.Path
        Where the volume lies until it is whole.
    recording : Recording
    model : Model
    reading : Reading
    making : dict
        Attributes that tell how it is made.
    """
    attributes = {
        "subject": recording.subject,
        "revision": recording.source.revision,
        "weights": _weights(recording),
        "weights_sha256": model.weights_sha256,
        "tokenizer_sha256": recording.source.tokenizer_sha256,
        "config_sha256": recording.source.config_sha256,
        "stimuli_sha256": recording.stimuli.digest,
        "tokens": recording.content["tokens"],
        "dtype": recording.dtype,
        "store": recording.store,
        "chat": "none" if recording.chat is None else json.dumps(recording.content["chat"]),
        "twin_seed": "none" if recording.seed is None else recording.seed,
        "initialisation": model.initialisation(),
        "surprisal": model.surprisal,
        "bits_per_byte": model.bits_per_byte,
        "vocabulary": model.vocabulary,
        **making,
        **({"parts": json.dumps(model.parts)} if model.parts else {}),
        "content": json.dumps(recording.content),
        "identities": json.dumps(model.proof.deviations),
        "refused": json.dumps(dict(model.structure.refused)),
        "residual_multiplier": model.structure.multiplier,
        "entry": model.structure.entry,
        "tokens_read": sum(map(len, reading.ids)),
        "tokens_unique": unique_tokens(reading.ids),
        "time": now(),
    }
    partial.parent.mkdir(parents=True, exist_ok=True)
    found = variables(recording, model, reading)
    staging = partial.with_suffix(".begun")
    labels = _coordinates(recording, reading, found).assign_attrs(attributes)
    labels.to_zarr(staging, mode="w", zarr_format=3, consolidated=False)
    group = zarr.open_group(staging, mode="r+")
    for name, variable in found.items():
        array = create(
            group,
            name,
            shape=variable.shape,
            layered=variable.layered,
            dims=variable.dims,
            dtype=DTYPES.get(name, recording.store),
        )
        array.update_attributes(_description(name, model))
    if partial.exists():  # what another device or version had begun
        shutil.rmtree(partial)
    os.replace(staging, partial)


def _weights(recording: Recording) -> str:
    """What the weights are."""
    weights = recording.source.weights if recording.seed is None else "fresh"
    if recording.bits is None:
        return weights
    return f"{weights}; in blocks rounded to {recording.bits} by {library(recording.subject)}"


def _coordinates(recording: Recording, reading: Reading, found: dict[str, Variable]) -> xr.Dataset:
    """Labels of stimuli, and what the rows of ragged arrays are."""
    labels = {
        str(name): (
            "stimulus",
            np.array(column.to_numpy(), dtype=np.dtypes.StringDType())
            if column.dtype.kind not in "biuf"
            else column.to_numpy(),
        )
        for name, column in reading.table.items()
    }
    dims = {
        dim: size for one in found.values() for dim, size in zip(one.dims, one.shape, strict=True)
    }
    coords: dict[str, object] = {**labels}
    for dim in ("layer", "unit"):
        if dim in dims:
            coords[dim] = np.arange(dims[dim])
    if "position" in dims:
        coords["position"] = np.array(reading.tokens)
    stimuli = np.arange(len(reading.kept))
    if "token" in dims:
        coords["token_stimulus"] = ("token", np.repeat(stimuli, reading.token_counts))
        coords["token_position"] = ("token", np.concatenate(reading.kept))
        ids = [np.array(ids)[kept] for ids, kept in zip(reading.ids, reading.kept, strict=True)]
        coords["token_id"] = ("token", np.concatenate(ids))
    if "pair" in dims:
        queries = np.concatenate([np.repeat(kept, kept + 1) for kept in reading.kept])
        keys = np.concatenate([np.arange(one + 1) for kept in reading.kept for one in kept])
        coords["pair_stimulus"] = ("pair", np.repeat(stimuli, reading.pair_counts))
        coords["pair_query"], coords["pair_key"] = ("pair", queries), ("pair", keys)
    return xr.Dataset(coords=coords)


def _description(name: str, model: Model) -> dict[str, JSON]:
    """What the attributes of a variable say: where it was heard and what its numbers are."""
    if name == "logits_token":
        return {"meaning": "token ids of the highest logits, the highest first"}
    kind: Kind = name  # pyright: ignore[reportAssignmentType]  # names of variables are kinds
    first = model.structure.port(sites_of(kind, model.layers)[0])
    blocks = model.structure.blocks
    return {
        "module": first.path.replace(f"{blocks}.0", f"{blocks}.{{layer}}") or "the network",
        "side": first.side,
        "convention": " x ".join(MEANINGS[kind].dims) + "; weights neither folded nor centred",
        "units": UNITS.get(kind, "activation"),
        "meaning": MEANINGS[kind].text,
    }
