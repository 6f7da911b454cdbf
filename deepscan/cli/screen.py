"""Text on the screen: printable signs, labels and their thresholds, and what is being done beside a spinner."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deepscan.wording import printable

if TYPE_CHECKING:
    from rich.status import Status

    from deepscan.results import VideoResult


STYLES: dict[str, str] = {"fake": "bold red", "uncertain": "yellow", "real": "green"}


def thresholds_in_words(real_below: float, fake_from: float) -> str:
    """Say which scores mean what: `real below 0.5, fake from 0.85, uncertain between`."""
    between = ", uncertain between" if real_below < fake_from else ""
    return f"real below {real_below:g}, fake from {fake_from:g}{between}"


def legend(results: Iterable[VideoResult]) -> Iterator[str]:
    """Yield one line for each detector and each pair of thresholds of labeled results."""
    for model, real_below, fake_from in dict.fromkeys((row.model, row.real_below, row.fake_from) for row in results):
        if real_below is not None and fake_from is not None:
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


@contextmanager
def handling_logs(level: int, *handlers: logging.Handler) -> Iterator[None]:
    """Within this, give the records of deepscan's loggers from a level on to handlers."""
    logger = logging.getLogger("deepscan")
    before = logger.level
    logger.setLevel(level)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def log_shown(status: Status, subject: object) -> Iterator[None]:
    """Show what deepscan logs as the current step of `subject`."""
    from rich.markup import escape

    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: status.update(  # type: ignore[method-assign]
        escape(printable(f"{subject}: {record.getMessage()} ..."))
    )
    with handling_logs(logging.INFO, handler):
        yield
