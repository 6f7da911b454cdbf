"""A result as a JSON record and as a line of the CSV, and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import msgspec

from deepscan.results import VideoResult

COLUMNS: Final = [
    "path",
    "status",
    "reason",
    "score",
    "label",
    "model",
    "faces",
    "tracks",
    "clips",
    "frames",
    "duration_seconds",
    "width",
    "height",
    "codec",
    "peak_start_seconds",
    "peak_end_seconds",
    "peak_score",
    "backend",
    "precision",
    "weights_sha256",
    "settings_sha256",
    "elapsed_seconds",
]
CSV_HEADER: Final = ",".join(COLUMNS) + "\n"
# At the beginning of a CSV it tells Excel that the text is UTF-8.
BOM: Final = "\ufeff"
# A cell that begins like this is executed as a formula by spreadsheets; an apostrophe in front makes it text.
# Cells that begin with an apostrophe get one too, so that taking one away always gives back the text.
NEUTRALIZED: Final = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n'")
# In the JSON record, and not in the CSV; records of older versions have none.
THRESHOLDS: Final = ("real_below", "fake_from")
PEAK: Final = ("start_seconds", "end_seconds", "score", "clips")


def record_of(result: VideoResult) -> dict[str, Any]:
    """Return the JSON record of a result: the columns of the CSV, the label's thresholds, and `track_details`."""
    fields = asdict(result)
    peak = fields.pop("peak") or dict.fromkeys(PEAK)
    fields |= {f"peak_{name}": peak[name] for name in PEAK}
    record = {column: _rounded(column, fields[column]) for column in COLUMNS}
    record |= {name: _rounded(name, fields[name]) for name in THRESHOLDS}
    return record | {"track_details": [_rounded_deep(track) for track in fields["details"]]}


def result_of(record: Mapping[str, Any], *, index: int, row: int, path: str) -> VideoResult:
    """Return the result that a record of the journal tells of, rounded as it is there.

    Args:
        record: the columns and `peak_clips`; without `track_details` the result has none.
        index: the result's place among the inputs.
        row: its place among the results.
        path: of the input, which may have been moved since.

    Raises:
        ValueError: it is no such record.
    """
    try:
        fields = {name: record[name] for name in COLUMNS if not name.startswith("peak_")}
        peak = {name: record[f"peak_{name}"] for name in PEAK}
    except KeyError as error:
        raise ValueError(f"The record has no {error}.") from error
    fields |= {"index": index, "row": row, "path": path, "details": record.get("track_details", [])}
    fields |= {name: record.get(name) for name in THRESHOLDS}
    fields["peak"] = None if peak["start_seconds"] is None else peak
    result: VideoResult = msgspec.convert(fields, VideoResult)  # its ValidationError is a ValueError
    return result


def csv_line(record: Mapping[str, Any]) -> str:
    """Return a record's line of the CSV, newline included."""
    text = io.StringIO()
    # With this terminator the writer quotes both kinds of line break, which it would not do for a bare newline.
    csv.writer(text, lineterminator="\r\n").writerow([_cell(record[column]) for column in COLUMNS])
    return text.getvalue()[:-2] + "\n"


def jsonl_line(record: Mapping[str, Any]) -> str:
    """Return a record's line of a JSONL that is not a journal, in ASCII, newline included."""
    return json.dumps(record, allow_nan=False) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(NEUTRALIZED) else text


def _rounded(name: str, value: Any) -> Any:
    """Keep milliseconds of times and six digits of probabilities, however small."""
    if not isinstance(value, float):
        return value
    return round(value, 3) if name.endswith("seconds") else float(f"{value:.6g}")


def _rounded_deep(value: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [_rounded_deep(item) for item in inner] if isinstance(inner, (list, tuple)) else _rounded(name, inner)
        for name, inner in value.items()
    }
