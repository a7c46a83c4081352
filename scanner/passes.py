"""The forward passes of a recording, and what is kept of each."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from scanner.batches import Batch, padded, shared, together
from scanner.device import batch_tokens
from scanner.model import Model
from scanner.plan import Recording
from scanner.reading import Reading
from scanner.sites import PAIRED, Kind, Site
from scanner.streaming import Rows, Taker
from scanner.volume import VolumeError

# Numbers that the logits of a batch may have, where they are recorded.
LOGITS = 2**24


class Passes:
    """The forward passes of a recording.

    Parameters
    ----------
    recording : Recording
    model : Model
        Set to hear what is recorded (`Model.listening`).
    reading : Reading
    share : bool
        Whether texts that begin alike are computed together.

    Attributes
    ----------
    tokens : int
        How many a batch may have.
    batches : list of list of numpy.ndarray
        The stimuli of each row of each batch. They follow from the stimuli alone.
    """

    def __init__(self, recording: Recording, model: Model, reading: Reading, *, share: bool):
        self._recording, self._model, self._reading = recording, model, reading
        self._share = share
        self._first = _first_rows(reading)
        self.tokens = batch_tokens(model.device)
        if "logits" in recording.sites:
            self.tokens = max(64, min(self.tokens, LOGITS // model.vocabulary))
        self.batches = list(together(reading.ids, share=share, tokens=self.tokens))

    def run(self, rows: Sequence[np.ndarray], stream: Taker) -> None:
        """One forward pass into a stream; in halves, where the device has too little memory for it.

        Raises
        ------
        VolumeError
            If there is too little memory for one stimulus.
        """
        try:
            self._forward(rows, stream)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(rows) == len(rows[0]) == 1:
                (one,) = rows[0]
                raise VolumeError(
                    f"{self._recording.subject}: {self._model.device} has too little memory for "
                    f"stimulus {one} alone ({len(self._reading.ids[one])} tokens). Take a smaller "
                    "dtype or a shorter text, or close what else runs on it."
                ) from None
        else:
            return
        if self._model.device == "cuda":
            torch.cuda.empty_cache()
        for half in _halves(rows):
            self.run(half, stream)

    def _forward(self, rows: Sequence[np.ndarray], stream: Taker) -> None:
        recording, model, ids = self._recording, self._model, self._reading.ids
        if self._share:
            texts = [[ids[one] for one in row] for row in rows]
            batch = shared(texts, filler=model.filler, dtype=model.network.dtype)
        else:
            batch = padded([ids[one] for row in rows for one in row], filler=model.filler)
        kept = _Kept(batch, np.concatenate(rows), self._reading, self._first, model.device)
        batch = batch.to(model.device)
        columns = kept.columns if model.chooses_columns else None

        def keep(site: Site, activation: torch.Tensor) -> None:
            rows = kept.rows(site.kind)
            values, pick = kept.take(site.kind, activation, chosen=columns is not None)
            if site.kind == "logits" and recording.top is not None:
                values, tokens = values.float().topk(min(recording.top, model.vocabulary), dim=-1)
                stream.put("logits_token", None, rows, tokens.int())
            stream.put(site.kind, site.layer, rows, values, pick=pick)

        # Where a model lies on several devices, what is kept is picked out where it was computed.
        with model.visiting(recording.sites, keep, gather=False):
            model.forward(batch, head="logits" in recording.sites, columns=columns)


def _halves(rows: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Half of the rows each, or of a single row half of its stimuli each."""
    if len(rows) == 1:
        return [[half] for half in np.array_split(rows[0], 2)]
    middle = len(rows) // 2
    return [[*rows[:middle]], [*rows[middle:]]]


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device said that it has no memory left."""
    # The CPU and MPS have no error of their own for it, nor have CUDA's copies.
    said = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


class _FirstRows(NamedTuple):
    """Where the rows of each stimulus begin, in arrays of tokens and of pairs."""

    token: np.ndarray
    pair: np.ndarray


def _first_rows(reading: Reading) -> _FirstRows:
    counts = reading.token_counts, reading.pair_counts
    return _FirstRows(*(np.cumsum(np.append(0, sizes[:-1])) for sizes in counts))


class _Kept:
    """Which activations of a batch are kept, and which rows of the volume they are.

    In the order of the volume, in which they are written fastest.
    """

    def __init__(
        self, batch: Batch, stimuli: np.ndarray, reading: Reading, first: _FirstRows, device: str
    ):
        order = np.argsort(stimuli)
        self._stimuli, self._lies_in = stimuli[order], batch.rows[order]
        self._columns = [batch.columns[place] for place in order]
        self._first, self._device = first, device
        self._kept = [reading.kept[one] for one in self._stimuli]
        self._sizes = np.array([len(some) for some in self._kept])
        self._positions = None if isinstance(reading.tokens, str) else len(reading.tokens)
        row = np.repeat(self._lies_in, self._sizes)
        column = np.concatenate(
            [columns[some] for columns, some in zip(self._columns, self._kept, strict=True)]
        )
        self._pick = row * batch.ids.shape[1] + column
        self._place = self._there(self._pick)
        # Where texts share tokens, a whole batch can be less than what is kept of it.
        self._repeats = reading.ragged and len(self._pick) > batch.ids.numel()
        chosen, among = np.unique(column, return_inverse=True)
        self.columns = self._there(chosen)
        self._place_among_chosen = self._there(row * len(chosen) + among)
        self._rows = Rows(self._stimuli, self._stimuli)
        if reading.ragged:
            self._rows = self._ragged(first.token, self._sizes)
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
        row = np.repeat(self._lies_in, sizes)
        query, key = [], []
        for columns, some, seen in zip(self._columns, self._kept, keys, strict=True):
            query.append(np.repeat(columns[some], seen))
            key.append(columns[_counted(seen)])
        places = (row, np.concatenate(query), np.concatenate(key))
        return self._ragged(self._first.pair, sizes), tuple(map(self._there, places))

    def rows(self, kind: Kind) -> Rows:
        """The rows of the volume that a kind's activations go to."""
        return self._pairs[0] if kind in PAIRED else self._rows

    def take(
        self, kind: Kind, activation: torch.Tensor, *, chosen: bool
    ) -> tuple[torch.Tensor, np.ndarray | None]:
        """What is kept of an activation, and which of its rows are rows of the volume (or all).

        A copy, so that later in-place work of the model cannot reach it.
        """
        there = activation.device
        if kind in PAIRED:
            row, query, key = (place.to(there) for place in self._pairs[1])
            return activation[row, :, query, key], None
        if self._repeats and kind != "logits":
            return activation.flatten(0, 1).clone(), self._pick
        place = self._place_among_chosen if kind == "logits" and chosen else self._place
        values = activation.flatten(0, 1).index_select(0, place.to(there))
        if self._weights is not None:
            mean = _pooled(self._weights.to(there), values.float().flatten(1))
            return mean.unflatten(1, values.shape[1:]), None
        if self._positions is not None:
            return values.unflatten(0, (-1, self._positions)), None
        return values, None


def _counted(sizes: np.ndarray) -> np.ndarray:
    """0 to the first size, 0 to the second, …: one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _pooled(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The mean of each stimulus, where what is not finite in one does not reach the others."""
    finite = values.isfinite()
    mean = weights @ values.where(finite, 0)
    return mean.masked_fill(weights @ (~finite).float() > 0, torch.nan)
