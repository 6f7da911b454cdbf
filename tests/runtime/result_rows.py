"""Results to be written, read and compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepscan.results import Segment, TrackResult, VideoResult
from deepscan.runtime.store.identity import DetectorKey
from deepscan.runtime.store.result_files import ResultFiles

PEAK = Segment(start_seconds=0.12345, end_seconds=1.98765, score=0.91234567, clips=7)
TRACK = TrackResult(
    track=3,
    start_seconds=0.0,
    end_seconds=2.00049,
    score=0.7654321,
    clips=9,
    timeline=(PEAK, PEAK),
    sightings=4,
    pooled=False,
    decided=True,
)
ORT = ("onnxruntime-cpu", "fp32")
LITE = DetectorKey("lite", "ab", "cd", frozenset([ORT]))
OTHER = DetectorKey("other", "12", "34", frozenset([ORT]))


def row(index: int = 0, **changes: Any) -> VideoResult:
    fields: dict[str, Any] = {
        "index": index,
        "row": index,
        "path": f"{index}.mp4",
        "status": "no_face",
        "model": "lite",
        "backend": "onnxruntime-cpu",
        "precision": "fp32",
        "weights_sha256": "ab",
        "settings_sha256": "cd",
        "elapsed_seconds": 1.0,
    }
    fields |= changes
    return VideoResult(**{"content": f"fast:1:{fields['path']}", **fields})


def scanned(
    index: int, path: str, key: DetectorKey = LITE, *, number: int = 0, of: int = 1, **changes: Any
) -> VideoResult:
    """Return a scored result of the detector in place `number` of `of`; no two inputs have the same score."""
    fields: dict[str, Any] = {
        "row": index * of + number,
        "path": path,
        "status": "scored",
        "label": "fake",
        "score": 1 / (index + 2),
        "peak": PEAK,
        "details": (TRACK,),
        "model": key.model,
        "weights_sha256": key.weights_sha256,
        "settings_sha256": key.settings_sha256,
    }
    return row(index, **(fields | changes))


def of_both(index: int, path: str, **changes: Any) -> list[VideoResult]:
    """Return the scored results of an input from two detectors."""
    return [scanned(index, path, key, number=number, of=2, **changes) for number, key in enumerate((LITE, OTHER))]


def paths(count: int) -> list[str]:
    return [f"{index}.mp4" for index in range(count)]


def files_of(
    out: Path,
    inputs: Sequence[str],
    *,
    contents: Sequence[str | None] | None = None,
    detectors: Sequence[DetectorKey] = (LITE,),
    fresh: bool = False,
    retry_failed: bool = False,
    prune: bool = False,
) -> ResultFiles:
    """Open results; unless told otherwise a file's content is known by its name."""
    held = [f"fast:1:{path}" for path in inputs] if contents is None else contents
    return ResultFiles(
        out, inputs=inputs, contents=held, detectors=detectors, fresh=fresh, retry_failed=retry_failed, prune=prune
    )


def write(out: Path, *results: VideoResult) -> list[list[str]]:
    inputs = [result.path for result in sorted(results, key=lambda result: result.row)]
    with files_of(out, inputs) as files:
        for result in results:
            files.add(result)
        files.commit()
    return rows_in(out)


def rows_in(out: Path) -> list[list[str]]:
    with open(out, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def names_in(out: Path) -> list[str]:
    """Return the paths of a CSV's rows."""
    return [cells[0] for cells in rows_in(out)[1:]]


def records_in(path: Path) -> list[dict[str, object]]:
    """Return the records of a JSONL."""
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]
