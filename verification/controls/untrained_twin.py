"""The same architecture with fresh weights must not come within the margin of the effect.

What an untrained network shows comes from the architecture, the tokenizer and the stimuli, not from
learning (Zhang & Bowman 2018). Several seeds are recorded and the strongest counts. Of a claim
about two models, twins stand in for either and for both.

A twin must be one: the same configuration and tokenizer, other weights, no better than guessing at
English, and not dead. One that is broken shows nothing, and would let everything pass.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses import AnalysisError
from analyses.acting import ANSWERS
from scanner import Subject
from verification.base import Check, Hypothesis, Kind
from verification.control import Control, control
from verification.measure import Measure
from verification.statistics import Estimate, strongest

# Nats a token by which a fresh network may be better than guessing, by luck.
BETTER = 0.5


@control
@dataclass(frozen=True)
class UntrainedTwin(Control):
    """Null control: all twins that were recorded; the strongest is compared."""

    kind: ClassVar[Kind] = "null"

    def __call__(
        self,
        subject: Subject,
        measure: Measure,
        observed: Estimate,
        hypothesis: Hypothesis,
        *,
        rng: np.random.Generator,
    ) -> Check:
        worlds = untrained(subject)
        shares, twins = strongest({name: measure(world) for name, world in worlds.items()})
        kind = "pairs with an untrained twin" if subject.beside else "untrained twins"
        what = f"the strongest of {len(worlds)} {kind} ({shares})"
        return self.beaten(observed, twins, hypothesis.alpha, what)

    def profile(
        self, subject: Subject, measure: Measure, *, rng: np.random.Generator
    ) -> xr.DataArray | None:
        worlds = untrained(subject).values()
        return xr.concat([measure.profile(world) for world in worlds], "draw")


def untrained(subject: Subject) -> dict[str, Subject]:
    """The worlds in which nothing was learned, by name.

    Of two subjects, either of them has learned nothing, or both have: two networks that read the
    same tokens are alike in that.

    Raises
    ------
    KeyError
        If no twin was recorded.
    AnalysisError
        If one is none.
    """
    for one in subject.together:
        if not one.twins:
            raise KeyError("no twin was recorded; set `twins` under `scan`")
        for seed, twin in one.twins.items():
            check_twin(one.volume, twin, seed)
    worlds = {f"seed {seed}": subject.twin(seed) for seed in subject.twins}
    if not subject.beside:
        return worlds
    (other,) = subject.beside
    return {
        **{f"own {name}": world for name, world in worlds.items()},
        **{f"other {seed}": subject.set_beside(other.twin(seed)) for seed in other.twins},
        **{
            f"both {seed}": subject.twin(seed).set_beside(other.twin(seed))
            for seed in subject.twins
            if seed in other.twins
        },
    }


def check_twin(trained: xr.Dataset, twin: xr.Dataset, seed: int) -> None:
    """Hold a twin to what an untrained network of the same architecture is.

    Raises
    ------
    AnalysisError
        If it is another architecture, or trained, or dead.
    KeyError
        If its recording does not say.
    """
    for key in ("config_sha256", "tokenizer_sha256"):
        if twin.attrs[key] != trained.attrs[key]:
            what = key.removesuffix("_sha256")
            raise AnalysisError(f"twin {seed} has another {what}, so it is no twin")
    if twin.attrs["weights_sha256"] == trained.attrs["weights_sha256"]:
        raise AnalysisError(f"twin {seed} has the weights of the subject, so it is no twin")
    surprisal, guessing = twin.attrs["surprisal"], math.log(twin.attrs["vocabulary"])
    if not math.isfinite(surprisal):
        raise AnalysisError(f"twin {seed} is broken: its surprisal is {surprisal}")
    if surprisal < guessing - BETTER:
        raise AnalysisError(
            f"twin {seed} has learned something: its surprisal is {surprisal:.2f} nats a token, "
            f"where guessing has {guessing:.2f}"
        )
    for kind, values in twin.data_vars.items():
        if ANSWERS.items() <= values.attrs.items():
            continue
        spread = np.asarray(values.std("stimulus").max([d for d in values.dims if d not in (
            "stimulus", "layer")]))  # fmt: skip
        dead = np.flatnonzero(~(spread > 0))
        if len(dead):
            raise AnalysisError(
                f"twin {seed} is dead: its {kind} is the same for all stimuli in layer {dead[0]}"
            )
