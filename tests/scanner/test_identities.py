"""Each identity refuses what was broken so as to break it, says which, and passes what was not."""

import functools
import math

import pytest
import torch
from torch import nn

from scanner import Model, SiteError, hooks
from scanner.identities import SHORT, TOLERANCE, _off_by_token
from scanner.sites import OUTSIDE, PAIRED, Site
from scanner.structure import EXACT

INSIDE = ("q", "k", "value", "attn_scores", "attn_probs", "z")


def refused(identity):
    return pytest.raises(SiteError, match=f"the identity '{identity}' fails by")


def prove(model):
    """The proofs of a model that was broken after it was loaded."""
    for name in ("found", "proof", "structure"):
        vars(model).pop(name, None)
    return model.proof


IDENTITIES = {
    "hooks_leave_logits", "blocks_chain", "parts_sum", "middle_sums", "norm_ends",
    "neurons_project", "heads_project", "scores_to_probs", "probs_see_the_past",
    "probs_times_value", "future_leaves_past", "alone_equals_batched", "alone_equals_shared",
    "writing_back_leaves_logits",
}  # fmt: skip
NO_MIDDLE, NO_NEURONS, NO_SHARING = {"middle_sums"}, {"neurons_project"}, {"alone_equals_shared"}
NOT_CHECKED = {
    "gpt_neox": NO_MIDDLE,
    "falcon": NO_MIDDLE,
    "mixtral": NO_NEURONS,
    "qwen2_moe": NO_NEURONS,
    "gpt_oss": NO_NEURONS,
    "bloom": NO_SHARING,
    "mamba": IDENTITIES
    - {"hooks_leave_logits", "blocks_chain", "norm_ends", "future_leaves_past"}
    - {"alone_equals_batched", "writing_back_leaves_logits"},
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_each_family_satisfies_every_identity_that_it_can_have(proved, tiny_model, family, dtype):
    model = proved(family, dtype=dtype)
    proof = model.proof
    assert set(proof.deviations) == IDENTITIES - NOT_CHECKED.get(family, set())
    assert proof.refused == {}
    assert proof.unwritable == {}
    exactly = {
        "hooks_leave_logits", "blocks_chain", "writing_back_leaves_logits", "probs_see_the_past",
        "parts_sum", "middle_sums",  # the same additions, so the same bits
    }  # fmt: skip
    for name in exactly & set(proof.deviations):
        assert proof.deviations[name] == 0, name
    # The worst of float32 is 8e-7. How far half precision is off depends on the processor, but two
    # ways through one model are off from each other by no more than each is from the exact one.
    limit = 1e-5 if dtype == "float32" else 2 * rounding(model, tiny_model(family))
    assert max(proof.deviations.values()) < limit


@torch.inference_mode()
def rounding(model: Model, exact: Model) -> float:
    """How far a model in half precision is off from the same weights in float32."""
    exact.network.load_state_dict(model.network.state_dict())
    kinds = [kind for kind in model.found.kinds if kind not in PAIRED]
    text = model.prompt(SHORT, seed=1)
    rounded, whole = (one.activations(one.batch([text]), kinds) for one in (model, exact))
    return max(_off_by_token(whole[site][0], rounded[site][0]) for site in whole)


def test_only_texts_in_families_that_take_a_mask_and_positions_share_tokens(proved, family):
    sharing = proved(family).proof.sharing
    if family in ("bloom", "mamba"):  # ALiBi is built from a 2-D mask; there is no attention
        assert sharing.startswith("its forward pass takes no mask that is a tree of tokens (")
    else:
        assert sharing == ""


def test_the_embedded_subjects_satisfy_every_identity(smollm2, gemma3):
    for model in (smollm2, gemma3):
        assert set(model.proof.deviations) == IDENTITIES
        assert model.proof.refused == model.proof.unwritable == {}
        assert model.proof.sharing == ""
        assert set(model.structure.refused) == {"router"}
        assert max(model.proof.deviations.values()) < TOLERANCE["float32"] / 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_embedded_subject_in_half_precision_satisfies_every_identity(smollm2, dtype):
    model = Model.load(smollm2.source, dtype=dtype, device="cpu")
    assert set(model.proof.deviations) == IDENTITIES
    assert model.proof.refused == model.proof.unwritable == {}
    assert model.structure.kinds == smollm2.structure.kinds
    for name in ("parts_sum", "middle_sums", "blocks_chain", "hooks_leave_logits"):
        assert model.proof.deviations[name] == 0
    within = {k: v for k, v in model.proof.deviations.items() if not k.startswith("alone")}
    assert max(within.values()) < 1e-2


def test_a_site_off_by_a_twentieth_is_outside_of_every_tolerance():
    for dtype, allowed in EXACT.items():
        assert torch.finfo(dtype).eps < allowed < 0.05 / 1.05


# A kind that is made 1.05 times as large in every layer, and what then no longer holds.
SCALED = {
    "attn_out_post": ("parts_sum", {"attn_out_post", "mlp_out_post"}),
    "mlp_out_post": ("parts_sum", {"attn_out_post", "mlp_out_post", "resid_mid"}),
    "resid_mid": ("middle_sums", {"resid_mid"}),
    "mlp_act": ("neurons_project", {"mlp_act", "mlp_out"}),
    "mlp_out": ("neurons_project", {"mlp_act", "mlp_out"}),
    "z": ("heads_project", {"z", "attn_out"}),
    "attn_out": ("heads_project", {"z", "attn_out"}),
    "value": ("probs_times_value", {"value", "attn_probs"}),
    "attn_probs": ("probs_times_value", {"value", "attn_probs"}),
    "attn_scores": ("scores_to_probs", {"attn_scores", "attn_probs"}),
    "final_norm": ("norm_ends", {"final_norm"}),
}


def scale(monkeypatch, kind, factor, layer=None):
    """Have one kind of site heard larger than it is."""
    whole = Model.activations

    def scaled(self, batch, kinds, **settings):
        heard = dict(whole(self, batch, kinds, **settings))
        for site in heard:
            if site.kind == kind and layer in (None, site.layer):
                heard[site] = heard[site] * factor
        return heard

    monkeypatch.setattr(Model, "activations", scaled)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (kind, dtype)
        for kind in SCALED
        for dtype in ("float32", "bfloat16", "float16")
        # A softmax hardly tells small scores apart: in half precision its own rounding is larger.
        if kind != "attn_scores" or dtype == "float32"
    ],
)
def test_a_site_of_the_right_direction_and_the_wrong_size_is_refused(
    tiny_model, monkeypatch, kind, dtype
):
    model = tiny_model("gemma2", dtype=dtype)
    assert model.proof.refused == {}
    identity, kinds = SCALED[kind]
    scale(monkeypatch, kind, 1.05, layer=None if kind in OUTSIDE else 2)
    found = prove(model)
    # What enters the output projection is held to the probabilities, too.
    assert kinds <= set(found.refused) <= kinds | {"attn_probs", "value"}
    assert f"the identity '{identity}' fails by" in found.refused[kind]
    if kind not in ("attn_scores", "resid_mid"):
        assert 0.01 < found.deviations[identity] < 0.1
    assert set(model.structure.kinds).isdisjoint(kinds)
    with pytest.raises(SiteError, match=f"no '{kind}': the identity '{identity}' fails by"):
        model.structure.port(Site(kind, None if kind in OUTSIDE else 0))


@pytest.mark.parametrize(
    ("kind", "identity"),
    [("resid_post", "blocks_chain"), ("resid_pre", "blocks_chain"), ("logits", "hooks_leave")],
)
def test_a_stream_of_the_wrong_size_refuses_the_model(tiny_model, monkeypatch, kind, identity):
    model = tiny_model("llama")
    scale(monkeypatch, kind, 1.05)
    with pytest.raises(SiteError, match=f"'{identity}.*; its residual stream is not recorded"):
        prove(model)


def replace_forward(block, forward):
    """Have one block computed otherwise, by its own parts."""

    def run(hidden_states, **kwargs):
        kwargs.pop("past_key_values", None)

        def attend(states):
            return block.self_attn(hidden_states=block.input_layernorm(states), **kwargs)[0]

        def think(states):
            return block.mlp(block.post_attention_layernorm(states))

        return forward(hidden_states, attend, think)

    block.forward = run


def attention_scaled(stream, attend, think):
    middle = stream + 1.05 * attend(stream)
    return middle + think(middle)


def something_added(stream, attend, think):
    middle = stream + attend(stream)
    return middle + think(middle) + 0.01 * stream


def stream_scaled(stream, attend, think):
    middle = stream + attend(stream)
    return 1.05 * (middle + think(middle))


def mlp_twice(stream, attend, think):
    middle = stream + attend(stream)
    middle = middle + think(middle)
    return middle + think(middle)


def as_it_was(stream, attend, think):
    middle = stream + attend(stream)
    return middle + think(middle)


FACTOR = 1.4 / math.sqrt(3)


def both_scaled(stream, attend, think):
    middle = stream + attend(stream) * FACTOR
    return middle + think(middle) * FACTOR


ADDED = {"attn_out_post", "mlp_out_post", "resid_mid", "mlp_out", "mlp_act", "mlp_pre"}


@pytest.mark.parametrize("fault", [attention_scaled, something_added, stream_scaled, mlp_twice])
def test_a_block_that_is_not_stream_plus_attention_plus_mlp_offers_neither_and_says_why(
    tiny_model, fault
):
    model = tiny_model("llama")
    replace_forward(model.base.layers[1], fault)
    assert set(model.structure.refused) == ADDED | {"router"}
    for kind in ADDED:
        assert model.structure.refused[kind].startswith(
            "only layers 0, 2 have it; elsewhere what leaves a block is not what enters it plus "
            "what two of its modules return (best pair off by 0."
        )
    # What is proved without them is still offered.
    assert {"resid_pre", "resid_post", "z", "attn_out", *INSIDE} <= set(model.structure.kinds)
    assert model.proof.deviations["blocks_chain"] == 0


def test_a_block_that_was_rewritten_to_the_same_offers_all(tiny_model):
    model = tiny_model("llama")
    for block in model.base.layers:
        replace_forward(block, as_it_was)
    assert set(model.structure.refused) == {"router"}
    assert model.structure.multiplier == 1


def test_one_factor_before_both_parts_of_all_blocks_is_found(tiny_model):
    model = tiny_model("llama")
    for block in model.base.layers:
        replace_forward(block, both_scaled)
    assert model.structure.multiplier == pytest.approx(FACTOR, rel=1e-6)
    assert {"attn_out_post", "mlp_out_post"} <= set(model.structure.kinds)
    assert model.proof.deviations["parts_sum"] < 1e-5


def test_a_factor_that_a_module_keeps_is_taken_to_all_digits(tiny_model):
    model = tiny_model("llama")
    for block in model.base.layers:
        replace_forward(block, both_scaled)
        block.residual_scale = FACTOR
    assert model.structure.multiplier == FACTOR
    assert set(model.structure.refused) == {"router"}
    assert model.proof.deviations["parts_sum"] == model.proof.deviations["middle_sums"] == 0


def test_blocks_that_differ_in_their_factor_offer_no_parts(tiny_model):
    model = tiny_model("llama")
    replace_forward(model.base.layers[1], both_scaled)
    for kind in ("attn_out_post", "mlp_out_post", "resid_mid"):
        why = model.structure.refused[kind]
        assert why == "its blocks add with different factors, 0.80829 to 1"
    assert {"resid_post", "attn_out", "mlp_out", "mlp_act"} <= set(model.structure.kinds)


@pytest.mark.parametrize("kinds", [{"q"}, {"attn_probs"}, {"k", "value"}])
def test_a_kind_that_is_not_written_back_as_it_was_read_is_refused_alone(
    tiny_model, monkeypatch, kinds
):
    model = tiny_model("llama")
    for name in ("_heads", "_weights"):
        whole = getattr(hooks._Hearing, name)

        def unfaithful(self, site, tensor, whole=whole):
            made = whole(self, site, tensor)
            return made * (1 + 1e-4) if made is not tensor and site.kind in kinds else made

        monkeypatch.setattr(hooks._Hearing, name, unfaithful)
    assert set(prove(model).refused) == kinds
    for kind in kinds:
        assert "'writing_back_leaves_logits' fails by" in model.structure.refused[kind]


def gated(module, hidden_states, position_embeddings, attention_mask=None, **_settings):
    """Llama's attention, its heads times a gate before they are projected."""
    from transformers.models.llama import modeling_llama as llama

    shape = (*hidden_states.shape[:-1], -1, module.head_dim)
    projections = (module.q_proj, module.k_proj, module.v_proj)
    q, k, v = (one(hidden_states).view(shape).transpose(1, 2) for one in projections)
    q, k = llama.apply_rotary_pos_emb(q, k, *position_embeddings)
    attend = llama.ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, llama.eager_attention_forward
    )
    heads, weights = attend(module, q, k, v, attention_mask, dropout=0.0, scaling=module.scaling)
    gate = torch.sigmoid(hidden_states)
    return module.o_proj(heads.reshape(hidden_states.shape) * gate), weights


def test_gated_attention_offers_no_weights_that_do_not_make_its_heads(tiny_model):
    model = tiny_model("llama")
    for block in model.base.layers:
        block.self_attn.forward = functools.partial(gated, block.self_attn)
    assert set(prove(model).refused) == {"attn_probs", "value"}
    for kind in ("attn_probs", "value"):
        assert "the identity 'probs_times_value' fails by" in model.structure.refused[kind]
    assert {"resid_post", "z", "attn_out", "mlp_act", "attn_scores"} <= set(model.structure.kinds)
    with pytest.raises(SiteError, match="this model has no 'attn_probs': the identity"):
        model.structure.port(Site("attn_probs", 0))


def test_weights_that_see_the_future_in_stepwise_attention_only_are_refused(
    tiny_model, monkeypatch
):
    from transformers.models.llama import modeling_llama

    model = tiny_model("llama")
    stepwise = modeling_llama.eager_attention_forward

    def everywhere(module, query, key, value, attention_mask, *args, **kwargs):
        return stepwise(module, query, key, value, None, *args, **kwargs)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", everywhere)
    assert set(prove(model).refused) == set(PAIRED)
    assert "the identity 'probs_see_the_past' fails by" in model.structure.refused["attn_probs"]
    assert "value" in model.structure.kinds


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
    model.base.layers[layer].register_forward_hook(leak)
    with refused("future_leaves_past"):
        prove(model)


def test_a_leak_in_an_early_block_is_not_hidden_by_large_activations_of_a_later_one(tiny_model):
    def massive(_module, _args, output):
        output = output.clone()
        output[..., 3] += 1e6
        return output

    model = tiny_model("llama")
    model.base.layers[1].register_forward_hook(massive)
    assert prove(model)  # large activations alone are no fault
    model.base.layers[0].register_forward_hook(leak_next_token)
    with refused("future_leaves_past"):
        prove(model)


def test_attention_without_its_causal_mask_is_refused(tiny_model):
    model = tiny_model("gpt2")
    attend = nn.functional.scaled_dot_product_attention

    def everywhere(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **settings):
        return attend(query, key, value, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", everywhere)
        with refused("future_leaves_past"):
            prove(model)
    assert prove(model)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_family_that_is_made_bidirectional_is_refused(tiny_model, family):
    model = tiny_model(family)
    if family == "llama":
        for block in model.base.layers:
            block.self_attn.is_causal = False
    else:
        model.network.config.use_bidirectional_attention = True
    # Llama's mask of a padded batch is causal all the same, so there the prompt alone differs.
    with refused("alone_equals_batched" if family == "llama" else "future_leaves_past"):
        prove(model)


def test_work_between_two_blocks_is_refused(tiny_model):
    model = tiny_model("llama")
    model.base.layers[1].register_forward_pre_hook(lambda _module, args: (args[0] * 1.5, *args[1:]))
    with refused("blocks_chain"):
        prove(model)


def test_blocks_that_run_in_another_order_than_they_stand_in_are_refused(tiny_model):
    class Backwards(nn.ModuleList):
        def __getitem__(self, index):  # the model walks over a slice, the scanner over the list
            got = super().__getitem__(index)
            return list(got)[::-1] if isinstance(index, slice) else got

    model = tiny_model("llama")
    model.base.layers = Backwards(list(model.base.layers))
    with refused("blocks_chain"):
        prove(model)


def test_a_model_left_in_training_mode_is_refused(tiny_model):
    model = tiny_model("gpt2")
    model.network.train()  # dropout draws anew in each pass
    with refused("hooks_leave_logits"):
        prove(model)


def test_a_block_that_mixes_the_stimuli_of_a_batch_is_refused(tiny_model):
    model = tiny_model("llama")
    model.base.layers[1].register_forward_hook(
        lambda _module, _args, output: output + 0.01 * output.mean(0, keepdim=True)
    )
    with refused("alone_equals_batched"):
        prove(model)


def test_a_model_that_computes_nan_is_refused(tiny_model):
    model = tiny_model("llama")
    with torch.no_grad():
        model.base.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(SiteError, match="fails by nan"):
        prove(model)


def test_the_refusal_names_subject_device_and_dtype(tiny_model):
    model = tiny_model("llama")
    model.base.layers[0].register_forward_hook(leak_last_token)
    with pytest.raises(SiteError, match=rf"'{model.source.name}' on cpu in float32: .* 0.0001 is"):
        prove(model)


def test_a_module_that_runs_twice_is_not_taken_for_one_that_runs_once(tiny_model):
    model = tiny_model("llama")
    for block in model.base.layers:  # one attention for all blocks
        block.self_attn = model.base.layers[0].self_attn
    assert {"q", "k", "value", "attn_probs", "attn_out"} <= set(model.structure.refused)
    assert {"resid_pre", "resid_post", "final_norm"} <= set(model.structure.kinds)


def test_a_norm_that_the_model_does_not_end_with_is_no_final_norm(tiny_model):
    model = tiny_model("llama")
    model.base.register_forward_hook(_doubled)
    assert "no norm was found" in model.structure.refused["final_norm"]
    assert "resid_post" in model.structure.kinds


def _doubled(_module, _args, output):
    output.last_hidden_state = 2 * output.last_hidden_state
    return output


def test_an_unknown_way_into_the_first_block_offers_no_embeddings(tiny_model):
    model = tiny_model("llama")
    model.base.layers[0].register_forward_pre_hook(
        lambda _module, args: (args[0] ** 2 + args[0], *args[1:])
    )
    assert "is neither the token embedding" in model.structure.refused["embeddings"]
    assert model.structure.entry == "unknown"


def test_a_model_that_ignores_positions_shares_no_tokens_and_says_by_how_much_it_is_off(
    tiny_model,
):
    model = tiny_model("llama")

    def by_column(_module, args, kwargs):
        positions = torch.arange(args[0].shape[1])[None]
        return args, {**kwargs, "position_ids": positions}

    model.base.rotary_emb.register_forward_pre_hook(by_column, with_kwargs=True)
    found = prove(model)
    assert found.sharing.startswith("a prompt that shares its beginning is off by ")
    assert found.deviations["alone_equals_shared"] > 1e-3
    assert found.refused == {}


def test_a_kind_whose_change_does_not_reach_the_logits_cannot_be_written(tiny_model):
    model = tiny_model("llama")
    with torch.no_grad():
        model.base.layers[1].self_attn.o_proj.weight.zero_()
    found = prove(model)
    assert {"q", "k", "value", "z", "attn_probs"} <= set(found.unwritable)
    assert found.unwritable["z"] == "a change of z.1 does not reach the logits"
    assert {"resid_pre", "resid_post", "mlp_act", "mlp_out", "logits"}.isdisjoint(found.unwritable)


def test_the_proof_of_one_block_has_none_to_chain_with(tiny_model):
    model = tiny_model("llama", num_hidden_layers=1)
    assert model.proof.deviations["blocks_chain"] == 0
    assert set(model.structure.refused) == {"router"}
