"""Frames on a device hold what the CPU decodes, last longer than the decoder's memory, and fail towards the CPU."""

from __future__ import annotations

import ctypes
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from deepscan.errors import DeviceMemoryError
from deepscan.options import DecoderChoice
from deepscan.runtime.cuda.device import DeviceArray
from deepscan.runtime.cuda.nvdec import DecodeCaps, Nvdec
from deepscan.runtime.media.decoder_choice import DecoderCounts, DecoderLost, DeviceDecoding
from deepscan.runtime.media.device_work import DevicePicture, DeviceWork
from deepscan.runtime.media.frames import Frame, Picture, host_picture
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.picture_reader import PictureReader
from deepscan.runtime.media.pyav_pictures import picture_on_device
from deepscan.runtime.media.pyav_reader import PyAVReader
from deepscan.runtime.system.regular_files import open_regular_file
from tests.footage import ASTRONAUT, PHONE, SWAPPED, counting, noise, open_video, quadrants, write_video
from tests.runtime.cuda.device_frames import device_picture, high_bits, turned_video
from tests.runtime.cuda.host_device import HostDevice
from tests.runtime.stills import encoded, photo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.cuda.device import Device

SEMI_PLANAR = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
LARGE = DecodeCaps(1, 16, 16, 8192, 8192, 262144, frozenset(["nv12", "p016"]))
EVERYTHING = Nvdec({(codec, "420", bits): LARGE for codec in ("h264", "hevc", "vp8", "vp9") for bits in (8, 10)})
H264_KEY_SLICE = b"\0\0\1\x65"
# CUDA numbers no GPU like this, so that NVDEC cannot be used on any machine.
NO_GPU = 99


class SoftwareNvdec(PyAVReader):
    """Decodes on the CPU, hands the frames out as NVDEC does, in NV12 and P010, and then does as with NVDEC."""

    def _choose(self, decoding: DeviceDecoding) -> None:
        decoding.counts.count(None)
        self._queue = decoding.queue()

    def _picture(self, native: av.VideoFrame) -> tuple[Picture | DevicePicture, av.VideoFrame | None]:
        if self._queue is None or self._decoding is None:
            return super()._picture(native)
        semi_planar = as_nvdec(native)
        picture = self._copied(semi_planar, self._queue, self._decoding)
        scribble(semi_planar)
        return picture, None


def as_nvdec(native: av.VideoFrame) -> av.VideoFrame:
    """Return a frame with its chroma samples in turns, otherwise the same."""
    return native.reformat(format=SEMI_PLANAR[native.format.name])


def scribble(native: av.VideoFrame) -> None:
    """Overwrite a frame, as its decoder will."""
    for plane in native.planes:
        ctypes.memset(plane.buffer_ptr, 0x5A, plane.buffer_size)


def decoding_on(device: Device, *, ordinal: int = NO_GPU, requested: DecoderChoice = "nvdec") -> DeviceDecoding:
    return DeviceDecoding(ordinal, device, DeviceWork(device.queue()), EVERYTHING, requested, DecoderCounts())


def stand_in(path: Path, decoding: DeviceDecoding) -> SoftwareNvdec:
    return SoftwareNvdec(str(path), open_regular_file(str(path)), threads=1, decoding=decoding)


def on_host(plane: DeviceArray) -> NDArray[Any]:
    """View a plane in host memory that is a device's; valid while the plane is."""
    size = plane.strides[0] * (plane.shape[0] - 1) + plane.strides[1] * (plane.shape[1] - 1) + plane.kind.itemsize
    memory = (ctypes.c_uint8 * size).from_address(plane.address)
    return np.ndarray(plane.shape, plane.kind, memoryview(memory), strides=plane.strides)


def assert_same_frame(device: Frame, cpu: Frame) -> None:
    assert (device.index, device.pts_seconds, device.geometry) == (cpu.index, cpu.pts_seconds, cpu.geometry)
    assert device.picture.bit_depth == (8 if cpu.picture.bit_depth == 8 else 16)
    assert device.picture.color == cpu.picture.color
    assert device.picture.left_chroma == cpu.picture.left_chroma
    assert device.key_frame == cpu.key_frame
    for plane, expected in zip(device_picture(device).planes, host_picture(cpu).planes, strict=True):
        np.testing.assert_array_equal(on_host(plane), high_bits(expected, cpu.picture.bit_depth))


def assert_same_planes(one: Frame, other: Frame) -> None:
    """Compare frames that the CPU decoded."""
    assert all(map(np.array_equal, host_picture(one).planes, host_picture(other).planes))


def filled(native: av.VideoFrame, kind: type[np.generic]) -> list[NDArray[Any]]:
    """Fill a frame of two planes with numbers, and return Y [H, W], Cb and Cr [H / 2, W / 2], both rounded up."""
    generator = np.random.default_rng(0)
    planes = []
    for plane, channels in zip(native.planes, (1, 2), strict=True):
        rows = generator.integers(0, 256, (plane.height, plane.line_size), np.uint8)
        plane.update(rows.tobytes())
        planes += [rows.view(kind)[:, channel : plane.width * channels : channels] for channel in range(channels)]
    return planes


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (1, 1), (3, 2), (2, 5)], ids=str)
@pytest.mark.parametrize(("layout", "kind"), [("nv12", np.uint8), ("p010le", np.uint16), ("p016le", np.uint16)])
@pytest.mark.parametrize("full_range", [False, True])
def test_planes_are_copied_exactly(
    size: tuple[int, int], layout: str, kind: type[np.generic], full_range: bool
) -> None:
    device = HostDevice()
    work = DeviceWork(device.queue())
    native = av.VideoFrame(*size, layout)
    expected = filled(native, kind)
    native.colorspace, native.color_range = 9, 2 if full_range else 1
    picture = picture_on_device(native, left_chroma=True, queue=device.queue(), work=work)
    scribble(native)
    for there, here in zip(picture.planes, expected, strict=True):
        np.testing.assert_array_equal(on_host(there), here)
    assert (picture.color.matrix, picture.color.full_range) == (9, full_range)
    assert (picture.bit_depth, picture.left_chroma, picture.work) == (8 * kind().itemsize, True, work)
    width, height = size
    halves = (height + 1) // 2, (width + 1) // 2
    assert [plane.shape for plane in picture.planes] == [(height, width), halves, halves]


@pytest.mark.parametrize("number", range(3))
def test_each_plane_keeps_its_numbers_without_the_others(number: int) -> None:
    queue = HostDevice().queue()
    native = av.VideoFrame(64, 48, "nv12")
    expected = filled(native, np.uint8)[number]
    picture = picture_on_device(native, left_chroma=True, queue=queue, work=DeviceWork(queue))
    plane = picture.planes[number]
    del picture
    np.testing.assert_array_equal(on_host(plane), expected)


def test_the_memory_is_used_again_once_the_planes_are_gone() -> None:
    device = HostDevice()
    queue = device.queue()
    work = DeviceWork(queue)
    semi_planar = av.VideoFrame(640, 480, "nv12")
    for _ in range(20):
        picture = picture_on_device(semi_planar, left_chroma=True, queue=queue, work=work)
        assert picture.nbytes == 640 * 480 * 1.5
    assert device.taken_bytes < 4 * 640 * 480 * 1.5


def test_other_layouts_are_refused() -> None:
    queue = HostDevice().queue()
    native = av.VideoFrame(64, 48, "yuv444p")
    with pytest.raises(DecoderLost, match="yuv444p"):
        picture_on_device(native, left_chroma=True, queue=queue, work=DeviceWork(queue))


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_that_only_a_frame_tells_is_left_to_the_cpu(transfer: int) -> None:
    queue = HostDevice().queue()
    native = av.VideoFrame(64, 48, "nv12")
    native.color_trc = transfer
    with pytest.raises(DecoderLost, match="HDR"):
        picture_on_device(native, left_chroma=True, queue=queue, work=DeviceWork(queue))


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return turned_video(tmp_path_factory.mktemp("turned") / "video.mp4")


@pytest.mark.parametrize("name", ["h264", "hevc-10", "turned"])
def test_a_device_reader_gives_what_the_cpu_gives(name: str, turned: Path) -> None:
    path = {"h264": ASTRONAUT, "hevc-10": PHONE, "turned": turned}[name]
    decoding = decoding_on(HostDevice())
    with stand_in(path, decoding) as device, open_video(str(path), threads=1) as cpu:
        pairs = list(zip(islice(device.frames(), 12), islice(cpu.frames(), 12), strict=True))
        assert device.info == cpu.info
        for there, here in pairs:
            assert_same_frame(there, here)
        for longest_side in (7, 640):
            height, width, _ = cpu.shrink(pairs[0][1], longest_side).shape
            assert pairs[0][0].geometry.shrunk(longest_side) == (width, height)
    assert (decoding.counts.nvdec, decoding.counts.cpu) == (1, {})


def test_seeking_gives_the_same_frames() -> None:
    wanted = [0.0, 0.5, 1.2, 2.0]
    with stand_in(ASTRONAUT, decoding_on(HostDevice())) as device, open_video(str(ASTRONAUT), threads=1) as cpu:
        pairs = zip(
            device.frames_at(wanted, tolerance_seconds=0.2), cpu.frames_at(wanted, tolerance_seconds=0.2), strict=True
        )
        for there, here in pairs:
            assert_same_frame(there, here)
    with stand_in(ASTRONAUT, decoding_on(HostDevice())) as device, open_video(str(ASTRONAUT), threads=1) as cpu:
        windows = zip(
            device.windows(wanted, 2, tolerance_seconds=0.2), cpu.windows(wanted, 2, tolerance_seconds=0.2), strict=True
        )
        for (number, there), (expected, here) in windows:
            assert number == expected
            assert_same_frame(there, here)


def test_without_nvdec_the_cpu_decodes_and_the_reason_is_counted() -> None:
    decoding = decoding_on(HostDevice())
    with (
        open_input(str(ASTRONAUT), threads=1, decoding=decoding) as reader,
        open_video(str(ASTRONAUT), threads=1) as cpu,
    ):
        for there, here in zip(islice(reader.frames(), 5), islice(cpu.frames(), 5), strict=True):
            assert_same_planes(there, here)
        assert reader.info == cpu.info
    [(reason, count)] = decoding.counts.cpu.items()
    assert reason.startswith("no decoder on the GPU (")
    assert (decoding.counts.nvdec, count) == (0, 1)


@pytest.mark.parametrize(
    ("path", "requested", "reason"),
    [
        (SWAPPED, "nvdec", "av1 is always decoded by the CPU"),
        (ASTRONAUT, "auto", "small videos decode faster on the CPU"),
        (ASTRONAUT, "cpu", "the CPU was asked for"),
    ],
)
def test_what_is_the_cpus_is_never_reopened(path: Path, requested: DecoderChoice, reason: str) -> None:
    decoding = decoding_on(HostDevice(), requested=requested)
    with open_input(str(path), threads=1, decoding=decoding) as reader:
        assert isinstance(next(iter(reader.frames())).picture, Picture)
    assert (decoding.counts.nvdec, decoding.counts.cpu) == (0, {reason: 1})


def test_pictures_are_no_decoders_business(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(photo(), "PNG"))
    decoding = decoding_on(HostDevice())
    with open_input(str(path), threads=1, decoding=decoding) as reader:
        assert isinstance(reader, PictureReader)
    assert (decoding.counts.nvdec, decoding.counts.cpu) == (0, {})


@pytest.mark.parametrize("seeking", [False, True])
def test_a_gpu_without_memory_leaves_the_video_to_the_cpu(tmp_path: Path, seeking: bool) -> None:
    path = write_video(tmp_path / "video.mkv", counting(50), options={"g": "10"})
    decoding = decoding_on(HostDevice(memory_bytes=0))

    def frames(reader: PyAVReader) -> list[Frame]:
        return list(reader.frames_at([1.0, 1.5], tolerance_seconds=0.0) if seeking else reader.frames())

    with stand_in(path, decoding) as reader, open_video(str(path), threads=1) as cpu:
        found, expected = frames(reader), frames(cpu)
        assert [(frame.index, frame.pts_seconds) for frame in found] == [
            (one.index, one.pts_seconds) for one in expected
        ]
        for one, other in zip(found, expected, strict=True):
            assert_same_planes(one, other)
        assert reader.warnings() == cpu.warnings()
    [(reason, count)] = decoding.counts.cpu.items()
    assert reason.startswith("NVDEC's picture cannot be used (")
    assert (decoding.counts.nvdec, count) == (0, 1)


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_damage_is_counted_once_where_the_cpu_starts_again(tmp_path: Path, memory_bytes: int) -> None:
    path = write_video(tmp_path / "video.ts", noise(12), codec="mpeg2video", time_base=Fraction(1, 25))
    data = bytearray(path.read_bytes())
    data[2500:2800] = bytes(300)
    path.write_bytes(data)
    decoding = decoding_on(HostDevice(memory_bytes))
    with stand_in(path, decoding) as reader, open_video(str(path), threads=1) as cpu:
        assert next(cpu.frames()).native.is_corrupt
        assert [type(frame.picture) for frame in reader.frames()] == [Picture] * 12
        assert reader.warnings() == cpu.warnings() is not None


def test_memory_that_runs_out_later_loses_the_decoder(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", counting(10))
    decoding = decoding_on(HostDevice(memory_bytes=3 << 16))
    kept: list[Frame] = []
    with stand_in(path, decoding) as reader, pytest.raises(DecoderLost) as lost:
        kept.extend(reader.frames())
    assert isinstance(lost.value.__cause__, DeviceMemoryError)
    assert (decoding.counts.nvdec, decoding.counts.cpu) == (0, {str(lost.value): 1})


def damaged(path: Path, share: float) -> Path:
    """Write an H.264 stream with slices of nonsense after this share of its frames."""
    data = write_video(path, noise(12), options={"g": "1"}).read_bytes()
    begin = data.index(H264_KEY_SLICE, int(share * len(data)))
    path.write_bytes(data[:begin] + (H264_KEY_SLICE + bytes([255] * 60)) * 3 + data[begin:])
    return path


def test_damage_in_the_middle_is_left_to_the_cpu(tmp_path: Path) -> None:
    """What a decoder on the GPU makes of it is not what the one on the CPU makes of it."""
    path = damaged(tmp_path / "video.h264", 0.5)
    decoding = decoding_on(HostDevice())
    seen: list[float] = []
    with stand_in(path, decoding) as reader, pytest.raises(DecoderLost, match="NVDEC failed") as lost:
        seen.extend(frame.pts_seconds for frame in reader.frames())
    assert seen
    assert (decoding.counts.nvdec, decoding.counts.cpu) == (0, {str(lost.value): 1})


def test_damage_from_the_start_is_left_to_the_cpu(tmp_path: Path) -> None:
    path = damaged(tmp_path / "video.h264", 0.0)
    decoding = decoding_on(HostDevice())
    with stand_in(path, decoding) as reader, open_video(str(path), threads=1) as cpu:
        pairs = list(zip(reader.frames(), cpu.frames(), strict=True))
        assert pairs
        for one, other in pairs:
            assert_same_planes(one, other)
        assert reader.warnings() == cpu.warnings() is not None
    [(reason, count)] = decoding.counts.cpu.items()
    assert reason.startswith("NVDEC failed (")
    assert (decoding.counts.nvdec, count) == (0, 1)


def test_pictures_that_change_their_size_are_left_to_the_cpu(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", [quadrants(64, 48)] * 5)
    large = write_video(tmp_path / "large.h264", [quadrants(96, 64)] * 5)
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    decoding = decoding_on(HostDevice())
    with stand_in(both, decoding) as reader, pytest.raises(DecoderLost, match="size"):
        list(reader.frames())
    assert (decoding.counts.nvdec, sum(decoding.counts.cpu.values())) == (0, 1)
