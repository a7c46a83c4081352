"""What is to be recorded, before any of it is: the name of the volume and what it will cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from scanner.batches import unique_tokens
from scanner.provenance import digest, environment
from scanner.quantised import Bits
from scanner.reading import Chat, Tokens
from scanner.sites import OUTSIDE, PAIRED, Kind
from scanner.sources import Anatomy, Source, anatomy
from stimuli import StimulusSet

# Raised when the same inputs would be recorded as other numbers, so that no old volume is reused.
FORMAT = 2


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
    bits : str or None
        What the weights of blocks are rounded to (`scanner.quantised`).
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
    bits: Bits | None = None

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
            # Left out where there is none, so that older recordings keep their names.
            **({} if self.bits is None else {"bits": self.bits}),
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
        That go through the model; those that texts share are counted once.
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
    stored = stored_bytes(
        lengths, recording.sites, recording.tokens, anatomy(source),
        store=recording.store, top=recording.top,
    )  # fmt: skip
    return Estimate(stored, unique_tokens(ids) if recording.share else int(lengths.sum()))


def stored_bytes(
    lengths: np.ndarray,
    sites: Sequence[Kind],
    tokens: Tokens,
    size: Anatomy,
    *,
    store: str,
    top: int | None = None,
) -> int:
    """What activations take on disk.

    Parameters
    ----------
    lengths : numpy.ndarray
        Tokens of each text.
    sites : sequence of str
    tokens : str or tuple of int
        Which are kept.
    size : Anatomy
        Of the model.
    store : str
        Dtype of the volume.
    top : int, optional
        How many of the highest logits are kept; all by default.
    """
    if tokens == "all":
        rows, pairs = lengths.sum(), (lengths * (lengths + 1) // 2).sum()
    else:
        several = 1 if isinstance(tokens, str) else len(tokens)
        rows, pairs = len(lengths) * several, lengths.sum() * several
    width, found = np.dtype(store).itemsize, 0
    for kind in sites:
        if kind == "logits" and top is not None:
            found += int(rows) * top * (width + np.dtype("int32").itemsize)  # and their tokens
            continue
        layers = 1 if kind in OUTSIDE else size.layers
        found += int(pairs if kind in PAIRED else rows) * layers * size.sizes[kind] * width
    return found
