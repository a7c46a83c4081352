"""What tuning has changed is told matrix by matrix, beside what is known to be at random."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from analyses import AnalysisError
from analyses.subspaces import agreement, moved
from analyses.weights import TuningVectors
from scanner import Live, Recording, Subject, find_source
from scanner.components import MATRICES
from scanner.weights import Folder, by_component, changes
from tests.conftest import acts

ANALYSIS = TuningVectors("base", other="maths", shuffled="noise", random=3)


def tuned(source, folder, *, seed: int, shared: float = 0.0, only: str = "layers"):
    """A model whose matrices were moved at random, with a part that others may share."""
    shutil.copytree(source.folder, folder)
    weights = load_file(folder / "model.safetensors")
    own, common = (torch.Generator().manual_seed(one) for one in (seed, 99))
    for name in sorted(weights):
        if only in name and weights[name].ndim == 2:
            shape = weights[name].shape
            change = torch.randn(shape, generator=own)
            change += shared * torch.randn(shape, generator=common)
            weights[name] = weights[name] + 0.01 * change
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return find_source(str(folder))


@pytest.fixture
def live(tiny_model, toy_stimuli, tmp_path) -> Live:
    """A model that was tuned, its base, and two others that were tuned from it."""
    base = tiny_model("llama").source
    medical = tuned(base, tmp_path / "medical", seed=1, shared=1.0)
    given = {
        "base": base,
        "maths": tuned(base, tmp_path / "maths", seed=2, shared=1.0),
        "noise": tuned(base, tmp_path / "noise", seed=3),
    }
    recording = Recording(medical, toy_stimuli, ("resid_post",), "target", "float32")
    others = {name: replace(recording, source=source) for name, source in given.items()}
    return Live(tiny_model("llama"), recording, others)


def acted(live: Live, analysis: TuningVectors = ANALYSIS) -> Subject:
    subject = Subject("medical", xr.Dataset(), {})
    return subject.replace_volume(acts(live, subject, analysis).drop_vars("stimulus"))


def test_each_matrix_is_told_as_it_is_told_by_hand(live) -> None:
    volume = acted(live).volume
    base = Folder.open(live.given["base"].source.folder)
    change, theirs = (
        changes(base, one.folder) for one in (live.recording.source, live.given["maths"].source)
    )
    names = volume["item"].to_numpy().tolist()
    assert len(names) == 3 * 7
    for piece in by_component(base)["gate"]:
        at = volume.isel(stimulus=names.index(piece.name), layer=0)
        told = moved(base.matrix(piece), change.matrix(piece))
        assert float(at["inside"][0]) == pytest.approx(told.left.share)
        assert float(at["inside_right"][0]) == pytest.approx(told.right.share)
        assert float(at["chance"]) == told.left.chance and int(at["depth"]) == piece.layer
        both = agreement(change.matrix(piece), theirs.matrix(piece))
        assert float(at["agreed"][0]) == pytest.approx(both.cosine)
        assert float(at["agreed_dealt"][0]) == pytest.approx(both.chance)
    assert set(volume["category"].to_numpy()) == {*MATRICES}
    kinds = volume["target_kind"].to_numpy().tolist()
    assert kinds == ["own", "known", *["equal"] * 3, *["matched"] * 3, "shuffled"]


def test_what_was_moved_at_random_has_no_excess_and_what_is_shared_is_aligned(live) -> None:
    found = ANALYSIS(acted(live), rng=np.random.default_rng(0))
    # 21 matrices of about a thousand numbers each.
    assert float(found["excess"][0]) == pytest.approx(0, abs=0.05)
    assert float(found["aligned"][0]) == pytest.approx(0.5, abs=0.05)
    of = found["aligned_of"].sel(arm=["equal", "matched", "shuffled"])
    assert np.abs(of.to_numpy()).max() < 0.05
    assert found["profile"].dims == ("layer", "category", "depth")
    assert found["category"].to_numpy().tolist() == list(MATRICES)
    assert float(found["size"].min()) > float(found["floor"].max()) > 0
    base = Folder.open(live.given["base"].source.folder)
    mine, theirs = (
        changes(base, one.folder) for one in (live.recording.source, live.given["maths"].source)
    )
    every = [piece for piece in mine.pieces if piece.component in MATRICES]
    a, b, w = (
        np.concatenate([one.matrix(piece).ravel().astype(float) for piece in every])
        for one in (mine, theirs, base)
    )
    assert float(found["whole_aligned"]) == pytest.approx(
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    )
    assert float(found["whole_cosine"]) == pytest.approx(
        w @ (w + a) / np.linalg.norm(w) / np.linalg.norm(w + a)
    )
    assert float(found["whole_aligned_z"]) > 20


def test_a_twin_is_fresh_weights_in_the_place_of_the_base(live) -> None:
    twin = Live(live.model.twin(4), Recording(
        live.recording.source, live.recording.stimuli, ("resid_post",), "target", "float32", 4
    ), live.given)  # fmt: skip
    volume, own = acted(twin).volume, acted(live).volume
    assert volume["target_kind"].to_numpy().tolist() == ["own"]
    assert volume["item"].to_numpy().tolist() == own["item"].to_numpy().tolist()
    assert not np.allclose(volume["inside"][:, :, 0], own["inside"][:, :, 0])
    # The change is the same; that from the base to fresh weights goes another way than any tuning.
    np.testing.assert_allclose(volume["changed"], own["changed"])
    assert abs(float(volume["agreed"].mean())) < 0.05


def test_what_did_not_change_is_no_matrix_of_the_sample(live, tmp_path) -> None:
    source = tuned(live.given["base"].source, tmp_path / "some", seed=5, only="layers.1.mlp")
    recording = Recording(source, live.recording.stimuli, ("resid_post",), "target", "float32")
    some = Live(live.model, recording, live.given)
    assert ANALYSIS.runs(some, Subject("some", xr.Dataset(), {})) == [1]
    names = acted(some).volume["item"].to_numpy().tolist()
    assert names == [f"{one} of layer 1" for one in ("gate", "up", "down")]
    with pytest.raises(AnalysisError, match="no matrix of q of some-.*|no matrix of q of some"):
        TuningVectors("base", components=("q",)).runs(some, Subject("some", xr.Dataset(), {}))


def test_a_claim_of_alignment_needs_another_tuning_vector(live) -> None:
    analysis = TuningVectors("base", random=1)
    found = analysis(acted(live, analysis), rng=np.random.default_rng(0))
    assert "aligned" not in found and "excess" in found
    with pytest.raises(AnalysisError, match="name a subject in `other`"):
        analysis.measured(acted(live, analysis), variable="aligned", rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": ()}, "components: some of q, k"),
        ({"tolerance": 1.0}, "tolerance must be"),
        ({"other": "base"}, "must be different subjects"),
        ({"random": -1}, "random must be"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        TuningVectors("base", **settings)


def test_squares_inside_and_outside_are_all_that_has_changed(live) -> None:
    subject = acted(live)
    found = ANALYSIS(subject, rng=np.random.default_rng(0)).isel(layer=0)
    both = found["energy_inside"] + found["energy_outside"]
    volume = subject.volume
    for name in found["category"].to_numpy():
        changed = volume["changed"].to_numpy()[volume["category"].to_numpy() == name]
        assert float(both.sel(category=name)) == pytest.approx(changed.mean(), rel=1e-6)
    pooled = found["energy_inside"] / both
    np.testing.assert_allclose(pooled, found["share_pooled"], rtol=1e-6)
