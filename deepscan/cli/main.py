"""The command `deepscan`. Before anything else is imported, Ctrl-C and SIGTERM get a handler."""

from __future__ import annotations

import os
import sys

from deepscan.cli import INTERRUPTED

try:
    import signal
except KeyboardInterrupt:
    os._exit(INTERRUPTED)

TYPE_CHECKING = False  # as type checkers see it, without the time that importing `typing` takes
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]


def main() -> None:
    """Run a command and leave with its exit code."""
    _on_signals(_leave_at_once)  # an interrupt that lands inside an import can surface as any error
    from deepscan.cli.interrupts import raise_interrupt
    from deepscan.cli.running import run
    from deepscan.naming import speak_as_command_line

    speak_as_command_line()
    code = run(sys.argv[1:], when_loaded=lambda: _on_signals(raise_interrupt))
    _on_signals(_leave_at_once)
    sys.exit(code)


def _on_signals(handler: Handler) -> None:
    """Set what SIGINT and SIGTERM do, unless the caller's shell wants them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _leave_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
