"""The reports of the benchmark of GPUs: what they say, and how they are judged."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from benchmarks.gpu_report import Check, Figure, Report, Sample, ScanFacts, StageFigure, as_text, judged
from deepscan.runtime.system.machine import environment, nvidia_gpus


def facts(**changes: object) -> ScanFacts:
    whole: dict[str, object] = {
        "files": 32,
        "unscored": 0,
        "workers": 10,
        "all_ready": True,
        "start_seconds": 9.0,
        "by_nvdec": 30,
        "by_cpu": {},
        "deaths": (),
        "backends": ("onnxruntime-cuda fp16",),
        "stages": (),
    }
    return ScanFacts(**(whole | changes))  # type: ignore[arg-type]


def figure(
    part: str, rate: float, *, variant: str = "full", model: str | None = "altfreezing fp16", **about: object
) -> Figure:
    scan = facts(**about) if part == "scan" else None
    samples = (Sample(frames=1, seconds=1.0, counts=False), Sample(frames=100, seconds=100 / rate, scan=scan))
    return Figure(
        part=part, variant=variant, size="1080p", codec="h264", model=model, frames_per_clip=32, samples=samples
    )


def report(*figures: Figure, **changes: object) -> Report:
    whole: dict[str, object] = {
        "complete": True,
        "command": "python -m benchmarks.gpu scan",
        "date": "2026-12-01T00:00:00+00:00",
        "machine": environment(),
        "device": "cuda",
        "untrained": (),
        "checks": (),
        "figures": figures,
        "failures": (),
    }
    return Report(**(whole | changes))  # type: ignore[arg-type]


def verdicts(*reports: Report) -> dict[str, bool]:
    return {check.name: check.passed for check in judged(reports)}


PARTS = [
    figure("decode", 500, variant="cpu", model=None),
    figure("decode", 4500, variant="both", model=None),
    figure("detect", 9000, variant="cuda", model=None),
    figure("preprocess", 8000, variant="cuda"),
    figure("infer", 32 * 1100, variant="cuda"),
    figure("infer", 10, variant="cuda", model="ftcn fp32"),
]


def test_targets_are_judged_across_the_reports_of_several_commands() -> None:
    scans = [figure("scan", 4100), figure("scan", 60, variant="paper")]
    references = [figure("reference", 5, variant="stride 1"), figure("reference", 500, variant="stride 32")]
    found = verdicts(report(*PARTS), report(*scans, *references))
    assert found == {
        "infer cuda altfreezing fp16 1080p h264: clips/s": True,
        "scan full altfreezing fp16 1080p h264: frames/s": True,
        "scan full altfreezing fp16 1080p h264: scan / slowest part alone (decode both)": True,
        "scan full altfreezing fp16 1080p h264: scan / the authors' way, stride 32": False,
        "scan paper altfreezing fp16 1080p h264: scan / the authors' way, stride 1": True,
    }
    slower = verdicts(report(*PARTS[:4], figure("infer", 32 * 900, variant="cuda")), report(figure("scan", 3999)))
    assert list(slower.values()) == [False, False, False]
    assert verdicts(report(*scans, device="cpu")) == {  # no target, but what a GPU computed is not the CPU's
        "sound: scan full altfreezing fp16 1080p h264": False,
        "sound: scan paper altfreezing fp16 1080p h264": False,
    }


def test_a_stage_that_holds_a_scan_back_is_named() -> None:
    times = {"threads": 1, "busy_seconds": 6.0, "waiting_seconds": 4.0, "blocked_seconds": 0.0}
    stages = tuple(StageFigure(name=name, busy_share=0.6, **times) for name in ("decode", "faces", "infer"))  # type: ignore[arg-type]
    found = verdicts(report(figure("scan", 4100, stages=stages)))
    assert [name for name, passed in found.items() if not passed] == [
        "scan full altfreezing fp16 1080p h264: faces is not what holds it back"
    ]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"unscored": 2}, "2 of 32 files have no score"),
        ({"deaths": ("its process was killed",)}, "a worker ended: its process was killed"),
        ({"backends": ("onnxruntime-cuda fp16", "openvino-cpu fp32")}, "openvino-cpu fp32 computed"),
        ({"by_nvdec": 0, "by_cpu": {"this GPU decodes no video": 32}}, "NVDEC decoded nothing"),
    ],
)
def test_a_scan_that_is_not_what_it_seems_fails(fault: dict[str, Any], words: str) -> None:
    (check,) = (check for check in judged([report(figure("scan", 9000, **fault))]) if not check.passed)
    assert words in check.details


def test_whoever_decoded_other_files_than_expected_is_a_fault() -> None:
    assert facts(by_nvdec=32).faults("cuda", 32) == []
    assert facts(by_nvdec=31, by_cpu={"HDR": 1}).faults("cuda", 32) == [
        "NVDEC decoded 31 files instead of 32 (1 x HDR)"
    ]


def test_checks_failures_and_interrupted_commands_count_and_are_printed() -> None:
    bad = Check(name="doctor", passed=False, details="no\n| GPU")
    interrupted = report(PARTS[0], checks=(bad,), failures=("tests: the time was up",), complete=False)
    assert list(verdicts(interrupted).values()) == [False, False, False]
    text = as_text([interrupted])
    assert "### doctor, decode, on processors, 2026-12-01" in text or nvidia_gpus()
    assert "| **FAILED** | doctor: no / GPU |" in text
    assert "| decode | cpu |  | 1080p h264 | 500 | 1 of 2 |  |" in text
    warm_up = msgspec.structs.replace(PARTS[0], samples=PARTS[0].samples[:1])
    assert verdicts(report(warm_up)) == {"sound: decode cpu 1080p h264": False}
