"""The plot of a benchmark: throughput against latency, a line per backend and precision, a point per batch size."""

from __future__ import annotations

from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from deepscan.cli.bench_display import PLOT_MARKER
from deepscan.errors import OutputError
from deepscan.runtime.system.files import atomic_write
from deepscan.wording import counted, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deepscan.export.bench.bench_records import BenchReport, BenchResult, Measurement

AUTHOR_FIELDS = {"png": "Software", "svg": "Creator"}
INCHES = (7.0, 4.5)  # of one detector's part
DPI = 150
MILLI = 1e3
HEADROOM = 1.15  # for the numbers beside the points


def write_plot(report: BenchReport, path: Path) -> None:
    """Draw a report with at least one measurement; the suffix of the path gives the format.

    Raises:
        OutputError: the file cannot be written.
    """
    by_model = [(each, [row for row in report.measurements if row.model == each.model]) for each in report.artifacts]
    drawn = [(benched, rows) for benched, rows in by_model if rows]
    figure = Figure(figsize=(INCHES[0], INCHES[1] * len(drawn)), layout="constrained")
    for axes, (benched, rows) in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True):
        _draw(axes, benched, rows)
    machine = report.machine
    figure.suptitle(
        f"{', '.join(machine.gpus) or machine.processor}, {counted(machine.processors, 'processor')}", fontsize="medium"
    )
    picture = BytesIO()
    kind = path.suffix[1:].lower()
    figure.savefig(picture, format=kind, dpi=DPI, metadata={AUTHOR_FIELDS[kind]: PLOT_MARKER})
    try:
        atomic_write({path: [picture.getvalue()]})
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another place.") from error


def _draw(axes: Axes, benched: BenchResult, rows: list[Measurement]) -> None:
    for (backend, precision), group in groupby(rows, key=lambda row: (row.ran_as, row.precision)):
        points = [(MILLI * row.latency.p50_seconds, row.items_per_second, row.batch) for row in group]
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o", label=f"{backend} {precision}")
        for x, y, batch in points:
            axes.annotate(str(batch), (x, y), xytext=(4, 4), textcoords="offset points", fontsize="small")
    axes.set_title(f"{printable(benched.model)} ({benched.precision}); points are batch sizes")
    axes.set_xlabel("median latency of a batch, ms")
    axes.set_ylabel(f"{benched.kind}s per second")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, HEADROOM * max(row.items_per_second for row in rows))
    axes.grid(alpha=0.3)
    axes.legend()
