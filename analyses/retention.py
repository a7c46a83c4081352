"""Whether one probe for all categories reads each as well as a probe of its own.

Retention is the skill of the shared probe over that of the dedicated one, with skill the area under
the ROC curve above a half. Multinomial logistic regression is the shared probe, a logistic
regression of one category against the rest the dedicated one. Both are lines in the same space and
each stimulus has one category, so that a retention near one is nearly an identity and no sign that
categories are held side by side; with least squares the two are the same probe.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.base import Analysis, register
from analyses.probe import aucs, decode_logistic
from analyses.splits import folds_of
from analyses.words import read_words
from scanner import Subject


@register
@dataclass(frozen=True)
class Retention(Analysis):
    """Hold a shared probe against dedicated ones.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        A column of the stimulus table.
    item_folds : int
        Groups of items that take turns as the test.
    penalty : float
        As that of `probe` for logistic regression.
    """

    site: str
    label: str = "category"
    item_folds: int = 4
    penalty: float = 1.0

    identities: ClassVar[Mapping[str, str]] = {
        "retention": "both probes are lines in one space and each stimulus has one category, so "
        "that it is near one in any data; by least squares they are the same probe",
    }

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            ``auc_shared`` and ``auc_dedicated`` (layer, category): areas under the ROC curve over
            items, after the mean of each frame has been taken out; ``retention`` (layer): the mean
            skill of the shared probe over that of the dedicated ones, NaN where these have none.

        Raises
        ------
        AnalysisError
            If a category has fewer items than there are folds.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        folds = folds_of(words.groups(self.item_folds, rng=rng))
        areas = np.zeros((2, len(words.patterns), len(words.names)))
        for layer, patterns in enumerate(words.patterns):
            for place, rest in enumerate((False, True)):
                scores = decode_logistic(
                    patterns, words.codes, folds, penalty=self.penalty, rest=rest
                )
                for _, test in folds:
                    found = aucs(scores[test][:, None], words.codes[test][:, None])
                    areas[place, layer] += found[0] / len(folds)
        skill = (areas - 0.5).mean(2)
        retention = np.divide(
            skill[0], skill[1], out=np.full(len(skill[0]), np.nan), where=skill[1] > 0
        )
        return xr.Dataset(
            {
                "auc_shared": (("layer", "category"), areas[0]),
                "auc_dedicated": (("layer", "category"), areas[1]),
                "retention": ("layer", retention),
            },
            coords={"layer": subject.volume["layer"].to_numpy(), "category": words.names},
        )
