"""Whether a probe reads the label, or only which item it sees.

The control task of Hewitt & Liang (2019): each item has a label dealt out at random, and the probe
is tested on items that it knows, in frames that it does not. What it reads there it has memorised.
The selectivity of a probe is how much better it reads the true label, tested in the same way. Where
items are kept out of training, as `probe` does, a control task is at chance whatever the probe.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, dealt, labels, read, register
from analyses.probe import decode, recalls
from analyses.splits import folds_of, item_groups
from scanner import Subject


@register
@dataclass(frozen=True)
class ControlTask(Analysis):
    """Decode the label and random ones, of items that are known.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table.
    frame_folds : int
        Groups of frames that take turns as the test.
    tasks : int
        How often labels are dealt out, to average over.
    penalty : float
        Ridge penalty, in units of the mean squared length of a training pattern.
    """

    site: str
    label: str = "category"
    frame_folds: int = 2
    tasks: int = 5
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise ValueError("tasks must be at least 1")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Decode.

        Returns
        -------
        xarray.Dataset
            By layer: ``task`` and ``control_task``, balanced accuracies with the true and with
            random labels of items that were trained on, in other frames; ``selectivity``, their
            difference.

        Raises
        ------
        AnalysisError
            If there are fewer frames than folds.
        """
        (subject,) = subjects
        x, _, _ = read(subject, self.site, self.label)
        frames = labels(subject, "frame")
        try:
            group = item_groups(frames, np.zeros(len(frames)), groups=self.frame_folds, rng=rng)
        except ValueError:
            raise AnalysisError(
                f"control_task: {len(np.unique(frames))} frames cannot be divided into "
                f"{self.frame_folds} groups"
            ) from None
        folds = folds_of(group)
        worlds = [subject, *(dealt(subject, rng, self.label) for _ in range(self.tasks))]
        labellings = [read(world, self.site, self.label)[1] for world in worlds]
        accuracy = np.array(
            [
                [
                    recalls(
                        codes, decode(layer, codes, folds, penalty=self.penalty).argmax(1),
                        codes.max() + 1,
                    ).mean()
                    for layer in x
                ]
                for codes in labellings
            ]
        )  # fmt: skip
        task, control = accuracy[0], accuracy[1:].mean(0)
        return xr.Dataset(
            {
                "task": ("layer", task),
                "control_task": ("layer", control),
                "selectivity": ("layer", task - control),
            },
            coords={"layer": subject.volume["layer"].to_numpy()},
        )
