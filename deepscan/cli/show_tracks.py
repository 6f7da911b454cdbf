"""What `deepscan show` says of a video's tracks: which of them decided its score, and why the others did not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepscan.results import TrackResult, VideoResult

NUMBERS_SHOWN = 12


def track_lines(row: VideoResult, tracks: Sequence[TrackResult]) -> Iterator[str]:
    """Yield sentences about the tracks of a scored video; none where an earlier version has not recorded enough.

    Args:
        row: the video.
        tracks: those that are kept one by one.
    """
    if row.score is None or not tracks or any(track.pooled is None or track.decided is None for track in tracks):
        return
    pooled = [track for track in tracks if track.pooled]
    deciding = [track for track in tracks if track.decided]
    by_mean = any(not track.pooled for track in deciding) and len(deciding) > 1
    if by_mean:
        yield "The score is the mean over all crops or clips of all tracks."
    elif deciding and deciding[0].pooled:
        yield from _pool_decided(row, tracks, pooled)
    else:
        yield from _track_decided(deciding, pooled)
    highest = max(tracks, key=lambda track: track.score)
    if highest.score > row.score and (not highest.decided or len(deciding) > 1):
        yield f"Track {highest.track} is higher, {highest.score:.3f}, {_why_not(highest, by_mean=by_mean)}."


def _pool_decided(row: VideoResult, tracks: Sequence[TrackResult], pooled: Sequence[TrackResult]) -> Iterator[str]:
    if row.tracks == 1:
        yield f"{_named(pooled)} decided the score, though it is short: there is no longer one."
        return
    kept = " of which not all are kept," if row.tracks > len(tracks) else ""
    yield f"The score is that of the short tracks pooled,{kept} as if they were one: {_named(pooled).lower()}."


def _track_decided(deciding: Sequence[TrackResult], pooled: Sequence[TrackResult]) -> Iterator[str]:
    for track in deciding:
        found = "" if track.sightings is None else f" (its face was found in {_counted(track.sightings, 'frame')})"
        yield f"Track {track.track} decided the score{found}."
    if pooled:
        yield f"Too short to decide alone, and pooled: {_named(pooled).lower()}."


def _why_not(track: TrackResult, *, by_mean: bool) -> str:
    if by_mean:
        return "but the mean counts"
    if track.decided:
        return "but it is too short to decide alone, and counts together with the others that are pooled"
    return "but it is too short to decide alone"


def _named(tracks: Sequence[TrackResult]) -> str:
    numbers = sorted(track.track for track in tracks)
    listed = ", ".join(map(str, numbers[:NUMBERS_SHOWN]))
    more = f" and {len(numbers) - NUMBERS_SHOWN} more" if len(numbers) > NUMBERS_SHOWN else ""
    return f"Track{'' if len(numbers) == 1 else 's'} {listed}{more}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
