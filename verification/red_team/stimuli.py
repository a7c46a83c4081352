"""Stimuli that give the label away, or stand on both sides of a split."""

from collections.abc import Callable

import numpy as np

from scanner import Subject
from verification.red_team.fault import (
    PRESENCE,
    Outcome,
    fault,
    judged,
    planted,
    randomness,
)
from verification.worlds import Surface, world

BY_SURFACE = r"surface_only: the surface of the words \("


def _surface(seed: int, broken: bool, what: Surface, size: float = 2) -> Outcome:
    """What goes along with the category is all that is coded; or a category that stands alone."""
    rng = randomness(seed, what)
    if not broken:
        return judged(planted(seed, what), seed=seed)
    subject = world(rng, code=what, confound=what, size=size, layers=1, items=12, units=40)
    return judged(subject, seed=seed)


@fault("surface", "rejected", BY_SURFACE)
def category_is_length(seed: int, broken: bool) -> Outcome:
    """Words of one category are longer, and only length is coded."""
    return _surface(seed, broken, "length")


@fault("surface", "rejected", BY_SURFACE)
def category_is_frequency(seed: int, broken: bool) -> Outcome:
    """Words of one category are more frequent, and only frequency is coded."""
    return _surface(seed, broken, "frequency", size=4)


@fault("surface", "rejected", BY_SURFACE)
def category_is_the_first_letter(seed: int, broken: bool) -> Outcome:
    """Words of one category begin alike, and only the letter is coded."""
    return _surface(seed, broken, "letter")


@fault("surface", "rejected", BY_SURFACE)
def category_is_position(seed: int, broken: bool) -> Outcome:
    """Words of one category stand later in the text, and only position is coded."""
    return _surface(seed, broken, "position")


@fault("surface", "rejected", BY_SURFACE)
def category_is_a_token(seed: int, broken: bool) -> Outcome:
    """Words of one category share their last token, and only the token is coded."""
    return _surface(seed, broken, "token")


@fault("grouped splits", "invalid", "frames give it away")
def frames_of_their_own(seed: int, broken: bool) -> Outcome:
    """Each category has frames of its own."""
    return judged(planted(seed, "frames", own_frames=broken), seed=seed)


@fault("grouped splits", "invalid", "are the same word")
def one_word_as_two_items(seed: int, broken: bool) -> Outcome:
    """The same word is listed twice, in capitals, so that it stands on both sides of a split."""
    return judged(_copied(seed, broken, "item", str.upper), seed=seed)


@fault("split half", "invalid", "share the text")
def duplicated_stimuli(seed: int, broken: bool) -> Outcome:
    """Two items have the same texts, so that halves share them."""
    return judged(_copied(seed, broken, "text", str), seed=seed)


@fault("grouped splits", "invalid", "has two values of 'category'")
def item_in_two_categories(seed: int, broken: bool) -> Outcome:
    """One word is an item of two categories."""
    subject = planted(seed, "senses")
    items = subject.volume["item"].to_numpy().astype(object)
    if broken:
        items[items == items[-1]] = items[0]
    return judged(subject.relabel("item", items.astype(str)), seed=seed)


@fault("control task", "rejected", "control_task: to tell labels that are dealt out among values")
def names_of_one_thing(seed: int, broken: bool) -> Outcome:
    """Several names of one thing are items, and which thing it is is all that is coded."""
    controls = PRESENCE | {"control_task": {"margin": 0.1, "type": "kin"}}
    rng, code = randomness(seed, "one thing"), "kin" if broken else "direction"
    subject = world(rng, code=code, size=1 if broken else 2, layers=1, items=12, units=40)
    return judged(subject, seed=seed, controls=controls)


@fault("permutation", "invalid", r"has 3 items; at least 4")
def too_few_items(seed: int, broken: bool) -> Outcome:
    """Three words are taken for a category."""
    return judged(planted(seed, "few", items=3 if broken else 8), seed=seed)


def _copied(seed: int, broken: bool, column: str, change: Callable[[str], str]) -> Subject:
    """The second item of the first category takes a column of the first."""
    subject = planted(seed, f"copied {column}")
    if not broken:
        return subject
    values = subject.volume[column].to_numpy().astype(object)
    items = subject.volume["item"].to_numpy()
    first, second = (np.flatnonzero(items == name) for name in dict.fromkeys(items[:8]))
    values[second] = [change(value) for value in values[first]]
    return subject.relabel(column, values.astype(str))
