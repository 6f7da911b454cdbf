"""Counts in sentences, 1 frame and 2 frames, and names of files that are safe to show."""

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


def printable(text: str) -> str:
    """Escape what could move the cursor, recolor the terminal break the line or reorder it."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )
