"""Running one command: at its end, at most one line on stderr and a documented exit code."""

from __future__ import annotations

import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Final

from deepscan.cli import INTERRUPTED
from deepscan.cli.interrupts import was_interrupted
from deepscan.cli.streams import StdoutError, prepare_streams, silence_stdout
from deepscan.errors import DeepscanError
from deepscan.wording import printable

WRONG_USAGE: Final = 2
OUTPUT_FAILED: Final = 3
ISSUES: Final = "https://github.com/deepscan-video/deepscan-video/issues"
UNEXPECTED: Final = 70  # EX_SOFTWARE of sysexits.h
READER_LEFT: Final = 141
DEBUG_OPTION: Final = "--debug"
DEBUG_VARIABLE: Final = "DEEPSCAN_DEBUG"

# Errors about a path for which the path or the disk is at fault, not this program.
OF_THE_MACHINE: Final = frozenset(
    [errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ELOOP]
)
# Typer's messages about values, and what is printed instead.
TYPERS_WORDS: Final = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "it must be a whole number",
    "Input should be a valid number, unable to parse string as a number": "it must be a number",
}


def run(arguments: Sequence[str], *, when_loaded: Callable[[], None] = lambda: None) -> int:
    """Run a command.

    Args:
        arguments: of the command line, without the program's name.
        when_loaded: is called between loading the commands and running one.

    Returns:
        The exit code.
    """
    given = list(arguments)
    options = given[: given.index("--")] if "--" in given else given
    if DEBUG_OPTION in options:  # wherever it stands
        given.remove(DEBUG_OPTION)
        os.environ[DEBUG_VARIABLE] = "1"
    prepare_streams()
    threading.excepthook = lambda failure: _say(_unexpected(failure.exc_value or failure.exc_type()))
    try:
        from deepscan.cli.app import app

        when_loaded()
        code = app(args=given, prog_name="deepscan", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        code, line = _end(error)
        if line:
            _say(line)
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exception(error)
    return _flushed(code if isinstance(code, int) else 0)


def _end(error: BaseException) -> tuple[int, str]:
    """Return the exit code for the exception that ended a command, and the line to print, which may be empty."""
    if isinstance(error, KeyboardInterrupt) or was_interrupted() or type(error).__name__ == "Abort":
        return INTERRUPTED, "Interrupted."
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return READER_LEFT, ""  # the reader has seen enough; Rich and Typer make it a SystemExit
    if isinstance(error, SystemExit):
        return (error.code, "") if isinstance(error.code, int) else (0 if error.code is None else 1, error.code or "")
    if isinstance(error.__cause__ or error, FileNotFoundError) and not _folder_exists():
        return OUTPUT_FAILED, "The working folder was deleted: change to one that exists, or give absolute paths."
    if isinstance(error, DeepscanError):
        return error.exit_code, str(error)
    if isinstance(error, StdoutError):
        return OUTPUT_FAILED, f"stdout cannot be written ({error.strerror}): send it to another place."
    if isinstance(error, OSError) and error.filename is not None and error.errno in OF_THE_MACHINE:
        path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else error.filename
        return OUTPUT_FAILED, f"{path} cannot be used ({error.strerror}): give another path, or remove the cause."
    if hasattr(error, "format_message"):  # Typer's and Click's errors, whichever of the two defines them
        return _usage(error)
    return UNEXPECTED, _unexpected(error)


def _usage(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the line for an invalid command line; without a command, the help has been printed."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return WRONG_USAGE, ""  # making the error has printed the help
    said = " ".join(str(error.format_message()).split()).rstrip(".")  # type: ignore[attr-defined]
    for words, ours in TYPERS_WORDS.items():
        said = said.replace(words, ours)
    command = context.command_path if context is not None else "deepscan"
    return getattr(error, "exit_code", WRONG_USAGE), f"{said}; see `{command} --help`."


def _unexpected(error: BaseException) -> str:
    """Return the line about an unexpected error."""
    if isinstance(error, MemoryError):
        what = "The memory is full"
    else:
        first = next(iter(str(error).strip().splitlines()), "")
        what = f"{type(error).__name__}{f': {first}' if first else ''}"
    return f"{what}: deepscan did not expect this; {DEBUG_VARIABLE}=1 shows where it comes from. Report it at {ISSUES}."


def _folder_exists() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _say(line: str) -> None:
    print(f"deepscan: {printable(line)}", file=sys.stderr)


def _flushed(code: int) -> int:
    """Flush stdout, and return the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = READER_LEFT
    except OSError:
        code = code or OUTPUT_FAILED
    silence_stdout()  # or Python fails once more when it leaves
    return code
