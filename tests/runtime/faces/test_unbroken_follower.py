"""The authors' way with clips: every window of every track, made in a second pass with little held in memory."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.models.registry import find_detector
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.alignment import FaceRegion, face_region
from deepscan.runtime.faces.clips import paper_windows
from deepscan.runtime.faces.cropping import CropSpec, FaceInput, crop_specs_for
from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.faces.unbroken_tracks import UnbrokenFollower, unbroken_tracks
from deepscan.runtime.media.color import BT709, Color
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Geometry
from deepscan.spec import ClipCrop
from tests.runtime.host_crops import aligned_clip

T = 32
SIZE = 16
WIDTH, HEIGHT = 200, 80
TARGET = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.55), (0.35, 0.75), (0.65, 0.75))
CROP = ClipCrop(target=TARGET, reach=0.5)
CUT = CropSpec((0,), CROP, size=SIZE, frames=T, min_frames=9, min_face_pixels=1)
LEFT, RIGHT = 30.0, 130.0
# Two people may be told apart: the right half of a frame is so much brighter than the number on the left.
BRIGHTER = 100


def frame_of(number: int) -> Frame:
    """Return a frame whose left half shows its number, below 100, and whose right half that and 100."""
    plane = np.full((HEIGHT, WIDTH), number, dtype=np.uint8)
    plane[:, WIDTH // 2 :] += BRIGHTER
    picture = Picture((plane,), 8, Color(BT709, full_range=True), left_chroma=False)
    return Frame(number, number / 25, picture, Geometry(WIDTH, HEIGHT), None)


def faces_at(*places: float, side: float = 40) -> Faces:
    """Return faces that begin at these x."""
    boxes = np.array([(x, 20, x + side, 20 + side) for x in places], dtype=np.float32).reshape(-1, 4)
    points = boxes[:, None, :2] + side * np.array(TARGET, dtype=np.float32)
    return Faces(boxes, points, np.full(len(places), 0.99, dtype=np.float32))


def look_at(number: int, *, searched: bool) -> FrameTask:
    small = np.zeros((1, 1, 3), dtype=np.uint8) if searched else None
    return FrameTask(VideoJob(0, "video"), frame_of(number), small, False, number)


def search(follower: UnbrokenFollower, faces: Sequence[Faces]) -> None:
    """The first pass."""
    for number, found in enumerate(faces):
        assert list(follower.follow(look_at(number, searched=True), found)) == []
    follower.rewind()


def crop(
    follower: UnbrokenFollower, count: int, *, after_each: Callable[[], None] = lambda: None
) -> list[tuple[int, FaceInput]]:
    """The second pass: return each clip with the number of the frame that it came with."""
    clips = []
    for number in range(count):
        for message in follower.follow(look_at(number, searched=False), None):
            assert isinstance(message, FaceInput)
            clips.append((number, message))
        after_each()
    return clips


def shown_in(clip: FaceInput) -> list[int]:
    """Tell the frames of a clip by what is in their middle."""
    return [int(value) for value in host_array(clip.pixels)[:, SIZE // 2, SIZE // 2, 0]]


def clips_of(
    presence: Sequence[Sequence[float]], *, stride: int = 1, cut: CropSpec = CUT
) -> tuple[list[tuple[int, FaceInput]], UnbrokenFollower]:
    follower = UnbrokenFollower(VideoJob(0, "video"), cut, stride=stride)
    search(follower, [faces_at(*places) for places in presence])
    return crop(follower, len(presence)), follower


@pytest.mark.parametrize("length", [32, 33, 40])
def test_a_track_gives_every_window_of_its_frames_in_order(length: int) -> None:
    clips, follower = clips_of([[LEFT]] * length)
    assert [shown_in(clip) for _, clip in clips] == [list(range(n, n + T)) for n in range(length - T + 1)]
    assert [number for number, _ in clips] == list(range(T - 1, length))
    for _, clip in clips:
        assert clip.pixels.shape == (T, SIZE, SIZE, 3)
        assert (clip.track, clip.detectors) == (0, (0,))
        assert clip.start_seconds == min(shown_in(clip)) / 25
        assert clip.end_seconds == max(shown_in(clip)) / 25
    assert follower.skipped() == SkipSummary()


@pytest.mark.parametrize("length", [9, 10, 20, 31])
def test_a_shorter_track_is_mirrored_on_both_sides_and_gives_every_window_of_that(length: int) -> None:
    clips, _ = clips_of([[LEFT]] * length)
    padded = np.pad(np.arange(length), T - 1, mode="reflect")
    expected = np.lib.stride_tricks.sliding_window_view(padded, T).tolist()
    assert len(clips) == length + T - 1
    assert sorted(shown_in(clip) for _, clip in clips) == sorted(expected)
    for number, clip in clips:
        assert max(shown_in(clip)) == number
        assert (clip.start_seconds, clip.end_seconds) == (min(shown_in(clip)) / 25, number / 25)


@pytest.mark.parametrize(("stride", "starts"), [(1, range(29)), (16, (0, 16)), (28, (0, 28)), (29, (0,)), (60, (0,))])
def test_windows_begin_a_stride_apart(stride: int, starts: Sequence[int]) -> None:
    clips, _ = clips_of([[LEFT]] * 60, stride=stride)
    assert [shown_in(clip) for _, clip in clips] == [list(range(start, start + T)) for start in starts]


def test_a_stride_longer_than_a_clip_leaves_frames_out() -> None:
    clips, _ = clips_of([[LEFT]] * 90, stride=50)
    assert [shown_in(clip)[0] for _, clip in clips] == [0, 50]


def test_two_people_are_two_tracks_with_windows_of_their_own() -> None:
    clips, follower = clips_of([[LEFT, RIGHT], [RIGHT, LEFT]] * 17)
    of_track: dict[int, list[list[int]]] = defaultdict(list)
    for _, clip in clips:
        of_track[clip.track].append(shown_in(clip))
    windows = [list(range(n, n + T)) for n in range(3)]
    assert of_track == {0: windows, 1: [[BRIGHTER + shown for shown in window] for window in windows]}
    assert follower.most_faces == 2
    [ended] = follower.finish()
    assert isinstance(ended, TracksEnded)
    assert (ended.detectors, ended.tracks) == ((0,), [0, 1])


def test_a_gap_parts_the_clips() -> None:
    clips, _ = clips_of([[LEFT]] * 20 + [[]] + [[LEFT]] * 49)
    by_track = {number: [shown_in(clip) for _, clip in clips if clip.track == number] for number in (0, 1)}
    assert len(by_track[0]) == 20 + T - 1
    assert set().union(*by_track[0]) == set(range(20))
    assert by_track[1] == [list(range(n, n + T)) for n in range(22, 70 - T + 1)]


def test_tracks_below_the_minimum_are_skipped_and_the_longest_of_them_is_reported() -> None:
    presence = [[LEFT]] * 5 + [[]] * 2 + [[LEFT]] * 8 + [[]] * 2 + [[LEFT]] * 9 + [[]] * 3
    clips, follower = clips_of(presence)
    assert {clip.track for _, clip in clips} == {0}
    assert set().union(*(shown_in(clip) for _, clip in clips)) == set(range(17, 26))
    assert follower.skipped() == SkipSummary(longest_stretch=8)
    [ended] = follower.finish()
    assert isinstance(ended, TracksEnded)
    assert ended.tracks == [0]


@pytest.mark.parametrize("length", [1, 2, 8])
def test_with_a_minimum_of_one_frame_the_shortest_track_gives_clips(length: int) -> None:
    cut = CropSpec((0,), CROP, size=SIZE, frames=T, min_frames=1, min_face_pixels=1)
    clips, follower = clips_of([[LEFT]] * length, cut=cut)
    assert len(clips) == length + T - 1
    assert follower.skipped() == SkipSummary()


def test_faces_smaller_than_the_caller_wants_do_not_take_part() -> None:
    cut = CropSpec((0,), CROP, size=SIZE, frames=T, min_frames=9, min_face_pixels=40)
    follower = UnbrokenFollower(VideoJob(0, "video"), cut, stride=1)
    search(follower, [faces_at(LEFT, side=40 if number < 34 else 39) for number in range(40)])
    assert [shown_in(clip)[0] for _, clip in crop(follower, 40)] == [0, 1, 2]
    assert follower.skipped() == SkipSummary(small_faces=6, plain_small_faces=6, largest_small_face=39.0)
    assert follower.most_faces == 1


def test_a_small_face_does_not_take_the_place_of_a_large_one() -> None:
    cut = CropSpec((0,), CROP, size=SIZE, frames=T, min_frames=9, min_face_pixels=40)
    follower = UnbrokenFollower(VideoJob(0, "video"), cut, stride=1)
    small, large = faces_at(RIGHT, side=30), faces_at(LEFT)
    arrays = (
        np.concatenate(pair) for pair in zip(*((f.boxes, f.landmarks, f.scores) for f in (small, large)), strict=True)
    )
    search(follower, [Faces(*arrays)] * T)
    assert [shown_in(clip) for _, clip in crop(follower, T)] == [list(range(T))]
    assert (follower.most_faces, follower.skipped()) == (
        2,
        SkipSummary(small_faces=T, plain_small_faces=T, largest_small_face=30.0),
    )


def test_no_face_is_seen() -> None:
    clips, follower = clips_of([[]] * 10)
    assert clips == []
    assert follower.most_faces == 0
    assert follower.skipped() == SkipSummary()
    assert [message.tracks for message in follower.finish() if isinstance(message, TracksEnded)] in ([], [[]])


def test_a_video_that_fails_before_its_second_pass_has_no_clips() -> None:
    follower = UnbrokenFollower(VideoJob(0, "video"), CUT, stride=1)
    for number in range(40):
        list(follower.follow(look_at(number, searched=True), faces_at(LEFT)))
    assert not any(isinstance(message, FaceInput) for message in follower.finish())


def test_clips_are_aligned_by_their_own_frames_only() -> None:
    """The face moves: each window has its own transform, fitted to its 32 frames."""
    follower = UnbrokenFollower(VideoJob(0, "video"), CUT, stride=1)
    faces = [faces_at(20.0 + number) for number in range(36)]
    search(follower, faces)
    clips = crop(follower, 36)
    assert len(clips) == 5
    for start, (_, clip) in enumerate(clips):
        regions = [
            face_region(frame_of(n), tuple(faces[n].boxes[0].tolist()), faces[n].landmarks[0], reach=0.5)
            for n in range(start, start + T)
        ]
        assert np.array_equal(host_array(clip.pixels), aligned_clip(regions, TARGET, SIZE))


@pytest.fixture
def only_new_things() -> Iterator[None]:
    """Hide what exists already from `gc.get_objects`: with all of torch there it would take long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def regions_held() -> int:
    """Count what is kept of the frames; the exact type, as torch's lazy objects warn when asked for more."""
    return sum(type(thing) is FaceRegion for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("length", "people", "stride", "most"), [(90, 1, 1, T), (90, 2, 1, 2 * T), (90, 1, 40, T), (20, 2, 1, 40)]
)
@pytest.mark.usefixtures("only_new_things")
def test_no_more_is_held_than_a_clip_for_each_track(length: int, people: int, stride: int, most: int) -> None:
    follower = UnbrokenFollower(VideoJob(0, "video"), CUT, stride=stride)
    search(follower, [faces_at(*[LEFT, RIGHT][:people])] * length)
    held: list[int] = []
    clips = crop(follower, length, after_each=lambda: held.append(regions_held()))
    assert clips
    assert 0 < max(held) <= most
    assert held[-1] == 0


PRESENCE = st.lists(
    st.tuples(st.sampled_from([(), (LEFT,), (RIGHT,), (LEFT, RIGHT)]), st.integers(1, 9)), max_size=8
).map(lambda runs: [places for places, count in runs for _ in range(count)])


@given(PRESENCE, st.integers(1, 12), st.integers(1, 7), st.integers(1, 12))
def test_clips_are_the_authors_windows_of_the_tracks(
    presence: list[tuple[float, ...]], frames: int, stride: int, min_frames: int
) -> None:
    cut = CropSpec((3,), CROP, size=SIZE, frames=frames, min_frames=min(frames, min_frames), min_face_pixels=1)
    clips, follower = clips_of(presence, stride=stride, cut=cut)
    tracks = unbroken_tracks([faces_at(*places) for places in presence])
    kept = [track for track in tracks if len(track.faces) >= cut.min_frames]
    expected = []
    for number, track in enumerate(kept):
        shown = [
            track.start + place + (BRIGHTER if presence[track.start + place][face] == RIGHT else 0)
            for place, face in enumerate(track.faces)
        ]
        for window in paper_windows(len(shown), frames, stride):
            expected.append((number, [shown[place] for place in window]))
    assert sorted((clip.track, shown_in(clip)) for _, clip in clips) == sorted(expected)
    dropped = [len(track.faces) for track in tracks if len(track.faces) < cut.min_frames]
    assert follower.skipped().longest_stretch == max(dropped, default=0)


@pytest.mark.parametrize(("name", "shortest"), [("ftcn", 9), ("altfreezing", 9)])
def test_the_crop_specs_of_the_known_detectors_fit(name: str, shortest: int) -> None:
    (cut,) = crop_specs_for(
        [msgspec.structs.replace(find_detector(name).spec, min_face_pixels=1)], whole_pictures=False
    )
    assert (cut.frames, cut.min_frames) == (T, shortest)
    clips, _ = clips_of([[LEFT]] * T, cut=cut)
    assert [clip.pixels.shape for _, clip in clips] == [(T, 224, 224, 3)]
