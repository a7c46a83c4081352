"""Where results lie: in a folder, or in object storage with a working folder on this machine."""

import json
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from protocols.progress import noted
from scanner.object_store import Lease, Store, TakenError, is_url
from scanner.provenance import digest
from scanner.remote import fetch, push
from scanner.volume import digest_file, stored_digest
from verification import Ledger


class RunError(ValueError):
    """A step that finds what an earlier one should have left missing."""


@dataclass(frozen=True)
class Folders:
    """Where a study leaves what it makes.

    Attributes
    ----------
    root : pathlib.Path
        The folder of results, shared by all studies.
    study : str
    """

    root: Path
    study: str

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def home(self) -> Path:
        return self.root / self.study

    @property
    def protocol(self) -> Path:
        return self.home / "protocol.yaml"

    @property
    def stimuli(self) -> Path:
        return self.home / "stimuli.csv"

    @property
    def verdicts(self) -> Path:
        return self.home / "verdicts.json"

    @property
    def report(self) -> Path:
        return self.home / "report.html"

    def measures(self, analysis: str, *subjects: str) -> Path:
        return self.home / "measures" / f"{'--'.join((analysis, *subjects))}.nc"

    def evidence(self, hypothesis: str) -> Path:
        return self.home / "evidence" / f"{hypothesis}.nc"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out.

        Raises
        ------
        RunError
            If another run is in it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / ".lock", timeout=0):
                yield
        except Timeout:
            raise RunError(
                f"another run is writing to {self.root}; wait for it to end, or choose "
                "another folder with --results"
            ) from None

    def take(self, volumes: Iterable[Path]) -> None:
        """Have volumes that are finished at hand: here they are."""

    def keep_volume(self, path: Path) -> None:
        """See a finished volume to where results lie: there it is."""

    def keep_ledger(self) -> None:
        """See the ledger to where results lie."""

    def keep_study(self) -> None:
        """See the files of the study to where results lie."""


@dataclass(frozen=True)
class RemoteFolders(Folders):
    """Results in object storage. What is done is done in a working folder, and kept there.

    A volume is noted in the ledger when it is finished, and pushed then; a line of the ledger is
    there before anything is done that rests on it. What is only in the working folder was never
    said: it is what was being done when a run ended.

    Attributes
    ----------
    root : pathlib.Path
        The working folder.
    study : str
    store : Store
    """

    store: Store

    @cached_property
    def _tags(self) -> dict[str, str]:
        """Of the ledger as it was read or written last; empty if there is none."""
        return {}

    @cached_property
    def _leases(self) -> list[Lease]:
        """That which is held."""
        return []

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out, and have what others have left."""
        with super().alone(), Lease(self.store, ".lock", self._holder()) as lease:
            self._leases[:] = [lease]
            self._pull()
            yield
            self.keep_study()

    def _holder(self) -> str:
        """Who works in this folder; the lock on it lets one in at a time."""
        path = self.root / ".holder"
        if not path.is_file():
            path.write_text(uuid.uuid4().hex)
        return path.read_text()

    def _check(self) -> None:
        for lease in self._leases:
            lease.check()

    def _pull(self) -> None:
        there = self.store.get(self.ledger.name)
        self._tags.clear()
        if there is None:
            self.ledger.unlink(missing_ok=True)
        else:
            self.ledger.write_bytes(there.content)
            self._tags[self.ledger.name] = there.tag
        if self.study:
            self.store.below(self.study).fetch(self.home)

    def take(self, volumes: Iterable[Path]) -> None:
        """Fetch volumes that are finished there, unless they are here."""
        store = self.store.below("volumes")
        for path in volumes:
            there, file = stored_digest(store, path.name), digest_file(path)
            if there is None or (file.is_file() and file.read_text().strip() == there):
                continue
            with noted(f"fetching {path.name}"):
                fetch(store, path.name, self.volumes)

    def keep_volume(self, path: Path) -> None:
        """Push a finished volume, unless it is there."""
        store = self.store.below("volumes")
        if stored_digest(store, path.name) == digest_file(path).read_text().strip():
            return
        with noted(f"keeping {path.name} in {self.store.url}"):
            push(path, store, check=self._check)

    def keep_ledger(self) -> None:
        """Put the ledger in the place of the one that was read.

        Raises
        ------
        TakenError
            If another run has written a line meanwhile.
        """
        self._check()
        name, content = self.ledger.name, self.ledger.read_bytes()
        try:
            tag = self.store.put(name, content, instead_of=self._tags.get(name))
        except TakenError:
            raise TakenError(
                f"another run has written to the ledger of {self.store.url} meanwhile, and what "
                "this one had to say was not written; run the same command again"
            ) from None
        self._tags[name] = tag

    def keep_study(self) -> None:
        """Push the files of the study that are not as they are there."""
        if self.home.is_dir():
            self.store.below(self.study).push(self.home, check=self._check)


def folders_at(where: str | Path, study: str) -> Folders:
    """The folders of a study.

    Parameters
    ----------
    where : str or pathlib.Path
        A folder, or a URL.
    study : str
    """
    if not is_url(str(where)):
        return Folders(Path(where), study)
    store = Store(str(where).rstrip("/"))
    name = f"{store.bucket}-{digest([store.endpoint, store.url])[:12]}"
    return RemoteFolders(user_cache_path("lmfmri") / "stores" / name, study, store)


def folder_at(where: str) -> Path:
    """A folder that has to be on this machine.

    Raises
    ------
    RunError
        If it is a URL.
    """
    if is_url(where):
        raise RunError(f"{where}: this command needs a folder on this machine")
    return Path(where)


def ledger_at(where: str) -> Ledger:
    """The ledger, to be read."""
    if not is_url(where):
        return Ledger(Folders(Path(where), "").ledger)
    there = Store(where).get("ledger.jsonl")
    with tempfile.TemporaryDirectory() as root:
        path = Folders(Path(root), "").ledger
        if there is not None:
            path.write_bytes(there.content)
        return Ledger(path)


@contextmanager
def finished_at(where: str) -> Iterator[Path]:
    """The folder of a finished study; one in object storage is fetched for as long.

    All of it is read from there, whatever this machine has: what is checked is what is there.
    """
    if not is_url(where):
        yield Path(where)
        return
    url, _, study = where.rstrip("/").rpartition("/")
    store = Store(url)
    with tempfile.TemporaryDirectory() as root:
        folders = Folders(Path(root), study)
        there = store.get(folders.ledger.name)
        if there is not None:
            folders.ledger.write_bytes(there.content)
        store.below(study).fetch(folders.home)
        for name in _judged_on(folders.verdicts):
            with noted(f"fetching {name}"):
                fetch(store.below("volumes"), name, folders.volumes)
        yield folders.home


def _judged_on(verdicts: Path) -> list[str]:
    """Names of the volumes that a study was judged on."""
    if not verdicts.is_file():
        return []
    stated = json.loads(verdicts.read_text())
    return [Path(one["path"]).name for one in (*stated["recordings"], *stated["effects"])]
