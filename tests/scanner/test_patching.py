"""What is set into the other text does what is known beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scanner import Edit, Site, SiteError, Trial, sweep
from scanner.patching import PAIRS, Pair, attributed, patched, share_of_way

KINDS = ("resid_post", "attn_out_post", "mlp_out_post")
LENGTH = 8


def pair(model, *, differs: int = 3, length: int = LENGTH, seed: int = 0, places=(0, 3, 7)) -> Pair:
    """Random texts that differ in one token."""
    clean = model.prompt(length, seed=seed)
    corrupt = list(clean)
    corrupt[differs] = (clean[differs] + 100) % model.vocabulary
    return Pair(clean, corrupt, (5 + seed, 9), places)


@pytest.fixture
def llama(proved):
    return proved("llama")


@pytest.mark.having("attn_out_post", "mlp_out_post")
def test_a_patch_is_a_pass_with_the_other_texts_activation(family, proved) -> None:
    model = proved(family)
    pairs = [pair(model, seed=seed, length=LENGTH + seed) for seed in range(2)]
    for into in ("corrupt", "clean"):
        found = patched(model, pairs, KINDS, into=into)
        for number, (clean, corrupt, answers, places) in enumerate(pairs):
            taker, giver = (corrupt, clean) if into == "corrupt" else (clean, corrupt)
            given = model.activations(model.batch([giver]), KINDS)
            batch = model.batch([taker])
            for kind, layer, place in np.ndindex(3, model.layers, 3):
                at = places[place]
                value = given[Site(KINDS[kind], layer)][0, at]
                edit = Edit(
                    KINDS[kind], "replace", layers=[layer], positions=[at], value=value,
                    must_move=False,
                )  # fmt: skip
                with torch.no_grad(), model.intervene([edit]):
                    logits = model.forward(batch, head=True)[0, -1]
                expected = float(logits[answers[0]] - logits[answers[1]])
                assert found.difference[number, kind, layer, place] == pytest.approx(
                    expected, rel=1e-4, abs=1e-5
                )


def test_what_comes_before_the_difference_does_nothing_and_the_end_of_the_stream_all(llama) -> None:
    pairs = [pair(llama, seed=seed) for seed in range(PAIRS + 2)]
    denoised, noised = (patched(llama, pairs, KINDS, into=into) for into in ("corrupt", "clean"))
    for found in (denoised, noised):
        share = found.share()
        np.testing.assert_allclose(share[:, :, 0], 0, atol=1e-4)  # before the texts differ
        assert share[0, -1, 2] == pytest.approx(1, abs=1e-4)  # what leaves the last block
        assert share[0, -1, 1] == pytest.approx(0, abs=1e-4)  # which nothing reads elsewhere
    np.testing.assert_allclose(denoised.base, noised.donor, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(denoised.donor, noised.base, rtol=1e-5, atol=1e-6)


def test_the_same_text_gives_nothing(llama) -> None:
    same = pair(llama)._replace(corrupt=pair(llama).clean)
    found = patched(llama, [same], KINDS)
    np.testing.assert_allclose(found.difference, found.base[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="do not differ in their answers"):
        replace(found, donor=found.base).share()


@torch.no_grad()
def test_where_no_token_sees_another_only_the_last_one_counts(tiny_model) -> None:
    """Without attention the answer is of the last token alone, in every layer of the stream."""
    model = tiny_model("llama", seed=5)
    for block in model.base.layers:
        block.self_attn.o_proj.weight.zero_()
    texts = [pair(model, differs=LENGTH - 1, seed=seed) for seed in range(3)]
    share = patched(model, texts, ["resid_post"]).share()[0]
    np.testing.assert_allclose(share[:, :2], 0, atol=1e-5)
    np.testing.assert_allclose(share[:, 2], 1, atol=1e-5)


def test_the_share_is_the_slope_over_pairs(llama) -> None:
    found = patched(llama, [pair(llama, seed=seed) for seed in range(3)], ["resid_post"])
    moved, whole = found.difference[:, 0, 1, 1] - found.base, found.donor - found.base
    slope = np.linalg.lstsq(whole[:, None], moved, rcond=None)[0][0]
    np.testing.assert_allclose(found.share()[0, 1, 1], slope)
    # Of pairs that differ alike it is the ratio of sums; of such as differ both ways it is known.
    rng = np.random.default_rng(0)
    way = rng.normal(size=400)
    assert share_of_way(0.3 * np.ones(5), np.ones(5)) == pytest.approx(0.3)
    assert share_of_way(0.3 * way + 0.1 * rng.normal(size=400), way) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corrupt": [1, 2, 3]}, "pair 1: its texts have 8 and 3 tokens"),
        ({"places": (0, 3)}, "pair 1: 2 places, where the first has 3"),
        ({"places": (0, 3, 8)}, r"pair 1: no positions \[8\] among 8 tokens"),
        ({"places": (0, 3, -1)}, r"pair 1: no positions \[-1\] among 8 tokens"),
    ],
)
def test_pairs_that_cannot_be_patched_are_named(llama, changed, message) -> None:
    pairs = [pair(llama), pair(llama, seed=1)._replace(**changed)]
    with pytest.raises(SiteError, match=message):
        patched(llama, pairs, KINDS)


@pytest.mark.parametrize("kind", ["logits", "attn_probs", "embeddings"])
def test_kinds_that_are_no_vector_of_a_token_in_a_block_are_refused(llama, kind) -> None:
    with pytest.raises(SiteError, match=f"'{kind}' cannot be patched"):
        patched(llama, [pair(llama)], [kind])


# --- attribution patching


@pytest.mark.having("resid_mid", "attn_out_post", "mlp_out_post")
def test_an_attribution_is_the_slope_of_a_patch_that_is_begun(family, proved) -> None:
    """Against a hundredth of each patch, forwards and backwards."""
    model = proved(family)
    kinds = ("resid_pre", "resid_mid", "attn_out_post", "mlp_out_post", "z", "q", "k", "value")
    kinds = tuple(kind for kind in kinds if kind in model.structure.kinds)
    pairs = [pair(model, seed=seed, length=LENGTH + seed) for seed in range(2)]
    found = attributed(model, pairs, kinds)
    for number, (clean, corrupt, answers, places) in enumerate(pairs):
        given, there = (model.activations(model.batch([text]), kinds) for text in (clean, corrupt))
        edits = [
            (index, Edit(kinds[index[0]], "replace", layers=[index[1]], positions=[at],
                         value=there[site][0, at] + size * (given[site] - there[site])[0, at],
                         must_move=False))
            for index in np.ndindex(found.difference.shape[1:])
            for at, site in [(places[index[2]], Site(kinds[index[0]], index[1]))]
            for size in (0.01, -0.01)
        ]  # fmt: skip
        trials = [Trial(0, (edit,)) for _, edit in edits]
        scores = np.empty(len(trials))
        for some in sweep(model, [corrupt], trials, answers=[answers]):
            scores[some.trials] = some.logits[:, 0] - some.logits[:, 1]
        slopes = (scores[::2] - scores[1::2]) / 0.02
        moved = found.difference[number] - found.base[number]
        np.testing.assert_allclose(moved.ravel(), slopes, atol=0.02 * np.abs(slopes).max())
    exact = patched(model, pairs, kinds)
    np.testing.assert_allclose(found.base, exact.base, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.donor, exact.donor, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_where_everything_is_linear_attributions_are_patches(tiny_model) -> None:
    """No norms, no nonlinearity, and attention to all tokens alike."""
    model = tiny_model("gpt2", seed=3)
    model.base.ln_f = torch.nn.Identity()
    for block in model.base.h:
        block.ln_1 = block.ln_2 = block.mlp.act = torch.nn.Identity()
        block.attn.c_attn.weight[:, : 2 * model.width] = 0
    pairs = [pair(model, seed=seed) for seed in range(3)]
    for into in ("corrupt", "clean"):
        exact, estimated = (way(model, pairs, KINDS, into=into) for way in (patched, attributed))
        moved = np.abs(exact.difference - exact.base[:, None, None, None])
        assert np.isclose(moved[:, 0, -1, 2], np.abs(exact.donor - exact.base), rtol=1e-3).all()
        np.testing.assert_allclose(
            estimated.difference, exact.difference, atol=1e-4 * moved.max(), rtol=1e-4
        )


@torch.no_grad()
def test_a_saturated_softmax_has_no_slope_where_a_patch_turns_it_round(tiny_model) -> None:
    """Where attribution fails, its disagreement with patches has to show it."""
    model = tiny_model("gpt2", seed=3)
    assert model.proof  # of which a model without slopes would fail some
    for block in model.base.h:
        block.attn.c_attn.weight[:, : 2 * model.width] *= 300
    pairs = [pair(model, seed=seed, places=(7,), differs=7) for seed in range(3)]
    exact, estimated = (
        np.abs((found.difference - found.base[:, None, None, None])[:, 0, -1])
        for found in (way(model, pairs, ["q"]) for way in (patched, attributed))
    )
    assert estimated.max() < 0.05 * exact.max()


def test_weights_take_gradients_again_after_an_attribution_that_failed(llama) -> None:
    llama.network.requires_grad_(True)
    with pytest.raises(SiteError, match="expert"):
        attributed(llama, [pair(llama)], ["router"])
    assert all(one.requires_grad for one in llama.network.parameters())
    attributed(llama, [pair(llama)], KINDS)
    assert all(one.requires_grad for one in llama.network.parameters())
