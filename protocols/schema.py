"""What a protocol may say. Everything is checked here, before any work is done.

See `quickstart.yaml` for one that uses every part.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from analyses import REGISTRY, Analysis
from analyses.acting import Acting
from analyses.base import Quantity, label_of
from analyses.contrast import weights
from analyses.features import Features
from protocols.marked_yaml import MarkedYaml, Place, ProtocolError, read
from protocols.quick import quick_look
from scanner.aliases import resolve
from scanner.made import Lesson
from scanner.placement import Placement, Where
from scanner.provenance import digest
from scanner.quantised import Bits
from scanner.reading import TOKEN_LABELS, Tokens, TokensName
from scanner.sites import KINDS, MEANINGS, OUTSIDE, PAIRED, Kind, SiteError
from scanner.sources import EMBEDDED
from scanner.trained import Training
from scanner.wire_length import Penalty, PenaltyKind
from stimuli import StimulusError, StimulusSet, load, load_grammar
from verification import CONTROLS, Hypothesis, required
from verification.base import EVERY
from verification.gate import no_finding
from verification.population import FEWEST, FEWEST_TO_FOLLOW

# The analyses whose name in a protocol is a site that others may read.
MAKING = {
    kind: analysis.makes
    for kind, analysis in REGISTRY.items()
    if issubclass(analysis, Acting) and analysis.makes
}
# What `compare: SITE` stands for.
COMPARISONS = ("universality", "transfer", "resemblance")
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$")]
OWN_NAME = re.compile(r"[a-z][a-z0-9_-]*")
Finite = Annotated[float, Field(allow_inf_nan=False, strict=False)]
# The score that every subject has that is trained here: the strength of its penalty.
DOSE = "strength"
# The score that training has given each of them: minus what a word costs it, of texts that it was
# not trained on.
LEARNED = "learned"
# The score that every recording has.
MEASURED = "bits_per_byte"
# Numbers of the report's own analyses, so that a typo in a protocol cannot ask for a day's work.
Few = Annotated[int, Field(ge=0, le=20)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StimuliSpec(_Part):
    """A shipped set or a table, and how much of it: some values of columns, items, frames.

    With `sampled` the items are the values of a column, and what were items stand in frames.
    """

    set: Annotated[str, StringConstraints(min_length=1)]
    only: Annotated[
        dict[str, Annotated[list[str | int | float | bool], Field(min_length=1)]] | None,
        Field(exclude_if=lambda only: only is None),
    ] = None
    items: Annotated[int, Field(ge=1)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    sampled: Annotated[str | None, Field(exclude_if=lambda sampled: sampled is None)] = None

    @property
    def whole(self) -> bool:
        """Whether every stimulus is read."""
        return (self.only, self.items, self.frames) == (None, None, None)

    def loaded(self, relative_to: Path) -> StimulusSet:
        """The stimuli; a relative path starts from that folder.

        Raises
        ------
        StimulusError
        """
        whole = load(self.set, relative_to=relative_to)
        return whole.part(
            only=self.only, items=self.items, frames=self.frames, sampled=self.sampled
        )


class TunedSpec(_Part):
    """How a subject is made by teaching another one a set of answers.

    Attributes
    ----------
    of : str
        The subject of the protocol that is taught.
    stimuli : StimuliSpec
        Texts with the column ``answer``. A plain string is a set.
    epochs, rate, batch, seed
        As of `scanner.Lesson`.
    layers : list of int or None
        Whose weights may change; all weights by default.
    dealt : str or None
        A column, among the facts of each value of which answers are dealt out anew: a control.
    """

    of: Annotated[str, StringConstraints(min_length=1)]
    stimuli: StimuliSpec
    epochs: Annotated[int, Field(ge=1)] = 1
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] = 3e-4
    batch: Annotated[int, Field(ge=1)] = 8
    seed: Annotated[int, Field(ge=0)] = 0
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    dealt: str | None = None

    @field_validator("stimuli", mode="before")
    @classmethod
    def _plain_set(cls, given: Any) -> Any:
        return {"set": given} if isinstance(given, str) else given


class SumSpec(_Part):
    """How a subject is put together: a base, and what others differ by from it.

    Attributes
    ----------
    of : str
        The subject of the protocol that all others are held against.
    add : mapping of str to float
        Other subjects of the protocol, and how much of their difference is added; less than 0 to
        take it away.
    """

    of: Annotated[str, StringConstraints(min_length=1)]
    add: Annotated[dict[str, Finite], Field(min_length=1)]


class PenaltySpec(_Part):
    """What is added to the loss of a training for the sizes of weights: `scanner.Penalty`."""

    kind: PenaltyKind
    strength: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _of_a_kind(self) -> "PenaltySpec":
        if self.kind == "none" and self.strength:
            raise ValueError("no strength beside kind 'none'")
        return self


class TrainedSpec(_Part):
    """How a subject is made from fresh weights, by training it on texts of a grammar.

    Attributes
    ----------
    grammar : str
        A shipped set with rules, or a path to a CSV table of them (`stimuli.grammar`).
    layers, width, heads, neurons, steps, batch, rate, seed
        As of `scanner.Training`.
    penalty : PenaltySpec
    """

    grammar: Annotated[str, StringConstraints(min_length=1)]
    layers: Annotated[int, Field(ge=1)] = 2
    width: Annotated[int, Field(ge=4)] = 64
    heads: Annotated[int, Field(ge=1)] = 4
    neurons: Annotated[int, Field(ge=1)] = 256
    steps: Annotated[int, Field(ge=1)] = 2000
    batch: Annotated[int, Field(ge=1)] = 32
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] = 3e-3
    seed: Annotated[int, Field(ge=0)] = 0
    penalty: PenaltySpec = PenaltySpec(kind="none")

    @model_validator(mode="after")
    def _shared(self) -> "TrainedSpec":
        if self.width % (2 * self.heads):
            raise ValueError("a width that is a multiple of twice the heads")
        return self


class SubjectSpec(_Part):
    """A model: an embedded name, a hub id, or a folder; or one that is made here.

    Attributes
    ----------
    model : str
        Of one that is made, a name of the protocol's own.
    name : str or None
        What the study calls it, where one model is scanned in several ways; else as `model`.
    scores : mapping of str to float
        What is known of it, such as a benchmark's, that hypotheses may say a measure follows.
    weights : str or None
        What the weights of its blocks are rounded to, after they are read as `dtype`.
    device_map : str or mapping of str to int or str
        For a model that is larger than one device: ``auto``, or modules by their path, each on an
        accelerator by its number, ``cpu`` or ``disk``. Where a model lies changes no registration.
    max_memory : mapping of int or str to int or str
        With ``auto``, how much each device may hold, ``{0: 70GB, cpu: 100GB}``.
    offload_folder : str
        Where weights are written that have to be written, for as long as they are needed.
    tuned : TunedSpec or None
        Made by teaching another subject.
    sum : SumSpec or None
        Made by adding to another subject what others differ by from it.
    trained : TrainedSpec or None
        Made by training fresh weights.
    """

    model: Annotated[str, StringConstraints(min_length=1)]
    name: Annotated[Name | None, Field(exclude_if=lambda name: name is None)] = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    # Left out where there are none, so that older registrations stand.
    scores: Annotated[dict[Name, Finite], Field(exclude_if=lambda scores: not scores)] = {}
    weights: Annotated[Bits | None, Field(exclude_if=lambda weights: weights is None)] = None
    # Of the machine and not of the study, so that one goes on on another machine.
    device_map: Annotated[Literal["auto"] | dict[str, Where] | None, Field(exclude=True)] = None
    max_memory: Annotated[dict[Where, Where] | None, Field(exclude=True)] = None
    offload_folder: Annotated[str | None, Field(exclude=True)] = None
    tuned: Annotated[TunedSpec | None, Field(exclude_if=lambda tuned: tuned is None)] = None
    sum: Annotated[SumSpec | None, Field(exclude_if=lambda sum: sum is None)] = None
    trained: Annotated[TrainedSpec | None, Field(exclude_if=lambda trained: trained is None)] = None

    @model_validator(mode="after")
    def _placed(self) -> "SubjectSpec":
        if self.device_map is None and (self.max_memory or self.offload_folder):
            raise ValueError("`device_map: auto` beside max_memory or offload_folder")
        if self.device_map is not None and self.weights is not None:
            raise ValueError("one device for a quantised model; leave out device_map, or weights")
        return self

    @property
    def called(self) -> str:
        """What hypotheses call it."""
        return self.name or self.model

    @property
    def placement(self) -> Placement | None:
        """Where its parts lie, as the scanner takes it."""
        if self.device_map is None:
            return None
        folder = None if self.offload_folder is None else Path(self.offload_folder)
        return Placement(self.device_map, self.max_memory, folder)

    @property
    def made(self) -> bool:
        """Whether it is made here."""
        return bool(self.made_of) or self.trained is not None

    @property
    def known(self) -> dict[str, float]:
        """All scores that hypotheses may name: those that are given, and the dose of a training."""
        dose = {} if self.trained is None else {DOSE: self.trained.penalty.strength}
        return {**dose, **self.scores}

    @property
    def followed(self) -> tuple[str, ...]:
        """All scores that hypotheses may name, with those that are measured."""
        return (MEASURED, *self.known, *(() if self.trained is None else (LEARNED,)))

    @property
    def made_of(self) -> list[str]:
        """The subjects that it is made of; none of a model that there is, or of fresh weights."""
        if self.tuned is not None:
            return [self.tuned.of]
        return [] if self.sum is None else [self.sum.of, *self.sum.add]

    @field_validator("scores")
    @classmethod
    def _others(cls, scores: dict[str, float]) -> dict[str, float]:
        if MEASURED in scores:
            raise ValueError(f"other names than {MEASURED}, which is measured of each subject")
        if DOSE in scores:
            raise ValueError(f"other names than {DOSE}, which is that of the penalty of a training")
        if LEARNED in scores:
            raise ValueError(f"other names than {LEARNED}, which is measured of a training")
        return scores


class ChatSpec(_Part):
    """A conversation around each text, by the chat template of the model."""

    system: str | None = None


class ScanSpec(_Part):
    """What is recorded.

    Attributes
    ----------
    sites : list of str
        Kinds of site, each in every layer; names of other tools are understood.
    tokens : str or list of int
        ``target``, ``target_mean``, ``last``, ``mean``, ``all``, or positions.
    twins : int
        Untrained networks of the same architecture.
    store : str
        Dtype of the volume; that of computing belongs to the subject.
    share_prefixes : bool
        Compute what texts begin with alike once, where that is proved to be the same.
    top_logits : int or None
        Keep the highest logits only.
    chat : ChatSpec or None
    truncate : bool
        Cut texts that are longer than the model's context.
    """

    sites: Annotated[list[Kind], Field(min_length=1)]
    tokens: TokensName | Annotated[list[int], Field(min_length=1)] = "target"
    twins: Few = 0
    store: Literal["float32", "float16"] = "float32"
    share_prefixes: bool = True
    top_logits: Annotated[int, Field(ge=1)] | None = None
    chat: ChatSpec | None = None
    truncate: bool = False

    @field_validator("tokens", mode="before")
    @classmethod
    def _known(cls, tokens: Any) -> Any:
        # In one complaint what pydantic would say of each branch of the union.
        names = get_args(TokensName)
        if isinstance(tokens, list):
            if not tokens or any(type(position) is not int for position in tokens):
                raise ValueError("positions as whole numbers, such as [0, -1]")
            if len(set(tokens)) < len(tokens):
                raise ValueError("each position once")
        elif tokens not in names:
            near = difflib.get_close_matches(str(tokens), names, n=1, cutoff=0.6)
            meant = f" (did you mean '{near[0]}'?)" if near else ""
            raise ValueError(f"{', '.join(names)} or positions such as [0, -1]{meant}")
        return tokens

    @property
    def kept(self) -> Tokens:
        """The tokens as the scanner takes them."""
        return self.tokens if isinstance(self.tokens, str) else tuple(self.tokens)


class QuickSpec(_Part):
    """What a quick look at a study is content with: `protocols.quick`.

    Attributes
    ----------
    subjects : list of str or None
        That are looked at; all by default. Hypotheses about others are left out.
    items, frames : int or None
        At most so many.
    twins : int or None
        At most so many.
    random : int or None
        Of what an analysis that acts does at random: at most so many of each kind.
    without : list of str
        Analyses that are left out, and what is claimed of them.
    """

    subjects: Annotated[list[str], Field(min_length=1)] | None = None
    items: Annotated[int, Field(ge=1)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    twins: Few | None = None
    random: Annotated[int, Field(ge=1)] | None = None
    without: list[str] = []


class Protocol(_Part):
    """A study: subjects, stimuli, what to scan, analyses with settings, hypotheses.

    Attributes
    ----------
    study : str
        Names the folder of its results.
    title : str
        Heads the report.
    subjects : list of SubjectSpec
        A plain string is a model.
    stimuli : StimuliSpec
        A plain string is a set.
    scan : ScanSpec
    analyses : mapping of str to mapping
        By a name of one's own: ``{analysis: {setting: value}}``. The line ``compare: SITE`` of a
        protocol adds those of `COMPARISONS`, under their own names.
    hypotheses : list of Hypothesis
    seed : int
        Of everything random.
    quick : QuickSpec or None
        What `--quick` is content with.
    exploratory : bool
        Whether all that is claimed is a look, of which no verdict is a finding.
    """

    study: Name
    title: str = ""
    subjects: Annotated[list[SubjectSpec], Field(min_length=1)]
    stimuli: StimuliSpec
    scan: ScanSpec
    analyses: Annotated[dict[Name, dict[str, dict[str, Any]]], Field(min_length=1)]
    hypotheses: list[Hypothesis] = []
    seed: Annotated[int, Field(ge=0)] = 0
    quick: QuickSpec | None = None
    exploratory: bool = False

    @field_validator("subjects", mode="before")
    @classmethod
    def _plain_models(cls, given: Any) -> Any:
        if not isinstance(given, list):
            return given
        return [{"model": one} if isinstance(one, str) else one for one in given]

    @field_validator("stimuli", mode="before")
    @classmethod
    def _plain_set(cls, given: Any) -> Any:
        return {"set": given} if isinstance(given, str) else given


@dataclasses.dataclass(frozen=True)
class Study:
    """A protocol that has been read and found good.

    Attributes
    ----------
    protocol : Protocol
    text : str
        The file as it stands, kept with the results.
    analyses : dict of str to Analysis
        Ready to call, by the protocol's names for them.
    stimuli : StimulusSet
        The part that will be read.
    source : MarkedYaml
        For errors that only the model can show, such as a layer that it does not have.
    folder : pathlib.Path
        Of the protocol, from which relative paths start.
    """

    protocol: Protocol
    text: str
    analyses: dict[str, Analysis]
    stimuli: StimulusSet
    source: MarkedYaml
    folder: Path

    def lesson(self, model: str) -> Lesson | None:
        """What a subject is taught; None for one that is not made by teaching.

        Raises
        ------
        ProtocolError
            If there is no such set, or it says no answers.
        """
        number = self._number(model)
        return _lesson(self.source, self.protocol.subjects[number], number, self.folder)

    def training(self, model: str) -> Training | None:
        """What a subject is trained on; None for one that is not made by training.

        Raises
        ------
        ProtocolError
            If there is no such grammar.
        """
        number = self._number(model)
        return _training(self.source, self.protocol.subjects[number], number, self.folder)

    def _number(self, model: str) -> int:
        """The place of a subject in the protocol."""
        called = [spec.called for spec in self.protocol.subjects]
        return called.index(model)

    def makings(self, models: Iterable[str]) -> dict[str, SubjectSpec]:
        """How subjects are made, and those that they are made of, whichever are made."""
        specs = {spec.called: spec for spec in self.protocol.subjects}
        found: dict[str, SubjectSpec] = {}
        left = list(models)
        while left:
            spec = specs[left.pop()]
            if spec.made and spec.called not in found:
                found[spec.called] = spec
                left += spec.made_of
        return found

    @property
    def sha256(self) -> str:
        """Digest of what the protocol says; comments and spacing do not count."""
        return digest(self.protocol.model_dump(mode="json"))

    def volume_of(self, name: str) -> str | None:
        """The analysis whose acts leave what an analysis reads; None if that is a recording.

        Parameters
        ----------
        name : str
            As the protocol names it.
        """
        analysis = self.analyses[name]
        if isinstance(analysis, Acting):
            return name
        site = getattr(analysis, "site", None)
        return site if site in self.analyses else None

    def subjects_of(self, hypothesis: Hypothesis) -> list[str]:
        """The models that a hypothesis speaks of, one after the other."""
        every = [spec.called for spec in self.protocol.subjects]
        if hypothesis.subject == EVERY:
            among = every if hypothesis.among is None else list(hypothesis.among)
            return [*among, *(hypothesis.minus or ())]
        return [hypothesis.subject or every[0]]

    def groups_of(self, hypothesis: Hypothesis) -> list[list[str]]:
        """Each of them with the one that it is compared with."""
        beside = [] if hypothesis.beside is None else [hypothesis.beside]
        return [[one, *beside] for one in self.subjects_of(hypothesis)]

    def check_layers(self, model: str, layers: int) -> None:
        """Hold the layers that hypotheses name, and those that are acted on, against a model.

        Parameters
        ----------
        model : str
            A subject as the protocol names it; hypotheses about others are left alone.
        layers : int
            How many it has.

        Raises
        ------
        ProtocolError
        """
        for name, analysis in self.analyses.items():
            if not isinstance(analysis, Acting) or not analysis.acts_upon(model):
                continue
            why = analysis.beyond(layers)
            if why:
                (kind,) = self.protocol.analyses[name]
                raise self.source.error(("analyses", name, kind, "layers"), why)
        for place, hypothesis in enumerate(self.protocol.hypotheses):
            layer = hypothesis.at.layer
            if model not in self.subjects_of(hypothesis):
                continue
            if isinstance(layer, int) and layer >= layers:
                raise self.source.error(
                    ("hypotheses", place, "at", "layer"),
                    f"{layer} is none of the model's {layers} layers (0 to {layers - 1})",
                )
            name, _, variable = hypothesis.measure.partition(".")
            why = isinstance(layer, int) and self.analyses[name].identity_at(
                variable, layer, layers
            )
            if why:
                raise self.source.error(
                    ("hypotheses", place, "measure"),
                    f"'{variable}' can be no finding at layer {layer}, whatever it is: {why}",
                )


def load_study(path: Path, *, stimuli: StimulusSet | None = None, quick: bool = False) -> Study:
    """Read and check a protocol.

    Parameters
    ----------
    path : pathlib.Path
    stimuli : StimulusSet, optional
        The stimuli as a finished study kept them, where they are not to be built anew.
    quick : bool
        Whether the study is a quick look at that of the protocol.

    Raises
    ------
    ProtocolError
        For the first mistake, with file, line, key and what was expected.
    """
    if quick:
        load_study(path, stimuli=stimuli)  # mistakes of the whole are named with their lines
    source = quick_look(read(path)) if quick else read(path)
    text = yaml.safe_dump(source.data, sort_keys=False, allow_unicode=True, width=110)
    _expand_comparison(source)
    _resolve_sites(source)
    try:
        protocol = Protocol.model_validate(source.data)
    except ValidationError as error:
        raise _explained(source, error) from None
    _check_scan(source, protocol.scan)
    _check_made(source, protocol)
    analyses = {name: _analysis(source, name, given) for name, given in protocol.analyses.items()}
    _check_subjects(source, protocol, analyses)
    _check_given(source, protocol, analyses)
    _check_dictionaries(source, protocol, analyses)
    _check_read(source, protocol, analyses)
    _check_hypotheses(source, protocol, analyses)
    _check_quick(source, protocol)
    if stimuli is None:
        try:
            stimuli = protocol.stimuli.loaded(path.parent)
        except StimulusError as error:
            raise source.error(("stimuli",), str(error)) from None
        for number, spec in enumerate(protocol.subjects):
            _lesson(source, spec, number, path.parent)
            _training(source, spec, number, path.parent)
    _check_columns(source, protocol, analyses, [*map(str, stimuli.table.columns), *TOKEN_LABELS])
    _check_categories(source, protocol, analyses, stimuli.table)
    _check_types(source, protocol, [*map(str, stimuli.table.columns), *TOKEN_LABELS])
    text = text if quick else path.read_text(encoding="utf-8")
    return Study(protocol, text, analyses, stimuli, source, path.parent)


def _check_quick(source: MarkedYaml, protocol: Protocol) -> None:
    """That a quick look keeps subjects, and leaves out analyses, that there are."""
    if protocol.quick is None:
        return
    known = {
        "subjects": [spec.called for spec in protocol.subjects],
        "without": list(protocol.analyses),
    }
    for key, names in known.items():
        for number, one in enumerate(getattr(protocol.quick, key) or ()):
            if one not in names:
                raise source.error(
                    ("quick", key, number), f"there is no '{one}'{nearest(one, names)}"
                )


def _check_made(source: MarkedYaml, protocol: Protocol) -> None:
    """That subjects which are made have names of their own, and are made of others there are.

    Raises
    ------
    ProtocolError
    """
    specs = {spec.called: spec for spec in protocol.subjects}
    for number, spec in enumerate(protocol.subjects):
        place: Place = ("subjects", number)
        if not spec.made:
            continue
        ways = [way for way in ("tuned", "sum", "trained") if getattr(spec, way) is not None]
        if len(ways) > 1:
            raise source.error(
                (*place, ways[1]),
                f"is made by `{ways[0]}` already; give the {ways[1]} a subject of its own",
            )
        if spec.revision is not None:
            other = f"; give it to '{spec.made_of[0]}'" if spec.made_of else ""
            raise source.error(
                (*place, "revision"), f"'{spec.model}' is made here and has none{other}"
            )
        if spec.model in EMBEDDED or not OWN_NAME.fullmatch(spec.model):
            raise source.error(
                (*place, "model"),
                f"'{spec.model}' is made here: give it a name of its own, of small letters, "
                "digits, - and _",
            )
        if [one.model for one in protocol.subjects].count(spec.model) > 1:
            raise source.error((*place, "model"), f"'{spec.model}' stands twice; rename one")
        (way,) = ways
        for other in spec.made_of:
            if other not in specs:
                at = (*place, way, "of" if other == spec.made_of[0] else "add")
                raise source.error(
                    at,
                    f"'{other}' is no subject of this protocol, so nothing can be made of it"
                    f"{nearest(other, specs)}",
                )
        circle = _circle(spec.model, specs)
        if circle:
            raise source.error(
                (*place, way), f"{' is made of '.join(circle)}; begin with a model that there is"
            )


def _circle(model: str, specs: dict[str, SubjectSpec]) -> list[str]:
    """The way from a subject back to itself, through those that it is made of; else nothing."""
    ways = [[model]]
    seen = set()
    while ways:
        way = ways.pop()
        for other in specs[way[-1]].made_of if way[-1] in specs else ():
            if other == model:
                return [*way, model]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []


def _lesson(source: MarkedYaml, spec: SubjectSpec, number: int, folder: Path) -> Lesson | None:
    """What a subject is taught; None for one that is not made by teaching.

    Raises
    ------
    ProtocolError
        If there is no such set, or it says no answers.
    """
    if spec.tuned is None:
        return None
    place: Place = ("subjects", number, "tuned", "stimuli")
    tuned = spec.tuned
    try:
        taught = tuned.stimuli.loaded(folder)
    except StimulusError as error:
        raise source.error(place, str(error)) from None
    columns = list(map(str, taught.table.columns))
    if "answer" not in columns:
        raise source.error(
            place,
            f"'{tuned.stimuli.set}' has no column 'answer', so there is nothing to be taught; "
            f"take a set that has it, such as 'tuning'",
        )
    if tuned.dealt is not None and tuned.dealt not in columns:
        raise source.error(
            ("subjects", number, "tuned", "dealt"),
            f"'{tuned.stimuli.set}' has no column '{tuned.dealt}'{nearest(tuned.dealt, columns)}",
        )
    return Lesson(
        taught,
        epochs=tuned.epochs,
        rate=tuned.rate,
        batch=tuned.batch,
        seed=tuned.seed,
        layers=None if tuned.layers is None else tuple(tuned.layers),
        dealt=tuned.dealt,
    )


def _training(source: MarkedYaml, spec: SubjectSpec, number: int, folder: Path) -> Training | None:
    """What a subject is trained on; None for one that is not made by training.

    Raises
    ------
    ProtocolError
        If there is no such grammar, or it is none.
    """
    if spec.trained is None:
        return None
    asked = spec.trained
    try:
        grammar = load_grammar(asked.grammar, relative_to=folder)
    except StimulusError as error:
        raise source.error(("subjects", number, "trained", "grammar"), str(error)) from None
    settings = asked.model_dump(exclude={"grammar", "penalty"})
    return Training(grammar, **settings, penalty=Penalty(**asked.penalty.model_dump()))


def _expand_comparison(source: MarkedYaml) -> None:
    """Put what `compare` stands for in its place: each of `COMPARISONS`, under its own name.

    Raises
    ------
    ProtocolError
        If it is no site, or one of them stands there already.
    """
    if not isinstance(source.data, dict) or "compare" not in source.data:
        return
    site = source.data.pop("compare")
    if not isinstance(site, str):
        raise source.error(
            ("compare",), f"expected a site in which subjects are compared, found {site!r}"
        )
    analyses = source.data.setdefault("analyses", {})
    for name in COMPARISONS if isinstance(analyses, dict) else ():
        if name in analyses:
            raise source.error(
                ("analyses", name), "is what `compare` adds; leave one of them out, or rename this"
            )
        analyses[name] = {name: {"site": site}}
        source.lines["analyses", name] = source.lines["compare",]


def _resolve_sites(source: MarkedYaml) -> None:
    """Put our names of sites in the place of those of other tools.

    Raises
    ------
    ProtocolError
        For a name that means no site, one layer of it (a scan records every layer), or one that
        stands there already.
    """
    data = source.data if isinstance(source.data, dict) else {}
    sites = data["scan"].get("sites") if isinstance(data.get("scan"), dict) else None
    if isinstance(sites, list):
        for number, name in enumerate(sites):
            place = ("scan", "sites", number)
            found = _resolved(source, place, name)
            if found in sites[:number]:
                same = "" if found == name else f"is '{found}', which "
                raise source.error(place, f"'{name}' {same}stands twice")
            sites[number] = found
    analyses = data.get("analyses")
    analyses = analyses if isinstance(analyses, dict) else {}
    # What some make is a site by the name that they have here.
    told = [
        name
        for name, given in analyses.items()
        if isinstance(given, dict) and not given.keys().isdisjoint(MAKING)
    ]
    for own, given in analyses.items():
        for kind, settings in given.items() if isinstance(given, dict) else ():
            if isinstance(settings, dict) and "site" in settings:
                if settings["site"] in told:
                    if issubclass(REGISTRY.get(kind, Analysis), Acting):
                        raise source.error(
                            ("analyses", own, kind, "site"),
                            f"'{kind}' acts on the model, which has no '{settings['site']}' of its "
                            "own; name a site",
                        )
                    continue
                place = ("analyses", own, kind, "site")
                settings["site"] = _resolved(source, place, settings["site"])


def _resolved(source: MarkedYaml, place: Place, name: Any) -> Any:
    if not isinstance(name, str):
        return name
    try:
        found = resolve(name)
    except SiteError as error:
        raise source.error(place, str(error)) from None
    if found.layer is not None:
        raise source.error(
            place, f"'{name}' is one layer; a scan records all of them, write '{found.kind}'"
        )
    return found.kind


def _check_scan(source: MarkedYaml, scan: ScanSpec) -> None:
    """Settings of a scan that do not go together."""
    if scan.top_logits is not None and "logits" not in scan.sites:
        raise source.error(
            ("scan", "top_logits"),
            "no logits are scanned; add 'logits' to `sites`, or leave it out",
        )
    weights = next((kind for kind in scan.sites if kind in PAIRED), None)
    if weights is not None and scan.tokens in ("target_mean", "mean"):
        raise source.error(
            ("scan", "tokens"),
            f"'{weights}' has no mean over tokens, which see different keys; scan it with "
            f"`tokens: target`, not `{scan.tokens}`",
        )


def dims(kind: Kind, tokens: Tokens) -> tuple[str, ...]:
    """The dimensions of a site in a volume, told before anything is recorded."""
    several = "position" if not isinstance(tokens, str) and kind not in PAIRED else None
    row = "pair" if kind in PAIRED else "token" if tokens == "all" else "stimulus"
    layer = None if kind in OUTSIDE else "layer"
    return (row, *(dim for dim in (layer, several) if dim), *MEANINGS[kind].dims)


def _check_read(source: MarkedYaml, protocol: Protocol, analyses: dict[str, Analysis]) -> None:
    """That what each analysis reads is scanned, and in a way that it can read."""
    scan = protocol.scan
    for name, analysis in analyses.items():
        site = getattr(analysis, "site", None)
        if site is None:
            continue
        place = ("analyses", name, next(iter(protocol.analyses[name])), "site")
        if isinstance(analysis, Acting) and analysis.makes and name in KINDS:
            (kind,) = protocol.analyses[name]
            raise source.error(
                ("analyses", name), f"is a site of the model, and {kind} are read by this name; "
                "give them another",
            )  # fmt: skip
        told = analyses.get(site)
        if told is None and site not in scan.sites:
            raise source.error(
                place, f"'{site}' is not among the scanned sites: {', '.join(scan.sites)}"
            )
        found = told.makes if isinstance(told, Acting) else dims(site, scan.kept)
        why = analysis.misfit(found)
        if why:
            raise source.error(place, why)
        if isinstance(analysis, Acting) and scan.tokens not in ("target", "last"):
            raise source.error(
                ("scan", "tokens"),
                f"'{name}' acts on what it reads, one token of each text; scan with "
                "`tokens: target` or `last`",
            )


def _check_subjects(source: MarkedYaml, protocol: Protocol, analyses: dict[str, Analysis]) -> None:
    """That there are as many subjects as an analysis takes at once, with the weights it needs."""
    for name, analysis in analyses.items():
        if len(protocol.subjects) < (analysis.takes or 1):
            kind = next(iter(protocol.analyses[name]))
            raise source.error(
                ("analyses", name, kind),
                f"compares {analysis.takes} subjects, and the protocol has "
                f"{len(protocol.subjects)}; name another"
                + (", or leave `across` out" if hasattr(analysis, "across") else ""),
            )
        if not (isinstance(analysis, Acting) and analysis.moves_weights):
            continue
        for number, spec in enumerate(protocol.subjects):
            if spec.weights is not None:
                raise source.error(
                    ("subjects", number, "weights"),
                    f"'{name}' needs weights that can change by little, which {spec.weights} has "
                    "not; leave one of them out",
                )


def _check_given(source: MarkedYaml, protocol: Protocol, analyses: dict[str, Analysis]) -> None:
    """That what acts are given are subjects of the protocol, and claims are of those acted on."""
    models = [spec.called for spec in protocol.subjects]
    for name, analysis in analyses.items():
        if not isinstance(analysis, Acting) or not analysis.given:
            continue
        kind = next(iter(protocol.analyses[name]))
        settings = {str(value): key for key, value in protocol.analyses[name][kind].items()}
        for one in (*analysis.only, *analysis.given):
            if one not in models:
                raise source.error(
                    ("analyses", name, kind, settings.get(one, "donor")),
                    f"'{one}' is not scanned{nearest(one, models)}",
                )
        acted = [one for one in models if analysis.acts_upon(one)]
        if not acted:
            raise source.error(
                ("analyses", name, kind),
                f"beside {', '.join(analysis.given)} no subject is left to act on; name another",
            )
        for number, hypothesis in enumerate(protocol.hypotheses):
            if hypothesis.measure.partition(".")[0] != name:
                continue
            if hypothesis.subject is not None and hypothesis.subject not in (*acted, EVERY):
                raise source.error(
                    ("hypotheses", number, "subject"),
                    f"'{hypothesis.subject}' is only given to '{name}', which acts on "
                    f"{', '.join(acted)}; name one of these",
                )


def _check_columns(
    source: MarkedYaml, protocol: Protocol, analyses: dict[str, Analysis], columns: list[str]
) -> None:
    """That the stimuli have what analyses read of them; a recording adds what tokens tell."""
    for name, analysis in analyses.items():
        for setting in ("label", "confounds", "models"):
            asked = getattr(analysis, setting, ())
            for column in (asked,) if isinstance(asked, str) else asked:
                if column not in columns:
                    raise source.error(
                        ("analyses", name, next(iter(protocol.analyses[name])), setting),
                        f"the stimuli have no column '{column}'{nearest(column, columns)}",
                    )


def _check_categories(
    source: MarkedYaml, protocol: Protocol, analyses: dict[str, Analysis], table: pd.DataFrame
) -> None:
    """That the categories which analyses name, alone or in contrasts, are those of the stimuli."""
    for name, analysis in analyses.items():
        label = label_of(analysis)
        if label not in table:  # what a recording adds is seen then
            continue
        categories = sorted(table[label].astype(str).unique())
        for setting in ("contrast", "others"):
            asked = getattr(analysis, setting, ())
            for contrast in (asked,) if isinstance(asked, str) else asked:
                try:
                    weights(contrast, categories)
                except ValueError as error:
                    kind = next(iter(protocol.analyses[name]))
                    raise source.error(("analyses", name, kind, setting), str(error)) from None
        for setting in ("category", "domain"):
            asked = getattr(analysis, setting, None)
            if asked is not None and asked not in categories:
                kind = next(iter(protocol.analyses[name]))
                raise source.error(
                    ("analyses", name, kind, setting),
                    f"no '{label}' of the stimuli is '{asked}'{nearest(asked, categories)}",
                )


def _check_types(source: MarkedYaml, protocol: Protocol, columns: list[str]) -> None:
    """That the stimuli have the columns whose values controls deal labels out among."""
    for number, hypothesis in enumerate(protocol.hypotheses):
        for name, settings in hypothesis.controls.items():
            column = settings.get("type")
            if column is not None and column not in columns:
                raise source.error(
                    ("hypotheses", number, "controls", name, "type"),
                    f"the stimuli have no column '{column}'{nearest(column, columns)}",
                )


def _analysis(source: MarkedYaml, name: str, given: dict[str, dict[str, Any]]) -> Analysis:
    place: Place = ("analyses", name)
    if len(given) != 1:
        raise source.error(place, "expected one analysis, `{name: {settings}}`")
    kind, settings = next(iter(given.items()))
    if kind not in REGISTRY:
        raise source.error((*place, kind), f"no analysis is called that{nearest(kind, REGISTRY)}")
    return _configured(source, (*place, kind), REGISTRY[kind], settings)


def _configured(source: MarkedYaml, place: Place, cls: type[Any], settings: dict[str, Any]) -> Any:
    """A frozen dataclass from the settings of a protocol, its fields checked one by one."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    checked = {}
    for name, value in settings.items():
        if name not in fields:
            raise source.error((*place, name), f"no such setting{nearest(name, fields)}")
        hint = typing.get_type_hints(cls)[name]
        checked[name] = _checked(source, (*place, name), hint, value)
    for name, field in fields.items():
        if name not in settings and field.default is dataclasses.MISSING:
            raise source.error(place, f"setting '{name}' is needed")
    try:
        return cls(**checked)
    except ValueError as error:
        raise source.error(place, str(error)) from None


def _checked(source: MarkedYaml, place: Place, expected: Any, value: Any) -> Any:
    """The value, with lists as the tuples that a frozen dataclass holds."""
    try:
        adapter = TypeAdapter(expected, config=ConfigDict(strict=True))
        return adapter.validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError:
        raise source.error(place, f"expected {_kind(expected)}, found {value!r}") from None


def _kind(expected: Any) -> str:
    """A type in words."""
    inner = [_kind(one) for one in typing.get_args(expected) if one is not Ellipsis]
    if typing.get_origin(expected) is tuple:
        return f"a list, each {inner[0]}"
    if typing.get_origin(expected) is typing.Literal:
        return " or ".join(f"'{one}'" for one in typing.get_args(expected))
    return " or ".join(inner) or getattr(expected, "__name__", str(expected))


def _check_hypotheses(
    source: MarkedYaml, protocol: Protocol, analyses: dict[str, Analysis]
) -> None:
    models = [subject.called for subject in protocol.subjects]
    seen: set[str] = set()
    for number, hypothesis in enumerate(protocol.hypotheses):
        place: Place = ("hypotheses", number)
        if hypothesis.id in seen:
            raise source.error((*place, "id"), f"'{hypothesis.id}' stands twice")
        seen.add(hypothesis.id)
        name, _, variable = hypothesis.measure.partition(".")
        if name not in analyses:
            raise source.error(
                (*place, "measure"), f"no analysis is named '{name}'{nearest(name, analyses)}"
            )
        _check_beside(source, place, models, hypothesis, analyses[name])
        measures = analyses[name].measures
        why = analyses[name].identities.get(variable)
        if why is not None:
            raise source.error((*place, "measure"), no_finding(variable, why))
        if variable not in measures:
            raise source.error(
                (*place, "measure"),
                f"'{name}' has no measure '{variable}'{nearest(variable, measures)}",
            )
        read = analyses.get(getattr(analyses[name], "site", ""), analyses[name])
        acted = read.stands_at if isinstance(read, Acting) else None
        layer = hypothesis.at.layer
        if acted is not None and isinstance(layer, int) and layer not in acted:
            raise source.error(
                (*place, "at", "layer"), f"'{name}' does nothing at layer {layer}, but at "
                f"{', '.join(map(str, acted))}",
            )  # fmt: skip
        if hypothesis.subject is None and len(models) > 1:
            raise source.error(place, f"needs `subject`, one of: {', '.join((*models, EVERY))}")
        _check_among(source, (*place, "among"), models, hypothesis)
        _check_minus(source, place, models, hypothesis, measures[variable])
        _check_follows(source, place, protocol, hypothesis)
        if hypothesis.subject == EVERY:
            _check_every(source, place, protocol, hypothesis, analyses[name])
        elif hypothesis.subject is not None and hypothesis.subject not in models:
            raise source.error(
                (*place, "subject"),
                f"'{hypothesis.subject}' is not scanned{nearest(hypothesis.subject, models)}",
            )
        _check_controls(source, (*place, "controls"), protocol, hypothesis, analyses[name])
        _check_alternatives(source, (*place, "alternatives"), hypothesis, analyses[name])


def _check_dictionaries(
    source: MarkedYaml, protocol: Protocol, analyses: dict[str, Analysis]
) -> None:
    """That what acts on features names what makes them, of its own site and layers."""
    for name, analysis in analyses.items():
        dictionary = getattr(analysis, "dictionary", None)
        if dictionary is None:
            continue
        place = ("analyses", name, next(iter(protocol.analyses[name])), "dictionary")
        making = analyses.get(dictionary)
        if not isinstance(making, Features):
            made = [name for name, one in analyses.items() if isinstance(one, Features)]
            raise source.error(
                place, f"no analysis `features` is named '{dictionary}'{nearest(dictionary, made)}"
            )
        if making.site != getattr(analysis, "site", None):
            raise source.error(place, f"'{dictionary}' tells {making.site}, another site")
        missing = set(getattr(analysis, "layers", ())) - {*making.layers}
        if missing:
            raise source.error(
                place, f"'{dictionary}' tells no layer {min(missing)}; add it to its `layers`"
            )


def _check_every(
    source: MarkedYaml,
    place: Place,
    protocol: Protocol,
    hypothesis: Hypothesis,
    analysis: Analysis,
) -> None:
    """That a claim about every subject can be one, and that there are enough of them."""
    name, among = hypothesis.measure.partition(".")[0], hypothesis.among
    count = len(protocol.subjects if among is None else among)
    if analysis.takes != 1 or isinstance(analysis, Acting) and analysis.given:
        raise source.error(
            (*place, "subject"),
            f"'{name}' is about more than one subject at once; '{EVERY}' is of measures of one",
        )
    fewest = FEWEST if hypothesis.follows is None else FEWEST_TO_FOLLOW
    if count < fewest:
        raise source.error(
            (*place, "subject"),
            f"'{EVERY}' needs at least {fewest} subjects to say something of others, and "
            f"{'the protocol' if among is None else '`among`'} has {count}; name one, or add "
            "subjects",
        )


def _check_among(
    source: MarkedYaml, place: Place, models: list[str], hypothesis: Hypothesis
) -> None:
    """That a sample of subjects is one of a claim about every subject, each scanned and once."""
    among = hypothesis.among
    if among is None:
        return
    if hypothesis.subject != EVERY:
        raise source.error(place, f"is of claims about all subjects; say `subject: {EVERY}`")
    for one in among:
        if one not in models:
            raise source.error(place, f"'{one}' is not scanned{nearest(one, models)}")
        if among.count(one) > 1:
            raise source.error(place, f"'{one}' stands twice")


def _check_follows(
    source: MarkedYaml, place: Place, protocol: Protocol, hypothesis: Hypothesis
) -> None:
    """That a score stands beside every subject, and is held against no number."""
    follows = hypothesis.follows
    if follows is None:
        return
    if hypothesis.subject != EVERY:
        raise source.error(
            (*place, "follows"), f"is of claims about all subjects; say `subject: {EVERY}`"
        )
    if hypothesis.than != "chance":
        raise source.error(
            (*place, "than"), "a correlation with scores is held against none: `than: chance`"
        )
    for spec in protocol.subjects:
        if hypothesis.among is not None and spec.called not in hypothesis.among:
            continue
        if follows not in spec.followed:
            raise source.error(
                (*place, "follows"),
                f"'{spec.called}' has no score '{follows}'{nearest(follows, spec.followed)}",
            )


def _check_minus(
    source: MarkedYaml,
    place: Place,
    models: list[str],
    hypothesis: Hypothesis,
    quantity: Quantity,
) -> None:
    """That each subject of a claim about pairs has another, and that there are enough of them."""
    minus, there = hypothesis.minus, (*place, "minus")
    if minus is None:
        return
    if hypothesis.among is None:
        raise source.error(there, "is held against subjects that are named; say `among`")
    if hypothesis.follows is not None:
        raise source.error(there, "a claim about pairs follows no score; leave one of both out")
    if len(minus) != len(hypothesis.among):
        raise source.error(
            there, f"of {len(hypothesis.among)} subjects in `among` {len(minus)} are held against "
            "another; name one for each, in the same order",
        )  # fmt: skip
    for number, one in enumerate(minus):
        if one not in models:
            raise source.error(there, f"'{one}' is not scanned{nearest(one, models)}")
        if one in hypothesis.among or one in minus[:number]:
            # Pairs that share a subject are not independent.
            raise source.error(there, f"'{one}' stands in two places of these pairs")
    if hypothesis.than != 0:
        raise source.error((*place, "than"), "differences are held against none: `than: 0`")
    least = 0.5 ** len(minus)
    if least > hypothesis.alpha:
        raise source.error(
            there, f"{len(minus)} pairs cannot reach an alpha of {hypothesis.alpha:g}: all signs "
            f"alike have a p of {least:.2g}; add pairs",
        )  # fmt: skip
    if quantity.least > -quantity.greatest:
        raise source.error(
            (*place, "measure"),
            f"'{hypothesis.measure}' has no values below {quantity.least:g}, as differences have; "
            "claims about pairs are about measures whose scale goes as far to both sides",
        )


def _check_beside(
    source: MarkedYaml, place: Place, models: list[str], hypothesis: Hypothesis, analysis: Analysis
) -> None:
    """That a claim names as many subjects as its analysis takes at once."""
    beside, name = hypothesis.beside, hypothesis.measure.partition(".")[0]
    if analysis.takes is None:
        raise source.error(
            (*place, "measure"), f"'{name}' is about all subjects at once, and no claim is judged"
        )
    if analysis.takes == 1 and beside is not None:
        raise source.error((*place, "beside"), f"'{name}' reads one subject; leave it out")
    if analysis.takes == 2 and beside is None:
        others = [model for model in models if model != hypothesis.subject]
        raise source.error(
            place, f"'{name}' compares two subjects; say `beside`, one of: {', '.join(others)}"
        )
    if beside is not None and beside not in models:
        raise source.error(
            (*place, "beside"), f"'{beside}' is not scanned{nearest(beside, models)}"
        )
    if beside is not None and beside == hypothesis.subject:
        raise source.error((*place, "beside"), f"'{beside}' is the subject itself; name another")


def _check_controls(
    source: MarkedYaml,
    place: Place,
    protocol: Protocol,
    hypothesis: Hypothesis,
    analysis: Analysis,
) -> None:
    for name, settings in hypothesis.controls.items():
        if name not in CONTROLS:
            raise source.error((*place, name), f"no such control{nearest(name, CONTROLS)}")
        _configured(source, (*place, name), CONTROLS[name], settings)
        why = CONTROLS[name].misfit(analysis)
        if why:
            raise source.error((*place, name), why)
    needed = required(hypothesis, analysis)
    missing = [name for name in needed if name not in hypothesis.controls]
    if missing:
        raise source.error(
            place,
            f"a claim that expects '{hypothesis.expect}' cannot be judged without "
            f"'{missing[0]}'; required are {', '.join(needed)}",
        )
    if "untrained_twin" in hypothesis.controls and protocol.scan.twins == 0:
        raise source.error(
            (*place, "untrained_twin"), "no twin is scanned; set `twins` under `scan`"
        )


def _check_alternatives(
    source: MarkedYaml, place: Place, hypothesis: Hypothesis, analysis: Analysis
) -> None:
    """That they are other values of settings, of a claim that can be measured again with them."""
    if hypothesis.alternatives is None:
        return
    if hypothesis.subject == EVERY:
        raise source.error(place, f"are shown of claims about one subject, not of '{EVERY}'")
    if isinstance(analysis, Acting):
        raise source.error(
            place, "what was done would have to be done anew; write an analysis for each setting"
        )
    given = dataclasses.asdict(analysis)
    for name, values in hypothesis.alternatives.items():
        if name in ("site", "label"):
            raise source.error(
                (*place, name), f"another {name} makes another claim; register it as one"
            )
        for number, value in enumerate(values):
            there = (*place, name, number)
            other = _configured(source, place, type(analysis), {**given, name: value})
            if getattr(other, name) == given[name] or value in values[:number]:
                raise source.error(there, f"{value!r} stands there already")


def _explained(source: MarkedYaml, error: ValidationError) -> ProtocolError:
    """The first of pydantic's complaints, at its line and in our words."""
    # A misspelt key is also a missing one; the misspelling is what the user can see.
    first = min(
        error.errors(),
        key=lambda one: (
            one["type"] != "extra_forbidden",
            source.lines.get(_named(one["loc"], source), 0),
        ),
    )
    place = _named(first["loc"], source)
    if first["type"] == "extra_forbidden":
        fields = _fields(place[:-1]) + ["compare"] * (len(place) == 1)
        return source.error(place, f"unknown key{nearest(str(place[-1]), fields)}")
    if first["type"] == "missing":
        return source.error(place[:-1], f"key '{place[-1]}' is needed")
    message = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if first["type"] == "too_short":
        message = "at least one"
    elif first["type"] == "model_type":
        message = f"keys and values ({', '.join(_fields(place))})"
    return source.error(place, f"expected {message}, found {first['input']!r}")


def _named(loc: tuple[str | int, ...], source: MarkedYaml) -> Place:
    """Pydantic's location without the parts that name a branch of a union, not a key."""
    place: Place = ()
    for part in loc:
        if (*place, part) in source.lines or part == loc[-1] and part in _fields(place):
            place = (*place, part)
    return place if place else tuple(loc[:1])


def _fields(place: Place) -> list[str]:
    """The keys that may stand at a place."""
    model: Any = Protocol
    for part in place:
        if isinstance(part, int):
            continue
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = next(_models(field.annotation), None)
    return list(getattr(model, "model_fields", {}))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in get_args(annotation):
        yield from _models(inner)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` or the whole list."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are {', '.join(names)}" if names else ""
