"""`deepscan export`: weights to artifact, and artifact to engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepscan.cli.completion import complete_exportable
from deepscan.cli.export_options import ExportOptions
from deepscan.cli.options import options_from, takes_options
from deepscan.errors import UsageError
from deepscan.installing import needing_torch

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.runtime.artifacts.artifacts import Artifact


ARTIFACT = ".onnx"
EXAMPLES = """Examples:

  deepscan export lite --fp16 --out exported

  deepscan export ftcn --int8 --calibration-data videos --out exported

  deepscan export exported/lite.onnx --engine tensorrt"""
ENGINE_CROPS = 8
ENGINE_CLIPS = 4


@takes_options(ExportOptions, first=("weights", "out"))
def export(
    detector: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the detector; with --engine also an exported .onnx file.",
            autocompletion=complete_exportable,
        ),
    ],
    **given: Any,
) -> None:
    """Export trained weights as an artifact: an ONNX file that takes uint8 RGB and is checked against the original.

    Exit codes:

    0 written,
    2 wrong usage,
    3 a problem with the weights, the machine or the output, or the artifact differs too much from the original.
    """
    from rich.console import Console

    from deepscan.cli.screen import log_shown
    from deepscan.export.engine_builder import compute_capabilities
    from deepscan.runtime.artifacts.artifacts import refuse_missing_artifact

    (options,) = options_from(given, ExportOptions)
    is_artifact = detector.endswith(ARTIFACT)
    if is_artifact:
        refuse_missing_artifact(detector)
    changed = options.weights or options.variant or options.fp32 or options.precision != "fp32" or options.parity_data
    if is_artifact and (options.engine is None or changed):
        raise UsageError(f"{detector} is already exported: only --engine and its options apply to it.")
    capabilities = compute_capabilities(options.sm) if options.sm else (None,)
    console = Console(stderr=True)
    with console.status(f"Exporting {detector} ...") as status, log_shown(status, detector):
        if is_artifact:
            from deepscan.runtime.artifacts.artifacts import load_artifact

            artifact = load_artifact(detector)
        else:
            with needing_torch("Exporting"):
                from deepscan.cli.export_run import resolve_settings
                from deepscan.export.artifact import export_artifact
                from deepscan.export.parity.parity_report import ParityMiss
            from deepscan.cli.export_run import say_made, say_missed, say_skipped
            from deepscan.models.registry import find_detector

            settings = resolve_settings(find_detector(detector, options.variant).spec, options)
            if settings.samples is not None:
                say_skipped(console, settings.samples.skipped)
            weights, out = None if options.weights is None else Path(options.weights), Path(options.out)
            try:
                made = export_artifact(detector, weights, out, variant=options.variant, settings=settings)
            except ParityMiss as miss:
                say_missed(console, miss)
                raise
            say_made(console, made, out)
            artifact = made.artifact
        for capability in capabilities if options.engine is not None else ():
            _build(console, artifact, options, capability)


def _build(console: Console, artifact: Artifact, options: ExportOptions, capability: str | None) -> None:
    from deepscan.cli.export_run import say_built
    from deepscan.export.engine_builder import build_engine

    built = build_engine(
        artifact,
        flavor=options.engine or "tensorrt",
        compute_capability=capability,
        max_batch=options.max_batch or (ENGINE_CLIPS if artifact.manifest.spec.kind == "clip" else ENGINE_CROPS),
        workspace_bytes=options.workspace,
    )
    say_built(console, built)
