"""A fixed set of scans gives the rows that it gave before the code was last rebuilt.

The rows in `same_rows/` were written by an earlier version. A change of behavior that is meant shows up here: then the
files are written anew, and the commit says why. `elapsed_seconds` is left out, as it is measured.

    python -m tests.test_same_rows    writes the files anew
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from PIL import Image

from tests.cli.console import deepscan
from tests.runtime.tiny_detectors import tiny_clip_artifact, tiny_frame_artifact

ROOT: Final = Path(__file__).parents[1]
ROWS: Final = Path(__file__).with_name("same_rows")
MEASURED: Final = "elapsed_seconds"
# Processors round differently; a score moves by less than this.
CLOSE: Final = 1e-3
EXAMPLES: Final = ("astronaut_h264.mp4", "no_face_mpeg4.avi", "swapped_face_av1.mp4", "two_faces_vp9.webm")
PORTRAIT: Final = "phone_portrait_hevc.mp4"
SAME_MACHINE: Final = ("--device", "cpu", "--backend", "onnxruntime", "--precision", "fp32")
CASES: Final[dict[str, tuple[str, ...]]] = {
    "full": (PORTRAIT, "swapped_face_av1.mp4", "still.png"),
    "quick": ("", "missing.mp4", "empty.mp4", "--frames", "6"),
    "paper": (*EXAMPLES[:2], "--sampling", "paper", "--frames", "5"),
    "other_options": (
        *(*EXAMPLES, "--frames", "5", "--aggregate", "mean", "--no-mirror"),
        *("--threshold", "0.3", "--min-face", "150", "--detect-every", "3"),
    ),
    "whole_pictures": ("still.png", "no_face_mpeg4.avi", "--face-detector", "none", "--frames", "4"),
    "truncated": ("two_faces_vp9.webm", PORTRAIT, "--max-frames", "12", "--on-limit", "truncate"),
    "clips": ("swapped_face_av1.mp4", "still.png", "--model", "tiny-clip.onnx,lite,tiny-frame.onnx", "--clips", "2"),
    "over_limits": (PORTRAIT, "still.png", "--max-frames", "12", "--max-pixels", "300000"),
}


def inputs(folder: Path) -> None:
    """Fill a folder with the examples, and with files that cannot be scanned, or not all of them."""
    for name in (*EXAMPLES, PORTRAIT):
        shutil.copy(ROOT / "examples" / name, folder)
    data = (folder / EXAMPLES[0]).read_bytes()
    (folder / "cut.avi").write_bytes((folder / "no_face_mpeg4.avi").read_bytes()[:40_000])
    (folder / "noise.mp4").write_bytes(data[:200] + bytes(3000))
    (folder / "text.mkv").write_text("not a video\n" * 50)
    (folder / "empty.mp4").touch()
    (folder / "twice.mp4").write_bytes(data)
    across, down = np.meshgrid(np.arange(320), np.arange(240))
    pixels = np.stack([across % 256, down, (across * down) % 256], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "still.png")
    tiny_clip_artifact(folder)
    tiny_frame_artifact(folder)


def rows(case: str, folder: Path, out: Path) -> list[dict[str, str]]:
    """Scan, and return the rows without what is measured."""
    arguments = [argument or "." for argument in CASES[case]]
    ran = deepscan("scan", "--out", out, "--quiet", *SAME_MACHINE, *arguments, cwd=folder)
    assert ran.code in (0, 1), ran.err
    with open(out, newline="", encoding="utf-8") as file:
        return [{name: cell for name, cell in row.items() if name != MEASURED} for row in csv.DictReader(file)]


def is_close(one: str, other: str) -> bool:
    """Tell whether two cells are the same text, or numbers with a point that are nearly the same."""
    if "." not in one or "." not in other:
        return one == other
    try:
        return abs(float(one) - float(other)) < CLOSE
    except ValueError:
        return one == other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inputs")
    inputs(made)
    return made


@pytest.mark.parametrize("case", CASES)
def test_the_rows_are_those_of_an_earlier_version(case: str, folder: Path, tmp_path: Path) -> None:
    with open(ROWS / f"{case}.csv", newline="", encoding="utf-8") as file:
        before = list(csv.DictReader(file))
    now = rows(case, folder, tmp_path / "now.csv")
    assert [list(row) for row in now] == [list(row) for row in before]
    different = [
        f"{row['path']}: {name}: {old[name]!r} became {cell!r}"
        for row, old in zip(now, before, strict=True)
        for name, cell in row.items()
        if not is_close(cell, old[name])
    ]
    assert different == []


def write_anew() -> None:
    """Write what this version gives."""
    with tempfile.TemporaryDirectory() as made:
        inputs(Path(made))
        for case in CASES:
            with tempfile.TemporaryDirectory() as results:
                found = rows(case, Path(made), Path(results) / "now.csv")
            with open(ROWS / f"{case}.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(found)


if __name__ == "__main__":
    write_anew()
