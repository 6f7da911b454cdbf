"""Replacing files on the disk whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def replace_files(contents: Mapping[Path, Iterable[bytes]]) -> None:
    """Write files under other names beside them, flush them to the disk, then rename them all.

    A name that is a link stays one. If anything fails, what was there stays and nothing else is left.

    Args:
        contents: the parts of each file, by its path.

    Raises:
        OSError: a file cannot be written.
    """
    targets = {Path(os.path.realpath(path)): parts for path, parts in contents.items()}
    partials = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in targets}
    try:
        for path, parts in targets.items():
            with open(partials[path], "wb") as file:
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
        folder = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
