"""Activations on their way to disk: copied off the device once, written behind the next forward.

The model goes on computing while a second thread waits for the copy, checks the numbers and writes
them. What has been taken off the model and not been written is bounded in bytes, so the model waits
for a slow disk. Finished batches are noted in the journal when they are safely on the disk.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

import numpy as np
import torch

from scanner.volume import VolumeError

# What may be in memory between the model and the disk.
IN_FLIGHT = 128_000_000
# How often finished batches are brought onto the disk and noted: what a crash can cost.
COMMIT_SECONDS = 1.0
# What is written between two syncs, so that the last one is short.
SYNC_BYTES = 64_000_000


class NotFiniteError(VolumeError):
    """Activations are NaN or infinite.

    Attributes
    ----------
    where : str
        Recording and site.
    stimuli : list of int
        Those that it was seen in.
    """

    def __init__(self, where: str, stimuli: list[int], name: Callable[[int], str]):
        super().__init__(
            f"{where} of {name(stimuli[0])} is not finite. A wider dtype (float32) mostly mends it."
        )
        self.where, self.stimuli = where, stimuli


class Rows(NamedTuple):
    """Rows of an array, and the stimulus that each comes from."""

    numbers: np.ndarray
    stimuli: np.ndarray


class Taker(Protocol):
    """Takes what a forward pass gives: a `Stream`, for one."""

    def put(
        self,
        variable: str,
        layer: int | None,
        rows: Rows,
        values: torch.Tensor,
        *,
        pick: np.ndarray | None = None,
    ) -> None: ...


class Writer(Protocol):
    """Keeps the rows of one array: a `shards.ShardWriter`, or one of `parts`."""

    @property
    def dtype(self) -> np.dtype: ...

    def write(self, rows: np.ndarray, values: np.ndarray, *, layer: int | None = None) -> None: ...

    def sync(self) -> None: ...

    def seal(self) -> dict[str, str]: ...


class _Piece(NamedTuple):
    variable: str
    layer: int | None
    rows: Rows
    values: torch.Tensor
    ready: Callable[[], None]
    pick: np.ndarray | None
    number: int

    @property
    def bytes(self) -> int:
        return self.values.numel() * self.values.element_size()


class Stream:
    """Takes activations, writes them in the background, keeps the journal.

    Parameters
    ----------
    writers : mapping of str to Writer
        Of each array, by its name.
    journal : pathlib.Path or None
        One line for each batch that is on the disk; None where writers keep nothing until the end.
    subject : str
        What error messages call the recording.
    name : callable
        What error messages call a stimulus.
    """

    def __init__(
        self,
        writers: Mapping[str, Writer],
        journal: Path | None,
        subject: str,
        name: Callable[[int], str],
    ):
        self._writers, self._journal = writers, journal
        self._subject, self._name = subject, name
        self._queue: deque[_Piece | int | None] = deque()
        self._changed = threading.Condition()
        self._bytes = 0
        self._pieces = 0
        self._helping = False
        self._failed: BaseException | None = None
        self._failed_at = 0  # number of the piece
        self._thread = threading.Thread(target=self._work, name="volume writer", daemon=True)
        self._thread.start()

    def put(
        self,
        variable: str,
        layer: int | None,
        rows: Rows,
        values: torch.Tensor,
        *,
        pick: np.ndarray | None = None,
    ) -> None:
        """Hand over rows of one variable and layer. The tensor is the stream's from then on.

        Parameters
        ----------
        variable : str
        layer : int or None
        rows : Rows
        values : torch.Tensor
            Row x the rest.
        pick : numpy.ndarray, optional
            Which of the tensor's rows each row is; they are the rows, one by one, by default.

        Raises
        ------
        VolumeError
            If something handed over before was not finite or did not fit.
        OSError
            If it could not be written.
        """
        # numpy has no bfloat16; float32 holds all its values.
        dtype = torch.float32 if values.dtype == torch.bfloat16 else values.dtype
        size = values.numel() * dtype.itemsize
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._failed is not None or not self._bytes or self._bytes + size < IN_FLIGHT
                )
            )
            self._complain()
        # Counted when it is there: a copy that finds no memory must not be waited for ever after.
        piece = _Piece(variable, layer, rows, *_off_device(values, dtype), pick, self._pieces)
        self._pieces += 1
        with self._changed:
            self._bytes += piece.bytes
            self._queue.append(piece)
            self._changed.notify_all()

    def done(self, batch: int) -> None:
        """Say that all of a batch has been handed over."""
        with self._changed:
            self._complain()
            self._queue.append(batch)
            self._changed.notify_all()

    def finish(self) -> dict[str, str]:
        """Wait until everything is on the disk, and make valid arrays of it.

        Returns
        -------
        dict of str to str
            sha256 of each file that was finished, by its path in the volume.
        """
        self._stop()
        self._complain()
        return {
            f"{variable}/{key}": sha256
            for variable, writer in self._writers.items()
            for key, sha256 in writer.seal().items()
        }

    def close(self) -> None:
        """End the thread; what was handed over before is written and noted, if it can be.

        Writers are not closed by hand: they sync then, and on a full disk hide what failed first.
        """
        self._stop()

    def _stop(self) -> None:
        if self._thread.is_alive():
            with self._changed:
                self._queue.append(None)
                self._changed.notify_all()
            self._help()
            self._thread.join()

    def _help(self) -> None:
        """Write what is left beside the writer: nothing is computed any more."""
        while (piece := self._taken()) is not None:
            try:
                self._write(piece)
            except BaseException as error:
                self._fail(error, piece.number)
                if isinstance(error, KeyboardInterrupt):
                    raise
            finally:
                with self._changed:
                    self._helping = False
                    self._changed.notify_all()

    def _fail(self, error: BaseException, number: int) -> None:
        """Keep the failure of the piece that came first: the other thread may have one, too."""
        with self._changed:
            if self._failed is None or number < self._failed_at:
                self._failed, self._failed_at = error, number
            self._changed.notify_all()

    def _taken(self) -> _Piece | None:
        """The next piece, taken away from the writer, which waits before it notes its batch."""
        with self._changed:
            if self._failed is not None:
                return None
            for place, piece in enumerate(self._queue):
                if isinstance(piece, _Piece):
                    del self._queue[place]
                    self._helping = True
                    return piece
        return None

    def _complain(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _work(self) -> None:
        finished: list[int] = []
        committed, unsynced, number = time.monotonic(), 0, 0
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: bool(self._queue))
                    piece = self._queue.popleft()
                if piece is None:
                    self._commit(finished)
                    return
                if isinstance(piece, int):
                    finished.append(piece)
                    if time.monotonic() - committed > COMMIT_SECONDS:
                        self._commit(finished)
                        committed = time.monotonic()
                    continue
                number = piece.number
                self._write(piece)
                unsynced += piece.bytes
                if unsynced > SYNC_BYTES:
                    self._sync()
                    unsynced = 0
        except BaseException as error:
            self._fail(error, number)

    def _write(self, piece: _Piece) -> None:
        piece.ready()
        values = piece.values.numpy()
        writer = self._writers[piece.variable]
        with np.errstate(over="ignore", invalid="ignore"):
            stored = values.astype(writer.dtype, copy=False)
        finite = _finite(stored)
        if piece.pick is not None:
            stored = stored.take(piece.pick, axis=0)
            finite = finite or _finite(stored)  # what is not picked may be anything
        if not finite:
            picked = values if piece.pick is None else values.take(piece.pick, axis=0)
            self._refuse(piece, picked, stored)
        writer.write(piece.rows.numbers, stored, layer=piece.layer)
        with self._changed:
            self._bytes -= piece.bytes
            self._changed.notify_all()

    def _refuse(self, piece: _Piece, values: np.ndarray, stored: np.ndarray) -> NoReturn:
        """Say which value is not finite, or is not in the dtype of the volume."""
        layer = "" if piece.layer is None else f".{piece.layer}"
        where = f"{self._subject}: {piece.variable}{layer}"
        lost = ~np.isfinite(values)
        if lost.any():
            stimuli = piece.rows.stimuli[np.unique(np.nonzero(lost)[0])]
            raise NotFiniteError(where, stimuli.tolist(), self._name)
        row = np.argwhere(~np.isfinite(stored))[0][0]
        raise VolumeError(
            f"{where} of {self._name(int(piece.rows.stimuli[row]))} reaches "
            f"{np.abs(values[row]).max():.3g}, more than {stored.dtype} can hold. "
            "Store it as float32."
        )

    def _commit(self, finished: list[int]) -> None:
        """Bring what was written onto the disk, and then say so in the journal."""
        with self._changed:
            self._changed.wait_for(lambda: not self._helping)
            if self._failed is not None or not finished:
                return
        self._sync()
        if self._journal is not None:
            note(self._journal, finished)
        finished.clear()

    def _sync(self) -> None:
        for writer in self._writers.values():
            writer.sync()


def note(journal: Path, batches: Sequence[int]) -> None:
    """Say in a journal, on the disk, that batches are there."""
    with journal.open("a") as file:
        file.write("".join(f"{number}\n" for number in batches))
        file.flush()
        os.fsync(file.fileno())


def _finite(values: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is not finite if a term is not: one fast pass over what is nearly always good.
        return values.dtype.kind != "f" or bool(
            np.isfinite(values.sum(dtype=np.float32)) or np.isfinite(values).all()
        )


def _off_device(
    values: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, Callable[[], None]]:
    """The values in the CPU's memory, and what to call before reading them."""
    if values.device.type != "cuda":
        return values.detach().to("cpu", dtype).contiguous(), lambda: None
    host = torch.empty(values.shape, dtype=dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(values.device))  # of several devices, that one's
    return host, copied.synchronize
