"""Whether what several blocks add to the stream is the sum of what each adds.

A direction is added behind some consecutive blocks, and as much at once behind the first of them;
were the network linear, every later layer would show the same (Elhage et al. 2021, the residual
stream as a bus). Each block hands on what it was given, so that the added vector itself arrives in
full either way, whatever it is: a ratio of the two along the direction is an identity nearly, and
one of a direction at random. What says something of the network is what it makes of the addition:
the change of a later layer without the vector that was added.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import by_kind, own, values_of
from analyses.base import AnalysisError, Quantity, register
from analyses.directions import Along
from scanner import Edit, Live, Site, Subject, Trial, sweep

STREAMS = ("resid_pre", "resid_mid", "resid_post")
# A square of this share of the vector is rounding.
NOTHING = 1e-8
SUMS = ("apart", "one", "many", "along_one", "along_many")


@register
@dataclass(frozen=True)
class Bus(Along):
    """Add a direction behind several blocks, and as much at once behind the first.

    Attributes
    ----------
    site, layers, label, way, random, item_folds
        See `analyses.directions.Along`; each layer is the first of some consecutive ones.
    blocks : int
        How many of them.
    sizes : tuple of float
        What is added behind each, in median lengths of the stream; the first is measured.
    """

    blocks: int = 4
    sizes: tuple[float, ...] = (0.1, 0.5, 2.0)

    measures: ClassVar[Mapping[str, Quantity]] = {
        "additivity": Quantity(
            "how much of what the network makes of a vector that is added at once it makes of the "
            "parts that are added one after the other: 1 for all, behind the last block",
            -float("inf"),
            1.0,
        ),
    }
    identities: ClassVar[Mapping[str, str]] = {
        "ratio": "each block hands on what was added to the stream, so that the ratio is nearly 1 "
        "for any direction, whatever the network does; `additivity` leaves that copy out",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.site not in STREAMS:
            raise ValueError(f"site: '{self.site}' is not the stream: {', '.join(STREAMS)}")
        if self.blocks < 2:
            raise ValueError(f"blocks of {self.blocks}; a sum has at least 2 parts")
        if not self.sizes or min(self.sizes) <= 0 or len(set(self.sizes)) < len(self.sizes):
            raise ValueError("sizes: above 0, each once")

    def beyond(self, layers: int) -> str:
        late = [one for one in self.layers if one + self.blocks >= layers]
        if not late:
            return ""
        return (
            f"no block follows the {self.blocks} from {late[0]} on in a model of {layers} layers, "
            "so that nothing could be made of what they add"
        )

    def act(
        self, live: Live, subject: Subject, run: int, *, rng: np.random.Generator
    ) -> xr.Dataset:
        names, codes = self.categories(subject)
        kinds_of = self.plan(len(names)) if live.trained else ["own"]
        x = self.recorded(subject, run)
        length = float(np.median(np.linalg.norm(x, axis=1)))
        shape = len(codes), len(kinds_of), len(self.sizes), live.model.layers
        made = {name: np.zeros(shape) for name in SUMS}
        for fold, patterns, drawn in self.parts(subject, run, rng):
            along = self.directions(patterns, drawn, random=live.trained)
            which = self.chosen(codes[fold.test], len(names), kinds_of)
            for stimulus, targets in zip(fold.test, which, strict=True):
                found = self._added(live, run, stimulus, along[targets], length)
                for name in SUMS:
                    made[name][stimulus] = found[name]
        # A network that adds up: what came of the parts is what came of the whole.
        known = np.array(kinds_of) == "known"
        made["apart"][:, known] = 0
        made["many"][:, known] = made["one"][:, known]
        made["along_many"][:, known] = made["along_one"][:, known]
        dims = ("stimulus", "target", "size", "read")
        return xr.Dataset(
            {name: (dims, values.astype(np.float32)) for name, values in made.items()},
            coords={
                "stimulus": np.arange(len(codes)),
                "target": np.arange(len(kinds_of)),
                "size": list(self.sizes),
                "read": np.arange(live.model.layers),
                "target_kind": ("target", kinds_of),
            },
        ).expand_dims(layer=[run])

    def _added(
        self, live: Live, layer: int, stimulus: int, along: np.ndarray, length: float
    ) -> dict[str, np.ndarray]:
        """Add directions to a stimulus.

        Returns
        -------
        dict of str to numpy.ndarray
            direction x size x layer that is read: squared lengths of what the network made of the
            vector at once (``one``), in parts (``many``), of the difference (``apart``), and how
            far it moved along the direction.
        """
        at = list(live.acted[stimulus])
        behind = range(layer, layer + self.blocks)
        trials = [Trial(0, ())]
        for direction, size in np.ndindex(len(along), len(self.sizes)):
            value = along[direction] * self.sizes[size] * length
            for layers, times in (([layer], self.blocks), (behind, 1)):
                edit = Edit(self.site, "add", layers=layers, positions=at, value=times * value)
                trials.append(Trial(0, (edit,)))
        reads = [Site("resid_post", one) for one in range(layer, live.model.layers)]
        streams = np.empty((len(trials), len(reads), live.model.width))
        for found in sweep(
            live.model, [live.ids[stimulus]], trials, reads=reads, places=[at[-1]],
            predictions=False,
        ):  # fmt: skip
            streams[found.trials] = np.stack([found.activations[one] for one in reads], axis=1)
        moved = (streams[1:] - streams[0]).reshape(len(along), len(self.sizes), 2, len(reads), -1)
        # What the blocks so far were given along the direction, at once and in parts.
        given = np.minimum(np.arange(1, len(reads) + 1), self.blocks)
        times = np.stack([np.full(len(reads), self.blocks), given])
        amounts = np.array(self.sizes)[:, None, None] * length * times
        copies = amounts[..., None] * along[:, None, None, None]
        one, many = np.moveaxis(moved - copies, 2, 0)
        squared = {"apart": many - one, "one": one, "many": many}
        found = {name: np.sum(values**2, axis=-1) for name, values in squared.items()}
        for place, name in enumerate(("along_one", "along_many")):
            found[name] = np.einsum("dslu,du->dsl", moved[:, :, place], along)
        before = ((0, 0), (0, 0), (layer, 0))
        return {name: np.pad(values, before) for name, values in found.items()}

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say whether parts add up.

        Returns
        -------
        xarray.Dataset
            ``additivity`` (layer): of the first size, in the stream behind the last block;
            ``additivity_of`` (layer, arm): of all targets on average; ``ratio`` (layer) and
            ``ratio_of`` (layer, arm): how far the stream moved along the direction that was added
            in parts, over how far it did when it was added at once; ``additivity_of_size``
            (layer, size); ``additivity_at``, ``ratio_at`` (layer, read): in the stream behind every
            block from the last that was added behind on.

        Raises
        ------
        AnalysisError
            If the network makes nothing of what is added.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        # target x layer x size x read: sums over stimuli.
        sums = {
            name: values_of(volume, name, "target", "layer", "size", "read", "stimulus").sum(
                -1, dtype=float
            )
            for name in SUMS
        }
        count = volume.sizes["stimulus"]
        least = NOTHING * sums["along_one"][mine, ..., -1] ** 2 / count
        if not (sums["one"][mine, ..., -1] > least).all():
            raise AnalysisError(f"{subject.name}: its blocks make nothing of what is added")
        with np.errstate(divide="ignore", invalid="ignore"):
            additivity = 1 - np.sqrt(sums["apart"] / sums["one"])
            ratio = sums["along_many"] / sums["along_one"]
        layer, read = volume["layer"].to_numpy(), volume["read"].to_numpy()
        result = xr.Dataset(
            {
                "additivity": ("layer", additivity[mine, :, 0, -1], {"chance": 0.0}),
                "ratio": ("layer", ratio[mine, :, 0, -1]),
            },
            coords={"layer": layer},
        )
        if volume.sizes["target"] == 1:
            return result
        arms, additivity_of = by_kind(volume, additivity[:, :, 0, -1])
        _, ratio_of = by_kind(volume, ratio[:, :, 0, -1])
        begun = read < layer[:, None] + self.blocks - 1
        return result.assign(
            additivity_of=(("layer", "arm"), additivity_of),
            ratio_of=(("layer", "arm"), ratio_of),
            additivity_of_size=(("layer", "size"), additivity[mine, ..., -1]),
            additivity_at=(("layer", "read"), np.where(begun, np.nan, additivity[mine, :, 0])),
            ratio_at=(("layer", "read"), np.where(begun, np.nan, ratio[mine, :, 0])),
        ).assign_coords(arm=arms, size=volume["size"].to_numpy(), read=read)  # fmt: skip
