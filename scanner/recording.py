"""From a model and its stimuli to a volume on disk: streamed, resumed, never done twice.

A volume is written into ``<name>.zarr.partial`` and renamed when it is whole, so a folder that ends
in ``.zarr`` is a finished recording. Stimuli go through the model in batches that follow from the
stimuli alone; while one is computed, the activations of the last are written where they belong
(`scanner.shards`). A journal names the batches that are on the disk: what is there is not computed
again, and a recording that was interrupted ends with the same bytes as one that was not.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import zarr

from scanner import parts
from scanner.cpu_reference import off_from_cpu
from scanner.empty_volume import DTYPES, Variable, lay_down, variables
from scanner.model import Model
from scanner.passes import Passes, out_of_memory
from scanner.phantom import phantom_of
from scanner.plan import Recording
from scanner.provenance import code_version, digest, environment
from scanner.reading import Reading, read
from scanner.shards import ShardWriter
from scanner.sites import PAIRED, Site, SiteError, sites_of
from scanner.streaming import NotFiniteError, Stream, Writer
from scanner.volume import (
    JOURNAL,
    check_content,
    digest_file,
    open_volume,
    seal,
    verify_volume,
)


def record(
    recording: Recording,
    volumes: Path,
    load: Callable[[], Model],
    *,
    protocol_sha256: str,
    accept_phantom: bool = False,
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
    accept_phantom : bool
        Record on a device that fails its phantom (`scanner.phantom`), too; the volume says so.
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
    PhantomError
        If the device fails its phantom in the dtype of the model.
    SiteError
        If the model has no such site, or fails its proofs.
    StimulusError
        If a stimulus cannot be read (`scanner.reading.read`).
    """
    path = found(recording, volumes)
    if path is not None:
        advance(len(recording.stimuli))
        return path
    one = Scan(recording, volumes, load(), accept_phantom=accept_phantom)
    with one.listening():
        one.begin(protocol_sha256)
        known = one.fill(advance)
    return finish(recording, volumes, known)


def found(recording: Recording, volumes: Path) -> Path | None:
    """A finished volume that is there already and is what it should be; else None.

    Raises
    ------
    VolumeError
        If what lies at its path is damaged or something else.
    """
    path = recording.path(volumes)
    if not path.exists():
        return None
    if not digest_file(path).is_file():  # killed between the last two steps
        seal(path)
    verify_volume(path)
    check_content(path, recording.content)
    return path


def finish(recording: Recording, volumes: Path, known: Mapping[str, str]) -> Path:
    """Rename and leave the digest beside; each step can be killed and is taken up again.

    Parameters
    ----------
    recording : Recording
        Of which all shards are sealed.
    volumes : pathlib.Path
    known : mapping of str to str
        sha256 of files, by their path in the volume.
    """
    path = recording.path(volumes)
    os.replace(partial_of(recording, volumes), path)
    seal(path, known)
    open_volume(path)
    return path


def partial_of(recording: Recording, volumes: Path) -> Path:
    """Where a volume lies until it is whole."""
    return recording.path(volumes).with_suffix(".zarr.partial")


class Left(NamedTuple):
    """A batch that is not on the disk yet.

    Attributes
    ----------
    number, stimuli, bytes : int
    """

    number: int
    stimuli: int
    bytes: int


class Scan:
    """A recording that goes on: a model, how it reads the stimuli, and the volume on the disk.

    Parameters
    ----------
    recording : Recording
    volumes : pathlib.Path
    model : Model
    accept_phantom : bool

    Attributes
    ----------
    partial : pathlib.Path
        Where the volume lies until it is whole.
    phantom : Check
        What is known of the device.
    reading : Reading
        How the model reads the stimuli.

    Raises
    ------
    PhantomError
        If the device fails its phantom in the dtype of the model, and that is not accepted.
    SiteError
        If the model has no such site, or fails its proofs.
    StimulusError
        If a stimulus cannot be read (`scanner.reading.read`).
    """

    def __init__(
        self, recording: Recording, volumes: Path, model: Model, *, accept_phantom: bool
    ) -> None:
        self.recording, self.model = recording, model
        self.partial = partial_of(recording, volumes)
        self.phantom = phantom_of(model.device, model.dtype)
        if not accept_phantom:
            self.phantom.refuse()
        for kind in recording.sites:
            for site in sites_of(kind, model.layers):
                model.structure.port(site)
        if recording.tokens in ("target_mean", "mean") and set(recording.sites) & set(PAIRED):
            raise SiteError(
                f"attention weights have no mean over tokens, which see different keys; scan them "
                f"with `tokens: target`, not `{recording.tokens}`"
            )
        chat, truncate = recording.chat, recording.truncate
        self.reading = read(
            model, recording.stimuli, recording.tokens, chat=chat, truncate=truncate
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What all the rest has to be done in."""
        with self.model.listening(self.recording.sites), torch.inference_mode():
            yield

    @cached_property
    def sharing(self) -> str:
        """Why texts that begin alike are not computed together; empty if they are."""
        return _sharing(self.model, self.recording, self.reading)

    @cached_property
    def passes(self) -> Passes:
        """The batches, which follow from the stimuli alone."""
        return Passes(self.recording, self.model, self.reading, share=not self.sharing)

    @cached_property
    def arrays(self) -> dict[str, Variable]:
        """The arrays of the volume, by name."""
        return variables(self.recording, self.model, self.reading)

    @property
    def making(self) -> dict[str, object]:
        """What the last bits depend on, beside the content key."""
        return _making(self.model, self.reading, self.passes, self.sharing)

    @property
    def begun(self) -> bool:
        """Whether the volume on the disk is one that this model, here, can go on with."""
        return _resumable(self.partial, self.making)

    def begin(self, protocol_sha256: str) -> None:
        """Lay down the volume, unless it was begun in the same way."""
        if self.begun:
            return
        clear(self.partial)
        reading, recording, model = self.reading, self.recording, self.model
        making = {
            **self.making,
            "protocol_sha256": protocol_sha256,
            "phantom": self.phantom.attribute,
            **off_from_cpu(recording, model, reading, self.passes),
        }
        lay_down(self.partial, recording, model, reading, making)

    def left(self) -> list[Left]:
        """The batches that are neither in the shards nor in parts."""
        sizes, batches = self._stimulus_bytes, self.passes.batches
        return [
            Left(
                number,
                sum(map(len, batches[number])),
                int(sum(sizes[some].sum() for some in batches[number])),
            )
            for number in parts.missing(self.partial, len(batches))
        ]

    @cached_property
    def _stimulus_bytes(self) -> np.ndarray:
        """What each stimulus gives."""
        counts = {"token": self.reading.token_counts, "pair": self.reading.pair_counts}
        sizes = np.zeros(len(self.reading.kept))
        for name, variable in self.arrays.items():
            width = np.dtype(DTYPES.get(name, self.recording.store)).itemsize
            sizes += counts.get(variable.dims[0], 1) * (math.prod(variable.shape[1:]) * width)
        return sizes

    def fill(self, advance: Callable[[int], None]) -> dict[str, str]:
        """Record what is not there yet; gives the sha256 of the files it finished."""
        parts.absorb(self.partial, self.arrays)
        left = self.left()
        advance(len(self.reading.kept) - sum(one.stimuli for one in left))
        journal = self.partial / JOURNAL
        writers = {name: ShardWriter(self.partial / name) for name in self.arrays}
        return self._computed([one.number for one in left], writers, journal, advance)

    def part(self, batches: range) -> None:
        """Record some batches into a part."""
        staging = parts.staged(self.partial)
        writers = {name: parts.PartWriter(self.partial / name, staging) for name in self.arrays}
        self._computed(batches, writers, None, lambda stimuli: None)
        parts.put(staging, self.partial, batches)

    def _computed(
        self,
        batches: Iterable[int],
        writers: Mapping[str, Writer],
        journal: Path | None,
        advance: Callable[[int], None],
    ) -> dict[str, str]:
        texts = self.recording.stimuli.table["text"].to_numpy()

        def name(stimulus: int) -> str:
            return f"stimulus {stimulus} ('{texts[stimulus]}')"

        try:
            with closing(Stream(writers, journal, self.recording.subject, name)) as stream:
                for number in batches:
                    rows = self.passes.batches[number]
                    self.passes.run(rows, stream)
                    stream.done(number)
                    advance(sum(map(len, rows)))
                return stream.finish()
        except NotFiniteError as error:
            culprit = _culprit(error.stimuli, self.model, self.reading)
            raise NotFiniteError(error.where, [culprit], name) from None


def _sharing(model: Model, recording: Recording, reading: Reading) -> str:
    """Why texts that begin alike are not computed together; empty if they are."""
    if not recording.share:
        return "not asked for"
    longest = max(reading.ids, key=len)
    try:
        return model.sharing(longest)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return f"its longest text ({len(longest)} tokens) finds no memory when it shares tokens"


def _resumable(partial: Path, making: dict[str, object]) -> bool:
    """Whether a recording was begun and can go on, since it is made in the same way."""
    if not (partial / "zarr.json").is_file():
        return False
    begun = dict(zarr.open_group(partial, mode="r").attrs)
    return all(begun.get(key) == value for key, value in making.items())


def clear(partial: Path) -> None:
    """Let a beginning be none: `empty_volume.lay_down` then clears it away.

    Half of a volume from another device or version is worth less than a volume of one piece.
    """
    (partial / "zarr.json").unlink(missing_ok=True)


def _making(model: Model, reading: Reading, passes: Passes, sharing: str) -> dict[str, object]:
    """What the last bits of a recording depend on, beside its content key."""
    return {
        "device": model.device,
        "attention": model.attention,
        "sharing": sharing or "texts that begin alike are computed together",
        "batch": passes.tokens,
        "threads": torch.get_num_threads(),
        # Some chat templates tell the date.
        "tokens_sha256": digest(reading.ids),
        "code_version": code_version(),
        "environment": json.dumps(dict(environment())),
    }


def _culprit(stimuli: list[int], model: Model, reading: Reading) -> int:
    """The one that is not finite by itself: in a row that texts share, NaN reaches them all."""
    last = Site("resid_post", model.layers - 1)
    for one in stimuli:
        heard = model.activations(model.batch([reading.ids[one]]), ("resid_post",))
        if not heard[last].isfinite().all():
            return one
    return stimuli[0]
