"""What a model loses with a part of it: each block, attention or MLP left out, one at a time.

Of every stimulus: how far the prediction of what follows it is from the intact one, and how much
harder its own tokens are to predict (Lad et al. 2024; Gromov et al. 2024).
"""

from collections.abc import Sequence

import numpy as np

from scanner.interventions import Edit
from scanner.model import Model
from scanner.sites import Kind, Part, Site
from scanner.sweeps import Trial, sweep

# What each adds to the stream, or, of a block, what it hands on.
SITES: dict[Part, Kind] = {
    "block": "resid_post", "attention": "attn_out_post", "mlp": "mlp_out_post"
}  # fmt: skip
# What is found, and what it is.
MEANINGS = {
    "divergence": "Kullback-Leibler divergence of the prediction at the text's last token "
    "from the intact one, with a part left out",
    "surprisal": "by how much the mean surprisal of the text's tokens rises with a part left out",
}


def lesioned(
    model: Model, ids: Sequence[Sequence[int]], parts: Sequence[Part], *, span: int = 1
) -> dict[str, np.ndarray]:
    """Leave parts out.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text, at least two.
    parts : sequence of str
    span : int
        Of how many layers in a row they are left out together.

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
    trials = [
        Trial(text, (Edit(SITES[parts[part]], "skip", layers=range(layer, layer + span)),))
        for text, layer, part in np.ndindex(shape)
    ]
    made = {name: np.empty(len(trials), dtype=np.float32) for name in MEANINGS}
    for found in sweep(model, ids, trials, surprisal=True):
        made["divergence"][found.trials] = found.divergence
        made["surprisal"][found.trials] = found.surprisal - found.intact_surprisal
    return {name: values.reshape(shape) for name, values in made.items()}


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
    made = np.empty(len(trials), dtype=np.float32)
    for found in sweep(model, ids, trials):
        made[found.trials] = found.divergence
    return made.reshape(shape)
