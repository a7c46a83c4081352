"""Whether a model would rather say words of one category: the logits of their first tokens."""

from collections.abc import Sequence

import numpy as np

from analyses.base import AnalysisError
from scanner import Live


def first_tokens(live: Live) -> np.ndarray:
    """The first token of the target of each stimulus."""
    return np.array([live.ids[one][target[0]] for one, target in enumerate(live.targets)])


def contrast_of_words(
    words: np.ndarray, codes: np.ndarray, some: np.ndarray, names: Sequence[str] | np.ndarray
) -> tuple[list[int], np.ndarray]:
    """Of each stimulus, how to weigh the words of some stimuli: its category's against the others.

    Its own word is no part of it, nor is another one that begins alike. A token that words of its
    category begin with counts for it.

    Parameters
    ----------
    words : numpy.ndarray
        stimulus; the first token of its word.
    codes : numpy.ndarray
        stimulus; its category.
    some : numpy.ndarray
        The numbers of the stimuli whose words are asked for, and which ask.
    names : sequence of str
        Of categories.

    Returns
    -------
    tokens : list of int
        Those asked for.
    weights : numpy.ndarray
        stimulus of `some` x token: a logit's weight in the mean of its category less that of the
        others.

    Raises
    ------
    AnalysisError
        If a category has no two words there, or is the only one.
    """
    tokens, which = np.unique(words[some], return_inverse=True)
    of = np.zeros((codes.max() + 1, len(tokens)), dtype=bool)
    of[codes[some], which] = True
    weights = np.empty((len(some), len(tokens)))
    for row, (token, code) in enumerate(zip(which, codes[some], strict=True)):
        other = np.arange(len(tokens)) != token
        same, apart = of[code] & other, ~of[code] & other
        if not same.any() or not apart.any():
            raise AnalysisError(
                f"'{names[code]}' has no two words in a group of items that begin with other "
                "tokens than each other; give it more"
            )
        weights[row] = same / same.sum() - apart / apart.sum()
    return tokens.tolist(), weights
