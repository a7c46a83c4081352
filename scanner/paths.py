"""Which way the difference between two texts goes: from one site to another, and nowhere else.

Path patching (Wang et al. 2023; Goldowsky-Dill et al. 2023). What a sender adds to the stream of
one text is exchanged for what it adds in the other, and only a single receiver may read it:
everything between them adds what it added before. Since what is added is added up, the receiver's
input is the stream with the difference put on, and no pass with all others held fast is needed: one
pass shows what the receiver makes of that input, a second one what the model makes of the receiver.
"""

from collections.abc import Sequence

import numpy as np
import torch

from scanner.hooks import starting, visiting
from scanner.interventions import Edit, check_edit
from scanner.model import Model
from scanner.patching import Into, Pair, Patched, check_pairs, sides
from scanner.sites import Kind, Site, SiteError

SENDERS: tuple[Kind, ...] = ("attn_out_post", "mlp_out_post")
# What reads the stream before the attention adds to it, and what reads it afterwards.
FIRST: tuple[Kind, ...] = ("q", "k", "value", "z", "attn_out", "attn_out_post")
SECOND: tuple[Kind, ...] = ("mlp_pre", "mlp_act", "mlp_out", "mlp_out_post")
# Texts of a batch.
ROWS = 64


def path_patched(
    model: Model,
    pairs: Sequence[Pair],
    receiver: Site,
    *,
    heads: Sequence[int] | None = None,
    senders: Sequence[Kind] = SENDERS,
    into: Into = "corrupt",
) -> Patched:
    """Patch what every attention and every MLP adds, as one receiver alone sees it.

    Parameters
    ----------
    model : Model
    pairs : sequence of Pair
        With as many places each; there senders are patched.
    receiver : Site
        Of a block: queries, keys, values, ``z``, neurons, or what attention or MLP add. Or the
        stream behind the last block, which is all that the prediction is made of: the direct
        effect.
    heads : sequence of int, optional
        Of the receiver, where it has some: these alone see the difference. All by default.
    senders : sequence of str
        Kinds, of `SENDERS`.
    into : {'corrupt', 'clean'}
        Which text is patched; the other gives.

    Returns
    -------
    Patched
        Kinds are those of `senders`; what stands behind the receiver reaches it on no path.

    Raises
    ------
    SiteError
        If the receiver reads no stream, the model lacks a site or the receiver a head, or a pair
        is none.
    """
    check_pairs(pairs)
    entry = _entry(model, receiver)
    handed = Edit(
        receiver.kind, "replace", layers=[_layer(receiver)], value=0.0, heads=heads, must_move=False
    )
    if receiver != entry:
        model.structure.port(receiver)
        check_edit(handed, model.structure, {})
    elif heads is not None:
        raise SiteError(f"'{receiver}' has no heads")
    shape = len(senders), model.layers, len(pairs[0].places)
    made = np.empty((len(pairs), *shape))
    base, donor = np.empty(len(pairs)), np.empty(len(pairs))
    sent = [index for index in np.ndindex(shape) if _before(senders[index[0]], index[1], entry)]
    with torch.inference_mode():
        for number, pair in enumerate(pairs):
            (taker,), (giver,) = sides([pair], into)
            there, given = (model.activations(model.batch([text]), [*senders, "resid_pre"])
                            for text in (taker, giver))  # fmt: skip
            base[number], donor[number] = (_difference(model, [text], pair, [])[0]
                                           for text in (taker, giver))  # fmt: skip
            made[number] = base[number]
            stream = there[Site("resid_pre", _layer(entry))]
            for start in range(0, len(sent), ROWS):
                some = sent[start : start + ROWS]
                added = torch.zeros(len(some), len(taker), model.width, device=model.device)
                for row, (kind, layer, place) in enumerate(some):
                    site, at = Site(senders[kind], layer), pair.places[place]
                    added[row, at] = (given[site] - there[site])[0, at].float()
                added = (added * model.structure.multiplier).to(model.network.dtype)
                found = _received(model, [taker] * len(some), pair, added, stream, handed, entry)
                made[(number, *np.array(some).T)] = found
    return Patched(made, base, donor)


def _received(
    model: Model, texts: list[Sequence[int]], pair: Pair, added: torch.Tensor,
    stream: torch.Tensor, handed: Edit, entry: Site,
) -> np.ndarray:  # fmt: skip
    """What the model says if the receiver alone sees the stream with something added.

    Blocks before the receiver's do not run: what enters that is known.
    """
    begun = starting(model.network, model.found, _layer(entry), stream.repeat(len(texts), 1, 1))
    receiver = Site(handed.kind, _layer(entry))
    put = Edit(entry.kind, "add", layers=[_layer(entry)], value=added, must_move=False)
    if receiver == entry:
        with begun:
            return _difference(model, texts, pair, [put])
    with begun:
        seen: list[torch.Tensor] = []

        def hear(_site: Site, activation: torch.Tensor) -> None:
            seen.append(activation.clone())

        with model.intervene([put]), visiting(model.network, model.found, [receiver], hear):
            model.forward(model.batch(texts), head=False)
        return _difference(model, texts, pair, [handed.having(value=seen[0])])


def _difference(
    model: Model, texts: list[Sequence[int]], pair: Pair, edits: Sequence[Edit]
) -> np.ndarray:
    """Of the logits of the answers behind each text, which are of one length."""
    last = torch.tensor([len(texts[0]) - 1], device=model.device)
    with model.intervene(edits):
        logits = model.forward(model.batch(texts), head=True, columns=last)
    assert logits is not None
    right, wrong = pair.answers
    return (logits[:, 0, right].float() - logits[:, 0, wrong].float()).cpu().numpy()


def _entry(model: Model, receiver: Site) -> Site:
    """Where the receiver reads the stream."""
    if receiver == Site("resid_post", model.layers - 1):
        return receiver
    if receiver.kind in FIRST:
        return Site("resid_pre", _layer(receiver))
    if receiver.kind in SECOND:
        kind: Kind = "resid_mid" if "resid_mid" in model.structure.kinds else "resid_pre"
        return Site(kind, _layer(receiver))
    raise SiteError(
        f"'{receiver}' receives nothing from the stream; there is {', '.join(FIRST + SECOND)}, and "
        f"resid_post.{model.layers - 1} for the prediction"
    )


def _before(kind: Kind, layer: int, entry: Site) -> bool:
    """Whether what is added there is in the stream when it is read."""
    if entry.kind == "resid_mid" and kind == "attn_out_post" and layer == entry.layer:
        return True
    return layer < _layer(entry) + (entry.kind == "resid_post")


def _layer(site: Site) -> int:
    assert site.layer is not None
    return site.layer
