"""A folder of results in object storage: whole objects, of which no two writers make one.

An object store has no folders, no rename and no append. It has objects that are put whole or not
at all, and (S3 since 2024) puts that hold only where an object is not there, or is still the one
that was read. That is enough for volumes, which do not change when they are finished, for a ledger
that is replaced as a whole by who has seen its last line, and for a lease in the place of a lock.

Objects are put and got by obstore, which comes with ``lmfmri[cloud]`` and is imported when a URL is
given. Credentials, endpoint and region are those of the environment (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ``AWS_REGION``, …), or of ``~/.aws/credentials``.
"""

import configparser
import getpass
import hashlib
import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

FORM = "s3://bucket/folder"
# After so many seconds without a sign of life a lease is anyone's; one is given six times as often.
LEASE = 60.0
# Tries after a failed one, seconds in all, and seconds until a server has to answer.
RETRIES, PATIENCE, ANSWER = 4, 60.0, 5.0
# Objects put or got at once.
THREADS = 8
# Above, a file is put in pieces and not read into memory.
PIECEWISE_BYTES = 1_000_000_000


class StoreError(ValueError):
    """An object store that cannot be used; the message says what to do."""


class TakenError(StoreError):
    """Another one has put the object, or holds the lease."""


class Held(NamedTuple):
    """An object as it was when it was read.

    Attributes
    ----------
    content : bytes
    tag : str
        By which a put can ask for it to be the same still.
    """

    content: bytes
    tag: str


def is_url(where: str) -> bool:
    """Whether results lie in object storage, and not in a folder."""
    return "://" in where


@dataclass(frozen=True)
class Store:
    """A folder in object storage.

    Attributes
    ----------
    url : str
        ``s3://bucket/folder``.

    Raises
    ------
    StoreError
        If it is no such URL, or obstore is not installed.
    """

    url: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"s3://[^/\s]+(/\S*)?", self.url):
            raise StoreError(f"'{self.url}' is no folder in object storage; give {FORM}")
        if find_spec("obstore") is None:
            raise StoreError(
                f"{self.url} needs obstore; install it with: pip install 'lmfmri[cloud]'"
            )

    @property
    def bucket(self) -> str:
        return self.url.split("/")[2]

    @property
    def prefix(self) -> str:
        return "/".join(self.url.split("/")[3:]).strip("/")

    @property
    def endpoint(self) -> str:
        """Where its server is; empty for that of Amazon."""
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        return next((os.environ[name] for name in names if os.environ.get(name)), "")

    def below(self, name: str) -> "Store":
        """A folder in it."""
        return Store(f"{self.url.rstrip('/')}/{name}")

    @cached_property
    def objects(self) -> Any:
        """It as obstore, and zarr, take it."""
        from obstore.store import S3Store

        given: dict[str, Any] = {**_credentials()}
        if self.endpoint:
            given["endpoint"] = self.endpoint
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            client_options={
                "connect_timeout": timedelta(seconds=ANSWER),
                "allow_http": self.endpoint.startswith("http://"),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=PATIENCE)},
            **given,
        )

    @contextmanager
    def told(self) -> Iterator[None]:
        """What obstore has to say, in words that say what to do."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:  # what obstore raises where a bucket is missing, too
            if "NoSuchBucket" in str(error):
                raise StoreError(self._explained(str(error))) from None
            raise
        except BaseError as error:
            raise StoreError(self._explained(str(error))) from None

    def _explained(self, said: str) -> str:
        if "NoSuchBucket" in said:
            return f"{self.url}: there is no bucket '{self.bucket}'; make it, or correct the URL"
        # Of a pair one is missing; or machines of the cloud were asked for theirs, as a last try.
        if "AccessKey" in said and "Missing" in said or "/latest/api/token" in said:
            return (
                f"{self.url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "write them to ~/.aws/credentials"
            )
        if "error sending request" in said or "timed out" in said:
            where = self.endpoint or "the server of S3"
            return (
                f"{self.url}: {where} does not answer; see whether it runs and AWS_ENDPOINT_URL "
                "and AWS_REGION are right. The same command goes on"
            )
        refused = re.search(r"<Code>(\w+)</Code>", said)
        if refused and (" 403 " in said or " 401 " in said):
            return (
                f"{self.url}: the server refuses ({refused[1]}); credentials are wrong, or may not "
                "read and write there"
            )
        return f"{self.url}: {said.partition('Debug source')[0].strip()}"

    def get(self, name: str) -> Held | None:
        """An object, if it is there."""
        import obstore

        try:
            with self.told():
                found = obstore.get(self.objects, name)
                return Held(bytes(found.bytes()), found.meta["e_tag"] or "")
        except FileNotFoundError:
            return None

    def put(self, name: str, content: bytes, *, instead_of: str | None) -> str:
        """Put an object in the place of one that was read, or where none is.

        Parameters
        ----------
        name : str
        content : bytes
        instead_of : str or None
            Tag of what was read; None if nothing was there.

        Returns
        -------
        str
            Its tag.

        Raises
        ------
        TakenError
            If another one is there now.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if instead_of is None else {"e_tag": instead_of}
        try:
            with self.told():
                try:
                    put = obstore.put(self.objects, name, content, mode=mode, use_multipart=False)
                    return put["e_tag"] or ""
                except (AlreadyExistsError, PreconditionError):
                    pass
        except FileNotFoundError:  # what was to be replaced is gone
            pass
        there = self.get(name)
        if there is not None and there.content == content:  # put, and not told so: tried again
            return there.tag
        raise TakenError(f"{self.url}/{name} was written by another process meanwhile")

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        try:
            with self.told():
                obstore.delete(self.objects, name)
        except FileNotFoundError:
            pass

    def age(self, name: str) -> float:
        """Seconds since an object was put, by the clock of the server; infinite if it is gone."""
        import obstore

        clock = f"{name}.clock"
        try:
            with self.told():
                put = obstore.head(self.objects, name)["last_modified"]
                obstore.put(self.objects, clock, os.urandom(8))
                now = obstore.head(self.objects, clock)["last_modified"]
                obstore.delete(self.objects, clock)
        except FileNotFoundError:
            return float("inf")
        return (now - put).total_seconds()

    def names(self) -> dict[str, str]:
        """Tags of all objects, by their paths in this folder."""
        import obstore

        with self.told():
            found = obstore.list(self.objects).collect()
        return {one["path"]: one["e_tag"] or "" for one in found}

    def push(self, folder: Path, *, check: Callable[[], None] = lambda: None) -> None:
        """Make the folder here what one on the disk is; what is the same is not sent.

        Parameters
        ----------
        folder : pathlib.Path
        check : callable
            Called before each change.
        """
        import obstore

        there = self.names()
        files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

        def send(name: str) -> None:
            if there.get(name) == _tag(files[name]):
                return
            check()
            piecewise = files[name].stat().st_size > PIECEWISE_BYTES
            with self.told():
                obstore.put(self.objects, name, files[name], use_multipart=piecewise)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(send, files))
        for name in there.keys() - files.keys():
            check()
            self.delete(name)

    def fetch(self, folder: Path) -> None:
        """Make a folder on the disk what the one here is; what is the same is not sent."""
        there = self.names()
        for path in list(folder.rglob("*")):
            if path.is_file() and path.relative_to(folder).as_posix() not in there:
                path.unlink()

        def take(name: str) -> None:
            path = folder / name
            if path.is_file() and there[name] == _tag(path):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = path.with_name(f".{path.name}.fetching")
            with staging.open("wb") as file:
                for piece in self.pieces(name):
                    file.write(piece)
            os.replace(staging, path)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(take, there))

    def pieces(self, name: str) -> Iterator[bytes]:
        """An object, piece by piece."""
        import obstore

        with self.told():
            for piece in obstore.get(self.objects, name).stream():
                yield bytes(piece)

    def sha256(self) -> dict[str, str]:
        """sha256 of all objects, by their paths in this folder; each is read."""

        def read(name: str) -> str:
            sha256 = hashlib.sha256()
            for piece in self.pieces(name):
                sha256.update(piece)
            return sha256.hexdigest()

        names = sorted(self.names())
        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(names, pool.map(read, names), strict=True))


class Lease:
    """Keeps others out of a folder in object storage, for as long as it says that it lives.

    One that was killed is followed at once by who has the same working folder, by others after
    `LEASE` seconds. What hangs on it is asked of it before each change (`check`): a machine that
    slept may find that another has taken over.

    Parameters
    ----------
    store : Store
    name : str
        Of its object.
    holder : str
        Who: the same for runs that a lock on this machine keeps apart already.
    """

    def __init__(self, store: Store, name: str, holder: str) -> None:
        self._store, self._name, self._holder = store, name, holder
        self._beats, self._tag, self._seen = 0, "", 0.0
        self._over, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> "Lease":
        there = self._store.get(self._name)
        if there is not None:
            told = json.loads(there.content)
            age = self._store.age(self._name)
            if told["holder"] != self._holder and age < LEASE:
                raise self._taken(told)
        try:
            self._beat(None if there is None else there.tag)
        except TakenError:
            now = self._store.get(self._name)
            raise self._taken({} if now is None else json.loads(now.content)) from None
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if not self._lost:
            self._store.delete(self._name)

    def check(self) -> None:
        """Raise if another has, or may have, taken over.

        Raises
        ------
        TakenError
        """
        if self._lost or time.monotonic() - self._seen > LEASE:
            raise TakenError(
                f"{self._store.url}: this run gave no sign of life for {LEASE:.0f} s, and another "
                "may have taken over; run the same command again, it goes on"
            )

    def _beat(self, before: str | None) -> None:
        began = time.monotonic()
        who = {"holder": self._holder, "user": _user(), "machine": platform.node(),
               "process": os.getpid(), "beat": self._beats}  # fmt: skip
        self._tag = self._store.put(self._name, json.dumps(who).encode(), instead_of=before)
        self._beats, self._seen = self._beats + 1, began

    def _live(self) -> None:
        while not self._over.wait(LEASE / 6):
            try:
                self._beat(self._tag)
            except TakenError:
                self._lost = True
                return
            except StoreError:  # it may answer again; `check` knows for how long it may not
                continue

    def _taken(self, told: Mapping[str, Any]) -> TakenError:
        who = (
            "another run"
            if not told
            else f"another run ({told['user']}, process {told['process']} on {told['machine']})"
        )
        return TakenError(
            f"{who} is writing to {self._store.url}; wait for it to end, or choose another folder "
            f"with --results. If it was killed, it is forgotten after {LEASE:.0f} s"
        )


def _tag(path: Path) -> str:
    """The tag that S3 gives to a file that is put in one piece: its MD5."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return f'"{md5.hexdigest()}"'


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, in a container
        return str(os.getuid())


def _credentials() -> dict[str, str]:
    """Those of the file that other tools of Amazon read, where the environment gives none.

    obstore reads the environment itself, and what machines of the cloud are told.
    """
    if any(name in os.environ for name in ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")):
        return {}
    path = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    found = configparser.ConfigParser(interpolation=None)
    found.read(Path(path).expanduser())
    profile = os.environ.get("AWS_PROFILE", "default")
    if not found.has_section(profile):
        return {}
    names = ("access_key_id", "secret_access_key", "session_token")
    return {
        name: found[profile][f"aws_{name}"] for name in names if f"aws_{name}" in found[profile]
    }
