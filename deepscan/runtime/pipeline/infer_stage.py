"""The last stage of the pipeline, from crops and clips to results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from deepscan.errors import DeviceMemoryError
from deepscan.results import VideoResult, row_number
from deepscan.runtime.cuda.pixels import mirrored
from deepscan.runtime.faces.cropping import FaceInput
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.pipeline.messages import Restarted, ToInfer, VideoFollowed, VideoScored
from deepscan.runtime.pipeline.remarks import only_small_faces, remarks, too_few_sightings
from deepscan.runtime.pipeline.scoring import ScoreAggregator, ScoringSettings, label_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.backends.contract import Backend
    from deepscan.runtime.cuda.pixels import Pixels
    from deepscan.runtime.pipeline.pipeline import Progress


class InferStage:
    """Scores crops and clips with every detector; batches mix videos, scores are aggregated per video and detector."""

    def __init__(self, detectors: Sequence[tuple[Backend, ScoringSettings]], *, progress: Progress) -> None:
        self._detectors = detectors
        self._progress = progress
        self._aggregators: dict[tuple[int, int], ScoreAggregator] = {}
        self._most: dict[int, int] = {}

    def __call__(self, messages: Sequence[ToInfer]) -> Iterator[VideoScored]:
        """Score crops and clips, and yield the results of videos that end."""
        for number in range(len(self._detectors)):
            self._score(number, messages)
        for message in messages:
            if isinstance(message, VideoFollowed):
                yield VideoScored(tuple(self._result(number, message) for number in range(len(self._detectors))))
                self._progress.videos += 1
                message.job.share_done = 1.0

    def _score(self, number: int, messages: Sequence[ToInfer]) -> None:
        """Add the logits of one detector to its aggregators, and close the tracks that end."""
        wanted = [message for message in messages if isinstance(message, FaceInput) and number in message.detectors]
        logits = dict(zip(map(id, wanted), self._logits(number, [message.pixels for message in wanted]), strict=True))
        for message in messages:
            if isinstance(message, Restarted):
                self._aggregators.pop((message.job.index, number), None)
            elif isinstance(message, TracksEnded) and number in message.detectors:
                self._aggregator(message.job, number).end(message.tracks, glimpses=message.glimpses)
            elif isinstance(message, FaceInput) and id(message) in logits:
                aggregator = self._aggregator(message.job, number)
                logit = logits[id(message)]
                aggregator.add(
                    message.track,
                    message.start_seconds,
                    message.end_seconds,
                    logit,
                    frames=message.frames,
                    sightings=message.sightings,
                )

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
        score = self._aggregator(job, number).finish()
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
        label = label_of(score.score, settings.spec.band)
        doubt = "" if label == "uncertain" else too_few_sightings(score.sightings, decoded, settings.sampling)
        return msgspec.structs.replace(
            common,
            status="scored",
            reason="; ".join(filter(None, [doubt, common.reason])),
            score=score.score,
            label="uncertain" if doubt else label,
            real_below=settings.spec.band.real_below,
            fake_from=settings.spec.band.fake_from,
            tracks=score.tracks,
            clips=score.clips,
            peak=score.peak,
            details=score.details,
        )
