"""Running a scan for the command line: into files that a later run goes on with, or to stdout."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from deepscan.cli.interrupts import refuse_after_interrupt

if TYPE_CHECKING:
    from deepscan import Scan
    from deepscan.cli.scan_display import ScanDisplay
    from deepscan.runtime.media.content import PlannedContent

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Interrupts:
    """Count of the signals to end the scan."""

    count: int = 0


@contextmanager
def interruptible(stop: Callable[[], None], *, quiet: bool) -> Iterator[Interrupts]:
    """Within this, the first signal calls `stop`, and the second one raises KeyboardInterrupt.

    Args:
        stop: ends the scan when the files in flight are finished; called from a signal's handler.
        quiet: whether to print nothing.

    Raises:
        KeyboardInterrupt: there was a second signal, or one before this that went unnoticed.
    """
    interrupts = Interrupts()

    def handle(number: int, _: FrameType | None) -> None:
        interrupts.count += 1
        if interrupts.count > 1:
            raise KeyboardInterrupt
        stop()
        if not quiet:
            again = "press Ctrl-C again" if number == signal.SIGINT else "send the signal again"
            # Not through `sys.stderr`: the signal may have come in the midst of writing to that.
            line = f"deepscan: Finishing the files in flight; {again} to end at once.\n"
            with suppress(OSError):
                os.write(sys.stderr.fileno(), line.encode())

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        refuse_after_interrupt()
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


READERS = 8


@dataclass(frozen=True, slots=True)
class Continuing:
    """Which results of earlier runs with the same output are used.

    Attributes:
        hashing: how files are recognized.
        fresh: none.
        retry_failed: all but failures.
        prune: whether only results of this command's inputs and detectors are in the CSV.
    """

    hashing: Literal["fast", "full"]
    fresh: bool
    retry_failed: bool
    prune: bool = False


def run_to_files(
    running: Scan, display: ScanDisplay, out: Path, how: Continuing, *, bom: bool = False, quiet: bool
) -> Path | None:
    """Scan into a CSV and its journal; finished results are kept, whatever ends the scan.

    Args:
        running: what to scan.
        display: what shows it.
        out: path of the CSV.
        how: which results of earlier runs are used.
        bom: whether the CSV begins with a byte order mark.
        quiet: whether to print nothing.

    Returns:
        The path of the CSV, if there is any result.
    """
    from deepscan.runtime.store.outputs import refuse_other_files, writing_results
    from deepscan.runtime.store.result_files import ResultFiles

    with writing_results(out):
        refuse_other_files(out, fresh=how.fresh)  # before all inputs are looked at, which may take a while
    contents = _contents(running, how, quiet=quiet)
    running.expect(contents)
    with (
        ResultFiles(
            out,
            inputs=[planned.path for planned in running.plan.inputs],
            contents=[each.content for each in contents],
            detectors=running.detectors,
            fresh=how.fresh,
            retry_failed=how.retry_failed,
            bom=bom,
            prune=how.prune,
        ) as files,
        display,
    ):
        for note in files.notes:
            say(note, quiet=quiet)
        running.skip(files.done)
        for result in files.results_done():
            display.show(result)
            display.known += 1
        try:
            with interruptible(running.stop, quiet=quiet):
                for results in running.by_input():
                    for finished in files.add(*results):
                        display.show(finished)
                    for index in files.take_up():
                        running.unskip(index)
        except KeyboardInterrupt:
            running.stop()
        except BaseException:  # keep days of results, whatever ended the scan
            files.commit()
            raise
        return files.commit()


def show_plan(running: Scan, out: Path | None, how: Continuing) -> None:
    """Print what a scan would do with each input, and write nothing.

    Args:
        running: the scan.
        out: the CSV that it would write; None where it would print, without earlier results.
        how: which results of earlier runs are used.
    """
    from deepscan.cli.screen import printable
    from deepscan.runtime.store.journal import journal_path
    from deepscan.runtime.store.result_files import plan_without_writing, pruning_note
    from deepscan.runtime.store.resume import plan_resume
    from deepscan.wording import counted

    inputs = running.plan.inputs
    contents = [each.content for each in _contents(running, how, quiet=True)]
    others = 0
    if out is None:
        plan = plan_resume(contents, running.detectors, [])
    else:
        plan, others = plan_without_writing(
            out,
            inputs=[planned.path for planned in inputs],
            contents=contents,
            detectors=running.detectors,
            fresh=how.fresh,
            retry_failed=how.retry_failed,
        )
    originals = {copy: index for index, copies in plan.copies.items() for copy in copies}
    for index, planned in enumerate(inputs):
        what = "done" if index in plan.done else f"as {originals[index] + 1}" if index in originals else "scan"
        print(f"{index + 1}\t{what}\t{printable(planned.path)}")
    same = f"{len(originals)} with the same content as {'another' if len(originals) == 1 else 'others'}"
    counts = f"{len(plan.to_scan)} to scan, {len(plan.done)} done, {same}"
    print(f"{counted(len(inputs), 'input')}: {counts}.", file=sys.stderr)
    if out is not None and how.prune:
        for note in pruning_note(others, out, journal_path(out)):
            say(note)


def run_to_stdout(
    running: Scan, display: ScanDisplay, *, form: Literal["csv", "jsonl"] = "csv", bom: bool = False, quiet: bool
) -> None:
    """Print each row of a CSV or a JSONL as soon as the rows before it are printed."""
    from deepscan.runtime.store.writers import BOM, CSV_HEADER, OrderedLines, csv_line, jsonl_line

    head, line_of = ((BOM if bom else "") + CSV_HEADER, csv_line) if form == "csv" else ("", jsonl_line)
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")  # type: ignore[union-attr]
    with display, OrderedLines() as lines:
        sys.stdout.write(head)
        try:
            with interruptible(running.stop, quiet=quiet):
                for result in running:
                    lines.add(result.row, line_of(result.to_dict()))
                    sys.stdout.writelines(lines.ready())
                    sys.stdout.flush()
                    display.show(result)
        except KeyboardInterrupt:
            running.stop()
        if running.stopped:
            sys.stdout.writelines(lines.remaining())


def say(line: str, *, quiet: bool = False) -> None:
    """Print a line on stderr."""
    from deepscan.cli.screen import printable

    if not quiet:
        print(f"deepscan: {printable(line)}", file=sys.stderr)


class StderrLines(logging.Handler):
    """Prints what a scan logs as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        say(record.getMessage())


@contextmanager
def logging_lines(*, quiet: bool, events: logging.Handler | None) -> Iterator[None]:
    """Within this, print what is logged on stderr, unless quiet, and give every event to the log."""
    handlers: list[logging.Handler] = [] if quiet else [StderrLines(logging.INFO)]
    handlers += [events] if events is not None else []
    logger = logging.getLogger("deepscan")
    before = logger.level
    logger.setLevel(logging.INFO if events is None else logging.DEBUG)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(before)


def _contents(running: Scan, how: Continuing, *, quiet: bool) -> list[PlannedContent]:
    """Return the contents of the inputs, with a progress line, as many files take a moment."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from deepscan.runtime.media.content import planned_contents

    paths = [planned.path for planned in running.plan.inputs]
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("Looking at the files", total=len(paths))
        return planned_contents(
            paths,
            full=how.hashing == "full",
            threads=READERS,
            progress=lambda done: bar.update(task, completed=done),
        )
