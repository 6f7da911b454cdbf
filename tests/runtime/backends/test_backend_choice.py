from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from deepscan.errors import MachineError, ModelError
from deepscan.export.parity.samples import Samples, packaged_samples
from deepscan.installing import install_extra
from deepscan.options import BackendChoice, PrecisionChoice
from deepscan.runtime.artifacts.artifacts import Artifact, load_artifact
from deepscan.runtime.backends import backend_choice, backend_trials
from deepscan.runtime.backends.backend_choice import (
    Candidate,
    accepted_computations,
    auto_candidates,
    candidates,
    open_backend,
    resolve_backend,
)
from deepscan.runtime.backends.backend_trials import ROUNDS, WORTH_A_CHANGE
from deepscan.runtime.backends.backends import Backend
from deepscan.runtime.backends.choice_records import Choice
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.runtime.system.machine import environment
from deepscan.spec import DetectorSpec
from tests.runtime.graphs import (
    determinant_artifact,
    frame_artifact,
    graph_from,
    small_clip_artifact,
)
from tests.runtime.tiny_detectors import TINY_FRAME, tiny_artifact

FEW = 3
needs_bf16 = pytest.mark.skipif(
    Candidate("openvino", "bf16") not in candidates(load_artifact("lite"), "cpu"),
    reason="this processor does not multiply in bfloat16",
)


@cache
def few_samples(spec_json: str) -> Samples:
    return packaged_samples(msgspec.json.decode(spec_json, type=DetectorSpec), count=FEW)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer of the real samples, cut once."""

    def cut(spec: DetectorSpec) -> Samples:
        return few_samples(spec.to_json())

    monkeypatch.setattr(backend_trials, "samples_to_measure", cut)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


class Chooser:
    """Makes choices, closes what was opened, and keeps what was said."""

    def __init__(self) -> None:
        self.opened: list[Backend] = []
        self.said: list[str] = []

    def __call__(
        self,
        artifact: Artifact,
        backend: BackendChoice = "auto",
        precision: PrecisionChoice = "auto",
        threads: int = 1,
    ) -> Backend:
        chosen = resolve_backend(
            artifact, backend=backend, precision=precision, device="cpu", threads=threads, report=self.said.append
        )
        self.opened.append(chosen)
        return chosen

    @property
    def measurements(self) -> int:
        return sum("is done once" in line for line in self.said)


@pytest.fixture
def choose() -> Iterator[Chooser]:
    chooser = Chooser()
    yield chooser
    for backend in chooser.opened:
        backend.close()


def records(home: Path) -> list[Path]:
    return sorted((home / "choices").glob("*"))


def read(path: Path) -> Choice:
    return msgspec.json.decode(path.read_bytes(), type=Choice)


def bright() -> Artifact:
    return tiny_artifact(TINY_FRAME)


def canceling_artifact() -> Artifact:
    """A small difference of two large sums, which bfloat16 loses."""
    flat = 32 * 32 * 3
    random = np.random.default_rng(0)
    first = random.normal(1.0, 0.05, (flat, 1)).astype(np.float32) / flat
    nodes = [
        helper.make_node("Reshape", ["wide", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["sums"]),
        helper.make_node("MatMul", ["sums", "difference"], ["columns"]),
        helper.make_node("Reshape", ["columns", "row"], ["logit"]),
    ]
    constants = {
        "rows": np.array([-1, flat]),
        "row": np.array([-1]),
        "weights": np.concatenate([first, first * np.float32(1.01)], axis=1),
        "difference": np.array([[-1.0], [1.0]], dtype=np.float32),
    }
    return frame_artifact(graph_from(nodes, constants))


def test_all_that_is_there_is_a_candidate_onnx_runtime_first() -> None:
    found = candidates(load_artifact("lite"), "cpu")
    assert found[0] == Candidate("onnxruntime", "fp32")
    assert {Candidate("openvino", "fp32"), Candidate("torch", "fp32")} < set(found)
    assert [candidate for candidate in found if candidate.backend != "torch"] == auto_candidates(
        load_artifact("lite"), "cpu"
    )


def test_a_scan_accepts_what_it_may_take_itself() -> None:
    artifact = load_artifact("lite")
    auto = accepted_computations(artifact, "auto", "auto", "cpu")
    assert auto == {(f"{found.backend}-cpu", found.precision) for found in auto_candidates(artifact, "cpu")}
    assert {("onnxruntime-cpu", "fp32"), ("openvino-cpu", "fp32")} <= auto
    assert accepted_computations(artifact, "auto", "fp32", "cpu") == {
        ("onnxruntime-cpu", "fp32"),
        ("openvino-cpu", "fp32"),
    }
    assert accepted_computations(artifact, "torch", "auto", "cpu") == {("torch-cpu", "fp32")}
    assert accepted_computations(artifact, "onnxruntime", "fp32", "cpu") == {("onnxruntime-cpu", "fp32")}
    with pytest.raises(ModelError):
        accepted_computations(artifact, "onnxruntime", "fp16", "cpu")


def test_on_gpus_what_stands_in_on_the_cpu_is_accepted_too() -> None:
    artifact = load_artifact("lite")
    on_cpu = {("onnxruntime-cpu", "fp32"), ("openvino-cpu", "fp32"), ("openvino-cpu", "bf16")}
    engine = accepted_computations(artifact, "tensorrt", "fp16", "cuda")
    assert engine == on_cpu | {("tensorrt-cuda", "fp16"), ("tensorrt-rtx-cuda", "fp16")}


@pytest.mark.parametrize("name", ["onnxruntime"])
def test_a_backend_that_is_named_and_has_one_precision_is_not_measured(
    choose: Chooser, home: Path, name: BackendChoice
) -> None:
    assert choose(bright(), name).name == f"{name}-cpu"
    assert (choose.said, records(home)) == ([], [])


def test_whoever_names_both_backend_and_precision_gets_that(choose: Chooser, home: Path) -> None:
    backend = choose(bright(), "openvino", "fp32")
    assert (backend.name, backend.precision) == ("openvino-cpu", "fp32")
    assert (choose.said, records(home)) == ([], [])


def test_the_fastest_of_several_is_taken_and_remembered(choose: Chooser, home: Path) -> None:
    artifact = small_clip_artifact()
    first = choose(artifact)
    (path,) = records(home)
    choice = read(path)
    assert (first.name, first.precision) == (f"{choice.backend}-cpu", choice.precision)
    written = path.stat().st_mtime_ns
    again = choose(artifact)
    assert (again.name, again.precision) == (first.name, first.precision)
    assert (choose.measurements, path.stat().st_mtime_ns) == (1, written)


def test_the_record_says_what_was_measured_and_the_figures_bear_it_out(choose: Chooser, home: Path) -> None:
    artifact = small_clip_artifact()
    choose(artifact)
    choice = read(records(home)[0])
    assert (choice.file, choice.sha256) == (artifact.manifest.file, artifact.manifest.sha256)
    assert (choice.device, choice.threads, choice.machine) == ("cpu", 1, environment())
    assert (choice.items, choice.items_sha256) == (FEW, few_samples(artifact.manifest.spec.to_json()).sha256)
    assert choice.reference == "onnxruntime-cpu fp32"
    there = [(candidate.backend, candidate.precision) for candidate in auto_candidates(artifact, "cpu")]
    assert [(trial.backend, trial.precision) for trial in choice.trials] == there
    timed: dict[tuple[str, str], float] = {}
    for trial in choice.trials:
        assert trial.open_seconds is not None
        assert trial.open_seconds > 0
        assert trial.max_difference is not None
        if not trial.left_out:
            assert trial.seconds_per_item == statistics.median(trial.rounds)
            assert len(trial.rounds) == ROUNDS
            timed[trial.backend, trial.precision] = trial.seconds_per_item
    assert choice.trials[0].max_difference == 0.0
    fastest, own = min(timed, key=lambda name: timed[name]), ("onnxruntime", "fp32")
    gained = timed[fastest] <= WORTH_A_CHANGE * timed[own]
    assert (choice.backend, choice.precision) == (fastest if gained else own)
    assert all(f"{backend} {precision}" in choice.reason for backend, precision in there)
    assert choose.said[-1].endswith(choice.reason)


def test_a_gain_that_is_hardly_one_changes_nothing(
    choose: Chooser, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_trials, "WORTH_A_CHANGE", 0.0)
    assert choose(bright()).name == "onnxruntime-cpu"
    assert read(records(home)[0]).backend == "onnxruntime"


def test_the_record_is_for_its_owner_only(choose: Chooser, home: Path) -> None:
    choose(bright())
    assert [oct(path.stat().st_mode & 0o777) for path in (home, home / "choices")] == ["0o700", "0o700"]


def rewritten(**values: object) -> Callable[[bytes], bytes]:
    def rewrite(data: bytes) -> bytes:
        return msgspec.json.encode({**msgspec.json.decode(data), **values})

    return rewrite


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:0],
        lambda data: data[:-20],
        lambda data: b"\xff" + data,
        rewritten(schema=0),
        rewritten(backend="tensorrt"),
        rewritten(precision="fp16"),
        rewritten(surprise=1),
    ],
    ids=["empty", "cut", "no text", "older", "not here", "not in this", "unknown field"],
)
def test_a_record_that_cannot_be_used_is_made_again(
    choose: Chooser, home: Path, spoil: Callable[[bytes], bytes]
) -> None:
    choose(bright())
    (path,) = records(home)
    path.write_bytes(spoil(path.read_bytes()))
    choose(bright())
    assert choose.measurements == 2
    assert records(home) == [path]
    read(path)


def test_without_a_place_to_remember_it_works_and_is_measured_again(
    choose: Chooser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "file"))
    for _ in range(2):
        assert choose(bright()).precision in ("fp32", "bf16")
    assert choose.measurements == 2
    assert choose.said[-1].endswith("cannot be written (File exists): it will be measured again")


def test_what_a_measurement_depends_on_is_measured_again(
    choose: Chooser, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(bright())
    choose(bright(), threads=2)
    choose(small_clip_artifact())
    choose(bright(), precision="fp32")
    facts = environment()
    monkeypatch.setattr(backend_choice, "environment", lambda: msgspec.structs.replace(facts, processor="another"))
    choose(bright())
    newer = msgspec.structs.replace(facts, packages={**facts.packages, "openvino": "2099.1"})
    monkeypatch.setattr(backend_choice, "environment", lambda: newer)
    choose(bright())
    assert choose.measurements == len(records(home)) == 6


@needs_bf16
def test_bfloat16_that_does_not_agree_is_left_out(choose: Chooser, home: Path) -> None:
    assert choose(canceling_artifact(), "openvino").precision == "fp32"
    choice = read(records(home)[0])
    (exact, rounded) = choice.trials
    assert (exact.precision, exact.left_out) == ("fp32", "")
    assert rounded.max_difference is not None
    assert rounded.max_difference > 0.01
    assert "the largest difference of a score" in rounded.left_out
    assert (rounded.seconds_per_item, rounded.rounds) == (None, ())
    assert f"openvino bf16 was left out: {rounded.left_out}" in choice.reason


def test_a_candidate_that_fails_is_left_out_and_the_reason_kept(choose: Chooser, home: Path) -> None:
    assert choose(determinant_artifact()).name == "onnxruntime-cpu"
    choice = read(records(home)[0])
    failed = [trial for trial in choice.trials if trial.backend == "openvino"]
    assert failed
    for trial in failed:
        assert "is not a model that OpenVINO can run" in trial.left_out
        assert (trial.open_seconds, trial.seconds_per_item) == (None, None)


@needs_bf16
def test_when_all_fail_the_first_error_is_raised_and_nothing_is_remembered(choose: Chooser, home: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny-frame\.onnx is not a model that OpenVINO can run"):
        choose(determinant_artifact(), "openvino")
    assert records(home) == []


class Failing:
    """A backend that breaks down after its first batches, and remembers whether it was closed."""

    name, precision, max_batch = "openvino-cpu", "fp32", 8

    def __init__(self, real: Backend, good: int) -> None:
        self.real, self.good, self.closed = real, good, False

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.good -= 1
        if self.good < 0:
            raise RuntimeError("out of memory")
        return np.concatenate([self.real.logits(item[None]) for item in batch])

    def close(self) -> None:
        self.closed = True
        self.real.close()


def test_one_that_breaks_down_in_a_later_round_is_left_out_and_closed(
    choose: Chooser, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Failing] = []

    def breaking(candidate: Candidate, artifact: Artifact, **where: object) -> Backend:
        real = open_backend(candidate, artifact, **where)  # type: ignore[arg-type]
        if candidate.backend != "openvino":
            return real
        made.append(Failing(real, good=3))
        return made[-1]  # type: ignore[return-value]

    monkeypatch.setattr(backend_choice, "open_backend", breaking)
    assert choose(bright()).name == "onnxruntime-cpu"
    left_out = [trial.left_out for trial in read(records(home)[0]).trials if trial.backend == "openvino"]
    assert left_out == ["out of memory"] * len(made)
    assert [backend.closed for backend in made] == [True] * len(made)


def test_a_precision_that_nothing_has_is_refused_with_what_there_is(choose: Chooser) -> None:
    said = r"lite\.onnx, which is fp32, is not computed in int8 on this cpu: use one of onnxruntime fp32, openvino fp32"
    with pytest.raises(ModelError, match=said) as error:
        choose(load_artifact("lite"), precision="int8")
    assert str(error.value).endswith(".")


def test_a_precision_that_the_named_backend_lacks_is_refused(choose: Chooser) -> None:
    with pytest.raises(ModelError, match="is not computed in bf16 by onnxruntime on this cpu: use one of"):
        choose(load_artifact("lite"), "onnxruntime", "bf16")


def test_a_backend_that_cannot_be_used_says_why(choose: Chooser) -> None:
    with pytest.raises(MachineError, match=r"--device cuda|NVIDIA GPU"):
        choose(load_artifact("lite"), "tensorrt")


@pytest.mark.parametrize(
    ("package", "name", "remedy"),
    [
        ("openvino", "openvino", install_extra("openvino")),
        ("torch", "torch", install_extra("export")),
    ],
)
def test_a_backend_whose_package_is_missing_gives_the_command_that_adds_it(
    package: str, name: str, remedy: str, home: Path
) -> None:
    """In a process of its own, in which the package cannot be imported."""
    program = f"""
import sys
sys.modules[{package!r}] = None
from deepscan.errors import MachineError
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.backend_choice import candidates, resolve_backend
lite = load_artifact("lite")
assert {name!r} not in [found.backend for found in candidates(lite, "cpu")]
try:
    resolve_backend(lite, backend={name!r}, precision="auto", device="cpu", threads=1)
except MachineError as error:
    print(error)
"""
    environment = os.environ | {HOME_VARIABLE: str(home)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert remedy in ran.stdout
    assert ran.stdout.endswith(".\n")


def test_an_error_of_the_reference_is_not_hidden(choose: Chooser, home: Path) -> None:
    with pytest.raises(ModelError, match="is not a model that ONNX Runtime can run"):
        choose(dataclasses.replace(bright(), model=b"not a model"))
    assert records(home) == []
