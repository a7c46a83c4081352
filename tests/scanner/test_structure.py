"""Sites are found by what modules compute; here a table of names per family says what is right.

The table and the formulas are read off transformers' modelling files by hand and share no code with
the scanner: plain forward hooks give the tensors that a site must equal, to the last bit where the
model computes them and within float32 rounding where the test recomputes them.
"""

import importlib
from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scanner import Site, SiteError
from scanner.sites import KINDS, MEANINGS, OUTSIDE, PAIRED, sites_of
from scanner.structure import find_blocks

LLAMA = {
    "blocks": "model.layers", "embeddings": "model.embed_tokens", "final_norm": "model.norm",
    "attention": "self_attn", "projection": "self_attn.o_proj",
    "attn_out": "self_attn", "attn_out_post": "self_attn",
    "mlp_out": "mlp", "mlp_out_post": "mlp", "down": "mlp.down_proj", "up": "mlp.gate_proj",
}  # fmt: skip
MIXTURE = {**LLAMA, "down": None, "up": None, "router": "mlp.gate"}
POST_NORMED = {
    "attn_out_post": "post_attention_layernorm",
    "mlp_out_post": "post_feedforward_layernorm",
}
# Module names by family; `down` and `up` are what neurons leave through and come from.
NAMES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma2": {**LLAMA, **POST_NORMED},
    "gemma3_text": {**LLAMA, **POST_NORMED},
    "olmo2": {**LLAMA, **POST_NORMED},
    "phi3": {**LLAMA, "up": "mlp.gate_up_proj"},
    "mixtral": MIXTURE,
    "qwen2_moe": MIXTURE,
    "gpt_oss": {**MIXTURE, "router": "mlp.router"},
    "gpt2": {
        "blocks": "transformer.h", "embeddings": "transformer.wte",
        "final_norm": "transformer.ln_f", "attention": "attn", "projection": "attn.c_proj",
        "attn_out": "attn", "attn_out_post": "attn", "mlp_out": "mlp", "mlp_out_post": "mlp",
        "down": "mlp.c_proj", "up": "mlp.c_fc",
    },
    "gpt_neox": {
        "blocks": "gpt_neox.layers", "embeddings": "gpt_neox.embed_in",
        "final_norm": "gpt_neox.final_layer_norm",
        "attention": "attention", "projection": "attention.dense",
        "attn_out": "attention", "attn_out_post": "attention",
        "mlp_out": "mlp", "mlp_out_post": "mlp",
        "down": "mlp.dense_4h_to_h", "up": "mlp.dense_h_to_4h",
    },
    "falcon": {
        "blocks": "transformer.h", "embeddings": "transformer.word_embeddings",
        "final_norm": "transformer.ln_f",
        "attention": "self_attention", "projection": "self_attention.dense",
        "attn_out": "self_attention", "attn_out_post": "self_attention",
        "mlp_out": "mlp", "mlp_out_post": "mlp",
        "down": "mlp.dense_4h_to_h", "up": "mlp.dense_h_to_4h",
    },
    "bloom": {  # attention and MLP return the stream with their part added to it
        "blocks": "transformer.h", "embeddings": "transformer.word_embeddings",
        "final_norm": "transformer.ln_f",
        "attention": "self_attention", "projection": "self_attention.dense",
        "attn_out": "self_attention.dense", "attn_out_post": "self_attention.dense",
        "mlp_out": "mlp.dense_4h_to_h", "mlp_out_post": "mlp.dense_4h_to_h",
        "down": "mlp.dense_4h_to_h", "up": "mlp.dense_h_to_4h",
    },
    "opt": {  # no MLP module
        "blocks": "model.decoder.layers", "embeddings": "model.decoder.embed_tokens",
        "final_norm": "model.decoder.final_layer_norm",
        "attention": "self_attn", "projection": "self_attn.out_proj",
        "attn_out": "self_attn", "attn_out_post": "self_attn",
        "mlp_out": "fc2", "mlp_out_post": "fc2", "down": "fc2", "up": "fc1",
    },
}  # fmt: skip
PARALLEL = ("gpt_neox", "falcon")
MIXTURES = ("mixtral", "qwen2_moe", "gpt_oss")
ENTRY = {
    "gpt2": "embeddings + transformer.wpe",
    "opt": "embeddings + model.decoder.embed_positions",
    "bloom": "transformer.word_embeddings_layernorm(embeddings)",
}
IDS = [5, 9, 14, 3, 250, 77, 31, 8, 120, 64, 2, 19]  # longer than the windows of the toy models
ATTENDING = list(NAMES)


@pytest.fixture(scope="session")
def lively(tiny_model):
    """Toy models whose biases, norms and sinks are no longer zeros and ones, so that they show."""
    made = {}

    def make(family):
        if family not in made:
            model = tiny_model(family)
            generator = torch.Generator().manual_seed(7)
            with torch.no_grad():
                for parameter in model.network.parameters():
                    if parameter.ndim == 1:
                        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
            made[family] = model
        return made[family]

    return make


@torch.inference_mode()
def overheard(model, ids=IDS, *, eager=False):
    """What goes into and comes out of every module, by plain hooks: path -> (given, returned)."""
    heard = {}

    def listen(path):
        def hook(_module, args, kwargs, output):
            given = next(iter(args), kwargs.get("hidden_states"))
            returned = output[0] if isinstance(output, tuple) else output
            # Copies: Falcon adds the attention to what its MLP returned, in place.
            both = [one.clone() if torch.is_tensor(one) else None for one in (given, returned)]
            heard.setdefault(path, []).append(both)

        return hook

    with ExitStack() as stack:
        if eager:
            stack.enter_context(model.eager())
        for path, module in model.network.named_modules():
            handle = module.register_forward_hook(listen(path), with_kwargs=True)
            stack.callback(handle.remove)
        output = model.network(
            input_ids=torch.tensor([ids]), use_cache=False, output_attentions=eager
        )
    assert all(len(times) == 1 for times in heard.values())
    heard = {path: times[0] for path, times in heard.items()}
    return heard, output


@torch.inference_mode()
def ours(model, kinds, ids=IDS):
    return model.activations(model.batch([ids]), kinds)


def block(model, layer):
    return model.network.get_submodule(f"{model.structure.blocks}.{layer}")


def test_the_table_of_this_test_covers_every_toy_family(family):
    assert family in NAMES or family == "mamba"


def test_each_family_offers_every_kind_but_those_that_it_cannot_have(lively, family, lacking):
    structure = lively(family).structure
    assert set(structure.refused) == lacking
    assert structure.kinds == tuple(k for k in KINDS if k not in structure.refused)
    assert all(structure.refused.values())
    assert set(structure.ports) == {
        site for kind in structure.kinds for site in sites_of(kind, structure.layers)
    }
    assert {kind: len(MEANINGS[kind].dims) for kind in structure.sizes} == {
        kind: len(size) for kind, size in structure.sizes.items()
    }
    assert structure.entry == ENTRY.get(family, "embeddings")
    assert structure.multiplier == 1
    assert lively(family).proof.refused == {}
    assert lively(family).proof.unwritable == {}


@pytest.mark.parametrize("family", ATTENDING)
def test_every_site_that_a_module_takes_or_returns_equals_it_to_the_last_bit(lively, family):
    model, names = lively(family), NAMES[family]
    heard, output = overheard(model)
    found = ours(model, [kind for kind in model.structure.kinds if kind not in PAIRED])

    assert model.structure.blocks == names["blocks"]
    assert torch.equal(found[Site("embeddings")], heard[names["embeddings"]][1])
    assert torch.equal(found[Site("final_norm")], heard[names["final_norm"]][1])
    assert torch.equal(found[Site("logits")], output.logits)
    for layer in range(model.layers):
        path = f"{names['blocks']}.{layer}"
        expected = {
            "resid_pre": heard[path][0],
            "resid_post": heard[path][1],
            "z": heard[f"{path}.{names['projection']}"][0],
        }
        for kind in ("attn_out", "attn_out_post", "mlp_out", "mlp_out_post"):
            expected[kind] = heard[f"{path}.{names[kind]}"][1]
        if names["down"] is not None:
            expected["mlp_act"] = heard[f"{path}.{names['down']}"][0]
            up = heard[f"{path}.{names['up']}"][1]
            expected["mlp_pre"] = up[..., : expected["mlp_act"].shape[-1]]  # Phi-3: gate, then up
        if family not in PARALLEL:
            expected["resid_mid"] = expected["resid_pre"] + expected["attn_out_post"].reshape(
                expected["resid_pre"].shape
            )
        for kind, tensor in expected.items():
            site = found[Site(kind, layer)]
            assert torch.equal(site, tensor.reshape(site.shape)), (kind, layer)
            assert site.shape[:2] == (1, len(IDS))
            assert site.shape[2:] == model.structure.sizes[kind]


@pytest.mark.parametrize("family", MIXTURES)
@torch.inference_mode()
def test_router_scores_are_what_its_weight_makes_of_what_the_mlp_is_given(lively, family):
    model = lively(family)
    heard, _ = overheard(model)
    found = ours(model, ["router"])
    for layer in range(model.layers):
        router = block(model, layer).get_submodule(NAMES[family]["router"])
        given = heard[f"model.layers.{layer}.mlp"][0]
        expected = F.linear(given, router.weight, getattr(router, "bias", None))
        torch.testing.assert_close(found[Site("router", layer)], expected, rtol=1e-5, atol=1e-6)
        assert expected.std() > 0


def split_qkv(model, family, attention, given):
    """Queries, keys and values as the projections return them: position x head x unit each."""
    config = model.network.config
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    positions = given.shape[1]
    if family == "gpt2":  # q, k and v one after the other
        parts = attention.c_attn(given).chunk(3, dim=-1)
    elif family in ("gpt_neox", "bloom"):  # q, k and v of a head, then those of the next
        fused = attention.query_key_value(given).reshape(1, positions, heads, 3, size)
        parts = fused.unbind(3)
    elif family == "falcon":  # all queries, then the one key and the one value
        fused = attention.query_key_value(given).reshape(1, positions, heads + 2, size)
        parts = fused.split([heads, 1, 1], dim=2)
    elif family == "phi3":
        shared = config.num_key_value_heads * size
        parts = attention.qkv_proj(given).split([heads * size, shared, shared], dim=-1)
    else:
        parts = [getattr(attention, f"{name}_proj")(given) for name in "qkv"]
    if family == "olmo2":  # normed over all heads together
        parts = [attention.q_norm(parts[0]), attention.k_norm(parts[1]), parts[2]]
    q, k, v = (part.reshape(positions, -1, size) for part in parts)
    if family in ("qwen3", "gemma3_text"):  # normed head by head
        q, k = attention.q_norm(q), attention.k_norm(k)
    if family == "opt":  # scaled before, not in, the product
        q = q * size**-0.5
    return q, k, v


def rotated(model, family, layer, q, k):
    """Queries and keys turned by their positions, by transformers' own functions."""
    if family in ("gpt2", "bloom", "opt"):
        return q, k
    modelling = importlib.import_module(type(model.network).__module__)
    rotary, position_ids = model.base.rotary_emb, torch.arange(len(q))[None]
    kind = ()
    if family == "gemma3_text":  # another base in layers with a window
        kind = (model.network.config.layer_types[layer],)
    cos, sin = rotary(torch.zeros(1, len(q), 1), position_ids, *kind)
    q, k = modelling.apply_rotary_pos_emb(
        q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos, sin
    )
    return q[0].transpose(0, 1), k[0].transpose(0, 1)


@torch.inference_mode()
def recomputed(model, family, layer, heard):
    names = NAMES[family]
    attention = block(model, layer).get_submodule(names["attention"])
    given = heard[f"{names['blocks']}.{layer}.{names['attention']}"][0]
    q, k, v = split_qkv(model, family, attention, given)
    return *rotated(model, family, layer, q, k), v


@pytest.mark.parametrize("family", ATTENDING)
@pytest.mark.parametrize("eager", [False, True])
def test_queries_keys_and_values_are_what_the_family_computes(lively, family, eager):
    model = lively(family)
    heard, _ = overheard(model, eager=eager)
    kinds = ["q", "k", "value", *(["attn_probs"] if eager else [])]  # which has it run step by step
    found = ours(model, kinds)
    for layer in range(model.layers):
        expected = dict(
            zip(("q", "k", "value"), recomputed(model, family, layer, heard), strict=True)
        )
        for kind, tensor in expected.items():
            site = found[Site(kind, layer)]
            assert site.shape == (1, *tensor.shape)
            torch.testing.assert_close(site[0], tensor, rtol=1e-5, atol=1e-5)


SLOPES = torch.tensor([2.0 ** (-8 * head / 4) for head in range(1, 5)])  # ALiBi of four heads


@pytest.mark.parametrize("family", ATTENDING)
def test_scores_are_the_scaled_products_of_queries_and_keys_where_a_key_may_be_seen(lively, family):
    model = lively(family)
    config = model.network.config
    heard, _ = overheard(model, eager=True)
    found = ours(model, ["attn_scores"])
    positions = torch.arange(len(IDS))
    for layer in range(model.layers):
        q, k, _ = recomputed(model, family, layer, heard)
        scale = 1.0 if family == "opt" else q.shape[-1] ** -0.5
        if family.startswith("gemma"):
            scale = config.query_pre_attn_scalar**-0.5
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        expected = torch.einsum("qhu,khu->hqk", q, k) * scale
        if family == "gemma2":
            cap = config.attn_logit_softcapping
            expected = torch.tanh(expected / cap) * cap
        if family == "bloom":
            expected = expected + SLOPES[:, None, None] * positions
        seen = positions[:, None] >= positions
        if window_of(config, layer):
            seen = seen & (positions[:, None] - positions < window_of(config, layer))
        scores = found[Site("attn_scores", layer)][0]
        if family == "gpt_oss":  # its softmax is given scores less the largest of a query
            expected = expected - expected.masked_fill(~seen, -torch.inf).amax(-1, keepdim=True)
            sinks = block(model, layer).self_attn.sinks[:, None]
            given = torch.einsum("qhu,khu->hqk", q, k) * scale
            largest = given.masked_fill(~seen, -torch.inf).amax(-1)
            expected = expected - (sinks - largest).clamp_min(0)[..., None]
        torch.testing.assert_close(scores[:, seen], expected[:, seen], rtol=1e-4, atol=1e-5)
        # A mask is a large negative number, or minus infinity.
        assert bool((scores[:, ~seen] < -1e30).all())


def window_of(config, layer):
    """Tokens that a layer's attention sees; None where it sees all."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if window is None or (types is not None and types[layer] == "full_attention"):
        return None
    return window


@pytest.mark.parametrize("family", ATTENDING)
def test_probabilities_are_transformers_own_attentions_to_the_last_bit(lively, family):
    model = lively(family)
    _, output = overheard(model, eager=True)
    found = ours(model, ["attn_probs"])
    for layer, theirs in enumerate(output.attentions):
        probs = found[Site("attn_probs", layer)]
        assert torch.equal(probs, theirs[..., : len(IDS)]), layer
        assert not torch.equal(probs, output.attentions[layer - 1][..., : len(IDS)])
    # With a sink no key gets all of the weight, elsewhere together they do.
    total = probs.sum(-1)
    if family == "gpt_oss":
        assert bool((total < 0.999).all())
    else:
        torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text", "gpt_oss"])
def test_layers_with_a_window_see_no_further_and_the_others_do(lively, family):
    model = lively(family)
    probs = ours(model, ["attn_probs"])
    positions = torch.arange(len(IDS))
    beyond = positions[:, None] - positions >= 8
    windows = [window_of(model.network.config, layer) for layer in range(model.layers)]
    assert 8 in windows
    assert beyond.any()
    for layer, window in enumerate(windows):
        far = probs[Site("attn_probs", layer)][..., beyond]
        assert bool((far == 0).all() if window else (far > 0).all())


# What a kind that is missing says about itself.
REASONS = {
    ("gpt_neox", "resid_mid"): "read the same stream side by side, so there is no state between",
    ("falcon", "resid_mid"): "read the same stream side by side, so there is no state between",
    ("mixtral", "mlp_act"): "a mixture of experts has no neurons that all tokens share",
    ("qwen2_moe", "mlp_act"): "a mixture of experts has no neurons that all tokens share",
    ("gpt_oss", "mlp_pre"): "a mixture of experts has no neurons that all tokens share",
    ("llama", "router"): "it is no mixture of experts",
    ("mamba", "attn_probs"): "no attention was heard in its blocks",
    ("mamba", "resid_mid"): "no attention was heard in its blocks",
    ("mamba", "mlp_out"): "no attention and MLP that add to the stream",
}


@pytest.mark.parametrize(("family", "kind"), list(REASONS))
def test_a_kind_that_a_model_lacks_is_refused_with_the_reason(lively, family, kind):
    model = lively(family)
    with pytest.raises(SiteError, match=rf"no '{kind}': .*{REASONS[family, kind]}"):
        model.activations(model.batch([IDS]), [kind])


def test_a_layer_that_a_model_lacks_is_refused_with_those_that_it_has(lively):
    with pytest.raises(SiteError, match=r"no site resid_post\.3: the model's layers are 0 to 2"):
        lively("llama").structure.port(Site("resid_post", 3))


def test_structure_without_a_kind_keeps_the_others(lively):
    whole = lively("llama").structure
    less = whole.without({"z": "for a test"})
    assert set(whole.kinds) - set(less.kinds) == {"z"}
    assert set(whole.ports) - set(less.ports) == {Site("z", layer) for layer in range(3)}
    assert less.refused["z"] == "for a test"
    assert "z" not in less.sizes
    with pytest.raises(SiteError, match="no 'z': for a test"):
        less.port(Site("z", 0))


# Other families of transformers: config, kinds refused beside `router`, entry, multiplier.
SCALED = {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "attention_multiplier": 0.35}
OTHERS = {
    "granite": (SCALED, set(), "embeddings * 12", 0.22),
    "minicpm3": (
        {
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "num_key_value_heads": 4,
            "scale_depth": 1.4,
            "scale_emb": 12,
        },
        set(),
        "embeddings",  # its embedding module scales
        1.4 / 3**0.5,
    ),
    "cohere": ({}, {"resid_mid"}, "embeddings", 1),
    "gptj": ({"rotary_dim": 4}, {"resid_mid"}, "embeddings", 1),
    "gpt_neo": (
        {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 8},
        set(),
        "embeddings + transformer.wpe",
        1,
    ),
    "stablelm": ({}, set(), "embeddings", 1),
    "starcoder2": ({}, set(), "embeddings", 1),
    "nemotron": ({}, set(), "embeddings", 1),
    "phi": ({}, {"resid_mid"}, "embeddings", 1),
    "smollm3": ({}, set(), "embeddings", 1),
    "glm4": ({"head_dim": 8}, set(), "embeddings", 1),
    "exaone4": ({"sliding_window": 8}, set(), "embeddings", 1),
    "gemma": ({"head_dim": 8}, set(), "embeddings", 1),
    "olmoe": (
        {"num_experts": 4, "num_experts_per_tok": 2},
        {"mlp_act", "mlp_pre"},
        "embeddings",
        1,
    ),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_families_of_transformers_pass_their_proofs_with_no_code_of_their_own(proved, name):
    config, lacking, entry, multiplier = OTHERS[name]
    model = proved(name, **config)
    router = {"router"} if name != "olmoe" else set()
    assert set(model.structure.refused) == lacking | router
    assert model.structure.entry == entry
    assert model.structure.multiplier == multiplier
    assert model.proof.unwritable == {}


HYBRIDS = {
    "qwen3_next": {
        "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32, "linear_num_value_heads": 4,
        "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    },
    "deepseek_v3": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 1,
        "topk_group": 1, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8,
        "v_head_dim": 8, "qk_nope_head_dim": 8, "first_k_dense_replace": 1, "n_shared_experts": 1,
        "num_key_value_heads": 4,
    },
}  # fmt: skip
SOME_LAYERS = {
    "qwen3_next": {"q": "only layers 2 have it; elsewhere no attention was heard"},
    "deepseek_v3": {
        "mlp_act": "only layers 0 have it; elsewhere a mixture",
        "router": "only layers 1, 2 have it; elsewhere no module was found that scores",
    },
}


@pytest.mark.parametrize("name", list(HYBRIDS))
def test_a_kind_that_only_some_layers_have_is_refused_and_says_which(proved, name):
    structure = proved(name, **HYBRIDS[name]).structure
    assert {"resid_pre", "resid_post", "final_norm", "logits"} <= set(structure.kinds)
    for kind, reason in SOME_LAYERS[name].items():
        assert structure.refused[kind].startswith(reason)


def test_a_dropout_after_the_activation_is_not_taken_for_it(tiny_model):
    model = tiny_model("llama")
    for layer in model.base.layers:
        layer.mlp.act_fn = nn.Sequential(layer.mlp.act_fn, nn.Dropout()).eval()
    assert model.structure.port(Site("mlp_pre", 1)).path == "model.layers.1.mlp.act_fn.0"


def linears(count):
    return nn.ModuleList(nn.Linear(2, 2) for _ in range(count))


def test_blocks_are_the_outermost_list_as_long_as_the_model_is_deep():
    first, second = nn.Module(), nn.Module()
    first.experts = linears(2)  # as long as the model is deep, but inside a block
    second.experts = linears(2)
    base = nn.Module()
    base.adapters = linears(3)
    base.dropouts = nn.ModuleList([nn.Dropout(), nn.Dropout()])  # no parameters: no blocks
    base.h = nn.ModuleList([first, second])
    assert find_blocks(base, 2) is base.h


@pytest.mark.parametrize(
    ("names", "found"), [([], "none"), (["encoder", "decoder"], "encoder, decoder")]
)
def test_no_list_of_blocks_or_two_of_them_are_refused_by_name(names, found):
    base = nn.Module()
    for name in names:
        base.add_module(name, linears(2))
    with pytest.raises(SiteError, match=f"expected one list of 2 blocks, found {found};"):
        find_blocks(base, 2)


def test_a_block_that_does_not_return_a_stream_is_refused_by_name(tiny_model):
    model = tiny_model("llama")
    block_of = model.base.layers[1]
    block_of.register_forward_hook(lambda _module, _args, output: (output, "and more"))
    model.base.layers[2].register_forward_pre_hook(lambda _module, args: (args[0][0], *args[1:]))
    assert model.found.port(Site("resid_post", 1)).path == "model.layers.1"  # first of a tuple
    model = tiny_model("llama")
    model.base.layers[2].register_forward_hook(lambda _module, _args, output: output[..., :4])
    model.base.norm = nn.Identity()
    with pytest.raises(SiteError, match=r"block 'model\.layers\.2' does not take and return batch"):
        assert model.found


def test_sites_outside_the_blocks_have_no_layer_and_the_others_need_one():
    assert [str(site) for site in sites_of("z", 2)] == ["z.0", "z.1"]
    assert sites_of("logits", 2) == [Site("logits")]
    for kind in OUTSIDE:
        with pytest.raises(SiteError, match=f"'{kind}' has no layer; it was given 1"):
            Site(kind, 1)
    with pytest.raises(SiteError, match="'z' needs a layer; it was given None"):
        Site("z")
