"""What something does to sentences that have nothing to do with the stimuli.

An intervention that breaks everything explains nothing: what it does to a claim is held against
what it does to these.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scanner import Edit, Live, Trial, sweep
from stimuli import load

# How many sentences.
COUNT = 12


class Harm(NamedTuple):
    """Of each thing that was done, on average over sentences.

    Attributes
    ----------
    divergence : numpy.ndarray
        Of the prediction at the end from the intact one, nats.
    surprisal : numpy.ndarray
        What the surprisal of the text rises by, nats a token; NaN where it was not asked for.
    """

    divergence: np.ndarray
    surprisal: np.ndarray


def sentences(live: Live) -> list[list[int]]:
    """Sentences in tokens."""
    table = load("language").table
    texts = table["text"][table["category"] == "sentences"].tolist()[:COUNT]
    return live.model.tokenizer(texts)["input_ids"]


def harm(
    live: Live, texts: Sequence[Sequence[int]], done: Sequence[Sequence[tuple[Edit, ...]]],
    *, surprisal: bool,
) -> Harm:  # fmt: skip
    """Do each thing to each text.

    Parameters
    ----------
    live : Live
    texts : sequence of sequence of int
        In tokens.
    done : sequence of sequence of tuple of Edit
        Of each text what is done to it, in one order.
    surprisal : bool
        Whether it is asked for.
    """
    trials = [Trial(text, edits) for text, some in enumerate(done) for edits in some]
    made = np.empty((2, len(trials)))
    for found in sweep(live.model, texts, trials, surprisal=surprisal):
        made[0, found.trials] = found.divergence
        made[1, found.trials] = found.surprisal - found.intact_surprisal
    return Harm(*made.reshape(2, len(texts), -1).mean(1))
