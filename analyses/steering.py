"""Whether adding what carries a category makes the model say its words.

A direction found in some items is added to the stream, in several doses, while the model reads the
beginnings of sentences up to where the target would stand (Turner et al. 2023; Rimsky et al. 2024).
What is measured is the word that was left out, which found nothing: by how much its logit rises
over those of the words of other categories, for each dose. Steering can fail and turn round (Tan et
al. 2024), so what is reported beside it is how far predictions move at all.

Beside the direction of the word's own category, others are added as long: drawn from the covariance
of the activations, the same so strong that predictions move as much, found from labels dealt out
anew, and those of other categories (`analyses.directions`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import kinds, own, values_of
from analyses.base import AnalysisError, Quantity, register
from analyses.directions import Along
from analyses.targets import strength
from scanner import Edit, Live, Subject, Trial, sweep


@register
@dataclass(frozen=True)
class Steering(Along):
    """Add directions, and see what becomes likely.

    Attributes
    ----------
    site, layers, label, way, random, item_folds
        See `analyses.directions.Along`.
    doses : tuple of float
        How much is added, in standard deviations of the training stimuli along the direction.
    """

    doses: tuple[float, ...] = (-4.0, -2.0, 2.0, 4.0)

    drawn: ClassVar[tuple[str, ...]] = ("matched", "shuffled", "disruptive")
    measures: ClassVar[Mapping[str, Quantity]] = {
        "slope": Quantity(
            "by how much the words of a category become likelier than others, in nats for each "
            "standard deviation that is added",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.doses)) < max(len(self.doses), 2) or 0 in self.doses:
            raise ValueError("doses: at least two, each once, and none of them 0")

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """Layers."""
        short = next((one for one, target in enumerate(live.targets) if target[0] < 2), None)
        if short is not None:
            raise AnalysisError(
                f"steering: the target of stimulus {short} stands at the beginning of its text, so "
                "nothing is read before it"
            )
        return list(self.layers)

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        names, codes = self.categories(subject)
        kinds_of = self.plan(len(names)) if live.trained else ["own"]
        shape = len(codes), len(kinds_of), len(self.doses)
        shift, divergence = np.empty(shape), np.empty(shape)
        for fold, patterns, drawn in self.parts(subject, run, rng):
            found = self.directions(patterns, drawn, random=live.trained)
            pushes = [along * (patterns.stimuli @ along).std() for along in found]
            steered = self._steered(live, run, pushes, codes, fold.test)
            if live.trained:
                stronger = self._as_disruptive(pushes, steered[1], len(names))
                again = self._steered(live, run, stronger, codes, fold.test)
                steered = np.concatenate([steered, again], axis=2)
            which = self.chosen(codes[fold.test], len(names), kinds_of)
            rows = np.arange(len(fold.test))[:, None]
            shift[fold.test], divergence[fold.test] = steered[:, rows, which]
            # An effect that is known: these words' logits raised by hand, a nat for each dose.
            for place in np.flatnonzero(np.array(kinds_of) == "known"):
                shift[fold.test, place] = self.doses
        dims = ("stimulus", "target", "dose")
        return xr.Dataset(
            {
                "shift": (dims, shift.astype(np.float32)),
                "divergence": (dims, divergence.astype(np.float32)),
            },
            coords={
                "stimulus": np.arange(len(codes)),
                "target": np.arange(len(kinds_of)),
                "dose": list(self.doses),
                "target_kind": ("target", kinds_of),
            },
        ).expand_dims(layer=[run])

    def _steered(
        self,
        live: Live,
        layer: int,
        pushes: list[np.ndarray],
        codes: np.ndarray,
        test: np.ndarray,
    ) -> np.ndarray:
        """What pushes do to the words of test stimuli.

        Returns
        -------
        numpy.ndarray
            (logit over those of other categories, divergence) x stimulus x push x dose; both
            changes.
        """
        begun = [tuple(live.ids[one][: live.targets[one][0]]) for one in test]
        beginnings = list(dict.fromkeys(begun))
        word = np.array([live.ids[one][live.targets[one][0]] for one in test])
        asked, place = np.unique(word, return_inverse=True)
        trials = []
        for text, push, dose in np.ndindex(len(beginnings), len(pushes), len(self.doses)):
            value = pushes[push] * self.doses[dose]
            # The first token is what all others look at; it is left alone.
            edit = Edit(self.site, "add", layers=[layer], start=1, value=value)
            trials.append(Trial(text, (edit,)))
        logits = np.empty((len(trials), len(asked)))
        divergence = np.empty(len(trials))
        answers = [asked.tolist()] * len(beginnings)
        for found in sweep(live.model, beginnings, trials, answers=answers):
            logits[found.trials] = found.logits - found.intact_logits
            divergence[found.trials] = found.divergence
        each = len(beginnings), len(pushes), len(self.doses)
        logits, divergence = logits.reshape(*each, -1), divergence.reshape(each)
        of_text = np.array([beginnings.index(one) for one in begun])
        made = np.empty((2, len(test), *each[1:]))
        for row, (text, code) in enumerate(zip(of_text, codes[test], strict=True)):
            others = place[codes[test] != code]
            made[0, row] = logits[text, ..., place[row]] - logits[text][..., others].mean(-1)
            made[1, row] = divergence[text]
        return made

    def _as_disruptive(
        self, pushes: list[np.ndarray], divergence: np.ndarray, categories: int
    ) -> list[np.ndarray]:
        """Pushes at random made so long that predictions move as much as by those of categories."""
        moved = divergence.mean((0, 2))
        wanted = moved[:categories].mean()
        return [
            pushes[one] * strength(wanted, moved[one])
            for one in range(categories, categories + self.draws(categories))
        ]

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say how words follow doses.

        Returns
        -------
        xarray.Dataset
            ``slope`` (layer): of the rise over the dose, with no rise at none, mean over stimuli;
            ``slope_of`` (layer, arm): of all targets on average; ``rise`` and ``moved``
            (layer, dose): the rise of a word's own category, and the divergence of predictions,
            nats.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        dose = volume["dose"].to_numpy()
        # target x layer x dose: means over stimuli.
        shift, divergence = (
            values_of(volume, name, "target", "layer", "dose", "stimulus").mean(-1, dtype=float)
            for name in ("shift", "divergence")
        )
        slopes = shift @ dose / np.sum(dose**2)
        result = xr.Dataset(
            {"slope": ("layer", slopes[mine], {"chance": 0.0})},
            coords={"layer": volume["layer"].to_numpy()},
        )
        if volume.sizes["target"] == 1:
            return result
        given = kinds(volume)
        arms = [kind for kind in dict.fromkeys(given) if kind != "known"]
        return result.assign(
            slope_of=(
                ("layer", "arm"), np.stack([slopes[given == kind].mean(0) for kind in arms], 1)
            ),
            rise=(("layer", "dose"), shift[mine]),
            moved=(("layer", "dose"), divergence[mine]),
        ).assign_coords(arm=arms, dose=dose)  # fmt: skip
