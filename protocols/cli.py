"""The command `scan`."""

import difflib
import errno
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analyses import AnalysisError
from protocols import subjects as anatomies
from protocols.calibrate import Calibration
from protocols.check import TERAFLOPS, costs, costs_as_json, told
from protocols.compare import comparison
from protocols.doctor import examined
from protocols.doctor import told as machine_told
from protocols.examples import EXAMPLES, shown
from protocols.export import export as export_study
from protocols.folders import RunError, finished_at, folder_at, folders_at, ledger_at
from protocols.marked_yaml import ProtocolError
from protocols.new import SUBJECT, begin
from protocols.output import Json, print_columns, print_json
from protocols.parts import Kind, parts
from protocols.preregistration import Form, export
from protocols.progress import CONSOLE, noted
from protocols.run import Run, save_text
from protocols.schema import load_study
from protocols.suggest import by_hand, suggestions, write_tests
from protocols.trace import trace
from protocols.verify import VerifyError
from protocols.verify import rerun as record_anew
from protocols.verify import verify as verify_study
from scanner import (
    DictionaryError,
    Model,
    SiteError,
    SourceError,
    VolumeError,
    anatomy,
    find_source,
)
from scanner.benchmarks import questions_in
from scanner.cluster import ClusterError, check_cluster
from scanner.device import DeviceError, DeviceName, DtypeName, best_device, check_device
from scanner.harness import HarnessError
from scanner.object_store import StoreError
from scanner.phantom import PhantomError, scan_phantom
from scanner.plan import estimate
from scanner.provenance import version
from stimuli import StimulusError
from verification import LedgerError

MISTAKES = (
    ProtocolError, StimulusError, SourceError, SiteError, VolumeError, AnalysisError, LedgerError,
    RunError, VerifyError, DictionaryError, HarnessError,
    DeviceError, PhantomError, ClusterError, StoreError,
)  # fmt: skip
# From a first run on two cores, one thread each: 135 million weights.
SECONDS_PER_TOKEN_AND_WEIGHT = 2e-11

Protocol = Annotated[Path, Parameter(help="The protocol, a YAML file.")]
AcceptPhantom = Annotated[
    bool,
    Parameter(
        name="--accept-phantom", help="Record on a device that fails its phantom.", negative=""
    ),
]
Quick = Annotated[
    bool,
    Parameter(
        name="--quick",
        help="A look at less of it, as the protocol's line `quick` says; no verdict is a finding.",
        negative="",
    ),
]
Cluster = Annotated[
    str | None,
    Parameter(help="Who works: local:4, four processes here; tcp://host:port, others."),
]
Results = Annotated[
    str,
    Parameter(
        name=["--results", "-r"],
        help="Where results go, a folder or s3://bucket/folder; shared by all studies.",
    ),
]
Finished = Annotated[str, Parameter(help="Its folder, results/NAME, or s3://bucket/folder/NAME.")]
RESULTS = "results"

app = App(
    name="scan",
    help="An fMRI for language models: record, analyse, judge and report a protocol.",
    version=lambda: version("lmfmri"),
    suppress_keyboard_interrupt=False,  # `main` says how to go on
    console=Console(),
)


app.register_install_completion_command(
    help="Have the shell complete commands and options; restart it afterwards."
)


def _open(
    protocol: Path,
    results: str,
    *,
    accept_phantom: bool = False,
    cluster: str | None = None,
    quick: bool = False,
) -> Run:
    if cluster is not None:
        check_cluster(cluster)
    study = load_study(protocol, quick=quick)
    return Run(study, folders_at(results, study.protocol.study), accept_phantom, cluster)


@app.default
def scan(
    protocol: Protocol,
    /,
    *,
    results: Results = RESULTS,
    dry_run: Annotated[
        bool, Parameter(name="--dry-run", help="Say what would be recorded, and stop.", negative="")
    ] = False,
    quick: Quick = False,
    accept_phantom: AcceptPhantom = False,
    cluster: Cluster = None,
) -> None:
    """Run a protocol: register, record, analyse, judge, report.

    What has been recorded before is not recorded again, what has been judged and has not changed
    is not judged again, and an interrupted run goes on.
    """
    run = _open(protocol, results, accept_phantom=accept_phantom, cluster=cluster, quick=quick)
    if dry_run:
        _show_plan(run)
        return
    with run.alone(), run.workers():
        run.register()
        run.record()
        if run.stands():
            CONSOLE.print("nothing has changed since the verdicts were written")
        else:
            run.analyse()
            run.judge()
            run.report()
    _show_verdicts(run)


@app.command
def check(
    protocol: Protocol,
    /,
    *,
    teraflops: Annotated[
        float, Parameter(help="What the machine computes, 10^12 operations a second.")
    ] = TERAFLOPS,
    quick: Quick = False,
    as_json: Json = False,
) -> None:
    """Hold a protocol to its form, and say what it costs: memory, disk, passes, time.

    Nothing is recorded, and no model of the hub is fetched: sizes follow from configurations.
    """
    study = load_study(protocol, quick=quick)
    found = costs(study)
    if as_json:
        print_json("check", costs_as_json(study, found, teraflops=teraflops))
        return
    print(f"{study.protocol.study}: nothing is wrong with it")
    for cost in found:
        print(f"{cost.spec.called}:")
        for line in told(cost, teraflops=teraflops):
            print(f"  {line}")
    disk = sum(cost.volume * cost.recordings for cost in found)
    print(f"in all {disk / 1e6:.4g} MB of activations on disk")
    print("times are of passes: what analyses and the gate compute afterwards comes on top")


@app.command
def phantom(
    *,
    device: Annotated[
        DeviceName | None, Parameter(help="The best there is by default, as for recordings.")
    ] = None,
    dtype: Annotated[DtypeName, Parameter(help="Of computing.")] = "float32",
) -> None:
    """Check this device: small models whose activations are known, at every site.

    What recordings know of a device is kept until torch or the device changes; here it is checked
    anew. Ends with status 1 if the device fails.
    """
    device = check_device(device or best_device())
    with noted(f"scanning the phantom on {device} in {dtype}"):
        found = scan_phantom(device, dtype)
    table = Table(box=None, pad_edge=False)
    for column in ("site", "off by", "of its scale", "allowed", "where"):
        right = column in ("off by", "of its scale", "allowed")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in found.table:
        table.add_row(*row)
    Console().print(table)
    for line in found.lines:
        _say(line)
    if not found.passed:
        sys.exit(1)


@app.command
def compare(
    *models: Annotated[
        str, Parameter(help="Two or more: embedded names, folders, or hub ids.", negative="")
    ],
    results: Results = RESULTS,
    stimuli: Annotated[str, Parameter(help="A shipped set, or a table.")] = "concepts",
    frames: Annotated[int, Parameter(help="Sentences that each word stands in.")] = 2,
    site: Annotated[str, Parameter(help="In which subjects are compared.")] = "resid_post",
    twins: Annotated[int, Parameter(help="Untrained networks of each.")] = 1,
) -> None:
    """Compare models on the same stimuli: how alike their layers are, what probes carry over.

    Writes a protocol and runs it. It claims nothing: add hypotheses to it to have them judged.
    """
    written = comparison(
        models, folder_at(results), stimuli=stimuli, frames=frames, site=site, twins=twins
    )
    print(f"protocol: {written}")
    scan(written, results=results)


@app.command
def suggest(
    study: Annotated[str, Parameter(help="The folder of a finished study, results/NAME.")],
    /,
    *,
    category: Annotated[str | None, Parameter(help="One domain alone.")] = None,
    subject: Annotated[str | None, Parameter(help="One subject alone.")] = None,
    layers: Annotated[
        tuple[int, ...] | None,
        Parameter(help="Layers of your own in the place of the map's.", consume_multiple=True),
    ] = None,
    out: Annotated[Path | None, Parameter(help="Where the protocol is written.")] = None,
) -> None:
    """Name the layers that a knowledge map would have changed, and write the protocol to test it.

    They are for fine-tuning, editing or unlearning. The protocol is not run: look at it first.
    """
    home = folder_at(study)
    found = suggestions(home, category=category, subject=subject)
    if layers:
        found = by_hand(found, layers)
    else:
        for line in (line for one in found for line in one.lines):
            _say(line)
    written = write_tests(home, found, out)
    for caution in dict.fromkeys(one.caution for one in found if any(one.domains.values())):
        _say(caution)
    for path in written:
        print(f"protocol: {path}")


@app.command
def questions(
    *tasks: Annotated[
        str, Parameter(help="Of lm-evaluation-harness, or tanwar2025_medical, …", negative="")
    ],
    out: Annotated[Path, Parameter(help="Where the table is written.")],
    include: Annotated[Path | None, Parameter(help="A folder with task files of your own.")] = None,
) -> None:
    """Write what benchmarks ask as a table of stimuli, for `choices` and `replies` to ask.

    Their data are fetched from the hub when they are asked for.
    """
    table = questions_in(*tasks, include=include)
    save_text(table.to_csv(index=False, lineterminator="\n"), out)
    print(f"{len(table)} questions: {out}")


@app.command
def register(
    protocol: Protocol,
    /,
    *,
    results: Results = RESULTS,
    form: Annotated[
        Form | None,
        Parameter(name="--export", help="Print what the form of a registry asks for."),
    ] = None,
) -> None:
    """Freeze the hypotheses in the ledger, before anything is recorded."""
    run = _open(protocol, results)
    with run.alone():
        run.register()
    registered = run.registered()
    if form is not None:
        print(export(form, registered), end="")
        return
    for name, one in registered.filed.items():
        print(f"{name} (version {one.version}): {one.sha256}")
    print(f"head of {run.folders.ledger}: {registered.head}")


@app.command
def ledger(*, results: Results = RESULTS, as_json: Json = False) -> None:
    """Show the file drawer: everything that was registered, and what became of it."""
    chain, path = ledger_at(results), f"{results.rstrip('/')}/ledger.jsonl"
    if as_json:
        filed = [asdict(one) for one in chain.drawer()]
        told = {"path": path, "lines": len(chain.entries), "head": chain.head}
        print_json("ledger", {**told, "registered": filed})
        return
    table = Table(title=f"{path}: the file drawer", title_justify="left")
    for column in ("study", "hypothesis", "registered", "verdict"):
        table.add_column(column, overflow="fold")
    for one in chain.drawer():
        version = f" (version {one.version})" if one.version > 1 or one.superseded else ""
        verdict = one.verdict or "never reported"
        if one.exploratory:
            verdict += " (exploratory)"
        if one.superseded:
            verdict += ", superseded"
        table.add_row(one.study, one.id + version, one.time[:16].replace("T", " "), verdict)
    Console().print(table)
    print(f"{len(chain.entries)} lines; head {chain.head}")


@app.command
def record(
    protocol: Protocol,
    /,
    *,
    results: Results = RESULTS,
    accept_phantom: AcceptPhantom = False,
    cluster: Cluster = None,
) -> None:
    """Register the hypotheses and record the subjects and their twins."""
    run = _open(protocol, results, accept_phantom=accept_phantom, cluster=cluster)
    with run.alone():
        run.register()
        run.record()


@app.command
def analyse(protocol: Protocol, /, *, results: Results = RESULTS, cluster: Cluster = None) -> None:
    """Run the analyses on the recordings."""
    run = _open(protocol, results, cluster=cluster)
    with run.alone():
        run.analyse()


@app.command
def judge(protocol: Protocol, /, *, results: Results = RESULTS, cluster: Cluster = None) -> None:
    """Let the gate judge the hypotheses."""
    run = _open(protocol, results, cluster=cluster)
    with run.alone():
        run.judge()
    _show_verdicts(run)


@app.command
def report(protocol: Protocol, /, *, results: Results = RESULTS) -> None:
    """Write the report."""
    run = _open(protocol, results)
    with run.alone():
        run.report()
    _show_verdicts(run)


@app.command
def verify(
    study: Finished,
    /,
    *,
    rerun: Annotated[
        bool, Parameter(help="Record anew on this device, and judge again.", negative="")
    ] = False,
) -> None:
    """Check every digest of a finished study and compute its verdicts again."""
    with finished_at(study) as home:
        print(f"verified: {verify_study(home)}")
        if rerun:
            print(f"replicated: {record_anew(home)}")


@app.command(name="export")
def export_finished(
    study: Finished,
    /,
    *,
    to: Annotated[Path, Parameter(help="A folder that is not there yet.")],
    licence: Annotated[
        str | None, Parameter(name="--license", help="Under which it may be used, as CC0-1.0.")
    ] = None,
) -> None:
    """Write a finished study for other tools: CSV, parquet, rsatoolbox, GraphML.

    Beside each table stands what its columns are and where its numbers are from.
    """
    with finished_at(study) as home:
        for line in export_study(home, to, licence=licence):
            print(line)
    print(f"exported: {to}")


@app.command
def calibrate(
    *names: Annotated[
        str, Parameter(help="Measures (probe.auc) or faults to simulate; all, if none is named.")
    ],
    results: Results = RESULTS,
    studies: Annotated[
        int, Parameter(help="Simulated studies without an effect, for each kind of measure.")
    ] = 2000,
    planted: Annotated[
        int, Parameter(help="Simulated studies of a known effect, for each kind of measure.")
    ] = 100,
    seeds: Annotated[int, Parameter(help="How often each fault is planted.")] = 50,
) -> None:
    """Measure how often the gate errs, in worlds whose truth is known."""
    folder = folder_at(results) / "calibration"
    with folders_at(folder, "").alone():  # two would each write the rows that it knows
        written = Calibration(folder, studies, planted, seeds, names).run()
    print(f"calibrated: {written}")


@app.command(name="trace")
def trace_number(
    study: Finished,
    hypothesis: Annotated[str, Parameter(help="The id of a hypothesis.")],
    /,
) -> None:
    """Print the way of a number back to its registration, stimuli and weights."""
    # As wide as it is: a digest that is broken into lines cannot be searched for.
    with finished_at(study) as home:
        Console(width=1000).print(trace(home, hypothesis), highlight=False)


@app.command
def new(
    name: Annotated[str, Parameter(help="Of the study; the protocol is written to NAME.yaml.")],
    /,
    *,
    subject: Annotated[
        str, Parameter(help="Whom to scan: an embedded name, a folder, or a hub id.")
    ] = SUBJECT,
) -> None:
    """Write a protocol to start from, which explains itself and can be run as it is."""
    written = begin(name, subject=subject)
    print(f"protocol: {written}")
    print(f"next: scan check {written}, then scan {written}")


@app.command(name="list")
def list_parts(
    kind: Annotated[Kind | None, Parameter(help="One kind alone.", show_default=False)] = None,
    /,
    *,
    as_json: Json = False,
) -> None:
    """List what a protocol can name: analyses, controls, stimuli, sites, subjects, protocols."""
    found = parts(kind)
    if as_json:
        print_json("list", found)
        return
    for one, known in found.items():
        print(one)
        print_columns(known.items(), width=22)


@app.command
def doctor(*, results: Results = RESULTS, as_json: Json = False) -> None:
    """Say what this machine can do, and what to do about what it cannot.

    Nothing is written or downloaded; the package index is asked for subjects that are not here.
    The exit status is 1 if nothing can be scanned.
    """
    machine = examined(folder_at(results))
    if as_json:
        print_json("doctor", machine.as_json())
    else:
        print_columns(machine_told(machine))
        print("scanning works here" if machine.can_scan else "nothing can be scanned yet")
    if not machine.can_scan:
        sys.exit(1)


@app.command
def subjects(
    name: Annotated[str, Parameter(help="An embedded name, a folder, or a hub id.")],
    /,
    *,
    dtype: Annotated[
        DtypeName, Parameter(help="Of its weights; proofs are exact in float32 alone.")
    ] = "float32",
    as_json: Json = False,
) -> None:
    """Show a subject's anatomy: its sites, where they are, their shapes, what they cost."""
    source = find_source(name)
    anatomy(source)  # refuses what transformers does not know
    with noted(f"loading {source.name}"):
        model = Model.load(source, dtype=dtype)
    with noted(f"proving the sites of {source.name}"):
        _ = model.proof
    if as_json:
        print_json("subjects", anatomies.as_json(model))
        return
    for line in anatomies.heading(model):
        _say(line)
    _say()
    Console().print(anatomies.table(model))
    _say()
    for line in anatomies.remarks(model):
        _say(line)


for _command in EXAMPLES:
    _asked = app[_command] if _command else app
    _asked.help_epilogue = shown(_command)


def _say(text: str = "") -> None:
    """A line for people, wrapped between words."""
    Console().print(text, markup=False, highlight=False)


def _show_plan(run: Run) -> None:
    """What would be recorded, how many bytes, about how long."""
    unmade = run.to_be_made()
    for name, steps in unmade:
        print(f"{name} would be made first: {steps} step{'s' if steps > 1 else ''}")
    if unmade:
        print("what is recorded of them is told when they are; `scan record` makes them")
        return
    table = Table(title=f"{run.study.protocol.study}: would be recorded", title_justify="left")
    for column in ("subject", "stimuli", "sites", "MB", "about"):
        left = column in ("subject", "sites")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for planned in run.plan:
        recording = planned.recording
        size, cost = anatomy(recording.source), estimate(recording)
        weights = sum(f.stat().st_size for f in recording.source.folder.glob("*.safetensors")) / 4
        seconds = cost.tokens * weights * SECONDS_PER_TOKEN_AND_WEIGHT
        there = recording.path(run.folders.volumes).exists()
        table.add_row(
            recording.subject,
            str(len(recording.stimuli)),
            f"{', '.join(recording.sites)} ({recording.content['tokens']}): {size.layers} layers",
            f"{cost.bytes / 1e6:.1f}",
            "is there" if there else f"{max(1, round(seconds))} s",
        )
        for name, acts in run.acts(planned):
            done = acts.path(run.folders.volumes).exists()
            table.add_row("", "", f"then {name} ({acts.analysis})", "", "is there" if done else "")
    Console().print(table)


def _show_verdicts(run: Run) -> None:
    summary = json.loads(run.folders.verdicts.read_text())
    table = Table(title=f"{summary['study']}: verdicts", title_justify="left")
    for column in ("hypothesis", "verdict", "estimate", "interval"):
        table.add_column(column, overflow="fold")
    for one in summary["verdicts"]:
        estimate, (low, high) = one["estimate"], one["interval"]
        measured = estimate is not None
        table.add_row(
            one["id"],
            one["status"] + (" (exploratory: not a finding)" if one["exploratory"] else ""),
            f"{estimate:.3f}" if measured else "-",
            f"{low:.3f} to {high:.3f}" if measured else "-",
        )
    if summary["verdicts"]:
        Console().print(table)
    else:
        print(f"{summary['study']}: no hypothesis is registered, and nothing is claimed")
    for one in summary["verdicts"]:
        if one["status"] != "supported":
            print(f"{one['id']}: {one['reason']}")
    if run.folders.report.is_file():
        print(f"report: {run.folders.report}")


def _explain(error: OSError) -> str:
    """An operating system's refusal in words that say what to do."""
    place = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return f"the disk is full{place}. Free some space and run the same command: it goes on."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"may not write here{place}: {error.strerror}. Choose another folder with --results."
    return f"{error.strerror or error}{place}"


class UnknownCommand(ValueError):
    """A word in the place of a command that is none, and no protocol either."""


def _check_command(arguments: Sequence[str]) -> None:
    word = next(iter(arguments), "-")
    known = [name for name in app if not name.startswith("-")]
    plain = not word.startswith("-") and not Path(word).suffix and os.sep not in word
    if plain and word not in known and not Path(word).exists():
        near = difflib.get_close_matches(word, known, n=1)
        hint = f"did you mean 'scan {near[0]}'?" if near else f"commands: {', '.join(known)}."
        raise UnknownCommand(f"'{word}' is neither a command nor a protocol; {hint}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake is one line and exit status 1, without a traceback.

    The statuses are those of `examples.STATUSES`.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the command line by default.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = sys.argv[1:] if arguments is None else arguments
    status = 1
    try:
        _check_command(arguments)
        app(arguments)
    except MISTAKES as error:
        message = str(error)
    except UnknownCommand as error:
        message, status = str(error), 2
    except BrokenPipeError:  # whoever read the output has seen enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except OSError as error:
        message = _explain(error)
    except KeyboardInterrupt:
        CONSOLE.print("interrupted; run the same command to go on")
        sys.exit(130)
    else:
        return
    CONSOLE.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    sys.exit(status)
