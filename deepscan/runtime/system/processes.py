"""What every process that deepscan starts has in common: it ends with its parent, and takes no more than its memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import IO, Final

PR_SET_PDEATHSIG: Final = 1  # of <linux/prctl.h>
# Where the last line of what a process printed is looked for.
TAIL_BYTES: Final = 4096
MEMORY_SHARE: Final = 0.9  # of what there is
CGROUP_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent is gone, however that ended; leave if it is gone already."""
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


def usual_memory() -> int:
    """Return how many bytes a process may take where nothing else was asked for.

    That is nine tenths of the machine's memory, or of what its control group (a container, say) may take.
    """
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            there = min(there, int(text))
    return int(there * MEMORY_SHARE)


def limit_memory(size_bytes: int) -> None:
    """Let this process take no more than so many bytes for its data; what asks for more gets a MemoryError.

    RLIMIT_DATA counts what was asked for in memory that can be written to, and not, as RLIMIT_AS does, also files and
    libraries that are mapped: these may be many times as large without harm.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
