"""Which direction each stimulus is given: that of its category, and for each target another one.

Each category of a target at random is given another direction. By one for all, the words of all
categories would rise over each other by nothing, whatever it is, and any claim would seem to hold.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from analyses.acting import Acting
from analyses.base import AnalysisError, labels, vectors
from analyses.splits import Fold, folds_of, item_groups
from analyses.targets import Patterns, Target, Way, aim, check_dictionary, matched, told
from scanner import Live, Subject
from scanner.sites import Kind


@dataclass(frozen=True)
class Along(Acting):
    """An analysis that acts along a direction for each category, found in other items.

    Attributes
    ----------
    site : str
        Kind of site at which directions are found and acted along.
    layers : tuple of int
        Where, one at a time.
    label : str
        A column of the stimulus table; each of its categories has a direction.
    way : {'mean_difference', 'probe', 'features'}
        How it is found (`analyses.targets.aim`); of features the one of largest d'.
    random : int
        Targets at random of each kind.
    item_folds : int
        Groups of items; each is judged by directions that the others show.
    dictionary : str, optional
        The analysis whose features these are.
    """

    site: Kind
    layers: tuple[int, ...]
    label: str = "category"
    way: Way = "mean_difference"
    random: int = 6
    item_folds: int = 2
    dictionary: str | None = None

    # Kinds of targets of which a new direction is drawn for each category.
    drawn: ClassVar[tuple[str, ...]] = ("matched", "shuffled")

    def __post_init__(self) -> None:
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: whole numbers from 0, each once")
        if self.way not in ("mean_difference", "probe", "features"):
            raise ValueError(f"way: '{self.way}' is no direction that could be added")
        check_dictionary(self.way, self.dictionary)
        if self.random < 0 or self.item_folds < 2:
            raise ValueError("random must be at least 0, item_folds at least 2")

    def beyond(self, layers: int) -> str:
        late = [one for one in self.layers if one >= layers]
        return f"{late[0]} is none of the model's {layers} layers" if late else ""

    def runs(self, live: Live, subject: Subject) -> list[int]:
        """Layers."""
        return list(self.layers)

    def categories(self, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
        """Names, and of each stimulus its number.

        Raises
        ------
        AnalysisError
            If there is one.
        """
        names, codes = np.unique(labels(subject, self.label), return_inverse=True)
        if len(names) < 2:
            name = type(self).__name__.lower()
            raise AnalysisError(f"'{self.label}' has one value; {name} needs words of others")
        return names, codes

    def recorded(self, subject: Subject, layer: int) -> np.ndarray:
        """What was recorded at the site: stimulus x unit."""
        return vectors(subject, self.site)[list(subject.volume["layer"].to_numpy()).index(layer)]

    def parts(
        self, subject: Subject, layer: int, rng: np.random.Generator
    ) -> Iterator[tuple[Fold, Patterns, np.random.Generator]]:
        """Each group of items with the patterns of the others, and what is drawn for it.

        Raises
        ------
        AnalysisError
            If the items cannot be divided.
        """
        items, values = labels(subject, "item"), labels(subject, self.label)
        names, codes = self.categories(subject)
        try:
            group = item_groups(items, values, groups=self.item_folds, rng=rng)
        except ValueError as error:
            name = type(self).__name__.lower()
            raise AnalysisError(f"{name} of '{self.label}': {error}") from None
        x, seen = self.recorded(subject, layer), told(subject, layer)
        seed = int(rng.integers(2**32))
        wanted = (codes[:, None] == np.arange(len(names))).astype(float)
        for number, fold in enumerate(folds_of(group)):
            of_fold = None if seen is None else seen._replace(features=seen.features[fold.train])
            patterns = Patterns.of(x[fold.train], items[fold.train], wanted[fold.train], of_fold)
            yield fold, patterns, np.random.default_rng([seed, layer, number])

    def plan(self, categories: int) -> list[str]:
        """The kinds of the targets of a trained subject, in their order."""
        others = min(categories - 1, self.random)
        return [
            "own", "known", *("other",) * others,
            *(kind for kind in self.drawn for _ in range(self.random)),
        ]  # fmt: skip

    def chosen(self, codes: np.ndarray, categories: int, kinds: Sequence[str]) -> np.ndarray:
        """Of each stimulus and target the number of its direction: stimulus x target."""
        draws = self.draws(categories)
        first = {"own": 0, "known": 0, "other": 0}
        first |= {kind: categories + place * draws for place, kind in enumerate(self.drawn)}
        seen: Counter[str] = Counter()
        found = []
        for kind in kinds:
            turn = seen[kind] + (kind == "other")
            many = draws if kind in self.drawn else categories
            found.append(first[kind] + (codes + turn) % many)
            seen[kind] += 1
        return np.stack(found, axis=1)

    def draws(self, categories: int) -> int:
        """How many directions of each kind are drawn: another one for each category of a target."""
        return max(self.random, categories)

    def directions(
        self, patterns: Patterns, rng: np.random.Generator, *, random: bool
    ) -> np.ndarray:
        """Of length one: of each category, at random as variable, and of labels dealt out anew."""
        categories = patterns.wanted.shape[1]
        found = [self._of(patterns, one) for one in range(categories)]
        draws = range(self.draws(categories) if random else 0)
        for one in draws:
            like = found[one % categories][None]
            (along,) = matched(rng, patterns, Target("own", like, like)).along
            found.append(along)
        found += [self._of(patterns.dealt(rng), one % categories) for one in draws]
        return np.array(found)

    def _of(self, patterns: Patterns, category: int) -> np.ndarray:
        """From the other categories towards one."""
        wanted = patterns.wanted[:, [category]]
        (along,) = aim("own", replace(patterns, wanted=wanted), self.way, count=1).along
        inside = wanted[:, 0] > 0.5
        apart = patterns.items[inside].mean(0) - patterns.items[~inside].mean(0)
        return along if apart @ along >= 0 else -along
