"""From followed faces to crops and clips: who gets what, from which frames, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.models.lite import LITE
from deepscan.models.registry import BUILTIN, find_detector
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.alignment import FaceRegion, face_region
from deepscan.runtime.faces.cropping import CropSpec, FaceInput, crop_specs_for, piece_of
from deepscan.runtime.faces.detections import Detection, Faces
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import FaceFollower, TracksEnded, interpolated
from deepscan.runtime.faces.tracking import LargestFace, Tracker
from deepscan.runtime.media.color import BT709, Color
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Geometry
from deepscan.spec import ClipCrop, SimilarityCrop, SquareCrop
from tests.footage import portrait
from tests.runtime.host_crops import aligned_clip, crop_rgb, similarity_crop

WIDTH, HEIGHT = 200, 120
TARGET = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.55), (0.35, 0.75), (0.65, 0.75))
SQUARE = SquareCrop(scale=1.0, shift_down=0.0)
SIMILARITY = SimilarityCrop(target=TARGET)
CLIP = ClipCrop(target=TARGET, reach=0.5)
SINGLE = CropSpec((0,), SQUARE, size=8, frames=1, min_frames=1, min_face_pixels=1)
CLIPS = CropSpec((1,), CLIP, size=16, frames=4, min_frames=3, min_face_pixels=1)
VIEW = portrait(WIDTH, HEIGHT)
Message = FaceInput | TracksEnded


def frame_of(number: int, rgb: NDArray[np.uint8] | None = None) -> Frame:
    """Return a frame whose every pixel holds its number, or a gray view of a picture."""
    plane = np.full((HEIGHT, WIDTH), number, dtype=np.uint8) if rgb is None else np.ascontiguousarray(rgb[..., 1])
    picture = Picture((plane,), 8, Color(BT709, full_range=True), left_chroma=False)
    return Frame(number, number / 25, picture, Geometry(WIDTH, HEIGHT), None)


def face_at(x: float, y: float, width: float, height: float | None = None) -> Detection:
    """Return the face in a box that begins at (x, y), with its points where `TARGET` wants them."""
    side = np.array([width, height or width], dtype=np.float32)
    corner = np.array([x, y], dtype=np.float32)
    return Detection(np.concatenate([corner, corner + side]), corner + side * np.array(TARGET, dtype=np.float32))


def faces_of(faces: Sequence[Detection]) -> Faces:
    boxes = np.array([face.box for face in faces], dtype=np.float32).reshape(-1, 4)
    points = np.array([face.landmarks for face in faces], dtype=np.float32).reshape(-1, 5, 2)
    return Faces(boxes, points, np.ones(len(faces), dtype=np.float32))


def followed(
    followers: FaceFollower | Sequence[FaceFollower],
    looks: Sequence[Sequence[Detection] | None],
    *,
    cuts_at: Sequence[int] = (),
    positions: Sequence[int] | None = None,
) -> list[Message]:
    """Show followers frames 0, 1, ... with these faces, None where they are not searched; then end the video."""
    messages: list[Message] = []
    followers = [followers] if isinstance(followers, FaceFollower) else followers
    for number, faces in enumerate(looks):
        small = None if faces is None else np.zeros((1, 1, 3), dtype=np.uint8)
        position = number if positions is None else positions[number]
        look = FrameTask(VideoJob(0, "video"), frame_of(number), small, number in cuts_at, position)
        for follower in followers:
            messages += follower.follow(look, None if faces is None else faces_of(faces))
    return messages + [message for follower in followers for message in follower.finish()]


def follower_of(cut: CropSpec) -> FaceFollower:
    return FaceFollower(VideoJob(0, "video"), cut, Tracker(max_gap_seconds=1.0))


def inputs_for(detector: int, messages: Sequence[Message]) -> list[FaceInput]:
    return [message for message in messages if isinstance(message, FaceInput) and detector in message.detectors]


def shown_in(message: FaceInput) -> list[int]:
    """Tell the numbers of a crop's frame, or of a clip's frames, by their middles."""
    pixels = host_array(message.pixels)
    pixels = pixels if pixels.ndim == 4 else pixels[None]
    middle = pixels.shape[1] // 2
    return [int(value) for value in pixels[:, middle, middle, 0]]


def test_detectors_with_the_same_crops_share_one_spec() -> None:
    renamed = msgspec.structs.replace(LITE, name="other", mean=(0.0, 0.0, 0.0))
    larger = msgspec.structs.replace(LITE, name="larger", size=256)
    pickier = msgspec.structs.replace(LITE, name="pickier", min_face_pixels=101)
    cuts = crop_specs_for([LITE, larger, renamed, pickier], whole_pictures=False)
    assert cuts == (
        CropSpec((0, 2), LITE.crop, 224, frames=1, min_frames=1, min_face_pixels=100),
        CropSpec((1,), LITE.crop, 256, frames=1, min_frames=1, min_face_pixels=100),
        CropSpec((3,), LITE.crop, 224, frames=1, min_frames=1, min_face_pixels=101),
    )


def test_all_known_detectors_together() -> None:
    specs = [detector.spec for detector in BUILTIN.values()]
    cuts = crop_specs_for(specs, whole_pictures=False)
    assert sorted(number for cut in cuts for number in cut.detectors) == list(range(len(specs)))
    shared = [{specs[number].name for number in cut.detectors} for cut in cuts]
    assert {"altfreezing", "ftcn"} in shared
    assert {"caddm-resnet34", "caddm-efficientnet-b3", "caddm-efficientnet-b4"} in shared
    assert {"altfreezing-deepfakebench", "ftcn-deepfakebench"} in shared
    assert {"hff-deepfakebench", "recce-deepfakebench"} in shared
    assert {"hff"} in shared  # 256 pixels, where recce has 299
    for cut in cuts:
        for number in cut.detectors:
            spec = specs[number]
            assert (cut.crop, cut.size, cut.frames) == (spec.crop, spec.size, spec.frames)
            assert (cut.min_frames, cut.min_face_pixels) == (spec.min_frames, spec.min_face_pixels)


def test_whole_pictures_are_cut_alike_for_all_of_one_size_and_none_is_too_small() -> None:
    specs = [find_detector(name).spec for name in ("lite", "caddm-resnet34", "hff", "hff-deepfakebench")]
    assert crop_specs_for(specs, whole_pictures=True) == (
        CropSpec((0, 1), None, size=224, frames=1, min_frames=1, min_face_pixels=1),
        CropSpec((2, 3), None, size=256, frames=1, min_frames=1, min_face_pixels=1),
    )


@pytest.mark.parametrize("crop", [None, SQUARE, SIMILARITY, CLIP], ids=["whole", "square", "similarity", "clip"])
def test_each_crop_policy_has_its_own_spec(crop: SquareCrop | SimilarityCrop | ClipCrop | None) -> None:
    frame, face = frame_of(0, VIEW), face_at(60, 20, 70, 50)
    piece = piece_of(frame, face, CropSpec((0,), crop, size=32, frames=1, min_frames=1, min_face_pixels=1))
    if isinstance(crop, ClipCrop):
        assert isinstance(piece, FaceRegion)
        assert (piece.left, piece.top) == (25, 0)
        assert np.array_equal(host_array(piece.pixels)[..., 0], VIEW[0:95, 25:165, 1])
        assert np.array_equal(piece.landmarks, face.landmarks)
    else:
        expected = {
            None: crop_rgb(frame, (0, 0, WIDTH, HEIGHT), 32),
            SQUARE: crop_rgb(frame, (60, 10, 130, 80), 32),
            SIMILARITY: similarity_crop(frame, face.landmarks, TARGET, 32),
        }
        assert isinstance(piece, np.ndarray)
        assert np.array_equal(piece, expected[crop])


def test_frame_and_clip_detectors_get_theirs_from_one_pass() -> None:
    messages = followed([follower_of(SINGLE), follower_of(CLIPS)], [[face_at(50, 20, 60)]] * 10, cuts_at=[0])
    crops, clips = inputs_for(0, messages), inputs_for(1, messages)
    assert [shown_in(crop) for crop in crops] == [[number] for number in range(10)]
    assert [crop.start_seconds for crop in crops] == [crop.end_seconds for crop in crops]
    assert [shown_in(clip) for clip in clips] == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert [(clip.start_seconds, clip.end_seconds) for clip in clips] == [(0, 0.12), (0.16, 0.28), (0.24, 0.36)]
    assert {crop.pixels.shape for crop in crops} == {(8, 8, 3)}
    assert {clip.pixels.shape for clip in clips} == {(4, 16, 16, 3)}
    assert {message.track for message in [*crops, *clips]} == {0}
    assert {message.detectors for message in [*crops, *clips]} == {(0,), (1,)}


def test_a_shared_crop_is_made_once_and_names_all_its_detectors() -> None:
    shared = CropSpec((0, 2, 5), SQUARE, size=8, frames=1, min_frames=1, min_face_pixels=1)
    messages = followed(follower_of(shared), [[face_at(50, 20, 60)]] * 3)
    assert [message.detectors for message in messages[:-1] if isinstance(message, FaceInput)] == [(0, 2, 5)] * 3


def test_clips_of_single_crops_are_these_crops() -> None:
    cut = CropSpec((0,), SIMILARITY, size=16, frames=4, min_frames=3, min_face_pixels=1)
    faces = [face_at(40 + 5 * number, 20, 60 - number) for number in range(5)]
    clips = inputs_for(0, followed(follower_of(cut), [[face] for face in faces]))
    crops = [similarity_crop(frame_of(number), face.landmarks, TARGET, 16) for number, face in enumerate(faces)]
    assert len(clips) == 2
    assert np.array_equal(host_array(clips[0].pixels), np.stack(crops[:4]))
    assert np.array_equal(host_array(clips[1].pixels), np.stack(crops[1:]))


def test_a_short_stretch_is_mirrored_and_a_shorter_one_left_out() -> None:
    face, nobody = [face_at(50, 20, 60)], list[Detection]()
    singles, clips = follower_of(SINGLE), follower_of(CLIPS)
    messages = followed([singles, clips], [face, face, nobody, face, face, face, nobody, face])
    assert [shown_in(clip) for clip in inputs_for(1, messages)] == [[3, 4, 5, 4]]
    assert [(clip.start_seconds, clip.end_seconds) for clip in inputs_for(1, messages)] == [(0.12, 0.2)]
    assert (singles.skipped(), clips.skipped()) == (SkipSummary(), SkipSummary(longest_stretch=2))
    assert len(inputs_for(0, messages)) == 6


def test_the_longest_of_all_skipped_stretches_is_reported_whichever_face_it_is() -> None:
    left, right = face_at(5, 20, 60), face_at(120, 20, 60)
    follower = follower_of(CLIPS)
    messages = followed(follower, [[left, right], [left], [right], [left], [left]], cuts_at=[0, 3, 4])
    assert inputs_for(1, messages) == []
    assert follower.skipped() == SkipSummary(longest_stretch=2)


def test_a_jump_in_positions_parts_the_clips_of_a_track_that_goes_on() -> None:
    looks = [[face_at(50, 20, 60)]] * 8
    clips = inputs_for(1, followed(follower_of(CLIPS), looks, positions=[0, 1, 2, 4, 5, 6, 7, 8]))
    assert [shown_in(clip) for clip in clips] == [[0, 1, 2, 1], [3, 4, 5, 6], [4, 5, 6, 7]]
    assert {clip.track for clip in clips} == {0}


def test_a_shot_boundary_closes_the_clips_before_the_tracks_end_and_the_new_shot_begins() -> None:
    messages = followed(follower_of(CLIPS), [[face_at(50, 20, 60)]] * 12, cuts_at=[0, 6])
    order = [("end", *m.tracks) if isinstance(m, TracksEnded) else (m.track, *shown_in(m)) for m in messages]
    assert order == [
        (0, 0, 1, 2, 3),
        (0, 2, 3, 4, 5),
        ("end", 0),
        (1, 6, 7, 8, 9),
        (1, 8, 9, 10, 11),
        ("end", 1),
    ]
    assert {message.detectors for message in messages} == {(1,)}


def test_a_face_too_small_for_one_detector_is_large_enough_for_another() -> None:
    single = with_minimum(SINGLE, min_face_pixels=50)
    clips = with_minimum(CLIPS, min_face_pixels=30)
    followers = [follower_of(single), follower_of(clips)]
    sides = [60, 55, 49, 40, 31, 29, 50, 60]
    messages = followed(followers, [[face_at(50, 20, side)] for side in sides])
    assert [shown_in(crop) for crop in inputs_for(0, messages)] == [[0], [1], [6], [7]]
    assert [shown_in(clip) for clip in inputs_for(1, messages)] == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert followers[0].skipped() == SkipSummary(small_faces=4, plain_small_faces=4, largest_small_face=49.0)
    assert followers[1].skipped() == SkipSummary(
        small_faces=1, longest_stretch=2, plain_small_faces=1, largest_small_face=29.0
    )
    assert [follower.most_faces for follower in followers] == [1, 1]


def test_the_longer_side_of_a_face_counts() -> None:
    follower = follower_of(with_minimum(SINGLE, min_face_pixels=50))
    faces = [face_at(10, 10, 50, 20), face_at(80, 10, 20, 50), face_at(120, 10, 49, 49)]
    assert len(inputs_for(0, followed(follower, [faces]))) == 2
    assert (follower.most_faces, follower.skipped()) == (
        3,
        SkipSummary(small_faces=1, plain_small_faces=1, largest_small_face=49.0),
    )


def test_a_face_that_turns_between_two_looks_leaves_no_gap() -> None:
    """Half-way both of its sides are below the minimum, but it was large enough whenever it was looked at."""
    clips = with_minimum(CLIPS, min_face_pixels=50)
    follower = follower_of(clips)
    messages = followed(follower, [[face_at(50, 20, 50, 30)], None, None, [face_at(50, 20, 30, 50)]])
    assert [shown_in(clip) for clip in inputs_for(1, messages)] == [[0, 1, 2, 3]]
    assert follower.skipped() == SkipSummary()


def with_minimum(cut: CropSpec, *, min_face_pixels: int) -> CropSpec:
    return CropSpec(cut.detectors, cut.crop, cut.size, cut.frames, cut.min_frames, min_face_pixels)


def test_between_two_searches_the_landmarks_move_along_with_the_box() -> None:
    cut = CropSpec((0,), SIMILARITY, size=32, frames=1, min_frames=1, min_face_pixels=1)
    follower = follower_of(cut)
    before, after = face_at(40, 20, 60), face_at(64, 28, 52)
    frames = [Frame(n, n / 25, frame_of(0, VIEW).picture, Geometry(WIDTH, HEIGHT), None) for n in range(5)]
    crops: list[Message] = []
    for number, frame in enumerate(frames):
        faces = {0: faces_of([before]), 4: faces_of([after])}.get(number)
        small = None if faces is None else np.zeros((1, 1, 3), dtype=np.uint8)
        crops += follower.follow(FrameTask(VideoJob(0, "video"), frame, small, False, number), faces)
    assert len(crops) == 5
    for number, crop in enumerate(crops):
        assert isinstance(crop, FaceInput)
        points = before.landmarks + (after.landmarks - before.landmarks) * np.float32(number / 4)
        assert np.array_equal(host_array(crop.pixels), similarity_crop(frames[number], points, TARGET, 32))


def test_clips_hold_the_interpolated_faces_too() -> None:
    before, after = face_at(40, 20, 60), face_at(60, 26, 54)
    clips = inputs_for(1, followed(follower_of(CLIPS), [[before], None, None, [after]]))
    assert [shown_in(clip) for clip in clips] == [[0, 1, 2, 3]]
    faces = [interpolated(before, after, share) for share in (0, 1 / 3, 2 / 3, 1)]
    regions = [
        face_region(frame_of(number), face.corners(), face.landmarks, reach=0.5) for number, face in enumerate(faces)
    ]
    assert np.abs(host_array(clips[0].pixels).astype(int) - aligned_clip(regions, TARGET, 16)).max() <= 1


@given(st.floats(0, 1))
def test_interpolation_lies_between(share: float) -> None:
    before, after = face_at(40, 20, 60), face_at(10, 80, 90)
    face = interpolated(before, after, share)
    np.testing.assert_allclose(face.box, (1 - share) * before.box + share * after.box, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
        face.landmarks, (1 - share) * before.landmarks + share * after.landmarks, rtol=1e-5, atol=1e-4
    )


def test_clips_of_several_people_are_kept_apart() -> None:
    left, right = face_at(5, 20, 60), face_at(120, 20, 60)
    looks = [[left, right]] * 3 + [[right]] + [[right, left]] * 4
    messages = followed(follower_of(CLIPS), looks)
    found = Counter((clip.track, tuple(shown_in(clip))) for clip in inputs_for(1, messages))
    assert found == {
        (0, (0, 1, 2, 1)): 1,
        (0, (4, 5, 6, 7)): 1,
        (1, (0, 1, 2, 3)): 1,
        (1, (4, 5, 6, 7)): 1,
    }


def test_of_the_largest_face_only_that_face_is_cropped_in_each_frame() -> None:
    small, large = face_at(5, 20, 40), face_at(120, 20, 60)
    cut = CropSpec((0,), SQUARE, size=8, frames=1, min_frames=1, min_face_pixels=30)
    followers = [FaceFollower(VideoJob(0, "video"), each, LargestFace()) for each in (cut, CLIPS)]
    wide_but_low = face_at(5, 20, 80, 10)
    messages = followed(followers, [[small, large], [wide_but_low, small], [], [small], [large, small], [small]])
    crops = inputs_for(0, messages)
    assert [(crop.track, shown_in(crop)) for crop in crops] == [(0, [number]) for number in (0, 1, 3, 4, 5)]
    assert [(clip.start_seconds, clip.end_seconds) for clip in inputs_for(1, messages)] == [(0.12, 0.2)]
    assert followers[1].skipped() == SkipSummary(longest_stretch=2)
    assert isinstance(messages[-1], TracksEnded)


def test_the_largest_face_is_that_of_the_largest_area() -> None:
    tall_but_thin, square = face_at(5, 5, 10, 90), face_at(60, 40, 40)
    tracking = LargestFace()
    assert tracking.update(0.0, faces_of([tall_but_thin, square]).boxes) == [None, 0]
    assert tracking.update(0.1, faces_of([square, tall_but_thin]).boxes) == [0, None]
    assert tracking.update(0.2, faces_of([]).boxes) == []


def test_saved_crops_follow_each_other_whatever_lies_between_them() -> None:
    job, face = VideoJob(0, "video"), face_at(40, 20, 60)
    follower = FaceFollower(job, CLIPS, LargestFace(), joins_gaps=True)
    messages = followed(follower, [[face], [], [face], [face], [], [], [face]])
    (clip,) = inputs_for(CLIPS.detectors[0], messages)
    assert (clip.start_seconds, clip.end_seconds) == (0.0, 0.24)


def test_no_face_at_all() -> None:
    followers = [follower_of(SINGLE), follower_of(CLIPS)]
    assert followed(followers, [[], None, []]) == []
    assert [follower.skipped() for follower in followers] == [SkipSummary(), SkipSummary()]


@given(st.lists(st.lists(st.sampled_from([5, 70, 135]), unique=True), max_size=12), st.sets(st.integers(0, 12)))
def test_clips_never_come_after_the_end_of_their_track(places: list[list[int]], cuts: set[int]) -> None:
    looks = [[face_at(x, 20, 50) for x in present] for present in places]
    messages = followed(follower_of(CLIPS), looks, cuts_at=sorted(cuts))
    ended: set[int] = set()
    for message in messages:
        if isinstance(message, TracksEnded):
            assert not ended & set(message.tracks)
            ended.update(message.tracks)
        else:
            assert message.track not in ended
    assert ended >= {message.track for message in messages if isinstance(message, FaceInput)}
