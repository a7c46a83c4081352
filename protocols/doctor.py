"""What this machine can do, and what to do about what it cannot."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

import psutil
from joblib import cpu_count
from packaging.requirements import Requirement

from scanner.device import Device, best_device, devices
from scanner.provenance import PACKAGES
from scanner.sources import EMBEDDED, cache_folder, embedded_folder, offered

PACKAGE = "lmfmri"
ROOT = Path(__file__).parent.parent
# Extras for those who work on lmfmri itself.
OF_DEVELOPERS = {"test", "lint", "dev"}
# Bytes below which something is said: the quickstart's recordings take 0.2 GB; a subject that
# travels in packages takes 1.1 GB of disk at most and, while it is fetched, half as much again.
ROOM = {"results": 1e9, "cache": 2e9}
# A small model in float32 with the libraries around it.
MEMORY = 2e9


@dataclass(frozen=True)
class Advice:
    """Something that is missing.

    Attributes
    ----------
    about : str
        The line of `told` that it belongs to.
    wrong : str
        What is missing, or in the way.
    mend : str
        What to do about it.
    stops : bool
        Whether nothing can be scanned until it is done.
    """

    about: str
    wrong: str
    mend: str
    stops: bool = False


@dataclass(frozen=True)
class Place:
    """A folder that is written to.

    Attributes
    ----------
    folder : str
    free : int
        Bytes on its disk.
    writable : bool
    """

    folder: str
    free: int
    writable: bool


@dataclass(frozen=True)
class Embedded:
    """An embedded subject.

    Attributes
    ----------
    folder : str
        Where its weights are, or will be.
    here : bool
        Whether they are.
    obstacle : str
        Why they cannot be fetched; nothing if they are here or can be.
    """

    folder: str
    here: bool
    obstacle: str


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes
    ----------
    versions : dict of str to str
    unmet : dict of str to str
        Requirements of lmfmri that are not met, and what is installed in their place.
    devices : list of Device
    cores, memory, available : int
        Processor cores that may be used; bytes of memory, and of it what is free.
    places : dict of str to Place
        ``results`` and ``cache``.
    extras : dict of str to list of str
        Optional parts of lmfmri, and what each lacks: nothing if it is installed.
    subjects : dict of str to Embedded
    offline : bool
        Whether ``HF_HUB_OFFLINE`` keeps the hub's models from being fetched.
    """

    versions: dict[str, str]
    unmet: dict[str, str]
    devices: list[Device]
    cores: int
    memory: int
    available: int
    places: dict[str, Place]
    extras: dict[str, list[str]]
    subjects: dict[str, Embedded]
    offline: bool

    @property
    def network(self) -> list[str]:
        """What a network is still needed for."""
        unfetched = [name for name, one in self.subjects.items() if not one.here]
        return [*unfetched, "models of the hub that are not in its local cache"]

    @property
    def can_scan(self) -> bool:
        return not any(one.stops for one in advice(self))

    def as_json(self) -> dict[str, Any]:
        """All of it, with the advice; keys are stable."""
        return {
            "can_scan": self.can_scan,
            **asdict(self),
            "network_needed_for": self.network,
            "advice": [asdict(one) for one in advice(self)],
        }


def examined(results: Path) -> Machine:
    """Look at this machine. Nothing is written, and nothing is downloaded.

    Parameters
    ----------
    results : pathlib.Path
        The folder that results would go to; it need not exist.
    """
    memory = psutil.virtual_memory()
    return Machine(
        versions={
            "lmfmri": version(PACKAGE),
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        unmet=unmet(""),
        devices=devices(),
        cores=cpu_count(),
        memory=memory.total,
        available=memory.available,
        places={"results": _place(results), "cache": _place(cache_folder())},
        extras=extras(),
        subjects={name: _embedded(name) for name in EMBEDDED},
        offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
    )


def extras() -> dict[str, list[str]]:
    """The optional parts that the installed package declares, and what each lacks."""
    declared = metadata(PACKAGE).get_all("Provides-Extra") or []
    return {
        name: [f"{wanted} ({found})" if found else wanted for wanted, found in unmet(name).items()]
        for name in declared
        if name not in OF_DEVELOPERS
    }


def unmet(extra: str) -> dict[str, str]:
    """Requirements that are not met, and the version that is there in their place, if any.

    Parameters
    ----------
    extra : str
        Of which optional part; an empty name is what is always required.
    """
    found = {}
    for requirement in map(Requirement, requires(PACKAGE) or []):
        marker = requirement.marker
        wanted = [marker is None or marker.evaluate({"extra": one}) for one in ("", extra)]
        if wanted != [not extra, True]:
            continue
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            there = ""
        if not there or not requirement.specifier.contains(there, prereleases=True):
            found[f"{requirement.name}{requirement.specifier}"] = there
    return found


def _place(folder: Path) -> Place:
    """A folder, told by the nearest one above it that exists."""
    folder = folder.absolute()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    writable = there.is_dir() and os.access(there, os.W_OK)
    return Place(str(folder), shutil.disk_usage(there).free, writable)


def _embedded(name: str) -> Embedded:
    folder = embedded_folder(name)
    if folder.is_dir():
        return Embedded(str(folder), True, "")
    obstacles = map(offered, EMBEDDED[name].parts)
    return Embedded(str(folder), False, next(filter(None, obstacles), ""))


def advice(machine: Machine) -> list[Advice]:
    """What is missing, what stops everything first, each with what to do about it.

    Parameters
    ----------
    machine : Machine
    """
    found = [
        *_about_packages(machine),
        *_about_devices(machine),
        *_about_room(machine),
        *_about_subjects(machine),
    ]
    return sorted(found, key=lambda one: not one.stops)


def _about_packages(machine: Machine) -> Iterator[Advice]:
    for wanted, there in machine.unmet.items():
        instead = f"{there} is installed" if there else "it is not installed"
        yield Advice("lmfmri", f"{wanted} is required, and {instead}", pip(""), not there)
    for name, missing in machine.extras.items():
        if missing:
            yield Advice(
                f"extra {name}",
                f"{', '.join(missing)} is missing",
                pip(f"[{name}]"),
            )


def _about_devices(machine: Machine) -> Iterator[Advice]:
    accelerated = [one.name for one in machine.devices if one.name != "cpu"]
    if not accelerated and shutil.which("nvidia-smi"):
        yield Advice(
            "cpu",
            "an NVIDIA driver is here, and this torch does not use it",
            "install a torch that is built for CUDA: https://pytorch.org/get-started",
        )
    elif not accelerated:
        yield Advice(
            "cpu",
            "no accelerator was found",
            "nothing for models of some hundred million weights; `scan check PROTOCOL` says how "
            "long the passes of a study take",
        )
    for device in machine.devices:
        for dtype, fault in device.dtypes.items():
            if fault:
                first = dtype == "float32"
                mend = "install another version of torch" if first else "keep `dtype: float32`"
                used = first and device.name == best_device()
                yield Advice(device.name, f"{dtype} does not work: {fault}", mend, used)


def _about_room(machine: Machine) -> Iterator[Advice]:
    for what, place in machine.places.items():
        if not place.writable:
            other = ", or choose another folder with --results" if what == "results" else ""
            mend = f"make it writable{other}"
            wrong = f"{place.folder} cannot be written to"
            # Models that lie in folders are scanned without the cache.
            yield Advice(f"disk for {what}", wrong, mend, what == "results")
        elif place.free < ROOM[what]:
            wrong = "there is little room"
            mend = f"free some; about {size(ROOM[what])} is enough to begin"
            yield Advice(f"disk for {what}", wrong, mend)
    if machine.available < MEMORY:
        yield Advice(
            "memory",
            "there is little room for a model",
            "close other programs, or load subjects with `dtype: bfloat16`",
        )


def _about_subjects(machine: Machine) -> Iterator[Advice]:
    for name, one in machine.subjects.items():
        if one.obstacle:
            yield Advice(
                name,
                one.obstacle,
                f"connect once to a package index, or copy {one.folder} from another machine",
            )
    if machine.offline:
        yield Advice(
            "network",
            "HF_HUB_OFFLINE is set, and nothing is fetched from the hub",
            "unset HF_HUB_OFFLINE",
        )


def told(machine: Machine) -> Iterator[tuple[str, str]]:
    """What was found, as lines for people, and beside what is missing what to do about it.

    Parameters
    ----------
    machine : Machine

    Yields
    ------
    tuple of str
        What a line is about, empty if that is what the line before it is about; what it says.
    """
    about = advice(machine)
    for name, what in _found(machine):
        yield name, what
        for one in about:
            if one.about == name:
                yield "", f"{'needed' if one.stops else 'note'}: {one.wrong}. To do: {one.mend}"


def _found(machine: Machine) -> Iterator[tuple[str, str]]:
    for name in ("lmfmri", "python", "torch", "transformers"):
        yield name, machine.versions[name]
    for device in machine.devices:
        works = [dtype for dtype, fault in device.dtypes.items() if not fault]
        memory = "" if device.memory is None else f", {size(device.memory)}"
        used = "; models run here" if device.name == best_device() else ""
        yield device.name, f"{device.model}{memory}: {', '.join(works) or 'no dtype works'}{used}"
    yield "cores", str(machine.cores)
    yield "memory", f"{size(machine.available)} of {size(machine.memory)} free"
    for what, place in machine.places.items():
        yield f"disk for {what}", f"{size(place.free)} free at {place.folder}"
    for name, missing in machine.extras.items():
        yield f"extra {name}", "not installed" if missing else "installed"
    for name, one in machine.subjects.items():
        unfetched = "cannot be fetched" if one.obstacle else "is fetched when it is first named"
        yield name, "in the cache" if one.here else unfetched
    yield "network", f"needed for {', '.join(machine.network)}; for nothing else"


def pip(extra: str) -> str:
    """The command that installs lmfmri with what it requires."""
    if (ROOT / "requirements.lock").is_file():
        return f"in {ROOT}: pip install -c requirements.lock -e '.{extra}'"
    return f"pip install '{PACKAGE}{extra}'"


def size(number: float) -> str:
    """Bytes in words."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"
