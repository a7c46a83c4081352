"""Whether adding what carries a category makes the model say its words.

A direction found in some items is added to the stream, in several doses, while the model reads the
beginnings of sentences up to where the target would stand (Turner et al. 2023; Rimsky et al. 2024).
What is measured is the word that was left out, which found nothing: by how much its logit rises
over those of the words of other categories, for each dose. Steering can fail and turn round (Tan et
al. 2024), so what is reported beside it is how far predictions move at all.

Beside the direction of the word's own category, others are added as long: drawn from the covariance
of the activations, the same so strong that predictions move as much, found from labels dealt out
anew, and those of other categories. Each category is given another one of them: by one for all, the
words of all would rise over each other by nothing, whatever it is.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import Acting, kinds, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register, vectors
from analyses.splits import folds_of, item_groups
from analyses.targets import Patterns, Target, Way, aim, matched, strength
from scanner import Edit, Live, Subject, Trial, sweep
from scanner.sites import Kind

# Kinds of targets of which a new one is drawn for each category, in the order of their pushes.
DRAWN = ("matched", "shuffled", "disruptive")


@register
@dataclass(frozen=True)
class Steering(Acting):
    """Add directions, and see what becomes likely.

    Attributes
    ----------
    site : str
        Kind of site at which directions are found and added.
    layers : tuple of int
        Where, one at a time.
    label : str
        A column of the stimulus table; each of its categories has a direction.
    way : {'mean_difference', 'probe'}
        How it is found (`analyses.targets.aim`).
    doses : tuple of float
        How much is added, in standard deviations of the training stimuli along the direction.
    random : int
        Targets at random of each kind.
    item_folds : int
        Groups of items; the words of each are steered towards by what the others show.
    """

    site: Kind
    layers: tuple[int, ...]
    label: str = "category"
    way: Way = "mean_difference"
    doses: tuple[float, ...] = (-4.0, -2.0, 2.0, 4.0)
    random: int = 6
    item_folds: int = 2

    measures: ClassVar[Mapping[str, Quantity]] = {
        "slope": Quantity(
            "by how much the words of a category become likelier than others, in nats for each "
            "standard deviation that is added",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: whole numbers from 0, each once")
        if self.way not in ("mean_difference", "probe"):
            raise ValueError(f"way: '{self.way}' is no direction that could be added")
        if len(set(self.doses)) < max(len(self.doses), 2) or 0 in self.doses:
            raise ValueError("doses: at least two, each once, and none of them 0")
        if self.random < 0 or self.item_folds < 2:
            raise ValueError("random must be at least 0, item_folds at least 2")

    def beyond(self, layers: int) -> str:
        late = [one for one in self.layers if one >= layers]
        return f"{late[0]} is none of the model's {layers} layers" if late else ""

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
        items, values = labels(subject, "item"), labels(subject, self.label)
        names, codes = np.unique(values, return_inverse=True)
        if len(names) < 2:
            raise AnalysisError(f"'{self.label}' has one value; steering needs words of others")
        try:
            group = item_groups(items, values, groups=self.item_folds, rng=rng)
        except ValueError as error:
            raise AnalysisError(f"steering of '{self.label}': {error}") from None
        x = vectors(subject, self.site)[list(subject.volume["layer"].to_numpy()).index(run)]
        seed = int(rng.integers(2**32))
        kinds_of = self._plan(len(names)) if live.trained else ["own"]
        shape = len(items), len(kinds_of), len(self.doses)
        shift, divergence = np.empty(shape), np.empty(shape)
        for number, fold in enumerate(folds_of(group)):
            drawn = np.random.default_rng([seed, run, number])
            wanted = (codes[:, None] == np.arange(len(names))).astype(float)
            patterns = Patterns.of(x[fold.train], items[fold.train], wanted[fold.train])
            pushes = self._pushes(patterns, drawn, random=live.trained)
            steered = self._steered(live, run, pushes, codes, fold.test)
            if live.trained:
                stronger = self._as_disruptive(pushes, steered[1], len(names))
                again = self._steered(live, run, stronger, codes, fold.test)
                steered = np.concatenate([steered, again], axis=2)
            which = self._chosen(codes[fold.test], len(names), kinds_of)
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
                "stimulus": np.arange(len(items)),
                "target": np.arange(len(kinds_of)),
                "dose": list(self.doses),
                "target_kind": ("target", kinds_of),
            },
        ).expand_dims(layer=[run])

    def _plan(self, categories: int) -> list[str]:
        """The kinds of the targets, in their order."""
        others = min(categories - 1, self.random)
        return [
            "own", "known", *("other",) * others,
            *(kind for kind in DRAWN for _ in range(self.random)),
        ]  # fmt: skip

    def _chosen(self, codes: np.ndarray, categories: int, kinds_of: list[str]) -> np.ndarray:
        """Of each stimulus and target the number of its push: stimulus x target."""
        draws = self._draws(categories)
        first = {"own": 0, "known": 0, "other": 0}
        first |= {kind: categories + place * draws for place, kind in enumerate(DRAWN)}
        seen: Counter[str] = Counter()
        found = []
        for kind in kinds_of:
            turn = seen[kind] + (kind == "other")
            found.append(first[kind] + (codes + turn) % (draws if kind in DRAWN else categories))
            seen[kind] += 1
        return np.stack(found, axis=1)

    def _draws(self, categories: int) -> int:
        """How many pushes of each kind are drawn: another one for each category of a target."""
        return max(self.random, categories)

    def _pushes(
        self, patterns: Patterns, rng: np.random.Generator, *, random: bool
    ) -> list[np.ndarray]:
        """What one dose adds: of each category, then at random, then of labels dealt out anew."""
        categories = patterns.wanted.shape[1]
        found = [self._direction(patterns, one) for one in range(categories)]
        made = [_push(patterns, along) for along in found]
        draws = range(self._draws(categories) if random else 0)
        for one in draws:
            like = found[one % categories][None]
            (along,) = matched(rng, patterns, Target("own", like, like)).along
            made.append(_push(patterns, along))
        for one in draws:
            dealt = patterns.dealt(rng)
            made.append(_push(dealt, self._direction(dealt, one % categories)))
        return made

    def _direction(self, patterns: Patterns, category: int) -> np.ndarray:
        """From the other categories towards one, of length one."""
        wanted = patterns.wanted[:, [category]]
        (along,) = aim("own", replace(patterns, wanted=wanted), self.way, count=1).along
        inside = wanted[:, 0] > 0.5
        apart = patterns.items[inside].mean(0) - patterns.items[~inside].mean(0)
        return along if apart @ along >= 0 else -along

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
            for one in range(categories, categories + self._draws(categories))
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


def _push(patterns: Patterns, along: np.ndarray) -> np.ndarray:
    """A standard deviation of the stimuli along a direction of length one."""
    return along * (patterns.stimuli @ along).std()
