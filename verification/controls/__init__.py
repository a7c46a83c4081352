"""The accusers. One file each; finding a new file only ever adds a control."""

from importlib import import_module
from pkgutil import iter_modules

from verification.control import CONTROLS

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["CONTROLS"]
