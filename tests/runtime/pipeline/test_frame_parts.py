from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from deepscan.errors import OutputError, UnsupportedInput
from deepscan.options import Aggregate
from deepscan.results import FRAME_COLUMNS, FrameScore
from deepscan.runtime.faces.cropping import FaceInFrame, FaceInput
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.pipeline import frame_parts
from deepscan.runtime.pipeline.frame_parts import FrameRecorder, Values, is_whole, partial_part, read_part
from deepscan.runtime.pipeline.infer_stage import InferStage
from deepscan.runtime.pipeline.messages import Restarted, ToInfer
from deepscan.runtime.pipeline.pipeline import Progress
from deepscan.runtime.pipeline.scoring import ScoringSettings
from tests.runtime.pipeline.infer_parts import QUICK, SIDE, BrightnessBackend, crop, end_of, results_of
from tests.runtime.scenes import spec_with

TRACK, PTS, FRAME, FOUND, LOGIT, SCORE = 0, 1, 2, 3, -2, -1


def recording(
    folder: Path, pooling: str = "logit", *, mirror: bool = False, aggregate: Aggregate = "max"
) -> InferStage:
    spec = spec_with(pooling=pooling, scale=0.7, offset=0.3, size=SIDE)  # type: ignore[arg-type]
    scoring = ScoringSettings(
        model="lite",
        spec=spec,
        aggregate=aggregate,
        decisive_frames=2,
        sampling=QUICK,
        mirror=mirror,
        weights_sha256="weights",
        settings_sha256="settings",
    )
    return InferStage([(BrightnessBackend(), scoring)], progress=Progress(), recorder=FrameRecorder(str(folder)))


def rows_in(folder: Path, index: int = 0) -> list[Values]:
    return list(read_part(partial_part(str(folder), index, 0)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seen=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=30),
    pooling=st.sampled_from(["logit", "score"]),
    mirror=st.booleans(),
    batch=st.integers(1, 9),
)
def test_the_rows_of_a_track_give_the_score_of_the_track(
    tmp_path: Path, seen: list[tuple[int, int, int]], pooling: str, mirror: bool, batch: int
) -> None:
    job = VideoJob(0, "video")
    messages: list[ToInfer] = [crop(job, track, at / 25, *sides) for at, (track, *sides) in enumerate(seen)]
    stage = recording(tmp_path, pooling, mirror=mirror)
    (result,) = results_of(stage, [*messages, end_of(job)], batch)
    calibration = spec_with(scale=0.7, offset=0.3).calibration
    rows = rows_in(tmp_path)
    assert [(row[TRACK], row[PTS]) for row in rows] == [(track, at / 25) for at, (track, *_) in enumerate(seen)]
    assert {detail.track for detail in result.details} == {row[TRACK] for row in rows}
    for detail in result.details:
        own = [row for row in rows if row[TRACK] == detail.track]
        mean = statistics.fmean(row[LOGIT if pooling == "logit" else SCORE] for row in own)
        assert detail.score == pytest.approx(calibration.score(mean) if pooling == "logit" else mean, abs=1e-12)
        assert detail.clips == len(own)
    assert all(row[SCORE] == calibration.score(row[LOGIT]) for row in rows)


def test_a_row_holds_where_the_face_is_and_the_span_of_the_clip(tmp_path: Path) -> None:
    job = VideoJob(3, "video")
    box, landmarks = np.array([-2, 5, 10, 30], np.float32), np.arange(10, dtype=np.float32).reshape(5, 2)
    recorder = FrameRecorder(str(tmp_path))
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    for at in (FaceInFrame(1.5, 7, box, landmarks, found=False), FaceInFrame(1.5, 7, box, None, found=True)):
        recorder.add(0, FaceInput(job, (0,), 4, 1.0, 2.0, 8, pixels, (), at), 0.5, 0.625)
    recorder.end(3, 0, keep=True)
    interpolated, whole = rows_in(tmp_path, 3)
    assert interpolated == (4, 1.5, 7, False, -2, 5, 12, 25, *range(10), 1.0, 2.0, 8, 0.5, 0.625)
    assert whole[FOUND] is True
    assert all(math.isnan(value) for value in whole[8:18])


def test_a_video_that_begins_again_begins_its_rows_again(tmp_path: Path) -> None:
    job = VideoJob(0, "video")
    messages: list[ToInfer] = [
        crop(job, 0, 0.0, 1, 2),
        Restarted(job),
        crop(job, 0, 0.1, 3, 4),
        crop(job, 0, 0.2, 5, 6),
        end_of(job),
    ]
    results_of(recording(tmp_path), messages)
    assert [row[PTS] for row in rows_in(tmp_path)] == [0.1, 0.2]


def test_a_video_without_a_score_has_no_rows(tmp_path: Path) -> None:
    job = VideoJob(0, "video")
    failed = end_of(job, failure=UnsupportedInput("It is encrypted."))
    (result,) = results_of(recording(tmp_path), [crop(job, 0, 0.0, 1, 2), failed])
    assert result.status == "unsupported"
    assert list(tmp_path.iterdir()) == []


def test_the_part_of_a_killed_worker_is_not_whole_and_is_begun_anew(tmp_path: Path) -> None:
    path = Path(partial_part(str(tmp_path), 0, 0))
    killed = FrameRecorder(str(tmp_path))
    killed.add(0, crop(VideoJob(0, "video"), 0, 9.0, 1, 2), 0.0, 0.5)
    assert not is_whole(str(path))
    again = FrameRecorder(str(tmp_path))
    again.add(0, crop(VideoJob(0, "video"), 0, 1.0, 1, 2), 0.0, 0.5)
    again.end(0, 0, keep=True)
    killed.end(0, 0, keep=True)  # what it writes late goes nowhere
    assert [row[PTS] for row in rows_in(tmp_path)] == [1.0]


def test_no_changed_byte_of_a_part_is_taken_for_a_score(tmp_path: Path) -> None:
    recorder = FrameRecorder(str(tmp_path))
    for number in range(3):
        recorder.add(0, crop(VideoJob(0, "video"), 0, number, 1, 2), 0.0, 0.5)
    recorder.end(0, 0, keep=True)
    path = Path(partial_part(str(tmp_path), 0, 0))
    whole = path.read_bytes()
    assert is_whole(str(path))
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert not is_whole(str(path))
        with pytest.raises(OutputError, match="is damaged: delete it"):
            list(read_part(str(path)))
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(OutputError, match="is damaged: delete it"):
            list(read_part(str(path)))


def test_a_folder_that_cannot_be_written_is_said_with_what_to_do(tmp_path: Path) -> None:
    recorder = FrameRecorder(str(tmp_path / "gone"))
    with pytest.raises(
        OutputError, match=r"cannot be written to .*gone \(No such file or directory\): make room there"
    ):
        recorder.add(0, crop(VideoJob(0, "video"), 0, 0.0, 1, 2), 0.0, 0.5)


def test_the_fields_of_a_record_are_the_columns() -> None:
    values = frame_parts.RECORD.unpack(bytes(frame_parts.RECORD.size))
    assert ("path", "model", *FRAME_COLUMNS[frame_parts.FIRST_VALUE :]) == FRAME_COLUMNS
    names = FRAME_COLUMNS[frame_parts.FIRST_VALUE :]
    kinds = {each.name: each.type for each in structs.fields(FrameScore)}
    for name, value in zip(names, values, strict=True):
        assert isinstance(value, kinds[name]), name
