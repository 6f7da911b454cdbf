"""Interrupts: SIGINT and SIGTERM end a command, also where a library turns the error they raise into another."""

from __future__ import annotations

from types import FrameType
from typing import Final

INTERRUPTED: Final = 130  # exit code

_signals: list[int] = []


def raise_interrupt(number: int, _frame: FrameType | None) -> None:
    """Handle SIGINT and SIGTERM: end the command, and remember why, as libraries turn the error into others."""
    _signals.append(number)
    raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Tell whether a signal has come."""
    return bool(_signals)


def refuse_after_interrupt() -> None:
    """End the command if a signal has come whose KeyboardInterrupt was lost, as in a library's callback.

    Raises:
        KeyboardInterrupt: one has.
    """
    if _signals:
        raise KeyboardInterrupt
