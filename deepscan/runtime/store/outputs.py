"""Files that a scan writes: none of them is an input or another program's, and no other scan writes them meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deepscan.errors import OutputError, UsageError
from deepscan.runtime.store.journal import backup_path, journal_path, refuse_other_journal
from deepscan.runtime.store.writers import Writer, writer_for
from deepscan.runtime.system.files import atomic_write, is_partial_of

# Folders in which names such as /dev/stdout stand for what is open: no journal is to be left beside it.
DEVICES: Final = frozenset(["/dev", "/dev/fd", "/proc/self/fd"])
START_BYTES: Final = 4096
FRAME_BYTES: Final = 4  # that a file without rows may have more: a byte order mark, a carriage return
LONGEST_NUMBER: Final = 20  # digits of a process's number, and more


def checked_jsonl_path(out: Path, inputs: Sequence[str], *, fresh: bool = False) -> Path:
    """Return the path of the journal beside an output, once it is clear that no input would be written to.

    Links are resolved; locks and temporary files are looked at, too.

    Raises:
        UsageError: no format has this suffix, an input would be overwritten, or a file that is not deepscan's.
        OSError: something cannot be looked at.
    """
    jsonl_path = journal_path(out)
    taken = {os.path.realpath(path) for path in inputs}
    for path in (out, jsonl_path, *([backup_path(jsonl_path)] if fresh else [])):
        real, lock = Path(os.path.realpath(path)), str(lock_path(path))
        for name in taken:
            folder, _, last = name.rpartition(os.sep)
            temporary = folder == str(real.parent) and is_partial_of(real, last)
            if temporary or name in (str(real), lock):
                raise UsageError(f"{name} is one of the inputs and would be overwritten: choose another --out.")
    refuse_other_files(out, fresh=fresh)
    return jsonl_path


def refuse_other_files(out: Path, *, fresh: bool) -> None:
    """Refuse to write where there is something that deepscan has not written.

    Raises:
        UsageError: no format has this suffix, or there is such a file.
        OSError: something cannot be looked at.
    """
    writer = writer_for(out)
    jsonl_path = journal_path(out)
    journals = [jsonl_path, *([backup_path(jsonl_path)] if fresh else [])]
    for path in (out, *journals):
        if path.is_dir():
            raise UsageError(f"{path} is a folder and cannot be written to: let --out name a file.")
        if os.path.dirname(os.path.abspath(path)) in DEVICES or (path.exists() and not path.is_file()):
            raise UsageError(f"{path} is a device or a pipe: let --out name a file, or use - for stdout.")
    if not _is_own(out, writer):
        raise UsageError(
            f"{out} exists and was not written by deepscan, or another program has saved it since: move it away, "
            "or choose another --out."
        )
    for path in journals:
        refuse_other_journal(path)


@contextmanager
def writing_results(out: Path) -> Iterator[None]:
    """Turn an error of the system into one sentence.

    Raises:
        OutputError: there was one.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{out} or its .jsonl cannot be written ({error.strerror}): once it can be, give the same "
            "command again, which keeps what is finished, or choose another place with --out."
        ) from error


def make_folder(out: Path) -> None:
    """Make the folder of an output, and those above it, where they are missing.

    Raises:
        OSError: that is not possible.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


def keep_orphan(out: Path) -> Path | None:
    """Copy an output whose journal is gone, because nothing else knows its rows; return the path of the copy.

    Raises:
        UsageError: there is a file where it would be kept that deepscan has not written.
        OSError: it cannot be copied.
    """
    writer = writer_for(out)
    try:
        data = out.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) <= len(b"".join(writer.encode(()))) + FRAME_BYTES:
        return None  # it has no rows
    kept = out.with_name(f"{out.stem}.old{out.suffix}")
    if not _is_own(kept, writer):
        raise UsageError(f"{kept} exists and was not written by deepscan: choose another --out.")
    atomic_write({kept: [data]})
    return kept


def _is_own(path: Path, writer: Writer) -> bool:
    """Tell whether an output may be replaced: it is not there, empty, or this writer has written it."""
    try:
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return not start or writer.recognizes(start)


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
