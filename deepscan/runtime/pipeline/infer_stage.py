"""The last stage of the pipeline: from crops and clips to results, with remarks on what was not scored."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from deepscan.errors import DeviceMemoryError
from deepscan.results import VideoResult, row_number
from deepscan.runtime.cuda.pixels import Pixels, mirrored
from deepscan.runtime.faces.cropping import FaceInput
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.frame_parts import FrameRecorder
from deepscan.runtime.pipeline.messages import Restarted, ToInfer, VideoDecoded, VideoFollowed, VideoScored
from deepscan.runtime.pipeline.pipeline import Progress
from deepscan.runtime.pipeline.quality import low_quality, quality_class, quality_of
from deepscan.runtime.pipeline.scoring import MIN_SIGHTINGS, ScoreAggregator, ScoringSettings, calibrated, label_of
from deepscan.spec import DetectorSpec
from deepscan.wording import counted, plural

if TYPE_CHECKING:
    from deepscan.runtime.backends.contract import Backend


class InferStage:
    """Scores crops and clips with every detector; batches mix videos, scores are aggregated per video and detector."""

    def __init__(
        self,
        detectors: Sequence[tuple[Backend, ScoringSettings]],
        *,
        progress: Progress,
        recorder: FrameRecorder | None = None,
    ) -> None:
        """Begin; the recorder, if there is one, gets the score of each crop and clip."""
        self._detectors = detectors
        self._recorder = recorder
        self._progress = progress
        self._aggregators: dict[tuple[int, int], ScoreAggregator] = {}
        self._most: dict[int, int] = {}

    def __call__(self, messages: Sequence[ToInfer]) -> Iterator[VideoScored]:
        """Score crops and clips, and yield the results of videos that end."""
        for number in range(len(self._detectors)):
            self._score(number, messages)
        for message in messages:
            if isinstance(message, VideoFollowed):
                results = tuple(self._result(number, message) for number in range(len(self._detectors)))
                if self._recorder is not None:
                    for number, result in enumerate(results):
                        self._recorder.end(message.job.index, number, keep=result.status == "scored")
                yield VideoScored(results)
                self._progress.videos += 1
                message.job.share_done = 1.0

    def _score(self, number: int, messages: Sequence[ToInfer]) -> None:
        """Add the logits of one detector to its aggregators, and close the tracks that end."""
        wanted = [message for message in messages if isinstance(message, FaceInput) and number in message.detectors]
        logits = iter(self._logits(number, [message.pixels for message in wanted]))
        for message in messages:
            if isinstance(message, Restarted):
                self._aggregators.pop((message.job.index, number), None)
                if self._recorder is not None:
                    self._recorder.end(message.job.index, number, keep=False)
            elif isinstance(message, TracksEnded) and number in message.detectors:
                self._aggregator(message.job, number).end(
                    message.tracks, glimpses=message.glimpses, measures=message.measures
                )
            elif isinstance(message, FaceInput) and number in message.detectors:
                logit = next(logits)
                self._aggregator(message.job, number).add(
                    message.track,
                    message.start_seconds,
                    message.end_seconds,
                    logit,
                    frames=message.frames,
                    sightings=message.sightings,
                )
                if self._recorder is not None:
                    self._recorder.add(number, message, logit, self._detectors[number][1].score_of(logit))

    def _aggregator(self, job: VideoJob, number: int) -> ScoreAggregator:
        key = job.index, number
        if key not in self._aggregators:
            _, settings = self._detectors[number]
            self._aggregators[key] = ScoreAggregator(
                settings.spec, settings.aggregate, decisive_frames=settings.decisive_frames
            )
        return self._aggregators[key]

    def _logits(self, number: int, items: Sequence[Pixels]) -> list[float]:
        backend, settings = self._detectors[number]
        views = 2 if settings.mirror else 1
        inputs = [view for item in items for view in ((item, mirrored(item)) if settings.mirror else (item,))]
        logits: list[NDArray[np.float32]] = []
        done = 0
        while done < len(inputs):
            batch = inputs[done : done + self._most.get(number, backend.max_batch)]
            try:
                logits.append(backend.logits(batch))
                self._progress.move()
            except DeviceMemoryError:
                if len(batch) == 1:
                    raise
                # Other programs may keep using the GPU: halve the batch for good.
                self._most[number] = len(batch) // 2
                continue
            done += len(batch)
        return np.concatenate(logits).reshape(-1, views).mean(axis=1).tolist() if logits else []

    def _result(self, number: int, end: VideoFollowed) -> VideoResult:
        backend, settings = self._detectors[number]
        job, decoded, info = end.job, end.decoded, end.decoded.info
        score = calibrated(self._aggregator(job, number).finish(), settings.profile)
        del self._aggregators[job.index, number]
        skipped = end.skipped[number]
        common = VideoResult(
            index=job.index,
            row=row_number(job.index, number, len(self._detectors)),
            path=job.path,
            status="no_face",
            reason="; ".join(remarks(end, skipped, settings.spec)),
            model=settings.model,
            faces=end.most_faces,
            frames=decoded.frames,
            duration_seconds=info.duration_seconds if info else None,
            width=info.width if info else None,
            height=info.height if info else None,
            codec=info.codec if info else None,
            backend=backend.name,
            precision=backend.precision,
            weights_sha256=settings.weights_sha256,
            settings_sha256=settings.settings_sha256,
            elapsed_seconds=time.monotonic() - job.started,
            content=job.content,
        )
        if skipped.over_limit is not None:  # takes precedence over failures of decoding, which depend on how far it got
            over = skipped.over_limit
            return msgspec.structs.replace(
                common, status=over.status, reason=str(over), frames=skipped.frames_until_limit
            )
        if decoded.failure is not None:
            return msgspec.structs.replace(common, status=decoded.failure.status, reason=str(decoded.failure))
        if score is None and skipped.longest_stretch:
            return msgspec.structs.replace(common, status="too_short")
        if score is None and skipped.plain_small_faces:
            others = remarks(end, replace(skipped, small_faces=0), settings.spec)
            reason = "; ".join([only_small_faces(skipped, settings.spec), *others])
            return msgspec.structs.replace(common, status="small_face", reason=reason)
        if score is None:
            return common
        quality = quality_of(score.measures, info)
        judged = None if quality is None else quality_class(quality, common.codec)
        label = label_of(score.score, settings.spec.band)
        doubts = []
        if label != "uncertain":
            doubts = list(filter(None, [too_few_sightings(score.sightings, decoded, settings.sampling)]))
            if quality is not None and judged == "low" and not settings.spec.holds_in_low_quality:
                doubts.append(low_quality(quality, common.codec, settings.spec.name))
        return msgspec.structs.replace(
            common,
            status="scored",
            reason="; ".join(filter(None, [*doubts, common.reason])),
            score=score.score,
            label="uncertain" if doubts else label,
            quality=judged,
            quality_details=quality,
            real_below=settings.spec.band.real_below,
            fake_from=settings.spec.band.fake_from,
            tracks=score.tracks,
            clips=score.clips,
            peak=score.peak,
            details=score.details,
        )


def remarks(end: VideoFollowed, skipped: SkipSummary, spec: DetectorSpec) -> list[str]:
    """Return remarks on what was not scored in the video."""
    said = []
    if skipped.small_faces:
        count = _sightings(skipped.small_faces)
        said.append(f"{count} smaller than {spec.min_face_pixels} pixels {_were(skipped)} not scored (see --min-face)")
    if skipped.longest_stretch:
        said.append(
            f"faces seen for up to {counted(skipped.longest_stretch, 'frame')} in a row were not scored, "
            f"{spec.name} needs {spec.min_frames}"
        )
    said += skipped.truncations
    return [*said, *filter(None, [end.decoded.short, end.decoded.damage])]


def only_small_faces(skipped: SkipSummary, spec: DetectorSpec) -> str:
    """Return the reason for a video whose faces are all too small: how large they are, and what to do."""
    one = skipped.small_faces == 1
    size = f"of {'' if one else 'up to '}{int(skipped.largest_small_face)} pixels"
    return (
        f"{_sightings(skipped.small_faces)} {size} {_were(skipped)} not scored, as --min-face is "
        f"{spec.min_face_pixels}: lower it to have {'it' if one else 'them'} scored"
    )


def _sightings(count: int) -> str:
    return counted(count, "sighting of a face", "sightings of faces")


def _were(skipped: SkipSummary) -> str:
    return plural(skipped.small_faces, "was", "were")


def too_few_sightings(sightings: int, decoded: VideoDecoded, sampling: Sampling) -> str:
    """Return why a score rests on too few sightings of the deciding face for a label; empty if it does not.

    In a picture, or a video of a single frame, one sighting is enough.
    """
    if sightings >= MIN_SIGHTINGS or _single_frame(decoded, sampling):
        return ""
    rests = f"{counted(sightings, 'sighting')} of a face"
    frames = counted(decoded.frames, "frame")
    advice = _advice(decoded.frames, sampling)
    return f"the verdict would rest on {rests} in {frames}; at least {MIN_SIGHTINGS} are needed{advice}"


def _single_frame(decoded: VideoDecoded, sampling: Sampling) -> bool:
    """Tell whether the video has only one frame: more were asked for, and none was lost."""
    if decoded.frames != 1 or decoded.info is None:
        return False
    return decoded.info.still or (decoded.damage is None and sampling.asked > 1)


def _advice(frames: int, sampling: Sampling) -> str:
    """Return how to have more frames searched, if that is possible."""
    if sampling.choice == "all":
        return ": use --detect-every 1" if frames >= MIN_SIGHTINGS and sampling.detect_every > 1 else ""
    if sampling.asked > frames:
        return ""
    return f": raise {'--clips' if sampling.choice == 'windows' else '--frames'} or use --sampling full"
