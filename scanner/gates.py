"""Which gates of MLPs are open at each token, in two models that read the same tokens.

A gate is open where what enters the activation function of an MLP is above 0; the functions in use
(SiLU, GELU, ReLU) give what is then above 0 as well. So it is the gate's branch of a gated MLP, and
the neuron itself in one without (Geva et al. 2021; Shazeer 2020). SiLU is never quite 0: that a
neuron is loud, above a share of the root mean square of its token, stands beside it.

Batches pass one after the other, and of each token a bit for each gate is held, until its batch has
been counted: memory does not grow with the number of tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from scanner.batches import Batch
from scanner.hooks import visiting
from scanner.model import Model
from scanner.sites import Site, sites_of
from scanner.token_activations import batches

# Gates of both models, token x byte, and the layer; gives what stands for the second's.
Change = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


class Tokens(NamedTuple):
    """The tokens of a batch but the first of each text, one text after the other.

    Attributes
    ----------
    texts : numpy.ndarray
        Those of the batch.
    starts : numpy.ndarray
        Of each text the first of its tokens.
    sampled : numpy.ndarray
        Tokens of which edit distances are computed.
    """

    texts: np.ndarray
    starts: np.ndarray
    sampled: np.ndarray


class Heard(NamedTuple):
    """What one model does at the tokens of a batch.

    Attributes
    ----------
    gates : dict of int to numpy.ndarray
        Of each layer token x byte: a bit for each gate, 1 where it is open.
    loud : numpy.ndarray
        token x layer: how many neurons are loud.
    sums : numpy.ndarray
        layer x neuron: of what the activation function gives, over tokens.
    """

    gates: dict[int, np.ndarray]
    loud: np.ndarray
    sums: np.ndarray


class Both(NamedTuple):
    """What two models do at the tokens of a batch."""

    tokens: Tokens
    one: Heard
    other: Heard


def gates_of_both(
    one: Model,
    other: Model,
    ids: Sequence[Sequence[int]],
    *,
    loud: float,
    sampled: int,
    rng: np.random.Generator,
) -> Iterator[Both]:
    """Have two models read the same tokens, batch by batch.

    Parameters
    ----------
    one, other : Model
        Of the same shape.
    ids : sequence of sequence of int
        Token ids of each text, at least two.
    loud : float
        Above how many root mean squares of its token a neuron is loud.
    sampled : int
        Tokens of each text of which edit distances are to be computed, at most.
    rng : numpy.random.Generator
        Draws these.

    Raises
    ------
    SiteError
        If a model lacks the sites ``mlp_pre`` and ``mlp_act``.
    """
    for model in (one, other):
        for kind in ("mlp_pre", "mlp_act"):
            model.structure.port(Site(kind, 0))
    longest = max(ids, key=len)
    share = not (one.sharing(longest) or other.sharing(longest))
    drawn = [
        np.sort(rng.choice(len(text) - 1, min(sampled, len(text) - 1), replace=False))
        for text in ids
    ]
    for texts, batch in batches(one, ids, share=share):
        counts = [len(columns) - 1 for columns in batch.columns]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        chosen = [first + drawn[text] for first, text in zip(starts, texts, strict=True)]
        yield Both(
            Tokens(texts, starts, np.concatenate(chosen)),
            _heard(one, batch, loud),
            _heard(other, batch, loud),
        )


def _heard(model: Model, batch: Batch, loud: float) -> Heard:
    rows = np.repeat(batch.rows, [len(columns) - 1 for columns in batch.columns])
    at = np.concatenate([columns[1:] for columns in batch.columns])
    (neurons,) = model.structure.sizes["mlp_pre"]
    made = Heard({}, np.zeros((len(at), model.layers), int), np.zeros((model.layers, neurons)))

    def hear(site: Site, activation: torch.Tensor) -> None:
        assert site.layer is not None
        values = activation[rows, at].float()
        if site.kind == "mlp_act":
            limit = loud * values.square().mean(1, keepdim=True).sqrt()
            made.loud[:, site.layer] = (values.abs() > limit).sum(1).cpu().numpy()
            return
        made.gates[site.layer] = np.packbits((values > 0).cpu().numpy(), axis=1)
        function = model.network.get_submodule(model.structure.port(site).path)
        # Not called as a module is, which would be heard again.
        made.sums[site.layer] = function.forward(values).sum(0).cpu().numpy()

    sites = [site for kind in ("mlp_pre", "mlp_act") for site in sites_of(kind, model.layers)]
    with torch.inference_mode(), visiting(model.network, model.found, sites, hear):
        model.forward(batch)
    return made


@dataclass(frozen=True)
class Tally:
    """Counts over batches, added up in place: of text x layer, and of layer x neuron.

    Attributes
    ----------
    tokens : numpy.ndarray
        text: how many were counted.
    differ, one, other : numpy.ndarray
        text x layer: gates that are open in one of two models alone, in the first, in the second.
    edits : numpy.ndarray
        text x layer: Levenshtein's distance, summed over sampled tokens.
    edited : numpy.ndarray
        text: how many these are.
    of_one, of_other, of_both : numpy.ndarray
        layer x neuron: tokens at which a gate is open in the first, the second, and both.
    """

    tokens: np.ndarray
    differ: np.ndarray
    one: np.ndarray
    other: np.ndarray
    edits: np.ndarray
    edited: np.ndarray
    of_one: np.ndarray
    of_other: np.ndarray
    of_both: np.ndarray

    @classmethod
    def empty(cls, texts: int, layers: int, neurons: int) -> "Tally":
        """Nothing counted yet."""
        by_text, by_neuron = (texts, layers), (layers, neurons)
        shapes = ((texts,), *(by_text,) * 4, (texts,), *(by_neuron,) * 3)
        return cls(*(np.zeros(shape, int) for shape in shapes))

    def add(self, both: Both, change: Change) -> None:
        """Count the tokens of a batch, with something in the place of the second's gates."""
        tokens, neurons = both.tokens, self.of_one.shape[1]
        ends = np.append(tokens.starts[1:], len(both.one.loud))
        self.tokens[tokens.texts] = ends - tokens.starts
        of_text = np.searchsorted(tokens.starts, tokens.sampled, side="right") - 1
        np.add.at(self.edited, tokens.texts[of_text], 1)
        for layer, mine in both.one.gates.items():
            theirs = change(mine, both.other.gates[layer], layer)
            for made, bits in ((self.differ, mine ^ theirs), (self.one, mine),
                               (self.other, theirs)):  # fmt: skip
                counted = np.bitwise_count(bits).sum(1, dtype=int)
                made[tokens.texts, layer] = np.add.reduceat(counted, tokens.starts)
            for made, bits in ((self.of_one, mine), (self.of_other, theirs),
                               (self.of_both, mine & theirs)):  # fmt: skip
                made[layer] += opened(bits, neurons).sum(0, dtype=int)
            found = [
                edit_distance(opened(mine[token], neurons), opened(theirs[token], neurons))
                for token in tokens.sampled
            ]
            np.add.at(self.edits[:, layer], tokens.texts[of_text], found)


def opened(bits: np.ndarray, neurons: int) -> np.ndarray:
    """Packed gates one by one: ... x byte to ... x neuron, 0 or 1."""
    return np.unpackbits(bits, axis=-1, count=neurons)


def edit_distance(one: np.ndarray, other: np.ndarray) -> int:
    """Levenshtein's distance of two patterns of 0 and 1, neuron.

    Bit-parallel (Hyyrö 2003, by rapidfuzz). It lets neurons be left out and put in, so that it is
    never more than the number that differ, and far less where one pattern is the other moved along
    by a place; but the order of neurons means nothing.
    """
    return Levenshtein.distance(one.astype(np.uint8).tobytes(), other.astype(np.uint8).tobytes())


def agreement_by_neuron(tally: Tally) -> tuple[np.ndarray, np.ndarray]:
    """How each gate of the two models goes together over tokens.

    Parameters
    ----------
    tally : Tally

    Returns
    -------
    phi : numpy.ndarray
        layer: the correlation of a gate in the first with the same in the second, on average over
        gates that are neither always open nor always closed in one of them.
    expected : numpy.ndarray
        layer: the share of gates that would differ if each were as often open, but independent.
    """
    count = tally.tokens.sum()
    one, other, both = (part / count for part in (tally.of_one, tally.of_other, tally.of_both))
    spread = np.sqrt(one * (1 - one) * other * (1 - other))
    phi = np.divide(both - one * other, spread, out=np.full_like(one, np.nan), where=spread > 0)
    alive = (spread > 0).sum(1)
    mean = np.divide(np.nansum(phi, 1), alive, out=np.full(len(phi), np.nan), where=alive > 0)
    return mean, (one * (1 - other) + other * (1 - one)).mean(1)
