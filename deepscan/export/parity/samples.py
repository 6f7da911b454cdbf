"""Real crops and clips, cut by the very stages that cut them in a scan: to measure ranges, and to compare answers."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Final

import numpy as np

from deepscan.errors import UsageError
from deepscan.export.parity.sample_collector import SampleCollector
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.inputs import PlannedInput, plan_inputs
from deepscan.wording import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.spec import DetectorSpec

PACKAGED_VIDEO: Final = "portraits.mp4"
PACKAGED_SEED: Final = 0
CROPS_TO_MEASURE: Final = 16
CLIPS_TO_MEASURE: Final = 4
FAILURES_NAMED: Final = 5
LABELS: Final = {"fake": True, "1": True, "real": False, "0": False}


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Real crops or clips.

    Attributes:
        items: RGB uint8 [M, *spec.item_shape], video by video in the order of their paths, and in the order of time.
        sources: where each item comes from, such as "video.mp4 at 3.2 s".
        videos: for each item the path of its video.
        fakes: for each item whether its video is a forgery, None where that is not known.
        sha256: of all pixels, in order.
        skipped: path and reason of each video that gave nothing.
    """

    items: NDArray[np.uint8]
    sources: tuple[str, ...]
    videos: tuple[str, ...]
    fakes: tuple[bool | None, ...]
    sha256: str
    skipped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Samples({self.items.shape}, from {len(set(self.videos))} videos, {len(self.skipped)} skipped)"


def _no_progress(_: int) -> None:
    """Tell nobody."""


def gather_samples(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    spec: DetectorSpec,
    *,
    count: int,
    seed: int,
    labels: Mapping[str, bool] | None = None,
    progress: Callable[[int], None] = _no_progress,
) -> Samples:
    """Cut crops or clips out of videos as a scan does, at places spread over them.

    The videos share `count` evenly, and what a short one, or one with few faces, cannot give goes to the others; see
    `gathering.py`. The answer depends on the set of paths and on the seed, not on the order of the paths.

    Args:
        paths: files and folders, as for `deepscan.scan`.
        spec: of the detector that the samples are for.
        count: how many at most; twice as many are in memory for a moment.
        seed: decides which videos give one more than others, or anything at all where there are more than `count`; and
            which places of a video come first.
        labels: for paths of videos whether they are forgeries.
        progress: called now and then with how many there are.

    Raises:
        UsageError: there is no path, no usable video, or labels for none of them.
        MachineError: YuNet's package is broken.
    """
    if count < 1:
        raise UsageError(f"{count} samples cannot be gathered: ask for at least 1.")
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    once: dict[str, PlannedInput] = {}
    for found in sorted(plan_inputs(given).inputs, key=lambda found: os.fsencode(found.path)):
        once.setdefault(_absolute(found.path), found)
    jobs = [VideoJob(number, found.path, found.problem) for number, found in enumerate(once.values())]
    known = _labels_of(jobs, labels)
    gathering = SampleCollector(spec, count=count, seed=seed, progress=progress)
    taken = gathering.run(jobs)
    skipped = tuple(f"{jobs[number].path}: {reason}" for number, reason in sorted(gathering.failures.items()))
    if not taken:
        raise UsageError(_nothing(skipped, spec))
    items = np.stack([host_array(face.pixels) for face in taken])
    return Samples(
        items=items,
        sources=tuple(f"{os.path.basename(face.job.path)} at {face.start_seconds:.1f} s" for face in taken),
        videos=tuple(face.job.path for face in taken),
        fakes=tuple(known.get(face.job.index) for face in taken),
        sha256=hashlib.sha256(items.data).hexdigest(),
        skipped=skipped,
    )


def packaged_samples(spec: DetectorSpec, *, count: int) -> Samples:
    """Return crops or clips of the video of portraits that comes with the package: at most `count`, always the same.

    Raises:
        UsageError: `count` is less than 1.
        MachineError: YuNet's package is broken.
    """
    with as_file(files("deepscan") / "assets" / PACKAGED_VIDEO) as path:
        return gather_samples(path, spec, count=count, seed=PACKAGED_SEED)


def samples_to_measure(spec: DetectorSpec) -> Samples:
    """Return what backends are compared and timed on: 16 crops, or 4 clips, of the video that comes with the package.

    Raises:
        UsageError: none of its faces is large enough for this detector.
        MachineError: YuNet's package is broken.
    """
    return packaged_samples(spec, count=CLIPS_TO_MEASURE if spec.kind == "clip" else CROPS_TO_MEASURE)


def read_labels(path: str | os.PathLike[str]) -> dict[str, bool]:
    """Read which videos are forgeries from a CSV file with the columns `path` and `label`.

    Args:
        path: of the file; its relative paths are relative to its folder, its labels real or 0, and fake or 1.

    Returns:
        For each video, by its absolute path, whether it is a forgery.

    Raises:
        UsageError: the file cannot be read, lacks a column, has another label, contradicts itself, or has no rows.
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise UsageError(f"{name} has no columns `path` and `label`: write them into its first line.")
            return _labels(name, rows)
    except OSError as error:
        raise UsageError(f"The labels in {name} cannot be read ({error.strerror}): check the path.") from error
    except csv.Error as error:
        raise UsageError(f"{name} is not a CSV file ({error}): save the labels as CSV.") from error


def _labels(name: str, rows: csv.DictReader[str]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for row in rows:
        where = f"{name}, line {rows.line_num}"
        if not row["path"]:
            raise UsageError(f"{where} names no video: write its path into the column `path`.")
        label = LABELS.get((row["label"] or "").strip().lower())
        if label is None:
            raise UsageError(f"{where} has the label {row['label']!r}: use one of {', '.join(LABELS)}.")
        video = _absolute(os.path.join(os.path.dirname(name), row["path"]))
        if found.setdefault(video, label) != label:
            raise UsageError(f"{where} calls {row['path']} both real and fake: leave one of the lines out.")
    if not found:
        raise UsageError(f"{name} has no line below its first: write one for each video.")
    return found


def _absolute(path: str) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a name that no file can have
        return path


def _labels_of(jobs: Iterable[VideoJob], labels: Mapping[str, bool] | None) -> dict[int, bool]:
    """Return the labels by the numbers of the jobs."""
    by_path = {_absolute(path): fake for path, fake in (labels or {}).items()}
    known = {job.index: by_path[path] for job in jobs if (path := _absolute(job.path)) in by_path}
    if labels and not known:
        raise UsageError(f"No label is for one of the videos ({counted(len(labels), 'label')}): compare the paths.")
    return known


def _nothing(skipped: tuple[str, ...], spec: DetectorSpec) -> str:
    named = "; ".join(line.rstrip(".") for line in skipped[:FAILURES_NAMED])
    others = f"; and {counted(len(skipped) - FAILURES_NAMED, 'other')}" if len(skipped) > FAILURES_NAMED else ""
    return f"No video gave a face for {spec.name} ({named}{others}): give videos with faces."
