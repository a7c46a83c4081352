"""Gradients of weights and of inputs, against autograd by hand, finite differences and sums."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from scanner import Site, SiteError
from scanner.gradients import MODULES, SALIENCY, integrated_gradients, weight_slopes

LENGTH = 8
PREDICTED = range(5, 8)


@pytest.mark.having("attn_out", "mlp_out")
def test_slopes_of_weights_are_those_of_autograd(family, proved) -> None:
    model = proved(family)
    text = model.prompt(LENGTH)
    before = [one.requires_grad for one in model.network.parameters()]
    loss, found = weight_slopes(model, text, PREDICTED, ("attention", "mlp"))
    assert set(found) == set(SALIENCY)
    ids = torch.tensor([text])
    with torch.enable_grad():
        logits = model.network(ids, use_cache=False).logits
        asked = ids[0, list(PREDICTED)]
        wanted = cross_entropy(logits[0, [one - 1 for one in PREDICTED]], asked, reduction="sum")
        for layer in range(model.layers):
            for place, part in enumerate(("attention", "mlp")):
                path = model.structure.port(Site(MODULES[part], layer)).path
                weights = list(model.network.get_submodule(path).parameters())
                slopes = torch.autograd.grad(wanted, weights, retain_graph=True, allow_unused=True)
                of_each = [
                    (torch.zeros_like(w) if g is None else g).detach().flatten()
                    for w, g in zip(weights, slopes, strict=True)
                ]
                slope, weight = (
                    torch.cat(of_each),
                    torch.cat([w.detach().flatten() for w in weights]),
                )
                for name, expected in (
                    ("magnitude", slope.abs()), ("by_weight", (slope * weight).abs()),
                    ("fisher", slope.square()),
                ):  # fmt: skip
                    assert found[name][layer, place] == pytest.approx(
                        float(expected.double().mean()), rel=1e-4, abs=1e-12
                    )
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert [one.requires_grad for one in model.network.parameters()] == before
    assert all(one.grad is None for one in model.network.parameters())


@torch.no_grad()
def test_a_slope_is_a_finite_difference(tiny_model) -> None:
    """Of a part that has a single weight: the gain of a norm in the place of an MLP."""
    model = tiny_model("llama", seed=5, dtype="float32")
    assert model.structure
    gain = Gain()
    model.base.layers[1].mlp = gain
    text = model.prompt(LENGTH)
    _, found = weight_slopes(model, text, PREDICTED, ("mlp",))
    losses = []
    for step in (0.05, -0.05):
        gain.weight.fill_(0.5 + step)
        losses.append(weight_slopes(model, text, PREDICTED, ("mlp",))[0])
    slope = (losses[0] - losses[1]) / 0.1
    assert found["magnitude"][1, 0] == pytest.approx(abs(slope), rel=1e-2)
    assert found["by_weight"][1, 0] == pytest.approx(0.5 * abs(slope), rel=1e-2)
    assert found["fisher"][1, 0] == pytest.approx(slope**2, rel=2e-2)


class Gain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5]))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.weight * given


@torch.no_grad()
def test_what_is_multiplied_by_nothing_has_no_slope(tiny_model) -> None:
    model = tiny_model("llama", seed=5)
    assert model.structure
    model.base.layers[1].mlp.down_proj.weight.zero_()
    _, found = weight_slopes(model, model.prompt(LENGTH), PREDICTED, ("attention", "mlp"))
    # Of the other two matrices the slope goes through that one; its own is there, its product not.
    assert found["by_weight"][1, 1] == 0
    assert found["magnitude"][1, 1] > 0
    assert (found["by_weight"][[0, 2]] > 0).all()


@pytest.mark.having("embeddings")
def test_integrated_gradients_add_up_to_the_change(family, proved) -> None:
    model = proved(family)
    found, missed = integrated_gradients(model, model.prompt(LENGTH), PREDICTED, steps=64)
    assert found.shape == (LENGTH - 1,)
    assert found[0] == 0
    # Where another expert is chosen there is a jump, which no slope knows of.
    limit = 0.2 if "router" in model.structure.kinds else 0.02
    assert abs(missed) < limit * np.abs(found).sum()


@torch.no_grad()
def test_where_everything_is_linear_attributions_of_inputs_are_exact(tiny_model) -> None:
    """Without norms, nonlinearity and attention, the logit's own token is all that counts."""
    model = tiny_model("gpt2", seed=3)
    assert model.structure
    model.base.ln_f = torch.nn.Identity()
    for block in model.base.h:
        block.ln_1 = block.ln_2 = block.mlp.act = torch.nn.Identity()
        block.attn.c_proj.weight.zero_()
    found, _ = integrated_gradients(model, model.prompt(LENGTH), range(6, 7), steps=8)
    np.testing.assert_allclose(found[:5], 0, atol=1e-7)
    assert abs(found[5]) > 1e-4


def test_a_part_that_a_model_has_not_is_named(proved) -> None:
    model = proved("mamba")
    with pytest.raises(SiteError, match="attn_out"):
        weight_slopes(model, model.prompt(LENGTH), PREDICTED, ("attention",))
