"""What tests with threads need: a limit on waiting, and a look at which threads are left."""

from __future__ import annotations

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
PATIENCE_SECONDS = 60.0


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
    """Return the processes of deepscan, and zombies, that any thread of this one started and has not waited for.

    Others, such as those that torch's compiler leaves running, are not the tests' business.
    """
    threads = Path("/proc/self/task").iterdir()
    started = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return [child for child in started if _is_ours(child)]


def _is_ours(process: int) -> bool:
    """Tell whether a process is a zombie or one of deepscan's."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not command or b"deepscan." in command
