"""A functional localiser: units chosen by a contrast on some items, and measured on others.

After Fedorenko et al. (2010), as AlKhamissi et al. (2025) brought it to language models. The units
of largest contrast in one half of the items are the mask; how they respond in the other half is the
measure, so that nothing is chosen and measured on the same items (Kriegeskorte et al. 2009). How
they respond to every category shows whether they are specific to what they were chosen for.

Where we differ: masks of several sizes stand side by side, since a size is a choice; and a mask is
held against chance, twins and shuffled labels, since every contrast has units of largest value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, Quantity, register
from analyses.contrast import weights
from analyses.selectivity import over_spread
from analyses.words import read_words
from scanner import Subject

# Values of units held at once, as in `selectivity`.
AT_ONCE = 2**16


@register
@dataclass(frozen=True)
class Localiser(Analysis):
    """Units that a contrast chooses, measured in items that did not choose them.

    Attributes
    ----------
    site : str
        Kind of site to read.
    contrast : str
        As of the analysis ``contrast``: ``animals - rest``.
    label : str
        The column of the stimulus table that has the categories.
    others : tuple of str
        Other contrasts, of which the units that this one chose should know nothing.
    mask : float
        Share of the units that are chosen, for the measure.
    masks : tuple of float
        Other shares, for ``response_by_mask``.
    splits : int
        Number of random halvings of the items; each half chooses once.
    """

    site: str
    contrast: str
    label: str = "category"
    others: tuple[str, ...] = ()
    mask: float = 0.01
    masks: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
    splits: int = 20

    measures: ClassVar[Mapping[str, Quantity]] = {
        "response": Quantity(
            "contrast of the chosen units in other items, in standard deviations of an item",
            -np.inf, np.inf,
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        for share in (self.mask, *self.masks):
            if not 0 < share < 1:
                raise ValueError(f"a mask of {share:g} is no share of the units between 0 and 1")
        if self.splits < 1:
            raise ValueError("splits must be at least 1")

    def sides(self, names: np.ndarray) -> np.ndarray:
        """The two sides of the contrast."""
        weight = _weights(self.contrast, names)
        return np.where(weight == 0, -1, (weight > 0).astype(int))

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Localise.

        Returns
        -------
        xarray.Dataset
            ``response`` (layer); ``response_by_mask`` (layer, mask), the same for other sizes;
            ``response_by_category`` (layer, category), how the chosen units respond to each
            category, from the mean of all categories: what a localiser chose is specific if one
            side of the contrast stands alone. With `others`, ``response_to_others`` (layer,
            contrast). All in standard deviations of an item within its category, means over units,
            halves and splits.

        Raises
        ------
        AnalysisError
            If the contrast is none of these categories, or a category has fewer than four items.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        halves = words.parts(2, each=2, splits=self.splits, rng=rng)
        weight, *others = (
            _weights(contrast, words.names) for contrast in (self.contrast, *self.others)
        )
        shares = (self.mask, *self.masks)
        sizes = [max(1, round(share * words.patterns.shape[2])) for share in shares]
        found = np.array([_responses(word, halves, weight, sizes) for word in words.patterns])
        result = xr.Dataset(
            {
                "response": ("layer", found[:, 0] @ weight, {"chance": 0.0}),
                "response_by_mask": (("layer", "mask"), found[:, 1:] @ weight),
                "response_by_category": (("layer", "category"), found[:, 0]),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "mask": np.array(self.masks),
                "category": words.names,
            },
        )
        if not others:
            return result
        to_others = found[:, 0] @ np.array(others).T
        return result.assign(response_to_others=(("layer", "contrast"), to_others)).assign_coords(
            contrast=np.array(self.others)
        )


def _weights(contrast: str, names: np.ndarray) -> np.ndarray:
    """Of each category, as much on one side as one category, whatever numbers were written.

    Raises
    ------
    AnalysisError
        If the contrast is none of these categories.
    """
    try:
        weight = weights(contrast, names)
    except ValueError as error:
        raise AnalysisError(f"contrast '{contrast}': {error}") from None
    return weight / weight[weight > 0].sum()


def _responses(
    words: np.ndarray, halves: np.ndarray, weight: np.ndarray, sizes: list[int]
) -> np.ndarray:
    """Responses to each category of the units that the other half chose, size x category."""
    total = np.zeros((len(sizes), len(weight)))
    some = max(1, AT_ONCE // (2 * len(weight) * words.shape[1]))
    for start in range(0, len(halves), some):
        # split x side x category x unit; each side is chosen on by the other
        found = responses(words, halves[start : start + some])
        order = np.argsort(-np.einsum("c,...cu->...u", weight, found), axis=-1, kind="stable")
        for number, size in enumerate(sizes):
            chosen = order[:, ::-1, None, :size]
            total[number] += np.take_along_axis(found, chosen, axis=-1).mean(-1).sum((0, 1))
    return total / (2 * len(halves))


def responses(words: np.ndarray, member: np.ndarray) -> np.ndarray:
    """How each unit responds to each category.

    Parameters
    ----------
    words : numpy.ndarray
        item x unit.
    member : numpy.ndarray
        ... x category x item, bool: whose category is which; items of none are left out.

    Returns
    -------
    numpy.ndarray
        ... x category x unit: the mean of a category less the mean of all, over the standard
        deviation of items within their categories. A unit that does not vary gets 0.
    """
    size = np.sqrt(np.mean(words**2, axis=0))
    words = words - words.mean(0)  # what is common to all would only be rounded
    weight = member.astype(float)
    n = weight.sum(-1)[..., None]
    means = weight @ words / n
    squares = weight.sum(-2) @ words**2 - np.sum(n * means**2, axis=-2)
    variance = squares / (n.sum(-2) - n.shape[-2])
    return over_spread(means - means.mean(-2, keepdims=True), variance[..., None, :], size)
