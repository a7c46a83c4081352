"""Stimuli that are halves of pairs: two texts that ask for different words.

In the other text of a pair the column ``corrupt`` stands in the place of the target. What is right
after the text is its ``answer``, after the other one the ``foil``.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analyses.base import AnalysisError
from scanner import Live, Subject
from stimuli.stimulus_set import PAIR, SPAN, StimulusSet

Place = Literal["target", "next", "last"]


@dataclass(frozen=True)
class Pairs:
    """The stimuli, the other texts of their pairs, and what is right after each.

    Attributes
    ----------
    clean, corrupt : Live
    answers : list of tuple of int
        Of each pair the token that is right after its text, and the one after the other.
    """

    clean: Live
    corrupt: Live
    answers: list[tuple[int, int]]


def pairs_of(live: Live) -> Pairs:
    """Pairs as the model reads them.

    Raises
    ------
    AnalysisError
        If the stimuli are no pairs, the texts of one are not of one length, or an answer is no
        single token.
    """
    stimuli = live.recording.stimuli
    missing = [column for column in PAIR if column not in stimuli.table]
    if missing:
        raise AnalysisError(f"the stimuli have no column '{missing[0]}', so are no pairs")
    texts, ends = [], []
    for _, row in stimuli.table.iterrows():
        start, end = (int(row[name]) for name in SPAN)
        texts.append(row["text"][:start] + row["corrupt"] + row["text"][end:])
        ends.append(start + len(row["corrupt"]))
    table = stimuli.table.assign(text=texts, target_end=ends)
    corrupt = replace(live, recording=replace(
        live.recording, stimuli=StimulusSet(stimuli.name, table)
    ))  # fmt: skip
    for number, (one, other) in enumerate(zip(live.ids, corrupt.ids, strict=True)):
        if len(one) != len(other) or live.targets[number] != corrupt.targets[number]:
            raise AnalysisError(
                f"stimulus {number} ('{stimuli.table['text'][number]}') has {len(one)} tokens, "
                f"with '{table['corrupt'][number]}' {len(other)}; take a word of as many"
            )
    asked = zip(stimuli.table["text"], stimuli.table["answer"], stimuli.table["foil"], strict=True)
    answers = [(token_after(live, text, right), token_after(live, text, wrong))
               for text, right, wrong in asked]  # fmt: skip
    return Pairs(live, corrupt, answers)


def token_after(live: Live, text: str, word: str) -> int:
    """The token that a word is after a text.

    Raises
    ------
    AnalysisError
        If it is not a single one.
    """
    tokenize: Any = live.model.tokenizer
    before, after = (tokenize(one)["input_ids"] for one in (text, f"{text} {word}"))
    if after[: len(before)] != before or len(after) != len(before) + 1:
        raise AnalysisError(f"'{word}' is not a single token after '{text}'")
    return after[-1]


def position(live: Live, text: int, place: Place) -> int:
    """Of a text the last token of its target, the next one, or its last.

    Raises
    ------
    AnalysisError
        If nothing follows the target.
    """
    end, last = live.targets[text][-1], len(live.ids[text]) - 1
    if place == "next" and end == last:
        raise AnalysisError(f"nothing follows the target of stimulus {text}; leave `next` out")
    return {"target": end, "next": end + 1, "last": last}[place]


def of_another(rng: np.random.Generator, alike: Sequence[Hashable]) -> np.ndarray:
    """For each text another one that is alike, or itself where there is none."""
    found = np.empty(len(alike), dtype=int)
    for one, known in enumerate(alike):
        same = [two for two, other in enumerate(alike) if other == known and two != one]
        found[one] = rng.choice(same) if same else one
    return found


def check_apart(subject: Subject, base: np.ndarray, donor: np.ndarray) -> None:
    """That the texts of pairs differ in how far one answer is ahead.

    Raises
    ------
    AnalysisError
    """
    if not np.abs(donor - base).max() > 1e-6 * np.abs(np.concatenate([donor, base])).max():
        raise AnalysisError(
            f"{subject.name}: its answers do not differ between the texts of a pair"
        )
