"""How much memory a process may take: better one file without a score than a machine that swaps itself to death."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

SHARE: Final = 0.9  # of what there is
CGROUP_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


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
    return int(there * SHARE)


def limit_memory(size_bytes: int) -> None:
    """Let this process take no more than so many bytes for its data; what asks for more gets a MemoryError.

    RLIMIT_DATA counts what was asked for in memory that can be written to, and not, as RLIMIT_AS does, also files and
    libraries that are mapped: these may be many times as large without harm.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
