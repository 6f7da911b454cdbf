"""`deepscan evaluate`: how often detectors are wrong on labeled videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from msgspec import structs

from deepscan.arguments import MOST_COUNT, Option, detectors, path, texts
from deepscan.cli import INTERRUPTED, STDOUT
from deepscan.cli.completion import complete_models
from deepscan.cli.options import Labels, options_from, takes_options
from deepscan.cli.scan import SOME_FAILED, checked_out, refuse_same_output
from deepscan.cli.scan_options import DEFAULT_OUT, OutputOptions
from deepscan.errors import MachineError, UsageError
from deepscan.limits import Limits
from deepscan.options import ScanOptions

if TYPE_CHECKING:
    from deepscan.evaluation.figures import Evaluation
    from deepscan.evaluation.labels import LabelMatch
    from deepscan.evaluation.truth import Truth
    from deepscan.results import VideoResult

OUTPUT: Final = "Output"
MOST_RESAMPLES: Final = 100_000
EXAMPLES = """Examples:

  deepscan evaluate results.jsonl --labels truth.csv

  deepscan evaluate --real originals --fake swaps --model lite --frames 16

  deepscan evaluate FaceForensics --split test --by method --html evaluation.html"""


class EvaluateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `deepscan evaluate`; the `help` of each field says what it means."""

    labels: Labels = None
    real: Annotated[
        Sequence[str], Option("Folder of genuine videos. May be repeated.", metavar="DIR", check=texts)
    ] = ()
    fake: Annotated[
        Sequence[str],
        Option("Folder of forged videos; folders in it are methods. May be repeated.", metavar="DIR", check=texts),
    ] = ()
    split: Annotated[str | None, Option("Only videos of this split, such as test.", metavar="NAME")] = None
    by: Annotated[
        Sequence[str] | None,
        Option(
            "What to divide the videos by: dataset, method, codec, resolution, face_size, duration, bitrate, quality.",
            metavar="NAME,...",
            shown_default="all of them",
            check=detectors,
        ),
    ] = None
    worst: Annotated[int, Option("Number of the worst errors to list, each way.", metavar="N", bounds={"least": 0})] = (
        20
    )
    out: Annotated[
        str | None,
        Option("CSV for the results of the scan, with a .jsonl beside it.", OUTPUT, "FILE", DEFAULT_OUT),
    ] = None
    json: Annotated[str | None, Option("File for all figures as JSON; - prints them.", OUTPUT, "FILE", check=path)] = (
        None
    )
    csv: Annotated[
        str | None, Option("File for all figures, one per row; - prints them.", OUTPUT, "FILE", check=path)
    ] = None
    plots: Annotated[str | None, Option("Folder for plots, as SVG.", OUTPUT, "DIR", check=path)] = None
    html: Annotated[
        str | None, Option("File for one HTML page with all figures and plots.", OUTPUT, "FILE", check=path)
    ] = None
    resamples: Annotated[
        int, Option("Number of resamples for the intervals.", OUTPUT, "N", bounds={"least": 2, "most": MOST_RESAMPLES})
    ] = 2000
    seed: Annotated[int, Option("Seed of the resamples.", OUTPUT, "N", bounds={"least": 0, "most": MOST_COUNT})] = 0
    quiet: Annotated[bool, Option("Print no progress while scanning.", short="-q")] = False


@takes_options(
    EvaluateOptions,
    ScanOptions,
    Limits,
    first=("labels", "real", "fake", "split", "by", "worst", "model", "sampling"),
    complete={"model": complete_models},
)
def evaluate(
    results: Annotated[
        str | None,
        typer.Argument(
            metavar="RESULTS",
            help="The .jsonl that `deepscan scan` wrote, the .csv beside it, or a folder of videos to scan first.",
            show_default=False,
        ),
    ] = None,
    **given: Any,
) -> None:
    """Say how often detectors are wrong on labeled videos, with 95 % intervals.

    Without RESULTS, the labeled videos are scanned first, with the options of `deepscan scan`; the same command resumes
    an interrupted scan. A folder with the layout of FaceForensics++, Celeb-DF or DFDC, or with real/ and fake/METHOD/,
    is scanned and brings its own labels.

    Exit codes:

    0 the figures were computed,
    1 they were, but some videos could not be scanned,
    2 wrong usage,
    3 a problem with the detector, the machine or the output,
    130 interrupted.
    """
    options, scanning, limits = options_from(given, EvaluateOptions, ScanOptions, Limits)
    scanning = structs.replace(scanning, limits=limits)
    _refuse_bad_outputs(options)
    code = _evaluate(results, options, scanning)
    if code:
        raise typer.Exit(code)


def _evaluate(results: str | None, options: EvaluateOptions, scanning: ScanOptions) -> int:
    """Evaluate, and return the exit code."""
    from rich.console import Console

    from deepscan.cli.evaluate_display import show_evaluation
    from deepscan.cli.streams import write_to
    from deepscan.evaluation.evaluate import evaluate_labeled
    from deepscan.evaluation.factors import NAMES, check_factors
    from deepscan.evaluation.figure_rows import figures_csv
    from deepscan.evaluation.labels import labeled_results

    by = check_factors("--by", NAMES if options.by is None else options.by)
    truth, rows, failed = _truth_and_results(results, options, scanning)
    with Console(stderr=True, quiet=options.quiet).status("Computing the intervals ..."):
        match = labeled_results(rows, truth, split=options.split)
        found = evaluate_labeled(
            match,
            by=by,
            frames=scanning.per_frame,
            worst=options.worst,
            resamples=options.resamples,
            seed=options.seed,
        )
    show_evaluation(found, match, Console(stderr=STDOUT in (options.json, options.csv)))
    if options.json is not None:
        write_to(options.json, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n", "--json FILE")
    if options.csv is not None:
        write_to(options.csv, figures_csv(found), "--csv FILE")
    if options.plots is not None or options.html is not None:
        _draw(found, match, options)
    return SOME_FAILED if failed else 0


def _draw(found: Evaluation, match: LabelMatch, options: EvaluateOptions) -> None:
    """Write the plots and the page."""
    from deepscan.evaluation.page import write_page
    from deepscan.evaluation.plots import draw_plots, write_plots

    drawn = draw_plots(found, match.labeled)
    if options.plots is not None:
        write_plots(found, match.labeled, options.plots, drawn=drawn)
    if options.html is not None:
        write_page(found, match.labeled, options.html, drawn=drawn)


def _truth_and_results(
    results: str | None, options: EvaluateOptions, scanning: ScanOptions
) -> tuple[Truth, str | list[VideoResult], int]:
    """Return the labels, the results or the file with them, and how many results have failed in a scan."""
    from deepscan.evaluation.labels import read_truth, refuse_same_file
    from deepscan.evaluation.layouts import truth_from_folders

    in_folder = results is not None and os.path.isdir(results)
    if options.labels is not None and (options.real or options.fake):
        raise UsageError("--labels excludes --real and --fake: give the labels in one way.")
    if options.labels is not None:
        if results is not None:
            refuse_same_file(results, options.labels)
        truth = read_truth(options.labels)
    elif options.real or options.fake:
        truth = truth_from_folders(options.real, options.fake)
    elif in_folder:
        truth = read_truth(str(results))
    elif results is not None:
        raise UsageError(f"Labels for {results} are missing: give them with --labels, or with --real and --fake.")
    else:
        raise UsageError("There is nothing to evaluate: give results of a scan with --labels, or --real and --fake.")
    if results is None or in_folder:
        videos = [str(results)] if in_folder and options.labels else _videos_of(truth, options.split)
        return truth, *_scanned(videos, options, scanning)
    if structs.replace(scanning, per_frame=None) != ScanOptions() or options.out is not None:
        raise UsageError(
            f"Options of a scan do not apply to {results}, which is scanned already: leave {results} or them out."
        )
    return truth, results, 0


def _videos_of(truth: Truth, split: str | None) -> list[str]:
    """Return the paths of the labeled videos that are there."""
    found = []
    for row in truth.rows:
        if split is None or row.split == split:
            places = (os.path.join(truth.folder, row.path), row.path)
            found += [place for place in places if os.path.exists(place)][:1]
    if not found:
        of_split = f" of the split {split}" if split is not None else ""
        raise UsageError(f"None of the videos{of_split} of {truth.source} is there: give the results of a scan.")
    return found


def _scanned(videos: list[str], options: EvaluateOptions, scanning: ScanOptions) -> tuple[list[VideoResult], int]:
    """Scan videos into --out, and return their results there with the number of those that have failed."""
    import logging

    import deepscan
    from deepscan.cli.scan_display import ScanDisplay
    from deepscan.cli.scan_run import StderrLines, run_to_files, say
    from deepscan.cli.screen import handling_logs
    from deepscan.runtime.store.stored_results import jsonl_path, stored_results

    out = checked_out(options.out or DEFAULT_OUT, bom=False)
    if scanning.per_frame is not None:
        refuse_same_output(scanning.per_frame, out)
    running = deepscan.scan(videos, scanning.with_environment())
    for warning in running.plan.warnings:
        say(warning, quiet=options.quiet)
    display = ScanDisplay(running, quiet=options.quiet, verbose=False)
    with handling_logs(logging.INFO, *([] if options.quiet else [StderrLines(logging.INFO)])):
        run_to_files(running, display, out, OutputOptions(out=str(out), quiet=options.quiet))
    if running.stopped:
        say("Interrupted: the same command goes on from there.", quiet=options.quiet)
        raise typer.Exit(INTERRUPTED)
    say(f"The results of the scan are in {out}.", quiet=options.quiet)
    inputs = {planned.path for planned in running.plan.inputs}
    rows = [
        row
        for row, _ in stored_results(jsonl_path(str(out))).rows
        if row.path in inputs and row.model in running.models
    ]
    return rows, display.failed


def _refuse_bad_outputs(options: EvaluateOptions) -> None:
    """Refuse outputs that cannot be written, or would replace something else, before anything is computed."""
    from importlib.util import find_spec

    from deepscan.cli.streams import refuse_output
    from deepscan.evaluation.figure_rows import COLUMNS
    from deepscan.evaluation.page import MARK
    from deepscan.evaluation.plots import refuse_other_plots
    from deepscan.installing import install_extra
    from deepscan.runtime.system.files import holds, json_with

    if options.json == options.csv == STDOUT:
        raise UsageError("--json - and --csv - exclude each other: print one of them.")
    if options.json is not None:
        refuse_output(options.json, json_with(("labels", "detectors", "resamples")), "--json")
    if options.csv is not None:
        refuse_output(options.csv, holds(",".join(COLUMNS).encode()), "--csv")
    if options.html is not None:
        refuse_output(options.html, holds(f'content="{MARK}"'.encode()), "--html")
    if options.plots is not None:
        refuse_other_plots(Path(options.plots))
    for option, given, packages in (
        ("--plots", options.plots, ["matplotlib"]),
        ("--html", options.html, ["matplotlib", "jinja2"]),
    ):
        missing = [name for name in packages if given is not None and find_spec(name) is None]
        if missing:
            raise MachineError(f"{option} needs the package {missing[0]}: run `{install_extra('evaluate')}`.")
