"""Memory of a process and its descendants, from Linux's /proc."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def family(pid: int) -> list[int]:
    """Return a process and its descendants, as far as they are alive and have not been adopted."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent(int(entry))) is not None:
            parents.setdefault(parent, []).append(int(entry))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def resident_bytes(pid: int) -> int:
    """Return what lies in memory of a process; 0 if it has ended. What is shared with others counts."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of a process and its descendants, seconds after the first look; what they share counts for each."""

    seconds: float
    total_bytes: int
    largest_bytes: int


@contextmanager
def memory_watched(pid: int, every_seconds: float) -> Iterator[list[Sample]]:
    """Sample a process and its descendants while the context lasts.

    Yields:
        A growing list, which has at least one sample once the context is left.
    """
    samples: list[Sample] = []
    ended = threading.Event()
    started = time.monotonic()

    def watch() -> None:
        while True:
            each = [resident_bytes(member) for member in family(pid)]
            samples.append(Sample(time.monotonic() - started, sum(each), max(each)))
            if ended.wait(every_seconds):
                return

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _parent(pid: int) -> int | None:
    try:
        # Behind the name, which may hold spaces and parentheses: the state, then the parent.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return None
