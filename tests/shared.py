"""Files that the processes of a run of the tests share: what takes seconds is made by the first that needs it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

SHARED_FOLDER: Final = "DEEPSCAN_TESTS_FOLDER"  # variable with the path of the folder, which conftest.py sets


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a file of the shared folder; the others wait while one process makes it.

    Args:
        name: of the file.
        make: writes the file to a path.
    """
    path = Path(os.environ[SHARED_FOLDER]) / name
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            partial = path.with_suffix(".partial")
            make(partial)
            partial.rename(path)
    return path
