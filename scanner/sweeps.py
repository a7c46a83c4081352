"""Many interventions on the same texts, at a fraction of the cost of as many forward passes.

A text is read once as it is. An intervention then costs what it can change and no more: its pass
starts at the first block that is edited, from the stream that was there, and the tokens before the
first edited one are shared by all interventions on the text. Interventions share batches. What
comes out is that of one full pass for each, to rounding.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from scanner.batches import ROW_TOKENS, Batch, branched, padded, together
from scanner.device import batch_tokens
from scanner.hooks import starting, visiting
from scanner.interventions import Edit, check_edit
from scanner.model import Model
from scanner.sites import OUTSIDE, PAIRED, Kind, Site, SiteError, sites_of

# Bytes of the streams and logits of texts that are held at once.
HELD = 2**29
# Logits of a batch of trials.
LOGITS = 2**26


class Trial(NamedTuple):
    """One text under one intervention.

    Attributes
    ----------
    text : int
    edits : tuple of Edit
        Positions are those of the text; no rows. Where a value has a dimension of positions, it is
        1 or as long as the text.
    """

    text: int
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of some trials, in the order in which they were computed.

    Attributes
    ----------
    trials : numpy.ndarray
        Their numbers.
    divergence : numpy.ndarray
        trial: Kullback-Leibler divergence of the edited prediction of the next token from the
        intact one, at the last token of the text, nats.
    surprisal, intact_surprisal : numpy.ndarray
        trial: mean surprisal of the text's tokens after the first, nats, edited and not.
    logits, intact_logits : numpy.ndarray
        trial x answer: of the tokens that were asked for, at the last token of the text.
    activations : mapping of Site to numpy.ndarray
        Of the sites that were asked for: trial, and the dimensions of the kind.
    """

    trials: np.ndarray
    divergence: np.ndarray
    surprisal: np.ndarray
    intact_surprisal: np.ndarray
    logits: np.ndarray
    intact_logits: np.ndarray
    activations: Mapping[Site, np.ndarray]


def sweep(
    model: Model,
    ids: Sequence[Sequence[int]],
    trials: Sequence[Trial],
    *,
    answers: Sequence[Sequence[int]] | None = None,
    surprisal: bool = False,
    reads: Sequence[Site] = (),
    places: Sequence[int] | None = None,
    predictions: bool = True,
) -> Iterator[Outcome]:
    """Intervene again and again.

    Parameters
    ----------
    model : Model
    ids : sequence of sequence of int
        Token ids of each text, at least two.
    trials : sequence of Trial
    answers : sequence of sequence of int, optional
        Of each text, as many token ids whose logits are wanted.
    surprisal : bool
        Whether surprisal is wanted, for which the vocabulary head runs at every token; NaN if not.
    reads : sequence of Site
        Sites inside blocks whose activations are wanted. Passes start no later than there.
    places : sequence of int, optional
        Of each text, the position at which they are read; its last token by default.
    predictions : bool
        Whether anything but activations is wanted. If not, passes end at the last that is read.

    Yields
    ------
    Outcome
        Of some trials; in all, of each once.

    Raises
    ------
    SiteError
        If an edit does not fit the model or its text, names rows, or a batch of them moves nothing;
        or if what is to be read lies outside blocks or texts.
    """
    places = [len(one) - 1 for one in ids] if places is None else places
    wanted = _Wanted(tuple(reads), places, predictions)
    wanted.check(model, ids)
    for trial in trials:
        _check(model, trial, ids)
    if not predictions:
        _check_before(reads, trials)
    if not trials:
        return
    shares = not model.sharing(max(ids, key=len))
    asked = answers if answers is not None else [()] * len(ids)
    of_text: dict[int, list[int]] = defaultdict(list)
    for number, trial in enumerate(trials):
        of_text[trial.text].append(number)
    for texts in _chunks(model, ids, sorted(of_text)):
        intact = _Intact(model, ids, texts, asked, wanted, surprisal=surprisal)
        at: dict[tuple[int, bool], list[list[_Own]]] = defaultdict(list)
        for text in texts:
            length = len(ids[text])
            own = [
                _own(number, trials[number], length, model.layers, share=shares).by(wanted.first)
                for number in of_text[text]
            ]
            for weights in (False, True):
                some = [one for one in own if one.weights == weights]
                for layer, group in _groups(some, length, model.layers):
                    at[layer, weights].append(group)
        for (layer, weights), groups in sorted(at.items()):
            for parts in _rows(model, ids, trials, groups, even=weights, surprisal=surprisal):
                yield intact.run(layer, parts, trials)


class _Wanted(NamedTuple):
    """Sites whose activations are wanted, and where in each text; and whether predictions are."""

    sites: tuple[Site, ...]
    places: Sequence[int]
    predictions: bool

    @property
    def first(self) -> int | None:
        """The first block that must run."""
        return min((site.layer for site in self.sites if site.layer is not None), default=None)

    def check(self, model: Model, ids: Sequence[Sequence[int]]) -> None:
        if not self.sites and not self.predictions:
            raise SiteError("a sweep gives predictions or activations, and neither is wanted")
        for site in self.sites:
            if site.layer is None or site.kind in PAIRED:
                raise SiteError(f"{site} is no vector of a token in a block, and is not read here")
            model.structure.port(site)
        for text, place in enumerate(self.places):
            if self.sites and not 0 <= place < len(ids[text]):
                raise SiteError(f"text {text} has {len(ids[text])} tokens; none is at {place}")


def _check(model: Model, trial: Trial, ids: Sequence[Sequence[int]]) -> None:
    length = len(ids[trial.text])
    if length < 2:
        raise SiteError(f"text {trial.text} has {length} tokens; a sweep needs 2")
    for edit in trial.edits:
        if edit.rows is not None:
            raise SiteError(f"{edit}: an edit of a trial names no rows; it is of one text")
        if edit.positions is not None and np.ndim(edit.positions[0]) > 0:
            raise SiteError(f"{edit}: an edit of a trial has positions of one text, not of rows")
        beyond = [one for one in _positions(edit, length) if one >= length]
        if beyond:
            raise SiteError(
                f"{edit}: there are no positions {beyond}; text {trial.text} has {length} tokens"
            )
        if not _positions(edit, length):
            raise SiteError(f"{edit}: starts behind text {trial.text}, which has {length} tokens")
        check_edit(edit, model.structure, model.proof.unwritable)


def _check_before(reads: Sequence[Site], trials: Sequence[Trial]) -> None:
    """Where passes end at what is read, nothing behind it can be edited."""
    last = max(site.layer for site in reads if site.layer is not None)
    for trial in trials:
        for edit in trial.edits:
            if edit.layers is None or max(edit.layers) > last:
                raise SiteError(f"{edit}: lies behind all that is read, up to layer {last}")


def _positions(edit: Edit, length: int) -> list[int]:
    if edit.positions is None:
        return list(range(edit.start, length))
    positions: Any = edit.positions
    return list(positions)


class _Own(NamedTuple):
    """What a trial has to compute of its own.

    Attributes
    ----------
    number : int
    block : int
        The first block; the number of layers if none.
    begin : int
        The first token.
    weights : bool
        Whether attention weights are edited, whose size is that of the text.
    """

    number: int
    block: int
    begin: int
    weights: bool

    def by(self, block: int | None) -> "_Own":
        """The same, started no later than a block."""
        return self if block is None else self._replace(block=min(self.block, block))


def _own(number: int, trial: Trial, length: int, layers: int, *, share: bool) -> _Own:
    weights = any(edit.kind in PAIRED for edit in trial.edits)
    firsts = [
        (0 if edit.kind == "embeddings" else layers) if edit.kind in OUTSIDE
        else min(edit.layers) + _behind(edit, trial, layers) if edit.layers else 0
        for edit in trial.edits
    ]  # fmt: skip
    begin = 0
    if share and not weights:
        begins = (min(_positions(edit, length)) for edit in trial.edits)
        begin = min(begins, default=length - 1)
    return _Own(number, min(firsts, default=layers), begin, weights)


def _behind(edit: Edit, trial: Trial, layers: int) -> bool:
    """Whether an edit of what leaves a block may be one of what enters the next.

    Leaving the block out is that, too, but for other edits that come before it.
    """
    if edit.kind != "resid_post" or edit.layers is None or len(edit.layers) > 1:
        return False
    return len(trial.edits) == 1 if edit.action == "skip" else edit.layers[0] + 1 < layers


def _groups(own: Sequence[_Own], length: int, layers: int) -> Iterator[tuple[int, list[_Own]]]:
    """Divide the trials of a text into those that start together, at the least cost.

    A group computes what its trials share, from where the first of them starts. That is cheaper for
    each alone if they share little, and for all at once if they share much.

    Yields
    ------
    block, group : int, list of _Own
    """
    at: dict[int, list[_Own]] = defaultdict(list)
    for one in own:
        at[one.block].append(one)
    starts = sorted(at)
    # The least cost of all from a start on, and where the first group of them ends.
    best: list[tuple[float, int]] = [(0.0, len(starts))] * (len(starts) + 1)
    for first in reversed(range(len(starts))):
        depth, tokens, common, found = layers - starts[first] + 1, 0, 0, []
        for end in range(first + 1, len(starts) + 1):
            group = at[starts[end - 1]]
            tokens += sum(length - one.begin for one in group)
            common = max(common, *(one.begin for one in group))
            found.append(((tokens + common) * depth + best[end][0], end))
        best[first] = min(found)
    first = 0
    while first < len(starts):
        end = best[first][1]
        yield starts[first], [one for start in starts[first:end] for one in at[start]]
        first = end


def _chunks(model: Model, ids: Sequence[Sequence[int]], texts: list[int]) -> Iterator[list[int]]:
    """Texts of like length whose streams are held at once."""
    size = torch.finfo(model.network.dtype).bits // 8
    # Of a token, as if each had logits that are kept.
    held = model.layers * model.width * size + 4 * model.vocabulary
    tokens = min(batch_tokens(model.device), HELD // held)
    for rows in together([ids[text] for text in texts], share=False, tokens=tokens):
        yield [texts[one] for row in rows for one in row]


class _Enough(Exception):
    """All that is wanted of a pass has been heard."""


class _Part(NamedTuple):
    """Trials of one text in one row, by where their own tokens begin, the latest first."""

    text: int
    numbers: list[int]
    begins: list[int]


def _rows(
    model: Model, ids: Sequence[Sequence[int]], trials: Sequence[Trial],
    groups: Sequence[Sequence[_Own]], *, even: bool, surprisal: bool,
) -> Iterator[list[_Part]]:  # fmt: skip
    """Divide trials into rows, and rows into batches of like width, or `even` of the same."""
    most = LOGITS // model.vocabulary
    tokens = batch_tokens(model.device)
    if surprisal:
        tokens = min(tokens, most)
    found: list[tuple[int, _Part]] = []
    for group in groups:
        text = trials[group[0].number].text
        length, width = len(ids[text]), 0
        part = _Part(text, [], [])
        for one in sorted(group, key=lambda one: (-one.begin, one.number)):
            more = length - one.begin if part.numbers else length
            # Where nothing is shared, a row of its own is cheaper than a wider mask.
            apart = part.numbers and not part.begins[0]
            wide = width + more > max(ROW_TOKENS, length) or len(part.numbers) == most
            if part.numbers and (apart or wide):
                found.append((width, part))
                part, width, more = _Part(text, [], []), 0, length
            part.numbers.append(one.number)
            part.begins.append(one.begin)
            width += more
        found.append((width, part))
    batch: list[_Part] = []
    narrowest = 0
    for width, part in sorted(found, key=lambda one: one[0]):
        heads = sum(len(one.numbers) for one in (*batch, part))
        full = (len(batch) + 1) * width > tokens or heads > most
        # What fills rows up is computed, too.
        if batch and (full or width > (1 if even else 2) * narrowest):
            yield batch
            batch = []
        narrowest = narrowest if batch else width
        batch.append(part)
    yield batch


class _Intact:
    """What texts are as they are: the stream that enters each block, and what is predicted."""

    def __init__(
        self,
        model: Model,
        ids: Sequence[Sequence[int]],
        texts: list[int],
        answers: Sequence[Sequence[int]],
        wanted: _Wanted,
        *,
        surprisal: bool,
    ) -> None:
        self.model, self.ids, self.answers, self.wanted = model, ids, answers, wanted
        self.surprisal = surprisal
        self.row = {text: row for row, text in enumerate(texts)}
        # What enters each block, and what leaves the last: row x column x unit.
        self.streams: list[torch.Tensor] = []
        batch = padded([ids[text] for text in texts], filler=model.filler).to(model.device)
        sites = sites_of("resid_pre", model.layers)
        if wanted.predictions:
            sites = [*sites, Site("resid_post", model.layers - 1)]
        elif wanted.first is not None:
            sites = sites[: wanted.first + 1]

        def keep(site: Site, stream: torch.Tensor) -> None:
            self.streams.append(stream.clone())
            if not wanted.predictions and len(self.streams) == len(sites):
                raise _Enough

        with suppress(_Enough), visiting(model.network, model.found, sites, keep):
            self.logits, self.surprises = self.predicted(batch, texts)

    def predicted(self, batch: Batch, texts: Sequence[int]) -> tuple[torch.Tensor, np.ndarray]:
        """Logits at the last token of each text (text x vocabulary), and their surprisals."""
        ends = np.array([columns[-1] for columns in batch.columns])
        wanted, place = np.unique(ends, return_inverse=True)
        columns = None if self.surprisal else torch.from_numpy(wanted).to(self.model.device)
        with torch.inference_mode():
            logits = self.model.forward(batch, head=True, columns=columns)
        assert logits is not None
        surprises = np.full(len(texts), np.nan)
        if self.surprisal:
            for number, (text, row, own) in enumerate(
                zip(texts, batch.rows, batch.columns, strict=True)
            ):
                following = torch.tensor(self.ids[text][1:], device=logits.device)
                found = cross_entropy(logits[row, own[:-1]].float(), following)
                surprises[number] = float(found)
        return logits[batch.rows, ends if self.surprisal else place].float(), surprises

    def stream(self, layer: int, batch: Batch, texts: Sequence[int]) -> torch.Tensor:
        """What enters a block in rows of branches, each of one text: row x column x unit."""
        rows = torch.tensor([self.row[text] for text in texts], device=self.model.device)
        if batch.positions is None:
            return self.streams[layer][rows, : batch.ids.shape[1]]
        return self.streams[layer][rows[:, None], batch.positions]

    def run(self, layer: int, parts: Sequence[_Part], trials: Sequence[Trial]) -> Outcome:
        """Trials that start at the same block."""
        model = self.model
        numbers = [number for part in parts for number in part.numbers]
        texts = [trials[number].text for number in numbers]
        if all(part.begins == [0] for part in parts):
            batch = padded([self.ids[text] for text in texts], filler=model.filler)
        else:
            rows = [(self.ids[part.text], part.begins) for part in parts]
            batch = branched(rows, filler=model.filler, dtype=model.network.dtype)
        batch = batch.to(model.device)
        stream = self.stream(layer, batch, [part.text for part in parts])
        entering = [
            self._entering(trials[number], layer, stream[row], columns)
            for number, row, columns in zip(numbers, batch.rows, batch.columns, strict=True)
        ]
        edits = _merged(batch, entering, model.found.sizes, model.network.dtype)
        rows = torch.from_numpy(batch.rows).to(model.device)
        at = [batch.columns[one][self.wanted.places[text]] for one, text in enumerate(texts)]
        columns = torch.tensor(at, device=model.device)
        heard: dict[Site, np.ndarray] = {}

        def hear(site: Site, activation: torch.Tensor) -> None:
            heard[site] = activation[rows, columns].float().cpu().numpy()
            if not self.wanted.predictions and len(heard) == len(self.wanted.sites):
                raise _Enough

        with starting(model.network, model.found, layer, stream), model.intervene(edits):
            try:
                # Heard by those who come last: what edits have left.
                with visiting(model.network, model.found, self.wanted.sites, hear):
                    logits, surprises = self.predicted(batch, texts)
            except _Enough:
                return _without_predictions(numbers, heard)
        rows_of_text = np.array([self.row[text] for text in texts])
        divergence = np.empty(len(texts))
        for row in np.unique(rows_of_text):
            of_text = np.flatnonzero(rows_of_text == row)
            divergence[of_text] = _divergence(self.logits[row], logits[of_text])
        return Outcome(
            np.array(numbers),
            divergence,
            surprises,
            self.surprises[rows_of_text],
            _answered(logits, texts, self.answers),
            _answered(self.logits[rows_of_text], texts, self.answers),
            heard,
        )

    def _entering(
        self, trial: Trial, layer: int, stream: torch.Tensor, columns: np.ndarray
    ) -> list[Edit]:
        """The edits of a trial, those of what leaves the block before as ones of what enters this.

        Where that block was left out, its own entry is written into the stream, column x unit.
        """
        before, made = [], []
        for edit in trial.edits:
            behind = _behind(edit, trial, self.model.layers) and edit.layers == (layer - 1,)
            if behind and edit.action == "skip":
                own = _positions(edit, len(columns))
                given = self.streams[layer - 1][self.row[trial.text], own]
                if edit.must_move and torch.equal(given, stream[columns[own]]):
                    raise SiteError(f"{edit}: its block adds nothing, so no effect can be told")
                stream[columns[own]] = given
            elif behind:
                before.append(replace(edit, kind="resid_pre", layers=(layer,)))
            else:
                made.append(edit)
        return before + made


def _without_predictions(numbers: Sequence[int], heard: Mapping[Site, np.ndarray]) -> Outcome:
    nothing = np.full(len(numbers), np.nan)
    none = np.empty((len(numbers), 0))
    return Outcome(np.array(numbers), nothing, nothing, nothing, none, none, heard)


def _divergence(intact: torch.Tensor, edited: torch.Tensor) -> np.ndarray:
    """Kullback-Leibler divergence of edited predictions from an intact one, from their logits.

    log E exp(x - E x) of the differences x, under the intact prediction: small ones are not what
    rounding leaves of large ones.
    """
    log_known = intact.log_softmax(-1)
    known = log_known.exp()
    change = edited - intact
    change -= (change @ known)[:, None]
    found = torch.log1p(torch.expm1(change) @ known).clamp_min(0).double().cpu()
    # Where a change is too large to be exponentiated.
    for row in torch.nonzero(~torch.isfinite(found)).flatten().tolist():
        found[row] = torch.logsumexp(log_known + change[row], dim=-1).item()
    return found.numpy()


def _answered(
    logits: torch.Tensor, texts: Sequence[int], answers: Sequence[Sequence[int]]
) -> np.ndarray:
    """Logits of the tokens asked for, text x answer."""
    asked = torch.tensor([list(answers[text]) for text in texts], device=logits.device).long()
    return logits.gather(1, asked).cpu().numpy()


def _merged(
    batch: Batch,
    edits: Sequence[Sequence[Edit]],
    sizes: Mapping[Kind, tuple[int, ...]],
    dtype: torch.dtype,
) -> list[Edit]:
    """Edits of texts as edits of a batch: those that differ by text, place and value are one.

    What is at one site costs a pass over its activations for each edit.
    """
    alike: dict[tuple[Any, ...], list[tuple[int, Edit]]] = defaultdict(list)
    for text, own in enumerate(edits):
        for step, edit in enumerate(own):
            # What attention weights are set to is as wide as the text, so these stay alone.
            alone = text if edit.kind in PAIRED else -1
            what = (edit.kind, edit.action, edit.layers, edit.heads, edit.units, edit.must_move)
            size = () if edit.along is None else np.shape(edit.along)
            alike[step, alone, *what, size, edit.center is None].append((text, edit))
    # Those of one text come one after the other.
    steps = sorted(alike, key=lambda key: key[0])
    return [_as_one(batch, alike[key], sizes, dtype) for key in steps]


def _as_one(
    batch: Batch,
    group: Sequence[tuple[int, Edit]],
    sizes: Mapping[Kind, tuple[int, ...]],
    dtype: torch.dtype,
) -> Edit:
    """Edits of several texts that differ by place and value alone."""
    columns: dict[int, list[int]] = defaultdict(list)
    places = []
    for text, edit in group:
        own = batch.columns[text]
        places.append(own[_positions(edit, len(own))])
        columns[int(batch.rows[text])] += places[-1].tolist()
    (_, first) = group[0]
    merged = first.at_rows(columns)
    if first.along is not None:
        return merged.having(**_as_one_along(batch, group, places))
    if first.value is None or first.kind in PAIRED:
        return merged
    value = torch.zeros(*batch.ids.shape, *sizes[first.kind], dtype=dtype)
    for (text, edit), place in zip(group, places, strict=True):
        own = torch.as_tensor(edit.value, dtype=dtype).cpu()
        if own.ndim == value.ndim:
            own = own[0] if own.shape[1] == 1 else own[0, _positions(edit, own.shape[1])]
        value[batch.rows[text], place] = own
    return merged.having(value=value)


def _as_one_along(
    batch: Batch, group: Sequence[tuple[int, Edit]], places: Sequence[np.ndarray]
) -> dict[str, torch.Tensor]:
    """What edits along directions do at each row and column: their fields, but for the first two.

    Many texts share directions, so these are kept once and looked up.
    """
    number: dict[Any, int] = {}
    tables: dict[str, list[torch.Tensor]] = defaultdict(list)
    which = torch.zeros(batch.ids.shape, dtype=torch.long)
    for (text, edit), place in zip(group, places, strict=True):
        key = id(edit.along), id(edit.readout), id(edit.center), edit.value
        if key not in number:
            number[key] = len(number)
            along = torch.atleast_2d(torch.as_tensor(edit.along))
            readout = torch.linalg.pinv(along.double()).mT if edit.readout is None else edit.readout
            tables["along"].append(along)
            tables["readout"].append(torch.atleast_2d(torch.as_tensor(readout, dtype=along.dtype)))
            if edit.center is not None:
                tables["center"].append(torch.as_tensor(edit.center))
            if edit.value is not None:
                tables["value"].append(torch.as_tensor(edit.value).reshape(1))
        which[batch.rows[text], place] = number[key]
    return {name: torch.stack(table)[which] for name, table in tables.items()}
