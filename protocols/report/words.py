"""Numbers and counts as the report writes them, and what its words mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Every verdict with what it says, in the order in which a summary counts them.
STATUSES = {
    "supported": "the effect is there, is large enough to matter, and survived every control",
    "null": "the effect is shown to be smaller than the smallest that matters",
    "inconclusive": "the data show neither that the effect is there nor that it is too small",
    "rejected": "the effect is there, but a control explains it or it does not hold where it must",
    "invalid": "a precondition failed, so the claim was not judged",
}
NOT_COMPUTED = "not computed"
# Dimensions whose own word is none for people.
_NOUNS = {
    "kv_head": "kv head", "head_unit": "unit", "vocabulary": "token", "rank": "highest value",
}  # fmt: skip
_SPELLED = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Numbers, as text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits, never "-0.000"; what could not be computed says so."""
    return NOT_COMPUTED if value is None or not math.isfinite(value) else f"{value:z.{digits}f}"


def between(interval: Sequence[float | None]) -> str:
    """An interval, ``0.523 to 0.755``."""
    low, high = interval
    if low is None or high is None:
        return NOT_COMPUTED
    return f"{number(low)} to {number(high)}"


def p_value(p: float | None) -> str:
    """A p-value; three digits are all that a t distribution is to be believed."""
    if p is None or not math.isfinite(p):
        return NOT_COMPUTED
    return "< 0.001" if p < 0.001 else "> 0.999" if p > 0.999 else f"{p:.3f}"


def odds(factor: float | None) -> str:
    """A Bayes factor with the side that it speaks for."""
    if factor is None or not math.isfinite(factor):
        return NOT_COMPUTED
    side, times = ("for", factor) if factor >= 1 else ("against", 1 / factor)
    return f"{'> 1000' if times > 1000 else f'{times:.3g}'} to 1 {side}"


def percent(share: float) -> str:
    """``98%``, with as many digits as it takes."""
    return f"{100 * share:.4g}%"


def deviation(value: float) -> str:
    """A relative deviation that may be exactly 0."""
    return "0" if value == 0 else f"{value:.1e}"


def spelled(count: int) -> str:
    """A count in a sentence: in letters up to twelve."""
    return _SPELLED[count] if count < len(_SPELLED) else str(count)


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 word``, ``2 words``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def shape(sizes: Mapping[str, int]) -> str:
    """Dimensions of a site, ``9 heads x 64 units``."""
    return " x ".join(counted(size, _NOUNS.get(dim, dim)) for dim, size in sizes.items())


def listed(parts: Sequence[str], joint: str = "and") -> str:
    """``a, b and c``."""
    *most, last = parts or ("",)
    return f"{', '.join(most)} {joint} {last}" if most else last


def capital(text: str) -> str:
    """The text with a capital at its beginning, and nothing else changed."""
    return text[:1].upper() + text[1:]


def plain(name: str) -> str:
    """A name of the code as words."""
    return name.replace("_", " ")
