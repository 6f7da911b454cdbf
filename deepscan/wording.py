"""Counts in sentences: 1 frame, 2 frames."""

from __future__ import annotations


def plural(number: float, noun: str, many: str = "") -> str:
    """Return the noun as it follows a number.

    Args:
        number: how many; only 1 takes the singular.
        noun: the singular.
        many: the plural, where it is not the singular with an s.
    """
    return noun if number == 1 else many or f"{noun}s"


def counted(number: float, noun: str, many: str = "") -> str:
    """Return a number with its noun: `1 frame`, `2 frames`; see `plural`."""
    return f"{number} {plural(number, noun, many)}"
