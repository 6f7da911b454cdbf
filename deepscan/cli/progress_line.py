"""One line about a running scan that fits terminals of any width."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.text import Text

from deepscan import Scan
from deepscan.wording import counted, plural

BAR_WIDTH = 30
NARROWEST_BAR = 8
SPINNER_WIDTH = 3


class ProgressLine(ProgressColumn):
    """Share, files, frames per second, faces and the time that is left, read from the running scan."""

    def __init__(self, scan: Scan, started: float, console: Console) -> None:
        super().__init__()
        self._scan = scan
        self._started = started
        self._console = console

    def render(self, task: Task) -> Text:
        """Return the line for the terminal as wide as it is now."""
        progress = self._scan.progress
        rate = progress.frames / max(time.monotonic() - self._started, 1e-3)
        remaining = task.time_remaining
        line = progress_line(
            task.completed / (task.total or 1.0),
            [
                f"{self._scan.finished}/{counted(len(self._scan.plan.inputs), 'file')}",
                per_second(rate),
                f"{_clock(remaining)} left" if remaining is not None else "",
                counted(progress.faces, "face"),
            ],
            self._console.width - SPINNER_WIDTH,
            bar="-" if self._console.options.ascii_only else "━",
        )
        return Text(line, no_wrap=True, overflow="crop")


def progress_line(share: float, parts: list[str], width: int, *, bar: str = "━") -> str:
    """Return as many parts as fit, the first ones first, and a bar where there is room for one.

    Args:
        share: how much is done, 0 to 1.
        parts: what to say, the most important first; empty ones are left out.
        width: cells that the line may take.
        bar: a character to draw the bar with.
    """
    share = min(max(share, 0.0), 1.0)
    line = f"{100 * share:3.0f} %"
    for part in parts:
        if part and len(line) + 2 + len(part) <= width:
            line = f"{line}  {part}"
    room = min(BAR_WIDTH, width - len(line) - 1)
    if room < NARROWEST_BAR:
        return line
    return f"{bar * int(share * room):<{room}} {line}"


def per_second(rate: float) -> str:
    """Write a rate of frames: whole above 10, with two digits below."""
    number = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
    return f"{number} {plural(float(number), 'frame')}/s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
