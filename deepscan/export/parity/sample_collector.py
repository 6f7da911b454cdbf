"""Looks at several videos, in rounds, until none of them gives more than its share while another could give more.

A video is looked at in the middles of equal parts, through the stages of a scan: in twice as many as its share, because
there may be no face at a place. Where too little was found come three times as many, the former ones among them.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from deepscan.export.parity.stratified_sampler import Priority, StratifiedSampler, turns
from deepscan.options import DETECT_EVERY
from deepscan.runtime.faces.cropping import FaceInput, crop_specs_for
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE, face_detector
from deepscan.runtime.faces.following import FaceFollower, Follower
from deepscan.runtime.faces.tracking import Tracker
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.messages import VideoFollowed
from deepscan.runtime.pipeline.pipeline import Pipeline, Progress, Source, Stage
from deepscan.runtime.pipeline.stages import DecodeStage, FacesStage
from deepscan.runtime.system.machine import cpu_count
from deepscan.wording import counted

if TYPE_CHECKING:
    from deepscan.runtime.media.frames import Reader
    from deepscan.spec import DetectorSpec

SPARE: Final = 2
FURTHER: Final = 3
# Where too few are found, no video is looked at in more than so many times `count` places.
MOST_PLACES: Final = SPARE * FURTHER
# Of so many faces at one place none gives way to one elsewhere.
FACES_AT_A_PLACE: Final = 2
MOST_JOBS: Final = 4
FRAMES_AT_ONCE: Final = 4
LINK_BYTES: Final = 16 << 20


class SampleCollector:
    """Gathers the crops or clips of one detector.

    Args:
        spec: of the detector.
        count: how many at most.
        seed: of the order in which videos and their places are considered.
        progress: called with the number of crops or clips whenever one came.

    Attributes:
        failures: for the numbers of videos that gave nothing, why.

    Raises:
        MachineError: YuNet's package is broken.
    """

    def __init__(self, spec: DetectorSpec, *, count: int, seed: int, progress: Callable[[int], None]) -> None:
        self.failures: dict[int, str] = {}
        self._spec = spec
        self._count = count
        self._seed = seed
        self._progress = progress
        self._detector = face_detector("yunet", device="cpu", as_authors=False)
        self._shares: StratifiedSampler[FaceInput] = StratifiedSampler(count)
        self._exhausted: set[int] = set()
        self._durations: dict[str, float] = {}

    def run(self, jobs: Sequence[VideoJob]) -> list[FaceInput]:
        """Return what the videos give, in the order of `jobs` and of time."""
        waiting = deque(random.Random(self._seed).sample(jobs, len(jobs)))
        first = places = SPARE * math.ceil(self._count / len(jobs))
        asked: list[VideoJob] = []
        while waiting and (lacking := self._count - self._shares.videos()):
            fresh = [waiting.popleft() for _ in range(min(len(waiting), lacking))]
            self._ask(fresh, places)
            asked += fresh
        while hungry := [job for job in asked if self._lacks(job)]:
            places *= FURTHER
            # That the shares become even is worth fewer looks than that there are enough items.
            enough = self._shares.total == self._count
            if places > (max(self._count, FURTHER * first) if enough else MOST_PLACES * self._count):
                break
            self._ask(hungry, places)
        return [face for job in jobs for face in self._shares.items(job.index)]

    def _lacks(self, job: VideoJob) -> bool:
        """Tell whether a video lacks crops or clips and may have more of them."""
        fair = self._shares.largest() - 1
        wanted = self._shares.total < self._count or self._shares.size(job.index) < fair
        return wanted and job.index not in self._exhausted

    def _ask(self, jobs: Sequence[VideoJob], places: int) -> None:
        """Look at so many places of each of these videos, from the beginning."""
        for job in jobs:
            self._shares.clear(job.index)
            self.failures.pop(job.index, None)
        ranks = {job.index: _Ranks(job, places, self._seed) for job in jobs}
        with closing(self._pipeline(jobs, places).results()) as messages:
            for message in messages:
                if isinstance(message, FaceInput):
                    number = message.job.index
                    priority = ranks[number].priority(message, self._durations[message.job.path])
                    self._shares.offer(number, priority, message)
                    self._progress(self._shares.total)
                elif isinstance(message, VideoFollowed):
                    self._close(message, places, seen=ranks[message.job.index].items > 0)

    def _pipeline(self, jobs: Sequence[VideoJob], places: int) -> Pipeline:
        """Connect the stages of a scan, up to where crops and clips are complete."""
        if self._spec.kind == "clip":
            sampling = Sampling("windows", places, window_frames=self._spec.frames, detect_every=DETECT_EVERY)
        else:
            sampling = Sampling("middles", places)
        (cut,) = crop_specs_for([self._spec], whole_pictures=False)

        def followers(job: VideoJob) -> list[Follower]:
            return [FaceFollower(job, cut, Tracker(max_gap_seconds=math.inf))]

        decoders = min(len(jobs), cpu_count(), MOST_JOBS)
        opened = partial(self._opened, threads=max(1, cpu_count() // decoders))
        decode = DecodeStage(opened, sampling, detection_side=DETECTION_SIDE)
        faces = FacesStage(self._detector, followers, progress=Progress())
        return Pipeline(
            jobs,
            Source("decode", decode, threads=decoders, max_bytes=LINK_BYTES),
            [Stage("faces", faces, batch=FRAMES_AT_ONCE, max_bytes=LINK_BYTES)],
        )

    @contextmanager
    def _opened(self, path: str, *, threads: int) -> Iterator[Reader]:
        with open_input(path, threads=threads) as reader:
            self._durations[path] = reader.duration_seconds()
            yield reader

    def _close(self, end: VideoFollowed, places: int, *, seen: bool) -> None:
        """Note of a video whether it has more, and why it gave nothing."""
        decoded, spec = end.decoded, self._spec
        looked_at = places * spec.frames * decoded.info.frame_seconds if decoded.info is not None else 0.0
        if decoded.failure is not None or looked_at >= self._durations[end.job.path]:
            self._exhausted.add(end.job.index)
        if seen:
            return
        (skipped,) = end.skipped
        if decoded.failure is not None:
            reason = str(decoded.failure)
        elif skipped.longest_stretch:
            longest = counted(skipped.longest_stretch, "frame")
            reason = f"faces were seen for up to {longest}, and {spec.min_frames} are needed"
        elif skipped.small_faces:
            reason = f"all faces are smaller than {spec.min_face_pixels} pixels"
        else:
            reason = "no face was found"
        self.failures[end.job.index] = reason


class _Ranks:
    """Says how urgent a video's items are, as they come."""

    def __init__(self, job: VideoJob, places: int, seed: int) -> None:
        shift = random.Random(f"{seed} {job.index}").random()
        self._turns = turns(places, shift)
        self._taken: Counter[int] = Counter()
        self.items = 0

    def priority(self, face: FaceInput, duration_seconds: float) -> Priority:
        """Rank the next item of a video of this length."""
        # Where a clip begins may be just where two parts meet; its middle is not.
        middle = (face.start_seconds + face.end_seconds) / 2
        place = min(len(self._turns) - 1, int(middle / duration_seconds * len(self._turns)))
        found = Priority(self._taken[place] // FACES_AT_A_PLACE, self._turns[place], self.items)
        self._taken[place] += 1
        self.items += 1
        return found
