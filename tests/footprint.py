"""Runs a command under strace and tells what it, and every process that it starts, looks up, connects to and writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

CALLS = (
    "socket,connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,"
    "symlink,symlinkat,mknod,mknodat"
)
NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
LOOK_UPS = re.compile(r"/etc/(resolv\.conf|hosts|nsswitch\.conf|host\.conf|gai\.conf)|nscd")
CREATES = re.compile(r"^(creat|mkdir|mkdirat|rename\w*|link|linkat|symlink\w*|mknod\w*)$")


@dataclass(frozen=True)
class Footprint:
    """What a command did.

    Attributes:
        code: its exit code.
        said: its stderr.
        network: calls that look up a name or use a socket.
        written: files and folders that were made or opened to be written.
        left: what is in the temporary folder after the end.
        home: the home folder, which was empty.
    """

    code: int
    said: str
    network: list[str]
    written: set[Path]
    left: list[str]
    home: Path


def footprint_of(command: list[str], folder: Path) -> Footprint:
    """Run a command in an empty home, with an empty temporary folder, in `folder / "out"`.

    Python's own compiled files do not count: they are switched off.
    """
    _skip_without_strace()
    home, temporary, out, trace = (folder / name for name in ("home", "tmp", "out", "trace"))
    for path in (home, temporary, out):
        path.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-y",
            "-s",
            "4096",
            "-o",
            str(trace),
            "-e",
            f"trace={CALLS}",
            *command,
        ],
        cwd=out,
        env={**kept, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    network, written = [], set[Path]()
    for line in trace.read_text(errors="replace").splitlines():
        call = re.match(r"\d+ +(\w+)\(", line)
        if call is None:
            continue
        if call[1] in ("socket", "connect", "sendto", "sendmsg", "sendmmsg") or LOOK_UPS.search(line):
            network.append(line)
        elif " = -1 " not in line and (CREATES.match(call[1]) or re.search(r"O_(CREAT|WRONLY|RDWR)", line)):
            written.add(_last_path(line, out))
    return Footprint(done.returncode, done.stderr, network, written, sorted(os.listdir(temporary)), home)


def _last_path(line: str, out: Path) -> Path:
    """Return the file that a call is about: of a renaming, its new name."""
    names = NAME.findall(line)
    beside = re.findall(r"<(/[^>]*)>, \"", line)  # the folder that a relative name is in
    return Path(os.path.normpath(Path(beside[-1] if beside else out, names[-1]))) if names else Path("?")


@cache
def _problem() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.strip()[:200]}"


def _skip_without_strace() -> None:
    if _problem():
        pytest.skip(_problem())
