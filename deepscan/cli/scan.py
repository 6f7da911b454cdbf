"""`deepscan scan`: videos in, results.csv out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from deepscan import Scan
    from deepscan.cli.scan_display import ScanDisplay

SOME_FAILED = 1
INTERRUPTED = 130
READER_LEFT = 141
STDIN = STDOUT = "-"


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
    from deepscan.runtime.conversion import silence

    _refuse_unknown_names(model)
    running = deepscan.scan(
        [*(paths or []), *_listed(from_file)],
        model=model,
        recursive=recursive,
        include=include or (),
        exclude=exclude or (),
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
        trace=trace,
        report=silence if quiet else _said,
    )
    display = ScanDisplay(running, quiet=quiet, verbose=verbose)
    if out == STDOUT:
        interrupted, written = _run_to_stdout(running, display), None
    else:
        interrupted, written = _run_to_files(running, display, _checked_out(out))
    display.close(stats=stats, interrupted=interrupted, written=written)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if display.failed:
        raise typer.Exit(SOME_FAILED)


def _said(line: str) -> None:
    from deepscan.cli.scan_display import printable

    print(f"deepscan: {printable(line)}", file=sys.stderr)


def _refuse_unknown_names(model: str) -> None:
    """Tell a misspelt detector from one whose weights are missing; paths of artefacts are looked at later."""
    from deepscan.models.specs import spec_of

    for name in model.split(","):
        if name.strip() and not name.strip().endswith(".onnx"):
            spec_of(name.strip().partition("@")[0])


def _checked_out(out: str) -> Path:
    from deepscan.errors import UsageError

    if not out or out.endswith(os.sep):
        raise UsageError(f"--out {out!r} names no file: give the path of the CSV to write.")
    return Path(out)


def _run_to_files(running: Scan, display: ScanDisplay, out: Path) -> tuple[bool, Path | None]:
    """Write both files at the end, or what is finished when it ends early.

    Returns:
        Whether there was an interrupt, and the path of the CSV if one was written.
    """
    from deepscan.runtime.result_files import ResultFiles

    with ResultFiles(out, inputs=[planned.path for planned in running.plan.inputs]) as files, display:
        try:
            for result in running:
                files.add(result)
                display.show(result)
        except KeyboardInterrupt:
            return True, files.commit(complete=False)
        except BaseException:  # days of results are not lost to whatever ended the scan
            files.commit(complete=False)
            raise
        return False, files.commit()


def _run_to_stdout(running: Scan, display: ScanDisplay) -> bool:
    """Print each row as soon as those before it are there; return whether there was an interrupt."""
    from deepscan.runtime.result_files import CSV_HEADER, OrderedRecords, csv_line, record_of

    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")  # type: ignore[union-attr]
    with display, OrderedRecords() as records:
        with _writing_to_stdout():
            sys.stdout.write(CSV_HEADER)
        try:
            for result in running:
                with _writing_to_stdout():
                    records.add(result.row, record_of(result))
                    sys.stdout.writelines(csv_line(record) for record in records.ready())
                    sys.stdout.flush()
                display.show(result)
        except KeyboardInterrupt:
            with _writing_to_stdout():
                sys.stdout.writelines(csv_line(record) for record in records.remaining())
                sys.stdout.flush()
            return True
    return False


@contextmanager
def _writing_to_stdout() -> Iterator[None]:
    from deepscan.errors import OutputError

    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails once more when it leaves
        if isinstance(error, BrokenPipeError):  # the reader has seen enough
            raise typer.Exit(READER_LEFT) from error
        raise OutputError(f"Results cannot be written to stdout ({error.strerror}): use --out FILE.") from error


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
