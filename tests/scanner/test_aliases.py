"""Names of other tools resolve to the site they mean, or are refused with what they are."""

import pytest

from scanner.aliases import ALIASES, CONVENTIONS, REFUSALS, Place, resolve
from scanner.sites import KINDS, OUTSIDE, Site, SiteError

# `HookedTransformer(config).hook_dict` of transformer-lens 2.18.0, over five one-block configs:
# GPT-2, Gemma 2 with grouped and normed queries, SoLU with shortformer positions, a mixture of
# experts, and Bloom. None: refused.
HOOKED = {
    "hook_tokens": None,
    "hook_embed": "embeddings",
    "hook_pos_embed": None,
    "embed.ln.hook_normalized": None,
    "embed.ln.hook_scale": None,
    "blocks.0.attn.hook_attn_input": None,
    "blocks.0.attn.hook_attn_scores": "attn_scores.0",
    "blocks.0.attn.hook_k": None,
    "blocks.0.attn.hook_pattern": "attn_probs.0",
    "blocks.0.attn.hook_q": None,
    "blocks.0.attn.hook_result": None,
    "blocks.0.attn.hook_rot_k": "k.0",
    "blocks.0.attn.hook_rot_q": "q.0",
    "blocks.0.attn.hook_v": "value.0",
    "blocks.0.attn.hook_z": "z.0",
    "blocks.0.attn.k_norm.hook_normalized": None,
    "blocks.0.attn.k_norm.hook_scale": None,
    "blocks.0.attn.q_norm.hook_normalized": None,
    "blocks.0.attn.q_norm.hook_scale": None,
    "blocks.0.hook_attn_in": None,
    "blocks.0.hook_attn_out": "attn_out_post.0",
    "blocks.0.hook_k_input": None,
    "blocks.0.hook_mlp_in": None,
    "blocks.0.hook_mlp_out": "mlp_out_post.0",
    "blocks.0.hook_q_input": None,
    "blocks.0.hook_resid_mid": "resid_mid.0",
    "blocks.0.hook_resid_post": "resid_post.0",
    "blocks.0.hook_resid_pre": "resid_pre.0",
    "blocks.0.hook_v_input": None,
    "blocks.0.ln1.hook_normalized": None,
    "blocks.0.ln1.hook_scale": None,
    "blocks.0.ln1_post.hook_normalized": None,
    "blocks.0.ln1_post.hook_scale": None,
    "blocks.0.ln2.hook_normalized": None,
    "blocks.0.ln2.hook_scale": None,
    "blocks.0.ln2_post.hook_normalized": None,
    "blocks.0.ln2_post.hook_scale": None,
    "blocks.0.mlp.experts.1.hook_gate": None,
    "blocks.0.mlp.experts.1.hook_post": None,
    "blocks.0.mlp.experts.1.hook_pre": None,
    "blocks.0.mlp.hook_expert_indices": None,
    "blocks.0.mlp.hook_expert_weights": None,
    "blocks.0.mlp.hook_mid": None,
    "blocks.0.mlp.hook_post": "mlp_act.0",
    "blocks.0.mlp.hook_pre": "mlp_pre.0",
    "blocks.0.mlp.hook_pre_linear": None,
    "blocks.0.mlp.ln.hook_normalized": None,
    "blocks.0.mlp.ln.hook_scale": None,
    "ln_final.hook_normalized": None,
    "ln_final.hook_scale": None,
}
# `hook_dict` of transformer-lens 4.3.0 around small Gemma 2, Qwen 3, GPT-2, GPT-NeoX, OLMo 2,
# Mixtral and Bloom models, less the names above. What each holds was compared there with what the
# modules of a copy of the model take and return.
BRIDGE = {
    "embed.hook_in": None,
    "embed.hook_out": "embeddings",
    "embed_ln.hook_in": "embeddings",
    "embed_ln.hook_normalized": None,
    "embed_ln.hook_out": None,
    "embed_ln.hook_scale": None,
    "pos_embed.hook_in": None,
    "pos_embed.hook_out": None,
    "rotary_emb.hook_cos": None,
    "rotary_emb.hook_in": None,
    "rotary_emb.hook_out": None,
    "rotary_emb.hook_sin": None,
    "blocks.0.hook_in": "resid_pre.0",
    "blocks.0.hook_out": "resid_post.0",
    "blocks.0.attn.hook_attn_in": None,
    "blocks.0.attn.hook_cos": None,
    "blocks.0.attn.hook_hidden_states": "attn_out.0",
    "blocks.0.attn.hook_in": None,
    "blocks.0.attn.hook_k_input": None,
    "blocks.0.attn.hook_k_normed": None,
    "blocks.0.attn.hook_out": "attn_out.0",
    "blocks.0.attn.hook_q_input": None,
    "blocks.0.attn.hook_q_normed": None,
    "blocks.0.attn.hook_sin": None,
    "blocks.0.attn.hook_v_input": None,
    "blocks.0.attn.k.hook_in": None,
    "blocks.0.attn.k.hook_out": None,
    "blocks.0.attn.k_norm.hook_in": None,
    "blocks.0.attn.k_norm.hook_out": None,
    "blocks.0.attn.o.hook_in": "z.0",
    "blocks.0.attn.o.hook_out": "attn_out.0",
    "blocks.0.attn.q.hook_in": None,
    "blocks.0.attn.q.hook_out": None,
    "blocks.0.attn.q_norm.hook_in": None,
    "blocks.0.attn.q_norm.hook_out": None,
    "blocks.0.attn.qkv.hook_in": None,
    "blocks.0.attn.qkv.hook_out": None,
    "blocks.0.attn.v.hook_in": None,
    "blocks.0.attn.v.hook_out": "value.0",
    "blocks.0.ln1.hook_in": None,
    "blocks.0.ln1.hook_out": None,
    "blocks.0.ln1_post.hook_in": "attn_out.0",
    "blocks.0.ln1_post.hook_out": "attn_out_post.0",
    "blocks.0.ln2.hook_in": None,
    "blocks.0.ln2.hook_out": None,
    "blocks.0.ln2_post.hook_in": "mlp_out.0",
    "blocks.0.ln2_post.hook_out": "mlp_out_post.0",
    "blocks.0.mlp.gate.hook_expert_indices": None,
    "blocks.0.mlp.gate.hook_expert_weights": None,
    "blocks.0.mlp.gate.hook_in": None,
    "blocks.0.mlp.gate.hook_out": None,
    "blocks.0.mlp.hook_in": None,
    "blocks.0.mlp.hook_out": "mlp_out.0",
    "blocks.0.mlp.hook_router_scores": None,
    "blocks.0.mlp.in.hook_in": None,
    "blocks.0.mlp.in.hook_out": None,
    "blocks.0.mlp.out.hook_in": "mlp_act.0",
    "blocks.0.mlp.out.hook_out": "mlp_out.0",
    "ln_final.hook_in": None,
    "ln_final.hook_out": "final_norm",
    "unembed.hook_in": None,
    "unembed.hook_out": None,
    "hook_unembed": None,
}
# What `get_act_name` of transformer-lens 2.18.0 and 4.3.0 (the same code) has a place for, its
# compact spelling, and each hook outside a module. Ours come first, so k.6 is not k6.
SHORT = {
    "embed": "embeddings",
    "pos_embed": None,
    "tokens": None,
    "normalized": None,
    "scale": None,
    "scale4ln1": None,
    "normalized4ln2": None,
    "k6": None,
    "q6a": None,
    "key.6": None,
    "query6": None,
    "v6": "value.6",
    "value6": "value.6",
    "rot_q.6": "q.6",
    "rot_k.6": "k.6",
    "result.6": None,
    "z6": "z.6",
    "pattern6": "attn_probs.6",
    "attn.6": "attn_probs.6",
    "attn_logits.6": "attn_scores.6",
    "pre5": "mlp_pre.5",
    "pre5m": "mlp_pre.5",
    "mlp_pre.5": "mlp_pre.5",
    "pre_linear.5": None,
    "mid5": None,
    "mlp_mid.5": None,
    "post": "mlp_act",
    "post5": "mlp_act.5",
    "mlp_post.5": "mlp_act.5",
    "attn_in.5": None,
    "q_input.5": None,
    "k_input.5": None,
    "v_input.5": None,
    "mlp_in.5": None,
}
OTHERS = {
    # sae-lens 6.54.12: every hook_name and hf_hook_name that its loaders write
    "blocks.12.hook_resid_post": "resid_post.12",
    "blocks.12.hook_mlp_in": None,
    "blocks.12.ln2.hook_normalized": None,
    "blocks.12.mlp.hook_in": None,
    "model.layers.12": "resid_post.12",
    "model.layers.12.output": "resid_post.12",
    # Gemma Scope's words for its releases
    "res.12": "resid_post.12",
    "att.12": "z.12",
    "mlp.12": "mlp_out_post.12",
    # sparsify 1.3.3
    "layers.5": "resid_post.5",
    "layers.5.mlp": "mlp_out.5",
    "layers.5.self_attn": "attn_out.5",
    "h.5": "resid_post.5",
    "h.*.attn": "attn_out",
    "gpt_neox.layers.5.attention": "attn_out.5",
    "transformer.h.5:input": "resid_pre.5",
    "model.embed_tokens": "embeddings",
    "transformer.ln_f": "final_norm",
    # nnterp 1.3.0
    "token_embeddings": "embeddings",
    "layers_input[5]": "resid_pre.5",
    "layers_output[5]": "resid_post.5",
    "attention_probabilities[5]": "attn_probs.5",
    "attentions_input[5]": None,
    "attentions_output[5]": "attn_out.5",
    "mlps_input[5]": None,
    "mlps_output[5]": "mlp_out.5",
    # transformers' output_hidden_states
    "hidden_states[5]": None,
}
NAMES = HOOKED | BRIDGE | SHORT | OTHERS


@pytest.mark.parametrize("name", [name for name, site in NAMES.items() if site])
def test_a_name_of_another_tool_is_the_site_it_means(name):
    assert str(resolve(name)) == NAMES[name]


@pytest.mark.parametrize("name", [name for name, site in NAMES.items() if not site])
def test_a_name_that_means_none_of_our_sites_is_refused_with_what_it_is(name):
    with pytest.raises(SiteError, match="is none of our sites: ") as refused:
        resolve(name)
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_names_are_themselves_with_and_without_a_layer(kind):
    assert resolve(kind) == Place(kind)
    if kind not in OUTSIDE:
        assert resolve(f"{kind}.12") == Place(kind, 12)
        assert resolve(f"{kind}.*") == Place(kind)


@pytest.mark.parametrize("row", ALIASES + CONVENTIONS, ids=lambda row: row.name)
def test_each_row_of_the_table_parses_with_a_layer_all_layers_and_its_number(row):
    layered = "{layer}" in row.name
    for layer in ("0", "31", "*"):
        number = int(layer) if layered and layer != "*" else None
        assert resolve(row.name.replace("{layer}", layer)) == Place(row.kind, number)
    assert layered != (row.kind in OUTSIDE)


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.name)
def test_each_refused_row_says_its_reason_and_a_nearest_site_that_can_be_written(row):
    with pytest.raises(SiteError) as refused:
        resolve(row.name.replace("{layer}", "7").replace("*", "x"))
    said = str(refused.value)
    if "*" not in row.name:
        assert row.reason in said
        if row.nearest:
            nearest = said.rsplit("'", 2)[1]
            assert resolve(nearest).kind == row.nearest
            assert resolve(nearest).layer in (7, None)


def test_no_name_stands_in_two_rows():
    names = [row.name for row in ALIASES + CONVENTIONS]
    refused = [row.name for row in REFUSALS]
    assert len(set(names)) == len(names) and len(set(refused)) == len(refused)
    assert not set(names) & set(refused)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hook_resid_post", "resid_post"),
        ("attn.hook_z", "z"),
        ("hook_z", "z"),
        ("blocks.*.hook_mlp_out", "mlp_out_post"),
    ],
)
def test_a_hook_without_its_layer_is_every_layer(name, kind):
    assert resolve(name) == Place(kind)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hook_q", r"attn\.hook_rot_q .* The nearest is 'q'"),
        ("blocks.5.attn.hook_q", r"before the rotation .* attn\.hook_rot_q .* nearest is 'q\.5'"),
        ("blocks.5.mlp.hook_pre_linear", r"without an activation function .* 'mlp_act\.5'"),
        ("blocks.5.hook_mlp_in", r"in a parallel block resid_pre\. The nearest is 'resid_mid\.5'"),
        ("ln_final.hook_normalized", r"before the norm's weight .* The nearest is 'final_norm'"),
        ("blocks.5.mlp.gate.hook_out", r"mlp_pre in a gated MLP, and router in a mixture"),
        ("hidden_states[5]", r"hidden_states\[i\] is resid_post\.\(i-1\), except the last"),
        ("blocks.5.mlp.experts.3.hook_pre", r"no single expert is recorded.*'router\.5'"),
    ],
)
def test_a_refusal_tells_how_to_ask(name, reason):
    with pytest.raises(SiteError, match=reason):
        resolve(name)


def test_our_own_words_come_before_the_short_forms_of_transformer_lens():
    assert resolve("attn_out.5") == Place("attn_out", 5)
    assert resolve("hook_attn_out") == Place("attn_out_post")
    assert resolve("q.5") == Place("q", 5)
    with pytest.raises(SiteError, match="before the rotation"):
        resolve("q5")


PORTS = {
    "model.embed_tokens:output": Site("embeddings"),
    **{
        port: Site(kind, layer)
        for layer in range(2)
        for port, kind in (
            (f"model.layers.{layer}:input", "resid_pre"),
            (f"model.layers.{layer}:output", "resid_post"),
            (f"model.layers.{layer}.self_attn.o_proj:input", "z"),
            (f"model.layers.{layer}.mlp.down_proj:input", "mlp_act"),
            (f"model.layers.{layer}.mlp.down_proj:output", "mlp_out"),
            (f"model.layers.{layer}.mlp:output", "mlp_out"),
            (f"model.layers.{layer}.post_feedforward_layernorm:output", "mlp_out_post"),
        )
    },
}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.1.mlp.down_proj:input", "mlp_act.1"),
        ("model.layers.1.mlp.down_proj:output", "mlp_out.1"),
        ("model.layers.1.mlp.down_proj", "mlp_out.1"),
        ("layers.1.mlp.down_proj:input", "mlp_act.1"),
        ("transformer.layers.1.mlp.down_proj:input", "mlp_act.1"),
        ("1.mlp.down_proj:input", "mlp_act.1"),
        ("model.layers.1", "resid_post.1"),
        ("layers.1:input", "resid_pre.1"),
        ("embed_tokens", "embeddings"),
        ("layers.*.mlp.down_proj:input", "mlp_act"),
        # hf_hook_name of sae-lens for Gemma Scope 2
        ("model.layers.1.output", "resid_post.1"),
        ("model.layers.1.self_attn.o_proj.input", "z.1"),
        ("model.layers.1.post_feedforward_layernorm.output", "mlp_out_post.1"),
        # other names go on meaning what they mean
        ("resid_mid.1", "resid_mid.1"),
        ("blocks.1.hook_resid_mid", "resid_mid.1"),
    ],
)
def test_a_path_is_what_the_loaded_model_has_there(name, place):
    assert str(resolve(name, ports=PORTS)) == place


def test_a_path_that_ends_several_paths_is_refused_with_some_of_them():
    with pytest.raises(
        SiteError,
        match=r"'down_proj:input' could be model\.layers\.0\.mlp\.down_proj:input \(mlp_act\.0\), "
        r"model\.layers\.1\.mlp\.down_proj:input \(mlp_act\.1\); write more of the path",
    ):
        resolve("down_proj:input", ports=PORTS)


def test_a_whole_path_comes_before_paths_that_end_with_it():
    ports = {"layers.0:output": Site("resid_post", 0), "side.layers.0:output": Site("resid_pre", 0)}
    assert resolve("layers.0", ports=ports) == Place("resid_post", 0)
    with pytest.raises(SiteError, match="write more of the path"):
        resolve("0", ports=ports)


def test_the_loaded_model_overrules_the_convention():
    assert resolve("layers.0.self_attn") == Place("attn_out", 0)
    with pytest.raises(SiteError, match="'layers.0.self_attn' is no site that is known"):
        resolve("layers.0.self_attn", ports=PORTS)


def test_a_path_ends_at_a_dot():
    with pytest.raises(SiteError, match="no site that is known"):
        resolve("ayers.1", ports=PORTS)


def test_a_side_without_a_site_names_the_site_of_the_other():
    with pytest.raises(SiteError, match=r"no site on that side; on the other is 'z\.1' \(model\."):
        resolve("model.layers.1.self_attn.o_proj", ports=PORTS)


def test_a_path_that_only_a_model_can_tell_says_so():
    with pytest.raises(SiteError, match="if it is the path of a module, load the model first"):
        resolve("model.layers.5.mlp.down_proj:input")


@pytest.mark.parametrize("name", ["vision_tower.encoder.layers.3", "model.encoder.layers.3"])
def test_layers_of_another_tower_are_not_the_models(name):
    with pytest.raises(SiteError, match="no site that is known"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("resid_pots.5", r"did you mean 'resid_post\.5'\? \(accepted are .*kinds: embeddings, "),
        ("resid_post12", r"did you mean 'resid_post\.12'"),
        ("blocks.5.hook_resid_pots", r"did you mean 'blocks\.5\.hook_resid_post'"),
        ("embedding", r"did you mean 'embeddings'"),
        ("wholly different", r"no site that is known \(accepted are our own names"),
        ("", r"'' is no site that is known"),
        ("embeddings.3", r"embeddings stands outside the blocks; write 'embeddings'"),
        ("resid_post.-1", r"layers count from 0"),
        ("layers.5:both", r"no site that is known"),
    ],
)
def test_what_is_not_known_is_refused_with_the_nearest_name(name, error):
    with pytest.raises(SiteError, match=error):
        resolve(name)


def test_a_place_becomes_sites_once_the_number_of_layers_is_known():
    assert resolve("resid_post").sites(3) == [Site("resid_post", layer) for layer in range(3)]
    assert resolve("resid_post.2").sites(3) == [Site("resid_post", 2)]
    assert resolve("hook_embed").sites(3) == [Site("embeddings")]
    with pytest.raises(SiteError, match=r"resid_post\.3: this model has the layers 0 to 2"):
        resolve("resid_post.3").sites(3)
