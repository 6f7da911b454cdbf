"""The contract of devices, kept by host memory and by GPUs; and the pool that their memory comes from."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest

from deepscan.errors import DeviceMemoryError, MachineError
from deepscan.runtime.cuda.cuda_device import CudaDevice
from deepscan.runtime.cuda.cuda_runtime import called
from deepscan.runtime.cuda.device import GRAIN_BYTES, Device, DeviceArray, Pool, packed_strides
from deepscan.runtime.cuda.kernel_jobs import COPY
from tests.runtime.cuda.cuda_on_host import CudaDeviceOnHost, without_driver
from tests.runtime.cuda.device_frames import DEVICES, on_device
from tests.runtime.cuda.host_device import PATTERN, HostDevice

BYTES = np.dtype(np.uint8)


@pytest.fixture(params=[*DEVICES, pytest.param(CudaDeviceOnHost, id="cuda-python", marks=without_driver)])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    device: Device = request.param()
    with closing(device):
        yield device


def test_what_is_uploaded_comes_back_even_if_the_source_changes_meanwhile(device: Device) -> None:
    queue = device.queue()
    numbers = np.arange(4000, dtype=np.float32).reshape(4, 25, 40)
    place = queue.empty(numbers.shape, numbers.dtype)
    assert (place.shape, place.kind, place.strides) == (numbers.shape, numbers.dtype, numbers.strides)
    source = numbers.copy()
    queue.upload(place.address, source)
    source[:] = 0
    back = queue.download(place)
    assert back.dtype == numbers.dtype
    assert np.array_equal(back, numbers)
    back[:] = 0  # it is the caller's own


def test_rows_are_copied_from_and_to_places_with_gaps(device: Device) -> None:
    queue = device.queue()
    picture = np.random.default_rng(0).integers(0, 1 << 16, (5, 7, 2)).astype(np.uint16)
    source = on_device(queue, picture, row_gap=12)
    target = on_device(queue, np.zeros((6, 40), np.uint8))
    queue.copy(target.address + 4, 40, source)
    expected = np.zeros((6, 40), np.uint8)
    expected[:5, 4:32] = picture.view(np.uint8).reshape(5, 28)
    assert np.array_equal(queue.download(target), expected)


def test_what_a_queue_is_given_is_done_in_order(device: Device) -> None:
    queue = device.queue()
    numbers = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    places = [queue.empty(numbers.shape, BYTES) for _ in range(3)]
    queue.upload(places[0].address, numbers)
    for source, target in pairwise(places):
        job = np.zeros(1, COPY)
        job["height"], job["width"], job["source"], job["target"] = 3, 4, source.address, target.address
        queue.run("copy_items", job)
        job[:] = 0  # the queue has its own copy
    assert np.array_equal(queue.download(places[2]), numbers)


def test_an_empty_table_and_pictures_without_pixels_are_no_work(device: Device) -> None:
    queue = device.queue()
    queue.run("resample", np.zeros(0, COPY))
    queue.run("copy_items", np.zeros(3, COPY))
    queue.wait()


def test_each_thread_has_a_queue_of_its_own(device: Device) -> None:
    seen: dict[int, bool] = {}

    def work(number: int) -> None:
        queue = device.queue()
        numbers = np.full((100, 100), number, np.uint8)
        seen[number] = all(np.array_equal(queue.download(on_device(queue, numbers)), numbers) for _ in range(10))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == dict.fromkeys(range(4), True)


def test_memory_that_was_dropped_is_used_again(device: Device) -> None:
    queue = device.queue()
    first = queue.empty((1000,), BYTES)
    address = first.address
    part = first.at(0)
    del first
    other = queue.empty((1000,), BYTES)
    assert other.address != address  # a part of it is still there
    del part
    assert queue.empty((GRAIN_BYTES,), BYTES).address == address


def test_idle_memory_of_other_sizes_is_freed_before_a_device_is_called_full() -> None:
    device = HostDevice(memory_bytes=4 * GRAIN_BYTES)
    queue = device.queue()
    kept = queue.empty((GRAIN_BYTES,), BYTES)
    del_me = [queue.empty((GRAIN_BYTES,), BYTES) for _ in range(3)]
    with pytest.raises(DeviceMemoryError):
        queue.empty((2 * GRAIN_BYTES,), BYTES)
    del_me.clear()
    assert device.taken_bytes == 4 * GRAIN_BYTES
    large = queue.empty((3 * GRAIN_BYTES,), BYTES)
    with pytest.raises(DeviceMemoryError):
        queue.empty((1,), BYTES)
    assert len({kept.address, large.address}) == 2


def test_closing_frees_all_that_is_not_in_use() -> None:
    device = HostDevice()
    kept, dropped = device.queue().empty((1,), BYTES), device.queue().empty((1,), BYTES)
    del dropped
    device.close()
    assert device.taken_bytes == GRAIN_BYTES
    assert kept.nbytes == 1


def test_memory_dropped_by_the_garbage_collector_in_the_midst_of_the_pool_s_work() -> None:
    count = iter(range(1, 1 << 30))
    pool = Pool(lambda _: next(count), lambda _: None)

    def work() -> None:
        for size in range(300):
            ring: list[object] = [pool.memory(size * GRAIN_BYTES)]
            ring.append(ring)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=20)
    gc.set_threshold(*threshold)
    assert not thread.is_alive()


def test_host_memory_shows_who_does_not_wait_and_who_uses_what_is_gone() -> None:
    queue = HostDevice().queue()
    target = queue.empty((3,), BYTES)
    queue.upload(target.address, np.array([1, 2, 3], np.uint8))
    pending = DeviceArray(target.owner, target.address, target.shape, BYTES, (1,))
    other = queue.device.queue()
    assert (other.download(pending) == PATTERN).all()
    queue.wait()
    assert other.download(pending).tolist() == [1, 2, 3]
    gone = DeviceArray(None, target.address, target.shape, BYTES, (1,))
    del target, pending
    assert (other.download(gone) == PATTERN).all()


def test_parts_of_an_array_and_their_direction() -> None:
    array = DeviceArray("owner", 1000, (2, 3, 4, 3), np.dtype(np.uint16), (100, 32, 6, 2))
    assert array.nbytes == 144
    part = array.at(1)
    assert (part.address, part.shape, part.strides, part.owner) == (1100, (3, 4, 3), (32, 6, 2), "owner")
    assert array.left_to_right().mirrored
    assert array.left_to_right().at(0).mirrored
    assert not array.left_to_right().left_to_right().mirrored
    assert packed_strides((2, 3, 4), np.dtype(np.float32)) == (48, 16, 4)
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"{index} of 2"):
            array.at(index)


def test_a_gpu_that_is_not_there_is_an_error_of_the_machine() -> None:
    with pytest.raises(
        MachineError, match=r"^cudaSetDevice failed \(cudaError\w+: .+\): check the GPU with nvidia-smi"
    ):
        CudaDevice(99)


@pytest.mark.gpu
def test_a_gpu_has_a_name_and_says_when_it_is_full() -> None:
    with closing(CudaDevice()) as device:
        assert device.name
        with pytest.raises(DeviceMemoryError, match="cudaMalloc failed"):
            device.queue().empty((1 << 60,), BYTES)
        assert int(called("cudaMalloc", 1)) > 0
