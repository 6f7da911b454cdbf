"""What numbers options and arguments may have: the API and the command line refuse the same ones, in the same words.

Larger ones would be refused anyhow, only later and with a traceback: by messages between processes (64 bits), by
FFmpeg and ONNX Runtime (often 32), or by a clock.
"""

from __future__ import annotations

from typing import Final

from deepscan.errors import UsageError

MOST_COUNT: Final = 2**31 - 1
MOST_SAMPLES: Final = 1_000_000  # frames or stretches picked out of one video: their times are kept in memory
MOST_BYTES: Final = 2**50  # a pebibyte; of pixels and of whatever else is counted in such numbers, too
MOST_SECONDS: Final = 1e9  # 31 years
MOST_THREADS: Final = 1024
MOST_SEED: Final = 2**63 - 1


def checked_whole(name: str, value: int | None, *, least: int = 1, most: int = MOST_COUNT) -> None:
    """Refuse a whole number outside its range; None, which stands for a default, passes.

    Args:
        name: of the option or argument.
        value: what was given.
        least: smallest that is allowed.
        most: largest that is allowed.

    Raises:
        UsageError: it is outside, or no whole number.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most:,}, not {_short(value)}.")


def checked_real(name: str, value: float | None, *, least: float, most: float, above: bool = False) -> None:
    """Refuse a number outside its range, and what is no number; None passes.

    Args:
        name: of the option or argument.
        value: what was given.
        least: smallest that is allowed, in the unit of the option.
        most: largest that is allowed.
        above: whether `least` itself is refused.

    Raises:
        UsageError: it is outside.
    """
    if value is None:
        return
    inside = isinstance(value, (int, float)) and least <= value <= most and not (above and value == least)
    if not inside:
        lowest = f"more than {least:g} and at most" if above else f"from {least:g} to"
        raise UsageError(f"{name} must be a number {lowest} {most:,g}, not {_short(value)}.")


def _short(value: object) -> str:
    """Return a value as text that keeps a sentence readable; Python refuses to write out numbers of 4,300 digits."""
    if isinstance(value, int) and abs(value) > 10**40:
        return "a number of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
