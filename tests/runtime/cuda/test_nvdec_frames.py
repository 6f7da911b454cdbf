"""NVDEC's frames are those that the CPU decodes; on a GPU only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deepscan.runtime.cuda.cuda_device import CudaDevice
from deepscan.runtime.cuda.device import DeviceArray
from deepscan.runtime.cuda.nvdec import nvdec
from deepscan.runtime.media.decoder_choice import DecoderCounts, DeviceDecoding
from deepscan.runtime.media.device_work import DevicePicture, DeviceWork
from deepscan.runtime.media.frames import host_picture
from deepscan.runtime.media.open_input import open_input
from tests.footage import ASTRONAUT, PHONE, open_video, quadrants, write_video
from tests.runtime.cuda.device_frames import high_bits, turned_video

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.cuda.device import Queue


def downloaded(plane: DeviceArray, queue: Queue) -> NDArray[Any]:
    """Return a copy of a plane from the GPU."""
    rows = plane.shape[0]
    row_bytes = plane.strides[0]
    whole = DeviceArray(plane.owner, plane.address, (rows, plane.shape[1] * plane.strides[1]), np.dtype(np.uint8), ())
    packed = queue.empty(whole.shape, whole.kind)
    queue.copy(packed.address, packed.strides[0], replace(whole, strides=(row_bytes, 1)))
    numbers = queue.download(packed).view(plane.kind).reshape(rows, -1)
    return numbers[:, :: plane.strides[1] // plane.kind.itemsize]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("codec", "pixel_format", "size"),
    [
        ("libx264", "yuv420p", (1280, 720)),
        ("libx264", "yuv420p", (1920, 1080)),  # coded as 1088 lines
        ("libx265", "yuv420p", (320, 240)),
        ("libx265", "yuv420p10le", (320, 240)),
        ("libvpx-vp9", "yuv420p", (321, 240)),  # of odd height it goes to the CPU
    ],
)
def test_nvdec_decodes_what_the_cpu_decodes(
    tmp_path: Path, codec: str, pixel_format: str, size: tuple[int, int]
) -> None:
    ending = "webm" if "vp9" in codec else "mp4"
    pictures = [np.roll(quadrants(*size), 8 * number, axis=1) for number in range(12)]
    path = write_video(tmp_path / f"video.{ending}", pictures, codec=codec, pixel_format=pixel_format)
    compare_on_gpu(path)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["h264", "hevc-10", "turned"])
def test_nvdec_decodes_the_examples(name: str, tmp_path: Path) -> None:
    compare_on_gpu({"h264": ASTRONAUT, "hevc-10": PHONE}.get(name) or turned_video(tmp_path / "video.mp4"))


def compare_on_gpu(path: Path) -> None:
    device = CudaDevice(0)
    queue = device.queue()
    decoding = DeviceDecoding(0, device, DeviceWork(queue), nvdec(), "nvdec", DecoderCounts())
    with (
        open_input(str(path), threads=1, decoding=decoding) as reader,
        open_video(str(path), threads=1) as cpu,
    ):
        for there, here in zip(reader.frames(), cpu.frames(), strict=True):
            assert isinstance(there.picture, DevicePicture), decoding.counts.cpu
            assert (there.pts_seconds, there.geometry) == (here.pts_seconds, here.geometry)
            assert there.picture.color == here.picture.color
            assert there.key_frame == here.key_frame
            for plane, expected in zip(there.picture.planes, host_picture(here).planes, strict=True):
                np.testing.assert_array_equal(downloaded(plane, queue), high_bits(expected, here.picture.bit_depth))
    assert (decoding.counts.nvdec, decoding.counts.cpu) == (1, {})
    device.close()
