"""Several model RDMs held against a layer, or against several subjects, with their errors.

After Schütt et al. (2023): errors come from a bootstrap over items, and over subjects where there
are several, and noise ceilings tell what the true model would reach. Of one subject there is no
ceiling over subjects; the root of the reliability over frames is the most that any model can reach.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.stats import t as student

from analyses.base import Analysis, AnalysisError, labels, of_items, register
from analyses.rdm import Distance, model_rdm
from analyses.rdm_bootstrap import Held, Inference, infer
from analyses.rsa import item_rdms
from scanner import Subject


@register
@dataclass(frozen=True)
class RsaModels(Analysis):
    """Hold models against RDMs.

    Attributes
    ----------
    site : str
        Kind of site to read.
    models : tuple of str
        Columns of the stimulus table; of numbers, items differ by their difference.
    across : bool
        All subjects at once, at layers of the same depth, in the place of every layer of each.
    depths : tuple of float
        Of these layers: 0 is the first, 1 the last.
    distance : {'crossnobis', 'euclidean', 'correlation'}
        Of items: cross-validated over groups of frames, or of means over frames.
    comparison : {'corr', 'cosine', 'spearman', 'rho-a'}
        Of RDMs; the last two by ranks, which are ranked anew in each bootstrap sample.
    frame_folds : int
        Groups of frames.
    draws : int
        Bootstrap samples.
    level : float
        Confidence of the intervals, two-sided, of each model by itself.
    """

    site: str
    models: tuple[str, ...] = ("category", "n_chars", "n_tokens", "zipf")
    across: bool = False
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    distance: Distance = "crossnobis"
    comparison: Held = "corr"
    frame_folds: int = 2
    draws: int = 1000
    level: float = 0.95

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models must name at least one column")
        if self.draws < 2:
            raise ValueError("draws must be at least 2")
        if not 0 < self.level < 1:
            raise ValueError(f"a level of {self.level:g} is no share between 0 and 1")
        if not self.depths or not all(0 <= depth <= 1 for depth in self.depths):
            raise ValueError("depths must be between 0, the first layer, and 1, the last")

    @property
    def takes(self) -> int | None:
        return None if self.across else 1

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            ``fit`` (layer or depth, model): the similarity of RDM and model, the mean over
            subjects; ``low`` and ``high``: its interval; NaN for a model that does not vary.
            ``reachable`` (layer): the root of the reliability of the RDM over groups of frames; or
            ``ceiling_low`` and ``ceiling_high`` (depth): how alike each subject is to the mean of
            the others, and of all.

        Raises
        ------
        AnalysisError
            If there are fewer than four items, not enough frames to divide, or subjects that read
            other items.
        """
        # Frames are grouped, and items are drawn, alike for all subjects and at all places.
        seed = int(rng.integers(2**32))
        found = [
            item_rdms(
                subject, self.site, distance=self.distance, frame_folds=self.frame_folds,
                rng=np.random.default_rng(seed),
            )
            for subject in subjects
        ]  # fmt: skip
        subject, one = subjects[0], found[0]
        known = labels(subject, "item")[one.first]
        for each, rdms in zip(subjects, found, strict=True):
            if not np.array_equal(labels(each, "item")[rdms.first], known):
                raise AnalysisError(f"{each.name} and {subject.name} have read other items")
        models = np.array(
            [model_rdm(of_items(subject, column, one.first, one.which)) for column in self.models]
        )
        if not self.across:
            places = [layer[None] for layer in one.rdms]
            inferred = [self._inferred(rdms, models, seed) for rdms in places]
            found_here = self._dataset("layer", subject.volume["layer"].to_numpy(), inferred)
            return found_here.assign(reachable=("layer", np.sqrt(np.maximum(one.reliability, 0))))
        at = [
            np.array([each.rdms[round(depth * (len(each.rdms) - 1))] for each in found])
            for depth in self.depths
        ]
        inferred = [self._inferred(rdms, models, seed) for rdms in at]
        ceilings = np.array([one.ceiling for one in inferred])
        return self._dataset("depth", np.array(self.depths), inferred).assign(
            ceiling_low=("depth", ceilings[:, 0]), ceiling_high=("depth", ceilings[:, 1])
        )

    def _inferred(self, rdms: np.ndarray, models: np.ndarray, seed: int) -> Inference:
        rng = np.random.default_rng(seed)
        return infer(rdms, models, self.comparison, draws=self.draws, rng=rng)

    def _dataset(self, dim: str, places: np.ndarray, inferred: list[Inference]) -> xr.Dataset:
        fit = np.array([one.similarity for one in inferred])
        half = student.ppf((1 + self.level) / 2, inferred[0].freedom) * np.array(
            [one.error for one in inferred]
        )
        dims = (dim, "model")
        return xr.Dataset(
            {"fit": (dims, fit), "low": (dims, fit - half), "high": (dims, fit + half)},
            coords={dim: places, "model": np.array(self.models)},
        )
