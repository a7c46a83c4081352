"""What neurons of an MLP do in texts, and what they are worth to the stream.

A neuron is a unit of ``mlp_act``; the last projection of the MLP writes it to the stream along one
direction (Geva et al. 2021).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from scanner.model import Model
from scanner.sites import Kind, Site

# Texts of a batch.
TEXTS = 16

# Neurons of a batch: each takes as many numbers as there are neurons.
NEURONS = 1024


class Fired(NamedTuple):
    """Means over the tokens of a text but the first, which few neurons make unlike all others.

    Attributes
    ----------
    signed, size : numpy.ndarray
        text x layer x neuron: of activations, and of their absolute values.
    open : numpy.ndarray
        The same shape: the share of tokens at which what enters the activation function is above 0.
        NaN in a model without the site ``mlp_pre``.
    """

    signed: np.ndarray
    size: np.ndarray
    open: np.ndarray


def fired(model: Model, ids: Sequence[Sequence[int]], layers: Sequence[int]) -> Fired:
    """What neurons do in texts.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text, at least two.
    layers : sequence of int

    Raises
    ------
    SiteError
        If the model lacks the site ``mlp_act``.
    """
    model.structure.port(Site("mlp_act", 0))
    shape = len(ids), len(layers), model.structure.sizes["mlp_act"][-1]
    made = Fired(*(np.full(shape, np.nan, np.float32) for _ in Fired._fields))
    gated = "mlp_pre" in model.structure.sizes
    kinds: list[Kind] = ["mlp_act", "mlp_pre"] if gated else ["mlp_act"]
    for start in range(0, len(ids), TEXTS):
        batch = model.batch(ids[start : start + TEXTS])
        with torch.inference_mode():
            heard = model.activations(batch, kinds)
        for place, layer in enumerate(layers):
            values = heard[Site("mlp_act", layer)]
            gates = heard.get(Site("mlp_pre", layer))
            for text, (row, own) in enumerate(zip(batch.rows, batch.columns, strict=True), start):
                some = values[row, own[1:]].float()
                made.signed[text, place] = some.mean(0).cpu().numpy()
                made.size[text, place] = some.abs().mean(0).cpu().numpy()
                if gates is not None:
                    often = (gates[row, own[1:]] > 0).float().mean(0)
                    made.open[text, place] = often.cpu().numpy()
    return made


def written(model: Model) -> np.ndarray:
    """The length of what an activation of 1 adds to the output of the MLP.

    It is read from the module by asking it for one neuron after the other, whatever its weights are
    kept as.

    Parameters
    ----------
    model : Model

    Returns
    -------
    numpy.ndarray
        layer x neuron.

    Raises
    ------
    SiteError
        If the model lacks the site ``mlp_act``, or it is not the input of a module.
    """
    made = []
    with torch.inference_mode():
        for layer in range(model.layers):
            port = model.structure.port(Site("mlp_act", layer))
            module = model.network.get_submodule(port.path)
            count = model.structure.sizes["mlp_act"][-1]
            nothing = torch.zeros(1, count, device=model.device, dtype=model.network.dtype)
            rest = module(nothing).float()
            lengths = []
            for first in range(0, count, NEURONS):
                some = torch.arange(first, min(first + NEURONS, count))
                one = nothing.repeat(len(some), 1)
                one[torch.arange(len(some)), some] = 1
                lengths.append((module(one).float() - rest).norm(dim=-1).cpu().numpy())
            made.append(np.concatenate(lengths))
    return np.array(made)
