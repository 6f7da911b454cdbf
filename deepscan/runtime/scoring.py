"""From the logits of crops to tracks and to one video, in memory that does not grow with the video."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from deepscan.runtime.results import Label, Segment, TrackResult
from deepscan.runtime.timeline import Timeline
from deepscan.spec import DetectorSpec, LabelBand

Aggregate = Literal["max", "mean"]
TRACKS_DETAILED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScore:
    """The verdict on one video.

    Attributes:
        score: probability of *fake*, in [0, 1].
        tracks: how many tracks were scored.
        clips: how many crops or clips were scored.
        peak: the most suspicious segment of the tracks that decided.
        details: the tracks that decided, highest score first; then those that were too short to.
    """

    score: float
    tracks: int
    clips: int
    peak: Segment
    details: tuple[TrackResult, ...]


@dataclass(slots=True)
class _Track:
    """A track while it lasts; `total` sums what the spec pools: logits or scores."""

    total: float = 0.0
    clips: int = 0
    start_seconds: float = math.inf
    end_seconds: float = -math.inf
    timeline: Timeline = field(default_factory=Timeline)


class Scoreboard:
    """Collects the logits of one video.

    Track score: mean over its crops of the logit (then calibrated) or of the score, as the spec says.
    Video score: the highest track score (`max`), or the mean over all crops of all tracks (`mean`). A maximum over
    many tracks grows with their number and with their noise, so a track of fewer than `decisive_clips` crops gives
    way to any longer one: the score is the highest among those that have enough, or among the longest if none has.
    """

    def __init__(self, spec: DetectorSpec, aggregate: Aggregate, *, decisive_clips: int) -> None:
        self._spec = spec
        self._aggregate = aggregate
        self._decisive_clips = decisive_clips
        self._open: dict[int, _Track] = {}
        self._best: list[tuple[int, float, int, TrackResult]] = []
        self._tracks = self._clips = 0
        self._total = 0.0
        self._peak: tuple[int, float, Segment] | None = None

    def add(self, track: int, seconds: float, logit: float) -> None:
        """Take the logit of one crop or clip of a track, at its time."""
        value = logit if self._spec.pooling == "logit" else self._spec.calibration.score(logit)
        found = self._open.setdefault(track, _Track())
        found.total += value
        found.clips += 1
        found.start_seconds = min(found.start_seconds, seconds)
        found.end_seconds = max(found.end_seconds, seconds)
        found.timeline.add(seconds, value)

    def end(self, tracks: Iterable[int]) -> None:
        """Close tracks; those that never had a crop are ignored."""
        for number in tracks:
            track = self._open.pop(number, None)
            if track is not None:
                self._close(number, track)

    def finish(self) -> VideoScore | None:
        """Close what is open and return the verdict, or None if there was not a single crop."""
        self.end(sorted(self._open))
        if self._peak is None:
            return None
        details = tuple(result for *_, result in sorted(self._best, key=lambda item: item[:3], reverse=True))
        score = details[0].score if self._aggregate == "max" else self._score(self._total / self._clips)
        return VideoScore(score=score, tracks=self._tracks, clips=self._clips, peak=self._peak[-1], details=details)

    def _close(self, number: int, track: _Track) -> None:
        segments = tuple(
            Segment(
                start_seconds=part.start_seconds,
                end_seconds=part.end_seconds,
                score=self._score(part.mean),
                clips=part.count,
            )
            for part in track.timeline.bins()
        )
        result = TrackResult(
            track=number,
            start_seconds=track.start_seconds,
            end_seconds=track.end_seconds,
            score=self._score(track.total / track.clips),
            clips=track.clips,
            timeline=segments,
        )
        self._tracks += 1
        self._clips += track.clips
        self._total += track.total
        weight = min(track.clips, self._decisive_clips)
        peak = peak_segment(segments)
        if self._peak is None or (weight, peak.score) > self._peak[:2]:
            self._peak = (weight, peak.score, peak)
        heapq.heappush(self._best, (weight, result.score, -number, result))
        if len(self._best) > TRACKS_DETAILED:
            heapq.heappop(self._best)

    def _score(self, mean: float) -> float:
        return self._spec.calibration.score(mean) if self._spec.pooling == "logit" else mean


def peak_segment(segments: tuple[Segment, ...]) -> Segment:
    """Return the segment with the highest score, leaving out those with too few crops to trust.

    A segment counts if it holds at least half as many crops as the median segment.
    """
    enough = statistics.median(segment.clips for segment in segments) / 2
    return max((segment for segment in segments if segment.clips >= enough), key=lambda segment: segment.score)


def label_of(score: float, band: LabelBand) -> Label:
    """Return what a score means."""
    if score >= band.fake_from:
        return "fake"
    return "real" if score < band.real_below else "uncertain"


def band_with_threshold(band: LabelBand, threshold: float | None) -> LabelBand:
    """Return the band in which *fake* begins at `threshold`; *real* never reaches beyond it."""
    if threshold is None:
        return band
    return LabelBand(real_below=min(band.real_below, threshold), fake_from=threshold)
