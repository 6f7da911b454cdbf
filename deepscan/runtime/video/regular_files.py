"""Opening only what is a file: no folder, pipe, device or socket, and none that takes a file's place meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from deepscan.errors import UnreadableInput, UnsupportedInput


def open_regular_file(path: str) -> BinaryIO:
    """Open a file that is one and not empty, for reading; never wait for a pipe's other end.

    Raises:
        UnsupportedInput: it is a folder, device, pipe or socket.
        UnreadableInput: it is empty, missing or forbidden.
    """
    try:
        _refuse_others(os.stat(path))  # before opening: opening a device may already do something
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
        try:
            _refuse_others(os.fstat(file.fileno()))  # the name may lead elsewhere by now
        except BaseException:
            file.close()
            raise
        return file
    except ValueError as error:
        raise UnreadableInput("No file can have this name: check the path.") from error
    except OSError as error:
        hint = "check its permissions" if error.errno == errno.EACCES else "check that it is still there"
        raise UnreadableInput(f"The file cannot be opened ({error.strerror}): {hint}.") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _refuse_others(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise UnsupportedInput("It is a folder: give the files in it.")
    if not stat.S_ISREG(found.st_mode):
        raise UnsupportedInput("It is a device, pipe or socket, not a file: copy its content into a file.")
    if found.st_size == 0:
        raise UnreadableInput("The file is empty: copy or download it again.")
