"""Soak test: speed, memory and completeness of a scan of very many files.

    python -m benchmarks.soak --files N [--json FILE] [--plot FILE]

Makes N small videos (a second of 96 x 96 pixels with a face, of several codecs; every tenth is one of
`tests.mutations`), scans them with the command `deepscan scan --frames 2` as a user would, and samples the memory of
that process and all that it starts. Reports files per second, memory in the first and in the last tenth of the scan,
how many rows have which status, and which files have no row or several. The exit code is 0 if each file has exactly one
row.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import av

from benchmarks.footage import PORTRAIT, encode
from benchmarks.measure import machine
from benchmarks.processes import Sample, memory_watched
from deepscan.installing import install_extra
from tests.mutations import mutated

SIDE, FRAMES = 96, 25
FACE = (360, 20, 880, 540)  # left, top, right, bottom in the portrait's 1280 x 720 pixels
ENCODERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("libx264", "mp4", {"preset": "veryfast"}),
    ("mpeg4", "avi", {}),
    ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8"}),
    ("mpeg2video", "ts", {}),
    ("libx265", "mkv", {"preset": "ultrafast", "x265-params": "log-level=none"}),
)
HOSTILE_EVERY = 10
FILES_PER_FOLDER = 500
SAMPLES_PER_SECOND = 5.0
MEBIBYTE = 1 << 20
MOST_NAMED = 20
# Until models are loaded and every buffer was in use once; scans of less than three times that tell nothing of growth.
SETTLED_SECONDS = 10.0
ENDING_SECONDS = 1.0


@dataclass(frozen=True)
class Soaked:
    """Findings of a soak test.

    Attributes:
        seconds: from the start of the command to its end.
        exit_code: of the command; 1 where a file could not be scanned, as is to be expected.
        statuses: how many rows have which.
        missing, repeated: names of files without a row, and with several.
        early_megabytes, late_megabytes: mean memory of all processes together in the first and last tenth of the time,
            loading and leaving excepted; None where the scan was too short for that.
        growth: of the memory, from the first to the last tenth; 0.02 is 2 %; or None.
        curve: seconds since the start, and MiB of all processes.
    """

    files: int
    seconds: float
    files_per_second: float
    exit_code: int
    statuses: dict[str, int]
    missing: list[str]
    repeated: list[str]
    early_megabytes: float | None
    late_megabytes: float | None
    peak_megabytes: float
    growth: float | None
    curve: list[tuple[float, float]]
    machine: str


def make_files(folder: Path, count: int) -> list[str]:
    """Fill a folder with videos, some hundreds in each folder inside; return their paths."""
    fine = [(ending, _encoded(folder / f"one.{ending}", codec, options)) for codec, ending, options in ENCODERS]
    paths = []
    for number in range(count):
        if number % HOSTILE_EVERY == HOSTILE_EVERY - 1:
            name, data = mutated(number // HOSTILE_EVERY)
        else:
            ending, data = fine[number % len(fine)]
            name = f"fine.{ending}"
            # Different files, or those that were scanned already would not be scanned again: what comes behind the end
            # of a video is passed over.
            data += b"%016d" % number
        path = folder / f"{number // FILES_PER_FOLDER:04}" / f"{number:06}_{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        paths.append(str(path))
    return paths


def soak(files: int) -> Soaked:
    """Make the files, scan them, and check the results."""
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        videos, out = Path(scratch) / "videos", Path(scratch) / "results.csv"
        videos.mkdir()
        paths = make_files(videos, files)
        command = [str(Path(sys.executable).with_name("deepscan")), "scan", str(videos), "--out", str(out), "-q"]
        command += ["--frames", "2", "--min-face", "32"]
        started = time.perf_counter()
        with subprocess.Popen(command) as process, memory_watched(process.pid, 1 / SAMPLES_PER_SECOND) as samples:
            code = process.wait()
        seconds = time.perf_counter() - started
        rows = _rows(out)
    counts = Counter(row["path"] for row in rows)
    early, late = early_and_late(samples)
    return Soaked(
        files=files,
        seconds=round(seconds, 3),
        files_per_second=round(files / seconds, 3),
        exit_code=code,
        statuses=dict(sorted(Counter(row["status"] for row in rows).items())),
        missing=[path for path in paths if path not in counts],
        repeated=[path for path, count in counts.items() if count > 1],
        early_megabytes=early,
        late_megabytes=late,
        peak_megabytes=round(max(sample.total_bytes for sample in samples) / MEBIBYTE, 1),
        growth=None if early is None or late is None else round(late / early - 1, 4),
        curve=[(round(sample.seconds, 2), round(sample.total_bytes / MEBIBYTE, 1)) for sample in samples],
        machine=machine(),
    )


def early_and_late(samples: Sequence[Sample]) -> tuple[float, float] | tuple[None, None]:
    """Return the mean memory in MiB in the first and in the last tenth of the time, loading and leaving excepted.

    Args:
        samples: in the order of time.
    """
    end = samples[-1].seconds
    if end < 3 * SETTLED_SECONDS:
        return None, None
    settled = [sample for sample in samples if SETTLED_SECONDS <= sample.seconds <= end - ENDING_SECONDS]
    tenth = max(1, len(settled) // 10)
    return _mean_megabytes(settled[:tenth]), _mean_megabytes(settled[-tenth:])


def report(found: Soaked) -> str:
    """Return the findings as lines of text."""
    statuses = ", ".join(f"{count} {status}" for status, count in found.statuses.items())
    growth = "too short a scan to speak of growth"
    if found.growth is not None:
        early, late = found.early_megabytes, found.late_megabytes
        growth = f"first tenth {early:.0f} MiB, last tenth {late:.0f} MiB ({found.growth:+.1%})"
    rate = f"{found.files_per_second:.2f} files/s"
    lines = [
        found.machine,
        f"{found.files} files in {found.seconds:.1f} s, {rate}, exit code {found.exit_code}",
        f"rows: {statuses}",
        f"memory of all processes: at most {found.peak_megabytes:.0f} MiB; {growth}",
    ]
    for what, names in (("without a row", found.missing), ("with several rows", found.repeated)):
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        lines.append(f"files {what}: {', '.join(names[:MOST_NAMED]) or 'none'}{more}")
    return "\n".join(lines)


def _mean_megabytes(samples: Sequence[Sample]) -> float:
    return round(sum(sample.total_bytes for sample in samples) / len(samples) / MEBIBYTE, 1)


def write_plot(found: Soaked, path: Path) -> None:
    """Draw the memory over the time; the suffix of the path says as what."""
    from deepscan.runtime.system.library_files import matplotlib_files_removed

    with matplotlib_files_removed():
        _write_plot(found, path)


def _write_plot(found: Soaked, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([seconds for seconds, _ in found.curve], [megabytes for _, megabytes in found.curve], linewidth=1.0)
    axes.set_title(f"deepscan scan of {found.files} files, {found.files_per_second:.1f} files/s", fontsize="medium")
    axes.set_xlabel("seconds")
    axes.set_ylabel("MiB of all processes")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _encoded(path: Path, codec: str, options: dict[str, str]) -> bytes:
    """Encode a second of the portrait's face moving slowly."""
    left, top, right, bottom = FACE
    with av.open(str(PORTRAIT)) as source:
        wholes = [frame.to_ndarray(format="rgb24") for frame in itertools.islice(source.decode(video=0), FRAMES)]
    faces = (av.VideoFrame.from_ndarray(whole[top:bottom, left:right].copy(), format="rgb24") for whole in wholes)
    small = (face.reformat(SIDE, SIDE, "yuv420p", interpolation="AREA") for face in faces)
    data = encode(path, small, codec, {"g": "12", "threads": "1", **options}).read_bytes()
    path.unlink()
    return data


def _rows(out: Path) -> list[dict[str, str]]:
    """Read the CSV; none where the command wrote none."""
    if not out.exists():
        return []
    with open(out, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, required=True, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found, the curve included")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the memory over the time (needs matplotlib)")
    chosen = parser.parse_args()
    if chosen.files < 1:
        parser.error("--files must be at least 1.")
    for file in (chosen.json, chosen.plot):  # found out before the hours, not after
        if file is not None and (not file.parent.is_dir() or file.is_dir()):
            parser.error(f"{file} cannot be written: name a file in a folder that exists.")
    if chosen.plot is not None and find_spec("matplotlib") is None:
        parser.error(f"--plot needs the package matplotlib: run `{install_extra('plot')}`, or use --json.")
    found = soak(chosen.files)
    print(report(found))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(found)) + "\n")
    if chosen.plot is not None:
        write_plot(found, chosen.plot)
    sys.exit(1 if found.missing or found.repeated else 0)


if __name__ == "__main__":
    main()
