"""Some layers taught a domain: what other sentences gain, and what all else loses.

A map that names layers says where to act, so the layers it names are acted on: their blocks are
fine-tuned on the answers of a domain, and as many other layers of the same shape are, each set by
itself from the same weights. What is taught stands in some frames of the items and is judged in the
others, so that a sentence that was learnt by heart counts for nothing. What it costs is told by the
answers of all other domains, and by sentences that have nothing to do with any.

An untrained network learns by such steps as well, and in some layers faster than in others. What is
measured is therefore no gain but how far it is ahead of that of the other sets, and twins are
taught the same in the same layers.

Which layers to tune was chosen by where gradients are large (Lee et al. 2023) and by maps of
knowledge (Marinescu et al. 2026). Where we differ: sets are of equal shape, held against each other
after equally many steps; that a fact lies in a layer does not make it the layer to be changed (Hase
et al. 2023), which is why this is measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import Acting, by_kind, own, values_of
from analyses.base import AnalysisError, Quantity, labels, one_value, register
from analyses.neutral import sentences
from analyses.pairs import token_after
from analyses.sides import members
from analyses.splits import item_groups
from analyses.words import over_items
from scanner import Live, Subject
from scanner.tuning import Asked, predicted, surprisals, tuned

# Where all sets have gained so much of what there is to be gained, they cannot differ.
ALL = 0.9
AHEAD = "by how much more {} than where as many other layers were tuned, nats"


@register
@dataclass(frozen=True)
class Tuning(Acting):
    """Fine-tune some layers on a domain, and as many others, and compare.

    Attributes
    ----------
    category : str
        The domain that is taught.
    layers : tuple of int
        Whose weights may change; results are told at the first of them.
    label : str
        The column of the stimulus table that has the domains.
    steps : int
        Of AdamW, each with all that is taught.
    rate : float
        How far a step moves a weight, about.
    frame_folds : int
        Groups of the frames of the domain; each is judged after the others were taught.
    random : int
        Sets of as many other layers.
    """

    category: str
    layers: tuple[int, ...]
    label: str = "category"
    steps: int = 5
    rate: float = 5e-5
    frame_folds: int = 2
    random: int = 5

    measures: ClassVar[Mapping[str, Quantity]] = {
        "advantage": Quantity(
            AHEAD.format("answers of the domain gain in frames that were not taught"),
            -float("inf"),
            float("inf"),
        ),
        "spared": Quantity(
            AHEAD.format("answers of other domains keep"), -float("inf"), float("inf")
        ),
    }

    def __post_init__(self) -> None:
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: whole numbers from 0, each once")
        if self.steps < 1 or not self.rate > 0:
            raise ValueError("steps must be at least 1, rate above 0")
        if self.frame_folds < 2 or self.random < 1:
            raise ValueError("frame_folds must be at least 2, random at least 1")

    @property
    def moves_weights(self) -> bool:
        return True

    @property
    def stands_at(self) -> tuple[int, ...]:
        return (self.layers[0],)

    def beyond(self, layers: int) -> str:
        last, count = max(self.layers), len(self.layers)
        if last >= layers:
            return f"{last} is none of the model's {layers} layers"
        left = layers - count
        if comb(left, count) < self.random:
            return (
                f"{count} of the model's {layers} layers leave {comb(left, count)} sets of as many "
                f"others, and {self.random} are asked for; name fewer layers, or less `random`"
            )
        return ""

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """The sets of layers, by number."""
        why = self.beyond(live.model.layers)
        if why:
            raise AnalysisError(f"tuning: {why}")
        values = labels(subject, self.label)
        if self.category not in values:
            raise AnalysisError(f"tuning: no '{self.category}' among '{self.label}'")
        if len(np.unique(values)) < 2:
            raise AnalysisError(one_value(self.label, self.category))
        self._folds(subject, np.random.default_rng(0))  # what is wrong is said before any is done
        _asked(live)
        return list(range(1 + self.random))

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        layers = self.sets(live.model.layers, rng)[run]
        fold, asked, neutral = self._folds(subject, rng), _asked(live), sentences(live)
        intact, before = surprisals(live.model, asked), predicted(live.model, neutral)
        gain = np.empty((self.frame_folds, len(asked)))
        harm = np.empty((self.frame_folds, 2))
        for held in range(self.frame_folds):
            taught = [asked[one] for one in np.flatnonzero((fold >= 0) & (fold != held))]
            with tuned(live.model, layers, taught, steps=self.steps, rate=self.rate):
                gain[held] = intact - surprisals(live.model, asked)
                after = predicted(live.model, neutral)
            apart = (np.exp(before.ending) * (before.ending - after.ending)).sum(1)
            harm[held] = apart.mean(), (after.surprisal - before.surprisal).mean()
        held_out = fold == np.arange(self.frame_folds)[:, None]
        told = np.where(held_out | (fold < 0), gain, 0).sum(0) / np.where(
            fold < 0, self.frame_folds, 1
        )
        # Once more by `draw`: what a set is held against stays when the others are taken away. Each
        # run knows its own, and the joined whole has no gaps.
        beside = np.full((len(asked), 1, self.random), np.nan)
        if run > 0:
            beside[:, 0, run - 1] = told
        return xr.Dataset(
            {
                "gain": (("stimulus", "layer", "target"), told[:, None, None]),
                "beside": (("stimulus", "layer", "draw"), beside),
            },
            coords={
                "stimulus": np.arange(len(asked)),
                "layer": [self.layers[0]],
                "target": [run],
                "draw": np.arange(1, 1 + self.random),
                "target_kind": ("target", ["equal" if run else "own"]),
                "tuned": ("target", [", ".join(map(str, layers))]),
                "intact": ("stimulus", intact),
                "learnt": (
                    ("layer", "target"), [[gain[(fold >= 0) & ~held_out].mean()]],
                ),
                "neutral_divergence": (("layer", "target"), [[harm[:, 0].mean()]]),
                "neutral_surprisal": (("layer", "target"), [[harm[:, 1].mean()]]),
            },
        )  # fmt: skip

    def sets(self, layers: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """The own layers, and sets of as many others.

        Of the same shape elsewhere, so that a run of layers is held against runs, and one from each
        stretch of the depth, so that they are not all deep or all shallow by luck; where there are
        too few of these, the rest is drawn from all that have no own layer.

        Parameters
        ----------
        layers : int
            Of the model.
        """
        shape = np.sort(self.layers) - min(self.layers)
        elsewhere = [
            tuple((first + shape).tolist())
            for first in range(layers - shape[-1])
            if not set((first + shape).tolist()) & set(self.layers)
        ]
        count = min(self.random, len(elsewhere))
        stretches = np.array_split(np.arange(len(elsewhere)), max(count, 1))
        found = [elsewhere[rng.choice(stretches[one])] for one in rng.permutation(count)]
        others = np.setdiff1d(np.arange(layers), self.layers)
        while len(found) < self.random:
            drawn = tuple(sorted(rng.permutation(others)[: len(shape)].tolist()))
            if drawn not in found:
                found.append(drawn)
        return [tuple(sorted(self.layers)), *found]

    def _folds(self, subject: Subject, rng: np.random.Generator) -> np.ndarray:
        """Of each stimulus of the domain the group of its frame; -1 of the others.

        Raises
        ------
        AnalysisError
            If there are fewer frames than groups, or an item stands in those of one group alone.
        """
        inside = labels(subject, self.label) == self.category
        frames, items = (labels(subject, name)[inside] for name in ("frame", "item"))
        try:
            group = item_groups(
                frames, np.full(len(frames), "frames"), groups=self.frame_folds, rng=rng
            )
        except ValueError:
            raise AnalysisError(
                f"'{self.category}' has {len(np.unique(frames))} frames, and {self.frame_folds} "
                "groups of them were asked for; what is taught in some is judged in others"
            ) from None
        for item in np.unique(items):
            if len(np.unique(group[items == item])) < self.frame_folds:
                raise AnalysisError(
                    f"item '{item}' has no frame in one of {self.frame_folds} groups; give every "
                    f"item of '{self.category}' all of its frames"
                )
        fold = np.full(len(inside), -1)
        fold[inside] = group
        return fold

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        if variable == "advantage":
            self._check_room(subject)
        return self._ahead(subject, variable)

    def _ahead(self, subject: Subject, variable: str) -> xr.DataArray:
        """By how much the gain, inside or outside of the domain, is above that of other sets."""
        volume, mine = subject.volume, own(subject)
        inside = members(subject, self.label, self.category)
        some = inside if variable == "advantage" else ~inside
        gain = values_of(volume, "gain", "target", "layer", "stimulus")[mine].astype(float)
        beside = values_of(volume, "beside", "draw", "layer", "stimulus").astype(float)
        # A set is not held against itself.
        others = volume["draw"].to_numpy() != volume["target"].to_numpy()[mine]
        ahead = gain - beside[others].mean(0)
        return xr.DataArray(
            over_items(ahead[..., some], labels(subject, "item")[some]), dims="layer",
            coords={"layer": volume["layer"].to_numpy()}, attrs={"chance": 0.0},
        )  # fmt: skip

    def _check_room(self, subject: Subject) -> None:
        """That something is left by which sets of layers could differ.

        Raises
        ------
        AnalysisError
            If all have learnt all that there is: that none is ahead says nothing then.
        """
        volume, inside = subject.volume, members(subject, self.label, self.category)
        gain = values_of(volume, "gain", "target", "layer", "stimulus")[own(subject)][..., inside]
        beside = values_of(volume, "beside", "draw", "layer", "stimulus")[..., inside]
        least = min(gain.mean(), beside.mean((1, 2)).min())
        room = volume["intact"].to_numpy()[inside].mean()
        if least > ALL * room:
            raise AnalysisError(
                f"{subject.name}: whichever layers are tuned, {least:.2f} of {room:.2f} nats are "
                f"gained, and sets cannot differ; give fewer `steps` than {self.steps}, or a lower "
                f"`rate` than {self.rate:g}"
            )

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average over the frames of an item and then over items.

        Returns
        -------
        xarray.Dataset
            ``advantage`` and ``spared`` (layer): the measures. ``gained_of`` (layer, arm): what
            answers of the domain gain in frames that were not taught, where the own layers were
            tuned, and on average over sets of others; ``learnt_of``: the same in frames that were;
            ``left_of``: what they still cost, of which nothing is left where sets cannot differ;
            ``lost_of``: what answers of other domains lose; all in nats. ``harm`` and
            ``harm_surprisal`` (layer, arm): of unrelated sentences. ``lost_each`` (layer, arm):
            what is lost for each nat that is gained, NaN where nothing is. ``gained_by`` and
            ``lost_by`` (layer, chosen): of each set of layers. ``change_by_category``
            (layer, category): what answers of each domain gain, the own layers tuned.

        Raises
        ------
        AnalysisError
            If there is nothing of the domain, or nothing else.
        """
        (subject,) = subjects
        volume, inside = subject.volume, members(subject, self.label, self.category)
        items, values = labels(subject, "item"), labels(subject, self.label)
        gain = values_of(volume, "gain", "target", "layer", "stimulus").astype(float)
        gained = over_items(gain[..., inside], items[inside])
        lost = -over_items(gain[..., ~inside], items[~inside])
        arms, gained_of = by_kind(volume, gained)
        cost = over_items(volume["intact"].to_numpy()[inside], items[inside])
        lost_of = by_kind(volume, lost)[1]
        learnt, apart, harder = (
            by_kind(volume, values_of(volume, name, "target", "layer"))[1]
            for name in ("learnt", "neutral_divergence", "neutral_surprisal")
        )
        names = np.unique(values)
        mine = gain[own(subject)]
        changed = np.stack([over_items(mine[..., values == one], items[values == one])
                            for one in names], axis=1)  # fmt: skip
        told, by_set = ("layer", "arm"), ("layer", "chosen")
        nothing = np.full_like(lost_of, np.nan)
        return xr.Dataset(
            {
                **{name: self._ahead(subject, name) for name in self.measures},
                "gained_of": (told, gained_of),
                "learnt_of": (told, learnt),
                "left_of": (told, cost - gained_of),
                "lost_of": (told, lost_of),
                "lost_each": (
                    told, np.divide(lost_of, gained_of, out=nothing, where=gained_of > 0),
                ),
                "harm": (told, apart),
                "harm_surprisal": (told, harder),
                "gained_by": (by_set, gained.T),
                "lost_by": (by_set, lost.T),
                "change_by_category": (("layer", "category"), changed),
            },
            coords={
                "layer": volume["layer"].to_numpy(),
                "arm": arms,
                "category": names,
                "chosen": [f"layers {one}" for one in volume["tuned"].to_numpy().tolist()],
            },
        )  # fmt: skip


def _asked(live: Live) -> list[Asked]:
    """What is right after each text.

    Raises
    ------
    AnalysisError
        If the stimuli do not say, or it is no single token.
    """
    table = live.recording.stimuli.table
    if "answer" not in table:
        raise AnalysisError("the stimuli have no column 'answer', so there is nothing to be taught")
    return [
        Asked(ids, (token_after(live, text, answer),))
        for ids, text, answer in zip(live.ids, table["text"], table["answer"], strict=True)
    ]
