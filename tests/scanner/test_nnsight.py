"""Another tool, which shares no line with ours, sees and does the same with the same prompts.

nnsight rewrites the code of a traced block and runs it inside the forward pass; we place hooks and
start passes where they change.
"""

from copy import deepcopy
from typing import Any

import nnsight
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from scanner import Edit, Model, Pair, Site, Trial, patched, sweep

# How each family calls its blocks, and the last projection of their MLP.
NAMES = {
    "llama": ("model.layers", "mlp.down_proj"),
    "gpt2": ("transformer.h", "mlp.c_proj"),
    "gpt_neox": ("gpt_neox.layers", "mlp.dense_4h_to_h"),
    "qwen3": ("model.layers", "mlp.down_proj"),
}


class Theirs:
    """A copy of a model in nnsight, which changes the modules that it wraps."""

    def __init__(self, model: Model, family: str) -> None:
        self.blocks, self.projection = NAMES[family]
        tokenizer = AutoTokenizer.from_pretrained(model.source.folder, local_files_only=True)
        self.model: Any = nnsight.TransformersModel(
            deepcopy(model.network), tokenizer=tokenizer, task="text-generation"
        )

    def block(self, layer: int) -> Any:
        return at(self.model, self.blocks)[layer]

    def inputs(self, ids: list[int]) -> dict[str, torch.Tensor]:
        tokens = torch.tensor([ids])
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def at(whole: Any, path: str) -> Any:
    for name in path.split("."):
        whole = getattr(whole, name)
    return whole


@pytest.fixture(params=NAMES)
def both(request, proved) -> tuple[Model, Theirs]:
    model = proved(request.param)
    return model, Theirs(model, request.param)


@torch.no_grad()
def test_the_stream_and_the_neurons_are_what_another_tool_hears(both) -> None:
    ours, theirs = both
    ids = ours.prompt(7, seed=1)
    heard = ours.activations(ours.batch([ids]), ["resid_post", "mlp_act"])
    for layer in range(ours.layers):
        with theirs.model.trace(theirs.inputs(ids)):
            neurons = at(theirs.block(layer), theirs.projection).input.save()
            stream = theirs.block(layer).output
            stream = (stream[0] if isinstance(stream, tuple) else stream).save()
        for kind, other in (("resid_post", stream), ("mlp_act", neurons)):
            np.testing.assert_allclose(
                heard[Site(kind, layer)].reshape(7, -1), other.reshape(7, -1), atol=1e-5
            )


@torch.no_grad()
def test_patches_of_the_stream_are_those_of_another_tool(both) -> None:
    ours, theirs = both
    pairs = [
        Pair(ours.prompt(7, seed=2 * one), ours.prompt(7, seed=2 * one + 1), (5, 9), (2, 6))
        for one in range(2)
    ]
    found = patched(ours, pairs, ["resid_post"])
    for number, pair in enumerate(pairs):
        given = ours.activations(ours.batch([pair.clean]), ["resid_post"])
        for layer in range(ours.layers):
            for column, place in enumerate(pair.places):
                value = given[Site("resid_post", layer)][0, place]
                with theirs.model.trace(theirs.inputs(list(pair.corrupt))):
                    output = theirs.block(layer).output
                    if isinstance(output, tuple):
                        output[0][:, place] = value
                    else:
                        output[:, place] = value
                    logits = theirs.model.lm_head.output[0, -1].save()
                expected = float(logits[5] - logits[9])
                assert found.difference[number, 0, layer, column] == pytest.approx(
                    expected, abs=1e-5
                )


@torch.no_grad()
def test_silenced_neurons_and_added_directions_do_what_they_do_in_another_tool(both) -> None:
    ours, theirs = both
    ids, units = ours.prompt(8, seed=3), [0, 3, 5]
    push = np.random.default_rng(0).normal(size=ours.width).astype(np.float32)
    trials = [
        Trial(0, (Edit("mlp_act", "ablate", layers=[1], units=units, start=1),)),
        Trial(0, (Edit("resid_post", "add", layers=[1], start=1, value=push),)),
    ]
    answers = list(range(20))
    found = np.empty((2, len(answers)))
    for some in sweep(ours, [ids], trials, answers=[answers]):
        found[some.trials] = some.logits
    with theirs.model.trace(theirs.inputs(ids)):
        at(theirs.block(1), theirs.projection).input[:, 1:, units] = 0
        silenced = theirs.model.lm_head.output[0, -1].save()
    with theirs.model.trace(theirs.inputs(ids)):
        output = theirs.block(1).output
        if isinstance(output, tuple):
            output[0][:, 1:] += torch.from_numpy(push)
        else:
            output[:, 1:] += torch.from_numpy(push)
        steered = theirs.model.lm_head.output[0, -1].save()
    assert (silenced - steered).abs().max() > 1e-3
    np.testing.assert_allclose(found, torch.stack([silenced, steered])[:, answers], atol=1e-5)
