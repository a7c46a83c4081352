"""Grammars with probabilities: texts without end, of which it is known what can be known.

One rule a row, of a table with three columns::

    symbol = "rest"    what the rule is of; the first row's is the whole text
    share  = 0.2       how often this rule is taken, of all rules of the symbol
    gives  = "near the object"    symbols and words; words are what no row is a rule of

A grammar has to be one that is read from left to right without ever guessing, LL(1) (Lewis &
Stearns 1968): the next word tells the rule. Then a text has one derivation, so that the entropy of
texts is that of derivations, which is the solution of linear equations (Grenander 1976), and the
probability of each text is a product. No model can do better than that on average.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stimuli.stimulus_set import StimulusError

COLUMNS = ("symbol", "share", "gives")
RULES = "rules.csv"
_HERE = Path(__file__).parent
# What follows a whole text.
_END = ""


class Rule(NamedTuple):
    """One of the things that a symbol gives: with what probability, and what."""

    share: float
    gives: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """Rules of symbols with their probabilities, told apart by the next word.

    Attributes
    ----------
    name : str
    rules : mapping of str to tuple of Rule
        By symbol; the first is the whole text.
    """

    name: str
    rules: Mapping[str, tuple[Rule, ...]]

    def __post_init__(self) -> None:
        for symbol, some in self.rules.items():
            total = math.fsum(one.share for one in some)
            if min(one.share for one in some) <= 0 or abs(total - 1) > 1e-6:
                raise StimulusError(
                    f"grammar '{self.name}': the shares of '{symbol}' are {total:g} together; "
                    "they must be above 0, and 1 together"
                )
        for symbol in self.rules:
            self._check_told_apart(symbol)
        if not max(abs(np.linalg.eigvals(self._expected))) < 1:
            raise StimulusError(
                f"grammar '{self.name}': symbols give themselves so often that texts have no end; "
                "give rules that end a text larger shares"
            )

    @property
    def start(self) -> str:
        """The whole text."""
        return next(iter(self.rules))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All that a text can hold, in alphabetical order."""
        given = {one for some in self.rules.values() for rule in some for one in rule.gives}
        return tuple(sorted(given - self.rules.keys()))

    @cached_property
    def entropy(self) -> float:
        """Of a text: the least surprisal that a model can have of it on average, nats."""
        own = [-math.fsum(r.share * math.log(r.share) for r in some) for some in self._rules]
        return self._solved(own)

    @cached_property
    def length(self) -> float:
        """Words of a text, on average."""
        own = [
            math.fsum(r.share * sum(one not in self.rules for one in r.gives) for r in some)
            for some in self._rules
        ]
        return self._solved(own)

    def sample(self, count: int, *, rng: np.random.Generator) -> list[str]:
        """Texts, each drawn on its own: words with a space between."""
        return [self._drawn(rng) for _ in range(count)]

    def surprisal(self, text: str) -> np.ndarray:
        """What each word costs one who knows the grammar: word, nats.

        Raises
        ------
        StimulusError
            If it is no text of the grammar.
        """
        costs, left = [], [self.start]
        for word in [*text.split(), _END]:
            cost = 0.0
            while left and left[-1] in self.rules:
                rule = self._chosen[left.pop()].get(word)
                if rule is None:
                    raise self._foreign(text, word)
                cost -= math.log(rule.share)
                left += reversed(rule.gives)
            if word != (left.pop() if left else _END):
                raise self._foreign(text, word)
            costs.append(cost)
        # What is left empty behind the last word is told by the end of the text, which is no word.
        *found, end = costs
        found[-1] += end
        return np.array(found)

    def _foreign(self, text: str, word: str) -> StimulusError:
        return StimulusError(
            f"grammar '{self.name}': '{text}' is none of its texts; "
            f"{f'{word!r} cannot stand where it does' if word else 'it ends too early'}"
        )

    def _drawn(self, rng: np.random.Generator) -> str:
        words, left = [], [self.start]
        while left:
            symbol = left.pop()
            if symbol not in self.rules:
                words.append(symbol)
                continue
            rule = self.rules[symbol][int(np.searchsorted(self._bounds[symbol], rng.random()))]
            left += reversed(rule.gives)
        return " ".join(words)

    @cached_property
    def _bounds(self) -> dict[str, np.ndarray]:
        """Where, between 0 and 1, the next rule of a symbol begins."""
        return {
            symbol: np.array(list(accumulate(one.share for one in some))[:-1])
            for symbol, some in self.rules.items()
        }

    @property
    def _rules(self) -> list[tuple[Rule, ...]]:
        return list(self.rules.values())

    @cached_property
    def _expected(self) -> np.ndarray:
        """How often a symbol gives another one: symbol x symbol."""
        place = {symbol: number for number, symbol in enumerate(self.rules)}
        found = np.zeros((len(place), len(place)))
        for symbol, some in self.rules.items():
            for rule in some:
                for one in rule.gives:
                    if one in place:
                        found[place[symbol], place[one]] += rule.share
        return found

    def _solved(self, own: Sequence[float]) -> float:
        """What the whole text has of something, of which each symbol has some of its own."""
        return float(np.linalg.solve(np.eye(len(own)) - self._expected, np.array(own))[0])

    @cached_property
    def _first(self) -> dict[str, set[str]]:
        """The words that each symbol can begin with; the end of a text if it can be empty."""
        first: dict[str, set[str]] = {symbol: set() for symbol in self.rules}
        size = -1
        while size != (size := sum(map(len, first.values()))):
            for symbol, some in self.rules.items():
                for rule in some:
                    first[symbol] |= self._begins(rule.gives, first)
        return first

    def _begins(self, gives: Sequence[str], first: Mapping[str, set[str]]) -> set[str]:
        found: set[str] = set()
        for one in gives:
            begins = first[one] if one in first else {one}
            found |= begins - {_END}
            if _END not in begins:
                return found
        return found | {_END}

    @cached_property
    def _follow(self) -> dict[str, set[str]]:
        """The words that can stand behind each symbol."""
        follow: dict[str, set[str]] = {symbol: set() for symbol in self.rules}
        follow[self.start].add(_END)
        size = -1
        while size != (size := sum(map(len, follow.values()))):
            for symbol, some in self.rules.items():
                for rule in some:
                    for place, one in enumerate(rule.gives):
                        if one in self.rules:
                            behind = self._begins(rule.gives[place + 1 :], self._first)
                            follow[one] |= behind - {_END}
                            follow[one] |= follow[symbol] if _END in behind else set()
        return follow

    @cached_property
    def _chosen(self) -> dict[str, dict[str, Rule]]:
        """By symbol and next word, the rule that is taken."""
        chosen: dict[str, dict[str, Rule]] = {symbol: {} for symbol in self.rules}
        for symbol, some in self.rules.items():
            for rule in some:
                for word in self._next(symbol, rule):
                    chosen[symbol][word] = rule
        return chosen

    def _next(self, symbol: str, rule: Rule) -> set[str]:
        """The words that a rule is taken at."""
        begins = self._begins(rule.gives, self._first)
        return begins - {_END} | (self._follow[symbol] if _END in begins else set())

    def _check_told_apart(self, symbol: str) -> None:
        seen: set[str] = set()
        for rule in self.rules[symbol]:
            both = sorted(seen & self._next(symbol, rule))
            if both:
                raise StimulusError(
                    f"grammar '{self.name}': two rules of '{symbol}' can be taken where "
                    f"{f'{both[0]!r} comes next' if both[0] else 'a text ends'}, so that its "
                    "entropy cannot be known; let the next word tell which it is"
                )
            seen |= self._next(symbol, rule)


def load_grammar(source: str, *, relative_to: Path | None = None) -> Grammar:
    """Load a shipped grammar by name, or a CSV table of one's own.

    Parameters
    ----------
    source : str
        A shipped set with rules, such as ``nested``, or a path that ends in ``.csv``.
    relative_to : pathlib.Path, optional
        Folder that a relative path starts from.

    Raises
    ------
    StimulusError
        For an unknown name, a missing column, or rules that make no grammar.
    """
    shipped = sorted(path.parent.relative_to(_HERE).as_posix() for path in _HERE.rglob(RULES))
    if source in shipped:
        path = _HERE / source / RULES
    elif source.endswith(".csv"):
        path = (relative_to or Path()) / source
    else:
        raise StimulusError(
            f"grammar '{source}' is neither a shipped one ({', '.join(shipped)}) nor a path that "
            "ends in .csv"
        )
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise StimulusError(f"grammar: no file {path}") from None
    return _of_table(text, source if source in shipped else path.stem, path)


@lru_cache(maxsize=8)  # subjects by the dozen are trained on one, and ask for its entropy
def _of_table(text: bytes, name: str, path: Path) -> Grammar:
    table = pd.read_csv(BytesIO(text), keep_default_na=False, dtype={"symbol": str, "gives": str})
    if tuple(table.columns) != COLUMNS or table.empty:
        raise StimulusError(f"grammar {path}: its columns must be {', '.join(COLUMNS)}")
    rules = {
        str(symbol): tuple(
            Rule(float(share), tuple(gives.split()))
            for share, gives in zip(some["share"], some["gives"], strict=True)
        )
        for symbol, some in table.groupby("symbol", sort=False)
    }
    return Grammar(name, rules)
