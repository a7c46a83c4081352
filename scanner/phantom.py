"""A quality check of a device: as a scanner is checked on a phantom before anybody lies in it.

Small models, whose activations at every site are computed in float64 on the CPU, are heard on the
device in the dtype that is to be recorded in: each text alone, several at once, padded, sharing
what they begin with, through fused attention and step by step. Kernels of devices have been
silently wrong in one of these and right in all others (pytorch#181133, #184180, #195910).

What a model's proofs compare (`scanner.identities`) comes from one device, which may be wrong in
all of it alike. Here the truth comes from elsewhere.
"""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch

from scanner.batches import Batch, shared
from scanner.device import DeviceName, DtypeName
from scanner.identities import TOLERANCE
from scanner.phantom_models import (
    FAMILIES,
    SIZES,
    exact_model,
    exactly,
    phantom_model,
    placed,
)
from scanner.provenance import digest
from scanner.sites import KINDS, PAIRED, Kind, Site
from scanner.sources import cache_folder
from scanner.structure import EXACT

# Raised when the same device would be checked otherwise.
FORMAT = 1
# Of the texts: the first four fit into the window of the models and begin alike in pairs; the fifth
# is longer, the last longer than the blocks that fused attention is computed in.
LENGTHS = (7, 12, 12, 5, 40, 1100)
ALIKE = ((1, 2, 6), (0, 3, 3))
SAMPLE, WIDE, LONG = 1, 4, 5
SHORT = (0, 1, 2, 3)
REPEATS = 8
# What is heard of the long text, which costs the most time, and in which model.
HEARD_OF_LONG: tuple[Kind, ...] = ("z", "resid_post", "logits")
READS_LONG = "llama"
ALONE, PADDED, SHARING = "alone", "padded", "sharing its beginning"
BATCH = f"{REPEATS} at once"
# Whose differences from a text alone are told apart, by what a result would depend on.
DEPENDENCE = {BATCH: "batch size", PADDED: "padding", SHARING: "sharing"}
# Masked scores are the least number of a dtype, or near it.
MASKED = -1e4


class PhantomError(ValueError):
    """A device that fails its phantom."""


class Deviation(NamedTuple):
    """How far a site of a model is off.

    Attributes
    ----------
    model, site, way : str
        The model, ``z.1``, and how its texts were given.
    absolute : float
        The largest difference of a number.
    relative : float
        The norm of the difference at the worst token, over the norm there; where a token is smaller
        than the site's scale (the root mean square of all its text's norms there), over that.
    bound : float
        Of the relative one.
    """

    model: str
    site: str
    way: str
    absolute: float
    relative: float
    bound: float

    @property
    def fails(self) -> bool:
        return not self.relative <= self.bound  # NaN fails

    @property
    def place(self) -> str:
        kind, _, layer = self.site.partition(".")
        where = f"{kind} in layer {layer}" if layer else kind
        return f"{where} of {self.model} ({self.way})"


@dataclass(frozen=True)
class Check:
    """What was found of a device.

    Attributes
    ----------
    machine : mapping of str to object
        The device, the dtype, and what else decides which kernels are used.
    digest : str
        sha256 over models, texts and bounds.
    sites : tuple of Deviation
        Of each kind of site, the worst, from float64.
    worst : Deviation
        Of all.
    first : Deviation or None
        The first beyond its bound, in the order of the computation.
    dependence : mapping of str to Deviation
        How far results differ from those of a text alone, by what they would depend on.
    unlike : str
        The first site at which two runs differ in a bit; empty if they agree.
    """

    machine: Mapping[str, object]
    digest: str
    sites: tuple[Deviation, ...]
    worst: Deviation
    first: Deviation | None
    dependence: Mapping[str, Deviation]
    unlike: str

    @property
    def device(self) -> str:
        return str(self.machine["device"])

    @property
    def dtype(self) -> str:
        return str(self.machine["dtype"])

    @cached_property
    def faults(self) -> list[str]:
        """Why the device fails, the first in the computation first; empty if it passes."""
        said = []
        if self.first is not None:
            said.append(f"{self.first.place} {_beyond(self.first)}")
        if self.worst.fails and self.worst != self.first:
            said.append(f"the worst is {self.worst.place}, which {_beyond(self.worst)}")
        said += [
            f"results depend on {what}: {one.place} {_beyond(one)}"
            for what, one in self.dependence.items()
            if one.fails
        ]
        if self.unlike:
            said.append(f"two runs of the same differ at {self.unlike}")
        return said

    @property
    def passed(self) -> bool:
        return not self.faults

    @property
    def table(self) -> list[tuple[str, str, str, str, str]]:
        """Of each kind of site its worst: name, errors, bound, and where."""
        return [
            (
                one.site.partition(".")[0],
                f"{one.absolute:.1e}",
                f"{one.relative:.1e}",
                f"{one.bound:.2g}",
                one.place.partition(" ")[2],
            )
            for one in self.sites
        ]

    @property
    def lines(self) -> list[str]:
        """What there is to say beside the table, the verdict last."""
        said = [
            f"by {what}, results differ by {one.relative:.1e} at most, {one.bound:.2g} allowed "
            f"({'the same to the bit' if one.absolute == 0 else one.place})"
            for what, one in self.dependence.items()
        ]
        agree = f"differ at {self.unlike}" if self.unlike else "agree to the bit"
        said.append(f"two runs of the same {agree}")
        said.append(", ".join(f"{name} {value}" for name, value in self.machine.items()))
        said.append(f"phantom {self.digest[:16]}, the worst site {self.worst.place}")
        said += self.faults
        return [*said, f"{self.device} in {self.dtype}: {'passed' if self.passed else 'failed'}"]

    @property
    def attribute(self) -> str:
        """What a volume says of it, as JSON."""
        told = {
            "verdict": "passed" if self.passed else "failed, and accepted by --accept-phantom",
            **({} if self.passed else {"faults": self.faults}),
            "site": self.worst.place,
            "largest_error": short(self.worst.relative),
            "largest_error_absolute": short(self.worst.absolute),
            "bound": self.worst.bound,
            **{f"by_{what.replace(' ', '_')}": short(one.relative)
               for what, one in self.dependence.items()},
            "two_runs_agree": not self.unlike,
            "digest": self.digest,
            **self.machine,
        }  # fmt: skip
        return json.dumps(told)

    def refuse(self) -> None:
        """Refuse a device that fails.

        Raises
        ------
        PhantomError
        """
        if self.passed:
            return
        raise PhantomError(
            f"{self.device} in {self.dtype} fails its phantom: {'; '.join(self.faults)}. What is "
            f"recorded on it would be wrong. `scan phantom --device {self.device} --dtype "
            f"{self.dtype}` shows all sites; another dtype, another version of torch or another "
            "device may pass. --accept-phantom records nevertheless, and volume and report say so"
        )


def in_words(told: Mapping[str, Any]) -> str:
    """What a volume says of its device (`Check.attribute`, decoded), for people."""
    said = (
        f"{told['verdict']}: off from float64 by {told['largest_error']} of a site's scale at "
        f"most, where {told['bound']} is allowed ({told['site']})"
    )
    return "; ".join([said, *told.get("faults", ())])


def _beyond(one: Deviation) -> str:
    return f"is off by {one.relative:.2g} of its scale where {one.bound:.2g} is allowed"


def short(value: float) -> float | str:
    """Two digits; JSON has no infinity."""
    return float(f"{value:.1e}") if math.isfinite(value) else str(value)


def bound(dtype: DtypeName, layer: int) -> float:
    """How far a site may be off from float64, over its scale.

    One computation is held to `scanner.structure.EXACT`. A layer is two, attention and MLP, and
    errors of layers add up; but never is more allowed than what a text in another batch may be off
    by (`scanner.identities.TOLERANCE`).

    Parameters
    ----------
    dtype : str
    layer : int
        Of the site; the number of layers behind the last.
    """
    return min(TOLERANCE[dtype], 2 * EXACT[getattr(torch, dtype)] * (layer + 1))


def scan_phantom(device: DeviceName, dtype: DtypeName) -> Check:
    """Check a device, whatever was found of it before.

    Parameters
    ----------
    device, dtype : str
    """
    with torch.inference_mode(), _one_thread():
        scanned = [_Scan(family, device, dtype) for family in FAMILIES]
        found = [one for scan in scanned for one in scan.run()]
    by_kind = {
        kind: max(some, key=_severity)
        for kind in KINDS
        if (some := [one for one in found if one.site.partition(".")[0] == kind])
    }
    beside: dict[str, Deviation] = {}
    for scan in scanned:
        for what, one in scan.beside.items():
            beside[what] = max(beside.get(what, one), one, key=_severity)
    failing = [one for one in found if one.fails]
    return Check(
        machine(device, dtype),
        phantom_digest(dtype),
        tuple(by_kind.values()),
        max(by_kind.values(), key=_severity),
        min(failing, key=_order, default=None),
        beside,
        next((scan.unlike for scan in scanned if scan.unlike), ""),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Of the CPU: of models this small, two threads on a busy machine took twelve times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def phantom_of(device: DeviceName, dtype: DtypeName) -> Check:
    """The check of a device: once for what `machine` tells, and then from the user's cache.

    Only a device that passes is remembered, so that one that was mended is checked again.

    Parameters
    ----------
    device, dtype : str
    """
    key = {"machine": machine(device, dtype), "phantom": phantom_digest(dtype)}
    path = cache_folder().parent / "phantoms" / f"{device}-{dtype}-{digest(key)[:16]}.json"
    if path.is_file():
        return _read(path.read_text(encoding="utf-8"))
    check = scan_phantom(device, dtype)
    if check.passed:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f".{path.name}.{os.getpid()}.writing")
        staging.write_text(json.dumps(asdict(check), indent=1) + "\n", encoding="utf-8")
        os.replace(staging, path)
    return check


def _read(text: str) -> Check:
    kept: dict[str, Any] = json.loads(text)
    return Check(
        kept["machine"],
        kept["digest"],
        tuple(Deviation(*one) for one in kept["sites"]),
        Deviation(*kept["worst"]),
        None,
        {what: Deviation(*one) for what, one in kept["dependence"].items()},
        "",
    )


def machine(device: DeviceName, dtype: DtypeName) -> dict[str, object]:
    """What decides which kernels compute: a check holds for as long as none of it changes."""
    if device == "cuda":
        processor = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    elif device == "mps":  # its kernels come with the system
        processor = f"{platform.processor()}, macOS {platform.mac_ver()[0]}"
    else:
        processor = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": device,
        "dtype": dtype,
        "processor": processor,
        # TensorFloat-32 in the place of float32, for one.
        "float32_products": torch.get_float32_matmul_precision(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def phantom_digest(dtype: DtypeName) -> str:
    """sha256 over what a device is checked on."""
    return digest({
        "format": FORMAT, "sizes": SIZES, "families": FAMILIES, "texts": _texts(),
        "bounds": [bound(dtype, layer) for layer in range(SIZES["num_hidden_layers"] + 1)],
    })  # fmt: skip


def _texts() -> list[list[int]]:
    """Token ids of the texts, none of them special."""
    rng = np.random.default_rng(1)
    texts = [rng.integers(3, SIZES["vocab_size"], length).tolist() for length in LENGTHS]
    for one, other, begin in ALIKE:
        texts[other][:begin] = texts[one][:begin]
    return texts


def _severity(one: Deviation) -> float:
    ratio = one.relative / one.bound
    return math.inf if math.isnan(ratio) else ratio


def _order(one: Deviation) -> tuple[int, int, int]:
    """Where in the computation: the layer, the place in it, the model."""
    kind, _, layer = one.site.partition(".")
    if not layer:
        layer = -1 if kind == "embeddings" else SIZES["num_hidden_layers"]
    return int(layer), [*map(str, KINDS)].index(kind), [*FAMILIES].index(one.model)


class _Way(NamedTuple):
    """Texts in one forward pass."""

    name: str
    texts: Sequence[int]
    batch: Batch
    kinds: tuple[Kind, ...]


# Position x the rest.
_Heard = Mapping[str, torch.Tensor]


class _Scan:
    """One reference model on a device, and what is found while it runs."""

    def __init__(self, family: str, device: DeviceName, dtype: DtypeName):
        self.family = family
        self.dtype: DtypeName = dtype
        model = phantom_model(family, dtype, device)
        self.exact = exact_model(model)
        self.model = placed(model, device, self.exact.found)
        self.texts = _texts()
        self.beside: dict[str, Deviation] = {}
        self.unlike = ""

    def run(self) -> Iterator[Deviation]:
        """Yield how far each site is off from float64, in each way."""
        kinds = self.exact.found.kinds
        expected = self._expected(kinds)
        alone: dict[int, _Heard] = {}
        for way in self._ways(kinds):
            for text, heard in self._heard_twice(way):
                yield from self._off(expected[text], heard, way.name)
                if way.name == ALONE:
                    alone[text] = heard
                elif way.name in DEPENDENCE:
                    self._note(DEPENDENCE[way.name], self._off(alone[text], heard, way.name))

    def _expected(self, kinds: tuple[Kind, ...]) -> list[_Heard]:
        """Of each text, what it gives in float64 by itself."""
        found = []
        for text, ids in enumerate(self.texts):
            wanted = self._of_long(kinds) if text == LONG else kinds
            with exactly():
                heard = self.exact.activations(self.exact.batch([ids]), wanted) if wanted else {}
            every = np.arange(len(ids))
            found.append({str(site): _rows(site, a, 0, every) for site, a in heard.items()})
        return found

    def _of_long(self, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        reads = self.family == READS_LONG
        return tuple(kind for kind in HEARD_OF_LONG if reads and kind in kinds)

    def _ways(self, kinds: tuple[Kind, ...]) -> Iterator[_Way]:
        model, texts = self.model, self.texts
        plain: tuple[Kind, ...] = tuple(kind for kind in kinds if kind not in PAIRED)
        short = [*SHORT, WIDE]
        for text in short:
            yield _Way(ALONE, [text], model.batch([texts[text]]), plain)
        if self._of_long(kinds):
            yield _Way(ALONE, [LONG], model.batch([texts[LONG]]), self._of_long(kinds))
        yield _Way(BATCH, [SAMPLE] * REPEATS, model.batch([texts[SAMPLE]] * REPEATS), plain)
        both = model.batch([texts[SAMPLE], texts[WIDE]])
        one = Batch(both.ids[:1], both.mask[:1], None, both.rows[:1], both.columns[:1])
        yield _Way(PADDED, [SAMPLE], one, plain)
        every = model.batch([texts[text] for text in short])
        yield _Way("padded, several at once", short, every, plain)
        order = sorted(SHORT, key=lambda text: texts[text])
        row = [[texts[text] for text in order]]
        tree = shared(row, filler=model.filler, dtype=model.network.dtype).to(model.device)
        yield _Way(SHARING, order, tree, plain)
        if plain != kinds:
            yield _Way("alone, step by step", [WIDE], model.batch([texts[WIDE]]), kinds)
            yield _Way("padded, several at once, step by step", short, every, kinds)

    def _heard_twice(self, way: _Way) -> Iterator[tuple[int, _Heard]]:
        """Of each text of a way, what was heard; that it is heard again is noted."""
        first, again = (self.model.activations(way.batch, way.kinds) for _ in range(2))
        for site, activation in first.items():
            if not self.unlike and not torch.equal(activation, again[site]):
                self.unlike = self._named(str(site), way.name).place
        there = {site: activation.cpu() for site, activation in first.items()}
        for text, row, columns in zip(way.texts, way.batch.rows, way.batch.columns, strict=True):
            yield text, {str(site): _rows(site, a, row, columns) for site, a in there.items()}

    def _named(
        self, site: str, way: str, absolute: float = 0.0, relative: float = 0.0
    ) -> Deviation:
        layer = site.partition(".")[2]
        behind = 0 if site == "embeddings" else int(layer or SIZES["num_hidden_layers"])
        return Deviation(self.family, site, way, absolute, relative, bound(self.dtype, behind))

    def _off(self, expected: _Heard, found: _Heard, way: str) -> Iterator[Deviation]:
        for site, rows in found.items():
            yield self._named(site, way, *difference(expected[site], rows))

    def _note(self, what: str, found: Iterator[Deviation]) -> None:
        for one in found:
            one = one._replace(bound=TOLERANCE[self.dtype])
            self.beside[what] = max(self.beside.get(what, one), one, key=_severity)


def _rows(site: Site, activation: torch.Tensor, row: int, columns: np.ndarray) -> torch.Tensor:
    """Of one text, position x the rest in float64; of attention what its tokens give each other."""
    some = torch.from_numpy(columns)
    if site.kind not in PAIRED:
        return activation[row, some].double().flatten(1)
    weights = activation[row][:, some][:, :, some].double().transpose(0, 1)  # query x head x key
    if site.kind == "attn_scores":
        weights = weights.masked_fill(weights < MASKED, 0.0)
    return weights.flatten(1)


def difference(expected: torch.Tensor, found: torch.Tensor) -> tuple[float, float]:
    """The largest difference of a number, and that of a token over its size or the site's scale."""
    off, sizes = found - expected, expected.norm(dim=1)
    scale = sizes.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    return float(off.abs().max()), float((off.norm(dim=1) / sizes.maximum(scale)).max())
