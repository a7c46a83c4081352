"""Without what the surface of the words tells of both, two models must still be alike.

Two models that write down the length of a word, its frequency and its first letters are alike, and
have understood nothing. What the surface predicts of the patterns of each is taken out of both
(Robinson 1988), and the likeness of what is left must still matter.

Families of features are taken out one after the other, by ridge regressions whose penalties are
those that predict items best that are left out (Golub et al. 1979): a family that tells nothing
takes nothing, however many features it has. What one item alone has on its surface, such as a first
token that no other word begins with, cannot be told from the item and is left. Untrained twins read
the same tokens, and are the control for that.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from sklearn.linear_model import RidgeCV

from analyses import AnalysisError
from analyses.base import Asks, labels, vectors
from analyses.words import in_spreads, word_means
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control, with_activations
from verification.controls.surface_only import features
from verification.measure import Measure
from verification.statistics import Estimate

# Of the regressions, in units of the mean squared length of the features of an item.
PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)


@control
@dataclass(frozen=True)
class BeyondSurface(Control):
    """Replication control: the effect without what the surface predicts."""

    kind: ClassVar[Kind] = "replication"
    of: ClassVar[tuple[Asks, ...]] = ("likeness",)

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        subject = measure.at_its_layer(subject).without_twins()
        left = measure(residual(subject, measure))
        low, high = left.interval(1 - 2 * hypothesis.alpha)
        passed = bool(low >= self.margin)
        return Check(
            control="beyond_surface",
            kind=self.kind,
            passed=passed,
            estimate=left.value,
            interval=(low, high),
            margin=self.margin,
            reason=(
                "without what the surface of the words predicts of both models, an effect of "
                f"{left.value:.3f} ({low:.3f} to {high:.3f}) is left, "
                f"{'at least' if passed else 'not surely'} the margin {self.margin:g}"
            ),
            kept=left.value,
        )

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        left = residual(subject.without_twins(), measure)
        return measure.profile(left).expand_dims("draw")


def residual(subject: Subject, measure: Measure) -> Subject:
    """The subject and those beside it, each without what the surface predicts of it.

    Raises
    ------
    AnalysisError
        If the analysis reads no site.
    """
    site = getattr(measure.analysis, "site", None)
    if site is None:
        raise AnalysisError("beyond_surface needs an analysis that reads a site")
    left = [_without(one, site) for one in subject.together]
    return left[0].set_beside(*left[1:])


def _without(subject: Subject, site: str) -> Subject:
    """One subject, the families of features taken out one after the other, the smallest first."""
    x, items, frames = vectors(subject, site), labels(subject, "item"), labels(subject, "frame")
    which = np.unique(items, return_inverse=True)[1]
    # By items: the frames of one would tell the penalty that the surface predicts it well.
    words = word_means(x, items, frames, np.zeros(len(items), dtype=int))[0]
    families = dict(features(subject.volume))
    del families["all"]
    known = [item_means(family, which) for family in families.values()]
    # What does not vary over items tells nothing of them.
    known = [in_spreads(family - family.mean(0), family) for family in known]
    known = [family for family in known if family.any()]
    left = np.array(x)
    for layer, patterns in enumerate(words):
        spread = patterns.std(0)
        wanted = in_spreads(patterns - patterns.mean(0), patterns)
        rest = wanted.copy()
        for family in sorted(known, key=lambda family: family.shape[1]):
            size = np.mean(np.sum(family**2, axis=1))
            model = RidgeCV(alphas=[size * penalty for penalty in PENALTIES])
            rest -= model.fit(family, rest).predict(family)
        left[layer] -= ((wanted - rest) * spread)[which]
    return with_activations(subject, site, left)


def item_means(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Rows averaged over the stimuli of each item: item x column."""
    sums = np.zeros((which.max() + 1, values.shape[1]))
    np.add.at(sums, which, values)
    return sums / np.bincount(which)[:, None]
