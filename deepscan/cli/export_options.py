"""Options of the commands that turn trained weights into artifacts: `deepscan export` and `deepscan weights add`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from deepscan.arguments import MEBIBYTE, MOST_BYTES, MOST_SAMPLES, SEEDS, Option, path, texts
from deepscan.errors import UsageError

CALIBRATION = "Calibration, for --int8"
PARITY = "Comparison with the original"
ENGINE = "TensorRT engine"


class ConversionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of all commands that turn trained weights into artifacts."""

    variant: Annotated[
        Literal["deepfakebench"] | None,
        Option("Who trained the weights, if not the authors: deepfakebench.", None, "NAME", "the authors"),
    ] = None
    form: Annotated[
        Literal["3d", "2d", "auto"],
        Option("Convolutions of a clip detector: 3d, 2d, or auto, whichever is faster here.", None, "FORM"),
    ] = "auto"


class ExportOptions(ConversionOptions, frozen=True, kw_only=True):
    """Options of `deepscan export`; the `help` of each field says what it means."""

    weights: Annotated[
        str | None,
        Option(
            "Trained weights, as the authors publish them.",
            None,
            "FILE",
            "the added ones; for lite, its own",
            check=path,
        ),
    ] = None
    out: Annotated[
        str,
        Option(
            "Folder for the .onnx file, its manifest and its parity report.",
            None,
            "DIR",
            "the working folder",
            check=path,
        ),
    ] = "."
    fp32: Annotated[bool, Option("Write float32, the default.")] = False
    fp16: Annotated[bool, Option("Write half precision, with float32 where accuracy needs it.")] = False
    int8: Annotated[bool, Option("Write 8-bit integers; needs --calibration-data.")] = False
    calibration_data: Annotated[
        Sequence[str],
        Option("Video or folder to calibrate --int8 with. May be repeated.", CALIBRATION, "PATH", check=texts),
    ] = ()
    calibration_method: Annotated[
        Literal["minmax", "entropy", "percentile"],
        Option("Method of choosing ranges: minmax, entropy or percentile.", CALIBRATION, "HOW"),
    ] = "percentile"
    calibration_items: Annotated[
        int | None,
        Option(
            "Number of crops or clips to calibrate with.",
            CALIBRATION,
            "N",
            "256 crops or 16 clips",
            bounds={"least": 2, "most": MOST_SAMPLES},
        ),
    ] = None
    seed: Annotated[int, Option("Seed for choosing crops and clips.", CALIBRATION, "N", bounds=SEEDS)] = 0
    parity_data: Annotated[
        Sequence[str],
        Option(
            "Video or folder with faces for the comparison, besides the packaged crops. May be repeated.",
            PARITY,
            "PATH",
            check=texts,
        ),
    ] = ()
    labels: Annotated[
        str | None,
        Option(
            "CSV file with the columns path,label for those videos; adds the AUC to the report.",
            PARITY,
            "CSV",
            check=path,
        ),
    ] = None
    accept_parity_loss: Annotated[
        bool, Option("Write the artifact even if it differs too much, and record that.", PARITY)
    ] = False
    engine: Annotated[
        Literal["tensorrt", "tensorrt-rtx"] | None,
        Option("Engine to build as well: tensorrt or tensorrt-rtx.", ENGINE, "NAME"),
    ] = None
    sm: Annotated[str | None, Option("Compute capabilities to build for.", ENGINE, "86,89", "this machine's GPU")] = (
        None
    )
    max_batch: Annotated[int | None, Option("Largest batch of the engine.", ENGINE, "N", "8 crops or 4 clips")] = None
    workspace: Annotated[
        int,
        Option(
            "Memory for building the engine, in MiB.",
            ENGINE,
            "MIB",
            "8192",
            unit=MEBIBYTE,
            bounds={"most": MOST_BYTES},
        ),
    ] = 8192 * MEBIBYTE

    def __post_init__(self) -> None:
        """Raise UsageError for options that exclude each other."""
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
