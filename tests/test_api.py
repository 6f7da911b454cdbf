from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import pytest

import deepscan
from deepscan import Scan, Segment, TrackResult, VideoResult, errors, scan
from deepscan.errors import MachineError, ModelError, UsageError
from deepscan.runtime.backends.sessions import PROVIDERS, available_providers
from tests.cli.console import deepscan as deepscan_command
from tests.footage import ASTRONAUT, NO_FACE, PHONE, SWAPPED, TWO_FACES, example_frames, write_video
from tests.runtime.tiny_detectors import tiny_clip_artifact, tiny_frame_artifact

ASSETS = Path(str(files("deepscan") / "assets"))
pytestmark = pytest.mark.usefixtures("workers_here")


def test_a_scan_yields_typed_results_with_tracks_and_timelines() -> None:
    results = list(scan([SWAPPED, NO_FACE], frames=4))
    assert all(type(result) is VideoResult for result in results)
    forged, empty = sorted(results, key=lambda result: result.index)
    assert (forged.path, forged.status, forged.label, forged.succeeded) == (str(SWAPPED), "scored", "fake", True)
    assert (empty.path, empty.status, empty.label, empty.succeeded) == (str(NO_FACE), "no_face", None, True)
    assert (empty.score, empty.peak, empty.details) == (None, None, ())
    (track,) = forged.details
    assert isinstance(track, TrackResult)
    assert all(isinstance(part, Segment) for part in track.timeline)
    assert forged.peak in track.timeline
    assert track.score == forged.score
    assert sum(part.clips for part in track.timeline) == track.clips == forged.clips == forged.frames == 4
    assert forged.duration_seconds == pytest.approx(4.0, abs=0.1)
    assert 0.0 <= track.start_seconds < track.end_seconds <= 4.0


def test_an_index_is_a_place_in_the_plan_whatever_finishes_first() -> None:
    running = scan([ASTRONAUT, "missing.mp4", NO_FACE, SWAPPED], frames=2, jobs=4)
    found = {result.index: result.path for result in running}
    assert found == {number: planned.path for number, planned in enumerate(running.plan.inputs)}
    assert found[1] == "missing.mp4"


def several() -> Iterator[Path | str]:
    yield NO_FACE
    yield str(NO_FACE)


@pytest.mark.parametrize("given", [NO_FACE, str(NO_FACE), [NO_FACE], (str(NO_FACE), NO_FACE), several()])
def test_paths_may_be_one_or_many_of_either_kind(given: Any) -> None:
    (result,) = scan(given, frames=1)
    assert (result.path, result.status, result.frames) == (str(NO_FACE), "no_face", 1)


def test_a_folder_is_a_path_like_any_other(tmp_path: Path) -> None:
    for name in ("b.avi", "a.avi", "note.txt"):
        (tmp_path / name).write_bytes(NO_FACE.read_bytes())
    running = scan(tmp_path, frames=1, exclude=["b*"])
    assert [result.path for result in running] == [str(tmp_path / "a.avi")]
    assert running.plan.skipped == 1


def test_nothing_runs_before_the_results_are_asked_for_and_progress_is_counted() -> None:
    running = scan(NO_FACE, frames=3)
    assert isinstance(running, Scan)
    assert (running.progress.frames, running.share_done()) == (0, 0.0)
    assert [result.frames for result in running] == [3]
    assert (running.progress.frames, running.progress.videos, running.share_done()) == (3, 1, 1.0)
    assert [stage.name for stage in running.stage_times()] == ["decode", "faces", "infer"]
    assert all(stage.items > 0 for stage in running.stage_times())


def test_small_faces_are_not_scored_and_the_result_says_so() -> None:
    (result,) = scan(TWO_FACES, frames=2, min_face=900)
    assert (result.status, result.score, result.faces) == ("small_face", None, 2)
    assert result.succeeded
    assert "min_face is 900" in result.reason


def test_the_mirror_image_counts_by_default_and_can_be_left_out() -> None:
    (default,), (mirrored,), (single,) = (scan(ASTRONAUT, frames=2, mirror=mirror) for mirror in (None, True, False))
    assert default.score == mirrored.score
    assert single.score != mirrored.score
    assert default.settings_sha256 == mirrored.settings_sha256 != single.settings_sha256


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"paths": []}, UsageError, "nothing to scan"),
        ({"frames": 4, "sampling": "full"}, UsageError, 'frames goes with sampling="quick" or'),
        ({"frames": 0}, UsageError, "must be a whole number from 1"),
        ({"detect_every": 0}, UsageError, "must be a whole number from 1"),
        ({"jobs": -1}, UsageError, "must be a whole number from 1"),
        ({"threshold": 1.01}, UsageError, "must be a number from 0 to 1"),
        ({"threshold": float("nan")}, UsageError, "must be a number from 0 to 1"),
        ({"clips": 0}, UsageError, "must be a whole number from 1"),
        ({"min_face": 0}, UsageError, "must be a whole number from 1"),
        ({"model": "lait"}, UsageError, r"No detector is called 'lait' \(did you mean lite\?\): use one of lite, alt"),
        ({"model": "ftcn"}, ModelError, "No weights of a detector called 'ftcn' are installed"),
        (
            {"model": "lite@00"},
            ModelError,
            "The weights of lite, which come with deepscan, begin with",
        ),
        ({"model": ""}, UsageError, "name each detector once"),
        ({"model": []}, UsageError, "name each detector once"),
        ({"model": "lite,lite"}, UsageError, "name each detector once"),
        ({"model": "lite,"}, UsageError, "name each detector once"),
        ({"clips": 2}, UsageError, "clips goes with sampling="),
        (
            {"face_detector": "retinaface"},
            ModelError,
            "No weights of a face detector called 'retinaface' are installed",
        ),
        ({"precision": "int8"}, ModelError, "lite.onnx, which is fp32, is not computed in int8"),
    ],
)
def test_what_makes_no_sense_raises_before_anything_runs(
    arguments: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        scan(**({"paths": NO_FACE} | arguments))


@pytest.mark.skipif(PROVIDERS["cuda"] in available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_device_that_is_not_there_raises() -> None:
    with pytest.raises(MachineError, match='device="cuda" cannot be used'):
        scan(NO_FACE, device="cuda")


def test_the_package_offers_what_it_lists_and_nothing_else() -> None:
    offered = [name for name in deepscan.__all__ if name != "__version__"]
    assert all(getattr(deepscan, name).__name__ == name for name in offered)
    assert set(deepscan.__all__) <= set(dir(deepscan))
    assert {kind.__name__ for kind in vars(errors).values() if isinstance(kind, type)} <= set(offered)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = deepscan.nothing


@pytest.mark.parametrize(
    "nonsense",
    [
        {"sampling": "bogus"},
        {"aggregate": "median"},
        {"backend": "caffe"},
        {"precision": "fp8"},
        {"face_detector": "dlib"},
    ],
)
def test_words_that_mean_nothing_are_refused_with_those_that_do(nonsense: dict[str, Any]) -> None:
    ((name, word),) = nonsense.items()
    with pytest.raises(UsageError, match=f"{name} '{word}' is not known: use one of "):
        scan(NO_FACE, **nonsense)


def test_a_device_that_means_nothing_is_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match="device 'tpu' is not known: use auto, cpu, cuda"):
        scan(NO_FACE, device="tpu")


def test_one_pattern_may_be_given_as_it_is() -> None:
    plan = scan(NO_FACE.parent, include="*.WEBM", frames=1).plan
    assert [Path(planned.path).name for planned in plan.inputs] == [TWO_FACES.name]


def test_the_hash_of_the_settings_is_that_of_what_a_result_depends_on() -> None:
    def hashed(**settings: Any) -> str:
        (result,) = scan(NO_FACE, frames=1, **settings)
        return result.settings_sha256

    same = hashed()
    assert hashed(detect_every=3, jobs=2) == same  # which play no part in quick
    assert hashed(aggregate="max", mirror=True, min_face=100, face_detector="yunet") == same  # the defaults
    others: list[dict[str, Any]] = [{"threshold": 0.7}, {"mirror": False}, {"min_face": 50}, {"aggregate": "mean"}]
    others += [{"sampling": "paper"}, {"face_detector": "none"}]
    assert len({same, *(hashed(**settings) for settings in others)}) == 7


def test_each_detector_has_a_row_of_its_own_for_each_input_and_frames_are_decoded_once(tmp_path: Path) -> None:
    other = str(tiny_frame_artifact(tmp_path))
    running = scan([NO_FACE, "missing.mp4", SWAPPED], model=["lite", other], frames=2)
    assert running.models == ["lite", "tiny-frame"]
    results = sorted(running, key=lambda result: result.row)
    assert [result.row for result in results] == list(range(6))
    assert [result.index for result in results] == [0, 0, 1, 1, 2, 2]
    assert [result.status for result in results] == ["no_face"] * 2 + ["unreadable"] * 2 + ["scored"] * 2
    assert [result.model for result in results] == ["lite", "tiny-frame"] * 3
    assert (running.progress.frames, running.progress.videos) == (4, 3)
    assert scan(NO_FACE, model=f"lite, {other}", frames=1).models == ["lite", "tiny-frame"]


def test_the_same_weights_twice_are_refused_whatever_their_path(tmp_path: Path) -> None:
    for name in ("lite.onnx", "lite.manifest.json"):
        (tmp_path / name).write_bytes((ASSETS / name).read_bytes())
    with pytest.raises(UsageError, match="same weights twice"):
        scan(NO_FACE, model=["lite", str(tmp_path / "lite.onnx")])


def test_paper_counts_each_frame_once_though_it_decodes_twice(tmp_path: Path) -> None:
    running = scan(ASTRONAUT, model=str(tiny_clip_artifact(tmp_path)), sampling="paper", frames=20)
    (result,) = running
    assert (result.frames, running.progress.frames, result.clips) == (20, 20, 13)
    assert running.share_done() == 1.0


def test_a_face_is_scored_in_every_frame_of_a_slow_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "slow.mp4", example_frames(ASTRONAUT, 12), rate=1)
    (result,) = scan(path)
    assert (result.tracks, result.clips, result.frames) == (1, 12, 12)


def test_a_video_with_a_second_stream_says_that_it_was_not_scanned(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(ASTRONAUT)) as one, av.open(str(PHONE)) as other, av.open(str(path), "w") as both:
        sources = [(one, both.add_stream_from_template(one.streams.video[0]))]
        sources.append((other, both.add_stream_from_template(other.streams.video[0])))
        for source, target in sources:
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = target
                    both.mux(packet)
    (result,) = scan(path, frames=3)
    assert (result.status, result.codec) == ("scored", "h264")
    assert result.reason == "1 other video stream in it was not scanned"


def test_a_result_becomes_the_record_of_the_jsonl(tmp_path: Path) -> None:
    (result,) = scan(SWAPPED, frames=3)
    record = result.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert deepscan_command("scan", SWAPPED, "--frames", "3", "--out", tmp_path / "r.csv").code == 0
    (line,) = (tmp_path / "r.jsonl").read_text().splitlines()
    journaled = json.loads(line)
    measured = {"elapsed_seconds": record["elapsed_seconds"]}
    assert {name: value for name, value in journaled.items() if name in record} | measured == record
    assert set(record) >= {"path", "score", "label", "peak_score", "peak_start_seconds", "track_details"}
    assert VideoResult.from_dict(record).to_dict() == record


def test_reasons_name_keywords_and_not_options(tmp_path: Path) -> None:
    (result,) = scan(NO_FACE, limits=deepscan.Limits(frames=3))
    assert (result.status, result.succeeded) == ("over_limit", False)
    assert "limits.frames is 3" in result.reason
    assert "--" not in result.reason
