"""What every backend must do, in every precision, on every kind of detector."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn

from deepscan.errors import DeepscanError, ModelError
from deepscan.export.engine_builder import build_engine
from deepscan.models import lite
from deepscan.models.detector import Detector
from deepscan.models.registry import BUILTIN
from deepscan.options import Arithmetic
from deepscan.runtime.artifacts.artifacts import Artifact, load_artifact
from deepscan.runtime.backends.contract import Backend
from deepscan.runtime.backends.selection import Candidate, candidates, open_backend
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.system.machine import Device, nvidia_gpus
from deepscan.spec import DetectorSpec
from tests.runtime.engines import packages_here
from tests.runtime.graphs import (
    frame_artifact,
    mean_graph,
    small_clip_network,
    small_frame_network,
    stored_artifact,
)
from tests.runtime.tiny_detectors import TINY_CLIP, TINY_FRAME, Brightness


class Ratio(nn.Module):
    """The mean of its input over itself: 1, and no number for black."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N]."""
        mean = pixels.flatten(1).mean(dim=1)
        return mean / mean


GOLDEN = Path(__file__).parents[2] / "models" / "lite_golden.npz"
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], DetectorSpec]] = {
    "brightness": (Brightness, TINY_CLIP),
    "small-frame": (small_frame_network, TINY_FRAME),
    "small-clip": (small_clip_network, TINY_CLIP),
    "ratio": (Ratio, msgspec.structs.replace(TINY_FRAME, **RAW)),
}
DETECTORS = ["lite", "brightness", "small-frame", "small-clip"]
# Of a logit of ordinary size, from float32 on the CPU.
PLACES: dict[str, Path] = {}
ARTIFACTS: dict[str, Artifact] = {}
TOLERANCES: dict[Arithmetic, float] = {"fp32": 1e-4, "bf16": 0.05, "fp16": 0.01, "int8": 0.5}
MOST = 8


class Way(NamedTuple):
    """A backend, what it computes in, and where."""

    backend: str
    precision: Arithmetic
    device: Device

    def open(self, artifact: Artifact) -> Backend:
        if self.backend == "tensorrt":
            build_engine_here(artifact)
        candidate = Candidate(self.backend, self.precision)
        return open_backend(candidate, artifact, device=self.device, threads=2)


ALL_WAYS = [
    Way("onnxruntime", "fp32", "cpu"),
    Way("openvino", "fp32", "cpu"),
    Way("openvino", "bf16", "cpu"),
    Way("torch", "fp32", "cpu"),
    Way("onnxruntime", "fp32", "cuda"),
    Way("torch", "fp32", "cuda"),
    Way("torch", "fp16", "cuda"),
]


def parameters(ways: list[Way]) -> list[Any]:
    return [
        pytest.param(way, id="-".join(way), marks=[pytest.mark.gpu] if way.device == "cuda" else []) for way in ways
    ]


WAYS = parameters(ALL_WAYS)
READERS = parameters([way for way in ALL_WAYS if way.backend != "torch"])
# Its engines are built before; what is refused then has tests of its own.
BUILT = [pytest.param(Way("tensorrt", "fp32", "cuda"), id="tensorrt-fp32-cuda", marks=[pytest.mark.gpu])]


def build_engine_here(artifact: Artifact) -> None:
    build_engine(
        artifact,
        flavor=packages_here()[0].flavor,
        compute_capability=None,
        max_batch=MOST,
        workspace_bytes=1 << 30,
    )


@pytest.fixture(scope="module", autouse=True)
def _networks_are_known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Torch runs the networks of known detectors only, with the weights beside their artifacts."""
    PLACES["artifacts"] = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        for name, (build, spec) in NETWORKS.items():
            detector = Detector(spec=named(spec, name), build=build, publication=lite.DETECTOR.publication)
            patch.setitem(BUILTIN, name, detector)
        yield
    ARTIFACTS.clear()


def named(spec: DetectorSpec, name: str) -> DetectorSpec:
    return msgspec.structs.replace(spec, name=name)


def artifact_named(name: str) -> Artifact:
    if name not in ARTIFACTS:
        if name == "lite":
            ARTIFACTS[name] = load_artifact(name)
        else:
            build, spec = NETWORKS[name]
            ARTIFACTS[name] = stored_artifact(build(), named(spec, name), PLACES["artifacts"])
    return ARTIFACTS[name]


@cache
def items_for(name: str) -> NDArray[np.uint8]:
    """Four crops of real faces, or eight crops or clips of noise on different grays."""
    if name == "lite":
        with np.load(GOLDEN) as golden:
            faces: NDArray[np.uint8] = golden["faces"]
        return faces
    shape = artifact_named(name).manifest.spec.item_shape
    random = np.random.default_rng(0)
    grays = np.arange(20, 20 + 25 * MOST, 25).reshape(-1, *(1 for _ in shape))
    noise: NDArray[np.uint8] = (grays + random.integers(0, 40, (MOST, *shape))).astype(np.uint8)
    return noise


@cache
def expected_for(name: str) -> NDArray[np.float32]:
    artifact = artifact_named(name)
    session = Session(artifact.model, source=name, device="cpu", threads=1)
    return np.concatenate(
        [session.run(["logit"], {artifact.manifest.spec.input_name: item[None]})[0] for item in items_for(name)]
    )


@pytest.fixture(scope="module", params=WAYS)
def opener(request: pytest.FixtureRequest) -> Way:
    return there(request.param)


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest) -> Way:
    """Those that run the graph itself; torch takes the network and its weights instead."""
    return there(request.param)


@pytest.fixture(scope="module", params=WAYS + BUILT)
def way(request: pytest.FixtureRequest) -> Way:
    return there(request.param)


def there(chosen: Way) -> Way:
    if chosen.precision == "bf16" and Candidate(chosen.backend, chosen.precision) not in candidates(
        artifact_named("lite").manifest, chosen.device
    ):
        pytest.skip("this processor does not multiply in bfloat16")
    return chosen


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def backend(way: Way, detector: str) -> Iterator[Backend]:
    with closing(way.open(artifact_named(detector))) as opened:
        yield opened


def in_batches(backend: Backend, items: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    return np.concatenate([backend.logits(items[start : start + size]) for start in range(0, len(items), size)])


def test_the_logits_are_those_of_the_graph(backend: Backend, detector: str) -> None:
    logits = in_batches(backend, items_for(detector), backend.max_batch)
    assert logits == pytest.approx(expected_for(detector), abs=TOLERANCES[backend.precision])
    assert np.ptp(expected_for(detector)) > 2 * TOLERANCES[backend.precision]


def test_every_batch_size_gives_one_float32_logit_per_item(backend: Backend, detector: str) -> None:
    assert backend.max_batch >= 1
    items = items_for(detector)
    for size in range(1, min(len(items), backend.max_batch) + 1):
        logits = backend.logits(items[:size])
        assert isinstance(logits, np.ndarray)
        assert (logits.shape, logits.dtype) == ((size,), np.dtype(np.float32))


def test_the_largest_batch_is_taken(backend: Backend, detector: str) -> None:
    items = items_for(detector)
    largest = np.resize(items, (backend.max_batch, *items.shape[1:]))
    assert backend.logits(largest).shape == (backend.max_batch,)


def test_an_item_does_not_see_its_neighbors(backend: Backend, detector: str, way: Way) -> None:
    items = items_for(detector)
    alone = in_batches(backend, items, 1)
    count = len(items)
    assert len(set(alone.tolist())) == count
    for size in sorted({min(size, count, backend.max_batch) for size in (2, 3, 5, MOST)}):
        for order in (np.arange(count)[::-1], np.roll(np.arange(count), 3)):
            together = in_batches(backend, items[order], size)
            assert together == same_as(alone[order], way), size


def same_as(logits: NDArray[np.float32], way: Way) -> object:
    """To the last digit on a CPU; on a GPU, kernels are chosen for each batch size, and by timing."""
    return pytest.approx(logits, rel=0, abs=0 if way.device == "cpu" else TOLERANCES[way.precision])


def test_the_same_batch_gives_the_same_logits(backend: Backend, detector: str, way: Way) -> None:
    batch = items_for(detector)[: backend.max_batch]
    assert backend.logits(batch) == same_as(backend.logits(batch), way)


def test_logits_stay_what_they_are_when_more_are_computed(backend: Backend, detector: str) -> None:
    items = items_for(detector)
    first = backend.logits(items[:1])
    kept = first.copy()
    backend.logits(items[1:2])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("form", ["strided", "mirrored", "fortran", "read-only"])
def test_pixels_may_lie_in_memory_as_they_like(backend: Backend, detector: str, way: Way, form: str) -> None:
    items = items_for(detector)
    size = min(len(items) // 2, backend.max_batch)
    batches = {
        "strided": items[::2][:size],
        "mirrored": items[:size, ..., ::-1, :],
        "fortran": np.asfortranarray(items[:size]),
        "read-only": items[:size].view(),
    }
    batch = batches[form]
    batch.flags.writeable = False
    before = np.array(batch, order="C")
    assert backend.logits(batch) == same_as(backend.logits(before), way)
    assert np.array_equal(batch, before)


def test_a_batch_may_be_a_list_of_items_that_lie_anywhere(backend: Backend, detector: str, way: Way) -> None:
    items = items_for(detector)[: backend.max_batch]
    mirrored = [item[..., ::-1, :] if place % 2 else item for place, item in enumerate(items)]
    assert backend.logits(mirrored) == same_as(backend.logits(np.stack(mirrored)), way)


def test_another_thread_than_the_one_that_made_it_can_use_it(backend: Backend, detector: str, way: Way) -> None:
    batch = items_for(detector)[: backend.max_batch]
    found: list[NDArray[np.float32]] = []
    thread = threading.Thread(target=lambda: found.append(backend.logits(batch)))
    thread.start()
    thread.join()
    assert found[0] == same_as(backend.logits(batch), way)


def test_it_says_what_it_is(backend: Backend, way: Way) -> None:
    assert backend.precision == way.precision
    # TensorRT has two packages.
    assert backend.name.replace("tensorrt-rtx", "tensorrt") == f"{way.backend}-{way.device}"


def test_two_side_by_side_do_not_disturb_each_other(backend: Backend, detector: str, way: Way) -> None:
    items = items_for(detector)
    alone = [backend.logits(items[place : place + 1]) for place in (0, 1)]
    with closing(way.open(artifact_named(detector))) as other:
        assert other.logits(items[1:2]) == same_as(alone[1], way)
        assert backend.logits(items[:1]) == same_as(alone[0], way)
        assert other.logits(items[1:2]) == same_as(alone[1], way)
    assert backend.logits(items[:1]) == same_as(alone[0], way)


def one_gray(value: int) -> NDArray[np.uint8]:
    return np.full((1, 32, 32, 3), value, dtype=np.uint8)


def test_a_logit_that_is_no_number_is_an_error(opener: Way) -> None:
    with closing(opener.open(artifact_named("ratio"))) as backend:
        assert backend.logits(one_gray(20)) == pytest.approx([1.0], abs=TOLERANCES[opener.precision])
        with pytest.raises(ModelError, match=r"ratio\.onnx gave a logit that is not a finite number") as error:
            backend.logits(one_gray(0))
    assert_one_sentence(error)


@pytest.mark.parametrize(
    "model",
    [
        mean_graph(name="pictures"),
        mean_graph(kind=TensorProto.FLOAT),
        mean_graph(side=64),
        mean_graph(output="label"),
        mean_graph(inputs=2),
    ],
    ids=["name", "type", "size", "output", "two inputs"],
)
def test_a_graph_that_is_not_what_its_record_says_is_refused(reader: Way, model: onnx.ModelProto) -> None:
    wanted = r"tiny-frame\.onnx does not turn uint8 faces \[N, 32, 32, 3\] into logit"
    with pytest.raises(ModelError, match=wanted) as error:
        reader.open(frame_artifact(model))
    assert_one_sentence(error)


@pytest.mark.parametrize("model", [b"not a model", b"", mean_graph().SerializeToString()[:-40]])
def test_bytes_that_are_no_model_are_refused(reader: Way, model: bytes) -> None:
    with pytest.raises(ModelError, match=r"tiny-frame\.onnx") as error:
        reader.open(dataclasses.replace(frame_artifact(mean_graph()), model=model))
    assert_one_sentence(error)


def test_an_unknown_operator_is_refused(reader: Way) -> None:
    model = mean_graph()
    artifact = frame_artifact(model)
    model.graph.node[2].op_type = "Guess"
    with pytest.raises(ModelError, match=r"tiny-frame\.onnx") as error:
        reader.open(dataclasses.replace(artifact, model=model.SerializeToString()))
    assert_one_sentence(error)


@pytest.mark.parametrize("absolute", [False, True])
def test_no_other_file_is_read(reader: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "axes.bin").write_bytes(np.array([1, 2, 3], dtype=np.int64).tobytes())
    model = mean_graph()
    artifact = frame_artifact(model)
    (axes,) = model.graph.initializer
    axes.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 2, 3]), "axes"))
    onnx.external_data_helper.set_external_data(axes, str(tmp_path / "axes.bin") if absolute else "axes.bin")
    axes.ClearField("raw_data")
    with pytest.raises(ModelError, match=r"tiny-frame\.onnx") as error:
        reader.open(dataclasses.replace(artifact, model=model.SerializeToString()))
    assert_one_sentence(error)


def test_a_precision_that_it_does_not_have_is_refused(opener: Way) -> None:
    artifact = artifact_named("brightness")
    there = {
        found.precision for found in candidates(artifact.manifest, opener.device) if found.backend == opener.backend
    }
    lacking: list[Arithmetic] = [precision for precision in TOLERANCES if precision not in there]
    assert lacking
    for precision in lacking:
        with pytest.raises(DeepscanError, match=precision) as error:
            opener._replace(precision=precision).open(artifact)
        assert_one_sentence(error)


@pytest.mark.skipif(bool(nvidia_gpus()), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused_and_not_replaced(opener: Way) -> None:
    assert not candidates(artifact_named("lite").manifest, "cuda")
    with pytest.raises(DeepscanError) as error:
        opener._replace(device="cuda").open(artifact_named("lite"))
    assert_one_sentence(error)


def assert_one_sentence(error: pytest.ExceptionInfo[BaseException]) -> None:
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")
