"""What the methods of a study rest on, as it stands in a list of references."""

from collections.abc import Iterable
from pathlib import Path

import yaml

_READ = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SOURCES: dict[str, str] = _READ["sources"]
# The keys of sources, by analysis, by control, and by what else was done.
USED: dict[str, list[str]] = _READ["used"]


def sources(names: Iterable[str]) -> list[str]:
    """What these rest on, in the order of authors."""
    return [SOURCES[key] for key in sorted({key for name in names for key in USED.get(name, ())})]
