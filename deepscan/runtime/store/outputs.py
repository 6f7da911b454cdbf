"""Checks and locks of the files that a scan writes: they must not be inputs or files of other programs or scans."""

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

# Folders with names of open files, such as /dev/stdout; a journal must not be created there.
DEVICES: Final = frozenset(["/dev", "/dev/fd", "/proc/self/fd"])
START_BYTES: Final = 4096
FRAME_BYTES: Final = 4  # for a byte order mark and a carriage return in a file without rows
LONGEST_NUMBER: Final = 20  # more digits than a process ID has


def checked_jsonl_path(out: Path, inputs: Sequence[str], *, fresh: bool = False) -> Path:
    """Return the path of the journal beside an output, after checking that nothing else would be overwritten.

    The check resolves links and includes locks and temporary files.

    Raises:
        UsageError: the suffix belongs to no format, or an input or another program's file would be overwritten.
        OSError: a file cannot be examined.
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
    """Refuse to overwrite files that deepscan has not written.

    Raises:
        UsageError: the suffix belongs to no format, or there is such a file.
        OSError: a file cannot be examined.
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
    """Turn an OSError into a sentence for the user.

    Raises:
        OutputError: there was an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{out} or its .jsonl cannot be written ({error.strerror}): once it can be, give the same "
            "command again, which keeps what is finished, or choose another place with --out."
        ) from error


def make_folder(out: Path) -> None:
    """Create the folder of an output, with its parents, if it is missing.

    Raises:
        OSError: the folder cannot be created.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


def keep_orphan(out: Path) -> Path | None:
    """Copy an output whose journal is gone, as its rows are nowhere else; return the path of the copy, if any.

    Raises:
        UsageError: the copy would overwrite a file that deepscan has not written.
        OSError: the output cannot be copied.
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
    """Tell whether an output may be replaced: it is missing, empty, or written by this writer."""
    try:
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return not start or writer.recognizes(start)


def lock_path(path: Path) -> Path:
    """Return the path of the lock beside an output; the output itself is replaced, so it cannot be locked."""
    real = Path(os.path.realpath(path))
    return real.with_name(f".{real.name}.lock")


class OutputLock:
    """Lock on outputs, held until it is closed or the process ends in any way.

    The locks are `flock` locks, so a process that is forked without executing another program would share them.

    Args:
        paths: paths of the outputs; links are resolved.

    Raises:
        UsageError: another scan holds one of the locks, or another program's file has the name of a lock.
        OSError: the folder cannot be written to, or its file system has no locks.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        with ExitStack() as stack:
            # In the same order in every process, and each file once, even if two names lead to it.
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
        os.close(file)  # its holder has just removed the file, so the lock on it is worthless


def _is_lock(file: int) -> bool:
    """Tell whether `_locked` may have made a file: it is empty or holds a process ID."""
    held = os.pread(file, LONGEST_NUMBER + 1, 0) if stat.S_ISREG(os.fstat(file).st_mode) else b"other"
    return not held or (held.isdigit() and len(held) <= LONGEST_NUMBER)


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _unlock(path: Path, file: int) -> None:
    with suppress(OSError):  # a lock file that stays does no harm
        path.unlink()
    os.close(file)
