"""Activations of all tokens of texts, in memory: what dictionaries and parcels are made from."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch

from scanner.batches import Batch, common, padded, shared, together
from scanner.device import batch_tokens
from scanner.hooks import visiting
from scanner.model import Model
from scanner.sites import Site


class _Enough(Exception):
    """Ends a pass that has shown what it was to show."""


def token_activations(
    model: Model, ids: Sequence[Sequence[int]], sites: Sequence[Site]
) -> dict[Site, list[np.ndarray]]:
    """Activations of the tokens of each text but its first.

    The first often has an activation a hundred times the others'.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text.
    sites : sequence of Site

    Returns
    -------
    dict
        Of each site for each text token x unit, float32; heads stand one after the other.
    """
    share = not model.sharing(max(ids, key=len))
    found = {site: [np.empty(0)] * len(ids) for site in sites}
    heard: dict[Site, np.ndarray] = {}

    def hear(site: Site, activation: torch.Tensor) -> None:
        heard[site] = activation.flatten(2).float().cpu().numpy()
        if len(heard) == len(sites):
            raise _Enough  # blocks behind it are of no use

    for texts, batch in batches(model, ids, share=share):
        with (
            torch.inference_mode(),
            suppress(_Enough),
            visiting(model.network, model.found, sites, hear),
        ):
            model.forward(batch)
        for site in sites:
            values = heard.pop(site)
            for text, row, columns in zip(texts, batch.rows, batch.columns, strict=True):
                found[site][text] = values[row, columns[1:]]
    return found


def batches(
    model: Model, ids: Sequence[Sequence[int]], *, share: bool
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Texts in batches that the memory of the device holds.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text.
    share : bool
        Whether what texts begin with alike is computed once (`Model.sharing`).

    Yields
    ------
    texts : numpy.ndarray
        Which they are, in the order of the batch.
    batch : Batch
        On the device.
    """
    for rows in together(ids, share=share, tokens=batch_tokens(model.device)):
        if share:
            texts = [[ids[text] for text in row] for row in rows]
            batch = shared(texts, filler=model.filler, dtype=model.network.dtype)
        else:
            batch = padded([ids[text] for row in rows for text in row], filler=model.filler)
        yield np.concatenate(rows), batch.to(model.device)


def each_once(ids: Sequence[Sequence[int]], activations: Sequence[np.ndarray]) -> np.ndarray:
    """Activations of tokens, those once that several texts begin with: token x unit.

    Words in one sentence would have a dictionary learn the sentence.

    Parameters
    ----------
    ids : sequence of sequence of int
    activations : sequence of numpy.ndarray
        As `token_activations` gives them.
    """
    order = sorted(range(len(ids)), key=lambda text: list(ids[text]))
    found, before = [], []
    for text in order:
        known = common(before, ids[text])
        found.append(activations[text][max(known, 1) - 1 :])
        before = ids[text]
    return np.concatenate(found)
