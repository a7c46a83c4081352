"""What features are worth is told by what the model makes of what they rebuild."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from analyses import AnalysisError
from analyses import features as module
from analyses.features import Features
from scanner import Edit, Live, Recording, Site, Subject, open_volume, record
from scanner.dictionaries import Dictionary, Training
from scanner.token_activations import token_activations
from stimuli import load

SITE = Site("resid_post", 1)
WORDS = ("dog", "pig", "fox", "ivy", "elk", "yak")
FRAMES = ("There was a {} here and there", "Then I saw the {} and so on")
SMALL = {"width": 96, "active": 8, "tokens": 60_000}


@pytest.fixture
def scanned(tiny_model, tmp_path) -> tuple[Live, Subject]:
    rows = [
        (frame.format(word), word, frame, "ab"[number % 2])
        for frame in FRAMES
        for number, word in enumerate(WORDS)
    ]
    path = tmp_path / "words.csv"
    pd.DataFrame(rows, columns=["text", "item", "frame", "category"]).to_csv(path, index=False)
    model = tiny_model("llama", seed=5)
    recording = Recording(model.source, load(str(path)), ("resid_post",), "target", "float32")
    volume = record(recording, tmp_path, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(volume), {})


@dataclass(frozen=True, eq=False)
class Linear(Dictionary):
    """Rebuilds a share of what lies away from a centre."""

    centre: np.ndarray
    share: float

    @property
    def directions(self) -> np.ndarray:
        return np.eye(len(self.centre))

    def encode(self, activations: np.ndarray) -> np.ndarray:
        return (activations - self.centre).astype(np.float32)

    def rebuilt(self, activations: np.ndarray) -> np.ndarray:
        return (self.centre + self.share * (activations - self.centre)).astype(np.float32)


def done(live: Live, subject: Subject, analysis: Features, monkeypatch, share=None) -> xr.Dataset:
    if share is not None:
        centre = np.concatenate(token_activations(live.model, live.ids, [SITE])[SITE]).mean(0)
        monkeypatch.setattr(module, "train", lambda *_: Linear(None, centre, share))
    parts = [
        analysis.act(live, subject, run, rng=np.random.default_rng(0))
        for run in analysis.runs(live, subject)
    ]
    found = xr.combine_by_coords(parts, combine_attrs="override", data_vars="minimal")
    assert isinstance(found, xr.Dataset)
    labels = {
        name: ("stimulus", subject.volume[name].values) for name in ("item", "frame", "category")
    }
    return found.drop_vars("stimulus").assign_coords(labels)


def texts_of(name: str, live: Live) -> list[list[int]]:
    return live.model.tokenizer(load(name).table["text"].tolist())["input_ids"]


def told(volume: xr.Dataset, analysis: Features) -> xr.Dataset:
    return analysis(Subject("toy", volume, {}), rng=np.random.default_rng(0))


@torch.no_grad()
def surprisal(model, ids: list[int], edits: list[Edit]) -> float:
    batch = model.batch([ids])
    with model.intervene(edits):
        logits = model.forward(batch, head=True)[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])))


def test_what_is_rebuilt_whole_costs_nothing(scanned, monkeypatch) -> None:
    live, subject = scanned
    analysis = Features("resid_post", (1,), **SMALL)
    whole = told(done(live, subject, analysis, monkeypatch, share=1.0), analysis)
    assert whole["explained"].item() == pytest.approx(1, abs=1e-6)
    volume = done(live, subject, analysis, monkeypatch, share=0.0)
    assert told(volume, analysis)["explained"].item() < 0.05
    np.testing.assert_allclose(
        volume["surprisal_rebuilt"], volume["surprisal_without"], rtol=1e-5, atol=1e-6
    )
    # Next to nothing hangs on a block of a network with fresh weights, and what is kept of
    # nothing is not told.
    assert np.isnan(told(volume, analysis)["recovered"].item())
    monkeypatch.setattr(module, "LOST", -np.inf)
    assert told(volume, analysis)["recovered"].item() == pytest.approx(0, abs=0.02)


def test_the_model_reads_on_from_what_was_rebuilt(scanned, monkeypatch) -> None:
    live, subject = scanned
    volume = done(live, subject, Features("resid_post", (1,), **SMALL), monkeypatch, share=0.5)
    tokens = token_activations(live.model, live.ids, [SITE])[SITE]
    centre = np.concatenate(tokens).mean(0)
    assert volume["tried_stimulus"].values.tolist() == list(range(len(live.ids)))
    for text in (0, 9):
        kept = centre + 0.5 * (tokens[text] - centre)
        put = [
            Edit("resid_post", "replace", layers=[1], start=1,
                 value=np.concatenate([kept[:1], kept])[None])
        ]  # fmt: skip
        ids = live.ids[text]
        expected = surprisal(live.model, ids, []), surprisal(live.model, ids, put)
        found = volume[["surprisal", "surprisal_rebuilt"]].sel(layer=1).isel(tried=text)
        assert float(found["surprisal"]) == pytest.approx(expected[0], rel=1e-4)
        assert float(found["surprisal_rebuilt"]) == pytest.approx(expected[1], rel=1e-4)


def test_each_layer_has_a_dictionary_of_its_own(scanned, monkeypatch) -> None:
    live, subject = scanned
    analysis = Features("resid_post", (0, 2), text="agreement", **SMALL)
    volume = done(live, subject, analysis, monkeypatch)
    assert volume["layer"].values.tolist() == [0, 2]
    assert volume["features"].shape == (12, 2, 96)
    assert ((volume["features"] != 0).sum("feature") <= 8).all()
    found = told(volume, analysis)
    assert (found["explained"] > 0.3).all()
    assert (found["active"] <= 8).all()
    once = {
        tuple(ids[:end]) for ids in texts_of("agreement", live) for end in range(2, len(ids) + 1)
    }
    assert (found["read_each"] * 96 == len(once)).all()
    np.testing.assert_allclose(
        volume["units"], subject.volume["resid_post"].sel(layer=[0, 2]), rtol=1e-6
    )
    length = np.linalg.norm(volume["directions"], axis=-1)
    np.testing.assert_allclose(length, 1, rtol=1e-5)
    again = done(live, subject, analysis, monkeypatch)
    np.testing.assert_array_equal(again["features"], volume["features"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "layers: "),
        ({"layers": (1, 1)}, "name each once"),
        ({"layers": (1,), "width": 16}, "active: 16 of 16 features"),
        ({"layers": (1,), "text": "nothing"}, "text: no set 'nothing'; there is agreement"),
        ({"layers": (1,), "release": "scope"}, "needs both `release` and `name`"),
        ({"layers": (1, 2), "release": "scope", "name": "a"}, "reads one layer"),
        ({"layers": (1,), "architecture": "gated"}, "no 'gated'; there is topk, jumprelu"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        Features("resid_post", **settings)


def test_it_says_what_it_cannot_do(scanned) -> None:
    _, subject = scanned
    assert Features("resid_post", (1, 7)).beyond(3) == "7 is none of the model's 3 layers"
    assert not Features("resid_post", (1, 2)).beyond(3)
    with pytest.raises(AnalysisError, match="has no features"):
        told(subject.volume, Features("resid_post", (1,)))


def planted(atoms: np.ndarray, texts: int, seed: int) -> list[np.ndarray]:
    """Tokens of texts, each two atoms."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(texts):
        weights = np.zeros((20, len(atoms)))
        for row in weights:
            row[rng.choice(len(atoms), 2, replace=False)] = rng.uniform(1, 2, 2)
        found.append((weights @ atoms).astype(np.float32))
    return found


def test_features_that_are_there_are_found_again_and_those_of_noise_are_not() -> None:
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(16, 24))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    ids = [[one] * 21 for one in range(200)]  # no text begins as another does
    training = Training(width=32, active=2, tokens=400_000)
    analysis = Features("resid_post", (1,), **SMALL)
    again = analysis._again(ids, planted(atoms, 200, 1), training)
    # Sixteen are there to be found; the others stand for what is left.
    assert np.sum(again["cosine"] >= 0.9) >= 12
    assert np.sum(again["cosine_turned"] >= 0.7) <= 3
    noise = [rng.normal(size=(20, 24)).astype(np.float32) for _ in range(200)]
    again = analysis._again(ids, noise, training)
    assert np.sum(again["cosine"] >= 0.7) <= 3
    assert analysis._again(ids[:20], noise[:20], training) == {}
