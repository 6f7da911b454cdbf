"""The standard streams: closed ones, full ones, and encodings that lack most characters."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deepscan.errors import OutputError

STDIN, STDOUT, STDERR = 0, 1, 2
WIDTH: Final = "COLUMNS"
# Name of the error handler for characters that an encoding lacks.
LEGIBLE: Final = "deepscan-legible"
# What this program draws with, for terminals that know no more than ASCII or Latin 1.
PLAIN: Final = str.maketrans("▁▂▃▄▅▆▇█─━│╸╺…", "12345678--|  .")


class StdoutError(OSError):
    """Writing to stdout failed for another reason than that its reader has left."""


class _Stdout(io.FileIO):
    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StdoutError(error.errno, error.strerror) from error


class _Stderr(io.FileIO):
    """Drops what cannot be written; results are not lost, and the exit code tells."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return len(data)  # type: ignore[arg-type]


def prepare_streams() -> None:
    """Replace the process's own standard streams by ones with defined errors; a test's or a caller's stay."""
    codecs.register_error(LEGIBLE, _legible)
    if not re.fullmatch("[1-9][0-9]{0,8}", os.environ.get(WIDTH, "80")):
        del os.environ[WIDTH]  # Rich would divide by 0, or fail to read it
    # Closed descriptors would be given to the next files that are opened, and those get what others print.
    for number, mode in ((STDIN, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_WRONLY)):
        _occupied(number, mode)
    if sys.stdin is None:
        sys.stdin = open(STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115 - reading it fails
    if sys.stdout is sys.__stdout__:
        sys.stdout = _replaced(sys.__stdout__, _Stdout(STDOUT, "w", closefd=False))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _replaced(sys.__stderr__, _Stderr(STDERR, "w", closefd=False))


def silence_stdout() -> None:
    """Discard what is still to be printed."""
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(getattr(sys.stdout.buffer, "raw", None), _Stdout):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STDOUT)
        os.close(nowhere)


def refuse_output(target: str, is_ours: Callable[[bytes], bool], option: str) -> None:
    """Refuse a file that cannot be written, or that deepscan has not written; `-` is stdout.

    Args:
        target: what the option gives.
        is_ours: tells from the content of a file that is not empty whether it may be replaced.
        option: name of the option.

    Raises:
        OutputError: there is no such folder, or the file is a folder.
        UsageError: the file is something else.
    """
    from deepscan.runtime.system.files import refuse_other_file

    if target == "-":
        return
    file = Path(target)
    if not file.parent.is_dir() or file.is_dir():
        raise OutputError(f"{target} cannot be written: name a file in a folder that exists.")
    refuse_other_file(file, is_ours, advice=f"choose another file for {option}")


def write_to(target: str, data: bytes, option: str) -> None:
    """Write to a file, whole or not at all, or to stdout, if the target is `-`.

    Args:
        target: what the option gives.
        data: what to write.
        option: option and placeholder for the message, such as `--json FILE`.

    Raises:
        OutputError: it cannot be written.
    """
    from deepscan.runtime.system.files import atomic_write

    try:
        if target == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            atomic_write({Path(target): [data]})
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        where = "stdout" if target == "-" else target
        raise OutputError(f"The figures cannot be written to {where} ({error.strerror}): use {option}.") from error


def _occupied(number: int, mode: int) -> None:
    """Open a descriptor that is closed, so that using it fails, or for stderr does nothing."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, mode)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)


def _replaced(old: object, raw: io.FileIO) -> io.TextIOWrapper:
    """Return a text stream over `raw` with the encoding and the buffering of the old one, which may be closed."""
    if not isinstance(old, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", LEGIBLE)
    old.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        old.encoding,
        old.errors if old.errors in ("ignore", "replace") else LEGIBLE,
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )


def _legible(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that cannot be encoded: drawings by similar signs, the rest by escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(PLAIN)
    return lacking.encode("ascii", "backslashreplace").decode(), error.end
