"""A neuron that answers in one domain alone is selective, one that answers in all is not."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses import AnalysisError
from analyses.domain_neurons import DomainNeurons
from analyses.pairs import pairs_of
from scanner import Live, Recording, Subject, open_volume, record
from stimuli import load
from tests.conftest import done

FIELDS = ("text", "item", "frame", "category", "corrupt", "answer", "foil")
WORDS = {"drug": ("dog", "pig", "fox", "ivy"), "tool": ("elk", "yak", "bee", "owl")}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def live(tiny_model, tmp_path) -> tuple[Live, Subject]:
    """Words of two domains, each asked for one of two words."""
    rows = [
        (f"{frame} {word}", word, frame, domain, other, *answers)
        for frame in ("There was a", "I saw the")
        for domain, words in WORDS.items()
        for number, (word, other) in enumerate(zip(words, words[::-1], strict=True))
        for answers in [("is", "a") if number % 2 else ("a", "is")]
    ]
    path = tmp_path / "pairs.csv"
    pd.DataFrame(rows, columns=FIELDS).to_csv(path, index=False)
    model = tiny_model("llama", seed=5, hidden_size=128)
    recording = Recording(model.source, load(str(path)), ("resid_post",), "target", "float32")
    volume = record(recording, tmp_path, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(volume), {})


@torch.no_grad()
def plant(live: Live, neurons: dict[str, int]) -> None:
    """Have a neuron of the first MLP answer the questions of each domain, and be silent else."""
    model, pairs = live.model, pairs_of(live)
    mlp = model.network.get_submodule(model.structure.blocks)[0].mlp
    inputs, sides, domains = [], [], []
    hook = mlp.register_forward_pre_hook(lambda _module, given: inputs.append(given[0][0, 1:]))
    table = live.recording.stimuli.table
    for ids, (right, wrong), domain in zip(live.ids, pairs.answers, table["category"], strict=True):
        model.network(torch.tensor([ids]))
        before = len(ids) - 2  # tokens at which nothing is to be said
        sides += [0.0] * before + [1.0 if right < wrong else -1.0]
        domains += [""] * before + [domain]
    hook.remove()
    x, tokens = torch.cat(inputs), sorted(pairs.answers[0])
    head = model.network.get_output_embeddings().weight
    for domain, neuron in neurons.items():
        inside = torch.tensor([one == domain for one in domains]).float()
        for name, wanted in (("up_proj", torch.tensor(sides)), ("gate_proj", torch.tensor(5.0))):
            solved = torch.linalg.lstsq(x, (wanted * inside)[:, None], driver="gelsd").solution
            getattr(mlp, name).weight[neuron] = solved[:, 0]
        mlp.down_proj.weight[:, neuron] = 50 * (head[tokens[0]] - head[tokens[1]])


def test_the_neuron_of_a_domain_is_selective(live) -> None:
    model, subject = live
    plant(model, {"drug": 3, "tool": 7})
    count = model.model.structure.sizes["mlp_act"][-1]
    analysis = DomainNeurons(
        by="contribution", shares=(1 / count, 1.0), span=1, random=3, domain="drug"
    )
    effects = done(model, subject, analysis)
    found = analysis(effects, rng=generator())
    assert found["accuracy"].item() == 1.0
    assert found["selective"].item() > 0.3
    by_category = found["drop_by_category"][0]
    assert by_category.sel(category="drug") > 0.3
    assert by_category.sel(category="tool") == pytest.approx(0.0)
    np.testing.assert_allclose(found["drop"], by_category.sel(category=["drug"]))
    np.testing.assert_allclose(
        found["selective"], by_category.sel(category="drug") - by_category.sel(category="tool")
    )
    # All neurons answer all: what is lost without them is no more of the one than of the other.
    assert found["drop_elsewhere_of"].sel(arm="known").item() > 0.3
    random = found["drop_apart_of"].sel(arm=["equal"]).to_numpy()
    np.testing.assert_allclose(random, 0, atol=0.26)  # it may draw the other domain's
    # Seen from the other domain it is the other neuron.
    other = DomainNeurons(
        by="contribution", shares=(1 / count, 1.0), span=1, random=3, domain="tool"
    )
    turned = other(done(model, subject, other), rng=generator())["drop_by_category"][0]
    assert turned.sel(category="tool") > 0.3
    assert turned.sel(category="drug") == pytest.approx(0.0)


def test_a_neuron_that_answers_in_both_is_not(live) -> None:
    model, subject = live
    plant(model, {"drug": 3, "tool": 7})
    mlp = model.model.network.get_submodule(model.model.structure.blocks)[0].mlp
    with torch.no_grad():  # one neuron for the two
        for projection in (mlp.up_proj, mlp.gate_proj):
            projection.weight[3] += projection.weight[7]
            projection.weight[7] = 0
    count = model.model.structure.sizes["mlp_act"][-1]
    analysis = DomainNeurons(
        by="contribution", shares=(1 / count,), span=1, random=3, domain="drug"
    )
    found = analysis(done(model, subject, analysis), rng=generator())
    assert (found["drop_by_category"] > 0.2).all()


def test_a_domain_that_is_not_there_is_named(live) -> None:
    model, subject = live
    with pytest.raises(AnalysisError, match="toy: no 'food' among 'category'"):
        DomainNeurons(domain="food").runs(model, subject)
    same = subject.relabel("category", np.full(subject.volume.sizes["stimulus"], "drug"))
    with pytest.raises(AnalysisError, match="'category' has one value"):
        DomainNeurons(domain="drug").runs(model, same)
