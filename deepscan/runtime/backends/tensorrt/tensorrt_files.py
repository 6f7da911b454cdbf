"""The folders that engines are kept in: open to nobody but their owner, and built in by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from deepscan.errors import ModelError
from deepscan.runtime.system.files import PRIVATE, atomic_write

LOCK: Final = "lock"
OPEN_TO_OTHERS: Final = 0o077
SEAL_BYTES: Final = 32


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE, exist_ok=True)


def refuse_open(folder: Path, *, remedy: str) -> None:
    """Refuse a folder that others may have put something into: an engine is code that runs on the GPU.

    Args:
        folder: is there.
        remedy: the end of the message.

    Raises:
        ModelError: it is not ours, or others may enter it, or it is not a folder at all.
    """
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{folder} is not a folder, so no engine is taken from it: delete it, and {remedy}.")
    if status.st_uid != os.geteuid():
        raise ModelError(f"{folder} belongs to another user, so no engine is taken from it: delete it, and {remedy}.")
    if status.st_mode & OPEN_TO_OTHERS:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise ModelError(
            f"{folder} is open to other users (mode {mode}), so no engine is taken from it: delete it, and {remedy}."
        )


def read_own(path: Path) -> bytes:
    """Read a file that must be ours, and not a link to something else.

    Raises:
        OSError: it cannot be read, or is a link.
        PermissionError: it belongs to somebody else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            raise PermissionError(0, "it belongs to another user, or is not a regular file", str(path))
        return file.read()


@contextlib.contextmanager
def locked(folder: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Keep other processes and threads from building in a folder.

    The lock is on an open file: the system lifts it when its process ends, however that happens. The file stays, as
    deleting it would let a third process lock another one of the same name.

    Args:
        folder: is there.
        waiting: is called once if somebody else holds the lock.

    Raises:
        OSError: the file system cannot lock.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_sealed(path: Path, content: bytes) -> None:
    """Write what TensorRT keeps between runs to save time, with its hash before it.

    Raises:
        OSError: it cannot be written.
    """
    atomic_write({path: [hashlib.sha256(content).digest(), content]})


def read_sealed(path: Path) -> bytes | None:
    """Return what `write_sealed` wrote, or None: what only saves time is made anew where anything is wrong with it."""
    try:
        content = read_own(path)
    except OSError:
        return None
    seal, content = content[:SEAL_BYTES], content[SEAL_BYTES:]
    return content if hashlib.sha256(content).digest() == seal else None
