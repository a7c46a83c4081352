"""What is heard is what transformers computes, to the last bit, and does not depend on the batch.

Of a real model, of another that has windows, and of each family: alone, padded, sharing tokens.
"""

import math
import time

import numpy as np
import pytest
import torch
import xarray as xr

from scanner import Recording, open_volume, record
from scanner.batches import shared, together
from scanner.device import batch_tokens
from scanner.model import PASSAGE
from scanner.reading import read
from scanner.sites import PAIRED, Site

# How a family calls the norm after its last block; `norm` elsewhere.
FINAL_NORM = {
    "gpt2": "ln_f", "bloom": "ln_f", "falcon": "ln_f", "gpt_neox": "final_layer_norm",
    "opt": "decoder.final_layer_norm", "mamba": "norm_f",
}  # fmt: skip
TEXTS = ["We saw the cat today.", "The word was bread", "A hammer is a word, and so is saw."]
# A prompt in one batch against itself in another, at the worst token of any kind and layer.
# Measured: 1e-6 in float32 and 3e-3 in half precision for toy models; 2e-5 for the embedded ones.
ALIKE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 1e-2}


def tokenized(model, texts):
    return model.tokenizer(texts)["input_ids"]


@torch.inference_mode()
def transformers_own(model, batch, *, eager=False):
    """`hidden_states` (what enters each block, then the normed end), `attentions`, `logits`."""
    way = model.eager() if eager else model.listening([])
    with way:
        return model.network(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            use_cache=False,
            output_hidden_states=True,
            **({"output_attentions": True} if eager else {}),
        )


@torch.inference_mode()
def final_norm(model, states):
    name = FINAL_NORM.get(model.network.config.model_type, "norm")
    return model.base.get_submodule(name)(states)


@torch.inference_mode()
def assert_heard_is_transformers_own(model, texts):
    batch = model.batch(tokenized(model, texts))
    heard = model.activations(batch, ("resid_pre", "resid_post", "final_norm", "logits"))
    output = transformers_own(model, batch)
    theirs = output.hidden_states
    if model.network.config.model_type == "mamba":  # its list begins after the first block
        theirs = (model.base.embeddings(batch.ids), *theirs[: model.layers - 1], theirs[-1])
    assert len(theirs) == model.layers + 1
    for layer in range(model.layers):
        post = heard[Site("resid_post", layer)]
        assert post.shape == (*batch.ids.shape, model.width)
        assert torch.equal(heard[Site("resid_pre", layer)], theirs[layer])
        if layer < model.layers - 1:
            assert torch.equal(post, theirs[layer + 1])
    assert torch.equal(final_norm(model, post), theirs[-1])
    assert torch.equal(heard[Site("final_norm")], theirs[-1])
    assert torch.equal(heard[Site("logits")], output.logits)
    # The comparison has something to find: layers and texts differ, and the norm does something.
    assert not torch.equal(post, theirs[-1])
    assert len({layer.float().numpy().tobytes() for layer in theirs}) == model.layers + 1
    last = [theirs[1][row, len(columns) - 1] for row, columns in enumerate(batch.columns)]
    assert len({states.float().numpy().tobytes() for states in last}) == len(texts)


def assert_weights_are_transformers_own(model, texts):
    batch = model.batch(tokenized(model, texts))
    heard = model.activations(batch, ("attn_probs",))
    attentions = transformers_own(model, batch, eager=True).attentions
    assert len(attentions) == model.layers
    for layer, theirs in enumerate(attentions):
        assert torch.equal(heard[Site("attn_probs", layer)], theirs[..., : batch.ids.shape[1]])
    assert not torch.equal(attentions[0], attentions[-1])


@pytest.mark.parametrize("subject", ["smollm2", "gemma3"])
def test_what_is_heard_of_an_embedded_subject_is_transformers_own_to_the_last_bit(subject, request):
    model = request.getfixturevalue(subject)
    assert_heard_is_transformers_own(model, TEXTS[:2])
    assert_weights_are_transformers_own(model, TEXTS[:2])


def test_what_is_heard_of_each_family_is_transformers_own_to_the_last_bit(proved, family):
    assert_heard_is_transformers_own(proved(family), TEXTS)
    if family != "mamba":
        assert_weights_are_transformers_own(proved(family), TEXTS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_heard_in_half_precision_is_transformers_own_to_the_last_bit(proved, dtype):
    assert_heard_is_transformers_own(proved("llama", dtype=dtype), TEXTS)


def of_text(site, activation, row, columns):
    """What one text has of a batch: its tokens, and of weights the keys that each of them sees."""
    columns = torch.as_tensor(columns)
    if site.kind not in PAIRED:
        return activation[row, columns].float()
    pairs = activation[row][:, columns][:, :, columns].float()
    # Masks are minus infinity, or a large number that depends on the dtype.
    return pairs.masked_fill(torch.ones(pairs.shape[-2:]).triu(1).bool(), 0.0).clamp_min(-1e4)


def off(expected, found, *, paired=False):
    """The norm of the difference over that of what is expected, at the worst token and head."""
    if paired:  # all queries together: one query and key may be all but orthogonal
        expected, found = expected.flatten(-2), found.flatten(-2)
    size = expected.norm(dim=-1).clamp_min(1e-30)
    return float(((expected - found).norm(dim=-1) / size).max())


def worst(model, ids, batch, kinds):
    """How far texts in a batch are from the same texts alone, by kind."""
    together, found = model.activations(batch, kinds), {}
    for text, row, columns in zip(ids, batch.rows, batch.columns, strict=True):
        alone = model.activations(model.batch([text]), kinds)
        for site, activation in alone.items():
            one = of_text(site, activation, 0, range(len(text)))
            other = of_text(site, together[site], int(row), columns)
            apart = off(one, other, paired=site.kind in PAIRED)
            found[site.kind] = max(apart, found.get(site.kind, 0.0))
    assert set(found) == set(kinds)
    return found


# Three that begin alike, and one longer than the windows of the toy models.
BEGIN = [7, 120, 33, 250]
SHORT = [[*BEGIN, 9, 11], [*BEGIN, 9, 14, 15], [*BEGIN, 60]]
LONG = list(range(40, 55))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_prompt_in_a_padded_batch_is_the_prompt_alone_in_every_kind(proved, family, dtype):
    model = proved(family, dtype=dtype)
    ids = [*SHORT, LONG, LONG[:9]]
    found = worst(model, ids, model.batch(ids), model.structure.kinds)
    assert max(found.values()) <= ALIKE[dtype], found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_prompt_that_shares_its_beginning_is_the_prompt_alone_in_every_kind(
    proved, family, dtype
):
    model = proved(family, dtype=dtype)
    if family in ("bloom", "mamba"):
        assert model.proof.sharing
        return
    batch = shared([sorted(SHORT)], filler=model.filler, dtype=getattr(torch, dtype))
    assert batch.ids.shape == (1, len(BEGIN) + 5)
    found = worst(model, sorted(SHORT), batch, model.structure.kinds)
    assert max(found.values()) <= ALIKE[dtype], found


@pytest.mark.parametrize("subject", ["smollm2", "gemma3"])
def test_texts_of_an_embedded_subject_do_not_depend_on_their_batch_in_any_kind(subject, request):
    model = request.getfixturevalue(subject)
    ids = sorted(tokenized(model, ["The cat saw the dog", "The cat saw a bird today", "A hammer"]))
    for batch in (
        model.batch(ids),
        shared([ids], filler=model.filler, dtype=torch.float32),
    ):
        kinds = [kind for kind in model.structure.kinds if kind != "logits"]  # follow final_norm
        found = worst(model, ids, batch, kinds)
        assert max(found.values()) <= 1e-4, found


@pytest.mark.parametrize("eager", [False, True])
def test_a_changed_future_token_leaves_the_past_of_every_kind_unchanged(proved, family, eager):
    model = proved(family)
    kinds = [kind for kind in model.structure.kinds if eager or kind not in PAIRED]
    one, other = LONG, [*LONG[:10], *range(300, 305)]
    here, there = (model.activations(model.batch([ids]), kinds) for ids in (one, other))
    for site, activation in here.items():
        past = [of_text(site, heard[site], 0, range(10)) for heard in (here, there)]
        assert off(*past, paired=site.kind in PAIRED) <= ALIKE["float32"], site
        assert not torch.equal(activation, there[site]), site  # the change is to be seen later


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "gpt_oss"])
def test_texts_beyond_a_window_would_be_wrong_if_they_shared_tokens_so_they_do_not(
    proved, family, toy_stimuli, tmp_path
):
    model = proved(family)
    assert model.window == 8
    ids = [[*LONG, 5], [*LONG, 6]]
    batch = shared([ids], filler=model.filler, dtype=torch.float32)
    assert worst(model, ids, batch, ["resid_post"])["resid_post"] > 100 * ALIKE["float32"]
    recording = Recording(model.source, toy_stimuli, ("resid_post",), "target", "float32")
    path = record(recording, tmp_path, lambda: model, protocol_sha256="0" * 64)
    longest = max(len(ids) for ids in read(model, toy_stimuli, "target").ids)
    assert longest > 8
    assert open_volume(path).attrs["sharing"] == (
        f"its longest text ({longest} tokens) is longer than the window of 8"
    )


def test_layers_of_gemma_with_a_window_do_not_see_beyond_it_and_the_others_do(gemma3):
    types = gemma3.network.config.layer_types
    assert gemma3.window == 512
    assert set(types) == {"sliding_attention", "full_attention"}
    prompt = gemma3.prompt(530)
    heard = gemma3.activations(gemma3.batch([prompt]), ("attn_probs", "resid_post"))
    positions = torch.arange(530)
    distance = positions[:, None] - positions
    for layer, kind in enumerate(types):
        probs = heard[Site("attn_probs", layer)][0]
        assert not probs[:, distance < 0].any()
        torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:2]))
        beyond, edge = probs[:, distance >= 512], probs[:, distance == 511]
        assert bool((edge > 0).any())
        if kind == "sliding_attention":
            assert not beyond.any(), layer
        else:
            assert bool((beyond.amax(-1) > 0).all()), layer
    # Beside another in a batch, and with fused attention, the long prompt is what it is alone.
    both = gemma3.activations(gemma3.batch([prompt[:20], prompt]), ("resid_post",))
    for site, activation in both.items():
        assert off(heard[site][0], activation[1]) < 1e-3, site


def test_the_volume_of_the_real_model_holds_transformers_own_numbers(
    smollm2, toy_stimuli, tmp_path
):
    recording = Recording(
        smollm2.source, toy_stimuli, ("resid_pre", "resid_post"), "target", "float32", share=False
    )
    path = record(recording, tmp_path, lambda: smollm2, protocol_sha256="0" * 64)
    ours, plain = open_volume(path), xr.open_zarr(path, consolidated=False)
    xr.testing.assert_identical(ours, plain)

    table = toy_stimuli.table
    encoded = smollm2.tokenizer(table["text"].tolist(), return_offsets_mapping=True)
    last = [
        max(place for place, (start, _) in enumerate(spans) if start < end)
        for spans, end in zip(encoded["offset_mapping"], table["target_end"], strict=True)
    ]
    # What follows the target does not reach it and is not computed.
    ids = [text[: end + 1] for text, end in zip(encoded["input_ids"], last, strict=True)]
    for batched in together(ids, share=False, tokens=batch_tokens("cpu")):
        rows = np.concatenate(batched)
        batch = smollm2.batch([ids[row] for row in rows])
        states = torch.stack(transformers_own(smollm2, batch).hidden_states, 2)
        theirs = torch.stack([states[row, last[one]] for row, one in enumerate(rows)])
        for volume in (ours, plain):
            post = volume["resid_post"].to_numpy()[rows]
            assert np.array_equal(volume["resid_pre"].to_numpy()[rows], theirs[:, :-1])
            assert np.array_equal(post[:, :-1], theirs[:, 1:-1])
            normed = final_norm(smollm2, torch.from_numpy(post[:, -1]))
            assert torch.equal(normed, theirs[:, -1])
    for label in ("text", "item", "frame", "category"):
        assert list(ours[label].to_numpy()) == list(table[label])
    assert list(ours["target_position"].to_numpy()) == last
    assert ours.sizes == {"stimulus": 36, "layer": smollm2.layers, "unit": smollm2.width}


@pytest.mark.parametrize("subject", ["smollm2", "gemma3"])
def test_how_long_the_proofs_of_an_embedded_subject_take_is_printed(subject, request, capsys):
    model = request.getfixturevalue(subject)
    for name in ("found", "proof", "structure"):
        vars(model).pop(name, None)
    began, used = time.perf_counter(), time.process_time()
    assert model.structure.kinds
    took, used = time.perf_counter() - began, time.process_time() - used
    with capsys.disabled():
        print(f"\n  proofs of {model.name}: {took:.2f} s, {used:.2f} s of the processor")


def test_twins_have_other_weights_that_only_their_seed_decides(tiny_model, family):
    parent = tiny_model(family)
    first, again, other = parent.twin(1), parent.twin(1), parent.twin(2)
    assert first.weights_sha256 == again.weights_sha256
    assert len({one.weights_sha256 for one in (parent, first, other)}) == 3
    assert first.network.config.to_dict() == parent.network.config.to_dict()
    assert (first.seed, parent.seed) == (1, None)
    assert first.proof.deviations["blocks_chain"] == 0
    assert first.structure.kinds == parent.structure.kinds
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in one.network.state_dict().items()}
        for one in (parent, first)
    ]
    assert shapes[0] == shapes[1]


def test_a_cascade_has_fresh_weights_from_a_block_on(tiny_model, family):
    parent = tiny_model(family)
    batch = parent.batch([parent.prompt(8, seed=3)])
    with torch.inference_mode():
        logits = parent.network(batch.ids, use_cache=False).logits
    trained, blocks = parent.network.state_dict(), f"{parent.structure.blocks}."
    twin = parent.twin(1).network.state_dict()
    for first, mixed in zip((0, 2, parent.layers), parent.cascade([0, 2, 3], seed=1), strict=True):
        for name, weight in mixed.network.state_dict().items():
            fresh = (
                name.startswith(blocks) and int(name.removeprefix(blocks).split(".")[0]) >= first
            )
            assert torch.equal(weight, (twin if fresh else trained)[name])
    with torch.inference_mode():
        assert torch.equal(mixed.network(batch.ids, use_cache=False).logits, logits)


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


def test_a_trained_model_is_less_surprised_by_english_than_guessing_and_its_twin_is_not(smollm2):
    guessing = math.log(smollm2.vocabulary)
    assert smollm2.surprisal < guessing - 5
    assert smollm2.twin(0).surprisal > guessing - 0.1


def test_surprisal_is_the_loss_of_transformers(smollm2):
    batch = smollm2.batch([smollm2.tokenizer(PASSAGE)["input_ids"]])
    with torch.inference_mode():
        theirs = smollm2.network(input_ids=batch.ids, labels=batch.ids, use_cache=False).loss
    assert smollm2.surprisal == pytest.approx(float(theirs), rel=1e-5)
