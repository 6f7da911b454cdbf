"""Which files a scan writes, and that none of them is an input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from deepscan.errors import UsageError
from deepscan.runtime.journal.output_lock import lock_path
from deepscan.runtime.journal.replacing import is_partial_of


def checked_jsonl_path(csv_path: Path, inputs: Sequence[str]) -> Path:
    """Return the path of the JSONL beside a CSV, once it is clear that no input would be written to.

    Links are resolved; locks and temporary files are looked at, too.

    Raises:
        UsageError: the path cannot be that of a CSV, or an input would be overwritten.
    """
    if csv_path.suffix == ".jsonl":
        raise UsageError(f"--out {csv_path} is the name of a JSONL: name the CSV, the JSONL is written beside it.")
    jsonl_path = csv_path.parent / f"{csv_path.stem}.jsonl"
    taken = {os.path.realpath(path) for path in inputs}
    for path in (csv_path, jsonl_path):
        if path.is_dir():
            raise UsageError(f"{path} is a folder and cannot be written to: let --out name a file.")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is a device or a pipe: let --out name a file, or use - for stdout.")
        real, lock = Path(os.path.realpath(path)), str(lock_path(path))
        for name in taken:
            folder, _, last = name.rpartition(os.sep)
            temporary = folder == str(real.parent) and is_partial_of(real, last)
            if temporary or name in (str(real), lock):
                raise UsageError(f"{name} is one of the inputs and would be overwritten: choose another --out.")
    return jsonl_path
