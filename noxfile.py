"""Recipes for developers, which `.ci/run` follows too: `nox` checks what takes a minute, `nox -s test slow` the rest.

They run in the environment that nox itself is in, which `pip install -e '.[test]'` makes. Words after `--` go to the
program: `nox -s test -- tests/runtime/faces -x`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "typecheck", "imports"]

# Two processes: each of them runs the tests of a file together, which share what they make.
PARALLEL = ("-n", "2", "--dist", "loadfile")


def program(name: str) -> str:
    """Return a program of the environment that nox is in, whether or not that is activated."""
    return str(Path(sys.executable).with_name(name))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting; `-- --fix` mends what can be mended."""
    session.run(program("ruff"), "check", ".", *session.posargs)
    session.run(program("ruff"), "format", *([] if "--fix" in session.posargs else ["--check"]), ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types."""
    session.run(program("mypy"), *session.posargs)


@nox.session
def imports(session: nox.Session) -> None:
    """Check which package imports which."""
    session.run(program("lint-imports"), *session.posargs)


@nox.session
def test(session: nox.Session) -> None:
    """Run the default tests."""
    session.run(program("python"), "-m", "pytest", *PARALLEL, *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the slow tests."""
    session.run(program("python"), "-m", "pytest", *PARALLEL, "-m", "slow", *session.posargs)
