"""What the base install leaves out, and the sentence that says how to add it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deepscan.errors import MachineError


@contextmanager
def needing_torch(doing: str) -> Iterator[None]:
    """Around imports: a package of `deepscan[export]` that is missing becomes one sentence.

    Raises:
        MachineError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{doing} needs the package {error.name}: run `pip install 'deepscan[export]'`."
        raise MachineError(message) from error
