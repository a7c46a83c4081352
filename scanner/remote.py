"""Volumes in object storage: the same files as on a disk, each an object, and the digest the last.

A volume is recorded into a folder, where rows are written in place, and pushed when it is whole. An
object with its digest says that all others are there, so one that was being pushed is none.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from scanner.object_store import Store, TakenError
from scanner.volume import (
    VolumeError,
    absent,
    damaged_volume,
    digest_file,
    stored_digest,
    verify_volume,
    volume_digest,
)


def push(path: Path, store: Store, *, check: Callable[[], None] = lambda: None) -> None:
    """Put a finished volume into a store; what was interrupted goes on.

    Parameters
    ----------
    path : pathlib.Path
    store : Store
        Of volumes.
    check : callable
        Called before each change.

    Raises
    ------
    VolumeError
        If the volume is damaged, or another of this name is there.
    """
    mine, there = digest_file(path).read_text(), stored_digest(store, path.name)
    if there is None:
        verify_volume(path)
        store.below(path.name).push(path, check=check)
        check()
        try:
            store.put(digest_file(path).name, mine.encode(), instead_of=None)
        except TakenError:
            there = stored_digest(store, path.name)
    if there not in (None, mine.strip()):
        raise VolumeError(
            f"volume {path}: {store.url} holds another recording of this name. Keep that one: "
            f"remove {path} and {digest_file(path).name}, and run again."
        )


def fetch(store: Store, name: str, volumes: Path) -> Path:
    """Bring a finished volume onto this disk.

    Returns
    -------
    pathlib.Path
        Its folder.

    Raises
    ------
    VolumeError
        If it is not there, or its bytes are not those that were pushed.
    """
    there, path = stored_digest(store, name), volumes / name
    if there is None:
        raise VolumeError(absent(f"{store.url}/{name}"))
    staging = path.with_name(f".{name}.fetching")
    store.below(name).fetch(staging)
    if volume_digest(staging) != there:
        shutil.rmtree(staging)
        raise VolumeError(damaged_volume(f"{store.url}/{name}"))
    digest_file(path).unlink(missing_ok=True)
    if path.exists():
        shutil.rmtree(path)
    os.replace(staging, path)
    digest_file(path).write_text(f"{there}\n")
    return path
