"""What may be claimed: hypotheses, the ledger that freezes them, and the gate that judges."""

from verification.base import Check, Hypothesis, Verdict
from verification.cases import REQUIRED, Case, Population, required
from verification.control import CONTROLS, Control
from verification.gate import evidence, judge
from verification.ledger import Filed, Ledger, LedgerError, Registration

__all__ = [
    "CONTROLS",
    "REQUIRED",
    "Case",
    "Check",
    "Control",
    "Filed",
    "Hypothesis",
    "Ledger",
    "LedgerError",
    "Population",
    "Registration",
    "Verdict",
    "evidence",
    "judge",
    "required",
]
