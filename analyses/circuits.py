"""Whether a variant answers by the same places as its base: their maps of patches are compared.

Published are maps of attribution patches of a base model and its variants, side by side, for one
pair of texts (Tanwar et al. 2025). That two maps look alike says little: all of them are dark at
the last token of the last layers. Here each map is told of many pairs, layer by stretch of the text
(of the token that differs, of parts of what follows, and of the last token), and how alike two are
is held against the same map with its stretches dealt out anew in each layer, against the map of
pairs of another category, and against maps of an untrained twin.

Two maps cannot be more alike than maps of two halves of the pairs are in one model. That ceiling
stands beside, and as a share of it the likeness can be claimed. To see whether a tuning did more to
the map than as much noise, the base with noise as long as the tuning in each tensor is mapped, too.

Where variants read their texts in a conversation and the base reads them plain, what is seen near
the end of theirs alone may be the template and no tuning. With `template` both models are mapped in
the conversation of the variant, too; the base needs no template of its own.

Attribution patching (Nanda 2023) is an estimate; how far it agrees with true patches is told of
some pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from scipy.stats import rankdata, spearmanr

from analyses.acting import Acting, kinds, own, values_of
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.pairs import Pairs, pairs_of
from analyses.splits import item_groups
from scanner import (
    Chat,
    Live,
    Model,
    Pair,
    Subject,
    attributed,
    check_same_shape,
    jolted,
    patched,
    share_of_way,
)  # fmt: skip
from scanner.sites import Kind

# What a ceiling is at least taken to be: of maps of noise it is nothing.
LEAST_CEILING = 0.1
DIMS = ("stimulus", "layer", "block", "kind", "place")


@register
@dataclass(frozen=True)
class Circuits(Acting):
    """Compare the map of attribution patches of a variant with that of its base.

    Attributes
    ----------
    donor : str
        A subject of the protocol: the base model. Each of the others is held against it.
    sites : tuple of str
        Kinds of site that are mapped, in every layer.
    segments : int
        Parts of what stands between the target and the last token, by which it is mapped.
    by : {'spearman', 'cosine'}
        How maps are compared: by the order of their cells, or by the cells that do most.
    into : {'corrupt', 'clean'}
        Which text is patched, as in `patching`.
    decided : float
        How many logits the two texts of a pair must be apart in their answers, on average, in both
        models.
    checked : int
        Pairs of which estimates are held against true patches.
    splits : int
        Halvings of the items, of which the ceiling is told.
    random : int
        Targets at random of each kind.
    template : bool
        Whether both models are mapped in the conversation of the variant's chat template, too.
    """

    donor: str
    sites: tuple[Kind, ...] = ("resid_post", "attn_out_post", "mlp_out_post")
    segments: int = 3
    by: Literal["spearman", "cosine"] = "spearman"
    into: Literal["corrupt", "clean"] = "corrupt"
    decided: float = 1.0
    checked: int = 2
    splits: int = 5
    random: int = 3
    template: bool = False

    measures: ClassVar[Mapping[str, Quantity]] = {
        "alike": Quantity(
            "correlation of the map of patches of two models over layers, sites and stretches of "
            "the text",
            -1.0,
            1.0,
        ),
        "reached": Quantity(
            "the same between halves of the items, over that of two halves in one model",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise ValueError("sites: at least one, each once")
        if self.segments < 1 or self.splits < 1 or self.random < 0 or self.checked < 0:
            raise ValueError(
                "segments and splits must be at least 1, random and checked at least 0"
            )

    @property
    def stands_at(self) -> tuple[int, ...]:
        return (0,)

    @property
    def places(self) -> list[str]:
        """Stretches of the text, by name."""
        between = [f"after it {one}/{self.segments}" for one in range(1, 1 + self.segments)]
        return ["target", *between, "last"]

    def runs(self, live: Live, subject: Subject) -> list[str]:
        """The map of the variant, of its base with what is made of it, and with noise."""
        check_same_shape(live.learned, live.donor)
        pairs_of(live)  # what is wrong with them is said before anything is done
        plan = ["mine", "theirs"]
        if live.trained and self.random:
            plan.append("noise")
        if live.trained and self.template:
            _in_conversation(live)
            plan.append("template")
        return plan

    def act(
        self, live: Live, subject: Subject, run: str, *, rng: np.random.Generator
    ) -> xr.Dataset:
        pairs = pairs_of(live)
        seed = int(rng.integers(2**32))
        if run == "noise":
            with jolted(live.model, live.donor, noise="normal", seed=seed):
                values, way = self._map(live.model, pairs)
            return self._theirs(values[..., None], way[:, None], [2 + 2 * self.random], ["shown"])
        if run == "template":
            return self._both_in_conversation(live)
        values, way = self._map(live.model if run == "mine" else live.donor, pairs)
        checked = self._agreement(live.model if run == "mine" else live.donor, pairs)
        if run == "mine":
            return xr.Dataset(
                {"mine": (DIMS, values)},
                coords={
                    **self._coords(values),
                    "mine_way": ("stimulus", way),
                    "mine_agrees": ("kind", checked),
                    "least": ("layer", [self.decided if live.trained else 0.0]),
                },
            )
        plan = ["own"]
        if live.trained:
            plan += ["known", *("shuffled", "other") * self.random]
        draws = np.random.default_rng(seed)
        alike = labels(subject, "category")
        made, ways = zip(
            *(
                # What is surely alike is the variant itself.
                self._map(live.model, pairs)
                if kind == "known"
                else self._instead(kind, values, way, alike, draws)
                for kind in plan
            ),
            strict=True,
        )
        told = self._theirs(
            np.stack(made, axis=-1), np.stack(ways, axis=1), list(range(len(plan))), plan
        )
        return told.assign_coords(theirs_agrees=("kind", checked))

    def _both_in_conversation(self, live: Live) -> xr.Dataset:
        """Maps of the variant and of its base, both of which read what the variant would."""
        pairs = _in_conversation(live)
        told, ways = {}, {}
        for side, model in (("mine", live.model), ("theirs", live.donor)):
            values, way = self._map(model, pairs)
            told[f"template_{side}"] = (DIMS, values)
            ways[f"template_{side}_way"] = ("stimulus", way)
        return xr.Dataset(told, coords={**self._coords(values), **ways})

    def _coords(self, values: np.ndarray) -> dict[str, object]:
        return {
            "stimulus": np.arange(len(values)),
            "layer": [0],
            "block": np.arange(values.shape[2]),
            "kind": list(self.sites),
            "place": self.places,
        }

    def _theirs(
        self, values: np.ndarray, ways: np.ndarray, targets: list[int], plan: list[str]
    ) -> xr.Dataset:
        """Maps of what stands beside the variant: as `DIMS`, and target."""
        return xr.Dataset(
            {"theirs": ((*DIMS, "target"), values)},
            coords={
                **self._coords(values),
                "target": targets,
                "target_kind": ("target", plan),
                "theirs_way": (("stimulus", "target"), ways),
            },
        )

    def _map(self, model: Model, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """What patches move in each pair, as `DIMS`, and what there is to move."""
        asked, member = self._asked(pairs)
        found = attributed(model, asked, self.sites, into=self.into)
        # pair x kind x layer x position
        moved = found.difference - found.base[:, None, None, None]
        values = np.einsum("sklp,spg->slkg", moved, member)[:, None]
        return values.astype(np.float32), found.donor - found.base

    def _asked(self, pairs: Pairs) -> tuple[list[Pair], np.ndarray]:
        """All positions from the target on, and the stretch of each: pair x position x place."""
        spans = [range(target[0], len(ids)) for ids, target in
                 zip(pairs.clean.ids, pairs.clean.targets, strict=True)]  # fmt: skip
        longest = max(map(len, spans))
        member = np.zeros((len(spans), longest, len(self.places)))
        asked = []
        for one, span in enumerate(spans):
            end = pairs.clean.targets[one][-1]
            between = np.arange(end + 1, span[-1])
            part = 1 + np.floor(np.arange(len(between)) * self.segments / max(len(between), 1))
            places = [0] * (end + 1 - span[0]) + part.astype(int).tolist()
            places += [len(self.places) - 1] * (len(span) - len(places))
            member[one, np.arange(len(span)), places] = 1
            # Filled up with a position that counts for nothing.
            at = [*span, *[span[-1]] * (longest - len(span))]
            asked.append(Pair(pairs.clean.ids[one], pairs.corrupt.ids[one], pairs.answers[one], at))
        return asked, member

    def _agreement(self, model: Model, pairs: Pairs) -> np.ndarray:
        """Spearman's correlation of estimates with true patches at the target and the last token.

        Of each kind of site, over some pairs and all layers; NaN if none were to be checked.
        """
        if not self.checked:
            return np.full(len(self.sites), np.nan)
        some = [
            one._replace(places=[target[-1], len(one.clean) - 1])
            for one, target in zip(self._asked(pairs)[0], pairs.clean.targets, strict=True)
        ][: self.checked]
        true, guess = (
            way(model, some, self.sites, into=self.into) for way in (patched, attributed)
        )
        moved = [one.difference - one.base[:, None, None, None] for one in (true, guess)]
        return np.array([
            spearmanr(moved[0][:, kind].ravel(), moved[1][:, kind].ravel())[0]
            for kind in range(len(self.sites))
        ])  # fmt: skip

    def _instead(
        self,
        kind: str,
        values: np.ndarray,
        way: np.ndarray,
        alike: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What stands for the map of the base, and its way.

        Parameters
        ----------
        kind : {'own', 'shuffled', 'other'}
        values : numpy.ndarray
            As `DIMS`.
        way, alike : numpy.ndarray
            stimulus; the second is its category.
        rng : numpy.random.Generator
        """
        if kind == "own":
            return values, way
        if kind == "other":
            rows = np.array([
                rng.choice(found) if len(found := np.flatnonzero(alike != one)) else number
                for number, one in enumerate(alike)
            ])  # fmt: skip
            return values[rows], way[rows]
        order = np.argsort(rng.random(values.shape[2:]), axis=-1)
        return np.take_along_axis(values, order[None, None], axis=-1), way

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        maps = _Maps.of(subject, own(subject))
        maps.check(subject.name)
        value = maps.alike(self.by) if variable == "alike" else self._reached(subject, maps, rng)[2]
        return xr.DataArray([value], dims="layer", coords={"layer": [0]}, attrs={"chance": 0.0})

    def _reached(
        self, subject: Subject, maps: "_Maps", rng: np.random.Generator
    ) -> tuple[float, float, float]:
        """How alike maps of two halves are in one model and across, and the second over the first.

        Of one model it is the geometric mean of both, so that a map that is told less surely than
        the other does not lower what can be reached.
        """
        items = labels(subject, "item")
        within, across = [], []
        for _ in range(self.splits):
            try:
                half = item_groups(items, np.zeros(len(items)), groups=2, rng=rng)
            except ValueError as error:
                raise AnalysisError(f"circuits: {error}") from None
            halves = [maps.take(np.flatnonzero(half == side)) for side in (0, 1)]
            mine, theirs = [one.mine_map for one in halves], [one.theirs_map for one in halves]
            of_mine, of_theirs = (_similarity(one, other, self.by) for one, other in (mine, theirs))
            within.append(np.sqrt(max(of_mine, 0.0) * max(of_theirs, 0.0)))
            across += [
                _similarity(mine[0], theirs[1], self.by), _similarity(mine[1], theirs[0], self.by)
            ]  # fmt: skip
        ceiling, found = float(np.mean(within)), float(np.mean(across))
        return ceiling, found, found / max(ceiling, LEAST_CEILING)

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Compare.

        Returns
        -------
        xarray.Dataset
            ``alike`` (layer, which is 0): Spearman's correlation, or the cosine, of the maps of the
            variant and of its base over sites, layers and stretches of the text, each cell the
            share of the way from one answer to the other. ``reached`` (layer): the same of maps of
            different halves of the items, over ``ceiling`` (scalar), what it is of halves in one
            model. ``alike_of`` (layer, arm): of what stands in the place of the base; of noise, how
            alike the base with it is with itself. ``map`` (subject,
            patch, block): both maps, that with noise, and both in the conversation. With
            `template`, ``alike_in_template`` (layer, held): how alike the map of the base that
            reads plain texts is with that of the base and that of the variant in the conversation,
            and how alike the last two are; ``decided_in_template``, ``decided_base_in_template``
            (scalar). ``agrees`` (side, kind): how estimates go with true patches. ``decided``,
            ``decided_base`` (scalar): how far the texts of a pair are apart in their answers, in
            logits, on average.

        Raises
        ------
        AnalysisError
            If the answers are not far enough apart, or there are fewer than two items.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        maps = _Maps.of(subject, mine)
        maps.check(subject.name)
        ceiling, _, reached = self._reached(subject, maps, rng)
        of_mine, of_theirs = (np.abs(way).mean() for way in (maps.mine_way, maps.theirs_way))
        result = xr.Dataset(
            {
                "alike": ("layer", [maps.alike(self.by)], {"chance": 0.0}),
                "reached": ("layer", [reached], {"chance": 0.0}),
                "ceiling": ceiling,
                "decided": float(of_mine),
                "decided_base": float(of_theirs),
            },
            coords={"layer": [0]},
        )
        given = kinds(volume)
        arms = [one for one in dict.fromkeys(given.tolist()) if one != "known"]
        noise = [_Maps.of(subject, int(one)).theirs_map for one in np.flatnonzero(given == "shown")]
        found = [
            # Of noise: of the base with its own map, as of the variant.
            np.mean([_similarity(maps.theirs_map, one, self.by) for one in noise])
            if arm == "shown"
            else np.mean([_Maps.of(subject, int(one)).alike(self.by)
                          for one in np.flatnonzero(given == arm)])
            for arm in arms
        ]  # fmt: skip
        shown = {"base": maps.theirs_map, "variant": maps.mine_map}
        if noise:
            shown["with noise"] = noise[0]
        if self.template and "template_mine" in volume:
            talking = _Maps.in_template(subject)
            result = result.assign(self._of_template(maps, talking))
            shown["base in the conversation"] = talking.theirs_map
            shown["variant in the conversation"] = talking.mine_map
        rows = [f"{kind}, {place}" for kind in self.sites for place in self.places]
        cells = [
            np.moveaxis(one, 0, -1).reshape(len(rows), -1) for one in shown.values()
        ]  # patch x block
        agrees = [volume[f"{side}_agrees"].to_numpy() for side in ("theirs", "mine")]
        return result.assign(
            alike_of=(("layer", "arm"), [found]),
            map=(("subject", "patch", "block"), np.stack(cells)),
            agrees=(("side", "kind"), np.stack(agrees)),
        ).assign_coords(
            arm=arms, subject=list(shown), patch=rows, block=volume["block"].to_numpy(),
            side=["base", "variant"], kind=list(self.sites),
        )  # fmt: skip

    def _of_template(self, plain: "_Maps", talking: "_Maps") -> dict[str, xr.DataArray]:
        """What the template does to the map of the base, beside what it and tuning do."""
        pairs = {
            "base, with and without": (plain.theirs_map, talking.theirs_map),
            "base without, variant with": (plain.theirs_map, talking.mine_map),
            "base and variant, both with": (talking.theirs_map, talking.mine_map),
        }
        return {
            "alike_in_template": xr.DataArray(
                [[_similarity(one, other, self.by) for one, other in pairs.values()]],
                dims=("layer", "held"),
                coords={"layer": [0], "held": list(pairs)},
            ),
            "decided_in_template": xr.DataArray(np.abs(talking.mine_way).mean()),
            "decided_base_in_template": xr.DataArray(np.abs(talking.theirs_way).mean()),
        }


def _in_conversation(live: Live) -> Pairs:
    """The pairs in the conversation of the variant, whose tokens the base reads as well.

    Raises
    ------
    AnalysisError
        If they are in one already, or there is no template.
    """
    if live.recording.chat is not None:
        raise AnalysisError(
            "circuits: the texts are in a conversation already; leave `template` or `chat` out"
        )
    if not live.model.tokenizer.chat_template:
        raise AnalysisError(
            f"circuits: '{live.recording.subject}' has no chat template; leave `template` out"
        )
    return pairs_of(replace(live, recording=replace(live.recording, chat=Chat())))


@dataclass(frozen=True)
class _Maps:
    """What patches move in each pair, in a model and in what stands beside it.

    Attributes
    ----------
    mine, theirs : numpy.ndarray
        block x kind x place x stimulus.
    mine_way, theirs_way : numpy.ndarray
        stimulus: what there is to move.
    least : float
        Logits that both must have to move, on average.
    """

    mine: np.ndarray
    theirs: np.ndarray
    mine_way: np.ndarray
    theirs_way: np.ndarray
    least: float

    @classmethod
    def of(cls, subject: Subject, target: int) -> "_Maps":
        volume = subject.volume
        dims = ("layer", "block", "kind", "place", "stimulus")
        theirs = values_of(volume, "theirs", "target", *dims)[target, 0]
        ways = volume["theirs_way"].transpose("target", "stimulus").to_numpy()[target]
        return cls(
            values_of(volume, "mine", *dims)[0].astype(float),
            theirs.astype(float),
            volume["mine_way"].to_numpy(),
            ways,
            float(volume["least"].to_numpy()[0]),
        )

    @classmethod
    def in_template(cls, subject: Subject) -> "_Maps":
        """Of both models in the conversation; nothing is asked of how far answers are apart."""
        volume, dims = subject.volume, ("layer", "block", "kind", "place", "stimulus")
        mine, theirs = (
            values_of(volume, f"template_{side}", *dims)[0].astype(float)
            for side in ("mine", "theirs")
        )
        of_mine, of_theirs = (
            volume[f"template_{side}_way"].to_numpy() for side in ("mine", "theirs")
        )
        return cls(mine, theirs, of_mine, of_theirs, 0.0)

    def take(self, rows: np.ndarray) -> "_Maps":
        """Of some stimuli."""
        return _Maps(
            self.mine[..., rows], self.theirs[..., rows], self.mine_way[rows],
            self.theirs_way[rows], self.least,
        )  # fmt: skip

    def check(self, name: str) -> None:
        """Hold the answers to be apart.

        Raises
        ------
        AnalysisError
        """
        for who, way in ((name, self.mine_way), ("its base", self.theirs_way)):
            apart = float(np.abs(way).mean())
            if not apart >= self.least:
                raise AnalysisError(
                    f"{name}: the texts of a pair are {apart:.2f} logits apart in {who}, and "
                    f"{self.least:g} are asked for; take pairs that both models tell apart, or a "
                    "lower `decided`"
                )

    @property
    def mine_map(self) -> np.ndarray:
        """The share of the way that each cell goes: block x kind x place."""
        return share_of_way(self.mine, self.mine_way)

    @property
    def theirs_map(self) -> np.ndarray:
        """The same of what stands beside it."""
        return share_of_way(self.theirs, self.theirs_way)

    def alike(self, by: str) -> float:
        return _similarity(self.mine_map, self.theirs_map, by)


def _similarity(one: np.ndarray, other: np.ndarray, by: str) -> float:
    """Of two maps over all their cells; NaN if one is the same everywhere."""
    x, y = one.ravel(), other.ravel()
    if by == "spearman":
        x, y = rankdata(x), rankdata(y)
        x, y = x - x.mean(), y - y.mean()
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / size) if size > 0 else float("nan")
