"""Which way the difference between two texts goes: from where it is sent, to who receives it.

Path patching (Wang et al. 2023; Goldowsky-Dill et al. 2023). The stimuli are pairs of texts, as of
`analyses.patching`. What each attention or MLP adds to the stream at a place of one text is
exchanged for what it adds in the other, and a single receiver sees it: the attention or the MLP of
a later block, or the prediction itself, which is the direct effect. How much of the way from one
answer to the other that goes stands beside how much it goes when everything sees it.

Beside it, what is sent comes from other texts, which ask for the word that is there already: it is
as far from what was sent, and says nothing of the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr

from analyses.acting import Acting, kinds, own, values_of
from analyses.base import AnalysisError, Quantity, register
from analyses.pairs import Pairs, Place, check_apart, of_another, pairs_of, position
from scanner import (
    Live,
    Pair,
    Site,
    Subject,
    Trial,
    patched,
    path_patched,
    share_of_way,
    sweep,
)  # fmt: skip
from scanner.paths import FIRST, SECOND, SENDERS
from scanner.sites import MEANINGS, Kind

Sender = Literal["attn_out_post", "mlp_out_post"]
PREDICTION = "prediction"
# Receivers of which one head may be chosen.
HEADED = tuple(kind for kind in FIRST if "head" in MEANINGS[kind].dims[0])
# Pairs of a run.
STIMULI = 8


@register
@dataclass(frozen=True)
class Paths(Acting):
    """Send the difference of two texts to one receiver.

    Attributes
    ----------
    sender : {'attn_out_post', 'mlp_out_post'}
        What sends, in every layer, one at a time.
    receiver : str
        ``prediction``, or a kind of site of a block that reads the stream.
    at : int, optional
        The layer of the receiver; the prediction has none.
    head : int, optional
        One head of the receiver, where it has some: of queries, of keys and values, or of ``z``.
    place : {'target', 'next', 'last'}
        The token at which it is sent: as of ``patching``.
    into : {'corrupt', 'clean'}
        Which text is changed; the other gives.
    random : int
        Other texts that give.
    """

    sender: Sender = "attn_out_post"
    receiver: Kind | Literal["prediction"] = PREDICTION
    at: int | None = None
    head: int | None = None
    place: Place = "last"
    into: Literal["corrupt", "clean"] = "corrupt"
    random: int = 6

    measures: ClassVar[Mapping[str, Quantity]] = {
        "share": Quantity(
            "how much of the way from one answer to the other goes through the receiver alone: 0 "
            "for none of it, 1 for all",
            -float("inf"),
            float("inf"),
        ),
    }

    def __post_init__(self) -> None:
        if self.sender not in SENDERS:
            raise ValueError(f"sender: '{self.sender}' is none of {', '.join(SENDERS)}")
        if self.receiver not in (PREDICTION, *FIRST, *SECOND):
            known = ", ".join((PREDICTION, *FIRST, *SECOND))
            raise ValueError(f"receiver: '{self.receiver}' is none of {known}")
        if (self.at is None) != (self.receiver == PREDICTION):
            needs = "has no layer" if self.at is not None else "needs a layer, `at`"
            raise ValueError(f"receiver: '{self.receiver}' {needs}")
        if self.at is not None and self.at < 0:
            raise ValueError(f"at: {self.at}; layers count from 0")
        if self.head is not None and self.receiver not in HEADED:
            raise ValueError(f"head: '{self.receiver}' has none; {', '.join(HEADED)} have")
        if self.head is not None and self.head < 0:
            raise ValueError(f"head: {self.head}; heads count from 0")
        if self.random < 0:
            raise ValueError(f"random of {self.random}; it must be at least 0")

    def beyond(self, layers: int) -> str:
        late = self.at is not None and self.at >= layers
        return f"{self.at} is none of the model's {layers} layers" if late else ""

    def identity_at(self, measure: str, layer: int, layers: int) -> str:
        if self.receiver == PREDICTION and self.place != "last":
            return "the prediction reads the stream of the last token alone"
        first = self.sender == "attn_out_post" and self.receiver in SECOND
        if self.at is not None and layer >= self.at + first:
            return "the sender stands behind the receiver"
        return ""

    def runs(self, live: Live, subject: Subject) -> list[tuple[str, range]]:
        """Stimuli for what is shown beside it, and for each giver."""
        pairs = pairs_of(live)  # what is wrong with them is said before anything is done
        self._others(pairs, np.random.default_rng(0))
        if self.head is not None and self.receiver != PREDICTION:
            heads = live.model.structure.sizes[self.receiver][0]
            if self.head >= heads:
                raise AnalysisError(
                    f"paths: head {self.head} is none of the {heads} of '{self.receiver}'"
                )
        count = len(live.ids)
        named = ["own", *(["shown", *["other"] * self.random] if live.trained else [])]
        return [
            *((kind, range(count)) for kind in ("texts", *(["known"] if live.trained else []))),
            *(
                (f"{kind} {number}", range(one, min(one + STIMULI, count)))
                for number, kind in enumerate(named)
                for one in range(0, count, STIMULI)
            ),
        ]

    def act(
        self, live: Live, subject: Subject, run: tuple[str, range], *, rng: np.random.Generator
    ) -> xr.Dataset:
        what, some = run
        pairs, model = pairs_of(live), live.model
        if what == "texts":
            base, donor = self._ends(pairs)
            both = {"base": ("stimulus", base), "donor": ("stimulus", donor)}
            return xr.Dataset(both, coords={"stimulus": np.array(some)})
        if what == "known":  # all of the way, whatever the layer
            _, donor = self._ends(pairs)
            return _sent(np.repeat(donor[:, None], model.layers, axis=1), some, what, -1)
        kind, number = what.split()
        givers = np.arange(len(live.ids))
        if kind == "other":
            drawn = np.random.default_rng([int(rng.integers(2**32)), int(number)])
            givers = self._others(pairs, drawn)
        asked = [self._pair(pairs, one, givers[one]) for one in some]
        if kind == "shown":
            made = patched(model, asked, [self.sender], into=self.into)
        else:
            made = path_patched(
                model, asked, self._site(model.layers),
                heads=None if self.head is None else [self.head],
                senders=[self.sender], into=self.into,
            )  # fmt: skip
        return _sent(made.difference[:, 0, :, 0], some, kind, int(number))

    def _ends(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """By how much the right word of the clean text is ahead in the text that is changed, and
        in the one that gives."""
        ends = []
        for live in (pairs.corrupt, pairs.clean):
            trials = [Trial(text, ()) for text in range(len(live.ids))]
            made = np.empty(len(trials))
            for found in sweep(live.model, live.ids, trials, answers=pairs.answers):
                made[found.trials] = found.logits[:, 0] - found.logits[:, 1]
            ends.append(made)
        taker, giver = ends if self.into == "corrupt" else ends[::-1]
        return taker, giver

    def _site(self, layers: int) -> Site:
        if self.receiver == PREDICTION:
            return Site("resid_post", layers - 1)
        return Site(self.receiver, self.at)

    def _pair(self, pairs: Pairs, text: int, giver: int) -> Pair:
        """A pair, or one whose giver is another text with the word of the one that is changed."""
        at = [position(pairs.clean, text, self.place)]
        clean, corrupt = pairs.clean.ids[text], pairs.corrupt.ids[text]
        if giver != text:
            if self.into == "corrupt":
                clean = pairs.corrupt.ids[giver]
            else:
                corrupt = pairs.clean.ids[giver]
        return Pair(clean, corrupt, pairs.answers[text], at)

    def _others(self, pairs: Pairs, rng: np.random.Generator) -> np.ndarray:
        """For each text another one of as many tokens, with the same answer and target's place.

        Raises
        ------
        AnalysisError
            If there is none.
        """
        alike = [
            (answers, len(ids), target)
            for answers, ids, target in zip(
                pairs.answers, pairs.clean.ids, pairs.clean.targets, strict=True
            )
        ]
        found = of_another(rng, alike)
        alone = np.flatnonzero(found == np.arange(len(found)))
        if self.random and alone.size:
            raise AnalysisError(
                f"stimulus {alone[0]} is the only one of {len(pairs.clean.ids[alone[0]])} tokens "
                "that asks for its word at its place, so no other text can be sent in its stead"
            )
        return found

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Say how far it goes.

        Returns
        -------
        xarray.Dataset
            ``share`` (layer); ``share_of`` (layer, arm): on the path, on all paths, and of other
            texts on average; ``on_the_path`` (scalar): of what all senders together do, each by
            itself and on all paths, how much goes there.

        Raises
        ------
        AnalysisError
            If the texts of pairs do not differ in their answers.
        """
        (subject,) = subjects
        volume, mine = subject.volume, own(subject)
        base, donor = volume["base"].to_numpy(), volume["donor"].to_numpy()
        check_apart(subject, base, donor)
        sent = values_of(volume, "sent", "target", "layer", "stimulus").astype(float)
        shares = share_of_way(sent - base, donor - base)
        result = xr.Dataset(
            {"share": ("layer", shares[mine], {"chance": 0.0})},
            coords={"layer": volume["layer"].to_numpy()},
        )
        given = kinds(volume)
        if "shown" not in given:
            return result
        (everywhere,) = shares[given == "shown"]
        arms = {"on the path": shares[mine], "on all paths": everywhere}
        if "other" in given:
            arms["random: other"] = shares[given == "other"].mean(0)
        total = float(np.abs(everywhere).sum())
        return result.assign(
            share_of=(("layer", "arm"), np.stack(list(arms.values()), 1)),
            on_the_path=float(np.abs(shares[mine]).sum()) / total if total > 0 else np.nan,
        ).assign_coords(arm=list(arms))


def _sent(values: np.ndarray, some: range, kind: str, target: int) -> xr.Dataset:
    """One target of some stimuli, stimulus x layer."""
    return xr.Dataset(
        {"sent": (("stimulus", "layer", "target"), values[..., None].astype(np.float32))},
        coords={
            "stimulus": np.array(some),
            "layer": np.arange(values.shape[1]),
            "target": [target],
            "target_kind": ("target", [kind]),
        },
    )
