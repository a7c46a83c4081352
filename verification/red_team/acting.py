"""Claims of what was done to a model, where it is not what was done that did it."""

from typing import Any

import numpy as np

from analyses.ablation import Ablation
from analyses.acting import Acting
from analyses.bus import Bus
from analyses.steering import Steering
from scanner import Subject
from verification.effect_worlds import effect_world
from verification.red_team.fault import Outcome, fault, judged, randomness
from verification.worlds import SITE

STEERING = Steering(SITE, (0,))
BUS = Bus(SITE, (0,))
ABLATION = Ablation(SITE, (0,), later=(1,))
DONE: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "random_target": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 5},
}
NOT_DONE: dict[str, dict[str, Any]] = {
    "known_target": {"margin": 0.5},
    "split_half": {"margin": 0.0, "splits": 5},
}


def _acted(
    seed: int,
    analysis: Acting,
    measure: str,
    *,
    size: float = 0.0,
    generic: float = 0.0,
    architecture: float = 0.0,
) -> Outcome:
    """A claim that something was done by what was acted on."""
    subject = effect_world(
        randomness(seed, measure), analysis, size=size, generic=generic, architecture=architecture
    )
    return judged(subject, analysis, seed=seed, measure=measure, controls=DONE)


@fault("random directions", "rejected", "random_target: ")
def any_direction_steers(seed: int, broken: bool) -> Outcome:
    """Words of the category become likelier along whatever direction is added."""
    planted = {"generic": 0.5} if broken else {"size": 0.5}
    return _acted(seed, STEERING, "steer.slope", **planted)


@fault("random directions", "rejected", "random_target: ")
def ablation_that_breaks_everything(seed: int, broken: bool) -> Outcome:
    """What is taken away breaks the model, as anything as large would; no category by itself."""
    planted = {"generic": 0.8} if broken else {"size": 0.8}
    return _acted(seed, ABLATION, "ablate.drop_frozen", **planted)


@fault("identities", "invalid", "'ratio' can be no finding, whatever it is")
def ratio_that_any_direction_has(seed: int, broken: bool) -> Outcome:
    """Blocks hand on what was added to the stream, and that they do is passed off as found."""
    subject = effect_world(randomness(seed, "ratio"), BUS, size=0.5)
    return judged(
        subject, BUS, seed=seed, measure=f"bus.{'ratio' if broken else 'additivity'}", controls=DONE
    )


@fault("untrained twin", "rejected", "untrained_twin: ")
def twins_are_steered_as_well(seed: int, broken: bool) -> Outcome:
    """What is added is read off again by the embedding, in networks that have learned nothing."""
    planted = {"architecture": 0.5} if broken else {"size": 0.5}
    return _acted(seed, STEERING, "steer.slope", **planted)


@fault("power", "rejected", "known_target: ")
def nothing_was_done(seed: int, broken: bool) -> Outcome:
    """That a direction does nothing is claimed where nothing at all would have been seen."""
    subject = effect_world(randomness(seed, "nothing"), STEERING)
    return judged(
        _undone(subject) if broken else subject,
        STEERING,
        seed=seed,
        measure="steer.slope",
        expect="less",
        than=0.3,
        controls=NOT_DONE,
    )


def _undone(subject: Subject) -> Subject:
    """The same, where what surely has an effect does what one at random does: the hook is dead."""
    kinds = subject.volume["target_kind"].to_numpy()
    shift = subject.volume["shift"]
    known, random = np.flatnonzero(kinds == "known"), np.flatnonzero(kinds == "equal")[:1]
    axis = shift.dims.index("target")
    values = np.moveaxis(shift.to_numpy().copy(), axis, 0)
    values[known] = values[random]
    volume = subject.volume.assign(shift=shift.copy(data=np.moveaxis(values, 0, axis)))
    return Subject(subject.name, volume, subject.twins)
