"""What is written into a live model is what was asked for, there and nowhere else."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import yaml

from scanner import Edit, Site, SiteError
from scanner.interventions import ACTIONS, SKIPPABLE
from scanner.sites import KINDS, OUTSIDE, PAIRED, sites_of

LONG, SHORT = 12, 9
MIXTURES = ("mixtral", "qwen2_moe", "gpt_oss")


@pytest.fixture(scope="module")
def model(family, tiny_model):
    return tiny_model(family)


@pytest.fixture(scope="module")
def llama(tiny_model):
    return tiny_model("llama")


def prompts(model, *seeds, short=SHORT):
    """A batch of random prompts, the last one shorter and so filled up."""
    *most, last = seeds or (1, 2)
    rows = [model.prompt(LONG, seed=seed) for seed in most]
    return model.batch([*rows, model.prompt(short, seed=last)])


def run(model, batch, edits=()):
    with torch.no_grad(), model.intervene(edits):
        return model.forward(batch, head=True)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def hooks_left(model):
    return sum(
        len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.network.modules()
    )


def middle(kind):
    return Site(kind) if kind in OUTSIDE else Site(kind, 1)


def layers(kind):
    return None if kind in OUTSIDE else (1,)


def same(model, a, b):
    """Equal to the last bit, or, where experts are given other numbers of tokens, nearly."""
    if model.network.config.model_type in MIXTURES:
        return torch.allclose(a, b, atol=1e-6)
    return torch.equal(a, b)


# --- nothing, and what was there already


def test_no_edit_leaves_the_logits_to_the_last_bit(model):
    batch = prompts(model)
    with torch.no_grad():
        bare = model.forward(batch, head=True)
    assert torch.equal(run(model, batch), bare)
    assert hooks_left(model) == 0


def test_what_was_read_written_back_leaves_the_logits_to_the_last_bit(model):
    batch = prompts(model)
    for kind in model.structure.kinds:
        heard = model.activations(batch, [kind])
        edits = [
            Edit(site.kind, "replace", layers=_only(site), value=value, must_move=False)
            for site, value in heard.items()
        ]
        with torch.no_grad(), model.listening([kind]):
            bare = model.forward(batch, head=True)
            with model.intervene(edits) as applied:
                written = model.forward(batch, head=True)
        assert torch.equal(bare, written), kind
        assert applied.moved == [0.0] * len(edits)


def _only(site):
    return None if site.layer is None else [site.layer]


# --- what was asked for is there, and only behind it anything is different


def test_a_value_is_read_where_it_was_written_and_changes_what_follows_only(model):
    batch = prompts(model)
    plain = [kind for kind in model.structure.kinds if kind not in PAIRED]
    for kind in model.structure.kinds:
        kinds = [*plain, kind] if kind in PAIRED else plain
        before, site = model.activations(batch, kinds), middle(kind)
        value = random(*before[site].shape)
        opened = torch.ones_like(value, dtype=torch.bool)
        if kind == "attn_probs":
            opened = before[site] > 0
        elif kind == "attn_scores":
            opened = before[site] > -1e30
        with model.intervene([Edit(kind, "replace", layers=layers(kind), value=value)]):
            after = model.activations(batch, kinds)
        # Written through the part that is added, it differs by rounding.
        slack = 1e-5 if kind == "resid_mid" else 0.0
        assert (after[site] - value)[opened].abs().max() <= slack, kind
        assert torch.equal(after[site][~opened], before[site][~opened]), kind
        for one, read in after.items():
            if _before(one, site):
                assert torch.equal(read, before[one]), (kind, one)
        if kind != "logits":
            assert not torch.equal(after[Site("logits")], before[Site("logits")]), kind
    assert hooks_left(model) == 0


def _before(one, site):
    """Whether a site is computed in an earlier layer than another, or before any."""
    ends = {"embeddings": -1, "final_norm": 98, "logits": 99}
    return ends.get(one.kind, one.layer) < ends.get(site.kind, site.layer)


def test_each_action_does_what_it_says(model):
    batch = prompts(model)
    for kind in SKIPPABLE:
        if kind not in model.structure.kinds:
            continue
        site = Site(kind, 1)
        heard = model.activations(batch, [kind, "resid_pre"])
        made = {
            "ablate": torch.zeros_like(heard[site]),
            "replace": torch.full_like(heard[site], 0.5),
            "add": heard[site] + 0.5,
            "scale": heard[site] * 0.5,
            "skip": heard[Site("resid_pre", 1)]
            if kind == "resid_post"
            else torch.zeros_like(heard[site]),
        }
        for action in ACTIONS:
            value = 0.5 if action in ("replace", "add", "scale") else None
            with model.intervene([Edit(kind, action, layers=[1], value=value)]) as applied:
                after = model.activations(batch, [kind])[site]
            assert torch.equal(after, made[action]), (kind, action)
            # What fills the second row up is changed, too, and does not count as a change.
            moved = (made[action] - heard[site]).abs()
            assert applied.moved == [max(float(moved[0].max()), float(moved[1, :SHORT].max()))]


# --- against closed forms and other ways to the same


@pytest.mark.having("attn_out_post", "mlp_out_post")
def test_a_block_without_attention_and_mlp_is_a_block_left_out(model):
    batch = prompts(model)
    whole = run(model, batch, [Edit("resid_post", "skip", layers=[1])])
    parts = run(model, batch, [Edit(k, "skip", layers=[1]) for k in SKIPPABLE[:2]])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, run(model, batch))


def test_a_block_left_out_hands_on_what_edits_made_of_what_it_was_given(model):
    batch = prompts(model)
    skip = Edit("resid_post", "skip", layers=[1])
    shift = {"action": "add", "value": 0.3}
    entering = run(model, batch, [skip, Edit("resid_pre", **shift, layers=[1])])
    leaving = run(model, batch, [skip, Edit("resid_post", **shift, layers=[1])])
    assert torch.equal(entering, leaving)


@pytest.mark.having("attn_out_post")
def test_skips_of_different_parts_in_different_layers_do_not_meet(model):
    batch = prompts(model)
    skips = [Edit("resid_post", "skip", layers=[2]), Edit("attn_out_post", "skip")]
    ablated = [Edit("resid_post", "skip", layers=[2]), Edit("attn_out_post", "ablate")]
    assert torch.equal(run(model, batch, skips), run(model, batch, ablated))


@contextmanager
def without_input(model, site, inputs):
    """The projection that a site enters, some of its inputs cut off in its weights."""
    module = model.network.get_submodule(model.structure.port(site).path)
    before = module.weight.detach().clone()
    # GPT-2 keeps its weights the other way round.
    by_input = module.weight.T if isinstance(module, torch.nn.Linear) else module.weight
    with torch.no_grad():
        by_input[inputs] = 0
        yield
        module.weight.copy_(before)


@pytest.mark.having("z")
def test_ablating_a_head_is_cutting_it_off_the_output_projection(model):
    batch, size = prompts(model), model.structure.sizes["z"][1]
    with without_input(model, Site("z", 1), slice(2 * size, 3 * size)):
        cut = run(model, batch)
    ablated = run(model, batch, [Edit("z", "ablate", layers=[1], heads=[2])])
    assert torch.allclose(cut, ablated, atol=1e-6)
    assert not torch.allclose(cut, run(model, batch), atol=1e-6)


@pytest.mark.having("mlp_act")
def test_ablating_neurons_is_cutting_them_off_the_last_projection(model):
    batch = prompts(model)
    neurons = list(range(0, 60, 2))
    with without_input(model, Site("mlp_act", 1), neurons):
        cut = run(model, batch)
    ablated = run(model, batch, [Edit("mlp_act", "ablate", layers=[1], units=neurons)])
    assert torch.allclose(cut, ablated, atol=1e-6)
    assert not torch.allclose(cut, run(model, batch), atol=1e-6)


def test_what_leaves_a_block_enters_the_next(model):
    batch, vector = prompts(model), random(model.width)
    leaving = run(model, batch, [Edit("resid_post", "add", layers=[0], value=vector)])
    entering = run(model, batch, [Edit("resid_pre", "add", layers=[1], value=vector)])
    assert torch.equal(leaving, entering)


@pytest.mark.having("embeddings")
def test_scaled_embeddings_are_embeddings_given_by_hand(model):
    batch = prompts(model)
    with torch.no_grad():
        embedded = 3 * model.network.get_input_embeddings()(batch.ids)
        by_hand = model.network(inputs_embeds=embedded, attention_mask=batch.mask).logits
    assert torch.equal(by_hand, run(model, batch, [Edit("embeddings", "scale", value=3.0)]))


@pytest.mark.having("value", "z")
def test_without_values_heads_carry_nothing(model):
    batch = prompts(model)
    edit = Edit("value", "ablate", layers=[1], heads=[0])
    with model.intervene([edit]):
        z = model.activations(batch, ["z"])
    groups = model.structure.sizes["z"][0] // model.structure.sizes["value"][0]
    assert not z[Site("z", 1)][:, :, :groups].any()
    assert z[Site("z", 1)][:, :, groups:].any(-1).all() or groups == z[Site("z", 1)].shape[2]
    assert z[Site("z", 0)].any(-1).all()


@pytest.mark.having("attn_scores")
def test_scores_set_to_zero_attend_to_all_that_the_mask_leaves_open(model):
    batch = prompts(model)
    before = model.activations(batch, ["attn_probs"])[Site("attn_probs", 1)]
    with model.intervene([Edit("attn_scores", "ablate", layers=[1])]):
        after = model.activations(batch, ["attn_probs"])[Site("attn_probs", 1)]
    opened = before > 0
    assert not opened.triu(1).any()
    uniform = opened / opened.sum(-1, keepdim=True)
    # A sink takes its share of the softmax first.
    given = after / after.sum(-1, keepdim=True)
    assert torch.allclose(given, uniform, atol=1e-6)


@pytest.mark.having("attn_probs", "value", "z")
def test_uniform_attention_averages_the_values(model):
    batch = prompts(model)
    heard = model.activations(batch, ["attn_probs", "value"])
    probs, value = heard[Site("attn_probs", 1)], heard[Site("value", 1)]
    opened = (probs > 0).float()
    uniform = opened / opened.sum(-1, keepdim=True)
    with model.intervene([Edit("attn_probs", "replace", layers=[1], value=uniform)]):
        z = model.activations(batch, ["z"])[Site("z", 1)]
    values = value.repeat_interleave(z.shape[2] // value.shape[2], dim=2)
    for query in (0, 3, 8):
        for head in range(z.shape[2]):
            seen = probs[0, head, query] > 0
            assert torch.allclose(z[0, query, head], values[0, seen, head].mean(0), atol=1e-5)


@pytest.mark.having("attn_probs")
def test_attention_weights_never_open_what_the_mask_closes(model):
    batch = prompts(model)
    for kind in PAIRED:
        before = model.activations(batch, [kind, "attn_probs"])
        with model.intervene([Edit(kind, "add", layers=[1], value=1.0)]):
            after = model.activations(batch, [kind, "attn_probs"])
        closed = before[Site("attn_probs", 1)] == 0
        assert closed.triu(1).sum() == closed.shape[0] * closed.shape[1] * LONG * (LONG - 1) / 2
        site = Site(kind, 1)
        assert torch.equal(after[site][closed], before[site][closed])
        assert torch.allclose(after[site][~closed], before[site][~closed] + 1)


def test_a_donor_at_the_entrance_gives_the_logits_of_the_donor(model):
    base, donor = (model.batch([model.prompt(LONG, seed=seed)]) for seed in (1, 2))
    value = model.activations(donor, ["resid_pre"])[Site("resid_pre", 0)]
    patched = run(model, base, [Edit("resid_pre", "replace", layers=[0], value=value)])
    assert torch.equal(patched, run(model, donor))
    assert not torch.equal(patched, run(model, base))


@pytest.mark.having("router")
def test_experts_are_chosen_by_the_scores_that_were_written(model):
    batch, site = prompts(model), Site("router", 1)
    swapped = [1, 0, 3, 2]
    scores = model.activations(batch, ["router"])[site][..., swapped]
    written = run(model, batch, [Edit("router", "replace", layers=[1], value=scores)])
    module = model.network.get_submodule(model.structure.port(site).path)
    given = {name: one.detach().clone() for name, one in module.named_parameters()}
    with torch.no_grad():
        for one in module.parameters():
            one.copy_(one[swapped].clone())
        by_weights = run(model, batch)
        for name, one in module.named_parameters():
            one.copy_(given[name])
    assert torch.allclose(written, by_weights, atol=1e-6)
    assert not torch.allclose(written, run(model, batch), atol=1e-6)


# --- where


def test_other_rows_and_earlier_tokens_stay(model):
    batch = prompts(model, 1, 2, 3)
    bare = run(model, batch)
    for kind in model.structure.kinds:
        if kind in PAIRED:
            continue
        value = random(model.structure.sizes[kind][-1])
        edit = Edit(kind, "add", layers=layers(kind), value=value, rows=[0, 2], positions=[5])
        edited = run(model, batch, [edit])
        assert same(model, edited[1], bare[1]), kind
        assert same(model, edited[:, :5], bare[:, :5]), kind
        assert all((edited[row, 5] != bare[row, 5]).any() for row in (0, 2)), kind


@pytest.mark.having("attn_probs")
def test_other_rows_and_earlier_tokens_stay_when_attention_is_edited(model):
    batch = prompts(model, 1, 2, 3)
    with model.eager():
        bare = run(model, batch)
        for kind in PAIRED:
            edit = Edit(kind, "add", layers=[1], value=1.0, rows=[0], positions=[5], units=[2])
            edited = run(model, batch, [edit])
            assert same(model, edited[1:], bare[1:]), kind
            assert same(model, edited[0, :5], bare[0, :5]), kind
            assert (edited[0, 5] != bare[0, 5]).any(), kind


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, np.s_[:, :, :, :]),
        ({"rows": [1]}, np.s_[1, :, :, :]),
        ({"positions": [2, 4]}, np.s_[:, [2, 4], :, :]),
        ({"positions": np.array([2, 4])}, np.s_[:, [2, 4], :, :]),
        ({"positions": [[2, 4], [3], [0, 5]]}, np.s_[[0, 0, 1, 2, 2], [2, 4, 3, 0, 5], :, :]),
        ({"rows": [2, 0], "positions": [[8], [11]]}, np.s_[[2, 0], [8, 11], :, :]),
        ({"start": 1}, np.s_[:, 1:, :, :]),
        ({"heads": [1, 3]}, np.s_[:, :, [1, 3], :]),
        ({"units": [0, 7]}, np.s_[:, :, :, [0, 7]]),
        ({"rows": [0], "positions": [1], "heads": [2], "units": [6]}, np.s_[0, 1, 2, 6]),
    ],
)  # fmt: skip
def test_what_is_selected_and_only_that_is_changed(llama, where, expected):
    batch = prompts(llama, 1, 2, 3)
    before = llama.activations(batch, ["z"])[Site("z", 1)]
    with llama.intervene([Edit("z", "add", layers=[1], value=1.0, **where)]):
        after = llama.activations(batch, ["z"])[Site("z", 1)]
    wanted = before.numpy().copy()
    wanted[expected] += 1
    assert np.array_equal(after.numpy(), wanted)


def test_queries_heads_and_keys_of_attention_weights_are_selected(llama):
    batch = prompts(llama, 1, 2)
    before = llama.activations(batch, ["attn_scores"])[Site("attn_scores", 2)]
    where = {"rows": [1], "positions": [3, 7], "heads": [0, 2], "units": [1, 5]}
    with llama.intervene([Edit("attn_scores", "add", layers=[2], value=1.0, **where)]):
        after = llama.activations(batch, ["attn_scores"])[Site("attn_scores", 2)]
    wanted = before.clone()
    for query, key in ((3, 1), (7, 1), (7, 5)):  # the fifth key is the third query's future
        wanted[1, [0, 2], query, key] += 1
    assert torch.equal(after, wanted)


@pytest.mark.parametrize(
    "shape", [(), (8,), (4, 8), (4, 1), (2, 12, 4, 8), (2, 1, 1, 8), (1, 12, 4, 1)]
)
def test_values_are_laid_out_as_activations_are(llama, shape):
    batch, value = prompts(llama), random(*shape)
    with llama.intervene([Edit("z", "replace", layers=[1], value=value, start=1)]):
        z = llama.activations(batch, ["z"])[Site("z", 1)]
    assert torch.equal(z[:, 1:], value.expand(2, 12, 4, 8)[:, 1:])


# --- several edits


def test_a_direction_is_taken_away_and_what_is_at_right_angles_to_it_stays(model):
    """Two directions that are not at right angles to each other: nothing of their plane is left."""
    batch, along, center = prompts(model), random(2, model.width), random(model.width, seed=1)
    before = model.activations(batch, ("resid_post",))[Site("resid_post", 1)]
    edit = Edit("resid_post", "ablate", layers=[1], along=along, center=center)
    with model.intervene([edit]):
        after = model.activations(batch, ("resid_post",))[Site("resid_post", 1)]
    plane = torch.linalg.qr(along.T).Q
    known = before - (before - center) @ plane @ plane.T
    tokens = batch.mask.bool()
    torch.testing.assert_close(after[tokens], known[tokens], rtol=1e-4, atol=1e-5)


def test_scaling_a_direction_by_nothing_is_taking_it_away_and_by_one_is_nothing(llama):
    batch, along = prompts(llama), random(llama.width)
    gone = run(llama, batch, [Edit("resid_post", "ablate", layers=[1], along=along)])
    scaled = Edit("resid_post", "scale", layers=[1], along=along, value=0.0)
    torch.testing.assert_close(run(llama, batch, [scaled]), gone)
    with pytest.raises(SiteError, match="it changed nothing"):
        run(llama, batch, [Edit("resid_post", "scale", layers=[1], along=along, value=1.0)])
    back = [Edit("resid_post", "scale", layers=[1], along=along, value=one) for one in (4.0, 0.25)]
    torch.testing.assert_close(run(llama, batch, back), run(llama, batch), rtol=1e-4, atol=1e-5)


def test_an_oblique_projection_takes_away_what_its_readout_measures(llama):
    """x - a (b . x): what b measures is gone if b . a is one, and what a measures is not."""
    batch, a, b = prompts(llama), random(llama.width), random(llama.width, seed=1)
    b = b / (a @ b)
    edit = Edit("resid_post", "ablate", layers=[1], along=a, readout=b)
    before = llama.activations(batch, ("resid_post",))[Site("resid_post", 1)]
    with llama.intervene([edit]):
        after = llama.activations(batch, ("resid_post",))[Site("resid_post", 1)]
    tokens = batch.mask.bool()
    torch.testing.assert_close(after[tokens], (before - (before @ b)[..., None] * a)[tokens])
    assert (after @ b)[tokens].abs().max() < 1e-4 * (before @ b)[tokens].abs().max()


def test_directions_that_do_not_fit_are_refused(llama):
    batch = prompts(llama)
    for fields, says in (
        ({"along": random(3)}, r"along of shape \(1, 3\) is no direction x unit"),
        ({"along": random(2, llama.width), "readout": random(llama.width)},
         r"readout of shape \(1, 32\) for directions \(2, 32\)"),
    ):  # fmt: skip
        with pytest.raises(SiteError, match=says):
            run(llama, batch, [Edit("resid_post", "ablate", layers=[1], **fields)])
    several = Edit("resid_post", "scale", layers=[1], along=random(llama.width), value=[1.0, 2.0])
    with pytest.raises(SiteError, match="directions are scaled by a number"):
        run(llama, batch, [several])


def test_edits_of_one_site_go_in_order(llama):
    batch = prompts(llama)
    heard = llama.activations(batch, ["resid_post"])[Site("resid_post", 0)]
    add = Edit("resid_post", "add", layers=[0], value=2.0)
    scale = Edit("resid_post", "scale", layers=[0], value=0.5)
    for edits, made in (([add, scale], (heard + 2) * 0.5), ([scale, add], heard * 0.5 + 2)):
        with llama.intervene(edits) as applied:
            after = llama.activations(batch, ["resid_post"])[Site("resid_post", 0)]
        assert torch.equal(after, made)
        assert len(applied.moved) == 2


@pytest.mark.having("attn_out", "attn_out_post", "resid_mid")
def test_edits_of_sites_at_one_module_go_in_the_order_of_computation(model):
    batch = prompts(model)
    value = random(model.width)
    edits = [
        Edit("resid_mid", "replace", layers=[1], value=value),
        Edit("attn_out_post", "scale", layers=[1], value=2.0),
        Edit("attn_out", "add", layers=[1], value=1.0),
        Edit("resid_pre", "add", layers=[1], value=1.0),
    ]
    kinds = ["resid_pre", "attn_out", "attn_out_post", "resid_mid"]
    before = model.activations(batch, kinds)
    for ordered in (edits, edits[::-1]):
        with model.intervene(ordered):
            after = model.activations(batch, kinds)
        assert torch.allclose(after[Site("resid_mid", 1)], value.expand(2, LONG, -1), atol=1e-5)
        assert torch.equal(after[Site("resid_pre", 1)], before[Site("resid_pre", 1)] + 1)
        if model.structure.port(Site("attn_out", 1)) == model.structure.port(
            Site("attn_out_post", 1)
        ):
            with model.intervene(edits[3:]):
                bare = model.activations(batch, kinds)
            # What the shared module returned, with the first edit added and then scaled ...
            made = (bare[Site("attn_out", 1)] + 1) * 2
            # ... and then moved by what brings the stream between to its value.
            moved = value - (after[Site("resid_pre", 1)] + made)
            assert torch.allclose(after[Site("attn_out_post", 1)], made + moved, atol=1e-5)


def test_an_inner_intervention_acts_on_what_the_outer_one_made(model):
    batch = prompts(model)
    for kind in model.structure.kinds:
        # What is the same everywhere is lost in a softmax or norm.
        size = (LONG,) if kind in PAIRED else model.structure.sizes[kind]
        where = {"layers": layers(kind), "start": 6}
        add = Edit(kind, "add", value=3 * random(*size), **where)
        scale = Edit(kind, "scale", value=2 * random(*size, seed=1), **where)
        together, other = (run(model, batch, edits) for edits in ([add, scale], [scale, add]))
        with model.intervene([add]):
            nested = run(model, batch, [scale])
        assert torch.allclose(nested, together, atol=1e-6), kind
        assert not torch.allclose(nested, other, atol=1e-5), kind


@pytest.mark.parametrize("outer", [("resid_mid", "scale", 2.0), ("resid_post", "skip", None)])
def test_an_inner_intervention_cannot_pass_an_outer_one_by(llama, outer):
    batch = prompts(llama)
    kind, action, value = outer
    edit = Edit(kind, action, layers=[1], value=value)
    with llama.intervene([edit]):
        with pytest.raises(SiteError, match=r"resid_pre\.1 is edited inside .* at resid_mid\.1 or"):
            run(llama, batch, [Edit("resid_pre", "scale", value=2.0)])
        run(llama, batch, [Edit("resid_pre", "scale", layers=[0, 2], value=2.0)])
    with llama.intervene([Edit("resid_post", "scale", value=2.0)]):
        run(llama, batch, [Edit("resid_pre", "scale", value=2.0)])


# --- gradients


def test_gradients_through_an_added_value_are_finite_differences(family, model, tiny_model):
    if family in MIXTURES:  # where experts are chosen, outcomes jump
        model = tiny_model(family, num_experts_per_tok=4)
    batch = prompts(model)
    weights = random(2, LONG, model.vocabulary).double()

    def outcome(kind, value):
        edit = Edit(kind, "add", layers=layers(kind), value=value, positions=[1, 4])
        with model.intervene([edit]):
            return (model.forward(batch, head=True).double() * weights).sum()

    for kind in model.structure.kinds:
        size = (LONG,) if kind in PAIRED else model.structure.sizes[kind]
        value = (0.1 * random(*size, seed=1)).requires_grad_()
        outcome(kind, value).backward()
        steepest = float(value.grad.norm())
        # Where little depends on it, a longer step, or all that is seen is rounding.
        length = 2**-8 if steepest > 1 else 2**-5
        step = length * value.grad / steepest
        with torch.no_grad():
            rise = float(outcome(kind, value + step) - outcome(kind, value - step))
        assert steepest == pytest.approx(rise / (2 * length), rel=0.02, abs=5e-4), kind


def test_gradients_pass_edits_with_what_was_recorded(llama):
    batch = prompts(llama)
    recorded = llama.activations(batch, ["resid_post"])[Site("resid_post", 0)]
    amount = torch.ones(llama.width, requires_grad=True)
    edits = [
        Edit("resid_pre", "add", layers=[0], value=amount),
        Edit("resid_post", "scale", layers=[0], value=recorded),
    ]
    with llama.intervene(edits):
        llama.forward(batch, head=True).square().sum().backward()
    assert amount.grad.isfinite().all() and amount.grad.any()


# --- what cannot be believed is an error


def test_an_edit_that_changed_nothing_is_an_error(llama):
    batch = prompts(llama)
    with pytest.raises(
        SiteError, match=r"scale z\.1: applied 1 times, it changed nothing, .*must_"
    ):
        run(llama, batch, [Edit("z", "scale", layers=[1], value=1.0)])
    with pytest.raises(SiteError, match=r"add z\.1: applied 1 times"):  # lost in rounding
        run(llama, batch, [Edit("z", "add", layers=[1], value=1e-30)])
    with pytest.raises(SiteError, match="ablate z: applied 0 times, it changed nothing"):
        with llama.intervene([Edit("z", "ablate")]):
            pass
    with llama.intervene([Edit("z", "scale", value=1.0, must_move=False)]) as applied:
        llama.forward(batch)
        applied.check()
    assert applied.moved == [0.0]


def test_what_fills_a_row_up_does_not_count_as_changed(llama):
    batch = prompts(llama)
    for kind in ("z", *PAIRED):
        with pytest.raises(SiteError, match="applied 1 times, it changed nothing"):
            run(llama, batch, [Edit(kind, "scale", value=2.0, layers=[0], rows=[1], start=SHORT)])
    with pytest.raises(
        SiteError, match=r"positions \(3, 9\) of row 1 reach what fills it up; .* 9"
    ):
        run(llama, batch, [Edit("z", "ablate", positions=[3, SHORT])])
    run(llama, batch, [Edit("z", "ablate", positions=[[3, SHORT], [3]])])


@pytest.mark.parametrize("value", [1e38, 3e38])
def test_activations_that_overflow_are_an_error(llama, value):
    edit = Edit("resid_post", "scale", layers=[0], value=[value] * 32)
    add = Edit("resid_post", "add", layers=[0], value=3e38)
    with pytest.raises(SiteError, match="resid_post.0: its activations are no finite numbers"):
        run(llama, prompts(llama), [add, edit])


def test_nothing_is_left_of_an_intervention_that_fails(llama):
    batch = prompts(llama)
    bare = run(llama, batch)
    everywhere = [
        Edit(kind, "scale", value=2.0) for kind in llama.structure.kinds if kind != "logits"
    ]
    with pytest.raises(KeyError, match="mine"):
        with llama.intervene(everywhere):
            llama.forward(batch)
            raise KeyError("mine")
    with pytest.raises(SiteError, match="no rows"):
        run(llama, batch, [*everywhere, Edit("attn_probs", "ablate", rows=[9])])
    assert hooks_left(llama) == 0
    assert torch.equal(run(llama, batch), bare)
    assert llama.attention == "sdpa"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (Edit("z", "ablate", layers=[0, 7]), r"no site z\.7: the model's layers are 0 to 2"),
        (Edit("router", "ablate"), "this model has no 'router': it is no mixture of experts"),
        (Edit("z", "ablate", heads=[4]), r"ablate z: there are no heads \[4\]; they are 0 to 3"),
        (Edit("k", "ablate", heads=[3]), r"ablate k: there are no heads \[3\]; they are 0 to 1"),
        (Edit("attn_probs", "ablate", heads=[4]), r"no heads \[4\]; they are 0 to 3"),
        (Edit("mlp_out", "ablate", heads=[0]), "ablate mlp_out: 'mlp_out' has no heads"),
        (Edit("z", "ablate", units=[8]), r"no units \[8\]; they are 0 to 7"),
        (Edit("mlp_act", "ablate", units=[3, 64]), r"no units \[64\]; they are 0 to 63"),
        (Edit("attn_probs", "ablate", units=[12]), r"no units \[12\]; they are 0 to 11"),
        (Edit("z", "ablate", rows=[2]), r"no rows \[2\]; they are 0 to 1"),
        (Edit("z", "ablate", positions=[0, 12]), r"no positions \[12\]; they are 0 to 11"),
        (Edit("attn_probs", "ablate", positions=[12]), r"no positions \[12\]; they are 0 to 11"),
        (Edit("z", "ablate", positions=[[1], [1], [1]]), "positions of 3 rows, but 2 rows"),
        (Edit("z", "ablate", rows=[1], positions=[[1], [1]]), "positions of 2 rows, but 1 rows"),
        (
            Edit("resid_post", "add", layers=[0], value=np.ones(5)),
            r"add resid_post\.0: a value of shape \(5,\) does not fit activations of shape "
            r"\(2, 12, 32\); it has all 3 dimensions, 1 where they share it, or the last 1",
        ),
        # Of each row and unit: it would be taken for position and unit.
        (Edit("resid_post", "add", value=np.ones((12, 32))), r"\(12, 32\) does not fit"),
        (Edit("resid_post", "add", value=np.ones((2, 1, 12, 32))), r"\(2, 1, 12, 32\) does not"),
        (Edit("z", "add", value=np.ones((12, 4, 8))), r"\(12, 4, 8\) does not fit"),
        (Edit("attn_probs", "add", value=np.ones((4, 12, 12))), r"\(4, 12, 12\) does not fit"),
    ],
    ids=str,
)  # fmt: skip
def test_an_edit_that_does_not_fit_the_model_or_batch_is_refused(llama, edit, says):
    with pytest.raises(SiteError, match=says):
        run(llama, prompts(llama), [edit])
    assert hooks_left(llama) == 0


@pytest.mark.parametrize("where", [{"layers": [3]}, {"heads": [4]}, {"units": [8]}])
def test_what_the_model_lacks_is_refused_before_it_runs(llama, where):
    entered = False
    with pytest.raises(SiteError, match="no site|no heads|no units"):
        with llama.intervene([Edit("z", "ablate", **where)]):
            entered = True
    assert not entered


def test_a_kind_whose_changes_do_not_reach_the_logits_is_refused(llama, monkeypatch):
    monkeypatch.setitem(llama.proof.unwritable, "z", "a change of z.1 does not reach the logits")
    with pytest.raises(SiteError, match=r"ablate z: a change of z\.1 does not reach the logits"):
        run(llama, prompts(llama), [Edit("z", "ablate")])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (("zz", "ablate", {}), "no kind 'zz'; there is embeddings, resid_pre"),
        (("z", "zero", {}), "no action 'zero'; there is ablate, replace, add, scale, skip"),
        (("z", "replace", {}), "replace z: 'replace' needs a value"),
        (("z", "scale", {"layers": [2]}), r"scale z\.2: 'scale' needs a value"),
        (("z", "ablate", {"value": 1.0}), "'ablate' takes no value"),
        (("z", "skip", {}), "skip is possible at attn_out_post, mlp_out_post, resid_post"),
        (("z", "add", {"value": float("nan")}), "add z: its value is not finite"),
        (("z", "add", {"value": [1.0, float("inf")]}), "add z: its value is not finite"),
        (("z", "add", {"value": np.array([np.nan])}), "add z: its value is not finite"),
        (("z", "add", {"value": [[1.0], [1.0, 2.0]]}), "its value is no array of numbers"),
        (("z", "add", {"value": {"shape": [1]}}), "its value is no array of numbers"),
        (("z", "add", {"value": "many"}), "its value is no array of numbers"),
        (("z", "ablate", {"layers": []}), "ablate z: layers is empty; leave the edit out"),
        (("z", "ablate", {"heads": ()}), "heads is empty"),
        (("z", "ablate", {"units": []}), "units is empty"),
        (("z", "ablate", {"rows": []}), "rows is empty"),
        (("z", "ablate", {"positions": []}), "positions is empty"),
        (("z", "ablate", {"positions": [[1], []]}), "positions is empty"),
        (("z", "ablate", {"layers": [-1]}), r"layers \(-1,\) has negative or repeated"),
        (("z", "add", {"layers": [1, 1], "value": 1}), r"layers \(1, 1\) has negative or repeated"),
        (("z", "ablate", {"positions": [[1], [-1]]}), r"positions \(-1,\) has negative"),
        (("z", "ablate", {"layers": 2}), "layers 2 is no sequence of integers"),
        (("z", "ablate", {"heads": [1.0]}), r"heads \[1.0\] is no sequence of integers"),
        (("z", "ablate", {"positions": [1, [2]]}), r"positions \[1, \[2\]\] is no sequence"),
        (("logits", "ablate", {"layers": [0]}), "'logits' stands outside the blocks"),
        (("z", "ablate", {"start": -1}), "start -1 is negative or beside positions"),
        (("z", "ablate", {"start": 1, "positions": [3]}), "start 1 is negative or beside"),
        (("z", "add", {"value": 1, "along": [1.0]}), "'add' takes no directions; ablate and scale"),
        (("z", "ablate", {"along": [1.0, np.nan]}), "ablate z: its along is not finite"),
        (("z", "ablate", {"center": [1.0]}), "readout and center need directions, `along`"),
        (("z", "ablate", {"along": [1.0], "units": [0]}), "a direction has all units of a token"),
    ],
)  # fmt: skip
def test_an_edit_that_means_nothing_is_refused_when_it_is_written(fields, says):
    kind, action, rest = fields
    with pytest.raises(ValueError, match=says):
        Edit(kind, action, **rest)


# --- as data


def test_an_edit_is_what_its_plain_values_say():
    edit = Edit(
        "z", "add", layers=np.array([1, 2]), value=[[1, 2.5]], positions=[[1], range(2, 4)],
        heads=[0], must_move=False,
    )  # fmt: skip
    assert edit.plain() == {
        "kind": "z", "action": "add", "layers": (1, 2), "value": ((1.0, 2.5),), "rows": None,
        "positions": ((1,), (2, 3)), "start": 0, "heads": (0,), "units": None, "must_move": False,
        "along": None, "readout": None, "center": None,
    }  # fmt: skip
    for again in (
        json.loads(json.dumps(edit.plain())),
        yaml.safe_load(yaml.safe_dump(edit.plain())),
    ):
        assert Edit(**again) == edit
        assert hash(Edit(**again)) == hash(edit)
    assert edit != Edit(**{**edit.plain(), "heads": [1]})
    assert edit != "add z"


def test_values_in_arrays_are_told_by_their_numbers():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    edit = Edit("z", "add", value=array)
    assert edit.plain()["value"]["shape"] == (2, 3)
    assert edit.plain()["value"]["dtype"] == "float32"
    assert edit == Edit("z", "add", value=torch.from_numpy(array.copy()))
    assert edit != Edit("z", "add", value=array.reshape(3, 2))
    assert edit != Edit("z", "add", value=array.astype(np.float64))
    before = edit.plain()
    array[0, 0] = 9  # an edit is not changed through the array that it was made from
    assert edit.plain() == before
    Edit("z", "add", value=torch.ones(3, dtype=torch.bfloat16, requires_grad=True)).plain()
    Edit("z", "add", value=np.broadcast_to(np.float32(1), (2, 3)))  # may not be written to


def test_every_layer_is_the_default_and_layer_0_is_a_layer():
    assert Edit("z", "ablate").sites(2) == [Site("z", 0), Site("z", 1)]
    assert Edit("z", "ablate", layers=[0]).sites(2) == [Site("z", 0)]
    assert Edit("logits", "ablate").sites(2) == [Site("logits")]
    assert [str(Edit(kind, "ablate")) for kind in KINDS] == [f"ablate {kind}" for kind in KINDS]
    assert sites_of("z", 2) == Edit("z", "ablate").sites(2)


# --- passes that continue a cache


def generate(model, batch, edits, **settings):
    with torch.no_grad(), model.intervene(edits):
        return model.network.generate(
            batch.ids, attention_mask=batch.mask, max_new_tokens=4, min_new_tokens=4,
            do_sample=False, output_logits=True, return_dict_in_generate=True, **settings,
        )  # fmt: skip


@pytest.mark.parametrize("where", [{}, {"positions": [3, 5]}, {"start": LONG + 1}])
def test_a_cache_does_not_change_what_edits_do(model, where):
    batch = prompts(model, 1, 2, short=LONG)
    edits = [
        Edit("resid_post", "add", layers=[1], value=random(model.width), **where),
        Edit("resid_pre", "scale", layers=[2], value=1.5, **where),
    ]
    counted = model.network.config.model_type != "mamba" or not where
    if not counted:
        with pytest.raises(SiteError, match="a cache that does not count its tokens"):
            generate(model, batch, edits, use_cache=True)
    plain = generate(model, batch, edits, use_cache=False)
    bare = generate(model, batch, [], use_cache=False)
    assert not all(map(torch.equal, plain.logits, bare.logits))
    if counted:
        cached = generate(model, batch, edits, use_cache=True)
        assert torch.equal(cached.sequences, plain.sequences)
        for one, other in zip(cached.logits, plain.logits, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("where", [{"start": 2}, {"start": 7}, {"start": 9}, {"positions": [2, 7]}])
def test_positions_count_the_tokens_of_a_cache(llama, where):
    batch = prompts(llama, 1, 2, short=LONG)
    edit = Edit("resid_post", "add", layers=[1], value=random(llama.width), **where)
    whole = run(llama, batch, [edit])
    with torch.no_grad(), llama.intervene([edit]):
        begun = llama.network(input_ids=batch.ids[:, :8], use_cache=True)
        ended = llama.network(input_ids=batch.ids[:, 8:], past_key_values=begun.past_key_values)
    assert torch.allclose(torch.cat([begun.logits, ended.logits], 1), whole, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt_oss"], indirect=True, scope="session")
def test_a_cached_token_is_a_key_and_a_sink_is_none(model):
    batch = prompts(model, 1, 2, short=LONG)
    heard = []

    def listen(_site, activation):
        heard.append(activation.clone())

    with torch.no_grad(), model.eager(), model.visiting(["attn_probs"], listen):
        model.network(batch.ids[:, :5], use_cache=False)
        whole = heard[-1]
        begun = model.network(batch.ids[:, :1], use_cache=True)
        model.network(batch.ids[:, 1:5], past_key_values=begun.past_key_values)
    assert heard[-1].shape == (2, model.structure.sizes["attn_probs"][0], 4, 5)
    assert torch.allclose(heard[-1], whole[:, :, 1:], atol=1e-6)


def test_the_mask_of_a_pass_that_continues_a_cache_is_that_of_its_own_tokens(llama):
    batch = prompts(llama, 1, 2, short=LONG)
    batch.mask[1, :4] = 0
    with torch.no_grad():
        begun = llama.network(batch.ids[:, :8], attention_mask=batch.mask[:, :8], use_cache=True)
        cache = begun.past_key_values
        edit = Edit("resid_post", "ablate", layers=[1], rows=[1], positions=[10])
        with llama.intervene([edit]) as applied:
            llama.network(batch.ids[:, 8:], attention_mask=batch.mask, past_key_values=cache)
    assert applied.moved[0] > 0


def test_a_value_for_the_prompt_is_asked_for_in_the_pass_of_the_prompt_only(llama):
    batch = prompts(llama, 1, 2, short=LONG)
    value = random(2, LONG, llama.width)
    whole, own = (
        Edit("resid_post", "add", layers=[1], value=one, positions=[3])
        for one in (value, value[:, 3:4])
    )
    one, other = (generate(llama, batch, [edit], use_cache=True) for edit in (whole, own))
    assert all(map(torch.equal, one.logits, other.logits))
    with pytest.raises(SiteError, match=r"\(2, 12, 32\) does not fit .* \(2, 13, 32\)"):
        generate(llama, batch, [whole], use_cache=False)


def test_what_cannot_be_told_in_a_pass_is_refused(llama):
    batch = prompts(llama, 1, 2, short=LONG)
    with pytest.raises(
        SiteError, match="not edited in a pass that continues a cache; .*use_cache=F"
    ):
        generate(llama, batch, [Edit("attn_probs", "scale", value=0.5)], use_cache=True)
    generate(llama, batch, [Edit("attn_probs", "scale", value=0.5)], use_cache=False)
    for where in ({"positions": [0]}, {"start": 1}):
        edit = Edit("logits", "scale", value=2.0, **where)
        with pytest.raises(SiteError, match="has 12 columns and 'logits' 1, .*logits_to_keep"):
            generate(llama, batch, [edit], use_cache=False)
        with pytest.raises(SiteError, match="has 12 columns and 'logits' 2, "):
            with llama.intervene([edit]):
                llama.forward(batch, head=True, columns=torch.tensor([3, 4]))
    with pytest.raises(SiteError, match=r"no positions \[12\]; they are 0 to 11"):
        generate(llama, batch, [Edit("z", "ablate", positions=[12])], use_cache=True)


# --- on a trained model


def test_a_block_left_out_changes_what_a_trained_model_says(smollm2):
    ids = smollm2.tokenizer("The capital of France is")["input_ids"]
    batch = smollm2.batch([ids])
    with torch.no_grad():
        bare = smollm2.forward(batch, head=True)
    assert torch.equal(run(smollm2, batch), bare)

    def divergence(logits):
        p, q = (one[0, -1].double().log_softmax(-1) for one in (bare, logits))
        return float((p.exp() * (p - q)).sum())

    skipped = run(smollm2, batch, [Edit("resid_post", "skip", layers=[15], start=1)])
    assert divergence(skipped) > 0.01
    assert divergence(run(smollm2, batch)) == 0
