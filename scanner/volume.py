"""The recording of one subject: an `xarray.Dataset` on zarr, and the contract that it keeps.

Dimensions, here and in every analysis:

========== =========================================================================
stimulus   one row of the stimulus table; its labels are coordinates. Of weights, a matrix
token      a token of a stimulus, all those of the first, then of the second; which
           they are say ``token_stimulus``, ``token_position``, ``token_id``
pair       a token and one that it sees, itself included; ``pair_stimulus``,
           ``pair_query`` and ``pair_key`` (positions)
position   one of the positions that a scan asked for, counted from 0
layer      a block of the model, counted from 0
head       an attention head of a layer, counted from 0
kv_head    a head of keys and values, which several heads of queries may share
head_unit  a component within a head
unit       a component of the residual stream; in measures, of any site
neuron     a component of what enters the last projection of an MLP
expert     of a mixture
vocabulary a token of the vocabulary, by its id
rank       a place among the highest logits, the highest first
part       what is left out of a layer by a lesion: block, attention or MLP
target     what was acted on: what a claim is about, or what it is held against
later      how many blocks after it was acted on activations are read
column     a score of a probe: a value of its label
kind       of site
place      a token of the text, by what it is
dose       how much was added, in standard deviations
size       how much was added, in median lengths of the stream
factor     what was multiplied by
offset     tokens after the target, or before it where negative
feature    of a dictionary (`scanner.dictionaries`)
read       the layer of the stream that is read, behind a block
seed       the seed of an untrained twin
category   a value of the label that an analysis reads
item       a word; the unit that splits and resampling respect
draw       a resample, a split or a permutation
block      a layer of a map that is judged as a whole
========== =========================================================================

A volume holds one variable for each kind of site, and what lesions did. Its first dimension is what
a row is: stimulus, token or pair. Analyses name dimensions with these words only.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from scanner.object_store import Store, is_url
from scanner.provenance import digest, folder_digest
from scanner.shard_reader import open_shards
from scanner.shards import VolumeError, damaged

DIMENSIONS = (
    "stimulus", "token", "pair", "position", "layer", "head", "kv_head", "head_unit", "unit",
    "neuron", "expert", "vocabulary", "rank",
)  # fmt: skip
# Of what was done to a subject. Stimuli may have labels of these names: there they are left out.
EFFECTS = (
    "part", "target", "later", "column", "kind", "place", "dose", "size", "read", "factor",
    "offset", "towards", "fresh", "tried", "feature", "parcel", "other_parcel", "draw", "block",
)  # fmt: skip
ROWS = ("stimulus", "token", "pair")
PROVENANCE = (
    "subject", "revision", "weights", "weights_sha256", "tokenizer_sha256", "config_sha256",
    "stimuli_sha256", "protocol_sha256", "tokens", "dtype", "device", "twin_seed", "code_version",
    "environment", "identities", "time",
)  # fmt: skip
LABELS = ("item", "frame", "category")
# In a volume that is being recorded, the batches that are there.
JOURNAL = "journal"
# There, too, what several processes have recorded of it.
PARTS = "parts"


def digest_file(path: Path) -> Path:
    """Where the digest of a finished volume is kept: beside it."""
    return path.with_suffix(".sha256")


def volume_digest(path: Path, known: Mapping[str, str] | None = None) -> str:
    """sha256 over the names and bytes of all files of a volume, those known by name not read."""
    return folder_digest(path, known)


def seal(path: Path, known: Mapping[str, str] | None = None) -> None:
    """Leave the digest beside a volume, whole or not at all: half of one would condemn it.

    Parameters
    ----------
    path : pathlib.Path
    known : mapping of str to str, optional
        sha256 of files that were hashed when they were written, by their path in the volume.
    """
    # Only now: what was renamed is not computed again, journal or none.
    (path / JOURNAL).unlink(missing_ok=True)
    staging = digest_file(path).with_name(f".{path.stem}.sha256.writing")
    staging.write_text(volume_digest(path, known) + "\n")
    os.replace(staging, digest_file(path))


def check_content(path: Path, content: Mapping[str, object]) -> None:
    """Hold a volume to what it should have been recorded from: it may have been renamed or copied.

    Raises
    ------
    VolumeError
    """
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    wanted = json.loads(json.dumps(content))
    found = json.loads(str(attributes.get("content", "{}")))
    other = next((key for key in wanted if wanted[key] != found.get(key)), None)
    if other is not None:
        raise VolumeError(
            f"volume {path}: it was recorded with other {other} ({found.get(other)}, not "
            f"{wanted[other]}). Remove it and {digest_file(path).name}, and record again."
        )


def open_volume(path: Path | str) -> xr.Dataset:
    """Open a finished volume lazily: what plain `xarray.open_zarr` gives, and read faster.

    One in object storage (``"s3://bucket/results/volumes/NAME.zarr"``) is read by zarr itself.

    Nothing but labels is read. Each chunk carries a checksum, which it is held to when it is read,
    unless only a few of its rows are; `verify_volume` checks all of them.

    Raises
    ------
    VolumeError
        If there is none, or it breaks the contract. Reading values raises it where they are
        damaged.
    """
    if isinstance(path, str) and is_url(path):
        volume = _open_remote(path)
    elif not Path(path).is_dir() or not digest_file(Path(path)).is_file():
        raise VolumeError(absent(path))
    else:
        volume = open_shards(Path(path))
    _check_structure(volume, str(path))
    return volume


def _open_remote(url: str) -> xr.Dataset:
    """A volume in object storage."""
    from zarr.storage import ObjectStore

    _remote_digest(url)
    store = Store(url)
    objects = ObjectStore(store.objects, read_only=True)
    with store.told():  # without chunks: where dask is installed, xarray would have it read them
        volume = xr.open_zarr(objects, chunks=None, consolidated=False)
    volume.encoding["source"] = url
    return volume


def _remote_digest(url: str) -> str:
    """The digest of a finished volume in object storage."""
    folder, _, name = url.rstrip("/").rpartition("/")
    there = stored_digest(Store(folder), name)
    if there is None:
        raise VolumeError(absent(url))
    return there


def stored_digest(volumes: Store, name: str) -> str | None:
    """The digest of a volume in object storage; None if it is not there, or not wholly."""
    there = volumes.get(digest_file(Path(name)).name)
    return None if there is None else there.content.decode().strip()


def absent(path: Path | str) -> str:
    """What is said of a volume that is not there."""
    return f"no finished volume at {path}; run `scan record` on the protocol"


def damaged_volume(path: Path | str, where: str = "") -> str:
    """What is said of a volume that is not what was recorded."""
    return (
        f"volume {path}: its bytes are not those that were recorded{where}. "
        f"Remove it and {digest_file(Path(path)).name}, and record again."
    )


def verify_volume(path: Path | str) -> None:
    """Read all bytes of a finished volume and hold them against what was recorded.

    Raises
    ------
    VolumeError
        If they differ; the message names the first chunk that does.
    """
    if isinstance(path, str) and is_url(path):
        if digest(Store(path).sha256()) != _remote_digest(path):
            raise VolumeError(damaged_volume(path))
        return
    path = Path(path)
    if not digest_file(path).is_file():
        raise VolumeError(absent(path))
    if volume_digest(path) != digest_file(path).read_text().strip():
        raise VolumeError(damaged_volume(path, _first_damage(path)))


def _first_damage(path: Path) -> str:
    """The first chunk whose checksum is wrong, if it is a chunk that was changed."""
    for array in sorted(one.parent for one in path.glob("*/zarr.json")):
        try:
            for damage in damaged(array):
                return f" ({damage})"
        except (ValueError, KeyError, OSError):  # no shards, or metadata that were changed
            continue
    return ""


def check_volume(volume: xr.Dataset, name: str) -> xr.Dataset:
    """Hold a volume to its contract, its numbers included, one layer at a time.

    Parameters
    ----------
    volume : xarray.Dataset
    name : str
        What error messages call it.

    Returns
    -------
    xarray.Dataset
        The same volume.

    Raises
    ------
    VolumeError
        For an unknown dimension, a missing label or attribute, a site without stimuli, or a value
        that is not finite (named by site, layer and stimulus).
    """
    _check_structure(volume, name)
    for kind, site in volume.data_vars.items():
        check_finite(site, f"volume {name}: {kind}")
    return volume


def _check_structure(volume: xr.Dataset, name: str) -> None:
    unknown = set(map(str, volume.dims)) - {*DIMENSIONS, *EFFECTS}
    if unknown:
        raise VolumeError(f"volume {name}: unknown dimension '{min(unknown)}'")
    for label in LABELS:
        if label not in volume.coords or volume[label].dims != ("stimulus",):
            raise VolumeError(f"volume {name}: no label '{label}' on its stimuli")
    missing = [key for key in PROVENANCE if key not in volume.attrs]
    if missing:
        raise VolumeError(
            f"volume {name}: no attribute '{missing[0]}'; where it comes from is lost"
        )
    if not volume.data_vars:
        raise VolumeError(f"volume {name}: no site was recorded")
    for kind, site in volume.data_vars.items():
        if not set(ROWS) & set(site.dims):
            raise VolumeError(f"volume {name}: '{kind}' has no dimension 'stimulus'")


def check_finite(site: xr.DataArray, name: str) -> None:
    """Refuse NaN and infinity, naming the first by its layer and stimulus.

    Raises
    ------
    VolumeError
    """
    layers = range(site.sizes["layer"]) if "layer" in site.dims else [None]
    for layer in layers:
        part = site if layer is None else site.isel(layer=[layer])
        bad = ~np.isfinite(part.to_numpy())
        if not bad.any():
            continue
        where = dict(zip(part.dims, np.argwhere(bad)[0], strict=True))
        if layer is not None:
            where["layer"] = layer
        row = where.get("stimulus")
        text = site["text"].to_numpy()[row] if row is not None and "text" in site.coords else ""
        place = ", ".join(f"{dim} {index}" for dim, index in where.items())
        raise VolumeError(
            f"{name} is not finite at {place}"
            + (f" ('{text}')" if text else "")
            + f", and in {int(bad.sum())} places of that layer. "
            "A wider dtype (float32) usually mends it."
        )


def provenance(volume: xr.Dataset) -> dict[str, object]:
    """The attributes of a volume, with those decoded that are stored as JSON text."""
    decoded = dict(volume.attrs)
    for key in ("environment", "identities", "refused", "content", "phantom", "off_from_cpu"):
        if key not in decoded:
            continue
        decoded[key] = json.loads(decoded[key])
    return decoded
