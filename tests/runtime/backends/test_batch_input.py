"""Batches that mix items of the host and of a device: with the host device, and where there is a GPU on that."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from deepscan.models.lite import LITE
from deepscan.runtime.artifacts.artifacts import Artifact, load_artifact
from deepscan.runtime.backends.batch_input import BatchInput, first_gpu
from deepscan.runtime.backends.contract import Backend
from deepscan.runtime.backends.onnxruntime_backend import FixedBatches
from deepscan.runtime.backends.selection import Candidate, open_backend
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.backends.torch_backend import CompiledExecution
from deepscan.runtime.cuda.device import Device, DeviceArray
from deepscan.runtime.cuda.pixels import Pixels, host_array
from deepscan.runtime.media.device_work import DeviceWork
from tests.runtime.backends.test_backend_contract import build_engine_here, items_for
from tests.runtime.cuda.host_device import HostDevice, HostQueue
from tests.runtime.graphs import small_clip_artifact
from tests.runtime.tiny_detectors import TINY_CLIP

SHAPE = (3, 5, 4, 3)
MOST = 6
BYTES = np.dtype(np.uint8)


def items(count: int, shape: tuple[int, ...] = SHAPE, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def uploaded(device: Device, batch: NDArray[np.uint8]) -> list[DeviceArray]:
    """Return the items of a batch, one by one in the device's memory, as the faces stage hands them on: finished."""
    queue = device.queue()
    places = [queue.empty(item.shape, BYTES) for item in batch]
    for place, item in zip(places, batch, strict=True):
        queue.upload(place.address, np.ascontiguousarray(item))
    queue.wait()
    return places


def turned(item: Pixels) -> Pixels:
    return item.left_to_right() if isinstance(item, DeviceArray) else item[..., ::-1, :]


@given(
    places=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=MOST),
    shape=st.sampled_from([(5, 4, 3), SHAPE]),
)
def test_every_item_comes_to_its_place_and_nothing_behind_them_changes(
    places: list[tuple[bool, bool]], shape: tuple[int, ...]
) -> None:
    device = HostDevice()
    queue, numbers = device.queue(), items(len(places), shape)
    target = queue.empty((MOST, *shape), BYTES)
    queue.upload(target.address, np.full((MOST, *shape), 7, np.uint8))
    queue.wait()
    there = uploaded(device, numbers)
    batch = [there[n] if on_device else numbers[n] for n, (on_device, _) in enumerate(places)]
    batch = [turned(item) if mirrored else item for item, (_, mirrored) in zip(batch, places, strict=True)]
    BatchInput(device, shape).fill(target.address, batch)
    found = queue.download(target)
    for number, (_, mirrored) in enumerate(places):
        assert np.array_equal(found[number], host_array(turned(numbers[number])) if mirrored else numbers[number])
    assert (found[len(places) :] == 7).all()


@pytest.mark.parametrize("form", ["whole", "strided", "fortran"])
def test_a_batch_may_be_one_array_that_lies_as_it_likes(form: str) -> None:
    device, numbers = HostDevice(), items(MOST)
    batch = {"whole": numbers, "strided": numbers[::2], "fortran": np.asfortranarray(numbers)}[form]
    target = device.queue().empty((MOST, *SHAPE), BYTES)
    BatchInput(device, SHAPE).fill(target.address, batch)
    assert np.array_equal(device.queue().download(target)[: len(batch)], batch)


def test_items_of_another_kind_are_refused_before_anything_is_copied() -> None:
    device = HostDevice()
    target = device.queue().empty((MOST, *SHAPE), BYTES)
    before = device.queue().download(target)
    batch_input = BatchInput(device, SHAPE)
    floats = np.zeros(SHAPE, np.float32)
    for wrong in (items(1, (5, 4, 3))[0], *uploaded(device, items(1, (3, 4, 5, 3)))):
        with pytest.raises(ValueError, match=r"instead of \(3, 5, 4, 3\)"):
            batch_input.fill(target.address, [items(1)[0], wrong])
    others: list[Any] = [floats, device.queue().empty(SHAPE, floats.dtype)]
    for other in others:
        with pytest.raises(TypeError, match="items of float32 instead of uint8"):
            batch_input.fill(target.address, [items(1)[0], other])
    assert np.array_equal(device.queue().download(target), before)


class CountingDevice(HostDevice):
    """Notes which threads ask for queues."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[threading.Thread] = []

    def queue(self) -> HostQueue:
        self.asked.append(threading.current_thread())
        return super().queue()


def test_each_thread_has_a_queue_of_its_own() -> None:
    device = CountingDevice()
    target = device.queue().empty((1, *SHAPE), BYTES)
    device.asked.clear()
    batch_input = BatchInput(device, SHAPE)

    def twice() -> None:
        for _ in range(2):
            batch_input.fill(target.address, items(1))

    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
    batch_input.fill(target.address, items(1))
    assert device.asked == [threading.current_thread(), thread]


@settings(max_examples=15)
@given(kinds=st.lists(st.lists(st.booleans(), min_size=1, max_size=MOST), min_size=1, max_size=5))
def test_onnx_runtime_scores_items_of_the_device_as_those_of_the_host(kinds: list[list[bool]]) -> None:
    session = Session(small_clip_artifact().model, source="small.onnx", device="cpu", threads=1)
    device, shape = HostDevice(), TINY_CLIP.item_shape
    batch_input = BatchInput(device, shape)
    batches = FixedBatches(session, "clips", shape, MOST, batch_input=batch_input)
    for seed, kind in enumerate(kinds):
        numbers = items(len(kind), shape, seed=seed)
        there = uploaded(device, numbers)
        mixed = [there[n] if on_device else numbers[n] for n, on_device in enumerate(kind)]
        assert np.array_equal(batches.logits(mixed), session.run(["logit"], {"clips": numbers})[0])


class Bright(nn.Module):
    """The mean of the left half of each picture, twice, and of the right half."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = pixels.float()[:, :, :2].mean((1, 2, 3)) * 2 + pixels.float()[:, :, 2:].mean((1, 2, 3))
        return means, means


@pytest.mark.slow  # compiles
def test_torch_scores_items_of_the_device_as_those_of_the_host() -> None:
    device, shape = HostDevice(), (5, 4, 3)
    compiled = CompiledExecution(
        Bright(), device="cpu", item_shape=shape, most=MOST, threads=1, batch_input=BatchInput(device, shape)
    )
    for count in (MOST, 1, 3):
        numbers = items(count, shape, seed=count)
        there = uploaded(device, numbers)
        batch = [turned(item) if n % 3 else item for n, item in enumerate(there)]
        batch[-1] = numbers[-1]
        expected = np.stack(
            [host_array(turned(item)) if n % 3 and n < count - 1 else item for n, item in enumerate(numbers)]
        )
        found = compiled(batch)
        assert found == pytest.approx(Bright()(torch.from_numpy(expected))[0].numpy(), rel=1e-6)
        with torch.compiler.set_stance("fail_on_recompile"):
            assert compiled(batch) == pytest.approx(found, abs=0)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_what_computes_on_the_cpu_refuses_items_of_a_device(backend: str) -> None:
    artifact = load_artifact("lite")
    faces = items(2, LITE.item_shape)
    with closing(open_backend(Candidate(backend, "fp32"), artifact, device="cpu", threads=1)) as opened:
        with pytest.raises(TypeError, match="in a device's memory"):
            opened.logits([faces[0], *uploaded(HostDevice(), faces[1:])])
        assert opened.logits(list(faces[: opened.max_batch])).shape == (min(2, opened.max_batch),)


# What follows needs a GPU.

GPU_BACKENDS: Sequence[str] = ("onnxruntime", "torch", "tensorrt")
SAME = 1e-4


@pytest.fixture(scope="module", params=["lite", "small-clip"])
def artifact_and_items(request: pytest.FixtureRequest) -> tuple[Artifact, NDArray[np.uint8]]:
    artifact = load_artifact("lite") if request.param == "lite" else small_clip_artifact()
    return artifact, items_for(request.param)


@pytest.fixture(scope="module", params=GPU_BACKENDS)
def on_gpu(request: pytest.FixtureRequest, artifact_and_items: tuple[Artifact, NDArray[np.uint8]]) -> Iterator[Backend]:
    artifact, _ = artifact_and_items
    if request.param == "torch" and artifact.manifest.spec.name != "lite":
        pytest.skip("torch runs the networks of known detectors only")
    if request.param == "tensorrt":
        build_engine_here(artifact)
    with closing(open_backend(Candidate(request.param, "fp32"), artifact, device="cuda", threads=1)) as opened:
        yield opened


@pytest.mark.gpu
def test_on_a_gpu_where_an_item_lies_does_not_change_its_logit(
    on_gpu: Backend, artifact_and_items: tuple[Artifact, NDArray[np.uint8]]
) -> None:
    _, numbers = artifact_and_items
    there = uploaded(first_gpu(), numbers)
    for count in (1, 3, min(8, on_gpu.max_batch), 2):
        expected = on_gpu.logits(numbers[:count])
        assert on_gpu.logits(there[:count]) == pytest.approx(expected, abs=SAME)
        mixed = [there[n] if n % 2 else numbers[n] for n in range(count)]
        assert on_gpu.logits(mixed) == pytest.approx(expected, abs=SAME)


@pytest.mark.gpu
def test_on_a_gpu_mirrored_items_give_what_mirrored_pixels_give(
    on_gpu: Backend, artifact_and_items: tuple[Artifact, NDArray[np.uint8]]
) -> None:
    _, numbers = artifact_and_items
    there = uploaded(first_gpu(), numbers[:4])
    expected = on_gpu.logits([turned(item) for item in numbers[:4]])
    assert on_gpu.logits([turned(item) for item in there]) == pytest.approx(expected, abs=SAME)
    assert on_gpu.logits(there) == pytest.approx(on_gpu.logits(numbers[:4]), abs=SAME)
    assert np.abs(expected - on_gpu.logits(numbers[:4])).max() > 2 * SAME


@pytest.mark.gpu
def test_on_a_gpu_items_that_were_stacked_by_the_faces_stage_are_taken(
    on_gpu: Backend, artifact_and_items: tuple[Artifact, NDArray[np.uint8]]
) -> None:
    _, numbers = artifact_and_items
    if numbers.ndim != 5:
        pytest.skip("clips are stacked, crops are not")
    device = first_gpu()
    work = DeviceWork(device.queue())
    clips = [work.stacked(uploaded(device, clip)) for clip in numbers[:2]]
    work.finish()
    assert on_gpu.logits(clips) == pytest.approx(on_gpu.logits(numbers[:2]), abs=SAME)
