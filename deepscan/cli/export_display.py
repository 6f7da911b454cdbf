"""What `deepscan export` shows when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from deepscan.cli.printable import printable
from deepscan.export.parity_report import readable

SKIPPED_SHOWN = 5

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.export.artifact import ExportResult
    from deepscan.export.parity_report import ParityMiss
    from deepscan.runtime.backends.tensorrt.engine_store import Engine


def say_skipped(console: Console, skipped: Sequence[str]) -> None:
    """Show which of the user's videos gave nothing, the first of them with the reason."""
    for line in skipped[:SKIPPED_SHOWN]:
        console.print(Text(f"left out: {printable(line)}", "yellow"), soft_wrap=True)
    if len(skipped) > SKIPPED_SHOWN:
        console.print(Text(f"left out: {len(skipped) - SKIPPED_SHOWN} more", "yellow"))


def say_made(console: Console, made: ExportResult, out: Path) -> None:
    """Show the steps with their times, the artifact with its size, and how it compares with the original."""
    manifest, parity = made.artifact.manifest, made.report.parity
    for title, seconds in made.steps:
        console.print(Text(f"{seconds:7.1f} s  {title}", "dim"))
    size = f"{manifest.size_bytes / 1e6:.2f} MB, {manifest.precision}, opset {manifest.opset}"
    console.print(Text(f"{out / manifest.file}: {size}"), soft_wrap=True)
    if manifest.form is not None:
        console.print(Text(f"Form: {manifest.form} ({manifest.form_reason})."), soft_wrap=True)
    if made.report.summary:
        console.print(Text(made.report.summary), soft_wrap=True)
    differences = f"scores differ by at most {parity.max_difference:.2g}, on average by {parity.mean_difference:.2g}"
    console.print(
        Text(f"Against the original, on {parity.items} real {manifest.spec.input_name}: {differences}."), soft_wrap=True
    )
    if not manifest.trained:
        console.print(Text("These weights are random: the scores mean nothing.", "bold red"))
    if manifest.parity_loss:
        console.print(Text(f"Accepted although over the budget: {manifest.parity_loss}.", "yellow"), soft_wrap=True)


def say_missed(console: Console, miss: ParityMiss) -> None:
    """Show the whole comparison, worst cases and all."""
    for line in readable(miss.report).splitlines():
        console.print(Text(printable(line)), soft_wrap=True)


def say_built(console: Console, engine: Engine) -> None:
    """Show an engine with its size and the time it took."""
    built = engine.manifest
    facts = f"{built.size_bytes / 1e6:.2f} MB, {built.flavor} {built.version}, compute capability"
    console.print(
        Text(f"{engine.plan_path}: {facts} {built.target.compute_capability}, built in {built.build_seconds:.1f} s"),
        soft_wrap=True,
    )
    for warning in built.warnings:
        console.print(Text(f"{built.flavor} says: {warning}", "yellow"), soft_wrap=True)
