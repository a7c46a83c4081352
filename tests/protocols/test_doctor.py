"""`scan doctor`: what is found is told, and beside what is missing what to do about it."""

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch

from protocols import doctor
from protocols.doctor import Embedded, Machine, Place, advice, examined, extras, told, unmet
from scanner import device, sources
from tests.conftest import run

ABSENT = Embedded("/cache/toy", False, "")


@pytest.fixture
def machine(monkeypatch) -> Machine:
    """A machine that lacks nothing."""
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    gpu = device.Device("cuda", "Toy", 8 * 10**9, dict.fromkeys(("float32", "bfloat16"), ""))
    cpu = device.Device("cpu", "x86_64", None, dict.fromkeys(("float32", "bfloat16"), ""))
    return Machine(
        versions={"lmfmri": "0.1.0", "python": "3.11", "torch": "2.6", "transformers": "5.0"},
        unmet={},
        devices=[cpu, gpu],
        cores=2,
        memory=16 * 10**9,
        available=8 * 10**9,
        places={name: Place(f"/{name}", 10**11, True) for name in ("results", "cache")},
        extras={"views": []},
        subjects={"toy": Embedded("/cache/toy", True, "")},
        offline=False,
    )


def text(machine: Machine) -> str:
    return "\n".join(f"{name}: {what}" for name, what in told(machine))


def test_nothing_is_said_about_a_machine_that_lacks_nothing(machine) -> None:
    assert advice(machine) == [] and machine.can_scan
    assert "note" not in text(machine)
    assert "cuda: Toy, 8.0 GB: float32, bfloat16" in text(machine)


@pytest.mark.parametrize(
    ("lacking", "row", "wrong", "mend", "stops"),
    [
        ({"unmet": {"zarr>=3": ""}}, "lmfmri", "zarr>=3 is required", "pip install", True),
        ({"unmet": {"zarr>=3": "2.1"}}, "lmfmri", "and 2.1 is installed", "pip install", False),
        ({"extras": {"views": ["umap-learn>=0.5.8"]}}, "extra views", "umap-learn>=0.5.8 is",
         "[views]", False),
        ({"places": {"results": Place("/r", 10**11, False)}}, "disk for results",
         "/r cannot be written to", "choose another folder with --results", True),
        ({"places": {"cache": Place("/c", 10**11, False)}}, "disk for cache",
         "/c cannot be written to", "make it writable", False),
        ({"places": {"results": Place("/r", 10**6, True)}}, "disk for results",
         "little room", "about 1.0 GB is enough", False),
        ({"available": 10**8}, "memory", "little room for a model", "dtype: bfloat16", False),
        ({"subjects": {"toy": replace(ABSENT, obstacle="the index has no toy==1")}}, "toy",
         "the index has no toy==1", "copy /cache/toy from another machine", False),
        ({"offline": True}, "network", "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE", False),
        ({"devices": [device.Device("cpu", "x86_64", None, {"float32": "no kernel"})]}, "cpu",
         "float32 does not work: no kernel", "install another version of torch", True),
        ({"devices": [device.Device("cpu", "x86_64", None, {"float16": "no kernel"})]}, "cpu",
         "float16 does not work: no kernel", "keep `dtype: float32`", False),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_with_its_mend(machine, lacking, row, wrong, mend, stops) -> None:
    lame = replace(machine, **lacking)
    (found,) = [one for one in advice(lame) if wrong in one.wrong]
    assert found.about == row and mend in found.mend and found.stops is stops
    assert lame.can_scan is not stops
    # It stands right below what it is about.
    lines = list(told(lame))
    place = next(at for at, (name, _) in enumerate(lines) if name == row)
    below = []
    for name, what in lines[place + 1 :]:
        if name:
            break
        below.append(what)
    kind = "needed" if stops else "note"
    assert f"{kind}: {found.wrong}. To do: {found.mend}" in below


def test_all_advice_is_told(machine) -> None:
    """None is about a row that there is not."""
    lame = replace(
        machine, unmet={"zarr>=3": ""}, available=0, offline=True, extras={"views": ["umap"]},
        places={name: Place("/", 0, True) for name in ("results", "cache")},
        subjects={"toy": replace(ABSENT, obstacle="gone")}, devices=machine.devices[:1],
    )  # fmt: skip
    assert len(advice(lame)) == 8
    assert text(lame).count("To do: ") == 8


def test_a_driver_without_a_torch_for_it_is_named(machine, monkeypatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}")
    assert not advice(machine)
    (found,) = advice(replace(machine, devices=machine.devices[:1]))
    assert "this torch does not use it" in found.wrong and "pytorch.org" in found.mend


def test_subjects_that_can_be_fetched_are_what_the_network_is_for(machine) -> None:
    absent = replace(machine, subjects={"toy": ABSENT})
    assert advice(absent) == []
    assert absent.network[0] == "toy" and "toy" not in machine.network
    assert "toy: is fetched when it is first named" in text(absent)


def test_extras_are_those_that_the_package_declares(monkeypatch) -> None:
    declared = metadata.metadata("lmfmri").get_all("Provides-Extra") or []
    assert set(extras()) == set(declared) - doctor.OF_DEVELOPERS
    monkeypatch.setattr(
        doctor, "requires",
        lambda package: ["numpy>=2", 'pytest>=8; extra == "a"', 'nobody-has-this; extra == "a"',
                         'numpy<1; extra == "b"', 'numpy>=99; python_version < "3"'],
    )  # fmt: skip
    assert unmet("") == {}
    assert unmet("a") == {"nobody-has-this": ""}
    assert unmet("b") == {"numpy<1": metadata.version("numpy")}


def test_this_machine(tmp_path: Path, monkeypatch, capfd) -> None:
    """Nothing is written; the folder need not exist; all of it can be read by machines."""
    monkeypatch.setattr(doctor, "offered", lambda requirement: f"no {requirement}")
    monkeypatch.setattr(sources, "user_cache_path", lambda name: tmp_path / "cache")
    results = tmp_path / "deep" / "results"
    found = examined(results)
    assert found.places["results"].writable and found.places["results"].free > 0
    assert found.cores >= 1 and found.memory > found.available > 0
    assert found.devices[0].name == "cpu" and found.devices[0].dtypes["float32"] == ""
    assert set(found.subjects) == set(sources.EMBEDDED)
    assert all(not one.here and one.obstacle for one in found.subjects.values())
    run("doctor", "--results", results, "--json")
    said = json.loads(capfd.readouterr().out)
    assert said["can_scan"] is True and said["command"] == "scan doctor"
    assert said["versions"]["torch"] == metadata.version("torch")
    assert said["subjects"]["gemma3-270m"]["obstacle"].startswith("no gemma3-270m-q4")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_cannot_scan_fails(tmp_path: Path, monkeypatch, capfd) -> None:
    (tmp_path / "results").write_text("a file in the place of a folder")
    monkeypatch.setattr(doctor, "offered", lambda requirement: "")
    run("doctor", "--results", tmp_path / "results", code=1)
    said = capfd.readouterr().out
    assert "cannot be written to" in said and "nothing can be scanned yet" in said
    run("doctor", "--results", tmp_path / "results", "--json", code=1)
    assert json.loads(capfd.readouterr().out)["can_scan"] is False


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_device_that_computes_wrongly_is_found_out(dtype, monkeypatch) -> None:
    """As MPS once did: later tokens are seen, and no error is raised."""
    assert device.fault("cpu", dtype) == ""
    right = torch.nn.functional.scaled_dot_product_attention

    def leaking(q, k, v, *, is_causal):
        exact = q.dtype == torch.float64
        return right(q, k, v, is_causal=exact)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", leaking)
    assert device.fault("cpu", dtype).startswith("a small attention is off by ")


def test_a_device_that_refuses_says_why(monkeypatch) -> None:
    def refusing(*given, **settings):
        raise NotImplementedError("no kernel for Half\nmore of it")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refusing)
    assert device.fault("cpu", "float16") == "no kernel for Half"


def test_the_plain_attention_of_mps_is_the_fused_one_of_others(monkeypatch) -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(1)).double()
    fused = device._attention(q, k, v)
    monkeypatch.setattr(device, "attention_implementation", lambda name: "eager")
    assert torch.allclose(device._attention(q, k, v), fused, atol=1e-12)


def test_what_the_package_index_says(monkeypatch) -> None:
    def answering(code: int, said: str):
        return lambda *given, **settings: sources.subprocess.CompletedProcess(given, code, said, "")

    listed = "toy (1.10)\nAvailable versions: 1.10, 1.1\n"
    monkeypatch.setattr(sources.subprocess, "run", answering(0, listed))
    assert sources.offered("toy==1.1") == ""
    assert sources.offered("toy==1.0") == "the package index has no toy==1.0"
    monkeypatch.setattr(sources.subprocess, "run", answering(1, ""))
    assert "could not be reached, or has no toy" in sources.offered("toy==1.1")
