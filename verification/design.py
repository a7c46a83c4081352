"""What the stimuli must be before anything that is measured on them can be believed.

A split by items keeps words apart only if two items are never the same word, and a frame that goes
with one category says which it is.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analyses import AnalysisError
from analyses.base import labels
from scanner import Subject
from scanner.volume import VolumeError, check_finite


def check_design(subject: Subject, label: str) -> None:
    """Hold stimuli and activations to what every judgement presupposes.

    Parameters
    ----------
    subject : Subject
    label : str
        The column that the analysis reads.

    Raises
    ------
    AnalysisError
        If an item has two labels, is the same word or text as another, stands in frames that tell
        its label, or an activation is not finite.
    """
    stimuli = pd.DataFrame(
        {name: labels(subject, name) for name in ("item", "frame", "text")}
        | {"label": labels(subject, label)}
    )
    _one_label_each(stimuli, label)
    _no_word_twice(stimuli["item"].unique())
    _no_text_twice(stimuli)
    _frames_are_crossed(stimuli, label)
    for kind, values in subject.volume.data_vars.items():
        try:
            check_finite(values, str(kind))
        except VolumeError as error:
            raise AnalysisError(str(error)) from None


def _one_label_each(stimuli: pd.DataFrame, label: str) -> None:
    for item, values in stimuli.groupby("item")["label"].unique().items():
        if len(values) > 1:
            raise AnalysisError(
                f"item '{item}' has two values of '{label}' ('{values[0]}' and '{values[1]}'); "
                "give each sense an item of its own"
            )


def _no_word_twice(items: Iterable[str]) -> None:
    """Case, spaces and punctuation do not make another word."""
    seen: dict[str, str] = {}
    for item in items:
        word = "".join(filter(str.isalnum, item.casefold())) or item
        if word in seen:
            raise AnalysisError(
                f"items '{seen[word]}' and '{item}' are the same word, so it can stand on both "
                "sides of a split; give it one item"
            )
        seen[word] = item


def _no_text_twice(stimuli: pd.DataFrame) -> None:
    shared = stimuli.groupby("text")["item"].unique()
    for text, items in shared[shared.map(len) > 1].items():
        raise AnalysisError(
            f"items '{items[0]}' and '{items[1]}' share the text '{text}', so it can stand on both "
            "sides of a split; leave one out"
        )


def _frames_are_crossed(stimuli: pd.DataFrame, label: str) -> None:
    table = pd.crosstab(stimuli["frame"], stimuli["label"])
    missing = np.argwhere(table.to_numpy() == 0)
    if len(missing):
        frame, value = table.index[missing[0][0]], table.columns[missing[0][1]]
        raise AnalysisError(
            f"frame '{frame}' never has '{label}' '{value}', so frames give it away; use each "
            "frame with every value"
        )
