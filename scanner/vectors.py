"""A model whose weights are moved along a tuning vector for a while, and asked with options.

A tuning vector is what a subject differs by from the one that it was made of, weight by weight
(`scanner.made`). Beside it stand vectors that are as long in every weight: drawn at random, or its
own entries in another order.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from scanner.batches import padded, shared, together
from scanner.device import batch_tokens
from scanner.made import Tensors
from scanner.model import Model
from scanner.moved_weights import Noise, as_long, changed
from scanner.sites import SiteError
from scanner.sources import Source
from scanner.tuning import Asked

Made = Literal["as it is"] | Noise


@dataclass(frozen=True)
class Vector:
    """What a subject differs by from another, or something as long in every weight.

    Attributes
    ----------
    tuned, base : Source
    made : {'as it is', 'normal', 'dealt'}
        Drawn from a normal distribution, or the entries of each weight in another order.
    seed : int
        Of what is drawn.
    """

    tuned: Source
    base: Source
    made: Made = "as it is"
    seed: int = 0


@contextmanager
def moved(model: Model, vector: Vector, strength: float) -> Iterator[None]:
    """Move the weights of a model along a vector. At the end all are what they were.

    Parameters
    ----------
    model : Model
        The base, or any other of the same architecture, such as its twin.
    vector : Vector
    strength : float
        1 makes the base the tuned subject.

    Raises
    ------
    SourceError
        If the weights of the vector are not those of the model.
    SiteError
        If weights are not in float32, in which small changes are not rounded away.
    """
    if model.dtype != "float32":
        raise SiteError(
            f"{model.name} is in {model.dtype}, in which small changes of weights are rounded "
            "away; give the subject `dtype: float32`"
        )
    tuned, base = Tensors(vector.tuned), Tensors(vector.base)
    generator = torch.Generator().manual_seed(vector.seed)

    def make(name: str, weight: torch.Tensor) -> torch.Tensor:
        change = tuned.of(name, weight) - base.of(name, weight)
        if vector.made != "as it is":
            change = as_long(change, vector.made, generator)
        return weight + strength * change

    with changed(model, make):
        yield


@torch.inference_mode()
def costs(model: Model, asked: Sequence[Asked]) -> np.ndarray:
    """The surprisal of each answer after its text, nats: text.

    Texts that begin alike are computed together where that is proved to be the same, so that
    several answers to one question cost little more than one.
    """
    whole = [[*text, *answer] for text, answer in asked]
    share = not model.sharing(max(whole, key=len))
    found = np.empty(len(asked))
    for rows in together(whole, share=share, tokens=batch_tokens(model.device)):
        some = np.concatenate(rows)
        texts = [[whole[one] for one in row] for row in rows]
        if share:
            batch = shared(texts, filler=model.filler, dtype=getattr(torch, model.dtype))
        else:
            batch = padded([one for (one,) in texts], filler=model.filler)
        at = [batch.columns[place][len(asked[one].text) - 1 : -1] for place, one in enumerate(some)]
        columns = np.unique(np.concatenate(at))
        logits = model.forward(
            batch.to(model.device), head=True,
            columns=torch.from_numpy(columns).to(model.device),
        )  # fmt: skip
        assert logits is not None
        for place, one in enumerate(some):
            told = logits[int(batch.rows[place]), np.searchsorted(columns, at[place])].float()
            right = torch.tensor(asked[one].answer, device=model.device)
            found[one] = float(cross_entropy(told, right, reduction="sum"))
    return found
