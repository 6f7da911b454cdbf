"""Replacing files on the disk whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def atomic_write(contents: Mapping[Path, Iterable[bytes]]) -> None:
    """Write files under other names beside them, flush them to the disk, then rename them all.

    A name that is a link stays one. If anything fails, what was there stays and nothing else is left.

    Args:
        contents: the parts of each file, by its path.

    Raises:
        OSError: a file cannot be written.
    """
    targets = {Path(os.path.realpath(path)): parts for path, parts in contents.items()}
    partials = {path: _partial_of(path) for path in targets}
    try:
        for path, parts in targets.items():
            # Made anew: whatever has this name already, a link to another file perhaps, is not written to.
            partials[path].unlink(missing_ok=True)
            with open(partials[path], "xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
        for path, partial in partials.items():
            os.replace(partial, path)
    except BaseException:
        for partial in partials.values():
            with contextlib.suppress(OSError):
                partial.unlink()
        raise
    for parent in {path.parent for path in targets}:
        flush_folder(parent)


def check_replaceable(path: Path) -> None:
    """Find out whether `atomic_write` can write this file, and not only when days of work are to be written.

    Raises:
        OSError: it cannot, as the folder cannot be written to or the name is too long.
    """
    partial = _partial_of(Path(os.path.realpath(path)))
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    partial.unlink()


def flush_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk.

    Raises:
        OSError: that fails.
    """
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def is_partial_of(path: Path, name: str) -> bool:
    """Tell whether `atomic_write` may give this name, or may have given it, to a file beside `path`."""
    start, end = f".{path.name}.", ".partial"
    return name.startswith(start) and name.endswith(end) and name[len(start) : -len(end)].isdigit()


def remove_partials(path: Path) -> None:
    """Remove what processes that were killed in `atomic_write` have left of a file that nobody else writes now."""
    real = Path(os.path.realpath(path))
    with contextlib.suppress(OSError):  # they do no harm
        for name in os.listdir(real.parent):
            if is_partial_of(real, name):
                real.with_name(name).unlink()
