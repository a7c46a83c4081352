"""What is to be recorded, before any of it is: the name of the volume and what it will cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from scanner.batches import unique_tokens
from scanner.provenance import digest, environment
from scanner.quantised import Bits
from scanner.reading import Chat, Tokens
from scanner.sites import OUTSIDE, PAIRED, Kind
from scanner.sources import Source, anatomy
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
    tokens = unique_tokens(ids) if recording.share else int(lengths.sum())
    return Estimate(numbers * width, tokens)
