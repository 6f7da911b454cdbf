"""No file that deepscan has not written is ever replaced."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from deepscan.errors import UsageError


def refuse_other_file(path: Path, is_ours: Callable[[bytes], bool], *, advice: str) -> None:
    """Refuse to replace a file unless deepscan has written it; one that is missing or empty is no obstacle.

    Args:
        path: of the file that is to be written.
        is_ours: tells from the content of a file that is not empty.
        advice: what to do instead.

    Raises:
        UsageError: it is somebody else's, or nobody can tell.
    """
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise UsageError(f"{path} exists and cannot be read ({error.strerror}): {advice}.") from error
    if data and not is_ours(data):
        raise UsageError(f"{path} exists and was not written by deepscan: {advice}.")


def holds(marker: bytes) -> Callable[[bytes], bool]:
    """Return what recognizes files by something that they contain."""
    return partial(_holds, marker)


def json_with(names: Collection[str]) -> Callable[[bytes], bool]:
    """Return what recognizes JSON objects by their names."""
    return partial(_is_json_with, frozenset(names))


def _holds(marker: bytes, data: bytes) -> bool:
    return marker in data


def _is_json_with(names: frozenset[str], data: bytes) -> bool:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and names <= found.keys()
