"""Where a model has what it knows of a domain: four lenses on the same texts, and one map.

After Marinescu et al. (2026). Each text is half of a pair: in the other one another word stands in
the place of the target, and another word is right after it (`analyses.pairs`). Of every item and
layer is told

============ ============================================================================
separation   the silhouette (Rousseeuw 1987) of its pattern among the groups of its domain
rise         the same, less that of the layer before
saliency     the gradient of the answer's surprisal with respect to the weights of the block, and
             to those of its attention and of its MLP
lesion       what the prediction of the answer loses without the block
patching     how much of the way to the answer the other text goes, with this text's stream there
============ ============================================================================

First and last layers are needed for any text, and gradients have a profile of their own. So
saliency, lesions and patches of a domain are held against those of a domain that is everything
else, layer by layer, and separation against that of the same items with their groups dealt out
anew.

Where we differ: silhouettes are those of the full space and not of a plane; no text is generated;
beside the published rule for choosing layers stands one that may choose none (`layer_choice`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from analyses.acting import Acting, behind, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register, vectors
from analyses.layer_choice import (
    Rule,
    agreement,
    beyond_chance,
    largest_rise,
    overlap,
    shifted,
    upper_quarter,
)
from analyses.lesion import LEAST
from analyses.pairs import check_apart, pairs_of, position
from analyses.patching import DECIDED
from analyses.saliency import SLOPED, explained
from analyses.sides import DEALT, sides
from analyses.silhouettes import silhouettes
from analyses.words import averages
from scanner import Live, Pair, Subject, patched, without_each
from scanner.gradients import weight_slopes

# Stimuli of a run.
STIMULI = 8
LENSES = ("separation", "rise", "saliency", "lesion", "patching")
# What is laid over each other: what is there in a layer is there in the next, and is no place.
LAID = ("rise", "saliency", "lesion", "patching")
OF_GROUPS = ("separation", "rise")
# Items on a side of a contrast, of which less is no sample.
FEWEST = 5
RULES: tuple[Rule, ...] = ("null", "paper")
INTERVAL = 0.025, 0.975
EARLY = "by how much larger, in standard deviations over items, {} are for the domains than for "
EARLY += "the rest in the first layer than in the last, by the line through all layers"


@register
@dataclass(frozen=True)
class KnowledgeMap(Acting):
    """Look at domains through four lenses, layer by layer, and lay what they show over each other.

    Attributes
    ----------
    site : str
        The kind of site whose patterns are told apart and patched.
    rest : str
        The domain that all others are held against: text about everything else.
    label : str
        The column of the stimulus table that has the domains.
    group : str
        The column that has the groups within a domain.
    dealings : int
        Of the groups among the items of a domain.
    permutations : int
        Of items between a domain and the rest; draws of intervals, and turns of profiles.
    alpha : float
        That a lens chooses some layer of a domain in which nothing is.
    random : int
        Dealings of domains and rest among the items that measures are held against.
    gradients : bool
        Whether saliency is among the lenses. Rounded weights have none (`scanner.quantised`).
    """

    site: str
    rest: str
    label: str = "category"
    group: str = "group"
    dealings: int = 199
    permutations: int = 999
    alpha: float = 0.05
    random: int = 12
    gradients: bool = True

    measures: ClassVar[Mapping[str, Quantity]] = {
        "separation_early": Quantity(EARLY.format("silhouettes"), -float("inf"), float("inf")),
        "saliency_early": Quantity(
            EARLY.format("gradients of weights"), -float("inf"), float("inf")
        ),
        "lesion_early": Quantity(
            EARLY.format("losses without a block"), -float("inf"), float("inf")
        ),
    }

    def __post_init__(self) -> None:
        if self.dealings < 19 or self.permutations < 19 or self.random < 0:
            raise ValueError("dealings and permutations must be at least 19, random at least 0")
        if not 0 < self.alpha < 1:
            raise ValueError(f"an alpha of {self.alpha:g} is no share between 0 and 1")

    @property
    def moves_weights(self) -> bool:
        return self.gradients

    def identity_at(self, measure: str, layer: int, layers: int) -> str:
        return "of one layer nothing is earlier or later; say `at: {layer: mean}`"

    def passes(self, layers: int) -> float:
        # Gradients: a pass and one back. Lesions and patches: the text as it is, that it is given,
        # and for each layer the blocks behind it.
        return 3 * self.gradients + (1 + behind(layers)) + (2 + behind(layers))

    def runs(self, live: Live, subject: Subject) -> list[tuple[str, range]]:
        """All stimuli for what is told of groups, and some for what is done."""
        if self.rest not in labels(subject, self.label):
            raise AnalysisError(f"knowledge_map: no '{self.rest}' among '{self.label}'")
        pairs_of(live)  # what is wrong with them is said before anything is done
        count = len(live.ids)
        some = (range(one, min(one + STIMULI, count)) for one in range(0, count, STIMULI))
        return [("groups", range(count)), *(("acts", one) for one in some)]

    def act(
        self, live: Live, subject: Subject, run: tuple[str, range], *, rng: np.random.Generator
    ) -> xr.Dataset:
        what, some = run
        return self._groups(live, subject, rng) if what == "groups" else self._acts(live, some)

    def _groups(self, live: Live, subject: Subject, rng: np.random.Generator) -> xr.Dataset:
        """How groups are told apart, and which items are of a domain."""
        kinds_of = ["own", *(DEALT,) * (self.random if live.trained else 0)]
        draws = np.random.default_rng(int(rng.integers(2**32)))
        found = silhouettes(
            vectors(subject, self.site), subject, self.label, self.group, self.dealings, rng=draws
        )
        rest = sides(subject, self.label, self.rest, dealings=len(kinds_of) - 1, rng=rng)
        layers = found.shape[1]
        depth = depths(layers)
        return xr.Dataset(
            {
                "separation": (("stimulus", "layer"), found[:, :, 0]),
                "dealt": (("stimulus", "layer", "draw"), found[:, :, 1:]),
                "inside": (("stimulus", "target"), ~rest),
            },
            coords={
                "stimulus": np.arange(len(found)),
                "layer": np.arange(layers),
                "draw": np.arange(self.dealings),
                "target": np.arange(len(kinds_of)),
                "target_kind": ("target", kinds_of),
                # Its mean over layers is minus the slope on the depth.
                "earliness": ("layer", (0.5 - depth) / np.mean((0.5 - depth) ** 2)),
            },
        )

    def _acts(self, live: Live, some: range) -> xr.Dataset:
        """What gradients, lesions and patches say of some stimuli."""
        pairs = pairs_of(live)
        texts = [live.ids[one] for one in some]
        asked = [
            Pair(
                pairs.clean.ids[one], pairs.corrupt.ids[one], pairs.answers[one],
                [position(pairs.clean, one, "target")],
            )
            for one in some
        ]  # fmt: skip
        kind: Any = self.site
        set_in = patched(live.model, asked, [kind], into="corrupt")
        lost = without_each(live.model, texts, "block")
        dims = "stimulus", "layer"
        return xr.Dataset(
            {
                **(self._slopes(live, some) if self.gradients else {}),
                "lost": (dims, lost),
                "moved": (dims, set_in.difference[:, 0, :, 0] - set_in.base[:, None]),
                "whole": ("stimulus", set_in.donor - set_in.base),
            },
            coords={
                "stimulus": np.array(some),
                "layer": np.arange(live.model.layers),
                "part": list(SLOPED),
                "predicted": ("stimulus", np.ones(len(texts), dtype=int)),
            },
        )

    def _slopes(self, live: Live, some: range) -> dict[str, tuple[Any, np.ndarray]]:
        """Gradients of the answers of some stimuli, by layer and part, and what answers cost."""
        answers = pairs_of(live).answers
        slopes = np.empty((len(some), live.model.layers, len(SLOPED)))
        loss = np.empty(len(some))
        for row, one in enumerate(some):
            text = live.ids[one]
            answer = range(len(text), len(text) + 1)
            loss[row], found = weight_slopes(live.model, [*text, answers[one][0]], answer, SLOPED)
            slopes[row] = found["by_weight"]
        return {"slopes": (("stimulus", "layer", "part"), slopes), "loss": ("stimulus", loss)}

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        volume, lens = subject.volume, variable.removesuffix("_early")
        if lens == "saliency" and not self.gradients:
            raise AnalysisError("knowledge_map: there is no saliency where `gradients` is false")
        items = items_of(subject, self.label)
        inside = values_of(volume, "inside", "target", "stimulus")[own(subject), items.first] > 0.5
        values = _score(volume, lens, items)
        early = effect_size(values, inside) * volume["earliness"].to_numpy()
        return xr.DataArray(
            early, dims="layer", coords={"layer": volume["layer"].to_numpy()},
            attrs={"chance": 0.0},
        )  # fmt: skip

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Lay the lenses over each other.

        Returns
        -------
        xarray.Dataset
            ``separation_early``, ``saliency_early``, ``lesion_early`` (layer): the measures, whose
            mean over layers is told.
            ``lens_contrast`` (lens, category, layer): Student's t of a domain beside the rest, and
            of what is told of groups the z beside dealings of them; NaN where fewer than five items
            decide. ``lens_profile`` (lens, category, layer): the domain alone, the rest among them,
            with ``lens_profile_low`` and ``lens_profile_high``, its 95 % interval over items.
            ``part_contrast`` and ``chosen_part`` (part, category, layer): the contrast of gradients
            of attention and of MLPs alone, and what the rule that may take none takes of it.
            ``chosen_null`` and ``chosen_paper`` (lens, category, layer): what the rules of
            `layer_choice` take, 1 or 0. ``agreed_null`` and ``agreed_paper`` (layer, category): how
            many of the four lenses take a layer.
            ``lens_agreement``, ``lens_agreement_p`` and ``lens_concordance`` (category): Spearman's
            correlation of the contrasts of two lenses, on average, the p of profiles turned round,
            and Kendall's W. ``lens_overlap`` (category): of what they take. ``lens_apart``
            (layer, category): how far lenses are from each other there, as `apart` has it.
            ``centre`` with ``centre_low`` and ``centre_high`` (category, lens): the centre of mass
            of the profile, 0 for the first layer and 1 for the last, with its 95 % interval over
            items. ``lens_decided`` (category): the share of items whose texts are a logit apart.

        Raises
        ------
        AnalysisError
            If a domain has fewer than five items.
        """
        (subject,) = subjects
        volume = subject.volume
        items = items_of(subject, self.label)
        names = np.unique(items.labels)
        domains = [str(name) for name in names if name != self.rest]
        self._check(subject, items, names)
        scores = {lens: _score(volume, lens, items) for lens in LENSES}
        dealt = {lens: _dealt(volume, lens, items) for lens in OF_GROUPS}
        looks = {
            (lens, domain): self._look(scores[lens], dealt.get(lens), items.labels, domain, rng)
            for domain in domains
            for lens in LENSES
        }
        every = [*domains, self.rest]
        profile = np.array(
            [[level(lens, scores[lens][:, items.labels == name]) for name in every]
             for lens in LENSES]
        )  # fmt: skip
        found = {
            **{
                name: self.measured(subject, variable=name, rng=rng)
                for name in self.measures
                if self.gradients or name != "saliency_early"
            },
            **self._laid(looks, profile, domains, rng),
            **(self._parts(volume, items, domains, rng) if self.gradients else {}),
            **self._centres(scores, items, every, rng),
            "lens_decided": ("category", _decided(volume, items, every)),
        }
        names = {"layer": volume["layer"].to_numpy(), "lens": list(LENSES), "category": every}
        if self.gradients:
            names["part"] = list(SLOPED)
        return xr.Dataset(found, coords=names)

    def _parts(
        self, volume: xr.Dataset, items: "Items", domains: list[str], rng: np.random.Generator
    ) -> dict[str, tuple[Any, np.ndarray]]:
        """Gradients of attention and of MLPs, each beside the rest, part x category x layer."""
        contrast = np.full((len(SLOPED), len(domains) + 1, volume.sizes["layer"]), np.nan)
        chosen = np.zeros(contrast.shape)
        for part, (column, name) in product(range(len(SLOPED)), enumerate(domains)):
            values = _sloped(volume, [part], items)
            look = self._look(values, None, items.labels, name, rng)
            contrast[part, column], chosen[part, column] = look
        dims = "part", "category", "layer"
        return {"part_contrast": (dims, contrast), "chosen_part": (dims, chosen)}

    def _laid(
        self,
        looks: Mapping[tuple[str, str], "Look"],
        profile: np.ndarray,
        domains: list[str],
        rng: np.random.Generator,
    ) -> dict[str, tuple[Any, np.ndarray]]:
        """What lenses see, lens x category x layer, what they take, and how far they agree."""
        contrast = np.full(profile.shape, np.nan)
        chosen = {rule: np.zeros(profile.shape) for rule in RULES}
        for (row, lens), (column, name) in product(enumerate(LENSES), enumerate(domains)):
            contrast[row, column] = looks[lens, name].contrast
            chosen["null"][row, column] = looks[lens, name].chosen
            chosen["paper"][row, column] = _by_paper(lens, profile[:, column])
        dims = "lens", "category", "layer"
        found = {"lens_contrast": (dims, contrast), "lens_profile": (dims, profile)}
        laid = [LENSES.index(lens) for lens in LAID]
        for rule in RULES:
            agreed = _with_rest(chosen[rule][laid].sum(0)[: len(domains)])
            found[f"chosen_{rule}"] = dims, chosen[rule]
            found[f"agreed_{rule}"] = ("layer", "category"), agreed.T
        told = [self._agreement(contrast[laid, one], chosen["null"][laid, one] > 0, rng)
                for one in range(len(domains))]  # fmt: skip
        lenses_apart = np.array([apart(one) for one in contrast[laid].swapaxes(0, 1)[:-1]])
        found["lens_apart"] = ("layer", "category"), _with_rest(lenses_apart).T
        for name in Agreed._fields:
            values = [*(getattr(one, name) for one in told), np.nan]
            found[f"lens_{name}"] = "category", np.array(values)
        return found

    def _check(self, subject: Subject, items: "Items", names: np.ndarray) -> None:
        if self.rest not in names or len(names) < 2:
            raise AnalysisError(f"{subject.name}: '{self.rest}' cannot be held against others")
        for name in names:
            count = int((items.labels == name).sum())
            if count < FEWEST:
                raise AnalysisError(
                    f"'{name}' of '{self.label}' has {count} items; {FEWEST} are needed"
                )
        check_apart(subject, np.zeros(1), subject.volume["whole"].to_numpy())

    def _look(
        self,
        scores: np.ndarray,
        dealt: np.ndarray | None,
        of: np.ndarray,
        domain: str,
        rng: np.random.Generator,
    ) -> "Look":
        """A domain through a lens, and by chance."""
        if dealt is not None:
            inside = of == domain
            own_mean, by_chance = scores[:, inside].mean(1), dealt[:, :, inside].mean(2)
            middle, spread = by_chance.mean(0), by_chance.std(0, ddof=1)
            z, drawn = (
                np.divide(one - middle, spread, out=np.zeros_like(one), where=spread > 0)
                for one in (own_mean, by_chance)
            )
            return Look(z, beyond_chance(z, drawn, alpha=self.alpha))
        both = np.isin(of, (domain, self.rest)) & np.isfinite(scores).all(0)
        inside, values = (of == domain)[both], scores[:, both]
        if min(inside.sum(), (~inside).sum()) < FEWEST:
            return Look(np.full(len(scores), np.nan), np.zeros(len(scores), dtype=bool))
        orders = np.array([rng.permutation(inside) for _ in range(self.permutations)])
        t = student_t(values, np.vstack([inside, orders]))
        return Look(t[0], beyond_chance(t[0], t[1:], alpha=self.alpha))

    def _agreement(
        self, contrasts: np.ndarray, chosen: np.ndarray, rng: np.random.Generator
    ) -> "Agreed":
        """Of lenses that see something at all."""
        seen = np.isfinite(contrasts).all(1)
        if seen.sum() < 2:
            return Agreed(np.nan, np.nan, np.nan, np.nan)
        found = float(agreement(contrasts[seen]))
        turned = agreement(shifted(contrasts[seen], draws=self.permutations, rng=rng))
        count = int(seen.sum())
        p = float((1 + (turned >= found - 1e-12).sum()) / (1 + len(turned)))
        return Agreed(found, p, (1 + (count - 1) * found) / count, overlap(chosen[seen]))

    def _centres(
        self,
        scores: Mapping[str, np.ndarray],
        items: "Items",
        names: list[str],
        rng: np.random.Generator,
    ) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """The centre of mass of each profile, and the profile itself, with their intervals.

        By bootstrap over items.
        """
        found = np.full((3, len(names), len(LENSES)), np.nan)
        layers = len(scores[LENSES[0]])
        limits = np.full((2, len(LENSES), len(names), layers), np.nan)
        for row, name in enumerate(names):
            inside = np.flatnonzero(items.labels == name)
            again = inside[rng.integers(len(inside), size=(self.permutations, len(inside)))]
            for column, lens in enumerate(LENSES):
                values = scores[lens]
                found[0, row, column] = centre(level(lens, values[:, inside]))
                profiles = np.array([level(lens, values[:, one]) for one in again])
                drawn = np.array([centre(one) for one in profiles])
                if np.isfinite(drawn).any():
                    found[1:, row, column] = np.nanquantile(drawn, INTERVAL)
                told = profiles[np.isfinite(profiles).all(1)]
                if len(told):
                    limits[:, column, row] = np.quantile(told, INTERVAL, axis=0)
        dims, of_lenses = ("category", "lens"), ("lens", "category", "layer")
        return {
            **{f"centre{end}": (dims, values)
               for end, values in zip(("", "_low", "_high"), found, strict=True)},
            "lens_profile_low": (of_lenses, limits[0]),
            "lens_profile_high": (of_lenses, limits[1]),
        }  # fmt: skip


class Look(NamedTuple):
    """A domain through a lens: layer, and whether each exceeds what chance reaches."""

    contrast: np.ndarray
    chosen: np.ndarray


class Agreed(NamedTuple):
    """How far lenses agree; see `KnowledgeMap.__call__`."""

    agreement: float
    agreement_p: float
    concordance: float
    overlap: float


class Items(NamedTuple):
    """Items of a subject: a stimulus of each, of each stimulus its item, and the domains."""

    first: np.ndarray
    which: np.ndarray
    labels: np.ndarray


def items_of(subject: Subject, label: str) -> Items:
    """The items of a subject with their domains, by name."""
    _, first, which = np.unique(labels(subject, "item"), return_index=True, return_inverse=True)
    return Items(first, which, labels(subject, label)[first])


def depths(layers: int) -> np.ndarray:
    """Of each layer, 0 for the first to 1 for the last."""
    return np.linspace(0, 1, layers) if layers > 1 else np.zeros(1)


def effect_size(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """By how many standard deviations some items exceed the others (Cohen 1988), layer.

    Parameters
    ----------
    values : numpy.ndarray
        layer x item.
    inside : numpy.ndarray
        item, bool.
    """
    if inside.all() or not inside.any():
        return np.zeros(len(values))
    weight = np.sqrt(1 / inside.sum() + 1 / (~inside).sum())
    return student_t(values, inside[None])[0] * weight


def student_t(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Of some items beside the others, in several groupings: grouping x layer.

    Parameters
    ----------
    values : numpy.ndarray
        layer x item.
    groups : numpy.ndarray
        grouping x item, bool.
    """
    count = groups.sum(1)[:, None]
    rest = groups.shape[1] - count
    centred = values - values.mean(1, keepdims=True)
    total = groups @ centred.T
    apart = total / count + total / rest
    within = (centred**2).sum(1) - total**2 / count - total**2 / rest
    error = np.sqrt(np.maximum(within, 0) / (groups.shape[1] - 2) * (1 / count + 1 / rest))
    return np.divide(apart, error, out=np.zeros_like(apart), where=error > 0)


def level(lens: str, scores: np.ndarray) -> np.ndarray:
    """The profile of some items, layer, in units of the lens: what is logarithms is no more.

    Parameters
    ----------
    lens : str
    scores : numpy.ndarray
        layer x item.
    """
    if lens == "patching":
        scores = scores[:, np.isfinite(scores).all(0)]
        return scores.mean(1) if scores.shape[1] else np.full(len(scores), np.nan)
    means = scores.mean(1)
    return np.exp(means) if lens in ("saliency", "lesion") else means


def centre(profile: np.ndarray) -> float:
    """The centre of mass of what is above 0, from 0 for the first layer to 1 for the last."""
    above = np.maximum(profile, 0)
    whole = above.sum()
    return float(depths(len(profile)) @ above / whole) if whole > 0 else float("nan")


def apart(contrasts: np.ndarray) -> np.ndarray:
    """How far lenses are from each other in a layer: between its lowest and highest rank, layer.

    Parameters
    ----------
    contrasts : numpy.ndarray
        lens x layer; NaN where a lens sees nothing.

    Returns
    -------
    numpy.ndarray
        As a share of all ranks: 0 where every lens gives a layer the same place among the others, 1
        where it is first for one and last for another. Of lenses that know nothing of each other it
        is 0.6 on average where they are four. NaN of fewer than two.
    """
    seen = contrasts[np.isfinite(contrasts).all(1)]
    if len(seen) < 2:
        return np.full(contrasts.shape[1], np.nan)
    return np.ptp(rankdata(seen, axis=1), axis=0) / max(contrasts.shape[1] - 1, 1)


def _score(volume: xr.Dataset, lens: str, items: Items) -> np.ndarray:
    """What a lens tells of each item: layer x item, NaN where it tells nothing."""
    if lens in OF_GROUPS:
        apart = values_of(volume, "separation", "layer", "stimulus").astype(float)
        # Beside what the same grouping gives by chance, which depends on how many groups there are.
        apart = apart - values_of(volume, "dealt", "draw", "layer", "stimulus").mean(0)
        return _risen(_by_item(apart, items)) if lens == "rise" else _by_item(apart, items)
    if lens == "patching":
        moved, whole = (
            _by_item(values_of(volume, name, *dims).astype(float), items)
            for name, dims in (("moved", ("layer", "stimulus")), ("whole", ("stimulus",)))
        )
        return moved / np.where(np.abs(whole) < DECIDED, np.nan, whole)
    if lens == "saliency":
        return _sloped(volume, range(len(SLOPED)), items)
    lost = values_of(volume, "lost", "layer", "stimulus").astype(float)
    return _by_item(np.log(np.maximum(lost, LEAST)), items)


def _sloped(volume: xr.Dataset, parts: Sequence[int], items: Items) -> np.ndarray:
    """Gradients of some parts of each block, in logarithms, with what costs explain taken out.

    Layer x item; NaN where none were asked for.
    """
    if "slopes" not in volume:
        return np.full((volume.sizes["layer"], len(items.labels)), np.nan)
    of_parts = values_of(volume, "slopes", "part", "layer", "stimulus").astype(float)
    values = np.log(np.maximum(of_parts[list(parts)].mean(0), np.finfo(float).tiny))
    return _by_item(values - explained(volume, values), items)


def _dealt(volume: xr.Dataset, lens: str, items: Items) -> np.ndarray:
    """What the lens would tell of each item with the groups dealt out anew: draw x layer x item."""
    apart = values_of(volume, "dealt", "draw", "layer", "stimulus").astype(float)
    apart = _by_item(apart - apart.mean(0), items)
    return _risen(apart) if lens == "rise" else apart


def _risen(values: np.ndarray) -> np.ndarray:
    """... x layer x item, less the layer before; of the first nothing is known, and it is 0."""
    return np.diff(values, axis=-2, prepend=values[..., :1, :])


def _by_item(values: np.ndarray, items: Items) -> np.ndarray:
    """... x stimulus to ... x item: the mean over the frames of an item."""
    return values @ averages(items.which).T


def _by_paper(lens: str, profiles: np.ndarray) -> np.ndarray:
    """The published rule, of lens x layer."""
    profile = profiles[LENSES.index("separation" if lens == "rise" else lens)]
    if not np.isfinite(profile).all():
        return np.zeros(len(profile), dtype=bool)
    return largest_rise(profile) if lens in OF_GROUPS else upper_quarter(profile)


def _decided(volume: xr.Dataset, items: Items, names: list[str]) -> np.ndarray:
    whole = _by_item(values_of(volume, "whole", "stimulus").astype(float), items)
    return np.array([(np.abs(whole[items.labels == name]) >= DECIDED).mean() for name in names])


def _with_rest(values: np.ndarray) -> np.ndarray:
    """Of the domain that others are held against nothing is chosen."""
    return np.vstack([values, np.full(values.shape[1], np.nan)])
