"""Text that is safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape what could move the cursor, recolor the terminal or break the line."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )
