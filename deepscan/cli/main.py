"""The command `deepscan`. Before anything else is imported, Ctrl-C and SIGTERM get a handler."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

INTERRUPTED = 130


def main() -> None:
    """Run a command and leave with its exit code."""
    _on_signals(_leave_at_once)  # an interrupt that lands inside an import can surface as any error
    from deepscan.cli.running import raise_interrupt, run

    code = run(sys.argv[1:], when_loaded=lambda: _on_signals(raise_interrupt))
    _on_signals(signal.SIG_DFL)
    sys.exit(code)


def _on_signals(handler: Any) -> None:
    """Set what SIGINT and SIGTERM do, unless the caller's shell wants them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _leave_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
