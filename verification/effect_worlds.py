"""Worlds in which something was done, and it is known what it did.

As `verification.worlds`, for analyses that act: what is planted is not activations but effects, of
what a claim is about, of what is random, and of what was done to twins.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy.stats import norm

from analyses.ablation import Ablation
from analyses.acting import ANSWERS, RANDOM, Acting
from analyses.bus import Bus
from analyses.choices import Choices, answered
from analyses.circuits import Circuits
from analyses.domain_neurons import DomainNeurons
from analyses.gates import NORMAL, OWN, Gates
from analyses.knowledge_map import KnowledgeMap
from analyses.lesion import Lesion
from analyses.neurons import TEXTS, Neurons
from analyses.patching import Patching
from analyses.paths import Paths
from analyses.replies import SCORES, Replies
from analyses.saliency import Saliency
from analyses.scaling import Scaling
from analyses.steering import Steering
from analyses.stitching import Stitching
from analyses.tuning import Tuning
from analyses.tuning_vector import FORMATS, KEPT, TAUGHT, WRONG, TuningVector
from analyses.weight_modules import WeightModules
from analyses.weights import TuningVectors
from scanner import Subject
from scanner.components import MATRICES
from verification.worlds import SITE, world

# How far the scores of a category lie from those of others, in standard deviations.
APART = 2.0
FOLDS = 2


def effect_world(
    rng: np.random.Generator,
    analysis: Acting,
    *,
    size: float = 0.0,
    generic: float = 0.0,
    architecture: float = 0.0,
    categories: int = 4,
    items: int = 12,
    frames: int = 3,
    layers: int = 1,
    random: int = 2,
    spread: float = 0.3,
    twins: int = 2,
) -> Subject:
    """Make the effects of a subject and of its twins.

    Parameters
    ----------
    rng : numpy.random.Generator
    analysis : Acting
    size : float
        The effect of what the claim is about, beyond that of anything else: 1 is large.
    generic : float
        The effect of anything that is done.
    architecture : float
        The effect that twins have, too.
    categories, items, frames, layers : int
        How many; items in each category.
    random : int
        Targets at random of each kind.
    spread : float
        Of effects over items, and over stimuli.
    twins : int
    """
    bare = world(
        rng, categories=categories, items=items, frames=frames, layers=layers, units=1, twins=twins
    )
    _, which = np.unique(bare.volume["item"].to_numpy(), return_inverse=True)

    def done(volume: xr.Dataset, kinds: list[str], sizes: list[float]) -> xr.Dataset:
        shape = len(which), layers, len(kinds)
        effects = np.array(sizes) + spread * rng.normal(size=shape)
        effects += spread * rng.normal(size=(which.max() + 1, *shape[1:]))[which]
        labels = volume.drop_vars([SITE, "unit"]).assign_coords(
            target=np.arange(len(kinds)), target_kind=("target", kinds)
        )
        return PLANTING[type(analysis)](labels, effects, analysis, rng)

    kinds = ["own", "known", *(kind for kind in RANDOM for _ in range(random))]
    sizes = [size + generic + architecture, 3.0, *(generic,) * (len(kinds) - 2)]
    return Subject(
        bare.name,
        done(bare.volume, kinds, sizes),
        {seed: done(twin, ["own"], [architecture]) for seed, twin in bare.twins.items()},
    )


def _steered(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 makes the words of a category likelier by a nat for each dose.

    By more of a category whose items lie in few dimensions, and by less of one of many.
    """
    assert isinstance(analysis, Steering)
    doses = np.array(analysis.doses)
    _, code = np.unique(labels["category"].to_numpy().astype(str), return_inverse=True)
    order = rng.permutation(1 + code.max())[code] / code.max()  # 0 to 1
    shift = (effects * (1.5 - order)[:, None, None])[..., None] * doses
    dims = ("stimulus", "layer", "target", "dose")
    dimension = np.tile((1 + 4 * order)[:, None], (1, shift.shape[1]))
    return labels.assign(
        shift=(dims, shift), divergence=(dims, 0.01 * shift**2)
    ).assign_coords(
        dose=doses, dimension=(dims[:2], dimension), dimension_found=(dims[:2], dimension)
    )  # fmt: skip


def _added(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 is all of what the network makes of a vector that is added at once."""
    assert isinstance(analysis, Bus)
    sizes = np.array(analysis.sizes)
    one = np.exp(0.3 * rng.normal(size=effects.shape))[..., None] * sizes**2
    missed = np.maximum(1 - effects.mean(0), 0) + 0.1 * np.abs(effects - effects.mean(0))
    along = 3 * np.broadcast_to(sizes, one.shape)
    found = {
        "apart": missed[..., None] ** 2 * one, "one": one, "many": one, "along_one": along,
        "along_many": along,
    }  # fmt: skip
    dims = ("stimulus", "layer", "target", "size", "read")
    return labels.assign({name: (dims, values[..., None]) for name, values in found.items()}
    ).assign_coords(size=sizes, read=[labels.sizes["layer"] + analysis.blocks])  # fmt: skip


def _of_sides(
    labels: xr.Dataset, effects: np.ndarray, chosen: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What was chosen and dealings of it (stimulus x target), and what they add (stimulus x layer).

    `chosen` is bool, by stimulus, and the same for all of an item.
    """
    targets = effects.shape[2]
    _, first, which = np.unique(
        labels["item"].to_numpy().astype(str), return_index=True, return_inverse=True
    )
    own = chosen[first]
    dealt = [rng.permutation(own) for _ in range(targets - 1)]
    inside = np.stack([own, *dealt], axis=1)[which]
    # Of dealings what they do on average; the second target is what is known, and stands for none.
    effects = np.where(np.arange(targets) == 0, effects, effects.mean(0))
    every = [one for one in range(targets) if one != 1]
    return inside, (effects * inside[:, None, :])[..., every].sum(2)


def _cut(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 makes the loss of a target's stimuli larger by a factor of e."""
    assert isinstance(analysis, Lesion)
    chosen = labels[analysis.label].to_numpy().astype(str) == analysis.category
    inside, done = _of_sides(labels, effects, chosen, rng)
    parts = len(analysis.parts)
    lost = np.exp(done[..., None] + 0.1 * rng.normal(size=(*done.shape, parts)) - 1)
    dims = ("stimulus", "layer", "part")
    return labels.assign(
        divergence=(dims, lost), surprisal=(dims, lost / 2), inside=(("stimulus", "target"), inside)
    ).assign_coords(part=list(analysis.parts))


def _sloped(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 makes slopes of a target's stimuli larger by a factor of e."""
    assert isinstance(analysis, Saliency)
    chosen = labels[analysis.label].to_numpy().astype(str) == analysis.category
    inside, done = _of_sides(labels, effects, chosen, rng)
    count, layers = done.shape
    sizes = done[..., None] + 0.1 * rng.normal(size=(count, layers, 2))
    slopes = {
        name: (("stimulus", "layer", "part"), np.exp(sizes))
        for name in ("magnitude", "by_weight", "fisher")
    }
    return labels.assign(slopes).assign(
        inside=(("stimulus", "target"), inside),
        inputs=(("stimulus", "offset"), rng.normal(size=(count, analysis.before))),
        loss=("stimulus", np.exp(0.2 * rng.normal(size=count))),
        missed=("stimulus", 0.01 * rng.normal(size=count)),
    ).assign_coords(
        part=["attention", "mlp"],
        offset=np.arange(-analysis.before, 0),
        predicted=("stimulus", rng.integers(1, 3, size=count)),
        reached=("stimulus", np.full(count, analysis.before)),
    )  # fmt: skip


def _mapped(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 lets a target's items exceed the rest by three standard deviations, early."""
    assert isinstance(analysis, KnowledgeMap)
    chosen = labels[analysis.label].to_numpy().astype(str) != analysis.rest
    inside, done = _of_sides(labels, effects, chosen, rng)
    _, which = np.unique(labels["item"].to_numpy(), return_inverse=True)

    def seen() -> np.ndarray:
        return 3 * done + rng.normal(size=(which.max() + 1, done.shape[1]))[which]

    dims, dealt = ("stimulus", "layer"), rng.normal(size=(*done.shape, analysis.dealings))
    of_stimuli = {
        "whole": 4 + 0.5 * rng.normal(size=len(done)), "loss": np.exp(rng.normal(size=len(done)))
    }  # fmt: skip
    return labels.assign(
        {
            "separation": (dims, 0.1 * seen()),
            "dealt": ((*dims, "draw"), 0.1 * dealt),
            "inside": (("stimulus", "target"), inside),
            # Attention and MLP alike.
            "slopes": ((*dims, "part"), np.repeat(np.exp(seen())[..., None], 2, axis=2)),
            "lost": (dims, np.exp(seen())),
            "moved": (dims, seen() * of_stimuli["whole"][:, None]),
            **{name: ("stimulus", values) for name, values in of_stimuli.items()},
        }
    ).assign_coords(
        draw=np.arange(analysis.dealings),
        earliness=("layer", np.ones(done.shape[1])),
        predicted=("stimulus", np.ones(len(done), dtype=int)),
    )  # fmt: skip


def _scaled(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 makes the words of a category likelier by a nat for each time more."""
    assert isinstance(analysis, Scaling)
    shift = effects[..., None] * (np.array(analysis.factors) - 1)
    whole = np.maximum(effects, 0)[..., None] * np.ones(len(analysis.factors))
    dims = ("stimulus", "layer", "target", "factor")
    found = {"shift": shift, "divergence": 0.01 * shift**2, "whole": whole, "direct": 0.1 * shift}
    return labels.assign(
        {name: (dims, values) for name, values in found.items()}
    ).assign_coords(factor=list(analysis.factors))  # fmt: skip


def _on_the_way(
    labels: xr.Dataset, effects: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, xr.Dataset]:
    """How far the right answer is ahead after effects, and in the two texts of each pair."""
    base, donor = (side + 0.3 * rng.normal(size=len(effects)) for side in (-2, 2))
    made = base[:, None, None] + effects * (donor - base)[:, None, None]
    return made, labels.assign(base=("stimulus", base), donor=("stimulus", donor))


def _patched(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 goes all the way from one answer to the other."""
    assert isinstance(analysis, Patching)
    patched, labels = _on_the_way(labels, effects, rng)
    shape = len(effects), len(analysis.sites), effects.shape[1], len(analysis.places)
    every = np.broadcast_to(patched[:, None, :, :1], shape)
    return labels.assign(
        patched=(("stimulus", "layer", "target"), patched),
        every=(("stimulus", "kind", "layer", "place"), every),
        estimated=(("stimulus", "kind", "layer", "place"), every),
    ).assign_coords(kind=list(analysis.sites), place=list(analysis.places))


def _sent(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 goes all the way from one answer to the other on the path."""
    assert isinstance(analysis, Paths)
    sent, labels = _on_the_way(labels, effects, rng)
    return labels.assign(sent=(("stimulus", "layer", "target"), sent))


def _taught(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 is a nat that is gained in the domain, and one that is not lost elsewhere."""
    assert isinstance(analysis, Tuning)
    kinds = labels["target_kind"].to_numpy()
    drawn = np.flatnonzero(np.isin(kinds, RANDOM))
    beside = effects[..., drawn]
    if not len(drawn):  # of a twin, in which other layers learn nothing
        drawn = np.arange(1, 1 + analysis.random)
        beside = 0.1 * rng.normal(size=(*effects.shape[:2], len(drawn)))
    mean, told = effects.mean(0), ("layer", "target")
    return labels.assign(
        gain=(("stimulus", "layer", "target"), effects),
        beside=(("stimulus", "layer", "draw"), beside),
    ).assign_coords(
        draw=drawn,
        intact=("stimulus", np.full(len(effects), 4.0)),
        tuned=("target", [str(one) for one in range(len(kinds))]),
        learnt=(told, mean + 1),
        neutral_divergence=(told, np.full_like(mean, 0.02)),
        neutral_surprisal=(told, np.full_like(mean, 0.01)),
    )


def _moved(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 makes answers likelier by as much as wrong options vary, taught or not."""
    assert isinstance(analysis, TuningVector)
    # By frame, so that as many items tell the one and the other; of a real set, other items do.
    _, which = np.unique(labels["frame"].to_numpy().astype(str), return_inverse=True)
    dims, count = ("stimulus", "layer", "target"), labels.sizes["target"]
    signed = np.sign(analysis.strengths[0]) * effects
    before = rng.normal(size=(effects.shape[0], 1, 1, len(WRONG)))
    ahead = {"intact_": np.broadcast_to(before, (*effects.shape, len(WRONG))),
             "": before + signed[..., None]}  # fmt: skip
    cost = {"intact_": np.full_like(effects, 3.0), "": 3.0 - signed}
    return labels.assign(
        {
            f"{when}{name}": (dims, values)
            for when in ahead
            for name, values in (
                ("beaten", (ahead[when] > 0).mean(-1)), ("ahead", ahead[when].min(-1)),
                ("cost", cost[when]),
            )
        }
    ).assign_coords(
        known=("stimulus", np.where(which % 2, TAUGHT, KEPT)),
        moved_by=("target", [analysis.vector] * count),
        strength=("target", [analysis.strengths[0]] * count),
        asked_in=("target", [FORMATS[0]] * count),
        neutral_surprisal=(("layer", "target"), np.abs(effects.mean(0)) / 10),
    )  # fmt: skip


def _stitched(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 leaves predictions where they were."""
    assert isinstance(analysis, Stitching)
    without = np.exp(0.3 * rng.normal(size=effects.shape[:2]))
    dims = ("layer", "stimulus")
    spread = np.exp(0.1 * rng.normal(size=without.T.shape))
    return labels.assign(
        # Of a few stimuli a map may make less than nothing of the loss: that is what is planted.
        divergence=(("stimulus", "layer", "target"), (1 - effects) * without[..., None]),
        without=(("stimulus", "layer"), without),
    ).assign_coords(
        donor_layer=(dims, np.full(spread.shape, 1.0)),
        missed=(dims, 0.5 * spread), spread=(dims, spread),
    )  # fmt: skip


def _changed(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 is a change that lies inside, and goes where the other one does."""
    assert isinstance(analysis, TuningVectors)
    _, which = np.unique(labels["item"].to_numpy(), return_inverse=True)
    count = len(which)
    # Components differ in what chance gives; a claim is about what is beyond it.
    chance = {name: rng.uniform(0.2, 0.8, size=which.max() + 1)[which]
              for name in ("chance", "chance_right")}  # fmt: skip
    dims = ("stimulus", "layer", "target")
    inside = {
        "inside" + name.removeprefix("chance"): (
            dims, one[:, None, None] + (1 - one[:, None, None]) * effects
        )
        for name, one in chance.items()
    }  # fmt: skip
    beside = {"kept": np.full(count, 50.0), "size": rng.uniform(0.01, 0.02, size=count),
              "cosine": np.full(count, 0.9998), "floor": np.full(count, 0.0017),
              "directions": rng.uniform(10, 20, size=count), "zeros": np.full(count, 0.1),
              "effective_rank": rng.uniform(10, 20, size=count),
              "spectral_inside": np.ones(count), "spectral_outside": np.ones(count),
              "noise": chance["chance"], "changed": rng.uniform(1, 2, size=count),
              "squares": np.full(count, 1e4), "along": np.zeros(count),
              "spread": np.full(count, 0.01), "product": effects[:, 0, 0],
              "product_dealt": np.zeros(count), "product_spread": np.full(count, 0.1),
              "other_changed": np.ones(count)}  # fmt: skip
    return labels.assign(
        {**inside, "agreed": (dims, effects), "agreed_dealt": (dims, np.zeros(effects.shape))}
    ).assign_coords(
        {name: ("stimulus", one) for name, one in {"depth": which % 12, **beside, **chance}.items()}
    )


def _joined(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 is a modularity of 1, beyond what the same weights have elsewhere."""
    assert isinstance(analysis, WeightModules)
    count = len(effects)
    dealt = np.full(count, 0.1)
    beside = {"dealt": dealt, "size": rng.uniform(0.005, 0.006, size=count),
              "loss": np.full(count, 1.7), "depth": np.arange(count) % 12,
              "component": np.array(MATRICES)[np.arange(count) % len(MATRICES)]}  # fmt: skip
    return labels.assign(
        modularity=(("stimulus", "layer", "target"), dealt[:, None, None] + effects)
    ).assign_coords({name: ("stimulus", one) for name, one in beside.items()})


def _opened(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 opens all gates that are shut, and as many more: the base has 3 in 10 open."""
    assert isinstance(analysis, Gates)
    open_, mean = np.full(effects.shape, 0.3), effects.mean(0)
    # Of a few items fewer than none may differ: that is what is planted.
    by_text = {
        "differ": effects, "edit": effects, "open_base": open_, "open": open_ + effects,
        "loud_base": open_, "loud": open_ + effects,
    }  # fmt: skip
    patterns = [f"{name}_{way}" for name in ("differ", "edit") for way in ("average", "mostly")]
    names = [OWN if kind == "own" else NORMAL for kind in labels["target_kind"].to_numpy()]
    by_layer = {
        "phi": 1 - mean, "expected": np.full_like(mean, 0.42), **dict.fromkeys(patterns, mean)
    }  # fmt: skip
    return labels.assign(
        {name: (("stimulus", "layer", "target"), values) for name, values in by_text.items()}
    ).assign_coords({
        "named": ("target", names),
        "tokens_counted": ("stimulus", np.full(len(effects), 10)),
        "changed": ("target", np.full(len(names), 0.01)),
        **{name: (("layer", "target"), values) for name, values in by_layer.items()},
    })  # fmt: skip


def _alike(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 is a map that is the same, from item to item as well as it is told."""
    assert isinstance(analysis, Circuits)
    cells = 24, len(analysis.sites), len(analysis.places)
    own, count = rng.normal(size=cells), len(effects)
    share = np.clip(effects.mean((0, 1)), -1, 1)
    base = [part * own + np.sqrt(1 - part**2) * rng.normal(size=cells) for part in share]
    ways = 2 + 0.3 * rng.random(size=(2, count))

    def told(pattern: np.ndarray, way: np.ndarray) -> np.ndarray:
        """Of each pair: stimulus x layer x cells."""
        noise = 0.5 * rng.normal(size=(count, 1, *cells))
        return (pattern + noise) * way[:, None, None, None, None]

    dims = ("stimulus", "layer", "block", "kind", "place")
    return labels.isel(layer=[0]).assign_coords(layer=[0]).assign(
        mine=(dims, told(own, ways[0])),
        theirs=((*dims, "target"), np.stack([told(one, ways[1]) for one in base], axis=-1)),
    ).assign_coords(
        block=np.arange(cells[0]), kind=list(analysis.sites), place=analysis.places,
        mine_way=("stimulus", ways[0]),
        theirs_way=(("stimulus", "target"), np.repeat(ways[1][:, None], len(base), axis=1)),
        mine_agrees=("kind", np.full(cells[1], 0.9)),
        theirs_agrees=("kind", np.full(cells[1], 0.9)),
        least=("layer", [analysis.decided]),
    )  # fmt: skip


def _silenced(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 turns every answer that is right; nine of ten are."""
    assert isinstance(analysis, Neurons)
    right = 0.9
    _, which = np.unique(labels["item"].to_numpy(), return_inverse=True)
    shape = (len(TEXTS), *effects.shape)

    def luck() -> np.ndarray:
        """Even over 0 to 1, and alike within an item."""
        of_items = rng.normal(size=(len(TEXTS), which.max() + 1, *effects.shape[1:]))[:, which]
        return norm.cdf((of_items + rng.normal(size=shape)) / np.sqrt(2))

    intact = luck()[..., :1, :1] < right
    turned, mended = effects.mean(0) / right, -effects.mean(0) / (1 - right)
    answered = np.where(intact, luck() >= turned, luck() < mended)
    dims = ("stimulus", "layer", "target")
    count = effects.shape[2]
    return labels.assign(
        {name: (dims, one - 0.5) for name, one in zip(TEXTS, answered, strict=True)}
    ).assign_coords(
        {f"intact_{name}": ("stimulus", one[:, 0, 0] - 0.5)
         for name, one in zip(TEXTS, intact, strict=True)}
    ).assign_coords(
        by=("target", [analysis.by] * count), share=("target", [analysis.shares[0]] * count)
    )  # fmt: skip


def _silenced_apart(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 turns every answer of the domain that is right, and none of the others."""
    assert isinstance(analysis, DomainNeurons)
    inside = labels[analysis.label].to_numpy().astype(str) == analysis.domain
    parts = [
        _silenced(labels.isel(stimulus=rows), effects[rows] * share, analysis, rng)
        for rows, share in ((np.flatnonzero(inside), 1), (np.flatnonzero(~inside), 0))
    ]
    whole = xr.concat(parts, "stimulus", data_vars="minimal", coords="minimal")
    return whole.isel(stimulus=np.argsort(np.argsort(~inside, kind="stable"), kind="stable"))


def _lucky(
    labels: xr.Dataset, effects: np.ndarray, luck: float, rng: np.random.Generator
) -> np.ndarray:
    """How far each question is on the right side (above 0), alike within an item.

    With an effect of 0 as many are as by luck, with one of 1 all.
    """
    _, which = np.unique(labels["item"].to_numpy(), return_inverse=True)
    drawn = rng.normal(size=(which.max() + 1, *effects.shape[1:]))[which]
    even = norm.cdf((drawn + rng.normal(size=effects.shape)) / np.sqrt(2))
    return luck + (1 - luck) * effects.mean(0) - even


def _chosen(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 has the right one of four options chosen always."""
    assert isinstance(analysis, Choices)
    margin = _lucky(labels, effects, 0.25, rng)
    dims = ("stimulus", "layer", "target")
    return labels.assign(
        margin=(dims, margin), margin_normed=(dims, margin),
        choices=(dims, answered(margin), ANSWERS),
    ).assign_coords(by_luck=("stimulus", np.full(len(effects), 0.25)))  # fmt: skip


def _spoken(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 has every reply right, and as it was told to be; without, hardly any is."""
    assert isinstance(analysis, Replies)
    dims = ("stimulus", "layer", "target")
    told = {name: (_lucky(labels, effects, 0.02, rng) > 0).astype(float) for name in SCORES}
    told["replies"] = told["said"]
    told["overlap"] *= rng.uniform(0.5, 1.0, size=effects.shape)
    return labels.assign(
        {name: (dims, values, ANSWERS) for name, values in told.items()}
    ).assign_coords(
        by_luck=("stimulus", np.zeros(len(effects))),
        read=(dims[:2], np.maximum(told["said"][..., 0], rng.random(effects.shape[:2]) < 0.5)),
        reply=(dims[:2], np.full(effects.shape[:2], "so it is")),
    )  # fmt: skip


def _ablated(
    labels: xr.Dataset, effects: np.ndarray, analysis: Acting, rng: np.random.Generator
) -> xr.Dataset:
    """An effect of 1 leaves nothing of how far the scores of categories lie apart."""
    assert isinstance(analysis, Ablation)
    values = labels[analysis.label].to_numpy().astype(str)
    names = np.unique(values)
    columns = names if analysis.category is None else np.array([analysis.category])
    inside = (values[:, None] == columns).astype(float)
    # On average over items: what each of them loses by itself is no effect on how they are told.
    left = APART * np.maximum(1 - effects.mean(0), 0)
    layers, targets = effects.shape[1:]
    later = len(analysis.later)
    own = rng.normal(size=(len(values), layers, 1, later, len(columns)))

    def scores(apart: np.ndarray, *shape: int) -> np.ndarray:
        noise = 0.7 * own + 0.7 * rng.normal(size=(len(values), *shape, later, len(columns)))
        return apart[None, ..., None, None] * inside[:, None, None, None, :] + noise

    dims = ("stimulus", "layer", "target", "later", "column")
    intact = scores(np.full((layers, 1), APART), layers, 1)[:, :, 0]
    _, which = np.unique(labels["item"].to_numpy(), return_inverse=True)
    return labels.assign(
        intact=(("stimulus", "layer", "later", "column"), intact),
        frozen=(dims, scores(left, layers, targets)),
        refitted=(dims, scores(left, layers, targets)),
        divergence=(("stimulus", "layer", "target"), effects),
        words=(("stimulus", "layer", "target"), -effects),
    ).assign_coords(
        later=list(analysis.later),
        column=columns,
        fold=("stimulus", which % FOLDS),
        neutral_divergence=(("layer", "target"), np.full((layers, targets), 0.02)),
        neutral_surprisal=(("layer", "target"), np.full((layers, targets), 0.01)),
    )


Planting = Callable[[xr.Dataset, np.ndarray, Acting, np.random.Generator], xr.Dataset]
PLANTING: dict[type[Acting], Planting] = {
    Ablation: _ablated, Choices: _chosen, Circuits: _alike, DomainNeurons: _silenced_apart,
    Gates: _opened, KnowledgeMap: _mapped, Lesion: _cut, Bus: _added, Neurons: _silenced,
    Patching: _patched, Replies: _spoken,
    Paths: _sent, Saliency: _sloped,
    Scaling: _scaled, Steering: _steered, Stitching: _stitched, Tuning: _taught,
    TuningVectors: _changed, WeightModules: _joined,
    TuningVector: _moved,
}  # fmt: skip
