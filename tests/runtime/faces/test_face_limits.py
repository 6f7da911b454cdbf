"""Limits on the faces and the tracks of a video: what is too much is left out, or refused."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
from msgspec import structs

from deepscan.limits import Limits, OnLimit
from deepscan.models.lite import LITE
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.cropping import CropSpec, FaceInput, crop_specs_for
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import FaceFollower
from deepscan.runtime.faces.tracking import LargestFace, Tracker
from deepscan.runtime.faces.unbroken_tracks import UnbrokenFollower
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.messages import Restarted, ToFaces, VideoFollowed
from deepscan.runtime.pipeline.pipeline import Progress
from deepscan.runtime.pipeline.stages import DecodeStage, FacesStage
from tests.footage import TWO_FACES
from tests.runtime.scenes import EXACT_CROP, faces_at, look_at, ramp_frame


def follower_of(limits: Limits, *, min_face_pixels: int = 20, largest: bool = False) -> FaceFollower:
    cut = CropSpec((0,), EXACT_CROP, size=64, frames=1, min_frames=1, min_face_pixels=min_face_pixels)
    tracking = LargestFace() if largest else Tracker(max_gap_seconds=1.0)
    return FaceFollower(VideoJob(0, "video"), cut, tracking, limits=limits)


ALL = Sampling("all", detect_every=5)
PEOPLE = [(10.0, 10.0, 60.0, 60.0), (100.0, 10.0, 160.0, 70.0), (190.0, 10.0, 240.0, 80.0)]
TINY = [(10.0 * number, 100.0, 10.0 * number + 9, 109.0) for number in range(20)]


def test_of_too_many_faces_the_largest_are_kept_and_the_reason_says_so() -> None:
    follower = follower_of(Limits(faces=2, on_limit="truncate"))
    crops = [*follower.follow(look_at(ramp_frame(0.0), starts_shot=True), faces_at(*PEOPLE, *TINY))]
    assert [round(float(host_array(crop.pixels).mean())) for crop in crops if isinstance(crop, FaceInput)] == [130, 214]
    assert follower.most_faces == 23
    assert follower.skipped() == SkipSummary(
        small_faces=20, truncations=("of up to 3 faces in a frame the largest 2 were scored (see --max-faces)",)
    )
    assert not follower.over_limit


def test_faces_too_small_to_be_scored_do_not_count() -> None:
    follower = follower_of(Limits(faces=3))
    assert len([*follower.follow(look_at(ramp_frame(0.0)), faces_at(*PEOPLE, *TINY))]) == 3
    assert not follower.over_limit


def test_a_video_of_too_many_faces_gives_nothing_more_and_says_after_how_many_frames() -> None:
    follower = follower_of(Limits(faces=2))
    looks = [faces_at(PEOPLE[0]), None, faces_at(*PEOPLE), None, faces_at(PEOPLE[0])]
    crops = []
    for number, faces in enumerate(looks):
        frame = ramp_frame(number / 25, index=number)
        crops.append(len([*follower.follow(look_at(frame, searched=faces is not None), faces)]))
    assert crops == [1, 0, 0, 0, 0]
    skipped = follower.skipped()
    assert "3 faces" in str(skipped.over_limit)
    assert "--max-faces is 2" in str(skipped.over_limit)
    assert (skipped.frames_until_limit, skipped.truncations) == (3, ())


@pytest.mark.parametrize("on_limit", ["skip", "truncate"])
def test_of_too_many_tracks_the_first_are_kept_or_the_video_is_refused(on_limit: OnLimit) -> None:
    follower = follower_of(Limits(tracks=2, on_limit=on_limit))
    found = []
    for number in range(4):  # each shot begins a track
        look = look_at(ramp_frame(number / 25, index=number), starts_shot=True)
        found += [*follower.follow(look, faces_at(PEOPLE[0]))]
    found += [*follower.finish()]
    assert [crop.track for crop in found if isinstance(crop, FaceInput)] == [0, 1]
    skipped = follower.skipped()
    if on_limit == "truncate":
        assert skipped.truncations == ("of the tracks of faces the first 2 were scored (see --max-tracks)",)
    else:
        assert "3 or more tracks" in str(skipped.over_limit)
        assert skipped.frames_until_limit == 3


def test_one_face_at_a_time_is_one_track_however_often_it_changes() -> None:
    follower = follower_of(Limits(tracks=1), largest=True)
    for number in range(4):
        look = look_at(ramp_frame(number / 25), starts_shot=True)
        assert len(
            [crop for crop in follower.follow(look, faces_at(PEOPLE[number % 3])) if isinstance(crop, FaceInput)]
        )
    assert follower.skipped() == SkipSummary()


@pytest.mark.parametrize(("limits", "said"), [(Limits(faces=1), "2 faces"), (Limits(tracks=1), "2 or more tracks")])
def test_unbroken_tracks_keep_to_the_limits_too(limits: Limits, said: str) -> None:
    cut = CropSpec((0,), EXACT_CROP, size=64, frames=4, min_frames=2, min_face_pixels=20)

    def followed(limits: Limits) -> tuple[list[int], SkipSummary]:
        follower = UnbrokenFollower(VideoJob(0, "video"), cut, stride=1, limits=limits)
        for number in range(5):
            list(follower.follow(look_at(ramp_frame(number / 25)), faces_at(PEOPLE[0], PEOPLE[2])))
        follower.rewind()
        looks = [look_at(ramp_frame(number / 25), searched=False) for number in range(5)]
        clips = [clip for look in looks for clip in follower.follow(look, None)]
        return sorted({clip.track for clip in clips if isinstance(clip, FaceInput)}), follower.skipped()

    assert followed(Limits()) == ([0, 1], SkipSummary())
    tracks, skipped = followed(structs.replace(limits, on_limit="truncate"))
    assert (tracks, len(skipped.truncations)) == ([0], 1)
    tracks, skipped = followed(limits)
    assert said in str(skipped.over_limit)
    assert tracks == ([] if limits.faces == 1 else [0])


@pytest.mark.parametrize("restarts", [False, True])
def test_decoding_stops_once_the_faces_of_a_video_are_too_many(restarts: bool) -> None:
    """Two stages as in a scan; the reason and the number of frames do not depend on which of them is ahead."""
    limits = Limits(faces=1)
    (cut,) = crop_specs_for([LITE], whole_pictures=False)

    def followers(job: VideoJob) -> list[FaceFollower]:
        return [FaceFollower(job, cut, Tracker(max_gap_seconds=1.0), limits=limits)]

    ends = []
    for ahead in (1, 20, 1000):
        job = VideoJob(0, str(TWO_FACES))
        faces = FacesStage(YuNet(device="cpu", threads=1), followers, progress=Progress())
        waiting: list[ToFaces] = []
        looks = 0
        for message in DecodeStage(partial(open_input, threads=1), ALL, detection_side=DETECTION_SIDE)(job):
            looks += isinstance(message, FrameTask)
            waiting.append(message)
            if looks == ahead and not job.abandoned:
                list(faces(waiting))
                waiting = [Restarted(job)] if restarts else []
        *_, end = faces(waiting)
        assert isinstance(end, VideoFollowed)
        assert looks == min(ahead, 98)
        ends.append((str(end.skipped[0].over_limit), end.skipped[0].frames_until_limit, end.most_faces))
    assert all(one == other for one, other in pairwise(ends))
    assert ends[0] == (
        "A frame of it has 2 faces, and --max-faces is 1: raise that to have it scanned, or take --on-limit truncate.",
        1,
        2,
    )
