"""Analyses: subjects in, a labelled `xarray.Dataset` out. One file each; the file's name is its
name in a protocol."""

from importlib import import_module
from pkgutil import iter_modules

from analyses.base import REGISTRY, Analysis, AnalysisError, Quantity

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["REGISTRY", "Analysis", "AnalysisError", "Quantity"]
