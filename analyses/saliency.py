"""Which weights and which tokens decide how well the target is predicted.

Gradients of the target's surprisal are summed up without their signs over the weights of the
attention and the MLP of each block, stimulus by stimulus (Simonyan et al. 2014); gradients of its
log probability are integrated from a token of no identity to each token before it (Sundararajan et
al. 2017). Neither says that anything is used: every weight of every network has a slope. So each
stands beside the same of untrained twins, and of the same model with fresh weights in its last
blocks, which a map that says anything must not be like (Adebayo et al. 2018).

Slopes grow with the surprisal and shrink with the number of weights, whatever is predicted, and
depth has a profile of its own. What is measured is how much larger, by layer, they are for one
category than for the rest, in logarithms, with what surprisal and number of tokens explain taken
out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from analyses.acting import Acting, check_begun, kinds, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.sides import DEALT, apart, sides
from scanner import Live, Model, Subject
from scanner.gradients import SALIENCY, integrated_gradients, weight_slopes

# Stimuli of a run, and of the check with fresh weights, whose blocks are this many at most.
STIMULI = 8
STEPS = 8
SLOPED = ("attention", "mlp")


@register
@dataclass(frozen=True)
class Saliency(Acting):
    """Follow the surprisal of the target back to weights and to tokens.

    Attributes
    ----------
    category : str
        Whose slopes are held against those of the rest.
    label : str
        The column of the stimulus table that has it.
    summary : {'magnitude', 'by_weight', 'fisher'}
        What is measured of the gradients of weights (`scanner.gradients.SALIENCY`). Only the
        second is the same when a norm's gain is moved into the weights behind it.
    before : int
        Tokens before the target whose attributions are told, by their distance.
    steps : int
        Of the integral; 0 leaves attributions to tokens out, which take most of the time.
    random : int
        Dealings of the labels that the contrast is held against.
    """

    category: str
    label: str = "category"
    summary: Literal["magnitude", "by_weight", "fisher"] = "by_weight"
    before: int = 6
    steps: int = 64
    random: int = 12

    measures: ClassVar[Mapping[str, Quantity]] = {
        "contrast": Quantity(
            "by how much larger, in logarithms, gradients of weights are for a category than for "
            "the rest, at the same surprisal",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        if self.summary not in SALIENCY:
            raise ValueError(f"summary: no '{self.summary}'; there is {', '.join(SALIENCY)}")
        if self.before < 1 or self.steps < 0 or self.random < 0:
            raise ValueError("before must be at least 1, steps and random at least 0")

    @property
    def moves_weights(self) -> bool:
        return True

    def runs(self, live: Live, subject: Subject) -> list[range]:
        check_begun("saliency", live)
        if self.category not in labels(subject, self.label):
            raise AnalysisError(f"saliency: no '{self.category}' among '{self.label}'")
        count = len(live.ids)
        return [range(one, min(one + STIMULI, count)) for one in range(0, count, STIMULI)]

    def act(
        self, live: Live, subject: Subject, run: range, *, rng: np.random.Generator
    ) -> xr.Dataset:
        slopes, loss, inputs, missed = self._maps(live.model, live, run)
        dims, kinds_of = ("stimulus", "layer", "part"), self._kinds(live)
        inside = sides(subject, self.label, self.category, dealings=len(kinds_of) - 1, rng=rng)
        return xr.Dataset(
            {
                **{name: (dims, values) for name, values in slopes.items()},
                **(
                    {"inputs": (("stimulus", "offset"), inputs), "missed": ("stimulus", missed)}
                    if self.steps
                    else {}
                ),
                "loss": ("stimulus", loss),
                "inside": (("stimulus", "target"), inside[list(run)]),
            },
            coords={
                "stimulus": np.array(run),
                "layer": np.arange(live.model.layers),
                "part": list(SLOPED),
                "offset": np.arange(-self.before, 0),
                "predicted": ("stimulus", np.array([len(live.targets[one]) for one in run])),
                "reached": ("stimulus", np.array([live.targets[one][0] for one in run])),
                "target_kind": ("target", kinds_of),
                "target": np.arange(len(kinds_of)),
                **(self._cascade(live, rng) if live.trained and not run.start else {}),
            },
        )

    def _maps(
        self, model: Model, live: Live, run: Sequence[int]
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        """Slopes of weights by name, losses, attributions to tokens, and what these miss."""
        slopes = {name: np.empty((len(run), model.layers, len(SLOPED))) for name in SALIENCY}
        loss, missed = np.empty(len(run)), np.zeros(len(run))
        inputs = np.zeros((len(run), self.before))
        for row, stimulus in enumerate(run):
            text, target = live.ids[stimulus], live.targets[stimulus]
            loss[row], found = weight_slopes(model, text, target, SLOPED)
            for name in SALIENCY:
                slopes[name][row] = found[name]
            if self.steps:
                tokens, missed[row] = integrated_gradients(model, text, target, steps=self.steps)
                near = tokens[max(0, target[0] - self.before) : target[0]]
                inputs[row, self.before - len(near) :] = near
        return slopes, loss, inputs, missed

    def _cascade(
        self, live: Live, rng: np.random.Generator
    ) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Maps of a few stimuli with fresh weights from a block on, the last time in none."""
        layers, count = live.model.layers, len(live.ids)
        firsts = np.linspace(0, layers, min(layers, STEPS) + 1).round().astype(int).tolist()
        tried = np.linspace(0, count - 1, min(count, STIMULI)).round().astype(int).tolist()
        seed = int(rng.integers(2**31))
        maps = [self._maps(one, live, tried) for one in live.model.cascade(firsts, seed=seed)]
        weights = "fresh", "tried", "layer", "part"
        found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
            # Not of their dimensions' names: runs are put together along those that have an index.
            "first_fresh": (("fresh",), np.array(firsts)),
            "tried_stimulus": (("tried",), np.array(tried)),
            **{
                f"fresh_{name}": (weights, np.stack([slopes[name] for slopes, *_ in maps]))
                for name in SALIENCY
            },
        }
        if self.steps:
            inputs = np.stack([one for _, _, one, _ in maps])
            reached = np.array([live.targets[one][0] for one in tried])
            there = np.arange(self.before, 0, -1) <= reached[:, None]
            found["fresh_inputs"] = ("fresh", "tried", "offset"), np.where(there, inputs, np.nan)
        return found

    def _kinds(self, live: Live) -> list[str]:
        if not live.trained:
            return ["own"]
        return ["own", *(DEALT,) * self.random]

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say where slopes are large, and for what.

        Returns
        -------
        xarray.Dataset
            ``contrast`` (layer): of both parts on average; ``contrast_of`` (layer, arm): of each
            part alone, and of dealings of the labels on average; ``weights`` (layer, arm): the
            saliency of each part by layer, the geometric mean over stimuli over that of all layers,
            NaN for dealings;
            ``tokens`` (offset): how much of the absolute attribution is of each token before the
            target, on average over stimuli that have it; ``missed_share`` (scalar): what
            attributions do not add up to, over their absolute sum; ``twin_weights``,
            ``twin_tokens`` (scalar): Spearman's correlation with untrained twins, of layers and
            parts, and of tokens within stimuli, 0 for maps that have nothing to do with another;
            ``fresh_weights``, ``fresh_tokens`` (fresh): the same, within stimuli, with the model
            itself where its blocks from that one on have fresh weights.

        Raises
        ------
        AnalysisError
            If all stimuli are of the category, or none.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        inside = values_of(volume, "inside", "target", "stimulus") > 0.5
        chosen = labels(subject, self.label) == self.category
        if chosen.all() or not chosen.any():
            raise AnalysisError(f"{subject.name}: '{self.category}' cannot be held against others")
        sizes = _logarithms(volume, self.summary)
        left = sizes - explained(volume, sizes)
        contrasts = np.array([apart(left, one) for one in inside])
        result = xr.Dataset(
            {"contrast": ("layer", contrasts[mine].mean(-1), {"chance": 0.0})},
            coords={"layer": volume["layer"].to_numpy()},
        )
        if self.steps:
            inputs = _shares(volume)
            result = result.assign(tokens=("offset", np.nanmean(np.abs(inputs), axis=0)))
            result = result.assign_coords(offset=volume["offset"].to_numpy())
        if volume.sizes["target"] == 1:
            return result
        parts = volume["part"].to_numpy().astype(object).astype(str).tolist()
        weights = sizes.mean(-1)
        by_part = np.exp(weights - weights.mean(0))
        dealt = contrasts[kinds(volume) != "own"].mean((0, 2))
        result = result.assign(
            contrast_of=(("layer", "arm"), np.column_stack([contrasts[mine], dealt])),
            weights=(("layer", "arm"), np.column_stack([by_part, np.full(len(dealt), np.nan)])),
        ).assign_coords(arm=[*parts, "dealings of labels"])
        if self.steps:
            missed, whole = (float(np.abs(volume[name]).sum()) for name in ("missed", "inputs"))
            result = result.assign(missed_share=missed / whole)
        return result.assign(self._beside_twins(subject)).assign(self._beside_fresh(volume))

    def _beside_twins(self, subject: Subject) -> dict[str, float]:
        """How like untrained twins are, to whom nothing has been taught."""
        twins, volume = list(subject.twins.values()), subject.volume
        if not twins:
            return {}
        weights, *others = (
            _logarithms(one, self.summary).mean(-1).ravel() for one in (volume, *twins)
        )
        alike = np.array([spearmanr(weights, one)[0] for one in others])
        found = {"twin_weights": float(alike.mean())}
        if self.steps:
            inputs, *others = map(_shares, (volume, *twins))
            alike = np.array([_alike(inputs, one) for one in others])
            found["twin_tokens"] = float(alike.mean())
        return found

    def _beside_fresh(self, volume: xr.Dataset) -> dict[str, xr.DataArray]:
        """How like the model is with fresh weights in its last blocks (Adebayo et al. 2018)."""
        if "first_fresh" not in volume.coords:
            return {}
        weights = volume[f"fresh_{self.summary}"].transpose("fresh", "tried", "layer", "part")
        maps = {"fresh_weights": weights.to_numpy().reshape(*weights.shape[:2], -1)}
        if self.steps:
            maps["fresh_tokens"] = (
                volume["fresh_inputs"].transpose("fresh", "tried", ...).to_numpy()
            )
        firsts = volume["first_fresh"].to_numpy()
        return {
            name: xr.DataArray(
                [_alike(values[-1], one) for one in values[:-1]],
                dims="fresh", coords={"fresh": firsts[:-1]},
            )
            for name, values in maps.items()
        }  # fmt: skip


def _logarithms(volume: xr.Dataset, summary: str) -> np.ndarray:
    """Of the saliency: layer x part x stimulus."""
    values = values_of(volume, summary, "layer", "part", "stimulus").astype(float)
    return np.log(np.maximum(values, np.finfo(float).tiny))


def explained(volume: xr.Dataset, sizes: np.ndarray) -> np.ndarray:
    """What surprisal and number of tokens explain, by least squares over stimuli.

    Parameters
    ----------
    volume : xarray.Dataset
        ``loss`` and ``predicted`` (stimulus).
    sizes : numpy.ndarray
        ... x stimulus.
    """
    columns = np.stack([
        np.log(np.maximum(volume["loss"].to_numpy(), 1e-6)), volume["predicted"].to_numpy(),
    ]).astype(float)  # fmt: skip
    columns -= columns.mean(1, keepdims=True)
    slopes = np.linalg.pinv(columns.T) @ sizes.reshape(-1, sizes.shape[-1]).T
    return (columns.T @ slopes).T.reshape(sizes.shape)


def _shares(volume: xr.Dataset) -> np.ndarray:
    """Attributions of tokens over their absolute sum: stimulus x offset, NaN where none is."""
    values = volume["inputs"].to_numpy().astype(float)
    there = -volume["offset"].to_numpy() <= volume["reached"].to_numpy()[:, None]
    whole = np.abs(values).sum(1, keepdims=True)
    return np.where(there & (whole > 0), values / np.where(whole > 0, whole, 1), np.nan)


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of absolute values, within each stimulus, on average."""
    found = []
    for a, b in zip(np.abs(one), np.abs(other), strict=True):
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() > 2:
            found.append(spearmanr(a[both], b[both])[0])
    return float(np.nanmean(found)) if found else float("nan")
