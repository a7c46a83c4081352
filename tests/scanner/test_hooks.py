"""Hooks fire once in each pass, change nothing unasked, copy what is kept, and are gone after."""

import pytest
import torch
from torch import nn

from scanner import Site, SiteError
from scanner.hooks import visiting
from scanner.sites import KINDS, PAIRED, sites_of
from scanner.structure import Port, Structure, first_tensor

STREAM = ("resid_pre", "resid_post")


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


SIDES = {"resid_pre": "input", "resid_post": "output"}
CHAIN = Structure(
    3, "blocks",
    {Site(k, n): Port(f"blocks.{n}", SIDES[k]) for k in STREAM for n in range(3)},
    dict.fromkeys(STREAM, (4,)), {}, 1.0, "embeddings", 1, 0, False,
)  # fmt: skip


def both(layers=range(3)):
    return [Site(kind, layer) for kind in STREAM for layer in layers]


def hooks_left(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def leave(_site, _activation):
    return None


def test_each_site_is_heard_once_with_what_enters_and_leaves_its_block():
    chain, states = Chain(), torch.randn(2, 5, 4)
    heard = []
    with visiting(chain, CHAIN, both(), lambda site, states: heard.append((site, states))):
        end = chain(states)
    assert len(heard) == 6
    heard = dict(heard)
    assert set(heard) == set(both())
    assert torch.equal(heard[Site("resid_pre", 0)], states)
    assert torch.equal(heard[Site("resid_post", 0)], chain.blocks[0](states))
    assert torch.equal(heard[Site("resid_post", 2)], end)
    assert hooks_left(chain) == 0


@pytest.mark.parametrize("kind", STREAM)
@pytest.mark.parametrize("layer", range(3))
def test_a_block_that_does_not_run_is_an_error_that_names_it(kind, layer):
    chain = Chain(skip=layer)
    with pytest.raises(SiteError, match=rf"{kind}\.{layer} fired 0 times in 1 forward passes at b"):
        with visiting(chain, CHAIN, [Site(kind, layer)], leave):
            chain(torch.randn(1, 2, 4))
    assert hooks_left(chain) == 0


@pytest.mark.parametrize("kind", STREAM)
@pytest.mark.parametrize("layer", range(3))
def test_a_block_that_runs_twice_is_an_error_that_names_it(kind, layer):
    chain = Chain(twice=layer)
    with pytest.raises(SiteError, match=rf"{kind}\.{layer} fired 2 times in 1 forward passes at b"):
        with visiting(chain, CHAIN, [Site(kind, layer)], leave):
            chain(torch.randn(1, 2, 4))
    assert hooks_left(chain) == 0


def test_several_passes_fire_each_site_once_in_each_with_sizes_of_their_own():
    chain, shapes = Chain(), []
    with visiting(chain, CHAIN, both([1]), lambda _site, states: shapes.append(states.shape)):
        chain(torch.randn(1, 2, 4))
        chain(torch.randn(3, 5, 4))
    assert shapes == [(1, 2, 4), (1, 2, 4), (3, 5, 4), (3, 5, 4)]


def test_what_a_visitor_gives_back_is_gone_on_with():
    chain, states = Chain(), torch.randn(2, 5, 4)

    def double(site, activation):
        return 2 * activation if site in (Site("resid_pre", 1), Site("resid_post", 1)) else None

    with visiting(chain, CHAIN, both(), double):
        end = chain(states)
    first, second, third = chain.blocks
    assert torch.equal(end, third(2 * second(2 * first(states))))
    assert not torch.equal(end, chain(states))


def test_hooks_are_gone_after_an_exception_which_is_passed_on():
    chain = Chain()
    with pytest.raises(ZeroDivisionError):
        with visiting(chain, CHAIN, both(), leave):
            assert hooks_left(chain) > 6
            raise ZeroDivisionError
    assert hooks_left(chain) == 0


def test_a_site_that_the_model_lacks_is_an_error_before_any_hook_is_placed():
    chain = Chain()
    with pytest.raises(SiteError, match=r"no site z\.0"):
        with visiting(chain, CHAIN, [*both(), Site("z", 0)], leave):
            raise AssertionError("the body ran")
    assert hooks_left(chain) == 0


def test_hooks_are_gone_after_a_visitor_fails_anywhere(proved):
    model = proved("llama")
    before = hooks_left(model.network)
    for kind in model.structure.kinds:

        def fails(_site, _activation):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), model.listening([kind]):
            with model.visiting([kind], fails):
                model.forward(model.batch([[5, 6]]), head=True)
        assert hooks_left(model.network) == before
        # No mode was left alive: another pass is not heard.
        model.forward(model.batch([[5, 6]]), head=True)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_module_that_runs_twice_within_a_pass_is_an_error_that_names_it(tiny_model, family):
    model = tiny_model(family)
    assert model.proof
    block = model.network.get_submodule(f"{model.found.blocks}.1")
    once = block.forward

    def twice(*args, **kwargs):
        once(*args, **kwargs)
        return once(*args, **kwargs)

    block.forward = twice
    batch = model.batch([[5, 6, 7]])
    assert model.activations(batch, STREAM)  # the block itself ran once
    for kind in set(model.found.kinds) - {*STREAM, "embeddings", "final_norm", "logits"}:
        with pytest.raises(SiteError, match=rf"{kind}\.1 fired 2 times in 1 forward passes at"):
            model.activations(batch, [kind])
    block.forward = once
    assert model.activations(batch, ["attn_out"])


@torch.inference_mode()
def test_logits_are_the_same_to_the_last_bit_before_during_and_after_hearing_every_kind(
    proved, family
):
    model = proved(family)
    batch, kinds = model.batch([[5, 6, 7, 8], [9, 10]]), model.structure.kinds

    def logits():  # not by the scanner's own way
        return model.network(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits

    plain = [kind for kind in kinds if kind not in PAIRED]
    for heard, listening in ((plain, model.listening(plain)), (kinds, model.listening(kinds))):
        with listening:
            before, visited = logits(), []
            with model.visiting(heard, lambda site, _, visited=visited: visited.append(site)):
                during = logits()
            assert torch.equal(before, during)
            assert torch.equal(before, logits())
            # Nor does it matter that each is written back.
            with model.visiting(heard, lambda _site, activation: activation.clone()):
                assert torch.equal(before, logits())
        assert len(visited) == len(set(visited))
        assert set(visited) == {s for kind in heard for s in sites_of(kind, model.layers)}
    other = model.batch([[5, 6, 7, 9], [9, 10]])
    assert not torch.equal(before, model.network(input_ids=other.ids).logits)


@torch.inference_mode()
def test_a_change_of_each_kind_moves_what_comes_after_it_and_nothing_before(proved, family):
    model = proved(family)
    batch, ends = model.batch([[5, 6, 7, 8]]), {}
    blocks = model.network.get_submodule(model.structure.blocks)

    def end(layer):
        def hook(_module, _args, output):
            ends[layer] = first_tensor(output).clone()

        return hook

    def change(site, activation):
        return activation * 1.5 if site.layer in (1, None) else None

    handles = [blocks[layer].register_forward_hook(end(layer)) for layer in (0, 2)]
    try:
        for kind in model.structure.kinds:
            with model.listening([kind]):
                before, bare = model.forward(batch, head=True), dict(ends)
                with model.visiting([kind], change):
                    after = model.forward(batch, head=True)
            assert not torch.equal(before, after), kind
            assert torch.equal(bare[0], ends[0]) == (kind != "embeddings"), kind
            assert torch.equal(bare[2], ends[2]) == (kind in ("final_norm", "logits")), kind
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("factor", [1.0, 0.22])
def test_what_is_written_between_attention_and_mlp_is_the_stream_that_goes_on(proved, factor):
    family = {1.0: {}, 0.22: {"family": "granite", "residual_multiplier": 0.22}}[factor]
    model = proved(**family)
    assert model.structure.multiplier == factor
    batch, new = model.batch([[5, 6, 7, 8]]), torch.randn(1, 4, model.width)
    heard = {}

    def write(site, activation):
        if site == Site("resid_mid", 1):
            return new
        heard[site] = activation.clone()
        return None

    with torch.inference_mode(), model.visiting(["resid_mid", "mlp_out_post", "resid_post"], write):
        model.forward(batch)
    expected = new + factor * heard[Site("mlp_out_post", 1)]
    torch.testing.assert_close(heard[Site("resid_post", 1)], expected, rtol=1e-5, atol=1e-5)


def test_work_in_place_after_the_hook_does_not_reach_what_was_kept(tiny_model):
    model = tiny_model("llama")
    batch = model.batch([[5, 6, 0, 0], [7, 8, 9, 10]])
    assert model.found
    untouched = model.activations(batch, STREAM)

    def spoil(_module, args):
        args[0].mul_(0)

    model.base.layers[1].register_forward_pre_hook(spoil)
    spoiled = model.activations(batch, STREAM)
    # The hook did its harm, in the tensor that left block 0, after it had left.
    assert not spoiled[Site("resid_pre", 1)].any()
    assert torch.equal(spoiled[Site("resid_post", 0)], untouched[Site("resid_post", 0)])
    assert untouched[Site("resid_post", 0)].any()


def test_activations_are_heard_of_every_kind_in_the_shape_of_their_dimensions(proved, family):
    model = proved(family)
    heard = model.activations(model.batch([[5, 6, 7, 8], [9, 10]]), model.structure.kinds)
    assert set(heard) == {site for kind in model.structure.kinds for site in sites_of(kind, 3)}
    for site, activation in heard.items():
        size = model.structure.sizes[site.kind]
        expected = (2, *size, 4, 4) if site.kind in PAIRED else (2, 4, *size)
        assert activation.shape == expected, site
        assert torch.isfinite(activation).all() or site.kind == "attn_scores", site
        assert activation.any()


def test_logits_at_chosen_columns_are_those_of_all(proved, family):
    model = proved(family)
    batch, columns = model.batch([[5, 6, 7, 8], [9, 10, 11, 12]]), torch.tensor([1, 3])
    whole = model.activations(batch, ["logits"])[Site("logits")]
    some = model.activations(batch, ["logits", "resid_post"], columns=columns)
    torch.testing.assert_close(some[Site("logits")], whole[:, columns], rtol=1e-5, atol=1e-6)
    assert some[Site("resid_post", 2)].shape[1] == 4


def test_attention_is_computed_step_by_step_for_weights_only_and_as_before_afterwards(proved):
    for family in ("llama", "falcon", "gpt2"):
        model = proved(family)
        before = model.attention
        assert before == "sdpa"
        with model.listening(["attn_probs"]):
            assert model.attention == "eager"
        with model.listening(["q", "z"]):
            assert model.attention == before
        with pytest.raises(ZeroDivisionError), model.eager():
            raise ZeroDivisionError
        assert model.attention == before
    assert {"attn_scores", "attn_probs"} == set(PAIRED) < set(KINDS)


def test_a_tensor_is_read_as_it_is_or_as_the_first_of_a_tuple():
    states = torch.zeros(1, 2, 3)
    assert first_tensor(states) is states
    assert first_tensor((states, "cache")) is states


@pytest.mark.parametrize("value", ["text", None, ("text", torch.zeros(3)), ()])
def test_in_anything_else_there_is_no_tensor(value):
    assert first_tensor(value) is None
