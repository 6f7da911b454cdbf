"""Which files a scan writes, that none of them is an input, and that none of them is somebody else's."""

from __future__ import annotations

import codecs
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deepscan.errors import OutputError, UsageError
from deepscan.runtime.store.journal_content import read_journal
from deepscan.runtime.store.output_lock import lock_path
from deepscan.runtime.store.result_records import CSV_HEADER
from deepscan.runtime.system.files import atomic_write, is_partial_of

CSV_SUFFIXES: Final = frozenset(["", ".csv"])
JOURNAL_SUFFIX: Final = ".jsonl"
# First lines of the CSVs that versions of deepscan wrote and write. Once the columns change, the old line stays here.
FIRST_HEADER: Final = (
    b"path,status,reason,score,label,model,faces,tracks,clips,frames,duration_seconds,width,height,codec,"
    b"peak_start_seconds,peak_end_seconds,peak_score,backend,precision,weights_sha256,settings_sha256,elapsed_seconds"
)
KNOWN_HEADERS: Final = frozenset([FIRST_HEADER, CSV_HEADER.encode("ascii").rstrip(b"\n")])
# Folders in which names such as /dev/stdout stand for what is open: no journal is to be left beside it.
DEVICES: Final = frozenset(["/dev", "/dev/fd", "/proc/self/fd"])
LONGEST_HEADER: Final = 4096


def journal_path(csv_path: Path) -> Path:
    """Return the path of the journal beside a CSV."""
    return csv_path.parent / f"{csv_path.stem}{JOURNAL_SUFFIX}"


def backup_path(journal: Path) -> Path:
    """Return where `--fresh` keeps the journal before: with this ending no folder's scan takes it up."""
    return journal.with_suffix(f".old{JOURNAL_SUFFIX}")


def checked_jsonl_path(csv_path: Path, inputs: Sequence[str], *, fresh: bool = False) -> Path:
    """Return the path of the JSONL beside a CSV, once it is clear that no input would be written to.

    Links are resolved; locks and temporary files are looked at, too.

    Raises:
        UsageError: the path cannot be that of a CSV, an input would be overwritten, or a file that is not deepscan's.
        OSError: something cannot be looked at.
    """
    jsonl_path = journal_path(csv_path)
    taken = {os.path.realpath(path) for path in inputs}
    for path in (csv_path, jsonl_path, *([backup_path(jsonl_path)] if fresh else [])):
        real, lock = Path(os.path.realpath(path)), str(lock_path(path))
        for name in taken:
            folder, _, last = name.rpartition(os.sep)
            temporary = folder == str(real.parent) and is_partial_of(real, last)
            if temporary or name in (str(real), lock):
                raise UsageError(f"{name} is one of the inputs and would be overwritten: choose another --out.")
    refuse_other_files(csv_path, fresh=fresh)
    return jsonl_path


def refuse_other_files(csv_path: Path, *, fresh: bool) -> None:
    """Refuse to write where there is something that deepscan has not written.

    Raises:
        UsageError: the path cannot be that of a CSV, or there is such a file.
        OSError: something cannot be looked at.
    """
    if csv_path.suffix.lower() not in CSV_SUFFIXES:
        raise UsageError(
            f"--out {csv_path} is not the name of a CSV: deepscan writes a CSV, and a .jsonl beside it, so let it "
            "end in .csv."
        )
    jsonl_path = journal_path(csv_path)
    journals = [jsonl_path, *([backup_path(jsonl_path)] if fresh else [])]
    for path in (csv_path, *journals):
        if path.is_dir():
            raise UsageError(f"{path} is a folder and cannot be written to: let --out name a file.")
        if os.path.dirname(os.path.abspath(path)) in DEVICES or (path.exists() and not path.is_file()):
            raise UsageError(f"{path} is a device or a pipe: let --out name a file, or use - for stdout.")
    if not _is_csv_of_deepscan(csv_path):
        raise UsageError(
            f"{csv_path} exists and was not written by deepscan, or another program has saved it since: move it away, "
            "or choose another --out."
        )
    for path in journals:
        refuse_other_journal(path)


def refuse_other_journal(path: Path) -> None:
    """Refuse a file that is not a journal.

    Raises:
        UsageError: there is one.
        OSError: it cannot be read.
    """
    if read_journal(path, entries=False).foreign:
        raise UsageError(
            f"{path}, which goes with the CSV, exists and is not a journal that this deepscan can continue: choose "
            "another --out."
        )


@contextmanager
def writing_results(csv_path: Path) -> Iterator[None]:
    """Turn an error of the system into one sentence.

    Raises:
        OutputError: there was one.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{csv_path} or its .jsonl cannot be written ({error.strerror}): once it can be, give the same "
            "command again, which keeps what is finished, or choose another place with --out."
        ) from error


def make_folder(csv_path: Path) -> None:
    """Make the folder of a CSV, and those above it, where they are missing.

    Raises:
        OSError: that is not possible.
    """
    try:
        csv_path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


def keep_orphan(csv_path: Path) -> Path | None:
    """Copy a CSV whose journal is gone, as nothing else knows its rows; return the path of the copy, if there are any.

    Raises:
        UsageError: there is a file where it would be kept that deepscan has not written.
        OSError: it cannot be copied.
    """
    try:
        data = csv_path.read_bytes()
    except FileNotFoundError:
        return None
    if data.count(b"\n") < 2:
        return None
    kept = csv_path.with_name(f"{csv_path.stem}.old{csv_path.suffix}")
    if not _is_csv_of_deepscan(kept):
        raise UsageError(f"{kept} exists and was not written by deepscan: choose another --out.")
    atomic_write({kept: [data]})
    return kept


def _is_csv_of_deepscan(path: Path) -> bool:
    """Tell whether a CSV may be replaced: it is not there, empty, or begins with the columns and no others."""
    try:
        with open(path, "rb") as file:
            line = file.readline(LONGEST_HEADER)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return not line or line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n") in KNOWN_HEADERS
