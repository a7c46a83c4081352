"""Whether a model needs some neurons to answer: they are silenced, and it is asked again.

Published: without the 1 % of neurons that are most active on average, accuracy falls by a fifth,
without 5 % by three, without all by nine tenths (Tanwar et al. 2025, after Dai et al. 2022). What
is missing there stands beside it here: as many neurons at random; as many as write as much to the
stream; what unrelated sentences lose; and that accuracy cannot fall below chance. All neurons of a
layer are its MLP, so that the last of those figures is what a model is without MLPs.

Neurons are chosen on some items and silenced on others. The first token of a text is left as it is:
a few neurons make activations of it that everything attends to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import xarray as xr

from analyses.acting import Acting, kinds, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.neutral import harm, sentences
from analyses.pairs import Pairs, pairs_of
from analyses.splits import folds_of, item_groups
from analyses.targets import Patterns, dprime
from scanner import Edit, Fired, Live, Site, Subject, Trial, fired, sweep, written

By = Literal[
    "activation", "magnitude", "contribution", "selectivity", "mean_size", "frequency"
]  # fmt: skip
# Ways to choose that are shown beside the own.
SHOWN: tuple[By, ...] = ("activation", "magnitude", "contribution", "selectivity")
# What is right by luck, of two answers.
CHANCE = 0.5
# Of which what is right beyond luck is at least taken to be: of a model that guesses, it is noise.
LEAST_BEYOND = 0.1
# Targets of a run.
TARGETS = 8
# Of the texts of a pair, by how much the logit of the right answer is above that of the other.
TEXTS = ("margin_clean", "margin_corrupt")


@register
@dataclass(frozen=True)
class Neurons(Acting):
    """Silence neurons, and see which answers are still right.

    The stimuli are pairs of texts that ask for different words; a text is answered if its word is
    likelier than that of the other. A model that always says the same is right in half of them.

    Attributes
    ----------
    by : {'activation', 'magnitude', 'contribution', 'selectivity', 'mean_size', 'frequency'}
        What neurons are chosen for: their mean activation (as was published); the mean of its size;
        that times the length of what the neuron writes to the stream; their d' between categories;
        the size of their mean activation; or at how many tokens their gate is open.
    shares : tuple of float
        How many are chosen, of all that there are. The first is measured.
    within : {'layer', 'span'}
        Whether that is of each layer, or of all that are acted on together.
    layers : tuple of int
        The first of the layers that are acted on together, one such span at a time.
    span : int, optional
        How many these are; all to the end by default.
    left : {'zero', 'mean'}
        What a neuron is set to: nothing, or its mean in the items that choose.
    label : str
        The column of the stimulus table that has the categories.
    random : int
        Targets at random of each kind.
    item_folds : int
        Groups of items; each is asked without the neurons that the others choose.
    """

    by: By = "activation"
    shares: tuple[float, ...] = (0.01, 0.05, 1.0)
    within: Literal["layer", "span"] = "layer"
    layers: tuple[int, ...] = (0,)
    span: int | None = None
    left: Literal["zero", "mean"] = "zero"
    label: str = "category"
    random: int = 6
    item_folds: int = 2

    measures: ClassVar[Mapping[str, Quantity]] = {
        "drop": Quantity("how many more answers are wrong, as a share of all", -1.0, 1.0),
        "drop_margin": Quantity(
            "by how much the right answer loses to the other one, in nats",
            -float("inf"),
            float("inf"),
        ),
        "drop_relative": Quantity(
            "how many more answers are wrong, as a share of those that were right",
            -float("inf"),
            1.0,
        ),
        "drop_beyond_chance": Quantity(
            "how many more answers are wrong, as a share of those that were right beyond luck",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        for name, allowed in (("by", get_args(By)), ("within", ("layer", "span")),
                              ("left", ("zero", "mean"))):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: '{getattr(self, name)}' is none of {', '.join(allowed)}")
        if not self.shares or not all(0 < one <= 1 for one in self.shares):
            raise ValueError("shares: above 0 and up to 1")
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: whole numbers from 0, each once")
        if self.span is not None and self.span < 1:
            raise ValueError(f"a span of {self.span} layers; at least 1, or none for all")
        if self.random < 0 or self.item_folds < 2:
            raise ValueError("random must be at least 0, item_folds at least 2")

    def beyond(self, layers: int) -> str:
        last = max(self.layers) + (self.span or 1) - 1
        return f"{last} is none of the model's {layers} layers" if last >= layers else ""

    def runs(self, live: Live, subject: Subject) -> list[tuple[int, range]]:
        """The first of some layers, and some targets."""
        pairs_of(live)  # what is wrong with them is said before anything is done
        if "frequency" in self._ways:
            live.model.structure.port(Site("mlp_pre", 0))
        count = len(self._plan(trained=live.trained))
        return [
            (layer, range(one, min(one + TARGETS, count)))
            for layer in self.layers
            for one in range(0, count, TARGETS)
        ]

    def act(
        self, live: Live, subject: Subject, run: tuple[int, range], *, rng: np.random.Generator
    ) -> xr.Dataset:
        first, some = run
        layers = np.arange(first, live.model.layers if self.span is None else first + self.span)
        pairs, plan = pairs_of(live), self._plan(trained=live.trained)
        items, values = labels(subject, "item"), labels(subject, self.label)
        try:
            group = item_groups(items, values, groups=self.item_folds, rng=rng)
        except ValueError as error:
            raise AnalysisError(f"neurons by '{self.label}': {error}") from None
        wanted = (values[:, None] == np.unique(values)).astype(float)
        seed = int(rng.integers(2**32))
        heard, lengths = fired(live.model, live.ids, layers.tolist()), written(live.model)[layers]
        neutral = sentences(live)
        margin = np.empty((2, len(items), len(some)))
        intact = np.empty((2, len(items)))
        suffered = np.zeros((2, len(some)))
        for number, fold in enumerate(folds_of(group)):
            train = fold.train
            chooses = train[self._chooses(values[train])]
            here = Fired(*(part[chooses] for part in heard))
            whole = heard.signed[train].reshape(len(train), -1)
            patterns = Patterns.of(whole, items[train], wanted[train])
            chooser = _Chooser(here, lengths, patterns, self)
            sets = [
                chooser.silenced(plan[one], np.random.default_rng([seed, first, number, one]))
                for one in some
            ]
            edits = [self._edits(layers, one, here.signed.mean(0)) for one in sets]
            margin[:, fold.test], intact[:, fold.test] = _asked(pairs, edits, fold.test)
            told = harm(live, neutral, [edits] * len(neutral), surprisal=True)
            suffered += np.stack(told) / self.item_folds
        return xr.Dataset(
            {
                name: (("stimulus", "target"), values.astype(np.float32))
                for name, values in zip(TEXTS, margin, strict=True)
            },
            coords={
                "stimulus": np.arange(len(items)),
                "target": np.array(some),
                "target_kind": ("target", [plan[one].kind for one in some]),
                "share": ("target", [plan[one].share for one in some]),
                "by": ("target", [plan[one].by for one in some]),
            },
        ).expand_dims(layer=[first]).assign_coords({
            f"intact_{name}": ("stimulus", values)
            for name, values in zip(TEXTS, intact, strict=True)
        }).assign_coords(
            neutral_divergence=(("layer", "target"), suffered[:1]),
            neutral_surprisal=(("layer", "target"), suffered[1:]),
        )  # fmt: skip

    @property
    def _ways(self) -> tuple[By, ...]:
        """Ways to choose that are tried: what is shown, and the own."""
        return SHOWN if self.by in SHOWN else (*SHOWN, self.by)

    def _chooses(self, values: np.ndarray) -> np.ndarray:
        """Which stimuli, given by their categories, say what neurons do: bool."""
        return np.full(len(values), True)

    def _plan(self, *, trained: bool) -> list["_Set"]:
        """What is silenced."""
        first = self.shares[0]
        own = _Set("own", self.by, first)
        if not trained:
            return [own]
        random = ["equal", "matched", *(["shuffled"] if self.by == "selectivity" else [])]
        return [
            own, _Set("known", self.by, 1.0),
            *(_Set(kind, self.by, first) for kind in random for _ in range(self.random)),
            *(_Set("shown", by, share) for by in self._ways for share in self.shares
              if (by, share) != (self.by, first)),
        ]  # fmt: skip

    def _edits(
        self, layers: np.ndarray, silenced: np.ndarray, mean: np.ndarray
    ) -> tuple[Edit, ...]:
        """Of each layer that has some; a neuron may be silent already."""
        made = []
        for layer, some, instead in zip(layers, silenced, mean, strict=True):
            if not some.any():
                continue
            kept = (~some).astype(np.float32)
            made.append(Edit("mlp_act", "scale", layers=[int(layer)], start=1, value=kept,
                             must_move=False))  # fmt: skip
            if self.left == "mean":
                put = np.where(some, instead, 0).astype(np.float32)
                made.append(Edit("mlp_act", "add", layers=[int(layer)], start=1, value=put,
                                 must_move=False))  # fmt: skip
        return tuple(made)

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say what is lost.

        Returns
        -------
        xarray.Dataset
            ``drop`` and ``drop_margin`` (layer): of accuracy, and of the logit of the right answer
            over that of the other; ``drop_relative`` and ``drop_beyond_chance`` (layer): of
            accuracy, over what it was, and over what it was above chance, which is taken to be a
            tenth at least; ``accuracy`` (scalar): intact; ``accuracy_left`` (layer, arm):
            without the own, without all and, on average, without those at random;
            ``relative_drop`` and ``above_chance_drop`` (layer, arm): of accuracy, over what it was,
            as published, and over what it was above chance; ``harm`` and ``harm_surprisal``
            (layer, arm): of unrelated sentences; ``accuracy_by`` (layer, chosen): without neurons
            chosen each way.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        # ... x stimulus and text
        margin = np.concatenate(
            [values_of(volume, name, "target", "layer", "stimulus") for name in TEXTS], axis=-1
        )
        whole = np.concatenate([volume[f"intact_{name}"].to_numpy() for name in TEXTS])
        intact, correct = right(whole), right(margin)
        lost_margin = whole.mean(dtype=float) - margin[mine].mean(-1, dtype=float)
        result = xr.Dataset(
            {
                "drop": ("layer", intact - correct[mine], {"chance": 0.0}),
                "drop_margin": ("layer", lost_margin, {"chance": 0.0}),
                "drop_relative": (
                    "layer",
                    (intact - correct[mine]) / max(intact, LEAST_BEYOND),
                    {"chance": 0.0},
                ),
                "drop_beyond_chance": (
                    "layer",
                    (intact - correct[mine]) / max(intact - CHANCE, LEAST_BEYOND),
                    {"chance": 0.0},
                ),
            },
            coords={"layer": volume["layer"].to_numpy()},
        )
        given = kinds(volume)
        if "shown" not in given:  # a twin, or one of what it is held against
            return result
        of_kind = {kind: given == kind for kind in dict.fromkeys(given.tolist()) if kind != "shown"}
        left = np.stack([correct[some].mean(0) for some in of_kind.values()], 1)
        lost = intact - left
        harm, surprisal = (
            np.stack([values[some].mean(0) for some in of_kind.values()], 1)
            for values in (
                volume[f"neutral_{name}"].transpose("target", "layer").to_numpy()
                for name in ("divergence", "surprisal")
            )
        )
        above = intact - CHANCE
        nothing = np.full_like(lost, np.nan)
        return result.assign(
            accuracy=float(intact),
            accuracy_left=(("layer", "arm"), left),
            relative_drop=(("layer", "arm"), lost / intact if intact > 0 else nothing),
            above_chance_drop=(("layer", "arm"), lost / above if above > 0 else nothing),
            harm=(("layer", "arm"), harm),
            harm_surprisal=(("layer", "arm"), surprisal),
            accuracy_by=self._by_choice(volume, correct),
        ).assign_coords(arm=list(of_kind))

    def _by_choice(self, volume: xr.Dataset, correct: np.ndarray) -> xr.DataArray:
        """The accuracy that each way to choose leaves, by how many are chosen."""
        shown = np.isin(kinds(volume), ["own", "shown"])
        by = volume["by"].to_numpy().astype(object).astype(str)
        share = volume["share"].to_numpy()
        rows = {
            f"{way}, {100 * one:g} %": np.flatnonzero(shown & (by == way) & (share == one))[0]
            for way in self._ways
            for one in self.shares
        }
        left = correct[list(rows.values())].T
        return xr.DataArray(left, dims=("layer", "chosen"), coords={"chosen": list(rows)})


@dataclass(frozen=True)
class _Set:
    """Neurons to be silenced: what for, chosen by what, how many of all."""

    kind: str
    by: By
    share: float


@dataclass(frozen=True)
class _Chooser:
    """Neurons by what they do in training stimuli.

    Attributes
    ----------
    fired : Fired
    lengths : numpy.ndarray
        layer x neuron: of what each writes.
    patterns : Patterns
        Of mean activations, layer after layer, with the categories of the items.
    analysis : Neurons
    """

    fired: Fired
    lengths: np.ndarray
    patterns: Patterns
    analysis: Neurons

    def silenced(self, wanted: _Set, rng: np.random.Generator) -> np.ndarray:
        """The set: layer x neuron, bool."""
        dealt = self.patterns.dealt(rng) if wanted.kind == "shuffled" else self.patterns
        own = self._largest(self._scores(wanted.by, dealt), wanted.share)
        if wanted.kind not in ("equal", "matched"):
            return own
        made = np.zeros_like(own)
        worth = self.fired.size.mean(0) * self.lengths
        for layer, some in enumerate(own):
            drawn = rng.permutation(np.flatnonzero(~some))
            count = some.sum()
            if wanted.kind == "matched":
                # As many as write as much: it takes more of them, up to all others.
                total = np.cumsum(worth[layer, drawn])
                count = np.searchsorted(total, worth[layer, some].sum()) + some.any()
            made[layer, drawn[:count]] = True
        return made

    def _scores(self, by: By, patterns: Patterns) -> np.ndarray:
        """How much a neuron is to be chosen: layer x neuron."""
        if by == "selectivity":
            return dprime(patterns).reshape(self.lengths.shape)
        if by == "activation":
            return self.fired.signed.mean(0)
        if by == "mean_size":
            return np.abs(self.fired.signed.mean(0))
        if by == "frequency":
            return self.fired.open.mean(0)
        size = self.fired.size.mean(0)
        return size if by == "magnitude" else size * self.lengths

    def _largest(self, scores: np.ndarray, share: float) -> np.ndarray:
        """Those of largest score, of each layer or of all."""
        rows = scores if self.analysis.within == "layer" else scores.reshape(1, -1)
        count = max(1, round(share * rows.shape[1]))
        order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
        made = np.zeros(rows.shape, dtype=bool)
        np.put_along_axis(made, order, values=True, axis=1)
        return made.reshape(scores.shape)


def _asked(
    pairs: Pairs, edits: Sequence[tuple[Edit, ...]], some: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ask both texts of some pairs under each intervention.

    Returns
    -------
    margin, intact : numpy.ndarray
        text of the pair x pair (x intervention): the logit of the right answer less the other's.
    """
    texts, answers = [], []
    for live, step in ((pairs.clean, 1), (pairs.corrupt, -1)):
        texts += [live.ids[one] for one in some]
        answers += [pairs.answers[one][::step] for one in some]
    trials = [Trial(text, edit) for text in range(len(texts)) for edit in edits]
    margin, intact = np.empty((2, len(trials)))
    for found in sweep(pairs.clean.model, texts, trials, answers=answers):
        margin[found.trials] = found.logits[:, 0] - found.logits[:, 1]
        intact[found.trials] = found.intact_logits[:, 0] - found.intact_logits[:, 1]
    shape = 2, len(some), len(edits)
    return margin.reshape(shape), intact.reshape(shape)[..., 0]


def right(margin: np.ndarray) -> np.ndarray:
    """The share of right answers; half of one where both are as likely."""
    return ((np.sign(margin) + 1) / 2).mean(-1, dtype=float)
