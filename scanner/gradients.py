"""How what a model says would change: with its activations, its weights or its inputs.

One pass back gives all of them. Gradients of weights are summed up one by one as they come, so that
they are never all there at once.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from scanner.batches import Batch
from scanner.hooks import visiting
from scanner.model import Model
from scanner.sites import Kind, Part, Site


class Slopes(NamedTuple):
    """Activations, and the gradient of a score with respect to them.

    Attributes
    ----------
    score : torch.Tensor
        row.
    activations, gradients : mapping of Site to torch.Tensor
        row x column x the dimensions of the kind; of a row, those of its own score.
    """

    score: torch.Tensor
    activations: Mapping[Site, torch.Tensor]
    gradients: Mapping[Site, torch.Tensor]


def slopes(
    model: Model,
    batch: Batch,
    sites: Collection[Site],
    score: Callable[[torch.Tensor], torch.Tensor],
    *,
    columns: torch.Tensor | None = None,
) -> Slopes:
    """Follow a score back to what it came from.

    Parameters
    ----------
    model : Model
    batch : Batch
        On the device, a text a row.
    sites : collection of Site
        Before the logits.
    score : callable
        Gives a number for each row, from logits: row x column x vocabulary.
    columns : torch.Tensor, optional
        The columns whose logits are scored; all by default.

    Returns
    -------
    Slopes

    Raises
    ------
    SiteError
        If the model does not have a site, or one does not reach the score.
    """
    heard: dict[Site, torch.Tensor] = {}

    def keep(site: Site, activation: torch.Tensor) -> torch.Tensor:
        # The first that is heard follows from no other: gradients begin there.
        heard[site] = activation.clone().requires_grad_()
        # What the model goes on with is another tensor, which it may change in place.
        return heard[site].clone()

    kinds: list[Kind] = list(dict.fromkeys(site.kind for site in sites))
    with (
        torch.enable_grad(),
        gradients_of(model.network, ()),
        model.listening(kinds),
        visiting(model.network, model.structure, sites, keep),
    ):
        logits = model.forward(batch, head=True, columns=columns)
        assert logits is not None
        scored = score(logits.float())
        found = torch.autograd.grad(scored.sum(), list(heard.values()))
    return Slopes(
        scored.detach(),
        {site: activation.detach() for site, activation in heard.items()},
        dict(zip(heard, found, strict=True)),
    )


# What is told of the gradients of the weights of a part, each a mean over them.
SALIENCY = {
    "magnitude": "of the gradient, without its sign (Simonyan et al. 2014)",
    "by_weight": "of the gradient times the weight, without its sign: it is the same when a norm's "
    "gain is moved into the weights behind it",
    "fisher": "of the squared gradient: the diagonal of the empirical Fisher information",
}
# The module that makes what a part adds.
MODULES: dict[Part, Kind] = {"attention": "attn_out", "mlp": "mlp_out"}


def weight_slopes(
    model: Model, text: Sequence[int], predicted: range, parts: Sequence[Part]
) -> tuple[float, dict[str, np.ndarray]]:
    """Gradients of what some tokens of a text cost, with respect to weights.

    Parameters
    ----------
    model : Model
    text : sequence of int
        Token ids.
    predicted : range
        Positions of the tokens, not the first.
    parts : sequence of str
        ``attention``, ``mlp``.

    Returns
    -------
    loss : float
        The surprisal of these tokens together, nats.
    means : dict of str to numpy.ndarray
        By the names of `SALIENCY`, layer x part.

    Raises
    ------
    SiteError
        If the model does not have a part, or its weights are not there as they are.
    """
    model.check_weights("gradients of weights need")
    sums = {name: np.zeros((model.layers, len(parts))) for name in SALIENCY}
    counts = np.zeros((model.layers, len(parts)))
    handles, wanted = [], dict[nn.Parameter, tuple[int, int]]()
    for layer, part in np.ndindex(counts.shape):
        path = model.structure.port(Site(MODULES[parts[part]], layer)).path
        for weight in model.network.get_submodule(path).parameters():
            wanted[weight] = layer, part
            counts[layer, part] += weight.numel()

    def take(weight: nn.Parameter) -> None:
        assert weight.grad is not None
        slope = weight.grad.detach().float()
        for name, values in (
            ("magnitude", slope.abs()),
            ("by_weight", (slope * weight.detach().float()).abs()),
            ("fisher", slope.square()),
        ):
            sums[name][wanted[weight]] += float(values.sum())
        weight.grad = None

    with torch.enable_grad(), gradients_of(model.network, wanted):
        try:
            handles += [weight.register_post_accumulate_grad_hook(take) for weight in wanted]
            batch = model.batch([text[: predicted[-1] + 1]])
            columns = torch.tensor([one - 1 for one in predicted], device=model.device)
            logits = model.forward(batch, head=True, columns=columns)
            assert logits is not None
            asked = torch.tensor([text[one] for one in predicted], device=model.device)
            loss = cross_entropy(logits[0].float(), asked, reduction="sum")
            loss.backward()
        finally:
            for handle in handles:
                handle.remove()
    return float(loss.detach()), {name: values / counts for name, values in sums.items()}


def integrated_gradients(
    model: Model, text: Sequence[int], predicted: range, *, steps: int
) -> tuple[np.ndarray, float]:
    """What each token of a text adds to the log probability of some of its tokens.

    Integrated gradients (Sundararajan et al. 2017), by captum, from the mean embedding of the
    vocabulary on. From zero on they do not converge: a norm makes every multiple of an embedding
    the same, so that all of the change is at the very beginning of the way. The first token stays
    as it is: all others look at it, and half of it is nothing that a model has ever seen.

    Parameters
    ----------
    model : Model
    text : sequence of int
        Token ids.
    predicted : range
        Positions of the tokens, not the first.
    steps : int

    Returns
    -------
    attributions : numpy.ndarray
        Of each token before the last that is predicted, nats; 0 of the first.
    missed : float
        What these add up to, less the change that they are to explain, nats: 0 if there were steps
        enough, but for mixtures of experts, which jump where another expert is chosen.

    Raises
    ------
    SiteError
        If the model does not have the site ``embeddings``.
    """
    from captum.attr import IntegratedGradients  # a second, and only where it is asked for

    site, begun = Site("embeddings"), list(text[: predicted[-1]])
    columns = torch.tensor([one - 1 for one in predicted], device=model.device)
    asked = torch.tensor([text[one] for one in predicted], device=model.device)

    def score(embeddings: torch.Tensor) -> torch.Tensor:
        batch = model.batch([begun] * len(embeddings))
        with visiting(model.network, model.structure, [site], lambda _site, _old: embeddings):
            logits = model.forward(batch, head=True, columns=columns)
        assert logits is not None
        told = logits.float().log_softmax(-1)
        return told.gather(2, asked[None, :, None].expand(len(told), -1, 1)).sum((1, 2))

    module = model.network.get_submodule(model.structure.port(site).path)
    with torch.no_grad():
        whole = module(torch.tensor([begun], device=model.device))
        baseline = model.mean_embedding.expand_as(whole).clone()
        baseline[:, 0] = whole[:, 0]
    with torch.enable_grad(), gradients_of(model.network, ()):
        found: Any = IntegratedGradients(score).attribute(
            whole, baselines=baseline, n_steps=steps, internal_batch_size=steps,
            return_convergence_delta=True,
        )  # fmt: skip
    return found[0][0].sum(-1).double().cpu().numpy(), float(found[1])


@contextmanager
def gradients_of(network: nn.Module, wanted: Collection[nn.Parameter]) -> Iterator[None]:
    """Gradients of these weights and of no others, which are half of a pass back."""
    # What stands for a weight that lies elsewhere is another tensor after each pass.
    before = {one: one.requires_grad for one in network.parameters() if not one.is_meta}
    try:
        for one in before:
            one.requires_grad_(one in wanted)
        yield
    finally:
        for one, had in before.items():
            one.requires_grad_(had)
            one.grad = None
