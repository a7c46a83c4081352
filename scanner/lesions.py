"""What a model loses with a part of it: each block, attention or MLP left out, one at a time, or
replaced by what it adds on average.

Of every stimulus: how far the prediction of what follows it is from the intact one, and how much
harder its own tokens are to predict (Lad et al. 2024; Gromov et al. 2024).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from scanner.interventions import Edit
from scanner.model import Model
from scanner.sites import Kind, Part, Site
from scanner.sweeps import Trial, sweep

# What each adds to the stream, or, of a block, what it hands on.
SITES: dict[Part, Kind] = {
    "block": "resid_post", "attention": "attn_out_post", "mlp": "mlp_out_post"
}  # fmt: skip
# What a block adds is what these add.
ADDED: tuple[Kind, ...] = ("attn_out_post", "mlp_out_post")
# Texts of a batch.
TEXTS = 16
# What is found, and what it is.
MEANINGS = {
    "divergence": "Kullback-Leibler divergence of the prediction at the text's last token "
    "from the intact one, with a part left out",
    "surprisal": "by how much the mean surprisal of the text's tokens rises with a part left out",
}


def added(model: Model, ids: Sequence[Sequence[int]]) -> dict[Kind, np.ndarray]:
    """What attentions and MLPs add to the stream on average over the tokens of texts.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text, at least two. The first, which is unlike all others, is left out.

    Returns
    -------
    dict of str to numpy.ndarray
        By the kinds of `ADDED`, layer x unit.

    Raises
    ------
    SiteError
        If the model lacks them.
    """
    sums: dict[Kind, np.ndarray] = {kind: np.zeros((model.layers, model.width)) for kind in ADDED}
    for start in range(0, len(ids), TEXTS):
        batch = model.batch(ids[start : start + TEXTS])
        with torch.inference_mode():
            heard = model.activations(batch, ADDED)
        for row, own in zip(batch.rows, batch.columns, strict=True):
            for kind, layer in np.ndindex(len(ADDED), model.layers):
                some = heard[Site(ADDED[kind], layer)][row, own[1:]]
                sums[ADDED[kind]][layer] += some.double().sum(0).cpu().numpy()
    count = sum(len(text) - 1 for text in ids)
    return {kind: sums[kind] / count for kind in ADDED}


def lesioned(
    model: Model,
    ids: Sequence[Sequence[int]],
    parts: Sequence[Part],
    *,
    span: int = 1,
    instead: Mapping[Kind, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Leave parts out, or replace them.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text, at least two.
    parts : sequence of str
    span : int
        Of how many layers in a row they are left out together.
    instead : mapping of str to numpy.ndarray, optional
        What is added in their place at every token but the first, as `added` gives it.

    Returns
    -------
    dict of str to numpy.ndarray
        By the names of `MEANINGS`, text x layer x part, nats; layers are the first of their span.

    Raises
    ------
    SiteError
        If the model lacks a part, or one adds nothing.
    """
    shape = len(ids), model.layers - span + 1, len(parts)
    edits = {
        at: _without(parts[at[1]], range(at[0], at[0] + span), instead)
        for at in np.ndindex(shape[1:])
    }
    trials = [Trial(text, edits[layer, part]) for text, layer, part in np.ndindex(shape)]
    made = {name: np.empty(len(trials), dtype=np.float32) for name in MEANINGS}
    for found in sweep(model, ids, trials, surprisal=True):
        made["divergence"][found.trials] = found.divergence
        made["surprisal"][found.trials] = found.surprisal - found.intact_surprisal
    return {name: values.reshape(shape) for name, values in made.items()}


def without_each(model: Model, ids: Sequence[Sequence[int]], part: Part) -> np.ndarray:
    """Leave a part of each layer out, and look at the prediction after the text alone.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text, at least two.
    part : str

    Returns
    -------
    numpy.ndarray
        text x layer: divergence of the prediction at the text's last token, nats. Without the
        surprisal that `lesioned` tells, the vocabulary is asked for at one token.

    Raises
    ------
    SiteError
        If the model lacks the part, or it adds nothing.
    """
    shape = len(ids), model.layers
    trials = [Trial(text, _without(part, range(layer, layer + 1), None))
              for text, layer in np.ndindex(shape)]  # fmt: skip
    return _divergence(model, ids, trials).reshape(shape)


def _divergence(model: Model, ids: Sequence[Sequence[int]], trials: Sequence[Trial]) -> np.ndarray:
    made = np.empty(len(trials), dtype=np.float32)
    for found in sweep(model, ids, trials):
        made[found.trials] = found.divergence
    return made


def _without(
    part: Part, layers: range, instead: Mapping[Kind, np.ndarray] | None
) -> tuple[Edit, ...]:
    if instead is None:
        return (Edit(SITES[part], "skip", layers=layers),)
    return tuple(
        Edit(kind, "replace", layers=[layer], start=1, value=instead[kind][layer])
        for layer in layers
        for kind in (ADDED if part == "block" else (SITES[part],))
    )


def without_heads(model: Model, ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Set what each head gives to the output projection to zero, one head at a time.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text, at least two.

    Returns
    -------
    numpy.ndarray
        text x layer x head: divergence of the prediction at the text's last token, nats.

    Raises
    ------
    SiteError
        If the model lacks the site ``z``.
    """
    model.structure.port(Site("z", 0))
    shape = len(ids), model.layers, model.structure.sizes["z"][0]
    trials = [
        Trial(text, (Edit("z", "ablate", layers=[layer], heads=[head]),))
        for text, layer, head in np.ndindex(shape)
    ]
    return _divergence(model, ids, trials).reshape(shape)
