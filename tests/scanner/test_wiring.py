"""What heads write and read is what weights say, in every family that has heads."""

import numpy as np
import pytest
import torch

from scanner import SiteError
from scanner.wiring import wiring

TEXT = (5, 9, 17, 33, 8)


@pytest.mark.having("z", "q", "attn_out_post")
def test_heads_are_wired_in_every_family(family, tiny_model) -> None:
    model = tiny_model(family)
    found = wiring(model, TEXT)
    heads = model.structure.sizes["z"][0]
    later = np.arange(len(found)) // heads
    there = later[:, None] < later
    assert found.shape == (model.layers * heads,) * 2
    assert (found[~there] == 0).all()
    assert (found[there] > 0).all() and found.max() <= 1
    # Of maps at random, as these are, about as much as of a direction at random.
    assert found[there].mean() == pytest.approx(model.width**-0.5, rel=0.35)


@torch.no_grad()
def test_it_is_the_product_of_the_weights_and_the_slope_of_the_norm(tiny_model) -> None:
    model = tiny_model("llama")
    found = wiring(model, TEXT).reshape(3, 4, 3, 4)
    base = model.base
    heard = model.activations(model.batch([TEXT]), ["resid_pre"])
    (x,) = (one[0, -1] for site, one in heard.items() if site.layer == 2)
    block, first = base.layers[2], base.layers[0]
    with torch.enable_grad():
        norm = torch.autograd.functional.jacobian(block.input_layernorm, x.clone())
    for writer, reader in ((0, 0), (3, 1), (1, 3)):
        written = first.self_attn.o_proj.weight[:, 8 * writer : 8 * writer + 8]
        shared = reader // 2  # two heads for each head of keys
        weights = [
            getattr(block.self_attn, f"{name}_proj").weight[8 * one : 8 * one + 8]
            for name, one in (("q", reader), ("k", shared), ("v", shared))
        ]
        read = torch.cat(weights) @ norm
        expected = (read @ written).norm() / read.norm() / written.norm()
        assert found[0, writer, 2, reader] == pytest.approx(float(expected), rel=1e-3)


@torch.no_grad()
def test_a_head_that_reads_what_another_writes_is_told_from_others(tiny_model) -> None:
    model = tiny_model("llama")
    written = model.base.layers[0].self_attn.o_proj.weight[:, 16:24]  # head 2
    only = torch.linalg.qr(written)[0]
    attention = model.base.layers[2].self_attn
    for name, rows in (("q", slice(24, 32)), ("k", slice(8, 16)), ("v", slice(8, 16))):
        weight = getattr(attention, f"{name}_proj").weight
        weight[rows] = weight[rows] @ only @ only.T
    found = wiring(model, TEXT).reshape(3, 4, 3, 4)[0, :, 2]
    # Head 3 of layer 2; head 2 of that layer shares its keys and values.
    assert found[:, 3].argmax() == 2
    assert found[2, 3] > 1.5 * np.delete(found[:, 3], 2).max()
    assert found[2, 3] > found[2, 2] > found[2, :2].max()


def test_a_model_without_heads_says_so(tiny_model) -> None:
    with pytest.raises(SiteError, match="this model has no 'z'"):
        wiring(tiny_model("mamba"), TEXT)
