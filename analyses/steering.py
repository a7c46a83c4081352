"""Whether adding what carries a category makes the model say its words.

A direction found in some items is added to the stream, in several doses, while the model reads the
beginnings of sentences up to where the target would stand (Turner et al. 2023; Rimsky et al. 2024).
What is measured is the word that was left out, which found nothing: by how much its logit rises
over those of the words of other categories, for each dose. Steering can fail and turn round (Tan et
al. 2024), so what is reported beside it is how far predictions move at all.

Beside the direction of the word's own category, others are added as long: drawn from the covariance
of the activations, the same so strong that predictions move as much, found from labels dealt out
anew, and those of other categories (`analyses.directions`).

The doses are shown at work, too: what the model goes on to say under each. How steeply a category
can be steered is held against over how many dimensions its items are spread, in items that did not
find its direction. In those that did, as is published, the same noise is in both, and correlates
the two where nothing else does (by 0.5 in `tests/analyses/test_acting.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from analyses.acting import by_kind, check_begun, own, values_of
from analyses.answers import first_tokens
from analyses.base import Quantity, labels, register
from analyses.dimensionality import participation, shared_variances
from analyses.directions import Along
from analyses.targets import strength
from analyses.words import in_spreads, without_frames
from scanner import Edit, Live, Subject, Trial, continued, sweep

# Tokens of a continuation that is shown.
SHOWN = 12


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
        "against_dimension": Quantity(
            "how much more steeply those categories can be steered whose items, others than found "
            "the direction, lie in fewer dimensions; a rank correlation, its sign turned",
            -1.0,
            1.0,
        ),
        "against_dimension_found": Quantity(
            "the same with the dimensions of those items that found the direction", -1.0, 1.0
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.doses)) < max(len(self.doses), 2) or 0 in self.doses:
            raise ValueError("doses: at least two, each once, and none of them 0")

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """Layers."""
        check_begun("steering", live)
        return list(self.layers)

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        names, codes = self.categories(subject)
        kinds_of = self.plan(len(names)) if live.trained else ["own"]
        shape = len(codes), len(kinds_of), len(self.doses)
        shift, divergence = np.empty(shape), np.empty(shape)
        dimension, of_found = np.empty(len(codes)), np.empty(len(codes))
        said: dict[str, tuple[tuple[str, ...], object]] = {}
        for fold, patterns, drawn in self.parts(subject, run, rng):
            dimension[fold.test] = self._dimensions(subject, run, codes, fold.test)
            trained = self._dimensions(subject, run, codes, fold.train)
            each = {code: one for code, one in zip(codes[fold.train], trained, strict=True)}
            of_found[fold.test] = [each.get(code, 0.0) for code in codes[fold.test]]
            found = self.directions(patterns, drawn, random=live.trained)
            pushes = [along * (patterns.stimuli @ along).std() for along in found]
            if live.trained and not said:
                said = self._said(live, run, pushes[: len(names)], int(fold.test[0]))
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
        return (
            xr.Dataset(
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
            )
            .expand_dims(layer=[run])
            .assign_coords(
                dimension=(("layer", "stimulus"), dimension[None]),
                dimension_found=(("layer", "stimulus"), of_found[None]),
            )
            .assign_coords(said)
        )

    def _said(
        self, live: Live, layer: int, pushes: list[np.ndarray], stimulus: int
    ) -> dict[str, tuple[tuple[str, ...], object]]:
        """How the beginning of a stimulus goes on under each push and dose, and without any."""
        begun = live.ids[stimulus][: live.targets[stimulus][0]]
        done = [
            (Edit(self.site, "add", layers=[layer], start=1, value=push * dose),)
            for push in pushes
            for dose in self.doses
        ]
        unsteered, *steered = continued(live.model, begun, [(), *done], tokens=SHOWN)
        shape = 1, len(pushes), len(self.doses)
        return {
            "said": (("layer", "towards", "dose"), np.array(steered).reshape(shape)),
            "unsteered": (("layer",), np.array([unsteered])),
            "begun": (("layer",), np.array([live.model.tokenizer.decode(begun)])),
            "towards": (("towards",), np.arange(len(pushes))),
        }

    def _dimensions(
        self, subject: Subject, layer: int, codes: np.ndarray, some: np.ndarray
    ) -> np.ndarray:
        """Of each of some stimuli, over how many dimensions those of its category among them lie.

        What halves of the frames share, where there are some; 0 where that is nothing.
        """
        x = self.recorded(subject, layer)
        items, frames = (labels(subject, name)[some] for name in ("item", "frame"))
        scaled = in_spreads(without_frames(x[None, some], frames), x[None, some])[0]
        _, half = np.unique(frames, return_inverse=True)
        found = np.zeros(len(some))
        for code in np.unique(codes[some]):
            rows = codes[some] == code
            member = np.unique(items[rows])[:, None] == items
            halves = [member & (half % 2 == one) for one in (0, 1)]
            if not all(one.any(1).all() for one in halves):  # one frame, or not of every item
                halves = [member, member]
            one, other = (
                part.astype(float) @ scaled / part.sum(1, keepdims=True) for part in halves
            )
            found[rows] = participation(shared_variances(one, other))
        return np.nan_to_num(found)

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
        word = first_tokens(live)[test]
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
            ``slope_by_category`` (layer, category); ``with_dimension`` (layer): Spearman's
            correlation of these with the dimensions of the categories' items, with its interval,
            ``with_dimension_low`` and ``_high`` (Bonett & Wright 2000; 95 %), and ``concepts``
            (scalar), the number of categories; ``against_dimension`` (layer), the same with its
            sign turned, and ``against_dimension_found`` (layer), with the dimensions of the items
            that found the direction;
            ``said`` (layer, category, dose): text, how a beginning goes on under a dose of each
            category's direction, with the beginning and how it goes on without in attributes;
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
            {"slope": ("layer", slopes[mine], {"chance": 0.0}), **self._of_categories(subject)},
            coords={
                "layer": volume["layer"].to_numpy(),
                "category": np.unique(labels(subject, self.label)),
            },
        )
        if volume.sizes["target"] == 1:
            return result
        arms, of_kinds = by_kind(volume, slopes)
        return result.assign(
            slope_of=(("layer", "arm"), of_kinds),
            rise=(("layer", "dose"), shift[mine]),
            moved=(("layer", "dose"), divergence[mine]),
        ).assign(_shown(volume)).assign_coords(arm=arms, dose=dose)  # fmt: skip

    def _of_categories(self, subject: Subject) -> dict[str, Any]:
        """How steeply each category can be steered, and whether that goes with its dimensions."""
        volume = subject.volume
        names, codes = np.unique(labels(subject, self.label), return_inverse=True)
        dose = volume["dose"].to_numpy()
        shift = values_of(volume, "shift", "target", "layer", "dose", "stimulus")[own(subject)]
        slopes = np.einsum("lds,d->ls", shift, dose) / np.sum(dose**2)
        mean = (codes == np.arange(len(names))[:, None]) / np.bincount(codes)[:, None]
        of_category = slopes @ mean.T
        dimension = values_of(volume, "dimension", "layer", "stimulus") @ mean.T
        correlation = _over_categories(of_category, dimension)
        low, high = _interval(correlation, (dimension > 0).sum(1))
        # Recordings of an older version do not know it.
        found = np.full(len(correlation), np.nan)
        if "dimension_found" in volume.coords:
            trained = values_of(volume, "dimension_found", "layer", "stimulus") @ mean.T
            found = _over_categories(of_category, trained)
        return {
            "against_dimension": (("layer",), -correlation, {"chance": 0.0}),
            "against_dimension_found": (("layer",), -found, {"chance": 0.0}),
            "slope_by_category": (("layer", "category"), of_category),
            "with_dimension": (("layer",), correlation),
            "with_dimension_low": (("layer",), low),
            "with_dimension_high": (("layer",), high),
            "concepts": float(len(names)),
        }


def _over_categories(slopes: np.ndarray, dimension: np.ndarray) -> np.ndarray:
    """Spearman's correlation at each layer, of layer x category; NaN if there is none.

    Categories whose halves of items share no variance have no dimensions, and are left out.
    """
    correlation = np.full(len(slopes), np.nan)
    for layer, (slope, size) in enumerate(zip(slopes, dimension, strict=True)):
        there = size > 0
        if there.sum() > 3 and np.ptp(size[there]) > 0 and np.ptp(slope[there]) > 0:
            correlation[layer] = spearmanr(slope[there], size[there])[0]
    return correlation


def _shown(volume: xr.Dataset) -> dict[str, xr.DataArray]:
    """Continuations, where some are kept."""
    if "said" not in volume.coords:
        return {}
    said = volume["said"].transpose("layer", "towards", "dose").to_numpy().astype(object)
    told = {name: [str(one) for one in volume[name].to_numpy()] for name in ("begun", "unsteered")}
    return {"said": xr.DataArray(said, dims=("layer", "category", "dose"), attrs=told)}


def _interval(correlation: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of Spearman's correlation (Bonett & Wright 2000), 95 %."""
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt((1 + correlation**2 / 2) / np.maximum(count - 3, 0))
        middle = np.arctanh(correlation)
    return np.tanh(middle - 1.96 * error), np.tanh(middle + 1.96 * error)
