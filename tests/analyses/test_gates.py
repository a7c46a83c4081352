"""A tuning that is planted is told from noise of its size, and what is known of patterns holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses import AnalysisError
from analyses.acting import aimed, kinds
from analyses.gates import DEALT, ELSEWHERE, ENTRIES, KNOWN, NORMAL, OWN, Gates
from scanner import Live, Model, SiteError, Subject, find_source
from scanner.moved_weights import weights_of
from tests.conftest import done, sentences_of
from verification.effect_worlds import effect_world


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def pair(tiny_model, tmp_path_factory) -> tuple[Live, Subject]:
    """A model whose first MLP was tuned so that many of its gates are shut, beside its base."""
    folder = tmp_path_factory.mktemp("pair")
    base = tiny_model("llama", seed=5)
    mlp = base.network.get_submodule(base.structure.blocks)[0].mlp
    seen = []
    hook = mlp.register_forward_pre_hook(lambda _module, args: seen.append(args[0][0]))
    with torch.no_grad():
        # What all tokens have in common, by which a gate without a bias can be shut.
        base.network.get_input_embeddings().weight += torch.tensor([0.2, -0.2]).repeat(16)
        for seed in range(20):
            base.forward(base.batch([base.prompt(12, seed=seed)]))
        save(base, folder / "base")
        direction = torch.cat(seen).mean(0)
        mlp.gate_proj.weight -= 0.02 * direction / direction.norm()
        save(base, folder / "tuned")
    hook.remove()
    first, tuned = (find_source(str(folder / name)) for name in ("base", "tuned"))
    model = Model.load(tuned, device="cpu")
    live, subject = sentences_of(model, folder / "read")
    donor = replace(live.recording, source=first)
    return Live(model, live.recording, {"another": donor}), subject


def save(model: Model, folder: Path) -> None:
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def effects(pair) -> Subject:
    live, subject = pair
    return done(live, subject, Gates("base", random=2))


def test_gates_that_were_shut_are_found_where_they_are(pair, effects) -> None:
    live, _ = pair
    found = Gates("base", random=2)(effects, rng=generator())
    assert found["moved"][0].item() > 0.1
    # All that moves in the first layer shuts; behind it gates go both ways.
    np.testing.assert_allclose(found["opened"][0], -found["moved"][0], atol=0.02)
    assert found["unlike"][0] > found["unlike"][1] > 0
    # By hand, of all tokens but the first.
    differ = []
    for tokens in live.ids:
        both = [
            {site.layer: values[0, 1:] > 0 for site, values in
             model.activations(model.batch([tokens]), ["mlp_pre"]).items()}
            for model in (live.donor, live.model)
        ]  # fmt: skip
        differ.append([(both[0][layer] != both[1][layer]).float().mean() for layer in range(3)])
    own = effects.volume["differ"].isel(target=0).transpose("stimulus", "layer")
    np.testing.assert_allclose(own, differ, atol=1e-6)
    shares = found["open_share"].sel(subject=["base", "variant"])
    np.testing.assert_allclose(np.diff(shares, axis=1)[:, 0], found["opened"], atol=1e-6)
    assert (found["open_share_low"] <= found["open_share"]).all()
    assert (found["open_share_high"] >= found["open_share"]).all()


def test_a_tuning_is_held_against_noise_and_what_is_known(pair, effects) -> None:
    assert kinds(effects.volume).tolist() == [
        "own", "known", "shown", "shown", "matched", "matched", "equal", "equal"
    ]  # fmt: skip
    assert effects.volume["named"].values.astype(str).tolist() == [
        OWN, KNOWN, DEALT, ELSEWHERE, NORMAL, NORMAL, ENTRIES, ENTRIES
    ]  # fmt: skip
    analysis = Gates("base", random=2)
    found = analysis(effects, rng=generator())
    moved = found["moved_of"].sel(layer=0)
    # Aimed at gates, it moves them further than as much noise.
    assert moved.sel(arm=OWN) > 2 * moved.sel(arm=NORMAL) > 0
    assert moved.sel(arm=OWN) > 2 * moved.sel(arm=ENTRIES) > 0
    changed = effects.volume["changed"].values
    np.testing.assert_allclose(changed, changed[0], rtol=1e-4)
    assert found["tokens_read"].item() == sum(len(ids) - 1 for ids in pair[0].ids)
    assert found["change_of_weights"].item() == pytest.approx(changed[0])
    # Neurons that are dealt out agree by luck alone, and gates that are all open are unlike any.
    assert abs(found["kappa_of"].sel(arm=DEALT).mean().item()) < 0.1
    known = aimed(effects, 1)
    np.testing.assert_allclose(
        analysis.measured(known, variable="opened", rng=generator()),
        1 - found["open_share"].sel(subject="base"), atol=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(
        analysis.measured(known, variable="unlike", rng=generator()), 1, atol=1e-5
    )
    assert (found["edited_of"] <= found["moved_of"] + 0.05).all()


def test_what_is_told_of_patterns_follows_from_shares(effects) -> None:
    found = Gates("base", random=2)(effects, rng=generator())
    one, other = (found["open_share"].sel(subject=name) for name in ("base", "variant"))
    independent = one * (1 - other) + other * (1 - one)
    np.testing.assert_allclose(found["unlike"], found["moved"] / independent)
    np.testing.assert_allclose(found["kappa_of"].sel(arm=OWN), 1 - found["unlike"])
    shared, either = (one + other - found["moved"]) / 2, (one + other + found["moved"]) / 2
    np.testing.assert_allclose(found["jaccard_of"].sel(arm=OWN), shared / either)
    rows = found["distance_by"]
    assert (rows.sel(chosen="open mostly, Hamming") <= 1).all()
    for way in ("open on average", "open mostly"):
        edits, hamming = (rows.sel(chosen=f"{way}, {name}") for name in ("Levenshtein", "Hamming"))
        assert (edits <= hamming + 1e-9).all()
        assert hamming[0] > 0.05


def test_a_twin_is_given_the_tuning(pair) -> None:
    live, subject = pair
    twin = Live(live.model.twin(3), replace(live.recording, seed=3), live.given)
    before = {name: weight.clone() for name, weight in weights_of(twin.model).items()}
    told = done(twin, subject, Gates("base"))
    assert kinds(told.volume).tolist() == ["own"]
    for name, weight in weights_of(twin.model).items():
        assert torch.equal(weight, before[name])
    found = Gates("base")(told, rng=generator())
    assert found["moved"][0].item() > 0
    assert found["open_share"]["subject"].values.tolist() == ["base", "variant"]
    np.testing.assert_allclose(found["open_share"].sel(subject="base"), 0.5, atol=0.1)


def test_models_that_are_no_pair_are_refused(pair, tiny_source) -> None:
    live, subject = pair
    with_ = [replace(live.recording, source=source) for source in (
        live.recording.source, tiny_source("gpt2", seed=5), tiny_source("llama", seed=5, bos=True)
    )]  # fmt: skip
    same, other, begun = (Live(live.model, live.recording, {"another": one}) for one in with_)
    with pytest.raises(AnalysisError, match="weights of tuned are those of tuned"):
        Gates("base").act(same, subject, 0, rng=generator())
    with pytest.raises(SiteError, match="no variants of one model"):
        Gates("base").runs(other, subject)
    with pytest.raises(SiteError, match="read the same texts as other tokens"):
        Gates("base").runs(begun, subject)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loud": 0.0}, "loud must be above 0"),
        ({"sampled": 0}, "sampled must be at least 1"),
        ({"random": -1}, "random at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        Gates("base", **settings)


def test_intervals_hold_what_is_true_of_items() -> None:
    """In nineteen of twenty worlds, about, the share of open gates of all items is within."""
    inside = []
    for seed in range(40):
        subject = effect_world(generator(seed), Gates("base"), spread=0.05, items=20)
        found = Gates("base")(subject, rng=generator(seed))
        ends = (found[f"open_share_{end}"].sel(subject="variant")[0] for end in ("low", "high"))
        low, high = map(float, ends)
        inside.append(low <= 0.3 <= high)
    assert 33 <= sum(inside) <= 40
