"""`deepscan export`: weights to artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from deepscan.cli.extras import needing_torch


def export(
    detector: Annotated[str, typer.Argument(help="Name of the detector.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Its trained weights, as the authors publish them.", show_default="those that were added"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the .onnx file and its manifest.")] = Path(),
    variant: Annotated[
        Literal["deepfakebench"] | None,
        typer.Option(help="Whose training it is, if not the authors'.", show_default="the authors'"),
    ] = None,
    form: Annotated[
        Literal["3d", "2d", "auto"],
        typer.Option(help="Of a clip detector's convolutions; auto measures which is faster here."),
    ] = "auto",
) -> None:
    """Turn trained weights into an artefact: an ONNX file that takes uint8 RGB, and its manifest."""
    from rich.console import Console

    with needing_torch("Exporting"):
        from deepscan.export.artefact import export_artefact
    console = Console(stderr=True)
    with console.status(f"Exporting {detector} ..."):
        manifest = export_artefact(detector, weights, out, variant=variant, form=form)
    console.print(
        f"{out / manifest.file}: {manifest.size_bytes / 1e6:.2f} MB, {manifest.precision}, opset {manifest.opset}",
        highlight=False,
    )
    if manifest.form is not None:
        console.print(f"Form: {manifest.form} ({manifest.form_reason}).", highlight=False, soft_wrap=True)
