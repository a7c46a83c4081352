"""Studies that are broken on purpose, one way each, to see whether the gate finds out.

One file for each kind of fault; a function enters its study with `fault`.
"""

from importlib import import_module
from pkgutil import iter_modules

from verification.red_team.fault import FAULTS, Fault, Outcome

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["FAULTS", "Fault", "Outcome"]
