"""What is being done now, beside a spinner."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deepscan.cli.printable import printable

if TYPE_CHECKING:
    from rich.status import Status


def shown(status: Status, subject: object) -> Callable[[str], None]:
    """Return what takes a line about `subject` and shows it."""
    from rich.markup import escape

    return lambda line: status.update(escape(printable(f"{subject}: {line} ...")))
