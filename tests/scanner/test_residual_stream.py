"""What is recorded is the residual stream, to the last bit, of a real model and of each family."""

import time

import numpy as np
import pytest
import torch
import xarray as xr

from scanner import Recording, open_volume, record
from scanner.recording import BATCH

# How a family calls the norm after its last block; `norm` elsewhere.
FINAL_NORM = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}


def batch_of(model, texts):
    """A right-padded batch and, of each text, the position of its last token."""
    ids, _ = model.tokenize(texts)
    return model.batch(ids), torch.tensor([len(tokens) - 1 for tokens in ids])


@torch.inference_mode()
def transformers_own(model, batch, positions):
    """`output_hidden_states`: what enters each block, then the normed end; batch x layer x unit."""
    states = model.base(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states
    return torch.stack([layer[torch.arange(len(positions)), positions] for layer in states], 1)


@torch.inference_mode()
def final_norm(model, states):
    return getattr(model.base, FINAL_NORM.get(model.network.config.model_type, "norm"))(states)


def assert_recorded_is_transformers_own(model, texts):
    batch, positions = batch_of(model, texts)
    ours = model.activations(batch, ("resid_pre", "resid_post"), positions)
    theirs = transformers_own(model, batch, positions)
    assert ours["resid_post"].shape == (len(texts), model.layers, model.width)
    assert theirs.shape[1] == model.layers + 1
    assert torch.equal(ours["resid_pre"], theirs[:, :-1])
    assert torch.equal(ours["resid_post"][:, :-1], theirs[:, 1:-1])
    assert torch.equal(final_norm(model, ours["resid_post"][:, -1]), theirs[:, -1])
    # The comparison has something to find: layers and texts differ, and the norm does something.
    assert not torch.equal(ours["resid_post"][:, -1], theirs[:, -1])
    assert len({layer.float().numpy().tobytes() for layer in theirs.unbind(1)}) == model.layers + 1
    assert len({text.float().numpy().tobytes() for text in theirs.unbind(0)}) == len(texts)


TEXTS = ["We saw the cat today.", "The word was bread", "A hammer is a word, and so is saw."]


def test_recorded_residuals_of_the_real_model_are_transformers_own_to_the_last_bit(smollm2):
    assert_recorded_is_transformers_own(smollm2, TEXTS)


def test_recorded_residuals_of_each_family_are_transformers_own_to_the_last_bit(tiny_model, family):
    assert_recorded_is_transformers_own(tiny_model(family), TEXTS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_recorded_residuals_in_half_precision_are_transformers_own_to_the_last_bit(
    tiny_model, dtype
):
    model = tiny_model("llama", dtype=dtype)
    assert_recorded_is_transformers_own(model, TEXTS)
    assert model.prove().keys() == tiny_model("llama").prove().keys()


def test_the_volume_of_the_real_model_holds_transformers_own_numbers(
    smollm2, toy_stimuli, tmp_path
):
    recording = Recording(
        smollm2.source, toy_stimuli, ("resid_pre", "resid_post"), "target", "float32"
    )
    path = record(recording, tmp_path, lambda: smollm2, protocol_sha256="0" * 64)
    ours, plain = open_volume(path), xr.open_zarr(path, consolidated=False)
    xr.testing.assert_identical(ours, plain)

    table = toy_stimuli.table
    ids, offsets = smollm2.tokenize(table["text"].tolist())
    last = torch.tensor(
        [
            max(place for place, (start, _) in enumerate(spans) if start < end)
            for spans, end in zip(offsets, table["target_end"], strict=True)
        ]
    )
    for start in range(0, len(table), BATCH):
        rows = slice(start, start + BATCH)
        theirs = transformers_own(smollm2, smollm2.batch(ids[rows]), last[rows])
        for volume in (ours, plain):
            post = volume["resid_post"].to_numpy()[rows]
            assert np.array_equal(volume["resid_pre"].to_numpy()[rows], theirs[:, :-1])
            assert np.array_equal(post[:, :-1], theirs[:, 1:-1])
            normed = final_norm(smollm2, torch.from_numpy(post[:, -1]))
            assert torch.equal(normed, theirs[:, -1])
    for label in ("text", "item", "frame", "category"):
        assert list(ours[label].to_numpy()) == list(table[label])
    assert list(ours["target_position"].to_numpy()) == last.tolist()
    assert ours.sizes == {"stimulus": 36, "layer": smollm2.layers, "unit": smollm2.width}


def test_the_real_model_satisfies_its_identities(smollm2, capsys):
    began = time.perf_counter()
    found = smollm2.prove()
    with capsys.disabled():
        print(f"\n  prove() of {smollm2.source.name}: {time.perf_counter() - began:.2f} s, {found}")
    assert found["hooks_leave_logits"] == found["blocks_chain"] == 0


def test_each_family_satisfies_its_identities(tiny_model, family):
    found = tiny_model(family).prove()
    assert found["hooks_leave_logits"] == found["blocks_chain"] == 0
    assert len(found) == 4


def test_a_model_of_one_block_satisfies_its_identities(tiny_model):
    assert tiny_model("llama", num_hidden_layers=1).prove()["blocks_chain"] == 0


def test_twins_have_other_weights_that_only_their_seed_decides(tiny_model, family):
    parent = tiny_model(family)
    first, again, other = parent.twin(1), parent.twin(1), parent.twin(2)
    assert first.weights_digest() == again.weights_digest()
    assert len({one.weights_digest() for one in (parent, first, other)}) == 3
    assert first.network.config.to_dict() == parent.network.config.to_dict()
    assert (first.seed, parent.seed) == (1, None)
    assert first.prove()["blocks_chain"] == 0
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in one.network.state_dict().items()}
        for one in (parent, first)
    ]
    assert shapes[0] == shapes[1]


def test_making_a_twin_leaves_the_global_generator_alone(tiny_model):
    model = tiny_model("llama")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.twin(1)
    assert torch.equal(torch.rand(3), expected)


def test_the_twin_of_the_real_model_is_drawn_anew_with_the_stated_spread(smollm2):
    twin, trained = smollm2.twin(0), smollm2
    weight = "model.layers.7.mlp.up_proj.weight"
    spread = smollm2.network.config.initializer_range
    fresh = twin.network.state_dict()[weight].float()
    assert float(fresh.std()) == pytest.approx(spread, rel=0.01)
    assert float(fresh.mean()) == pytest.approx(0, abs=spread / 100)
    assert not torch.equal(fresh, trained.network.state_dict()[weight])
    assert twin.initialisation().endswith(f"initializer_range {spread}")
