"""From a model and its stimuli to a volume on disk: streamed, resumed, never done twice.

A volume is written into ``<name>.zarr.partial`` and renamed when it is whole, so a folder that ends
in ``.zarr`` is a finished recording. Stimuli go through the model in batches that follow from the
stimuli alone; while one is computed, the activations of the last are written where they belong
(`scanner.shards`). A journal names the batches that are on the disk: what is there is not computed
again, and a recording that was interrupted ends with the same bytes as one that was not.
"""

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
import zarr

from scanner.cpu_reference import off_from_cpu
from scanner.empty_volume import lay_down, variables
from scanner.model import Model
from scanner.passes import Passes, out_of_memory
from scanner.phantom import phantom_of
from scanner.plan import Recording
from scanner.provenance import code_version, digest, environment
from scanner.reading import Reading, read
from scanner.sites import PAIRED, Site, SiteError, sites_of
from scanner.streaming import NotFiniteError, Stream
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
    path = recording.path(volumes)
    if path.exists():
        if not digest_file(path).is_file():  # killed between the last two steps
            seal(path)
        verify_volume(path)
        check_content(path, recording.content)
        advance(len(recording.stimuli))
        return path
    model = load()
    phantom = phantom_of(model.device, model.dtype)
    if not accept_phantom:
        phantom.refuse()
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
        passes = Passes(recording, model, reading, share=not sharing)
        partial = path.with_suffix(".zarr.partial")
        making = _making(model, reading, passes, sharing)
        if not _resumable(partial, making):
            lay_down(
                partial,
                recording,
                model,
                reading,
                {
                    **making,
                    "protocol_sha256": protocol_sha256,
                    "phantom": phantom.attribute,
                    **off_from_cpu(recording, model, reading, passes),
                },
            )
        known = _fill(partial, recording, passes, model, reading, advance)
    return _finish(partial, path, known)


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


def _fill(
    partial: Path,
    recording: Recording,
    passes: Passes,
    model: Model,
    reading: Reading,
    advance: Callable[[int], None],
) -> dict[str, str]:
    """Record the batches that are not there yet; gives the sha256 of the files it finished."""
    journal = partial / JOURNAL
    there = set(_journalled(journal))
    texts = recording.stimuli.table["text"].to_numpy()

    def name(stimulus: int) -> str:
        return f"stimulus {stimulus} ('{texts[stimulus]}')"

    advance(sum(len(row) for number in there for row in passes.batches[number]))
    names = variables(recording, model, reading)
    try:
        with closing(Stream(partial, journal, recording.subject, names, name)) as stream:
            for number, rows in enumerate(passes.batches):
                if number in there:
                    continue
                passes.run(rows, stream)
                stream.done(number)
                advance(sum(map(len, rows)))
            return stream.finish()
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


def _finish(partial: Path, path: Path, known: dict[str, str]) -> Path:
    """Rename and leave the digest beside; each step can be killed and is taken up again."""
    os.replace(partial, path)
    seal(path, known)
    open_volume(path)
    return path
