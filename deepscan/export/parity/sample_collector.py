"""Collection of a limited number of crops or clips from several videos: an even share of each, spread over its length.

Videos are read in rounds, through the stages of a scan, at the middles of equal parts: twice as many as the video's
share, because there may be no face at a place. A video that gave too little is read again at three times as many
places, which include the former ones, until no video gives more than its share while another could give more.
"""

from __future__ import annotations

import logging
import math
import random
from bisect import insort
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

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

log = logging.getLogger(__name__)

T = TypeVar("T")

SPARE: Final = 2
FURTHER: Final = 3
# Where too few are found, a video is read at no more than this many times `count` places.
MOST_PLACES: Final = SPARE * FURTHER
# Number of faces at one place that are as good as a face at another.
FACES_AT_A_PLACE: Final = 2
MOST_JOBS: Final = 4
FRAMES_AT_ONCE: Final = 4
LINK_BYTES: Final = 16 << 20


class Priority(NamedTuple):
    """Rank of an item within its video; the lowest are kept.

    Attributes:
        repeats: number of items, in pairs, that came before it from the same place.
        turn: turn of its place, see `turns`.
        number: number of items of the video that came before it.
    """

    repeats: int
    turn: int
    number: int


class StratifiedSampler(Generic[T]):
    """At most `count` items of several videos.

    When there are too many, the video with the most items, or the last of those, drops the one with the highest
    priority value. What remains does not depend on the order in which the videos take turns.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        # Of each video its items with their priorities, which differ, the lowest first.
        self._held: defaultdict[int, list[tuple[Priority, T]]] = defaultdict(list)

    @property
    def total(self) -> int:
        """Number of items."""
        return sum(map(len, self._held.values()))

    def offer(self, video: int, priority: Priority, item: T) -> None:
        """Add an item of the video with this number."""
        insort(self._held[video], (priority, item), key=itemgetter(0))
        if self.total > self._count:
            fullest = max(self._held, key=lambda number: (len(self._held[number]), number))
            self._held[fullest].pop()

    def clear(self, video: int) -> None:
        """Drop the items of a video."""
        self._held[video].clear()

    def videos(self) -> int:
        """Return the number of videos that have items."""
        return sum(map(bool, self._held.values()))

    def size(self, video: int) -> int:
        """Return the number of items of a video."""
        return len(self._held[video])

    def largest(self) -> int:
        """Return the number of items of the video that has most."""
        return max(map(len, self._held.values()), default=0)

    def items(self, video: int) -> list[T]:
        """Return the items of a video, in the order in which they were offered."""
        return [item for _, item in sorted(self._held[video], key=lambda held: held[0].number)]


def turns(places: int, shift: float) -> list[int]:
    """Return the turn, from 0, of each of `places` equal parts of a video; the first is at `shift`, in [0, 1).

    The turns follow van der Corput's sequence: any number of first turns are spread evenly over the video.
    """
    order: dict[int, None] = {}
    number = 0
    while len(order) < places:
        # The binary digits of the number, mirrored at the point: 0, 1/2, 1/4, 3/4, 1/8, ...
        mirrored = int(f"{number:b}"[::-1], 2) / (1 << number.bit_length())
        order.setdefault(int((mirrored + shift) % 1.0 * places), None)
        number += 1
    turn_of = {place: turn for turn, place in enumerate(order)}
    return [turn_of[place] for place in range(places)]


class _Ranks:
    """Priorities of a video's items, as they come."""

    def __init__(self, job: VideoJob, places: int, seed: int) -> None:
        self._turns = turns(places, random.Random(f"{seed} {job.index}").random())
        self._taken: Counter[int] = Counter()
        self.items = 0

    def priority(self, face: FaceInput, duration_seconds: float) -> Priority:
        """Rank the next item of a video of this length."""
        # A clip may begin exactly where two parts meet; its middle lies inside one.
        middle = (face.start_seconds + face.end_seconds) / 2
        place = min(len(self._turns) - 1, int(middle / duration_seconds * len(self._turns)))
        priority = Priority(self._taken[place] // FACES_AT_A_PLACE, self._turns[place], self.items)
        self._taken[place] += 1
        self.items += 1
        return priority


class SampleCollector:
    """Collector of at most `count` crops or clips for one detector; `seed` orders videos and their places.

    Attributes:
        failures: reasons why videos gave nothing, by the number of the job.

    Raises:
        MachineError: YuNet's package is broken.
    """

    def __init__(self, spec: DetectorSpec, *, count: int, seed: int) -> None:
        self.failures: dict[int, str] = {}
        self._spec = spec
        self._count = count
        self._seed = seed
        self._detector = face_detector("yunet", device="cpu", as_authors=False)
        self._shares: StratifiedSampler[FaceInput] = StratifiedSampler(count)
        self._exhausted: set[int] = set()
        self._durations: dict[str, float] = {}

    def run(self, jobs: Sequence[VideoJob]) -> list[FaceInput]:
        """Return the crops or clips, in the order of `jobs` and of time."""
        waiting = deque(random.Random(self._seed).sample(jobs, len(jobs)))
        first = places = SPARE * math.ceil(self._count / len(jobs))
        asked: list[VideoJob] = []
        while waiting and (lacking := self._count - self._shares.videos()):
            fresh = [waiting.popleft() for _ in range(min(len(waiting), lacking))]
            self._collect(fresh, places)
            asked += fresh
        while hungry := [job for job in asked if self._lacks(job)]:
            places *= FURTHER
            # Even shares are worth fewer further places than enough items are.
            enough = self._shares.total == self._count
            if places > (max(self._count, FURTHER * first) if enough else MOST_PLACES * self._count):
                break
            self._collect(hungry, places)
        return [face for job in jobs for face in self._shares.items(job.index)]

    def _lacks(self, job: VideoJob) -> bool:
        """Tell whether a video should, and could, give more."""
        fair = self._shares.largest() - 1
        wanted = self._shares.total < self._count or self._shares.size(job.index) < fair
        return wanted and job.index not in self._exhausted

    def _collect(self, jobs: Sequence[VideoJob], places: int) -> None:
        """Read each of these videos anew, at this number of places."""
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
                    log.info("cutting %s: %d of %d", self._spec.input_name, self._shares.total, self._count)
                elif isinstance(message, VideoFollowed):
                    self._close(message, places, seen=ranks[message.job.index].items > 0)

    def _pipeline(self, jobs: Sequence[VideoJob], places: int) -> Pipeline:
        """Connect the stages of a scan, up to complete crops and clips."""
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
        """Record whether a video has more to give, and why it gave nothing."""
        decoded, spec = end.decoded, self._spec
        read_seconds = places * spec.frames * decoded.info.frame_seconds if decoded.info is not None else 0.0
        if decoded.failure is not None or read_seconds >= self._durations[end.job.path]:
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
