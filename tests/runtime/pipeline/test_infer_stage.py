from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from deepscan.errors import DeviceMemoryError, OverLimit, UnsupportedInput
from deepscan.models.lite import LITE
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.contract import Items
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.cropping import FaceInput
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.pipeline.infer_stage import InferStage
from deepscan.runtime.pipeline.messages import Restarted, ToInfer, VideoDecoded, VideoFollowed
from deepscan.runtime.pipeline.pipeline import Progress
from deepscan.runtime.pipeline.scoring import ScoringSettings
from tests.footage import ASTRONAUT, SWAPPED, TWO_FACES, open_video
from tests.runtime.host_crops import crop_rgb
from tests.runtime.pipeline.infer_parts import (
    INFO,
    QUICK,
    BrightnessBackend,
    crop,
    end_of,
    face_input,
    logit_of,
    moved_to_device,
    results_of,
    seen_at,
    settings_of,
    sigmoid,
    stage_of,
)
from tests.runtime.scenes import lite_square


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_crops_of_several_videos_mixed_in_batches_are_summed_video_by_video(batch: int) -> None:
    jobs = [VideoJob(index, f"video{index}") for index in range(3)]
    looks = {
        index: [(number % 2, number / 25, 40 * index + 7 * number, 200 - 9 * number) for number in range(10)]
        for index in range(3)
    }
    messages: list[ToInfer] = [crop(jobs[index], *looks[index][number]) for number in range(10) for index in range(3)]
    messages += [TracksEnded(jobs[2], (0,), [0, 1]), end_of(jobs[2]), end_of(jobs[0]), end_of(jobs[1])]
    results = results_of(stage_of(BrightnessBackend()), messages, batch)
    assert [result.index for result in results] == [2, 0, 1]
    for result in results:
        tracks = [[logit_of(*crop[2:]) for crop in looks[result.index] if crop[0] == track] for track in (0, 1)]
        scores = [sigmoid(sum(logits) / len(logits)) for logits in tracks]
        assert result.score == pytest.approx(max(scores), abs=1e-6)
        assert (result.status, result.tracks, result.clips, result.frames) == ("scored", 2, 10, 100)
        assert {detail.track: detail.score for detail in result.details} == pytest.approx(dict(enumerate(scores)))


@pytest.mark.parametrize("on_device", [False, True])
def test_a_mirror_image_counts_as_much_as_the_crop(on_device: bool) -> None:
    job = VideoJob(0, "video")
    halves = [(200, 20), (30, 90), (140, 150)]
    crops = [crop(job, track, 0.0, *sides) for track, sides in enumerate(halves)]
    if on_device:  # all but the first: one batch holds both kinds
        crops[1:] = [replace(each, pixels=moved_to_device(host_array(each.pixels))) for each in crops[1:]]
    messages = [*crops, end_of(job)]
    for mirror in (False, True):
        (result,) = results_of(stage_of(BrightnessBackend(), mirror=mirror), messages)
        views = [[sides, sides[::-1]] if mirror else [sides] for sides in halves]
        expected = [sigmoid(sum(logit_of(*view) for view in both) / len(both)) for both in views]
        assert {detail.track: detail.score for detail in result.details} == pytest.approx(dict(enumerate(expected)))
        assert result.clips == 3


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("max_batch", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 16])
def test_no_batch_exceeds_what_the_backend_takes_and_no_crop_is_lost(mirror: bool, max_batch: int, count: int) -> None:
    job, backend = VideoJob(0, "video"), BrightnessBackend(max_batch)
    messages: list[ToInfer] = [crop(job, 0, number / 25, 10 * number, 255 - number) for number in range(count)]
    (result,) = results_of(stage_of(backend, mirror=mirror), [*messages, end_of(job)], 100)
    assert sum(backend.batches) == count * (2 if mirror else 1)
    logits = [logit_of(10 * number, 255 - number) for number in range(count)]
    if mirror:
        logits += [logit_of(255 - number, 10 * number) for number in range(count)]
    assert result.score == pytest.approx(sigmoid(sum(logits) / len(logits)), abs=1e-6)


def test_the_authors_rule_is_the_mean_over_all_crops() -> None:
    job = VideoJob(0, "video")
    looks = [(0, 250, 240), (0, 200, 250), (1, 20, 10), (1, 0, 40), (1, 5, 5)]
    messages: list[ToInfer] = [crop(job, track, 0.1 * n, *halves) for n, (track, *halves) in enumerate(looks)]
    (result,) = results_of(stage_of(BrightnessBackend(), aggregate="mean"), [*messages, end_of(job)])
    assert result.score == pytest.approx(sigmoid(sum(logit_of(*look[1:]) for look in looks) / 5), abs=1e-6)


def test_a_result_says_what_it_depends_on() -> None:
    job = VideoJob(4, "some/video.mp4")
    (result,) = results_of(
        stage_of(BrightnessBackend()), [crop(job, 0, 0.0, 140, 140), end_of(job, damage="a scratch")]
    )
    assert (result.index, result.row, result.path, result.model) == (4, 4, "some/video.mp4", "lite")
    assert (result.backend, result.precision) == ("brightness-cpu", "fp32")
    assert (result.weights_sha256, result.settings_sha256) == ("weights", "settings")
    assert (result.codec, result.width, result.height, result.duration_seconds) == ("h264", 640, 360, 4.0)
    assert (result.status, result.reason, result.faces, result.label) == ("scored", "a scratch", 2, "uncertain")
    assert job.share_done == 1.0


@pytest.mark.parametrize(
    ("damage", "small", "reasons"),
    [
        (None, 0, []),
        ("a scratch", 0, ["a scratch"]),
        (None, 3, ["3 sightings of faces smaller than 100 pixels were not scored (see --min-face)"]),
        (
            "a scratch",
            3,
            ["3 sightings of faces smaller than 100 pixels were not scored (see --min-face)", "a scratch"],
        ),
    ],
)
def test_without_a_crop_a_video_gets_no_score_and_the_reason(
    damage: str | None, small: int, reasons: list[str]
) -> None:
    backend = BrightnessBackend()
    (result,) = results_of(stage_of(backend), [end_of(VideoJob(0, "video"), damage=damage, small=small)])
    assert (result.status, result.score, result.label, result.peak) == ("no_face", None, None, None)
    assert all(reason in result.reason for reason in reasons)
    assert bool(result.reason) == bool(reasons)
    assert backend.batches == []


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_each_detector_scores_what_it_wants_and_has_rows_of_its_own(batch: int) -> None:
    backends = [BrightnessBackend(), BrightnessBackend(2)]
    stage = InferStage(
        [(backends[0], settings_of("plain")), (backends[1], settings_of("both", mirror=True))], progress=Progress()
    )
    jobs = [VideoJob(index, f"video{index}") for index in range(2)]
    halves = {(0,): (200, 20), (1,): (30, 90), (0, 1): (140, 150)}
    messages: list[ToInfer] = [
        FaceInput(job, detectors, 0, job.index, job.index, 1, crop(job, 0, 0.0, *sides).pixels, (1, 2, 3), seen_at(0))
        for job in jobs
        for detectors, sides in halves.items()
    ]
    skipped = (SkipSummary(), SkipSummary(small_faces=3))
    messages += [VideoFollowed(job, VideoDecoded(job, INFO, 100, None, None), 1, skipped) for job in (jobs[1], jobs[0])]
    results = results_of(stage, messages, batch)
    assert [(result.index, result.row, result.model) for result in results] == [
        *((1, 2, "plain"), (1, 3, "both")),
        *((0, 0, "plain"), (0, 1, "both")),
    ]
    plain = (logit_of(200, 20) + logit_of(140, 150)) / 2
    both = (logit_of(30, 90) + logit_of(90, 30) + logit_of(140, 150) + logit_of(150, 140)) / 4
    assert [result.score for result in results] == pytest.approx([sigmoid(plain), sigmoid(both)] * 2, abs=1e-6)
    assert [bool(result.reason) for result in results] == [False, True] * 2
    assert [sum(backend.batches) for backend in backends] == [4, 8]


def test_a_video_whose_faces_make_no_clip_is_too_short() -> None:
    job = VideoJob(0, "video")
    end = VideoFollowed(job, VideoDecoded(job, INFO, 5, None, None), 1, (SkipSummary(longest_stretch=5),))
    (result,) = results_of(stage_of(BrightnessBackend()), [end])
    assert (result.status, result.score, result.succeeded) == ("too_short", None, False)
    assert "up to 5 frames in a row were not scored" in result.reason
    (scored,) = results_of(stage_of(BrightnessBackend()), [crop(job, 0, 0.0, 140, 140), end])
    assert (scored.status, scored.reason) == ("scored", result.reason)


def test_a_video_that_fails_after_some_crops_has_a_reason_and_no_score() -> None:
    job, failure = VideoJob(0, "video"), UnsupportedInput("It turned into music.")
    (result,) = results_of(stage_of(BrightnessBackend()), [crop(job, 0, 0.0, 250, 250), end_of(job, failure=failure)])
    assert (result.status, result.reason) == ("unsupported", "It turned into music.")
    assert (result.score, result.label, result.tracks, result.clips) == (None, None, 0, 0)


@pytest.fixture(scope="module")
def real_crops() -> NDArray[np.uint8]:
    """Eight different parts of real frames, RGB [8, 224, 224, 3]."""
    crops = []
    for path in (ASTRONAUT, SWAPPED, TWO_FACES):
        with open_video(str(path), threads=1) as reader:
            frame = next(iter(reader.frames()))
            for left in (100.0, 250.0, 400.0):
                crops.append(crop_rgb(frame, lite_square((left, 60.0, left + 160, 280.0)), LITE.size))
    return np.stack(crops[:8])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_logit_of_a_crop_does_not_depend_on_its_neighbors(real_crops: NDArray[np.uint8], threads: int) -> None:
    backend = OnnxRuntimeBackend(load_artifact("lite"), device="cpu", threads=threads, precision="fp32")
    alone = np.array([backend.logits(picture[None])[0] for picture in real_crops])
    assert len(set(alone.tolist())) == 8
    for size in range(1, min(8, backend.max_batch) + 1):
        for order in (np.arange(size), np.arange(8)[::-1][:size], np.roll(np.arange(8), 3)[:size]):
            assert np.array_equal(backend.logits(real_crops[order]), alone[order])


def test_a_mirrored_batch_gives_the_mean_of_both_views(real_crops: NDArray[np.uint8]) -> None:
    backend = OnnxRuntimeBackend(load_artifact("lite"), device="cpu", threads=1, precision="fp32")
    settings = ScoringSettings(
        model="lite",
        spec=LITE,
        aggregate="mean",
        decisive_frames=1,
        sampling=QUICK,
        mirror=True,
        weights_sha256="",
        settings_sha256="",
    )
    job = VideoJob(0, "video")
    crops: list[ToInfer] = [face_input(job, 0, float(second), pixels) for second, pixels in enumerate(real_crops)]
    (result,) = results_of(InferStage([(backend, settings)], progress=Progress()), [*crops, end_of(job)])
    views = [view for pixels in real_crops for view in (pixels, np.ascontiguousarray(pixels[:, ::-1]))]
    logits = [float(backend.logits(view[None])[0]) for view in views]
    assert result.score == pytest.approx(LITE.calibration.score(sum(logits) / 16), rel=1e-6)


class FullDevice(BrightnessBackend):
    """Stands for a GPU whose memory others fill: larger batches than `room` fail, as they do there."""

    def __init__(self, room: int) -> None:
        super().__init__(max_batch=8)
        self.room = room

    def logits(self, batch: Items) -> NDArray[np.float32]:
        if len(batch) > self.room:
            raise DeviceMemoryError("The GPU's memory is too small.")
        return super().logits(batch)


def test_where_the_devices_memory_is_too_small_batches_become_smaller_and_stay_so() -> None:
    job = VideoJob(0, "video")
    messages: list[ToInfer] = [crop(job, 0, number / 25, 10 * number, 7 * number) for number in range(16)]
    plain, scarce = BrightnessBackend(), FullDevice(room=3)
    (expected,) = results_of(stage_of(plain), [*messages, end_of(job)])
    (found,) = results_of(stage_of(scarce), [*messages, end_of(job)])
    assert found.score == expected.score
    assert found.clips == 16
    assert plain.batches == [8, 8]
    assert scarce.batches == [2] * 8


def test_a_device_without_memory_for_a_single_crop_ends_the_scan() -> None:
    job = VideoJob(0, "video")
    with pytest.raises(DeviceMemoryError):
        results_of(stage_of(FullDevice(room=0)), [crop(job, 0, 0.0, 10, 20)])


def test_a_video_that_begins_again_keeps_nothing_of_before() -> None:
    job, other = VideoJob(0, "video"), VideoJob(1, "other")
    before: list[ToInfer] = [crop(job, 0, 0.0, 200, 100), crop(other, 0, 0.0, 50, 50), TracksEnded(job, (0,), [0])]
    after: list[ToInfer] = [crop(job, 0, 0.0, 20, 10), end_of(job), end_of(other)]
    again, untouched = results_of(stage_of(BrightnessBackend()), [*before, Restarted(job), *after], batch=2)
    assert (again.clips, again.tracks) == (1, 1)
    assert again.score == pytest.approx(sigmoid(logit_of(20, 10)))
    assert untouched.score == pytest.approx(sigmoid(logit_of(50, 50)))


def test_what_limits_left_out_is_told_of_a_video_that_is_scored() -> None:
    job = VideoJob(0, "crowd.mp4")
    skipped = (SkipSummary(truncations=("the largest 2 were scored", "the first 9 were scored")),)
    end = VideoFollowed(job, VideoDecoded(job, INFO, 5, None, "only the first 5 frames were scanned"), 3, skipped)
    (result,) = results_of(stage_of(BrightnessBackend()), [crop(job, 0, 0.0, 90, 90), end])
    assert result.status == "scored"
    assert result.reason == ("the largest 2 were scored; the first 9 were scored; only the first 5 frames were scanned")


@pytest.mark.parametrize("failure", [None, UnsupportedInput("Decoding went on, and failed.")])
def test_a_video_over_a_limit_has_no_score_and_says_the_same_however_far_decoding_was(
    failure: UnsupportedInput | None,
) -> None:
    job = VideoJob(0, "crowd.mp4")
    skipped = (SkipSummary(over_limit=OverLimit("A frame of it has 3 faces."), frames_until_limit=2),)
    end = VideoFollowed(job, VideoDecoded(job, INFO, 77, failure, "damage"), 3, skipped)
    (result,) = results_of(stage_of(BrightnessBackend()), [crop(job, 0, 0.0, 90, 90), end])
    assert (result.status, result.reason, result.frames) == ("over_limit", "A frame of it has 3 faces.", 2)
    assert (result.score, result.label, result.details) == (None, None, ())
