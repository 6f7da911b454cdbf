"""`deepscan export`: weights to artifact, and artifact to engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deepscan.arguments import (
    MEBIBYTE,
    MOST_BYTES,
    MOST_SAMPLES,
    MOST_SEED,
    Option,
    path,
    text,
    texts,
    truth,
    whole_number,
)
from deepscan.cli.completion import complete_exportable
from deepscan.cli.options import ConversionOptions, options_from, takes_options
from deepscan.errors import UsageError
from deepscan.installing import needing_torch

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.runtime.artifacts.artifacts import Artifact


ARTIFACT = ".onnx"
CALIBRATION = "Calibration, for --int8"
PARITY = "Comparison with the original"
ENGINE = "TensorRT engine"
EXAMPLES = """Examples:

  deepscan export lite --fp16 --out exported

  deepscan export ftcn --int8 --calibration-data videos --out exported

  deepscan export exported/lite.onnx --engine tensorrt"""
ENGINE_CROPS = 8
ENGINE_CLIPS = 4


class ExportOptions(ConversionOptions, frozen=True, kw_only=True):
    """Options of `deepscan export`; the `help` of each field says what it means."""

    weights: Annotated[
        str | None,
        Option(
            "Trained weights, as the authors publish them.",
            path,
            None,
            "FILE",
            "the added ones; for lite, its own",
        ),
    ] = None
    out: Annotated[
        str,
        Option(
            "Folder for the .onnx file, its manifest and its parity report.",
            path,
            None,
            "DIR",
            "the working folder",
        ),
    ] = "."
    fp32: Annotated[bool, Option("Write float32, the default.", truth)] = False
    fp16: Annotated[bool, Option("Write half precision, with float32 where accuracy needs it.", truth)] = False
    int8: Annotated[bool, Option("Write 8-bit integers; needs --calibration-data.", truth)] = False
    calibration_data: Annotated[
        Sequence[str],
        Option("Video or folder to calibrate --int8 with. May be repeated.", texts, CALIBRATION, "PATH"),
    ] = ()
    calibration_method: Annotated[
        Literal["minmax", "entropy", "percentile"],
        Option("Method of choosing ranges: minmax, entropy or percentile.", text, CALIBRATION, "HOW"),
    ] = "percentile"
    calibration_items: Annotated[
        int | None,
        Option(
            "Number of crops or clips to calibrate with.",
            whole_number,
            CALIBRATION,
            "N",
            "256 crops or 16 clips",
            bounds={"least": 2, "most": MOST_SAMPLES},
        ),
    ] = None
    seed: Annotated[
        int,
        Option(
            "Seed for choosing crops and clips.",
            whole_number,
            CALIBRATION,
            "N",
            bounds={"least": 0, "most": MOST_SEED},
        ),
    ] = 0
    parity_data: Annotated[
        Sequence[str],
        Option(
            "Video or folder with faces for the comparison, besides the packaged crops. May be repeated.",
            texts,
            PARITY,
            "PATH",
        ),
    ] = ()
    labels: Annotated[
        str | None,
        Option(
            "CSV file with the columns path,label for those videos; adds the AUC to the report.", path, PARITY, "CSV"
        ),
    ] = None
    accept_parity_loss: Annotated[
        bool, Option("Write the artifact even if it differs too much, and record that.", truth, PARITY)
    ] = False
    engine: Annotated[
        Literal["tensorrt", "tensorrt-rtx"] | None,
        Option("Engine to build as well: tensorrt or tensorrt-rtx.", text, ENGINE, "NAME"),
    ] = None
    sm: Annotated[
        str | None, Option("Compute capabilities to build for.", text, ENGINE, "86,89", "this machine's GPU")
    ] = None
    max_batch: Annotated[
        int | None, Option("Largest batch of the engine.", whole_number, ENGINE, "N", "8 crops or 4 clips")
    ] = None
    workspace: Annotated[
        int,
        Option(
            "Memory for building the engine, in MiB.",
            whole_number,
            ENGINE,
            "MIB",
            "8192",
            unit=MEBIBYTE,
            bounds={"least": 1, "most": MOST_BYTES},
        ),
    ] = 8192 * MEBIBYTE

    def __post_init__(self) -> None:
        """Check each value, and that options do not exclude each other.

        Raises:
            UsageError: a value is out of range, or options contradict each other.
        """
        super().__post_init__()
        if self.fp32 + self.fp16 + self.int8 > 1:
            raise UsageError("--fp32, --fp16 and --int8 exclude each other: give one.")
        if (self.sm or self.max_batch) and self.engine is None:
            raise UsageError("--sm and --max-batch describe an engine: add --engine tensorrt or --engine tensorrt-rtx.")
        if self.calibration_data and not self.int8:
            raise UsageError("--calibration-data is for --int8: add it, or leave the data out.")
        if self.labels and not (self.parity_data or self.calibration_data):
            raise UsageError("--labels needs videos: give them with --parity-data.")

    @property
    def precision(self) -> Literal["fp32", "fp16", "int8"]:
        """What is written."""
        return "fp16" if self.fp16 else "int8" if self.int8 else "fp32"


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
    from deepscan.runtime.artifacts.artifacts import refuse_missing_artifact

    (options,) = options_from(given, ExportOptions)
    is_artifact = detector.endswith(ARTIFACT)
    if is_artifact:
        refuse_missing_artifact(detector)
    changed = options.weights or options.variant or options.fp32 or options.precision != "fp32" or options.parity_data
    if is_artifact and (options.engine is None or changed):
        raise UsageError(f"{detector} is already exported: only --engine and its options apply to it.")
    capabilities = _capabilities(options.sm)
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


def _capabilities(sm: str | None) -> tuple[str | None, ...]:
    from deepscan.export.engine_builder import compute_capabilities

    return compute_capabilities(sm) if sm else (None,)


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
