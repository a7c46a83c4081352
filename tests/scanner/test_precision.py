"""No float64 tensor stands on the scanner's path: MPS has none, and numbers must not differ."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scanner import Recording, open_volume, record
from scanner.identities import prove


class Float64Error(AssertionError):
    pass


class NoFloat64(TorchDispatchMode):
    """Raise at the first operation that takes or gives a float64 tensor; count the others."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self.operations += 1
        for leaf in tree_leaves((args, kwargs, output)):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64:
                raise Float64Error(f"{func} in or out of float64")
        return output


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, dtype=torch.float64),
        lambda: torch.ones(2).double(),
        lambda: torch.from_numpy(__import__("numpy").ones(2)).to("cpu", copy=True),
        lambda: torch.ones(2) * torch.full((2,), 0.5, dtype=torch.float64),
    ],
    ids=["made", "cast", "from_numpy", "promoted"],
)
def test_the_guard_of_these_tests_does_raise_on_float64(make):
    with NoFloat64(), pytest.raises(Float64Error):
        make()


def test_loading_proving_and_twinning_a_model_makes_no_float64_tensor(tiny_model, family):
    with NoFloat64() as guard:
        model = tiny_model(family)
        assert model.structure.kinds
        assert model.twin(0).structure.kinds
    assert guard.operations > 500


@pytest.mark.parametrize("seed", [None, 0])
def test_recording_a_family_makes_no_float64_tensor(
    tiny_model, toy_stimuli, tmp_path, family, seed
):
    model = tiny_model(family)
    recording = Recording(
        model.source, toy_stimuli, ("resid_pre", "resid_post"), "target", "float32", seed
    )
    with NoFloat64() as guard:
        path = record(
            recording,
            tmp_path,
            lambda: model if seed is None else model.twin(seed),
            protocol_sha256="0" * 64,
        )
    assert guard.operations > 500
    assert {str(site.dtype) for site in open_volume(path).data_vars.values()} == {"float32"}


def test_recording_the_real_model_makes_no_float64_tensor(smollm2, toy_stimuli, tmp_path):
    recording = Recording(smollm2.source, toy_stimuli, ("resid_post",), "target", "float32")
    with NoFloat64() as guard:
        assert prove(smollm2)  # whether or not another test has proved it already
        proving = guard.operations
        record(recording, tmp_path, lambda: smollm2, protocol_sha256="0" * 64)
    assert proving > 2_000
    assert guard.operations - proving > 1_000
