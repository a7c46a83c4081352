"""What is said under an intervention is what argmax after argmax of full passes says."""

import numpy as np
import pytest
import torch

from scanner import Edit, SiteError, continued
from scanner.generation import PICTURES


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "gpt_neox"])
def test_what_is_said_is_the_likeliest_token_after_token(family, proved) -> None:
    model, rng = proved(family), np.random.default_rng(0)
    ids = model.prompt(6, seed=3)
    pushes = [3 * rng.normal(size=model.width).astype(np.float32) for _ in range(3)]
    done = [
        (),
        *((Edit("resid_post", "add", layers=[1], start=1, value=push),) for push in pushes),
        # Two at once, and one of them at a place alone.
        (Edit("resid_post", "scale", layers=[0], start=2, value=1.5),
         Edit("resid_post", "add", layers=[1], positions=[3], value=pushes[0])),
    ]  # fmt: skip
    said = continued(model, ids, done, tokens=5)
    assert len(set(said)) > 1
    for edits, text in zip(done, said, strict=True):
        own = list(ids)
        for _ in range(5):
            with torch.no_grad(), model.intervene(edits):
                logits = model.forward(model.batch([own]), head=True)
            own.append(int(logits[0, -1].argmax()))
        words = model.tokenizer.decode(own[6:], skip_special_tokens=True)
        assert text == words.translate(PICTURES)


def test_control_characters_are_shown_by_their_pictures(proved) -> None:
    model = proved("llama")
    byte = {model.tokenizer.decode([each]): each for each in range(model.vocabulary)}
    unembedding = model.network.get_output_embeddings().weight
    push = 100 * unembedding[byte["\0"]].detach().numpy()
    edit = Edit("resid_post", "add", layers=[2], value=push)
    assert continued(model, model.prompt(6, seed=3), [(edit,)], tokens=3) == ["␀␀␀"]


def test_an_edit_that_does_not_fit_is_refused(proved) -> None:
    model = proved("llama")
    with pytest.raises(SiteError, match="no site resid_post.9"):
        continued(
            model, [1, 2, 3], [(Edit("resid_post", "scale", layers=[9], value=2.0),)], tokens=2
        )
