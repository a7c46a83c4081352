"""Each identity that `Model.prove` checks refuses a model that was broken so as to break it."""

import pytest
import torch
from torch import nn

from scanner import SiteError


def refused(identity):
    return pytest.raises(SiteError, match=f"the identity '{identity}' fails by")


def leak_next_token(_module, _args, output):
    """Let each position see a little of the one after it."""
    seen = torch.zeros_like(output)
    seen[:, :-1] = output[:, 1:]
    return output + 0.01 * seen


def leak_last_token(_module, _args, output):
    return output + 0.01 * output[:, -1:]


@pytest.mark.parametrize("leak", [leak_next_token, leak_last_token])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_block_that_leaks_the_future_is_refused(tiny_model, leak, layer):
    model = tiny_model("llama")
    model.blocks[layer].register_forward_hook(leak)
    with refused("future_leaves_past"):
        model.prove()


def test_a_leak_in_an_early_block_is_not_hidden_by_large_activations_of_a_later_one(tiny_model):
    def massive(_module, _args, output):
        output = output.clone()
        output[..., 3] += 1e6
        return output

    model = tiny_model("llama")
    model.blocks[1].register_forward_hook(massive)
    model.prove()  # large activations alone are no fault
    model.blocks[0].register_forward_hook(leak_next_token)
    with refused("future_leaves_past"):
        model.prove()


def test_attention_without_its_causal_mask_is_refused(tiny_model):
    model = tiny_model("gpt2")
    attend = nn.functional.scaled_dot_product_attention

    def everywhere(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **settings):
        return attend(query, key, value, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", everywhere)
        with refused("future_leaves_past"):
            model.prove()
    model.prove()


def test_work_between_two_blocks_is_refused(tiny_model):
    model = tiny_model("llama")
    model.blocks[1].register_forward_pre_hook(lambda _module, args: (args[0] * 1.5, *args[1:]))
    with refused("blocks_chain"):
        model.prove()


def test_blocks_that_run_in_another_order_than_they_stand_in_are_refused(tiny_model):
    class Backwards(nn.ModuleList):
        def __getitem__(self, index):  # the model walks over a slice, the scanner over the list
            got = super().__getitem__(index)
            return list(got)[::-1] if isinstance(index, slice) else got

    model = tiny_model("llama")
    model.base.layers = Backwards(list(model.base.layers))
    with refused("blocks_chain"):
        model.prove()


def test_a_model_left_in_training_mode_is_refused(tiny_model):
    model = tiny_model("gpt2")
    model.network.train()  # dropout draws anew in each pass
    with refused("hooks_leave_logits"):
        model.prove()


def test_a_block_that_mixes_the_stimuli_of_a_batch_is_refused(tiny_model):
    model = tiny_model("llama")
    model.blocks[1].register_forward_hook(
        lambda _module, _args, output: output + 0.01 * output.mean(0, keepdim=True)
    )
    with refused("alone_equals_batched"):
        model.prove()


def test_a_model_that_computes_nan_is_refused(tiny_model):
    model = tiny_model("llama")
    with torch.no_grad():
        model.blocks[2].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(SiteError, match="fails by nan"):
        model.prove()


def test_the_refusal_names_subject_device_and_dtype(tiny_model):
    model = tiny_model("llama")
    model.blocks[0].register_forward_hook(leak_last_token)
    with pytest.raises(SiteError, match=rf"'{model.source.name}' on cpu in float32: .* 0.0001 is"):
        model.prove()
