"""Running a scan for the command line: into files that a later run goes on with, or to stdout."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepscan.cli.interrupts import interruptible
from deepscan.wording import printable

if TYPE_CHECKING:
    from deepscan import Scan
    from deepscan.cli.scan_display import ScanDisplay
    from deepscan.cli.scan_options import OutputOptions
    from deepscan.runtime.media.content import PlannedContent

READERS = 8


def run_to_files(running: Scan, display: ScanDisplay, out: Path, output: OutputOptions) -> Path | None:
    """Scan into a CSV and its journal; finished results are kept, whatever ends the scan.

    Returns:
        The path of the CSV, if there is any result.
    """
    from deepscan.runtime.store.outputs import refuse_other_files, writing_results
    from deepscan.runtime.store.result_files import ResultFiles

    with writing_results(out):
        refuse_other_files(out, fresh=output.fresh)  # before all inputs are looked at, which may take a while
    contents = _contents(running, output)
    running.expect(contents)
    with (
        ResultFiles(
            out,
            inputs=[planned.path for planned in running.plan.inputs],
            contents=[each.content for each in contents],
            detectors=running.detectors,
            fused=running.fused,
            fresh=output.fresh,
            retry_failed=output.retry_failed,
            bom=output.csv_bom,
            prune=output.prune,
            per_frame=running.per_frame,
        ) as files,
        display,
    ):
        for note in files.notes:
            say(note, quiet=output.quiet)
        running.skip(files.done)
        if files.frames is not None:
            running.keep_frames(files.frames)
        for result in files.results_done():
            display.show(result)
            display.known += 1
        try:
            with interruptible(running.stop, quiet=output.quiet):
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


def show_plan(running: Scan, out: Path | None, output: OutputOptions) -> None:
    """Print what a scan would do with each input, and write nothing; `out` is None where it would print results."""
    from deepscan.runtime.store.journal import journal_path
    from deepscan.runtime.store.result_files import plan_without_writing, pruning_note
    from deepscan.runtime.store.resume import plan_resume
    from deepscan.wording import counted

    inputs = running.plan.inputs
    contents = [each.content for each in _contents(running, output)]
    others = 0
    if out is None:
        plan = plan_resume(contents, running.detectors, [])
    else:
        plan, others = plan_without_writing(
            out,
            inputs=[planned.path for planned in inputs],
            contents=contents,
            detectors=running.detectors,
            fused=running.fused,
            fresh=output.fresh,
            retry_failed=output.retry_failed,
            per_frame=running.per_frame,
        )
    originals = {copy: index for index, copies in plan.copies.items() for copy in copies}
    for index, planned in enumerate(inputs):
        what = "done" if index in plan.done else f"as {originals[index] + 1}" if index in originals else "scan"
        print(f"{index + 1}\t{what}\t{printable(planned.path)}")
    same = f"{len(originals)} with the same content as {'another' if len(originals) == 1 else 'others'}"
    counts = f"{len(plan.to_scan)} to scan, {len(plan.done)} done, {same}"
    print(f"{counted(len(inputs), 'input')}: {counts}.", file=sys.stderr)
    if out is not None and output.prune:
        for note in pruning_note(others, out, journal_path(out)):
            say(note)


def run_to_stdout(running: Scan, display: ScanDisplay, form: Literal["csv", "jsonl"], output: OutputOptions) -> None:
    """Print each row of a CSV or a JSONL as soon as the rows before it are printed."""
    from deepscan.runtime.store.writers import BOM, CSV_HEADER, OrderedLines, csv_line, jsonl_line

    head, line_of = ((BOM if output.csv_bom else "") + CSV_HEADER, csv_line) if form == "csv" else ("", jsonl_line)
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")  # type: ignore[union-attr]
    with display, OrderedLines() as lines:
        sys.stdout.write(head)
        try:
            with interruptible(running.stop, quiet=output.quiet):
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
    if not quiet:
        print(f"deepscan: {printable(line)}", file=sys.stderr)


class StderrLines(logging.Handler):
    """Prints what a scan logs as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        say(record.getMessage())


def _contents(running: Scan, output: OutputOptions) -> list[PlannedContent]:
    """Return the contents of the inputs, with a progress line, as many files take a moment."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from deepscan.runtime.media.content import planned_contents

    paths = [planned.path for planned in running.plan.inputs]
    console = Console(stderr=True)
    hidden = output.quiet or output.dry_run or not console.is_terminal
    columns = (TextColumn("{task.description}"), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("Looking at the files", total=len(paths))
        return planned_contents(
            paths,
            full=output.hash == "full",
            threads=READERS,
            progress=lambda done: bar.update(task, completed=done),
        )
