"""Digests of the code that decides a number: what moves them, and what does not."""

import inspect

import pytest

from verification import sources
from verification.calibration import kinds
from verification.red_team import FAULTS
from verification.sources import sources_digest

PROBE = "analyses.probe"


@pytest.fixture
def changed(monkeypatch):
    """A module read as if its text were another."""

    def change(module: str, old: str, new: str) -> None:
        text = sources._path(module).read_text()
        assert old in text
        before = sources._parsed
        for cached in (sources._meant, sources._parsed):
            cached.cache_clear()
        tree = sources._without_docstrings(text.replace(old, new))
        monkeypatch.setattr(sources, "_meant", inspect.unwrap(sources._meant))
        monkeypatch.setattr(
            sources, "_parsed", lambda name: tree if name == module else before(name)
        )

    return change


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (PROBE, "item_folds: int = ", "item_folds: int = 1"),
        ("analyses.splits", "def ", "def _"),
        ("verification.statistics", "np.ceil", "np.floor"),
    ],
)
def test_a_change_of_code_that_is_imported_changes_the_digest(
    changed, module: str, old: str, new: str
) -> None:
    asked = [PROBE, "verification.gate"]
    before = sources_digest(asked)
    changed(module, old, new)
    assert sources_digest(asked) != before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [("analyses.rsa", "def ", "def _"), (PROBE, '    """Decode a label', '    """Read a label')],
)
def test_other_analyses_and_words_that_explain_do_not(
    changed, module: str, old: str, new: str
) -> None:
    before = sources_digest([PROBE, "verification.gate"])
    changed(module, old, new)
    assert sources_digest([PROBE, "verification.gate"]) == before


def test_kinds_differ_by_what_decides_them() -> None:
    every = kinds()
    assert every["probe.auc"].made_with != every["probe.balanced_accuracy"].made_with
    assert every["probe.auc"].made_with == every["probe.auc"].made_with
    assert FAULTS["no-twin-at-all"].made_with != FAULTS["a-unit-of-nan"].made_with


def test_what_is_no_analysis_and_no_gate_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"neither analyses nor verification has.*torch"):
        sources_digest(["torch"])
