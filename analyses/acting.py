"""What an analysis is that acts on the live subject.

What it does is decided by its settings and by recordings, and done once to the subject and to each
of its twins; what comes of it is kept stimulus by stimulus (`scanner.effects`). `__call__` averages
what was kept, so that controls can take stimuli away without acting again.

Beside what is claimed, other things of the same kind are done: the dimension ``target`` says what,
and its coordinate ``target_kind`` why.

============ ===========================================================================
own          what the claim is about
equal        drawn at random, as many
matched      drawn at random from the covariance of the activations, as much variance; or of parts
             that write as much to the stream
disruptive   the same, made so strong that other texts suffer as much as from the own
shuffled     found as the own, with labels dealt out anew among the items
other        found as the own, of another category or another pair
known        something that surely has an effect, for claims of absence
shown        something that is told beside it and plays no part in the claim
============ ===========================================================================
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from analyses.base import Analysis, AnalysisError, Asks
from scanner import Live, Subject

# Of a variable that tells whether something was answered: where nothing is, it is the same for all
# stimuli, and the model is not dead for that.
ANSWERS = {"answers": 1}
# Against which a claim is held, in this order.
RANDOM = ("equal", "matched", "disruptive", "shuffled", "other")


@dataclass(frozen=True)
class Acting(Analysis):
    """An analysis in two steps: `act` on the subject, run by run, and average what came of it."""

    asks: ClassVar[Asks] = "acts"
    # Dimensions of the site that it makes, which others read by the name that it has in a protocol.
    makes: ClassVar[tuple[str, ...]] = ()

    @property
    def moves_weights(self) -> bool:
        """Whether it changes weights, or asks for their gradients: rounded ones have none."""
        return False

    @property
    def stands_at(self) -> tuple[int, ...] | None:
        """The layers at which there is something to be told; None for all."""
        found = getattr(self, "layers", None)
        return found if isinstance(found, tuple) else None

    @property
    def given(self) -> tuple[str, ...]:
        """Subjects of the protocol that it is given; it acts on the others."""
        donor = getattr(self, "donor", None)
        return () if donor is None else (donor,)

    @property
    def only(self) -> tuple[str, ...]:
        """The subjects of the protocol that it acts on, if these are not all that are left."""
        return ()

    def acts_upon(self, model: str) -> bool:
        """Whether it acts on a subject of the protocol."""
        return model in self.only if self.only else model not in self.given

    def beyond(self, layers: int) -> str:
        """Why it cannot act on a model of so many layers; empty if it can."""
        return ""

    def passes(self, layers: int) -> float:
        """About how many whole forward passes it costs of each text, in a model of so many layers.

        A pass back counts as two. NaN where nobody has counted.
        """
        return float("nan")

    @abstractmethod
    def runs(self, live: Live, subject: Subject) -> Sequence[Any]:
        """What `act` is to be asked for. A run takes seconds: one that is interrupted is lost."""

    @abstractmethod
    def act(
        self, live: Live, subject: Subject, run: Any, *, rng: np.random.Generator
    ) -> xr.Dataset:
        """Act.

        Parameters
        ----------
        live : Live
            The subject in the scanner.
        subject : Subject
            Its recording, without twins.
        run : object
            One of `runs`.
        rng : numpy.random.Generator
            The same at the beginning of each run.

        Returns
        -------
        xarray.Dataset
            Its variables have the dimension ``stimulus``, and an index for each dimension that runs
            differ by.
        """


def behind(layers: int) -> float:
    """Whole passes of which one begins behind each layer."""
    return (layers - 1) / 2


def aimed(subject: Subject, target: int) -> Subject:
    """The effects of one target, in the place of what the claim is about."""
    volume = subject.volume.isel(target=[target])
    return subject.replace_volume(volume.assign_coords(target_kind=("target", ["own"])))


def kinds(volume: xr.Dataset) -> np.ndarray:
    """Of each target what it is for."""
    return volume["target_kind"].to_numpy().astype(object).astype(str)


def values_of(volume: xr.Dataset, name: str, *dims: str) -> np.ndarray:
    """A variable with its dimensions in that order; the gate asks thousands of times."""
    return volume.variables[name].transpose(*dims).to_numpy()


def by_kind(volume: xr.Dataset, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Kinds of targets but what is known, and the mean of each: layer x kind, of target x layer."""
    given = kinds(volume)
    arms = [kind for kind in dict.fromkeys(given.tolist()) if kind != "known"]
    return arms, np.stack([values[given == kind].mean(0) for kind in arms], axis=1)


def check_begun(name: str, live: Live) -> None:
    """Hold each target to have something before it that is read.

    Raises
    ------
    AnalysisError
        If one is the first or the second token of its text.
    """
    short = next((one for one, target in enumerate(live.targets) if target[0] < 2), None)
    if short is not None:
        raise AnalysisError(
            f"{name}: the target of stimulus {short} stands at the beginning of its text, so "
            "nothing is read before it"
        )


def own(subject: Subject) -> int:
    """The place of what the claim is about among the targets.

    Raises
    ------
    AnalysisError
        If nothing, or more than one thing, was done for it.
    """
    if "target_kind" not in subject.volume.coords:
        raise AnalysisError(f"{subject.name}: nothing was done to it")
    (found,) = np.nonzero(kinds(subject.volume) == "own")
    if len(found) != 1:
        raise AnalysisError(f"{subject.name}: {len(found)} targets are called 'own'; one is needed")
    return int(found[0])


def alone(subject: Subject) -> Subject:
    """What the claim is about alone, without what it is held against."""
    if subject.volume.sizes.get("target", 1) == 1:
        return subject
    (found,) = np.nonzero(kinds(subject.volume) == "own")
    return replace(subject, volume=subject.volume.isel(target=found))
