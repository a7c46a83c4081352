"""Weights change where they may, towards what is taught, and are bit-equal afterwards."""

from typing import Any

import numpy as np
import pytest
import torch

from scanner import SiteError
from scanner.tuning import Asked, predicted, surprisals, tuned

LENGTHS = (5, 8, 5, 6, 8)


def asked_of(model) -> list[Asked]:
    whole = [model.prompt(length, seed=seed) for seed, length in enumerate(LENGTHS)]
    return [Asked(text[:-1], text[-1:]) for text in whole]


def state(model) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in model.network.state_dict().items()}


def blocks_of(model) -> Any:
    return model.network.get_submodule(model.structure.blocks)


def test_what_is_taught_is_learnt_and_then_nothing_is_left(family, proved) -> None:
    model = proved(family)
    asked = asked_of(model)
    texts = [one.text for one in asked]
    weights, wants = state(model), [one.requires_grad for one in model.network.parameters()]
    costs, made = surprisals(model, asked), predicted(model, texts)
    with tuned(model, [1], asked, steps=5, rate=0.01) as losses:
        changed = {
            name.removeprefix(model.structure.blocks).split(".")[1]
            for name, one in state(model).items()
            if name.startswith(f"{model.structure.blocks}.") and not one.equal(weights[name])
        }
        assert changed == {"1"}
        outside = (n for n in weights if not n.startswith(f"{model.structure.blocks}."))
        assert all(model.network.state_dict()[name].equal(weights[name]) for name in outside)
        assert surprisals(model, asked).mean() < costs.mean() - 0.05
        assert not np.array_equal(predicted(model, texts).ending, made.ending)
    assert losses[0] == pytest.approx(costs.mean(), rel=1e-4)
    assert len(losses) == 5 and losses[-1] < losses[0]
    assert all(one.equal(weights[name]) for name, one in state(model).items())
    np.testing.assert_array_equal(predicted(model, texts).ending, made.ending)
    np.testing.assert_array_equal(surprisals(model, asked), costs)
    assert [one.requires_grad for one in model.network.parameters()] == wants
    assert all(one.grad is None for one in model.network.parameters())
    assert not model.network.training


def test_an_error_in_between_leaves_nothing_either(tiny_model) -> None:
    model = tiny_model("llama", seed=5)
    weights, asked = state(model), asked_of(model)
    with (
        pytest.raises(RuntimeError, match="in between"),
        tuned(model, [0, 2], asked, steps=2, rate=0.01),
    ):
        assert not all(one.equal(weights[name]) for name, one in state(model).items())
        raise RuntimeError("in between")
    assert all(one.equal(weights[name]) for name, one in state(model).items())
    # While it is taught, too: the second answer is none of the vocabulary.
    broken = [asked[0], Asked(asked[1].text, [model.vocabulary])]
    with pytest.raises(IndexError), tuned(model, [0], broken, steps=2, rate=0.01):
        pass
    assert all(one.equal(weights[name]) for name, one in state(model).items())
    assert all(one.grad is None for one in model.network.parameters())


def test_steps_are_those_of_torch_by_hand(tiny_model) -> None:
    """All texts in each step, each as weighty, whatever its length."""
    model, other = (tiny_model("llama", seed=5) for _ in range(2))
    asked = asked_of(model)
    weights = [one for layer in (1, 2) for one in blocks_of(other)[layer].parameters()]
    optimiser = torch.optim.AdamW(weights, lr=0.003)
    with torch.enable_grad():
        for _ in range(3):
            optimiser.zero_grad()
            for text, (answer,) in asked:
                logits = other.network(torch.tensor([list(text)]), use_cache=False).logits
                (-logits[0, -1].log_softmax(-1)[answer] / len(asked)).backward()
            optimiser.step()
    with tuned(model, [2, 1], asked, steps=3, rate=0.003):
        for one, two in zip(
            blocks_of(model).parameters(), blocks_of(other).parameters(), strict=True
        ):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


def test_what_is_predicted_is_what_the_model_says(proved) -> None:
    model = proved("gpt2")
    text = model.prompt(7)
    told = torch.log_softmax(model.network(torch.tensor([text])).logits[0].double(), -1)
    told = told.detach().numpy()
    found = predicted(model, [text, text[:4]])
    np.testing.assert_allclose(found.ending, told[[6, 3]], atol=1e-5)
    costs = -told[np.arange(6), text[1:]]
    np.testing.assert_allclose(found.surprisal, [costs.mean(), costs[:3].mean()], rtol=1e-5)
    np.testing.assert_allclose(
        surprisals(model, [Asked(text[:6], text[6:7]), Asked(text[:3], text[3:4])]), costs[[5, 2]],
        rtol=1e-4,
    )  # fmt: skip


def test_an_answer_of_several_tokens_costs_what_they_cost_one_after_the_other(proved) -> None:
    model = proved("llama")
    text = model.prompt(9)
    parts = [Asked(text[:end], [text[end]]) for end in (5, 6, 7)]
    (whole,) = surprisals(model, [Asked(text[:5], text[5:8])])
    assert whole == pytest.approx(surprisals(model, parts).sum(), rel=1e-5)
    beside = surprisals(model, [Asked(text[:5], text[5:8]), parts[2], Asked(text[:2], text[2:9])])
    assert beside[0] == pytest.approx(whole, rel=1e-5)


def test_weights_that_are_rounded_or_shared_are_refused(tiny_model) -> None:
    half = tiny_model("llama", dtype="bfloat16")
    with (
        pytest.raises(SiteError, match="is in bfloat16.*give the subject `dtype: float32`"),
        tuned(half, [0], asked_of(half), steps=1, rate=0.1),
    ):
        pass
    model = tiny_model("llama")
    blocks = blocks_of(model)
    blocks[2].mlp = blocks[0].mlp
    with (
        pytest.raises(SiteError, match=r"0\.mlp.*is .*2\.mlp.*one without the other"),
        tuned(model, [0], asked_of(model), steps=1, rate=0.1),
    ):
        pass
