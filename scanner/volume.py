"""The recording of one subject: an `xarray.Dataset` on zarr, and the contract that it keeps.

Dimensions, here and in every analysis:

========= ==========================================================================
stimulus  one row of the stimulus table; its labels are coordinates
position  a token of a stimulus, counted from 0
layer     a block of the model, counted from 0
head      an attention head of a layer, counted from 0
unit      a component of a site: of the residual stream, of an MLP, of a head
seed      the seed of an untrained twin
category  a value of the label that an analysis reads
item      a word; the unit that splits and resampling respect
draw      a resample, a split or a permutation
========= ==========================================================================

A volume holds one variable for each kind of site. Analyses name dimensions with these words only.
"""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from scanner.provenance import folder_digest

DIMENSIONS = (
    "stimulus", "position", "layer", "head", "unit", "seed", "category", "item", "draw"
)  # fmt: skip
PROVENANCE = (
    "subject", "revision", "weights", "weights_sha256", "tokenizer_sha256", "config_sha256",
    "stimuli_sha256", "protocol_sha256", "tokens", "dtype", "device", "twin_seed", "code_version",
    "environment", "identities", "time",
)  # fmt: skip
LABELS = ("item", "frame", "category")


class VolumeError(ValueError):
    """A recording that cannot be used; the message names the file, the place and the mend."""


def digest_file(path: Path) -> Path:
    """Where the digest of a finished volume is kept: beside it."""
    return path.with_suffix(".sha256")


def volume_digest(path: Path) -> str:
    """sha256 over the names and bytes of all files of a volume."""
    return folder_digest(path)


def open_volume(path: Path) -> xr.Dataset:
    """Open a finished volume lazily; plain `xarray.open_zarr` does the same.

    Raises
    ------
    VolumeError
        If there is none, its bytes are not those that were recorded, or it breaks the contract.
    """
    if not path.is_dir() or not digest_file(path).is_file():
        raise VolumeError(f"no finished volume at {path}; run `scan record` on the protocol")
    if volume_digest(path) != digest_file(path).read_text().strip():
        raise VolumeError(
            f"volume {path}: its bytes are not those that were recorded. "
            f"Remove it and {digest_file(path).name}, and record again."
        )
    return check_volume(xr.open_zarr(path, consolidated=False), str(path))


def check_volume(volume: xr.Dataset, name: str) -> xr.Dataset:
    """Hold a volume to its contract.

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
    unknown = set(map(str, volume.dims)) - set(DIMENSIONS)
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
        if "stimulus" not in site.dims:
            raise VolumeError(f"volume {name}: '{kind}' has no dimension 'stimulus'")
        check_finite(site, f"volume {name}: {kind}")
    return volume


def check_finite(site: xr.DataArray, name: str) -> None:
    """Refuse NaN and infinity, naming the first by its layer and stimulus.

    Raises
    ------
    VolumeError
    """
    bad = ~np.isfinite(site.to_numpy())
    if not bad.any():
        return
    where = dict(zip(site.dims, np.argwhere(bad)[0], strict=True))
    text = site["text"].to_numpy()[where["stimulus"]] if "text" in site.coords else ""
    place = ", ".join(f"{dim} {index}" for dim, index in where.items())
    raise VolumeError(
        f"{name} is not finite at {place}"
        + (f" ('{text}')" if text else "")
        + f", and in {int(bad.sum())} places in all. A wider dtype (float32) usually mends it."
    )


def provenance(volume: xr.Dataset) -> dict[str, object]:
    """The attributes of a volume, with those decoded that are stored as JSON text."""
    decoded = dict(volume.attrs)
    for key in ("environment", "identities"):
        decoded[key] = json.loads(decoded[key])
    return decoded
