"""Opening only what is a file: no folder, pipe, device or socket, and none that takes a file's place meanwhile."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from deepscan.errors import UnreachableInput, UnreadableInput, UnsupportedInput

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class RegularFile(io.FileIO):
    """A file that remembers why reading it failed, as decoders take that for damage or go on after it.

    Attributes:
        failure: the first error of the system; None while there was none.
    """

    failure: OSError | None = None

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read into a buffer; see `io.FileIO`."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            remember_failure(self, error)
            raise

    def readall(self) -> bytes:
        """Read to the end; see `io.FileIO`."""
        try:
            return super().readall()
        except OSError as error:
            remember_failure(self, error)
            raise


def remember_failure(file: BinaryIO | RegularFile, error: OSError) -> None:
    """Let an open file remember that the system failed to read it, if it can."""
    raw = getattr(file, "raw", file)
    if isinstance(raw, RegularFile):
        raw.failure = raw.failure or error


@dataclass(frozen=True, slots=True, eq=False)
class OpenedFile:
    """What `opened_files` knows of a file.

    Attributes:
        file: as it was opened; the caller closes it.
        descriptor: a second one of the same file, which stays open until `close`.
        found: the status of the file when it was opened.
    """

    file: RegularFile
    descriptor: int
    found: os.stat_result

    def close(self) -> None:
        """Close the second descriptor."""
        os.close(self.descriptor)


class _Collecting(threading.local):
    files: list[OpenedFile] | None = None


_collecting = _Collecting()


@contextmanager
def opened_files() -> Iterator[list[OpenedFile]]:
    """Collect the files that this thread opens with `open_regular_file` meanwhile; the caller closes them.

    Readers of many formats open files, and some close them early. This is how the decode stage, which judges what was
    read, gets hold of the very files.
    """
    before, files = _collecting.files, list[OpenedFile]()
    _collecting.files = files
    try:
        yield files
    finally:
        _collecting.files = before


def open_regular_file(path: str) -> BinaryIO:
    """Open a file that is one and not empty, for reading; never wait for a pipe's other end.

    Raises:
        UnsupportedInput: it is a folder, device, pipe or socket.
        UnreadableInput: it is empty, or no file can have this name.
        UnreachableInput: it is missing or forbidden, or cannot be opened for another reason.
    """
    try:
        refuse_irregular(os.stat(path))  # before opening: opening a device may already do something
        file = RegularFile(path, opener=_open_at_once)
        try:
            found = os.fstat(file.fileno())
            refuse_irregular(found)  # the name may lead elsewhere by now
            if _collecting.files is not None:
                _collecting.files.append(OpenedFile(file, os.dup(file.fileno()), found))
        except BaseException:
            file.close()
            raise
        return io.BufferedReader(file)
    except ValueError as error:
        raise UnreadableInput("No file can have this name: check the path.") from error
    except OSError as error:
        hint = "check its permissions" if error.errno == errno.EACCES else "check that it is still there"
        raise UnreachableInput(f"The file cannot be opened ({error.strerror}): {hint}.") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def reading_failed(error: OSError) -> UnreachableInput:
    """Return the error of a file that the system fails to read."""
    return UnreachableInput(f"Reading the file failed ({error.strerror}): check the disk.")


def refuse_irregular(found: os.stat_result) -> None:
    """Refuse, by its status, what is no file with something in it.

    Raises:
        UnsupportedInput: it is a folder, device, pipe or socket.
        UnreadableInput: it is empty.
    """
    if stat.S_ISDIR(found.st_mode):
        raise UnsupportedInput("It is a folder: give the files in it.")
    if not stat.S_ISREG(found.st_mode):
        raise UnsupportedInput("It is a device, pipe or socket, not a file: copy its content into a file.")
    if found.st_size == 0:
        raise UnreadableInput("The file is empty: copy or download it again.")
