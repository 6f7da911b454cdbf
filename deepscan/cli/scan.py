"""`deepscan scan`: videos in, results.csv out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import typer

from deepscan.cli import scan_options as options
from deepscan.cli.running import INTERRUPTED

if TYPE_CHECKING:
    from deepscan import Scan
    from deepscan.limits import Limits
    from deepscan.runtime.store.event_log import EventLog

SOME_FAILED = 1
LABELED = 4
STDIN = STDOUT = "-"
DEFAULT_OUT = "results.csv"
MOST_NAME_BYTES = 215  # a file system takes 255, and temporary files and locks have longer names
# Labels that are found, by the one that --fail-on names.
FOUND = {"fake": ("fake",), "uncertain": ("fake", "uncertain")}
EXAMPLES = """Examples:

  deepscan scan videos --out results.csv

  deepscan scan inbox --sampling quick --fail-on fake --quiet

  find . -name '*.mp4' -print0 | deepscan scan --from-file -

  deepscan scan a.mp4 --jsonl - | jq .score"""

Printed: TypeAlias = Literal["csv", "jsonl"]


def scan(
    paths: options.Paths = None,
    out: options.Out = None,
    model: options.Model = "lite",
    sampling: options.Sampling = None,
    fail_on: options.FailOn = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    from_file: options.FromFile = None,
    recursive: options.Recursive = True,
    include: options.Include = None,
    exclude: options.Exclude = None,
    follow_links: options.FollowLinks = False,
    threshold: options.Threshold = None,
    frames: options.Frames = None,
    clips: options.Clips = None,
    aggregate: options.Aggregate = None,
    min_face: options.MinFace = None,
    face_detector: options.FaceDetector = "yunet",
    mirror: options.Mirror = None,
    jobs: options.Jobs = None,
    device: options.Device = "auto",
    decoder: options.Decoder = "auto",
    backend: options.Backend = None,
    precision: options.Precision = "auto",
    detect_every: options.DetectEvery = 5,
    memory: options.Memory = None,
    jsonl: options.Jsonl = None,
    csv_bom: options.CsvBom = False,
    stats: options.Stats = False,
    log: options.Log = None,
    trace: options.TraceFile = None,
    retry_failed: options.RetryFailed = False,
    fresh: options.Fresh = False,
    prune: options.Prune = False,
    hashing: options.Hashing = "fast",
    timeout: options.Timeout = None,
    max_duration: options.MaxDuration = None,
    max_file_size: options.MaxFileSize = None,
    max_pixels: options.MaxPixels = None,
    max_frames: options.MaxFrames = None,
    max_streams: options.MaxStreams = None,
    max_faces: options.MaxFaces = None,
    max_tracks: options.MaxTracks = None,
    on_limit: options.OnLimit = "skip",
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
    import deepscan
    from deepscan.cli.scan_display import ScanDisplay
    from deepscan.cli.scan_run import Continuing, run_to_files, run_to_stdout, say, show_plan
    from deepscan.errors import UsageError
    from deepscan.export.parity.conversion import silence
    from deepscan.options import TIMEOUT_SECONDS
    from deepscan.runtime.store.event_log import EventLog
    from deepscan.runtime.workers.supervisor import unnoted

    if STDOUT in (log, trace):
        raise UsageError("- names no file: give --log and --trace the path of one.")
    if dry_run:
        _refuse_bad_records(log, trace)
        log = trace = None
    target = _target(out, jsonl, csv_bom=csv_bom)
    if prune and not isinstance(target, Path):
        raise UsageError("--prune is about the CSV of --out FILE: on stdout there are only this scan's rows anyway.")
    given = _given(paths, from_file, quiet=quiet)
    events = EventLog(log) if log is not None else None
    running = deepscan.scan(
        given,
        allow_empty=True,
        model=model,
        recursive=recursive,
        include=include or (),
        exclude=exclude or (),
        follow_links=follow_links,
        sampling=sampling,
        frames=frames,
        clips=clips,
        detect_every=detect_every,
        min_face=min_face,
        mirror=mirror,
        aggregate=aggregate,
        threshold=threshold,
        face_detector=face_detector,
        jobs=jobs,
        device=device,
        decoder=decoder,
        backend=backend,
        precision=precision,
        limits=_limits(
            file_bytes=_bytes("--max-file-size", max_file_size, least=0),
            pixels=max_pixels,
            frames=max_frames,
            seconds=max_duration,
            streams=max_streams,
            faces=max_faces,
            tracks=max_tracks,
            on_limit=on_limit,
        ),
        timeout=TIMEOUT_SECONDS if timeout is None else timeout or None,
        memory=_bytes("--memory", memory, least=1),
        trace=trace,
        report=silence if quiet else say,
        note=events.write if events is not None else unnoted,
    )
    for warning in running.plan.warnings:
        say(warning, quiet=quiet)
    how = Continuing(hashing, fresh=fresh, retry_failed=retry_failed, prune=prune)
    if dry_run:
        show_plan(running, target if isinstance(target, Path) else None, how)
        return
    display = ScanDisplay(running, quiet=quiet, verbose=verbose)
    written: Path | None = None
    with _logged(events, running):
        if isinstance(target, Path):
            written = run_to_files(running, display, target, how, bom=csv_bom, quiet=quiet)
        else:
            run_to_stdout(running, display, form=target, bom=csv_bom, quiet=quiet)
    display.close(stats=stats, interrupted=running.stopped, written=written)
    if running.stopped:
        raise typer.Exit(INTERRUPTED)
    if any(display.labels[label] for label in FOUND.get(fail_on or "", ())):
        raise typer.Exit(LABELED)
    if display.failed:
        raise typer.Exit(SOME_FAILED)


def _refuse_bad_records(log: str | None, trace: str | None) -> None:
    """Say what is wrong with the log and the trace, which a dry run does not begin."""
    from deepscan.runtime.pipeline.trace_parts import Trace
    from deepscan.runtime.store.event_log import refuse_bad_log

    if log is not None:
        refuse_bad_log(log)
    if trace is not None:
        Trace(trace).check_only()


def _bytes(option: str, mebibytes: int | None, *, least: int) -> int | None:
    """Return a size in bytes."""
    from deepscan.arguments import MOST_BYTES, whole_number

    return None if mebibytes is None else whole_number(option, mebibytes, least=least, most=MOST_BYTES >> 20) << 20


def _limits(**wished: Any) -> Limits:
    """Return the limits: the usual ones where nothing is wished for."""
    from deepscan.limits import Limits

    return Limits(**{name: value for name, value in wished.items() if value is not None})


@contextmanager
def _logged(events: EventLog | None, running: Scan) -> Iterator[None]:
    """Write the begin and the end of a scan into its log, and say what is missing there."""
    if events is None:
        yield
        return
    from deepscan import __version__

    inputs, models = len(running.plan.inputs), running.models
    events.write("scan_started", version=__version__, device=running.device, models=models, inputs=inputs)
    try:
        yield
    finally:
        if running.stopped:
            events.write("interrupted")
        events.write("scan_finished", inputs=inputs, finished=running.finished, frames=running.progress.frames)
        events.close()
        if events.problem is not None:
            from deepscan.cli.scan_run import say

            say(events.problem)


def _target(out: str | None, jsonl: str | None, *, csv_bom: bool) -> Path | Printed:
    """Return the CSV to write, or what to print on stdout.

    Raises:
        UsageError: the options contradict each other, or name no file.
    """
    from deepscan.errors import UsageError

    if jsonl is None:
        return "csv" if out == STDOUT else _checked_out(DEFAULT_OUT if out is None else out)
    if jsonl != STDOUT:
        raise UsageError(
            f"--jsonl {jsonl!r} is not -, which prints the records: for a file, use --out FILE.csv, which writes a "
            ".jsonl beside it."
        )
    if out is not None:
        raise UsageError("--jsonl - and --out exclude each other: --out FILE.csv writes a .jsonl beside it anyway.")
    if csv_bom:
        raise UsageError("--csv-bom belongs to a CSV, and --jsonl - prints none: leave one of them out.")
    return "jsonl"


def _checked_out(out: str) -> Path:
    from deepscan.errors import UsageError

    if not out or out.endswith(os.sep):
        raise UsageError(f"--out {out!r} names no file: give the path of the CSV to write.")
    if len(os.fsencode(os.path.basename(out))) > MOST_NAME_BYTES:
        raise UsageError(f"--out {out} has too long a name: give one of at most {MOST_NAME_BYTES} bytes.")
    return Path(out)


def _given(paths: list[str] | None, from_file: str | None, *, quiet: bool) -> list[str]:
    """Return what to scan; a list may be empty, but something must be given.

    Raises:
        UsageError: nothing is given.
    """
    from deepscan.cli.scan_run import say
    from deepscan.errors import UsageError

    if not paths and from_file is None:
        raise UsageError("There is nothing to scan: give at least one video, folder or list of videos.")
    listed = _listed(from_file)
    if from_file is not None and not listed:
        say(f"{'stdin' if from_file == STDIN else from_file} lists no paths.", quiet=quiet)
    return [*(paths or []), *listed]


def _listed(source: str | None) -> list[str]:
    """Read the paths of --from-file."""
    from deepscan.errors import UsageError
    from deepscan.runtime.media.inputs import paths_from_list

    if source is None:
        return []
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"--from-file {source} cannot be read ({error.strerror}): check the path.") from error
    return paths_from_list(data)
