"""What can be known of the backend without a GPU; and, where there is one, whether it is right."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.errors import MachineError, ModelError
from deepscan.export.engine_builder import build_engine
from deepscan.export.half import halved
from deepscan.export.packing import WeightsOrigin, packed
from deepscan.runtime.artifacts.artifacts import Artifact, Precision, load_artifact
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.batching import batch_sizes, fill, size_for
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.backends.tensorrt.engine_store import Engine, Flavor, Target
from deepscan.runtime.backends.tensorrt.tensorrt_backend import (
    TensorRtBackend,
    first_engine,
    usable_packages,
)
from deepscan.runtime.backends.tensorrt.tensorrt_packages import (
    Message,
    Package,
    cleaned,
    distinct_texts,
    load_package,
    present_target,
)
from deepscan.runtime.cuda.cuda_runtime import bindings, called
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.runtime.system.machine import nvidia_gpus
from tests.runtime.backends.manifests import manifest_in
from tests.runtime.engines import TARGET, VERSION, lite, packages_here, rewrite, stored

GOLDEN = Path(__file__).parents[3] / "models" / "lite_golden.npz"
LARGEST = 6
largest_batches = st.integers(1, 300)


@given(largest_batches)
def test_batches_are_run_in_powers_of_two_and_the_largest(largest: int) -> None:
    sizes = batch_sizes(largest)
    assert list(sizes) == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, largest)
    assert all(size == largest or size & (size - 1) == 0 for size in sizes)
    assert all(above <= 2 * below for below, above in itertools.pairwise(sizes))


def test_sizes_of_some_engines() -> None:
    assert [batch_sizes(largest) for largest in (1, 6, 8)] == [(1,), (1, 2, 4, 6), (1, 2, 4, 8)]


@given(largest_batches, st.data())
def test_a_batch_is_run_with_the_smallest_size_that_holds_it(largest: int, data: st.DataObject) -> None:
    sizes = batch_sizes(largest)
    count = data.draw(st.integers(1, largest))
    size = size_for(count, sizes)
    assert size in sizes
    assert count <= size
    assert not [other for other in sizes if count <= other < size]
    assert size < 2 * count


@pytest.mark.parametrize("count", [0, -1, 7])
def test_what_no_engine_takes_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} items in a batch of 1 to 6"):
        size_for(count, batch_sizes(LARGEST))


@given(st.integers(1, 8), st.data())
def test_a_batch_is_filled_up_with_black(largest: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, largest))
    size = size_for(count, batch_sizes(largest))
    batch = np.random.default_rng(count).integers(1, 256, (count, 2, 3), dtype=np.uint8)
    pixels = np.full((largest, 2, 3), 7, dtype=np.uint8)
    fill(pixels, batch, size)
    assert np.array_equal(pixels[:count], batch)
    assert not pixels[count:size].any()
    assert (pixels[size:] == 7).all()


def test_items_of_another_kind_are_never_squeezed_in() -> None:
    pixels = np.zeros((4, 2, 3), dtype=np.uint8)
    with pytest.raises(TypeError, match="items of float32 instead of uint8"):
        fill(pixels, np.zeros((1, 2, 3), dtype=np.float32), 1)
    for shape in [(1, 2, 1), (1, 1, 3), (1, 3, 2), (2, 3)]:
        with pytest.raises(ValueError, match=r"instead of \(2, 3\)"):
            fill(pixels, np.zeros(shape, dtype=np.uint8), 1)


def test_a_call_that_fails_is_named() -> None:
    # No flags of a stream have this number; without a driver nothing works anyway.
    with pytest.raises(
        MachineError, match=r"^cudaStreamCreateWithFlags failed \(cudaError\w+: .+\): check the GPU with"
    ):
        called("cudaStreamCreateWithFlags", 12345)


def test_missing_cuda_bindings_are_named_with_their_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)  # Python takes this for a module that is not there
    bindings.cache_clear()
    try:
        with pytest.raises(MachineError, match=r"needs cuda-python, .*: run `.+ -m pip install cuda-python`\.$"):
            bindings("runtime")
    finally:
        bindings.cache_clear()


PARSER_SAID = """Invalid Node - node_permute
ITensor::getDimensions: Error Code 4: API Usage Error (node_permute: first input has type UInt8 but must have type Float. In checkType at /_src/optimizer/common/nodeBase.cpp:456)
[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at /_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"""  # noqa: E501


def test_only_what_concerns_the_model_is_shown_where_there_is_no_driver() -> None:
    shown = cleaned(PARSER_SAID, without_gpu=True)
    assert shown.startswith("Invalid Node - node_permute ITensor::getDimensions: API Usage Error (node_permute: first")
    assert shown.endswith("must have type Float)")
    assert "cudaError 35" in cleaned(PARSER_SAID, without_gpu=False)


def test_messages_are_shown_once_each_and_errors_apart_from_warnings() -> None:
    messages = [Message(False, "slow"), Message(True, "bad"), Message(False, "slow"), Message(True, "x cudaError 35 y")]
    assert distinct_texts(messages, errors=False, without_gpu=True) == ("slow",)
    assert distinct_texts(messages, errors=True, without_gpu=True) == ("bad",)
    assert distinct_texts(messages, errors=True, without_gpu=False) == ("bad", "x cudaError 35 y")


def test_the_architectures_of_tensorrt_rtx_are_those_of_its_enumeration() -> None:
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(load_package("tensorrt-rtx").capabilities())
    assert "9.0" not in load_package("tensorrt-rtx").capabilities()


def test_tensorrt_rtx_does_not_run_on_hopper() -> None:
    def rtx_runs(capability: str) -> bool:
        usable = usable_packages(Target(compute_capability=capability, gpu="any", driver="any"))
        return "tensorrt-rtx" in [package.flavor for package in usable]

    assert rtx_runs("8.6")
    assert not rtx_runs("9.0")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_nothing_is_computed_where_there_is_no_gpu(precision: Precision) -> None:
    assert TensorRtBackend.precisions(manifest_in(precision), "cpu") == ()
    assert TensorRtBackend.precisions(manifest_in(precision), "cuda") == ()  # no engine was built here
    assert (present_target() is None) == (not nvidia_gpus())


def test_a_backend_without_a_gpu_says_what_it_needs() -> None:
    artifact = load_artifact("lite")
    with pytest.raises(
        MachineError, match=r"^TensorRT runs on NVIDIA GPUs only: use device=\"cuda\", or another backend"
    ):
        TensorRtBackend(artifact, device="cpu", threads=1, precision="fp32")
    if not nvidia_gpus():
        with pytest.raises(MachineError, match=r"^TensorRT needs an NVIDIA GPU, and none is visible: use another back"):
            TensorRtBackend(artifact, device="cuda", threads=1, precision="fp32")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def package(flavor: Flavor) -> Package:
    """What the search for an engine knows of a package."""
    return Package(flavor, None, VERSION, None, deque(), threading.Lock())


BOTH = (package("tensorrt"), package("tensorrt-rtx"))


def flavor_found() -> Flavor:
    found, engine = first_engine(lite(), BOTH, TARGET)
    assert engine.manifest.flavor == found.flavor
    return found.flavor


@pytest.mark.usefixtures("home")
def test_the_engine_of_the_preferred_package_is_taken_and_a_stale_one_is_named() -> None:
    with pytest.raises(MachineError, match="No TensorRT engine of lite"):
        flavor_found()
    rtx = stored(flavor="tensorrt-rtx")
    assert flavor_found() == "tensorrt-rtx"
    engine = stored()
    assert flavor_found() == "tensorrt"
    rewrite(engine, version="1")
    assert flavor_found() == "tensorrt-rtx"
    (rtx.folder / "manifest.json").unlink()
    with pytest.raises(ModelError, match="was built by TensorRT 1, and this is"):
        flavor_found()


def engines(artifact: Artifact) -> list[Engine]:
    """Build an artifact for this GPU with every package that runs on it."""
    return [
        build_engine(
            artifact,
            flavor=usable.flavor,
            compute_capability=None,
            max_batch=LARGEST,
            workspace_bytes=4 << 30,
        )
        for usable in packages_here()
    ]


def artifact_in(precision: Precision) -> Artifact:
    artifact = load_artifact("lite")
    if precision == "fp32":
        return artifact
    graph = halved(GraphIndex(onnx.load_model_from_string(artifact.model)), ())
    return packed(graph, artifact.manifest.spec, WeightsOrigin("lite", "0" * 64), precision=precision)


@pytest.mark.gpu
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 0.05)])
def test_logits_are_those_of_onnx_runtime_on_the_cpu(precision: Precision, tolerance: float) -> None:
    artifact = artifact_in(precision)
    built = engines(artifact)
    with np.load(GOLDEN) as golden:
        faces = np.concatenate([golden["faces"], golden["faces"][:, :, ::-1]])[:LARGEST]
    session = Session(load_artifact("lite").model, source="lite", device="cpu", threads=2)
    expected = session.run(["logit"], {"faces": faces})[0]
    for engine in built:
        for _ in ("compiled now", "with what was compiled"):
            with closing(TensorRtBackend(artifact, device="cuda", threads=1, precision=precision)) as backend:
                assert (backend.precision, backend.max_batch) == (precision, LARGEST)
                for count in (1, 2, 3, 5, LARGEST, 1):
                    assert backend.logits(faces[:count]) == pytest.approx(expected[:count], abs=tolerance)
                with pytest.raises(ValueError, match="7 items in a batch of 1 to 6"):
                    backend.logits(np.zeros((7, *faces.shape[1:]), dtype=np.uint8))
        if engine.manifest.flavor == "tensorrt-rtx":
            assert engine.kernels_path.exists()


@pytest.mark.gpu
@pytest.mark.usefixtures("home")
def test_a_stale_engine_is_refused_on_a_gpu() -> None:
    artifact = load_artifact("lite")
    for engine in engines(artifact):
        rewrite(engine, target=msgspec.structs.replace(engine.manifest.target, compute_capability="5.0"))
    with pytest.raises(ModelError, match=r"was built for compute capability 5\.0"):
        TensorRtBackend(artifact, device="cuda", threads=1, precision="fp32")
