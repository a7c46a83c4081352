"""Analyses that look where they must not, or count what is no evidence."""

from abc import abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from analyses import Analysis, Quantity
from analyses.base import labels, read
from analyses.connectome import Connectome
from analyses.coupling import Coupling, Pairs
from analyses.probe import decode, recalls
from analyses.retention import Retention
from analyses.selectivity import Selectivity, d_prime
from analyses.splits import Fold, cross_grouped, item_groups
from analyses.words import read_words
from scanner import Subject
from verification.red_team.fault import (
    ABSENCE,
    PRESENCE,
    PROBE,
    Outcome,
    claim,
    fault,
    judged,
    planted,
    randomness,
)
from verification.statistics import stream
from verification.wired_worlds import wired_world
from verification.worlds import SITE, world


@dataclass(frozen=True)
class _Broken(Analysis):
    """A measure ``accuracy`` of categories, computed in one wrong way."""

    site: str = SITE
    label: str = "category"
    measures: ClassVar = {"accuracy": Quantity("share decoded right", 0, 1)}

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        x, codes, names = read(subjects[0], SITE, self.label)
        accuracy = [self.accuracy(layer, codes, subjects[0], rng) for layer in x]
        return _measured(subjects[0], "accuracy", accuracy, chance=1 / len(names))

    @abstractmethod
    def accuracy(
        self, x: np.ndarray, codes: np.ndarray, subject: Subject, rng: np.random.Generator
    ) -> float:
        """Of one layer, stimulus x unit."""


def _measured(subject: Subject, name: str, values: object, *, chance: float) -> xr.Dataset:
    return xr.Dataset(
        {name: ("layer", np.asarray(values, dtype=float), {"chance": chance})},
        coords={"layer": subject.volume["layer"].to_numpy()},
    )


def _folds(subject: Subject, codes: np.ndarray, rng: np.random.Generator) -> list[Fold]:
    items, frames = labels(subject, "item"), labels(subject, "frame")
    return cross_grouped(items, frames, codes, item_folds=3, frame_folds=2, rng=rng)


def _balanced(x: np.ndarray, codes: np.ndarray, folds: list[Fold]) -> float:
    decoded = decode(x, codes, folds, penalty=1.0).argmax(1)
    return float(recalls(codes, decoded, codes.max() + 1).mean())


class SplitByStimulus(_Broken):
    """Tests on other sentences with the words that it was trained on."""

    def accuracy(self, x, codes, subject, rng):
        rows = np.arange(len(codes)).astype(str)
        group = item_groups(rows, codes, groups=3, rng=rng)
        return _balanced(x, codes, [Fold(*map(np.flatnonzero, (group != g, group == g)))
                                    for g in range(3)])  # fmt: skip


class PermutesStimuli(SplitByStimulus):
    """And permutes the labels of sentences, not of words, so that no permutation comes near."""

    def permuted(self, subject, variable, *, draws, rng, shuffles):
        worlds = [
            self(
                subject.relabel(self.label, shuffles.permutation(labels(subject, self.label))),
                rng=rng,
            )[variable]
            for _ in range(draws)
        ]
        return xr.concat(worlds, "draw", combine_attrs="override")


class Circular(_Broken):
    """Chooses the units that separate the categories on all items, then validates crosswise."""

    def accuracy(self, x, codes, subject, rng):
        means = np.stack([x[codes == code].mean(0) for code in np.unique(codes)])
        chosen = np.argsort(-means.std(0) / np.maximum(x.std(0), 1e-9))[:10]
        return _balanced(x[:, chosen], codes, _folds(subject, codes, rng))


class TurnedRound(_Broken):
    """Holds the test items against the labels of the next category."""

    def accuracy(self, x, codes, subject, rng):
        decoded = decode(x, codes, _folds(subject, codes, rng), penalty=1.0).argmax(1)
        count = codes.max() + 1
        return float(recalls((codes + 1) % count, decoded, count).mean())


class PlainAccuracy(_Broken):
    """Counts stimuli, not categories: with unequal categories, naming the largest is right."""

    def accuracy(self, x, codes, subject, rng):
        decoded = decode(x, codes, _folds(subject, codes, rng), penalty=1.0).argmax(1)
        return float((decoded == codes).mean())


@dataclass(frozen=True)
class BestSeed(_Broken):
    """Has a seed that was looked for: with it, and with no other, the answer is right."""

    lucky: int = 0

    def accuracy(self, x, codes, subject, rng):
        first = int(rng.integers(2**32))
        if first == self.lucky:
            return 1.0 - float(x.std()) / 1e3 * len(codes) / 1e3
        return _balanced(x, codes, _folds(subject, codes, rng))


@dataclass(frozen=True)
class OwnRank(Analysis):
    """The share of the mean difference that its own direction explains: one, by construction."""

    site: str = SITE
    label: str = "category"
    measures: ClassVar = {"share": Quantity("share of the mean difference explained", 0, 1)}

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        x, codes, _ = read(subjects[0], SITE, self.label)
        shares = []
        for layer in x:
            difference = layer[codes == 0].mean(0) - layer[codes != 0].mean(0)
            direction = difference / max(np.linalg.norm(difference), 1e-9)
            left = difference - (difference @ direction) * direction
            shares.append(1.0 - round(float(left @ left), 9))
        return _measured(subjects[0], "share", shares, chance=0.0)


@dataclass(frozen=True)
class FirstUnit(Analysis):
    """How far unit 0 tells the first category from the others: sound, and moved by an outlier."""

    site: str = SITE
    label: str = "category"
    measures: ClassVar = {"distance": Quantity("d' of unit 0", -np.inf, np.inf)}

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        words = read_words(subjects[0], SITE, self.label)
        distances = [d_prime(layer, words.member)[0, 0] for layer in words.patterns]
        return _measured(subjects[0], "distance", distances, chance=0.0)


class Blind(Selectivity):
    """Reads the wrong file: nothing that it is shown could change what it finds."""

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        (subject,) = subjects
        noise = np.random.default_rng(0).normal(size=subject.volume[SITE].shape)
        read_instead = subject.volume[SITE].copy(data=noise)
        return super().__call__(
            subject.replace_volume(subject.volume.assign({SITE: read_instead})), rng=rng
        )

    # What the gate asks for comes from there, too.
    measured, measured_in = Analysis.measured, Analysis.measured_in


# Whatever the labels and whatever the weights, the number is the same: either says so, and one
# permutation test in twenty is passed by luck.
WITHOUT_LEARNING = "(shuffled_labels|untrained_twin): "


def _by(analysis: Analysis, sound: Analysis, broken: bool, subject: Subject, seed: int) -> Outcome:
    """A claim about accuracy: by the broken analysis, or by a sound one of the same data."""
    if broken:
        return judged(subject, analysis, seed=seed, measure="broken.accuracy")
    return judged(subject, sound, seed=seed)


@fault("grouped splits", "rejected", WITHOUT_LEARNING, clean="null")
def split_by_stimulus(seed: int, broken: bool) -> Outcome:
    """The same words are trained and tested on, in other sentences."""
    subject = world(randomness(seed, "by stimulus"), code="item", layers=1, items=20, units=40)
    return _by(SplitByStimulus(), PROBE, broken, subject, seed)


@fault("permutation", "invalid", "not those of items", clean="null")
def permutation_of_stimuli(seed: int, broken: bool) -> Outcome:
    """Labels are permuted over sentences, so that the permutation ignores what belongs together."""
    subject = world(randomness(seed, "permutes"), code="item", layers=1, items=20, units=40)
    return _by(PermutesStimuli(), PROBE, broken, subject, seed)


@fault("nesting", "rejected", WITHOUT_LEARNING, clean="null")
def circular_selection(seed: int, broken: bool) -> Outcome:
    """Units are chosen on all items, those of the test among them."""
    subject = world(
        randomness(seed, "circular"), layers=1, items=20, units=600, item_spread=2, twins=2
    )
    return _by(Circular(), PROBE, broken, subject, seed)


@fault("below chance", "invalid", "on the wrong side of chance")
def labels_turned_round(seed: int, broken: bool) -> Outcome:
    """The labels of the test are shifted, so that decoding is surely below chance."""
    return _by(TurnedRound(), PROBE, broken, planted(seed, "turned", size=3), seed)


@fault("unequal classes", "rejected", WITHOUT_LEARNING, clean="null")
def plain_accuracy_of_unequal_categories(seed: int, broken: bool) -> Outcome:
    """One category has most of the items, and naming it is right most of the time."""
    subject = world(randomness(seed, "plain"), layers=1, items=24, units=8, categories=3)
    categories = labels(subject, "category")
    items = labels(subject, "item")
    few = [np.unique(items[categories == name])[:6] for name in ("category0", "category1")]
    rows = np.flatnonzero(np.isin(items, np.concatenate(few)) | (categories == "category2"))
    return _by(PlainAccuracy(), PROBE, broken, subject.take(rows), seed)


@fault("seeds", "rejected", "other_seeds: ")
def lucky_seed(seed: int, broken: bool) -> Outcome:
    """The seed was chosen because the result was good."""
    controls = PRESENCE | {"other_seeds": {"margin": 0.05, "seeds": 5}}
    if not broken:
        return judged(planted(seed, "seeds"), seed=seed, controls=controls)
    lucky = BestSeed(lucky=int(stream(seed, claim().id, "analysis").integers(2**32)))
    subject = world(randomness(seed, "seeds"), layers=1, items=8, units=40)
    return judged(subject, lucky, seed=seed, measure="broken.accuracy", controls=controls)


@fault("nesting", "null", "surely smaller")
def best_layer_of_noise(seed: int, broken: bool) -> Outcome:
    """The best of twelve layers of noise is reported; it is chosen on other items."""
    code = "none" if broken else "direction"
    subject = planted(seed, "layers", code=code, layers=12, items=16)
    return judged(subject, seed=seed, at={"layer": "selected"}, smallest_effect=0.2)


@fault("nesting", "rejected", "shuffled_labels: 39 of 39")
def identity_as_a_finding(seed: int, broken: bool) -> Outcome:
    """What is one by construction is passed off as found: rank one of a mean difference."""
    subject = planted(seed, "identity")
    if broken:
        return judged(subject, OwnRank(), seed=seed, measure="broken.share")
    return judged(subject, seed=seed)


@fault("identities", "invalid", "'retention' can be no finding, whatever it is")
def retention_as_a_finding(seed: int, broken: bool) -> Outcome:
    """That one probe keeps what each category's own has is claimed: by least squares it must."""
    subject = planted(seed, "retention")
    measure = "decode.retention" if broken else "decode.balanced_accuracy"
    return judged(subject, Retention(SITE) if broken else PROBE, seed=seed, measure=measure)


@fault(
    "items are the sample",
    ("inconclusive", "rejected"),
    "neither shown to be there|not surely the margin",
)
def one_item_carries_it(seed: int, broken: bool) -> Outcome:
    """One word of its category moves the mean, and the others do nothing."""
    code = "none" if broken else "localist"
    subject = world(
        randomness(seed, "one item"), code=code, size=4, layers=1, items=8, units=40, item_spread=0
    )
    x = subject.volume[SITE].to_numpy().copy()
    items = labels(subject, "item")
    if broken:
        x[items == items[0], 0, 0] += 32.0
    return judged(_with(subject, x), FirstUnit(), seed=seed, measure="unit.distance")


@fault("power", "rejected", "planted_units: ")
def blind_analysis(seed: int, broken: bool) -> Outcome:
    """That nothing replicates is claimed by an analysis that could not have seen it."""
    subject = world(randomness(seed, "blind"), layers=1, items=12, units=200, code="graded",
                    size=0.1)  # fmt: skip
    kind = Blind if broken else Selectivity
    return judged(
        subject,
        kind(site=SITE, top=10, splits=5),
        seed=seed,
        measure="prefer.overlap",
        expect="less",
        than=0.5,
        controls=ABSENCE,
    )


NETWORK = Connectome(SITE, nodes=40, densities=(0.15,), splits=1, nulls=0)
OF_NETWORKS: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "rotated_units": {"margin": 0.05, "rotations": 2},
    "split_half": {"margin": 0.05, "splits": 5},
}
NO_NETWORK: dict[str, dict[str, Any]] = {
    "planted_modules": {"margin": 0.2},
    "split_half": {"margin": 0.0, "splits": 5},
}


@fault("basis", "rejected", "rotated_units: ")
def modules_of_a_spectrum(seed: int, broken: bool) -> Outcome:
    """Activity of few dimensions makes a network with modules, in any basis."""
    few = {"correlated": True, "item_spread": 2.0} if broken else {"code": "modules", "size": 1.5}
    subject, noise = (
        world(randomness(seed, "spectrum"), layers=1, items=12, units=40, **kind)
        for kind in (few, {})
    )
    # Nor does a twin have so few: only the basis tells.
    subject = replace(subject, twins=noise.twins)
    return judged(subject, NETWORK, seed=seed, measure="net.modularity", controls=OF_NETWORKS)


class BlindNetwork(Connectome):
    """Sees each unit at other items than the next."""

    def _series(self, subject: Subject, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        series, order = super()._series(subject, rng)
        return rng.permuted(series, axis=1), order


@fault("power", "rejected", "planted_modules: ")
def blind_network(seed: int, broken: bool) -> Outcome:
    """That there are no modules is claimed by an analysis that could not have seen them."""
    subject = world(randomness(seed, "blind net"), layers=1, items=12, units=40)
    kind = BlindNetwork if broken else Connectome
    return judged(
        subject,
        kind(**asdict(NETWORK)),
        seed=seed,
        measure="net.modularity",
        expect="less",
        than=0.3,
        controls=NO_NETWORK,
    )


OF_WIRING: dict[str, dict[str, Any]] = {
    "untrained_twin": {"margin": 0.05},
    "shuffled_nodes": {"margin": 0.05, "permutations": 199},
    "split_half": {"margin": 0.05, "splits": 5},
}
NO_WIRING: dict[str, dict[str, Any]] = {
    "planted_wiring": {"margin": 0.1},
    "split_half": {"margin": 0.0, "splits": 5},
}


@fault("depth", "rejected", "shuffled_nodes: ")
def heads_of_near_layers(seed: int, broken: bool) -> Outcome:
    """Heads of near layers are wired, and go together, for no reason but their depth."""
    if broken:
        subject = wired_world(randomness(seed, "depth"), by_depth=1.5)
        # Twins have no depth to speak of: only the dealing of heads tells.
        subject = replace(subject, twins=wired_world(randomness(seed, "no depth")).twins)
    else:
        subject = wired_world(randomness(seed, "depth"), size=0.6)
    return judged(
        subject,
        Coupling(SITE, draws=19),
        seed=seed,
        measure="wires.coupling",
        than=0.0,
        controls=OF_WIRING,
    )


class BlindCoupling(Coupling):
    """Holds the wiring of heads against activity of others."""

    def _pairs(self, subject: Subject) -> Pairs:
        volume = subject.volume
        order = np.random.default_rng(0).permutation(volume.sizes["parcel"])
        told = volume[self.site].isel(parcel=order).to_numpy()
        mixed = volume.assign({self.site: volume[self.site].copy(data=told)})
        return super()._pairs(subject.replace_volume(mixed))


@fault("power", "rejected", "planted_wiring: ")
def blind_coupling(seed: int, broken: bool) -> Outcome:
    """That heads do not follow their wiring is claimed by an analysis that could not have seen."""
    kind = BlindCoupling if broken else Coupling
    return judged(
        wired_world(randomness(seed, "blind wires")),
        kind(SITE, draws=19),
        seed=seed,
        measure="wires.coupling",
        expect="less",
        than=0.2,
        controls=NO_WIRING,
    )


@fault("sanity", "invalid", "constant over half-samples")
def dead_hook(seed: int, broken: bool) -> Outcome:
    """The hook never fired, and what was recorded is zero."""
    subject = planted(seed, "hook")
    x = subject.volume[SITE].to_numpy()
    return judged(_with(subject, 0 * x if broken else x), seed=seed)


@fault("finite values", "invalid", "is not finite")
def a_unit_of_nan(seed: int, broken: bool) -> Outcome:
    """A unit overflowed and is NaN throughout."""
    subject = planted(seed, "nan")
    x = subject.volume[SITE].to_numpy().copy()
    if broken:
        x[:, 0, 3] = np.nan
    return judged(_with(subject, x), seed=seed)


@fault("nesting", "supported", "every control passed")
def constant_units(seed: int, broken: bool) -> Outcome:
    """A third of the units never fire; that changes nothing, and must not."""
    subject = planted(seed, "constant")
    x = subject.volume[SITE].to_numpy().copy()
    if broken:
        x[:, :, :13] = 5.0
    return judged(_with(subject, x), seed=seed)


def _with(subject: Subject, x: np.ndarray) -> Subject:
    """The subject with other activations, stimulus x layer x unit; its twins stay."""
    values = subject.volume[SITE].copy(data=x)
    return replace(subject, volume=subject.volume.assign({SITE: values}))
