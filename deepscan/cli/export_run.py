"""Running `deepscan export`: options resolved to settings, and what it prints. Calibration and export meet here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from deepscan.calibration.quantize import quantized
from deepscan.evaluation.truth import truth_from_csv
from deepscan.export.artifact import ExportSettings, Quantization
from deepscan.export.parity.parity_report import readable
from deepscan.export.parity.samples import Samples, gather_samples, joined
from deepscan.export.real_data import PARITY_CLIPS, PARITY_CROPS, calibration_data
from deepscan.runtime.artifacts.artifacts import Activations, CalibrationRecord
from deepscan.spec import DetectorSpec
from deepscan.wording import printable

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.cli.export_options import ExportOptions
    from deepscan.export.artifact import ExportResult
    from deepscan.export.parity.parity_report import ParityMiss
    from deepscan.runtime.backends.tensorrt.engine_store import Engine


def resolve_settings(spec: DetectorSpec, options: ExportOptions) -> ExportSettings:
    """Resolve options to settings, with crops or clips of the user's videos."""
    labels = None
    if options.labels:
        truth = truth_from_csv(options.labels)
        labels = {os.path.join(truth.folder, row.path): row.label == "fake" for row in truth.rows}
    for_parity: list[Samples] = []
    quantization = None
    if options.precision == "int8":
        calibrating, held_out = calibration_data(
            spec,
            options.calibration_data,
            items=options.calibration_items,
            seed=options.seed,
            labels=labels,
        )
        quantization = _quantization(calibrating, options)
        for_parity.append(held_out)
    if options.parity_data:
        count = PARITY_CLIPS if spec.kind == "clip" else PARITY_CROPS
        for_parity.append(gather_samples(options.parity_data, spec, count=count, seed=options.seed, labels=labels))
    return ExportSettings(
        precision=options.precision,
        form=options.form,
        for_engine=options.engine is not None,
        quantization=quantization,
        samples=joined(for_parity) if for_parity else None,
        accept_parity_loss=options.accept_parity_loss,
    )


def _quantization(samples: Samples, options: ExportOptions) -> Quantization:
    # TensorRT takes no zero points; processors compute with them just as fast, and need no bit for a sign.
    activations: Activations = "symmetric" if options.engine is not None else "affine"
    method, seed = options.calibration_method, options.seed
    return Quantization(
        partial(quantized, items=samples.items, method=method, activations=activations, seed=seed),
        CalibrationRecord(
            method=method,
            activations=activations,
            items=len(samples.items),
            sha256=samples.sha256,
            seed=seed,
            kept=(),
        ),
    )


SKIPPED_SHOWN = 5


def say_skipped(console: Console, skipped: Sequence[str]) -> None:
    """Show which of the user's videos gave no crops or clips, the first of them with the reason."""
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
    """Show the whole comparison, including the worst cases."""
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
