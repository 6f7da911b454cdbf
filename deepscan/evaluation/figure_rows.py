"""All figures of an evaluation as one flat table: a row per detector, part of the videos and figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Final

from deepscan.evaluation.figures import Evaluation, Figure, Figures

COLUMNS: Final = (
    "detector",
    "factor",
    "value",
    "against",
    "unscored",
    "figure",
    "estimate",
    "low",
    "high",
    "reason",
    "fakes",
    "genuine",
    "scored_fakes",
    "scored_genuine",
    "fake_groups",
    "genuine_groups",
)
OVERALL: Final = "overall"
FRAME_LEVEL: Final = "frame level"
MACRO: Final = "macro mean"
DIFFERENCE: Final = "difference"
Cells = tuple[str | int | float | None, ...]


def figure_rows(evaluation: Evaluation) -> Iterator[Cells]:
    """Yield the cells of each row, in the order of `COLUMNS`.

    `factor` and `value` say which videos: `overall`, or such as `method` and `faceswap`, or `macro mean` for the mean
    over the parts of a factor, or `difference` and the names of two detectors, or `frame level` for crops and clips
    instead of videos. `unscored` says whether videos without a score are `left out` or count `as errors`.
    """
    for found in evaluation.detectors:
        yield from _of_videos(found.detector, OVERALL, "", "", found.overall)
        if found.frame_level is not None:
            yield from _of_videos(found.detector, FRAME_LEVEL, "", "", found.frame_level)
        for part in found.parts:
            yield from _of_videos(found.detector, part.factor, part.value, part.against, part.figures)
        for factor, figures in found.macro.items():
            yield from _rows((found.detector, factor, MACRO, "", "left out"), figures, ())
    for difference in evaluation.differences:
        head = (f"{difference.first} minus {difference.second}", DIFFERENCE, "", "", "left out")
        yield from _rows(head, difference.figures, (difference.fakes, difference.genuine) * 2)


def figures_csv(evaluation: Evaluation) -> bytes:
    """Return the rows as a CSV file in UTF-8."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(figure_rows(evaluation))
    return file.getvalue().encode("utf-8", "surrogateescape")


def _of_videos(detector: str, factor: str, value: str, against: str, figures: Figures) -> Iterator[Cells]:
    counts = (figures.fakes, figures.genuine, figures.scored_fakes, figures.scored_genuine)
    groups = (figures.fake_groups, figures.genuine_groups)
    for unscored, named in (("left out", figures.figures), ("as errors", figures.as_errors)):
        yield from _rows((detector, factor, value, against, unscored), named, (*counts, *groups))


def _rows(head: Cells, figures: Mapping[str, Figure], tail: Cells) -> Iterator[Cells]:
    filled = (*tail, *[None] * (6 - len(tail)))
    for name, figure in figures.items():
        yield (*head, name, figure.value, figure.low, figure.high, figure.reason, *filled)
