"""Which activations carry the difference between two texts: those of one are set into the other.

Activation patching (Vig et al. 2020; Meng et al. 2022; Zhang & Nanda 2024). Two texts of as many
tokens differ in what decides between two answers. Clean activations set into the corrupt text show
what suffices to restore the answer (denoising), corrupt ones in the clean text what is needed for
it (noising); the two need not agree.

One patch is one pass. Attribution patching (Nanda 2023; Kramár et al. 2024) takes the score for a
line instead: what was set in, less what was there, times the gradient, which is one pass back for
all patches at once. It fails where the line does not hold, at saturated softmaxes above all, so
that it is worth what its agreement with true patches is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from scanner.gradients import slopes
from scanner.interventions import Edit
from scanner.model import Model
from scanner.sites import OUTSIDE, PAIRED, Kind, Site, SiteError, sites_of
from scanner.sweeps import Trial, sweep

Into = Literal["corrupt", "clean"]
# Pairs whose donors are held at once.
PAIRS = 16


class Pair(NamedTuple):
    """Two texts and what decides between them.

    Attributes
    ----------
    clean, corrupt : sequence of int
        Token ids, as many.
    answers : tuple of int
        The token that is right after the clean text, and the one that is after the corrupt one.
    places : sequence of int
        Positions that are patched, one at a time.
    """

    clean: Sequence[int]
    corrupt: Sequence[int]
    answers: tuple[int, int]
    places: Sequence[int]


@dataclass(frozen=True)
class Patched:
    """Differences of the logits of two answers, the right one of the clean text less the other.

    Attributes
    ----------
    difference : numpy.ndarray
        pair x kind x layer x place, with that activation of the other text.
    base, donor : numpy.ndarray
        pair: of the text that was patched, and of the one that gave.
    """

    difference: np.ndarray
    base: np.ndarray
    donor: np.ndarray

    def share(self) -> np.ndarray:
        """How much of the way from one text to the other a patch goes, kind x layer x place.

        See `share_of_way`.
        """
        moved = np.moveaxis(self.difference - self.base[:, None, None, None], 0, -1)
        return share_of_way(moved, self.donor - self.base)


def share_of_way(moved: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """How much of the way from one answer to the other something goes.

    The slope through 0 of what it moves on what there is to move, by least squares over pairs. A
    mean of ratios is that of the pairs that differ least, and a ratio of sums has nothing to be
    divided by where pairs differ in both directions, as those of an untrained network do.

    Parameters
    ----------
    moved : numpy.ndarray
        ... x pair: what it changes in the difference of the answers' logits.
    whole : numpy.ndarray
        pair: what the other text changes.

    Returns
    -------
    numpy.ndarray
        More than 1 and less than 0 are possible; 0 is no effect.

    Raises
    ------
    ValueError
        If the texts of no pair differ in their answers.
    """
    whole = whole.astype(float)
    if not whole @ whole > 0:
        raise ValueError("the texts do not differ in their answers, so nothing can be restored")
    return moved.astype(float) @ whole / (whole @ whole)


def patched(
    model: Model, pairs: Sequence[Pair], kinds: Sequence[Kind], *, into: Into = "corrupt"
) -> Patched:
    """Patch every kind of site, layer and place of every pair.

    Parameters
    ----------
    model : Model
    pairs : sequence of Pair
        With as many places each.
    kinds : sequence of str
        Kinds of site inside blocks, but for attention weights.
    into : {'corrupt', 'clean'}
        Which text is patched; the other gives.

    Raises
    ------
    SiteError
        If the texts of a pair are not of one length, a place is none of theirs, or the model lacks
        a kind.
    """
    return _in_turn(_some, model, pairs, kinds, into)


def attributed(
    model: Model, pairs: Sequence[Pair], kinds: Sequence[Kind], *, into: Into = "corrupt"
) -> Patched:
    """Estimate what `patched` would find, from two passes and one back.

    Parameters are those of `patched`, and so are the errors.
    """
    return _in_turn(_estimated, model, pairs, kinds, into)


Made = tuple[np.ndarray, np.ndarray, np.ndarray]
Way = Callable[[Model, Sequence[Pair], Sequence[Kind], tuple[int, int, int], Into], Made]


def _in_turn(
    way: Way, model: Model, pairs: Sequence[Pair], kinds: Sequence[Kind], into: Into
) -> Patched:
    """Some pairs after others, so that memory holds them."""
    check_pairs(pairs)
    for kind in kinds:
        if kind in OUTSIDE or kind in PAIRED:
            raise SiteError(f"'{kind}' cannot be patched: it is no vector of a token in a block")
    shape = len(kinds), model.layers, len(pairs[0].places)
    made = np.empty((len(pairs), *shape))
    base, donor = np.empty(len(pairs)), np.empty(len(pairs))
    for start in range(0, len(pairs), PAIRS):
        some = slice(start, start + PAIRS)
        made[some], base[some], donor[some] = way(model, pairs[some], kinds, shape, into)
    return Patched(made, base, donor)


def _estimated(
    model: Model,
    pairs: Sequence[Pair],
    kinds: Sequence[Kind],
    shape: tuple[int, int, int],
    into: Into,
) -> Made:
    takers, givers = sides(pairs, into)
    # The head is run where a text ends, and nowhere else.
    ends, which = np.unique([len(text) - 1 for text in takers], return_inverse=True)
    columns = torch.tensor(ends, device=model.device)
    rows = torch.arange(len(pairs), device=model.device)
    own = torch.tensor(which, device=model.device)
    answers = torch.tensor([pair.answers for pair in pairs], device=model.device)

    def score(logits: torch.Tensor) -> torch.Tensor:
        last = logits[rows, own].gather(1, answers)
        return last[:, 0] - last[:, 1]

    sites = [site for kind in kinds for site in sites_of(kind, model.layers)]
    found = slopes(model, model.batch(takers), sites, score, columns=columns)
    places = torch.tensor([list(pair.places) for pair in pairs], device=model.device)
    with torch.inference_mode():
        given = model.activations(model.batch(givers), [*kinds, "logits"], columns=columns)
        moved = np.empty((len(pairs), *shape))
        for site in sites:
            assert site.layer is not None
            there, slope, other = (
                one[site][rows[:, None], places].flatten(2).float()
                for one in (found.activations, found.gradients, given)
            )
            change = ((other - there) * slope).sum(-1)
            moved[:, kinds.index(site.kind), site.layer] = change.cpu().numpy()
        donor = score(given[Site("logits")].float()).cpu().numpy()
    base = found.score.cpu().numpy()
    return base[:, None, None, None] + moved, base, donor


def sides(pairs: Sequence[Pair], into: Into) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """The texts that are patched, and those that give."""
    clean, corrupt = [pair.clean for pair in pairs], [pair.corrupt for pair in pairs]
    return (corrupt, clean) if into == "corrupt" else (clean, corrupt)


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Hold each pair to its length and its places.

    Raises
    ------
    SiteError
    """
    for number, pair in enumerate(pairs):
        _check(number, pair, len(pairs[0].places))


def _check(number: int, pair: Pair, places: int) -> None:
    if len(pair.clean) != len(pair.corrupt):
        raise SiteError(
            f"pair {number}: its texts have {len(pair.clean)} and {len(pair.corrupt)} tokens; "
            "positions can be told apart only where they are as many"
        )
    if len(pair.places) != places or not places:
        raise SiteError(f"pair {number}: {len(pair.places)} places, where the first has {places}")
    beyond = [place for place in pair.places if not 0 <= place < len(pair.clean)]
    if beyond:
        raise SiteError(f"pair {number}: no positions {beyond} among {len(pair.clean)} tokens")


def _some(
    model: Model,
    pairs: Sequence[Pair],
    kinds: Sequence[Kind],
    shape: tuple[int, int, int],
    into: Into,
) -> Made:
    takers, givers = sides(pairs, into)
    given = {
        site: activation.float().cpu().numpy()
        for site, activation in model.activations(model.batch(givers), kinds).items()
    }
    trials = [Trial(text, ()) for text in range(2 * len(pairs))]
    for number, pair in enumerate(pairs):
        for kind, layer, place in np.ndindex(shape):
            at = pair.places[place]
            value = given[Site(kinds[kind], layer)][number, at]
            # Where texts are alike there is nothing to move.
            edit = Edit(
                kinds[kind], "replace", layers=[layer], positions=[at], value=value,
                must_move=False,
            )  # fmt: skip
            trials.append(Trial(number, (edit,)))
    answers = [pair.answers for pair in pairs] * 2
    differences = np.empty(len(trials))
    for found in sweep(model, [*takers, *givers], trials, answers=answers):
        differences[found.trials] = found.logits[:, 0] - found.logits[:, 1]
    base, donor = differences[: 2 * len(pairs)].reshape(2, -1)
    return differences[2 * len(pairs) :].reshape(len(pairs), *shape), base, donor
