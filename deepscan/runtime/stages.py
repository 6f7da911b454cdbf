"""What each stage of the pipeline does to the messages it gets; none of this knows of threads."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from deepscan.errors import InputError, UnreadableInput
from deepscan.runtime.following import FaceFollower
from deepscan.runtime.messages import (
    FaceCrop,
    Look,
    ToFaces,
    ToInfer,
    TracksEnded,
    VideoDecoded,
    VideoFollowed,
    VideoJob,
    VideoScored,
)
from deepscan.runtime.results import VideoResult
from deepscan.runtime.sampling import marked_frames, sampled_frames
from deepscan.runtime.scoring import Scoreboard, label_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.backends import Backend
    from deepscan.runtime.frames import Reader
    from deepscan.runtime.sampling import Sampling
    from deepscan.runtime.scoring import Aggregate
    from deepscan.runtime.yunet import Faces, YuNet
    from deepscan.spec import DetectorSpec

# Faces are searched for in a picture whose longer side is this many pixels: those of 1/60 of it are still found.
DETECTION_SIDE: Final = 640
# Measured on a CPU: batches beyond this leave the cache and cost more per picture (benchmarks/README.md).
DETECTION_BATCH: Final = 4

OpenVideo = Callable[[str], AbstractContextManager["Reader"]]


@dataclass(slots=True)
class Progress:
    """How far a scan is; counted by the stages, read by whoever shows it.

    Attributes:
        frames: looked at so far.
        faces: seen so far; one face in two frames counts twice.
        videos: finished so far.
    """

    frames: int = 0
    faces: int = 0
    videos: int = 0


class DecodeStage:
    """Job in, looks and the end of the video out. Never raises for what a file may do wrong."""

    def __init__(self, open_video: OpenVideo, sampling: Sampling) -> None:
        self._open = open_video
        self._sampling = sampling

    def __call__(self, job: VideoJob) -> Iterator[ToFaces]:
        """Decode one video."""
        job.started = time.monotonic()
        info, frames, failure, damage = None, 0, None, None
        try:
            if job.problem is not None:
                raise job.problem
            with self._open(job.path) as reader:
                for marked in marked_frames(sampled_frames(reader, self._sampling), self._sampling):
                    small = reader.shrink(marked.frame, DETECTION_SIDE) if marked.search else None
                    frames, info = frames + 1, reader.info
                    if info.duration_seconds:
                        job.share_done = min(1.0, marked.frame.seconds / info.duration_seconds)
                    yield Look(job, marked.frame, small, marked.starts_shot)
                damage = reader.damage()
        except InputError as error:
            failure = error
        except MemoryError:
            raise
        except Exception as error:  # a stranger's file may surprise any library; it must not end a run of days
            failure = UnreadableInput(f"Decoding it failed in an unforeseen way ({error!r}): please report this file.")
        yield VideoDecoded(job, info, frames, failure, damage)


class FacesStage:
    """Looks in, crops out: detection in batches over all videos, then tracking and cropping video by video."""

    def __init__(self, detector: YuNet, spec: DetectorSpec, *, max_gap_seconds: float, progress: Progress) -> None:
        self._detector = detector
        self._spec = spec
        self._max_gap = max_gap_seconds
        self._progress = progress
        self._followers: dict[int, FaceFollower] = {}

    def __call__(self, messages: Sequence[ToFaces]) -> Iterator[ToInfer]:
        """Search the frames that want it and follow the faces."""
        looks = [message for message in messages if isinstance(message, Look) and message.small is not None]
        found = iter(self._detected(looks))
        for message in messages:
            follower = self._follower(message.job)
            if isinstance(message, VideoDecoded):
                yield from follower.finish()
                del self._followers[message.job.index]
                yield VideoFollowed(message.job, message, follower.most_faces, follower.small_faces)
                continue
            self._progress.frames += 1
            if message.small is None:
                follower.wait(message.frame)
                continue
            faces = next(found)
            self._progress.faces += len(faces)
            yield from follower.look(message, faces)

    def _follower(self, job: VideoJob) -> FaceFollower:
        if job.index not in self._followers:
            self._followers[job.index] = FaceFollower(
                job, policy=self._spec.crop, size=self._spec.size, max_gap_seconds=self._max_gap
            )
        return self._followers[job.index]

    def _detected(self, looks: Sequence[Look]) -> list[Faces]:
        """Search pictures of one shape together; return their faces in pixels of the upright frames."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        smalls: list[NDArray[np.uint8]] = [look.small for look in looks if look.small is not None]
        for number, small in enumerate(smalls):
            by_shape[small.shape].append(number)
        found: dict[int, Faces] = {}
        for numbers in by_shape.values():
            for start in range(0, len(numbers), DETECTION_BATCH):
                chunk = numbers[start : start + DETECTION_BATCH]
                batch = np.stack([smalls[number] for number in chunk])
                found.update(zip(chunk, self._detector.detect(batch), strict=True))
        faces = []
        for number, look in enumerate(looks):
            height, width = smalls[number].shape[:2]
            geometry = look.frame.geometry
            faces.append(found[number].scaled(geometry.width / width, geometry.height / height))
        return faces


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What every result of a scan shares.

    Attributes:
        spec: the detector, with the label band in force.
        aggregate: how tracks become one score.
        decisive_clips: how many crops or clips make a track that can decide the score.
        mirror: whether a crop's logit is averaged with that of its mirror image.
        weights_sha256, settings_sha256: what the scores depend on.
    """

    spec: DetectorSpec
    aggregate: Aggregate
    decisive_clips: int
    mirror: bool
    weights_sha256: str
    settings_sha256: str


class InferStage:
    """Crops in, results out: batches mix videos, sums are kept per video."""

    def __init__(self, backend: Backend, verdict: Verdict, *, progress: Progress) -> None:
        self._backend = backend
        self._verdict = verdict
        self._progress = progress
        self._boards: dict[int, Scoreboard] = {}

    def __call__(self, messages: Sequence[ToInfer]) -> Iterator[VideoScored]:
        """Score the crops, and close the videos that end."""
        crops = [message.pixels for message in messages if isinstance(message, FaceCrop)]
        logits = iter(self._logits(crops))
        for message in messages:
            board = self._board(message.job)
            if isinstance(message, FaceCrop):
                board.add(message.track, message.seconds, float(next(logits)))
            elif isinstance(message, TracksEnded):
                board.end(message.tracks)
            else:
                del self._boards[message.job.index]
                self._progress.videos += 1
                message.job.share_done = 1.0
                yield VideoScored(self._result(message, board))

    def _board(self, job: VideoJob) -> Scoreboard:
        if job.index not in self._boards:
            verdict = self._verdict
            self._boards[job.index] = Scoreboard(verdict.spec, verdict.aggregate, decisive_clips=verdict.decisive_clips)
        return self._boards[job.index]

    def _logits(self, crops: Sequence[NDArray[np.uint8]]) -> list[float]:
        views = 2 if self._verdict.mirror else 1
        pictures = [view for crop in crops for view in (crop, crop[:, ::-1])[:views]]
        logits: list[NDArray[np.float32]] = []
        for start in range(0, len(pictures), self._backend.max_batch):
            logits.append(self._backend.logits(np.stack(pictures[start : start + self._backend.max_batch])))
        return np.concatenate(logits).reshape(-1, views).mean(axis=1).tolist() if logits else []

    def _result(self, end: VideoFollowed, board: Scoreboard) -> VideoResult:
        job, decoded, verdict = end.job, end.decoded, self._verdict
        info = decoded.info
        common = VideoResult(
            index=job.index,
            path=job.path,
            status="no_face",
            model=verdict.spec.name,
            faces=end.most_faces,
            frames=decoded.frames,
            duration_seconds=info.duration_seconds if info else None,
            width=info.width if info else None,
            height=info.height if info else None,
            codec=info.codec if info else None,
            backend=self._backend.name,
            precision=self._backend.precision,
            weights_sha256=verdict.weights_sha256,
            settings_sha256=verdict.settings_sha256,
            elapsed_seconds=time.monotonic() - job.started,
        )
        if decoded.failure is not None:
            return replace(common, status=decoded.failure.status, reason=str(decoded.failure))
        score = board.finish()
        if score is None:
            return replace(common, reason="; ".join(self._remarks(end)))
        return replace(
            common,
            status="scored",
            reason="; ".join(self._remarks(end)),
            score=score.score,
            label=label_of(score.score, verdict.spec.band),
            tracks=score.tracks,
            clips=score.clips,
            peak=score.peak,
            details=score.details,
        )

    def _remarks(self, end: VideoFollowed) -> list[str]:
        """Say what of the video was not looked at."""
        remarks = []
        if end.small_faces:
            smallest = self._verdict.spec.crop.min_face_pixels
            remarks.append(
                f"{end.small_faces} sightings of faces smaller than {smallest} pixels were not scored (see --min-face)"
            )
        if end.decoded.damage:
            remarks.append(end.decoded.damage)
        return remarks
