"""Where in a model an activation is taken, in the words of this field.

A site is a kind and a layer, written ``resid_post.12``. Layers count from 0: ``resid_post.0`` is
the residual stream after the first block. ``embeddings``, ``final_norm`` and ``logits`` stand
outside the blocks and have no layer. A site is what satisfies an identity, not what has a name:
`scanner.structure` finds it in a model, and `docs/sites.md` says what each one means.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "embeddings", "resid_pre", "q", "k", "value", "attn_scores", "attn_probs", "z", "attn_out",
    "attn_out_post", "resid_mid", "mlp_pre", "mlp_act", "mlp_out", "mlp_out_post", "resid_post",
    "router", "final_norm", "logits",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)


class SiteError(ValueError):
    """A site that this model does not have, or that does not satisfy its identities."""


class Meaning(NamedTuple):
    """What a kind of site is.

    Attributes
    ----------
    dims : tuple of str
        Its dimensions beside stimulus (or token) and layer.
    text : str
        What it holds.
    """

    dims: tuple[str, ...]
    text: str


STREAM = ("unit",)
MEANINGS: dict[Kind, Meaning] = {
    "embeddings": Meaning(STREAM, "what the token embedding returns, scaled where it scales"),
    "resid_pre": Meaning(STREAM, "residual stream that enters a block"),
    "q": Meaning(("head", "head_unit"), "queries as the scores use them: normed and rotated"),
    "k": Meaning(("kv_head", "head_unit"), "keys as the scores use them: normed and rotated"),
    "value": Meaning(("kv_head", "head_unit"), "values that the attention weights add up"),
    "attn_scores": Meaning(("head",), "what enters the softmax: scaled, capped, biased, masked"),
    "attn_probs": Meaning(("head",), "what the softmax gives to each key"),
    "z": Meaning(("head", "head_unit"), "what enters the attention's output projection"),
    "attn_out": Meaning(STREAM, "what the attention returns"),
    "attn_out_post": Meaning(STREAM, "what the attention adds to the stream, after a post-norm"),
    "resid_mid": Meaning(STREAM, "residual stream between attention and MLP"),
    "mlp_pre": Meaning(("neuron",), "what enters the MLP's activation function"),
    "mlp_act": Meaning(("neuron",), "what enters the MLP's last projection: the neurons"),
    "mlp_out": Meaning(STREAM, "what the MLP returns"),
    "mlp_out_post": Meaning(STREAM, "what the MLP adds to the stream, after a post-norm"),
    "resid_post": Meaning(STREAM, "residual stream that leaves a block"),
    "router": Meaning(("expert",), "scores of a mixture's experts, before any softmax"),
    "final_norm": Meaning(STREAM, "residual stream after the norm that follows the last block"),
    "logits": Meaning(("vocabulary",), "scores of the next token"),
}  # fmt: skip
OUTSIDE: tuple[Kind, ...] = ("embeddings", "final_norm", "logits")
# A row of these is a query with one key; their values are kept for keys up to the query.
PAIRED: tuple[Kind, ...] = ("attn_scores", "attn_probs")
# What of a layer can be left out.
Part = Literal["block", "attention", "mlp"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Site:
    """One place of one layer, ``resid_post.12``; the layer is None outside the blocks."""

    kind: Kind
    layer: int | None = None

    def __post_init__(self) -> None:
        if (self.layer is None) != (self.kind in OUTSIDE):
            needs = "has no layer" if self.kind in OUTSIDE else "needs a layer"
            raise SiteError(f"site '{self.kind}' {needs}; it was given {self.layer}")

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"


def sites_of(kind: Kind, layers: int) -> list[Site]:
    """The sites of a kind: one a layer, or the one outside the blocks."""
    return [Site(kind)] if kind in OUTSIDE else [Site(kind, layer) for layer in range(layers)]
