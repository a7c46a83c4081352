"""A path is what remains when everything beside it is held fast."""

import numpy as np
import pytest
import torch

from scanner import Edit, Pair, Site, SiteError
from scanner.patching import patched
from scanner.paths import SENDERS, path_patched

LENGTH = 7


def pairs_of(model, count: int = 2) -> list[Pair]:
    """Random texts that differ in one token."""
    made = []
    for seed in range(count):
        clean = model.prompt(LENGTH, seed=seed)
        corrupt = list(clean)
        corrupt[3] = (clean[3] + 100) % model.vocabulary
        made.append(Pair(clean, corrupt, (5 + seed, 9), (3, 6)))
    return made


@torch.no_grad()
def held_fast(
    model, pair: Pair, sender: Site, place: int, receiver: Site, heads: list[int] | None = None
) -> float:
    """The published way: all attentions and MLPs behind the sender add what they added before."""
    clean, corrupt = (model.batch([text]) for text in (pair.clean, pair.corrupt))
    given, there = (model.activations(batch, SENDERS) for batch in (clean, corrupt))
    changed = there[sender].clone()
    changed[:, place] = given[sender][:, place]
    edits = [Edit(sender.kind, "replace", layers=[sender.layer], value=changed, must_move=False)]
    edits += [
        Edit(kind, "replace", layers=[layer], value=there[Site(kind, layer)], must_move=False)
        for kind in SENDERS
        for layer in range(sender.layer, receiver.layer + 1)
        if (layer, SENDERS.index(kind)) > (sender.layer, SENDERS.index(sender.kind))
        and Site(kind, layer) != receiver
    ]
    if receiver.kind == "resid_post":
        with model.intervene(edits):
            logits = model.forward(corrupt, head=True)[0, -1]
    else:
        # The receiver stands before what it adds, so that its own addition may be held fast, too.
        with model.intervene(edits):
            seen = model.activations(corrupt, [receiver.kind])[receiver]
        last = Edit(
            receiver.kind, "replace", layers=[receiver.layer], value=seen, heads=heads,
            must_move=False,
        )  # fmt: skip
        with model.intervene([last]):
            logits = model.forward(corrupt, head=True)[0, -1]
    return float(logits[pair.answers[0]] - logits[pair.answers[1]])


@pytest.mark.having("attn_out_post", "mlp_out_post", "resid_mid", "q")
def test_a_path_is_what_is_left_when_all_others_are_held_fast(family, proved) -> None:
    model = proved(family)
    last = model.layers - 1
    pairs = pairs_of(model)
    for receiver in (
        Site("attn_out_post", 2), Site("mlp_out_post", 1), Site("q", 2), Site("resid_post", last)
    ):  # fmt: skip
        found = path_patched(model, pairs, receiver)
        for number, pair in enumerate(pairs):
            scale = max(np.abs(found.difference[number] - found.base[number]).max(), 1e-4)
            for kind, layer, place in np.ndindex(2, model.layers, 2):
                value = found.difference[number, kind, layer, place]
                sender = Site(SENDERS[kind], layer)
                behind = layer > receiver.layer or (
                    layer == receiver.layer
                    and receiver.kind != "resid_post"
                    and not (sender.kind == "attn_out_post" and receiver.kind == "mlp_out_post")
                )
                if behind:
                    assert value == found.base[number]
                    continue
                expected = held_fast(model, pair, sender, pair.places[place], receiver)
                assert abs(value - expected) < 0.01 * scale + 1e-6, (receiver, sender, place)


@torch.no_grad()
def test_paths_of_a_linear_model_add_up_to_the_patch(tiny_model) -> None:
    """Without norms and nonlinearity, and attention to all tokens alike."""
    model = tiny_model("gpt2", seed=3)
    assert model.proof
    model.base.ln_f = torch.nn.Identity()
    for block in model.base.h:
        block.ln_1 = block.ln_2 = block.mlp.act = torch.nn.Identity()
        for weights in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            weights.weight *= 20
        block.attn.c_attn.weight[:, : 2 * model.width] = 0
    pairs = pairs_of(model)
    # From what the first MLP adds at the token that differs.
    whole = patched(model, [pair._replace(places=(3,)) for pair in pairs], ["mlp_out_post"])
    whole = (whole.difference - whole.base[:, None, None, None])[:, 0, 0, 0]
    receivers = [Site(kind, layer) for kind in SENDERS for layer in (1, 2)]
    effects = np.zeros(2)
    for receiver in (*receivers, Site("resid_post", 2)):
        found = path_patched(model, pairs, receiver)
        effects += (found.difference - found.base[:, None, None, None])[:, 1, 0, 0]
    assert np.abs(whole).min() > 1e-3
    np.testing.assert_allclose(effects, whole, rtol=1e-3)


@pytest.mark.having("q", "value", "attn_out_post", "mlp_out_post", "resid_mid")
def test_a_single_head_receives(family, proved) -> None:
    model = proved(family)
    pairs = pairs_of(model, count=1)
    for receiver in (Site("q", 2), Site("value", 2), Site("z", 2)):
        several = model.structure.sizes[receiver.kind][0]
        whole, *single = (
            path_patched(model, pairs, receiver, heads=heads, senders=["mlp_out_post"])
            for heads in (range(several), *([head] for head in range(several)))
        )
        every = path_patched(model, pairs, receiver, senders=["mlp_out_post"])
        np.testing.assert_array_equal(whole.difference, every.difference)
        scale = max(np.abs(every.difference - every.base[:, None, None, None]).max(), 1e-4)
        sender = Site("mlp_out_post", 0)
        for head, found in enumerate(single):
            expected = held_fast(model, pairs[0], sender, 3, receiver, [head])
            assert abs(found.difference[0, 0, 0, 0] - expected) < 0.01 * scale + 1e-6


def test_what_receives_nothing_is_refused(proved) -> None:
    model = proved("llama")
    with pytest.raises(SiteError, match="has no heads"):
        path_patched(model, pairs_of(model), Site("mlp_act", 1), heads=[0])
    with pytest.raises(SiteError, match="has no heads"):
        path_patched(model, pairs_of(model), Site("resid_post", model.layers - 1), heads=[0])
    with pytest.raises(SiteError, match="heads"):
        path_patched(model, pairs_of(model), Site("q", 1), heads=[99])
    for receiver in (Site("resid_post", 0), Site("logits"), Site("attn_probs", 1)):
        with pytest.raises(SiteError, match="receives nothing from the stream"):
            path_patched(model, pairs_of(model), receiver)
    short = pairs_of(model)[0]._replace(corrupt=[1, 2])
    with pytest.raises(SiteError, match="pair 0: its texts have 7 and 2 tokens"):
        path_patched(model, [short], Site("q", 1))
