"""The options of `deepscan scan`: their types, limits, help and the panels in which the help shows them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

from deepscan.cli.completion import complete_models

INPUTS = "Inputs"
SCORED = "Scoring"
SPEED = "Speed"
RESULTS = "Results"
RESUMING = "Resuming"
LIMITS = "Limits"

Paths: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH...", help="Videos, pictures and folders to scan.", show_default=False),
]

# What is needed every day, in the first panel.
Out: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="CSV to write, with a .jsonl beside it; - prints the CSV.",
        show_default="results.csv",
    ),
]
Model: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        help="Detectors, separated by commas: names from `deepscan models`, or exported .onnx files.",
        autocompletion=complete_models,
    ),
]
Sampling: TypeAlias = Annotated[
    Literal["full", "quick", "paper"] | None,
    typer.Option(
        metavar="MODE",
        help="full: every frame; quick: a few of them; paper: the ones the detector's authors used.",
        show_default="full",
    ),
]
FailOn: TypeAlias = Annotated[
    Literal["fake", "uncertain"] | None,
    typer.Option(
        metavar="LABEL",
        help="Exit with code 4 if any result is labeled fake (or, with uncertain, fake or uncertain).",
        show_default=False,
    ),
]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only list what would be scanned.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress, table or warnings.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Print each result as it comes.")]

FromFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="File with one path per line, or paths separated by NUL bytes; - reads stdin.",
        rich_help_panel=INPUTS,
        show_default=False,
    ),
]
Recursive: TypeAlias = Annotated[bool, typer.Option(help="Descend into subfolders.", rich_help_panel=INPUTS)]
Include: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="In folders, scan only files that match this pattern, whatever their extension. May be repeated.",
        rich_help_panel=INPUTS,
        show_default=False,
    ),
]
Exclude: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="In folders, skip files and subfolders that match this pattern. May be repeated.",
        rich_help_panel=INPUTS,
        show_default=False,
    ),
]
FollowLinks: TypeAlias = Annotated[
    bool, typer.Option("--follow-links", help="Follow symbolic links inside folders.", rich_help_panel=INPUTS)
]

Threshold: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        metavar="P",
        help="Score from which a video is labeled fake.",
        rich_help_panel=SCORED,
        show_default="the detector's",
    ),
]
Frames: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Frames per video, for quick and paper; implies --sampling quick if none is given.",
        rich_help_panel=SCORED,
        show_default="32, or the authors'",
    ),
]
Clips: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Stretches per video, for quick with clip detectors; implies --sampling quick if none is given.",
        rich_help_panel=SCORED,
        show_default="4",
    ),
]
Aggregate: TypeAlias = Annotated[
    Literal["max", "mean"] | None,
    typer.Option(
        metavar="HOW",
        help="Score of a video: max, that of its highest track, or mean, the average over all tracks.",
        rich_help_panel=SCORED,
        show_default="max; for paper the authors'",
    ),
]
MinFace: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Smallest face to score, by its longer side.",
        rich_help_panel=SCORED,
        show_default="the detector's",
    ),
]
FaceDetector: TypeAlias = Annotated[
    Literal["yunet", "retinaface", "none"],
    typer.Option(
        metavar="NAME",
        help="yunet, retinaface, or none if every picture is already a cropped face.",
        rich_help_panel=SCORED,
    ),
]
Mirror: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        help="Average the scores of each crop and its mirror image, at twice the cost.",
        rich_help_panel=SCORED,
        show_default="the detector's",
    ),
]

DetectEvery: TypeAlias = Annotated[
    int, typer.Option(min=1, metavar="N", help="Search every Nth frame for faces.", rich_help_panel=SPEED)
]
Jobs: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Videos to decode at once.",
        rich_help_panel=SPEED,
        show_default="one per processor",
    ),
]
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="Where detectors run: auto, cpu, cuda, some GPUs (cuda:0,1) or all of them (cuda:all).",
        rich_help_panel=SPEED,
    ),
]
Decoder: TypeAlias = Annotated[
    Literal["auto", "cpu", "nvdec"],
    typer.Option(
        metavar="NAME",
        help="Video decoder when a GPU is used: cpu, nvdec, or auto, whichever is faster for the video.",
        rich_help_panel=SPEED,
    ),
]
Backend: TypeAlias = Annotated[
    Literal["auto", "onnxruntime", "openvino", "torch", "tensorrt"] | None,
    typer.Option(
        metavar="NAME",
        help="What runs detectors: onnxruntime, openvino, torch, tensorrt, or auto, the fastest here (measured once).",
        rich_help_panel=SPEED,
        show_default="auto",
    ),
]
Precision: TypeAlias = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "int8"],
    typer.Option(
        metavar="TYPE",
        help="Arithmetic: fp32, bf16, fp16, int8, or auto, the fastest that gives the same scores.",
        rich_help_panel=SPEED,
    ),
]
Memory: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="MIB",
        help="Most memory that the scanning process may use, in MiB.",
        rich_help_panel=SPEED,
        show_default="90 % of the machine's",
    ),
]

Jsonl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="-",
        help="Print JSONL records to stdout instead of writing files.",
        rich_help_panel=RESULTS,
        show_default=False,
    ),
]
CsvBom: TypeAlias = Annotated[
    bool,
    typer.Option("--csv-bom", help="Begin the CSV with a byte order mark, for Excel.", rich_help_panel=RESULTS),
]
Stats: TypeAlias = Annotated[
    bool, typer.Option("--stats", help="Print where the time went, stage by stage.", rich_help_panel=RESULTS)
]
Log: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File to append events to, one JSON object per line.",
        rich_help_panel=RESULTS,
        show_default=False,
    ),
]
TraceFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File for a timeline of all stages, for ui.perfetto.dev.",
        rich_help_panel=RESULTS,
        show_default=False,
    ),
]

RetryFailed: TypeAlias = Annotated[
    bool,
    typer.Option("--retry-failed", help="Scan again what could not be scanned before.", rich_help_panel=RESUMING),
]
Fresh: TypeAlias = Annotated[
    bool, typer.Option("--fresh", help="Ignore earlier results in this --out and start over.", rich_help_panel=RESUMING)
]
Prune: TypeAlias = Annotated[
    bool,
    typer.Option("--prune", help="Leave rows of other inputs and detectors out of the CSV.", rich_help_panel=RESUMING),
]
Hashing: TypeAlias = Annotated[
    Literal["fast", "full"],
    typer.Option(
        "--hash",
        metavar="HOW",
        help="How files are recognized: fast, by head, middle and tail, or full, by every byte.",
        rich_help_panel=RESUMING,
    ),
]

Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Most time that one file may take; 0: no limit.",
        rich_help_panel=LIMITS,
        show_default="a day",
    ),
]
MaxDuration: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Longest video; 0: no limit.",
        rich_help_panel=LIMITS,
        show_default="12 hours",
    ),
]
MaxFileSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="MIB", help="Largest file, in MiB; 0: no limit.", rich_help_panel=LIMITS, show_default="64 GiB"
    ),
]
MaxPixels: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Most pixels in a frame; 0: no limit.",
        rich_help_panel=LIMITS,
        show_default="134 million",
    ),
]
MaxFrames: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Most frames in a video; 0: no limit.",
        rich_help_panel=LIMITS,
        show_default="2.6 million",
    ),
]
MaxStreams: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="Most streams in a file; 0: no limit.", rich_help_panel=LIMITS, show_default="128"
    ),
]
MaxFaces: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="Most faces in a frame; 0: no limit.", rich_help_panel=LIMITS, show_default="200"
    ),
]
MaxTracks: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="Most tracks in a video; 0: no limit.", rich_help_panel=LIMITS, show_default="100,000"
    ),
]
OnLimit: TypeAlias = Annotated[
    Literal["skip", "truncate"],
    typer.Option(
        metavar="HOW",
        help="What to do with a file over a limit: skip it, or truncate it (score the part within the limit).",
        rich_help_panel=LIMITS,
    ),
]
