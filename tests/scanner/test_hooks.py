"""Hooks fire once, change nothing, copy what they hear, and are gone afterwards."""

import pytest
import torch
from torch import nn

from scanner import Site, SiteError
from scanner.hooks import listening
from scanner.sites import find_blocks, hidden_states

KINDS = ("resid_pre", "resid_post")


class Chain(nn.Module):
    """Three linear blocks; `skip` is not run, `twice` is run two times."""

    def __init__(self, *, skip=None, twice=None):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.skip, self.twice = skip, twice

    def forward(self, states):
        for layer, block in enumerate(self.blocks):
            if layer != self.skip:
                states = block(states)
            if layer == self.twice:
                states = block(states)
        return states


def hooks_left(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_each_site_is_heard_once_with_what_enters_and_leaves_its_block():
    chain, states = Chain(), torch.randn(2, 5, 4)
    heard = {}
    with listening(chain.blocks, KINDS, heard.__setitem__):
        end = chain(states)
    assert set(heard) == {Site(kind, layer) for kind in KINDS for layer in range(3)}
    assert torch.equal(heard[Site("resid_pre", 0)], states)
    assert torch.equal(heard[Site("resid_post", 0)], chain.blocks[0](states))
    assert torch.equal(heard[Site("resid_post", 2)], end)
    assert hooks_left(chain) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_that_does_not_run_is_an_error_that_names_it(kind):
    chain = Chain(skip=1)
    with pytest.raises(SiteError, match=rf"{kind}\.1 fired 0 times in one forward pass"):
        with listening(chain.blocks, (kind,), lambda _site, _states: None):
            chain(torch.randn(1, 2, 4))
    assert hooks_left(chain) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_that_runs_twice_is_an_error_that_names_it(kind):
    chain = Chain(twice=2)
    with pytest.raises(SiteError, match=rf"{kind}\.2 fired 2 times in one forward pass"):
        with listening(chain.blocks, (kind,), lambda _site, _states: None):
            chain(torch.randn(1, 2, 4))
    assert hooks_left(chain) == 0


def test_hooks_are_gone_after_an_exception_which_is_passed_on():
    chain = Chain()
    with pytest.raises(ZeroDivisionError):
        with listening(chain.blocks, KINDS, lambda _site, _states: None):
            assert hooks_left(chain) == 6
            raise ZeroDivisionError
    assert hooks_left(chain) == 0


def test_hooks_are_gone_after_a_listener_fails(tiny_model):
    model = tiny_model("llama")
    before = hooks_left(model.network)

    def fails(_site, _states):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), listening(model.blocks, KINDS, fails):
        model.base(input_ids=torch.tensor([[5, 6]]), use_cache=False)
    assert hooks_left(model.network) == before


@torch.inference_mode()
def test_logits_are_the_same_to_the_last_bit_before_during_and_after_listening(tiny_model, family):
    model = tiny_model(family)
    batch = model.batch([[5, 6, 7, 8], [9, 10]])

    def logits():
        return model.network(input_ids=batch.ids, attention_mask=batch.mask).logits

    before = logits()
    with listening(model.blocks, KINDS, lambda _site, _states: None):
        during = logits()
    assert torch.equal(before, during)
    assert torch.equal(before, logits())
    other = model.batch([[5, 6, 7, 9], [9, 10]])
    assert not torch.equal(before, model.network(input_ids=other.ids).logits)


def test_work_in_place_after_the_hook_does_not_reach_what_was_kept(tiny_model):
    positions = torch.tensor([1, 3])
    model = tiny_model("llama")
    batch = model.batch([[5, 6], [7, 8, 9, 10]])
    untouched = model.activations(batch, KINDS, positions)

    def spoil(_module, args):
        args[0].mul_(0)

    model.blocks[1].register_forward_pre_hook(spoil)
    spoiled = model.activations(batch, KINDS, positions)
    # The hook did its harm, in the tensor that left block 0, after it had left.
    assert not spoiled["resid_pre"][:, 1].any()
    assert torch.equal(spoiled["resid_post"][:, 0], untouched["resid_post"][:, 0])
    assert untouched["resid_post"][:, 0].any()


def test_activations_are_taken_at_each_rows_own_position(tiny_model):
    model = tiny_model("llama")
    batch = model.batch([[5, 6, 7, 8], [9, 10, 11, 12]])
    whole = {}
    with torch.inference_mode(), listening(model.blocks, KINDS, whole.__setitem__):
        model.base(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    taken = model.activations(batch, KINDS, torch.tensor([3, 0]))
    for kind in KINDS:
        for layer in range(model.layers):
            states = whole[Site(kind, layer)]
            assert torch.equal(taken[kind][:, layer], torch.stack([states[0, 3], states[1, 0]]))


def test_hidden_states_are_read_from_a_tensor_or_the_first_of_a_tuple():
    states = torch.zeros(1, 2, 3)
    assert hidden_states(states) is states
    assert hidden_states((states, "cache")) is states


@pytest.mark.parametrize("value", [torch.zeros(2, 3), "text", (torch.zeros(3),)])
def test_anything_else_that_leaves_a_block_is_refused(value):
    with pytest.raises(SiteError, match="not batch x position x unit"):
        hidden_states(value)


def linears(count):
    return nn.ModuleList(nn.Linear(2, 2) for _ in range(count))


def test_blocks_are_the_outermost_list_as_long_as_the_model_is_deep():
    block = nn.Module()
    block.experts = linears(2)  # as long as the model is deep, but inside a block
    other = nn.Module()
    other.experts = linears(2)
    base = nn.Module()
    base.adapters = linears(3)
    base.dropouts = nn.ModuleList([nn.Dropout(), nn.Dropout()])  # no parameters: no blocks
    base.h = nn.ModuleList([block, other])
    assert find_blocks(base, 2) is base.h


@pytest.mark.parametrize(
    ("names", "found"), [([], "none"), (["encoder", "decoder"], "encoder, decoder")]
)
def test_no_list_of_blocks_or_two_of_them_are_refused_by_name(names, found):
    base = nn.Module()
    for name in names:
        base.add_module(name, linears(2))
    with pytest.raises(SiteError, match=f"expected one list of 2 blocks, found {found};"):
        find_blocks(base, 2)
