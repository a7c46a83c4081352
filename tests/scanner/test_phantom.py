"""A device that computes rightly passes its phantom; one that is wrong somewhere is named there."""

import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from scanner import phantom
from scanner.identities import TOLERANCE
from scanner.phantom import PhantomError, bound, phantom_of, scan_phantom
from scanner.phantom_models import FAMILIES, exact_model, exactly, phantom_model
from scanner.sites import KINDS

DTYPES = ("float32", "bfloat16", "float16")


class Faulty(TorchFunctionMode):
    """A device one of whose operations is wrong under a condition; float64 is the CPU's own."""

    def __init__(self, operation: Callable, wrong: Callable):
        super().__init__()
        self.operation, self.wrong, self.faults = operation, wrong, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is not self.operation or result.dtype == torch.float64:
            return result
        made = self.wrong(result, *args, **(kwargs or {}))
        self.faults += made is not result
        return made


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, that of models beside it."""
    monkeypatch.setattr(phantom, "cache_folder", lambda: tmp_path / "cache" / "models")
    torch.set_num_threads(1)
    return tmp_path / "cache" / "phantoms"


@pytest.fixture(scope="module", params=DTYPES)
def clean(request):
    torch.set_num_threads(1)
    return scan_phantom("cpu", request.param)


def test_the_cpu_passes_with_room_to_spare_at_every_site(clean):
    assert clean.faults == [] and clean.passed
    assert [one.site.partition(".")[0] for one in clean.sites] == [
        kind for kind in KINDS if kind != "router"
    ]
    # Rounding is seen, so the bound is held against something.
    eps = torch.finfo(getattr(torch, clean.dtype)).eps
    assert eps / 2 < clean.worst.relative < clean.worst.bound / 2
    assert set(clean.dependence) == {"batch size", "padding", "sharing"}
    assert clean.dependence["sharing"].relative > 0
    assert clean.unlike == ""


def test_bounds_grow_with_depth_and_end_at_the_tolerance_of_batches():
    for dtype in DTYPES:
        bounds = [bound(dtype, layer) for layer in range(30)]
        assert bounds == sorted(bounds)
        assert bounds[-1] == TOLERANCE[dtype]
        assert bounds[0] < 0.05 / 1.05


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_float64_to_its_last_bits(family):
    """Against the same weights through float32's norms and softmaxes, and against itself."""
    model = phantom_model(family, "float32", "cpu")
    exact = exact_model(model)
    batch = exact.batch([list(range(3, 30))])
    with torch.inference_mode():
        plain = exact.network(batch.ids).logits
        with exactly():
            true = exact.network(batch.ids).logits
            # Of a text alone what it is behind another: float64 does not see the batch.
            again = exact.network(batch.ids.repeat(3, 1)).logits[1:2]
    assert true.dtype == torch.float64
    assert 1e-9 < float((plain - true).norm() / true.norm()) < 1e-6
    assert float((again - true).norm() / true.norm()) < 1e-14


def test_weights_are_the_same_each_time_and_attention_is_not_even():
    for family in FAMILIES:
        one, other = (phantom_model(family, "float32", "cpu") for _ in range(2))
        assert one.weights_sha256 == other.weights_sha256
        with torch.inference_mode():
            heard = one.activations(one.batch([list(range(3, 43))]), ("attn_probs",))
        last = torch.stack([probs[0, :, -1] for probs in heard.values()])
        assert last.max() > 0.1 > 1 / 16


def softmax_of_several(result, given, *_args, **_settings):
    return result.flip(-2) if given.ndim == 4 and len(given) > 1 else result


def fused_of_strided(result, query, key, *_args, **_settings):
    """As MPS had it: strides of queries taken for those of a contiguous tensor."""
    if key.is_contiguous():
        return result
    return result.transpose(1, 2).contiguous().view(result.shape)


def fused_of_long(result, query, *_args, **_settings):
    if query.shape[-2] <= 1024:
        return result
    return torch.cat([result[..., :-1, :], result[..., -2:-1, :]], dim=-2)


def fused_leaks(result, query, key, value, *_args, **settings):
    if not settings.get("is_causal"):
        return result
    groups = query.shape[1] // value.shape[1]
    return result + 0.3 * value.mean(-2, keepdim=True).repeat_interleave(groups, dim=1)


def activation_off(result, *_args, **_settings):
    return result * 1.05


def never(result, *_args, **_settings):
    return result


SDPA = F.scaled_dot_product_attention
# A fault, a dtype that it is looked for in, and where it begins.
FAULTS = {
    "softmax": (F.softmax, softmax_of_several, "float32", "attn_probs in layer 0 of "),
    "softmax_half": (F.softmax, softmax_of_several, "bfloat16", "attn_probs in layer 0 of "),
    "strided": (SDPA, fused_of_strided, "float32", "z in layer 0 of llama (alone)"),
    "long": (SDPA, fused_of_long, "float16", "z in layer 0 of llama (alone)"),
    "leaks": (SDPA, fused_leaks, "bfloat16", "z in layer 0 of llama ("),
    "silu": (F.silu, activation_off, "float16", "mlp_act in layer 0 of llama ("),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_operation_is_found_and_named_where_it_begins(name):
    operation, wrong, dtype, place = FAULTS[name]
    with Faulty(operation, wrong) as device:
        check = scan_phantom("cpu", dtype)
    assert device.faults > 0
    assert check.first is not None
    assert check.faults[0].startswith(place), check.faults
    with pytest.raises(PhantomError, match=r"^cpu in \w+ fails its phantom: .* is off by"):
        check.refuse()


def test_the_same_device_without_a_fault_passes_to_the_same_digits(clean):
    with Faulty(SDPA, never) as device:
        assert scan_phantom("cpu", clean.dtype) == clean
    assert device.faults == 0


def test_a_fault_of_batches_is_told_as_one_of_batches():
    with Faulty(
        F.silu, lambda made, *_, **__: made * 1.2 if len(made) == phantom.REPEATS else made
    ):
        check = scan_phantom("cpu", "float32")
    assert any(one.startswith("results depend on batch size: ") for one in check.faults)
    assert not any("depend on padding" in one for one in check.faults)
    assert check.first is not None and check.first.way == "8 at once"


def test_an_operation_that_is_never_the_same_twice_is_told():
    seen = iter(range(10**6))
    with Faulty(F.silu, lambda made, *_, **__: made * (1 + 1e-6 * (next(seen) % 2))):
        check = scan_phantom("cpu", "float32")
    assert check.first is None  # within the bound
    assert len(check.faults) == 1
    assert check.faults[0].startswith("two runs of the same differ at mlp_")


def test_numbers_that_are_none_fail():
    with Faulty(F.silu, lambda made, *_, **__: made * float("nan")):
        check = scan_phantom("cpu", "float32")
    assert check.faults[0].startswith("mlp_act in layer 0 of llama (alone) is off by nan")
    assert json.loads(check.attribute)["largest_error"] in ("nan", "inf")


def test_a_device_is_checked_once_and_again_for_another_torch(cache, monkeypatch):
    scans = []
    whole = phantom.scan_phantom

    def counted(device, dtype):
        scans.append((device, dtype))
        return whole(device, dtype)

    monkeypatch.setattr(phantom, "scan_phantom", counted)
    first, again = (phantom_of("cpu", "float32") for _ in range(2))
    assert scans == [("cpu", "float32")] and len(list(cache.iterdir())) == 1
    assert again == first and again.attribute == first.attribute
    monkeypatch.setattr(phantom, "version", lambda _package: "another")
    phantom_of("cpu", "float32")
    assert len(scans) == 2


def test_a_device_that_fails_is_checked_again_until_it_passes(cache):
    with Faulty(F.silu, activation_off):
        assert not phantom_of("cpu", "float32").passed
    assert not cache.exists()
    assert phantom_of("cpu", "float32").passed
