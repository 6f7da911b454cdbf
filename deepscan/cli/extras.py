"""What the base install leaves out, and the sentence that says how to add it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from deepscan.errors import MachineError
from deepscan.installing import install_extra


@contextmanager
def needing_torch(doing: str) -> Iterator[None]:
    """Around imports: a package of the extra `export` that is missing becomes one sentence.

    Raises:
        MachineError: a package is missing, or the working folder.
    """
    try:
        os.getcwd()
    except OSError as error:  # torch's libraries would end the process
        raise MachineError(f"{doing} needs a working folder, and this one was deleted: change to another.") from error
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{doing} needs the package {error.name}: run `{install_extra('export')}`."
        raise MachineError(message) from error
