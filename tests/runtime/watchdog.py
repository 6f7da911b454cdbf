"""What tests with threads need: a limit on waiting, and a look at which threads are left."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")
# Far more than anything here needs, on the slowest machine: reaching it means that something hangs.
PATIENCE_SECONDS = 120.0


def within_patience(function: Callable[[], T]) -> T:
    """Call a function in another thread and return what it returns or raises; fail, showing stacks, if it hangs."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def call() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, name="watched", daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    if thread.is_alive():
        pytest.fail(f"It hangs:\n{_stacks()}")
    if raised:
        raise raised[0]
    return returned[0]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that other threads or processes bring about; fail if it never happens."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"This never happened: {what}.\n{_stacks()}")
        time.sleep(0.005)


def deepscan_threads() -> list[str]:
    """Return the names of the pipeline's threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("deepscan-")]


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )


def children() -> list[int]:
    """Return the processes that any thread of this one started since the test began, and has not waited for.

    Others, such as those that torch's compiler leaves running or unreaped, are not the test's business.
    """
    return sorted(_all_children() - started_before)


def forget_children() -> None:
    """Take the processes that exist now as those of earlier tests."""
    started_before.clear()
    started_before.update(_all_children())


def _all_children() -> set[int]:
    found: set[int] = set()
    for thread in Path("/proc/self/task").glob("*"):  # nothing on other systems than Linux
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            found.update(map(int, (thread / "children").read_text().split()))
    return found


started_before: set[int] = set()
