"""A model whose weights are changed in some blocks, for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from scanner.gradients import gradients_of
from scanner.model import Model
from scanner.sites import SiteError

# Texts of one pass: what gradients need is held for all of them.
TOGETHER = 16


class Asked(NamedTuple):
    """A text in tokens, and the tokens that are right after it."""

    text: Sequence[int]
    answer: Sequence[int]


class Predicted(NamedTuple):
    """What a model makes of texts.

    Attributes
    ----------
    ending : numpy.ndarray
        text x vocabulary: the logarithm of the probability of each token after the text.
    surprisal : numpy.ndarray
        text: of its tokens but the first, nats a token.
    """

    ending: np.ndarray
    surprisal: np.ndarray


@contextmanager
def tuned(
    model: Model, layers: Sequence[int], taught: Sequence[Asked], *, steps: int, rate: float
) -> Iterator[list[float]]:
    """Teach a model what is right after some texts, by the weights of some blocks alone.

    AdamW (Loshchilov & Hutter 2019) as torch has it, with all texts in each step, so that nothing
    is drawn. It moves every weight by about as much, whatever the size of gradients in its block.
    The model stays in evaluation mode. At the end all weights are what they were.

    Parameters
    ----------
    model : Model
    layers : sequence of int
        Blocks whose weights may change.
    taught : sequence of Asked
    steps : int
    rate : float
        How far a step moves a weight, about.

    Yields
    ------
    list of float
        The mean surprisal of what is taught before each step, nats.

    Raises
    ------
    SiteError
        If weights are not in float32, in which small steps are not rounded away; or if a block
        shares weights with what is outside of these blocks, or weights are not there as they are.
    """
    model.check_weights("teaching needs")
    if model.dtype != "float32":
        raise SiteError(
            f"{model.name} is in {model.dtype}, in which small changes of weights are rounded "
            "away; give the subject `dtype: float32`"
        )
    weights = weights_of(model, layers)
    before = [one.detach().clone() for one in weights]
    try:
        yield _teach(model, weights, taught, steps=steps, rate=rate)
    finally:
        with torch.no_grad():
            for weight, had in zip(weights, before, strict=True):
                weight.copy_(had)


def weights_of(model: Model, layers: Sequence[int] | None) -> list[torch.nn.Parameter]:
    """Of some blocks, or of the whole model, each once.

    Raises
    ------
    SiteError
        If a block shares weights with what is outside of these blocks.
    """
    if layers is None:
        return list(model.network.parameters())
    begins = tuple(f"{model.structure.blocks}.{layer}." for layer in layers)
    named = list(model.network.named_parameters(remove_duplicate=False))
    inside = {one: name for name, one in named if name.startswith(begins)}
    for name, one in named:
        if one in inside and not name.startswith(begins):
            raise SiteError(
                f"{model.name}: {inside[one]} is {name} as well, so that blocks cannot be taught "
                "one without the other"
            )
    return list(inside)


def asked(model: Model, text: str, answer: str, *, ended: bool = False) -> Asked:
    """A text and what is right after it, in tokens.

    Parameters
    ----------
    model : Model
    text, answer : str
        The answer is set after a space.
    ended : bool
        Whether the token that ends a text, if the model has one, is a part of the answer.

    Raises
    ------
    SiteError
        If a token is of both.
    """
    before, whole = (model.tokenizer(one)["input_ids"] for one in (text, f"{text} {answer}"))
    if whole[: len(before)] != before or len(whole) == len(before):
        raise SiteError(
            f"{model.name}: '{answer}' is not told apart from the end of '{text}' by its tokens; "
            "end the text with a word or a colon, and no space"
        )
    end = model.tokenizer.eos_token_id if ended else None
    return Asked(before, [*whole[len(before) :], *([] if end is None else [end])])


def _teach(
    model: Model,
    weights: Sequence[torch.nn.Parameter],
    taught: Sequence[Asked],
    *,
    steps: int,
    rate: float,
) -> list[float]:
    losses = []
    with torch.enable_grad(), gradients_of(model.network, set(weights)):
        optimiser = torch.optim.AdamW(weights, lr=rate)
        for _ in range(steps):
            losses.append(learn(model, optimiser, taught))
    return losses


def learn(model: Model, optimiser: torch.optim.Optimizer, taught: Sequence[Asked]) -> float:
    """One step towards what is right after some texts, each as weighty, however long its answer.

    Parameters
    ----------
    model : Model
        Its gradients are asked for (`gradients_of`).
    optimiser : torch.optim.Optimizer
        Of the weights that may change.
    taught : sequence of Asked

    Returns
    -------
    float
        The mean surprisal of what is taught before the step, nats.
    """
    optimiser.zero_grad()
    total = 0.0
    for some in _passes(taught):
        loss = _cost(model, [taught[one] for one in some]).sum() / len(taught)
        loss.backward()
        total += float(loss.detach())
    optimiser.step()
    return total


@torch.inference_mode()
def surprisals(model: Model, asked: Sequence[Asked]) -> np.ndarray:
    """What is right after each text costs: text, nats."""
    found = np.empty(len(asked))
    for some in _passes(asked):
        found[some] = _cost(model, [asked[one] for one in some]).cpu().numpy()
    return found


@torch.inference_mode()
def predicted(model: Model, texts: Sequence[Sequence[int]]) -> Predicted:
    """What a model makes of texts, one after the other."""
    endings, costs = [], []
    for text in texts:
        logits = model.forward(model.batch([text]), head=True)
        assert logits is not None
        told = logits[0].float()
        following = torch.tensor(text[1:], device=model.device)
        costs.append(float(cross_entropy(told[:-1], following)))
        endings.append(told[-1].double().log_softmax(-1).cpu().numpy())
    return Predicted(np.stack(endings), np.array(costs))


def _cost(model: Model, asked: Sequence[Asked]) -> torch.Tensor:
    """Surprisal of all that is right after some texts: text."""
    # Nothing is asked of what follows the last token of an answer.
    whole = [[*text, *answer[:-1]] for text, answer in asked]
    where = [
        (row, len(text) - 1 + place, token)
        for row, (text, answer) in enumerate(asked)
        for place, token in enumerate(answer)
    ]
    columns = sorted({column for _, column, _ in where})
    logits = model.forward(
        model.batch(whole), head=True, columns=torch.tensor(columns, device=model.device)
    )
    assert logits is not None
    rows = torch.tensor([row for row, _, _ in where], device=model.device)
    told = logits[rows, [columns.index(column) for _, column, _ in where]].float()
    right = torch.tensor([token for _, _, token in where], device=model.device)
    costs = cross_entropy(told, right, reduction="none")
    return costs.new_zeros(len(asked)).index_add(0, rows, costs)


def _passes(asked: Sequence[Asked]) -> Iterator[list[int]]:
    """Texts that go together; of nearly one length, so that little is filled up."""
    order = np.argsort([len(one.text) for one in asked], kind="stable")
    for first in range(0, len(order), TOGETHER):
        yield order[first : first + TOGETHER].tolist()
