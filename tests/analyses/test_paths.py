"""What a path carries is what passes by hand say, and what other texts send is no answer."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from analyses import AnalysisError
from analyses.pairs import pairs_of
from analyses.paths import Paths
from scanner import Edit, Live, Recording, Site, Subject, open_volume, record
from stimuli import StimulusSet, load

FIELDS = ("text", "item", "frame", "category", "corrupt", "answer", "foil")
WORDS = ("dog", "pig", "fox", "ivy", "elk", "yak")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def pairs(tiny_model, tmp_path) -> tuple[Live, Subject]:
    rows = [
        (f"{frame} {word} here and", word, frame, "ab"[number % 2], other, *answers)
        for frame in ("There was a", "I saw the")
        for number, (word, other) in enumerate(zip(WORDS, WORDS[::-1], strict=True))
        for answers in [("is", "a") if number % 2 else ("a", "is")]
    ]
    path = tmp_path / "pairs.csv"
    pd.DataFrame(rows, columns=FIELDS).to_csv(path, index=False)
    return scanned(tiny_model("llama", seed=5), load(str(path)), tmp_path)


def scanned(model, stimuli, folder) -> tuple[Live, Subject]:
    recording = Recording(model.source, stimuli, ("resid_post",), "target", "float32")
    path = record(recording, folder, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(path), {})


def done(live: Live, subject: Subject, analysis: Paths) -> xr.Dataset:
    parts = [analysis.act(live, subject, run, rng=generator())
             for run in analysis.runs(live, subject)]  # fmt: skip
    found = xr.combine_by_coords(parts, combine_attrs="override", data_vars="minimal")
    assert isinstance(found, xr.Dataset)
    labels = {name: ("stimulus", subject.volume[name].values) for name in ("item", "category")}
    return found.drop_vars("stimulus").assign_coords(labels)


@torch.no_grad()
def margin(model, ids: list[int], answers: tuple[int, int], edits: list[Edit]) -> float:
    with model.intervene(edits):
        logits = model.forward(model.batch([ids]), head=True)[0, -1]
    return float(logits[answers[0]] - logits[answers[1]])


@pytest.mark.parametrize("into", ["corrupt", "clean"])
def test_the_direct_path_is_the_difference_set_into_the_end_of_the_stream(pairs, into) -> None:
    live, subject = pairs
    analysis = Paths(into=into, random=2)
    found, both, model = done(live, subject, analysis), pairs_of(live), live.model
    order = found["target_kind"].values.astype(str).tolist()
    assert order == ["known", "own", "shown", "other", "other"]
    last = model.layers - 1
    for text in (0, 7):
        taker, giver = both.corrupt.ids[text], both.clean.ids[text]
        if into == "clean":
            taker, giver = giver, taker
        answers = both.answers[text]
        base, donor = (margin(model, ids, answers, []) for ids in (taker, giver))
        np.testing.assert_allclose(
            [found["base"][text], found["donor"][text]], [base, donor], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(found["sent"][text, :, 0], donor, rtol=1e-4, atol=1e-5)
        for layer in range(model.layers):
            site = Site("attn_out_post", layer)
            with torch.no_grad():
                there, given = (
                    model.activations(model.batch([ids]), [site.kind])[site][0, -1]
                    for ids in (taker, giver)
                )
            put = Edit("resid_post", "add", layers=[last], positions=[len(taker) - 1],
                       value=given - there, must_move=False)  # fmt: skip
            replaced = Edit("attn_out_post", "replace", layers=[layer], value=given,
                            positions=[len(taker) - 1], must_move=False)  # fmt: skip
            np.testing.assert_allclose(
                found["sent"][text, layer, 1:3],
                [margin(model, taker, answers, [one]) for one in (put, replaced)],
                rtol=1e-3, atol=1e-5,
            )  # fmt: skip
    result = analysis(subject.replace_volume(found), rng=generator())
    whole = (found["donor"] - found["base"]).values
    moved = (found["sent"].isel(target=1) - found["base"]).transpose(..., "stimulus").values
    moved = moved @ whole / np.sum(whole**2)
    np.testing.assert_allclose(result["share"], moved, rtol=1e-5)
    np.testing.assert_allclose(result["share_of"].sel(arm="on the path"), moved, rtol=1e-5)
    # What the last attention adds is read by the last MLP and by the prediction.
    assert abs(result["share_of"].sel(arm="on all paths")[-1] - moved[-1]) > 1e-6


def test_another_text_asks_for_the_word_that_is_there(pairs) -> None:
    live, subject = pairs
    both = pairs_of(live)
    for into in ("corrupt", "clean"):
        analysis = Paths(into=into)
        givers = analysis._others(both, generator(1))
        for text, giver in enumerate(givers):
            assert giver != text
            assert both.answers[giver] == both.answers[text]
            pair = analysis._pair(both, text, int(giver))
            taker, sent = pair.corrupt, pair.clean
            own, other = both.corrupt.ids[text], both.corrupt.ids[giver]
            if into == "clean":
                taker, sent, own, other = sent, taker, both.clean.ids[text], both.clean.ids[giver]
            assert (taker, sent) == (own, other)


def test_what_follows_from_definition_is_told(pairs) -> None:
    live, subject = pairs
    assert not Paths().identity_at("share", 1, 3)
    assert "reads the stream of the last" in Paths(place="target").identity_at("share", 1, 3)
    attention = Paths(receiver="attn_out_post", at=1, place="target")
    mlp = Paths(receiver="mlp_out_post", at=1, place="target")
    for analysis, behind in ((attention, 1), (mlp, 2)):
        assert not analysis.identity_at("share", behind - 1, 3)
        assert "behind the receiver" in analysis.identity_at("share", behind, 3)
        found = done(live, subject, analysis)
        own = found["sent"].isel(target=found["target_kind"].values.astype(str) == "own")[..., 0]
        base = found["base"].values[:, None]
        np.testing.assert_allclose(
            own[:, behind:], np.broadcast_to(base, own[:, behind:].shape), rtol=1e-4, atol=1e-5
        )
        assert np.abs(own[:, behind - 1] - base[:, 0]).max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sender": "z"}, "sender: 'z' is none of attn_out_post, mlp_out_post"),
        ({"receiver": "resid_post", "at": 1}, "receiver: 'resid_post' is none of prediction, q"),
        ({"receiver": "q"}, "receiver: 'q' needs a layer, `at`"),
        ({"at": 1}, "receiver: 'prediction' has no layer"),
        ({"receiver": "q", "at": -1}, "layers count from 0"),
        ({"random": -1}, "random of -1"),
        ({"head": 0}, "head: 'prediction' has none; q, k, value, z have"),
        ({"receiver": "q", "at": 1, "head": -1}, "heads count from 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        Paths(**settings)


def test_one_head_receives_what_it_alone_sees(pairs) -> None:
    live, subject = pairs
    rest = {"receiver": "q", "at": 2, "random": 0, "place": "last"}
    whole, one, other = (
        done(live, subject, Paths(head=head, **rest))["sent"].sel(target=0).values
        for head in (None, 0, 1)
    )
    assert not np.allclose(one, whole, atol=1e-6)
    assert not np.allclose(one, other, atol=1e-6)
    with pytest.raises(AnalysisError, match="head 9 is none of the 4 of 'q'"):
        Paths(head=9, **rest).runs(live, subject)


def test_it_says_what_it_cannot_do(pairs, tmp_path) -> None:
    live, subject = pairs
    assert Paths(receiver="q", at=3).beyond(3) == "3 is none of the model's 3 layers"
    assert not Paths().beyond(3)
    table = live.recording.stimuli.table.copy()
    table.loc[0, ["answer", "foil"]] = ["the", "was"]
    alone, _ = scanned(live.model, StimulusSet("alone", table), tmp_path / "alone")
    with pytest.raises(AnalysisError, match="stimulus 0 is the only one of"):
        Paths().runs(alone, subject)
    assert Paths(random=0).runs(alone, subject)
