"""What a tuning vector does to answers: added, in parts, beyond itself, and taken away.

A tuning vector is what a tuned model differs by from its base, weight by weight. Published: taking
it from the tuned model breaks that model (Tanwar et al. 2025). But the tuned model less its vector
*is* the base, weight for weight, so that whatever breaks is not the vector's doing. What can be
asked is what the base becomes with some of the vector, more than all of it, or less than none
(Ilharco et al. 2023), and whether it is asked as it was taught or in a conversation: the design is
weights by format by strength, its effects and their interaction with intervals over items.

Answers are judged by the share of wrong options that the right one is likelier than, so that no
more is asked than to tell answers of one kind apart: that such answers are given at all is learnt
from any, and whatever makes some answers likelier makes them so where they are wrong. What is
moved is held against vectors that are as long in every weight, against those of subjects that were
taught the same questions with answers dealt out anew, and those of other domains.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import xarray as xr

from analyses.acting import Acting, by_kind, kinds, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.neutral import sentences
from analyses.sides import members
from analyses.words import averages, over_items
from scanner import Chat, Live, Subject
from scanner.tuning import Asked, asked, predicted
from scanner.vectors import Made, Vector, costs, moved

# Columns of the stimuli: the wrong options, and whether the fact was taught.
WRONG = ("wrong_1", "wrong_2", "wrong_3")
TAUGHT, KEPT = "taught", "kept back"
FORMATS = ("as taught", "conversation")
EFFECTS = ("of_weights", "of_format", "interaction")
# Draws of items for the intervals of the design, and their level.
DRAWS = 1000
LEVEL = 0.95


class Options(NamedTuple):
    """Of each question: how its answers stand.

    Attributes
    ----------
    beaten : numpy.ndarray
        The share of its wrong options that the right answer is likelier than; 0.5 by luck.
    ahead : numpy.ndarray
        By how many nats it is likelier than the likeliest wrong one.
    cost : numpy.ndarray
        Its surprisal, nats.
    """

    beaten: np.ndarray
    ahead: np.ndarray
    cost: np.ndarray


@dataclass(frozen=True)
class _Target:
    """What the weights are moved by."""

    kind: str
    subject: str
    strength: float
    made: Made = "as it is"
    seed: int = 0
    format: str = FORMATS[0]


@register
@dataclass(frozen=True)
class TuningVector(Acting):
    """Move a base along a tuning vector, and ask it with options.

    Attributes
    ----------
    of : str
        The base, a subject of the protocol.
    vector : str
        The subject that was made of it by tuning.
    category : str
        The domain that it was taught, whose questions are judged.
    label : str
        The column of the stimulus table that has the domains.
    strengths : tuple of float
        How much of the vector is added; less than 0 takes it away. The first is measured.
    shuffled : tuple of str
        Subjects that were taught the same with answers dealt out anew.
    other : tuple of str
        Subjects that were taught other domains.
    again : tuple of str
        Subjects that were taught the same in another order: shown beside it.
    random : int
        Vectors at random of each kind: drawn, and permuted.
    chat : bool
        Whether all strengths are tried in a conversation, too, by the template of the tokenizer.
    """

    of: str
    vector: str
    category: str
    label: str = "domain"
    strengths: tuple[float, ...] = (1.0,)
    shuffled: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    random: int = 2
    chat: bool = False

    measures: ClassVar[Mapping[str, Quantity]] = {
        "recalled": Quantity(
            "of how many more wrong options answers are told apart that were taught in other "
            "words (fewer where the vector is taken away), a share",
            -1.0,
            1.0,
        ),
        "transferred": Quantity(
            "of how many more wrong options answers are told apart that were kept back (fewer "
            "where the vector is taken away), a share",
            -1.0,
            1.0,
        ),
    }

    def __post_init__(self) -> None:
        if not self.strengths or 0 in self.strengths or not np.isfinite(self.strengths).all():
            raise ValueError("strengths: numbers other than 0, with which nothing is moved")
        if len(set(self.strengths)) < len(self.strengths):
            raise ValueError("strengths: each once")
        if self.random < 0:
            raise ValueError("random must be at least 0")
        if self.of in self.given:
            raise ValueError(f"'{self.of}' is the base, and differs by nothing from itself")

    @property
    def given(self) -> tuple[str, ...]:
        return (self.vector, *self.shuffled, *self.other, *self.again)

    @property
    def only(self) -> tuple[str, ...]:
        return (self.of,)

    @property
    def stands_at(self) -> tuple[int, ...]:
        return (0,)  # of the whole model: told where its layers begin

    def targets(self, *, trained: bool, rng: np.random.Generator) -> list[_Target]:
        """What is done, the own first."""
        first, *others = self.strengths
        own = _Target("own", self.vector, first)
        if not trained:
            return [own]
        ways: list[tuple[str, Made]] = [("equal", "normal"), ("matched", "dealt")]
        drawn = [
            _Target(kind, self.vector, first, made, int(rng.integers(2**31)))
            for kind, made in ways
            for _ in range(self.random)
        ]
        given = [
            _Target(kind, one, first)
            for kind, some in (
                ("shuffled", self.shuffled), ("other", self.other), ("shown", self.again),
            )
            for one in some
        ]  # fmt: skip
        sweep = [_Target("shown", self.vector, one) for one in others]
        chat = [_Target("shown", self.vector, one, format=FORMATS[1]) for one in self.strengths]
        return [own, *drawn, *given, *sweep, *(chat if self.chat else [])]

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """What is done, by number."""
        inside = members(subject, self.label, self.category)
        known = labels(subject, "known")
        for one in (TAUGHT, KEPT):
            if not (inside & (known == one)).any():
                raise AnalysisError(
                    f"tuning_vector: no stimulus of '{self.category}' has '{one}' in the column "
                    "'known'; ask some that were taught and some that were kept back"
                )
        table = live.recording.stimuli.table
        missing = [name for name in ("answer", *WRONG) if name not in table]
        if missing:
            raise AnalysisError(
                f"the stimuli have no column '{missing[0]}'; a question needs its answer and wrong "
                "options"
            )
        return list(range(len(self.targets(trained=live.trained, rng=np.random.default_rng(0)))))

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        target = self.targets(trained=live.trained, rng=rng)[run]
        model, neutral = live.model, sentences(live)
        questions = _questions(live, target.format)
        intact = _remembered(live, target.format, questions)
        if "neutral" not in live.memory:
            live.memory["neutral"] = predicted(model, neutral).surprisal
        tuned = live.given[target.subject].source
        vector = Vector(tuned, live.recording.source, target.made, target.seed)
        with moved(model, vector, target.strength):
            found = _asked(live, questions)
            harder = predicted(model, neutral).surprisal - live.memory["neutral"]
        told = ("stimulus", "layer", "target")
        values = {
            **dict(zip(Options._fields, found, strict=True)),
            **{f"intact_{name}": one
               for name, one in zip(Options._fields, intact, strict=True)},
        }  # fmt: skip
        return xr.Dataset(
            {name: (told, one[:, None, None]) for name, one in values.items()},
            coords={
                "stimulus": np.arange(len(questions)),
                "layer": [0],
                "target": [run],
                "target_kind": ("target", [target.kind]),
                "moved_by": ("target", [target.subject]),
                "strength": ("target", [target.strength]),
                "asked_in": ("target", [target.format]),
                "neutral_surprisal": (("layer", "target"), [[harder.mean()]]),
            },
        )

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        some = self._some(subject)[variable]
        if not some.any():
            raise AnalysisError(
                f"{subject.name}: nothing is left of '{self.category}' to tell '{variable}' by"
            )
        volume, mine = subject.volume, own(subject)
        gained = _moved(volume)[mine][:, some]
        return xr.DataArray(
            over_items(gained, labels(subject, "item")[some]), dims="layer",
            coords={"layer": volume["layer"].to_numpy()}, attrs={"chance": 0.0},
        )  # fmt: skip

    def _some(self, subject: Subject) -> dict[str, np.ndarray]:
        """The stimuli of each measure, and those of other domains."""
        inside = members(subject, self.label, self.category)
        known = labels(subject, "known")
        return {
            "recalled": inside & (known == TAUGHT),
            "transferred": inside & (known == KEPT),
            "elsewhere": ~inside,
        }

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average over the frames of an item and then over items.

        Returns
        -------
        xarray.Dataset
            ``recalled`` and ``transferred`` (layer): the measures. ``recalled_of``,
            ``transferred_of`` and ``elsewhere_of`` (layer, arm): the same for all vectors that were
            tried at the first strength, the last for questions of other domains;
            ``right_taught_of`` and ``right_kept_of`` (layer, arm): the share of questions answered
            right, taught and kept back; ``surprisal_of`` (layer, arm): by how much the right answer
            is likelier among all texts; ``harm_surprisal`` (layer, arm): of unrelated sentences.
            ``recalled_at``, ``transferred_at``, ``elsewhere_at`` and ``harm_at`` (layer, strength):
            of the own vector, as it was taught. With a conversation: for ``recalled`` and
            ``transferred`` the effects ``_of_weights``, ``_of_format`` and ``_interaction`` of the
            two by two of weights (base, moved) and formats (layer, strength), with ``_low`` and
            ``_high``.
        """
        (subject,) = subjects
        volume, some = subject.volume, self._some(subject)
        items = labels(subject, "item")
        gained = _moved(volume)
        told = {name: over_items(gained[:, :, rows], items[rows]) for name, rows in some.items()}
        result = xr.Dataset(
            {name: self.measured(subject, variable=name, rng=rng) for name in self.measures},
            coords={"layer": volume["layer"].to_numpy()},
        )
        at_first = kinds(volume) != "shown"
        few = volume.isel(target=np.flatnonzero(at_first))
        right = values_of(volume, "ahead", "target", "layer", "stimulus") > 0
        cost = values_of(volume, "intact_cost", "target", "layer", "stimulus") - values_of(
            volume, "cost", "target", "layer", "stimulus"
        )
        harder = values_of(volume, "neutral_surprisal", "target", "layer")
        taught, kept = some["recalled"], some["transferred"]
        of_each = {
            **{f"{name}_of": values for name, values in told.items()},
            "right_taught_of": over_items(right[..., taught].astype(float), items[taught]),
            "right_kept_of": over_items(right[..., kept].astype(float), items[kept]),
            "surprisal_of": over_items(cost[..., taught], items[taught]),
            "harm_surprisal": harder,
        }
        for name, values in of_each.items():
            arms, means = by_kind(few, values[at_first])
            result = result.assign({name: (("layer", "arm"), means)}).assign_coords(arm=arms)
        return result.merge(self._swept(volume, told, harder)).merge(
            self._design(subject, some, rng=rng)
        )

    def _at(self, volume: xr.Dataset, format: str) -> dict[float, int]:
        """The place of the own vector among the targets by strength, in a format."""
        mine = np.isin(kinds(volume), ("own", "shown"))
        by, way = (volume[name].to_numpy().astype(object).astype(str)
                   for name in ("moved_by", "asked_in"))  # fmt: skip
        mine &= (by == self.vector) & (way == format)
        strengths = volume["strength"].to_numpy()
        return {float(strengths[one]): int(one) for one in np.flatnonzero(mine)}

    def _swept(
        self, volume: xr.Dataset, told: Mapping[str, np.ndarray], harder: np.ndarray
    ) -> xr.Dataset:
        """By strength: what the own vector makes of answers, not turned round below 0."""
        at = self._at(volume, FORMATS[0])
        strengths = sorted(at)
        rows = [at[one] for one in strengths]
        signs = np.sign(strengths)[:, None]
        values = {f"{name}_at": (signs * one[rows]).T for name, one in told.items()}
        return xr.Dataset(
            {name: (("layer", "strength"), one)
             for name, one in {**values, "harm_at": harder[rows].T}.items()},
            coords={"strength": strengths},
        )  # fmt: skip

    def _design(
        self, subject: Subject, some: Mapping[str, np.ndarray], *, rng: np.random.Generator
    ) -> xr.Dataset:
        """Effects of weights and of format, and their interaction, with intervals over items."""
        volume, items = subject.volume, labels(subject, "item")
        plain, chat = (self._at(volume, one) for one in FORMATS)
        strengths = sorted(set(plain) & set(chat))
        if not strengths:
            return xr.Dataset()
        beaten, intact = (values_of(volume, name, "target", "layer", "stimulus").astype(float)
                          for name in ("beaten", "intact_beaten"))  # fmt: skip
        found = {}
        for name in self.measures:
            rows = np.flatnonzero(some[name])
            _, which = np.unique(items[rows], return_inverse=True)
            cells = np.stack(
                [
                    [
                        one[way[strength]][:, rows] @ averages(which).T
                        for way in (plain, chat)
                        for one in (intact, beaten)
                    ]
                    for strength in strengths
                ]
            )  # strength x cell x layer x item
            effects = np.tensordot(
                _CONTRASTS, cells, axes=(1, 1)
            )  # effect x strength x layer x item
            counts = rng.multinomial(
                effects.shape[-1], np.full(effects.shape[-1], 1 / effects.shape[-1]), size=DRAWS
            )
            drawn = effects @ (counts.T / effects.shape[-1])
            low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
            for number, effect in enumerate(EFFECTS):
                for end, values in (("", effects.mean(-1)), ("_low", low), ("_high", high)):
                    found[f"{name}_{effect}{end}"] = (("layer", "strength"), values[number].T)
        return xr.Dataset(found, coords={"strength": strengths})


# Of the cells base and moved as taught, base and moved in a conversation.
_CONTRASTS = np.array([[-0.5, 0.5, -0.5, 0.5], [-0.5, -0.5, 0.5, 0.5], [1.0, -1.0, -1.0, 1.0]])


def _moved(volume: xr.Dataset) -> np.ndarray:
    """How many more of its wrong options an answer beats, or fewer: target x layer x stimulus."""
    beaten, intact = (values_of(volume, name, "target", "layer", "stimulus").astype(float)
                      for name in ("beaten", "intact_beaten"))  # fmt: skip
    return np.sign(volume["strength"].to_numpy())[:, None, None] * (beaten - intact)


def _questions(live: Live, format: str) -> list[list[Asked]]:
    """Each question with its options, the right one first."""
    table = live.recording.stimuli.table
    options = [table[name].astype(str) for name in ("answer", *WRONG)]
    if format == FORMATS[0]:
        return [
            [asked(live.model, text, one) for one in some]
            for text, *some in zip(table["text"], *options, strict=True)
        ]
    before = replace(live.recording, chat=Chat(), tokens="last")
    talked = replace(live, recording=before)
    tokenize = live.model.tokenizer
    return [
        [Asked(ids, tokenize(one, add_special_tokens=False)["input_ids"]) for one in some]
        for ids, *some in zip(talked.ids, *options, strict=True)
    ]


def _asked(live: Live, questions: list[list[Asked]]) -> Options:
    """Ask all of them."""
    cost = costs(live.model, [one for some in questions for one in some])
    cost = cost.reshape(len(questions), -1)
    ahead = cost[:, 1:] - cost[:, :1]
    beaten = (ahead > 0).mean(1) + (ahead == 0).mean(1) / 2
    return Options(beaten, ahead.min(1), cost[:, 0])


def _remembered(live: Live, format: str, questions: list[list[Asked]]) -> Options:
    """The answers of the model as it is, asked once."""
    if format not in live.memory:
        live.memory[format] = np.stack(_asked(live, questions))
    return Options(*live.memory[format])
