"""When a label can be read: decoding at each token around the target.

Before the target a text does not tell its item, so what is read there comes from the frames, and is
chance where frames are crossed with categories; after it, what is read has been kept or carried on
(King & Dehaene 2014 for time in recordings of brains). Each place has a probe of its own.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import (
    Analysis,
    AnalysisError,
    check_recorded,
    labels,
    one_value,
    register,
)
from analyses.probe import Probe
from scanner import Subject


@register
@dataclass(frozen=True)
class TimeCourse(Analysis):
    """Decode token by token.

    Attributes
    ----------
    site : str
        Kind of site to read, scanned with ``tokens: all``.
    label : str
        What to decode, a column of the stimulus table.
    before, after : int
        How many tokens before and after the last one of the target.
    item_folds, frame_folds : int
        Groups of items and of frames that take turns as the test.
    penalty : float
        Ridge penalty, in units of the mean squared length of a training pattern.
    """

    site: str
    label: str = "category"
    before: int = 3
    after: int = 3
    item_folds: int = 5
    frame_folds: int = 2
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.before < 0 or self.after < 0:
            raise ValueError("before and after must not be below 0")

    def misfit(self, dims: Collection[str]) -> str:
        if "token" not in dims or "layer" not in dims:
            return (
                f"'{self.site}' is not recorded at every token in each layer; scan a site of the "
                "layers with `tokens: all`"
            )
        return ""

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Decode.

        Returns
        -------
        xarray.Dataset
            ``accuracy`` (layer, offset): balanced accuracy at so many tokens from the last one of
            the target, over the stimuli that reach so far; NaN where too few frames or items do.
            ``reached`` (offset): the share of the stimuli that do.

        Raises
        ------
        AnalysisError
            If the volume has no such site, or not one vector a token, or the label has one value.
        """
        (subject,) = subjects
        check_recorded(subject, self.site)
        values = subject.volume[self.site]
        why = self.misfit([str(dim) for dim in values.dims])
        if why:
            raise AnalysisError(f"{subject.name}: {why}")
        probe = Probe(self.site, self.label, self.item_folds, self.frame_folds, self.penalty)
        names = np.unique(labels(subject, self.label))
        if len(names) < 2:
            raise AnalysisError(one_value(self.label, names[0]))
        of, at = (values[f"token_{name}"].to_numpy() for name in ("stimulus", "position"))
        away = at - subject.volume["target_position"].to_numpy()[of]
        offsets = np.arange(-self.before, self.after + 1)
        seed = int(rng.integers(2**32))
        accuracy = np.full((values.sizes["layer"], len(offsets)), np.nan)
        reached = np.zeros(len(offsets))
        for place, offset in enumerate(offsets):
            rows = np.flatnonzero(away == offset)
            reached[place] = len(rows) / subject.volume.sizes["stimulus"]
            there = _at(subject, self.site, rows, of[rows])
            if len(rows) and _enough(there, probe):
                # Items and frames are grouped alike at all places.
                found = probe(there, rng=np.random.default_rng(seed))
                accuracy[:, place] = found["balanced_accuracy"]
        return xr.Dataset(
            {"accuracy": (("layer", "offset"), accuracy), "reached": ("offset", reached)},
            coords={"layer": subject.volume["layer"].to_numpy(), "offset": offsets},
        )


def _at(subject: Subject, site: str, rows: np.ndarray, stimuli: np.ndarray) -> Subject:
    """The subject with one token of some stimuli."""
    tokens = subject.volume[site].variable.isel(token=rows)
    kept = subject.volume.drop_dims("token").isel(stimulus=stimuli)
    dims = tuple("stimulus" if dim == "token" else dim for dim in tokens.dims)
    return subject.replace_volume(kept.assign({site: (dims, tokens.to_numpy())}))


def _enough(subject: Subject, probe: Probe) -> bool:
    """Whether there are as many frames, and items of each category, as folds."""
    frames, items = (np.unique(labels(subject, name)) for name in ("frame", "item"))
    kinds = labels(subject, probe.label)
    of_each = [len(np.unique(labels(subject, "item")[kinds == kind])) for kind in np.unique(kinds)]
    return bool(
        len(items) and len(of_each) > 1 and len(frames) >= probe.frame_folds
        and min(of_each) >= probe.item_folds
    )  # fmt: skip
