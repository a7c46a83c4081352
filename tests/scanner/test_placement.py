"""A model in parts, between the CPU's memory and the disk: the same numbers, or a refusal."""

import gc
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scanner import Model, Recording, SiteError, open_volume, record
from scanner.gradients import slopes, weight_slopes
from scanner.lesions import lesioned
from scanner.placement import Placement, away, devices
from scanner.sites import Site
from scanner.tuning import Asked, tuned

# Tied and untied heads, blocks in other places, experts that are written anew for the disk.
VARIED = ("llama", "gemma3_text", "gpt2", "bloom", "opt", "mixtral", "gpt_oss", "mamba")


def in_parts(whole: Model, folder: Path) -> Model:
    """The same model, its second block on the disk."""
    blocks = whole.structure.blocks
    outer, _, own = blocks.rpartition(".")
    where: dict[str, int | str] = {
        f"{outer}.{name}": "cpu"
        for name, _ in whole.network.get_submodule(outer).named_children()
        if name != own
    }
    first = outer.partition(".")[0]
    where |= {name: "cpu" for name, _ in whole.network.named_children() if name != first}
    where |= {f"{blocks}.{layer}": "cpu" for layer in range(whole.layers)}
    where[f"{blocks}.1"] = "disk"
    placement = Placement(where, offload_folder=folder)
    return Model.load(whole.source, device="cpu", placement=placement)


@pytest.fixture
def whole(tiny_model):
    return tiny_model("llama")


@pytest.fixture
def divided(whole, tmp_path):
    return in_parts(whole, tmp_path / "offload")


@pytest.mark.parametrize("family", VARIED)
def test_every_site_is_the_same_to_the_last_bit(family, tiny_model, tmp_path):
    whole = tiny_model(family)
    parts = in_parts(whole, tmp_path)
    assert set(parts.parts.values()) == {"cpu", "disk"}
    assert away(parts.network) and not away(whole.network)
    assert parts.weights_sha256 == whole.weights_sha256
    assert parts.proof == whole.proof
    batch = whole.batch([whole.prompt(9), whole.prompt(6, seed=1)])
    expected, found = (one.activations(batch, whole.structure.kinds) for one in (whole, parts))
    assert expected.keys() == found.keys()
    for site in expected:
        assert torch.equal(expected[site], found[site]), site


def test_a_recording_is_the_same_to_the_last_bit(whole, divided, toy_stimuli, tmp_path):
    sites = ("resid_post", "q", "attn_probs", "mlp_act", "logits")
    recording = Recording(whole.source, toy_stimuli, sites, "all", "float32")

    def recorded(name: str, model: Model):
        return open_volume(
            record(recording, tmp_path / name, lambda: model, protocol_sha256="0" * 64)
        )

    volumes = [recorded("whole", whole), recorded("parts", divided)]
    for kind in sites:
        assert np.array_equal(*(one[kind].to_numpy() for one in volumes)), kind
    assert "parts" not in volumes[0].attrs
    assert json.loads(volumes[1].attrs["parts"])["model.layers.1"] == "disk"


def test_an_embedded_subject_that_memory_is_too_small_for(smollm2, tmp_path):
    placement = Placement("auto", {"cpu": "200MB"}, tmp_path)
    parts = Model.load(smollm2.source, device="cpu", placement=placement)
    lying = list(parts.parts.values())
    assert lying.count("disk") > 20 and lying.count("cpu") > 2
    assert parts.weights_sha256 == smollm2.weights_sha256
    batch = smollm2.batch([smollm2.prompt(12)])
    kinds = ("resid_post", "z", "mlp_act", "logits")
    expected, found = (one.activations(batch, kinds) for one in (smollm2, parts))
    assert len(expected) == 91
    assert all(torch.equal(expected[site], found[site]) for site in expected)


def test_twins_lie_like_their_subject_and_are_the_same(whole, divided):
    plain, twin = whole.twin(3), divided.twin(3)
    assert twin.parts == divided.parts and away(twin.network)
    assert twin.weights_sha256 == plain.weights_sha256 != whole.weights_sha256
    batch = whole.batch([whole.prompt(9)])
    expected, found = (one.activations(batch, ("resid_post", "logits")) for one in (plain, twin))
    assert all(torch.equal(expected[site], found[site]) for site in expected)


def test_lesions_and_gradients_of_activations_are_the_same(whole, divided):
    ids = [whole.prompt(8), whole.prompt(6, seed=2)]
    expected, found = (lesioned(one, ids, ["block", "mlp"]) for one in (whole, divided))
    for name in expected:
        assert np.array_equal(expected[name], found[name])
    assert expected["divergence"].max() > 0

    def score(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1, 3]

    site = Site("resid_post", 0)
    one, other = (
        slopes(model, model.batch(ids[:1]), [site], score).gradients[site]
        for model in (whole, divided)
    )
    assert torch.equal(one, other) and one.abs().max() > 0
    # What edits and starts have put in the place of forward passes is gone, accelerate's is not.
    bare = whole.forward(whole.batch(ids[:1]), head=True)
    assert torch.equal(bare, divided.forward(divided.batch(ids[:1]), head=True))


def test_what_needs_all_weights_is_refused_by_name(whole, divided):
    text = whole.prompt(6)
    found, _ = weight_slopes(whole, text, range(5, 6), ["mlp"])
    assert found > 0
    with pytest.raises(SiteError, match=r"gradients of weights need all weights at once, and \d+"):
        weight_slopes(divided, text, range(5, 6), ["mlp"])
    with pytest.raises(SiteError, match=r"teaching needs .* \(model\.layers\.1\."):
        with tuned(divided, [1], [Asked(text, 3)], steps=1, rate=1e-4):
            pass
    with pytest.raises(SiteError, match="fresh weights block by block need all weights"):
        next(divided.cascade([1], seed=0))


def test_the_folder_goes_with_the_model(tiny_model, tmp_path):
    parts = in_parts(tiny_model("mixtral"), tmp_path)  # experts are written
    assert list(tmp_path.rglob("*.safetensors"))
    twin = parts.twin(0)
    assert len(list(tmp_path.iterdir())) == 2
    del parts, twin
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_devices_that_are_not_there_and_parts_that_are_not(whole, tmp_path):
    assert {"cpu", "disk"} <= set(devices())
    with pytest.raises(SiteError, match=r"puts 'lm_head' on '7', which this machine does not have"):
        Model.load(whole.source, placement=Placement({"model": "cpu", "lm_head": 7}))
    with pytest.raises(SiteError, match="name each part of the model, or '' alone"):
        Model.load(whole.source, placement=Placement({"": "cpu", "lm_head": "disk"}))
    missing = Placement({"model.embed_tokens": "cpu", "lm_head": "disk"}, offload_folder=tmp_path)
    with pytest.raises(SiteError, match="cannot be laid out by its device_map: .* or take `auto`"):
        Model.load(whole.source, device="cpu", placement=missing)


def test_one_device_is_no_division(whole, tmp_path):
    placed = Model.load(whole.source, placement=Placement("auto", {"cpu": "1GB"}, tmp_path))
    assert placed.device == "cpu" and not placed.parts and not away(placed.network)
    assert placed.weights_sha256 == replace(placed, placement=None).weights_sha256
