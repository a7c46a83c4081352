"""What is heard inside attention and router, however they spell their products and softmaxes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scanner.operations import AttentionOperations, RouterOperations
from scanner.structure import listening_inside

BATCH, HEADS, POSITIONS, UNITS = 2, 3, 5, 4
SCALE = UNITS**-0.5
MASK = torch.full((POSITIONS, POSITIONS), -torch.inf).triu(1)


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


Q, K, V = (draw(BATCH, HEADS, POSITIONS, UNITS, seed=seed) for seed in range(3))


def fused(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, MASK)


def fused_by_name(q, k, v):
    return F.scaled_dot_product_attention(value=v, attn_mask=MASK, key=k, query=q)


def by_functions(q, k, v):
    scores = torch.matmul(q, k.transpose(-1, -2)) * SCALE + MASK
    return torch.matmul(F.softmax(scores, dim=-1), v)


def by_methods(q, k, v):
    return q.matmul(k.mT).mul(SCALE).add(MASK).softmax(dim=-1).matmul(v)


def by_operators(q, k, v):
    return torch.softmax(q @ k.mT * SCALE + MASK, dim=-1) @ v


def by_name(q, k, v):
    scores = torch.matmul(q, k.mT) * SCALE + MASK
    return torch.matmul(F.softmax(input=scores, dim=-1), v)


def flat(tensor):
    return tensor.reshape(BATCH * HEADS, *tensor.shape[-2:])


def batched(q, k, v):
    scores = torch.bmm(flat(q), flat(k).mT) * SCALE + MASK
    return torch.bmm(scores.softmax(-1), flat(v)).reshape(v.shape)


def with_bias(q, k, v):  # as BLOOM adds its positions
    scores = MASK.expand(BATCH * HEADS, -1, -1).baddbmm(
        batch1=flat(q), batch2=flat(k).mT, beta=1.0, alpha=SCALE
    )
    return flat(v).new_zeros(()) + torch.bmm(F.softmax(scores, -1), flat(v)).reshape(v.shape)


def with_bias_by_function(q, k, v):
    bias = MASK.expand(BATCH * HEADS, -1, -1)
    scores = torch.baddbmm(bias, flat(q), flat(k).mT, alpha=SCALE)
    return torch.bmm(F.softmax(scores, -1), flat(v)).reshape(v.shape)


FUSED = [fused, fused_by_name]
STEPWISE = [
    by_functions, by_methods, by_operators, by_name, batched, with_bias, with_bias_by_function
]  # fmt: skip
SCORES = Q @ K.mT * SCALE + MASK
WHAT = {"q": Q, "k": K, "value": V, "attn_scores": SCORES, "attn_probs": SCORES.softmax(-1)}


def same(one, other):
    torch.testing.assert_close(one.reshape(other.shape), other)


@pytest.mark.parametrize("attend", FUSED + STEPWISE)
def test_each_role_is_heard_once_and_is_what_it_says(attend):
    heard = []

    def through(role, tensor):
        heard.append((role, tensor.clone()))
        return tensor

    with AttentionOperations(through):
        found = attend(Q, K, V)
    order = (
        ("q", "k", "value") if attend in FUSED else ("q", "k", "attn_scores", "attn_probs", "value")
    )
    assert tuple(role for role, _ in heard) == order
    for role, tensor in heard:
        same(tensor, WHAT[role])
    assert torch.equal(found, attend(Q, K, V))
    same(found, WHAT["attn_probs"] @ V)


# What the result must be when a role is made twice as large.
TWICE = {
    "q": ((2 * Q @ K.mT * SCALE + MASK).softmax(-1)) @ V,
    "k": ((2 * Q @ K.mT * SCALE + MASK).softmax(-1)) @ V,
    "value": WHAT["attn_probs"] @ (2 * V),
    "attn_scores": (2 * SCORES).softmax(-1) @ V,
    "attn_probs": 2 * WHAT["attn_probs"] @ V,
}


@pytest.mark.parametrize(
    ("attend", "changed"),
    [(attend, role) for attend in FUSED for role in ("q", "k", "value")]
    + [(attend, role) for attend in STEPWISE for role in TWICE],
)
def test_what_is_given_back_is_gone_on_with(attend, changed):
    with AttentionOperations(lambda role, tensor: 2 * tensor if role == changed else tensor):
        found = attend(Q, K, V)
    same(found, TWICE[changed])
    assert not torch.allclose(found, WHAT["attn_probs"] @ V)


def test_products_with_a_weight_are_no_queries_and_keys():
    states, weight = draw(BATCH, POSITIONS, UNITS, seed=3), draw(UNITS, UNITS, seed=4)
    heard = []

    def through(role, tensor):
        heard.append(role)
        return tensor

    with AttentionOperations(through):
        projected = torch.matmul(states, weight)
        F.linear(states, weight)
        states @ weight
        projected.reshape(-1, UNITS) @ weight
    assert heard == []


def test_a_router_is_heard_at_its_linear_map_and_goes_on_with_what_is_given_back():
    states, weight = draw(6, UNITS, seed=5), draw(3, UNITS, seed=6)
    heard = []

    def through(role, tensor):
        heard.append((role, tensor.clone()))
        return tensor.flip(-1)

    with RouterOperations(through):
        scores = F.linear(states, weight)
        probabilities = F.softmax(scores, dim=-1)
    assert [role for role, _ in heard] == ["router"]
    torch.testing.assert_close(heard[0][1], states @ weight.T)
    assert torch.equal(probabilities, heard[0][1].flip(-1).softmax(-1))


class Attending(nn.Module):
    def forward(self, fail=False):
        out = by_operators(Q, K, V)
        if fail:
            raise ZeroDivisionError
        return out


def test_a_mode_lives_while_its_module_runs_and_no_longer():
    module, heard = Attending(), []

    def through(role, tensor):
        heard.append(role)
        return tensor

    with listening_inside(module, lambda: AttentionOperations(through)):
        by_operators(Q, K, V)  # outside the module
        assert heard == []
        module()
        assert len(heard) == 5
        with pytest.raises(ZeroDivisionError):
            module(fail=True)
        assert len(heard) == 10
        by_operators(Q, K, V)  # the failed call has left none alive
        module()
        assert len(heard) == 15
    module()
    assert len(heard) == 15
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
