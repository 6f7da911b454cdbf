from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import asdict, replace

from deepscan.cli.show_display import track_lines
from deepscan.results import Segment, TrackResult, VideoResult
from tests.runtime.result_rows import TRACK, row, scanned


def track(number: int, score: float, **facts: Any) -> TrackResult:
    known: dict[str, Any] = {"sightings": 12, "pooled": False, "decided": False}
    return replace(TRACK, track=number, score=score, **(known | facts))


def lines(score: float | None, tracks: Sequence[TrackResult], *, others: int = 0) -> list[str]:
    status = "no_face" if score is None else "scored"
    shown = row(0, status=status, score=score, tracks=len(tracks) + others, details=tuple(tracks))
    return list(track_lines(VideoResult.from_dict(shown.to_dict()), tracks))


def test_the_track_that_decided_is_named() -> None:
    found = lines(0.9, [track(0, 0.9, decided=True), track(1, 0.2, sightings=1)])
    assert found == ["Track 0 decided the score (its face was found in 12 frames)."]


def test_a_higher_track_that_was_too_short_is_explained() -> None:
    found = lines(0.2, [track(0, 0.2, decided=True), track(1, 0.95, pooled=True), track(4, 0.1, pooled=True)])
    assert found == [
        "Track 0 decided the score (its face was found in 12 frames).",
        "Too short to decide alone, and pooled: tracks 1, 4.",
        "Track 1 is higher, 0.950, but it is too short to decide alone.",
    ]


def test_a_pool_that_decided_is_told_from_its_members() -> None:
    short = [track(number, number / 10, pooled=True, decided=True) for number in range(1, 4)]
    found = lines(0.2, [track(0, 0.1), *short], others=5)
    assert found == [
        "The score is that of the short tracks pooled, of which not all are kept, as if they were one: tracks 1, 2, 3.",
        (
            "Track 3 is higher, 0.300, but it is too short to decide alone, and counts together with the others "
            "that are pooled."
        ),
    ]


def test_a_single_short_track_decides() -> None:
    found = lines(0.4, [track(0, 0.4, pooled=True, decided=True, sightings=1)])
    assert found == ["Track 0 decided the score, though it is short: there is no longer one."]


def test_a_mean_over_all_is_named_in_the_output() -> None:
    found = lines(0.4, [track(0, 0.6, decided=True), track(1, 0.3, pooled=True, decided=True)])
    assert found == [
        "The score is the mean over all crops or clips of all tracks.",
        "Track 0 is higher, 0.600, but the mean counts.",
    ]


def test_many_pooled_tracks_are_not_all_named() -> None:
    tracks = [track(0, 0.9, decided=True), *(track(number, 0.1, pooled=True) for number in range(1, 31))]
    assert lines(0.9, tracks)[1].endswith("tracks 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 18 more.")


@pytest.mark.parametrize(
    ("score", "tracks"),
    [(None, []), (0.5, []), (0.7654321, [replace(TRACK, sightings=None, pooled=None, decided=None)])],
    ids=["not scored", "no tracks", "of an earlier version"],
)
def test_where_nothing_is_known_nothing_is_said(score: float | None, tracks: list[TrackResult]) -> None:
    assert lines(score, tracks) == []


def test_records_keep_what_is_known_of_tracks_and_those_of_earlier_versions_are_read() -> None:
    known = replace(scanned(0, "a.mp4"), details=(track(2, 0.5, decided=True),))
    record = known.to_dict()
    again = VideoResult.from_dict(record)
    assert (again.details[0].sightings, again.details[0].pooled, again.details[0].decided) == (12, False, True)
    for details in record["track_details"]:
        for name in ("sightings", "pooled", "decided"):
            del details[name]
    earlier = VideoResult.from_dict(record)
    assert (earlier.details[0].sightings, earlier.details[0].pooled, earlier.details[0].decided) == (None, None, None)
    assert asdict(earlier.details[0])["timeline"][0] == asdict(replace(again.details[0]))["timeline"][0]
    assert isinstance(earlier.details[0].timeline[0], Segment)
