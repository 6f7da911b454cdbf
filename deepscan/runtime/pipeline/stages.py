"""The first stages of the pipeline, from a file to its faces, as functions that are free of threads."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import Any

import numpy as np

from deepscan.errors import DeepscanError, InputError, UnreachableInput, UnreadableInput
from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.faces.detections import DeviceFaceDetector, FaceDetector, Faces
from deepscan.runtime.faces.following import Follower
from deepscan.runtime.media.decoder_choice import DecoderLost
from deepscan.runtime.media.device_work import DevicePicture, DeviceWork
from deepscan.runtime.media.frame_tasks import FrameTask, Searchable, VideoJob, frame_tasks
from deepscan.runtime.media.frames import DeviceFrame, Frame, Reader, VideoInfo, ignore_progress
from deepscan.runtime.media.sampling import LengthLimit, Sampling, sampled_frames, shortfall
from deepscan.runtime.pipeline.file_watch import CHANGED, FileWatch
from deepscan.runtime.pipeline.messages import (
    Restarted,
    SecondPass,
    ToFaces,
    ToInfer,
    VideoDecoded,
    VideoFollowed,
)
from deepscan.runtime.pipeline.pipeline import Progress

# On a CPU larger batches exceed the cache and cost more per picture (benchmarks/README.md).
DETECTION_BATCH = 4

# Faces further outside the picture than this are impossible, in units of its longer side.
MOST_OUTSIDE = 4

OpenVideo = Callable[[str], AbstractContextManager["Reader"]]


class DecodeStage:
    """Turns a job into frame tasks and the end of the video; never raises for a fault of the file.

    Args:
        open_video: function that opens a file by its path, and checks the limits of the file itself.
        sampling: sampling of the frames.
        detection_side: longer side of the pictures that are searched for faces, in pixels, at most.
        on_cpu: function that opens a file whose decoder on the GPU gave up, to begin the video again.
        limits: limits of frames and duration.
        moved: called for every frame.
    """

    def __init__(
        self,
        open_video: OpenVideo,
        sampling: Sampling,
        *,
        detection_side: int,
        on_cpu: OpenVideo | None = None,
        limits: Limits = DEFAULT_LIMITS,
        moved: Callable[[], None] = ignore_progress,
    ) -> None:
        self._moved = moved
        self._open = open_video
        self._on_cpu = on_cpu or open_video
        self._sampling = sampling
        self._limits = limits
        self._detection_side = detection_side

    def __call__(self, job: VideoJob) -> Iterator[ToFaces]:
        """Decode one video."""
        job.started = time.monotonic()
        if job.problem is not None:
            yield VideoDecoded(job, None, 0, job.problem, None)
            return
        try:
            yield from self._decoded(job, self._open)
        except DecoderLost:
            yield Restarted(job)
            yield from self._decoded(job, self._on_cpu)

    def _decoded(self, job: VideoJob, open_video: OpenVideo) -> Iterator[ToFaces]:
        with FileWatch(job.planned, self._moved) as watch:
            yield from self._watched(job, open_video, watch)

    def _watched(self, job: VideoJob, open_video: OpenVideo, watch: FileWatch) -> Iterator[ToFaces]:
        info: VideoInfo | None = None
        frames, failure, damage, short = 0, None, None, None
        length = LengthLimit(self._limits)
        try:
            with _opened(open_video, job.path, watch) as reader:
                for task in self._tasks(job, reader, length):
                    frames, info = frames + 1, reader.info
                    yield task
                    if job.abandoned:
                        break
                if frames and not job.abandoned and length.truncated is None:
                    reader.duration_seconds()
                    info = reader.info
                damage = "; ".join(filter(None, [length.truncated, reader.warnings()])) or None
                if frames and not job.abandoned and length.truncated is None:
                    short = shortfall(self._sampling, frames, reader.info, is_damaged=damage is not None)
            if self._sampling.twice and not job.abandoned:
                yield SecondPass(job)
                with _opened(open_video, job.path, watch) as reader:
                    frames_again = sampled_frames(reader, self._sampling, LengthLimit(self._limits))
                    for at, (_, frame) in enumerate(frames_again):
                        if job.abandoned:
                            break
                        self._moved()
                        job.share_done = at / frames
                        yield FrameTask(job, frame, None, False, at)
        except InputError as error:
            failure = error
        except (MemoryError, DeepscanError, DecoderLost):
            raise
        except Exception as error:  # an unforeseen error of a library must not end a long scan
            failure = UnreadableInput(f"Decoding it failed in an unforeseen way ({error!r}): please report this file.")
        read = watch.read()
        failure = read.failure or failure
        # Being unreachable says nothing about the content of a file.
        job.content = None if isinstance(failure, UnreachableInput) else read.content
        if read.changed and failure is not None:
            failure = type(failure)(f"{str(failure).removesuffix('.')}; {CHANGED}.")
        elif read.changed:
            damage = "; ".join(filter(None, [damage, CHANGED]))
        yield VideoDecoded(job, info, frames, failure, damage, short)

    def _tasks(self, job: VideoJob, reader: Reader, length: LengthLimit) -> Iterator[FrameTask]:
        def shrink(frame: Frame) -> Searchable:
            if isinstance(frame.picture, DevicePicture):
                width, height = frame.geometry.shrunk(self._detection_side)
                return DeviceFrame(frame.picture, frame.geometry, (height, width, 3))
            return reader.shrink(frame, self._detection_side)

        for task in frame_tasks(job, sampled_frames(reader, self._sampling, length), self._sampling, shrink):
            self._moved()
            if reader.info.duration_seconds and not self._sampling.twice:
                job.share_done = min(1.0, task.frame.pts_seconds / reader.info.duration_seconds)
            yield task


@contextmanager
def _opened(open_video: OpenVideo, path: str, watch: FileWatch) -> Iterator[Reader]:
    with watch.opening():
        opened = open_video(path)
    with opened as reader:
        yield reader


class FacesStage:
    """Turns frame tasks into crops and clips: detects in batches over all videos, then tracks and crops per video.

    Args:
        detector: face detector.
        followers: function that creates the followers of one video, for all detectors.
        progress: counter of frames and faces.
        work: what makes the crops of frames on a device; then the face detector finds faces in such frames too.
        batch: largest number of pictures searched together.
    """

    def __init__(
        self,
        detector: FaceDetector,
        followers: Callable[[VideoJob], Sequence[Follower]],
        *,
        progress: Progress,
        work: DeviceWork | None = None,
        batch: int = DETECTION_BATCH,
    ) -> None:
        self._detector = detector
        self._work = work
        self._batch = batch
        self._new_followers = followers
        self._progress = progress
        self._followers: dict[int, Sequence[Follower]] = {}
        self._rewound: set[int] = set()

    def __call__(self, messages: Sequence[ToFaces]) -> Iterator[ToInfer]:
        """Search frames for faces, and follow the faces."""
        if self._work is None:
            for found in self._followed(messages):
                self._progress.move()
                yield found
        else:  # crops on a device are requested one by one and made together
            made = list(self._followed(messages))
            self._work.finish()
            yield from made

    def _followed(self, messages: Sequence[ToFaces]) -> Iterator[ToInfer]:
        searched = [message for message in messages if isinstance(message, FrameTask) and message.small is not None]
        found = iter(self._detected(searched))
        for message in messages:
            self._progress.move()
            job = message.job
            if job.index not in self._followers:
                self._followers[job.index] = self._new_followers(job)
            followers = self._followers[job.index]
            if isinstance(message, VideoDecoded):
                yield from chain.from_iterable(follower.finish() for follower in followers)
                yield _end(message, followers)
                del self._followers[job.index]
                self._rewound.discard(job.index)
            elif isinstance(message, Restarted):
                if not job.abandoned:  # otherwise the followers stay valid, and the second decoder stops at once
                    del self._followers[job.index]
                self._rewound.discard(job.index)
                yield message
            elif isinstance(message, SecondPass):
                self._rewound.add(job.index)
                for follower in followers:
                    follower.rewind()
                job.abandoned = all(follower.over_limit for follower in followers)
            else:
                faces = next(found) if message.small is not None else None
                self._progress.frames += job.index not in self._rewound
                self._progress.faces += len(faces) if faces is not None else 0
                yield from chain.from_iterable(follower.follow(message, faces) for follower in followers)
                job.abandoned = job.abandoned or all(follower.over_limit for follower in followers)

    def _detected(self, tasks: Sequence[FrameTask]) -> list[Faces]:
        """Return the faces of each frame, in pixels of the upright frames; pictures of one shape form a batch."""
        together: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for number, task in enumerate(tasks):
            assert task.small is not None
            together[isinstance(task.small, DeviceFrame), *task.small.shape].append(number)
        found: dict[int, Faces] = {}
        for numbers in together.values():
            for start in range(0, len(numbers), self._batch):
                chunk = numbers[start : start + self._batch]
                found.update(zip(chunk, self._faces_of([tasks[number].small for number in chunk]), strict=True))
                self._progress.move()
        return [_in_frame(found[number], task) for number, task in enumerate(tasks)]

    def _faces_of(self, smalls: Sequence[Any]) -> list[Faces]:
        """Return the faces of pictures of one shape, all or none of which lie on the device."""
        if isinstance(smalls[0], DeviceFrame):
            assert isinstance(self._detector, DeviceFaceDetector)
            return self._detector.detect_frames(smalls)
        return self._detector.detect(np.stack(smalls))


def _end(end: VideoDecoded, followers: Sequence[Follower]) -> VideoFollowed:
    skipped = {number: follower.skipped() for follower in followers for number in follower.detectors}
    most_faces = max(follower.most_faces for follower in followers)
    return VideoFollowed(end.job, end, most_faces, tuple(skipped[number] for number in sorted(skipped)))


def _in_frame(faces: Faces, task: FrameTask) -> Faces:
    """Scale faces from the searched picture to the upright frame, and drop impossible ones."""
    assert task.small is not None
    height, width = task.small.shape[:2]
    numbers = np.concatenate([faces.boxes, faces.landmarks.reshape(len(faces), 10)], axis=1)
    limit = MOST_OUTSIDE * max(width, height)
    possible = (np.abs(numbers) < limit).all(axis=1)  # False where there is no number
    possible[possible] = (faces.boxes[possible, 2:] > faces.boxes[possible, :2]).all(axis=1)
    return faces.where(possible).scaled(task.frame.geometry.width / width, task.frame.geometry.height / height)
