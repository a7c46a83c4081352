"""Of labels that mean nothing, as little must be read from what is recognised.

The control task of Hewitt & Liang (2019): each type (of word) has a label dealt out at random and
keeps it wherever it stands. Whoever reads such a label where a type stands again has recognised the
type; that is no knowledge of what the label means. By how much more the true label is read, the
selectivity, must be surely at least the margin.

Where every type stands on one side of a split alone, nothing can be recognised, and a control task
is at chance whatever the probe. With `type` the item, that is so of an analysis that keeps items
out of training, and this control then asks no more than that the effect exceed the margin. It bites
where an analysis meets the same words again, or where several items are of one type (names of one
thing, forms of one word): `shuffled_labels` deals these apart, and sees nothing.

Types change labels as whole blocks, among those of as many items, so that each label keeps its
number of items (Winkler et al. 2014, whole-block exchangeability).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.base import Asks, label_of, labels
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import SHOWN, Control, control
from verification.measure import Measure
from verification.statistics import Estimate


@control
@dataclass(frozen=True)
class ControlTask(Control):
    """Null control: the same analysis of labels dealt out at random among types.

    Attributes
    ----------
    margin : float
        The least selectivity: how far the effect must lie above that of random labels.
    type : str
        A column of the stimulus table: stimuli with the same value are of one type.
    tasks : int
        How often labels are dealt out, to average over.
    """

    kind: ClassVar[Kind] = "null"
    of: ClassVar[tuple[Asks, ...]] = ("labels",)
    type: str = "item"
    tasks: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks < 1:
            raise ValueError("tasks must be at least 1")

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        halves = measure.half_samples
        assert halves is not None
        self._check(subject, label_of(measure.analysis))
        subject = measure.at_its_layer(subject).without_twins()
        # Anew in each half: dealt out in the whole, labels would be unequal in halves of it.
        draws = [measure.effect(self._task(subject.take(one), measure, rng)) for one in halves.rows]
        whole = [measure.effect(self._task(subject, measure, rng)) for _ in range(self.tasks)]
        task = Estimate(float(np.mean(whole)), np.array(draws), halves.scale, halves.freedom)
        what = f"to tell labels that are dealt out among values of '{self.type}'"
        return self.beaten(observed, task, hypothesis.alpha, what)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        subject = subject.without_twins()
        tasks = min(self.tasks, SHOWN)
        profiles = [measure.profile(self._task(subject, measure, rng)) for _ in range(tasks)]
        return xr.concat(profiles, "draw", combine_attrs="override")

    def _task(self, subject: Subject, measure: Measure, rng: np.random.Generator) -> Subject:
        """The subject with labels that go along with types, and with nothing else."""
        types, first, which = _blocks(subject, self.type)
        sizes = _sizes(labels(subject, "item"), which)
        order = np.arange(len(types))
        for size in np.unique(sizes):
            same = np.flatnonzero(sizes == size)
            order[same] = rng.permutation(same)
        for column in measure.analysis.dealt:
            values = labels(subject, column)[first][order][which]
            subject = subject.relabel(column, values)
        return subject

    def _check(self, subject: Subject, label: str) -> None:
        """Refuse types that cannot be recognised, or whose labels cannot be dealt out.

        Raises
        ------
        AnalysisError
        """
        types, first, which = _blocks(subject, self.type)
        values, asked = labels(subject, label), f"control_task: values of '{self.type}'"
        torn = np.flatnonzero(values != values[first][which])
        if len(torn):
            raise AnalysisError(
                f"{asked} need one '{label}' each; '{types[which[torn[0]]]}' has two"
            )
        if len(types) == len(values):
            raise AnalysisError(
                f"{asked} stand in one stimulus each, so none can be recognised in another; "
                "more frames are needed, or a type of several items"
            )
        of_label = np.unique(values[first], return_counts=True)
        if of_label[1].min() < 2:
            raise AnalysisError(
                f"{asked} must be at least two of each '{label}', or dealing labels out only "
                f"renames them; '{of_label[0][of_label[1].argmin()]}' has one"
            )
        sizes = _sizes(labels(subject, "item"), which)
        if all(len(set(values[first][sizes == one])) < 2 for one in np.unique(sizes)):
            raise AnalysisError(
                f"{asked} change labels among those of as many items, and all of these have the "
                f"same '{label}'"
            )


def _blocks(subject: Subject, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The types, a stimulus of each, and the type of each stimulus."""
    types, first, which = np.unique(labels(subject, column), return_index=True, return_inverse=True)
    return types, first, which


def _sizes(items: np.ndarray, which: np.ndarray) -> np.ndarray:
    """How many items are of each type."""
    _, first = np.unique(items, return_index=True)
    return np.bincount(which[first], minlength=1 + which.max())
