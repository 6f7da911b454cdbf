"""Options of a scan: every one once, with its type, default, check and description.

Keywords of `deepscan.scan`, options of `deepscan scan`, configuration files and the first message to a worker are all
made of this.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self, TypeAlias, TypedDict

import msgspec

from deepscan.arguments import (
    MEBIBYTE,
    MOST_BYTES,
    MOST_SAMPLES,
    MOST_SECONDS,
    MOST_THREADS,
    PROBABILITY,
    Option,
    check_options,
    detectors,
    path,
    paths,
    rename_in_messages,
    texts,
)
from deepscan.errors import UsageError
from deepscan.limits import DEFAULT_LIMITS, Limits

SamplingMode: TypeAlias = Literal["full", "quick", "paper"]
Aggregate: TypeAlias = Literal["max", "mean"]
FaceDetectorChoice: TypeAlias = Literal["yunet", "retinaface", "none"]
DecoderChoice: TypeAlias = Literal["auto", "cpu", "nvdec"]
# Precision of the arithmetic, which may differ from the artifact's (float32 in bfloat16, half in float32).
Arithmetic: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
PrecisionChoice: TypeAlias = Literal["auto", Arithmetic]
HashChoice: TypeAlias = Literal["fast", "full"]

# Environment variable that gives `backend` for a whole machine or session.
BACKEND_VARIABLE: Final = "DEEPSCAN_BACKEND"
# Chosen by measurement: see "Detecting every n-th frame" in benchmarks/README.md.
DETECT_EVERY: Final = 5
# Longer than any video needs, yet none holds up a scan forever; one that makes no progress is noticed earlier.
TIMEOUT_SECONDS: Final = 24 * 3600.0
_SAMPLES: Final = {"most": MOST_SAMPLES}
_SECONDS: Final = {"least": 0, "most": MOST_SECONDS, "above": True}


class ScanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a scan; the `help` of each field says what it means.

    None leaves a value to the detector, the sampling mode or the machine. Values of other types that say the same
    (NumPy's numbers, paths, one name where several are possible) are converted.

    Raises:
        UsageError: a value has the wrong type, or is out of range.
    """

    model: Annotated[
        Sequence[str],
        Option(
            "Detectors, separated by commas: names from `deepscan models`, or exported .onnx files.",
            metavar="NAME,...",
            shown_default="lite",
            check=detectors,
        ),
    ] = ("lite",)
    sampling: Annotated[
        SamplingMode | None,
        Option(
            "Frames to examine. full: all; quick: a few; paper: those that the detector's authors use.",
            metavar="MODE",
            shown_default="full",
        ),
    ] = None
    recursive: Annotated[bool, Option("Descend into subfolders.", "Inputs")] = True
    include: Annotated[
        Sequence[str],
        Option(
            "In folders, scan only files that match this pattern, whatever their extension. May be repeated.",
            "Inputs",
            "GLOB",
            check=texts,
        ),
    ] = ()
    exclude: Annotated[
        Sequence[str],
        Option(
            "In folders, skip files and subfolders that match this pattern. May be repeated.",
            "Inputs",
            "GLOB",
            check=texts,
        ),
    ] = ()
    follow_links: Annotated[bool, Option("Follow symbolic links inside folders.", "Inputs")] = False
    threshold: Annotated[
        float | None,
        Option(
            "Score from which a video is labeled fake.", "What is scored", "P", "the detector's", bounds=PROBABILITY
        ),
    ] = None
    calibration: Annotated[
        Sequence[str],
        Option(
            "Calibration profile of a detector; none: not even an installed one. May be repeated.",
            "What is scored",
            "FILE",
            "installed ones",
            check=paths,
        ),
    ] = ()
    fuse: Annotated[
        str | None,
        Option(
            "Fusion of detectors, which adds a row called fused; all of them must be scanned with.",
            "What is scored",
            "FILE",
            check=path,
        ),
    ] = None
    frames: Annotated[
        int | None,
        Option(
            "Frames per video, for quick and paper; implies --sampling quick if none is given.",
            "What is scored",
            "N",
            "32, or the authors'",
            bounds=_SAMPLES,
        ),
    ] = None
    clips: Annotated[
        int | None,
        Option(
            "Stretches per video, for quick with clip detectors; implies --sampling quick if none is given.",
            "What is scored",
            "N",
            "4",
            bounds=_SAMPLES,
        ),
    ] = None
    aggregate: Annotated[
        Aggregate | None,
        Option(
            "Score of a video: max, that of its highest track, or mean, the average over all tracks.",
            "What is scored",
            "HOW",
            "max; for paper the authors'",
        ),
    ] = None
    min_face: Annotated[
        int | None, Option("Smallest face to score, by its longer side.", "What is scored", "PIXELS", "the detector's")
    ] = None
    face_detector: Annotated[
        FaceDetectorChoice,
        Option(
            "Face detector: yunet, retinaface, or none for pictures that are already cropped faces.",
            "What is scored",
            "NAME",
        ),
    ] = "yunet"
    mirror: Annotated[
        bool | None,
        Option(
            "Average the scores of each crop and its mirror image, at twice the cost.",
            "What is scored",
            shown_default="the detector's",
        ),
    ] = None
    jobs: Annotated[
        int | None,
        Option("Videos to decode at once.", "Speed", "N", "one per processor", bounds={"most": MOST_THREADS}),
    ] = None
    device: Annotated[
        str,
        Option(
            "Device for the detectors: auto, cpu, cuda, some GPUs (cuda:0,1) or all of them (cuda:all).",
            "Speed",
            "DEVICE",
        ),
    ] = "auto"
    decoder: Annotated[
        DecoderChoice,
        Option(
            "Video decoder when a GPU is used: cpu, nvdec, or auto, whichever is faster for the video.", "Speed", "NAME"
        ),
    ] = "auto"
    backend: Annotated[
        str | None,
        Option(
            "Backend: onnxruntime, openvino, torch, tensorrt, ort-tensorrt, a plugin's, or auto, the first that works.",
            "Speed",
            "NAME",
            "$DEEPSCAN_BACKEND, or auto",
        ),
    ] = None
    precision: Annotated[
        PrecisionChoice,
        Option("Precision of the arithmetic: fp32, bf16, fp16, int8, or auto, the detector's own.", "Speed", "TYPE"),
    ] = "auto"
    detect_every: Annotated[
        int, Option("Search every Nth frame for faces; boxes between them are interpolated.", "Speed", "N")
    ] = DETECT_EVERY
    memory: Annotated[
        int | None,
        Option(
            "Maximum memory of a scanning process, in MiB.",
            "Speed",
            "MIB",
            "90 % of the machine's",
            unit=MEBIBYTE,
            bounds={"most": MOST_BYTES},
        ),
    ] = None
    timeout: Annotated[
        float | None,
        Option(
            "Maximum time for one file; 0: no limit.", "Limits", "SECONDS", "a day", zero_is_none=True, bounds=_SECONDS
        ),
    ] = TIMEOUT_SECONDS
    limits: Limits = DEFAULT_LIMITS
    per_frame: Annotated[
        str | None,
        Option(
            "File for the score of every crop or clip, .parquet or .csv, with a folder of parts beside it.",
            "Results",
            "FILE",
            check=path,
        ),
    ] = None
    trace: Annotated[
        str | None, Option("File for a timeline of all stages, for ui.perfetto.dev.", "Results", "FILE", check=path)
    ] = None

    def __post_init__(self) -> None:
        """Check each value by itself, and convert it to Python's own type."""
        check_options(self)
        if not isinstance(self.limits, Limits):
            raise UsageError("limits must be made with deepscan.Limits(...).")

    @property
    def mode(self) -> SamplingMode:
        """Sampling in force: `quick` where only a number of frames or clips is given."""
        return self.sampling or ("full" if self.frames is None and self.clips is None else "quick")

    def with_environment(self) -> Self:
        """Return the options with the backend that the environment names, where none is given.

        Raises:
            UsageError: there is no such backend.
        """
        return msgspec.structs.replace(self, backend=self.backend or os.environ.get(BACKEND_VARIABLE) or "auto")

    def to_json(self) -> bytes:
        """Return the options for another process; names of files that are no valid text survive."""
        return json.dumps(msgspec.to_builtins(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Return what `to_json` was given."""
        return msgspec.convert(json.loads(data), cls)


rename_in_messages(ScanOptions)


class ScanKeywords(TypedDict, total=False):
    """Keywords of `deepscan.scan`: the fields of `ScanOptions`, with all types that are converted."""

    model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    sampling: SamplingMode | None
    recursive: bool
    include: str | Sequence[str]
    exclude: str | Sequence[str]
    follow_links: bool
    threshold: float | None
    calibration: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    fuse: str | os.PathLike[str] | None
    frames: int | None
    clips: int | None
    aggregate: Aggregate | None
    min_face: int | None
    face_detector: FaceDetectorChoice
    mirror: bool | None
    jobs: int | None
    device: str
    decoder: DecoderChoice
    backend: str | None
    precision: PrecisionChoice
    detect_every: int
    memory: int | None
    timeout: float | None
    limits: Limits
    per_frame: str | os.PathLike[str] | None
    trace: str | os.PathLike[str] | None
