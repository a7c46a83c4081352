"""What a recording has to say about its own making: digests, versions, time."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "statsmodels",
            "pandas", "xarray", "zarr")  # fmt: skip
# The folders whose code decides a number. Report and command line only show it.
CODE = ("stimuli", "scanner", "analyses", "verification")
_ROOT = Path(__file__).parent.parent


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """sha256 of `canonical` of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(
    paths: Iterable[Path], *, root: Path, known: Mapping[str, str] | None = None
) -> str:
    """sha256 over the names (relative to `root`) and bytes of several files, in name order.

    Those are not read whose own sha256 is known, by name.
    """
    names = {path.relative_to(root).as_posix(): path for path in paths}
    given = {name: known[name] for name in names if name in known} if known else {}
    unread = [name for name in names if name not in given]
    with ThreadPoolExecutor() as pool:  # hashlib lets other threads run
        read = pool.map(file_digest, [names[name] for name in unread])
        return digest({**given, **dict(zip(unread, read, strict=True))})


def folder_digest(folder: Path, known: Mapping[str, str] | None = None) -> str:
    """sha256 over every file below a folder, names included; `known` as of `files_digest`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return files_digest(files, root=folder, known=known)


@cache
def environment() -> Mapping[str, str]:
    """Versions of Python, of the packages that touch a number, and of the platform."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in PACKAGES},
    }


@cache
def code_version() -> str:
    """Version of the suite, with a digest of the code that decides a number and git's commit."""
    sources = [path for folder in CODE for path in (_ROOT / folder).rglob("*.py")]
    return f"{version('lmfmri')}+code.{files_digest(sources, root=_ROOT)[:12]}{_commit()}"


def _commit() -> str:
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""  # an installed package is no checkout; the code digest stands alone
    return f".git.{shown.stdout.strip()}"


def now() -> str:
    """Time in UTC, ISO 8601; ``SOURCE_DATE_EPOCH`` fixes it for byte-identical recordings."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")
