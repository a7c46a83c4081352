"""What a model loses when a part of one layer is left out, by layer and by category.

After Lad et al. (2024) and Gromov et al. (2024): a block, its attention or its MLP adds nothing to
the stream, and predictions are held against the intact ones. First and last layers are needed for
every text, so what is lost in one category says something beside what is lost in the others.

Where we differ: no text is generated, since a free run goes its own way after one other token.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.stats import t as student

from analyses.acting import Acting
from analyses.base import AnalysisError, labels, register
from scanner import Live, Subject, lesioned
from scanner.sites import PARTS, Part

# Stimuli of a run.
STIMULI = 64


@register
@dataclass(frozen=True)
class Lesion(Acting):
    """Leave parts out, and average what is lost over the frames of an item and then over items.

    It describes, and has no measures that a hypothesis may name: shuffled labels and the surface of
    the words are no controls for what a model needs.

    Attributes
    ----------
    parts : tuple of str
        What is left out, one of a layer at a time: ``block``, ``attention``, ``mlp``.
    label : str
        The column of the stimulus table that has the categories.
    level : float
        Confidence of the intervals, two-sided, of each layer and part by itself.
    """

    parts: tuple[Part, ...] = PARTS
    label: str = "category"
    level: float = 0.95

    def __post_init__(self) -> None:
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts: {', '.join(PARTS)}, each once")
        if not 0 < self.level < 1:
            raise ValueError(f"a level of {self.level:g} is no share between 0 and 1")

    def runs(self, live: Live, subject: Subject) -> list[range]:
        count = len(live.ids)
        return [range(first, min(first + STIMULI, count)) for first in range(0, count, STIMULI)]

    def act(
        self, live: Live, subject: Subject, run: range, *, rng: np.random.Generator
    ) -> xr.Dataset:
        found = lesioned(live.model, [live.ids[one] for one in run], self.parts)
        return xr.Dataset(
            {name: (("stimulus", "layer", "part"), values) for name, values in found.items()},
            coords={
                "stimulus": np.array(run),
                "layer": np.arange(live.model.layers),
                "part": list(self.parts),
            },
        )

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average.

        Returns
        -------
        xarray.Dataset
            ``divergence`` (layer, part): from the intact prediction of the next token, nats;
            ``surprisal`` (layer, part): what the surprisal of the text's tokens rises by, nats a
            token; each with ``..._low`` and ``..._high``, its interval over items. Of each part
            ``block_by_category`` and so on (layer, category): the divergence.

        Raises
        ------
        AnalysisError
            If a category has a single item.
        """
        (subject,) = subjects
        names, codes = np.unique(labels(subject, self.label), return_inverse=True)
        _, first, which = np.unique(labels(subject, "item"), return_index=True, return_inverse=True)
        of_category = codes[first]
        few = np.flatnonzero(np.bincount(of_category, minlength=len(names)) < 2)
        if few.size:
            raise AnalysisError(f"'{names[few[0]]}' has one item; an average needs 2")
        # item x stimulus: the mean over the frames of an item.
        mean = (which == np.arange(len(first))[:, None]) / np.bincount(which)[:, None]
        of_items = {
            name: np.einsum("is,slp->ilp", mean, subject.volume[name].to_numpy().astype(float))
            for name in ("divergence", "surprisal")
        }
        parts = subject.volume["part"].to_numpy().astype(object).astype(str)
        return xr.Dataset(
            {
                **self._with_interval("divergence", of_items["divergence"]),
                **_by_category(of_items["divergence"], of_category, parts),
                **self._with_interval("surprisal", of_items["surprisal"]),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(), "part": parts, "category": names,
            },
        )  # fmt: skip

    def _with_interval(
        self, name: str, values: np.ndarray
    ) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """The mean over items, and Student's interval."""
        count = len(values)
        mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(count)
        half = student.ppf((1 + self.level) / 2, count - 1) * error
        dims = ("layer", "part")
        return {
            name: (dims, mean),
            f"{name}_low": (dims, mean - half),
            f"{name}_high": (dims, mean + half),
        }


def _by_category(
    values: np.ndarray, codes: np.ndarray, parts: np.ndarray
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The mean over the items of each category, of item x layer x part."""
    means = np.array([values[codes == code].mean(0) for code in range(codes.max() + 1)])
    return {
        f"{part}_by_category": (("layer", "category"), means[:, :, place].T)
        for place, part in enumerate(parts)
    }
