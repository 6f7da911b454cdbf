from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepscan.results import VideoResult
from deepscan.runtime.faces.cropping import FaceInput
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.frames import VideoInfo
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.infer_stage import InferStage
from deepscan.runtime.pipeline.messages import ToInfer, VideoDecoded, VideoFollowed
from deepscan.runtime.pipeline.pipeline import Progress
from tests.runtime.pipeline.infer_parts import (
    INFO,
    QUICK,
    SIDE,
    BrightnessBackend,
    face_input,
    logit_of,
    results_of,
    settings_of,
    sigmoid,
    stage_of,
)


def seen(sightings: int, *, bright: int = 250) -> FaceInput:
    pixels = np.full((SIDE, SIDE, 3), bright, dtype=np.uint8)
    return face_input(VideoJob(0, "video"), 0, 0.0, pixels, sightings=sightings)


def labeled(
    messages: list[ToInfer],
    *,
    frames: int = 16,
    sampling: Sampling = QUICK,
    info: VideoInfo = INFO,
    damage: str | None = None,
) -> VideoResult:
    job = VideoJob(0, "video")
    end = VideoFollowed(job, VideoDecoded(job, info, frames, None, damage), 1, (SkipSummary(),))
    settings = replace(settings_of("lite"), sampling=sampling)
    (result,) = results_of(InferStage([(BrightnessBackend(), settings)], progress=Progress()), [*messages, end])
    return result


RESTS = "the verdict would rest on {} of a face in {}; at least 3 are needed"
STILL = replace(INFO, codec="png", duration_seconds=None, still=True)


@pytest.mark.parametrize(("bright", "label"), [(250, "fake"), (10, "real")])
@pytest.mark.parametrize("sightings", [1, 2, 3])
def test_a_label_needs_three_sightings_and_the_score_stays(bright: int, label: str, sightings: int) -> None:
    result = labeled([seen(sightings, bright=bright)])
    assert result.score == pytest.approx(sigmoid(logit_of(bright, bright)), abs=1e-6)
    if sightings < 3:
        plural = "1 sighting" if sightings == 1 else "2 sightings"
        expected = ("uncertain", f"{RESTS.format(plural, '16 frames')}: raise --frames or use --sampling full")
    else:
        expected = (label, "")
    assert (result.label, result.reason) == expected


def test_a_score_between_the_bands_is_uncertain_without_that() -> None:
    result = labeled([seen(1, bright=140)])
    assert (result.label, result.reason) == ("uncertain", "")


@pytest.mark.parametrize(
    ("sampling", "frames", "advice"),
    [
        (Sampling("windows", count=4, window_frames=32), 128, ": raise --clips or use --sampling full"),
        (Sampling("ends", count=2), 2, ": raise --frames or use --sampling full"),
        (Sampling("first", count=20), 20, ": raise --frames or use --sampling full"),
        (Sampling("middles", count=16), 2, ""),  # more there is not
        (Sampling("all", detect_every=5), 6, ": use --detect-every 1"),
        (Sampling("all", detect_every=5), 2, ""),
        (Sampling("all", detect_every=1), 600, ""),
    ],
)
def test_the_reason_says_what_helps(sampling: Sampling, frames: int, advice: str) -> None:
    result = labeled([seen(2)], sampling=sampling, frames=frames, damage="a scratch")
    assert result.reason == f"{RESTS.format('2 sightings', f'{frames} frames')}{advice}; a scratch"


@pytest.mark.parametrize(
    ("info", "sampling", "damage", "label"),
    [
        (STILL, Sampling("middles", count=1), None, "fake"),
        (STILL, Sampling("all"), None, "fake"),
        (STILL, QUICK, "it is HDR (PQ) and was tone-mapped to SDR", "fake"),
        (INFO, Sampling("all"), None, "fake"),  # a video of one frame
        (INFO, QUICK, None, "fake"),
        (INFO, Sampling("middles", count=1), None, "uncertain"),  # a look at one frame of a video
        (INFO, Sampling("all"), "only the first 0.04 of 4.0 seconds could be decoded", "uncertain"),
    ],
)
def test_where_one_frame_is_all_there_is_one_sighting_is_enough(
    info: VideoInfo, sampling: Sampling, damage: str | None, label: str
) -> None:
    assert labeled([seen(1)], frames=1, info=info, sampling=sampling, damage=damage).label == label


def test_a_glimpse_does_not_count_beside_a_track() -> None:
    job = VideoJob(0, "video")
    glimpse = replace(seen(1, bright=250), track=1)
    result = labeled([seen(3, bright=10), glimpse, TracksEnded(job, (0,), [0, 1], (1,))])
    assert (result.label, result.tracks, result.clips) == ("real", 1, 1)


@pytest.mark.parametrize(
    ("skipped", "status", "reason"),
    [
        (
            SkipSummary(small_faces=12, plain_small_faces=11, largest_small_face=62.7),
            "small_face",
            (
                "12 sightings of faces of up to 62 pixels were not scored, as --min-face is 100: lower it to have them "
                "scored"
            ),
        ),
        (
            SkipSummary(small_faces=1, plain_small_faces=1, largest_small_face=62.7),
            "small_face",
            "1 sighting of a face of 62 pixels was not scored, as --min-face is 100: lower it to have it scored",
        ),
        (
            SkipSummary(small_faces=1),
            "no_face",
            "1 sighting of a face smaller than 100 pixels was not scored (see --min-face)",
        ),
        (SkipSummary(), "no_face", ""),
        (
            SkipSummary(small_faces=2, plain_small_faces=2, largest_small_face=40.0, longest_stretch=5),
            "too_short",
            None,
        ),
    ],
)
def test_a_face_that_is_plainly_there_but_small_has_a_status_of_its_own(
    skipped: SkipSummary, status: str, reason: str | None
) -> None:
    job = VideoJob(0, "video")
    end = VideoFollowed(job, VideoDecoded(job, INFO, 16, None, None), 1, (skipped,))
    (result,) = results_of(stage_of(BrightnessBackend()), [end])
    assert (result.status, result.score, result.label) == (status, None, None)
    assert result.succeeded == (status != "too_short")
    assert reason is None or result.reason == reason
