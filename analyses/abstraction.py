"""How far a layer has gone from how words are written to what they mean.

Of the distances between words in a layer, how much goes with meaning once spelling is taken out,
less how much goes with spelling once meaning is taken out: partial rank correlations of RDMs. Its
steepest rise through the depth (`at: {layer: steepest}`) is one way to make the speed of
abstraction a number; none is published under that name. Depth at which concepts can be read is (Jin
et al. 2025), and so is where dimensionality is highest (Cheng et al. 2025).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.spatial.distance import squareform

from analyses.base import Analysis, AnalysisError, Quantity, labels, of_items, one_value, register
from analyses.rdm import Distance, alike, by_letters, model_rdm, prepared
from analyses.rsa import AT_ONCE, item_rdms
from scanner import Subject

MEASURES = ("meaning", "spelling", "ahead")


@register
@dataclass(frozen=True)
class Abstraction(Analysis):
    """Hold each layer against meaning and spelling.

    Attributes
    ----------
    site : str
        Kind of site to read.
    label : str
        What words mean, a column of the stimulus table.
    distance : {'crossnobis', 'euclidean', 'correlation'}
        Of items: cross-validated over groups of frames, or of means over frames.
    confounds : tuple of str
        Columns whose RDMs are taken out of both.
    frame_folds : int
        Groups of frames.
    """

    site: str
    label: str = "category"
    distance: Distance = "crossnobis"
    confounds: tuple[str, ...] = ("n_tokens", "zipf")
    frame_folds: int = 2

    measures: ClassVar[Mapping[str, Quantity]] = {
        "ahead": Quantity(
            "how much more the distances of words go with what they mean, whatever their letters, "
            "than with their letters, whatever they mean; a difference of rank correlations",
            -2.0,
            2.0,
        ),
    }

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            ``meaning`` and ``spelling`` (layer): partial rank correlations of the RDM of a layer
            with that of the label and with that of pairs of letters; ``ahead`` (layer): the first
            less the second.

        Raises
        ------
        AnalysisError
            If the label has one value, no two words have letters in common, or items or frames are
            too few.
        """
        (subject,) = subjects
        rdms, model, known = self._models(subject, rng)
        held = self._held(rdms, prepared(model[None], "spearman"), known)[:, 0]
        layers = {"layer": subject.volume["layer"].to_numpy()}
        found = xr.Dataset(
            {name: ("layer", one) for name, one in zip(MEASURES, held, strict=True)}, coords=layers
        )
        found["ahead"].attrs["chance"] = 0.0
        return found

    def permuted(
        self,
        subject: Subject,
        variable: str,
        *,
        draws: int,
        rng: np.random.Generator,
        shuffles: np.random.Generator,
    ) -> xr.DataArray:
        """All draws from the same RDMs: only the model changes (Mantel 1967)."""
        rdms, model, known = self._models(subject, rng)
        square = squareform(prepared(model[None], "spearman")[0], checks=False)
        one, other = np.triu_indices(len(square), 1)
        items = np.tile(np.arange(len(square)), (draws, 1))
        orders = np.array_split(shuffles.permuted(items, axis=1), -(-draws // AT_ONCE))
        held = [self._held(rdms, square[order[:, one], order[:, other]], known) for order in orders]
        return xr.DataArray(
            np.concatenate([one[MEASURES.index(variable)] for one in held]),
            dims=("draw", "layer"),
            coords={"layer": subject.volume["layer"].to_numpy()},
            attrs={"chance": 0.0},
        )

    def _models(
        self, subject: Subject, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RDMs of layers (layer x pair), of the label (pair), and of what is known (model x pair).

        All but that of the label prepared; of what is known, letters are the first.
        """
        if len(np.unique(labels(subject, self.label))) < 2:
            raise AnalysisError(one_value(self.label, labels(subject, self.label)[0]))
        found = item_rdms(
            subject, self.site, distance=self.distance, frame_folds=self.frame_folds, rng=rng
        )
        letters = by_letters(labels(subject, "item")[found.first])
        if np.ptp(letters) == 0:
            raise AnalysisError("abstraction: every two words have equally many letters in common")
        columns = [of_items(subject, name, found.first, found.which) for name in self.confounds]
        varied = [model_rdm(values) for values in columns if len(np.unique(values)) > 1]
        model = model_rdm(of_items(subject, self.label, found.first, found.which))
        rdms, known = (
            prepared(some, "spearman") for some in (found.rdms, np.array([letters, *varied]))
        )
        return rdms, model, known

    def _held(self, rdms: np.ndarray, models: np.ndarray, known: np.ndarray) -> np.ndarray:
        """`MEASURES` x model x layer, of models that are prepared."""
        letters, others = known[:1], known[1:]
        # With the confounds taken out, the partial correlations follow from three plain ones.
        of_layers, of_models = (alike(one, letters, "spearman", others) for one in (rdms, models))
        meant, written, both = alike(models, rdms, "spearman", others), of_layers.T, of_models
        meaning, spelling = _partial(meant, written, both), _partial(written, meant, both)
        return np.array([meaning, spelling, meaning - spelling])


def _partial(wanted: np.ndarray, out: np.ndarray, both: np.ndarray) -> np.ndarray:
    """A correlation without what goes with a third, from those of all three; NaN if that is all."""
    left = (1 - out**2) * (1 - both**2)
    wanted, left, out, both = np.broadcast_arrays(wanted, left, out, both)
    root = np.sqrt(np.maximum(left, 0))
    return np.divide(wanted - out * both, root, out=np.full(root.shape, np.nan), where=root > 1e-9)
