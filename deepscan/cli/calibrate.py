"""`deepscan calibrate`: what a score means on one's own footage, as a profile for later scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from deepscan.arguments import MOST_COUNT, PROBABILITY, Option, detectors, path
from deepscan.cli import STDOUT
from deepscan.cli.options import Labels, options_from, takes_options
from deepscan.errors import UsageError

if TYPE_CHECKING:
    from deepscan.evaluation.fusion import FittedFusion
    from deepscan.evaluation.profiles import FittedProfile

EXAMPLES = """Examples:

  deepscan calibrate results.jsonl --labels truth.csv --prevalence 0.01

  deepscan calibrate results.jsonl --labels truth.csv --max-fpr 0.05 --out profile.json

  deepscan calibrate results.jsonl --labels truth.csv --fuse --out fusion.json"""
# By these the files that it writes are known again, so that no others are replaced.
PROFILE = ("calibration", "trained_prevalence", "settings_sha256")
FUSION = ("profiles", "subsets", "trained_prevalence")
ABOVE_ZERO = {**PROBABILITY, "above": True}


class CalibrateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `deepscan calibrate`; the `help` of each field says what it means."""

    labels: Labels = None
    out: Annotated[str, Option("File for the profile.", metavar="FILE", check=path)] = "profile.json"
    model: Annotated[
        Sequence[str] | None,
        Option(
            "Detector to calibrate; with --fuse several, separated by commas.",
            metavar="NAME",
            shown_default="that of the results",
            check=detectors,
        ),
    ] = None
    method: Annotated[
        Literal["auto", "platt", "isotonic"],
        Option(
            "platt: logistic; isotonic: from 1,000 videos on; auto: the better of those that are possible.",
            metavar="METHOD",
        ),
    ] = "auto"
    prevalence: Annotated[
        float | None,
        Option(
            "Share of fakes among the videos that will be scanned.",
            metavar="P",
            shown_default="that of the labeled ones",
            bounds=ABOVE_ZERO,
        ),
    ] = None
    max_fpr: Annotated[
        float | None,
        Option(
            "Promised rate of genuine videos called fake, such as 0.05; it sets the threshold.",
            metavar="RATE",
            bounds=ABOVE_ZERO,
        ),
    ] = None
    fuse: Annotated[bool, Option("Make one score of several detectors.")] = False
    split: Annotated[str | None, Option("Only videos of this split, such as val.", metavar="NAME")] = None
    seed: Annotated[
        int, Option("Seed of folds and resamples.", metavar="N", bounds={"least": 0, "most": MOST_COUNT})
    ] = 0


@takes_options(CalibrateOptions)
def calibrate(
    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="The .jsonl that `deepscan scan` wrote, or the output beside it.")
    ],
    **given: Any,
) -> None:
    """Learn from labeled videos what a detector's score means, and write that as a profile.

    The profile holds for the detector, the weights and the settings of the results. A scan applies it with
    --calibration.

    Exit codes: 0 written; 2 wrong usage, or too few videos for what was asked for; 3 a package is missing, or the
    profile cannot be written.
    """
    from rich.console import Console

    from deepscan.cli.calibrate_display import show_fit, show_written
    from deepscan.cli.streams import refuse_output, write_to
    from deepscan.evaluation.calibrate import calibrate as fitted
    from deepscan.evaluation.calibrate import fuse
    from deepscan.evaluation.labels import labeled_results
    from deepscan.runtime.system.files import json_with

    (options,) = options_from(given, CalibrateOptions)
    if options.labels is None:
        raise UsageError(f"Labels for {results} are missing: give them with --labels.")
    if options.fuse and (options.prevalence is not None or options.max_fpr is not None):
        raise UsageError("--prevalence and --max-fpr apply to one detector: leave them or --fuse out.")
    if not options.fuse and options.model is not None and len(options.model) > 1:
        raise UsageError("--model names several detectors: choose one, or make one score of them with --fuse.")
    refuse_output(options.out, lambda data: any(json_with(names)(data) for names in (PROFILE, FUSION)), "--out")
    found: FittedProfile | FittedFusion
    with Console(stderr=True).status("Fitting ..."):
        match = labeled_results(results, options.labels, split=options.split)
        if options.fuse:
            found = fuse(match, models=options.model, method=options.method, seed=options.seed)
        else:
            found = fitted(
                match,
                model=options.model[0] if options.model else None,
                method=options.method,
                prevalence=options.prevalence,
                max_fpr=options.max_fpr,
                seed=options.seed,
            )
    write_to(options.out, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n", "--out FILE")
    console = Console(stderr=options.out == STDOUT)
    show_fit(found, match, console)
    if options.out != STDOUT:
        show_written(options.out, console, fused=options.fuse)
