"""One writer for each output: whoever comes second is told."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deepscan.errors import UsageError

LONGEST_NUMBER: Final = 20  # digits of a process's number, and more


def lock_path(path: Path) -> Path:
    """Return the name of the file beside an output that is locked in its place, as the output itself is replaced."""
    real = Path(os.path.realpath(path))
    return real.with_name(f".{real.name}.lock")


class OutputLock:
    """Holds outputs for this process, until it is closed or the process has ended, however it did.

    The locks are of the kind `flock`; a process that is forked without executing another program would share them.

    Args:
        paths: of the outputs; links are resolved.

    Raises:
        UsageError: another scan holds one of them, or another program's file has the name of the lock.
        OSError: the folder cannot be written to, or its file system has no locks.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        with ExitStack() as stack:
            # In the same order everywhere, and each once, though two names may lead to one file.
            for path in sorted({lock_path(path): path for path in paths}.items()):
                stack.callback(_unlock, path[0], _locked(*path))
            self._held = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._held.close()


def _locked(path: Path, output: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        if not _is_lock(file):
            os.close(file)
            raise UsageError(f"{path} exists and is not a lock of deepscan: choose another --out, or move it away.")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, file):
                os.ftruncate(file, 0)
                os.pwrite(file, str(os.getpid()).encode("ascii"), 0)
                return file
        except BlockingIOError as error:
            holder = os.pread(file, LONGEST_NUMBER, 0)
            os.close(file)
            who = f"process {int(holder)}" if holder.isdigit() else "another process"
            raise UsageError(
                f"{output} is being written by another scan ({who}): wait for it, or choose another --out."
            ) from error
        except BaseException:
            _unlock(path, file)
            raise
        os.close(file)  # its holder has just removed it: what is locked here has no name any more


def _is_lock(file: int) -> bool:
    """Tell whether a file is what `_locked` makes: empty, or with the number of a process."""
    held = os.pread(file, LONGEST_NUMBER + 1, 0) if stat.S_ISREG(os.fstat(file).st_mode) else b"other"
    return not held or (held.isdigit() and len(held) <= LONGEST_NUMBER)


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _unlock(path: Path, file: int) -> None:
    with suppress(OSError):  # a name that stays does no harm
        path.unlink()
    os.close(file)
