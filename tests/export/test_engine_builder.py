"""Engines that are really built, by TensorRT-RTX, which needs no GPU for that; running them does."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.errors import MachineError, ModelError, OutputError, UsageError
from deepscan.export.engine_builder import build_engine, compute_capabilities, resolve_target
from deepscan.export.half import halved
from deepscan.export.packing import packed
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.tensorrt.engine_store import (
    LOCK,
    MANIFEST,
    BatchProfile,
    Engine,
    Target,
    engine_folder,
    find_engine,
    read_plan,
)
from deepscan.runtime.backends.tensorrt.tensorrt_packages import Package, load_package
from deepscan.runtime.system.files import HOME_VARIABLE
from tests.export.engine_building import ARCHITECTURES, WORKSPACE, build, tiny
from tests.runtime.engines import contents, stored
from tests.runtime.tiny_detectors import ORIGIN

ROOT = Path(__file__).parents[2]
ENGINE_FILES = 3


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what deepscan logged; torch logs what it traces, too."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("deepscan")]


# After `first` it prints each line of progress as it comes, then the hash of the plan, or the error.
BUILD_LITE = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from deepscan.errors import DeepscanError
from deepscan.export.engine_builder import build_engine
from deepscan.runtime.artifacts.artifacts import load_artifact
{first}
try:
    engine = build_engine(load_artifact("lite"), flavor="tensorrt-rtx", compute_capability="8.6", max_batch=4,
                          workspace_bytes=1 << 30)
    print(engine.manifest.sha256, flush=True)
except DeepscanError as error:
    print(type(error).__name__, error, flush=True)
"""


@contextlib.contextmanager
def building(*, first: str = "") -> Iterator[subprocess.Popen[str]]:
    """Build `lite` in another process, after it has run `first`."""
    command = [sys.executable, "-c", BUILD_LITE.replace("{first}", first)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lite_is_built_without_a_complaint(architecture: str, capfd: pytest.CaptureFixture[str]) -> None:
    artifact = load_artifact("lite")
    engine = build(artifact, architecture, max_batch=6)
    made, rtx = engine.manifest, load_package("tensorrt-rtx")
    assert made.warnings == ()
    assert (made.detector, made.precision, made.onnx_sha256) == ("lite", "fp32", artifact.manifest.sha256)
    assert (made.flavor, made.version, made.target.compute_capability) == ("tensorrt-rtx", rtx.version, architecture)
    assert made.batches == BatchProfile(smallest=1, tuned=6, largest=6)
    plan = read_plan(engine, remedy="")
    assert (len(plan), hashlib.sha256(plan).hexdigest()) == (made.size_bytes, made.sha256)
    assert made.size_bytes > 19_000_000  # its weights are in float32
    target = Target(compute_capability=architecture)
    assert find_engine(artifact.manifest, "tensorrt-rtx", version=rtx.version, target=target) == engine
    assert capfd.readouterr() == ("", "")


def test_lite_is_built_in_half_precision_for_each_architecture() -> None:
    lite = load_artifact("lite")
    graph = halved(GraphIndex(onnx.load_model_from_string(lite.model)), ())
    artifact = packed(graph, lite.manifest.spec, ORIGIN, precision="fp16")
    engines = [build(artifact, architecture) for architecture in ARCHITECTURES]
    assert [engine.manifest.warnings for engine in engines] == [()] * 4
    assert len({engine.folder for engine in engines}) == 4
    assert len({engine.manifest.sha256 for engine in engines}) == 4


def test_half_precision_with_float32_nodes_is_taken_without_a_warning() -> None:
    lite = load_artifact("lite")
    graph = onnx.load_model_from_string(lite.model)
    fp32_nodes = [node.name for node in graph.graph.node[::3]]
    artifact = packed(halved(GraphIndex(graph), fp32_nodes), lite.manifest.spec, ORIGIN, precision="fp16")
    assert build(artifact).manifest.warnings == ()


def test_an_engine_that_is_there_is_not_built_again_unless_it_should_be_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = build(tiny())
    caplog.set_level(logging.INFO)
    assert build(tiny()) == engine
    assert logged(caplog) == [f"The engine in {engine.folder} is up to date."]
    for other in (build(tiny(), max_batch=5), build(tiny(), workspace_bytes=WORKSPACE // 2)):
        assert other.manifest != engine.manifest
        assert len(os.listdir(engine.folder)) == ENGINE_FILES
    engine = build(tiny())
    engine.plan_path.write_bytes(b"damaged")
    assert read_plan(build(tiny()), remedy="") != b"damaged"


def test_progress_is_logged_while_it_builds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    build(tiny())
    said = logged(caplog)
    assert said[0] == "Building engine ..."
    assert "Optimizing graph: 50 %" in said
    assert len(said) > 10
    assert not [line for line in said if "\n" in line or not line]


def test_too_little_memory_is_said(home: Path) -> None:
    expected = r"lite\.onnx for compute capability 8\.6 and batches of up to 4 within 1 MiB \(OutOfMemory"
    with pytest.raises(ModelError, match=expected):
        build(load_artifact("lite"), workspace_bytes=1 << 20)
    assert not [name for name in contents(home) if MANIFEST in name]


def test_the_second_process_waits_for_the_first_and_finds_its_engine() -> None:
    ready = "print('ready', flush=True); input()"
    with building(first=ready) as first, building(first=ready) as second:
        assert [next_line(process) for process in (first, second)] == ["ready"] * 2
        go_on(first)
        assert next_line(first) == "Building engine ..."
        go_on(second)
        assert next_line(second) == "Another process is building this engine: waiting for it ..."
        hashes = [process.communicate()[0].splitlines()[-1] for process in (first, second)]
    assert hashes == [read_plan_hash()] * 2


def read_plan_hash() -> str:
    """Of the engine of `lite` in the store."""
    artifact, rtx = load_artifact("lite").manifest, load_package("tensorrt-rtx")
    engine = find_engine(artifact, "tensorrt-rtx", version=rtx.version, target=Target(compute_capability="8.6"))
    return hashlib.sha256(read_plan(engine, remedy="")).hexdigest()


def test_a_build_that_is_killed_leaves_no_engine_and_no_lock() -> None:
    artifact = load_artifact("lite")
    folder = engine_folder(artifact.manifest, "tensorrt-rtx", "8.6")
    with building() as killed:
        assert next_line(killed) == "Building engine ..."
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert os.listdir(folder) == [LOCK]
    (folder / ".left.by.a.write.partial").write_bytes(b"")
    engine = build(artifact)
    assert sorted(os.listdir(folder)) == sorted([LOCK, MANIFEST, engine.plan_path.name])


def test_ctrl_c_stops_a_build() -> None:
    # Whoever runs the tests in the background has it ignored.
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    with building(first=heeded) as process:
        assert next_line(process) == "Building engine ..."
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert "Determining refit engines ..." not in output  # the last phase
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert os.listdir(engine_folder(load_artifact("lite").manifest, "tensorrt-rtx", "8.6")) == [LOCK]


def test_a_full_disk_is_an_output_error_and_leaves_the_engine_that_is_there(home: Path) -> None:
    there = stored(flavor="tensorrt-rtx")
    before = contents(home)
    limit = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
"""
    with building(first=limit) as process:
        output, errors = process.communicate()
    assert errors == ""
    last = output.splitlines()[-1]
    assert last.startswith(f"OutputError The engine cannot be kept in {there.folder} (File too large): free some space")
    assert last.endswith("or set DEEPSCAN_HOME to another folder.")
    assert contents(home) == before


def test_a_store_that_cannot_be_made_is_an_output_error(home: Path) -> None:
    home.write_text("no folder")
    with pytest.raises(OutputError, match=r"cannot be kept in .* \((Not a directory|File exists)\)"):
        build(tiny())


def test_nothing_is_built_into_a_store_that_is_open_to_others(home: Path) -> None:
    (home / "engines").mkdir(parents=True)
    (home / "engines").chmod(0o770)
    with pytest.raises(ModelError, match=r"open to other users \(mode 0770\)"):
        build(tiny())
    assert os.listdir(home / "engines") == []


def test_two_threads_build_one_after_another() -> None:
    artifact = tiny()
    engines: list[Engine] = []
    threads = [
        threading.Thread(target=lambda sm=sm: engines.append(build(artifact, sm))) for sm in ("8.0", "8.6", "8.0")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({engine.folder for engine in engines}) == 2
    assert [engine.manifest.warnings for engine in engines] == [()] * 3


@given(st.lists(st.tuples(st.integers(5, 99), st.integers(0, 9)), min_size=1), st.booleans())
def test_a_list_of_architectures_is_read_as_it_is_written(pairs: list[tuple[int, int]], dotted: bool) -> None:
    text = ", ".join(f"{major}{'.' if dotted else ''}{minor}" for major, minor in pairs)
    assert compute_capabilities(text) == tuple(dict.fromkeys(f"{major}.{minor}" for major, minor in pairs))


@pytest.mark.parametrize("text", ["", "8", "sm86", "86;89", "8.6.1", "86,", "-86"])
def test_what_is_no_list_of_architectures_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match=r"--sm .* is not a list of compute capabilities: write it like 86,89,120\."):
        compute_capabilities(text)


HERE = Target(compute_capability="8.6", gpu="NVIDIA RTX A6000", driver="580.1")
HOPPER = Target(compute_capability="9.0", gpu="NVIDIA H200", driver="580.1")


def tensorrt() -> Package:
    """What is known of the package that cannot be installed everywhere, as far as the choice of a GPU needs it."""
    return Package("tensorrt", None, "10.13.3.9", None, deque(), threading.Lock())


def test_tensorrt_builds_for_the_gpu_that_is_here() -> None:
    assert resolve_target(tensorrt(), None, HOPPER) == HOPPER
    assert resolve_target(tensorrt(), "9.0", HOPPER) == HOPPER
    with pytest.raises(UsageError, match=r"which has compute capability 9\.0, not 8\.6: leave out --sm"):
        resolve_target(tensorrt(), "8.6", HOPPER)
    with pytest.raises(MachineError, match=r"there is none here: .* use --engine tensorrt-rtx\.$"):
        resolve_target(tensorrt(), "8.6", None)


def test_tensorrt_rtx_builds_for_what_it_knows() -> None:
    rtx = load_package("tensorrt-rtx")
    assert resolve_target(rtx, None, HERE) == resolve_target(rtx, "8.6", HERE) == HERE
    assert resolve_target(rtx, "8.9", HERE) == resolve_target(rtx, "8.9", None) == Target(compute_capability="8.9")
    with pytest.raises(UsageError, match=r"builds for compute capability .*8\.6, 8\.9, 12\.0.*, not for 9\.0"):
        resolve_target(rtx, None, HOPPER)
    with pytest.raises(UsageError, match=r"not for 5\.0"):
        resolve_target(rtx, "5.0", HERE)
    with pytest.raises(MachineError, match=r"no NVIDIA GPU here to build for: name one with --sm, as in --sm 86\.$"):
        resolve_target(rtx, None, None)


def test_a_batch_of_nothing_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="batches of at most 0: give at least 1"):
        build(tiny(), max_batch=0)


def test_a_package_that_is_not_installed_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # Python takes this for a module that is not there
    with pytest.raises(MachineError, match=r"TensorRT cannot be loaded .*: run `.+ -m pip install .+\[tensorrt\]"):
        build_engine(
            tiny(),
            flavor="tensorrt",
            compute_capability=None,
            max_batch=1,
            workspace_bytes=WORKSPACE,
        )
