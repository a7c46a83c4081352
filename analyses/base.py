"""What an analysis is, and the registry that protocols name them by.

An analysis is a frozen dataclass in a file of its own. The file's name is its name in a protocol,
its fields are the settings that a protocol may give, and `__call__` turns subjects into a labelled
Dataset. It keeps no state and knows nothing of controls.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, overload

import numpy as np
import xarray as xr

from scanner import Subject, volume

# What dimensions of results are called, beside those of volumes.
DIMENSIONS = (
    *volume.DIMENSIONS, *volume.EFFECTS,
    "category", "other_category", "other_layer", "item", "lens", "mask",
    "distance", "removed", "model", "depth", "penalty", "axis", "contrast", "arm",
    "harmed", "patch", "chosen", "density", "reference", "against", "node", "other_node",
    "subject", "other_subject", "untrained", "role", "strength", "side",
)  # fmt: skip

REGISTRY: dict[str, type["Analysis"]] = {}
Reading = Literal["linear", "nonlinear", "number"]
Asks = Literal["labels", "structure", "wiring", "likeness", "acts"]
Registered = TypeVar("Registered", bound=type["Analysis"])
Named = TypeVar("Named")


class AnalysisError(ValueError):
    """An analysis that cannot be computed on these stimuli; the message says what is missing."""


class Quantity(NamedTuple):
    """What a measure means.

    Attributes
    ----------
    meaning : str
    least, greatest : float
        What it can be.
    smooth : bool
        Whether a little more of an item changes it a little. Which units are the topmost jumps, and
        the gate resamples such a measure otherwise.
    """

    meaning: str
    least: float
    greatest: float
    smooth: bool = True


@dataclass(frozen=True)
class Analysis(ABC):
    """Parameters in fields, work in `__call__`.

    Attributes
    ----------
    measures : mapping of str to Quantity
        The scalar measures that a hypothesis may name. Each is a variable of the result with a
        dimension ``layer``, and carries the attribute ``chance``: its value where there is no
        effect.
    identities : mapping of str to str
        Variables of the result that can be no finding whatever they are, and why.
    asks : {'labels', 'structure', 'wiring', 'likeness', 'acts'}
        Whether it asks what tells labels apart, how activations lie whatever the labels, how far
        that follows the weights, how alike those of two subjects lie, or what an act on the model
        does. Controls fit some of these.
    """

    asks: ClassVar[Asks] = "labels"
    measures: ClassVar[Mapping[str, Quantity]] = {}
    identities: ClassVar[Mapping[str, str]] = {}

    @property
    def reads(self) -> Reading:
        """By what kind of probe a control is to ask whether the label can be read at all.

        Of a label that is a number, by regression.
        """
        return "linear"

    def misfit(self, dims: Collection[str]) -> str:
        """Why the site that it reads, with these dimensions, is none that it can; else empty.

        Protocols ask it before anything is recorded, of every analysis with a setting ``site``.
        """
        return misfit(getattr(self, "site", ""), dims)

    def identity_at(self, measure: str, layer: int, layers: int) -> str:
        """Why a measure follows from its definition at a layer of so many; else empty."""
        return ""

    @property
    def takes(self) -> int | None:
        """How many subjects it is given at once; None for all of a protocol."""
        return 1

    @property
    def dealt(self) -> tuple[str, ...]:
        """The columns that permutations deal out among the items, together."""
        return (label_of(self),)

    def sides(self, names: np.ndarray) -> np.ndarray:
        """What each category is told apart as, from 0; negative where it plays no part."""
        return np.arange(len(names))

    @abstractmethod
    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Analyse the subjects.

        Parameters
        ----------
        *subjects : Subject
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        xarray.Dataset
            The layers of measures are independent: the result at a layer is the same when the
            subject holds that layer alone. The gate relies on it to judge one layer without
            computing all.
        """

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        """One measure (layer), with the attribute ``chance``, as `__call__` gives it.

        The gate asks for it hundreds of times. An analysis of which it is the smaller part
        overrides this.
        """
        return self(*subjects, rng=rng)[variable]

    def measured_in(
        self,
        *subjects: Subject,
        variable: str,
        parts: Iterable[np.ndarray],
        rng: np.random.Generator,
    ) -> Iterator[xr.DataArray]:
        """One measure in each of several parts of the stimuli, as `measured` gives it there.

        The gate asks for a hundred parts at a time. An analysis that need not begin anew in each
        overrides this.

        Parameters
        ----------
        *subjects : Subject
        variable : str
        parts : iterable of numpy.ndarray
            Rows of the stimuli.
        rng : numpy.random.Generator
            Each part begins with it as it is now.
        """
        for rows in parts:
            some = (one.take(rows) for one in subjects)
            yield self.measured(*some, variable=variable, rng=deepcopy(rng))

    def permuted(
        self,
        subject: Subject,
        variable: str,
        *,
        draws: int,
        rng: np.random.Generator,
        shuffles: np.random.Generator,
    ) -> xr.DataArray:
        """A measure with the labels dealt out anew among the items, again and again.

        Items, not stimuli, change labels: the stimuli of an item are one observation, and shuffling
        them one by one hides what a probe can learn of items (Winkler et al. 2015, exchangeability
        blocks). An analysis that can do all draws at once overrides this.

        Parameters
        ----------
        subject : Subject
        variable : str
            One of `measures`.
        draws : int
        rng : numpy.random.Generator
            Of the analysis. Each draw begins with it as it is now, so that all are split alike.
        shuffles : numpy.random.Generator
            Deals out the labels.

        Returns
        -------
        xarray.DataArray
            (draw, layer), with the attribute ``chance``.
        """
        dealings = (dealt(subject, shuffles, *self.dealt).together for _ in range(draws))
        worlds = [self.measured(*group, variable=variable, rng=deepcopy(rng)) for group in dealings]
        return xr.concat(worlds, "draw", combine_attrs="override")


def groups(analysis: Analysis, subjects: Sequence[Named]) -> list[tuple[Named, ...]]:
    """The subjects that an analysis is given at once, one group after the other."""
    if analysis.takes is None:
        return [tuple(subjects)]
    return list(combinations(subjects, analysis.takes))


def label_of(analysis: Analysis) -> str:
    """The column of the stimulus table that an analysis reads."""
    return getattr(analysis, "label", "category")


def dealt(subject: Subject, rng: np.random.Generator, *columns: str) -> Subject:
    """The subject with labels dealt out anew: each item keeps one of each, all of another item."""
    items, first, which = np.unique(labels(subject, "item"), return_index=True, return_inverse=True)
    order = rng.permutation(len(items))
    for column in columns:
        text, values = labels(subject, column), subject.volume[column].to_numpy()
        kept = values if values.dtype.kind in "iuf" else text  # a number stays one
        subject = subject.relabel(column, kept[first][order][which])
    return subject


def register(analysis: Registered) -> Registered:
    """Enter an analysis under the name of its file."""
    name = analysis.__module__.rpartition(".")[2]
    if name in REGISTRY:
        raise TypeError(f"two analyses are named '{name}'")
    REGISTRY[name] = analysis
    return analysis


class Layers(Sequence[np.ndarray]):
    """Activations that are read layer by layer, from disk where the volume is not in memory.

    As a sequence each layer is stimulus x unit, float64; as an array, which holds all of them, it
    is layer x stimulus x unit. An analysis that goes from layer to layer needs memory for one.

    Attributes
    ----------
    shape : tuple of int
        Layers, stimuli, units.
    """

    def __init__(self, values: xr.Variable):
        others = [dim for dim in values.dims if dim not in ("layer", "stimulus")]
        self._values = values.transpose("layer", "stimulus", *others)
        layers, stimuli, *units = self._values.shape
        self.shape = (layers, stimuli, math.prod(units))

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, layer: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, layer: slice) -> "Layers": ...
    def __getitem__(self, layer: int | slice) -> "np.ndarray | Layers":
        if isinstance(layer, slice):
            return Layers(self._values[layer])
        found = self._values[range(len(self))[layer]].to_numpy().astype(np.float64)
        return found.reshape(self.shape[1:])

    def take(self, rows: np.ndarray) -> "Layers":
        """The layers of some stimuli."""
        return Layers(self._values.isel(stimulus=rows))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._values.to_numpy().astype(np.float64).reshape(self.shape)


def read(subject: Subject, site: str, label: str) -> tuple[Layers, np.ndarray, np.ndarray]:
    """Activations, label codes and label names of a subject.

    Parameters
    ----------
    subject : Subject
    site : str
        Kind of site.
    label : str
        Column of the stimulus table.

    Returns
    -------
    x : Layers
    codes : numpy.ndarray
        stimulus, the index of each label in `names`.
    names : numpy.ndarray
        The labels, sorted.

    Raises
    ------
    AnalysisError
        If the volume has no such site or label, the label has fewer than two values, or the site
        was recorded without layers or at several tokens a stimulus.
    """
    x = vectors(subject, site)
    return x, *coded(labels(subject, label), label)


def coded(values: np.ndarray, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The codes of a label's values and their names, sorted.

    Raises
    ------
    AnalysisError
        If the label has fewer than two values.
    """
    names, codes = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise AnalysisError(one_value(label, names[0]))
    return codes, names


def one_value(label: str, value: str) -> str:
    """That a label tells nothing apart."""
    return f"label '{label}' has one value ('{value}'); two are needed"


def vectors(subject: Subject, site: str) -> Layers:
    """Activations of a subject; heads stand one after the other.

    Raises
    ------
    AnalysisError
        If the volume has no such site, or not one vector a stimulus in each layer.
    """
    check_recorded(subject, site)
    values = subject.volume[site].variable  # coordinates would be carried along for nothing
    why = misfit(site, [str(dim) for dim in values.dims])
    if why:
        raise AnalysisError(f"{subject.name}: {why}")
    return Layers(values)


def check_recorded(subject: Subject, site: str) -> None:
    """That a volume has a site.

    Raises
    ------
    AnalysisError
    """
    if site not in subject.volume:
        raise AnalysisError(
            f"{subject.name}: no site '{site}' in its volume; "
            f"recorded are {', '.join(map(str, subject.volume.data_vars))}"
        )


def by_layer(values: np.ndarray, subject: Subject) -> xr.DataArray:
    """A measure whose chance is 0 with its labels: layer, or draw x layer."""
    return xr.DataArray(
        values,
        dims=("draw", "layer")[-values.ndim :],
        coords={"layer": subject.volume["layer"].to_numpy()},
        attrs={"chance": 0.0},
    )


def misfit(site: str, dims: Collection[str]) -> str:
    """Why a site is not one vector a stimulus in each layer, as most analyses read it.

    Parameters
    ----------
    site : str
    dims : collection of str
        Its dimensions in a volume.

    Returns
    -------
    str
        The reason and what to do; empty if it is.
    """
    if "pair" in dims:
        return (
            f"'{site}' is a number for each pair of tokens, and this analysis reads one vector a "
            "stimulus; z is what the weights of each head add up"
        )
    if "layer" not in dims:
        return (
            f"'{site}' stands outside the layers that this analysis compares; "
            "resid_pre of layer 0 and resid_post of the last are its neighbours"
        )
    if "stimulus" not in dims or "position" in dims:
        return (
            f"'{site}' is recorded at several tokens a stimulus, and this analysis reads one "
            "vector a stimulus; scan with `tokens: target`, `last` or a mean"
        )
    return ""


def labels(subject: Subject, label: str) -> np.ndarray:
    """The values of a label, one a stimulus, as text.

    Raises
    ------
    AnalysisError
        If the stimuli have no such label.
    """
    coordinates = subject.volume.coords
    if label not in coordinates or coordinates[label].dims != ("stimulus",):
        known = [str(name) for name, values in coordinates.items() if values.dims == ("stimulus",)]
        raise AnalysisError(f"stimuli have no label '{label}'; they have {', '.join(known)}")
    values = coordinates[label].to_numpy()
    if values.dtype.kind == "U":
        return values.copy()
    # By way of objects: numpy does not cast its variable-width strings to fixed width.
    return values.astype(object).astype(str)


def numbers(subject: Subject, column: str) -> np.ndarray:
    """The values of a column that holds numbers, one a stimulus, float64.

    Raises
    ------
    AnalysisError
        If the stimuli have no such column, or it holds no numbers.
    """
    labels(subject, column)  # that there is one
    values = subject.volume[column].to_numpy()
    if values.dtype.kind not in "iuf":
        raise AnalysisError(f"'{column}' holds no numbers, but '{values[0]}'")
    return values.astype(float)


def of_items(subject: Subject, column: str, first: np.ndarray, which: np.ndarray) -> np.ndarray:
    """A column by item: of numbers the mean over its stimuli, else the value of the first.

    Parameters
    ----------
    subject : Subject
    column : str
        Of the stimulus table.
    first : numpy.ndarray
        item; a stimulus of each.
    which : numpy.ndarray
        stimulus; the item of each.

    Returns
    -------
    numpy.ndarray
        item; float64, or text.
    """
    text = labels(subject, column)
    values = subject.volume[column].to_numpy()
    if values.dtype.kind not in "iuf":
        return text[first]
    return np.bincount(which, values.astype(float)) / np.bincount(which)
