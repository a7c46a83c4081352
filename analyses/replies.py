"""What a model says to questions: whether it is right, near to the answer, and as it was told to.

Published (Tanwar et al. 2025): accuracy of what is said, ROUGE-1 (Lin 2004) of free answers, and
the share of replies that keep to three instructions: thoughts in tags, an answer in the given
format, and nothing after it. What is said is what the engine of benchmarks has the model in the
scanner say (`scanner.harness`), the likeliest token after the other.

A reply that cannot be read is wrong, and how many there are stands beside: a model that knows and
does not keep to the format is told by `choices`. That a reply is as it was told to be is held
against what is said to the same question without being told.

============ ==========================================================================
said         the option that the reply names, by its letter or by beginning with it
overlap      ROUGE-1: words that reply and answer have in common, lower case, no stemming (F1)
tags         ``<think>`` and ``</think>``, or ``<THOUGHT>``, once each and in that order
valid        ``Answer: [X]``, with a letter that there is, exactly once; brackets may be missing
stopped      the model ends the reply, with nothing behind its answer
============ ==========================================================================

Where we differ: both names of the tags count, since the paper's text and its prompt have one each,
and a letter that begins a word is none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from analyses.acting import ANSWERS, Acting, own, values_of
from analyses.asking import (
    ENDING,
    LETTERS,
    Form,
    LeftOut,
    Prompt,
    Question,
    World,
    check_settings,
    left_out,
    orders_of,
    questions_of,
    worlds_of,
)
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.shares import all_kinds, bootstrapped, item_means, of_categories, of_items, wilson
from scanner import Live, Subject
from scanner.harness import HarnessError, Reply, replies

SCORES = ("said", "overlap", "tags", "valid", "stopped")
TAGS = re.compile(r"<(/?)(think|THOUGHT)>")
Read = tuple[int | None, int]


@register
@dataclass(frozen=True)
class Replies(Acting):
    """Ask questions, and read what is said.

    Attributes
    ----------
    prompt, left_out, layers, random
        As of `choices`.
    tokens : int
        How many may be said.
    """

    prompt: Prompt = "plain"
    tokens: int = 16
    left_out: LeftOut = "nothing"
    layers: tuple[int, ...] = (0,)
    random: int = 3

    makes: ClassVar[tuple[str, ...]] = ("stimulus", "layer", "target")
    measures: ClassVar[Mapping[str, Quantity]] = {
        "said": Quantity("the share of questions that are answered right in words", 0.0, 1.0),
        "overlap": Quantity("ROUGE-1 of what is said and the answer", 0.0, 1.0),
        "tags": Quantity("the share of replies with thoughts between tags", 0.0, 1.0),
        "valid": Quantity("the share of replies with one answer in the given format", 0.0, 1.0),
        "stopped": Quantity("the share of replies that end with the answer", 0.0, 1.0),
    }

    def __post_init__(self) -> None:
        check_settings(self.prompt, self.left_out, self.layers, self.random)
        if self.tokens < 1:
            raise ValueError("tokens must be at least 1")

    def beyond(self, layers: int) -> str:
        last = max(self.layers)
        return f"{last} is none of the model's {layers} layers" if last >= layers else ""

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """The layers."""
        self._worlds(live, subject, np.random.default_rng(0))
        return list(self.layers)

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        questions = questions_of(live, fewest=self._fewest)
        orders = orders_of(len(questions), len(questions[0].options), rng)
        plan = self._worlds(live, subject, rng)
        said = self._said(live, questions, orders, plan, run, rng)
        dealt = iter(map(str, range(len(plan))))
        scores = [
            self._scored(
                questions, orders, world, said, next(dealt) if world.kind == "shuffled" else ""
            )
            for world in plan
        ]
        shape = "stimulus", "layer", "target"
        told = {
            name: (shape, np.stack([one[name] for one in scores], axis=1)[:, None], ANSWERS)
            for name in SCORES
        }
        return xr.Dataset(
            {"replies": told["said"], **told},  # what others read of it, by its name
            coords={
                "stimulus": np.arange(len(questions)),
                "layer": [run],
                "target": np.arange(len(plan)),
                "target_kind": ("target", [world.kind for world in plan]),
                "by_luck": ("stimulus", np.full(len(questions), self._luck(questions))),
                "read": (shape[:2], scores[0]["read"][:, None]),
                "reply": (shape[:2], np.array([[one.text or " "] for one in said["own"]])),
            },
        )

    @property
    def _fewest(self) -> int:
        """Options that a question must have: of a free answer, none but the right one."""
        return 1 if self.prompt == "plain" else 2

    def _luck(self, questions: Sequence[Question]) -> float:
        """What is right by luck: letters are few, words are not."""
        return 0.0 if self.prompt == "plain" else 1 / len(questions[0].options)

    def _worlds(self, live: Live, subject: Subject, rng: np.random.Generator) -> list[World]:
        options = len(questions_of(live, fewest=self._fewest)[0].options)
        return worlds_of(subject, options, trained=live.trained, random=self.random, rng=rng)

    def _said(
        self,
        live: Live,
        questions: Sequence[Question],
        orders: np.ndarray,
        plan: Sequence[World],
        layer: int,
        rng: np.random.Generator,
    ) -> dict[str, list[Reply]]:
        """What is said to each question, by how it is put.

        As it is; after it was answered; without being told how to answer; and as often as answers
        are dealt out, by their numbers, with the words that tell it dealt out as well.
        """
        chat = live.recording.chat
        form = Form(self.prompt, chat)
        forms = {"own": form}
        if len(plan) > 1:
            forms["known"] = form
        if len(plan) > 1 and self.prompt != "plain":  # which tells nothing
            dealings = sum(world.kind == "shuffled" for world in plan)
            seeds = rng.integers(2**32, size=dealings).tolist()
            forms["bare"] = Form("plain", chat)
            forms |= {str(one): replace(form, dealt=seed) for one, seed in enumerate(seeds)}
        found = {}
        for name, told in forms.items():
            put = told.put_again if name == "known" else told.put
            texts = [put(*one) for one in zip(questions, orders, strict=True)]
            try:
                found[name] = replies(
                    live.model, texts, tokens=self.tokens, chat=told.conversation,
                    edits=left_out(self.left_out, layer),
                )  # fmt: skip
            except HarnessError as error:
                raise AnalysisError(f"replies: {error}") from None
        return {"bare": found["own"], **found}

    def _scored(
        self,
        questions: Sequence[Question],
        orders: np.ndarray,
        world: World,
        said: Mapping[str, Sequence[Reply]],
        dealing: str = "",
    ) -> dict[str, np.ndarray]:
        """What each reply is worth in a world: stimulus.

        Parameters
        ----------
        questions, orders, world, said
        dealing : str
            Which of `said` had the words dealt out that say how to answer; if there is none, it was
            not told.
        """
        told = said["known" if world.kind == "known" else "own"]
        free = told
        if world.kind not in ("own", "known"):
            free = said[dealing if dealing in said else "bare"]
        rows = []
        for row, (question, order) in enumerate(zip(questions, orders, strict=True)):
            reply, key = told[world.donor[row]], int(world.key[row])
            named = self._named(reply.text, question, order)[0]
            _, count, after = lettered(self._whole(free[row].text), len(order))
            rows.append({
                "said": named == key,
                "overlap": rouge(question.options[key], reply.text),
                "tags": tagged(free[row].text),
                "valid": count == 1,
                "stopped": free[row].stopped and (self.prompt == "plain" or not after),
                "read": named is not None,
            })  # fmt: skip
        return {name: np.array([one[name] for one in rows], dtype=float) for name in rows[0]}

    def _whole(self, reply: str) -> str:
        """A reply with what its text ended in, which it goes on from."""
        return f"{ENDING}{reply}" if self.prompt == "letters" else reply

    def _named(self, reply: str, question: Question, order: np.ndarray) -> Read:
        """The option that a reply names; None if it names none."""
        if self.prompt == "plain":
            return beginning(reply, question.options), 1
        letter, count, _ = lettered(self._whole(reply), len(order))
        return (None if letter is None else int(order[letter])), count

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        return self._measure(subject, variable)

    def _measure(self, subject: Subject, variable: str) -> xr.DataArray:
        volume = subject.volume
        values = values_of(volume, variable, "target", "layer", "stimulus")[own(subject)]
        luck = float(of_items(volume["by_luck"].to_numpy(), subject)) if variable == "said" else 0.0
        return xr.DataArray(
            of_items(values, subject), dims="layer",
            coords={"layer": volume["layer"].to_numpy()}, attrs={"chance": luck},
        )  # fmt: skip

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average over the frames of an item and then over items.

        Returns
        -------
        xarray.Dataset
            The measures (layer). ``right`` (layer): `said` once more, with ``right_low`` and
            ``right_high``, its interval at 95 % (Wilson 1927); ``unread`` (layer): the share of
            replies that name no option; ``near`` (layer): `overlap` once more, with ``near_low``
            and ``near_high``, by bootstrap over items. ``right_of``, ``near_of``, ``tags_of``,
            ``valid_of`` and ``stopped_of`` (layer, arm): of the questions, of answers dealt out
            anew, of what is said to another question, and after the answer was told; of the last
            three, with the words that say how to answer dealt out instead of answers, and without
            them instead of to another question.
            ``right_by_category`` (layer, category). ``example`` (layer, category): what was said to
            the first question of each by name, of which ``asked`` (category) is the item.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        values = {name: values_of(volume, name, "target", "layer", "stimulus") for name in SCORES}
        shares, near = (of_items(values[name][mine], subject) for name in ("said", "overlap"))
        by_item, items = item_means(values["overlap"][mine], subject)
        seed = int(rng.integers(2**32))
        limits = np.array([bootstrapped(one, np.random.default_rng(seed)) for one in by_item]).T
        low, high = wilson(shares, len(items))
        names, each = of_categories(values["said"][mine], subject)
        kinds, asked, frames = (labels(subject, one) for one in ("category", "item", "frame"))
        order = np.lexsort((frames, asked))
        shown = [order[kinds[order] == name][0] for name in names]
        replied = volume["reply"].transpose("layer", "stimulus")
        read = of_items(values_of(volume, "read", "layer", "stimulus"), subject)
        named = {"said": "right", "overlap": "near"}
        told = {f"{named.get(name, name)}_of": all_kinds(volume, of_items(values[name], subject))
                for name in SCORES}  # fmt: skip
        return xr.Dataset(
            {
                **{name: self._measure(subject, name) for name in self.measures},
                **{name: ("layer", one) for name, one in {
                    "right": shares, "right_low": low, "right_high": high, "unread": 1 - read,
                    "near": near, "near_low": limits[0], "near_high": limits[1],
                }.items()},
                **{name: (("layer", "arm"), one) for name, (_, one) in told.items()},
                "right_by_category": (("layer", "category"), each),
                "example": (("layer", "category"), _texts(replied[:, shown])),
            },
            coords={
                "layer": volume["layer"].to_numpy(), "arm": told["right_of"][0],
                "category": names, "asked": ("category", asked[shown]),
            },
        )  # fmt: skip


def _texts(values: xr.DataArray) -> np.ndarray:
    """Texts as files of measures hold them."""
    return values.to_numpy().astype(object).astype(str)


def lettered(reply: str, options: int) -> tuple[int | None, int, str]:
    """The letter that a reply gives, as its number.

    Parameters
    ----------
    reply : str
    options : int
        How many there are.

    Returns
    -------
    letter : int or None
        The last that stands in the format; None where none does.
    count : int
        How often one does.
    after : str
        What stands behind it.
    """
    last = LETTERS[options - 1]
    found = list(re.finditer(rf"Answer:\s*(?:\[([A-{last}])\]|([A-{last}])(?![A-Za-z]))", reply))
    if not found:
        return None, 0, ""
    letter = found[-1].group(1) or found[-1].group(2)
    return LETTERS.index(letter), len(found), reply[found[-1].end() :].strip(" \n\t.")


def tagged(reply: str) -> bool:
    """Whether thoughts stand between tags: one of each, and in their order."""
    found = TAGS.findall(reply)
    return len(found) == 2 and [slash for slash, _ in found] == ["", "/"] and (
        found[0][1] == found[1][1]
    )  # fmt: skip


def beginning(reply: str, options: Sequence[str]) -> int | None:
    """The option that a reply begins with, word by word; of several the longest; None if none."""
    said, best = _words(reply), None
    for number, option in enumerate(options):
        given = _words(option)
        fits = given and said[: len(given)] == given
        if fits and (best is None or len(given) > len(_words(options[best]))):
            best = number
    return best


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def rouge(answer: str, reply: str) -> float:
    """ROUGE-1 of a reply: the F1 of the words that it has in common with the answer."""
    return float(_scorer().score(answer, reply)["rouge1"].fmeasure)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1"], use_stemmer=False)
