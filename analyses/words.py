"""One pattern an item: what a word is, whatever the sentence it stands in.

The stimuli of an item are one observation. Analyses of items read it as the mean over its frames,
after the mean of each frame has been taken out, since a frame moves every item alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from analyses.base import AnalysisError, coded, labels, vectors
from analyses.splits import dealt, item_groups
from scanner import Subject


@dataclass(frozen=True)
class Words:
    """Patterns of items.

    Attributes
    ----------
    patterns : numpy.ndarray
        layer x item x unit.
    codes : numpy.ndarray
        item; the index of its label in `names`.
    items : numpy.ndarray
        Their names.
    label : str
    names : numpy.ndarray
        The values of the label, sorted.
    """

    patterns: np.ndarray
    codes: np.ndarray
    items: np.ndarray
    label: str
    names: np.ndarray

    @property
    def member(self) -> np.ndarray:
        """Category x item, bool: whose category is which."""
        return self.codes == np.arange(len(self.names))[:, None]

    def groups(self, count: int, *, rng: np.random.Generator) -> np.ndarray:
        """Divide the items of each category at random: the group of each item, 0 to `count` - 1.

        Raises
        ------
        AnalysisError
            If a category has fewer items than there are groups.
        """
        try:
            return item_groups(self.items, self.names[self.codes], groups=count, rng=rng)
        except ValueError as error:
            raise AnalysisError(f"'{self.label}': {error}") from None

    def parts(self, count: int, *, each: int, splits: int, rng: np.random.Generator) -> np.ndarray:
        """Divide the items of each category at random, several times.

        Parameters
        ----------
        count : int
            Of parts, as equal as can be.
        each : int
            How many items of a category a part must have.
        splits : int
        rng : numpy.random.Generator

        Returns
        -------
        numpy.ndarray
            split x part x category x item, bool.

        Raises
        ------
        AnalysisError
            If a category has too few items.
        """
        sizes = self.member.sum(1)
        if sizes.min() < count * each:
            raise AnalysisError(
                f"'{self.names[sizes.argmin()]}' of '{self.label}' has {sizes.min()} items; "
                f"{count * each} are needed, {each} in each of {count} parts"
            )
        part = np.array([dealt(self.codes, groups=count, rng=rng) for _ in range(splits)])
        return (part[:, None] == np.arange(count)[:, None])[:, :, None] & self.member


def read_words(subject: Subject, site: str, label: str) -> Words:
    """The patterns of a subject's items; parameters and errors as of `analyses.base.read`."""
    items, frames, values = (labels(subject, column) for column in ("item", "frame", label))
    return words_of(vectors(subject, site), items, frames, values, label)


def words_of(
    x: Iterable[np.ndarray],
    items: np.ndarray,
    frames: np.ndarray,
    values: np.ndarray,
    label: str,
) -> Words:
    """The patterns of items from those of stimuli.

    Parameters
    ----------
    x, items, frames
        As of `word_means`.
    values : numpy.ndarray
        The value of the label of each stimulus.
    label : str

    Raises
    ------
    AnalysisError
        If the label has one value.
    """
    codes, names = coded(values, label)
    return Words(*word_means(x, items, frames, codes), label, names)


def same_words(subjects: Sequence[Subject], site: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The patterns of the items of each subject, layer x item x unit, and the names of the items.

    Raises
    ------
    AnalysisError
        If a subject has no such site, or the subjects have read other items.
    """
    found = []
    for subject in subjects:
        items, frames = labels(subject, "item"), labels(subject, "frame")
        nothing = np.zeros(len(items), dtype=int)
        found.append(word_means(vectors(subject, site), items, frames, nothing))
    names = found[0][2]
    for subject, (_, _, those) in zip(subjects, found, strict=True):
        if not np.array_equal(those, names):
            raise AnalysisError(f"{subject.name} and {subjects[0].name} have read other items")
    return [words for words, _, _ in found], names


def word_means(
    x: Iterable[np.ndarray],
    items: np.ndarray,
    frames: np.ndarray,
    codes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One pattern an item: the mean over its frames, each frame centred first.

    Parameters
    ----------
    x : iterable of numpy.ndarray
        Of each layer stimulus x unit; one is held at a time.
    items, frames, codes : numpy.ndarray
        The item, frame and label code of each stimulus.

    Returns
    -------
    words : numpy.ndarray
        layer x item x unit.
    word_codes, word_items : numpy.ndarray
        The label code and name of each item.
    """
    names, first, which = np.unique(items, return_index=True, return_inverse=True)
    frame = np.unique(frames, return_inverse=True)[1]
    average, mean_of_frame = _averaging(which), _averaging(frame)
    in_frame = average @ (frame[:, None] == np.arange(1 + frame.max())).astype(float)
    # Products with what can be large, and no copy of it.
    words = np.array(
        [
            _without_rounding(average @ layer - in_frame @ (mean_of_frame @ layer), layer)
            for layer in x
        ]
    )
    return words, codes[first], names


def _without_rounding(words: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Means of items, 0 in a unit that is the same for all stimuli, where rounding is left."""
    size = np.maximum(layer.max(0), -layer.min(0))
    words *= np.abs(words).max(0) > 1e-13 * size
    return words


def averages(which: np.ndarray) -> np.ndarray:
    """The matrix that averages the rows of each group: group x row."""
    return _averaging(which).toarray()


def _averaging(which: np.ndarray) -> csr_array:
    """The same, of which nearly all is zero."""
    counts = np.bincount(which)
    return csr_array((1 / counts[which], (which, np.arange(len(which)))))


def over_items(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The mean over the frames of an item and then over items: ... x stimulus to ...."""
    _, which = np.unique(items, return_inverse=True)
    return values @ averages(which).mean(0)


def in_spreads(centred: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Patterns in units of each unit's spread over rows; 0 for a unit that does not vary.

    Parameters
    ----------
    centred : numpy.ndarray
        ... x row x unit.
    x : numpy.ndarray
        The same before anything was taken out, by which rounding is told from spread.
    """
    spread = centred.std(-2, keepdims=True)
    size = np.maximum(np.abs(x).max(-2, keepdims=True), spread.max(-1, keepdims=True))
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9 * size)


def without_frames(x: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """... x stimulus x unit without the mean of each frame, which moves every item alike."""
    centred = x.copy()
    for frame in np.unique(frames):
        inside = frames == frame
        centred[..., inside, :] -= centred[..., inside, :].mean(-2, keepdims=True)
    return centred
