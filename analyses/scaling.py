"""Whether a length says anything, or a share of it along a direction.

The stream at a word is made longer or shorter, all of it or only what lies along the direction of
the word's category, and the prediction after the word is held against the intact one. Norms divide
lengths out before every block reads the stream, but what blocks add later is as long as ever, so
that scaling all of it is nothing at the end of the stream, and there alone.

What is measured of a direction is by how much the logits of other words of the category rise over
those of words of other categories. Beside it stands what the vector does that no block has seen,
set into the end of the stream: a direction that agrees with the vocabulary head needs no network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import by_kind, own, values_of
from analyses.answers import contrast_of_words, first_tokens
from analyses.base import Quantity, register
from analyses.directions import Along
from scanner import Edit, Live, Subject, Trial, sweep

OUTCOMES = ("shift", "divergence", "whole", "direct")


@register
@dataclass(frozen=True)
class Scaling(Along):
    """Scale the stream, or the component of it along a direction.

    Attributes
    ----------
    site, layers, label, way, random, item_folds
        See `analyses.directions.Along`.
    factors : tuple of float
        What is multiplied by, around the mean of the training stimuli where a component is.
    """

    factors: tuple[float, ...] = (0.25, 0.5, 2.0, 4.0)

    measures: ClassVar[Mapping[str, Quantity]] = {
        "slope": Quantity(
            "by how much other words of a category become likelier than those of others, in nats, "
            "for each time that the component along its direction is added once more",
            -float("inf"),
            float("inf"),
        ),
        "whole": Quantity(
            "how far the prediction is from the intact one when all of the stream is scaled, in "
            "nats",
            0.0,
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.factors or len(set(self.factors)) < len(self.factors) or 1 in self.factors:
            raise ValueError("factors: each once, and none of them 1")

    def identity_at(self, measure: str, layer: int, layers: int) -> str:
        at_the_end = self.site == "resid_post" and layer == layers - 1
        if measure == "whole" and at_the_end and min(self.factors) > 0:
            return (
                "behind the last block nothing but a norm reads the stream, which divides its "
                "length out"
            )
        return ""

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        names, codes = self.categories(subject)
        kinds_of = self.plan(len(names)) if live.trained else ["own"]
        x = self.recorded(subject, run)
        shape = len(codes), len(kinds_of), len(self.factors)
        made = {name: np.zeros(shape) for name in OUTCOMES}
        words = first_tokens(live)
        for fold, patterns, drawn in self.parts(subject, run, rng):
            along = self.directions(patterns, drawn, random=live.trained)
            which = self.chosen(codes[fold.test], len(names), kinds_of)
            tokens, weights = contrast_of_words(words, codes, fold.test, names)
            for stimulus, targets, weight in zip(fold.test, which, weights, strict=True):
                found = self._scaled(
                    live, run, stimulus, kinds_of, along[targets], patterns.center, x[stimulus],
                    tokens, weight,
                )  # fmt: skip
                for name in OUTCOMES:
                    made[name][stimulus] = found[name]
        # An effect that is known: these words' logits raised by hand, a nat for each time.
        made["shift"][:, np.array(kinds_of) == "known"] = np.array(self.factors) - 1
        dims = ("stimulus", "target", "factor")
        return xr.Dataset(
            {name: (dims, values.astype(np.float32)) for name, values in made.items()},
            coords={
                "stimulus": np.arange(len(codes)),
                "target": np.arange(len(kinds_of)),
                "factor": list(self.factors),
                "target_kind": ("target", kinds_of),
            },
        ).expand_dims(layer=[run])

    def _scaled(
        self,
        live: Live,
        layer: int,
        stimulus: int,
        kinds_of: list[str],
        along: np.ndarray,
        center: np.ndarray,
        there: np.ndarray,
        tokens: list[int],
        weight: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Scale at one stimulus, cut off behind its target.

        Returns
        -------
        dict of str to numpy.ndarray
            By the names of `OUTCOMES`, target x factor.
        """
        at = list(live.acted[stimulus])
        text = live.ids[stimulus][: at[-1] + 1]
        last = live.model.layers - 1
        trials = []
        for target, factor in np.ndindex(len(along), len(self.factors)):
            by, direction = self.factors[factor], along[target]
            component = Edit(
                self.site, "scale", layers=[layer], positions=at, value=by, along=direction,
                center=center,
            )  # fmt: skip
            if kinds_of[target] in ("own", "known"):
                # Turned round, a stream surely says something else.
                value = by if kinds_of[target] == "own" else -by
                whole = Edit(self.site, "scale", layers=[layer], positions=at, value=value)
            else:
                push = (by - 1) * np.linalg.norm(there) * direction
                whole = Edit(self.site, "add", layers=[layer], positions=at, value=push)
            moved = (by - 1) * ((there - center) @ direction) * direction
            end = Edit("resid_post", "add", layers=[last], positions=at[-1:], value=moved)
            trials += [Trial(0, (one,)) for one in (component, whole, end)]
        shift, divergence = np.empty((2, len(trials)))
        for found in sweep(live.model, [text], trials, answers=[tokens]):
            shift[found.trials] = (found.logits - found.intact_logits) @ weight
            divergence[found.trials] = found.divergence
        each = len(along), len(self.factors), 3
        shift, divergence = shift.reshape(each), divergence.reshape(each)
        return {
            "shift": shift[..., 0], "divergence": divergence[..., 0],
            "whole": divergence[..., 1], "direct": shift[..., 2],
        }  # fmt: skip

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say what lengths do.

        Returns
        -------
        xarray.Dataset
            ``slope``, ``whole`` (layer): means over stimuli; ``slope_of`` and ``whole_of``
            (layer, arm): of all targets on average, the latter for vectors at random as long as
            what is added to the stream; ``direct`` (layer): the slope that the vector has at the
            end of the stream; ``rise``, ``moved_whole`` and ``moved_component`` (layer, factor): of
            words of a category, and the divergence when all or the component is scaled, nats.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        times = volume["factor"].to_numpy() - 1
        # target x layer x factor: means over stimuli.
        shift, divergence, whole, direct = (
            values_of(volume, name, "target", "layer", "factor", "stimulus").mean(-1, dtype=float)
            for name in OUTCOMES
        )
        slopes, directly = (one @ times / np.sum(times**2) for one in (shift, direct))
        moved = whole.mean(-1)
        result = xr.Dataset(
            {
                "slope": ("layer", slopes[mine], {"chance": 0.0}),
                "whole": ("layer", moved[mine], {"chance": 0.0}),
                "direct": ("layer", directly[mine]),
            },
            coords={"layer": volume["layer"].to_numpy()},
        )
        if volume.sizes["target"] == 1:
            return result
        arms, slope_of = by_kind(volume, slopes)
        _, whole_of = by_kind(volume, moved)
        return result.assign(
            slope_of=(("layer", "arm"), slope_of),
            whole_of=(("layer", "arm"), whole_of),
            rise=(("layer", "factor"), shift[mine]),
            moved_whole=(("layer", "factor"), whole[mine]),
            moved_component=(("layer", "factor"), divergence[mine]),
        ).assign_coords(arm=arms, factor=volume["factor"].to_numpy())  # fmt: skip
