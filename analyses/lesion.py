"""What a model loses when a part of one layer is left out, by layer and by category.

After Lad et al. (2024) and Gromov et al. (2024): a block, its attention or its MLP adds nothing to
the stream, or what it adds to unrelated sentences on average, and predictions are held against the
intact ones. First and last layers are needed for every text, so what is lost in one category says
something beside what is lost in the others.

What is measured is by how much more, in logarithms, one category loses than the rest, beside the
same when labels are dealt out anew among the items, and beside untrained twins.

Two categories are doubly dissociated if one lesion harms the first more and another one the second
(Shallice 1988): then neither is merely the more fragile. Which lesions show it is not known before,
so that both t are held against the largest that dealings of the categories among the items give in
any layer.

Where we differ: no text is generated, since a free run goes its own way after one other token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from scipy.stats import t as student

from analyses.acting import Acting, behind, kinds, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.neutral import sentences
from analyses.sides import DEALT, apart, sides
from analyses.words import averages
from scanner import Live, Subject, added, lesioned, without_heads
from scanner.sites import PARTS, Part

# Stimuli of a run.
STIMULI = 64
# A divergence of less is rounding, and its logarithm says nothing.
LEAST = 1e-6


@register
@dataclass(frozen=True)
class Lesion(Acting):
    """Leave parts out, and average what is lost over the frames of an item and then over items.

    Attributes
    ----------
    category : str
        Whose loss is held against that of the rest.
    parts : tuple of str
        What is left out, one of a layer at a time: ``block``, ``attention``, ``mlp``. The first is
        measured.
    left : {'nothing', 'mean'}
        What a part adds instead: nothing, or what it adds to unrelated sentences on average; the
        first token is left as it is then.
    span : int
        Of how many layers in a row it is left out together.
    heads : bool
        Whether heads of the attention are left out as well, one at a time.
    label : str
        The column of the stimulus table that has the categories.
    between : tuple of str, optional
        Two categories that may be doubly dissociated.
    permutations : int
        Dealings of these.
    level : float
        Confidence of the intervals, two-sided, of each layer and part by itself.
    random : int
        Dealings of the labels that the measure is held against.
    """

    category: str
    parts: tuple[Part, ...] = PARTS
    left: Literal["nothing", "mean"] = "nothing"
    span: int = 1
    heads: bool = False
    label: str = "category"
    between: tuple[str, str] | None = None
    permutations: int = 999
    level: float = 0.95
    random: int = 12

    measures: ClassVar[Mapping[str, Quantity]] = {
        "selective": Quantity(
            "by how much larger, in logarithms, the divergence is for a category than for the rest",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts: {', '.join(PARTS)}, each once")
        if self.left not in ("nothing", "mean"):
            raise ValueError(f"left: '{self.left}' is none of nothing, mean")
        if not 0 < self.level < 1:
            raise ValueError(f"a level of {self.level:g} is no share between 0 and 1")
        if self.span < 1 or self.permutations < 19 or self.random < 0:
            raise ValueError("span must be at least 1, permutations at least 19, random at least 0")
        if self.between is not None and len(set(self.between)) < 2:
            raise ValueError("between: two categories, not the same")

    def beyond(self, layers: int) -> str:
        if self.span < layers:
            return ""
        return f"a span of {self.span} leaves nothing of the model's {layers} layers"

    def passes(self, layers: int) -> float:
        if self.heads or self.left == "mean":
            return float("nan")
        # The text as it is, and for each layer and part the blocks behind; a part that is left out
        # has its own block computed, too.
        inner = sum(part != "block" for part in self.parts)
        return 1 + len(self.parts) * behind(layers) + inner

    def runs(self, live: Live, subject: Subject) -> list[range]:
        if self.category not in labels(subject, self.label):
            raise AnalysisError(f"lesion: no '{self.category}' among '{self.label}'")
        count = len(live.ids)
        return [range(first, min(first + STIMULI, count)) for first in range(0, count, STIMULI)]

    def act(
        self, live: Live, subject: Subject, run: range, *, rng: np.random.Generator
    ) -> xr.Dataset:
        ids = [live.ids[one] for one in run]
        instead = added(live.model, sentences(live)) if self.left == "mean" else None
        found = lesioned(live.model, ids, self.parts, span=self.span, instead=instead)
        layers = np.arange(live.model.layers - self.span + 1)
        kinds_of = ["own", *(DEALT,) * (self.random if live.trained else 0)]
        inside = sides(subject, self.label, self.category, dealings=len(kinds_of) - 1, rng=rng)
        made = xr.Dataset(
            {
                **{name: (("stimulus", "layer", "part"), values) for name, values in found.items()},
                "inside": (("stimulus", "target"), inside[list(run)]),
            },
            coords={
                "stimulus": np.array(run),
                "layer": layers,
                "part": list(self.parts),
                "target": np.arange(len(kinds_of)),
                "target_kind": ("target", kinds_of),
            },
        )
        if not self.heads:
            return made
        heads = without_heads(live.model, ids)[:, layers]
        return made.assign(heads=(("stimulus", "layer", "head"), heads)).assign_coords(
            head=np.arange(heads.shape[2])
        )

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average.

        Returns
        -------
        xarray.Dataset
            ``selective`` (layer): of the first part; ``selective_of`` (layer, arm): of each part,
            and of dealings of the labels on average;
            ``divergence`` (layer, part): from the intact prediction of the next token, nats;
            ``surprisal`` (layer, part): what the surprisal of the text's tokens rises by, nats a
            token; each with ``..._low`` and ``..._high``, its interval over items. Of each part
            ``block_by_category`` and so on (layer, category): the divergence. ``heads``
            (layer, head): the divergence without each. ``dissociation`` (layer, arm): of each part
            Welch's t of the logarithm of the divergence between two categories, over items, and
            ``dissociated_block`` and so on (scalar): the p that some layer harms the first more and
            some layer the second, familywise over layers.

        Raises
        ------
        AnalysisError
            If a category has a single item, all stimuli are of the category or none, or one that is
            to be dissociated is not there.
        """
        (subject,) = subjects
        names, codes = np.unique(labels(subject, self.label), return_inverse=True)
        _, first, which = np.unique(labels(subject, "item"), return_index=True, return_inverse=True)
        of_category = codes[first]
        few = np.flatnonzero(np.bincount(of_category, minlength=len(names)) < 2)
        if few.size:
            raise AnalysisError(f"'{names[few[0]]}' has one item; an average needs 2")
        # item x stimulus: the mean over the frames of an item.
        mean = averages(which)
        of_items = {
            name: np.einsum("is,slp->ilp", mean, subject.volume[name].to_numpy().astype(float))
            for name in ("divergence", "surprisal")
        }
        parts = subject.volume["part"].to_numpy().astype(object).astype(str)
        if self.category not in names or len(names) < 2:
            raise AnalysisError(f"{subject.name}: '{self.category}' cannot be held against others")
        harm = np.log(np.maximum(of_items["divergence"], LEAST))
        inside = values_of(subject.volume, "inside", "target", "stimulus")[:, first] > 0.5
        # target x layer x part
        selective = np.array([apart(np.moveaxis(harm, 0, -1), one) for one in inside])
        mine = own(subject)
        result = xr.Dataset(
            {
                "selective": ("layer", selective[mine, :, 0], {"chance": 0.0}),
                **self._with_interval("divergence", of_items["divergence"]),
                **_by_category(of_items["divergence"], of_category, parts),
                **self._with_interval("surprisal", of_items["surprisal"]),
            },
            coords={
                "layer": subject.volume["layer"].to_numpy(), "part": parts, "category": names,
            },
        )  # fmt: skip
        if len(inside) > 1:
            dealt = selective[kinds(subject.volume) == DEALT, :, :1].mean(0)
            arms = np.hstack([selective[mine], dealt])
            result = result.assign(selective_of=(("layer", "arm"), arms))
            result = result.assign_coords(arm=[*parts, "dealings of labels"])
        if "heads" in subject.volume:
            of_heads = subject.volume["heads"].to_numpy().astype(float)
            means = np.einsum("is,slh->ilh", mean, of_heads).mean(0)
            result = result.assign(heads=(("layer", "head"), means))
            result = result.assign_coords(head=subject.volume["head"].to_numpy())
        if self.between is None:
            return result
        missing = [name for name in self.between if name not in names]
        if missing:
            raise AnalysisError(f"lesion: no '{missing[0]}' among '{self.label}'")
        one, other = (of_category == list(names).index(name) for name in self.between)
        t, p = _dissociated(harm[one | other], one[one | other], self.permutations, rng)
        t = xr.DataArray(t, dims=("layer", "arm"), coords={"arm": parts})
        result = result.assign(dissociation=t.reindex(arm=result["arm"]) if "arm" in result else t)
        return result.assign(
            {f"dissociated_{part}": float(p[place]) for place, part in enumerate(parts)}
        )

    def _with_interval(
        self, name: str, values: np.ndarray
    ) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """The mean over items, and Student's interval."""
        count = len(values)
        mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(count)
        half = student.ppf((1 + self.level) / 2, count - 1) * error
        dims = ("layer", "part")
        return {
            name: (dims, mean),
            f"{name}_low": (dims, mean - half),
            f"{name}_high": (dims, mean + half),
        }


def _by_category(
    values: np.ndarray, codes: np.ndarray, parts: np.ndarray
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The mean over the items of each category, of item x layer x part."""
    means = np.array([values[codes == code].mean(0) for code in range(codes.max() + 1)])
    return {
        f"{part}_by_category": (("layer", "category"), means[:, :, place].T)
        for place, part in enumerate(parts)
    }


def _dissociated(
    harm: np.ndarray, first: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Welch's t of two groups of items, and the p that it is large both ways.

    Parameters
    ----------
    harm : numpy.ndarray
        item x layer x part.
    first : numpy.ndarray
        Which items are of the first category.
    permutations : int
    rng : numpy.random.Generator

    Returns
    -------
    t : numpy.ndarray
        layer x part.
    p : numpy.ndarray
        part: the larger of two, since both must be there (Berger 1982), each of the largest t over
        layers (Westfall & Young 1993).
    """
    groups = np.array([first, *(rng.permutation(first) for _ in range(permutations))])
    t = _welch(harm, groups)
    ways = []
    for side in (t, -t):
        largest = side.max(1)
        ways.append((largest >= largest[0] - 1e-12).mean(0))
    return t[0], np.maximum(*ways)


def _welch(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Of item x layer x part in some groupings of the items: grouping x layer x part."""
    means, errors = [], []
    for inside in (groups, ~groups):
        weights = inside / inside.sum(1, keepdims=True)
        mean = np.einsum("gi,ilp->glp", weights, values)
        square = np.einsum("gi,ilp->glp", weights, values**2)
        count = inside.sum(1)[:, None, None]
        means.append(mean)
        errors.append(np.maximum(square - mean**2, 0) / (count - 1))
    spread = np.sqrt(errors[0] + errors[1])
    return np.divide(
        means[0] - means[1], spread, out=np.zeros_like(spread), where=spread > 0
    )  # fmt: skip
