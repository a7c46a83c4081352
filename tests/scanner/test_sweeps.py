"""A sweep gives what one full pass for each intervention gives, in every family."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scanner import Edit, Site, SiteError
from scanner.hooks import starting
from scanner.sweeps import Outcome, Trial, sweep

LENGTHS = (9, 12, 9, 2)


@pytest.fixture
def model(family, proved):
    return proved(family)


@pytest.fixture
def llama(proved):
    return proved("llama")


def texts(model):
    return [model.prompt(length, seed=seed) for seed, length in enumerate(LENGTHS)]


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def together(model, ids, trials, **settings) -> Outcome:
    """All outcomes in the order of the trials."""
    found = list(sweep(model, ids, trials, **settings))
    order = np.argsort(np.concatenate([one.trials for one in found]))
    names = [name for name in vars(found[0]) if name != "activations"]
    made = {name: np.concatenate([getattr(one, name) for one in found])[order] for name in names}
    assert made["trials"].tolist() == list(range(len(trials)))
    heard = {
        site: np.concatenate([one.activations[site] for one in found])[order]
        for site in found[0].activations
    }
    return Outcome(**made, activations=heard)


@torch.no_grad()
def one_by_one(model, ids, trials, answers) -> Outcome:
    """A full pass for each trial, and one for its text as it is."""
    rows = []
    for number, (text, edits) in enumerate(trials):
        batch, known = model.batch([ids[text]]), torch.tensor(ids[text][1:])
        intact = model.forward(batch, head=True)[0].float()
        with model.intervene([replace(edit, rows=[0]) for edit in edits]):
            edited = model.forward(batch, head=True)[0].float()
        before, after = (logits[-1].log_softmax(-1) for logits in (intact, edited))
        rows.append((
            number, torch.sum(before.exp() * (before - after)),
            *(torch.nn.functional.cross_entropy(logits[:-1], known) for logits in (edited, intact)),
            edited[-1, answers[text]].numpy(), intact[-1, answers[text]].numpy(),
        ))  # fmt: skip
    return Outcome(*(np.array(column) for column in zip(*rows, strict=True)), activations={})


def assert_same(
    found: Outcome, expected: Outcome, *, rtol: float = 1e-4, atol: float = 1e-5
) -> None:
    for name, wanted in vars(expected).items():
        if name == "activations":
            continue
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=rtol, atol=atol, err_msg=name)


def trials_of(model, *, layers=(0, 1, 2)) -> list[Trial]:
    """Every action, at sites inside blocks and outside, of all tokens and of some."""
    width, has = model.width, set(model.structure.kinds)
    wanted = [
        Edit("resid_post", "skip", layers=[1]),
        Edit("attn_out_post", "skip", layers=[2]),
        Edit("mlp_out_post", "skip", layers=[0]),
        Edit("resid_post", "add", layers=[2], positions=[1], value=values(width)),
        Edit("resid_pre", "add", layers=[1], positions=[0, 1], value=values(1, 1, width)),
        Edit("resid_post", "replace", layers=[0], start=1, value=values(width, seed=1)),
        Edit("mlp_act", "ablate", layers=[1], units=[0, 3, 5], must_move=False),
        Edit("z", "scale", layers=[1], heads=[1], value=-0.5),
        Edit("value", "add", layers=[2], positions=[1], value=0.3),
        Edit("attn_probs", "ablate", layers=[1], heads=[0], positions=[1]),
        Edit("embeddings", "add", positions=[1], value=values(width, seed=2)),
        Edit("final_norm", "scale", value=0.5),
        Edit("resid_post", "ablate", layers=[1], along=values(width, seed=3)),
        Edit("resid_post", "ablate", layers=[1], along=values(width, seed=4), positions=[1]),
        Edit("resid_post", "ablate", layers=[1], start=1, along=values(2, width, seed=5),
             readout=values(2, width, seed=6), center=values(width, seed=7)),
        Edit("resid_post", "scale", layers=[2], value=3.0, along=values(width, seed=8)),
        Edit("mlp_out_post", "scale", layers=[1], value=-1.0, along=values(2, width, seed=9)),
    ]  # fmt: skip
    single = [(edit,) for edit in wanted if edit.kind in has]
    both = [tuple(edit for edit in wanted[3:6] if edit.kind in has)]
    return [Trial(text, edits) for text in range(len(LENGTHS)) for edits in (*single, *both, ())]


def test_a_sweep_is_a_full_pass_for_each_intervention(model) -> None:
    ids, trials = texts(model), trials_of(model)
    answers = [list(range(start, start + 20)) for start in range(4)]
    found = together(model, ids, trials, answers=answers, surprisal=True)
    assert_same(found, one_by_one(model, ids, trials, answers))
    without = together(model, ids, trials, answers=answers)
    np.testing.assert_allclose(without.divergence, found.divergence, rtol=1e-4, atol=2e-5)
    assert np.isnan(without.surprisal).all()


def test_activations_are_those_of_a_full_pass_at_their_places(model) -> None:
    """After every edit, at sites before, at and behind it."""
    ids, places = texts(model), [3, 11, 0, 1]
    wanted = [Site("resid_post", layer) for layer in (0, 1, 2)] + [Site("mlp_act", 2)]
    wanted = [site for site in wanted if site.kind in model.structure.kinds]
    trials = [trial for trial in trials_of(model) if trial.edits[:1] != () or trial.text == 0]
    found = together(model, ids, trials, reads=wanted, places=places)
    kinds = list(dict.fromkeys(site.kind for site in wanted))
    for number, (text, edits) in enumerate(trials):
        with torch.no_grad(), model.intervene([replace(edit, rows=[0]) for edit in edits]):
            heard = model.activations(model.batch([ids[text]]), kinds)
        for site in wanted:
            np.testing.assert_allclose(
                found.activations[site][number], heard[site][0, places[text]].float(),
                rtol=1e-4, atol=1e-5, err_msg=f"{trials[number]} {site}",
            )  # fmt: skip
    inside = [
        number
        for number, (_, edits) in enumerate(trials)
        if all(edit.layers is not None for edit in edits)
    ]
    some = [trials[number] for number in inside]
    alone = together(model, ids, some, reads=wanted, places=places, predictions=False)
    assert np.isnan(alone.divergence).all() and alone.logits.size == 0
    for site in wanted:
        np.testing.assert_allclose(
            alone.activations[site], found.activations[site][inside], rtol=1e-4, atol=1e-5
        )


def test_without_predictions_no_later_block_runs(llama) -> None:
    ran = []
    hooks = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(llama.base.layers)
    ]
    edit = Edit("resid_post", "add", layers=[0], value=values(llama.width))
    settings = {"reads": [Site("resid_post", 1)], "predictions": False}
    try:
        list(sweep(llama, texts(llama), [Trial(0, (edit,))], **settings))
    finally:
        for hook in hooks:
            hook.remove()
    assert 1 in ran and 2 not in ran
    assert not any(vars(block).get("forward") for block in llama.base.layers)


def test_what_cannot_be_read_is_refused(llama) -> None:
    ids, trials = texts(llama), [Trial(0, ())]
    with pytest.raises(SiteError, match="logits is no vector of a token in a block"):
        next(sweep(llama, ids, trials, reads=[Site("logits")]))
    with pytest.raises(SiteError, match="text 3 has 2 tokens; none is at 2"):
        next(sweep(llama, ids, trials, reads=[Site("resid_post", 1)], places=[0, 0, 0, 2]))
    with pytest.raises(SiteError, match="gives predictions or activations, and neither"):
        next(sweep(llama, ids, trials, predictions=False))
    behind = [Trial(0, (Edit("resid_post", "ablate", layers=[2]),))]
    with pytest.raises(SiteError, match="ablate resid_post.2: lies behind all that is read, up to"):
        next(sweep(llama, ids, behind, reads=[Site("z", 1)], predictions=False))
    with pytest.raises(SiteError, match="resid_post.3"):
        next(sweep(llama, ids, trials, reads=[Site("resid_post", 3)]))


def test_no_intervention_changes_nothing(model) -> None:
    found = together(model, texts(model), [Trial(t, ()) for t in range(4)], surprisal=True)
    assert np.abs(found.divergence).max() < 1e-6
    np.testing.assert_allclose(found.surprisal, found.intact_surprisal, rtol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_whole_stream_of_another_text_gives_its_prediction(model, layer) -> None:
    """Text 2 into text 0, which are as long: what follows cannot know the difference."""
    ids = texts(model)
    kind = "resid_post"
    with torch.no_grad():
        heard = model.activations(model.batch([ids[2]]), [kind])
    stream = next(a for site, a in heard.items() if site.layer == layer)
    answers = [list(range(10))] * 4
    trials = [Trial(0, (Edit(kind, "replace", layers=[layer], value=stream),)), Trial(2, ())]
    found = together(model, ids, trials, answers=answers)
    np.testing.assert_allclose(found.logits[0], found.intact_logits[1], rtol=1e-4, atol=1e-5)
    assert found.divergence[0] > 1e-4


@pytest.mark.parametrize(
    ("edits", "columns"),
    [
        # The stream at each token, after block 1: the last block runs on the text and on what each
        # trial changes of it.
        (
            [Edit("resid_post", "add", layers=[1], positions=[at], value=values(32))
             for at in range(12)],
            11 + sum(range(1, 13)),
        ),
        # The last token in each block: the text is computed once for all, not once for each.
        ([Edit("mlp_act", "ablate", layers=[layer], positions=[11]) for layer in range(3)],
         3 * (11 + 3)),
        # Each block left out: those before it do not run, nor does it.
        ([Edit("resid_post", "skip", layers=[layer]) for layer in range(3)], 12 * (2 + 1)),
    ],
    ids=["tokens", "blocks", "lesions"],
)  # fmt: skip
def test_nothing_is_computed_that_an_intervention_leaves_as_it_is(
    llama, monkeypatch, edits, columns
) -> None:
    ids, answers = [llama.prompt(12)], [list(range(20))]
    assert not llama.sharing(ids[0])  # has passes of its own, once
    computed: list[int] = []
    forward = type(llama.base.layers[0]).forward

    def counted(block, states, *args, **kwargs):
        computed.append(states.shape[1])
        return forward(block, states, *args, **kwargs)

    monkeypatch.setattr(type(llama.base.layers[0]), "forward", counted)
    trials = [Trial(0, (edit,)) for edit in edits]
    found = together(llama, ids, trials, answers=answers)
    assert sum(computed) == 3 * 12 + columns  # the text as it is, and the trials
    expected = one_by_one(llama, ids, trials, answers)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-6)


def test_of_several_texts_and_layers_each_trial_gets_its_own(llama) -> None:
    ids = texts(llama)
    add = Edit("resid_post", "add", layers=[0], value=values(32))
    trials = [
        Trial(text, (replace(add, layers=[layer], positions=[at], value=values(32, seed=seed)),))
        for seed, (text, layer, at) in enumerate(np.ndindex(3, 3, 9))
    ]
    order = np.random.default_rng(0).permutation(len(trials))
    answers = [list(range(20))] * 4
    mixed = together(llama, ids, [trials[one] for one in order], answers=answers)
    expected = one_by_one(llama, ids, [trials[one] for one in order], answers)
    np.testing.assert_allclose(mixed.logits, expected.logits, rtol=1e-5, atol=1e-6)


def test_edits_of_a_text_are_done_one_after_the_other(llama) -> None:
    ids = texts(llama)
    add = Edit("resid_post", "add", layers=[1], positions=[8], value=values(32))
    scale = replace(add, action="scale", value=3.0)
    trials = [Trial(0, (add, add)), Trial(0, (replace(add, value=2 * values(32)),)),
              Trial(0, (scale, add)), Trial(0, (add, scale)), Trial(0, (add,))]  # fmt: skip
    answers = [list(range(20))] * 4
    found = together(llama, ids, trials, answers=answers)
    expected = one_by_one(llama, ids, trials, answers)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits[0], found.logits[1], rtol=1e-5, atol=1e-6)
    assert np.abs(found.logits[2] - found.logits[3]).max() > 0.01


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("resid_post", "skip", rows=[0]), "names no rows"),
        (Edit("resid_post", "ablate", positions=[[1]]), "positions of one text"),
        (Edit("resid_post", "ablate", positions=[9]), r"no positions \[9\]; text 0 has 9 tokens"),
        (Edit("resid_post", "add", value=0.0), "changed nothing"),
        (Edit("resid_post", "add", layers=[0], value=0.0), "changed nothing"),
        (Edit("mlp_act", "ablate", units=[10**6]), "there are no units"),
        (Edit("resid_post", "skip", layers=[3]), "no site resid_post.3: the model's layers are"),
        (Edit("resid_post", "ablate", start=9), "starts behind text 0, which has 9 tokens"),
        (Edit("router", "ablate"), "no 'router'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(llama, edit, message) -> None:
    with pytest.raises(SiteError, match=message):
        list(sweep(llama, texts(llama), [Trial(0, (edit,))]))
    assert not any("forward" in vars(block) for block in llama.base.layers)


def test_without_trials_nothing_is_computed(llama) -> None:
    assert list(sweep(llama, texts(llama), [])) == []


def test_a_text_of_one_token_is_refused(llama) -> None:
    with pytest.raises(SiteError, match="text 0 has 1 tokens; a sweep needs 2"):
        list(sweep(llama, [[5]], [Trial(0, ())]))


def test_the_blocks_are_as_they_were_after_an_exception(llama) -> None:
    batch = llama.batch([llama.prompt(5)])
    with torch.no_grad():
        before = llama.forward(batch, head=True)
        stream = torch.zeros(1, 5, llama.width)
        with (
            pytest.raises(RuntimeError, match="stop"),
            starting(llama.network, llama.found, 2, stream),
        ):
            assert not torch.equal(llama.forward(batch, head=True), before)
            raise RuntimeError("stop")
        assert torch.equal(llama.forward(batch, head=True), before)


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_of_a_real_model_a_sweep_is_a_full_pass_for_each_intervention(name, request) -> None:
    model = request.getfixturevalue(name)
    ids = [
        model.tokenizer(text)["input_ids"]
        for text in ("The capital of France is the city of", "Two and two make four, and six make")
    ]
    middle, last = model.layers // 2, model.layers - 1
    size = float(model.surprisal)  # a few nats: an addition that is neither nothing nor all
    trials = [
        Trial(text, (edit,))
        for text in range(len(ids))
        for layer in (0, middle, last)
        for edit in (
            Edit("resid_post", "skip", layers=[layer]),
            Edit("attn_out_post", "skip", layers=[layer]),
            Edit("mlp_out_post", "skip", layers=[layer], positions=[len(ids[text]) - 1]),
            Edit("resid_post", "add", layers=[layer], positions=[3], value=size),
            Edit("z", "ablate", layers=[layer], heads=[1], start=1),
        )
    ]
    answers = [list(range(1000, 1100))] * len(ids)
    found = together(model, ids, trials, answers=answers, surprisal=True)
    expected = one_by_one(model, ids, trials, answers)
    assert_same(found, expected, rtol=2e-3, atol=2e-3)


@torch.no_grad()
def test_a_block_that_adds_nothing_is_refused_and_one_that_repeats_is_known(tiny_model) -> None:
    """Blocks of zeros make the stream pass unchanged: to leave another out gives embeddings."""
    model = tiny_model("llama", seed=3)
    for block in model.base.layers[1:]:
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    ids = [model.prompt(7)]
    with pytest.raises(SiteError, match="skip resid_post.2: its block adds nothing"):
        list(sweep(model, ids, [Trial(0, (Edit("resid_post", "skip", layers=[2]),))]))
    answers = [list(range(model.vocabulary))]
    found = together(
        model, ids, [Trial(0, (Edit("resid_post", "skip", layers=[0]),))], answers=answers
    )
    embedded = model.base.norm(model.base.embed_tokens(torch.tensor(ids)))
    expected = model.network.lm_head(embedded)[0, -1]
    np.testing.assert_allclose(found.logits[0], expected, rtol=1e-5, atol=1e-6)
