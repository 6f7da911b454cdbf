"""Output of a benchmark on the screen: a table for each detector, and the meaning of its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from deepscan.cli.result_table import Column, ResultTable, Row, print_lines
from deepscan.wording import counted, printable

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.export.bench.bench_records import BenchReport, BenchResult, Failure, MatmulRate, Measurement

PLOT_MARKER = "deepscan bench"  # in the metadata of every plot
MILLI = 1e3
MEBIBYTE = 1 << 20
ABSENT = "-"
ABOVE_HUNDRED = 100.0


def show_report(report: BenchReport, console: Console) -> None:
    """Print everything that was measured."""
    for benched in report.artifacts:
        rows = [row for row in report.measurements if row.model == benched.model]
        if rows:
            console.print(Text(_title(benched), "italic"), soft_wrap=not console.is_terminal)
            print_lines(console, _table(benched, rows, gpu=report.setup.device == "cuda"))
    for line in _explanations(report) if report.measurements else ():
        console.print(Text(line), soft_wrap=not console.is_terminal)


def failure_line(failure: Failure) -> str:
    """Return one line about a measurement that failed."""
    who = " ".join(part for part in (failure.backend, failure.precision) if part)
    return printable(f"{failure.model}, {who}: not measured: {failure.reason}")


def _title(benched: BenchResult) -> str:
    form = f", {benched.form}" if benched.form else ""
    needs = f", {benched.flop_per_item / 1e9:.2f} GFLOP per {benched.kind}" if benched.flop_per_item else ""
    return f"{printable(benched.model)}: {benched.precision}{form}, {benched.size_bytes / 1e6:.1f} MB{needs}"


def _table(benched: BenchResult, rows: list[Measurement], *, gpu: bool) -> ResultTable:
    """Lay out the figures; those without a column on a narrow terminal stand below their row."""
    columns = [
        Column("batch", 9),
        Column(f"{benched.kind}s\n/s", 9, below=f"{benched.kind}s/s "),
        Column("p50\nms", 8, below="p50 ms "),
        Column("p95\nms", 5, below="p95 ms "),
        Column("p99\nms", 4, below="p99 ms "),
        Column("runs", 2, below="runs "),
        Column("RAM\nMiB", 7, below="RAM MiB "),
        *([Column("GPU\nMiB", 7, below="GPU MiB ")] if gpu else []),
        Column("ready\ns", 3, below="ready s "),
        Column("of\nmatmul", 6, below="of matmul "),
    ]
    best = max(row.items_per_second for row in rows)
    table = ResultTable(columns, name_title="backend, precision")
    for row in rows:
        latency = row.latency
        times = (latency.p50_seconds, latency.p95_seconds, latency.p99_seconds)
        cells = [
            str(row.batch),
            _digits(row.items_per_second),
            *(ABSENT if value is None else _digits(MILLI * value) for value in times),
            str(latency.runs),
            _mebibytes(row.memory_bytes),
            *([_mebibytes(row.gpu_memory_bytes)] if gpu else []),
            f"{row.ready_seconds:.1f}",
            ABSENT if row.matmul_fraction is None else f"{row.matmul_fraction:.0%}",
        ]
        styles = ["", "bold" if row.items_per_second == best else ""] + [""] * (len(cells) - 2)
        table.rows.append(Row(f"{row.ran_as} {row.precision}", list(zip(cells, styles, strict=True))))
    return table


def _explanations(report: BenchReport) -> list[str]:
    setup = report.setup
    inputs = "; ".join(
        f"{counted(each.inputs, f'real {each.kind}')} for {printable(each.model)}" for each in report.artifacts
    )
    lines = [
        f"Each batch size for {setup.seconds:g} s after warming up, from pixels to logits.",
        "p95 needs 20 runs and p99 100: of fewer, it would be the slowest run.",
        f"Inputs: {inputs}. RAM is the process's largest so far, libraries and loading included.",
    ]
    if report.rates:
        rates = "; ".join(_rate(rate, setup.threads) for rate in report.rates)
        lines.append(f"of matmul: multiplications and additions per second, of the rate of matrix products ({rates}).")
        if any(row.precision in ("bf16", "int8") for row in report.measurements):
            lines[-1] += " bf16 and int8 are compared with more precise products and may exceed 100 %."
    return [*lines, f"Machine: {report.machine}."]


def _rate(rate: MatmulRate, threads: int) -> str:
    where = counted(threads, "thread") if rate.device == "cpu" else "CUDA"
    size = f"{rate.side} x {rate.side}"
    return f"{rate.flop_per_second / 1e9:.0f} GFLOP/s in {rate.precision}, {size}, ONNX Runtime, {where}"


def _digits(value: float) -> str:
    """Write at least three significant digits."""
    return f"{value:.0f}" if value >= ABOVE_HUNDRED else f"{value:.3g}"


def _mebibytes(size: int | None) -> str:
    return ABSENT if size is None else f"{size / MEBIBYTE:.0f}"
