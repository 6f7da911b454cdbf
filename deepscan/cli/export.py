"""`deepscan export`: weights to artifact, and artifact to engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deepscan.cli.completion import complete_exportable
from deepscan.installing import needing_torch

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.runtime.artifacts.artifacts import Artifact

log = logging.getLogger(__name__)

ARTIFACT = ".onnx"
MEBIBYTE = 1 << 20
CALIBRATION = "Calibration, for --int8"
PARITY = "Comparison with the original"
ENGINE = "TensorRT engine"
EXAMPLES = """Examples:

  deepscan export lite --fp16 --out exported

  deepscan export ftcn --int8 --calibration-data videos --out exported

  deepscan export exported/lite.onnx --engine tensorrt"""
ENGINE_CROPS = 8
ENGINE_CLIPS = 4


def export(
    detector: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the detector; with --engine also an exported .onnx file.",
            autocompletion=complete_exportable,
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Trained weights, as the authors publish them.",
            show_default="those that were added; of lite, its own",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the .onnx file, its manifest and its parity report.")
    ] = Path(),
    variant: Annotated[
        Literal["deepfakebench"] | None,
        typer.Option(
            metavar="NAME",
            help="Who trained the weights, if not the authors: deepfakebench.",
            show_default="the authors",
        ),
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="Write float32, the default.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Write half precision, with float32 where half hurts.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Write 8 bits; needs --calibration-data.")] = False,
    form: Annotated[
        Literal["3d", "2d", "auto"],
        typer.Option(
            metavar="FORM", help="Convolutions of a clip detector: 3d, 2d, or auto: whichever is faster here."
        ),
    ] = "auto",
    calibration_data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Video or folder to calibrate --int8 with. May be repeated.",
            show_default=False,
            rich_help_panel=CALIBRATION,
        ),
    ] = None,
    calibration_method: Annotated[
        Literal["minmax", "entropy", "percentile"],
        typer.Option(
            metavar="HOW",
            help="Choice of ranges: minmax, entropy or percentile.",
            rich_help_panel=CALIBRATION,
        ),
    ] = "percentile",
    calibration_items: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Number of crops or clips to calibrate with.",
            show_default="256 crops or 16 clips",
            rich_help_panel=CALIBRATION,
        ),
    ] = None,
    parity_data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Video or folder to compare with the original on, besides the packaged crops. May be repeated.",
            rich_help_panel=PARITY,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="File with the columns path,label of those videos: adds the AUC.",
            show_default=False,
            rich_help_panel=PARITY,
        ),
    ] = None,
    accept_parity_loss: Annotated[
        bool,
        typer.Option(
            "--accept-parity-loss",
            help="Write the artifact even if it differs too much, and record that.",
            rich_help_panel=PARITY,
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Seed of the choice of crops and clips.", rich_help_panel=CALIBRATION),
    ] = 0,
    engine: Annotated[
        Literal["tensorrt", "tensorrt-rtx"] | None,
        typer.Option(
            metavar="NAME",
            help="Engine to build as well: tensorrt or tensorrt-rtx.",
            show_default=False,
            rich_help_panel=ENGINE,
        ),
    ] = None,
    sm: Annotated[
        str | None,
        typer.Option(
            metavar="86,89",
            help="Compute capabilities to build for.",
            show_default="this machine's GPU",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Largest batch of the engine.",
            show_default="8 crops or 4 clips",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    workspace: Annotated[
        int,
        typer.Option(min=1, metavar="MIB", help="Memory for building the engine, in MiB.", rich_help_panel=ENGINE),
    ] = 8192,
) -> None:
    """Turn trained weights into an artifact: an ONNX file that takes uint8 RGB, proven against the original.

    Exit codes:

    0 written,
    2 wrong usage,
    3 a problem with the weights, the machine or the output, or the artifact differs too much from the original.
    """
    from rich.console import Console

    from deepscan.arguments import MOST_BYTES, MOST_COUNT, MOST_SAMPLES, MOST_SEED, whole_number
    from deepscan.cli.screen import log_shown
    from deepscan.errors import UsageError
    from deepscan.runtime.artifacts.artifacts import refuse_missing_artifact

    if fp32 + fp16 + int8 > 1:
        raise UsageError("--fp32, --fp16 and --int8 exclude each other: give one.")
    if (sm or max_batch) and engine is None:
        raise UsageError("--sm and --max-batch describe an engine: add --engine tensorrt or --engine tensorrt-rtx.")
    if calibration_data and not int8:
        raise UsageError("--calibration-data is for --int8: add it, or leave the data out.")
    if labels and not (parity_data or calibration_data):
        raise UsageError("--labels belong to videos: give those with --parity-data.")
    is_artifact = detector.endswith(ARTIFACT)
    if is_artifact:
        refuse_missing_artifact(detector)
    if is_artifact and (engine is None or weights or variant or fp32 or fp16 or int8 or parity_data):
        raise UsageError(f"{detector} is exported already: only --engine, with what belongs to it, makes more of it.")
    for option, number, least, most in (
        ("--calibration-items", calibration_items, 2, MOST_SAMPLES),
        ("--seed", seed, 0, MOST_SEED),
        ("--max-batch", max_batch, 1, MOST_COUNT),
        ("--workspace", workspace, 1, MOST_BYTES // MEBIBYTE),
    ):
        if number is not None:
            whole_number(option, number, least=least, most=most)
    capabilities = _capabilities(sm)
    console = Console(stderr=True)
    with console.status(f"Exporting {detector} ...") as status, log_shown(status, detector):
        if is_artifact:
            from deepscan.runtime.artifacts.artifacts import load_artifact

            artifact = load_artifact(detector)
        else:
            with needing_torch("Exporting"):
                from deepscan.cli.export_run import ExportOptions, resolve_settings
                from deepscan.export.artifact import export_artifact
                from deepscan.export.parity_report import ParityMiss
            from deepscan.cli.export_run import say_made, say_missed, say_skipped
            from deepscan.models.registry import find_detector

            options = ExportOptions(
                precision="fp16" if fp16 else "int8" if int8 else "fp32",
                form=form,
                for_engine=engine is not None,
                calibration_data=calibration_data or [],
                calibration_method=calibration_method,
                calibration_items=calibration_items,
                parity_data=parity_data or [],
                labels=labels,
                accept_parity_loss=accept_parity_loss,
                seed=seed,
            )
            settings = resolve_settings(find_detector(detector, variant).spec, options)
            if settings.samples is not None:
                say_skipped(console, settings.samples.skipped)
            try:
                made = export_artifact(detector, weights, out, variant=variant, settings=settings)
            except ParityMiss as miss:
                say_missed(console, miss)
                raise
            say_made(console, made, out)
            artifact = made.artifact
        if engine is not None:
            for capability in capabilities:
                _build(console, artifact, engine, capability, max_batch, workspace * MEBIBYTE)


def _capabilities(sm: str | None) -> tuple[str | None, ...]:
    from deepscan.export.engine_builder import compute_capabilities

    return compute_capabilities(sm) if sm else (None,)


def _build(
    console: Console,
    artifact: Artifact,
    flavor: Literal["tensorrt", "tensorrt-rtx"],
    capability: str | None,
    max_batch: int | None,
    workspace_bytes: int,
) -> None:
    from deepscan.cli.export_run import say_built
    from deepscan.export.engine_builder import build_engine

    built = build_engine(
        artifact,
        flavor=flavor,
        compute_capability=capability,
        max_batch=max_batch or (ENGINE_CLIPS if artifact.manifest.spec.kind == "clip" else ENGINE_CROPS),
        workspace_bytes=workspace_bytes,
        report=log.info,
    )
    say_built(console, built)
