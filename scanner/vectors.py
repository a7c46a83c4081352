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
from scanner.sites import SiteError
from scanner.sources import Source
from scanner.tuning import Asked

Made = Literal["as it is", "random", "permuted"]


@dataclass(frozen=True)
class Vector:
    """What a subject differs by from another, or something as long in every weight.

    Attributes
    ----------
    tuned, base : Source
    made : {'as it is', 'random', 'permuted'}
        Drawn from a normal distribution, or the entries of each weight in another order.
    seed : int
        Of what is drawn.
    """

    tuned: Source
    base: Source
    made: Made = "as it is"
    seed: int = 0


@contextmanager
@torch.no_grad()
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
    weights = dict(model.network.named_parameters())
    before = {name: one.detach().clone() for name, one in weights.items()}
    tuned, base = Tensors(vector.tuned), Tensors(vector.base)
    generator = torch.Generator().manual_seed(vector.seed)
    try:
        for name, weight in weights.items():
            change = tuned.of(name, weight) - base.of(name, weight)
            weight += strength * _as_long(change, vector.made, generator)
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


def _as_long(change: torch.Tensor, made: Made, generator: torch.Generator) -> torch.Tensor:
    if made == "permuted":
        order = torch.randperm(change.numel(), generator=generator).to(change.device)
        return change.flatten()[order].reshape(change.shape)
    if made == "random":
        drawn = torch.randn(change.shape, generator=generator).to(change.device)
        return drawn * (change.norm() / drawn.norm())
    return change


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
