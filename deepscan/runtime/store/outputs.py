"""Checks of the files that a scan writes: they must not be inputs or files of other programs or scans."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deepscan.errors import OutputError, UsageError
from deepscan.runtime.store.journal import backup_path, journal_path, refuse_other_journal
from deepscan.runtime.store.writers import Writer, writer_for
from deepscan.runtime.system.files import atomic_write, is_partial_of

# Folders with names of open files, such as /dev/stdout; a journal must not be created there.
DEVICES: Final = frozenset(["/dev", "/dev/fd", "/proc/self/fd"])
START_BYTES: Final = 4096
FRAME_BYTES: Final = 4  # for a byte order mark and a carriage return in a file without rows


def checked_jsonl_path(out: Path, inputs: Sequence[str], *, fresh: bool = False) -> Path:
    """Return the path of the journal beside an output, after `refuse_other_files`, and for the inputs, too.

    The check resolves links and includes temporary files.
    """
    jsonl_path = journal_path(out)
    taken = {os.path.realpath(path) for path in inputs}
    for path in (out, jsonl_path, *([backup_path(jsonl_path)] if fresh else [])):
        real = Path(os.path.realpath(path))
        for name in taken:
            folder, _, last = name.rpartition(os.sep)
            temporary = folder == str(real.parent) and is_partial_of(real, last)
            if temporary or name == str(real):
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
    """Turn an OSError into an OutputError, a sentence for the user."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{out} or its .jsonl cannot be written ({error.strerror}): once it can be, give the same "
            "command again, which keeps what is finished, or choose another place with --out."
        ) from error


def keep_orphan(out: Path) -> Path | None:
    """Copy an output whose journal is gone, as its rows are nowhere else; return the path of the copy, if any.

    The copy overwrites no file that deepscan has not written: that is a UsageError.
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
