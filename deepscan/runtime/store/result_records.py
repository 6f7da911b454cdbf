"""A record as a line of the CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any, Final

from deepscan.results import COLUMNS

CSV_HEADER: Final = ",".join(COLUMNS) + "\n"
# At the beginning of a CSV it tells Excel that the text is UTF-8.
BOM: Final = "\ufeff"
# A cell that begins like this is executed as a formula by spreadsheets; an apostrophe in front makes it text.
# Cells that begin with an apostrophe get one too, so that taking one away always gives back the text.
NEUTRALIZED: Final = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n'")


def csv_line(record: Mapping[str, Any]) -> str:
    """Return a record's line of the CSV, newline included."""
    text = io.StringIO()
    # With this terminator the writer quotes both kinds of line break, which it would not do for a bare newline.
    csv.writer(text, lineterminator="\r\n").writerow([_cell(record[column]) for column in COLUMNS])
    return text.getvalue()[:-2] + "\n"


def jsonl_line(record: Mapping[str, Any]) -> str:
    """Return a record's line of a JSONL that is not a journal, in ASCII, newline included."""
    return json.dumps({name: value for name, value in record.items() if name != "peak_clips"}, allow_nan=False) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(NEUTRALIZED) else text
