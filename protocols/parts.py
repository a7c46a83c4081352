"""What a protocol can name, each with a line about it."""

import sys
from pathlib import Path
from typing import Literal, get_args

import yaml

import stimuli
from analyses import REGISTRY
from scanner.sites import KINDS, MEANINGS
from scanner.sources import EMBEDDED
from verification import CONTROLS

Kind = Literal["analyses", "controls", "stimuli", "sites", "subjects", "protocols"]
_HERE = Path(__file__).parent


def parts(kind: Kind | None = None) -> dict[str, dict[str, str]]:
    """The parts of one kind or of all, by kind: names, and a line about each.

    Parameters
    ----------
    kind : str, optional
    """
    makers = {
        "analyses": lambda: _of_modules(REGISTRY),
        "controls": lambda: _of_modules(CONTROLS),
        "stimuli": lambda: {name: stimuli.about(name) for name in stimuli.shipped()},
        "sites": lambda: {kind: MEANINGS[kind].text for kind in KINDS},
        "subjects": lambda: {name: f"{p.weights}, {p.licence}" for name, p in EMBEDDED.items()},
        "protocols": shipped,
    }
    kinds = get_args(Kind) if kind is None else (kind,)
    return {one: makers[one]() for one in kinds}


def shipped() -> dict[str, str]:
    """The protocols that come with the suite: where they are, from here if below, and titles."""
    found = {}
    for path in sorted(_HERE.glob("**/*.yaml"), key=lambda path: (len(path.parts), path)):
        protocol = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(protocol, dict) and "study" in protocol:
            here = path.is_relative_to(Path.cwd())
            name = path.relative_to(Path.cwd()) if here else path
            found[str(name)] = protocol.get("title", "")
    return found


def _of_modules(registry: dict[str, type]) -> dict[str, str]:
    """The first line of each module."""
    found = {}
    for name in sorted(registry):
        told = (sys.modules[registry[name].__module__].__doc__ or "").strip()
        found[name] = told.partition("\n")[0]
    return found
