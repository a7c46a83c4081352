"""How often the gate errs, measured in worlds whose truth is known.

For each kind of measure: how often it calls something supported where nothing is there, or where
something else explains it; how often it finds a planted effect of twice the smallest that matters;
and how often it calls an effect of zero null. For each fault of the red team: how often it is
caught for the right reason, how often its clean twin is flagged, and which control, if it were
switched off, would let it through.

Everything goes through `gate.judge`, as a study does.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property, reduce
from inspect import getsource
from operator import add
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from scipy.stats import binomtest

from analyses import Analysis
from analyses.ablation import Ablation
from analyses.abstraction import Abstraction
from analyses.acting import Acting
from analyses.bus import Bus
from analyses.choices import Choices
from analyses.circuits import Circuits
from analyses.circularity import Circularity
from analyses.connectome import Connectome
from analyses.coupling import Coupling
from analyses.discontinuity import Discontinuity
from analyses.domain_neurons import DomainNeurons
from analyses.fingerprint import Fingerprint
from analyses.gates import Gates
from analyses.groupings import Groupings
from analyses.knowledge_map import KnowledgeMap
from analyses.lesion import Lesion
from analyses.localiser import Localiser
from analyses.matching import Matching
from analyses.mlp_probe import MlpProbe
from analyses.neurons import Neurons
from analyses.number_line import NumberLine
from analyses.patching import Patching
from analyses.paths import Paths
from analyses.probe import Probe
from analyses.rank import Rank
from analyses.replies import SCORES, Replies
from analyses.rsa import Rsa
from analyses.saliency import Saliency
from analyses.scaling import Scaling
from analyses.selectivity import Selectivity
from analyses.steering import Steering
from analyses.stitching import Stitching
from analyses.transfer import Transfer
from analyses.tuning import Tuning
from analyses.tuning_vector import TuningVector
from analyses.universality import Universality
from analyses.weight_modules import WeightModules
from analyses.weights import TuningVectors
from scanner import Subject
from scanner.provenance import digest
from verification.base import Hypothesis, Verdict
from verification.cases import Case
from verification.effect_worlds import effect_world
from verification.gate import believed, in_parallel, judge, significant
from verification.measure import Measure
from verification.numbered_worlds import AT, numbered_world
from verification.red_team import FAULTS, Fault
from verification.red_team.fault import claim
from verification.sources import sources_digest
from verification.wired_worlds import wired_world
from verification.worlds import SITE, Code, Surface, world

# What explains the data of a null world: nothing, the words' surface, or the architecture.
EXPLAINED = ("noise", "surface", "architecture")
SURFACES: tuple[Surface, ...] = ("length", "frequency", "letter", "position", "token")
# Of a judged quickstart: what is left of 24 items when a quarter has selected the layer.
QUICKSTART: dict[str, Any] = {"categories": 10, "items": 18, "frames": 3, "layers": 1, "units": 80}
SMALL: dict[str, Any] = {"categories": 4, "items": 12, "frames": 4, "layers": 1, "units": 40}

Step = Callable[[str], None]


class Rate(NamedTuple):
    """A share with its exact 95 % interval (Clopper & Pearson 1934).

    Attributes
    ----------
    hits, of : int
    low, high : float
    """

    hits: int
    of: int
    low: float
    high: float

    @classmethod
    def of_count(cls, hits: int, of: int) -> "Rate":
        limits = binomtest(hits, of).proportion_ci(0.95, method="exact")
        return cls(hits, of, float(limits.low), float(limits.high))

    @property
    def share(self) -> float:
        return self.hits / self.of


@dataclass(frozen=True)
class Kind:
    """A kind of measure, with a claim about it and the worlds in which it is tried.

    Attributes
    ----------
    measure : str
        ``analysis.variable`` in the registry.
    analysis : Analysis
    smallest_effect : float
    controls : mapping
        With their settings.
    code : str
        What is planted.
    than : float or None
        What the measure is claimed to be less than; None if it is claimed to be more than chance.
    beside : bool
        Whether it compares two models.
    """

    measure: str
    analysis: Analysis
    smallest_effect: float
    controls: dict[str, dict[str, Any]]
    code: Code = "direction"
    than: float | None = None
    beside: bool = False

    WORLDS: ClassVar[str] = "verification.worlds"

    @property
    def made_with(self) -> str:
        """Digest of what decides its rates: its settings, and the code of world, measure, gate."""
        modules = (
            "verification.gate",
            self.WORLDS,
            type(self.analysis).__module__,
            *(f"verification.controls.{control}" for control in self.controls),
        )
        own = [getsource(one) for one in (*type(self).__mro__[:-1], false_findings, planted)]
        return digest([repr(self), SMALL, QUICKSTART, own, sources_digest(modules)])

    def case(self, subject: Subject) -> Case:
        """The claim about a subject."""
        return Case(self.hypothesis, self.analysis, subject, "", False, ())

    @cached_property
    def hypothesis(self) -> Hypothesis:
        return claim(
            measure=self.measure,
            smallest_effect=self.smallest_effect,
            controls=self.controls,
            expect="greater" if self.than is None else "less",
            than="chance" if self.than is None else self.than,
        )

    def planted(self, effect: float, seed: int, **size: Any) -> Subject:
        """A world in which the effect is as large as asked, on average."""
        strength = self.strength(effect, tuple(sorted(size.items())))
        return self.world(np.random.default_rng([seed, 1]), strength, **size)

    def world(self, rng: np.random.Generator, strength: float, **size: Any) -> Subject:
        """A world in which the code has some strength."""
        return world(
            rng, code=self.code, size=strength, correlated=True, beside=self.beside, **size
        )

    def strength(self, effect: float, size: tuple[tuple[str, Any], ...]) -> float:
        """How strong a code must be for an effect, found by halving on many worlds."""
        key = (self.measure, effect, size)
        if key not in _STRENGTHS:
            _STRENGTHS[key] = self._found(effect, dict(size))
        return _STRENGTHS[key]

    def _found(self, effect: float, size: dict[str, Any]) -> float:
        if effect == 0 and self.than is None:
            return 0.0
        low, high = 0.0, 4.0
        # At a limit, what the mean of few worlds is off by would be read as errors of the gate.
        worlds = 24 if self.than is None else 240
        measure = Measure(self.hypothesis, self.analysis, 0, seed=0)
        for _ in range(9):
            middle = (low + high) / 2
            found = [
                measure.effect(
                    self.world(np.random.default_rng([seed, 2]), middle, twins=0, **size)
                )
                for seed in range(worlds)
            ]
            # A stronger code has more of what is claimed to be there, less of what is not.
            if (np.mean(found) < effect) == (self.than is None):
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def empty(self, seed: int) -> tuple[str, Subject]:
        """A world in which the claim is false, and what there is instead."""
        if self.than is not None:
            return "at the limit", self.planted(0.0, seed, **SMALL)
        rng = np.random.default_rng([seed, 0])
        explained = EXPLAINED[seed % len(EXPLAINED)]
        surface = SURFACES[rng.integers(len(SURFACES))]
        known = ("paired", "modules", "shared", "line", "circle")
        of_twins: Code = self.code if self.code in known else "direction"
        codes: dict[str, Code] = {"noise": "none", "surface": surface, "architecture": of_twins}
        return explained, world(
            rng,
            code=codes[explained],
            twin_code=of_twins if explained == "architecture" else "none",
            confound=surface if rng.random() < 0.5 or explained == "surface" else None,
            size=2.0 * rng.random(),
            tails=3.0 if rng.random() < 0.5 else None,
            correlated=rng.random() < 0.5,
            item_spread=rng.choice([0.3, 1.0]),
            beside=self.beside,
            **SMALL,
        )


@dataclass(frozen=True)
class ActingKind(Kind):
    """A kind of measure of what was done."""

    WORLDS: ClassVar[str] = "verification.effect_worlds"

    def world(self, rng: np.random.Generator, strength: float, **size: Any) -> Subject:
        return self._acted(rng, size=strength, **size)

    def _acted(self, rng: np.random.Generator, **settings: Any) -> Subject:
        assert isinstance(self.analysis, Acting)
        settings.pop("units", None)
        return effect_world(rng, self.analysis, **settings)

    def empty(self, seed: int) -> tuple[str, Subject]:
        """A world in which nothing is done, or anything does it, or it is done to twins as well."""
        rng = np.random.default_rng([seed, 0])
        explained = ("noise", "anything", "architecture")[seed % 3]
        size = rng.uniform(0, 0.8)
        planted = {"noise": {}, "anything": {"generic": size}}
        return explained, self._acted(
            rng,
            **planted.get(explained, {explained: size}),
            spread=rng.choice([0.2, 0.6]),
            random=3,
            **SMALL,
        )


@dataclass(frozen=True)
class WiredKind(Kind):
    """A kind of measure of how activity follows wiring."""

    WORLDS: ClassVar[str] = "verification.wired_worlds"

    def world(self, rng: np.random.Generator, strength: float, **size: Any) -> Subject:
        return self._wired(rng, size=strength / 4, **size)

    def _wired(self, rng: np.random.Generator, **settings: Any) -> Subject:
        for name in ("units", "layers"):
            settings.pop(name, None)
        return wired_world(rng, **settings)

    def empty(self, seed: int) -> tuple[str, Subject]:
        """A world in which heads do not follow it, or do by their depth, or do so in twins."""
        rng = np.random.default_rng([seed, 0])
        explained = ("noise", "depth", "architecture")[seed % 3]
        size = rng.uniform(0.2, 0.8) if explained == "architecture" else 0.0
        by_depth = 0.0 if explained == "noise" else rng.uniform(0.3, 1.5)
        return explained, self._wired(rng, size=size, of_twins=size, by_depth=by_depth, **SMALL)


@dataclass(frozen=True)
class NumberedKind(Kind):
    """A kind of measure of numbers that stand in sentences."""

    WORLDS: ClassVar[str] = "verification.numbered_worlds"

    def world(self, rng: np.random.Generator, strength: float, **size: Any) -> Subject:
        size.pop("frames", None)
        return numbered_world(rng, step=strength, **size)

    def empty(self, seed: int) -> tuple[str, Subject]:
        """A world in which nothing breaks, or all things do, or a curve bends, or twins break."""
        rng = np.random.default_rng([seed, 0])
        explained = ("noise", "architecture", "all things", "curve")[seed % 4]
        size = rng.uniform(1.0, 4.0)
        planted: dict[str, dict[str, float]] = {
            "noise": {},
            "architecture": {"step": size, "of_twins": size},
            "all things": {"of_all": size},
            "curve": {"curve": size, "circle": size},
        }
        sizes = {name: value for name, value in SMALL.items() if name != "frames"}
        return explained, numbered_world(rng, **planted[explained], **sizes)


_STRENGTHS: dict[tuple[str, float, tuple[tuple[str, Any], ...]], float] = {}

# As the quickstart registers them.
DECODING: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_labels": {"permutations": 99},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.1, "splits": 10},
}
PROFILE: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.3},
    "shuffled_labels": {"permutations": 39},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.15, "splits": 10},
}
RSA: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_labels": {"permutations": 99},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 10},
}
RANK: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_labels": {"permutations": 99},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 10},
}
GAP: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.1},
    "shuffled_labels": {"permutations": 39},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 10},
}
LOCALISER: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.3},
    "shuffled_labels": {"permutations": 39},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.15, "splits": 10},
}
ACTING: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "random_target": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 10},
}
STRUCTURE: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "rotated_units": {"margin": 0.05, "rotations": 2},
    "split_half": {"margin": 0.05, "splits": 5},
}
WIRING: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_nodes": {"permutations": 99},
    "split_half": {"margin": 0.05, "splits": 10},
}
BREAKS: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_labels": {"permutations": 99},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.02, "splits": 10},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_labels": {"permutations": 39},
    "surface_only": {"margin": 0.05},
    "split_half": {"margin": 0.02, "splits": 5},
}
NUMBERS = NumberLine(SITE, "value", permutations=19)
GRAPHS = Connectome(SITE, nodes=40, densities=(0.15,), splits=1, nulls=0)
LIKENESS: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.1},
    "shuffled_items": {"permutations": 99},
    "beyond_surface": {"margin": 0.05},
    "split_half": {"margin": 0.05, "splits": 5},
}
VECTORS = TuningVectors("base", other="another")
MAP = KnowledgeMap(SITE, "category0", dealings=19, permutations=19)
MAPPED: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.3},
    "random_target": {"margin": 0.3},
    "split_half": {"margin": 0.3, "splits": 10},
}
OVERLAP: dict[str, dict[str, Any]] = {
    "planted_units": {"margin": 0.2, "units": 5, "strength": 2.0},
    "split_half": {"margin": 0.0, "splits": 10},
}
VECTOR = TuningVector(of="base", vector="tuned", category="category0", label="category")


@cache
def kinds() -> Mapping[str, Kind]:
    """Every kind of measure that is calibrated, by the name of what it measures.

    Made when asked for: some analyses need packages of their own, which scans do without.

    Raises
    ------
    ValueError
        If such a package is not installed.
    """
    every = (
        Kind("probe.balanced_accuracy", Probe(SITE, item_folds=4), 0.1, DECODING),
        Kind("probe.auc", Probe(SITE, item_folds=4), 0.1, DECODING),
        Kind("mlp_probe.gap", MlpProbe(SITE, item_folds=3, planted=0.0), 0.2, GAP, "paired"),
        Kind("rank.left", Rank(SITE, limit=1, shuffles=1, item_folds=3), 0.1, RANK),
        Kind("rsa.similarity", Rsa(SITE), 0.1, RSA),
        Kind("rsa.partial", Rsa(SITE), 0.1, RSA),
        Kind("abstraction.ahead", Abstraction(SITE), 0.1, RSA),
        Kind("groupings.by_label", Groupings(SITE, "group"), 0.1, RSA),
        Kind("groupings.rather", Groupings(SITE, "group"), 0.1, RSA),
        Kind("number_line.read", NUMBERS, 0.1, DECODING, "line"),
        Kind("number_line.gain", NUMBERS, 0.05, RSA, "circle"),
        Kind("circularity.closes", Circularity(SITE, "value"), 0.05, RSA, "circle"),
        Kind(
            "fingerprint.nearer", Fingerprint(SITE, edges="correlation", nodes=20, splits=1), 0.1,
            NETWORKS, "paired",
        ),
        NumberedKind(
            "discontinuity.excess", Discontinuity(SITE, "category0", AT), 0.1, BREAKS
        ),
        Kind(
            "localiser.response", Localiser(SITE, "category0 - rest", mask=0.1, splits=10), 0.6,
            LOCALISER,
        ),
        Kind("selectivity.profile", Selectivity(SITE, top=5, splits=10), 0.3, PROFILE, "graded"),
        Kind(
            "selectivity.overlap", Selectivity(SITE, top=5, splits=10), 0.1, OVERLAP, "localist",
            than=0.5,
        ),
        Kind("connectome.modularity", GRAPHS, 0.3, STRUCTURE, "modules"),
        Kind("connectome.small_world", GRAPHS, 0.8, STRUCTURE, "modules"),
        Kind("connectome.rich_club", GRAPHS, 0.15, STRUCTURE, "modules"),
        WiredKind("coupling.coupling", Coupling(SITE, draws=19), 0.1, WIRING),
        Kind("universality.cka", Universality(SITE), 0.2, LIKENESS, "shared", beside=True),
        Kind("universality.rsa", Universality(SITE), 0.2, LIKENESS, "shared", beside=True),
        Kind("universality.neighbours", Universality(SITE), 0.1, LIKENESS, "shared", beside=True),
        Kind("matching.matched", Matching(SITE), 0.1, LIKENESS, "shared", beside=True),
        Kind("transfer.balanced_accuracy", Transfer(SITE), 0.1, DECODING, beside=True),
        ActingKind("ablation.drop_refitted", Ablation(SITE, (0,), later=(1,)), 0.1, ACTING),
        ActingKind("ablation.drop_frozen", Ablation(SITE, (0,), later=(1,)), 0.1, ACTING),
        ActingKind("ablation.divergence", Ablation(SITE, (0,), later=(1,)), 0.1, ACTING),
        ActingKind("ablation.drop_words", Ablation(SITE, (0,), later=(1,)), 0.1, ACTING),
        *(
            ActingKind(f"choices.{name}", Choices(), 0.1, ACTING)
            for name in ("accuracy", "normed", "macro")
        ),
        *(ActingKind(f"replies.{name}", Replies(), 0.1, ACTING) for name in SCORES),
        ActingKind("circuits.alike", Circuits("base"), 0.1, ACTING),
        ActingKind("circuits.reached", Circuits("base"), 0.1, ACTING),
        ActingKind("gates.moved", Gates("base"), 0.1, ACTING),
        ActingKind("gates.unlike", Gates("base"), 0.1, ACTING),
        ActingKind("gates.edited", Gates("base"), 0.1, ACTING),
        ActingKind("gates.opened", Gates("base"), 0.1, ACTING),
        ActingKind("lesion.selective", Lesion("category0", random=3), 0.1, ACTING),
        ActingKind("neurons.drop", Neurons(), 0.1, ACTING),
        ActingKind("neurons.drop_margin", Neurons(), 0.1, ACTING),
        ActingKind("neurons.drop_relative", Neurons(), 0.1, ACTING),
        ActingKind("neurons.drop_beyond_chance", Neurons(), 0.1, ACTING),
        ActingKind("domain_neurons.selective", DomainNeurons(domain="category0"), 0.1, ACTING),
        ActingKind("patching.share", Patching(), 0.1, ACTING),
        ActingKind("paths.share", Paths(), 0.1, ACTING),
        ActingKind("steering.slope", Steering(SITE, (0,)), 0.1, ACTING),
        *(
            ActingKind(f"steering.{name}", Steering(SITE, (0,)), 0.3, MAPPED)
            for name in ("against_dimension", "against_dimension_found")
        ),
        ActingKind("stitching.kept", Stitching(SITE, "donor", (0,)), 0.1, ACTING),
        ActingKind("tuning.advantage", Tuning("category0", (0,)), 0.2, ACTING),
        ActingKind("tuning.spared", Tuning("category0", (0,)), 0.2, ACTING),
        *(
            ActingKind(f"weights.{measure}", VECTORS, 0.1, ACTING)
            for measure in ("excess", "excess_right", "aligned")
        ),
        ActingKind("weight_modules.modularity", WeightModules(), 0.1, ACTING),
        *(
            ActingKind(f"tuning_vector.{name}", VECTOR, 0.1, ACTING)
            for name in TuningVector.measures
        ),
        ActingKind("scaling.slope", Scaling(SITE, (0,)), 0.1, ACTING),
        ActingKind("scaling.whole", Scaling(SITE, (0,)), 0.1, ACTING),
        ActingKind("bus.additivity", Bus(SITE, (0,)), 0.1, ACTING),
        *(
            ActingKind(f"knowledge_map.{lens}_early", MAP, 0.8, MAPPED)
            for lens in ("separation", "saliency", "lesion")
        ),
        ActingKind("saliency.contrast", Saliency("category0", random=3), 0.1, ACTING),
    )  # fmt: skip
    return {kind.measure: kind for kind in every}


@dataclass(frozen=True)
class Tally:
    """What was counted over some simulated studies; the sum of two is that of all of them.

    Attributes
    ----------
    studies : int
    """

    studies: int

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{
                one.name: _together(getattr(self, one.name), getattr(other, one.name))
                for one in fields(self)
            }
        )


Some = TypeVar("Some", bound=Tally)


def _together(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {key: one.get(key, 0) + other.get(key, 0) for key in sorted({*one, *other})}
    return one or other if isinstance(one, str) else one + other


@dataclass(frozen=True)
class FalseFindings(Tally):
    """What the gate said of worlds in which the claim is false.

    Attributes
    ----------
    believed : int
        Studies in which the measure alone, before any control, would have been believed.
    worlds : dict of str to int
        Studies, by what explains the data.
    found : dict of str to int
        Those of them that were supported.
    """

    believed: int
    worlds: dict[str, int]
    found: dict[str, int]

    @property
    def supported(self) -> Rate:
        return Rate.of_count(sum(self.found.values()), self.studies)

    @property
    def significant(self) -> Rate:
        return Rate.of_count(self.believed, self.studies)

    @property
    def by_world(self) -> dict[str, Rate]:
        return {name: Rate.of_count(self.found[name], of) for name, of in self.worlds.items()}


def false_findings(
    kind: Kind, studies: range, *, workers: int = 1, step: Step = lambda what: None
) -> FalseFindings:
    """How often a claim that is false is supported.

    Controls can only take a verdict away from a claim that is significant without them, so they
    are run where it is, until one does.
    """
    tasks = [(kind, seed) for seed in studies]
    return sum_of(
        FalseFindings(1, significant, {explained: 1}, {explained: int(supported)})
        for explained, significant, supported in _done(workers, step, _false, tasks)
    )


def _false(kind: Kind, seed: int) -> tuple[str, bool, bool]:
    explained, subject = kind.empty(seed)
    return explained, *believed(kind.case(subject), seed=seed)


@dataclass(frozen=True)
class Planted(Tally):
    """What the gate said of worlds with an effect of known size.

    Attributes
    ----------
    effects : float
        The sum of what was measured.
    statuses : dict of str to int
        Studies, by what was said.
    """

    effects: float
    statuses: dict[str, int]

    @property
    def measured(self) -> float:
        """The mean over the studies."""
        return self.effects / self.studies

    @property
    def said(self) -> dict[str, Rate]:
        return {name: self.share(name) for name in self.statuses}

    def share(self, status: str) -> Rate:
        """How often that was said."""
        return Rate.of_count(self.statuses.get(status, 0), self.studies)


def planted(
    kind: Kind,
    effect: float,
    studies: range,
    *,
    workers: int = 1,
    step: Step = lambda what: None,
) -> Planted:
    """What is said of an effect of that size, at the number of items of the quickstart."""
    tasks = [(kind, kind.planted(effect, seed, **QUICKSTART), seed) for seed in studies]
    return sum_of(
        Planted(1, one.effect, {one.status: 1}) for one in _done(workers, step, _judged, tasks)
    )


def _judged(kind: Kind, subject: Subject, seed: int) -> Verdict:
    return judge([kind.case(subject)], seed=seed)[0]


@dataclass(frozen=True)
class Caught(Tally):
    """How the gate met one fault.

    Attributes
    ----------
    hits : int
        Studies in which it was caught, for the right reason.
    alarms : int
        Clean twins that were taken for faulty.
    slipped : dict of str to int
        By control: how often the fault would be supported if that control were switched off.
    missed : str
        What was said the first time that it was not caught; empty if it always was.
    alarm : str
        What was said the first time that a clean twin was flagged.
    """

    hits: int
    alarms: int
    slipped: dict[str, int]
    missed: str
    alarm: str

    @property
    def caught(self) -> Rate:
        return Rate.of_count(self.hits, self.studies)

    @property
    def flagged(self) -> Rate:
        return Rate.of_count(self.alarms, self.studies)

    @property
    def slips(self) -> dict[str, Rate]:
        return {name: Rate.of_count(hits, self.studies) for name, hits in self.slipped.items()}


def red_team(
    fault: Fault, studies: range, *, workers: int = 1, step: Step = lambda what: None
) -> Caught:
    """Run a fault and its clean twin, over seeds."""
    return sum_of(
        Caught(
            1,
            one.caught,
            one.flagged,
            dict.fromkeys(one.slips, 1),
            "" if one.caught else one.said,
            one.alarm if one.flagged else "",
        )
        for one in _done(workers, step, _attacked, [(fault.name, seed) for seed in studies])
    )


# Sections of what is written down, with what is counted in each.
SECTIONS: dict[str, type[Tally]] = {
    "faults": Caught, "false": FalseFindings, "planted": Planted, "zero": Planted
}  # fmt: skip


def sum_of(tallies: Iterable[Some]) -> Some:
    """One tally of several; at least one."""
    return reduce(add, tallies)


class _Attack(NamedTuple):
    caught: bool
    said: str
    slips: list[str]
    flagged: bool
    alarm: str


def _attacked(name: str, seed: int) -> _Attack:
    fault = FAULTS[name]
    caught, outcome = fault.caught(seed)
    flagged, clean = fault.flagged(seed)
    return _Attack(
        caught,
        f"{outcome.said}: {outcome.reason}",
        [] if outcome.verdict is None else slips(outcome.verdict),
        flagged,
        f"{clean.said}: {clean.reason}",
    )


def slips(verdict: Verdict) -> list[str]:
    """The controls without any one of which the verdict would be `supported`."""
    if verdict.status not in ("rejected", "invalid") or not significant(verdict):
        return []
    failed = [check.control for check in verdict.checks if not check.passed]
    return failed if len(failed) == 1 else []


def _done(
    workers: int, step: Step, work: Callable[..., Any], tasks: list[tuple[Any, ...]]
) -> list[Any]:
    """Results in the order of the tasks; each is told as it is done."""
    results = []
    for result in in_parallel(workers, work, tasks):
        step("")
        results.append(result)
    return results
