from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.errors import MachineError
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends import onnxruntime_backend
from deepscan.runtime.backends.artifact_graph import CLIPS_AT_ONCE_CUDA, CROPS_AT_ONCE_CUDA, MEMORY_SHARE, most_on_cuda
from deepscan.runtime.backends.onnxruntime_backend import FixedBatches, OnnxRuntimeBackend, OrtTensorRtBackend
from deepscan.runtime.backends.sessions import PROVIDERS, Session, available_providers, computed_elsewhere
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.runtime.system.machine import Gpu
from tests.runtime.backends.manifests import manifest_in
from tests.runtime.graphs import determinant_artifact, small_clip_artifact
from tests.runtime.tiny_detectors import TINY_CLIP, tiny_artifact

GIB = 1 << 30
# In the wheels for CPUs, too: it is loaded, and computes no node of ours.
IDLE_PROVIDER = "AzureExecutionProvider"


@pytest.fixture(scope="module")
def session() -> Session:
    """What `FixedBatches` gets on CUDA, on the CPU: all that it does is the same there."""
    return Session(small_clip_artifact().model, source="small.onnx", device="cpu", threads=1)


def clips(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *TINY_CLIP.item_shape), dtype=np.uint8)


def fixed(session: Session, most: int) -> FixedBatches:
    return FixedBatches(session, "clips", TINY_CLIP.item_shape, most)


def test_bound_buffers_give_the_logits_of_a_plain_run(session: Session) -> None:
    batches = fixed(session, 6)
    for count in range(1, 7):
        batch = clips(count, seed=count)
        assert np.array_equal(batches.logits(batch), session.run(["logit"], {"clips": batch})[0])


@settings(max_examples=20)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_what_a_buffer_held_before_does_not_matter(session: Session, counts: list[int]) -> None:
    batches = fixed(session, 6)
    items = clips(6)
    alone = session.run(["logit"], {"clips": items})[0]
    for number, count in enumerate(counts):
        places = (np.arange(count) + number) % 6
        assert np.array_equal(batches.logits(items[places]), alone[places])


def test_a_batch_uses_the_next_size(session: Session) -> None:
    batches = fixed(session, 6)
    for count in [1, 2, 3, 4, 5, 6, 3, 1, 6, 2]:
        batches.logits(clips(count))
    assert sorted(batches.bound) == [1, 2, 4, 6]


def test_logits_are_not_overwritten_by_the_next_run(session: Session) -> None:
    batches = fixed(session, 4)
    first = batches.logits(clips(4, seed=1))
    kept = first.copy()
    batches.logits(clips(4, seed=2))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("shape", [(1, 8, 32, 31, 3), (1, 7, 32, 32, 3), (3, 8, 16, 32, 3)])
def test_items_of_another_shape_are_refused(session: Session, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="items of shape"):
        fixed(session, 4).logits(np.zeros(shape, dtype=np.uint8))


def test_a_provider_that_computes_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert IDLE_PROVIDER in available_providers()
    monkeypatch.setitem(PROVIDERS, "cpu", IDLE_PROVIDER)
    with pytest.raises(MachineError, match=f"run on {IDLE_PROVIDER}, which is loaded but runs no part") as error:
        Session(load_artifact("lite").model, source="lite.onnx", device="cpu", threads=1)
    assert str(error.value).endswith(".")


def test_operators_that_no_chosen_provider_computes_are_found_but_for_those_of_shapes() -> None:
    session = Session(determinant_artifact().model, source="x.onnx", device="cpu", threads=1)
    parts = session._session.get_provider_graph_assignment_info()
    assert computed_elsewhere(parts, [PROVIDERS["cuda"]]) == ["Det", "ReduceMean"]
    assert computed_elsewhere(parts, [PROVIDERS["cuda"], PROVIDERS["cpu"]]) == []


def test_what_onnx_runtime_raises_while_it_runs_is_one_sentence(session: Session) -> None:
    with pytest.raises(MachineError, match=r"^ONNX Runtime failed to run small\.onnx \(.*\): use another backend\.$"):
        session.run(["logit"], {"clips": np.zeros((1, 7, 32, 32, 3), dtype=np.uint8)})


@pytest.mark.parametrize(("many_shapes", "ran"), [(True, [1, 4, 4, 4, 16]), (False, [1, 2, 3, 4, 5])])
def test_on_cuda_batches_of_many_shapes_are_filled_up(
    many_shapes: bool, ran: list[int], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROVIDERS, "cuda", PROVIDERS["cpu"])  # no GPU is needed to see what it is given
    model = small_clip_artifact().model
    on_cuda = Session(model, source="small.onnx", device="cuda", threads=1, many_shapes=many_shapes)
    sizes: list[int] = []
    monkeypatch.setattr(on_cuda, "_session", Recording(on_cuda._session, sizes))
    items = clips(5)
    alone = session.run(["logit"], {"clips": items})[0]
    for count in range(1, 6):
        assert np.array_equal(on_cuda.run(["logit"], {"clips": items[:count]})[0], alone[:count])
    assert sizes == ran


class Recording:
    """A session of ONNX Runtime that records the sizes of batches."""

    def __init__(self, session: Any, sizes: list[int]) -> None:
        self._session, self._sizes = session, sizes

    def run(self, outputs: list[str], feeds: dict[str, NDArray[np.uint8]]) -> Any:
        self._sizes += [len(feed) for feed in feeds.values()]
        return self._session.run(outputs, feeds)


def test_an_axis_that_always_has_one_size_is_fixed() -> None:
    model = tiny_artifact(TINY_CLIP).model
    free = Session(model, source="x.onnx", device="cpu", threads=1)
    once = Session(model, source="x.onnx", device="cpu", threads=1, axes={"N": 1})
    assert free.inputs()["clips"][1] == ["N", 8, 32, 32, 3]
    assert once.inputs()["clips"][1] == [1, 8, 32, 32, 3]


def test_on_cuda_a_batch_is_as_large_as_memory_and_tensors_allow() -> None:
    lite, clip = load_artifact("lite"), small_clip_artifact()
    assert most_on_cuda(lite, memory_bytes=80 * GIB) == CROPS_AT_ONCE_CUDA
    assert most_on_cuda(clip, memory_bytes=80 * GIB) == CLIPS_AT_ONCE_CUDA
    # Its largest tensors are the normalized clip, in float32.
    of_a_clip = 4 * 8 * 32 * 32 * 3
    assert most_on_cuda(clip, memory_bytes=MEMORY_SHARE * (5 * of_a_clip + 1)) == 5
    assert most_on_cuda(clip, memory_bytes=0) == 1


def test_the_provider_of_tensorrt_says_what_it_needs() -> None:
    for precision in ("fp32", "fp16", "int8"):
        assert OrtTensorRtBackend.precisions(manifest_in(precision), "cpu") == ()
    needs = r"^ort-tensorrt needs an NVIDIA GPU, .* onnxruntime-gpu and TensorRT 10: run `.*`, or use another backend"
    with pytest.raises(MachineError, match=needs):
        OrtTensorRtBackend(load_artifact("lite"), device="cpu", threads=1, precision="fp32")


def test_engines_of_the_provider_are_kept_apart_and_in_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.setattr(onnxruntime_backend, "nvidia_gpus", lambda: [Gpu("any", 80 * GIB)])
    monkeypatch.setattr(onnxruntime_backend, "onnxruntime_has_cuda", lambda: True)
    monkeypatch.setattr(onnxruntime_backend, "is_installed", lambda _: True)
    monkeypatch.setattr(onnxruntime_backend, "load_package", lambda _: None)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    lite = load_artifact("lite")
    backend = OrtTensorRtBackend.__new__(OrtTensorRtBackend)
    half, single = (backend.tensorrt_settings(lite, "cuda", precision) for precision in ("fp16", "fp32"))
    assert half["trt_profile_min_shapes"] == "faces:1x224x224x3"
    assert half["trt_profile_max_shapes"] == f"faces:{CROPS_AT_ONCE_CUDA}x224x224x3"
    assert (half["trt_fp16_enable"], single["trt_fp16_enable"]) == ("1", "0")
    assert half["trt_engine_cache_prefix"] != single["trt_engine_cache_prefix"]
    assert (tmp_path / "engines").stat().st_mode & 0o777 == 0o700
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    with pytest.raises(MachineError, match="ONNX Runtime has no TensorrtExecutionProvider here"):
        Session(lite.model, source="lite.onnx", device="cuda", threads=1, tensorrt=half)


def test_half_is_computed_in_float32_on_a_cpu_and_cuda_is_for_gpus() -> None:
    for precision in ("fp32", "fp16"):
        assert OnnxRuntimeBackend.precisions(manifest_in(precision), "cpu") == ("fp32",)
        if PROVIDERS["cuda"] not in available_providers():
            assert OnnxRuntimeBackend.precisions(manifest_in(precision), "cuda") == ()
    assert OnnxRuntimeBackend.precisions(manifest_in("int8"), "cpu") == ("int8",)
