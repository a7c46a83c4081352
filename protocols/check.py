"""What a protocol costs, told before anything is fetched or loaded."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyses.acting import Acting
from protocols.schema import Study, SubjectSpec
from scanner.batches import unique_tokens
from scanner.plan import stored_bytes
from scanner.sizes import Size, guessed_lengths, size_of, token_ids
from scanner.trained import fresh

# Of two cores, by the time that first runs took (`cli.SECONDS_PER_TOKEN_AND_WEIGHT`).
TERAFLOPS = 0.1
# Of a step that teaches, in forward passes: those of the gradients cost two.
TEACHING = 3


@dataclass(frozen=True)
class Cost:
    """What one subject of a protocol costs, its twins among it.

    Attributes
    ----------
    spec : SubjectSpec
    size : Size
    weights : int
        Bytes of memory that its weights take.
    volume : int
        Bytes of a recording on disk.
    recordings : int
        The subject and its twins.
    stimuli, tokens : int
        That each reads.
    guessed : bool
        Whether tokens are told by words, since the tokenizer is not here.
    passes : float
        Whole forward passes of a text that analyses act with.
    operations : float
        Floating-point operations of all of it.
    uncounted : tuple of str
        Analyses that act and do not say with how many passes.
    steps : int
        Of the teaching that makes the subject; 0 for one that is there.
    taught : int
        Tokens that all these steps read.
    """

    spec: SubjectSpec
    size: Size
    weights: int
    volume: int
    recordings: int
    stimuli: int
    tokens: int
    guessed: bool
    passes: float
    operations: float
    uncounted: tuple[str, ...]
    steps: int
    taught: int


def costs(study: Study) -> list[Cost]:
    """What each subject costs.

    Parameters
    ----------
    study : Study

    Raises
    ------
    ProtocolError
        If it names layers that a subject does not have.
    SourceError
        If the configuration of one is nowhere here.
    """
    return [_cost(study, spec) for spec in study.protocol.subjects]


def _cost(study: Study, spec: SubjectSpec) -> Cost:
    scan, texts = study.protocol.scan, study.stimuli.table["text"].tolist()
    size = _size(study, spec)
    study.check_layers(spec.called, size.anatomy.layers)
    ids = token_ids(size, texts)
    lengths = _lengths(ids, texts)
    tokens = int(lengths.sum())
    read = unique_tokens(ids) if ids is not None and scan.share_prefixes else tokens
    volume = stored_bytes(
        lengths, scan.sites, scan.kept, size.anatomy, store=scan.store, top=scan.top_logits
    )
    passes, uncounted = _acts(study, spec, size.anatomy.layers)
    predicted = _kept(study, tokens) if "logits" in scan.sites else 0
    operations = size.operations(read, predicted=predicted)
    operations += passes * size.operations(tokens, predicted=len(texts))
    recordings = 1 + scan.twins
    steps, taught = _teaching(study, spec, size)
    return Cost(
        spec,
        size,
        size.weight_bytes(spec.dtype, spec.weights),
        volume,
        recordings,
        len(texts),
        tokens,
        ids is None,
        passes,
        operations * recordings + TEACHING * size.operations(taught, predicted=taught),
        uncounted,
        steps,
        taught,
    )


def _size(study: Study, spec: SubjectSpec) -> Size:
    """The size of a subject: of one that is made, that of what it is made of."""
    by_name = {one.called: one for one in study.protocol.subjects}
    while spec.made_of:
        spec = by_name[spec.made_of[0]]
    training = study.training(spec.called)
    if training is not None:
        return size_of(str(fresh(training).folder))
    return size_of(spec.model, spec.revision)


def _teaching(study: Study, spec: SubjectSpec, size: Size) -> tuple[int, int]:
    """The steps that make a subject, and the tokens that they read."""
    lesson, training = study.lesson(spec.called), study.training(spec.called)
    if lesson is not None:
        table = lesson.stimuli.table
        texts = (table["text"].astype(str) + " " + table["answer"].astype(str)).tolist()
        return lesson.steps, lesson.epochs * _tokens(size, texts)
    if training is not None:
        # Texts of each step are drawn anew; those of the first are as long as any.
        return training.steps, training.steps * _tokens(size, training.texts(0))
    return 0, 0


def _tokens(size: Size, texts: list[str]) -> int:
    return int(_lengths(token_ids(size, texts), texts).sum())


def _lengths(ids: Sequence[Sequence[int]] | None, texts: list[str]) -> np.ndarray:
    """Tokens of each text, guessed from its words where there is no tokenizer."""
    return guessed_lengths(texts) if ids is None else np.array([len(one) for one in ids])


def _acts(study: Study, spec: SubjectSpec, layers: int) -> tuple[float, tuple[str, ...]]:
    """Passes that analyses act with, and those of which nobody has counted them."""
    counted, uncounted = 0.0, []
    for name, analysis in study.analyses.items():
        if not isinstance(analysis, Acting) or not analysis.acts_upon(spec.called):
            continue
        passes = analysis.passes(layers)
        if math.isnan(passes):
            uncounted.append(name)
        else:
            counted += passes
    return counted, tuple(uncounted)


def _kept(study: Study, tokens: int) -> int:
    kept = study.protocol.scan.kept
    if kept in ("all", "mean"):
        return tokens
    return len(study.stimuli) * (1 if isinstance(kept, str) else len(kept))


def told(cost: Cost, *, teraflops: float) -> Iterator[str]:
    """What a subject costs, in sentences of one line.

    Parameters
    ----------
    cost : Cost
    teraflops : float
        Floating-point operations that the machine does, 10^12 a second.
    """
    size, spec = cost.size, cost.spec
    through = (size.active + size.head) / 1e9
    active = "" if size.active == size.blocks else f", {through:.1f} of them for a token"
    rounded = "" if spec.weights is None else f", blocks rounded to {spec.weights}"
    many = (1e9, "billion", "GB") if size.parameters >= 1e8 else (1e6, "million", "MB")
    yield (
        f"{size.parameters / many[0]:.3g} {many[1]} parameters{active}: "
        f"{cost.weights / many[0]:.3g} {many[2]} of "
        f"weights in {spec.dtype}{rounded}"
    )
    yield (
        f"{cost.stimuli} texts of {cost.tokens / cost.stimuli:.1f} tokens"
        f"{' (guessed from words)' if cost.guessed else ''}; a text leaves "
        f"{cost.volume / cost.stimuli / 1e3:.4g} kB, a recording {cost.volume / 1e6:.4g} MB"
    )
    hours = _seconds(cost, teraflops) / 3600
    span = f"{hours:.2g} hours" if hours >= 1 else f"{max(1, round(hours * 3600))} seconds"
    yield (
        f"passes of each text: {1 + cost.passes:.4g}; networks: {cost.recordings}, twins among "
        f"them; operations: {cost.operations:.2g}, {span} at {teraflops:g} TFLOP/s"
    )
    if cost.steps:
        yield f"made first: {cost.steps} steps, {cost.taught:,} tokens; once, then it is kept"
    if cost.uncounted:
        yield f"passes of {', '.join(cost.uncounted)} come on top and are not counted"
    yield f"sizes: {size.origin}"


def costs_as_json(study: Study, found: list[Cost], *, teraflops: float) -> dict[str, Any]:
    """The costs for machines; keys are stable.

    Parameters
    ----------
    study : Study
    found : list of Cost
    teraflops : float
        Floating-point operations that the machine does, 10^12 a second.
    """
    subjects = {
        cost.spec.called: {
            "parameters": cost.size.parameters,
            "weight_bytes": cost.weights,
            "dtype": cost.spec.dtype,
            "recordings": cost.recordings,
            "recording_bytes": cost.volume,
            "stimuli": cost.stimuli,
            "tokens": cost.tokens,
            "tokens_guessed": cost.guessed,
            "passes": 1 + cost.passes,
            "uncounted": list(cost.uncounted),
            "operations": cost.operations,
            "seconds": _seconds(cost, teraflops),
            "sizes_from": cost.size.origin,
        }
        for cost in found
    }
    return {
        "study": study.protocol.study,
        "protocol_sha256": study.sha256,
        "teraflops": teraflops,
        "subjects": subjects,
        "disk_bytes": sum(cost.volume * cost.recordings for cost in found),
    }


def _seconds(cost: Cost, teraflops: float) -> float:
    return cost.operations / (teraflops * 1e12)
