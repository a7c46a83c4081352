"""From a model and its stimuli to a volume on disk: streamed, resumed, never done twice.

A volume is written into ``<name>.zarr.partial`` and renamed when it is whole, so a folder that ends
in ``.zarr`` is a finished recording. One chunk holds the same stimuli for all layers; it is written
in one piece and its presence means that these stimuli are done, which is all that resuming needs.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
import zarr

from scanner.model import Model
from scanner.provenance import code_version, digest, environment, now
from scanner.sites import KINDS, Kind
from scanner.sources import Source
from scanner.volume import (
    VolumeError,
    check_finite,
    digest_file,
    open_volume,
    volume_digest,
)
from stimuli import StimulusError, StimulusSet

# Raised when the same inputs would be recorded as other numbers, so that no old volume is reused.
FORMAT = 1
# About 4 to 16 MB: zarr takes some 2 ms a chunk, and a lost chunk is recorded anew.
CHUNK_BYTES = 8_000_000
BATCH = 32


@dataclass(frozen=True)
class Recording:
    """What is to be recorded, before any of it is: enough to name the volume.

    Attributes
    ----------
    source : Source
    stimuli : StimulusSet
    sites : tuple of str
        Kinds of site, each in every layer.
    tokens : str
        ``target``: the last token of the target.
    dtype : str
        Of computing; volumes are stored in float32.
    seed : int or None
        Seed of an untrained twin, None for the trained model.
    """

    source: Source
    stimuli: StimulusSet
    sites: tuple[Kind, ...]
    tokens: str
    dtype: str
    seed: int | None = None

    @property
    def subject(self) -> str:
        return self.source.name if self.seed is None else f"{self.source.name}.twin{self.seed}"

    @property
    def key(self) -> str:
        """Content key: the same recording has the same key, in every study."""
        weights = (
            {"file": self.source.weights_sha256}
            if self.seed is None
            # How transformers draws fresh weights belongs to its version and torch's.
            else {
                "config": self.source.config_sha256,
                "seed": self.seed,
                **{name: environment()[name] for name in ("torch", "transformers")},
            }
        )
        return digest(
            {
                "format": FORMAT,
                "weights": weights,
                "tokenizer": self.source.tokenizer_sha256,
                "stimuli": self.stimuli.digest,
                "sites": sorted(self.sites),
                "tokens": self.tokens,
                "dtype": self.dtype,
            }
        )[:16]

    def path(self, volumes: Path) -> Path:
        """Where the volume lies in a folder of volumes."""
        return volumes / f"{self.subject}--{self.key}.zarr"

    def bytes(self, *, layers: int, width: int) -> int:
        """Size of the activations on disk."""
        return len(self.stimuli) * len(self.sites) * layers * width * 4


def record(
    recording: Recording,
    volumes: Path,
    load: Callable[[], Model],
    *,
    protocol_sha256: str,
    advance: Callable[[int], None] = lambda stimuli: None,
) -> Path:
    """Record a subject, or find that it has been recorded.

    Parameters
    ----------
    recording : Recording
    volumes : pathlib.Path
        Folder of volumes.
    load : callable
        Gives the model; called only if something is left to record.
    protocol_sha256 : str
        Digest of the protocol that asked for the recording first.
    advance : callable
        Told the number of stimuli whenever some are done.

    Returns
    -------
    pathlib.Path
        The finished volume.

    Raises
    ------
    VolumeError
        If an activation is not finite, or what lies at the path is damaged.
    StimulusError
        If a stimulus is longer than the context, its target has no token, or a column of the table
        has a name that volumes use.
    """
    path = recording.path(volumes)
    if path.exists():
        if not digest_file(path).is_file():  # killed between the last two steps
            _seal(path)
        open_volume(path)
        advance(len(recording.stimuli))
        return path
    model = load()
    partial = path.with_suffix(".zarr.partial")
    ids, targets, table = _tokenized(model, recording.stimuli)
    if not _resumable(partial, model):
        _begin(partial, recording, model, table, protocol_sha256)
    for leftover in partial.rglob("*.partial"):  # a chunk that was being written when killed
        leftover.unlink()
    _fill(partial, recording, model, ids, targets, advance)
    return _finish(partial, path)


def _resumable(partial: Path, model: Model) -> bool:
    """Whether a recording was begun and can go on; one that was made otherwise is cleared away."""
    if not (partial / "zarr.json").is_file():
        return False
    begun = dict(zarr.open_group(partial, mode="r").attrs)
    if all(begun.get(key) == value for key, value in _making(model).items()):
        return True
    # Half of a volume from another device or version is worth less than a volume of one piece.
    shutil.rmtree(partial)
    return False


def _making(model: Model) -> dict[str, str | int]:
    """What the last bits of a recording depend on, beside its content key."""
    return {
        "device": model.device,
        "attention": model.network.config._attn_implementation,
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "code_version": code_version(),
        "environment": json.dumps(dict(environment())),
    }


def _fill(
    partial: Path,
    recording: Recording,
    model: Model,
    ids: list[list[int]],
    targets: np.ndarray,
    advance: Callable[[int], None],
) -> None:
    """Record the chunks that are not there yet."""
    texts = recording.stimuli.table["text"].to_numpy()
    group = zarr.open_group(partial, mode="r+")
    sites = {kind: _array(group, kind) for kind in recording.sites}
    step = next(iter(sites.values())).chunks[0]
    for chunk, start in enumerate(range(0, len(ids), step)):
        rows = np.arange(start, min(start + step, len(ids)))
        todo: tuple[Kind, ...] = tuple(
            kind
            for kind in recording.sites
            if not (partial / sites[kind].path / f"c/{chunk}/0/0").is_file()
        )
        if todo:
            for kind, values in _chunk(model, todo, ids, targets, rows).items():
                check_finite(
                    xr.DataArray(
                        values,
                        dims=("stimulus", "layer", "unit"),
                        coords={"text": ("stimulus", texts[rows])},
                    ),
                    f"{recording.subject}: {kind} of stimuli {rows[0]} to {rows[-1]}",
                )
                sites[kind][rows[0] : rows[-1] + 1] = values
        advance(len(rows))


def _array(group: zarr.Group, kind: Kind) -> zarr.Array:
    array = group[kind]
    if not isinstance(array, zarr.Array):
        raise VolumeError(f"volume {group.store_path}: '{kind}' is no array")
    return array


def _chunk(
    model: Model,
    kinds: tuple[Kind, ...],
    ids: list[list[int]],
    targets: np.ndarray,
    rows: np.ndarray,
) -> dict[Kind, np.ndarray]:
    """Activations of some stimuli, stimulus x layer x unit, in batches of a fixed shape."""
    parts: dict[Kind, list[np.ndarray]] = {kind: [] for kind in kinds}
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        heard = model.activations(
            model.batch([ids[row] for row in some]), kinds, torch.from_numpy(targets[some])
        )
        for kind, values in heard.items():
            parts[kind].append(values.to(torch.float32).numpy())
    return {kind: np.concatenate(values) for kind, values in parts.items()}


def _tokenized(
    model: Model, stimuli: StimulusSet
) -> tuple[list[list[int]], np.ndarray, pd.DataFrame]:
    """Token ids, the position of each target's last token, and the table with what tokens tell."""
    table = stimuli.table
    taken = {"layer", "unit", "n_tokens", "target_position", "first_token", "last_token", *KINDS}
    for column in table.columns:
        if column in taken:
            raise StimulusError(
                f"stimuli '{stimuli.name}': a volume holds '{column}' of its own; rename the column"
            )
    ids, offsets = model.tokenize(table["text"].tolist())
    last, counts, first_ids, last_ids = [], [], [], []
    spans = zip(table["text"], table["target_start"], table["target_end"], strict=True)
    for row, (text, start, end) in enumerate(spans):
        if len(ids[row]) > model.context:
            raise StimulusError(
                f"stimulus {row} ('{text[:40]}…') has {len(ids[row])} tokens; "
                f"'{model.source.name}' reads at most {model.context}"
            )
        # Tokens that overlap the target. Many begin with the space before the word, and special
        # tokens have the empty span 0 to 0.
        inside = [
            position
            for position, (left, right) in enumerate(offsets[row])
            if left < right and left < end and right > start
        ]
        if not inside:
            raise StimulusError(f"stimulus {row} ('{text}'): its target has no token of its own")
        last.append(inside[-1])
        counts.append(len(inside))
        first_ids.append(ids[row][inside[0]])
        last_ids.append(ids[row][inside[-1]])
    targets = np.array(last)
    return (
        ids,
        targets,
        table.assign(
            n_tokens=counts, target_position=targets, first_token=first_ids, last_token=last_ids
        ),
    )


def _begin(
    partial: Path, recording: Recording, model: Model, table: pd.DataFrame, protocol_sha256: str
) -> None:
    """Lay down labels, provenance and the empty arrays; ``zarr.json`` of the group comes last."""
    identities = model.prove()
    labels = {
        str(name): (
            "stimulus",
            np.array(column.to_numpy(), dtype=np.dtypes.StringDType())
            if pd.api.types.is_string_dtype(column)
            else column.to_numpy(),
        )
        for name, column in table.items()
    }
    attributes = {
        "subject": recording.subject,
        "revision": recording.source.revision,
        "weights": recording.source.weights if recording.seed is None else "fresh",
        "weights_sha256": model.weights_digest(),
        "tokenizer_sha256": recording.source.tokenizer_sha256,
        "config_sha256": recording.source.config_sha256,
        "stimuli_sha256": recording.stimuli.digest,
        "protocol_sha256": protocol_sha256,
        "tokens": recording.tokens,
        "dtype": recording.dtype,
        "twin_seed": "none" if recording.seed is None else recording.seed,
        "initialisation": model.initialisation(),
        **_making(model),
        "identities": json.dumps(identities),
        "time": now(),
    }
    layers, width = model.layers, model.width
    chunk = max(1, CHUNK_BYTES // (layers * width * 4))
    partial.parent.mkdir(parents=True, exist_ok=True)
    skeleton = xr.Dataset(coords={**labels, "layer": np.arange(layers), "unit": np.arange(width)})
    staging = partial.with_suffix(".begun")
    skeleton.to_zarr(staging, mode="w", zarr_format=3, consolidated=False)
    group = zarr.open_group(staging, mode="r+")
    group.attrs.update(attributes)
    for kind in recording.sites:
        array = group.create_array(
            kind,
            shape=(len(table), layers, width),
            chunks=(min(chunk, len(table)), layers, width),
            dtype="float32",
            fill_value=float("nan"),
            compressors=None,
            dimension_names=("stimulus", "layer", "unit"),
        )
        array.attrs.update(
            side="output" if kind == "resid_post" else "input",
            units="activation",
            convention="weights neither folded nor centred",
        )
    os.replace(staging, partial)


def _finish(partial: Path, path: Path) -> Path:
    """Rename and leave the digest beside; each step can be killed and is taken up again."""
    os.replace(partial, path)
    _seal(path)
    open_volume(path)
    return path


def _seal(path: Path) -> None:
    """Leave the digest beside a volume, whole or not at all: half of one would condemn it."""
    staging = digest_file(path).with_name(f".{path.stem}.sha256.writing")
    staging.write_text(volume_digest(path) + "\n")
    os.replace(staging, digest_file(path))
