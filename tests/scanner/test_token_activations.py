"""Activations of all tokens are those of the model's own passes, and each token counts once."""

import numpy as np
import torch

from scanner import Site
from scanner.token_activations import each_once, token_activations


def test_tokens_are_read_as_the_model_computes_them(tiny_model) -> None:
    model = tiny_model("llama")
    ids = [model.prompt(length, seed=length) for length in (5, 2, 9)]
    ids += [[*ids[2][:6], 3, 4], [*ids[2][:6], 5]]
    sites = [Site("resid_post", 1), Site("z", 0)]
    found = token_activations(model, ids, sites)
    for site in sites:
        for text, own in zip(ids, found[site], strict=True):
            with torch.no_grad():
                expected = model.activations(model.batch([text]), [site.kind])[site].flatten(2)
            np.testing.assert_allclose(own, expected[0, 1:].numpy(), rtol=1e-4, atol=1e-5)


def test_what_texts_begin_with_counts_once() -> None:
    ids = [[1, 2, 3, 4], [1, 2, 3, 5], [1, 9], [1, 2, 3, 4]]
    activations = [
        np.array([[sum(text[: end + 1])] for end in range(1, len(text))]) for text in ids
    ]
    found = each_once(ids, activations)
    # 1 2, 1 2 3, 1 2 3 4, 1 2 3 5 and 1 9; never the first.
    assert sorted(found[:, 0].tolist()) == [3, 6, 10, 10, 11]
