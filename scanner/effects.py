"""What comes of acting on a subject, stimulus by stimulus, kept as its activations are.

What is done may follow from what was recorded: a direction, the units of largest contrast. It is
done in runs, each written when it is over, so that what was interrupted goes on. The finished whole
is a volume like any other: named by its content, sealed by its digest.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import xarray as xr

from scanner.device import DtypeName
from scanner.model import Model
from scanner.phantom import Check
from scanner.plan import Recording
from scanner.provenance import code_version, digest, environment, now
from scanner.reading import Reading, read
from scanner.sites import SiteError
from scanner.volume import (
    EFFECTS,
    check_content,
    check_volume,
    digest_file,
    open_volume,
    seal,
    verify_volume,
)

# Raised when the same acts would be kept as other numbers.
FORMAT = 3

One = TypeVar("One")


@dataclass(frozen=True)
class Acts:
    """What is to be done to a subject, before any of it is.

    Attributes
    ----------
    recording : Recording
        Of the subject.
    analysis : str
        The analysis that acts.
    settings : mapping
        Of it, in plain values.
    seed : int
        Of what it draws.
    donors : tuple of Recording
        Of another subject, where what it has is set into this one: its own, then its twins'.
    dictionary : Acts or None
        What made the features by which it is told what to act on.
    """

    recording: Recording
    analysis: str
    settings: Mapping[str, object]
    seed: int
    donors: tuple[Recording, ...] = ()
    dictionary: "Acts | None" = None

    @property
    def content(self) -> dict[str, object]:
        """All that the numbers follow from, up to the rounding of devices and versions."""
        return {
            "effects_format": FORMAT,
            "recording": self.recording.key,
            "analysis": self.analysis,
            "settings": dict(self.settings),
            "seed": self.seed,
            **({"donors": [one.key for one in self.donors]} if self.donors else {}),
            **({"dictionary": digest(self.dictionary.content)} if self.dictionary else {}),
        }

    def path(self, volumes: Path) -> Path:
        """Where the effects lie in a folder of volumes."""
        key = digest(self.content)[:16]
        return volumes / f"{self.recording.subject}--{self.analysis}-{key}.zarr"


@dataclass(frozen=True, eq=False)
class Live:
    """A subject in the scanner: a model, and the stimuli as it reads them to their end.

    Attributes
    ----------
    model : Model
    recording : Recording
    given : mapping of str to Recording
        Other subjects that what is done is given, by the protocol's names for them.
    """

    model: Model
    recording: Recording
    given: Mapping[str, Recording] = field(default_factory=dict)

    @cached_property
    def memory(self) -> dict[str, np.ndarray]:
        """What a run has found of the model as it is, for the runs after it."""
        return {}

    @cached_property
    def donor(self) -> Model:
        """The trained model of the first subject that it is given, also where this is a twin.

        Raises
        ------
        SiteError
            If it reads these texts as other tokens.
        """
        given = next(iter(self.given.values()))
        model = self._loaded(given)
        theirs = read(model, self.recording.stimuli, "last", chat=given.chat,
                      truncate=given.truncate)  # fmt: skip
        if theirs.ids != self._whole.ids:
            raise SiteError(
                f"{self.model.name} and {model.name} read the same texts as other tokens, so that "
                "they cannot be held against each other token by token"
            )
        return model

    @cached_property
    def learned(self) -> Model:
        """The trained model of the subject: this one, unless it is a twin."""
        if self.trained:
            return self.model
        return self._loaded(self.recording)

    def _loaded(self, recording: Recording) -> Model:
        dtype = cast(DtypeName, recording.dtype)
        return Model.load(recording.source, dtype=dtype, device=self.model.device)

    @property
    def trained(self) -> bool:
        return self.recording.seed is None

    @cached_property
    def ids(self) -> list[list[int]]:
        """Token ids of each text.

        Raises
        ------
        SiteError
            If a text is a single token, of whose prediction nothing is known.
        """
        whole = self._whole.ids
        short = next((one for one, ids in enumerate(whole) if len(ids) < 2), None)
        if short is not None:
            text = self.recording.stimuli.table["text"].to_numpy()[short]
            raise SiteError(
                f"stimulus {short} ('{text}') is one token; what acting on it does is told by what "
                "follows the first, so lengthen it"
            )
        return whole

    @cached_property
    def targets(self) -> list[range]:
        """The positions of each target."""
        table = self._whole.table
        last, count = (table[name].to_numpy() for name in ("target_position", "n_tokens"))
        return [range(end - size + 1, end + 1) for end, size in zip(last, count, strict=True)]

    @cached_property
    def acted(self) -> list[range]:
        """The positions at which stimuli are acted on: where what was recorded was read."""
        if self.recording.tokens == "last":
            return [range(len(ids) - 1, len(ids)) for ids in self.ids]
        return self.targets

    @cached_property
    def _whole(self) -> Reading:
        chat, truncate = self.recording.chat, self.recording.truncate
        return read(self.model, self.recording.stimuli, "last", chat=chat, truncate=truncate)


def record_effects(
    acts: Acts,
    volumes: Path,
    runs: Sequence[One],
    act: Callable[[One], xr.Dataset],
    *,
    protocol_sha256: str,
    phantom: Check | None = None,
    advance: Callable[[int], None] = lambda runs: None,
) -> Path:
    """Act on a subject, or find that it has been done.

    Parameters
    ----------
    acts : Acts
    volumes : pathlib.Path
        Folder of volumes; that of the subject's recording is there.
    runs : sequence
        What `act` is asked for, one after the other.
    act : callable
        Gives the effects of a run, with the dimension ``stimulus`` and an index for each that runs
        differ by.
    protocol_sha256 : str
        Digest of the protocol that asked first.
    phantom : Check, optional
        Of the device that acts; needed if something is left to do.
    advance : callable
        Told the number of runs whenever some are done.

    Returns
    -------
    pathlib.Path
        The finished volume.

    Raises
    ------
    VolumeError
        If an effect is not finite, or what lies at the path is damaged or something else.
    """
    path = acts.path(volumes)
    if path.exists():
        if not digest_file(path).is_file():  # killed between the last two steps
            seal(path)
        verify_volume(path)
        check_content(path, acts.content)
        advance(len(runs))
        return path
    begun = path.with_suffix(".zarr.partial")
    _begin(begun)
    for number, one in enumerate(runs):
        part = begun / f"{number}.zarr"
        if not part.exists():
            _write(act(one), part)
        advance(1)
    whole = _joined(acts, volumes, begun, len(runs)).assign_attrs(
        protocol_sha256=protocol_sha256,
        **({} if phantom is None else {"phantom": phantom.attribute}),
    )
    _write(check_volume(whole, path.name), path)
    seal(path)
    shutil.rmtree(begun)
    return path


def _joined(acts: Acts, volumes: Path, begun: Path, runs: int) -> xr.Dataset:
    """What all runs gave, with the labels of the stimuli and where it comes from."""
    volume = open_volume(acts.recording.path(volumes))
    # Without chunks: where dask is installed, xarray would have it read them.
    parts = [
        xr.open_zarr(begun / f"{number}.zarr", chunks=None, consolidated=False).load()
        for number in range(runs)
    ]
    whole = xr.combine_by_coords(
        parts, combine_attrs="override", data_vars="minimal", compat="no_conflicts"
    )
    assert isinstance(whole, xr.Dataset)
    # What was done may have rows of its own, as matrices are: then it tells what they are.
    labels = {
        str(name): ("stimulus", values.to_numpy())
        for name, values in volume.coords.items()
        if values.dims == ("stimulus",) and name not in {*EFFECTS, *whole.variables}
        if "item" not in whole.coords
    }
    whole = whole.drop_vars("stimulus").assign_coords(labels)
    return whole.assign_attrs({
        **volume.attrs,
        "content": json.dumps(acts.content),
        "recording": acts.recording.path(volumes).name,
        "code_version": code_version(),
        "environment": json.dumps(dict(environment())),
        "time": now(),
    })  # fmt: skip


def _begin(begun: Path) -> None:
    """Go on with what this version and machine began; of another, begin anew."""
    making = json.dumps([code_version(), dict(environment())])
    note = begun / "making.json"
    if begun.exists() and not (note.is_file() and note.read_text() == making):
        shutil.rmtree(begun)
    begun.mkdir(parents=True, exist_ok=True)
    note.write_text(making)


def _write(effects: xr.Dataset, path: Path) -> None:
    """Write whole or not at all."""
    staging = path.with_name(f".{path.name}.writing")
    kept = {
        name: values.astype(np.dtypes.StringDType())
        for name, values in effects.coords.items()
        if values.dtype.kind in "UO"
    }
    effects.assign_coords(kept).to_zarr(staging, mode="w", zarr_format=3, consolidated=False)
    os.replace(staging, path)
