"""From the logits of crops to tracks and to one video, in memory that does not grow with the video."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from deepscan.runtime.journal.results import Label, Segment, TrackResult
from deepscan.runtime.pipeline.timeline import Bin, Timeline
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
        details: the tracks long enough to decide, highest score first; then those that were pooled.
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
    frames: int = 0
    timeline: Timeline = field(default_factory=Timeline)

    def absorb(self, other: _Track) -> None:
        """Take in another track's crops."""
        self.total += other.total
        self.clips += other.clips
        self.frames += other.frames
        for part in other.timeline.bins():
            self.timeline.join(part)


class Scoreboard:
    """Collects the logits of one video.

    Track score: mean over its crops of the logit (then calibrated) or of the score, as the spec says.
    Video score: the highest track score (`max`), or the mean over all crops of all tracks (`mean`). A maximum over
    many short tracks would grow with their number and their noise, so tracks of fewer than `decisive_frames` frames are
    pooled: together they count as one track, if they have so many frames in all or if there is no longer one.
    """

    def __init__(self, spec: DetectorSpec, aggregate: Aggregate, *, decisive_frames: int) -> None:
        self._spec = spec
        self._aggregate = aggregate
        self._decisive_frames = decisive_frames
        self._open: dict[int, _Track] = {}
        self._best: list[tuple[bool, float, int, TrackResult]] = []
        self._tracks = self._clips = 0
        self._total = 0.0
        self._short = _Track()
        self._highest: float | None = None
        self._peak: Segment | None = None

    def add(self, track: int, start_seconds: float, end_seconds: float, logit: float, *, frames: int) -> None:
        """Take the logit of one crop or clip of a track.

        Args:
            track: its number.
            start_seconds: time of its first frame.
            end_seconds: time of its last frame.
            logit: of the detector.
            frames: how many frames of the video it shows.
        """
        value = logit if self._spec.pooling == "logit" else self._spec.calibration.score(logit)
        found = self._open.setdefault(track, _Track())
        found.total += value
        found.clips += 1
        found.frames += frames
        found.timeline.join(Bin(start_seconds, end_seconds, value, 1))

    def end(self, tracks: Iterable[int]) -> None:
        """Close tracks; those that never had a crop are ignored."""
        for number in tracks:
            track = self._open.pop(number, None)
            if track is not None:
                self._close(number, track)

    def finish(self) -> VideoScore | None:
        """Close what is open and return the verdict, or None if there was not a single crop."""
        self.end(sorted(self._open))
        if not self._clips:
            return None
        if self._short.clips and (self._short.frames >= self._decisive_frames or self._highest is None):
            self._decide(self._short)
        assert self._highest is not None
        assert self._peak is not None
        details = tuple(result for *_, result in sorted(self._best, key=lambda item: item[:3], reverse=True))
        score = self._highest if self._aggregate == "max" else self._score(self._total / self._clips)
        return VideoScore(score=score, tracks=self._tracks, clips=self._clips, peak=self._peak, details=details)

    def _close(self, number: int, track: _Track) -> None:
        segments = self._segments(track)
        result = TrackResult(
            track=number,
            start_seconds=segments[0].start_seconds,
            end_seconds=segments[-1].end_seconds,
            score=self._score(track.total / track.clips),
            clips=track.clips,
            timeline=segments,
        )
        self._tracks += 1
        self._clips += track.clips
        self._total += track.total
        decides = track.frames >= self._decisive_frames
        if decides:
            self._decide(track)
        else:
            self._short.absorb(track)
        heapq.heappush(self._best, (decides, result.score, -number, result))
        if len(self._best) > TRACKS_DETAILED:
            heapq.heappop(self._best)

    def _decide(self, track: _Track) -> None:
        """Let a track, or the pool of short ones, take part in the maximum."""
        self._highest = max(self._score(track.total / track.clips), self._highest or 0.0)
        peak = peak_segment(self._segments(track))
        if self._peak is None or peak.score > self._peak.score:
            self._peak = peak

    def _segments(self, track: _Track) -> tuple[Segment, ...]:
        return tuple(
            Segment(
                start_seconds=part.start_seconds,
                end_seconds=part.end_seconds,
                score=self._score(part.mean),
                clips=part.count,
            )
            for part in track.timeline.bins()
        )

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
