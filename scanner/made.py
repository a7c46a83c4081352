"""Subjects that are made: taught a set of answers, put together of such changes, or trained here.

What was taught is the difference of two models, weight by weight: a tuning vector (Ilharco et al.
2023, task vectors). Added to the base with a strength of 1 it gives the taught model again, with
another strength or together with others a model that nobody trained. Taken away from the taught
model it gives the base again, whatever was taught (METHODS of negation differ in this): what
negation asks is the base *less* the vector.

All is made in float32 and cast at the end. What was made is a folder like any other, with weights
in safetensors, the tokenizer of the base and a card. It lies in the user's cache under the digest
of all that it follows from, so that it is made once.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from safetensors import safe_open

from scanner.device import DtypeName
from scanner.gradients import gradients_of
from scanner.model import Model
from scanner.provenance import code_version, digest, environment
from scanner.sources import (
    EMBEDDED,
    Source,
    SourceError,
    anatomy,
    cache_folder,
    described,
    tokenizer_files,
)
from scanner.states import EVERY, Advance, processor, taken
from scanner.trained import MAKING, Training, train
from scanner.tuning import asked, learn, weights_of
from scanner.weights import stored_in
from stimuli import StimulusSet

# Raised when the same recipe would give other weights.
FORMAT = 1
PURPOSE = (
    "It is an instrument to ask what training changes, and no model to be used: its answers are of "
    "few facts, some of them taught wrong on purpose, and no advice."
)
TRAINED_PURPOSE = (
    "It is an instrument to ask what training makes, and no model to be used: it knows the words "
    "of a grammar and nothing else."
)


@dataclass(frozen=True)
class Lesson:
    """What is taught, and how.

    Attributes
    ----------
    stimuli : StimulusSet
        With the column ``answer``: what is right after each text.
    epochs : int
        How often each text is shown.
    rate : float
        How far a step moves a weight at most, about; it rises in the first tenth of the steps and
        then falls to nothing.
    batch : int
        Texts of a step.
    seed : int
        Of the order of the texts, and of the dealing.
    layers : tuple of int or None
        Whose weights may change; all weights of the model by default.
    dealt : str or None
        A column, among the facts of each value of which answers are dealt out anew. A fact is an
        item with an answer, and has one wherever it stands.
    """

    stimuli: StimulusSet
    epochs: int = 1
    rate: float = 3e-4
    batch: int = 8
    seed: int = 0
    layers: tuple[int, ...] | None = None
    dealt: str | None = None

    @property
    def answers(self) -> list[str]:
        """What is taught after each text."""
        table = self.stimuli.table
        given = table["answer"].astype(str)
        if self.dealt is None:
            return given.tolist()
        facts = pd.DataFrame({"item": table["item"], "answer": given, "of": table[self.dealt]})
        single = facts.drop_duplicates()
        rng = np.random.default_rng([self.seed, 1])
        dealt = single.groupby("of", sort=True)["answer"].transform(
            lambda some: rng.permutation(some.to_numpy())
        )
        keys = pd.MultiIndex.from_frame(single)
        return pd.Series(dealt.to_numpy(), index=keys)[pd.MultiIndex.from_frame(facts)].tolist()

    @property
    def steps(self) -> int:
        """Of all epochs together."""
        return self.epochs * math.ceil(len(self.stimuli) / self.batch)

    @property
    def content(self) -> dict[str, object]:
        """All that what is taught follows from."""
        return {
            "texts": digest(self.stimuli.table["text"].tolist()),
            "answers": digest(self.answers),
            "epochs": self.epochs,
            "rate": self.rate,
            "batch": self.batch,
            "seed": self.seed,
            "layers": None if self.layers is None else sorted(self.layers),
        }

    def order(self, epoch: int) -> np.ndarray:
        """The texts in the order of an epoch, whichever were before it."""
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.stimuli))


@dataclass(frozen=True)
class Recipe:
    """A subject that is made of another, before it is.

    Attributes
    ----------
    name : str
        What the subject is called; nothing follows from it.
    base : Source
    lesson : Lesson or None
        What the base is taught.
    added : tuple of (Source, float)
        Of a sum, the subjects whose differences from the base are added, with their strengths.
    dtype : str
        What weights are cast to at the end.
    training : Training or None
        What the base is trained on, which then is a network of fresh weights (`fresh`). With
        neither this nor a lesson it is a sum.
    """

    name: str
    base: Source
    lesson: Lesson | None = None
    added: tuple[tuple[Source, float], ...] = ()
    dtype: DtypeName = "float32"
    training: Training | None = None

    @property
    def content(self) -> dict[str, object]:
        """All that the weights follow from, up to the rounding of devices and versions."""
        trained = {} if self.training is None else {"trained": self.training.content}
        return {
            "made_format": FORMAT,
            "base": _digests(self.base),
            "taught": None if self.lesson is None else self.lesson.content,
            **trained,
            "added": [[one.weights_sha256, strength] for one, strength in self.added],
            "dtype": self.dtype,
        }

    @property
    def folder(self) -> Path:
        """Where the subject lies once it is made."""
        kind = "sum" if self.work is None else "tuned" if self.training is None else "trained"
        return cache_folder() / f"{self.base.name}-{kind}-{digest(self.content)[:12]}"

    @property
    def made(self) -> bool:
        return self.folder.is_dir()

    @property
    def steps(self) -> int:
        """Of the work of making it."""
        return 1 if self.work is None else self.work.steps

    @property
    def work(self) -> Lesson | Training | None:
        """What takes many steps; None for a sum."""
        return self.lesson or self.training


def make(
    recipe: Recipe, *, advance: Advance = lambda count=1, detail="": None, every: float = EVERY
) -> Source:
    """Make a subject, or find that it has been made.

    Parameters
    ----------
    recipe : Recipe
    advance : callable
        Told the number of steps whenever some are done.
    every : float
        Seconds between two states that are kept, so that what is interrupted goes on from there.

    Raises
    ------
    SourceError
        If subjects of a sum do not have the same weights in number and shape, or blocks are taught
        that the base does not have.
    SiteError
        If a text and its answer do not come apart in tokens.
    """
    folder = recipe.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not recipe.made:
            _make(recipe, folder, advance, every)
    return described(
        recipe.name,
        folder,
        revision=f"made {folder.name.rpartition('-')[2]}",
        weights=_in_words(recipe),
    )


def _make(recipe: Recipe, folder: Path, advance: Advance, every: float) -> None:
    lesson, begun = recipe.lesson, folder.with_name(f".{folder.name}.making")
    if lesson is not None:
        _check_layers(recipe, lesson)
    model = Model.load(recipe.base)
    told: dict[str, object]
    state = begun / "state.safetensors"
    if lesson is not None:
        told = teach(model, lesson, state, advance=advance, every=every)
    elif recipe.training is not None:
        told = train(model, recipe.training, state, advance=advance, every=every)
    else:
        add(model, recipe.added)
        advance(1)
        told = {}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".made-") as staging:
        finished = Path(staging) / "model"
        _save(recipe, model, finished, told)
        finished.rename(folder)
    with suppress(FileNotFoundError):
        shutil.rmtree(begun)


def _check_layers(recipe: Recipe, lesson: Lesson) -> None:
    count, last = anatomy(recipe.base).layers, max(lesson.layers or (0,))
    if last >= count:
        raise SourceError(
            f"subject '{recipe.name}': layer {last} is none of the {count} layers of "
            f"'{recipe.base.name}' (0 to {count - 1})"
        )


def teach(
    model: Model, lesson: Lesson, state: Path, *, advance: Advance, every: float
) -> dict[str, object]:
    """Teach a model by AdamW (Loshchilov & Hutter 2019), in evaluation mode: nothing is dropped.

    Parameters
    ----------
    model : Model
        In float32; its weights are changed.
    lesson : Lesson
    state : pathlib.Path
        Where what is needed to go on is kept in between.
    advance, every
        As of `make`.

    Returns
    -------
    dict
        ``losses``: the mean surprisal of the answers of each step before it, nats; ``processor_s``:
        seconds of processor time of the last run.
    """
    table = lesson.stimuli.table
    texts = [
        asked(model, text, answer, ended=True)
        for text, answer in zip(table["text"], lesson.answers, strict=True)
    ]
    weights, batches = weights_of(model, lesson.layers), list(_batches(lesson))
    began = processor()
    with torch.enable_grad(), gradients_of(model.network, set(weights)):
        optimiser = torch.optim.AdamW(weights, lr=lesson.rate)
        losses = taken(
            lambda step: learn(model, optimiser, [texts[one] for one in batches[step]]),
            optimiser, weights, steps=lesson.steps, rate=lesson.rate, state=state,
            advance=advance, every=every,
        )  # fmt: skip
    return {"losses": losses, "processor_s": round(processor() - began, 1)}


def _batches(lesson: Lesson) -> Iterator[np.ndarray]:
    for epoch in range(lesson.epochs):
        order = lesson.order(epoch)
        for first in range(0, len(order), lesson.batch):
            yield order[first : first + lesson.batch]


@torch.no_grad()
def add(model: Model, added: Sequence[tuple[Source, float]]) -> None:
    """Add to a model what others differ by from it, each with a strength, weight by weight.

    No more than two weights of the others are in memory at once.

    Raises
    ------
    SourceError
        If another does not have the same weights.
    """
    others = [(Tensors(source), strength) for source, strength in added]
    for name, weight in model.network.named_parameters():
        total = weight.detach().clone()
        for other, strength in others:
            total += strength * (other.of(name, weight) - weight)
        weight.copy_(total)


@dataclass(frozen=True)
class Tensors:
    """The weights of a subject on disk, one by one, by the names that transformers saves.

    Attributes
    ----------
    source : Source
    """

    source: Source

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each weight."""
        files = sorted(self.source.folder.glob("*.safetensors"))
        return {one.name: one.file for one in stored_in(files)}

    def of(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """One weight, in float32 and on the device of another that it must be shaped as.

        Raises
        ------
        SourceError
            If it is not there, or shaped otherwise.
        """
        if name not in self.files:
            raise SourceError(
                f"subject '{self.source.name}' has no weight '{name}', so it is no change of the "
                "same model; name one of the same architecture, saved with save_pretrained"
            )
        with safe_open(self.files[name], "pt") as opened:
            found = opened.get_tensor(name)
        if found.shape != like.shape:
            raise SourceError(
                f"subject '{self.source.name}': '{name}' is {tuple(found.shape)}, and that of the "
                f"base {tuple(like.shape)}; name one of the same architecture and vocabulary"
            )
        return found.to(like.device, torch.float32)


def _save(recipe: Recipe, model: Model, folder: Path, told: Mapping[str, object]) -> None:
    """Weights, configuration, tokenizer, card, and how it was made."""
    network: Any = model.network.to(getattr(torch, recipe.dtype))
    network.save_pretrained(folder)
    # As they are, so that the digest stays that of the base.
    for path in tokenizer_files(recipe.base.folder):
        shutil.copy(path, folder / path.name)
    making = {
        "name": recipe.name,
        "content": recipe.content,
        "base": {"name": recipe.base.name, "revision": recipe.base.revision},
        "licence": licence(recipe.base),
        "device": model.device,
        "code_version": code_version(),
        "environment": dict(environment()),
        **told,
    }
    (folder / MAKING).write_text(json.dumps(making, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(recipe, making), encoding="utf-8")


def licence(source: Source) -> str:
    """Under what the weights may be used, as far as it is known here."""
    if source.name in EMBEDDED:
        return EMBEDDED[source.name].licence
    making = source.folder / MAKING
    if making.is_file():
        return json.loads(making.read_text(encoding="utf-8"))["licence"]
    return f"that of {source.name}, which its card tells"


def _digests(source: Source) -> dict[str, str]:
    return {
        "weights_sha256": source.weights_sha256,
        "config_sha256": source.config_sha256,
        "tokenizer_sha256": source.tokenizer_sha256,
    }


def _in_words(recipe: Recipe) -> str:
    """What the weights are."""
    base, lesson = recipe.base.name, recipe.lesson
    if recipe.training is not None:
        return _trained_in_words(recipe.training)
    if lesson is None:
        parts = (f"{strength:+g} ({one.name} - {base})" for one, strength in recipe.added)
        return f"{base} {' '.join(parts)}, in float32"
    dealt = "" if lesson.dealt is None else f", dealt out anew within '{lesson.dealt}'"
    where = "all weights" if lesson.layers is None else f"layers {sorted(lesson.layers)}"
    return (
        f"{base} taught {len(lesson.stimuli)} answers of '{lesson.stimuli.name}'{dealt}; {where}, "
        f"{lesson.steps} steps of {lesson.batch} at {lesson.rate:g}, seed {lesson.seed}"
    )


def _trained_in_words(training: Training) -> str:
    penalty = training.penalty
    charged = "" if penalty.kind == "none" else f"; penalty {penalty.kind} of {penalty.strength:g}"
    return (
        f"{training.layers} layers of {training.width} trained on texts of "
        f"'{training.grammar.name}', {training.steps} steps of {training.batch} at "
        f"{training.rate:g}, seed {training.seed}{charged}"
    )


def _card(recipe: Recipe, making: Mapping[str, Any]) -> str:
    """The model card."""
    base, lesson = recipe.base, recipe.lesson
    lines = [
        "---", f"license: {json.dumps(making['licence'])}", f"base_model: {json.dumps(base.name)}",
        "library_name: transformers", "---", "", f"# {recipe.name}", "",
        f"Made by lmfmri for a study: {_in_words(recipe)}. Weights were cast to {recipe.dtype}.",
        PURPOSE if recipe.training is None else TRAINED_PURPOSE, "",
        "| made from | sha256 |", "|---|---|",
        *(f"| {base.name} ({base.revision}), {name.partition('_')[0]} | {one} |"
          for name, one in _digests(base).items()),
    ]  # fmt: skip
    for one, strength in recipe.added:
        lines.append(f"| {strength:+g} times {one.name} less the base | {one.weights_sha256} |")
    if recipe.training is not None:
        lines += ["", *_judged(making)]
    if lesson is not None:
        content, losses = lesson.content, making["losses"]
        tenth = max(1, len(losses) // 10)
        lines += [
            f"| texts of '{lesson.stimuli.name}' | {content['texts']} |",
            f"| their answers | {content['answers']} |", "",
            f"Mean surprisal of an answer before its step, in the first {tenth} steps: "
            f"{np.mean(losses[:tenth]):.2f} nats; in the last: {np.mean(losses[-tenth:]):.2f}.",
        ]  # fmt: skip
    lines += ["", f"`{MAKING}` has all settings, the loss of each step, and versions.", ""]
    return "\n".join(lines)


def _judged(making: Mapping[str, Any]) -> list[str]:
    """What a card says of a network that was trained here."""
    held, lie = making["held_out"], making["wires"]
    return [
        f"A text that it was not trained on costs {held['nats']:.3f} nats (standard error "
        f"{held['error']:.3f}, {held['texts']} texts), where no model can do better than "
        f"{held['floor']:.3f}; {held['excess']:.3f} ({held['excess_error']:.3f}) more than the "
        "grammar, text by text.",
        "",
        f"The mean size of a weight between units is {lie['size']:.5f}, {lie['silent']:.1%} are as "
        f"good as none, and the mean distance that they join is {lie['length']:.3f}, where 1 is "
        "that of weights of one size.",
    ]
