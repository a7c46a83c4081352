"""What a model loses when a part of one layer is left out, by layer and by category.

After Lad et al. (2024) and Gromov et al. (2024): a block, its attention or its MLP adds nothing to
the stream, and predictions are held against the intact ones. First and last layers are needed for
every text, so what is lost in one category says something beside what is lost in the others.

Where we differ: no text is generated, since a free run goes its own way after one other token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.stats import t as student

from analyses.base import Analysis, AnalysisError, Quantity, labels, register
from scanner import Subject

# What was recorded, by what it is called here.
RECORDED = {"divergence": "lesion_divergence", "surprisal": "lesion_surprisal"}


@register
@dataclass(frozen=True)
class Lesion(Analysis):
    """Average what lesions did, over the frames of an item and then over items.

    It describes, and has no measures that a hypothesis may name: shuffled labels and the surface of
    the words are no controls for what a model needs.

    Attributes
    ----------
    label : str
        The column of the stimulus table that has the categories.
    level : float
        Confidence of the intervals, two-sided, of each layer and part by itself.
    """

    label: str = "category"
    level: float = 0.95

    measures: ClassVar[Mapping[str, Quantity]] = {}

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"a level of {self.level:g} is no share between 0 and 1")

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
            If no lesions were recorded, a category has a single item, or a value is not finite.
        """
        (subject,) = subjects
        missing = [name for name in RECORDED.values() if name not in subject.volume]
        if missing:
            raise AnalysisError(
                f"{subject.name}: no '{missing[0]}' in its volume; scan with `lesions: [block]`"
            )
        names, codes = np.unique(labels(subject, self.label), return_inverse=True)
        _, first, which = np.unique(labels(subject, "item"), return_index=True, return_inverse=True)
        of_category = codes[first]
        few = np.flatnonzero(np.bincount(of_category, minlength=len(names)) < 2)
        if few.size:
            raise AnalysisError(f"'{names[few[0]]}' has one item; an average needs 2")
        # item x stimulus: the mean over the frames of an item.
        mean = (which == np.arange(len(first))[:, None]) / np.bincount(which)[:, None]
        of_items = {}
        for name, recorded in RECORDED.items():
            values = subject.volume[recorded].to_numpy().astype(float)
            if not np.isfinite(values).all():
                raise AnalysisError(f"{subject.name}: '{recorded}' is not finite")
            of_items[name] = np.einsum("is,slp->ilp", mean, values)
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
