"""Interrupts: SIGINT and SIGTERM end a command, also where a library turns the error they raise into another."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_signals: list[int] = []


def raise_interrupt(number: int, _frame: FrameType | None) -> None:
    """Handle SIGINT and SIGTERM: end the command, and remember why, as libraries turn the error into others."""
    _signals.append(number)
    raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Tell whether a signal has come."""
    return bool(_signals)


@contextmanager
def interruptible(stop: Callable[[], None], *, quiet: bool) -> Iterator[None]:
    """Within this, the first signal calls `stop`, and the second one raises KeyboardInterrupt.

    Args:
        stop: ends the scan when the files in flight are finished; called from a signal's handler.
        quiet: whether to print nothing.

    Raises:
        KeyboardInterrupt: there was a second signal, or one before this that went unnoticed.
    """
    count = 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        stop()
        if not quiet:
            again = "press Ctrl-C again" if number == signal.SIGINT else "send the signal again"
            # Not through `sys.stderr`: the signal may have come in the midst of writing to that.
            line = f"deepscan: Finishing the files in flight; {again} to end at once.\n"
            with suppress(OSError):
                os.write(sys.stderr.fileno(), line.encode())

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        if _signals:  # its KeyboardInterrupt was lost, as in a callback of a library
            raise KeyboardInterrupt
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
