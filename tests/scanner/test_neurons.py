"""What neurons do and what they write is what the weights of the model say."""

import numpy as np
import pytest
import torch

from scanner import Edit, SiteError, fired, written


def last_projection(model, layer: int) -> torch.nn.Module:
    """Found by its name, not by its site."""
    block = model.network.get_submodule(model.structure.blocks)[layer]
    names = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out")
    found = [
        module for name, module in block.named_modules()
        if name.rpartition(".")[2] in names and "attn" not in name and "attention" not in name
    ]  # fmt: skip
    return found[0]


def _hear(module: torch.nn.Module, layer: int, heard: dict[int, torch.Tensor]):
    """What enters a module, kept under the number of its layer."""
    return module.register_forward_pre_hook(
        lambda _module, given: heard.update({layer: given[0].detach()})
    )


@pytest.mark.having("mlp_act")
def test_what_a_neuron_writes_is_as_long_as_its_weights(family, proved) -> None:
    model = proved(family)
    found = written(model)
    for layer in range(model.layers):
        weight = last_projection(model, layer).weight.detach().numpy()
        axis = 1 if type(last_projection(model, layer)).__name__ == "Conv1D" else 0
        np.testing.assert_allclose(
            found[layer], np.linalg.norm(weight, axis=axis), rtol=1e-4, atol=1e-6
        )


@pytest.mark.having("mlp_act")
def test_what_fires_is_the_mean_of_what_enters_the_last_projection(family, proved) -> None:
    model = proved(family)
    ids = [model.prompt(length, seed=length) for length in (5, 7, 4)]
    found = fired(model, ids, [0, 2])
    for text, own in enumerate(ids):
        heard: dict[int, torch.Tensor] = {}
        hooks = [_hear(last_projection(model, layer), layer, heard) for layer in (0, 2)]
        with torch.no_grad():
            model.network(torch.tensor([own]))
        for hook in hooks:
            hook.remove()
        for place, layer in enumerate((0, 2)):
            # OPT's MLP sees all tokens of a batch as rows.
            values = heard[layer].reshape(len(own), -1)[1:]
            np.testing.assert_allclose(found.signed[text, place], values.mean(0), atol=1e-5)
            np.testing.assert_allclose(found.size[text, place], values.abs().mean(0), atol=1e-5)
            # Of a family without a gate what is above 0 behind the function was so before it.
            if family in ("gpt2", "gpt_neox", "opt", "falcon", "bloom"):
                often = (values > 0).float().mean(0)
                np.testing.assert_allclose(found.open[text, place], often, atol=1e-6)
            assert ((found.open[text, place] >= 0) & (found.open[text, place] <= 1)).all()


@pytest.mark.having("mlp_act")
def test_a_model_whose_neurons_are_silent_is_one_whose_mlps_write_nothing(family, proved) -> None:
    model = proved(family)
    batch = model.batch([model.prompt(6, seed=1)])
    with torch.no_grad(), model.intervene([Edit("mlp_act", "scale", value=0.0)]):
        silent = model.forward(batch, head=True)
    kept = [last_projection(model, layer).weight.detach().clone() for layer in range(model.layers)]
    try:
        with torch.no_grad():
            for layer in range(model.layers):
                last_projection(model, layer).weight.zero_()
            unwritten = model.forward(batch, head=True)
    finally:
        with torch.no_grad():
            for layer, weight in enumerate(kept):
                last_projection(model, layer).weight.copy_(weight)
    assert torch.equal(silent, unwritten)


def test_a_mixture_has_no_neurons(proved) -> None:
    model = proved("mixtral")
    for ask in (lambda: written(model), lambda: fired(model, [[1, 2, 3]], [0])):
        with pytest.raises(SiteError, match="a mixture of experts has no neurons"):
            ask()
