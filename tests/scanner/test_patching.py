"""What is set into the other text does what is known beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scanner import Edit, Site, SiteError
from scanner.patching import PAIRS, Pair, patched

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


def test_the_share_is_a_ratio_of_sums(llama) -> None:
    found = patched(llama, [pair(llama, seed=seed) for seed in range(3)], ["resid_post"])
    top = (found.difference - found.base[:, None, None, None]).sum(0)
    np.testing.assert_allclose(found.share(), top / (found.donor - found.base).sum())


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
