"""Fail unless a results.csv of the examples has a real score wherever there is a face."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

with Path(sys.argv[1]).open(newline="", encoding="utf-8") as file:
    rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
expected = {path.name for path in Path("examples").iterdir() if path.suffix in (".mp4", ".webm", ".avi")}
assert rows.keys() == expected, f"rows {sorted(rows)}, videos {sorted(expected)}"
assert len(rows) >= 4, sorted(rows)
for name, row in rows.items():
    if name.startswith("no_face"):
        assert (row["status"], row["score"]) == ("no_face", ""), row
    else:
        assert row["status"] == "scored", row
        assert 0.0 < float(row["score"]) < 1.0, row
print(f"{len(rows)} rows, each as it should be")
