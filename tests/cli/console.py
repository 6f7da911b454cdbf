"""Runs the real `deepscan` command, as a user would, and reads back what it wrote."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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
    """Run `deepscan` with these arguments until it ends."""
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
