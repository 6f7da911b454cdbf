"""`deepscan scan`: videos in, results.csv out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from msgspec import structs

from deepscan.cli import INTERRUPTED, STDOUT
from deepscan.cli.completion import complete_models
from deepscan.cli.options import options_from, takes_options, toml_of
from deepscan.cli.scan_options import DEFAULT_OUT, OutputOptions
from deepscan.errors import UsageError
from deepscan.limits import Limits
from deepscan.options import ScanOptions

if TYPE_CHECKING:
    from deepscan import Scan
    from deepscan.runtime.store.event_log import EventLog

SOME_FAILED = 1
LABELED = 4
STDIN = "-"
MOST_NAME_BYTES = 215  # a file system takes 255, and temporary files have longer names
# Labels that are found, by the one that --fail-on names.
FOUND = {"fake": ("fake",), "uncertain": ("fake", "uncertain")}
EXAMPLES = """Examples:

  deepscan scan videos --out results.csv

  deepscan scan inbox --sampling quick --fail-on fake --quiet

  find . -name '*.mp4' -print0 | deepscan scan --from-file -

  deepscan scan a.mp4 --jsonl - | jq .score"""

Printed: TypeAlias = Literal["csv", "jsonl"]


@takes_options(
    OutputOptions,
    ScanOptions,
    Limits,
    first=("out", "model", "sampling", "fail-on"),
    complete={"model": complete_models},
)
def scan(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH...", help="Videos, pictures and folders to scan.")
    ] = None,
    **given: Any,
) -> None:
    """Scan videos for forged faces and write one row per video and detector.

    Run the same command again to resume an interrupted scan.

    Exit codes (if several apply, the first of 130, 3, 4 and 1):

    0 every input was scored, or has no face, or only faces smaller than --min-face,
    1 some inputs could not be scanned,
    2 wrong usage,
    3 a problem with the detector, the machine or the output,
    4 a result has the label that --fail-on names,
    70 an unexpected error: please report it,
    130 interrupted,
    141 the reader of stdout is gone.
    """
    output, options, limits = options_from(given, OutputOptions, ScanOptions, Limits)
    options = structs.replace(options, limits=limits).with_environment()
    if output.show_config:
        print(toml_of(output, options, limits), end="")
        return
    _scan(paths, options, output)


def _scan(paths: list[str] | None, options: ScanOptions, output: OutputOptions) -> None:
    import deepscan
    from deepscan.cli.scan_display import ScanDisplay
    from deepscan.cli.scan_run import StderrLines, run_to_files, run_to_stdout, say, show_plan
    from deepscan.cli.screen import handling_logs
    from deepscan.runtime.pipeline.trace import HEAD
    from deepscan.runtime.store.event_log import START, EventLog
    from deepscan.runtime.system.files import refuse_unwritable

    quiet = output.quiet
    if STDOUT in (output.log, options.trace, options.per_frame):
        raise UsageError("--log, --trace and --per-frame cannot write to stdout: give the path of a file instead of -.")
    if output.log is not None:
        refuse_unwritable(output.log, begins=START, kind="log")
    if output.dry_run and options.trace is not None:
        refuse_unwritable(options.trace, begins=HEAD, kind="trace")
        options = structs.replace(options, trace=None)
    target = _target(output)
    if output.prune and not isinstance(target, Path):
        raise UsageError("--prune applies to the CSV of --out FILE: stdout has only this scan's rows anyway.")
    if options.per_frame is not None:
        refuse_same_output(options.per_frame, target, output.log, options.trace)
    given = _given(paths, output.from_file, quiet=quiet)
    running = deepscan.scan(given, options, allow_empty=True)
    for warning in running.plan.warnings:
        say(warning, quiet=quiet)
    if output.dry_run:
        show_plan(running, target if isinstance(target, Path) else None, output)
        return
    events = EventLog(output.log) if output.log is not None else None
    display = ScanDisplay(running, quiet=quiet, verbose=output.verbose)
    written: Path | None = None
    handlers = [*([] if quiet else [StderrLines(logging.INFO)]), *([] if events is None else [events])]
    level = logging.INFO if events is None else logging.DEBUG
    with handling_logs(level, *handlers), _logged(events, running):
        if isinstance(target, Path):
            written = run_to_files(running, display, target, output)
        else:
            run_to_stdout(running, display, target, output)
    display.close(stats=output.stats, interrupted=running.stopped, written=written)
    if running.stopped:
        raise typer.Exit(INTERRUPTED)
    if any(display.labels[label] for label in FOUND.get(output.fail_on or "", ())):
        raise typer.Exit(LABELED)
    if display.failed:
        raise typer.Exit(SOME_FAILED)


@contextmanager
def _logged(events: EventLog | None, running: Scan) -> Iterator[None]:
    """Log the start and the end of a scan, and print what is missing in the log."""
    if events is None:
        yield
        return
    from deepscan.version import __version__

    log = logging.getLogger(__name__)
    inputs, models = len(running.plan.inputs), running.models
    started = {"event": "scan_started", "version": __version__, "device": running.device, "models": models}
    log.debug("The scan starts.", extra={"event": started | {"inputs": inputs}})
    try:
        yield
    finally:
        if running.stopped:
            log.debug("The scan was interrupted.", extra={"event": {"event": "interrupted"}})
        counts = {"inputs": inputs, "finished": running.finished, "frames": running.progress.frames}
        log.debug("The scan ends.", extra={"event": {"event": "scan_finished"} | counts})
        events.close()
        if events.problem is not None:
            from deepscan.cli.scan_run import say

            say(events.problem)


def _target(output: OutputOptions) -> Path | Printed:
    """Return the CSV to write, or what to print on stdout."""
    out, jsonl = output.out, output.jsonl
    if jsonl is None:
        return "csv" if out == STDOUT else checked_out(DEFAULT_OUT if out is None else out, bom=output.csv_bom)
    if jsonl != STDOUT:
        raise UsageError(
            f"--jsonl {jsonl!r} is not -, which prints the records: for a file, use --out FILE.csv, which writes a "
            ".jsonl beside it."
        )
    if out is not None:
        raise UsageError("--jsonl - and --out exclude each other: --out FILE.csv writes a .jsonl beside it anyway.")
    if output.csv_bom:
        raise UsageError("--csv-bom applies to a CSV, and --jsonl - prints none: leave one of them out.")
    return "jsonl"


def checked_out(out: str, *, bom: bool) -> Path:
    """Return the path of the results; refuse one that names no file, or belongs to no format."""
    from deepscan.runtime.store.writers import writer_for

    if not out or out.endswith(os.sep):
        raise UsageError(f"--out {out!r} names no file: give the path of the CSV to write.")
    if len(os.fsencode(os.path.basename(out))) > MOST_NAME_BYTES:
        raise UsageError(f"--out {out} has too long a name: give one of at most {MOST_NAME_BYTES} bytes.")
    writer_for(Path(out), bom=bom)
    return Path(out)


def refuse_same_output(per_frame: str, target: Path | Printed, *others: str | None) -> None:
    """Refuse a per-frame file that is one of the other files of a scan."""
    from deepscan.runtime.store.journal import journal_path

    outputs = [str(target), str(journal_path(target))] if isinstance(target, Path) else []
    if os.path.realpath(per_frame) in {os.path.realpath(each) for each in (*outputs, *filter(None, others))}:
        raise UsageError(f"--per-frame {per_frame} names a file that this scan writes already: choose another.")


def _given(paths: list[str] | None, from_file: str | None, *, quiet: bool) -> list[str]:
    """Return what to scan; a list may be empty, but something must be given."""
    from deepscan.cli.scan_run import say
    from deepscan.runtime.media.inputs import paths_from_list

    if from_file is None:
        if not paths:
            raise UsageError("There is nothing to scan: give at least one video, folder or list of videos.")
        return paths
    try:
        data = sys.stdin.buffer.read() if from_file == STDIN else Path(from_file).read_bytes()
    except OSError as error:
        raise UsageError(f"--from-file {from_file} cannot be read ({error.strerror}): check the path.") from error
    listed = paths_from_list(data)
    if not listed:
        say(f"{'stdin' if from_file == STDIN else from_file} lists no paths.", quiet=quiet)
    return [*(paths or []), *listed]
