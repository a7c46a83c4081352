"""Which layers of a profile stand out, and whether several profiles choose the same ones.

Two rules. That of Marinescu et al. (2026) takes the upper quarter of each smoothed profile, or the
window in which it rises most, and so finds something in any profile, noise included. The other
takes the layers that exceed what the largest of all layers reaches by chance, and may find none.
"""

from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d, label
from scipy.stats import rankdata

Rule = Literal["null", "paper"]
# Of the published rule: its smoothing, in layers; the quantile; the length and the number of runs.
SIGMA, QUANTILE, SHORTEST, RUNS = 1.0, 0.75, 2, 3
WINDOW = 3


def upper_quarter(profile: np.ndarray) -> np.ndarray:
    """The layers of a profile that the published rule takes, bool.

    Above the third quartile after smoothing, in runs of at least two layers, of which the three
    highest are kept (Marinescu et al. 2026; which runs are kept is not said there).

    Parameters
    ----------
    profile : numpy.ndarray
        layer.
    """
    smooth = gaussian_filter1d(profile.astype(float), SIGMA)
    found: Any = label(smooth > np.quantile(smooth, QUANTILE))
    runs, count = found
    members = [np.flatnonzero(runs == one + 1) for one in range(count)]
    long = [one for one in members if len(one) >= SHORTEST]
    chosen = np.zeros(len(profile), dtype=bool)
    for one in sorted(long, key=lambda one: -smooth[one].mean())[:RUNS]:
        chosen[one] = True
    return chosen


def largest_rise(profile: np.ndarray) -> np.ndarray:
    """The three layers through which a smoothed profile rises most (Marinescu et al. 2026), bool.

    Of a profile with fewer layers, all of them.
    """
    smooth = gaussian_filter1d(profile.astype(float), SIGMA)
    chosen = np.zeros(len(profile), dtype=bool)
    last = WINDOW - 1
    first = int(np.argmax(smooth[last:] - smooth[:-last])) if len(profile) > last else 0
    chosen[first : first + WINDOW] = True
    return chosen


def beyond_chance(profile: np.ndarray, dealt: np.ndarray, *, alpha: float) -> np.ndarray:
    """The layers that exceed what the largest of all layers reaches by chance, bool.

    Familywise over layers (Westfall & Young 1993): a profile of nothing has some with the
    probability `alpha`.

    Parameters
    ----------
    profile : numpy.ndarray
        layer.
    dealt : numpy.ndarray
        draw x layer: the same where there is nothing.
    alpha : float
    """
    largest = dealt.max(1)
    p = (1 + (largest[:, None] >= profile).sum(0)) / (1 + len(largest))
    return p <= alpha


def agreement(profiles: np.ndarray) -> np.ndarray:
    """How alike profiles order the layers: Spearman's correlation, the mean over their pairs.

    Kendall's coefficient of concordance W is the same number on another scale: of m profiles
    ``(1 + (m - 1) agreement) / m`` (Kendall & Gibbons 1990).

    Parameters
    ----------
    profiles : numpy.ndarray
        ... x profile x layer.

    Returns
    -------
    numpy.ndarray
        ..., NaN where a profile is constant.
    """
    ranks = rankdata(profiles, axis=-1)
    ranks -= ranks.mean(-1, keepdims=True)
    length = np.linalg.norm(ranks, axis=-1, keepdims=True)
    ranks = np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)
    count = profiles.shape[-2]
    together = ranks.sum(-2)
    return ((together**2).sum(-1) - count) / (count * (count - 1))


def shifted(profiles: np.ndarray, *, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Profiles turned round by some layers each, which leaves them as smooth as they were.

    Layers that stand side by side are alike, so that layers dealt out one by one are no fair
    comparison; turning is what spins are to maps of the cortex (Alexander-Bloch et al. 2018).

    Parameters
    ----------
    profiles : numpy.ndarray
        profile x layer.
    draws : int
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        draw x profile x layer.
    """
    count, layers = profiles.shape
    start = rng.integers(layers, size=(draws, count, 1))
    at = (np.arange(layers) + start) % layers
    return np.take_along_axis(np.broadcast_to(profiles, (draws, count, layers)), at, axis=-1)


def overlap(chosen: np.ndarray) -> float:
    """How much of what two profiles choose is the same, the mean over their pairs.

    The intersection over the union; NaN if no pair chooses anything.

    Parameters
    ----------
    chosen : numpy.ndarray
        profile x layer, bool.
    """
    one, other = np.triu_indices(len(chosen), 1)
    union = (chosen[one] | chosen[other]).sum(1)
    both = (chosen[one] & chosen[other]).sum(1)
    some = union > 0
    return float((both[some] / union[some]).mean()) if some.any() else float("nan")
