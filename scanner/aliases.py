"""Names from other tools, resolved to our sites.

Whoever comes from TransformerLens, sae-lens, sparsify, nnterp or a model's own modules writes the
name they know. A name is not a meaning: `ALIASES` holds the names that mean one of our sites, with
what to beware of, and `REFUSALS` those that almost do, with the nearest site.

Two things hold for all of them. Our own words come first: ``attn_out`` and ``mlp_out`` are what
the module returns and ``q`` and ``k`` enter the scores, though the same letters are short forms of
TransformerLens for other places. And only the place is translated: the processed weights of
``HookedTransformer.from_pretrained`` (folded norms, centred writing weights, folded value biases)
give other numbers at the same place than the model as published, which is what is read here.

TransformerLens was read in versions 2.18.0 (``HookedTransformer``) and 4.3.0
(``TransformerBridge``), sae-lens in 6.54.12, sparsify in 1.3.3, nnterp in 1.3.0.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from scanner.sites import KINDS, OUTSIDE, Kind, Site, SiteError, sites_of


class Place(NamedTuple):
    """What a name stands for.

    Attributes
    ----------
    kind : str
        A kind of site.
    layer : int or None
        Its layer; None for every layer, and for a kind that stands outside the blocks.
    """

    kind: Kind
    layer: int | None = None

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"

    def sites(self, layers: int) -> list[Site]:
        """Its sites in a model of so many layers.

        Raises
        ------
        SiteError
            If the model does not have the layer.
        """
        if self.layer is None:
            return sites_of(self.kind, layers)
        if self.layer >= layers:
            raise SiteError(f"{self}: this model has the layers 0 to {layers - 1}")
        return [Site(self.kind, self.layer)]


class Alias(NamedTuple):
    """A name that means one of our kinds.

    Attributes
    ----------
    name : str
        The name, with ``{layer}`` for the number of the layer.
    origin : str
        Whose name it is.
    kind : str
        What it means here.
    note : str
        In which families or versions the other tool means something else.
    """

    name: str
    origin: str
    kind: Kind
    note: str = ""


class Refusal(NamedTuple):
    """A name that means none of our kinds.

    Attributes
    ----------
    name : str
        The name, with ``{layer}`` for the number of the layer and the wildcards of `fnmatch`.
    origin : str
        Whose name it is.
    reason : str
        What it is instead.
    nearest : str or None
        The kind that is nearest to it.
    """

    name: str
    origin: str
    reason: str
    nearest: Kind | None = None


HOOKED, BRIDGE = "TransformerLens", "TransformerLens 3 and later"
SHORT, NNTERP, GEMMA_SCOPE = "TransformerLens get_act_name", "nnterp", "Gemma Scope"
MODULE = "module path, sparsify hookpoint"

_POST = (
    "after the post-norm of Gemma 2, Gemma 3 and OLMo 2, the same as {} without one; "
    "Granite's residual multiplier is in it in TransformerLens 4, and not here"
)
_ATTN_POST, _MLP_POST = _POST.format("attn_out"), _POST.format("mlp_out")
_ROTATED = (
    "in TransformerLens 4 DeepSeek has only the rotated part here, Hunyuan is before its norm, and "
    "GPT-NeoX does not fire"
)
_VALUE = "before the values' norm in Gemma 3n and Gemma 4; ours is after it"
_SCORES = (
    "masked with minus infinity, where transformers takes the lowest number; where TransformerLens "
    "4 keeps a family's own attention it fires after the softmax"
)
_PRE = "the gate's branch of a gated MLP; in a mixture TransformerLens 4 gives the MLP's input"
_ACT = "in a mixture TransformerLens 4 gives the MLP's output"
_EMBED = "scaled where the model scales (Gemma); Bloom: after the embedding's norm, ours before it"
_CONVENTION = "by convention; once a model is loaded its own structure decides"

# fmt: off
ALIASES: tuple[Alias, ...] = (
    Alias("hook_embed", HOOKED, "embeddings", _EMBED),
    Alias("blocks.{layer}.hook_resid_pre", HOOKED, "resid_pre"),
    Alias("blocks.{layer}.hook_resid_mid", HOOKED, "resid_mid"),
    Alias("blocks.{layer}.hook_resid_post", HOOKED, "resid_post"),
    Alias("blocks.{layer}.hook_attn_out", HOOKED, "attn_out_post", _ATTN_POST),
    Alias("blocks.{layer}.hook_mlp_out", HOOKED, "mlp_out_post", _MLP_POST),
    Alias("blocks.{layer}.attn.hook_rot_q", HOOKED, "q", _ROTATED),
    Alias("blocks.{layer}.attn.hook_rot_k", HOOKED, "k", _ROTATED),
    Alias("blocks.{layer}.attn.hook_v", HOOKED, "value", _VALUE),
    Alias("blocks.{layer}.attn.hook_attn_scores", HOOKED, "attn_scores", _SCORES),
    Alias("blocks.{layer}.attn.hook_pattern", HOOKED, "attn_probs"),
    Alias("blocks.{layer}.attn.hook_z", HOOKED, "z"),
    Alias("blocks.{layer}.mlp.hook_pre", HOOKED, "mlp_pre", _PRE),
    Alias("blocks.{layer}.mlp.hook_post", HOOKED, "mlp_act", _ACT),

    Alias("embed.hook_out", BRIDGE, "embeddings"),
    Alias("embed_ln.hook_in", BRIDGE, "embeddings"),
    Alias("blocks.{layer}.hook_in", BRIDGE, "resid_pre"),
    Alias("blocks.{layer}.hook_out", BRIDGE, "resid_post"),
    Alias("blocks.{layer}.attn.hook_out", BRIDGE, "attn_out"),
    Alias("blocks.{layer}.attn.hook_hidden_states", BRIDGE, "attn_out",
          "the output, whatever it is called; fires only where one projection makes q, k and v"),
    Alias("blocks.{layer}.attn.v.hook_out", BRIDGE, "value", _VALUE),
    Alias("blocks.{layer}.attn.o.hook_in", BRIDGE, "z"),
    Alias("blocks.{layer}.attn.o.hook_out", BRIDGE, "attn_out"),
    Alias("blocks.{layer}.ln1_post.hook_in", BRIDGE, "attn_out"),
    Alias("blocks.{layer}.ln1_post.hook_out", BRIDGE, "attn_out_post"),
    Alias("blocks.{layer}.mlp.out.hook_in", BRIDGE, "mlp_act"),
    Alias("blocks.{layer}.mlp.out.hook_out", BRIDGE, "mlp_out"),
    Alias("blocks.{layer}.mlp.hook_out", BRIDGE, "mlp_out"),
    Alias("blocks.{layer}.ln2_post.hook_in", BRIDGE, "mlp_out"),
    Alias("blocks.{layer}.ln2_post.hook_out", BRIDGE, "mlp_out_post"),
    Alias("ln_final.hook_out", BRIDGE, "final_norm"),

    Alias("embed", SHORT, "embeddings", _EMBED),
    Alias("rot_q{layer}", SHORT, "q", _ROTATED),
    Alias("rot_k{layer}", SHORT, "k", _ROTATED),
    Alias("v{layer}", SHORT, "value", _VALUE),
    Alias("value{layer}", SHORT, "value", _VALUE),
    Alias("attn_logits{layer}", SHORT, "attn_scores", _SCORES),
    Alias("pattern{layer}", SHORT, "attn_probs"),
    Alias("attn{layer}", SHORT, "attn_probs", "the pattern, not the output"),
    Alias("z{layer}", SHORT, "z"),
    Alias("pre{layer}", SHORT, "mlp_pre", _PRE),
    Alias("post{layer}", SHORT, "mlp_act", _ACT),
    Alias("mlp_post{layer}", SHORT, "mlp_act", f"the neurons, not mlp_out_post; {_ACT}"),

    Alias("res{layer}", GEMMA_SCOPE, "resid_post"),
    Alias("att{layer}", GEMMA_SCOPE, "z"),
    Alias("mlp{layer}", GEMMA_SCOPE, "mlp_out_post"),

    Alias("token_embeddings", NNTERP, "embeddings"),
    Alias("layers_input[{layer}]", NNTERP, "resid_pre"),
    Alias("layers_output[{layer}]", NNTERP, "resid_post"),
    Alias("attention_probabilities[{layer}]", NNTERP, "attn_probs"),
    Alias("attentions_output[{layer}]", NNTERP, "attn_out", "before any post-norm"),
    Alias("mlps_output[{layer}]", NNTERP, "mlp_out", "before any post-norm"),
)

_BLOCKS = ("layers", "h", "blocks")
# Without a model only what families agree on is taken from a path; with one, its ports decide.
CONVENTIONS: tuple[Alias, ...] = (
    *(Alias(name, MODULE, "embeddings", _CONVENTION)
      for name in ("embed_tokens", "wte", "embed_in")),
    *(Alias(f"{blocks}.{{layer}}:input", MODULE, "resid_pre", _CONVENTION) for blocks in _BLOCKS),
    *(Alias(attention, MODULE, "attn_out", _CONVENTION)
      for attention in ("layers.{layer}.self_attn", "layers.{layer}.attention", "h.{layer}.attn",
                        "h.{layer}.self_attention", "blocks.{layer}.attn")),
    *(Alias(f"{blocks}.{{layer}}.mlp", MODULE, "mlp_out", _CONVENTION) for blocks in _BLOCKS),
    *(Alias(f"{blocks}.{{layer}}", MODULE, "resid_post", _CONVENTION) for blocks in _BLOCKS),
    *(Alias(name, MODULE, "final_norm", _CONVENTION)
      for name in ("norm", "ln_f", "final_layer_norm")),
)

_Q = ("it is before the rotation and, in Qwen 3, Gemma 3 and OLMo 2, before the norm; our {0} is "
      "what enters the scores, which TransformerLens calls attn.hook_rot_{0} (where nothing "
      "rotates or norms, as in GPT-2, the two are the same)")
_NORM = "what goes on inside a norm is recorded nowhere"
_NORMED = "what enters a module behind its norm is recorded nowhere"
_HEADS = "it is the stream that enters the block, copied for each head"
_RESULT = "what each head gives to attn_out is recorded nowhere; it is its part of z times W_O"
_UP = "the branch of a gated MLP without an activation function is recorded nowhere"
_MID = "what enters the norm inside a SoLU MLP is recorded nowhere"
_ROUTED = "it is after the softmax, or the choice made from it; our router is before any softmax"
_MLP_IN = "it is the stream before the norm: resid_mid, and in a parallel block resid_pre"
_POSITION = "position embeddings are recorded nowhere; with them the stream is resid_pre.0"
_UNCAPPED = "it is before the cap of Gemma 2, our logits are after it"
_QK: tuple[tuple[Kind, str], ...] = (("q", "query"), ("k", "key"))

REFUSALS: tuple[Refusal, ...] = (
    *(Refusal(name, origin, _Q.format(kind), kind)
      for kind, word in _QK
      for name, origin in (
          (f"blocks.{{layer}}.attn.hook_{kind}", HOOKED), (f"{kind}{{layer}}", SHORT),
          (f"{word}{{layer}}", SHORT), (f"blocks.{{layer}}.attn.{kind}.hook_out", BRIDGE),
          (f"blocks.{{layer}}.attn.hook_{kind}_normed", BRIDGE),
          (f"blocks.{{layer}}.attn.{kind}_norm.hook_in", BRIDGE),
          (f"blocks.{{layer}}.attn.{kind}_norm.hook_out", BRIDGE))),
    Refusal("blocks.{layer}.mlp.experts.*", HOOKED, "no single expert is recorded", "router"),
    Refusal("ln_final.hook_normalized", HOOKED,
            "it is before the norm's weight (in TransformerLens 2 only LayerNorm without folded "
            "weights has it behind); our final_norm is what the norm returns", "final_norm"),
    Refusal("normalized", SHORT, "it is ln_final.hook_normalized, before the norm's weight",
            "final_norm"),
    Refusal("blocks.{layer}.ln1.hook_in", BRIDGE, "not every family has this norm there",
            "resid_pre"),
    Refusal("blocks.{layer}.ln2.hook_in", BRIDGE, _MLP_IN, "resid_mid"),
    Refusal("ln_final.hook_in", BRIDGE, "it is resid_post of the last layer", "resid_post"),
    *(Refusal(f"blocks.{{layer}}.ln1.hook_{part}", HOOKED, _NORMED, "resid_pre")
      for part in ("normalized", "out")),
    *(Refusal(f"blocks.{{layer}}.ln2.hook_{part}", HOOKED, _NORMED, "resid_mid")
      for part in ("normalized", "out")),
    *(Refusal(name, HOOKED, _NORM) for name in ("*.hook_normalized", "*.hook_scale")),
    *(Refusal(name, SHORT, _NORM) for name in ("normalized{layer}", "scale{layer}", "scale")),
    *(Refusal(f"blocks.{{layer}}.{attn}hook_{word}", HOOKED, _HEADS, "resid_pre")
      for attn in ("", "attn.") for word in ("attn_in", "q_input", "k_input", "v_input")),
    *(Refusal(f"{word}{{layer}}", SHORT, _HEADS, "resid_pre")
      for word in ("attn_in", "q_input", "k_input", "v_input")),
    Refusal("blocks.{layer}.attn.hook_attn_input", HOOKED,
            "it is the stream that enters the block, plus shortformer positions", "resid_pre"),
    *(Refusal(f"blocks.{{layer}}.attn.{part}hook_in", BRIDGE, _NORMED, "resid_pre")
      for part in ("", "q.", "k.", "v.", "qkv.")),
    Refusal("blocks.{layer}.attn.qkv.hook_out", BRIDGE, "it is q, k and value in one, unrotated",
            "q"),
    Refusal("blocks.{layer}.attn.hook_result", HOOKED, _RESULT, "z"),
    Refusal("result{layer}", SHORT, _RESULT, "z"),
    Refusal("blocks.{layer}.hook_mlp_in", HOOKED, _MLP_IN, "resid_mid"),
    Refusal("mlp_in{layer}", SHORT, _MLP_IN, "resid_mid"),
    *(Refusal(f"blocks.{{layer}}.mlp.{part}hook_in", BRIDGE, _NORMED, "resid_mid")
      for part in ("", "in.", "gate.")),
    Refusal("blocks.{layer}.mlp.hook_pre_linear", HOOKED, _UP, "mlp_act"),
    Refusal("pre_linear{layer}", SHORT, _UP, "mlp_act"),
    Refusal("blocks.{layer}.mlp.hook_mid", HOOKED, _MID, "mlp_act"),
    Refusal("mid{layer}", SHORT, _MID, "mlp_act"),
    Refusal("mlp_mid{layer}", SHORT, _MID, "mlp_act"),
    Refusal("blocks.{layer}.mlp.in.hook_out", BRIDGE,
            "it is mlp_pre where no gate is, and else the branch without activation function, "
            "which is recorded nowhere", "mlp_pre"),
    Refusal("blocks.{layer}.mlp.gate.hook_out", BRIDGE,
            "it is mlp_pre in a gated MLP, and router in a mixture of experts; write which",
            "mlp_pre"),
    *(Refusal(f"blocks.{{layer}}.mlp.{gate}hook_{word}", HOOKED, _ROUTED, "router")
      for gate in ("", "gate.") for word in ("expert_weights", "expert_indices", "router_scores")),
    Refusal("hook_unembed", BRIDGE, _UNCAPPED, "logits"),
    Refusal("unembed.hook_out", BRIDGE, _UNCAPPED, "logits"),
    Refusal("unembed.hook_in", BRIDGE, "a family may scale or project what the norm returns",
            "final_norm"),
    *(Refusal(name, HOOKED, _POSITION, "embeddings")
      for name in ("hook_pos_embed", "pos_embed", "pos_embed.hook_*", "rotary_emb.hook_*",
                   "blocks.{layer}.attn.hook_cos", "blocks.{layer}.attn.hook_sin")),
    *(Refusal(name, HOOKED, "it holds token numbers, not an activation", "embeddings")
      for name in ("hook_tokens", "tokens", "embed.hook_in")),
    Refusal("embed_ln.hook_out", BRIDGE, "it is behind the embedding's norm", "resid_pre"),
    Refusal("attentions_input{layer}", NNTERP, _NORMED, "resid_pre"),
    Refusal("mlps_input{layer}", NNTERP, _NORMED, "resid_mid"),
    Refusal("hidden_states{layer}", "transformers",
            "hidden_states[0] is resid_pre.0 and hidden_states[i] is resid_post.(i-1), except the "
            "last, which has passed the final norm: final_norm", "resid_post"),
)

# What stands before the list of blocks; an encoder or a vision tower is not among them.
PREFIXES = ("base_model", "model", "transformer", "gpt_neox", "decoder", "language_model",
            "backbone")
# fmt: on

FORMS = (
    "accepted are our own names ('resid_post.12', 'resid_post' for every layer, 'embeddings'), "
    "hooks of TransformerLens ('blocks.12.hook_resid_post'), and module paths with a side "
    "('model.layers.12.mlp.down_proj:input')"
)

_LAYER = r"(\d+|\*|\{layer\})"
_SEGMENT = re.compile(rf"(?:^|(?<=\.)){_LAYER}(?=[.:]|$)")
_COMPACT = re.compile(rf"([a-z_]+){_LAYER}(?:[a-z]\w*)?")


class Spelling(NamedTuple):
    """A name with ``{layer}`` in place of its layer, and the layer as it was written."""

    key: str
    layer: str | None


def resolve(name: str, *, ports: Mapping[str, Site] | None = None) -> Place:
    """What a name of ours or of another tool stands for.

    Parameters
    ----------
    name : str
        A name of ours, of `ALIASES`, or the path of a module with ``:input`` or ``:output``
        (which is meant where neither is said). ``*`` for the number of the layer is every layer.
    ports : mapping of str to Site, optional
        For a loaded model, ``path:side`` to the site that is there. A path may leave out what
        stands before it as long as one site is meant. Without it, only `CONVENTIONS` are known.

    Returns
    -------
    Place
        A kind, with a layer or for all of them.

    Raises
    ------
    SiteError
        If the name means none of our sites, more than one, or nothing that is known.
    """
    name = name.strip()
    spelling = _spell(name)
    found = _own(name) or _look_up(spelling, _INDEX)
    if found is None:
        _refuse(name, spelling)
        found = _by_convention(name) if ports is None else _by_ports(name, ports)
    if found is None:
        raise SiteError(_unknown(name, spelling, ports))
    return found


def _spell(name: str) -> Spelling:
    """Part a name and its layer: the first segment that is a number, or one behind a lone word."""
    name = re.sub(rf"\[{_LAYER}\]", r".\1", name)
    segment = _SEGMENT.search(name)
    if segment is not None:
        key = f"{name[: segment.start()]}{{layer}}{name[segment.end() :]}"
        return Spelling(re.sub(r"^(\w+)\.\{layer\}$", r"\1{layer}", key), segment[1])
    compact = _COMPACT.fullmatch(name)
    if compact is not None:
        return Spelling(f"{compact[1]}{{layer}}", compact[2])
    return Spelling(name, None)


def _index(rows: tuple[Alias, ...]) -> dict[str, Alias]:
    return {_spell(row.name).key: row for row in rows}


_KINDS: dict[str, Kind] = {kind: kind for kind in KINDS}
_INDEX = _index(ALIASES)
_CONVENTIONAL = _index(CONVENTIONS)


def _keys(spelling: Spelling) -> Iterator[str]:
    """A name without its layer may leave out the block, and a lone hook its module."""
    yield spelling.key
    if spelling.layer is None:
        yield f"blocks.{{layer}}.{spelling.key}"
        yield f"{spelling.key.removeprefix('hook_')}{{layer}}"


def _number(layer: str | None) -> int | None:
    return int(layer) if layer is not None and layer.isdecimal() else None


def _own(name: str) -> Place | None:
    word, dot, layer = name.partition(".")
    kind = _KINDS.get(word)
    if kind is None or (dot and not re.fullmatch(r"-?\d+|\*", layer)):
        return None
    if dot and kind in OUTSIDE:
        raise SiteError(f"{name!r}: {kind} stands outside the blocks; write {kind!r}")
    if layer.startswith("-"):
        raise SiteError(f"{name!r}: layers count from 0; from the end they do not count")
    return Place(kind, _number(layer))


def _look_up(spelling: Spelling, index: Mapping[str, Alias]) -> Place | None:
    for key in _keys(spelling):
        if key in index:
            return Place(index[key].kind, _number(spelling.layer))
    return None


def _refuse(name: str, spelling: Spelling) -> None:
    for key in _keys(spelling):
        for row in REFUSALS:
            if fnmatchcase(key, row.name):
                nearest = _nearest(row, spelling)
                raise SiteError(f"{name!r} is none of our sites: {row.reason}{nearest}")


def _nearest(row: Refusal, spelling: Spelling) -> str:
    if row.nearest is None:
        return ""
    layer = None if row.nearest in OUTSIDE else _number(spelling.layer)
    return f". The nearest is {str(Place(row.nearest, layer))!r}"


def _sides(name: str) -> Iterator[tuple[str, str]]:
    """Readings of a path: ``path:side``, ``path.side`` (sae-lens's hf_hook_name), or the output."""
    path, colon, side = name.rpartition(":")
    if colon:
        if side in ("input", "output"):
            yield path, side
        return
    yield name, "output"
    path, _, side = name.rpartition(".")
    if path and side in ("input", "output"):
        yield path, side


def _short(path: str) -> str:
    """A path without what stands before the blocks."""
    segments = path.split(".")
    while len(segments) > 1 and segments[0] in PREFIXES:
        del segments[0]
    return ".".join(segments)


def _by_convention(name: str) -> Place | None:
    for path, side in _sides(name):
        spelling = _spell(_short(path) + (":input" if side == "input" else ""))
        if spelling.key in _CONVENTIONAL:
            return Place(_CONVENTIONAL[spelling.key].kind, _number(spelling.layer))
    return None


def _by_ports(name: str, ports: Mapping[str, Site]) -> Place | None:
    for path, side in _sides(name):
        for ending in dict.fromkeys((path, _short(path))):
            found = _ending_with(ending, side, ports)
            if found:
                return _one(name, found)
    return None


def _ending_with(path: str, side: str, ports: Mapping[str, Site]) -> dict[str, Site]:
    """Ports at this very path, or else at paths that end with it."""
    pattern = re.escape(path).replace(r"\*", r"\d+")
    for start in ("", r"(?:.*\.)?"):
        whole = re.compile(f"{start}{pattern}:{side}")
        found = {port: site for port, site in ports.items() if whole.fullmatch(port)}
        if found:
            return found
    return {}


def _one(name: str, found: Mapping[str, Site]) -> Place:
    sites = set(found.values())
    site = next(iter(sites))
    if len(sites) == 1:
        return Place(site.kind, site.layer)
    if "*" in name and all(other.kind == site.kind for other in sites):
        return Place(site.kind)
    some = ", ".join(f"{port} ({site})" for port, site in list(found.items())[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    raise SiteError(f"{name!r} could be {some}{more}; write more of the path")


def _unknown(name: str, spelling: Spelling, ports: Mapping[str, Site] | None) -> str:
    there = _other_side(name, ports or {})
    if there:
        return f"{name!r} has no site on that side; on the other is {there}"
    layer = spelling.layer or "0"
    known = [f"{kind}.{layer}" if "{layer}" in spelling.key else kind for kind in KINDS]
    known += [row.name.replace("{layer}", layer) for row in ALIASES]
    known += list(ports or ())
    close = get_close_matches(name, known, n=1, cutoff=0.75)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    if not close and ports is None and "." in name:
        meant = " before a model is loaded; if it is the path of a module, load the model first"
    return f"{name!r} is no site that is known{meant} ({FORMS}; kinds: {', '.join(KINDS)})"


def _other_side(name: str, ports: Mapping[str, Site]) -> str:
    other = {"input": "output", "output": "input"}
    for path, side in _sides(name):
        found = _ending_with(_short(path), other[side], ports)
        if len(found) == 1:
            port, site = next(iter(found.items()))
            return f"{str(site)!r} ({port})"
    return ""
