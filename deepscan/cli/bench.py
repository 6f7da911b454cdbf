"""`deepscan bench`: speed and memory of detectors on this machine, for each backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from deepscan.arguments import (
    MOST_SECONDS,
    MOST_THREADS,
    Option,
    detectors,
    path,
    text,
    whole_number,
)
from deepscan.cli import INTERRUPTED, STDOUT
from deepscan.cli.completion import complete_models
from deepscan.cli.options import options_from, takes_options
from deepscan.cli.streams import refuse_output, write_to
from deepscan.errors import MachineError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.export.bench.bench_records import BenchReport, BenchSettings
    from deepscan.export.bench.benching import Subject

SOME_FAILED = 1
MEASURING = "Measuring"
RESULTS = "Results"
EXAMPLES = """Examples:

  deepscan bench lite

  deepscan bench lite,ftcn --backend onnxruntime --batch 1,8 --json bench.json"""
PLOTS = (".png", ".svg")
# By these the files that it writes are known again, so that no others are replaced.
REPORT_NAMES = ("schema", "machine", "setup", "measurements")


def batch_sizes(option: str, value: object) -> tuple[int, ...]:
    """Return the sizes in a text such as 1,2,4, in ascending order."""
    try:
        sizes = {int(part) for part in text(option, value).split(",")}
    except ValueError as error:
        raise UsageError(f"{option} {value!r} is not a list of sizes: write whole numbers, as in 1,2,4.") from error
    return tuple(sorted(whole_number(option, size) for size in sizes))


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `deepscan bench`; the `help` of each field says what it means."""

    backend: Annotated[
        str,
        Option("Backend: onnxruntime, openvino, torch, tensorrt, ort-tensorrt, a plugin's, or all.", metavar="NAME"),
    ] = "all"
    precision: Annotated[
        Literal["all", "fp32", "bf16", "fp16", "int8"],
        Option("Precision of the arithmetic: fp32, bf16, fp16, int8 or all.", metavar="TYPE"),
    ] = "all"
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("Device: auto, cpu or cuda.", metavar="DEVICE")] = "auto"
    batch: Annotated[
        Sequence[int] | None,
        Option(
            "Batch sizes to measure.",
            MEASURING,
            "1,2,4",
            "powers of two up to the backend's largest",
            check=batch_sizes,
        ),
    ] = None
    seconds: Annotated[
        float,
        Option(
            "Approximate time to measure each batch size.",
            MEASURING,
            "S",
            bounds={"least": 0.001, "most": MOST_SECONDS},
        ),
    ] = 3.0
    threads: Annotated[
        int | None,
        Option("Threads of a backend on the CPU.", MEASURING, "N", "one per processor", bounds={"most": MOST_THREADS}),
    ] = None
    save: Annotated[
        bool, Option("Save the fastest accurate backend and precision for scans with --backend auto.", RESULTS)
    ] = False
    json: Annotated[str | None, Option("File for all figures as JSON; - prints them.", RESULTS, "FILE", check=path)] = (
        None
    )
    plot: Annotated[str | None, Option("File for a plot: .png or .svg.", RESULTS, "FILE", check=path)] = None


@takes_options(BenchOptions)
def bench(
    detector: Annotated[
        str,
        typer.Argument(
            metavar="NAME,...",
            help="Detectors, separated by commas: names from `deepscan models`, or exported .onnx files.",
            autocompletion=complete_models,
        ),
    ],
    **given: Any,
) -> None:
    """Measure latency, throughput and memory of detectors on real crops: per backend, precision and batch size.

    Each backend and precision runs in a process of its own.

    Exit codes:

    0 everything was measured,
    1 some of it failed,
    2 wrong usage,
    3 nothing could be measured, or the output cannot be written,
    130 interrupted.
    """
    from rich.console import Console

    (options,) = options_from(given, BenchOptions)
    json, plot = options.json, None if options.plot is None else Path(options.plot)
    _refuse_bad_outputs(json, plot)
    subjects, setup = _resolved(detector, options)
    from deepscan.cli.bench_display import show_report
    from deepscan.runtime.system.library_files import matplotlib_files_removed

    report = _run(subjects, setup, Console(stderr=True))
    show_report(report, Console(stderr=json == STDOUT))
    if json is not None:
        write_to(json, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n", "--json FILE")
    if plot is not None and report.measurements:
        with matplotlib_files_removed():
            from deepscan.cli.bench_plot import write_plot

            write_plot(report, plot)
    if not report.complete:
        raise typer.Exit(INTERRUPTED)
    if options.save:
        _save(report, Console(stderr=json == STDOUT))
    if report.failures:
        worst = max(failure.exit_code for failure in report.failures)
        raise typer.Exit(SOME_FAILED if report.measurements else worst)


def _resolved(detector: str, options: BenchOptions) -> tuple[list[Subject], BenchSettings]:
    from deepscan.export.bench.bench_records import BenchSettings
    from deepscan.export.bench.benching import subjects_of
    from deepscan.models.registry import find_detector
    from deepscan.runtime.backends.devices import resolve_device
    from deepscan.runtime.system.machine import cpu_count

    models = detectors("NAME", detector)
    for name in models:
        if name and not name.endswith(".onnx"):
            find_detector(name.partition("@")[0])  # tells a misspelt detector from one whose weights are missing
    setup = BenchSettings(
        device=resolve_device(options.device),
        threads=options.threads or cpu_count(),
        batches=None if options.batch is None else tuple(options.batch),
        seconds=options.seconds,
    )
    return subjects_of(models, setup, backend=options.backend, precision=options.precision), setup


def _refuse_bad_outputs(json: str | None, plot: Path | None) -> None:
    """Refuse outputs that cannot be written, before anything is measured."""
    from importlib.util import find_spec

    from deepscan.cli.bench_display import PLOT_MARKER
    from deepscan.installing import install_extra
    from deepscan.runtime.system.files import holds, json_with

    if json is not None:
        refuse_output(json, json_with(REPORT_NAMES), "--json")
    if plot is None:
        return
    if plot.suffix.lower() not in PLOTS:
        raise UsageError(f"--plot {plot} has an unknown format: use a name that ends in {' or '.join(PLOTS)}.")
    refuse_output(str(plot), holds(PLOT_MARKER.encode("ascii")), "--plot")
    if find_spec("matplotlib") is None:
        command = install_extra("plot")
        raise MachineError(f"--plot needs the package matplotlib: run `{command}`, or use --json.")


def _run(subjects: list[Subject], setup: BenchSettings, console: Console) -> BenchReport:
    """Measure everything; print failures as they occur, and keep what was measured before an interrupt."""
    from rich.text import Text

    from deepscan.cli.bench_display import failure_line
    from deepscan.cli.screen import log_shown
    from deepscan.export.bench.bench_records import BenchReport, BenchResult, Failure, MatmulRate, Measurement
    from deepscan.export.bench.benching import Event, benchmarked
    from deepscan.runtime.system.machine import environment

    events: list[Event] = []
    complete = True
    with console.status("Measuring ...") as status, log_shown(status, "Measuring"):
        try:
            for event in benchmarked(subjects, setup):
                events.append(event)
                if isinstance(event, Failure):
                    console.print(Text(failure_line(event), "yellow"), soft_wrap=True)
        except KeyboardInterrupt:
            complete = False
            console.print(Text("Interrupted: what follows was measured before.", "bold yellow"))
    return BenchReport(
        complete=complete,
        machine=environment(),
        setup=setup,
        rates=tuple(event for event in events if isinstance(event, MatmulRate)),
        artifacts=tuple(event for event in events if isinstance(event, BenchResult)),
        measurements=tuple(event for event in events if isinstance(event, Measurement)),
        failures=tuple(event for event in events if isinstance(event, Failure)),
    )


def _save(report: BenchReport, console: Console) -> None:
    from rich.text import Text

    from deepscan.export.bench.saving import save_fastest

    for file, choice in save_fastest(report):
        what = f"{choice.file} on {choice.device}: --backend auto now takes {choice.backend} {choice.precision}"
        console.print(Text(f"{what}; delete {file} to undo this."), soft_wrap=True)
