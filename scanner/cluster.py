"""Recordings, analyses and the gate on many processes or machines, through dask.distributed.

Each worker holds one subject and is handed what is left of its recording: parts, then shards
(`scanner.parts`). A worker without work helps where most is left. What a worker was at when it died
is done again by another. All of them write into one folder of volumes, which they must see under
the same path. Nothing but what is to be done and what came of it goes through dask. What joblib
would hand to processes of this machine, analyses and the gate, goes to the same workers (`spread`).

dask comes with ``lmfmri[cluster]``, and is imported when a cluster is asked for.
"""

import logging
import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from joblib import parallel_config
from joblib.parallel import ThreadingBackend

from scanner import parts
from scanner.device import DtypeName
from scanner.model import Model
from scanner.placement import Placement
from scanner.plan import Recording
from scanner.provenance import code_version, digest, environment
from scanner.recording import Left, Scan, finish, found, partial_of
from scanner.streaming import NotFiniteError
from scanner.volume import VolumeError

FORMS = "`local:4`, four processes on this machine, or `tcp://host:port`, a scheduler of dask"
# Seconds in which a scheduler has to answer, and between two looks for workers that have come.
ANSWER, LOOK = 10, 1.0
# After which a folder of a network is listed as it is (NFS waits for up to 60).
LISTED = 90.0
EPOCH = "SOURCE_DATE_EPOCH"


class ClusterError(ValueError):
    """A cluster that cannot be used; the message says what to do."""


class Wanted(NamedTuple):
    """A subject to be recorded, and where its parts lie on each worker."""

    recording: Recording
    placement: Placement | None


@dataclass(frozen=True)
class _Job:
    """What a worker is told of a recording."""

    recording: Recording
    placement: Placement | None
    volumes: Path
    protocol_sha256: str
    accept_phantom: bool
    threads: int
    epoch: str | None
    code: str
    gpus: int


class _Begun(NamedTuple):
    """What a worker tells of a recording that it has begun.

    Attributes
    ----------
    batches : int
        In all.
    left : list of Left
    shards : dict of str to int
        Of each array, how many.
    """

    batches: int
    left: list[Left]
    shards: dict[str, int]


def check_cluster(where: str) -> int:
    """The number of processes of a local cluster; 0 for one that runs somewhere.

    Raises
    ------
    ClusterError
        If it is neither, or dask is not installed.
    """
    local = re.fullmatch(r"local:([1-9]\d*)", where)
    if not local and not re.fullmatch(r"(tcp|tls)://\S+:\d+", where):
        raise ClusterError(f"there is no cluster '{where}'; give {FORMS}")
    if find_spec("distributed") is None:
        raise ClusterError("--cluster needs dask; install it with: pip install 'lmfmri[cluster]'")
    return int(local[1]) if local else 0


@contextmanager
def connected(where: str) -> Iterator[Any]:
    """A cluster, for as long as the body runs.

    Parameters
    ----------
    where : str
        ``local:4`` starts four processes on this machine; ``tcp://host:port`` is the address of a
        scheduler that runs.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If it is neither, dask is not installed, or no scheduler answers.
    """
    processes = check_cluster(where)
    from distributed import Client, LocalCluster

    # A worker that dies is told of by what becomes of its work.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if processes:
        with _not_interrupted():
            cluster = LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                memory_limit=0,  # the machine's, as without a cluster
                dashboard_address=":0",  # any: the usual port may be somebody's
                silence_logs=logging.CRITICAL,
            )
        with cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(where, timeout=ANSWER)
    except (OSError, TimeoutError):
        raise ClusterError(
            f"no scheduler of dask answers at {where}; start one with `dask scheduler`, and on "
            f"each machine `dask worker {where} --nthreads 1`"
        ) from None
    with client:
        yield client


@contextmanager
def _not_interrupted() -> Iterator[None]:
    """What is started in the body never hears of Ctrl-C, which a terminal sends to all processes.

    They are ended by this one; each of them would print a traceback first.
    """
    resource_tracker.ensure_running()  # it would unblock the signal for the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def spread(client: Any) -> Iterator[int]:
    """Have what joblib does in the body done by the workers of a cluster, one thread each.

    Volumes are read by each worker where they lie, not sent.

    Parameters
    ----------
    client : distributed.Client
        Of `connected`.

    Yields
    ------
    int
        What joblib is to be told as the number of processes; how many there are is for dask to say.

    Raises
    ------
    ClusterError
        If a worker runs other code, or a task has ended several of them one after the other.
    """
    from distributed import KilledWorker

    client.wait_for_workers(1)
    for worker, code in client.run(_ready).items():
        if code != _code():
            raise ClusterError(_other_code(f"the worker at {worker}", code, _code()))
    try:
        with parallel_config(_OnWorkers(client)):
            yield 2  # one would be this process
    except KilledWorker:
        raise ClusterError(
            "several workers ended one after the other over the same analysis. Too little memory? "
            "Take fewer workers on a machine."
        ) from None


class _OnWorkers(ThreadingBackend):
    """What joblib computes by: threads that each hand a task to a cluster and wait for it.

    joblib has a backend for dask, which waits for ever where a task has ended its workers.
    """

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Tasks that are handed out at once: two for each worker, so that none waits for its next.

        Parameters
        ----------
        n_jobs : int or None
            What was asked for; who is there decides.
        """
        return 2 * max(1, len(self._client.nthreads()))

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Hand out a batch of calls.

        Parameters
        ----------
        func : callable
        callback : callable, optional
            Told when it is done.
        """

        def computed() -> Any:
            return self._client.submit(func, pure=False).result()

        return super().submit(computed, callback)


def record_on(
    client: Any,
    wanted: Sequence[Wanted],
    volumes: Path,
    *,
    protocol_sha256: str,
    accept_phantom: bool = False,
    advance: Callable[[int], None] = lambda stimuli: None,
) -> Iterator[tuple[Recording, bool]]:
    """Record subjects, as `recording.record` does one by one.

    Parameters
    ----------
    client : distributed.Client
        Of `connected`. It may have no worker yet: those that come are given work.
    wanted : sequence of Wanted
    volumes : pathlib.Path
        Folder of volumes, which all workers see under the same path.
    protocol_sha256, accept_phantom, advance
        As of `recording.record`.

    Yields
    ------
    recording : Recording
        In the order in which they are finished.
    new : bool
        Whether it was not there before.

    Raises
    ------
    ClusterError
        If a worker does not see the folders, runs other code, or what it was given has ended
        several workers one after the other.
    VolumeError, PhantomError, SiteError, StimulusError
        As of `recording.record`.
    """
    volumes = volumes.absolute()
    going: list[_Going] = []
    for one in wanted:
        if found(one.recording, volumes) is not None:
            advance(len(one.recording.stimuli))
            yield one.recording, False
            continue
        job = _Job(
            one.recording, one.placement, volumes, protocol_sha256, accept_phantom,
            torch.get_num_threads(), os.environ.get(EPOCH), _code(), torch.cuda.device_count(),
        )  # fmt: skip
        going.append(_Going(job, deque([partial(_begin, job)])))
    for one in _Handing(client, going, advance).run():
        yield one.job.recording, True


@dataclass(eq=False)
class _Going:
    """A recording that is being made.

    Attributes
    ----------
    job : _Job
    left : deque of callable
        What can be handed out.
    running : int
        Tasks that workers are at.
    step : int
        0 while it is begun, 1 in parts, 2 in shards.
    known : dict of str to str
        sha256 of files that are finished.
    """

    job: _Job
    left: deque[Callable[[], Any]]
    running: int = 0
    step: int = 0
    known: dict[str, str] = field(default_factory=dict)
    begun: _Begun | None = None


class _Handing:
    """Hands tasks to workers, one at a time to each, of the recording whose subject it holds."""

    def __init__(self, client: Any, going: list[_Going], advance: Callable[[int], None]) -> None:
        self._client, self._going, self._advance = client, going, advance
        self._held: dict[str, _Going] = {}  # by worker
        self._running: dict[Any, tuple[str, _Going]] = {}  # by future

    def run(self) -> Iterator[_Going]:
        from distributed import wait

        going = list(self._going)
        try:
            while going:
                busy = {worker for worker, _ in self._running.values()}
                for worker in self._client.nthreads():
                    if worker not in busy:
                        self._hand_to(worker)
                if not self._running:
                    self._client.wait_for_workers(1)
                    continue
                try:
                    done = cast(
                        Any, wait(list(self._running), LOOK, return_when="FIRST_COMPLETED")
                    ).done
                except TimeoutError:  # to see whether workers have come
                    continue
                for future in done:
                    self._take(future)
                for one in [one for one in going if self._over(one)]:
                    going.remove(one)
                    yield one
        finally:
            self._client.cancel(list(self._running), force=True)

    def _hand_to(self, worker: str) -> None:
        able = [one for one in self._going if one.left]
        if not able:
            return
        holders = list(self._held.values())
        mine = self._held.get(worker)
        one = min(able, key=lambda one: (one is not mine, holders.count(one), -len(one.left)))
        self._held[worker] = one
        task = one.left.popleft()
        # Another may have it if this one dies.
        future = self._client.submit(task, workers=[worker], allow_other_workers=True, pure=False)
        self._running[future] = worker, one
        one.running += 1

    def _take(self, future: Any) -> None:
        """What came of a task."""
        from distributed import KilledWorker

        _, one = self._running.pop(future)
        one.running -= 1
        try:
            result = future.result()
        except KilledWorker:
            raise ClusterError(
                f"{one.job.recording.subject}: several workers ended one after the other over the "
                "same piece of it. Too little memory? Take fewer workers on a machine."
            ) from None
        if isinstance(result, _Begun):
            self._divide(one, result)
        elif one.step == 1:
            self._advance(result)
        else:
            one.known |= result

    def _divide(self, one: _Going, begun: _Begun) -> None:
        job, left = one.job, begun.left
        if not partial_of(job.recording, job.volumes).is_dir():
            raise ClusterError(
                f"a worker wrote {job.volumes}, which is another folder here; give a folder of "
                "results that all machines see under the same path"
            )
        one.begun, stimuli = begun, {batch.number: batch.stimuli for batch in left}
        self._advance(len(job.recording.stimuli) - sum(stimuli.values()))
        processes = max(1, len(self._client.nthreads()))
        for some in parts.divide(list(stimuli), [batch.bytes for batch in left], processes):
            count = sum(stimuli[number] for number in some)
            one.left.append(partial(_part, job, some, count))
        one.step = 1

    def _over(self, one: _Going) -> bool:
        """Take the next step where one is over; whether that was the last."""
        job = one.job
        if one.left or one.running or one.begun is None:
            return False
        if one.step == 1:
            lies = partial_of(job.recording, job.volumes)
            since = time.monotonic()
            while parts.missing(lies, one.begun.batches):
                if time.monotonic() - since > LISTED:
                    raise ClusterError(f"{lies}: parts that workers wrote are not seen here")
                time.sleep(LOOK)
            there = parts.parts_of(lies)
            one.left += [
                partial(_shard, job, array, shard, there)
                for array, count in one.begun.shards.items()
                for shard in range(count)
            ]
            one.step = 2
            return False
        parts.finish(partial_of(job.recording, job.volumes))
        finish(job.recording, job.volumes, one.known)
        return True


# --- on a worker

_LOADED: dict[str, Model] = {}
_SCANS: dict[str, Scan] = {}


def _code() -> str:
    """What has to be the same on all machines."""
    return f"{code_version()} {dict(environment())}"


def _other_code(who: str, code: str, wanted: str) -> str:
    return (
        f"{who} runs {code}, and `scan` {wanted}; install the same on all machines, from "
        "requirements.lock"
    )


def _ready() -> str:
    """Let go of what was recorded, for analyses; tells which code this worker runs."""
    _SCANS.clear()
    _LOADED.clear()
    torch.set_num_threads(1)
    return _code()


def _begin(job: _Job) -> _Begun:
    """Lay down a volume, unless it was begun; tells what is left of it."""
    scan = _scan(job)
    with scan.listening():
        scan.begin(job.protocol_sha256)
        batches = len(scan.passes.batches)
        return _Begun(batches, scan.left(), parts.shards_of(scan.partial, scan.arrays))


def _part(job: _Job, batches: range, stimuli: int) -> int:
    """Record a part; tells how many stimuli it has."""
    scan = _scan(job)
    with scan.listening():
        if not scan.begun:
            raise ClusterError(
                f"{job.recording.subject}: {_me()} would record otherwise than the worker that "
                "began (another kind of device?); take workers of one kind"
            )
        try:
            scan.part(batches)
        except NotFiniteError as error:  # which names stimuli by what cannot be sent
            raise VolumeError(str(error)) from None
    return stimuli


def _shard(job: _Job, array: str, shard: int, there: list[parts.Part]) -> dict[str, str]:
    """Put a shard together; tells the sha256 of its file."""
    return parts.assemble(partial_of(job.recording, job.volumes), array, shard, there)


def _scan(job: _Job) -> Scan:
    """The recording on this worker, which holds one subject: its weights, its sites, its texts."""
    key = digest([job.recording.key, str(job.volumes)])
    if key not in _SCANS:
        _SCANS.clear()
        _check(job)
        model = _model(job)
        _SCANS[key] = Scan(job.recording, job.volumes, model, accept_phantom=job.accept_phantom)
    return _SCANS[key]


def _model(job: _Job) -> Model:
    """The model of a recording; the trained one stays loaded while its twins are made."""
    recording = job.recording
    name = digest([str(recording.source.folder), recording.dtype, recording.bits])
    if name not in _LOADED:
        _LOADED.clear()
        _LOADED[name] = Model.load(
            recording.source,
            dtype=cast(DtypeName, recording.dtype),
            placement=job.placement,
            bits=recording.bits,
        )
    return _LOADED[name] if recording.seed is None else _LOADED[name].twin(recording.seed)


def _check(job: _Job) -> None:
    """Be what the machine that asks is, as far as numbers follow from it.

    Raises
    ------
    ClusterError
        If this worker runs other code, or does not see the folder of the model.
    """
    if _code() != job.code:
        raise ClusterError(_other_code(_me(), _code(), job.code))
    folder = job.recording.source.folder
    if not folder.is_dir():
        raise ClusterError(
            f"{_me()} has no {folder}, where {job.recording.source.name} is; let all machines see "
            "the cache under the same path (XDG_CACHE_HOME)"
        )
    torch.set_num_threads(job.threads)
    if job.epoch is not None:
        os.environ[EPOCH] = job.epoch
    number = _worker().name
    # Of a local cluster each process has a GPU of its own, as far as there are.
    if job.gpus > 1 and isinstance(number, int) and not torch.cuda.is_initialized():
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % job.gpus)


def _worker() -> Any:
    from distributed import get_worker

    return get_worker()


def _me() -> str:
    return f"the worker at {_worker().address}"
