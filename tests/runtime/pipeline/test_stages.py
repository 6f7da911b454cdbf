from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deepscan.errors import InputError, UnreadableInput
from deepscan.models.lite import LITE
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.cropping import FaceInput, crop_specs_for
from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import FaceFollower
from deepscan.runtime.faces.tracking import Tracker
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.messages import SecondPass, ToFaces, ToInfer, VideoDecoded, VideoFollowed
from deepscan.runtime.pipeline.pipeline import Progress
from deepscan.runtime.pipeline.stages import DecodeStage, FacesStage
from tests.footage import (
    ASTRONAUT,
    EXAMPLES,
    NO_FACE,
    PHONE,
    SWAPPED,
    TWO_FACES,
    flat,
    open_video,
    portrait,
    write_video,
)

OPEN = partial(open_video, threads=1)
QUICK = Sampling("middles", count=3, nearby=True)
FULL = Sampling("all", detect_every=5)


def decode_stage(sampling: Sampling) -> DecodeStage:
    return DecodeStage(OPEN, sampling, detection_side=DETECTION_SIDE)


def decoded(path: Path | str, sampling: Sampling = QUICK, index: int = 0) -> tuple[list[FrameTask], VideoDecoded]:
    *looks, end = decode_stage(sampling)(VideoJob(index, str(path)))
    assert isinstance(end, VideoDecoded)
    assert all(isinstance(look, FrameTask) for look in looks)
    return [look for look in looks if isinstance(look, FrameTask)], end


def test_a_video_becomes_its_looks_and_then_its_end() -> None:
    looks, end = decoded(TWO_FACES, FULL)
    assert (end.failure, end.damage, end.frames) == (None, None, 98)
    assert [look.frame.index for look in looks] == [look.position for look in looks] == list(range(98))
    assert [look.starts_shot for look in looks] == [True] + [False] * 97
    searched = [look.frame.index for look in looks if look.small is not None]
    assert searched == sorted({*range(0, 98, 5), 97})
    assert {look.small.shape for look in looks if look.small is not None} == {(360, DETECTION_SIDE, 3)}
    assert end.info is not None
    assert (end.info.codec, end.info.width, end.info.height) == ("vp9", 960, 540)
    assert end.job.share_done > 0.9


def test_a_video_that_is_looked_at_twice_is_searched_in_the_first_pass_only() -> None:
    stage = decode_stage(Sampling("first", count=6, twice=True))
    messages = list(stage(VideoJob(0, str(TWO_FACES))))
    looks = [message for message in messages if isinstance(message, FrameTask)]
    assert [type(message) for message in messages] == [FrameTask] * 6 + [SecondPass] + [FrameTask] * 6 + [VideoDecoded]
    assert [look.frame.pts_seconds for look in looks[:6]] == [look.frame.pts_seconds for look in looks[6:]]
    assert [look.small is not None for look in looks] == [True] * 6 + [False] * 6
    assert [look.position for look in looks] == [*range(6), *range(6)]
    assert isinstance(messages[-1], VideoDecoded)
    assert messages[-1].frames == 6


def test_a_look_counts_the_memory_of_its_frame_and_of_its_small_picture() -> None:
    for look in decoded(TWO_FACES, FULL)[0][:2]:
        small = 0 if look.small is None else 360 * 640 * 3
        assert look.nbytes >= 960 * 540 * 3 // 2 + small
        assert look.nbytes < 1.2 * (960 * 540 * 3 // 2 + small)


@pytest.mark.parametrize(
    "sampling",
    [
        FULL,
        QUICK,
        Sampling("middles", count=4),
        Sampling("ends", count=4),
        Sampling("windows", count=4, window_frames=2),
        Sampling("first", count=4, twice=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("content", [None, b"", b"no video at all", bytes(5000), ASTRONAUT.read_bytes()[:2000]])
def test_a_file_that_cannot_be_read_ends_in_a_failure_not_in_an_error(
    sampling: Sampling, content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    looks, end = decoded(path, sampling)
    assert looks == []
    assert end.frames == 0
    assert isinstance(end.failure, InputError)
    assert str(end.failure)


def test_a_problem_that_is_known_beforehand_is_the_failure() -> None:
    problem = UnreadableInput("It was gone.")
    (end,) = decode_stage(QUICK)(VideoJob(7, str(ASTRONAUT), problem))
    assert isinstance(end, VideoDecoded)
    assert end.failure is problem


@pytest.mark.parametrize("path", [ASTRONAUT, NO_FACE, PHONE, SWAPPED, TWO_FACES], ids=lambda path: path.suffix)
@pytest.mark.parametrize("sampling", [FULL, QUICK], ids=["full", "quick"])
def test_damage_anywhere_in_a_file_never_raises(path: Path, sampling: Sampling, tmp_path: Path) -> None:
    original, outcomes = path.read_bytes(), set()
    for seed in range(3):
        random = Random(seed)
        damaged = bytearray(original[: random.randrange(len(original) // 2, len(original))])
        for _ in range(10 ** (seed + 1)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        broken = tmp_path / f"{seed}{path.suffix}"
        broken.write_bytes(damaged)
        looks, end = decoded(broken, sampling)
        assert end.frames == len(looks)
        outcomes.add((end.failure is None, end.damage is None))
    assert outcomes != {(True, True)}  # some of it was noticed


def test_colors_that_no_conversion_knows_are_a_failure_of_that_video(tmp_path: Path) -> None:
    damaged = bytearray(SWAPPED.read_bytes())
    damaged[278], damaged[904] = 112, 147  # found by chance: now its header declares color primaries 91
    path = tmp_path / "odd_colors.mp4"
    path.write_bytes(damaged)
    looks, end = decoded(path)
    assert looks == []
    assert isinstance(end.failure, UnreadableInput)


def test_leaving_a_video_early_closes_its_file() -> None:
    looks = decode_stage(FULL)(VideoJob(0, str(PHONE)))
    next(looks)
    assert _open_files(PHONE) == 2  # the reader's, and what is compared with it at the end
    looks.close()  # type: ignore[attr-defined]
    assert _open_files(PHONE) == 0


def _open_files(path: Path) -> int:
    count = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{number}") == str(path)
        except FileNotFoundError:
            continue
    return count


Found = dict[int, list[tuple[int, float, NDArray[np.uint8]]]]


def crops_by_video(stage: FacesStage, batches: Sequence[Sequence[ToFaces]]) -> tuple[Found, list[ToInfer]]:
    messages = [message for batch in batches for message in stage(batch)]
    found: Found = defaultdict(list)
    for message in messages:
        if isinstance(message, FaceInput):
            assert message.detectors == (0,)
            assert message.start_seconds == message.end_seconds
            found[message.job.index].append((message.track, message.start_seconds, host_array(message.pixels)))
    return found, messages


def faces_stage(progress: Progress | None = None) -> FacesStage:
    detector = YuNet(device="cpu", threads=1)
    (cut,) = crop_specs_for([LITE], whole_pictures=False)

    def followers(job: VideoJob) -> list[FaceFollower]:
        return [FaceFollower(job, cut, Tracker(max_gap_seconds=1.0))]

    return FacesStage(detector, followers, progress=progress or Progress())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[list[ToFaces]]:
    """The beginnings of six videos, searched in pictures of three shapes; frames between looks included."""
    other = write_video(tmp_path_factory.mktemp("videos") / "other.mp4", [portrait(640, 400)] * 6)
    paths = [ASTRONAUT, TWO_FACES, NO_FACE, other, PHONE, TWO_FACES]
    beginnings: list[list[ToFaces]] = []
    for index, path in enumerate(paths):
        looks, end = decoded(path, Sampling("all", detect_every=2), index)
        beginnings.append([*looks[:5], end])
    return beginnings


def _rounds(videos: list[list[ToFaces]]) -> Iterator[ToFaces]:
    for messages in zip_longest(*videos):
        yield from (message for message in messages if message is not None)


@pytest.mark.parametrize("batch", [1, 8, 100])
def test_faces_are_found_alike_whatever_other_videos_share_the_batch(videos: list[list[ToFaces]], batch: int) -> None:
    mixed = list(_rounds(videos))
    smalls = [message.small for message in mixed[:6] if isinstance(message, FrameTask)]
    shapes = [small.shape for small in smalls if small is not None]
    assert shapes == [(360, 640, 3)] * 3 + [(400, 640, 3), (640, 360, 3), (360, 640, 3)]
    progress = Progress()
    together, messages = crops_by_video(
        faces_stage(progress), [mixed[start : start + batch] for start in range(0, len(mixed), batch)]
    )
    assert [len(together[index]) for index in range(6)] == [5, 10, 0, 5, 5, 10]
    for index, video in enumerate(videos):
        alone, _ = crops_by_video(faces_stage(), [[message] for message in video])
        for mine, own in zip(together[index], alone[index], strict=True):
            assert mine[:2] == own[:2]
            assert np.array_equal(mine[2], own[2])
    ends = [message for message in messages if isinstance(message, VideoFollowed)]
    assert {end.job.index: end.most_faces for end in ends} == {0: 1, 1: 2, 2: 0, 3: 1, 4: 1, 5: 2}
    assert progress.frames == 30
    assert progress.faces == 3 * (1 + 2 + 0 + 1 + 1 + 2)


def test_boxes_are_those_of_the_frame_not_of_the_picture_that_was_searched(tmp_path: Path) -> None:
    big, small = portrait(1280, 720), portrait(640, 360)
    found = []
    for number, picture in enumerate((big, small)):
        path = write_video(tmp_path / f"{number}.mp4", [picture], options={"crf": "5"})
        looks, end = decoded(path)
        found.append(crops_by_video(faces_stage(), [[*looks, end]])[0][0][0][2].astype(float))
    assert np.abs(found[0] - found[1]).mean() < 4  # the same part of the same picture


def test_a_video_without_faces_ends_without_a_crop(tmp_path: Path) -> None:
    looks, end = decoded(write_video(tmp_path / "gray.mp4", [flat((90, 90, 90), 320, 240)] * 3), FULL)
    messages = list(faces_stage()([*looks, end]))
    assert len(messages) == 1
    assert isinstance(messages[0], VideoFollowed)
    assert (messages[0].decoded, messages[0].most_faces, messages[0].skipped) == (end, 0, (SkipSummary(),))


def test_the_same_input_twice_is_two_videos() -> None:
    looks, end = decoded(EXAMPLES / ASTRONAUT.name)
    stage = faces_stage()
    first, _ = crops_by_video(stage, [[*looks, end]])
    again, _ = crops_by_video(stage, [[*looks, end]])
    assert [crop[:2] for crop in first[0]] == [crop[:2] for crop in again[0]]


def test_an_error_that_nobody_foresaw_is_a_failure_of_that_video_and_names_itself() -> None:
    def surprise(path: str) -> Any:
        raise ZeroDivisionError(f"in {path}")

    (end,) = DecodeStage(surprise, FULL, detection_side=DETECTION_SIDE)(VideoJob(0, "odd.mp4"))
    assert isinstance(end, VideoDecoded)
    assert isinstance(end.failure, UnreadableInput)
    assert "ZeroDivisionError('in odd.mp4')" in str(end.failure)


class Dreaming:
    """A face detector that sees one real face and several that no picture can hold."""

    identity: list[str | float] = []  # noqa: RUF012

    def detect(self, pictures: NDArray[np.uint8]) -> list[Faces]:
        real = (100.0, 50.0, 250.0, 220.0)
        nonsense = [(np.inf, 0, np.inf, 9), (np.nan, 0, 9, 9), (-1e9, 0, 1e9, 9), (9, 9, 9, 9), (50, 50, 20, 90)]
        boxes = np.array([real, *nonsense], dtype=np.float32)
        points = np.full((len(boxes), 5, 2), 100, dtype=np.float32)
        return [Faces(boxes, points, np.ones(len(boxes), dtype=np.float32))] * len(pictures)


def test_faces_that_no_picture_can_hold_are_not_seen(videos: list[list[ToFaces]]) -> None:
    (cut,) = crop_specs_for([LITE], whole_pictures=False)
    stage = FacesStage(
        Dreaming(), lambda job: [FaceFollower(job, cut, Tracker(max_gap_seconds=1.0))], progress=Progress()
    )
    followed = [message for message in stage(videos[0]) if isinstance(message, VideoFollowed)]
    assert [message.most_faces for message in followed] == [1]
