"""Recordings say what their device was found to be; one that fails is refused unless accepted."""

import json
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from scanner import Model, Recording, open_volume, phantom, record, recording
from scanner.device import DtypeName
from scanner.phantom import PhantomError, phantom_of
from scanner.volume import digest_file, provenance, seal
from tests.conftest import run

SITES = ("resid_post", "z", "mlp_act", "attn_scores", "logits")


class Wrong(TorchFunctionMode):
    """SiLU is wrong in all texts alike, which no proof can see; the CPU's float64 is not."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func is F.silu and made.dtype != torch.float64:
            return made * 1.2
        return made


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom, "cache_folder", lambda: tmp_path / "cache" / "models")
    return tmp_path / "cache" / "phantoms"


@pytest.fixture
def plan(tiny_source, toy_stimuli):
    return Recording(tiny_source("llama"), toy_stimuli, SITES, "target", "float32")


def recorded(plan, folder, load, **settings):
    return record(plan, folder, load, protocol_sha256="0" * 64, **settings)


def said_by(path) -> dict[str, Any]:
    return provenance(open_volume(path))


def test_a_volume_says_what_its_device_was_found_to_be(plan, tiny_model, tmp_path):
    path = recorded(plan, tmp_path, lambda: tiny_model("llama"))
    said = said_by(path)
    check = phantom_of("cpu", "float32")
    assert said["phantom"] == json.loads(check.attribute)
    assert said["phantom"]["verdict"] == "passed"
    wanted = {"device": "cpu", "dtype": "float32", "torch": version("torch")}
    assert wanted.items() <= said["phantom"].items()
    assert 0 < said["phantom"]["largest_error"] < said["phantom"]["bound"] == 1e-4
    assert "off_from_cpu" not in said  # it is the CPU


def test_a_device_that_fails_is_refused_before_anything_is_written(
    plan, tiny_model, tmp_path, cache
):
    with Wrong(), pytest.raises(PhantomError) as refusal:
        recorded(plan, tmp_path / "v", lambda: tiny_model("llama"))
    said = str(refusal.value)
    assert "cpu in float32 fails its phantom: mlp_act in layer 0 of llama (alone)" in said
    assert "--accept-phantom records nevertheless" in said
    assert not (tmp_path / "v").exists()


def test_a_device_that_fails_and_is_accepted_is_told_in_the_volume(
    plan, tiny_model, tmp_path, cache
):
    with Wrong():
        path = recorded(plan, tmp_path / "v", lambda: tiny_model("llama"), accept_phantom=True)
    said = said_by(path)["phantom"]
    assert said["verdict"] == "failed, and accepted by --accept-phantom"
    assert any("mlp_act in layer 0 of llama" in fault for fault in said["faults"])
    assert said["largest_error"] > 0.01


def test_what_was_recorded_before_there_was_a_phantom_is_read_and_not_recorded_again(
    plan, tiny_model, tmp_path, monkeypatch
):
    path = recorded(plan, tmp_path, lambda: tiny_model("llama"))
    metadata = path / "zarr.json"
    told = json.loads(metadata.read_text())
    del told["attributes"]["phantom"]
    metadata.write_text(json.dumps(told))
    digest_file(path).unlink()
    seal(path)
    monkeypatch.setattr(recording, "phantom_of", None)  # nor is the device checked for it

    def refuse_to_load():
        raise AssertionError("the model was loaded")

    assert recorded(plan, tmp_path, refuse_to_load) == path
    assert "phantom" not in said_by(path)


class Pretended(TorchFunctionMode):
    """What is asked for on MPS lies in the CPU's memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args = ["cpu" if one is MPS else one for one in args]
        kwargs = {key: "cpu" if one is MPS else one for key, one in (kwargs or {}).items()}
        return func(*args, **kwargs)


MPS = "mps"


@pytest.fixture
def other_device(monkeypatch):
    """``other_device(fault)``: MPS, with an operation that is wrong there.

    Models that are put on it compute with the fault; those that stay on the CPU do not.
    """
    with ExitStack() as pretending:

        def pretend(fault: type[TorchFunctionMode] | None) -> None:
            whole = nn.Module.to

            def to(self, *args, **settings):
                if args != (MPS,):
                    return whole(self, *args, **settings)
                stack = ExitStack()
                if fault is not None:
                    wrong, base = fault, self.base_model
                    base.register_forward_pre_hook(lambda *_: stack.enter_context(wrong()) and None)
                    base.register_forward_hook(lambda *_: stack.close())
                return self

            monkeypatch.setattr(nn.Module, "to", to)
            monkeypatch.setattr(phantom.platform, "mac_ver", lambda: ("26.0", ("", "", ""), ""))
            pretending.enter_context(Pretended())

        yield pretend


def on_mps(plan, dtype: DtypeName = "float32"):
    return Model.load(plan.source, dtype=dtype, device=MPS)


def test_another_device_that_is_right_says_how_far_it_is_off_from_the_cpu(
    plan, tmp_path, cache, other_device
):
    other_device(None)
    path = recorded(plan, tmp_path / "v", lambda: on_mps(plan))
    said = said_by(path)
    assert said["device"] == said["phantom"]["device"] == "mps"
    assert said["phantom"]["verdict"] == "passed"
    off = said["off_from_cpu"]
    assert off["stimuli"] == [0, 12, 23, 35]
    assert set(off) == {"stimuli", "reference", *SITES}
    assert {len(off[kind]) for kind in SITES if kind != "logits"} == {3} and len(off["logits"]) == 1
    worst = max(max(off[kind]) for kind in SITES)
    assert 0 < worst < 1e-5


def test_another_device_that_is_wrong_is_refused_and_told_from_the_cpu(
    plan, tmp_path, cache, other_device
):
    other_device(Wrong)
    with pytest.raises(PhantomError, match="mps in float32 fails its phantom: mlp_act in layer 0"):
        recorded(plan, tmp_path / "v", lambda: on_mps(plan))
    path = recorded(plan, tmp_path / "v", lambda: on_mps(plan), accept_phantom=True)
    off = said_by(path)["off_from_cpu"]
    # What comes before the fault is right, what comes after it is not.
    assert off["z"][0] < 1e-5 and off["attn_scores"][0] < 1e-5
    assert off["mlp_act"][0] == pytest.approx(0.2, rel=1e-3)
    assert off["resid_post"][0] > 1e-3 and off["z"][1] > 1e-4


def test_half_precision_and_twins_are_compared_with_the_same_weights_in_float32(
    plan, toy_stimuli, tmp_path, cache, other_device
):
    other_device(None)
    model = on_mps(plan, "bfloat16").twin(3)
    for tokens in ("all", "mean", (0, -1)):
        twin = Recording(plan.source, toy_stimuli, ("resid_post",), tokens, "bfloat16", 3)
        path = recorded(twin, tmp_path / "v", lambda: model)
        off = said_by(path)["off_from_cpu"]
        assert np.shape(off["resid_post"]) == (3,)
        assert 1e-4 < min(off["resid_post"]) <= max(off["resid_post"]) < 0.05


def test_the_command_shows_all_sites_and_ends_with_the_verdict(capfd, cache, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    run("phantom", "--device", "cpu")
    shown = capfd.readouterr().out.splitlines()
    assert shown[-1] == "cpu in float32: passed"
    assert any(line.startswith("attn_probs ") for line in shown)
    assert "two runs of the same agree to the bit" in shown
    with Wrong():
        run("phantom", "--device", "cpu", code=1)
    shown = capfd.readouterr().out.splitlines()
    assert shown[-1] == "cpu in float32: failed"
    assert any(line.startswith("mlp_act in layer 0 of llama (alone) is off by") for line in shown)


def test_a_device_that_is_not_there_is_one_line(capfd):
    run("phantom", "--device", "mps", code=1)
    assert "finds no mps on this machine, only cpu" in capfd.readouterr().err.replace("\n", " ")


PROTOCOL = """\
study: toy
subjects: [{model}]
stimuli: {stimuli}
scan: {{sites: [resid_post], twins: 1}}
analyses:
  cut: {{lesion: {{category: animals, parts: [mlp]}}}}
hypotheses: []
"""


def test_a_study_is_refused_where_the_device_fails_and_accepted_in_all_its_volumes(
    tiny_source, toy_csv, tmp_path, cache, capfd
):
    protocol, results = tmp_path / "toy.yaml", tmp_path / "results"
    text = PROTOCOL.format(model=tiny_source("llama", seed=100).folder, stimuli=toy_csv)
    protocol.write_text(text)
    with Wrong():
        run("record", protocol, "--results", results, code=1)
        shown = " ".join(capfd.readouterr().err.split())
        assert "error: cpu in float32 fails its phantom: mlp_act in layer 0 of llama" in shown
        assert not list(results.glob("volumes/*"))
        run("record", protocol, "--results", results, "--accept-phantom")
    volumes = sorted((results / "volumes").glob("*.zarr"))
    assert len(volumes) == 4  # the subject and its twin, and what was done to both
    for path in volumes:
        said = said_by(path)["phantom"]
        assert said["verdict"] == "failed, and accepted by --accept-phantom", path
