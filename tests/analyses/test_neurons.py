"""Neurons that were planted to answer are those without which nothing is answered."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from analyses import AnalysisError
from analyses.neurons import By, Neurons, _Chooser, _Set
from analyses.pairs import pairs_of
from analyses.splits import item_groups
from analyses.targets import Patterns
from scanner import (
    Edit,
    Fired,
    Live,
    Recording,
    SiteError,
    Subject,
    fired,
    open_volume,
    record,
)  # fmt: skip
from stimuli import load

FIELDS = ("text", "item", "frame", "category", "corrupt", "answer", "foil")
WORDS = ("dog", "pig", "fox", "ivy", "elk", "yak")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def live(tiny_model, tmp_path) -> tuple[Live, Subject]:
    """Texts that end with their nouns, of two kinds that ask for one of two words."""
    rows = [
        (f"{frame} {word}", word, frame, "ab"[number % 2], other, *answers)
        for frame in ("There was a", "I saw the")
        for number, (word, other) in enumerate(zip(WORDS, WORDS[::-1], strict=True))
        for answers in [("is", "a") if number % 2 else ("a", "is")]
    ]
    path = tmp_path / "pairs.csv"
    pd.DataFrame(rows, columns=FIELDS).to_csv(path, index=False)
    model = tiny_model("llama", seed=5)
    recording = Recording(model.source, load(str(path)), ("resid_post",), "target", "float32")
    volume = record(recording, tmp_path, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(volume), {})


def done(live: Live, subject: Subject, analysis: Neurons) -> xr.Dataset:
    parts = [analysis.act(live, subject, run, rng=generator())
             for run in analysis.runs(live, subject)]  # fmt: skip
    found = xr.combine_by_coords(parts, combine_attrs="override", data_vars="minimal")
    assert isinstance(found, xr.Dataset)
    labels = {name: ("stimulus", subject.volume[name].values)
              for name in ("item", "category", "corrupt")}  # fmt: skip
    return found.drop_vars("stimulus").assign_coords(labels)


@torch.no_grad()
def plant(live: Live, neuron: int) -> None:
    """Have a neuron of the first MLP tell the two kinds of nouns and say the word for each."""
    model, pairs = live.model, pairs_of(live)
    mlp = model.network.get_submodule(model.structure.blocks)[0].mlp
    inputs, sides = [], []
    hook = mlp.register_forward_pre_hook(lambda _module, given: inputs.append(given[0][0, -1]))
    for both, sign in ((pairs.clean, 1.0), (pairs.corrupt, -1.0)):
        for ids, (right, wrong) in zip(both.ids, pairs.answers, strict=True):
            model.network(torch.tensor([ids]))
            sides.append(sign if right < wrong else -sign)
    hook.remove()
    x, tokens = torch.stack(inputs), sorted(pairs.answers[0])
    mlp.up_proj.weight[neuron] = torch.linalg.lstsq(x, torch.tensor(sides)[:, None]).solution[:, 0]
    ones = torch.full((len(x), 1), 5.0)
    mlp.gate_proj.weight[neuron] = torch.linalg.lstsq(x, ones).solution[:, 0]
    head = model.network.get_output_embeddings().weight
    mlp.down_proj.weight[:, neuron] = 50 * (head[tokens[0]] - head[tokens[1]])


def test_without_the_neuron_that_answers_nothing_is_answered(live) -> None:
    model, subject = live
    plant(model, 3)
    count = model.model.structure.sizes["mlp_act"][-1]
    analysis = Neurons(by="contribution", shares=(1 / count, 0.5), span=1, random=3)
    found = done(model, subject, analysis)
    result = analysis(subject.replace_volume(found), rng=generator())
    assert float(result["accuracy"]) == 1.0
    assert float(result["drop"][0]) > 0.3
    intact = np.mean([found["intact_margin_clean"], found["intact_margin_corrupt"]])
    assert 0.9 < float(result["drop_margin"][0]) / intact < 1.1
    # At random it is one of the others, which say nothing.
    np.testing.assert_allclose(result["accuracy_left"].sel(arm="equal"), [1.0])
    lost = 1 - result["accuracy_left"]
    np.testing.assert_allclose(result["relative_drop"], lost)
    np.testing.assert_allclose(result["above_chance_drop"], lost / 0.5)
    np.testing.assert_allclose(result["drop_relative"], result["drop"])
    np.testing.assert_allclose(result["drop_beyond_chance"], 2 * result["drop"])
    np.testing.assert_allclose(
        result["accuracy_by"].sel(chosen=f"contribution, {100 / count:g} %"), 1 - result["drop"]
    )


@pytest.mark.parametrize("left", ["zero", "mean"])
def test_margins_are_those_of_passes_by_hand(live, left) -> None:
    model, subject = live
    analysis = Neurons(shares=(0.2,), within="span", layers=(1,), left=left, random=1)
    found = done(model, subject, analysis).isel(layer=0)
    assert found["target_kind"].values.astype(str).tolist() == [
        "own", "known", "equal", "matched", "shown", "shown", "shown"
    ]  # fmt: skip
    pairs = pairs_of(model)
    heard = fired(model.model, model.ids, [1, 2])
    group = item_groups(subject.volume["item"].to_numpy().astype(object).astype(str),
                        subject.volume["category"].to_numpy().astype(object).astype(str),
                        groups=2, rng=generator())  # fmt: skip
    for text in (0, 5, 11):
        train = np.flatnonzero(group != group[text])
        mean = heard.signed[train].mean(0)
        top = np.argsort(-mean.ravel())[: round(0.2 * mean.size)]
        edits = []
        for row, layer in enumerate((1, 2)):
            units = [int(one - row * mean.shape[1]) for one in top
                     if one // mean.shape[1] == row]  # fmt: skip
            value = mean[row] if left == "mean" else np.zeros(mean.shape[1])
            edits.append(Edit("mlp_act", "replace", layers=[layer], units=units, start=1,
                              value=value, must_move=False))  # fmt: skip
        for side, step in ((pairs.clean, 1), (pairs.corrupt, -1)):
            name = "margin_clean" if step == 1 else "margin_corrupt"
            right, wrong = pairs.answers[text][::step]
            batch = side.model.batch([side.ids[text]])
            with torch.no_grad(), side.model.intervene(edits):
                logits = side.model.forward(batch, head=True)[0, -1]
            np.testing.assert_allclose(
                found[name][text, 0], float(logits[right] - logits[wrong]), rtol=1e-3, atol=1e-5
            )


def patterns_of(x: np.ndarray, items: np.ndarray, values: np.ndarray) -> Patterns:
    return Patterns.of(x.reshape(len(x), -1), items, (values[:, None] == np.unique(values)) * 1.0)


def test_neurons_at_random_are_others_of_the_same_layer() -> None:
    rng = generator(1)
    signed = np.abs(rng.normal(size=(12, 2, 200))).astype(np.float32)
    items = np.repeat(np.arange(6), 2).astype(str)
    values = np.where(np.arange(12) < 6, "a", "b")
    lengths = rng.uniform(0.5, 2, size=(2, 200))
    chooser = _Chooser(
        Fired(signed, signed, signed > 1), lengths, patterns_of(signed, items, values), Neurons()
    )
    own = chooser.silenced(_Set("own", "contribution", 0.1), rng)
    assert own.sum(1).tolist() == [20, 20]
    worth = signed.mean(0) * lengths
    np.testing.assert_array_equal(np.sort(worth[own]), np.sort(np.sort(worth)[:, -20:].ravel()))
    for _ in range(3):
        equal = chooser.silenced(_Set("equal", "contribution", 0.1), rng)
        assert equal.sum(1).tolist() == [20, 20]
        matched = chooser.silenced(_Set("matched", "contribution", 0.1), rng)
        for made in (equal, matched):
            assert not (made & own).any()
        for layer in range(2):
            sums = worth[layer, matched[layer]].sum(), worth[layer, own[layer]].sum()
            assert sums[1] <= sums[0] <= sums[1] + worth[layer].max()
    # All of them leave none to draw.
    everything = chooser.silenced(_Set("own", "activation", 1.0), rng)
    assert everything.all()
    assert not chooser.silenced(_Set("equal", "activation", 1.0), rng).any()


def test_neurons_are_chosen_by_what_their_means_are_and_how_often_they_are_open() -> None:
    rng = generator(3)
    signed, often = rng.normal(size=(12, 1, 50)), rng.uniform(size=(12, 1, 50))
    signed[:, 0, 4], signed[:, 0, 9], often[:, 0, 2] = 5, -9, 1
    items, values = np.repeat(np.arange(6), 2).astype(str), np.repeat(["a", "b"], 6)
    patterns = patterns_of(signed, items, values)
    fired_ = Fired(signed, np.abs(signed), often)
    chooser = _Chooser(fired_, np.ones((1, 50)), patterns, Neurons())
    tops: dict[By, int] = {"activation": 4, "mean_size": 9, "frequency": 2}
    for by, top in tops.items():
        (own,) = chooser.silenced(_Set("own", by, 0.02), rng)
        assert own.nonzero()[0].tolist() == [top]


def test_how_often_a_gate_is_open_needs_a_gate_that_can_be_heard(live, monkeypatch) -> None:
    model, subject = live
    Neurons(by="frequency").runs(model, subject)
    deaf = model.model.structure.without({"mlp_pre": "it is deaf"})
    monkeypatch.setitem(vars(model.model), "structure", deaf)
    with pytest.raises(SiteError, match="it is deaf"):
        Neurons(by="frequency").runs(model, subject)
    Neurons().runs(model, subject)


def test_selective_neurons_are_those_whose_items_differ() -> None:
    rng = generator(2)
    items = np.repeat([f"{one:02}" for one in range(20)], 3)
    values = np.where(np.arange(60) < 30, "a", "b")
    x = rng.normal(size=(60, 1, 50))
    x[values == "b", 0, 7] -= 5
    patterns = patterns_of(x, items, values)
    chooser = _Chooser(Fired(x, np.abs(x), x > 0), np.ones((1, 50)), patterns, Neurons())
    found = chooser._scores("selectivity", patterns)[0]
    assert found.argmax() == 7
    means = x.reshape(20, 3, 50).mean(1)[:, 7]
    one, other = means[:10], means[10:]
    expected = abs(one.mean() - other.mean()) / np.sqrt((one.var() + other.var()) / 2)
    np.testing.assert_allclose(found[7], expected)
    # Its labels dealt out anew tell nothing of it.
    own = _Set("own", "selectivity", 0.02)
    assert chooser.silenced(own, rng)[0].nonzero()[0].tolist() == [7]
    dealt = [
        chooser.silenced(_Set("shuffled", "selectivity", 0.02), generator(seed))[0].argmax()
        for seed in range(10)
    ]
    assert dealt.count(7) < 5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"by": "size"}, "by: 'size' is none of activation, magnitude"),
        ({"within": "model"}, "within: 'model' is none of layer, span"),
        ({"shares": (0.0,)}, "shares: above 0 and up to 1"),
        ({"shares": ()}, "shares: above 0 and up to 1"),
        ({"layers": (-1,)}, "layers: whole numbers from 0"),
        ({"span": 0}, "a span of 0 layers"),
        ({"item_folds": 1}, "item_folds at least 2"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        Neurons(**settings)


def test_it_says_what_it_cannot_do(tiny_model, toy_stimuli) -> None:
    assert Neurons(layers=(2,), span=2).beyond(3) == "3 is none of the model's 3 layers"
    assert not Neurons(layers=(2,)).beyond(3)
    model = tiny_model("llama")
    recording = Recording(model.source, toy_stimuli, ("resid_post",), "target", "float32")
    with pytest.raises(AnalysisError, match="have no column 'corrupt', so are no pairs"):
        Neurons().runs(Live(model, recording), Subject("toy", xr.Dataset(), {}))
