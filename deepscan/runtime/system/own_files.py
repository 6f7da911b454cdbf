"""Finding out whether a file of deepscan's own can be written, without writing."""

from __future__ import annotations

import errno
import os
import stat

from deepscan.errors import OutputError


def refuse_unwritable(path: str | os.PathLike[str], *, begins: bytes, kind: str) -> None:
    """Look at the place of a log or a trace, and touch nothing.

    Args:
        path: of the file, which need not exist.
        begins: how such a file begins, if it is not empty.
        kind: what it is: "log", "trace".

    Raises:
        OutputError: it cannot be written, or what is there is something else.
    """
    name = os.fspath(path)
    try:
        found = os.stat(name)
        if not stat.S_ISREG(found.st_mode):
            raise OutputError(f"{name} is not a regular file: name a file for the {kind}.")
        _access(name, os.R_OK | os.W_OK)
        with open(name, "rb") as file:
            if file.read(len(begins)) not in (b"", begins):
                raise OutputError(f"{name} exists and is not a {kind}: name another file, or delete it.")
    except FileNotFoundError:
        _refuse_unwritable_folder(name)
    except (OSError, ValueError) as error:
        raise _unwritable(name, error) from error


def _refuse_unwritable_folder(name: str) -> None:
    folder = os.path.dirname(os.path.realpath(name)) if os.path.basename(name) else name
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise _unwritable(name, error) from error


def _access(path: str, mode: int) -> None:
    if not os.access(path, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _unwritable(name: str, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return OutputError(f"{name} cannot be written ({reason}): name a file elsewhere.")
