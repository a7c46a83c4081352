"""From a model and its stimuli to a volume on disk: streamed, resumed, never done twice.

A volume is written into ``<name>.zarr.partial`` and renamed when it is whole, so a folder that ends
in ``.zarr`` is a finished recording. Stimuli go through the model in batches that follow from the
stimuli alone; while one is computed, the activations of the last are written where they belong
(`scanner.shards`). A journal names the batches that are on the disk: what is there is not computed
again, and a recording that was interrupted ends with the same bytes as one that was not.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
import zarr

from scanner.batches import Batch, padded, shared, together, unique_tokens
from scanner.device import batch_tokens
from scanner.identities import TOLERANCE
from scanner.model import Model
from scanner.provenance import code_version, digest, environment, now
from scanner.reading import Chat, Reading, Tokens, read
from scanner.shards import create
from scanner.sites import MEANINGS, OUTSIDE, PAIRED, Kind, Site, SiteError, sites_of
from scanner.sources import Source, anatomy
from scanner.streaming import NotFiniteError, Rows, Stream
from scanner.volume import (
    VolumeError,
    digest_file,
    open_volume,
    verify_volume,
    volume_digest,
)
from stimuli import StimulusSet

# Raised when the same inputs would be recorded as other numbers, so that no old volume is reused.
FORMAT = 2
JOURNAL = "journal"
UNITS = {"attn_probs": "probability"}


@dataclass(frozen=True)
class Recording:
    """What is to be recorded, before any of it is: enough to name the volume.

    Attributes
    ----------
    source : Source
    stimuli : StimulusSet
    sites : tuple of str
        Kinds of site, each in every layer.
    tokens : str or tuple of int
        Which tokens are kept (`scanner.reading.read`).
    dtype : str
        Of computing.
    seed : int or None
        Seed of an untrained twin, None for the trained model.
    store : str
        Dtype of the volume.
    share : bool
        Whether texts that begin alike are computed together, where that is proved to be the same.
    top : int or None
        How many of the highest logits are kept; all by default.
    chat : Chat or None
        The conversation that texts are set in.
    truncate : bool
        Whether texts longer than the context are cut.
    """

    source: Source
    stimuli: StimulusSet
    sites: tuple[Kind, ...]
    tokens: Tokens
    dtype: str
    seed: int | None = None
    store: Literal["float32", "float16"] = "float32"
    share: bool = True
    top: int | None = None
    chat: Chat | None = None
    truncate: bool = False

    @property
    def subject(self) -> str:
        return self.source.name if self.seed is None else f"{self.source.name}.twin{self.seed}"

    @property
    def content(self) -> dict[str, object]:
        """All that the numbers follow from, up to the rounding of devices and versions."""
        weights = (
            {"file": self.source.weights_sha256}
            if self.seed is None
            # How transformers draws fresh weights belongs to its version and torch's.
            else {
                "seed": self.seed,
                **{name: environment()[name] for name in ("torch", "transformers")},
            }
        )
        return {
            "format": FORMAT,
            "weights": weights,
            "config": self.source.config_sha256,
            "tokenizer": self.source.tokenizer_sha256,
            "stimuli": self.stimuli.digest,
            "sites": sorted(self.sites),
            "tokens": self.tokens if isinstance(self.tokens, str) else list(self.tokens),
            "dtype": self.dtype,
            "store": self.store,
            "share": self.share,
            "top": self.top,
            "chat": None if self.chat is None else {"system": self.chat.system},
            "truncate": self.truncate,
        }

    @property
    def key(self) -> str:
        """Content key: the same recording has the same key, in every study."""
        return digest(self.content)[:16]

    def path(self, volumes: Path) -> Path:
        """Where the volume lies in a folder of volumes."""
        return volumes / f"{self.subject}--{self.key}.zarr"


class Estimate(NamedTuple):
    """What a recording is going to cost.

    Attributes
    ----------
    bytes : int
        On disk.
    tokens : int
        That go through the model, those that texts share counted once.
    """

    bytes: int
    tokens: int


def estimate(recording: Recording) -> Estimate:
    """What a recording is going to cost, told from configuration and tokenizer alone."""
    from transformers import AutoTokenizer

    source, table = recording.source, recording.stimuli.table
    tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    ids = tokenizer(table["text"].tolist(), verbose=False)["input_ids"]
    lengths = np.array([len(text) for text in ids])
    if recording.tokens == "all":
        rows, pairs = lengths.sum(), (lengths * (lengths + 1) // 2).sum()
    else:
        several = 1 if isinstance(recording.tokens, str) else len(recording.tokens)
        rows, pairs = len(lengths) * several, lengths.sum() * several
    size = anatomy(source)
    numbers = 0
    for kind in recording.sites:
        layers = 1 if kind in OUTSIDE else size.layers
        numbers += int(pairs if kind in PAIRED else rows) * layers * size.sizes[kind]
    width = np.dtype(recording.store).itemsize
    return Estimate(numbers * width, unique_tokens(ids) if recording.share else int(lengths.sum()))


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


def record(
    recording: Recording,
    volumes: Path,
    load: Callable[[], Model],
    *,
    protocol_sha256: str,
    advance: Callable[[int], None] = lambda stimuli: None,
) -> Path:
    """Record a subject, or find that it has been recorded.

    Memory, beyond the model's own in one forward pass and the labels of the rows, is bounded by
    `streaming.IN_FLIGHT` bytes whatever the number of stimuli.

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
        If an activation is not finite or does not fit the dtype of the volume, or what lies at the
        path is damaged or something else.
    SiteError
        If the model has no such site, or fails its proofs.
    StimulusError
        If a stimulus cannot be read (`scanner.reading.read`).
    """
    path = recording.path(volumes)
    if path.exists():
        if not digest_file(path).is_file():  # killed between the last two steps
            _seal(path)
        verify_volume(path)
        _check_content(path, recording)
        advance(len(recording.stimuli))
        return path
    model = load()
    for kind in recording.sites:
        for site in sites_of(kind, model.layers):
            model.structure.port(site)
    if recording.tokens in ("target_mean", "mean") and set(recording.sites) & set(PAIRED):
        raise SiteError(
            f"attention weights have no mean over tokens, which see different keys; scan them with "
            f"`tokens: target`, not `{recording.tokens}`"
        )
    reading = read(
        model, recording.stimuli, recording.tokens, chat=recording.chat, truncate=recording.truncate
    )
    with model.listening(recording.sites), torch.inference_mode():
        sharing = _sharing(model, recording, reading)
        partial = path.with_suffix(".zarr.partial")
        making = _making(model, reading, sharing)
        if not _resumable(partial, making):
            _begin(partial, recording, model, reading, {**making, "protocol": protocol_sha256})
        _fill(partial, recording, model, reading, share=not sharing, advance=advance)
    return _finish(partial, path)


def variables(recording: Recording, model: Model, reading: Reading) -> dict[str, Variable]:
    """The arrays of a volume, by name."""
    found = {}
    for kind in recording.sites:
        if kind in PAIRED:
            rows, dim = sum(int((kept + 1).sum()) for kept in reading.kept), "pair"
        elif reading.ragged:
            rows, dim = sum(map(len, reading.kept)), "token"
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


def _sharing(model: Model, recording: Recording, reading: Reading) -> str:
    """Why texts that begin alike are not computed together; empty if they are."""
    if not recording.share:
        return "not asked for"
    if model.proof.sharing:
        return model.proof.sharing
    longest = max(reading.ids, key=len)
    window = model.window
    if window is not None and len(longest) > window:
        return f"a text of {len(longest)} tokens is longer than the window of {window}"
    try:
        off = _shared_off(model, longest)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        return f"its longest text ({len(longest)} tokens) finds no memory when it shares tokens"
    if off <= TOLERANCE[model.dtype]:
        return ""
    return f"its longest text ({len(longest)} tokens) is off by {off:.2g} when it shares tokens"


def _shared_off(model: Model, longest: list[int]) -> float:
    """How far a text beside itself cut short is from the text alone.

    Of a length that the proofs did not see: attention may be computed otherwise there.
    """
    pair = [longest, [*longest[: len(longest) // 2], model.filler]]
    dtype = next(model.network.parameters()).dtype
    batch = shared(pair, filler=model.filler, dtype=dtype).to(model.device)
    last = Site("resid_post", model.layers - 1)
    alone = model.activations(model.batch([longest]), ("resid_post",))[last][0]
    columns = torch.from_numpy(batch.columns[0]).to(alone.device)
    both = model.activations(batch, ("resid_post",))[last][int(batch.rows[0]), columns]
    return float(((alone - both).norm(dim=-1) / alone.norm(dim=-1)).max())


def _resumable(partial: Path, making: dict[str, object]) -> bool:
    """Whether a recording was begun and can go on; one that was made otherwise is cleared away."""
    if not (partial / "zarr.json").is_file():
        return False
    begun = dict(zarr.open_group(partial, mode="r").attrs)
    if all(begun.get(key) == value for key, value in making.items()):
        return True
    # Half of a volume from another device or version is worth less than a volume of one piece.
    # Killed in the middle of this, it is no beginning any more.
    (partial / "zarr.json").unlink()
    return False


def _making(model: Model, reading: Reading, sharing: str) -> dict[str, object]:
    """What the last bits of a recording depend on, beside its content key."""
    return {
        "device": model.device,
        "attention": model.attention,
        "sharing": sharing or "texts that begin alike are computed together",
        "batch": batch_tokens(model.device),
        "threads": torch.get_num_threads(),
        # Some chat templates tell the date.
        "tokens_sha256": digest(reading.ids),
        "code_version": code_version(),
        "environment": json.dumps(dict(environment())),
    }


def _batches(model: Model, recording: Recording, reading: Reading, share: bool) -> list[np.ndarray]:
    """The stimuli of each batch. Wide logits make smaller ones."""
    tokens = batch_tokens(model.device)
    if "logits" in recording.sites:
        tokens = max(64, min(tokens, 2**25 // model.vocabulary))
    return list(together(reading.ids, share=share, tokens=tokens))


def _fill(
    partial: Path,
    recording: Recording,
    model: Model,
    reading: Reading,
    *,
    share: bool,
    advance: Callable[[int], None],
) -> None:
    """Record the batches that are not there yet."""
    batches = _batches(model, recording, reading, share)
    journal = partial / JOURNAL
    there = set(_journalled(journal))
    rows = _first_rows(recording, reading)
    texts = recording.stimuli.table["text"].to_numpy()

    def name(stimulus: int) -> str:
        return f"stimulus {stimulus} ('{texts[stimulus]}')"

    advance(sum(len(batches[number]) for number in there))
    names = variables(recording, model, reading)
    try:
        with closing(Stream(partial, journal, recording.subject, names, name)) as stream:
            for number, batch in enumerate(batches):
                if number in there:
                    continue
                _pass(batch, recording, model, reading, rows, stream, share=share)
                stream.done(number)
                advance(len(batch))
            stream.finish()
    except NotFiniteError as error:
        raise NotFiniteError(error.where, [_culprit(error.stimuli, model, reading)], name) from None


def _culprit(stimuli: list[int], model: Model, reading: Reading) -> int:
    """The one that is not finite by itself: in a row that texts share, NaN reaches them all."""
    last = Site("resid_post", model.layers - 1)
    for one in stimuli:
        heard = model.activations(model.batch([reading.ids[one]]), ("resid_post",))
        if not heard[last].isfinite().all():
            return one
    return stimuli[0]


def _journalled(journal: Path) -> list[int]:
    """Batches that are on the disk. A line that was being written when killed does not count."""
    if not journal.is_file():
        return []
    *lines, unfinished = journal.read_bytes().split(b"\n")
    if unfinished:  # in one step: to write the rest anew could be killed, and lose it
        os.truncate(journal, journal.stat().st_size - len(unfinished))
    return [int(line) for line in lines]


class _FirstRows(NamedTuple):
    """Where the rows of each stimulus begin, in arrays of tokens and of pairs."""

    token: np.ndarray
    pair: np.ndarray


def _first_rows(recording: Recording, reading: Reading) -> _FirstRows:
    tokens = np.array([len(kept) for kept in reading.kept])
    pairs = np.array([int((kept + 1).sum()) for kept in reading.kept])
    return _FirstRows(*(np.cumsum(np.append(0, sizes[:-1])) for sizes in (tokens, pairs)))


def _pass(
    stimuli: np.ndarray,
    recording: Recording,
    model: Model,
    reading: Reading,
    rows: _FirstRows,
    stream: Stream,
    *,
    share: bool,
) -> None:
    """One forward pass; in halves, where the device has too little memory for it."""
    try:
        _forward(stimuli, recording, model, reading, rows, stream, share=share)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        if len(stimuli) == 1:
            raise VolumeError(
                f"{recording.subject}: {model.device} has too little memory for stimulus "
                f"{stimuli[0]} alone ({len(reading.ids[stimuli[0]])} tokens). Take a smaller dtype "
                "or a shorter text, or close what else runs on it."
            ) from None
    else:
        return
    if model.device == "cuda":
        torch.cuda.empty_cache()
    for half in np.array_split(stimuli, 2):
        _pass(half, recording, model, reading, rows, stream, share=share)


def _out_of_memory(error: RuntimeError) -> bool:
    # The CPU and MPS have no error of their own for it, nor have CUDA's copies.
    said = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def _forward(
    stimuli: np.ndarray,
    recording: Recording,
    model: Model,
    reading: Reading,
    rows: _FirstRows,
    stream: Stream,
    *,
    share: bool,
) -> None:
    ids = [reading.ids[one] for one in stimuli]
    if share:
        dtype = next(model.network.parameters()).dtype
        batch = shared(ids, filler=model.filler, dtype=dtype)
    else:
        batch = padded(ids, filler=model.filler)
    kept = _Kept(batch, stimuli, reading, rows, model.device)
    batch = batch.to(model.device)
    columns = kept.columns if model.chooses_columns else None

    def keep(site: Site, activation: torch.Tensor) -> None:
        if site.kind == "logits" and recording.top is not None:
            values = kept.take(site.kind, activation, chosen=columns is not None)
            values, tokens = values.float().topk(min(recording.top, model.vocabulary), dim=-1)
            stream.put("logits_token", None, kept.rows(site.kind), tokens.int())
        else:
            values = kept.take(site.kind, activation, chosen=columns is not None)
        stream.put(site.kind, site.layer, kept.rows(site.kind), values)

    with model.visiting(recording.sites, keep):
        model.forward(batch, head="logits" in recording.sites, columns=columns)


class _Kept:
    """Which activations of a batch are kept, and which rows of the volume they are."""

    def __init__(
        self, batch: Batch, stimuli: np.ndarray, reading: Reading, rows: _FirstRows, device: str
    ):
        self._batch, self._stimuli, self._first, self._device = batch, stimuli, rows, device
        self._kept = [reading.kept[one] for one in stimuli]
        self._sizes = np.array([len(some) for some in self._kept])
        self._positions = None if isinstance(reading.tokens, str) else len(reading.tokens)
        self._row = self._there(np.repeat(batch.rows, self._sizes))
        column = [columns[some] for columns, some in zip(batch.columns, self._kept, strict=True)]
        self._column = self._there(np.concatenate(column))
        self.columns, self._chosen = torch.unique(self._column, return_inverse=True)
        self._rows = Rows(stimuli, stimuli)
        if reading.ragged:
            self._rows = self._ragged(rows.token, self._sizes)
        self._weights = self._mean() if reading.pooled else None

    def _there(self, indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(indices).to(self._device)

    def _ragged(self, first: np.ndarray, sizes: np.ndarray) -> Rows:
        """Rows of stimuli that have several each, given where those of each begin."""
        numbers = np.repeat(first[self._stimuli], sizes) + _counted(sizes)
        return Rows(numbers, np.repeat(self._stimuli, sizes))

    def _mean(self) -> torch.Tensor:
        """stimulus x kept token, weights of a mean."""
        weights = np.repeat(np.eye(len(self._sizes)) / self._sizes, self._sizes, axis=1)
        return self._there(weights.astype(np.float32))

    @cached_property
    def _pairs(self) -> tuple[Rows, tuple[torch.Tensor, ...]]:
        """Each kept token with the tokens it sees, itself the last: row, query and key."""
        keys = [some + 1 for some in self._kept]
        sizes = np.array([some.sum() for some in keys])
        row = np.repeat(self._batch.rows, sizes)
        query, key = [], []
        for columns, some, seen in zip(self._batch.columns, self._kept, keys, strict=True):
            query.append(np.repeat(columns[some], seen))
            key.append(columns[_counted(seen)])
        places = (row, np.concatenate(query), np.concatenate(key))
        return self._ragged(self._first.pair, sizes), tuple(map(self._there, places))

    def rows(self, kind: Kind) -> Rows:
        """The rows of the volume that a kind's activations go to."""
        return self._pairs[0] if kind in PAIRED else self._rows

    def take(self, kind: Kind, activation: torch.Tensor, *, chosen: bool) -> torch.Tensor:
        """What is kept of an activation: a row of the volume each, a copy."""
        # Indexing with tensors copies, so later in-place work of the model cannot reach it.
        if kind in PAIRED:
            row, query, key = self._pairs[1]
            return activation[row, :, query, key]
        column = self._chosen if kind == "logits" and chosen else self._column
        values = activation[self._row, column]
        if self._weights is not None:
            return _pooled(self._weights, values.float().flatten(1)).unflatten(1, values.shape[1:])
        if self._positions is not None:
            return values.unflatten(0, (-1, self._positions))
        return values


def _counted(sizes: np.ndarray) -> np.ndarray:
    """0 to the first size, 0 to the second, …: one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _pooled(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The mean of each stimulus, where what is not finite in one does not reach the others."""
    finite = values.isfinite()
    mean = weights @ values.where(finite, 0)
    return mean.masked_fill(weights @ (~finite).float() > 0, torch.nan)


def _begin(
    partial: Path,
    recording: Recording,
    model: Model,
    reading: Reading,
    making: dict[str, object],
) -> None:
    """Lay down labels, provenance and the empty arrays; the rename makes it a beginning."""
    proof = model.proof
    tokens = sum(map(len, reading.ids))
    attributes = {
        "subject": recording.subject,
        "revision": recording.source.revision,
        "weights": recording.source.weights if recording.seed is None else "fresh",
        "weights_sha256": model.weights_sha256,
        "tokenizer_sha256": recording.source.tokenizer_sha256,
        "config_sha256": recording.source.config_sha256,
        "stimuli_sha256": recording.stimuli.digest,
        "protocol_sha256": making["protocol"],
        "tokens": recording.content["tokens"],
        "dtype": recording.dtype,
        "store": recording.store,
        "chat": "none" if recording.chat is None else json.dumps(recording.content["chat"]),
        "twin_seed": "none" if recording.seed is None else recording.seed,
        "initialisation": model.initialisation(),
        **{key: value for key, value in making.items() if key != "protocol"},
        "content": json.dumps(recording.content),
        "identities": json.dumps(proof.deviations),
        "refused": json.dumps(dict(model.structure.refused)),
        "residual_multiplier": model.structure.multiplier,
        "entry": model.structure.entry,
        "tokens_read": tokens,
        "tokens_unique": unique_tokens(reading.ids),
        "time": now(),
    }
    partial.parent.mkdir(parents=True, exist_ok=True)
    found = variables(recording, model, reading)
    staging = partial.with_suffix(".begun")
    _coordinates(model, reading, found).to_zarr(
        staging, mode="w", zarr_format=3, consolidated=False
    )
    group = zarr.open_group(staging, mode="r+")
    group.attrs.update(attributes)
    for name, variable in found.items():
        array = create(
            group,
            name,
            shape=variable.shape,
            layered=variable.layered,
            dims=variable.dims,
            dtype="int32" if name == "logits_token" else recording.store,
        )
        array.attrs.update(_description(name, model))
    if partial.exists():  # what another device or version had begun
        shutil.rmtree(partial)
    os.replace(staging, partial)


def _coordinates(model: Model, reading: Reading, found: dict[str, Variable]) -> xr.Dataset:
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
    sizes = np.array([len(kept) for kept in reading.kept])
    stimuli = np.arange(len(sizes))
    if "token" in dims:
        coords["token_stimulus"] = ("token", np.repeat(stimuli, sizes))
        coords["token_position"] = ("token", np.concatenate(reading.kept))
        ids = [np.array(ids)[kept] for ids, kept in zip(reading.ids, reading.kept, strict=True)]
        coords["token_id"] = ("token", np.concatenate(ids))
    if "pair" in dims:
        pairs = [int((kept + 1).sum()) for kept in reading.kept]
        queries = np.concatenate([np.repeat(kept, kept + 1) for kept in reading.kept])
        keys = np.concatenate([np.arange(one + 1) for kept in reading.kept for one in kept])
        coords["pair_stimulus"] = ("pair", np.repeat(stimuli, pairs))
        coords["pair_query"], coords["pair_key"] = ("pair", queries), ("pair", keys)
    return xr.Dataset(coords=coords)


def _description(name: str, model: Model) -> dict[str, str]:
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


def _finish(partial: Path, path: Path) -> Path:
    """Rename and leave the digest beside; each step can be killed and is taken up again."""
    os.replace(partial, path)
    _seal(path)
    open_volume(path)
    return path


def _seal(path: Path) -> None:
    """Leave the digest beside a volume, whole or not at all: half of one would condemn it."""
    # Only now: what was renamed is not computed again, journal or none.
    (path / JOURNAL).unlink(missing_ok=True)
    staging = digest_file(path).with_name(f".{path.stem}.sha256.writing")
    staging.write_text(volume_digest(path) + "\n")
    os.replace(staging, digest_file(path))


def _check_content(path: Path, recording: Recording) -> None:
    """A volume that was renamed or copied there is not another model's."""
    attributes = zarr.open_group(path, mode="r").attrs
    wanted = json.loads(json.dumps(recording.content))
    found = json.loads(str(attributes.get("content", "{}")))
    other = next((key for key in wanted if wanted[key] != found.get(key)), None)
    if other is not None:
        raise VolumeError(
            f"volume {path}: it was recorded with other {other} ({found.get(other)}, not "
            f"{wanted[other]}). Remove it and {digest_file(path).name}, and record again."
        )
