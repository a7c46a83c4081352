"""What can be seen on the surface of the words must not come within the margin of the effect.

The activations are replaced by properties of the text that need no model, in families: length (in
characters and tokens), word frequency, position, first token, last token, first letter, ending,
pairs of letters, and all together. The strongest family counts: in all together one good feature
drowns among hundreds of poor ones. Letters are those that stand in the text, not those of the
item's name: where numbers are read in sentences, the item is the sentence.

What an analysis finds in a few features and in hundreds of units can be compared only where it says
how well the label is read. Of any other measure it is asked besides that the label can be read from
the activations, in items that were left out, better than from the surface: else whatever is
measured of the label may be the surface's. A number is read as one, in values that were left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.base import Asks, label_of, labels, read
from analyses.mlp_probe import accuracies
from analyses.number_line import NumberLine
from analyses.probe import Probe, decode, recalls
from analyses.splits import folds_of, item_groups
from analyses.words import word_means
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate, stream, strongest

Found = TypeVar("Found")

# Into how many parts a number is cut at most.
STEPS = 20

# Half-samples of the fewest items that are judged, four of a category, have two.
FOLDS = 2
# A nonlinear probe is tuned within what it is trained on, so it needs another.
TUNED_FOLDS = 3


@control
@dataclass(frozen=True)
class SurfaceOnly(Control):
    """Null control: the same analysis, reading surface properties instead of activations."""

    kind: ClassVar[Kind] = "null"
    of: ClassVar[tuple[Asks, ...]] = ("labels",)

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        worlds = surfaces(subject)
        shares, surface = strongest(_of_each(worlds, measure))
        check = self.beaten(
            observed, surface, hypothesis.alpha, f"the surface of the words ({shares})"
        )
        if _says_how_well_it_is_read(measure) or not check.passed:
            return check
        shares, surface = strongest({name: Reader(one, measure)() for name, one in worlds.items()})
        what = f"read from the surface ({shares}), '{label_of(measure.analysis)}'"
        return self.beaten(Reader(subject, measure)(), surface, hypothesis.alpha, what)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        layers = subject.volume["layer"].to_numpy()
        # The surface is the same at each layer: one is computed, and shown at all.
        flat = _of_each(surfaces(subject.at(int(layers[0]))), measure.profile)
        one = xr.concat(list(flat.values()), "draw", combine_attrs="override")
        return one.isel(layer=[0] * len(layers)).assign_coords(layer=layers)


def _says_how_well_it_is_read(measure: Measure) -> bool:
    if isinstance(measure.analysis, NumberLine):
        return measure.variable == "read"
    return isinstance(measure.analysis, Probe)


class Reader:
    """How far above chance a label is read from a subject, whatever the measure is of.

    Of a contrast, which side of it; of a number, the share of its variance. By a ridge probe whose
    test items are kept out of training, or a nonlinear one where the analysis reads so; at the
    layer of the measure, or on average over all.

    Parameters
    ----------
    subject : Subject
    measure : Measure
        Its half-samples give the interval.

    Raises
    ------
    AnalysisError
        If the analysis reads no site.
    """

    def __init__(self, subject: Subject, measure: Measure) -> None:
        site = getattr(measure.analysis, "site", None)
        if measure.half_samples is None or site is None:
            raise AnalysisError("surface_only needs an analysis that reads a site")
        self._measure, self._halves = measure, measure.half_samples
        self._subject = subject = measure.at_its_layer(subject)
        self._site = site
        if measure.analysis.reads == "number":
            return
        self._x, codes, names = read(subject, site, label_of(measure.analysis))
        self._codes = measure.analysis.sides(names)[codes]
        self._count = len(np.unique(self._codes[self._codes >= 0]))
        self._items, self._frames = labels(subject, "item"), labels(subject, "frame")

    def __call__(self) -> Estimate:
        draws = np.array([self.effect(rows) for rows in self._halves.rows])
        return Estimate(self.effect(), draws, self._halves.scale, self._halves.freedom)

    def effect(self, rows: np.ndarray | slice = slice(None)) -> float:
        """The balanced accuracy on some stimuli, less chance, or the share of a number's variance.

        Raises
        ------
        AnalysisError
            If a category has too few items, or a number too few values.
        """
        if self._measure.analysis.reads == "number":
            return self._of_number(rows)
        rows = np.arange(len(self._codes))[rows]
        rows = rows[self._codes[rows] >= 0]
        codes, items, x = self._codes[rows], self._items[rows], [layer[rows] for layer in self._x]
        if self._measure.analysis.reads == "nonlinear":
            x, codes, items = word_means(x, items, self._frames[rows], codes)
            group = self._groups(items, codes, TUNED_FOLDS)
            right = [accuracies(layer, codes, group)[1] for layer in x]
        else:
            group = self._groups(items, codes, FOLDS)
            folds = folds_of(group)
            decoded = [decode(layer, codes, folds, penalty=1.0).argmax(1) for layer in x]
            right = [recalls(codes, one, self._count).mean() for one in decoded]
        return float(np.mean(right)) - 1 / self._count

    def _of_number(self, rows: np.ndarray | slice) -> float:
        subject = self._subject
        some = subject.take(np.arange(subject.volume.sizes["stimulus"])[rows])
        reader = NumberLine(self._site, label_of(self._measure.analysis))
        rng = stream(self._measure.seed, self._measure.hypothesis.id, "reader")
        return float(reader.measured(some, variable="read", rng=rng).mean())

    def _groups(self, items: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
        rng = stream(self._measure.seed, self._measure.hypothesis.id, "reader")
        try:
            return item_groups(items, codes, groups=count, rng=rng)
        except ValueError as error:
            raise AnalysisError(f"reading '{label_of(self._measure.analysis)}': {error}") from None


def _of_each(worlds: Mapping[str, Subject], work: Callable[[Subject], Found]) -> dict[str, Found]:
    """What the work finds in each family of surface features that it can be done with.

    Raises
    ------
    AnalysisError
        If it can be done with none.
    """
    found: dict[str, Found] = {}
    refusal = AnalysisError("no surface features")
    for family, world in worlds.items():
        try:
            found[family] = work(world)
        except AnalysisError as error:
            refusal = error  # a small family can have fewer units than an analysis asks for
    if not found:
        raise refusal
    return found


def surfaces(subject: Subject) -> dict[str, Subject]:
    """The subject with surface features, the same in each layer, in the place of activations.

    Raises
    ------
    KeyError
        If the volume lacks one of the surface columns.
    """
    families = features(subject.volume)
    return {name: _in_place(subject, values) for name, values in families.items()}


def features(volume: xr.Dataset) -> Mapping[str, np.ndarray]:
    """Surface features by family, each stimulus x feature."""
    words = _targets(volume)
    numbers = {name: volume[name].to_numpy().astype(float)[:, None]
               for name in ("n_chars", "n_tokens", "zipf", "target_position")}  # fmt: skip
    # Steps, too: what is read need not grow evenly, and between values that training has seen lie
    # others.
    steps = {name: _steps(values) for name, values in numbers.items()}
    families = {
        "length": [numbers["n_chars"], numbers["n_tokens"], steps["n_chars"], steps["n_tokens"]],
        "frequency": [numbers["zipf"], steps["zipf"]],
        "position": [numbers["target_position"], steps["target_position"]],
        "first token": [_one_hot(volume["first_token"].to_numpy())],
        "last token": [_one_hot(volume["last_token"].to_numpy())],
        "first letter": [_marks(words, lambda word: [word[0]])],
        "ending": [_marks(words, lambda word: [word[-1], word[-2:]])],
        "pairs of letters": [
            _marks(words, lambda word: [word[at : at + 2] for at in range(len(word) - 1)])
        ],
    }
    joined = {name: np.concatenate(parts, axis=1) for name, parts in families.items()}
    # A property that does not vary has nothing to say.
    varied = {name: values for name, values in joined.items() if np.ptp(values, axis=0).any()}
    return {**varied, "all": np.concatenate(list(joined.values()), axis=1)}


def _targets(volume: xr.Dataset) -> np.ndarray:
    """What is written in the text of each stimulus where its target stands."""
    texts = volume["text"].to_numpy().astype(object)
    places = zip(volume["target_start"].to_numpy(), volume["target_end"].to_numpy(), strict=True)
    return np.array([text[at:end] for text, (at, end) in zip(texts, places, strict=True)], str)


def _in_place(subject: Subject, values: np.ndarray) -> Subject:
    volume = subject.volume
    layers = volume.sizes["layer"]
    repeated = np.broadcast_to(values[:, None], (len(values), layers, values.shape[1]))
    dims = ("stimulus", "layer", "unit")
    return subject.replace_volume(
        volume.drop_vars([*volume.data_vars, "unit"], errors="ignore")
        .assign({kind: (dims, repeated) for kind in volume.data_vars})
        .assign_coords(unit=np.arange(values.shape[1]))
    )


def _steps(values: np.ndarray) -> np.ndarray:
    """Whether a number reaches each of up to `STEPS` of its values, stimulus x step."""
    found = np.unique(values)
    places = np.linspace(0, len(found) - 1, min(len(found), STEPS + 1)).round().astype(int)
    return (values >= found[places[1:]]).astype(float)


def _one_hot(values: np.ndarray) -> np.ndarray:
    return (values[:, None] == np.unique(values)).astype(float)


def _marks(words: np.ndarray, marks_of: Callable[[str], list[str]]) -> np.ndarray:
    """How often each mark of its spelling stands in each word."""
    some, which = np.unique(words, return_inverse=True)
    marks = [marks_of(word) for word in some]
    known = sorted({mark for some in marks for mark in some})
    counts = [[some.count(mark) for mark in known] for some in marks]
    return np.array(counts, dtype=float).reshape(len(some), -1)[which]
