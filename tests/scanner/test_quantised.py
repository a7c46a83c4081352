"""Rounded weights: refused by name where they cannot be had, and told in the name of a volume.

torchao is no part of what tests install; what it does to an embedded subject is in
`docs/precision.md`.
"""

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from safetensors.torch import load_file, save_file

from scanner import Model, Recording, SiteError, find_source, quantised
from scanner.gradients import weight_slopes
from scanner.placement import Placement
from scanner.quantised import library, plain


@pytest.fixture
def without(monkeypatch):
    """A machine without torchao."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(quantised, "version", missing)


@pytest.fixture
def having(monkeypatch):
    """A machine that says it has torchao; nothing of it is reached."""
    monkeypatch.setattr(quantised, "version", lambda name: "1.0")


def test_a_missing_library_is_one_error_with_the_mend(without, tiny_source):
    with pytest.raises(SiteError, match=r"torchao, which is not installed; .* leave `weights` out"):
        Model.load(tiny_source("llama"), device="cpu", bits="int8")


def test_experts_and_odd_groups_are_refused(having, tiny_source):
    assert library("x") == "torchao 1.0"
    with pytest.raises(SiteError, match=r"\d+% of the weights of its blocks are in linear maps"):
        Model.load(tiny_source("mixtral"), device="cpu", bits="int8")
    odd = tiny_source("llama", intermediate_size=72)
    with pytest.raises(SiteError, match="a map from 72 units does not divide into groups of 32"):
        Model.load(odd, device="cpu", bits="int4")


def test_in_parts_and_rounded_is_refused(tiny_source):
    with pytest.raises(SiteError, match="leave out `device_map`, or `weights`"):
        Model.load(tiny_source("llama"), placement=Placement("auto"), bits="int8")


def test_gradients_of_rounded_weights_are_refused(tiny_model):
    rounded = replace(tiny_model("llama"), bits="int8")
    with pytest.raises(SiteError, match="change by little, .* leave out `weights: int8`"):
        weight_slopes(rounded, rounded.prompt(6), range(5, 6), ["mlp"])


def test_rounding_is_in_the_name_of_a_volume_and_no_rounding_is_not(tiny_source, toy_stimuli):
    source = tiny_source("llama")
    whole = Recording(source, toy_stimuli, ("resid_post",), "target", "float32")
    assert "bits" not in whole.content
    rounded = [replace(whole, bits=bits) for bits in ("int8", "int4")]
    assert len({one.key for one in (whole, *rounded)}) == 3
    assert len({replace(one, seed=0).key for one in (whole, *rounded)}) == 3


def test_a_tensor_of_tensors_is_told_by_what_it_is_made_of():
    class Made:
        scale, values = torch.ones(1), torch.zeros(2)

        def __tensor_flatten__(self):
            return ["values", "scale"], None

    found = list(plain(Made()))  # type: ignore[arg-type]
    assert [name for name, _ in found] == [".scale", ".values"]
    assert list(plain(torch.ones(3)))[0][0] == ""


def test_weights_published_in_four_bits_are_loaded_as_numbers(tiny_source, tmp_path):
    """As GPT-OSS: blocks of 32 in MXFP4, each 4 bits and a power of two."""
    source = tiny_source("gpt_oss")
    for path in source.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    kept = {}
    for name, one in load_file(tmp_path / "model.safetensors").items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            kept[name] = one
            continue
        experts, entering, leaving = one.shape
        groups = entering // 32
        kept[f"{name}_blocks"] = torch.full((experts, leaving, groups, 16), 0x42, dtype=torch.uint8)
        kept[f"{name}_scales"] = torch.full((experts, leaving, groups), 126, dtype=torch.uint8)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = Model.load(find_source(str(tmp_path)), device="cpu")
    weights = model.network.model.layers[0].mlp.experts.down_proj
    assert weights.dtype == torch.float32 and weights.shape == (4, 64, 32)
    # 0x2 is 1 and 0x4 is 2, of E2M1; the scale is 2 to the power of 126 less 127.
    assert set(weights.unique().tolist()) == {0.5, 1.0}
    assert weight_slopes(model, model.prompt(6), range(5, 6), ["mlp"])[0] > 0
