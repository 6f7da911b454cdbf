"""Text on the screen: printable signs, labels and their thresholds, and what is being done beside a spinner."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status


def printable(text: str) -> str:
    """Escape what could move the cursor, recolor the terminal or break the line."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )


STYLES: dict[str, str] = {"fake": "bold red", "uncertain": "yellow", "real": "green"}


def thresholds_in_words(real_below: float, fake_from: float) -> str:
    """Say which scores mean what: `real below 0.5, fake from 0.85, uncertain between`."""
    between = ", uncertain between" if real_below < fake_from else ""
    return f"real below {_digits(real_below)}, fake from {_digits(fake_from)}{between}"


def legend(thresholds: Iterable[tuple[str, float | None, float | None]]) -> Iterator[str]:
    """Yield one line for each detector and each pair of thresholds.

    Args:
        thresholds: name of the detector, `real` below, `fake` from; None where a record does not hold them.
    """
    for model, real_below, fake_from in dict.fromkeys(thresholds):
        if real_below is None or fake_from is None:
            name = model.partition("@")[0].partition(" ")[0]
            yield f"{model}: the thresholds of older results were not recorded, see `deepscan models {name}`."
        else:
            yield f"{model}: {thresholds_in_words(real_below, fake_from)}."


def statuses_in_words(statuses: Mapping[str, int], labels: Mapping[str, int]) -> str:
    """Return how many results have each status, and of the scored ones each label."""
    of_scored = f" ({', '.join(f'{labels.get(label, 0)} {label}' for label in STYLES)})"
    return ", ".join(
        f"{count} {status}{of_scored if status == 'scored' else ''}" for status, count in sorted(statuses.items())
    )


def stretch(start_seconds: float, end_seconds: float, digits: int) -> str:
    """Write a stretch of time as `2-3 s`, or as `2 s` where start and end are equal when rounded."""
    start, end = f"{start_seconds:.{digits}f}", f"{end_seconds:.{digits}f}"
    return f"{start} s" if start == end else f"{start}-{end} s"


def _digits(threshold: float) -> str:
    """Write a threshold in full where it is short, and with six digits where it is not."""
    return f"{threshold:g}"


def shown(status: Status, subject: object) -> Callable[[str], None]:
    """Return a function that shows a line about `subject`."""
    from rich.markup import escape

    return lambda line: status.update(escape(printable(f"{subject}: {line} ...")))


@contextmanager
def log_shown(status: Status, subject: object) -> Iterator[None]:
    """Show what deepscan logs as the current step of `subject`."""
    handler = logging.Handler(logging.INFO)
    show = shown(status, subject)
    handler.emit = lambda record: show(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("deepscan")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
