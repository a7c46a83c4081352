"""How several models answer the same questions: each with its interval, each held against each.

What `choices` or `replies` found is compared item by item, since models that were asked the same
are right and wrong on the same items: by how much one is ahead, with an interval by bootstrap over
items, the p of changing signs at random, and McNemar's exact test (McNemar 1947). Published tables
give shares alone (Tanwar et al. 2025). The share of one over that of another is their normalised
score, where the first is a model made of several and the other the specialist of a category.

Nothing is claimed of it: that one model is ahead of another has no untrained twin to be held
against. A protocol claims what each of them does.
"""

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.acting import own, values_of
from analyses.base import Analysis, AnalysisError, check_recorded, register
from analyses.shares import bootstrapped, item_means, of_categories, paired
from scanner import Subject


@register
@dataclass(frozen=True)
class Standings(Analysis):
    """Compare what subjects answer.

    Attributes
    ----------
    site : str
        The answers to read: the name of a ``choices`` or ``replies`` analysis.
    score : str, optional
        What of them, as ``overlap`` of replies; by default whether they are right.
    """

    site: str
    score: str | None = None

    @property
    def takes(self) -> None:
        return None

    def misfit(self, dims: Collection[str]) -> str:
        if set(dims) == {"stimulus", "layer", "target"}:
            return ""
        return f"'{self.site}' has no answers; name a `choices` or `replies` analysis"

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare all with all, at the first of the layers that were left out.

        Returns
        -------
        xarray.Dataset
            ``standing`` (subject), with ``standing_low`` and ``standing_high``, its interval at
            95 % by bootstrap over items; ``standing_macro`` (subject): the mean over categories;
            ``standing_by_category`` (subject, category). ``lead`` (subject, other_subject), with
            ``lead_low``, ``lead_high``, ``lead_p`` and ``lead_mcnemar``: by how much the first is
            ahead. ``normalised`` (subject, other_subject) and ``normalised_by_category``
            (subject, other_subject, category): what the first has over what the other has, NaN
            where that is nothing.

        Raises
        ------
        AnalysisError
            If a subject was not asked, or they were asked about different items.
        """
        every = [self._answers(one) for one in subjects]
        means, items = zip(*(item_means(*one) for one in zip(every, subjects, strict=True)),
                           strict=True)  # fmt: skip
        for subject, names in zip(subjects, items, strict=True):
            if not np.array_equal(names, items[0]):
                raise AnalysisError(
                    f"{subject.name} and {subjects[0].name} have been asked about other items"
                )
        each = np.stack([of_categories(*one)[1] for one in zip(every, subjects, strict=True)])
        share = np.array([one.mean() for one in means])
        limits = np.array([bootstrapped(one, deepcopy(rng)) for one in means]).T
        names = [one.name for one in subjects]
        both = "subject", "other_subject"
        return xr.Dataset(
            {
                "standing": ("subject", share),
                "standing_low": ("subject", limits[0]),
                "standing_high": ("subject", limits[1]),
                "standing_macro": ("subject", each.mean(1)),
                "standing_by_category": (("subject", "category"), each),
                **{name: (both, values) for name, values in _leads(means, rng).items()},
                "normalised": (both, _over(share[:, None], share[None])),
                "normalised_by_category": ((*both, "category"), _over(each[:, None], each[None])),
            },
            coords={"subject": names, "other_subject": names,
                    "category": of_categories(every[0], subjects[0])[0]},
        )  # fmt: skip

    def _answers(self, subject: Subject) -> np.ndarray:
        """stimulus: what the subject has of the score."""
        name = self.site if self.score is None else self.score
        check_recorded(subject, name)
        values = values_of(subject.volume, name, "layer", "target", "stimulus")
        return values[0, own(subject)].astype(float)


def _leads(means: Sequence[np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What each has ahead of each: subject x subject."""
    count = len(means)
    found = {name: np.zeros((count, count)) for name in ("lead", "lead_low", "lead_high")}
    found |= {name: np.ones((count, count)) for name in ("lead_p", "lead_mcnemar")}
    for i in range(count):
        for j in range(i):
            told = paired(means[i], means[j], deepcopy(rng))
            for one, other, sign in ((i, j, 1), (j, i, -1)):
                ends = sorted((sign * told.low, sign * told.high))
                found["lead"][one, other] = sign * told.ahead
                found["lead_low"][one, other], found["lead_high"][one, other] = ends
                found["lead_p"][one, other] = told.p
                found["lead_mcnemar"][one, other] = told.mcnemar
    return found


def _over(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A share over another; NaN over nothing."""
    one, other = np.broadcast_arrays(one, other)
    return np.divide(one, other, out=np.full(one.shape, np.nan), where=other > 0)
