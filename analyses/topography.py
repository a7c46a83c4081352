"""Whether units that stand together are tuned alike, where standing together means something.

The units of a head share what it attends to, so a layout in heads means something. The order of the
dimensions of the residual stream, or of neurons, does not: any other order computes the same
(Yarrow et al. 2014 on how measures of maps mislead). There "topography" is not applicable, and this
analysis says so.

The tuning of a unit is its mean for each category. Two units are as alike as the square of their
correlation: the sign of a unit of a head is arbitrary, too, since the weights that read it may
turn with it. The square is the product of two correlations between four parts of the items, so that
noise that units share, of which those of a head have much, does not count as tuning: where there is
none it is zero on average. What is compared with is the same units in shuffled order.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, register
from analyses.localiser import responses
from analyses.words import read_words
from scanner import Subject
from scanner.sites import MEANINGS, Kind

HEADS = ("head", "kv_head")
# Memberships of units in heads that are held at once.
AT_ONCE = 2**20
# Sites whose units stand in heads.
LAYOUTS = tuple(
    kind
    for kind, meaning in MEANINGS.items()
    if len(meaning.dims) == 2 and meaning.dims[0] in HEADS
)


@register
@dataclass(frozen=True)
class Topography(Analysis):
    """Tuning within heads and between them, and by distance within a head.

    Attributes
    ----------
    site : {'q', 'k', 'value', 'z'}
        Kind of site to read.
    label : str
        A column of the stimulus table.
    splits : int
        Number of random divisions of the items into four parts.
    permutations : int
        Of the units among the places.
    reach : int
        The largest distance within a head. Its order has a meaning in ``q`` and ``k`` of models
        with rotary positions, whose neighbours turn at neighbouring speeds (Su et al. 2024).
    """

    site: str
    label: str = "category"
    splits: int = 5
    permutations: int = 199
    reach: int = 16

    def __post_init__(self) -> None:
        if self.site not in LAYOUTS:
            raise ValueError(
                f"topography is not applicable to '{self.site}': the order of its units means "
                f"nothing; those of {', '.join(LAYOUTS)} stand in heads"
            )
        for name in ("splits", "permutations", "reach"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Describe.

        Returns
        -------
        xarray.Dataset
            By layer: ``within_heads`` and ``between_heads``, the mean squared correlation of the
            tuning of two units; ``clustering``, the difference; ``clustering_p``, how often units
            dealt out among heads at random are clustered as much. ``neighbours`` (layer, distance),
            the same of two units of a head so far apart. ``moran`` (layer, category), Moran's I of
            the size of the responses to a category along the units of a head; without topography
            it is ``-1 / (units - 1)`` on average (Moran 1950).

        Raises
        ------
        AnalysisError
            If there is one head, or a category has fewer than four items.
        """
        (subject,) = subjects
        words = read_words(subject, self.site, self.label)
        heads = subject.volume[self.site].sizes[MEANINGS[cast(Kind, self.site)].dims[0]]
        each = words.patterns.shape[2] // heads
        if min(heads, each) < 2:
            raise AnalysisError(f"topography: {heads} heads of {each} units; 2 of each are needed")
        member = words.parts(4, each=1, splits=self.splits, rng=rng)
        head = np.tile(np.repeat(np.arange(heads), each), (1 + self.permutations, 1))
        head[1:] = rng.permuted(head[1:], axis=1)
        found = []
        for word in words.patterns:
            tuning = paired(tuned(word, member))
            inside, outside = by_head(tuning, head)
            apart = inside - outside
            reached = np.sum(apart[1:] >= apart[0] - 1e-12)
            found.append(
                {
                    "within_heads": inside[0],
                    "between_heads": outside[0],
                    "clustering": apart[0],
                    "clustering_p": (1 + reached) / (1 + self.permutations),
                    "neighbours": by_distance(tuning, heads, min(self.reach, each - 1)),
                    "moran": morans_i(np.abs(responses(word, words.member)), heads),
                }
            )
        dims = {"neighbours": ("layer", "distance"), "moran": ("layer", "category")}
        return xr.Dataset(
            {
                name: (dims.get(name, ("layer",)), np.array([one[name] for one in found]))
                for name in found[0]
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(),
                "category": words.names,
                "distance": 1 + np.arange(min(self.reach, each - 1)),
            },
        )


def tuned(words: np.ndarray, member: np.ndarray) -> np.ndarray:
    """The profile of each unit over categories, around 0 and of length 1; 0 where there is none.

    Parameters
    ----------
    words : numpy.ndarray
        item x unit.
    member : numpy.ndarray
        ... x category x item, bool.

    Returns
    -------
    numpy.ndarray
        ... x category x unit. Products of profiles are correlations.
    """
    weight = member / member.sum(-1, keepdims=True)
    means = weight @ (words - words.mean(0))
    around = means - means.mean(-2, keepdims=True)
    size = np.linalg.norm(around, axis=-2, keepdims=True)
    floor = 1e-9 * np.sqrt(np.mean(words**2, axis=0))  # rounding of what does not vary
    return np.divide(around, size, out=np.zeros_like(around), where=size > floor)


def paired(profiles: np.ndarray) -> np.ndarray:
    """What makes products of correlations of sums over units.

    With a, b, c and d the profiles in four parts, (a_i b_j)(c_i d_j) is the sum of the products of
    a_i c_i' with b_j d_j', of which each belongs to one unit.

    Parameters
    ----------
    profiles : numpy.ndarray
        split x 4 x category x unit.

    Returns
    -------
    numpy.ndarray
        split x side x feature x unit.
    """
    one, other, again, another = np.moveaxis(profiles, 1, 0)
    both = [left[:, :, None] * right[:, None] for left, right in ((one, again), (other, another))]
    splits, categories, _, units = both[0].shape
    return np.stack(both, axis=1).reshape(splits, 2, categories**2, units)


def by_head(tuning: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How alike two different units of one head are, and of two heads.

    Parameters
    ----------
    tuning : numpy.ndarray
        split x side x feature x unit, as from `paired`.
    head : numpy.ndarray
        draw x unit: the head of each unit, as many units in each.

    Returns
    -------
    within, between : numpy.ndarray
        draw; means over splits.
    """
    splits, _, _, units = tuning.shape
    heads = 1 + head.max()
    together = np.sum(tuning[:, 0] * tuning[:, 1])  # a unit is no pair with itself
    everyone = np.sum(tuning[:, 0].sum(-1) * tuning[:, 1].sum(-1)) - together
    inside = np.empty(len(head))
    some = max(1, AT_ONCE // (heads * units))
    for start in range(0, len(head), some):
        member = head[start : start + some, :, None] == np.arange(heads)
        sums = tuning @ member.swapaxes(0, 1).reshape(units, -1).astype(float)
        products = np.sum(sums[:, 0] * sums[:, 1], axis=(0, 1))
        inside[start : start + some] = products.reshape(-1, heads).sum(1) - together
    pairs = units * (units // heads - 1)
    outside = (everyone - inside) / (units * (units - 1) - pairs)
    return inside / pairs / splits, outside / splits


def by_distance(tuning: np.ndarray, heads: int, reach: int) -> np.ndarray:
    """How alike two units of a head are that stand so far apart.

    Parameters
    ----------
    tuning : numpy.ndarray
        split x side x feature x unit, as from `paired`; heads stand one after the other.
    heads : int
    reach : int
        The largest distance, below the units of a head.

    Returns
    -------
    numpy.ndarray
        distance, from 1 on.
    """
    one, other = tuning.reshape(*tuning.shape[:-1], heads, -1).swapaxes(0, 1)
    return np.array(
        [
            np.mean(
                (
                    np.sum(one[..., apart:] * other[..., :-apart], axis=-3)
                    + np.sum(one[..., :-apart] * other[..., apart:], axis=-3)
                )
                / 2
            )
            for apart in range(1, reach + 1)
        ]
    )


def morans_i(values: np.ndarray, heads: int) -> np.ndarray:
    """Moran's I (1950) along chains: how alike neighbours are, of all that differ.

    Parameters
    ----------
    values : numpy.ndarray
        ... x unit; the chains stand one after the other.
    heads : int
        How many chains.

    Returns
    -------
    numpy.ndarray
        ...; NaN where all values are the same.
    """
    around = values - values.mean(-1, keepdims=True)
    chain = around.reshape(*around.shape[:-1], heads, -1)
    together = np.mean(chain[..., 1:] * chain[..., :-1], axis=(-2, -1))
    spread = np.mean(around**2, axis=-1)
    return np.divide(together, spread, out=np.full(spread.shape, np.nan), where=spread > 0)
