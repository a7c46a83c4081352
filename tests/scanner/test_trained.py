"""Networks that are trained here: on texts of which the best is known, with a charge for wires."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from scanner import Model, Penalty, Recipe, Source, Training, fresh, make, trained
from scanner import made as module
from scanner.gradients import gradients_of
from scanner.trained import surprisals
from scanner.wire_length import cost, distances, places, priced, wires
from stimuli import load_grammar

RULES = """\
symbol,share,gives
text,1,a noun rest verb .
rest,0.7,
rest,0.3,that noun rest verb
noun,0.5,dog
noun,0.5,cow
verb,0.5,runs
verb,0.5,eats
"""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """A cache of its own."""
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(trained, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(trained, "HELD_OUT", 400)
    return tmp_path / "cache"


@pytest.fixture
def training(tmp_path) -> Training:
    (tmp_path / "toy.csv").write_text(RULES)
    grammar = load_grammar("toy.csv", relative_to=tmp_path)
    return Training(grammar, layers=2, width=16, heads=2, neurons=36, steps=60, batch=16, rate=0.01)


def made(training: Training) -> Source:
    return make(Recipe("toy", fresh(training), training=training))


def told(source: Source) -> dict:
    return json.loads((source.folder / "making.json").read_text())


def weights(source: Source) -> dict[str, torch.Tensor]:
    network = Model.load(source, device="cpu").network
    return {name: one.detach() for name, one in network.named_parameters()}


def with_penalty(training: Training, kind, strength: float, **settings) -> Training:
    return replace(training, penalty=Penalty(kind, strength, **settings))


def test_what_is_trained_is_a_subject_whose_sites_are_proved(training) -> None:
    source = made(training)
    model = Model.load(source, device="cpu")
    assert set(model.proof.refused) == {"router"} or not model.proof.refused
    text = training.texts(0)[0]
    ids = model.tokenizer(text)["input_ids"]
    assert model.tokenizer.convert_ids_to_tokens(ids) == ["<s>", *text.split()]
    assert model.bits_per_byte > 0  # of a passage of which it knows few words
    card = (source.folder / "README.md").read_text()
    assert "trained on texts of 'toy', 60 steps of 16" in card
    assert f"{training.grammar.entropy:.3f}" in card
    before = weights(fresh(training))
    after = weights(source)
    same = {name for name, one in after.items() if one.equal(before[name])}
    assert same == {name for name in after if "norm" in name}  # gains stay 1, all else is trained
    assert all(bool((after[name] == 1).all()) for name in same)


def test_fresh_networks_of_a_seed_are_the_same_and_of_another_others(training, cache) -> None:
    one = fresh(training)
    again = cache / "put-aside"
    one.folder.rename(again)
    other = fresh(with_penalty(training, "wiring", 1.0))
    assert other.folder == one.folder
    assert (other.weights_sha256, other.tokenizer_sha256) == (
        one.weights_sha256, one.tokenizer_sha256,
    )  # fmt: skip
    assert fresh(replace(training, seed=1)).weights_sha256 != one.weights_sha256


def test_it_is_made_once_and_anew_for_any_other_setting(training) -> None:
    changes = {"layers": 1, "width": 32, "heads": 4, "neurons": 64, "steps": 5, "batch": 4,
               "rate": 0.02, "seed": 1, "penalty": Penalty("l1", 0.1)}  # fmt: skip
    every = [training, *(replace(training, **{name: one}) for name, one in changes.items())]
    every += [with_penalty(training, "shuffled_distances", 0.1, seed=seed) for seed in (0, 1)]
    folders = {Recipe("toy", fresh(one), training=one).folder for one in every}
    assert len(folders) == len(every)


def test_no_network_does_better_than_the_grammar_and_a_trained_one_comes_near(training) -> None:
    before = trained.held_out(Model.load(fresh(training), device="cpu"), training)
    after = told(made(replace(training, steps=150)))["held_out"]
    floor = training.grammar.entropy
    assert before["floor"] == after["floor"] == floor
    assert before["excess"] > 1 > 0.3 > after["excess"]
    assert after["nats"] > floor - 3 * after["error"]
    assert after["excess"] > -3 * after["excess_error"]
    assert after["excess_error"] < after["error"] / 3  # text by text it is known better


def test_held_out_texts_are_no_texts_of_a_step(training) -> None:
    assert training.held_out == replace(training, seed=5).held_out
    assert training.held_out[:16] not in [training.texts(step) for step in range(50)]
    assert training.texts(3) == replace(training, steps=5).texts(3) != training.texts(4)


def test_a_penalty_of_no_strength_is_plain_training_bit_for_bit(training) -> None:
    short = replace(training, steps=15)
    plain = weights(made(short))
    for kind in ("wiring", "l1", "shuffled_distances"):
        free = weights(made(with_penalty(short, kind, 0.0)))
        assert all(one.equal(plain[name]) for name, one in free.items())
    charged = weights(made(with_penalty(short, "wiring", 1e-4)))
    assert not any(one.equal(plain[name]) for name, one in charged.items() if "proj" in name)


def gradients(model: Model, wanted: Callable[[], torch.Tensor]) -> list[np.ndarray]:
    wired = priced(model)
    with torch.enable_grad(), gradients_of(model.network, set(wired)):
        wanted().backward()
        found = []
        for one in wired:
            assert one.grad is not None
            found.append(one.grad.numpy().copy())
        return found


def by_hand(outputs: int, inputs: int, sides: dict[int, tuple[int, int]]) -> np.ndarray:
    """Distances, unit by unit, on grids whose sides are told."""
    found = np.empty((outputs, inputs))
    for one in range(outputs):
        for other in range(inputs):
            (rows, columns), (others, other_columns) = sides[outputs], sides[inputs]
            down = (one // columns + 0.5) / rows - (other // other_columns + 0.5) / others
            right = (one % columns + 0.5) / columns - (other % other_columns + 0.5) / other_columns
            found[one, other] = np.hypot(down, right)
    return found / found.mean()


def test_the_slope_of_the_penalty_is_that_of_a_second_implementation(training) -> None:
    model = Model.load(fresh(training), device="cpu")
    texts, strength = training.texts(0), 0.3
    wired = priced(model)
    charges = Penalty("wiring", strength).charges(wired)
    plain = gradients(model, lambda: surprisals(model, texts).mean())
    both = gradients(
        model, lambda: surprisals(model, texts).mean() + strength * cost(wired, charges)
    )
    sides = {16: (4, 4), 36: (6, 6)}
    for weight, without, within in zip(wired, plain, both, strict=True):
        slope = strength * np.sign(weight.detach().numpy()) * by_hand(*weight.shape, sides)
        np.testing.assert_allclose(within - without, slope, rtol=1e-4, atol=1e-6)
    assert len(wired) == 2 * 7  # four of attention and three of the MLP in each block


def test_units_lie_on_grids_of_one_size_and_distances_are_one_on_average() -> None:
    grid = places(12)
    assert grid[:, 0].unique().tolist() == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert len(grid[:, 1].unique()) == 4
    for shape in ((16, 16), (64, 12), (7, 30)):
        assert distances(*shape).mean() == pytest.approx(1, abs=1e-5)
    assert distances(16, 16).diagonal().abs().max() == 0
    torch.testing.assert_close(distances(16, 36), distances(36, 16).T)


def test_the_three_penalties_charge_alike_on_average_and_only_one_by_places(training) -> None:
    wired = priced(Model.load(fresh(training), device="cpu"))
    true, flat, dealt, other = (
        Penalty(kind, 1.0, seed).charges(wired)
        for kind, seed in (
            ("wiring", 0), ("l1", 0), ("shuffled_distances", 0), ("shuffled_distances", 1),
        )
    )  # fmt: skip
    assert Penalty().charges(wired) == []
    for one, same, moved, again in zip(true, flat, dealt, other, strict=True):
        assert same.unique().tolist() == [1]
        assert moved.flatten().sort().values.equal(one.flatten().sort().values)
        assert not moved.equal(one) and not moved.equal(again)
        assert abs(np.corrcoef(moved.flatten(), one.flatten())[0, 1]) < 0.2
    assert all(
        one.equal(same)
        for one, same in zip(dealt, Penalty("shuffled_distances", 1.0).charges(wired), strict=True)
    )


def test_the_length_of_wires_is_what_it_was_made(training) -> None:
    far = distances(16, 36)
    one_size = wires([torch.full((16, 36), -0.5)])
    assert one_size.length == pytest.approx(1, abs=1e-5)
    assert (one_size.size, one_size.silent) == (0.5, 0)
    near = torch.where(far < far.median(), 1.0, 0.0)
    found = wires([near])
    assert found.length == pytest.approx(float(far[far < far.median()].mean()), rel=1e-5)
    assert found.silent == pytest.approx(0.5, abs=0.05)
    assert np.isnan(wires([torch.zeros(16, 36)]).length)


def test_the_dearer_wires_are_the_shorter_they_get_and_only_where_places_are_charged(
    training,
) -> None:
    strengths = (1e-5, 1e-4, 1e-3)
    lies = [told(made(with_penalty(training, "wiring", one)))["wires"] for one in strengths]
    plain = told(made(training))["wires"]
    lengths = [one["length"] for one in (plain, *lies)]
    assert spearmanr(lengths, [0, *strengths]).statistic == -1
    assert plain["length"] == pytest.approx(1, abs=0.03)
    for kind in ("l1", "shuffled_distances"):
        control = told(made(with_penalty(training, kind, strengths[1])))["wires"]
        assert control["length"] == pytest.approx(1, abs=0.05)
        assert control["length"] - lies[1]["length"] > 0.08
        assert control["size"] < 0.9 * plain["size"]  # it is charged all the same


class Killed(BaseException):
    """As a signal would."""


@pytest.mark.parametrize("at", [1, 9])
def test_what_is_killed_goes_on_and_ends_bit_for_bit_the_same(training, cache, at) -> None:
    short = with_penalty(replace(training, steps=10), "wiring", 1e-4)
    source = made(short)
    whole, files = weights(source), (source.folder / "model.safetensors").read_bytes()
    losses = told(source)["losses"]
    source.folder.rename(cache / "put-aside")

    def die(count: int = 1, detail: str = "") -> None:
        die.done += count
        if die.done == at:
            raise Killed

    die.done = 0
    recipe = Recipe("toy", fresh(short), training=short)
    with pytest.raises(Killed):
        make(recipe, advance=die, every=0.0)
    assert not recipe.made
    counts: list[int] = []
    gone_on = make(recipe, advance=lambda count=1, detail="": counts.append(count))
    assert counts[0] == at and sum(counts) == short.steps
    assert (gone_on.folder / "model.safetensors").read_bytes() == files
    assert all(one.equal(whole[name]) for name, one in weights(gone_on).items())
    assert told(gone_on)["losses"] == losses


def test_settings_that_make_no_network_are_refused(training) -> None:
    with pytest.raises(ValueError, match="a width of 20 is not shared by 4 heads in pairs"):
        replace(training, width=20, heads=4)
    with pytest.raises(ValueError, match="must not be below 0"):
        Penalty("wiring", -1.0)
    with pytest.raises(ValueError, match="a penalty of kind 'none' has no strength"):
        Penalty("none", 1.0)
