"""Crops on a device from what is asked for to the finished arrays, against what the CPU makes of the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.landmarks import caddm_target
from deepscan.models.ftcn import TARGET as VIDEO_TARGET
from deepscan.runtime.cuda.device import Device, DeviceArray, KernelName
from deepscan.runtime.cuda.pixels import Pixels, host_array, is_on_device, stacked
from deepscan.runtime.faces.alignment import aligned_clip, face_region, similarity_crop
from deepscan.runtime.faces.crops import crop_rgb, plane_boxes
from deepscan.runtime.media.device_work import DeviceWork, inverted
from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.geometry import Orientation
from tests.footage import ASTRONAUT, PHONE, open_video
from tests.runtime.cuda.device_frames import DEVICES, device_picture, downloaded, frame_on_device, on_device
from tests.runtime.cuda.host_device import HostDevice, HostQueue

# The five points of a face of 100 pixels around (0, 0).
FACE = np.array([(-20, -20), (20, -20), (0, 5), (-16, 30), (16, 30)], np.float32)


@pytest.fixture(params=DEVICES)
def work(request: pytest.FixtureRequest) -> Iterator[DeviceWork]:
    device: Device = request.param()
    with closing(device):
        yield DeviceWork(device.queue())


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Return the first frames of a video."""
    with open_video(str(ASTRONAUT), threads=1) as reader:
        return [frame for frame, _ in zip(reader.frames(), range(4), strict=False)]


def made(work: DeviceWork, pixels: Pixels) -> NDArray[np.uint8]:
    """Return what the device made."""
    work.finish()
    return downloaded(work.queue, pixels)


def assert_same(got: NDArray[Any], expected: NDArray[np.uint8]) -> None:
    """The target is a mean difference of 2 levels and 99.9 % within 8; this is what the kernels reach."""
    apart = np.abs(got.astype(int) - expected)
    assert got.shape == expected.shape
    assert apart.mean() < 0.01
    assert apart.max() <= 2


def faces_in(frames: list[Frame]) -> list[NDArray[np.float32]]:
    """Return points of a face that moves and turns, the last one half outside the picture."""
    width, height = frames[0].geometry.width, frames[0].geometry.height
    middles = [(width * 0.4 + 5 * number, height * 0.5) for number in range(len(frames) - 1)] + [(width - 10.0, 30.0)]
    return [(FACE + middle).astype(np.float32) for middle in middles]


def test_a_clip_is_aligned_from_regions_of_its_frames(work: DeviceWork, frames: list[Frame]) -> None:
    def clip(frames: list[Frame]) -> Any:
        regions = []
        for frame, points in zip(frames, faces_in(frames), strict=True):
            (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            regions.append(face_region(frame, (x0, y0, x1, y1), points, reach=0.5))
        return aligned_clip(regions, VIDEO_TARGET, 96)

    pixels = clip([frame_on_device(work, frame, interleaved=True) for frame in frames])
    assert pixels.work is work
    assert_same(made(work, pixels), clip(frames))


def test_faces_are_aligned_inside_across_the_border_and_outside(work: DeviceWork, frames: list[Frame]) -> None:
    moved = frame_on_device(work, frames[0], interleaved=True)
    for points in [*faces_in(frames), (FACE - 4000).astype(np.float32)]:
        crop = similarity_crop(moved, points, caddm_target(), 64)
        assert_same(made(work, crop), host_array(similarity_crop(frames[0], points, caddm_target(), 64)))


def test_crops_are_joined_to_a_clip_and_copied_mirrored_where_they_say_so(
    work: DeviceWork, frames: list[Frame]
) -> None:
    boxes = [(40.5 + 9 * number, 20.0, 140.5 + 9 * number, 120.0) for number in range(4)]
    moved = [frame_on_device(work, frame) for frame in frames]
    clip = stacked([crop_rgb(frame, box, 48) for frame, box in zip(moved, boxes, strict=True)])
    assert is_on_device(clip)
    assert clip.work is work
    expected = host_array(stacked([crop_rgb(frame, box, 48) for frame, box in zip(frames, boxes, strict=True)]))
    assert_same(made(work, clip), expected)
    on_it = work.queue.download(clip)

    batch = on_device(work.queue, np.full((3, 4, 48, 48, 3), 7, np.uint8))
    work.copied_into(batch, [clip, clip.left_to_right()])
    assert np.array_equal(made(work, batch), np.stack([on_it, on_it[:, :, ::-1], np.full_like(on_it, 7)]))


def test_pictures_are_shrunk_into_a_detector_s_input_and_nothing_beside_it(work: DeviceWork) -> None:
    with open_video(str(PHONE), threads=1) as reader:
        frame = next(reader.frames())
    assert frame.geometry.orientation != Orientation()
    width, height = frame.geometry.width // 3, frame.geometry.height // 3
    padded = on_device(work.queue, np.full((2, 3, height + 5, width + 9), -1, np.float32))
    inside = DeviceArray(padded.owner, padded.address, (2, 3, height, width), padded.kind, padded.strides)
    whole = (0.0, 0.0, float(frame.geometry.width), float(frame.geometry.height))
    moved = frame_on_device(work, frame, interleaved=True)
    picture, orientation = device_picture(moved), frame.geometry.orientation
    boxes = plane_boxes(picture, frame.geometry, whole)
    rgb = work.resampled(picture, boxes, orientation, width, height)
    work.shrunk_into(inside, [(picture, boxes, orientation)] * 2)
    tensor = made(work, padded)

    blue_green_red = work.queue.download(rgb)[..., ::-1].transpose(2, 0, 1)
    expected = np.full(padded.shape, -1, np.float32)
    expected[:, :, :height, :width] = blue_green_red
    assert np.array_equal(tensor, expected)


class CountingQueue(HostQueue):
    """Notes which kernels were begun, and with how many jobs."""

    def __init__(self, device: HostDevice) -> None:
        super().__init__(device)
        self.begun_kernels: list[tuple[str, int]] = []

    def run(self, kernel: KernelName, jobs: NDArray[Any]) -> None:
        self.begun_kernels.append((kernel, len(jobs)))
        super().run(kernel, jobs)


def test_all_crops_of_a_batch_are_made_by_one_launch_of_each_kernel(frames: list[Frame]) -> None:
    queue = CountingQueue(HostDevice())
    work = DeviceWork(queue)
    moved = [frame_on_device(work, frame) for frame in frames]
    queue.begun_kernels.clear()
    crops = [
        similarity_crop(frame, points, caddm_target(), 32)
        for frame, points in zip(moved, faces_in(frames), strict=True)
    ]
    stacked(crops)
    work.finish()
    work.finish()
    assert queue.begun_kernels == [("resample", 4), ("warp", 4), ("copy_items", 4)]


def test_frames_may_be_dropped_before_their_crops_are_made_and_are_given_back_afterwards(frames: list[Frame]) -> None:
    device = HostDevice()
    work = DeviceWork(device.queue())
    box = (30.0, 20.0, 130.0, 120.0)
    moved = frame_on_device(work, frames[0])
    work.queue.wait()
    crop = crop_rgb(moved, box, 40)
    del moved
    assert_same(made(work, crop), host_array(crop_rgb(frames[0], box, 40)))
    before = device.taken_bytes
    del crop
    device.close()
    assert before > frames[0].picture.nbytes
    assert device.taken_bytes == 0


def test_crops_may_be_dropped_before_they_are_warped_and_copied(work: DeviceWork) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    sources = [on_device(work.queue, picture) for _ in range(2)]
    work.queue.wait()
    warped = work.warped([sources.pop()], [np.eye(2, 3)], 20)
    stacked = work.stacked([sources.pop()])
    assert np.array_equal(made(work, warped)[0], picture)
    assert np.array_equal(made(work, stacked)[0], picture)


def test_the_opposite_of_a_matrix_leads_back_and_of_none_nowhere() -> None:
    matrix = np.array([[2.0, 1.0, 5.0], [-1.0, 3.0, -7.0]])
    there = matrix @ np.array([4.0, 6.0, 1.0])
    assert inverted(matrix) @ np.array([*there, 1.0]) == pytest.approx([4.0, 6.0])
    assert (inverted(np.zeros((2, 3))) @ np.array([50.0, 50.0, 1.0]) < -1).all()
