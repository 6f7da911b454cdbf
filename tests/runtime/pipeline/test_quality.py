from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

import deepscan
from deepscan.results import Quality, VideoResult
from deepscan.runtime.faces.detections import FaceMeasures
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.pipeline.infer_stage import InferStage
from deepscan.runtime.pipeline.pipeline import Progress
from deepscan.runtime.pipeline.quality import LIMITS, low_quality, quality_class
from tests.footage import ASTRONAUT, SWAPPED, example_frames, write_video
from tests.runtime.pipeline.infer_parts import BrightnessBackend, crop, end_of, results_of, settings_of

GOOD: Final = Quality(sharpness=0.6, blockiness=1.0, bits_per_pixel=0.05, face_pixels=300)
CLASSES: Final = ("low", "fair", "good")
SHARP, BLURRED = FaceMeasures(0.6, 1.0, 300), FaceMeasures(0.3, 1.0, 300)


@pytest.mark.parametrize(
    ("name", "low", "fair", "good"),
    [
        ("sharpness", 0.449, 0.45, 0.55),
        ("blockiness", 1.41, 1.4, 1.2),
        ("bits_per_pixel", 0.0099, 0.01, 0.02),
        ("face_pixels", 127.9, 128, 150),
    ],
)
def test_one_low_measure_makes_the_class_low_and_only_good_ones_make_it_good(
    name: str, low: float, fair: float, good: float
) -> None:
    found = [quality_class(changed(GOOD, **{name: value}), "h264") for value in (low, fair, good)]
    assert found == ["low", "fair", "good"]
    assert quality_class(changed(GOOD, sharpness=0.5, **({} if name == "sharpness" else {name: low})), "h264") == (
        "fair" if name == "sharpness" else "low"
    )


@given(
    sharpness=st.floats(0, 1),
    blockiness=st.floats(0.5, 3),
    bits=st.none() | st.floats(0, 1),
    side=st.floats(1, 1000),
    name=st.sampled_from(sorted(LIMITS)),
    by=st.floats(0, 1),
)
def test_no_class_rises_where_a_measure_gets_worse(
    sharpness: float, blockiness: float, bits: float | None, side: float, name: str, by: float
) -> None:
    before = Quality(sharpness=sharpness, blockiness=blockiness, bits_per_pixel=bits, face_pixels=side)
    value = getattr(before, name)
    worse = None if value is None else value + by if name == "blockiness" else value * (1 - by)
    after = changed(before, **{name: worse})
    assert CLASSES.index(quality_class(after, "h264")) <= CLASSES.index(quality_class(before, "h264"))
    assert (quality_class(before, "h264") == "low") == ("the faces are : " not in low_quality(before, "h264", "lite"))


def test_bits_of_efficient_codecs_count_twice() -> None:
    quality = changed(GOOD, bits_per_pixel=0.006)
    assert [quality_class(quality, codec) for codec in ("h264", "hevc", "av1", "vp9", None)] == [
        "low",
        "fair",
        "fair",
        "fair",
        "low",
    ]


def test_the_reason_names_all_that_is_low() -> None:
    quality = Quality(sharpness=0.3, blockiness=1.5, bits_per_pixel=0.004, face_pixels=80)
    assert low_quality(quality, "h264", "lite") == (
        "the faces are blurred (sharpness 0.30), full of blocks (blockiness 1.50), strongly compressed (0.0040 bits "
        "per pixel), small (80 pixels): low quality, for which lite was not shown to be right"
    )


def labeled(*tracks: tuple[int, FaceMeasures], holds: bool = False, damage: str | None = None) -> VideoResult:
    """Return the result of tracks with this brightness and these measures."""
    job = VideoJob(0, "video")
    settings = settings_of("lite")
    settings = replace(settings, spec=changed(settings.spec, holds_in_low_quality=holds), aggregate="max")
    messages = [crop(job, number, 0.0, bright, bright) for number, (bright, _) in enumerate(tracks)]
    measures = {number: each for number, (_, each) in enumerate(tracks)}
    ended = TracksEnded(job, (0,), list(measures), measures=measures)
    stage = InferStage([(BrightnessBackend(), settings)], progress=Progress())
    (result,) = results_of(stage, [*messages, ended, end_of(job, damage=damage)])
    return result


@pytest.mark.parametrize(("bright", "label"), [(250, "fake"), (10, "real"), (140, "uncertain")])
def test_a_label_from_low_quality_is_uncertain_and_the_score_stays(bright: int, label: str) -> None:
    sharp, blurred, holds = (
        labeled((bright, SHARP)),
        labeled((bright, BLURRED), damage="3 damaged frames"),
        labeled((bright, BLURRED), holds=True),
    )
    assert (sharp.label, sharp.quality, sharp.reason) == (label, "good", "")
    assert (holds.label, holds.quality, holds.reason) == (label, "low", "")
    assert sharp.score == blurred.score == holds.score
    assert (blurred.label, blurred.quality) == ("uncertain", "low")
    says = "the faces are blurred (sharpness 0.30): low quality, for which lite was not shown to be right; "
    assert blurred.reason == ("" if label == "uncertain" else says) + "3 damaged frames"


def test_the_quality_is_that_of_the_face_that_decided() -> None:
    assert labeled((250, BLURRED), (10, SHARP)).quality == "low"
    assert labeled((10, BLURRED), (250, SHARP)).quality == "good"


def test_a_video_without_a_score_has_no_quality() -> None:
    (result,) = results_of(
        InferStage([(BrightnessBackend(), settings_of("lite"))], progress=Progress()), [end_of(VideoJob(0, "video"))]
    )
    assert (result.quality, result.quality_details) == (None, None)


@pytest.mark.usefixtures("workers_here")
def test_encoding_a_video_worse_lowers_its_class_until_its_label_is_uncertain(tmp_path: Path) -> None:
    for example in (ASTRONAUT, SWAPPED):
        for crf in ("18", "40"):
            path = tmp_path / f"{example.stem} {crf}.mp4"
            write_video(path, example_frames(example, 40), options={"preset": "veryfast", "crf": crf})
    found = {Path(row.path).stem: row for row in deepscan.scan(tmp_path, frames=4, mirror=False)}
    for example in (ASTRONAUT, SWAPPED):
        fine, coarse = found[f"{example.stem} 18"], found[f"{example.stem} 40"]
        assert (fine.quality, coarse.quality, coarse.label) == ("good", "low", "uncertain")
        before, after = fine.quality_details, coarse.quality_details
        assert before is not None
        assert after is not None
        assert after.blockiness > before.blockiness
        assert after.sharpness < before.sharpness
        assert after.bits_per_pixel is not None
        assert before.bits_per_pixel is not None
        assert after.bits_per_pixel < before.bits_per_pixel / 3


@pytest.mark.usefixtures("workers_here")
def test_bits_per_pixel_follow_the_measured_length_and_not_the_clock(tmp_path: Path) -> None:
    plain, jumping = tmp_path / "plain.ts", tmp_path / "jumping.ts"
    write_video(plain, example_frames(ASTRONAUT, 40), options={"preset": "veryfast", "crf": "18"})
    with av.open(plain) as source, av.open(jumping, "w", format="mpegts") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.dts is not None and packet.pts is not None:
                later = 13 * 3600 * 90_000 if number >= 20 else 0
                packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, stream
                target.mux(packet)
    found = {Path(row.path).stem: row for row in deepscan.scan(tmp_path, frames=4, mirror=False)}
    one, other = found["plain"].quality_details, found["jumping"].quality_details
    assert one is not None
    assert other is not None
    assert other.bits_per_pixel == pytest.approx(one.bits_per_pixel, rel=0.1)
    assert found["jumping"].label == found["plain"].label
