"""`deepscan export`: weights to artefact, and artefact to engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deepscan.cli.extras import needing_torch

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.runtime.artefacts import Artefact
    from deepscan.runtime.parity.conversion import Report

ARTEFACT = ".onnx"
MEBIBYTE = 1 << 20
ENGINE_CROPS = 8
ENGINE_CLIPS = 4


def export(
    detector: Annotated[str, typer.Argument(help="Name of the detector, or with --engine an exported .onnx.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Its trained weights, as the authors publish them.", show_default="those that were added"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the .onnx file, its manifest and its parity report.")] = Path(),
    variant: Annotated[
        Literal["deepfakebench"] | None,
        typer.Option(help="Whose training it is, if not the authors'.", show_default="the authors'"),
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="Float32, the default.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision, float32 where half hurts.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="8 bits; needs --calibration-data.")] = False,
    form: Annotated[
        Literal["3d", "2d", "auto"],
        typer.Option(help="Of a clip detector's convolutions; auto measures which is faster here."),
    ] = "auto",
    calibration_data: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Videos or folders for --int8.", show_default=False)
    ] = None,
    calibration_method: Annotated[
        Literal["minmax", "entropy", "percentile"], typer.Option(help="How a range is chosen from what is seen.")
    ] = "percentile",
    calibration_items: Annotated[
        int | None,
        typer.Option(min=2, help="How many crops or clips to calibrate with.", show_default="256 crops or 16 clips"),
    ] = None,
    parity_data: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Videos to compare with the original on, besides the packaged ones."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="`path,label` of those videos: adds the AUC.", show_default=False)
    ] = None,
    accept_parity_loss: Annotated[
        bool, typer.Option("--accept-parity-loss", help="Write it even if it differs too much, and record that.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of crops and clips.")] = 0,
    engine: Annotated[
        Literal["tensorrt", "tensorrt-rtx"] | None, typer.Option(help="Build an engine as well.", show_default=False)
    ] = None,
    sm: Annotated[
        str | None,
        typer.Option(metavar="86,89", help="Compute capabilities to build for.", show_default="this machine's GPU"),
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Of the engine.", show_default="8; clips 4")] = None,
    workspace: Annotated[int, typer.Option(min=1, help="Of the engine, in MiB.")] = 8192,
) -> None:
    """Turn trained weights into an artefact: an ONNX file that takes uint8 RGB, proven against the original.

    Exit code: 0 written; 2 wrong usage; 3 weights, machine or output at fault, or too far from the original.
    """
    from rich.console import Console

    from deepscan.cli.spinner import shown
    from deepscan.errors import UsageError
    from deepscan.ranges import MOST_BYTES, MOST_SAMPLES, MOST_SEED, checked_whole

    if fp32 + fp16 + int8 > 1:
        raise UsageError("--fp32, --fp16 and --int8 exclude each other: give one.")
    if (sm or max_batch) and engine is None:
        raise UsageError("--sm and --max-batch describe an engine: add --engine tensorrt or --engine tensorrt-rtx.")
    if calibration_data and not int8:
        raise UsageError("--calibration-data is for --int8: add it, or leave the data out.")
    if labels and not (parity_data or calibration_data):
        raise UsageError("--labels belong to videos: give those with --parity-data.")
    is_artefact = detector.endswith(ARTEFACT)
    if is_artefact and (engine is None or weights or variant or fp32 or fp16 or int8 or parity_data):
        raise UsageError(f"{detector} is exported already: only --engine, with what belongs to it, makes more of it.")
    checked_whole("--calibration-items", calibration_items, least=2, most=MOST_SAMPLES)
    checked_whole("--seed", seed, least=0, most=MOST_SEED)
    checked_whole("--max-batch", max_batch)
    checked_whole("--workspace", workspace, most=MOST_BYTES // MEBIBYTE)
    capabilities = _capabilities(sm)
    console = Console(stderr=True)
    with console.status(f"Exporting {detector} ...") as status:
        report = shown(status, detector)
        if is_artefact:
            from deepscan.runtime.artefacts import load_artefact

            artefact = load_artefact(detector)
        else:
            with needing_torch("Exporting"):
                from deepscan.cli.export_order import ExportWishes, order_of
                from deepscan.export.artefact import export_artefact
                from deepscan.export.parity_report import ParityMiss
            from deepscan.cli.export_display import say_made, say_missed, say_skipped
            from deepscan.models.specs import spec_of

            wishes = ExportWishes(
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
            order = order_of(spec_of(detector, variant), wishes, report)
            if order.samples is not None:
                say_skipped(console, order.samples.skipped)
            try:
                made = export_artefact(detector, weights, out, variant=variant, order=order, report=report)
            except ParityMiss as miss:
                say_missed(console, miss)
                raise
            say_made(console, made, out)
            artefact = made.artefact
        if engine is not None:
            for capability in capabilities:
                _build(console, artefact, engine, capability, max_batch, workspace * MEBIBYTE, report)


def _capabilities(sm: str | None) -> tuple[str | None, ...]:
    from deepscan.export.engine_builder import compute_capabilities

    return compute_capabilities(sm) if sm else (None,)


def _build(
    console: Console,
    artefact: Artefact,
    flavour: Literal["tensorrt", "tensorrt-rtx"],
    capability: str | None,
    max_batch: int | None,
    workspace_bytes: int,
    report: Report,
) -> None:
    from deepscan.cli.export_display import say_built
    from deepscan.export.engine_builder import build_engine

    built = build_engine(
        artefact,
        flavour=flavour,
        compute_capability=capability,
        max_batch=max_batch or (ENGINE_CLIPS if artefact.manifest.spec.kind == "clip" else ENGINE_CROPS),
        workspace_bytes=workspace_bytes,
        report=report,
    )
    say_built(console, built)
