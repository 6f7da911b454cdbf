"""What Ctrl-C and SIGTERM do to a scan: once, it finishes what it has begun; twice, it ends at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from deepscan.cli.running import refuse_after_interrupt

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Interrupts:
    """How often somebody wanted the scan to end."""

    count: int = 0


@contextmanager
def interruptible(stop: Callable[[], None], *, quiet: bool) -> Iterator[Interrupts]:
    """Within this, a first signal calls `stop`, and a second one raises KeyboardInterrupt.

    Args:
        stop: makes the scan end when the files in flight are finished; is called from a signal's handler.
        quiet: say nothing.

    Raises:
        KeyboardInterrupt: there was a second signal, or one before this that went unnoticed.
    """
    interrupts = Interrupts()

    def handle(number: int, _: FrameType | None) -> None:
        interrupts.count += 1
        if interrupts.count > 1:
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
        refuse_after_interrupt()
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
