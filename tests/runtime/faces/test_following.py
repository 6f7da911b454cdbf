from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.models.lite import LITE
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.cropping import CropSpec, FaceInput, crop_specs_for
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import FaceFollower, TracksEnded
from deepscan.runtime.faces.tracking import Tracker
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.frames import Frame
from tests.footage import ASTRONAUT, TWO_FACES, open_video
from tests.runtime.host_crops import crop_rgb
from tests.runtime.scenes import EXACT_CROP, faces_at, lite_square, look_at, ramp_frame

SIZE = 64
PEOPLE = [(10.0, 10.0, 60.0, 60.0), (100.0, 10.0, 150.0, 60.0), (190.0, 10.0, 240.0, 60.0)]


def follower_of(max_gap_seconds: float = 1.0, *, min_face_pixels: int = 20) -> FaceFollower:
    cut = CropSpec((0,), EXACT_CROP, size=SIZE, frames=1, min_frames=1, min_face_pixels=min_face_pixels)
    return FaceFollower(VideoJob(0, "video"), cut, Tracker(max_gap_seconds=max_gap_seconds))


def lite_follower() -> FaceFollower:
    (cut,) = crop_specs_for([LITE], whole_pictures=False)
    return FaceFollower(VideoJob(0, "video"), cut, Tracker(max_gap_seconds=1.0))


def wait(follower: FaceFollower, frame: Frame) -> None:
    """Give the follower a frame that was not searched for faces."""
    assert list(follower.follow(look_at(frame, searched=False), None)) == []


def crops_in(messages: Iterable[FaceInput | TracksEnded]) -> list[FaceInput]:
    crops = [message for message in messages if isinstance(message, FaceInput)]
    assert all(crop.end_seconds == crop.start_seconds for crop in crops)
    return crops


def square_in(crop: FaceInput) -> tuple[float, float]:
    """Read center and side of a crop's square off the ramp that it shows."""
    values = host_array(crop.pixels)[..., 0].astype(float)
    along = values.mean(axis=0) if np.ptp(values[0]) > np.ptp(values[:, 0]) else values.mean(axis=1)
    slope = np.polyfit(np.arange(SIZE), along, 1)[0]
    return float(along.mean()) + 0.5, float(slope * SIZE)


@settings(deadline=None, max_examples=40)
@given(
    axis=st.sampled_from(["x", "y"]),
    gaps=st.lists(st.floats(0.001, 0.3), min_size=2, max_size=6),
    center=st.floats(110, 145),
    shift=st.floats(-20, 20),
    sides=st.tuples(st.floats(80, 120), st.floats(80, 120)),
)
def test_boxes_between_two_looks_lie_on_the_line_in_time(
    axis: Literal["x", "y"], gaps: list[float], center: float, shift: float, sides: tuple[float, float]
) -> None:
    centers = (center, center + shift)
    times = [5.0 + float(gap) for gap in np.cumsum(gaps)]
    boxes = [(c - s / 2, c - s / 2, c + s / 2, c + s / 2) for c, s in zip(centers, sides, strict=True)]
    follower = follower_of(max_gap_seconds=10.0)
    first = crops_in(follower.follow(look_at(ramp_frame(5.0, axis=axis), starts_shot=True), faces_at(boxes[0])))
    for seconds in times[:-1]:
        wait(follower, ramp_frame(seconds, axis=axis))
    crops = first + crops_in(follower.follow(look_at(ramp_frame(times[-1], axis=axis)), faces_at(boxes[1])))
    assert [(crop.track, crop.start_seconds) for crop in crops] == [(0, seconds) for seconds in [5.0, *times]]
    for crop in crops:
        middle, side = square_in(crop)
        assert middle == pytest.approx(np.interp(crop.start_seconds, [5.0, times[-1]], centers), abs=0.7)
        assert side == pytest.approx(np.interp(crop.start_seconds, [5.0, times[-1]], sides), abs=1.5)


def test_crops_of_real_frames_between_two_searches_lie_along_the_line() -> None:
    detector = YuNet(device="cpu", threads=1)
    with open_video(str(TWO_FACES), threads=1) as reader:
        frames = list(islice(reader.frames(), 8))
        smalls = [reader.shrink(frames[number], 640) for number in (0, 7)]
    scale = frames[0].geometry.width / smalls[0].shape[1]
    seen = [faces.scaled(scale, scale) for faces in detector.detect(np.stack(smalls))]
    assert [len(faces) for faces in seen] == [2, 2]
    follower = lite_follower()
    crops = crops_in(follower.follow(FrameTask(VideoJob(0, "video"), frames[0], smalls[0], True, 0), seen[0]))
    for frame in frames[1:7]:
        wait(follower, frame)
    crops += crops_in(follower.follow(FrameTask(VideoJob(0, "video"), frames[7], smalls[1], False, 7), seen[1]))

    order = np.argsort(seen[1].boxes[:, 0])[np.argsort(np.argsort(seen[0].boxes[:, 0]))]  # the same people
    ends = [frames[0].pts_seconds, frames[7].pts_seconds]
    assert len(crops) == 16
    for crop in crops:
        frame = next(frame for frame in frames if frame.pts_seconds == crop.start_seconds)
        corners = zip(seen[0].boxes[crop.track], seen[1].boxes[order][crop.track], strict=True)
        x0, y0, x1, y1 = (float(np.interp(frame.pts_seconds, ends, pair)) for pair in corners)
        expected = crop_rgb(frame, lite_square((x0, y0, x1, y1)), LITE.size)
        assert np.abs(host_array(crop.pixels).astype(float) - expected).mean() < 0.01


def test_frames_between_are_cropped_only_for_those_seen_in_both_looks() -> None:
    follower = follower_of()
    stays, leaves, comes = PEOPLE
    list(follower.follow(look_at(ramp_frame(0.0), starts_shot=True), faces_at(stays, leaves)))
    wait(follower, ramp_frame(0.1))
    crops = crops_in(follower.follow(look_at(ramp_frame(0.2)), faces_at(comes, stays)))
    assert [(crop.start_seconds, crop.track) for crop in crops] == [(0.1, 0), (0.2, 2), (0.2, 0)]


def test_a_face_that_a_search_missed_is_not_interpolated_but_keeps_its_track() -> None:
    follower = follower_of()
    crops = []
    for seconds, faces in [(0.0, faces_at(PEOPLE[0])), (0.2, faces_at()), (0.4, faces_at(PEOPLE[0]))]:
        wait(follower, ramp_frame(seconds - 0.1))
        crops += crops_in(follower.follow(look_at(ramp_frame(seconds), starts_shot=seconds == 0.0), faces))
    assert [(crop.start_seconds, crop.track) for crop in crops] == [(0.0, 0), (0.4, 0)]


def test_a_shot_boundary_ends_every_track_before_the_new_shot_and_bridges_nothing() -> None:
    follower = follower_of()
    list(follower.follow(look_at(ramp_frame(0.0), starts_shot=True), faces_at(*PEOPLE)))
    wait(follower, ramp_frame(0.1))
    messages = list(follower.follow(look_at(ramp_frame(0.2), starts_shot=True), faces_at(*PEOPLE)))
    ended, *crops = messages
    assert isinstance(ended, TracksEnded)
    assert ended.tracks == [0, 1, 2]
    assert [(crop.start_seconds, crop.track) for crop in crops_in(crops)] == [(0.2, 3), (0.2, 4), (0.2, 5)]


def test_a_face_away_for_too_long_ends_its_track_before_it_comes_back() -> None:
    follower = follower_of(max_gap_seconds=1.0)
    list(follower.follow(look_at(ramp_frame(0.0), starts_shot=True), faces_at(PEOPLE[0])))
    assert list(follower.follow(look_at(ramp_frame(0.5)), faces_at())) == []
    ended, crop = follower.follow(look_at(ramp_frame(1.5)), faces_at(PEOPLE[0]))
    assert isinstance(ended, TracksEnded)
    assert isinstance(crop, FaceInput)
    assert (ended.tracks, crop.track) == ([0], 1)


def test_small_faces_are_counted_but_not_scored() -> None:
    follower = follower_of(min_face_pixels=50)
    tall, small, exact = (10.0, 10.0, 40.0, 61.0), (100.0, 10.0, 149.0, 59.0), (160.0, 10.0, 210.0, 60.0)
    crops = crops_in(follower.follow(look_at(ramp_frame(0.0), starts_shot=True), faces_at(tall, small, exact)))
    crops += crops_in(follower.follow(look_at(ramp_frame(0.2)), faces_at(small)))
    assert [square_in(crop)[0] for crop in crops] == pytest.approx([25.0, 185.0], abs=0.7)
    assert (follower.most_faces, follower.skipped()) == (
        3,
        SkipSummary(small_faces=2, plain_small_faces=2, largest_small_face=49.0),
    )


@pytest.mark.parametrize(
    "boxes",
    [
        [(10.0, 10.0, 60.0, 35.0), (10.0, 10.0, 35.0, 60.0)],  # turns from wide to tall
        [(30.1, 30.1, 80.1, 80.1), (21.5, 21.5, 71.5, 71.5)],  # moves, and is just large enough
    ],
)
def test_between_two_looks_at_a_face_that_is_large_enough_every_frame_is_cropped(
    boxes: list[tuple[float, float, float, float]],
) -> None:
    follower = follower_of(min_face_pixels=50)
    frames = [ramp_frame(number / 25) for number in range(6)]
    crops = crops_in(follower.follow(look_at(frames[0], starts_shot=True), faces_at(boxes[0])))
    for frame in frames[1:-1]:
        wait(follower, frame)
    crops += crops_in(follower.follow(look_at(frames[-1]), faces_at(boxes[1])))
    assert [crop.start_seconds for crop in crops] == [frame.pts_seconds for frame in frames]
    assert follower.skipped() == SkipSummary()


def test_small_faces_between_looks_are_counted_at_the_looks_only() -> None:
    follower = follower_of(min_face_pixels=50)
    for number in range(5):
        if number % 2:
            wait(follower, ramp_frame(number / 25))
        else:
            small = faces_at((10.0, 10.0, 40.0, 40.0))
            assert list(follower.follow(look_at(ramp_frame(number / 25), starts_shot=number == 0), small)) == []
    assert follower.skipped() == SkipSummary(small_faces=3, plain_small_faces=3, largest_small_face=30.0)


def test_a_video_without_faces_has_nothing_to_end() -> None:
    follower = follower_of()
    wait(follower, ramp_frame(0.0))
    assert list(follower.follow(look_at(ramp_frame(0.1), starts_shot=True), faces_at())) == []
    assert list(follower.finish()) == []
    assert (follower.most_faces, follower.skipped()) == (0, SkipSummary())


PRESENT = st.lists(st.sampled_from(PEOPLE), unique=True)


@settings(deadline=None)
@given(st.lists(st.tuples(PRESENT, st.integers(0, 3), st.booleans(), st.floats(0.04, 1.5)), max_size=8))
def test_every_track_with_crops_ends_exactly_once_and_its_crops_come_in_the_order_of_time(
    looks: list[tuple[list[tuple[float, float, float, float]], int, bool, float]],
) -> None:
    follower, seconds = follower_of(), 0.0
    messages: list[FaceInput | TracksEnded] = []
    for present, waiting, cut, gap in looks:
        frames = [ramp_frame(seconds + gap * (number + 1) / (waiting + 1)) for number in range(waiting + 1)]
        for frame in [] if cut else frames[:-1]:
            wait(follower, frame)
        messages += follower.follow(look_at(frames[-1], starts_shot=cut), faces_at(*present))
        seconds += gap
    messages += follower.finish()
    ends = Counter(number for message in messages if isinstance(message, TracksEnded) for number in message.tracks)
    assert set(ends.values()) <= {1}
    assert set(ends) == {crop.track for crop in crops_in(messages)}
    ended: set[int] = set()
    latest: dict[int, float] = {}
    for message in messages:
        if isinstance(message, TracksEnded):
            ended.update(message.tracks)
            continue
        assert message.track not in ended
        assert message.start_seconds > latest.get(message.track, -1.0)
        latest[message.track] = message.start_seconds


def test_a_real_face_is_followed_through_every_frame_by_one_track() -> None:
    detector = YuNet(device="cpu", threads=1)
    follower = lite_follower()
    messages: list[FaceInput | TracksEnded] = []
    shown: list[Frame] = []
    with open_video(str(ASTRONAUT), threads=1) as reader:
        for frame in islice(reader.frames(), 21):
            shown.append(frame)
            if frame.index % 10:
                wait(follower, frame)
                continue
            small: NDArray[np.uint8] = reader.shrink(frame, 640)
            (faces,) = detector.detect(small[None])
            scale = frame.geometry.width / small.shape[1]
            look = FrameTask(VideoJob(0, "video"), frame, small, frame.index == 0, frame.index)
            messages += follower.follow(look, faces.scaled(scale, scale))
    messages += follower.finish()
    crops, ended = messages[:-1], messages[-1]
    assert [(crop.track, crop.start_seconds) for crop in crops_in(crops)] == [(0, frame.pts_seconds) for frame in shown]
    assert isinstance(ended, TracksEnded)
    assert ended.tracks == [0]


def test_a_crop_says_whether_its_face_was_found_or_interpolated() -> None:
    follower = follower_of()
    crops = crops_in(follower.follow(look_at(ramp_frame(0.0), starts_shot=True), faces_at((10.0, 10.0, 60.0, 60.0))))
    for number in range(1, 4):
        wait(follower, ramp_frame(number / 25, index=number))
    last = look_at(ramp_frame(0.16, index=4))
    crops += crops_in(follower.follow(last, faces_at((12.0, 10.0, 62.0, 60.0))))
    assert [len(crop.sightings) for crop in crops] == [1, 0, 0, 0, 1]
    assert crops[0].sightings < crops[-1].sightings


def ended_in(messages: Iterable[FaceInput | TracksEnded]) -> list[TracksEnded]:
    return [message for message in messages if isinstance(message, TracksEnded)]


def test_a_track_goes_on_through_a_flash_and_ends_at_a_shot_boundary() -> None:
    face = faces_at((10.0, 10.0, 60.0, 60.0))
    follower = follower_of()
    tracks: list[int] = []
    for number, continues in enumerate([False, True, True, False]):
        look = replace(look_at(ramp_frame(number / 25, index=number), starts_shot=True), continues=continues)
        tracks += [crop.track for crop in follower.follow(look, face) if isinstance(crop, FaceInput)]
    assert tracks == [0, 0, 0, 1]


def test_a_face_that_one_look_sees_and_the_next_does_not_is_a_glimpse() -> None:
    cut = CropSpec((0,), EXACT_CROP, size=8, frames=1, min_frames=1, min_face_pixels=20)
    stays, passing = (10.0, 10.0, 60.0, 60.0), (150.0, 100.0, 200.0, 150.0)
    for marks in (True, False):
        follower = FaceFollower(VideoJob(0, "video"), cut, Tracker(max_gap_seconds=1.0), marks_glimpses=marks)
        messages = list(follower.follow(look_at(ramp_frame(0.0), starts_shot=True), faces_at(stays, passing)))
        messages += follower.follow(look_at(ramp_frame(0.2, index=5)), faces_at(stays))
        messages += follower.finish()
        (ended,) = ended_in(messages)
        assert (ended.tracks, ended.glimpses) == ([0, 1], (1,) if marks else ())


def test_in_a_shot_of_a_single_look_nothing_is_a_glimpse() -> None:
    cut = CropSpec((0,), EXACT_CROP, size=8, frames=1, min_frames=1, min_face_pixels=20)
    follower = FaceFollower(VideoJob(0, "video"), cut, Tracker(max_gap_seconds=1.0), marks_glimpses=True)
    messages: list[FaceInput | TracksEnded] = []
    for number, box in enumerate([(10.0, 10.0, 60.0, 60.0), (150.0, 100.0, 200.0, 150.0)]):
        messages += follower.follow(look_at(ramp_frame(number / 25, index=number), starts_shot=True), faces_at(box))
    messages += follower.finish()
    assert [ended.glimpses for ended in ended_in(messages)] == [(), ()]


def test_pictures_that_are_faces_already_are_seen_in_every_frame() -> None:
    cut = CropSpec((0,), None, size=8, frames=1, min_frames=1, min_face_pixels=1)
    follower = FaceFollower(VideoJob(0, "video"), cut, Tracker(max_gap_seconds=1.0))
    whole = faces_at((0.0, 0.0, 256.0, 256.0))
    crops = crops_in(follower.follow(look_at(ramp_frame(0.0), starts_shot=True), whole))
    wait(follower, ramp_frame(0.04, index=1))
    crops += crops_in(follower.follow(look_at(ramp_frame(0.08, index=2)), whole))
    assert [len(crop.sightings) for crop in crops] == [1, 1, 1]
