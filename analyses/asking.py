"""Stimuli that are questions: what may be answered, how they are put, and what stands beside.

The text of a stimulus is a question up to where the answer begins. The column ``answer`` is right;
columns that begin with ``wrong``, and ``foil``, are the other options, where there are any.

A claim that questions are answered is held against the same with right answers dealt out anew among
the options (``shuffled``), and against the options of each item after the question about another
one (``other``): what frequent words and the wording of options give away is there as well. Where
nothing is answered, it is held against questions that were answered in the text before (``known``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from analyses.base import AnalysisError, labels
from scanner import Chat, Edit, Live, Subject
from scanner.harness import missing
from scanner.sites import Kind

Prompt = Literal["plain", "letters", "reasoned"]
LeftOut = Literal["nothing", "attention", "mlp", "block"]
ENDING = "Answer:"
LETTERS = "ABCDEFGHIJ"
SITES: dict[str, Kind] = {
    "attention": "attn_out_post",
    "mlp": "mlp_out_post",
    "block": "resid_post",
}
# Tanwar et al. (2025), appendix A.5, with its one worked example.
SYSTEM = """\
You are a highly qualified medical expert, adept at answering complex medical exam questions. Your \
task is to answer multiple-choice medical exam questions by following a structured reasoning \
process. You will be given with some examples curated from a database of medical questions and \
their corresponding solutions. Each example showcases a detailed, step-by-step reasoning process \
leading to the correct answer. Carefully analyze these examples, paying close attention to the \
following:

* The medical knowledge applied in each step.
* The logical flow of reasoning, connecting medical concepts to the question.
* The format used to present the reasoning and final answer.

Your task is to answer a new medical question by emulating the reasoning style and format observed \
in the examples.

Follow these instructions carefully:

1. Thoroughly review the examples to internalize the reasoning patterns and solution format. While \
you should follow the format, DO NOT copy the reasoning verbatim. The idea is to understand how to \
THINK.
2. Read and understand the question.
3. Articulate your reasoning process inside the `<think></think>` tags. Connect each reasoning \
step to relevant medical concepts, demonstrating a deep understanding of the question's medical \
context.
4. Based on your reasoning, construct a well-structured explanation leading to the correct answer.
5. Finally, select the single correct answer option (A, B, C, or D).
6. Present your final answer in the format Answer: [X]; where X represents the correct answer \
option you selected. It is crucial that you include NO additional text or tokens after \
"Answer: [X]".

Question: The two principal contractile proteins found in skeletal muscle are:

Options:

A. actin and troponin.
B. actin and myosin.
C. troponin and tropomyosin.
D. myosin and tropomyosin.

<think>Actin is a thin filament protein, forming a helical structure along with tropomyosin and \
troponin, which regulate its interaction with myosin. Myosin, on the other hand, is a thick \
filament protein characterized by its long tail and globular head. The heads of the myosin \
filaments form cross-bridges by attaching to specific sites on the actin filaments. Through a \
series of movements fueled by ATP hydrolysis, these cross-bridges pull the actin filaments towards \
the center of the sarcomere, the basic unit of a muscle fiber, causing the muscle to contract. \
While troponin and tropomyosin are also important in muscle contraction, they serve more as \
regulatory proteins rather than primary contractile proteins.</think>

Answer: [B]"""


class Question(NamedTuple):
    """A question as the stimuli have it; the right option first."""

    text: str
    options: tuple[str, ...]


class World(NamedTuple):
    """What is asked and what counts as right.

    Attributes
    ----------
    kind : str
        As of `analyses.acting`.
    key : numpy.ndarray
        stimulus: which of its options is right.
    donor : numpy.ndarray
        stimulus: whose question is put.
    """

    kind: str
    key: np.ndarray
    donor: np.ndarray


@dataclass(frozen=True)
class Form:
    """How questions are put.

    Attributes
    ----------
    prompt : {'plain', 'letters', 'reasoned'}
        The text alone; with its options behind letters; or that under the system prompt of Tanwar
        et al. (2025), which asks for thoughts in tags and the letter in a given format.
    chat : Chat or None
        Of the recording.
    dealt : int or None
        A seed, by which the words that say how to answer are dealt out anew among their places: as
        many and the same, which say nothing. None leaves them as they are.
    """

    prompt: Prompt
    chat: Chat | None
    dealt: int | None = None

    @property
    def conversation(self) -> Chat | None:
        """The conversation that texts are set in."""
        if self.chat is None or self.prompt != "reasoned":
            return self.chat
        return Chat(self.system)

    @property
    def system(self) -> str:
        """What the model is told, where it is asked to reason."""
        return self._as_told(SYSTEM)

    def _as_told(self, words: str) -> str:
        if self.dealt is None:
            return words
        every = re.findall(r"\S+", words)
        drawn = iter(np.random.default_rng(self.dealt).permutation(len(every)))
        return re.sub(r"\S+", lambda _: every[next(drawn)], words)

    def put(self, question: Question, order: Sequence[int]) -> str:
        """A question, its options in some order."""
        if self.prompt == "plain":
            return question.text
        stem = question.text.removesuffix(ENDING).rstrip()
        listed = "\n".join(
            f"{letter}. {question.options[one]}"
            for letter, one in zip(LETTERS, order, strict=False)
        )
        if self.prompt == "letters":
            return f"{stem}\n{self._as_told(listed)}\n{ENDING}"
        asked = f"{stem}\n\nOptions:\n\n{listed}"
        return asked if self.chat is not None else f"{self.system}\n\n{asked}\n\n"

    def spoken(self, question: Question, order: Sequence[int]) -> tuple[str, ...]:
        """Its options, the right one first, as they would be said after it."""
        space = "" if self.chat is not None else " "
        if self.prompt == "plain":
            return tuple(space + one for one in question.options)
        letters = [LETTERS[list(order).index(one)] for one in range(len(question.options))]
        if self.prompt == "letters":
            return tuple(space + one for one in letters)
        return tuple(f"{ENDING} [{one}]" for one in letters)

    def answered(self, question: Question, order: Sequence[int]) -> str:
        """A question with its answer, in the format that is asked for."""
        right = self.spoken(question, order)[0].strip()
        thought = f"<think>{question.options[0]}</think>\n\n" if self.prompt == "reasoned" else ""
        asked = self.put(question, order).removeprefix(self.system).lstrip()
        between = "\n\n" if self.prompt == "reasoned" else " "
        return f"{asked.rstrip()}{between}{thought}{right}\n\n"

    def put_again(self, question: Question, order: Sequence[int]) -> str:
        """A question after it was answered."""
        asked, before = self.put(question, order), self.answered(question, order)
        if self.prompt == "reasoned" and self.chat is None:
            return f"{self.system}\n\n{before}{asked.removeprefix(self.system).lstrip()}"
        return before + asked


def questions_of(live: Live, *, fewest: int) -> list[Question]:
    """The questions that the stimuli are.

    Parameters
    ----------
    live : Live
    fewest : int
        Options that each must have, the right one counted.

    Raises
    ------
    AnalysisError
        If the stimuli have no answers, or one has too few options, too many, or one twice.
    """
    table = live.recording.stimuli.table
    if "answer" not in table:
        raise AnalysisError("the stimuli have no column 'answer', so are no questions")
    wrong = [name for name in map(str, table.columns) if name.startswith("wrong")]
    columns = ["answer", *sorted(wrong), *(["foil"] if "foil" in table else [])]
    if len(columns) < fewest:
        raise AnalysisError(
            "the stimuli have an answer and no other option; add columns 'wrong_1', 'wrong_2', …"
        )
    if len(columns) > len(LETTERS):
        raise AnalysisError(f"{len(columns)} options; {len(LETTERS)} have a letter")
    found = []
    for row, (text, *options) in enumerate(table[["text", *columns]].astype(str).to_numpy()):
        if len(set(options)) < len(options):
            raise AnalysisError(f"stimulus {row} ('{text}') has an option twice: {options}")
        found.append(Question(text, tuple(options)))
    return found


def worlds_of(
    subject: Subject, options: int, *, trained: bool, random: int, rng: np.random.Generator
) -> list[World]:
    """What is asked, and beside what; of twins the questions alone.

    Right answers are dealt out by item, which keeps its own in all of its frames; where there is
    one option, nothing can be. Questions change places among the items of a category, within a
    frame.

    Raises
    ------
    AnalysisError
        If a frame has a single item of a category.
    """
    items = np.unique(labels(subject, "item"), return_inverse=True)[1]
    right, own = np.zeros(len(items), dtype=int), np.arange(len(items))
    found = [World("own", right, own)]
    if not trained:
        return found
    if options > 1:
        for _ in range(random):
            dealt = rng.integers(options, size=items.max() + 1)
            found.append(World("shuffled", dealt[items], own))
    found.append(World("known", right, own))
    for _ in range(random if options > 1 else 2 * random):
        found.append(World("other", right, _exchanged(subject, rng)))
    return found


def _exchanged(subject: Subject, rng: np.random.Generator) -> np.ndarray:
    """Of each stimulus one of another item, in the same frame and of the same category."""
    frames, categories, items = (labels(subject, one) for one in ("frame", "category", "item"))
    donor = np.empty(len(items), dtype=int)
    for frame, category in dict.fromkeys(zip(frames, categories, strict=True)):
        inside = np.flatnonzero((frames == frame) & (categories == category))
        names = rng.permutation(np.unique(items[inside]))
        if len(names) < 2:
            raise AnalysisError(
                f"'{names[0]}' is the only item of '{category}' in frame '{frame}'; no other "
                "question can be asked there"
            )
        following = dict(zip(names, np.roll(names, 1), strict=True))
        for one in inside:
            donor[one] = rng.choice(inside[items[inside] == following[items[one]]])
    return donor


def orders_of(count: int, options: int, rng: np.random.Generator) -> np.ndarray:
    """In what order options are listed: stimulus x place; each place has the right one as often."""
    places = rng.permutation(np.arange(count) % options)
    orders = np.empty((count, options), dtype=int)
    for row, place in enumerate(places):
        rest = rng.permutation(np.arange(1, options))
        orders[row] = np.insert(rest, place, 0)
    return orders


def left_out(part: LeftOut, layer: int) -> tuple[Edit, ...]:
    """What is done to the model: a part of a layer adds nothing, but at the first token."""
    if part == "nothing":
        return ()
    return (Edit(SITES[part], "skip", layers=[layer], start=1),)


def check_settings(prompt: str, part: str, layers: tuple[int, ...], random: int) -> None:
    """Hold settings to what can be asked.

    Raises
    ------
    ValueError
    """
    for name, given, allowed in (("prompt", prompt, Prompt), ("left_out", part, LeftOut)):
        if given not in get_args(allowed):
            raise ValueError(f"{name}: '{given}' is none of {', '.join(get_args(allowed))}")
    if not layers or min(layers) < 0 or len(set(layers)) < len(layers):
        raise ValueError("layers: whole numbers from 0, each once")
    if part == "nothing" and len(layers) > 1:
        raise ValueError("layers: nothing is left out, and each would give the same; name one")
    if random < 0:
        raise ValueError("random must be at least 0")
    why = missing()
    if why:
        raise ValueError(why)
