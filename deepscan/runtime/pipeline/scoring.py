"""Aggregation of logits: from crops to tracks and to the video, in memory that does not grow with the video."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec

from deepscan.options import Aggregate
from deepscan.results import Label, Segment, TrackResult
from deepscan.runtime.media.sampling import Sampling
from deepscan.spec import DetectorSpec, LabelBand

TRACKS_DETAILED = 64
# Frames in which a face must have been found for a label to rest on it; one or two may be a dark profile, or no face.
MIN_SIGHTINGS: Final = 3
# Stands for the number of a track.
POOL: Final = -1
# The course of a score is kept in segments of this width, which doubles when there are too many of them.
FIRST_WIDTH_SECONDS: Final = 1.0
MAX_SEGMENTS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringSettings:
    """What every result of one detector shares.

    Attributes:
        model: what results call the detector.
        spec: the detector, with the label band in force.
        aggregate: how tracks become one score.
        decisive_frames: how many frames make a track that can decide the score.
        sampling: which frames are looked at.
        mirror: whether a crop's logit is averaged with that of its mirror image.
        weights_sha256, settings_sha256: what the scores depend on.
    """

    model: str
    spec: DetectorSpec
    aggregate: Aggregate
    decisive_frames: int
    sampling: Sampling
    mirror: bool
    weights_sha256: str
    settings_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScore:
    """The score of one video, and what it rests on.

    Attributes:
        score: probability of *fake*, in [0, 1].
        tracks: how many tracks were scored.
        clips: how many crops or clips were scored.
        sightings: in how many frames a face was found of what decided; counted up to `MIN_SIGHTINGS`.
        peak: the most suspicious segment of the tracks that decided.
        details: the tracks long enough to decide, highest score first; then those that were pooled.
    """

    score: float
    tracks: int
    clips: int
    sightings: int
    peak: Segment
    details: tuple[TrackResult, ...]


@dataclass(slots=True)
class Bin:
    """What fell into one stretch of time: the time of its first and last value, their sum and number."""

    start_seconds: float
    end_seconds: float
    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return self.total / self.count


class Timeline:
    """Collects values in bins of one second; when there are too many bins, pairs are joined and the width doubles."""

    def __init__(self) -> None:
        self._width = FIRST_WIDTH_SECONDS
        self._bins: dict[int, Bin] = {}

    def join(self, part: Bin) -> None:
        """Add what fell into a stretch of time; it counts where it starts. Stretches may come in any order."""
        _join(self._bins, int(part.start_seconds // self._width), part)
        while len(self._bins) > MAX_SEGMENTS:
            self._width *= 2
            halved: dict[int, Bin] = {}
            for number, old in self._bins.items():
                _join(halved, number // 2, old)
            self._bins = halved

    def bins(self) -> list[Bin]:
        """Return the bins that hold values, in the order of time."""
        return [self._bins[number] for number in sorted(self._bins)]


def _join(bins: dict[int, Bin], number: int, part: Bin) -> None:
    found = bins.setdefault(number, Bin(part.start_seconds, part.end_seconds))
    found.start_seconds = min(found.start_seconds, part.start_seconds)
    found.end_seconds = max(found.end_seconds, part.end_seconds)
    found.total += part.total
    found.count += part.count


@dataclass(slots=True)
class _Track:
    """A track while it lasts, or several together.

    Attributes:
        total: sum of what the spec pools: logits or scores.
        clips: crops or clips.
        frames: that they show; one in two clips counts twice.
        sightings: frames in which its face was found.
        latest: position of the last of them.
        seen_at: positions of the first of them, no more than count.
        timeline: the course of the score.
    """

    total: float = 0.0
    clips: int = 0
    frames: int = 0
    sightings: int = 0
    latest: int = -1
    seen_at: set[int] = field(default_factory=set)
    timeline: Timeline = field(default_factory=Timeline)

    def see(self, positions: Iterable[int]) -> None:
        """Count the sightings of a crop or clip; those of one before are not counted again."""
        for position in positions:
            if position > self.latest:
                self.latest = position
                self.sightings += 1
                if len(self.seen_at) < MIN_SIGHTINGS:
                    self.seen_at.add(position)

    def absorb(self, other: _Track) -> None:
        """Take in another track's crops."""
        self.total += other.total
        self.clips += other.clips
        self.frames += other.frames
        self.sightings += other.sightings
        self.seen_at |= set(islice(other.seen_at - self.seen_at, MIN_SIGHTINGS - len(self.seen_at)))
        for part in other.timeline.bins():
            self.timeline.join(part)


class ScoreAggregator:
    """Collects the logits of one video, and makes its score of them.

    Track score: mean over its crops of the logit (then calibrated) or of the score, as the spec says.
    Video score: the highest track score (`max`), or the mean over all crops of all tracks (`mean`). A maximum over
    many short tracks would grow with their number and their noise, so tracks of fewer than `decisive_frames` frames are
    pooled: together they count as one track, if they have so many frames in all or if there is no longer one.
    Glimpses, see `TracksEnded`, count only if there is nothing else.
    """

    def __init__(self, spec: DetectorSpec, aggregate: Aggregate, *, decisive_frames: int) -> None:
        self._spec = spec
        self._open: dict[int, _Track] = {}
        self._tracks = _Tally(self._score, aggregate, decisive_frames)
        self._glimpses = _Tally(self._score, aggregate, decisive_frames)

    def add(
        self,
        track: int,
        start_seconds: float,
        end_seconds: float,
        logit: float,
        *,
        frames: int,
        sightings: Iterable[int],
    ) -> None:
        """Take the logit of one crop or clip of a track.

        Args:
            track: its number.
            start_seconds: time of its first frame.
            end_seconds: time of its last frame.
            logit: of the detector.
            frames: how many frames of the video it shows.
            sightings: positions of those in which the face was found, ascending.
        """
        value = logit if self._spec.pooling == "logit" else self._spec.calibration.score(logit)
        found = self._open.setdefault(track, _Track())
        found.total += value
        found.clips += 1
        found.frames += frames
        found.see(sightings)
        found.timeline.join(Bin(start_seconds, end_seconds, value, 1))

    def end(self, tracks: Iterable[int], *, glimpses: Collection[int] = ()) -> None:
        """Close tracks, some of which were glimpses; those that never had a crop are ignored."""
        for number in tracks:
            track = self._open.pop(number, None)
            if track is not None:
                (self._glimpses if number in glimpses else self._tracks).close(number, track)

    def finish(self) -> VideoScore | None:
        """Close the open tracks and return the score, or None if there was not a single crop."""
        self.end(sorted(self._open))
        return self._tracks.result() or self._glimpses.result()

    def _score(self, mean: float) -> float:
        return self._spec.calibration.score(mean) if self._spec.pooling == "logit" else mean


class _Tally:
    """The score of the tracks that are closed.

    Args:
        score: turns a mean of what is pooled into a probability.
        aggregate, decisive_frames: see `ScoreAggregator`.
    """

    def __init__(self, score: Callable[[float], float], aggregate: Aggregate, decisive_frames: int) -> None:
        self._score = score
        self._aggregate = aggregate
        self._decisive_frames = decisive_frames
        self._best: list[tuple[bool, float, int, TrackResult]] = []
        self._tracks = 0
        self._all, self._short = _Track(), _Track()
        self._highest: tuple[float, _Track, int] | None = None
        self._peak: Segment | None = None

    def close(self, number: int, track: _Track) -> None:
        """Take in a track."""
        segments = self._segments(track)
        decides = track.frames >= self._decisive_frames
        result = TrackResult(
            track=number,
            start_seconds=segments[0].start_seconds,
            end_seconds=segments[-1].end_seconds,
            score=self._score(track.total / track.clips),
            clips=track.clips,
            timeline=segments,
            sightings=track.sightings,
            pooled=not decides,
            decided=self._aggregate == "mean",
        )
        self._tracks += 1
        self._all.absorb(track)
        if decides:
            self._decide(track, number)
        else:
            self._short.absorb(track)
        heapq.heappush(self._best, (decides, result.score, -number, result))
        if len(self._best) > TRACKS_DETAILED:
            heapq.heappop(self._best)

    def result(self) -> VideoScore | None:
        """Return the score of all of them, or None if there are none."""
        if not self._tracks:
            return None
        if self._short.clips and (self._short.frames >= self._decisive_frames or self._highest is None):
            self._decide(self._short, POOL)
        assert self._highest is not None
        assert self._peak is not None
        score, decider, number = self._highest
        if self._aggregate == "mean":
            score, decider = self._score(self._all.total / self._all.clips), self._all
        ranked = [result for *_, result in sorted(self._best, key=lambda item: item[:3], reverse=True)]
        return VideoScore(
            score=score,
            tracks=self._tracks,
            clips=self._all.clips,
            sightings=len(decider.seen_at),
            peak=self._peak,
            details=tuple(
                msgspec.structs.replace(result, decided=result.decided or _took_part(result, number))
                for result in ranked
            ),
        )

    def _decide(self, track: _Track, number: int) -> None:
        """Let a track, or the pool of short ones, take part in the maximum; of equal ones the better seen counts."""
        score = self._score(track.total / track.clips)
        rank = score, len(track.seen_at)
        if self._highest is None or rank > (self._highest[0], len(self._highest[1].seen_at)):
            self._highest = score, track, number
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


def _took_part(result: TrackResult, decider: int) -> bool:
    return bool(result.pooled) if decider == POOL else result.track == decider and not result.pooled


def peak_segment(segments: tuple[Segment, ...]) -> Segment:
    """Return the segment with the highest score, leaving out those with too few crops to trust.

    A segment counts if it holds at least half as many crops as the median segment.
    """
    enough = statistics.median(segment.clips for segment in segments) / 2
    return max((segment for segment in segments if segment.clips >= enough), key=lambda segment: segment.score)


def label_of(score: float, band: LabelBand) -> Label:
    """Return the label of a score."""
    if score >= band.fake_from:
        return "fake"
    return "real" if score < band.real_below else "uncertain"


def band_with_threshold(band: LabelBand, threshold: float | None) -> LabelBand:
    """Return the band in which *fake* begins at `threshold`; *real* never reaches beyond it."""
    if threshold is None:
        return band
    return LabelBand(real_below=min(band.real_below, threshold), fake_from=threshold)
