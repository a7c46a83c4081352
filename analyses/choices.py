"""Whether questions are answered: the likelihood of each option, by the engine of benchmarks.

An answer is right if its option is likelier than every other. Nothing that is said has to be read,
so that a model that knows is told apart from one that keeps to a format; what is said is for
`replies`. The engine is lm-evaluation-harness (Gao et al. 2024) around the model in the scanner,
so that subjects, twins, and a model without some part are asked in one way.

Where we differ from the tables of Tanwar et al. (2025): the sample is the items, and each share has
its interval (Wilson 1927): of 14 questions, as a subset has there, one is seven points. Beside the
share of all stands the mean of the categories, and what would be right by luck.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.acting import ANSWERS, Acting, own, values_of
from analyses.asking import (
    Form,
    LeftOut,
    Prompt,
    Question,
    World,
    check_settings,
    left_out,
    orders_of,
    questions_of,
    worlds_of,
)
from analyses.base import AnalysisError, Quantity, labels, register
from analyses.shares import all_kinds, macro, of_categories, of_items, wilson
from scanner import Live, Subject
from scanner.harness import Asked, HarnessError, likelihoods


@register
@dataclass(frozen=True)
class Choices(Acting):
    """Ask questions, and see which option is likeliest.

    Attributes
    ----------
    prompt : {'plain', 'letters', 'reasoned'}
        How questions are put: as they stand, each option being what follows; with the options
        behind letters, which are what follows; or that under the published system prompt.
    left_out : {'nothing', 'attention', 'mlp', 'block'}
        What adds nothing meanwhile.
    layers : tuple of int
        Of which it is left out, one after the other; where nothing is, one name for the results.
    random : int
        Dealings of right answers, and of questions.
    """

    prompt: Prompt = "plain"
    left_out: LeftOut = "nothing"
    layers: tuple[int, ...] = (0,)
    random: int = 3

    makes: ClassVar[tuple[str, ...]] = ("stimulus", "layer", "target")
    measures: ClassVar[Mapping[str, Quantity]] = {
        "accuracy": Quantity("the share of questions whose right option is likeliest", 0.0, 1.0),
        "normed": Quantity(
            "the share whose right option is likeliest for its number of letters", 0.0, 1.0
        ),
        "macro": Quantity("the mean over categories of the share answered right", 0.0, 1.0),
    }

    def __post_init__(self) -> None:
        check_settings(self.prompt, self.left_out, self.layers, self.random)

    def beyond(self, layers: int) -> str:
        last = max(self.layers)
        return f"{last} is none of the model's {layers} layers" if last >= layers else ""

    def runs(self, live: Live, subject: Subject) -> list[tuple[int, tuple[int, ...]]]:
        """The layer, and the worlds that are told from the same answers."""
        plan = self._worlds(live, subject, np.random.default_rng(0))
        alike = [one for one, world in enumerate(plan) if world.kind in ("own", "shuffled")]
        apart = [one for one, world in enumerate(plan) if world.kind not in ("own", "shuffled")]
        return [
            (layer, some) for layer in self.layers
            for some in (tuple(alike), *((one,) for one in apart))
        ]  # fmt: skip

    def act(
        self,
        live: Live,
        subject: Subject,
        run: tuple[int, tuple[int, ...]],
        *,
        rng: np.random.Generator,
    ) -> xr.Dataset:
        layer, some = run
        questions = questions_of(live, fewest=2)
        orders = orders_of(len(questions), len(questions[0].options), rng)
        plan = self._worlds(live, subject, rng)
        form = Form(self.prompt, live.recording.chat)
        asked = [
            _asked(form, questions, orders, plan[some[0]], row) for row in range(len(questions))
        ]
        edits = left_out(self.left_out, layer)
        try:
            found = likelihoods(live.model, asked, chat=form.conversation, edits=edits)
        except HarnessError as error:
            raise AnalysisError(f"choices: {error}") from None
        found = np.stack(found)
        sizes = np.array([[len(option.strip()) for option in one.options] for one in asked])
        margins = {
            name: np.stack([_ahead(values, plan[one].key) for one in some], axis=1)
            for name, values in (("margin", found), ("margin_normed", found / sizes))
        }
        told = {
            name: (("stimulus", "layer", "target"), one[:, None]) for name, one in margins.items()
        }
        return xr.Dataset(
            # What others read of it.
            {"choices": (told["margin"][0], answered(told["margin"][1]), ANSWERS), **told},
            coords={
                "stimulus": np.arange(len(asked)),
                "layer": [layer],
                "target": list(some),
                "target_kind": ("target", [plan[one].kind for one in some]),
                "by_luck": ("stimulus", np.full(len(asked), 1 / found.shape[1])),
            },
        )

    def _worlds(self, live: Live, subject: Subject, rng: np.random.Generator) -> list[World]:
        options = len(questions_of(live, fewest=2)[0].options)
        return worlds_of(subject, options, trained=live.trained, random=self.random, rng=rng)

    def measured(self, *subjects: Subject, variable: str, rng: np.random.Generator) -> xr.DataArray:
        (subject,) = subjects
        return self._measure(subject, variable)

    def _measure(self, subject: Subject, variable: str) -> xr.DataArray:
        volume = subject.volume
        right = self._right(subject, "margin_normed" if variable == "normed" else "margin")
        share = macro if variable == "macro" else of_items
        luck = volume["by_luck"].to_numpy()[None]
        return xr.DataArray(
            share(right[own(subject)], subject), dims="layer",
            coords={"layer": volume["layer"].to_numpy()},
            attrs={"chance": float(share(luck, subject)[0])},
        )  # fmt: skip

    def _right(self, subject: Subject, name: str) -> np.ndarray:
        """target x layer x stimulus."""
        return answered(values_of(subject.volume, name, "target", "layer", "stimulus"))

    def __call__(self, *subjects: Subject, rng: np.random.Generator) -> xr.Dataset:
        """Average over the frames of an item and then over items.

        Returns
        -------
        xarray.Dataset
            ``accuracy``, ``normed`` and ``macro`` (layer): the measures. ``answered`` (layer): the
            first, with ``answered_low`` and ``answered_high``, its interval at 95 %.
            ``answered_of`` (layer, arm): of the questions, of right answers dealt out anew, of
            options after another question, and after the answer was told. ``ahead_of``
            (layer, arm): by how much the right option is likelier than the next, nats.
            ``answered_by_category`` (layer, category).
        """
        (subject,) = subjects
        volume = subject.volume
        right = self._right(subject, "margin")
        margin = values_of(volume, "margin", "target", "layer", "stimulus")
        mine = right[own(subject)]
        shares = of_items(mine, subject)
        low, high = wilson(shares, len(np.unique(labels(subject, "item"))))
        kinds, of_kinds = all_kinds(volume, of_items(right, subject))
        ahead = all_kinds(volume, of_items(margin, subject))[1]
        names, each = of_categories(mine, subject)
        return xr.Dataset(
            {
                **{name: self._measure(subject, name) for name in self.measures},
                "answered": ("layer", shares),
                "answered_low": ("layer", low),
                "answered_high": ("layer", high),
                "answered_of": (("layer", "arm"), of_kinds),
                "ahead_of": (("layer", "arm"), ahead),
                "answered_by_category": (("layer", "category"), each),
            },
            coords={"layer": volume["layer"].to_numpy(), "arm": kinds, "category": names},
        )


def _asked(
    form: Form, questions: list[Question], orders: np.ndarray, world: World, row: int
) -> Asked:
    """The question that a world puts in the place of one, with its own options."""
    own_one = questions[row]
    question = Question(questions[world.donor[row]].text, own_one.options)
    put = form.put_again if world.kind == "known" else form.put
    return Asked(put(question, orders[row]), form.spoken(own_one, orders[row]))


def answered(margin: np.ndarray) -> np.ndarray:
    """1 where the right option is likelier than all others, a half where another is as likely."""
    return (np.sign(margin) + 1) / 2


def _ahead(values: np.ndarray, key: np.ndarray) -> np.ndarray:
    """stimulus: by how much the option that counts as right is likelier than the next."""
    rows = np.arange(len(values))
    others = values.copy()
    others[rows, key] = -np.inf
    return values[rows, key] - others.max(1)
