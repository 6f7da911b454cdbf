"""What every process that deepscan starts has in common: it ends with its parent, and its end can be described."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import IO, Final

PR_SET_PDEATHSIG: Final = 1  # of <linux/prctl.h>
# Where the last line of what a process said is looked for.
TAIL_BYTES: Final = 4096


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent is gone, however that ended.

    Args:
        parent: number of the process that started this one.

    Raises:
        SystemExit: it is gone already.
    """
    with contextlib.suppress(OSError, AttributeError):  # other systems have no such call
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("The process that asked is gone.")


def describe_exit(code: int, said: IO[bytes]) -> str:
    """Describe an end: by the signal, or by the last line that was printed.

    Args:
        code: of the exit; negative for a signal, as `subprocess` has it.
        said: what the process has printed.
    """
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), as happens when memory runs out"
    if code < 0:
        return f"its process crashed ({signal.Signals(-code).name})"
    said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL_BYTES))
    lines = said.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"its process ended with code {code}: {last}"
