"""Gates are those of passes by hand, and distances of patterns are those that are known."""

import numpy as np
import pytest
import torch

from scanner import SiteError
from scanner.gates import (
    Both,
    Heard,
    Tally,
    Tokens,
    agreement_by_neuron,
    edit_distance,
    gates_of_both,
    opened,
)  # fmt: skip
from scanner.moved_weights import (
    check_same_shape,
    jolted,
    relative_change,
    transplanted,
    weights_of,
)  # fmt: skip


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@torch.no_grad()
def disturb(model, size: float, *, seed: int = 7) -> None:
    """A variant of a model: every weight moved a little."""
    made = torch.Generator().manual_seed(seed)
    for weight in weights_of(model).values():
        weight += size * weight.std() * torch.randn(weight.shape, generator=made)


def read(one, other, ids, **settings) -> list[Both]:
    given_ = {"loud": 0.1, "sampled": 2, "rng": generator(), **settings}
    return list(gates_of_both(one, other, ids, **given_))


@torch.no_grad()
def by_hand(model, ids: list[int], branch) -> dict[int, np.ndarray]:
    """What enters the activation function of each MLP, and whether it is above 0."""
    found: dict[int, torch.Tensor] = {}
    hooks = []
    for layer, block in enumerate(model.network.get_submodule(model.structure.blocks)):
        hooks.append(block.mlp.register_forward_pre_hook(
            lambda mlp, args, layer=layer: found.update({layer: branch(mlp, args[0]) > 0})
        ))  # fmt: skip
    model.network(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return {layer: values[0, 1:].numpy() for layer, values in found.items()}


BRANCHES = {
    "llama": lambda mlp, x: mlp.gate_proj(x),
    "gemma2": lambda mlp, x: mlp.gate_proj(x),
    # The first half of the fused projection is the gate, the second is what it lets through.
    "phi3": lambda mlp, x: mlp.gate_up_proj(x).chunk(2, dim=-1)[0],
    "gpt2": lambda mlp, x: mlp.c_fc(x),
}


@pytest.mark.parametrize("family", sorted(BRANCHES))
def test_gates_are_those_of_the_branch_with_the_activation_function(tiny_model, family) -> None:
    one, other = tiny_model(family, seed=5), tiny_model(family, seed=5)
    disturb(other, 0.3)
    ids = [one.prompt(length, seed=length) for length in (9, 4, 6, 2)]
    tally = Tally.empty(len(ids), one.layers, *one.structure.sizes["mlp_pre"])
    for both in read(one, other, ids):
        tally.add(both, lambda mine, theirs, layer: theirs)
    assert tally.tokens.tolist() == [8, 3, 5, 1]
    for text, tokens in enumerate(ids):
        mine, theirs = (by_hand(model, tokens, BRANCHES[family]) for model in (one, other))
        for layer in range(one.layers):
            assert tally.one[text, layer] == mine[layer].sum()
            assert tally.other[text, layer] == theirs[layer].sum()
            assert tally.differ[text, layer] == (mine[layer] != theirs[layer]).sum() > 0
    counts = [sum(by_hand(one, tokens, BRANCHES[family])[1].sum(0) for tokens in ids)]
    np.testing.assert_array_equal(tally.of_one[1], counts[0])


def test_loud_neurons_are_above_a_share_of_the_length_of_their_token(tiny_model) -> None:
    model = tiny_model("llama", seed=5)
    ids = [model.prompt(7), model.prompt(4, seed=1)]
    (both,) = read(model, model, ids, loud=0.8)
    at = both.tokens.starts.tolist()
    for text, number in zip(ids, both.tokens.texts.argsort(), strict=True):
        acts = model.activations(model.batch([text]), ["mlp_act"])
        for (_, layer), values in ((tuple(vars(site).values()), v) for site, v in acts.items()):
            x = values[0, 1:].numpy()
            expected = (np.abs(x) > 0.8 * np.sqrt((x**2).mean(1, keepdims=True))).sum(1)
            first = at[number]
            np.testing.assert_array_equal(both.one.loud[first : first + len(x), layer], expected)
    np.testing.assert_array_equal(both.one.loud, both.other.loud)


def test_what_the_activation_function_gives_is_summed_over_tokens(tiny_model) -> None:
    model = tiny_model("llama", seed=5)
    ids = [model.prompt(7)]
    (both,) = read(model, model, ids)
    for layer in range(model.layers):
        block = model.network.get_submodule(model.structure.blocks)[layer]
        seen: list[torch.Tensor] = []

        def hear(_module, _args, output, seen=seen) -> None:
            seen.append(output)

        hook = block.mlp.act_fn.register_forward_hook(hear)
        with torch.no_grad():
            model.network(torch.tensor(ids))
        hook.remove()
        np.testing.assert_allclose(
            both.one.sums[layer], seen[0][0, 1:].sum(0).numpy(), rtol=1e-4, atol=1e-6
        )


def test_an_untrained_gate_is_open_half_of_the_time(tiny_model) -> None:
    model = tiny_model("llama", seed=3, intermediate_size=512)
    ids = [model.prompt(30, seed=seed) for seed in range(20)]
    tally = Tally.empty(len(ids), model.layers, 512)
    for both in read(model, model, ids):
        tally.add(both, lambda mine, theirs, layer: theirs)
    share = tally.one.sum(0) / tally.tokens.sum() / 512
    np.testing.assert_allclose(share, 0.5, atol=0.02)
    assert not tally.differ.any()


# Of METHODS by rapidfuzz on Bernoulli patterns: edit distance and share that differ.
@pytest.mark.parametrize(
    ("share", "edited", "differ"),
    [(0.5, 0.294, 0.5), (0.3, 0.254, 0.42), (0.15, 0.171, 0.255), (0.05, 0.0725, 0.095)],
)
def test_independent_patterns_are_as_far_apart_as_is_known(share, edited, differ) -> None:
    rng = generator()
    one, other = rng.random((2, 8000)) < share
    assert edit_distance(one, other) / 8000 == pytest.approx(edited, abs=0.012)
    assert np.mean(one != other) == pytest.approx(differ, abs=0.02)


def test_flips_count_once_and_a_shift_hardly_edits() -> None:
    rng = generator()
    one = rng.random(4000) < 0.3
    flipped = one ^ (rng.random(4000) < 0.05)
    count = int(np.sum(one != flipped))
    assert edit_distance(one, flipped) == pytest.approx(count, rel=0.02)
    assert edit_distance(one, flipped) <= count
    moved = np.roll(one, 1)
    assert edit_distance(one, moved) <= 2
    assert np.mean(one != moved) == pytest.approx(0.42, abs=0.03)
    assert edit_distance(one, one) == 0


def planted(one: np.ndarray, other: np.ndarray) -> Both:
    """Patterns of a single text in a single layer, token x neuron."""
    heard = [
        Heard({0: np.packbits(side, axis=1)}, np.zeros((len(side), 1), int), side.sum(0)[None])
        for side in (one, other)
    ]
    return Both(Tokens(np.array([0]), np.array([0]), np.arange(3)), *heard)


def test_neurons_that_go_together_are_told_from_those_that_are_as_often_open() -> None:
    rng = generator()
    rates = rng.uniform(0.1, 0.9, size=100)
    one = rng.random((4000, 100)) < rates
    independent = rng.random((4000, 100)) < rates
    for other, phi in ((one, 1.0), (independent, 0.0), (~one, -1.0)):
        tally = Tally.empty(1, 1, 100)
        tally.add(planted(one, other), lambda mine, theirs, layer: theirs)
        found, expected = agreement_by_neuron(tally)
        assert found[0] == pytest.approx(phi, abs=0.01)
        if other is not one:
            wanted = (
                rates * (1 - rates) * 2 if other is independent else rates**2 + (1 - rates) ** 2
            )
            assert expected[0] == pytest.approx(wanted.mean(), abs=0.01)
        assert tally.differ[0, 0] == np.sum(one != other)
    # What is always open has no correlation, and is left out.
    always = np.ones((10, 4), dtype=bool)
    tally = Tally.empty(1, 1, 4)
    tally.add(planted(always, always), lambda mine, theirs, layer: theirs)
    assert np.isnan(agreement_by_neuron(tally)[0][0])


def test_bits_are_those_that_were_packed() -> None:
    gates = generator().random((5, 13)) < 0.5
    np.testing.assert_array_equal(opened(np.packbits(gates, axis=1), 13), gates)


def test_memory_does_not_grow_with_tokens(tiny_model, monkeypatch) -> None:
    model = tiny_model("llama", seed=5)
    monkeypatch.setattr("scanner.token_activations.batch_tokens", lambda device: 130)
    ids = [model.prompt(20, seed=seed) for seed in range(30)]
    batches = read(model, model, ids)
    assert len(batches) >= 5
    assert max(len(both.one.loud) for both in batches) <= 130
    assert sorted(np.concatenate([both.tokens.texts for both in batches])) == list(range(30))


@pytest.mark.parametrize("noise", ["normal", "dealt"])
def test_noise_is_as_long_as_the_tuning_in_each_tensor(tiny_model, noise) -> None:
    base, tuned = tiny_model("llama", seed=5), tiny_model("llama", seed=5)
    with torch.no_grad():
        for name, weight in weights_of(tuned).items():
            if "mlp" in name:
                weight += 0.1 * torch.randn(weight.shape)
    before = {name: weight.clone() for name, weight in weights_of(tuned).items()}
    size = relative_change(tuned, base)
    with jolted(tuned, base, noise=noise, seed=1):
        assert relative_change(tuned, base) == pytest.approx(size, rel=1e-5)
        for name, weight in weights_of(tuned).items():
            start = weights_of(base)[name]
            change, drawn = before[name] - start, weight - start
            assert drawn.norm().item() == pytest.approx(change.norm().item(), rel=1e-4)
            if "mlp" not in name:
                assert torch.equal(weight, start)
            else:
                assert abs(torch.cosine_similarity(change, drawn, dim=-1).mean()) < 0.2
            if noise == "dealt" and "mlp" in name:
                torch.testing.assert_close(
                    drawn.flatten().sort().values, change.flatten().sort().values, atol=1e-5, rtol=0
                )
    for name, weight in weights_of(tuned).items():
        assert torch.equal(weight, before[name])


def test_a_tuning_is_given_to_another_model_and_taken_back(tiny_model) -> None:
    base, tuned, other = (tiny_model("llama", seed=seed) for seed in (5, 5, 9))
    disturb(tuned, 0.2)
    before = {name: weight.clone() for name, weight in weights_of(other).items()}
    with transplanted(other, tuned, base):
        for name, weight in weights_of(other).items():
            change = weights_of(tuned)[name] - weights_of(base)[name]
            torch.testing.assert_close(weight - before[name], change, atol=1e-6, rtol=0)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(other).items())


def test_models_of_other_shapes_are_no_variants(tiny_model) -> None:
    one = tiny_model("llama", seed=5)
    check_same_shape(one, tiny_model("llama", seed=6))
    with pytest.raises(SiteError, match="no variants of one model: their weights differ in"):
        check_same_shape(one, tiny_model("llama", seed=5, intermediate_size=32))
    with pytest.raises(SiteError, match="no variants of one model"):
        check_same_shape(one, tiny_model("gpt2", seed=5))
