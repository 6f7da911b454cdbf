"""Real crops and clips, cut by the stages of a scan: to calibrate with, and to compare detectors on."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Real crops or clips.

    Attributes:
        items: RGB uint8 [M, *spec.item_shape], in the order of the videos' paths, and of time.
        sources: origin of each item, such as "video.mp4 at 3.2 s".
        videos: path of each item's video.
        fakes: whether each item's video is a forgery; None if that is not known.
        skipped: path and reason of each video that gave nothing.
    """

    items: NDArray[np.uint8]
    sources: tuple[str, ...]
    videos: tuple[str, ...]
    fakes: tuple[bool | None, ...]
    skipped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Samples({self.items.shape}, from {len(set(self.videos))} videos, {len(self.skipped)} skipped)"

    @property
    def sha256(self) -> str:
        """Hash of all pixels, in order."""
        return hashlib.sha256(self.items.data).hexdigest()

    def picked(self, places: Sequence[int]) -> Samples:
        """Return the items with these indices."""
        return Samples(
            items=self.items[list(places)],
            sources=tuple(self.sources[place] for place in places),
            videos=tuple(self.videos[place] for place in places),
            fakes=tuple(self.fakes[place] for place in places),
            skipped=self.skipped,
        )


def joined(parts: Sequence[Samples]) -> Samples:
    """Concatenate samples."""
    chain = itertools.chain.from_iterable
    return Samples(
        items=np.concatenate([part.items for part in parts]),
        sources=tuple(chain(part.sources for part in parts)),
        videos=tuple(chain(part.videos for part in parts)),
        fakes=tuple(chain(part.fakes for part in parts)),
        skipped=tuple(dict.fromkeys(chain(part.skipped for part in parts))),
    )


def gather_samples(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    spec: DetectorSpec,
    *,
    count: int,
    seed: int,
    labels: Mapping[str, bool] | None = None,
) -> Samples:
    """Cut crops or clips out of videos as a scan does, at places spread over them; see `sample_collector`.

    The videos share `count` evenly; what a short one, or one with few faces, cannot give goes to the others. Twice as
    many are in memory for a moment. The result depends on the set of paths and on the seed, not on the order of the
    paths. `labels` tell whether videos are forgeries, by their paths.

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
    gathering = SampleCollector(spec, count=count, seed=seed)
    taken = gathering.run(jobs)
    skipped = tuple(f"{jobs[number].path}: {reason}" for number, reason in sorted(gathering.failures.items()))
    if not taken:
        named = "; ".join(line.rstrip(".") for line in skipped[:FAILURES_NAMED])
        others = f"; and {counted(len(skipped) - FAILURES_NAMED, 'other')}" if len(skipped) > FAILURES_NAMED else ""
        raise UsageError(f"No video gave a face for {spec.name} ({named}{others}): give videos with faces.")
    return Samples(
        items=np.stack([host_array(face.pixels) for face in taken]),
        sources=tuple(f"{os.path.basename(face.job.path)} at {face.start_seconds:.1f} s" for face in taken),
        videos=tuple(face.job.path for face in taken),
        fakes=tuple(known.get(face.job.index) for face in taken),
        skipped=skipped,
    )


def packaged_samples(spec: DetectorSpec, *, count: int) -> Samples:
    """Return at most `count` crops or clips of the video of portraits in the package, always the same ones."""
    with as_file(files("deepscan") / "assets" / PACKAGED_VIDEO) as path:
        return gather_samples(path, spec, count=count, seed=PACKAGED_SEED)


def samples_to_measure(spec: DetectorSpec) -> Samples:
    """Return the samples that backends are compared and timed on: 16 crops, or 4 clips, of the video in the package."""
    return packaged_samples(spec, count=CLIPS_TO_MEASURE if spec.kind == "clip" else CROPS_TO_MEASURE)


def _absolute(path: str) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # no file can have this name
        return path


def _labels_of(jobs: Iterable[VideoJob], labels: Mapping[str, bool] | None) -> dict[int, bool]:
    """Return the labels by the number of the job."""
    by_path = {_absolute(path): fake for path, fake in (labels or {}).items()}
    known = {job.index: by_path[path] for job in jobs if (path := _absolute(job.path)) in by_path}
    if labels and not known:
        raise UsageError(f"No label is for one of the videos ({counted(len(labels), 'label')}): compare the paths.")
    return known
