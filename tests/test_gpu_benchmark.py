"""The benchmark of GPUs, as far as a machine without one goes: its parts, and the whole program with --device cpu."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import deepscan
from benchmarks.gpu import main
from benchmarks.gpu_check import difference
from benchmarks.gpu_decode import DecoderGroup, decoded, decoder_groups
from benchmarks.gpu_footage import Footage, make_footage
from benchmarks.gpu_reference import AuthorsWay
from benchmarks.gpu_report import Figure, Sample, StageFigure, rate_of, ratios
from benchmarks.gpu_stages import StagesAlone
from benchmarks.gpu_works import NAMES, Job, Measuring
from deepscan.export.artifact import store_artifact
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.runtime.media.frames import host_picture
from deepscan.runtime.system.machine import nvidia_gpus
from tests.footage import ASTRONAUT, open_video
from tests.test_as_the_authors_do import SPEC, Linear, linear_artifact

FRAMES = 36


def figure(part: str, rate: float, *, variant: str = "full", model: str | None = "altfreezing") -> Figure:
    sample = Sample(frames=100, seconds=100 / rate)
    return Figure(
        part=part,
        variant=variant,
        size="360p",
        codec="h264",
        shape="short",
        files="some",
        model=model,
        samples=(sample,),
        frames_per_second=rate,
    )


@pytest.mark.slow
def test_the_whole_program_measures_every_part_that_needs_no_gpu(tmp_path: Path) -> None:
    written = tmp_path / "report.json"
    options = ["--device", "cpu", "--all", "--check", "--small", "--rounds", "1", "--json", str(written)]
    assert main(options) == 0
    report = json.loads(written.read_bytes())
    figures = report["figures"]
    assert {each["part"] for each in figures} == set(NAMES)
    assert {each["codec"] for each in figures} == {"h264", "hevc"}
    assert all(each["frames_per_second"] > 0 for each in figures)
    (scan, *_) = (each for each in figures if each["part"] == "scan")
    (sample,) = scan["samples"]
    assert sample["frames"] == 40
    assert sample["unscored"] == 0
    assert [stage["name"] for stage in sample["stages"]] == ["decode", "faces", "infer"]
    assert all(0 < stage["busy_share"] <= 1 for stage in sample["stages"])
    compared = [ratio["name"].rpartition(": ")[2] for ratio in report["ratios"]]
    assert any(name.startswith("scan / slowest part alone") for name in compared)
    assert "scan / the authors' way, stride 1" in compared
    assert report["checks"] == []
    assert len(report["left_out"]) == 2
    assert report["complete"]
    assert report["command"].endswith(str(written))
    assert report["packages"]["av"]
    assert report["machine"]["processors"] >= 1
    assert report["trained"] == {"lite": True}


@pytest.mark.skipif(bool(nvidia_gpus()), reason="there is a GPU")
def test_without_a_gpu_it_says_so_before_it_does_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--all"]) == 3
    assert "deepscan doctor" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--only", "nonsense"], ["--all", "--rounds", "0"]])
def test_what_makes_no_sense_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--device", "cpu", *options])


@pytest.mark.usefixtures("workers_here")
def test_the_authors_way_takes_every_window_or_every_32nd(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SPEC, paper=msgspec.structs.replace(SPEC.paper, frames=FRAMES))
    way = AuthorsWay(spec, ArtifactGraph(Linear(), spec).eval(), device="cpu")
    dense, sparse = (way.score(ASTRONAUT, stride=stride) for stride in (1, 32))
    assert (dense.frames, dense.items) == (FRAMES, FRAMES - 31)
    assert (sparse.frames, sparse.items) == (FRAMES, 1)
    model = str(store_artifact(linear_artifact(), tmp_path))
    (result,) = deepscan.scan(ASTRONAUT, model=model, sampling="paper", frames=FRAMES, device="cpu")
    assert result.clips == dense.items
    # Faces are searched at full size here, and in a picture of 640 pixels there.
    assert dense.score == pytest.approx(result.score, abs=0.03)


def test_videos_hold_a_face_and_move(tmp_path: Path) -> None:
    footage = make_footage(tmp_path, size="360p", codec="hevc", shape="short", files=3, frames_each=10)
    assert len(footage.paths()) == 3
    assert decoded(footage.paths(), [DecoderGroup("cpu", 2, 1)])[0] == 30
    with open_video(str(footage.paths()[0]), threads=1) as reader:
        assert reader.info.codec == "hevc"
        lumas = [host_picture(frame).planes[0].astype(int) for frame in reader.frames()]
    assert np.abs(lumas[5] - lumas[4]).mean() > 1
    alone = StagesAlone(footage.paths()[0], "lite", device="cpu")
    assert alone.frames == 10
    assert [len(faces) for faces in alone._found] == [1, 1, 1]
    assert all(alone.seconds(part) > 0 for part in ("detect", "preprocess", "infer"))


def test_a_decoder_that_dies_ends_the_benchmark(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit, match="died"):
        decoded([tmp_path / "no.mp4"], [DecoderGroup("cpu", 1, 1)])


@pytest.mark.parametrize("files", [1, 8, 64])
def test_no_more_decoders_than_files_and_threads_for_all_processors(files: int) -> None:
    ((alone,), (gpu, beside)) = (decoder_groups(variant, processors=16, files=files) for variant in ("cpu", "both"))
    assert alone.threads == min(files, 16)
    assert alone.threads * alone.codec_threads == 16
    assert (gpu.kind, gpu.processes * gpu.threads) == ("nvdec", 16)
    assert beside.threads == min(files, 12)


def test_pixels_are_compared_by_their_mean_and_their_worst() -> None:
    ours = np.full((10, 100, 3), 100, dtype=np.uint8)
    assert difference(ours, ours + 2).small
    assert not difference(ours, ours + 3).small
    worse = ours.copy()
    worse[:5, :10] = 108  # 150 of 3000 numbers
    assert difference(ours, worse).small
    worse[0, 0] = 91  # 3 of them
    assert difference(ours, worse).small
    worse[0, 1] = 91
    assert not difference(worse, ours).small
    with pytest.raises(ValueError, match="10"):
        difference(ours, ours[:5])


def test_a_scan_is_compared_with_the_slowest_part_and_equal_work() -> None:
    parts = [
        figure("decode", 500, variant="cpu", model=None),
        figure("decode", 900, variant="both", model=None),
        figure("detect", 5000, model=None),
        figure("preprocess", 4000),
        figure("infer", 1000),
        figure("infer", 10, model="ftcn"),
    ]
    scans = [figure("scan", 810), figure("scan", 60, variant="paper")]
    references = [figure("reference", 2, variant="stride 1"), figure("reference", 9, variant="stride 32")]
    found = {ratio.name.partition(": ")[2]: ratio.value for ratio in ratios([*parts, *scans, *references])}
    assert found == pytest.approx(
        {
            "scan / slowest part alone (decode)": 0.9,
            "scan / the authors' way, stride 32": 90,
            "scan / the authors' way, stride 1": 30,
        }
    )
    assert [ratio for ratio in ratios(scans + parts[:3]) if "slowest" in ratio.name] == []


def works_of(tmp_path: Path, runs: dict[str, Callable[[], Sample]]) -> list[Job]:
    footage = Footage("360p", "h264", "short", tmp_path, 1, 10)
    return [Job(part, "cpu", footage, None, run) for part, run in runs.items()]


def test_the_first_round_warms_up_and_what_fails_costs_nothing_else(tmp_path: Path) -> None:
    calls: list[str] = []

    def fine() -> Sample:
        calls.append("fine")
        return Sample(frames=10 * len(calls), seconds=1.0)

    def failing() -> Sample:
        calls.append("failing")
        raise SystemExit("on purpose")

    measuring = Measuring(works_of(tmp_path, {"decode": failing, "detect": fine}), rounds=2, minutes=10)
    first, second = list(measuring.run())
    assert calls == ["failing", "fine", "fine", "fine"]
    assert [len(figure.samples) for figure in first] == [1]
    assert [(figure.part, [sample.frames for sample in figure.samples]) for figure in second] == [("detect", [30, 40])]
    (reason,) = measuring.left_out
    assert reason.startswith("decode")
    assert "on purpose" in reason


def test_when_the_time_is_up_nothing_more_is_begun(tmp_path: Path) -> None:
    def never() -> Sample:
        raise AssertionError

    measuring = Measuring(works_of(tmp_path, {"decode": never}), rounds=2, minutes=-1)
    assert list(measuring.run()) == [[]]
    assert "time is up" in measuring.left_out[0]


def test_a_rate_is_the_median_of_the_rounds() -> None:
    stage = StageFigure(name="decode", threads=1, busy_seconds=1, waiting_seconds=0, blocked_seconds=0, busy_share=1.0)
    samples = [Sample(frames=100, seconds=seconds, stages=(stage,)) for seconds in (1.0, 2.0, 10.0)]
    assert rate_of(samples) == 50
