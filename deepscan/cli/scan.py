"""`deepscan scan`: videos in, results.csv out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from deepscan import Scan
    from deepscan.runtime.journal.event_log import EventLog
    from deepscan.runtime.limits import Limits

SOME_FAILED = 1
INTERRUPTED = 130
STDIN = STDOUT = "-"
MOST_NAME_BYTES = 215  # a file system takes 255, and temporary files and locks have longer names


def scan(
    paths: Annotated[list[str] | None, typer.Argument(help="Videos, pictures, folders.", show_default=False)] = None,
    out: Annotated[str, typer.Option(help="CSV to write, with a .jsonl beside it; - for stdout.")] = "results.csv",
    model: Annotated[
        str, typer.Option(help="Detectors, with commas: names from `deepscan models`, or exported .onnx files.")
    ] = "lite",
    recursive: Annotated[bool, typer.Option(help="Descend into folders inside the given ones.")] = True,
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="In folders: only files like this.", show_default=False)
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="In folders: nothing like this.", show_default=False)
    ] = None,
    from_file: Annotated[
        str | None, typer.Option(metavar="LIST", help="File with one path a line, or NUL-separated; - for stdin.")
    ] = None,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Follow links inside folders.")] = False,
    sampling: Annotated[
        Literal["full", "quick", "paper"] | None,
        typer.Option(help="Score every frame, a part by seeking, or as the authors do.", show_default="full"),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames per video for quick and paper; alone it means quick.")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Stretches per video for quick with clip detectors; alone it means quick.")
    ] = None,
    detect_every: Annotated[int, typer.Option(min=1, help="Search every n-th frame for faces.")] = 5,
    min_face: Annotated[
        int | None, typer.Option(min=1, help="Ignore faces smaller than this, in pixels.", show_default="detector's")
    ] = None,
    mirror: Annotated[
        bool | None, typer.Option(help="Average with the mirror image, at twice the cost.", show_default="mirror")
    ] = None,
    aggregate: Annotated[
        Literal["max", "mean"] | None,
        typer.Option(help="Video score: highest track, or mean over all.", show_default="max; in paper the authors'"),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Score from which a video is called fake.", show_default="calibrated"),
    ] = None,
    face_detector: Annotated[
        Literal["yunet", "retinaface", "none"],
        typer.Option(help="What finds faces; none: every frame is the crop of a face already."),
    ] = "yunet",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Videos decoded at once.", show_default="one per processor")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:0,1 or cuda:all: where the detectors run.")
    ] = "auto",
    decoder: Annotated[
        Literal["auto", "cpu", "nvdec"], typer.Option(help="On a GPU, what decodes: each where it is faster, or one.")
    ] = "auto",
    backend: Annotated[
        Literal["auto", "onnxruntime", "openvino", "torch", "tensorrt"] | None,
        typer.Option(help="What runs the detector; auto measures once and remembers.", show_default="auto"),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "int8"],
        typer.Option(help="Of the arithmetic; auto takes the fastest that was measured to agree."),
    ] = "auto",
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds that one file may take; 0 for as long as it goes on.", show_default="a day"),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="Memory that the scanning process may take.", show_default="90 %"),
    ] = None,
    max_file_size: Annotated[
        int | None, typer.Option(min=0, metavar="MIB", help="Largest file; 0: any.", show_default="64 GiB")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=0, help="Pixels of a frame; 0: any.", show_default="134 million")
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(min=0, help="Frames looked at; 0: any number.", show_default="2.6 million")
    ] = None,
    max_duration: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Longest video; 0: any.", show_default="12 hours")
    ] = None,
    max_streams: Annotated[
        int | None, typer.Option(min=0, help="Streams of a file; 0: any number.", show_default="128")
    ] = None,
    max_faces: Annotated[
        int | None, typer.Option(min=0, help="Faces of a frame; 0: any number.", show_default="200")
    ] = None,
    max_tracks: Annotated[
        int | None, typer.Option(min=0, help="Tracks of faces in a video; 0: any number.", show_default="100,000")
    ] = None,
    on_limit: Annotated[
        Literal["skip", "truncate"],
        typer.Option(help="What is over a limit gets no score, or one of what is within it."),
    ] = "skip",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier runs with this --out found.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Scan again what could not be scanned before.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be scanned, and do nothing.")] = False,
    hashing: Annotated[
        Literal["fast", "full"],
        typer.Option("--hash", help="Know files again by head, middle and tail, or by all bytes."),
    ] = "fast",
    log: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Append what happens, one JSON object a line.", show_default=False),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Record who did what when, for ui.perfetto.dev.", show_default=False),
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show where the time went, stage by stage.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing; the exit code tells.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show each result as it comes.")] = False,
) -> None:
    """Scan videos for forged faces and write one row per video and detector.

    Exit code: 0 every input scored or without a face, 1 some could not be scanned, 2 wrong usage,
    3 detector, machine or output at fault, 130 interrupted, 141 the reader of --out - has left.
    """
    import deepscan
    from deepscan.cli.scan_display import ScanDisplay
    from deepscan.cli.scan_run import Continuing, run_to_files, run_to_stdout, say, show_plan
    from deepscan.runtime.journal.event_log import EventLog
    from deepscan.runtime.parity.conversion import silence
    from deepscan.runtime.scan import MOST_SECONDS
    from deepscan.runtime.workers.supervisor import unnoted

    _refuse_unknown_names(model)
    events = EventLog(log) if log is not None else None
    running = deepscan.scan(
        [*(paths or []), *_listed(from_file)],
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
            file_bytes=_bytes("--max-file-size", max_file_size),
            pixels=max_pixels,
            frames=max_frames,
            seconds=max_duration,
            streams=max_streams,
            faces=max_faces,
            tracks=max_tracks,
            on_limit=on_limit,
        ),
        timeout=MOST_SECONDS if timeout is None else timeout or None,
        memory=_bytes("--memory", memory),
        trace=trace,
        report=silence if quiet else say,
        note=events.write if events is not None else unnoted,
    )
    how = Continuing(hashing, fresh=fresh, retry_failed=retry_failed)
    if dry_run:
        show_plan(running, _checked_out(out), how)
        return
    display = ScanDisplay(running, quiet=quiet, verbose=verbose)
    written: Path | None = None
    with _logged(events, running):
        if out == STDOUT:
            run_to_stdout(running, display, quiet=quiet)
        else:
            written = run_to_files(running, display, _checked_out(out), how, quiet=quiet)
    display.close(stats=stats, interrupted=running.stopped, written=written)
    if running.stopped:
        raise typer.Exit(INTERRUPTED)
    if display.failed:
        raise typer.Exit(SOME_FAILED)


def _bytes(option: str, mebibytes: int | None) -> int | None:
    """Return a size in bytes."""
    from deepscan.ranges import MOST_BYTES, checked_whole

    checked_whole(option, mebibytes, least=0, most=MOST_BYTES >> 20)
    return None if mebibytes is None else mebibytes << 20


def _limits(**wished: Any) -> Limits:
    """Return the limits: the usual ones where nothing is wished for."""
    from deepscan.runtime.limits import Limits

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


def _refuse_unknown_names(model: str) -> None:
    """Tell a misspelt detector from one whose weights are missing; paths of artefacts are looked at later."""
    from deepscan.models.specs import spec_of

    for name in model.split(","):
        if name.strip() and not name.strip().endswith(".onnx"):
            spec_of(name.strip().partition("@")[0])


def _checked_out(out: str) -> Path:
    from deepscan.errors import UsageError

    if not out or out.endswith(os.sep) or out == STDOUT:
        raise UsageError(f"--out {out!r} names no file: give the path of the CSV to write.")
    if len(os.fsencode(os.path.basename(out))) > MOST_NAME_BYTES:
        raise UsageError(f"--out {out} has too long a name: give one of at most {MOST_NAME_BYTES} bytes.")
    return Path(out)


def _listed(source: str | None) -> list[str]:
    """Read the paths of --from-file."""
    from deepscan.errors import UsageError
    from deepscan.runtime.inputs import paths_from_list

    if source is None:
        return []
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"--from-file {source} cannot be read ({error.strerror}): check the path.") from error
    return paths_from_list(data)
