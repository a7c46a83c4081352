"""Whether what carries a label is used: taken away, it is looked for in later blocks and in words.

A direction, a subspace, the units of largest contrast, what features of a dictionary write or all
that erasure finds is taken out of the stream at the tokens of the target, up to its mean, to
nothing, or to what another stimulus has there (Elazar et al. 2021; Arditi et al. 2024). Some blocks
later the label is read by a probe that was trained on intact activations, and by one that was
trained anew on those that are left: the first may miss what has only moved. And after the text
other words of the category may have become less likely. Directions are found in some items and all
is judged in others.

Beside it the same is done to what is random: directions of as much variance; the same so strong
that unrelated sentences suffer as much as from the own; what is found from labels dealt out anew;
and, where one category is taken away, those of other categories.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import xarray as xr

from analyses import neutral
from analyses.acting import Acting, kinds, own, values_of
from analyses.answers import contrast_of_words, first_tokens
from analyses.base import AnalysisError, Quantity, labels, register, vectors
from analyses.probe import aucs, ridge, standardised
from analyses.splits import Fold, folds_of, item_groups
from analyses.targets import (
    Patterns,
    Target,
    Told,
    Way,
    aim,
    check_dictionary,
    matched,
    matched_units,
    strength,
    told,
)
from scanner import Edit, Live, Site, Subject, Trial, sweep
from scanner.sites import Kind

# What is left where something is taken away.
Left = Literal["mean", "zero", "resample"]
# Targets that are done together: they share what comes before the first token that is changed.
TARGETS = 8
# Of units or directions.
MOST = 64


@register
@dataclass(frozen=True)
class Ablation(Acting):
    """Take away what carries a label, and read it later.

    Attributes
    ----------
    site : str
        Kind of site at which it is found, taken away and, later, read.
    layers : tuple of int
        Where, one at a time.
    label : str
        A column of the stimulus table.
    category : str, optional
        The one value that is told from the rest; by default all values are told apart, and all
        directions between them are taken away.
    way : {'mean_difference', 'probe', 'leace', 'subspace', 'units', 'features'}
        How it is found (`analyses.targets.aim`).
    dictionary : str, optional
        The analysis whose features these are.
    count : int
        Of units, of features, or of probes one after the other that span a subspace.
    left : {'mean', 'zero', 'resample'}
        What is there instead: the mean over training stimuli, nothing, or what one of them has,
        drawn for each text.
    later : tuple of int
        After how many blocks it is read. The last is measured.
    random : int
        Targets at random of each kind.
    item_folds : int
        Groups of items; each is judged by what the others show.
    penalty : float
        Of probes, as of the analysis ``probe``.
    """

    site: Kind
    layers: tuple[int, ...]
    label: str = "category"
    category: str | None = None
    way: Way = "mean_difference"
    dictionary: str | None = None
    count: int = 20
    left: Left = "mean"
    later: tuple[int, ...] = (1, 4)
    random: int = 8
    item_folds: int = 2
    penalty: float = 1.0

    measures: ClassVar[Mapping[str, Quantity]] = {
        "drop_refitted": Quantity(
            "how much less of the label a probe reads that was trained anew on what is left, in "
            "area under the ROC curve",
            -1.0,
            1.0,
        ),
        "drop_frozen": Quantity(
            "how much less of the label a probe reads that was trained on intact activations, in "
            "area under the ROC curve",
            -1.0,
            1.0,
        ),
        "divergence": Quantity(
            "divergence of the prediction after the text from the intact one, in nats",
            0.0,
            float("inf"),
        ),
        "drop_words": Quantity(
            "by how much less likely than others the other words of its category become after the "
            "text, in nats",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        for name in ("layers", "later"):
            given = getattr(self, name)
            if not given or min(given) < 0 or len(set(given)) < len(given):
                raise ValueError(f"{name}: whole numbers from 0, each once")
        if min(self.later) < 1:
            raise ValueError("later: at least 1; in its own block what is taken away is just gone")
        if self.random < 0 or self.item_folds < 2 or not 1 <= self.count <= MOST:
            raise ValueError(f"random must be at least 0, item_folds at least 2, count 1 to {MOST}")
        if self.left not in get_args(Left):
            raise ValueError(f"left: '{self.left}' is none of {', '.join(get_args(Left))}")
        check_dictionary(self.way, self.dictionary)
        if not self.penalty > 0:
            raise ValueError(f"a penalty of {self.penalty:g}; it must be above 0")

    def beyond(self, layers: int) -> str:
        late = [one for one in self.layers if one + max(self.later) >= layers]
        if not late:
            return ""
        return (
            f"layer {late[0]} cannot be read {max(self.later)} blocks later in a model of "
            f"{layers}; leave it out, or read earlier"
        )

    def runs(self, live: Live, subject: Subject) -> list[tuple[int, range]]:
        """A layer and some of its targets; twins are not held against what is random."""
        wanted, _ = self._wanted(subject)
        count = len(self._plan(wanted.shape[1], len(np.unique(labels(subject, self.label))))
                    if live.trained else ["own"])  # fmt: skip
        return [
            (layer, range(first, min(first + TARGETS, count)))
            for layer in self.layers
            for first in range(0, count, TARGETS)
        ]

    def act(
        self, live: Live, subject: Subject, run: tuple[int, range], *, rng: np.random.Generator
    ) -> xr.Dataset:
        layer, some = run
        wanted, columns = self._wanted(subject)
        items, values = labels(subject, "item"), labels(subject, self.label)
        try:
            group = item_groups(items, values, groups=self.item_folds, rng=rng)
        except ValueError as error:
            raise AnalysisError(f"ablation of '{self.label}': {error}") from None
        where = list(subject.volume["layer"].to_numpy())
        x = vectors(subject, self.site)
        here = x[where.index(layer)]
        seen = told(subject, layer)
        seed = int(rng.integers(2**32))
        shape = len(items), len(some), len(self.later), len(columns)
        frozen, refitted = np.empty(shape), np.empty(shape)
        intact = np.empty((len(items), len(self.later), len(columns)))
        divergence, words = np.empty((2, *shape[:2]))
        suffered, named = np.zeros((2, len(some))), []
        other_texts = neutral.sentences(live)
        for number, fold in enumerate(folds_of(group)):
            of_fold = None if seen is None else seen._replace(features=seen.features[fold.train])
            patterns = Patterns.of(here[fold.train], items[fold.train], wanted[fold.train], of_fold)
            drawn = np.random.default_rng([seed, layer, number])
            every = self._targets(
                patterns, values[fold.train], items[fold.train], of_fold, drawn, live
            )
            targets = [every[one] for one in some]
            others = self._instead(patterns, len(other_texts), seed, layer, number)
            harming = _Harming(live, self.site, layer, other_texts, others)
            targets = harming.as_harmful(every[0], targets)
            named = [one.kind for one in targets]
            suffered += np.stack(harming(targets, surprisal=True)) / self.item_folds
            instead = self._instead(patterns, len(items), seed, layer, number)
            edits = [_edits(self.site, layer, targets, one) for one in instead]
            left, divergence[fold.test], words[fold.test] = self._acted(
                live, layer, edits, fold, values
            )
            for place, later in enumerate(self.later):
                known = x[where.index(layer + later)]
                intact[fold.test, place] = self._scores(known, known, wanted, fold)
                for target in range(len(some)):
                    edited = left[place][:, target]
                    at = (fold.test, target, place)
                    frozen[at] = self._scores(known, edited, wanted, fold)
                    refitted[at] = self._scores(edited, edited, wanted, fold)
        dims = ("stimulus", "target", "later", "column")
        made = xr.Dataset(
            {
                "frozen": (dims, frozen.astype(np.float32)),
                "refitted": (dims, refitted.astype(np.float32)),
                "intact": (("stimulus", "later", "column"), intact.astype(np.float32)),
                "divergence": (("stimulus", "target"), divergence.astype(np.float32)),
                "words": (("stimulus", "target"), words.astype(np.float32)),
            }
        ).expand_dims(layer=[layer])
        return made.assign_coords(
            stimulus=np.arange(len(items)),
            target=np.array(some),
            later=list(self.later),
            column=columns,
            fold=("stimulus", group),
            target_kind=("target", named),
            neutral_divergence=(("layer", "target"), suffered[:1]),
            neutral_surprisal=(("layer", "target"), suffered[1:]),
        )

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say what is left.

        Returns
        -------
        xarray.Dataset
            By layer, ``drop_refitted``, ``drop_frozen``, ``divergence`` and ``drop_words``, which
            is of the category's stimuli if one is told from the rest; ``auc_left`` (layer, arm):
            what is read at the last of `later`, intact, after the own and, on average, after other
            targets; ``harm`` and ``harm_surprisal`` (layer, harmed): the divergence of unrelated
            sentences, nats, and the rise of their surprisal, nats a token; ``words_lost``
            (layer, harmed): ``drop_words`` of all targets; ``auc_later`` (layer, later): what a
            probe trained anew reads.

        Raises
        ------
        AnalysisError
            If nothing was done, or a category is gone.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        _, codes = self._codes(subject)
        folds = _folds(volume["fold"].to_numpy())
        last = len(self.later) - 1

        def areas(scores: np.ndarray) -> np.ndarray:
            return np.array([_area(one, codes, folds) for one in scores])

        ordered = ("layer", "later", "stimulus", "column")
        intact = areas(values_of(volume, "intact", *ordered)[:, last])
        scores = {
            name: values_of(volume, name, "target", *ordered) for name in ("frozen", "refitted")
        }
        frozen, refitted = (areas(one[mine, :, last]) for one in scores.values())
        divergence, words = (
            values_of(volume, name, "target", "layer", "stimulus")
            for name in ("divergence", "words")
        )
        # What other words lose by a category that is told from the rest is no loss of its own.
        inside = codes == 0 if self.category is not None else codes >= 0
        lost = -words[..., inside].mean(-1, dtype=float)
        zero = {"chance": 0.0}
        result = xr.Dataset(
            {
                "drop_refitted": ("layer", intact - refitted, zero),
                "drop_frozen": ("layer", intact - frozen, zero),
                "divergence": ("layer", divergence[mine].mean(-1, dtype=float), zero),
                "drop_words": ("layer", lost[mine], zero),
            },
            coords={"layer": volume["layer"].to_numpy()},
        )
        if volume.sizes["target"] == 1:
            return result
        given = kinds(volume)
        # outcome x target x layer
        outcomes = np.stack([
            *(volume[f"neutral_{name}"].transpose("target", "layer").to_numpy()
              for name in ("divergence", "surprisal")),
            lost,
        ])  # fmt: skip
        arms = {"intact": intact, "own, frozen probe": frozen, "own": refitted}
        of_kinds = {"own": outcomes[:, mine]}
        for kind in dict.fromkeys(given[given != "own"]):
            some = np.flatnonzero(given == kind)
            arms[kind] = np.mean([areas(scores["refitted"][one, :, last]) for one in some], axis=0)
            of_kinds[kind] = outcomes[:, some].mean(1)
        later = [areas(scores["refitted"][mine, :, one]) for one in range(len(self.later))]
        harm, surprisal, words_lost = np.stack(list(of_kinds.values()), axis=-1)
        return result.assign(
            auc_left=(("layer", "arm"), np.stack(list(arms.values()), 1)),
            auc_later=(("layer", "later"), np.stack(later, 1)),
            harm=(("layer", "harmed"), harm),
            harm_surprisal=(("layer", "harmed"), surprisal),
            words_lost=(("layer", "harmed"), words_lost),
        ).assign_coords(arm=list(arms), harmed=list(of_kinds), later=list(self.later))

    def _codes(self, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
        """The columns of scores, and for each stimulus which of them is its own."""
        values = labels(subject, self.label)
        if self.category is None:
            names, codes = np.unique(values, return_inverse=True)
        else:
            names, codes = np.array([self.category]), (values != self.category).astype(int)
        if len(np.unique(codes)) < 2:
            raise AnalysisError(f"'{self.label}' has one value among these stimuli")
        return names, codes

    def _wanted(self, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
        """What probes are trained to tell, stimulus x column, and the names of the columns.

        Raises
        ------
        AnalysisError
            If there is no such category, or only one.
        """
        values = labels(subject, self.label)
        if self.category is not None and self.category not in values:
            known = ", ".join(np.unique(values))
            raise AnalysisError(f"'{self.label}' has no value '{self.category}'; it has {known}")
        names, codes = self._codes(subject)
        return (codes[:, None] == np.arange(len(names))).astype(float), names

    def _plan(self, columns: int, categories: int) -> list[str]:
        """The kinds of the targets, in their order."""
        others = 0 if self.category is None else min(categories - 1, self.random)
        return [
            "own", "known",
            *(kind for kind in ("matched", "disruptive", "shuffled") for _ in range(self.random)),
            *("other" for _ in range(others)),
        ]  # fmt: skip

    def _targets(
        self,
        patterns: Patterns,
        values: np.ndarray,
        items: np.ndarray,
        seen: Told | None,
        rng: np.random.Generator,
        live: Live,
    ) -> list[Target]:
        """All targets of one fold, in the order of `_plan`."""

        def aimed(kind: str, of: Patterns) -> Target:
            return aim(kind, of, self.way, count=self.count)

        first = aimed("own", patterns)
        if not live.trained:
            return [first]
        draw = matched_units if self.way == "units" else matched
        random = [draw(rng, patterns, first) for _ in range(self.random)]
        shuffled = [aimed("shuffled", patterns.dealt(rng)) for _ in range(self.random)]
        others = [
            aimed(
                "other",
                Patterns.of(patterns.stimuli, items, (values == one)[:, None] * 1.0, seen),
            )
            for one in np.unique(values)
            if self.category is not None and one != self.category
        ]
        everything = first.along[:0]
        return [
            first, Target("known", everything, everything), *random,
            *(replace(one, kind="disruptive") for one in random),
            *shuffled, *others[: self.random],
        ]  # fmt: skip

    def _instead(self, patterns: Patterns, texts: int, *seed: int) -> list[np.ndarray]:
        """Of each text what is there where something is taken away."""
        if self.left == "resample":
            rng = np.random.default_rng([*seed, texts])
            return list(patterns.stimuli[rng.integers(len(patterns.stimuli), size=texts)])
        center = patterns.center
        return [center if self.left == "mean" else np.zeros_like(center)] * texts

    def _acted(
        self, live: Live, layer: int, edits: list[list[Edit]], fold: Fold, values: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """What is left later, stimulus x edit x unit each; and of test stimuli divergences and by
        how much words of their category become likelier."""
        sites = [Site(self.site, layer + later) for later in self.later]
        count = len(edits[0])
        left: list[np.ndarray] = []
        divergence, rise = np.empty((2, len(fold.test), count))
        names, codes = np.unique(values, return_inverse=True)
        tokens, weights = contrast_of_words(first_tokens(live), codes, fold.test, names)
        places = [one[-1] for one in live.acted]
        # Of training stimuli nothing is asked but what a probe is trained on.
        for some, tested in ((fold.train, False), (fold.test, True)):
            trials = [Trial(text, (edit.at(live.acted[text]),)) for text in some
                      for edit in edits[text]]  # fmt: skip
            answers = [tokens] * len(live.ids) if tested else None
            for found in sweep(
                live.model, live.ids, trials, reads=sites, places=places, predictions=tested,
                answers=answers,
            ):  # fmt: skip
                which, what = np.divmod(found.trials, count)
                if tested:
                    divergence[which, what] = found.divergence
                    change = found.logits - found.intact_logits
                    rise[which, what] = np.sum(change * weights[which], axis=1)
                for number, site in enumerate(sites):
                    read = found.activations[site].reshape(len(found.trials), -1)
                    if len(left) == number:
                        left.append(np.empty((len(live.ids), count, read.shape[1])))
                    left[number][some[which], what] = read
        return left, divergence, rise

    def _scores(
        self, known: np.ndarray, asked: np.ndarray, wanted: np.ndarray, fold: Fold
    ) -> np.ndarray:
        """Scores of test stimuli, of a probe that was trained on `known`: stimulus x column."""
        both = np.concatenate([known[fold.train], asked[fold.test]])
        count = len(fold.train)
        fitted, judged = standardised(both, Fold(np.arange(count), np.arange(count, len(both))))
        targets = wanted[fold.train]
        (weights,) = ridge(fitted, targets - targets.mean(0), penalties=(self.penalty,))
        return judged @ weights


def _folds(group: np.ndarray) -> list[Fold]:
    nothing = np.arange(0)
    return [Fold(nothing, np.flatnonzero(group == one)) for one in np.unique(group)]


def _area(scores: np.ndarray, codes: np.ndarray, folds: list[Fold]) -> float:
    """Within folds, of those in which there is something to tell apart."""
    areas = np.array(
        [aucs(scores[fold.test][:, None], codes[fold.test][:, None]) for fold in folds]
    )
    known = np.isfinite(areas)
    return float(np.sum(areas, where=known) / known.sum()) if known.any() else np.nan


def _edits(site: Kind, layer: int, targets: list[Target], instead: np.ndarray) -> list[Edit]:
    return [
        Edit(
            site, "scale", layers=[layer], value=1 - one.strength, along=one.along,
            readout=one.readout, center=instead,
        ) if len(one.along) else Edit(site, "replace", layers=[layer], value=instead)
        for one in targets
    ]  # fmt: skip


@dataclass(frozen=True)
class _Harming:
    """Taking targets away from every token but the first of unrelated texts.

    Attributes
    ----------
    live : Live
    site : str
    layer : int
    texts : list of list of int
    instead : list of numpy.ndarray
        Of each text what is there then.
    """

    live: Live
    site: Kind
    layer: int
    texts: list[list[int]]
    instead: list[np.ndarray]

    def __call__(self, targets: list[Target], *, surprisal: bool) -> neutral.Harm:
        done = [
            [(edit.having(start=1),) for edit in _edits(self.site, self.layer, targets, one)]
            for one in self.instead
        ]
        return neutral.harm(self.live, self.texts, done, surprisal=surprisal)

    def as_harmful(self, own: Target, targets: list[Target]) -> list[Target]:
        """Disruptive targets made so strong that these texts suffer as much as from the own."""
        asked = [one for one, target in enumerate(targets) if target.kind == "disruptive"]
        if not asked:
            return targets
        wanted, *suffered = self(
            [own, *(targets[one] for one in asked)], surprisal=False
        ).divergence
        made = list(targets)
        for one, divergence in zip(asked, suffered, strict=True):
            made[one] = replace(made[one], strength=strength(wanted, divergence))
        return made
