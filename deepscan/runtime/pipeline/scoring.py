"""Aggregation of logits: from crops to tracks and to the video, in memory that does not grow with the video."""

from __future__ import annotations

import dataclasses
import heapq
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec

from deepscan.options import Aggregate
from deepscan.profiles import Profile
from deepscan.results import Label, Segment, TrackResult
from deepscan.runtime.faces.detections import FaceMeasures
from deepscan.runtime.media.sampling import Sampling
from deepscan.spec import DetectorSpec, LabelBand

TRACKS_DETAILED = 64
# Fewest sightings for a label to rest on a face; one or two may be a dark profile, or not a face.
MIN_SIGHTINGS: Final = 3
# Number of the pool among the tracks.
POOL: Final = -1
# First width of the segments of a timeline, which doubles when there are too many of them.
FIRST_WIDTH_SECONDS: Final = 1.0
MAX_SEGMENTS: Final = 128
NO_MEASURES: Final[Mapping[int, FaceMeasures]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringSettings:
    """Settings of one detector for all videos of a scan; the spec has the label band in force.

    Tracks of `decisive_frames` frames or more can decide the score. With `mirror`, a crop's logit is averaged with that
    of its mirror image. With a profile, see `calibrated`, all scores are those that it makes of the detector's.
    """

    model: str
    spec: DetectorSpec
    aggregate: Aggregate
    decisive_frames: int
    sampling: Sampling
    mirror: bool
    weights_sha256: str
    settings_sha256: str
    profile: Profile | None = None

    def score_of(self, logit: float) -> float:
        """Return the score of a logit that stands alone."""
        score = self.spec.calibration.score(logit)
        return score if self.profile is None else self.profile.calibrated(score)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScore:
    """The score of one video, and what it rests on.

    Attributes:
        score: probability of *fake*, in [0, 1].
        tracks, clips: number of scored tracks, and of scored crops or clips.
        sightings: number of frames in which the deciding face was found, counted up to `MIN_SIGHTINGS`.
        measures: quality of the faces that decided, means over their crops or clips; None if nothing was measured.
        peak: most suspicious segment of the tracks that decided.
        details: tracks long enough to decide, highest score first; then the pooled ones.
    """

    score: float
    tracks: int
    clips: int
    sightings: int
    measures: FaceMeasures | None
    peak: Segment
    details: tuple[TrackResult, ...]


@dataclass(slots=True)
class Bin:
    """Values of one period: time of the first and the last one, their sum and their number."""

    start_seconds: float
    end_seconds: float
    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return self.total / self.count


class Timeline:
    """Values in bins of one second; when there are too many bins, pairs are joined and the width doubles."""

    def __init__(self) -> None:
        self._width = FIRST_WIDTH_SECONDS
        self._bins: dict[int, Bin] = {}

    def join(self, part: Bin) -> None:
        """Add the values of a period to the bin in which it starts; periods may come in any order."""
        _join(self._bins, int(part.start_seconds // self._width), part)
        while len(self._bins) > MAX_SEGMENTS:
            self._width *= 2
            halved: dict[int, Bin] = {}
            for number, old in self._bins.items():
                _join(halved, number // 2, old)
            self._bins = halved

    def bins(self) -> list[Bin]:
        """Return the bins that hold values, in chronological order."""
        return [self._bins[number] for number in sorted(self._bins)]


def _join(bins: dict[int, Bin], number: int, part: Bin) -> None:
    found = bins.setdefault(number, Bin(part.start_seconds, part.end_seconds))
    found.start_seconds = min(found.start_seconds, part.start_seconds)
    found.end_seconds = max(found.end_seconds, part.end_seconds)
    found.total += part.total
    found.count += part.count


@dataclass(slots=True)
class _Track:
    """Sums of a track, or of several together.

    Attributes:
        total: sum of the logits or scores, whichever the spec pools.
        clips: number of crops or clips.
        frames: number of frames in them; a frame in two clips counts twice.
        sightings: number of frames in which the face was found.
        latest: position of the last sighting.
        seen_at: positions of the first sightings, at most `MIN_SIGHTINGS`.
        measures: quality of the face, the mean over its crops or clips.
        measured: number of crops or clips that `measures` stands for.
    """

    total: float = 0.0
    clips: int = 0
    frames: int = 0
    sightings: int = 0
    latest: int = -1
    seen_at: set[int] = field(default_factory=set)
    measures: FaceMeasures | None = None
    measured: int = 0
    timeline: Timeline = field(default_factory=Timeline)

    def see(self, positions: Iterable[int]) -> None:
        """Count the sightings of a crop or clip that earlier ones did not have."""
        for position in positions:
            if position > self.latest:
                self.latest = position
                self.sightings += 1
                if len(self.seen_at) < MIN_SIGHTINGS:
                    self.seen_at.add(position)

    def absorb(self, other: _Track) -> None:
        """Add another track."""
        self.total += other.total
        self.clips += other.clips
        self.frames += other.frames
        self.sightings += other.sightings
        self.seen_at |= set(islice(other.seen_at - self.seen_at, MIN_SIGHTINGS - len(self.seen_at)))
        if other.measures is not None:
            self.measure(other.measures, other.measured)
        for part in other.timeline.bins():
            self.timeline.join(part)

    def measure(self, measures: FaceMeasures, clips: int) -> None:
        """Include the measures of so many crops or clips in the means."""
        self.measured += clips
        share = clips / self.measured
        before = self.measures or measures
        pairs = zip(before, measures, strict=True)
        self.measures = FaceMeasures(*(old + (new - old) * share for old, new in pairs))


class ScoreAggregator:
    """Aggregates the logits of one video to its score.

    Track score: mean over its crops of the logit (then calibrated) or of the score, as the spec says.
    Video score: the highest track score (`max`), or the mean over all crops of all tracks (`mean`). A maximum over
    many short tracks would grow with their number and their noise, so tracks of fewer than `decisive_frames` frames are
    pooled. The pool counts as one track if it has that many frames, or if there is no other track.
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
        """Add the logit of one crop or clip of a track.

        `frames` is their number in it; `sightings` are the ascending positions of those in which the face was found.
        """
        value = logit if self._spec.pooling == "logit" else self._spec.calibration.score(logit)
        found = self._open.setdefault(track, _Track())
        found.total += value
        found.clips += 1
        found.frames += frames
        found.see(sightings)
        found.timeline.join(Bin(start_seconds, end_seconds, value, 1))

    def end(
        self,
        tracks: Iterable[int],
        *,
        glimpses: Collection[int] = (),
        measures: Mapping[int, FaceMeasures] = NO_MEASURES,
    ) -> None:
        """Close tracks, of which some may be glimpses; tracks without a crop are ignored."""
        for number in tracks:
            track = self._open.pop(number, None)
            if track is not None:
                if number in measures:
                    track.measure(measures[number], track.clips)
                (self._glimpses if number in glimpses else self._tracks).close(number, track)

    def finish(self) -> VideoScore | None:
        """Close the open tracks and return the score, or None if there was no crop."""
        self.end(sorted(self._open))
        return self._tracks.result() or self._glimpses.result()

    def _score(self, mean: float) -> float:
        return self._spec.calibration.score(mean) if self._spec.pooling == "logit" else mean


class _Tally:
    """Score of closed tracks; see `ScoreAggregator`.

    `score` makes a probability of a mean of logits or scores.
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
        """Add a closed track."""
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
        """Return the score, or None if there are no tracks."""
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
            measures=decider.measures,
            peak=self._peak,
            details=tuple(
                msgspec.structs.replace(result, decided=result.decided or _took_part(result, number))
                for result in ranked
            ),
        )

    def _decide(self, track: _Track, number: int) -> None:
        """Include a track, or the pool, in the maximum; of equal scores the one with more sightings wins."""
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
    """Return the segment with the highest score among those with at least half as many crops as the median one."""
    enough = statistics.median(segment.clips for segment in segments) / 2
    return max((segment for segment in segments if segment.clips >= enough), key=lambda segment: segment.score)


def calibrated(found: VideoScore | None, profile: Profile | None) -> VideoScore | None:
    """Return a score, and those of its tracks and segments, as a profile calibrates them; their order stays."""
    if found is None or profile is None:
        return found
    replace = msgspec.structs.replace

    def segment(each: Segment) -> Segment:
        return replace(each, score=profile.calibrated(each.score))

    def track(each: TrackResult) -> TrackResult:
        timeline = tuple(map(segment, each.timeline))
        return replace(each, score=profile.calibrated(each.score), timeline=timeline)

    return dataclasses.replace(
        found,
        score=profile.calibrated(found.score),
        peak=segment(found.peak),
        details=tuple(map(track, found.details)),
    )


def label_of(score: float, band: LabelBand) -> Label:
    """Return the label of a score."""
    if score >= band.fake_from:
        return "fake"
    return "real" if score < band.real_below else "uncertain"
