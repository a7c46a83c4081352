"""Twins that are none: what the untrained network shows must be what no learning shows."""

import numpy as np

from scanner import Subject
from verification.red_team.fault import Outcome, fault, judged, planted
from verification.worlds import SITE


@fault("untrained twin", "rejected", "untrained_twin: the strongest of 2 untrained twins")
def architecture_taken_for_learning(seed: int, broken: bool) -> Outcome:
    """An untrained twin shows the same effect."""
    code = "direction" if broken else "none"
    return judged(planted(seed, "architecture", twin_code=code), seed=seed)


@fault("untrained twin", "rejected", "untrained_twin: .*seed 7")
def the_one_strong_twin(seed: int, broken: bool) -> Outcome:
    """One seed of the twin shows the effect, and the others would have been quoted."""
    subject = planted(seed, "strong")
    other = planted(seed, "strong", twin_code="direction" if broken else "none")
    return judged(Subject("toy", subject.volume, {**subject.twins, 7: other.twins[0]}), seed=seed)


@fault("untrained twin", "invalid", "has the weights of the subject")
def twin_is_the_trained_model(seed: int, broken: bool) -> Outcome:
    """The trained model was loaded as its own twin."""
    return _with_twin(seed, broken, weights_sha256="wNone")


@fault("untrained twin", "invalid", "has another config")
def twin_of_another_size(seed: int, broken: bool) -> Outcome:
    """The twin has another depth or width."""
    return _with_twin(seed, broken, config_sha256="other")


@fault("untrained twin", "invalid", "has another tokenizer")
def twin_with_another_tokenizer(seed: int, broken: bool) -> Outcome:
    """The twin reads other tokens."""
    return _with_twin(seed, broken, tokenizer_sha256="other")


@fault("untrained twin", "invalid", "has learned something")
def twin_that_was_trained(seed: int, broken: bool) -> Outcome:
    """The twin is an early checkpoint: it is better than guessing."""
    return _with_twin(seed, broken, surprisal=4.2)


@fault("untrained twin", "invalid", "is broken: its surprisal is nan")
def twin_that_overflows(seed: int, broken: bool) -> Outcome:
    """The twin was drawn at a wrong scale, so that it computes nothing."""
    return _with_twin(seed, broken, surprisal=float("nan"))


@fault("untrained twin", "invalid", "is dead")
def twin_that_is_dead(seed: int, broken: bool) -> Outcome:
    """The twin gives every stimulus the same activations, and so lets everything pass."""
    subject = planted(seed, "dead")
    twin = subject.twins[1]
    if broken:
        twin = twin.assign({SITE: twin[SITE].copy(data=np.ones(twin[SITE].shape))})
    return judged(Subject("toy", subject.volume, {**subject.twins, 1: twin}), seed=seed)


@fault("untrained twin", "invalid", "no twin was recorded")
def no_twin_at_all(seed: int, broken: bool) -> Outcome:
    """The twins were never recorded."""
    return judged(planted(seed, "none", twins=0 if broken else 2), seed=seed)


def _with_twin(seed: int, broken: bool, **attributes: object) -> Outcome:
    subject = planted(seed, "attributes")
    twin = subject.twins[1].assign_attrs(attributes if broken else {})
    return judged(Subject("toy", subject.volume, {**subject.twins, 1: twin}), seed=seed)
