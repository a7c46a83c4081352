"""How stimuli are read: their token ids, and the tokens whose activations are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from scanner.model import Model
from scanner.sites import KINDS
from scanner.volume import DIMENSIONS
from stimuli import StimulusError, StimulusSet
from stimuli.stimulus_set import SPAN

TokensName = Literal["target", "target_mean", "last", "mean", "all"]
# A name, or positions counted from 0 (from the end where they are negative).
Tokens = TokensName | tuple[int, ...]
# Labels that are read off the tokens.
TOKEN_LABELS = ("n_tokens", "text_tokens", "target_position", "first_token", "last_token")
# What else a volume may hold, beside its dimensions and sites.
OWN = (
    "token_stimulus", "token_position", "token_id", "pair_stimulus", "pair_query", "pair_key",
    "logits_token",
)  # fmt: skip


# Tokenised at once.
TEXTS = 1024


class _Encoding(NamedTuple):
    """Token ids of a text, and the characters of each, half open."""

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True)
class Chat:
    """A conversation around each stimulus, by the template of the model's tokenizer.

    Attributes
    ----------
    system : str or None
        The system prompt.
    """

    system: str | None = None


@dataclass(frozen=True)
class Reading:
    """Stimuli as the model reads them.

    Attributes
    ----------
    ids : list of list of int
        Token ids of each stimulus, up to the last token that is kept: later ones do not reach it.
    kept : list of numpy.ndarray
        Of each stimulus, the positions whose activations are kept.
    tokens : str or tuple of int
    table : pandas.DataFrame
        The stimuli with the labels of `TOKEN_LABELS`.
    """

    ids: list[list[int]]
    kept: list[np.ndarray]
    tokens: Tokens
    table: pd.DataFrame

    @property
    def pooled(self) -> bool:
        """Whether the activations of a stimulus are averaged over its kept tokens."""
        return self.tokens in ("target_mean", "mean")

    @property
    def ragged(self) -> bool:
        """Whether stimuli keep different numbers of tokens, each in a row of its own."""
        return self.tokens == "all"

    @cached_property
    def token_counts(self) -> np.ndarray:
        """How many tokens each stimulus keeps."""
        return np.array([len(kept) for kept in self.kept])

    @cached_property
    def pair_counts(self) -> np.ndarray:
        """How many pairs each has, of a kept token with itself and each one before it."""
        return np.array([int((kept + 1).sum()) for kept in self.kept])


def read(
    model: Model,
    stimuli: StimulusSet,
    tokens: Tokens,
    *,
    chat: Chat | None = None,
    truncate: bool = False,
) -> Reading:
    """Tokenise stimuli and find the tokens to keep.

    Parameters
    ----------
    model : Model
    stimuli : StimulusSet
    tokens : str or tuple of int
        ``target`` (last token of the target), ``target_mean`` (mean over its tokens), ``last``,
        ``mean`` (over all tokens but the first, which in many models has an activation a hundred
        times the others'), ``all``, or positions.
    chat : Chat, optional
        Set each text in a conversation, as what the user says.
    truncate : bool
        Cut texts longer than the model's context on the right; otherwise they are an error.

    Raises
    ------
    StimulusError
        If a text is too long, its target has no token or is cut off, it lacks a position, begins
        with two begin-of-text tokens, or a column has a name that volumes use.
    """
    table = stimuli.table
    taken = {*DIMENSIONS, *KINDS, *TOKEN_LABELS, *OWN}
    for column in table.columns:
        if column in taken:
            raise StimulusError(
                f"stimuli '{stimuli.name}': a volume holds '{column}' of its own; rename the column"
            )
    texts, moved = table["text"].tolist(), np.zeros(len(table), int)
    if chat is not None:
        texts, moved = conversations(model, texts, chat)
    starts, ends = (table[name].to_numpy() + moved for name in SPAN)
    ids, kept, labels = [], [], []
    encodings = _encodings(model, texts, special=chat is None)
    for row, (text, (whole, offsets)) in enumerate(zip(texts, encodings, strict=True)):
        _check(model, row, text, whole, truncate)
        tokens_of = whole[: model.context]
        inside = _inside(offsets[: model.context], (int(starts[row]), int(ends[row])))
        if not inside:
            why = "has no token of its own"
            if len(whole) > len(tokens_of):
                why = f"lies behind the {model.context} tokens that '{model.source.name}' reads"
            raise StimulusError(f"stimulus {row} ('{_short(text)}'): its target {why}")
        positions = _kept(tokens, inside, len(tokens_of), f"stimulus {row} ('{_short(text)}')")
        ids.append(tokens_of[: positions.max() + 1])
        kept.append(positions)
        labels.append(
            (len(inside), len(tokens_of), inside[-1], tokens_of[inside[0]], tokens_of[inside[-1]])
        )
    columns = dict(zip(TOKEN_LABELS, map(np.array, zip(*labels, strict=True)), strict=True))
    return Reading(ids, kept, tokens, table.assign(**columns))


def _encodings(model: Model, texts: list[str], *, special: bool) -> Iterator[_Encoding]:
    """Texts in tokens, some at a time: the tokenizer's own objects take a kilobyte a text."""
    for start in range(0, len(texts), TEXTS):
        some = model.tokenizer(
            texts[start : start + TEXTS],
            return_offsets_mapping=True,
            add_special_tokens=special,
            verbose=False,
        )
        yield from map(_Encoding, some["input_ids"], some["offset_mapping"])


def conversations(model: Model, texts: list[str], chat: Chat) -> tuple[list[str], np.ndarray]:
    """Each text in its conversation, and how many characters stand before it there.

    Raises
    ------
    StimulusError
        If there is no chat template, or it does not hold a text, or the system prompt, once.
    """
    if not model.tokenizer.chat_template:
        raise StimulusError(
            f"'{model.source.name}' has no chat template; leave `chat` out, or take a subject that "
            "was tuned on conversations"
        )
    before = [] if chat.system is None else [{"role": "system", "content": chat.system}]
    rendered, moved = [], []
    for row, text in enumerate(texts):
        whole = model.tokenizer.apply_chat_template(
            [*before, {"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        if whole.count(text) != 1:
            raise StimulusError(
                f"stimulus {row} ('{_short(text)}') stands {whole.count(text)} times in its "
                f"conversation, not once, by the chat template of '{model.source.name}'"
            )
        rendered.append(whole)
        moved.append(whole.index(text))
    return rendered, np.array(moved)


def _check(model: Model, row: int, text: str, ids: list[int], truncate: bool) -> None:
    if model.context is not None and len(ids) > model.context and not truncate:
        raise StimulusError(
            f"stimulus {row} ('{_short(text)}') has {len(ids)} tokens; '{model.source.name}' reads "
            f"at most {model.context}. Shorten it, or set `truncate: true`."
        )
    begin = model.tokenizer.bos_token_id
    if begin is not None and ids[:2] == [begin, begin]:
        raise StimulusError(
            f"stimulus {row} ('{_short(text)}') begins with two begin-of-text tokens "
            f"('{model.tokenizer.bos_token}'); take it out of the text, the tokenizer adds it"
        )


def _inside(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> list[int]:
    """Tokens that overlap the target.

    Many begin with the space before the word, and special tokens have the empty span 0 to 0.
    """
    return [
        position
        for position, (left, right) in enumerate(offsets)
        if left < right and left < span[1] and right > span[0]
    ]


def _kept(tokens: Tokens, inside: list[int], length: int, stimulus: str) -> np.ndarray:
    """The positions to keep of one stimulus."""
    if tokens == "target":
        return np.array(inside[-1:])
    if tokens == "target_mean":
        return np.array(inside)
    if tokens == "last":
        return np.array([length - 1])
    if tokens == "all":
        return np.arange(length)
    if tokens == "mean":
        if length < 2:
            raise StimulusError(
                f"{stimulus} is one token; the mean leaves the first token out, "
                "whose activation is no one's equal. Take `tokens: last`."
            )
        return np.arange(1, length)
    assert not isinstance(tokens, str)
    for position in tokens:
        if not -length <= position < length:
            raise StimulusError(f"{stimulus} has {length} tokens; there is no position {position}")
    return np.array([position % length for position in tokens])


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
