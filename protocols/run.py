"""The eight steps of a study.

1. the protocol is read and checked (`schema.load_study`)
2. `register`: hypotheses are frozen in the ledger
3. `plan`: stimuli are built, subjects are found and their sizes read
4. `record`: each subject and its twins, into volumes that all studies share; what analyses do to
   them, beside them
5. `analyse`: each analysis on each recording
6. `judge`: the gate reruns the analyses in the controls of each hypothesis
7. `report`: verdicts, figures and provenance in one page
8. `verify.verify`: digests and numbers are checked again
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import xarray as xr
from joblib import cpu_count
from threadpoolctl import threadpool_limits

from analyses.acting import Acting
from analyses.base import groups
from protocols.folders import Folders, RunError
from protocols.preregistration import Registered
from protocols.progress import noted, step
from protocols.report import render
from protocols.schema import LEARNED, MAKING, MEASURED, Study, SubjectSpec
from scanner import (
    Acts,
    Chat,
    Lesson,
    Live,
    Model,
    Recipe,
    Recording,
    Source,
    Subject,
    Training,
    anatomy,
    find_source,
    fresh,
    make,
    open_volume,
    record_effects,
    verify_volume,
)
from scanner import record as record_volume
from scanner.cluster import Wanted, connected, record_on, spread
from scanner.phantom import Check, phantom_of
from scanner.provenance import code_version, digest, environment, file_digest
from scanner.trained import told_loss
from scanner.volume import check_finite, digest_file
from verification import Case, Hypothesis, Ledger, Population, Registration, Verdict
from verification import evidence as gather_evidence
from verification import judge as pass_judgement
from verification.base import EVERY
from verification.gate import in_parallel
from verification.population import Side
from verification.statistics import stream

# What is done while a subject is made.
WAYS = {type(None): "putting together", Lesson: "teaching", Training: "training"}


@dataclass(frozen=True)
class Planned:
    """One recording of the plan, and the subject of the protocol that it belongs to."""

    spec: SubjectSpec
    recording: Recording


@dataclass(frozen=True)
class Recorded:
    """A finished recording: what the gate needs to know of it.

    Attributes
    ----------
    model : str
        The subject as the protocol names it.
    subject : str
        The name of the recording.
    seed : int or None
        Of a twin.
    path : str
        Relative to the folder of results.
    sha256 : str
    analysis : str or None
        Of what was done to a subject, the analysis that did it, as the protocol names it.
    """

    model: str
    subject: str
    seed: int | None
    path: str
    sha256: str
    analysis: str | None = None


@dataclass(frozen=True)
class Run:
    """A study and the folders that it writes to.

    Attributes
    ----------
    study : Study
    folders : Folders
    accept_phantom : bool
        Whether a device is recorded on that fails its phantom.
    cluster : str or None
        Who records, analyses and judges (`scanner.cluster.connected`); this machine by default.
    """

    study: Study
    folders: Folders
    accept_phantom: bool = False
    cluster: str | None = None

    @cached_property
    def plan(self) -> list[Planned]:
        """What is to be recorded: each subject, then its twins. Fetches subjects on first use."""
        protocol = self.study.protocol
        planned = []
        for spec in protocol.subjects:
            source = self._source(spec.called)
            self.study.check_layers(spec.called, anatomy(source).layers)
            if any(source.name == other.recording.source.name for other in planned):
                raise self.study.source.error(
                    ("subjects",),
                    f"two are called '{source.name}', and so would their files; give one a `name`",
                )
            planned += [
                Planned(spec, self._recording(source, spec, seed))
                for seed in (None, *range(protocol.scan.twins))
            ]
        return planned

    def _source(self, model: str) -> Source:
        """A subject of the protocol: found, or made of others if it has not been made."""
        if model not in self._sources:
            spec = self._specs[model]
            if not spec.made:
                with noted(f"finding {model}"):
                    source = find_source(spec.model, revision=spec.revision)
                    self._sources[model] = replace(source, name=spec.name or source.name)
            else:
                recipe = self._recipe(spec)
                what = "finding" if recipe.made else WAYS[type(recipe.work)]
                with step(f"{what} {model}", recipe.steps, "steps") as done:
                    self._sources[model] = make(recipe, advance=done)
        return self._sources[model]

    def _recipe(self, spec: SubjectSpec) -> Recipe:
        """How a subject is made; makes those that it is made of."""
        training = self.study.training(spec.called)
        if training is not None:
            return Recipe(spec.called, fresh(training), dtype=spec.dtype, training=training)
        base = self._source(spec.made_of[0])
        added = {} if spec.sum is None else spec.sum.add
        return Recipe(
            spec.called,
            base,
            self.study.lesson(spec.called),
            tuple((self._source(other), strength) for other, strength in added.items()),
            spec.dtype,
        )

    def to_be_made(self) -> list[tuple[str, int]]:
        """Subjects that have not been made yet, and in how many steps each is."""
        left: dict[str, int] = {}
        for model, spec in self._specs.items():
            if not spec.made:
                continue
            makings = self.study.makings([model])
            if any(one != model and one in left for one in makings):
                lesson = self.study.lesson(model)
                left[model] = 1 if lesson is None else lesson.steps
                continue
            recipe = self._recipe(spec)
            if not recipe.made:
                left[model] = recipe.steps
        return list(left.items())

    @cached_property
    def _sources(self) -> dict[str, Source]:
        return {}

    @cached_property
    def _specs(self) -> dict[str, SubjectSpec]:
        """Subjects by name, those first that others are made of."""
        specs = {spec.called: spec for spec in self.study.protocol.subjects}
        names = list(specs)
        return {
            name: specs[name]
            for name in sorted(names, key=lambda name: len(self.study.makings([name])))
        }

    def _recording(self, source: Source, spec: SubjectSpec, seed: int | None) -> Recording:
        scan = self.study.protocol.scan
        return Recording(
            source,
            self.study.stimuli,
            tuple(scan.sites),
            scan.kept,
            spec.dtype,
            seed,
            store=scan.store,
            share=scan.share_prefixes,
            top=scan.top_logits,
            chat=None if scan.chat is None else Chat(scan.chat.system),
            truncate=scan.truncate,
            bits=spec.weights,
        )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of the same folder of results.

        Raises
        ------
        RunError, StoreError
            If another run is in it, or it cannot be reached.
        """
        with self.folders.alone():
            yield

    @contextmanager
    def workers(self) -> Iterator[Any]:
        """The cluster that was asked for, the same one in steps that are taken in the body.

        Yields
        ------
        distributed.Client or None
        """
        if self.cluster is None or self._clients:
            yield self._clients[0] if self._clients else None
            return
        with connected(self.cluster) as client:
            self._clients.append(client)
            try:
                yield client
            finally:
                self._clients.clear()

    @cached_property
    def _clients(self) -> list[Any]:
        """That which is connected."""
        return []

    @contextmanager
    def _spread(self) -> Iterator[int]:
        """The workers for what is independent; tells how many `in_parallel` is to be told of."""
        with self.workers() as client:
            if client is None:
                yield cpu_count()
                return
            with spread(client) as processes:
                yield processes

    def _ledger(self) -> Ledger:
        """To be written to."""
        return Ledger(self.folders.ledger, written=self.folders.keep_ledger)

    def register(self) -> dict[str, str]:
        """Freeze the hypotheses. Returns the sha256 of each by its id."""
        _ = self.plan  # finds subjects and checks layers: what cannot be judged is not frozen
        ledger = self._ledger()
        return {one.hypothesis.id: ledger.register(one) for one in self.registrations()}

    def registered(self) -> Registered:
        """The study as it stands in the ledger.

        Raises
        ------
        RunError
            If a hypothesis is not registered.
        """
        ledger = Ledger(self.folders.ledger)
        drawer = {one.sha256: one for one in ledger.drawer()}
        filed = {}
        for registration in self.registrations():
            name = registration.hypothesis.id
            if registration.sha256 not in drawer:
                raise RunError(f"'{name}' is not registered; run `scan register` on this protocol")
            filed[name] = drawer[registration.sha256]
        volumes = [path.name for _, _, path in self._paths()]
        recorded = [one for one in volumes if ledger.find("recording", volume=one) is not None]
        return Registered(self.study, filed, ledger.head, recorded)

    def registrations(self) -> Iterator[Registration]:
        """The hypotheses as they are frozen."""
        protocol = self.study.protocol
        specs = {spec.called: spec for spec in protocol.subjects}
        for hypothesis in protocol.hypotheses:
            name = hypothesis.measure.partition(".")[0]
            (kind,) = protocol.analyses[name]
            yield Registration(
                study=protocol.study,
                hypothesis=hypothesis,
                analysis={kind: asdict(self.study.analyses[name])},
                stimuli_sha256=self.study.stimuli.digest,
                items=_short_digests(self.study.stimuli.table["item"]),
                scan={
                    **protocol.scan.model_dump(mode="json"),
                    **(
                        {
                            "subjects": [
                                specs[one].model_dump(mode="json")
                                for one in self.study.subjects_of(hypothesis)
                            ]
                        }
                        if hypothesis.subject == EVERY
                        else specs[self.study.subjects_of(hypothesis)[0]].model_dump(mode="json")
                    ),
                    **(
                        {}
                        if hypothesis.beside is None
                        else {"beside": specs[hypothesis.beside].model_dump(mode="json")}
                    ),
                    **self._features(name),
                    **self._donor(name),
                    **self._made(hypothesis),
                },
                seed=protocol.seed,
            )

    def _features(self, name: str) -> dict[str, Any]:
        """How the features that an analysis reads are made, by their name; else nothing."""
        told = getattr(self.study.analyses[name], "dictionary", None)
        read = self.study.volume_of(name) if told is None else told
        return {} if read in (None, name) else {read: asdict(self.study.analyses[read])}

    def _donor(self, name: str) -> dict[str, Any]:
        """The subjects that an analysis is given when it acts on others; else nothing."""
        specs = {spec.called: spec for spec in self.study.protocol.subjects}
        given = [specs[one].model_dump(mode="json") for one in self._given(name)]
        return {} if not given else {"donor": given[0], **({"given": given} if given[1:] else {})}

    def _given(self, name: str) -> tuple[str, ...]:
        analysis = self.study.analyses[name]
        return analysis.given if isinstance(analysis, Acting) else ()

    def _made(self, hypothesis: Hypothesis) -> dict[str, Any]:
        """How the subjects of a claim, and what they are made of, are made; else nothing."""
        given = self._given(hypothesis.measure.partition(".")[0])
        named = {*given, *(one for group in self.study.groups_of(hypothesis) for one in group)}
        found = self.study.makings(named)
        made = {name: found[name].model_dump(mode="json") for name in sorted(found)}
        return {"made": made} if made else {}

    def record(self) -> None:
        """Record what is missing, and note in the ledger what was recorded."""
        ledger = self._ledger()
        self.folders.take([path for _, _, path in self._paths()])
        loaded: dict[str, Model] = {}
        if self.cluster is not None:
            self._record_on(ledger)
        for planned in self.plan:
            load = cache(lambda planned=planned: _load(planned, loaded))
            if self.cluster is None:
                self._record(planned.recording, load, ledger)
            for name, acts in self.acts(planned):
                if not acts.donors:
                    self._act(name, acts, load, ledger)
        for planned in self.plan:  # what needs the recordings of other subjects
            load = cache(lambda planned=planned: _load(planned, loaded))
            for name, acts in self.acts(planned):
                if acts.donors:
                    self._act(name, acts, load, ledger)

    def _record(self, recording: Recording, load: Callable[[], Model], ledger: Ledger) -> None:
        """Record a subject, unless it was done."""
        with step(f"recording {recording.subject}", len(recording.stimuli), "stimuli") as done:
            there = recording.path(self.folders.volumes).exists()
            path = record_volume(
                recording,
                self.folders.volumes,
                load,
                protocol_sha256=self.study.sha256,
                accept_phantom=self.accept_phantom,
                advance=done,
            )
        self._keep(path, ledger, new=not there)

    def _record_on(self, ledger: Ledger) -> None:
        """Record all subjects on a cluster."""
        wanted = [Wanted(one.recording, one.spec.placement) for one in self.plan]
        stimuli = sum(len(one.recording.stimuli) for one in wanted)
        what = f"recording {', '.join(one.recording.subject for one in wanted)} on {self.cluster}"
        with self.workers() as client, step(what, stimuli, "stimuli") as done:
            for recording, new in record_on(
                client,
                wanted,
                self.folders.volumes,
                protocol_sha256=self.study.sha256,
                accept_phantom=self.accept_phantom,
                advance=done,
            ):
                self._keep(recording.path(self.folders.volumes), ledger, new=new)

    def _keep(self, path: Path, ledger: Ledger, *, new: bool) -> None:
        """Note in the ledger that a volume was recorded, and keep it where results lie.

        In this order: to push one may take long, and who is killed meanwhile shall not forget when
        it was recorded.
        """
        if new:
            ledger.recorded(path.name, digest_file(path).read_text().strip())
        self.folders.keep_volume(path)

    def acts(self, planned: Planned) -> Iterator[tuple[str, Acts]]:
        """What analyses are going to do to a subject, by their names in the protocol.

        What is set in from another subject is not done to that one itself; weights are moved of
        the subject that the others are made of.
        """
        analyses = self.study.analyses
        # What others read, or are told to act on, is made first.
        for name in sorted(analyses, key=lambda name: getattr(analyses[name], "makes", ()) == ()):
            analysis = analyses[name]
            if isinstance(analysis, Acting) and analysis.acts_upon(planned.spec.called):
                yield name, self._acts(planned, name)

    def _acts(self, planned: Planned, name: str) -> Acts:
        (kind,) = self.study.protocol.analyses[name]
        analysis = self.study.analyses[name]
        donors = self._donors(self._given(name), planned.recording.seed)
        dictionary = getattr(analysis, "dictionary", None)
        return Acts(
            planned.recording,
            kind,
            asdict(analysis),
            self.study.protocol.seed,
            donors,
            None if dictionary is None else self._acts(planned, dictionary),
        )

    def _trained(self, model: str) -> Recording:
        """Of a subject of the protocol as it is, and not of a twin."""
        (found,) = (
            one.recording
            for one in self.plan
            if one.spec.called == model and one.recording.seed is None
        )
        return found

    def _donors(self, models: tuple[str, ...], seed: int | None) -> tuple[Recording, ...]:
        """Of subjects that others are given, and their twins; for a twin, of one of its kind."""
        return tuple(
            one.recording
            for model in models
            for one in self.plan
            if one.spec.called == model and (seed is None or one.recording.seed == seed)
        )

    def _act(self, name: str, acts: Acts, load: Callable[[], Model], ledger: Ledger) -> None:
        """Do what an analysis does to a subject, unless it was done."""
        analysis, volumes = self.study.analyses[name], self.folders.volumes
        assert isinstance(analysis, Acting)
        path, recording = acts.path(volumes), acts.recording
        there = path.exists()
        with noted(f"preparing {name} of {recording.subject}"):
            given = {one: self._trained(one) for one in analysis.given}
            live = None if there else Live(load(), recording, given)
            phantom = None if live is None else self._phantom(live.model)
            subject = Subject(recording.subject, open_volume(recording.path(volumes)), {})
            subject = subject.set_beside(*_given(acts, volumes))
            runs = [] if live is None else analysis.runs(live, subject)

        def act(run: Any) -> xr.Dataset:
            assert live is not None
            return analysis.act(live, subject, run, rng=stream(acts.seed, acts.analysis))

        # Of small matrices, as in `analyse`; torch has threads of its own.
        with (
            step(f"{name} of {recording.subject}", len(runs) or 1, "runs") as done,
            threadpool_limits(limits=1, user_api="blas"),
        ):
            record_effects(
                acts,
                volumes,
                runs,
                act,
                protocol_sha256=self.study.sha256,
                phantom=phantom,
                advance=done,
            )
        self._keep(path, ledger, new=not there)

    def _phantom(self, model: Model) -> Check:
        """What is known of the device of a model; one that fails is refused."""
        check = phantom_of(model.device, model.dtype)
        if not self.accept_phantom:
            check.refuse()
        return check

    def recorded(self) -> list[Recorded]:
        """The finished recordings of the plan.

        Raises
        ------
        RunError
            If one is missing.
        """
        found, paths = [], list(self._paths())
        self.folders.take(path for _, _, path in paths)
        for planned, name, path in paths:
            if not digest_file(path).is_file():
                what = f"{name} of " if name else ""
                raise RunError(
                    f"{what}{planned.recording.subject} has not been recorded; "
                    f"run `scan record` on this protocol"
                )
            found.append(
                Recorded(
                    planned.spec.called,
                    planned.recording.subject,
                    planned.recording.seed,
                    path.relative_to(self.folders.root).as_posix(),
                    digest_file(path).read_text().strip(),
                    name,
                )
            )
        return found

    def _paths(self) -> Iterator[tuple[Planned, str | None, Path]]:
        """Each volume of the plan, and the analysis whose acts it holds."""
        for planned in self.plan:
            yield planned, None, planned.recording.path(self.folders.volumes)
            for name, acts in self.acts(planned):
                yield planned, name, acts.path(self.folders.volumes)

    @property
    def _sites(self) -> set[str]:
        """The sites that analyses read, or read before they act."""
        read = (getattr(analysis, "site", None) for analysis in self.study.analyses.values())
        return {site for site in read if site is not None} - {*self.study.analyses}

    def stands(self) -> bool:
        """Whether the study was run to its end with this protocol, code and these recordings.

        Every file must still be what the ledger says, so what was tampered with is made anew.
        """
        entry = Ledger(self.folders.ledger).latest_judgement(self.study.protocol.study)
        if entry is None or entry["files"] != study_files(self.folders.home):
            return False
        summary = json.loads(self.folders.verdicts.read_text())
        now = self._circumstances(self.recorded())
        return all(summary[key] == value for key, value in now.items())

    def analyse(self) -> None:
        """Run each analysis on the recordings that it takes at once, and save the measures."""
        protocol, recorded = self.study.protocol, self.recorded()
        opened = subjects_from(recorded, self.folders.root, self._sites)
        seeds: list[int | None] = [None, *range(protocol.scan.twins)]
        tasks = [
            (name, analysis, [one if seed is None else one.twin(seed) for one in group])
            for name, analysis in self.study.analyses.items()
            for group in groups(analysis, list(opened[self.study.volume_of(name)].values()))
            for seed in seeds
        ]
        written = []
        work = [(analysis, group, protocol.seed, name) for name, analysis, group in tasks]
        with self._spread() as processes, step("analysing", len(tasks), "analyses") as done:
            # Without a cluster one after the other: each may fill the memory.
            found = in_parallel(1 if self.cluster is None else processes, _measured, work)
            for name, analysis, group in tasks:
                names = [one.name for one in group]
                done(0, f"{name} of {' and '.join(names)}")
                measures = next(found)
                (kind,) = protocol.analyses[name]
                measures.attrs.update(
                    analysis=json.dumps({kind: asdict(analysis)}),
                    subject=" and ".join(names),
                    code_version=code_version(),
                )
                written.append(self.folders.measures(name, *names))
                save_dataset(measures, written[-1])
                done(1)
        keep_only(written)

    def judge(self) -> list[Verdict]:
        """Let the gate judge; write verdicts and the evidence for their figures."""
        ledger, recorded = Ledger(self.folders.ledger), self.recorded()
        cases = self.cases(ledger, recorded)
        verdicts = self.judged(cases)
        layered = [case for case in cases if isinstance(case, Case)]
        with (
            self._spread() as processes,
            step("gathering evidence", sum(c.worlds for c in layered), "steps") as done,
        ):
            shown = gather_evidence(
                layered,
                seed=self.study.protocol.seed,
                step=lambda what: done(1, what),
                workers=processes,
            )
        written = [self.folders.evidence(case.hypothesis.id) for case in layered]
        for path, dataset in zip(written, shown, strict=True):
            save_dataset(dataset, path)
        keep_only(written)
        self._keep_inputs()
        save_text(
            json.dumps(self._summary(ledger, recorded, verdicts), indent=2, allow_nan=False) + "\n",
            self.folders.verdicts,
        )
        return verdicts

    def cases(self, ledger: Ledger, recorded: list[Recorded]) -> list[Case | Population]:
        """Each hypothesis with its analysis, its subjects and its standing in the ledger."""
        subjects = subjects_from(recorded, self.folders.root, self._sites)
        cases = []
        for registration in self.registrations():
            hypothesis = registration.hypothesis
            volume = self.study.volume_of(hypothesis.measure.partition(".")[0])
            members = tuple(
                self._case(registration, ledger, [subjects[volume][one] for one in models],
                           [one for one in recorded if one.model in models
                            and one.analysis == volume])
                for models in self.study.groups_of(hypothesis)
            )  # fmt: skip
            if hypothesis.subject == EVERY:
                cases.append(Population(members, self._scores(hypothesis, members)))
            else:
                cases += members
        return cases

    def _case(
        self,
        registration: Registration,
        ledger: Ledger,
        subjects: Sequence[Subject],
        used: Sequence[Recorded],
    ) -> Case:
        """A hypothesis about a subject, the first, and those beside it."""
        name = registration.hypothesis.measure.partition(".")[0]
        analysis = self.study.analyses[name]
        site = None if isinstance(analysis, Acting) else getattr(analysis, "site", None)
        subject = subjects[0].set_beside(*subjects[1:])
        return Case(
            registration.hypothesis,
            analysis,
            # The gate loads what it reads hundreds of times: one site, not the volume.
            subject if site is None else subject.keep(site),
            registration.sha256,
            self.study.protocol.exploratory
            or ledger.exploratory(
                registration.sha256, [(Path(one.path).name, one.sha256) for one in used]
            ),
            tuple({"subject": one.subject, "path": one.path, "sha256": one.sha256} for one in used),
        )

    def _scores(
        self, hypothesis: Hypothesis, members: Sequence[Case]
    ) -> tuple[float, ...] | tuple[Side, ...] | None:
        """Of each subject, what a hypothesis says that its measure follows, or its place in a pair.

        Raises
        ------
        RunError
            If a recording does not have it.
        """
        if hypothesis.minus is not None:
            pairs = range(len(hypothesis.minus))
            return (*(Side(one, 1) for one in pairs), *(Side(one, -1) for one in pairs))
        if hypothesis.follows is None:
            return None
        if hypothesis.follows == LEARNED:
            return tuple(
                -told_loss(self._source(one)) for one in self.study.subjects_of(hypothesis)
            )
        if hypothesis.follows != MEASURED:
            specs = {spec.called: spec for spec in self.study.protocol.subjects}
            return tuple(
                specs[one].known[hypothesis.follows] for one in self.study.subjects_of(hypothesis)
            )
        for one in members:
            if MEASURED not in one.subject.volume.attrs:
                raise RunError(
                    f"the recording of {one.subject.name} is older than '{MEASURED}'; remove "
                    f"{self.folders.root / one.volumes[0]['path']}, and scan again"
                )
        return tuple(float(one.subject.volume.attrs[MEASURED]) for one in members)

    def judged(self, cases: list[Case | Population]) -> list[Verdict]:
        """The verdicts of the gate, with progress."""
        with (
            self._spread() as processes,
            step("judging", sum(case.steps for case in cases), "steps") as done,
        ):
            return pass_judgement(
                cases,
                seed=self.study.protocol.seed,
                step=lambda what: done(1, what),
                workers=processes,
            )

    def report(self) -> Path:
        """Write the report, and note the verdicts and all files in the ledger."""
        if not self.folders.verdicts.is_file():
            raise RunError("no verdicts yet; run `scan judge` on this protocol")
        with step("writing the report", 1, "page") as done:
            summary = json.loads(self.folders.verdicts.read_text())
            if summary["protocol_sha256"] != self.study.sha256:
                raise RunError(
                    f"{self.folders.verdicts} judges another version of this protocol; "
                    "run `scan judge` again"
                )
            ledger = self._ledger()
            page = render(self.study, summary, self.folders.home, self.folders.root)
            save_text(page, self.folders.report)
            done(1)
        self.folders.keep_study()
        ledger.judged(
            self.study.protocol.study,
            study_files(self.folders.home),
            {
                one["registration"]: {key: one[key] for key in ("status", "exploratory")}
                for one in summary["verdicts"]
            },
        )
        return self.folders.report

    def _keep_inputs(self) -> None:
        save_text(self.study.text, self.folders.protocol)
        save_text(self.study.stimuli.csv, self.folders.stimuli)

    def _summary(
        self, ledger: Ledger, recorded: list[Recorded], verdicts: list[Verdict]
    ) -> dict[str, Any]:
        return {
            **self._circumstances(recorded),
            "ledger_head": ledger.anchor(
                (verdict.registration for verdict in verdicts),
                ((Path(one.path).name, one.sha256) for one in recorded),
            ),
            "verdicts": [verdict.as_json() for verdict in verdicts],
            "dropped": [
                {"id": one.id, "claim": one.claim, "verdict": one.verdict}
                for one in ledger.dropped(
                    self.study.protocol.study, {verdict.id for verdict in verdicts}
                )
            ],
        }

    def _circumstances(self, recorded: list[Recorded]) -> dict[str, Any]:
        """All that the verdicts of this run can depend on."""
        return {
            "study": self.study.protocol.study,
            "protocol_sha256": self.study.sha256,
            "stimuli_sha256": self.study.stimuli.digest,
            "code_version": code_version(),
            "environment": dict(environment()),
            "recordings": [_plainly(one) for one in recorded if one.analysis is None],
            "effects": [asdict(one) for one in recorded if one.analysis is not None],
        }


def _measured(analysis: Any, group: Sequence[Subject], seed: int, name: str) -> xr.Dataset:
    """What an analysis measures.

    The matrices are small: on a busy machine two threads that wait for each other were four times
    slower than one.
    """
    with threadpool_limits(limits=1):
        return analysis(*group, rng=stream(seed, name))


def subjects_from(
    recorded: list[Recorded], root: Path, sites: Collection[str]
) -> dict[str | None, dict[str, Subject]]:
    """Open recordings and join each subject with its twins, by the protocol's names for them.

    By the analysis whose effects they hold, too; those of activations have none. The sites that
    analyses are going to read, and all effects, are held to be finite.
    """
    opened = []
    with step("checking recordings", len(recorded), "volumes") as done:
        for one in recorded:
            path = (root / one.path).absolute()  # workers of a cluster may be in other folders
            verify_volume(path)
            volume = open_volume(path)
            read = volume.data_vars if one.analysis else sites
            for site in sorted(map(str, read)):
                check_finite(volume[site], f"volume {path}: {site}")
            for made in MAKING.keys() & set(volume.data_vars) if one.analysis else ():
                volume = volume.rename({made: one.analysis})  # others read it by that name
            opened.append((one, volume))
            done(1)
    found: dict[str | None, dict[str, Subject]] = {None: {}}
    for one, volume in opened:
        if one.seed is None:
            twins = {
                twin.seed: twin_volume
                for twin, twin_volume in opened
                if (twin.model, twin.analysis) == (one.model, one.analysis)
                and twin.seed is not None
            }
            found.setdefault(one.analysis, {})[one.model] = Subject(one.subject, volume, twins)
    return found


def _given(acts: Acts, volumes: Path) -> Iterator[Subject]:
    """What a subject is given: another one with its twins, or itself as a dictionary tells it."""
    donors = acts.donors
    if acts.dictionary is not None:
        yield Subject(acts.recording.subject, open_volume(acts.dictionary.path(volumes)), {})
    of_source: dict[str, list[Recording]] = {}
    for one in donors:
        of_source.setdefault(one.source.name, []).append(one)
    for recordings in of_source.values():
        first, *twins = (open_volume(one.path(volumes)) for one in recordings)
        of_seed = {one.seed: twin for one, twin in zip(recordings[1:], twins, strict=True)}
        seeds = {seed: twin for seed, twin in of_seed.items() if seed is not None}
        yield Subject(recordings[0].subject, first, seeds)


def _plainly(one: Recorded) -> dict[str, Any]:
    return {key: value for key, value in asdict(one).items() if key != "analysis"}


def _short_digests(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(digest(str(item))[:12] for item in set(items)))


def study_files(home: Path) -> dict[str, str]:
    """Digest of each file of a study; what was being written when killed is left out."""
    return {
        path.relative_to(home).as_posix(): file_digest(path)
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def keep_only(wanted: list[Path]) -> None:
    """Remove from the folder of these files all others: what an earlier protocol asked for."""
    for folder in {path.parent for path in wanted}:
        for path in folder.iterdir():
            if path not in wanted:
                path.unlink()


def save_text(text: str, path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.writing")
    staging.write_text(text, encoding="utf-8")
    os.replace(staging, path)


def save_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a netCDF file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.writing")
    dataset.to_netcdf(staging, engine="h5netcdf")
    os.replace(staging, path)


def _load(planned: Planned, loaded: dict[str, Model]) -> Model:
    """The model of a recording; the trained one stays loaded while its twins are made."""
    model = planned.spec.called
    if model not in loaded:
        loaded.clear()
        spec = planned.spec
        loaded[model] = Model.load(
            planned.recording.source, dtype=spec.dtype, placement=spec.placement, bits=spec.weights
        )
    seed = planned.recording.seed
    return loaded[model] if seed is None else loaded[model].twin(seed)
