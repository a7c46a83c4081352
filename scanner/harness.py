"""Questions put to a live model by lm-evaluation-harness, the engine that benchmarks are run with.

The engine is given the model that is in the scanner, with whatever is done to it: a twin, a subject
that was made, an intervention. Its tasks are files in `tasks/`, and it computes what it computes
for anyone. Where its defaults would be wrong without a word, they are set or refused here:

- a text that is too long is cut on the left, with a line in a log: here it is an error;
- texts of a conversation are given a begin-of-text token if the tokenizer has one, and so may have
  two or one that the template leaves out: here a template's text is taken as it stands;
- a system prompt that a template has no place for is left out: here it is an error;
- replies are generated from texts that are filled up on the left, where an intervention that leaves
  out the first token leaves out a filler, and a recurrent network reads it: there texts of one
  length go together;
- replies follow the settings that the publisher left with the model, a penalty on repetition among
  them, and are cut at an empty line: here the likeliest token is taken, to the end of the text;
- the tokenizer is given a filler of its own: here that is done to a copy;
- probabilities of a model in half precision are added up in that: here in float32.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, partial
from importlib.util import find_spec
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer

from scanner.generation import PICTURES
from scanner.interventions import Edit
from scanner.model import Model
from scanner.reading import Chat, conversations

TASKS = Path(__file__).parent / "tasks"
# Texts of one pass.
TOGETHER = 16
# Tokens that texts must begin with in common for these to be read once for all of them.
BEGINNING = 64


class HarnessError(ValueError):
    """What the engine cannot be asked; the message says what to do."""


class Asked(NamedTuple):
    """A question with options, each as it would stand after it, with its space."""

    text: str
    options: tuple[str, ...]


class Reply(NamedTuple):
    """What a model says to a text.

    Attributes
    ----------
    text : str
        Without special tokens; control characters as in `continued`.
    stopped : bool
        Whether the model ended it, before as many tokens were said as it was given.
    """

    text: str
    stopped: bool


def missing() -> str:
    """Why the engine cannot be used; empty if it can."""
    if find_spec("lm_eval") is None:
        return "needs lm-evaluation-harness; install it with: pip install 'lmfmri[behaviour]'"
    return ""


def likelihoods(
    model: Model,
    asked: Sequence[Asked],
    *,
    chat: Chat | None = None,
    edits: Sequence[Edit] = (),
) -> list[np.ndarray]:
    """How likely each option is after its question.

    Parameters
    ----------
    model : Model
    asked : sequence of Asked
    chat : Chat, optional
        Put each question as what the user says in a conversation.
    edits : sequence of Edit
        What is done to the model meanwhile; texts of a pass are filled up on the right.

    Returns
    -------
    list of numpy.ndarray
        Of each question, by option: the logarithm of the probability of all its tokens, nats.

    Raises
    ------
    HarnessError
        If a question with an option is longer than the model reads, or an option has no token.
    StimulusError
        If there is no chat template, or it changes a text.
    """
    texts = _put(model, [one.text for one in asked], chat)
    rows = [
        {"asked": text, "options": list(one.options), "right": 0}
        for text, one in zip(texts, asked, strict=True)
    ]
    engine = _engine(model, special=chat is None)
    for row in rows:
        for option in row["options"]:
            before, after = engine._encode_pair(row["asked"], option)
            _check_room(model, row["asked"], len(before) + len(after))
            if not after:
                raise HarnessError(f"'{option}' has no token of its own after '{row['asked']}'")
    samples = _evaluated(model, engine, _task("options"), rows, edits)
    return [np.array([value for ((value, _),) in one["resps"]]) for one in samples]


def replies(
    model: Model,
    texts: Sequence[str],
    *,
    tokens: int,
    chat: Chat | None = None,
    edits: Sequence[Edit] = (),
) -> list[Reply]:
    """What a model says to each text, the likeliest token after the other.

    Parameters
    ----------
    model : Model
    texts : sequence of str
    tokens : int
        How many it may say.
    chat, edits
        As of `likelihoods`. Edits without positions act on what is said as well.

    Raises
    ------
    HarnessError
        If a text with its reply may be longer than the model reads.
    StimulusError
        If there is no chat template, or it changes a text.
    """
    put = _put(model, texts, chat)
    engine = _engine(model, special=chat is None)
    for text in put:
        _check_room(model, text, len(engine.tok_encode(text)) + tokens)
    if not edits:  # which are of places in the whole text
        engine.begin(put)
    task = _task("reply")
    task["generation_kwargs"] = {**task["generation_kwargs"], "max_gen_toks": tokens}
    rows = [{"asked": text, "right": ""} for text in put]
    samples = _evaluated(model, engine, task, rows, edits)
    return [
        Reply(one["resps"][0][0].translate(PICTURES), engine.stopped[text])
        for one, text in zip(samples, put, strict=True)
    ]


def _put(model: Model, texts: Sequence[str], chat: Chat | None) -> list[str]:
    return list(texts) if chat is None else conversations(model, list(texts), chat)[0]


def _check_room(model: Model, text: str, tokens: int) -> None:
    if model.context is not None and tokens > model.context:
        shown = text if len(text) <= 60 else f"{text[:57]}…"
        raise HarnessError(
            f"'{shown}' has {tokens} tokens with what follows it; '{model.source.name}' reads at "
            f"most {model.context}. Shorten it, or ask for fewer tokens"
        )


def _task(name: str) -> dict[str, Any]:
    return yaml.safe_load((TASKS / f"{name}.yaml").read_text(encoding="utf-8"))


def _evaluated(
    model: Model,
    engine: Any,
    task: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    edits: Sequence[Edit],
) -> list[dict[str, Any]]:
    """What the engine logs of each question."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    def documents() -> dict[str, Dataset]:
        return {"test": Dataset.from_list([dict(row) for row in rows])}

    with silently(), _plain_generation(model), model.intervene(edits):
        made = ConfigurableTask(config={**task, "custom_dataset": documents})
        found: Any = evaluate(engine, {task["task"]: made}, bootstrap_iters=0, log_samples=True)
    return sorted(found["samples"][task["task"]], key=lambda one: one["doc_id"])


def _engine(model: Model, *, special: bool) -> Any:
    """The engine around a model; whether the tokenizer adds its special tokens."""
    with silently():
        return _engine_class()(
            pretrained=model.network,
            backend="causal",
            tokenizer=deepcopy(model.tokenizer),
            batch_size=TOGETHER,
            max_length=model.context,
            softmax_dtype="float32",
            add_bos_token=None if special else False,
        )


@cache
def _engine_class() -> type[Any]:
    """Made when it is asked for: what it is made from is imported then, and takes seconds."""
    why = missing()
    if why:
        raise HarnessError(why)
    with silently():
        from lm_eval.models.huggingface import HFLM

    typed: Any = HFLM  # the registry of the engine takes its type away

    class Engine(typed):
        """The engine's own model class, with no bars, and with texts of one length together.

        Attributes
        ----------
        stopped : dict of str to bool
            Of each text, whether the model ended its reply.
        """

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.stopped: dict[str, bool] = {}
            self._begun: Any = None
            self._padded = False

        @torch.inference_mode()
        def begin(self, texts: Sequence[str]) -> None:
            """Find out whether texts can be read together, and read once what all begin with.

            Instructions are longer than questions are. Of a recurrent network a state is kept,
            which fillers would change; a window that slides counts them.
            """
            ids = [self.tok_encode(text) for text in dict.fromkeys(texts)]
            shared = commonprefix([*ids, min(ids, key=len)[:-1]])  # something is left to be read
            shares = len(ids) > 1 and len(shared) >= BEGINNING
            read = torch.tensor([shared if shares else ids[0][:1]], device=self.device)
            found = self.model(input_ids=read, use_cache=True).get("past_key_values")
            self._padded = type(found) is DynamicCache and all(
                type(one) is DynamicLayer for one in found.layers
            )
            if shares and self._padded:
                self._begun = found

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            if self._padded:
                return super().generate_until(requests, True)
            by_length: dict[int, list[int]] = {}
            for place, one in enumerate(requests):
                by_length.setdefault(len(self.tok_encode(one.args[0])), []).append(place)
            said: list[str] = [""] * len(requests)
            for places in by_length.values():
                some = [requests[place] for place in places]
                for place, text in zip(places, super().generate_until(some, True), strict=True):
                    said[place] = text
            return said

        def tok_batch_encode(self, strings: Any, *args: Any, **settings: Any) -> Any:
            self._read = list(strings)
            return super().tok_batch_encode(strings, *args, **settings)

        def _model_generate(self, context: Any, max_length: int, stop: Any, **settings: Any) -> Any:
            if self._begun is not None:
                begun = deepcopy(self._begun)
                begun.batch_repeat_interleave(len(context))
                mask = settings["attention_mask"]
                order = _fillers_behind(mask, begun.get_seq_length())
                context = context.gather(1, order)
                settings |= {"past_key_values": begun, "attention_mask": mask.gather(1, order)}
            made = super()._model_generate(context, max_length, stop, **settings)
            ends = set(self.model.generation_config.eos_token_id or ())
            for text, row in zip(self._read, made[:, context.shape[1] :].tolist(), strict=True):
                self.stopped[text] = bool(ends & set(row))
            return made

    return Engine


def _fillers_behind(mask: torch.Tensor, size: int) -> torch.Tensor:
    """An order of columns in which fillers stand behind the first tokens of each row.

    Parameters
    ----------
    mask : torch.Tensor
        row x column: 0 for a filler, all of which stand on the left.
    size : int
        How many tokens those are.
    """
    column = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    fillers = (mask == 0).sum(1, keepdim=True)
    filled = torch.where(column < size + fillers, column - size, column)
    return torch.where(column < size, column + fillers, filled)


def _ends(model: Model) -> set[int]:
    """The tokens that end a text: the publisher's, and the tokenizer's own."""
    known = model.network.generation_config
    told = None if known is None else known.eos_token_id
    every = told if isinstance(told, list) else [told]
    return {one for one in (*every, model.tokenizer.eos_token_id) if one is not None}


@contextmanager
def _plain_generation(model: Model) -> Iterator[None]:
    """Take the likeliest token, whatever the publisher's settings are."""
    network: Any = model.network
    before = network.generation_config
    network.generation_config = GenerationConfig(
        eos_token_id=sorted(_ends(model)) or None, pad_token_id=model.filler
    )
    try:
        yield
    finally:
        network.generation_config = before


@contextmanager
def silently() -> Iterator[None]:
    """Keep bars and lines of the engine off a terminal that has ours."""
    import datasets
    import lm_eval.api.task as tasks

    logger, bars = logging.getLogger("lm_eval"), tasks.tqdm
    level, others = logger.level, datasets.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    tasks.tqdm = partial(bars, disable=True)  # it has no other switch
    try:
        yield
    finally:
        logger.setLevel(level)
        tasks.tqdm = bars
        if others:
            datasets.enable_progress_bars()
