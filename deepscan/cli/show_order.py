"""In which order `deepscan show` lists rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from deepscan.results import SUCCEEDED, VideoResult

Found: TypeAlias = tuple[VideoResult, int]

Order: TypeAlias = Literal["score", "path", "status", "time", "duration", "elapsed"]


def in_order(rows: Sequence[Found], order: Order) -> list[Found]:
    """Sort rows; of equal ones, the one that was found first comes first.

    Args:
        rows: each with the place of its record, which grows with time.
        order: `score` has the highest first, then what was looked at and has none, then failures, by status; `status`
            is alphabetical, with the highest score first in each; `time`, `duration` and `elapsed` have the latest or
            longest first.
    """
    match order:
        case "score":
            return sorted(rows, key=lambda found: _by_score(found[0]))
        case "path":
            return sorted(rows, key=lambda found: found[0].path)
        case "status":
            return sorted(rows, key=lambda found: (found[0].status, _by_score(found[0])))
        case "time":
            return sorted(rows, key=lambda found: -found[1])
        case "duration":
            return sorted(rows, key=lambda found: -(found[0].duration_seconds or 0.0))
        case "elapsed":
            return sorted(rows, key=lambda found: -found[0].elapsed_seconds)


def _by_score(row: VideoResult) -> tuple[int, float, str]:
    if row.score is not None:
        return 0, -row.score, ""
    return (1 if row.status in SUCCEEDED else 2), 0.0, row.status
