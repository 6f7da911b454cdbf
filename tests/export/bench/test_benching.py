from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deepscan.errors import MachineError, ModelError, UsageError
from deepscan.export.bench.bench_records import (
    MATRIX_PRODUCTS,
    Answer,
    BackendTask,
    BenchResult,
    BenchSettings,
    Failure,
    MatmulRate,
    Measurement,
    RateTask,
    rate_precision,
)
from deepscan.export.bench.bench_worker import DIFFERENT, answers, answers_of, batch_sizes, different_batches
from deepscan.export.bench.benching import Subject, benchmarked, subjects_of
from deepscan.export.parity.samples import CROPS_TO_MEASURE
from deepscan.runtime.artifacts.artifacts import Artifact, load_artifact
from deepscan.runtime.backends.batching import MOST_STREAMS
from tests.runtime.watchdog import children, wait_until, within_patience

pytestmark = pytest.mark.usefixtures("own_children")
LEAST = BenchSettings(device="cpu", threads=2, batches=(1,), seconds=0.001)
ENDLESS = BenchSettings(device="cpu", threads=1, batches=(1,), seconds=3600.0)
MANY = 12  # threads of one item


def is_running(pid: int) -> bool:
    """Tell whether a process is neither gone nor only waiting to be asked of what it died."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.fixture
def items(tmp_path: Path) -> str:
    """Crops for `lite`, of which each is of one gray value."""
    grays = np.arange(0, 250, 50, dtype=np.uint8).reshape(-1, 1, 1, 1)
    path = tmp_path / "items.npy"
    np.save(path, np.broadcast_to(grays, (5, 224, 224, 3)))
    return str(path)


def task(items: str, setup: BenchSettings, model: str = "lite") -> BackendTask:
    return BackendTask(model=model, backend="onnxruntime", precision="fp32", inputs=items, setup=setup)


def test_a_detector_is_measured_in_each_size_and_what_is_too_large_is_told(items: str) -> None:
    setup = BenchSettings(device="cpu", threads=1, batches=(1, 2, 999), seconds=0.001)
    *measured, failure = answers(task(items, setup))
    assert [each.batch for each in measured if isinstance(each, Measurement)] == [1, 2]
    for each in measured:
        assert isinstance(each, Measurement)
        assert (each.ran_as, each.precision, each.gpu_memory_bytes) == ("onnxruntime-cpu", "fp32", None)
        assert each.latency.runs >= 3
        total = each.items_per_second * each.latency.total_seconds
        assert total == pytest.approx(each.batch * each.latency.runs)
        assert each.ready_seconds > each.latency.fastest_seconds / 2
        assert (each.memory_bytes or 0) > 10_000_000
    assert isinstance(failure, Failure)
    assert (failure.backend, failure.precision, failure.exit_code) == ("onnxruntime", "fp32", UsageError.exit_code)
    assert "999" in failure.reason


def test_powers_of_two_up_to_the_largest_batch_are_taken_unless_sizes_are_given() -> None:
    assert batch_sizes(None, 1) == [1]
    assert batch_sizes(None, 8) == [1, 2, 4, 8]
    assert batch_sizes(None, 12) == [1, 2, 4, 8]
    assert batch_sizes((3, 8, 12), 8) == [3, 8]


def test_batches_begin_at_different_items_and_are_full_whatever_there_is() -> None:
    items = np.arange(8, dtype=np.uint8).reshape(8, 1)
    assert [batch.ravel().tolist() for batch in different_batches(items, 3)] == [
        [0, 1, 2],
        [2, 3, 4],
        [4, 5, 6],
        [6, 7, 0],
    ]
    assert [batch.ravel().tolist() for batch in different_batches(items[:1], 2)] == DIFFERENT * [[0, 0]]


def test_a_process_gives_the_same_answers_as_the_function_and_ends(items: str) -> None:
    there = list(answers_of(task(items, LEAST)))
    assert [type(each) for each in there] == [Measurement]
    [rate] = answers_of(RateTask(precision="fp32", setup=LEAST))
    assert isinstance(rate, MatmulRate)
    assert (rate.device, rate.precision, rate.side) == ("cpu", "fp32", 2048)
    assert rate.flop_per_second > 1e8
    assert children() == []


def test_what_fails_in_the_process_is_one_sentence(tmp_path: Path, items: str) -> None:
    [refused] = answers_of(task(items, LEAST, str(tmp_path / "none.onnx")))
    assert isinstance(refused, Failure)
    assert (refused.model, refused.exit_code) == (str(tmp_path / "none.onnx"), ModelError.exit_code)
    assert "none.onnx does not exist" in refused.reason
    [unexpected] = answers_of(task("missing.npy", LEAST))
    assert isinstance(unexpected, Failure)
    assert unexpected.reason.startswith("FileNotFoundError: ")
    assert "\n" not in unexpected.reason


def test_the_folder_one_is_in_is_not_imported_from(tmp_path: Path, items: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the wrong place')")
    monkeypatch.chdir(tmp_path)
    assert [type(each) for each in answers_of(task(items, LEAST))] == [Measurement]


@pytest.mark.parametrize(
    ("deadly", "reason"),
    [
        (signal.SIGSEGV, "its process crashed (SIGSEGV)"),
        (signal.SIGKILL, "its process was killed (SIGKILL), as happens when memory runs out"),
    ],
)
def test_a_process_that_dies_is_a_failure_that_says_of_what(items: str, deadly: signal.Signals, reason: str) -> None:
    heard: list[Answer] = []
    listening = threading.Thread(target=lambda: heard.extend(answers_of(task(items, ENDLESS))))
    listening.start()
    wait_until(lambda: bool(children()), "a process")
    os.kill(children()[0], deadly)
    listening.join()
    assert [(each.reason, each.exit_code) for each in heard if isinstance(each, Failure)] == [(reason, 3)]


def test_a_process_that_ends_without_a_word_is_described_by_what_it_printed(items: str) -> None:
    [failure] = answers_of(task(items, LEAST), worker="this")  # a module that prints a poem and ends
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("its process ended with code 0: Namespaces are one honking great idea")


def test_closing_ends_even_a_process_that_hangs(items: str) -> None:
    running = answers_of(task(items, BenchSettings(device="cpu", threads=1, batches=(1, 2), seconds=0.001)))
    assert isinstance(next(running), Measurement)
    [process] = children()
    os.kill(process, signal.SIGSTOP)
    within_patience(running.close)  # type: ignore[attr-defined]
    assert children() == []


def test_a_process_ends_with_the_one_that_asked_even_if_that_was_killed(items: str) -> None:
    script = (
        "import msgspec, sys\n"
        "from deepscan.export.bench.bench_worker import answers_of\n"
        "from deepscan.export.bench.bench_records import Task\n"
        "list(answers_of(msgspec.json.decode(sys.argv[1], type=Task)))"
    )
    endless = msgspec.structs.replace(ENDLESS, threads=MANY * MOST_STREAMS)
    encoded = msgspec.json.encode(task(items, endless)).decode()
    asking = subprocess.Popen([sys.executable, "-c", script, encoded])
    below = Path(f"/proc/{asking.pid}/task/{asking.pid}/children")
    wait_until(lambda: bool(below.read_text()), "a process")
    process = int(below.read_text())
    try:
        wait_until(lambda: len(os.listdir(f"/proc/{process}/task")) >= MANY // 2, "the threads of a loaded model")
        asking.kill()
        asking.wait()
        wait_until(lambda: not is_running(process), "its end")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_a_benchmark_tells_rates_and_artifact_before_its_figures(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    subjects = subjects_of(["lite"], LEAST, backend="onnxruntime", precision="fp32")
    rate, benched, measured = benchmarked(subjects, LEAST)
    assert isinstance(rate, MatmulRate)
    assert isinstance(benched, BenchResult)
    assert isinstance(measured, Measurement)
    manifest = load_artifact("lite").manifest
    assert (benched.sha256, benched.kind, benched.inputs) == (manifest.sha256, "crop", CROPS_TO_MEASURE)
    assert benched.flop_per_item == 1_150_461_408
    expected = measured.items_per_second * benched.flop_per_item / rate.flop_per_second
    assert measured.matmul_fraction == pytest.approx(expected)
    assert caplog.messages[0] == f"{MATRIX_PRODUCTS}, fp32"
    assert caplog.messages[-1] == "lite: onnxruntime fp32, after a batch of 1"


def test_a_detector_that_finds_no_crops_costs_only_itself() -> None:
    [subject] = subjects_of(["lite"], LEAST, backend="onnxruntime", precision="fp32")
    manifest = subject.artifact.manifest
    demanding = msgspec.structs.replace(manifest.spec, min_face_pixels=9999)
    artifact = Artifact(msgspec.structs.replace(manifest, spec=demanding), subject.artifact.model)
    hopeless = Subject("hopeless", artifact, subject.candidates)
    _, failure, _, measured = benchmarked([hopeless, subject], LEAST)
    assert isinstance(failure, Failure)
    assert (failure.model, failure.backend) == ("hopeless", None)
    assert "smaller than 9999 pixels" in failure.reason
    assert isinstance(measured, Measurement)


def test_a_backend_that_is_named_is_tried_even_where_it_cannot_run() -> None:
    [subject] = subjects_of(["lite"], LEAST, backend="tensorrt", precision="all")
    assert [(each.backend, each.precision) for each in subject.candidates] == [("tensorrt", "fp32")]


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ([""], UsageError, "must name each detector once"),
        (["lite", "lite"], UsageError, "must name each detector once"),
        (["caf\udce9.onnx"], UsageError, "rename the file"),
        (["missing.onnx"], ModelError, "does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused_beforehand(models: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        subjects_of(models, LEAST, backend="all", precision="all")


def test_a_precision_that_nothing_computes_is_refused_with_what_there_is() -> None:
    with pytest.raises(MachineError, match=r'precision="int8": there is .*onnxruntime fp32'):
        subjects_of(["lite"], LEAST, backend="all", precision="int8")


def test_with_which_products_a_precision_is_compared() -> None:
    assert [rate_precision(each, "cpu") for each in ("fp32", "bf16", "fp16", "int8")] == 4 * ["fp32"]
    assert [rate_precision(each, "cuda") for each in ("fp32", "bf16", "fp16", "int8")] == ["fp32"] + 3 * ["fp16"]
