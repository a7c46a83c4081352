"""One self-contained page for a study."""

from protocols.report.page import render

__all__ = ["render"]
