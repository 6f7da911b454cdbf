"""Runs the `deepscan` command, in this process or in one of its own, and reads back what it wrote."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepscan import naming
from deepscan.cli import interrupts, running
from tests.runtime.worker_here import workers_in_threads

DEEPSCAN = str(Path(sys.executable).with_name("deepscan"))
QUICK = ("--sampling", "quick", "--frames", "3")
# Wide, so that no line is folded, without a terminal's colors, and with stdout buffered as it is for users.
ENVIRONMENT = {"COLUMNS": "240", "TERM": "dumb", "NO_COLOR": "1", "PYTHONUNBUFFERED": ""}


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def rows(self) -> list[dict[str, str]]:
        return rows_of(self.out)


def deepscan(
    *arguments: str | Path, cwd: Path | None = None, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Ran:
    """Run `deepscan` with these arguments in this process, with streams, a folder and an environment of its own.

    This is all of the command but what `main` does with signals, and takes a hundredth of a process's time.
    """
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", line_buffering=True)
    with pytest.MonkeyPatch.context() as patch, workers_in_threads():
        for name, value in {**ENVIRONMENT, running.DEBUG_VARIABLE: "", **(env or {})}.items():
            patch.setenv(name, value)  # and what the command sets is taken back
        words = [os.fspath(argument) for argument in arguments]
        patch.setattr(sys, "argv", ["deepscan", *words])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(threading, "excepthook", threading.excepthook)
        patch.setattr(interrupts, "_signals", [])
        patch.setattr(naming, "_command_line", True)
        if cwd is not None:
            patch.chdir(cwd)
        code = running.run(words)
    return Ran(code, _written(out), _written(err).decode())


def _written(stream: io.TextIOWrapper) -> bytes:
    stream.seek(0)
    return bytes(stream.buffer.read())


def deepscan_process(
    *arguments: str | Path, cwd: Path | None = None, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Ran:
    """Run `deepscan` as a user does, in a process of its own, until it ends."""
    done = subprocess.run(
        [DEEPSCAN, *(os.fspath(argument) for argument in arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT, **(env or {})},
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr.decode())


def rows_of(data: bytes) -> list[dict[str, str]]:
    """Read a CSV; undecodable bytes become surrogate escapes, as in Python's own file names."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))


def assert_one_line(ran: Ran, code: int) -> None:
    """Check that the command failed with one line of explanation, and nothing else."""
    assert ran.code == code, ran.err
    assert ran.out == b""
    assert ran.err.startswith("deepscan: ")
    assert ran.err.count("\n") == 1
    assert ran.err.endswith(".\n")
