"""The kernels: how they are compiled and laid out, and what they make, against the CPU's own crops and OpenCV."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.errors import MachineError
from deepscan.runtime.cuda.cuda_kernels import NAMES, cubin
from deepscan.runtime.cuda.device import Device
from deepscan.runtime.cuda.kernel_jobs import COPY, RESAMPLE, SUM_LUMA, WARP
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.crops import crop_rgb, region_rgb
from deepscan.runtime.media.color import BT601, BT709, IDENTITY, Color
from deepscan.runtime.media.device_work import DevicePicture, DeviceWork
from deepscan.runtime.media.frame_tasks import luma_signature, sample_places
from deepscan.runtime.media.frames import Frame, Picture, host_picture
from deepscan.runtime.media.geometry import Box, Geometry, Orientation
from deepscan.runtime.media.pyav_pictures import luma_sums
from tests.footage import ASTRONAUT, NO_FACE, PHONE, SWAPPED, TWO_FACES, open_video
from tests.runtime.cuda.device_frames import DEVICES, downloaded, frame_on_device, on_device
from tests.runtime.cuda.host_device import HostDevice, kernels_on_cpu

WIDTH, HEIGHT = 121, 91  # odd, so that planes of chroma are rounded up
ORIENTATIONS = [Orientation(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]
# Bits that count, pixels for each sample of chroma, Cb and Cr in one plane, bits below those of the samples.
LAYOUTS = {
    "yuv420p": (8, (2, 2), False, 0),
    "NV12": (8, (2, 2), True, 0),
    "P010": (16, (2, 2), True, 6),
    "yuv420p10": (10, (2, 2), False, 0),
    "yuv422p12": (12, (2, 1), False, 0),
    "yuv444p": (8, (1, 1), False, 0),
    "yuv410p": (8, (4, 4), False, 0),
}
# Boxes and sides: inside, beyond all borders, outside; shrunk 8 times, grown 4 times, whole pixels as they are.
CROPS: list[tuple[Box, int]] = [
    ((10.3, 7.7, 60.1, 57.5), 32),
    ((-20.5, -30.25, 150.0, 140.25), 20),
    ((100.0, 80.0, 400.0, 380.0), 16),
    ((1.0, 2.0, 81.0, 82.0), 10),
    ((20.2, 30.1, 29.2, 39.1), 36),
    ((5.0, 6.0, 37.0, 38.0), 32),
]


@pytest.fixture(params=DEVICES, scope="module")
def work(request: pytest.FixtureRequest) -> Iterator[DeviceWork]:
    device: Device = request.param()
    with closing(device):
        yield DeviceWork(device.queue())


def random_frame(
    layout: str,
    color: Color,
    *,
    left_chroma: bool = True,
    orientation: Orientation = Orientation(),  # noqa: B008
    pixel_aspect: float = 1.0,
) -> Frame:
    """Return a frame of noise, which shows every sample that is taken wrongly."""
    depth, (across, down), _, below = LAYOUTS[layout]
    generator = np.random.default_rng(0)
    kind = np.uint8 if depth == 8 else np.uint16
    shapes = [(HEIGHT, WIDTH), *[(-(-HEIGHT // down), -(-WIDTH // across))] * 2]
    planes = [(generator.integers(0, 1 << (depth - below), shape) << below).astype(kind) for shape in shapes]
    picture = Picture(tuple(planes), depth, color, left_chroma)
    return Frame(0, 0.0, picture, Geometry(WIDTH, HEIGHT, pixel_aspect, orientation), None)


def differences(work: DeviceWork, frame: Frame, crops: list[tuple[Box, int]], **layout: bool) -> NDArray[np.int64]:
    """Return by how many levels the device's crops differ from the CPU's, all samples of all crops."""
    moved = frame_on_device(work, frame, **layout)
    targets = [crop_rgb(moved, box, size) for box, size in crops]
    work.finish()
    pairs = [
        (downloaded(work.queue, target), host_array(crop_rgb(frame, box, size)))
        for target, (box, size) in zip(targets, crops, strict=True)
    ]
    return np.concatenate([np.abs(got.astype(int) - expected).ravel() for got, expected in pairs])


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)], ids=str)
def test_the_kernels_compile_for_gpus_from_turing_to_blackwell_without_a_remark(capability: tuple[int, int]) -> None:
    code, remarks = cubin(capability)
    assert code.startswith(b"\x7fELF")
    assert remarks == ""
    assert NAMES == ("resample", "warp", "copy_items", "sum_luma")
    assert all(b".text." + name.encode() in code for name in NAMES)


def test_a_gpu_that_the_compiler_does_not_know_is_named() -> None:
    with pytest.raises(MachineError, match=r"for compute capability 3\.0 \(.+\): run `.+ install --upgrade nvidia-"):
        cubin((3, 0))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("plane", RESAMPLE["plane"].base), ("resample", RESAMPLE), ("warp", WARP), ("copy", COPY), ("sum_luma", SUM_LUMA)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tables_are_laid_out_as_the_kernels_read_them(name: str, kind: np.dtype[Any]) -> None:
    assert kind.names is not None
    assert kind.fields is not None
    offsets = (ctypes.c_int * len(kind.names)).in_dll(kernels_on_cpu(), f"{name}_offsets")
    assert list(offsets) == [kind.fields[member][1] for member in kind.names]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("color", [Color(BT709, full_range=False), Color(BT601, full_range=True)], ids=str)
@pytest.mark.parametrize("left_chroma", [True, False])
def test_crops_of_noise_are_those_of_the_cpu(work: DeviceWork, layout: str, color: Color, *, left_chroma: bool) -> None:
    frame = random_frame(layout, color, left_chroma=left_chroma)
    apart = differences(work, frame, CROPS, interleaved=LAYOUTS[layout][2])
    assert apart.max() <= 3  # one level of chroma makes 2.1
    # Where the height of chroma shrinks much more than its width, Pillow filters columns first: measured 0.09.
    assert apart.mean() < (0.15 if layout == "yuv422p12" else 0.01)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_crops_of_turned_pictures_are_those_of_the_cpu(work: DeviceWork, orientation: Orientation) -> None:
    frame = random_frame("NV12", Color(BT709, full_range=False), orientation=orientation)
    apart = differences(work, frame, CROPS, interleaved=True)
    assert apart.max() <= 3
    assert apart.mean() < 0.03


def test_crops_of_stretched_pixels_are_those_of_the_cpu(work: DeviceWork) -> None:
    turned = Orientation(transpose=True, flip_y=True)
    frame = random_frame("NV12", Color(BT709, full_range=False), orientation=turned, pixel_aspect=16 / 11)
    apart = differences(work, frame, CROPS, interleaved=True)
    assert apart.max() <= 4
    assert apart.mean() < 0.3  # measured 0.16: Pillow's order of passes


@pytest.mark.parametrize("planes", ["gray", "GBR"])
@pytest.mark.parametrize("full_range", [True, False])
def test_crops_of_gray_pictures_and_of_colors_themselves(work: DeviceWork, planes: str, *, full_range: bool) -> None:
    color = Color(IDENTITY if planes == "GBR" else BT709, full_range)
    frame = random_frame("yuv444p", color)
    if planes == "gray":
        picture = Picture(host_picture(frame).planes[:1], 8, color, left_chroma=False)
        frame = Frame(0, 0.0, picture, frame.geometry, None)
    apart = differences(work, frame, CROPS)
    assert apart.max() <= 2
    assert apart.mean() < 0.01


@pytest.mark.parametrize("path", [ASTRONAUT, TWO_FACES, NO_FACE, PHONE, SWAPPED], ids=lambda path: path.stem)
def test_crops_of_real_frames_are_those_of_the_cpu(work: DeviceWork, path: Path) -> None:
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        width, height = frame.geometry.width, frame.geometry.height
        boxes = [(0.31 * width, 0.2 * height, 0.31 * width + side, 0.2 * height + side) for side in (40.5, 150, 300)]
        crops = [(box, size) for box in boxes for size in (64, 160)]
        for interleaved in (False, True):
            apart = differences(work, frame, crops, interleaved=interleaved)
            assert apart.max() <= 2
            assert apart.mean() < 0.005


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_whole_pixels_of_a_frame_are_exactly_those_of_the_cpu(work: DeviceWork, orientation: Orientation) -> None:
    frame = random_frame("yuv444p", Color(BT709, full_range=False), orientation=orientation)
    moved = frame_on_device(work, frame)
    width, height = frame.geometry.width, frame.geometry.height
    for box in [(0, 0, width, height), (-3, 2, 40, 60), (100, 70, 140, 100)]:
        region = region_rgb(moved, box)
        work.finish()
        assert np.array_equal(downloaded(work.queue, region), host_array(region_rgb(frame, box)))


numbers = st.floats(-60, 160)


@settings(max_examples=60)
@given(numbers, numbers, st.floats(0.01, 150), st.integers(1, 48), st.sampled_from(ORIENTATIONS))
def test_any_square_of_any_picture(x: float, y: float, side: float, size: int, orientation: Orientation) -> None:
    work = DeviceWork(HostDevice().queue())
    frame = random_frame("NV12", Color(BT709, full_range=False), orientation=orientation)
    apart = differences(work, frame, [((x, y, x + side, y + side), size)], interleaved=True)
    assert apart.max() <= 8
    assert apart.mean() < 1


def warps(work: DeviceWork, picture: NDArray[np.uint8], matrices: list[NDArray[np.float64]]) -> NDArray[np.int64]:
    """Return by how much the device's warps differ from OpenCV's."""
    source = on_device(work.queue, picture, row_gap=7)
    target = work.warped([source] * len(matrices), matrices, 48)
    work.finish()
    expected = np.stack([cv2.warpAffine(picture, matrix, (48, 48)) for matrix in matrices])
    return np.abs(work.queue.download(target).astype(int) - expected)


def similarity_matrix(turn: float, scale: float, x: float, y: float) -> NDArray[np.float64]:
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[cosine, -sine, x], [sine, cosine, y]])


@settings(max_examples=100)
@given(st.floats(-4, 4), st.floats(0.05, 8), st.floats(-200, 200), st.floats(-200, 200))
def test_any_similarity_warps_as_opencv_does(turn: float, scale: float, x: float, y: float) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    work = DeviceWork(HostDevice().queue())
    apart = warps(work, picture, [similarity_matrix(turn, scale, x, y)])
    # All but places that lie between two steps of 1/32 pixel to the last bit of a float64.
    assert (apart == 0).mean() > 0.999


def test_warps_are_opencv_s_and_black_outside(work: DeviceWork) -> None:
    picture = np.random.default_rng(2).integers(1, 256, (61, 83, 3), dtype=np.uint8)
    places = [(0.0, 1.0, 0.0, 0.0), (0.3, 0.7, 5.0, -4.0), (3.1, 2.5, 60.0, 70.0), (0.0, 1.0, 500.0, 0.0)]
    matrices = [similarity_matrix(*place) for place in places]
    assert warps(work, picture, matrices).max() == 0


def test_what_leads_nowhere_or_far_away_is_black(work: DeviceWork) -> None:
    source = on_device(work.queue, np.full((8, 8, 3), 77, np.uint8))
    nothing = work.nothing_yet((0, 5, 3))
    away = similarity_matrix(0.5, 1e-12, -1.0, -1.0)  # all summands are beyond 32 bits
    target = work.warped([source, nothing, source], [np.zeros((2, 3)), np.eye(2, 3), away], 4)
    work.finish()
    assert not work.queue.download(target).any()


def test_jobs_of_many_sizes_in_one_table_touch_only_their_own_pixels(work: DeviceWork) -> None:
    generator = np.random.default_rng(3)
    pictures = [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in [(1, 70), (40, 3)]]
    space = on_device(work.queue, np.full((300, 3), 9, np.uint8))
    table, sources = np.zeros(2, COPY), [on_device(work.queue, picture) for picture in pictures]
    for job, source, place in zip(table, sources, (10, 100), strict=True):
        job["height"], job["width"] = source.shape[:2]
        job["source"], job["target"] = source.address, space.at(place).address
    work.queue.run("copy_items", table)
    expected = np.full((300, 3), 9, np.uint8)
    expected[10:80], expected[100:220] = pictures[0].reshape(-1, 3), pictures[1].reshape(-1, 3)
    assert np.array_equal(work.queue.download(space), expected)


@pytest.mark.parametrize("path", [ASTRONAUT, PHONE], ids=lambda path: path.name)
@pytest.mark.parametrize("high", [False, True], ids=["as decoded", "in the high bits of 16"])
def test_shot_boundaries_are_found_by_the_same_numbers(work: DeviceWork, path: Path, high: bool) -> None:
    with open_video(str(path), threads=1) as reader:
        frame = next(iter(reader.frames()))
    luma, depth = host_picture(frame).planes[0], frame.picture.bit_depth
    if high:
        luma, depth = luma.astype(np.uint16) << (16 - depth), 16
    sums = luma_sums(work.queue, on_device(work.queue, luma, row_gap=6))
    picture = DevicePicture((), depth, frame.picture.color, True, work, work.queue.download(sums))
    np.testing.assert_array_equal(luma_signature(picture), luma_signature(frame.picture))


@given(st.integers(1, 300), st.integers(1, 300))
def test_blocks_of_any_plane_are_added_up(height: int, width: int) -> None:
    plane = np.random.default_rng(height * width).integers(0, 1 << 16, (height, width)).astype(np.uint16)
    queue = HostDevice().queue()
    found = queue.download(luma_sums(queue, on_device(queue, plane)))
    rows, columns = sample_places(plane.shape)
    expected = plane[rows[:, None], columns].astype(np.uint64).reshape(16, 6, 16, 6).sum(axis=(1, 3))
    np.testing.assert_array_equal(found, expected)
