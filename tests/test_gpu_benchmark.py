"""The benchmark of GPUs, as far as a machine without one goes: its parts, and the whole program with --device cpu."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import deepscan
from benchmarks import gpu, gpu_check
from benchmarks.gpu_check import command_check, crops_agree, difference, scores_agree
from benchmarks.gpu_decode import DecoderGroup, decoded, decoder_groups
from benchmarks.gpu_footage import Footage, make_footage
from benchmarks.gpu_reference import AuthorsWay
from benchmarks.gpu_report import Check, Figure, Report, Sample
from benchmarks.gpu_scan import SUPERVISOR, TimeIsUpError, scanned, watched
from benchmarks.gpu_stages import StagesAlone, worker_pipeline
from benchmarks.gpu_works import Job, Measuring
from deepscan.export.artifact import store_artifact
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.results import VideoResult
from deepscan.runtime.media.frames import host_picture
from deepscan.runtime.system.machine import environment, nvidia_gpus
from tests.footage import ASTRONAUT, open_video
from tests.test_as_the_authors_do import SPEC, Linear, linear_artifact
from tests.test_gpu_report import PARTS

FRAMES = 36
FEW = 10
NEVER = time.monotonic() + 1e6


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    return make_footage(tmp_path_factory.mktemp("footage"), size="360p", codec="hevc", frames=FEW)


def report_of(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


@pytest.mark.usefixtures("workers_here")
def test_a_command_measures_writes_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written, kept = tmp_path / "report.json", tmp_path / "footage"
    options = ["--device", "cpu", "--small", "--models", "lite,none", "--footage", str(kept), "--json", str(written)]
    assert gpu.main(["decode", "parts", "scan", *options]) == 1  # there is no such detector as `none`
    report = report_of(written)
    assert report.complete
    assert report.command.endswith(str(written))
    assert (report.device, report.untrained, report.machine) == ("cpu", (), environment())
    (failure,) = report.failures
    assert failure.startswith("weights of none: ")
    found = {figure.part: figure for figure in report.figures}
    assert found.keys() == {"decode", "detect", "preprocess", "infer", "scan"}
    assert all([sample.counts for sample in figure.samples] == [False, True] for figure in report.figures)
    facts = found["scan"].samples[-1].scan
    assert facts is not None
    assert (facts.files, facts.unscored, facts.workers, facts.all_ready, facts.deaths) == (2, 0, 1, True, ())
    assert (facts.by_nvdec, facts.backends) == (0, ("onnxruntime-cpu fp32",))
    assert [stage.name for stage in facts.stages] == ["decode", "faces", "infer"]
    shown = capsys.readouterr().out
    assert "| scan | full | lite fp32 | 360p h264 |" in shown
    assert (
        f"| **FAILED** | done: {failure}" in shown.replace(":  |", ": |").replace(" : |", " |") or failure[:40] in shown
    )
    made = {video: video.stat().st_mtime_ns for video in kept.glob("*.mp4")}
    assert len(made) == 4
    assert gpu.main(["decode", *options[:-2]]) == 0
    assert {video: video.stat().st_mtime_ns for video in kept.glob("*.mp4")} == made
    assert gpu.main(["report", str(written), str(written)]) == 1


@pytest.mark.slow
def test_every_step_that_needs_no_gpu_can_be_taken(tmp_path: Path) -> None:
    steps = [step for step in gpu.STEPS if step not in gpu.ON_GPU_ONLY]
    written = tmp_path / "report.json"
    assert gpu.main([*steps, "--device", "cpu", "--small", "--models", "lite", "--json", str(written)]) == 0
    parts = {figure.part for figure in report_of(written).figures}
    assert parts == {"decode", "detect", "preprocess", "infer", "backend", "scan", "reference"}


@pytest.mark.skipif(bool(nvidia_gpus()), reason="there is a GPU")
def test_without_a_gpu_it_says_so_before_it_does_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["decode", "scan"]) == 3
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "deepscan doctor" in sentence


@pytest.mark.parametrize(
    "options", [[], ["nonsense"], ["scan", "--rounds", "0"], ["scan", "--sizes", "8k"], ["scores", "--device", "cpu"]]
)
def test_what_makes_no_sense_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(options)


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


def test_videos_hold_a_face_and_move_and_differ(footage: Footage) -> None:
    files = footage.files(6)
    assert [file.read_bytes() == footage.videos[0].read_bytes() for file in files] == [True, *[False] * 3, True, False]
    assert decoded(files[:3] * 2, [DecoderGroup("cpu", 2, 1)])[0] == 6 * FEW
    with open_video(str(files[0]), threads=1) as reader:
        assert reader.info.codec == "hevc"
        lumas = [host_picture(frame).planes[0].astype(int) for frame in reader.frames()]
    assert np.abs(lumas[5] - lumas[4]).mean() > 1
    alone = StagesAlone(footage.videos[:2], "lite", device="cpu")
    assert alone.frames == 2 * FEW
    assert [len(faces) for faces in alone._found] == [1, 1, 1] * 2
    assert all(alone.seconds(part, times=1) > 0 for part in ("detect", "preprocess", "infer"))


def event(name: str, **about: str) -> None:
    logging.getLogger(SUPERVISOR).debug("an event", extra={"event": {"event": name, **about}})


def test_a_scan_is_measured_from_the_readiness_of_its_last_worker() -> None:
    now, frames = iter([100.0, 103.0, 109.0]), iter([0, 700])
    with watched(lambda: next(frames), lambda: next(now)) as watch:
        event("worker_started", worker="one")
        event("worker_ready", worker="one")
        assert watch.started == watch.ready
        event("worker_started", worker="two")
        assert watch.started != watch.ready
        event("worker_ready", worker="two")
        event("worker_died", worker="one", reason="it was killed")
    event("worker_started", worker="of another scan")
    assert (watch.ready_at, watch.frames_then, watch.deaths) == (109.0, 700, ["it was killed"])
    assert watch.started == watch.ready == {"one", "two"}


@pytest.mark.usefixtures("workers_here")
def test_frames_and_seconds_before_the_last_worker_was_ready_do_not_count(footage: Footage) -> None:
    ticks = iter(range(10**6))
    sample, results = scanned(footage.files(3), model="lite", device="cpu", ends=1e6, clock=lambda: next(ticks))
    # The beginning, the watch, the readiness; then one look at the clock after each file, and the end.
    assert (sample.frames, sample.seconds, sample.counts) == (3 * FEW, 4, True)
    assert sample.scan is not None
    assert sample.scan.start_seconds == 2
    assert [result.path for result in results] == [str(path) for path in footage.files(3)]
    with pytest.raises(TimeIsUpError, match="after 1 of 3 files"):
        scanned(footage.files(3), model="lite", device="cpu", ends=0)


@pytest.mark.usefixtures("workers_here")
def test_scores_are_compared_file_by_file(footage: Footage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trace = tmp_path / "scores.trace.json"
    seen: list[tuple[Sample, list[VideoResult]]] = []

    def kept(*arguments: Any, **keywords: Any) -> tuple[Sample, list[VideoResult]]:
        seen.append(scanned(*arguments, **keywords))
        return seen[0]

    def agree(scan: Callable[..., tuple[Sample, list[VideoResult]]]) -> Check:
        monkeypatch.setattr(gpu_check, "scanned", scan)
        return scores_agree("lite", footage, device="cpu", files=5, examples=(), trace=trace, ends=NEVER)

    good = agree(kept)
    assert good.passed, good.details
    assert good.details.startswith("5 files, 0 by NVDEC")
    assert trace.stat().st_size > 0
    ((sample, results),) = seen
    assert sample.scan is not None
    dead = msgspec.structs.replace(sample.scan, deaths=("on purpose",), backends=("openvino-cuda fp32",))
    died = agree(lambda *_, **__: (msgspec.structs.replace(sample, scan=dead), results))
    assert not died.passed
    assert died.details.startswith("a worker ended: on purpose; openvino-cuda fp32 computed; ")
    last = results[-1]
    assert last.score is not None
    another = msgspec.structs.replace(last, score=last.score + 0.02)
    assert agree(lambda *_, **__: (sample, [*results[:-1], another])).details.startswith("scores differ by up to 0.02")
    failed = msgspec.structs.replace(last, status="unreadable", score=None, reason="It is cut.")
    unread = agree(lambda *_, **__: (sample, [*results[:-1], failed]))
    assert not unread.passed
    assert "unreadable None It is cut." in unread.details


def test_crops_that_no_gpu_made_do_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    real = worker_pipeline
    monkeypatch.setattr(gpu_check, "worker_pipeline", lambda model, **_: real(model, device="cpu"))
    check = crops_agree("lite", ASTRONAUT)
    assert not check.passed
    assert check.details.endswith("crops, not all of them made on the GPU")


def test_a_command_that_takes_too_long_fails_or_does_not_say_what_it_must_has_failed() -> None:
    python = [sys.executable, "-c"]
    soon = time.monotonic() - 1  # at least one second is given
    assert command_check("fine", [*python, "print('all is well')"], NEVER, wanted="is well").passed
    assert not command_check("unsaid", [*python, "print('well')"], NEVER, wanted="CUDA").passed
    failed = command_check("failing", [*python, "import sys; sys.exit('the end of it')"], NEVER)
    assert (failed.passed, failed.details) == (False, "the end of it")
    late = command_check("late", [*python, "print('begun', flush=True); import time; time.sleep(99)"], soon)
    assert (late.passed, late.details) == (False, "the time was up: begun")


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


def test_the_commands_of_the_order_are_understood_and_take_every_step() -> None:
    text = (gpu_check.ROOT / "benchmarks" / "gpu_order.md").read_text()
    lines = re.findall(r"^    (?:taskset \S+ \S+ )?python -m benchmarks\.gpu (.*)$", text, re.MULTILINE)
    taken = [gpu._parsed(shlex.split(line)).steps for line in lines if not line.startswith("report ")]
    assert sorted(step for steps in taken for step in {*steps}) == sorted([*gpu.STEPS[1:], "parts", "scan", "scan"])


class Clock:
    """Time passes while work is done, and at no other time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Sample:
        self.now += seconds
        return Sample(frames=round(1000 * seconds), seconds=seconds)


def job(part: str, run: Callable[[int], Sample], *, rounds: int = 1, seconds: float = 0.0) -> Job:
    return Job(part, "cpu", Footage("360p", "h264", (), FEW), None, rounds, seconds, run)


def test_work_is_repeated_until_it_lasts() -> None:
    clock, sizes = Clock(), []

    def scan(times: int) -> Sample:
        sizes.append(times)
        return clock.work(2.0 + 0.5 * times)  # two seconds that do not grow

    (figures,) = list(Measuring([job("scan", scan, seconds=60)], ends=1e6, clock=clock).run())[-1:]
    (only,) = figures
    assert sizes[:3] == [1, 8, 64]
    assert [sample.counts for sample in only.samples] == [False] * (len(sizes) - 1) + [True]
    assert 60 <= only.samples[-1].seconds <= 150
    assert only.counted == only.samples[-1:]


def test_work_that_never_lasts_is_given_up() -> None:
    measuring = Measuring([job("scan", lambda _: Sample(frames=1, seconds=0.0), seconds=60)], ends=1e6)
    *_, figures = measuring.run()
    assert figures[0].rate == 0
    assert measuring.failures == ["scan cpu 360p h264: no run lasted 60 seconds"]


def test_a_run_in_which_a_worker_was_never_ready_does_not_count() -> None:
    ready = iter([True, False, True])
    measuring = Measuring([job("scan", lambda _: Sample(frames=1, seconds=9.0, counts=next(ready)))], ends=1e6)
    *_, figures = measuring.run()
    assert [sample.counts for sample in figures[0].samples] == [False, False, True]


def test_the_first_run_warms_up_and_what_fails_costs_nothing_else() -> None:
    calls: list[str] = []

    def fine(times: int) -> Sample:
        calls.append(f"fine {times}")
        return Sample(frames=10 * len(calls), seconds=1.0)

    def failing(_: int) -> Sample:
        calls.append("failing")
        raise SystemExit("on purpose")

    measuring = Measuring([job("decode", failing), job("detect", fine, rounds=2)], ends=1e6, clock=Clock())
    steps = list(measuring.run())
    assert calls == ["failing", "fine 1", "fine 1", "fine 1"]
    assert [[len(figure.samples) for figure in figures] for figures in steps] == [[], [1], [2], [3]]
    assert steps[-1][0].rate == 35  # the median of 30 and 40
    assert measuring.failures == ["decode cpu 360p h264: SystemExit: on purpose"]


def test_when_the_time_is_up_nothing_more_is_begun() -> None:
    clock = Clock()
    measuring = Measuring(
        [job("decode", lambda _: clock.work(5.0)), job("scan", lambda _: clock.work(5.0))], ends=6.0, clock=clock
    )
    assert [len(figures) for figures in measuring.run()] == [1, 2]
    assert measuring.failures == ["decode cpu 360p h264: the time was up", "scan cpu 360p h264: the time was up"]


def test_what_was_found_is_written_whenever_something_is_added(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    record = gpu.Record(path, "command", "cpu")

    def found() -> Iterator[Check | Figure | str]:
        yield Check(name="first", passed=True, details="")
        assert [check.name for check in report_of(path).checks] == ["first"]
        yield PARTS[0]
        assert report_of(path).figures == (PARTS[0],)
        yield "something failed"
        raise MemoryError("full")

    assert record.tried("step", record.add, found()) is None
    assert report_of(path).failures == ("something failed", "step: MemoryError: full")
    assert not report_of(path).complete
