"""The real device, its streams, kernels and pictures, on cuda-python's own functions without a driver."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from deepscan.errors import DeviceMemoryError, MachineError
from deepscan.runtime.backends.batch_input import BatchInput
from deepscan.runtime.cuda.cuda_device import CudaDevice
from deepscan.runtime.cuda.cuda_kernels import MOST_JOBS
from deepscan.runtime.cuda.cuda_runtime import called
from deepscan.runtime.cuda.device import DeviceArray
from deepscan.runtime.cuda.kernel_jobs import COPY
from deepscan.runtime.media.device_work import DeviceWork
from deepscan.runtime.media.frames import host_picture
from deepscan.runtime.media.pyav_pictures import picture_on_device
from tests.footage import ASTRONAUT, PHONE, open_video
from tests.runtime.cuda.cuda_on_host import CudaDeviceOnHost, without_driver
from tests.runtime.cuda.device_frames import high_bits
from tests.runtime.cuda.test_nvdec_frames import downloaded

pytestmark = without_driver
BYTES = np.dtype(np.uint8)


@pytest.fixture
def device() -> Iterator[CudaDeviceOnHost]:
    made = CudaDeviceOnHost()
    with closing(made):
        yield made


def test_a_device_has_a_name_and_says_when_it_is_full_or_not_there(device: CudaDeviceOnHost) -> None:
    assert device.name == "Host"
    with pytest.raises(DeviceMemoryError, match=r"^cudaMalloc failed"):
        device.queue().empty((1 << 60,), BYTES)
    with pytest.raises(MachineError, match=r"^cudaSetDevice failed"):
        CudaDevice(1)


def test_what_a_gpu_would_not_take_fails(device: CudaDeviceOnHost) -> None:
    queue = device.queue()
    place = queue.empty((4, 4), BYTES)
    for argument, error in (("4", TypeError), (None, TypeError), (4.5, AssertionError)):
        with pytest.raises(error):
            queue.copy(place.address, argument, place)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        called("cudaMalloc", 1, 2)
    with pytest.raises(AssertionError, match="outside"):
        queue.copy(place.address, 1 << 20, place)
    address = called("cudaMalloc", 1)
    called("cudaFree", address)
    with pytest.raises(MachineError, match=r"^cudaFree failed"):
        called("cudaFree", address)


def test_what_ffmpeg_begins_on_the_default_stream_comes_first(device: CudaDeviceOnHost) -> None:
    queue = device.queue()
    place = queue.empty((4,), BYTES)
    for followed in (False, True):
        device.fake.default_stream.append(lambda: ctypes.memset(place.address, 7, 4))
        if followed:
            queue.follow_default_stream()
        assert (queue.download(place).tolist() == [7] * 4) == followed
    device.fake.default_stream.clear()


def test_a_table_of_more_jobs_than_a_launch_may_have_is_done_to_its_end(device: CudaDeviceOnHost) -> None:
    count = MOST_JOBS + 3
    queue = device.queue()
    numbers = np.arange(count * 3, dtype=np.uint32).view(np.uint8).reshape(-1)[: count * 3]
    source, target = queue.empty((count, 3), BYTES), queue.empty((count, 3), BYTES)
    queue.upload(source.address, numbers)
    jobs = np.zeros(count, COPY)
    jobs["width"] = jobs["height"] = 1
    jobs["source"], jobs["target"] = (array.address + 3 * np.arange(count) for array in (source, target))
    queue.run("copy_items", jobs)
    assert np.array_equal(queue.download(target).reshape(-1), numbers)


def test_batches_are_filled_from_the_host_and_from_the_device(device: CudaDeviceOnHost) -> None:
    here = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    queue = device.queue()
    there = queue.empty(here.shape, BYTES)
    queue.upload(there.address, here)
    queue.wait()
    target = queue.empty(here.shape, BYTES)
    BatchInput(device, here.shape[1:]).fill(target.address, [here[0], there.at(1).left_to_right(), there.at(2)])
    assert np.array_equal(queue.download(target), [here[0], here[1][:, ::-1], here[2]])


@pytest.mark.parametrize(("path", "layout"), [(ASTRONAUT, "nv12"), (PHONE, "p010le")], ids=["nv12", "p010"])
def test_a_decoded_picture_is_copied_as_it_is(path: Path, layout: str, device: CudaDeviceOnHost) -> None:
    """FFmpeg's own frame of such a layout, in memory that stands in for the GPU's."""
    with open_video(str(path), threads=1) as reader:
        frame = next(iter(reader.frames()))
    native = frame.native.reformat(format=layout, threads=1)
    for plane in native.planes:
        held = (device.fake.memory["device"], plane.buffer_ptr)
        held[0][held[1]] = range(plane.buffer_size)  # known as memory of the device
    queue = device.queue()
    picture = picture_on_device(native, left_chroma=True, queue=queue, work=DeviceWork(queue))
    expected = host_picture(frame)
    for plane_there, plane in zip(picture.planes, expected.planes, strict=True):
        assert isinstance(plane_there, DeviceArray)
        assert np.array_equal(downloaded(plane_there, queue), high_bits(plane, expected.bit_depth))
