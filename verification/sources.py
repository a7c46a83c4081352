"""Which code decides a number: the modules that it is made with, and what these import."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from scanner.provenance import digest

# What is recorded is simulated where this is asked, so that the scanner decides nothing.
_DECIDING = ("analyses", "verification")
# It names many analyses, and only the one that is asked about decides the number.
_LIST = "verification.effect_worlds"


def sources_digest(modules: Iterable[str]) -> str:
    """sha256 of what Python makes of modules, and of the analyses and the gate that they import.

    Comments, docstrings and layout are left out. Of a package that gathers modules (``from
    analyses import Analysis``), the module is followed from which it has the name.

    Parameters
    ----------
    modules : iterable of str
        Full names, ``verification.gate``.

    Raises
    ------
    ModuleNotFoundError
        If one is not of `analyses` or `verification`.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = _meant(module)
            if module != _LIST:
                waiting += _imported(module)
    return digest(found)


@cache
def _meant(module: str) -> str:
    return hashlib.sha256(ast.dump(_parsed(module)).encode()).hexdigest()


@cache
def _parsed(module: str) -> ast.Module:
    return _without_docstrings(_path(module).read_text(encoding="utf-8"))


def _without_docstrings(text: str) -> ast.Module:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    return tree


@cache
def _path(module: str) -> Path:
    spec = find_spec(module) if module.partition(".")[0] in _DECIDING else None
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"neither analyses nor verification has a module '{module}'")
    return Path(spec.origin)


def _imported(module: str) -> Iterator[str]:
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in _DECIDING:
            for alias in node.names:
                yield _home(str(node.module), alias.name)


def _home(module: str, name: str) -> str:
    """The module in which a name stands that is imported from another."""
    if _path(module).name != "__init__.py":
        return module
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.ImportFrom) and name in (alias.name for alias in node.names):
            return _home(str(node.module), name)
    inner = f"{module}.{name}"
    return inner if find_spec(inner) is not None else module
