"""Faces of frames on a device against those of the same frames on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.cuda.device import Device
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.crops import crop_rgb
from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE, WholePicture
from deepscan.runtime.faces.frame_inputs import INPUTS_KEPT, FrameInputs
from deepscan.runtime.faces.yunet import YuNet, aligned
from deepscan.runtime.media.device_work import DeviceWork
from deepscan.runtime.media.frames import DeviceFrame, Frame
from deepscan.runtime.media.pyav_reader import PyAVReader
from deepscan.runtime.system.machine import Device as DeviceName
from tests.footage import ASTRONAUT, NO_FACE, PHONE, SWAPPED, TWO_FACES, open_video
from tests.runtime.cuda.device_frames import DEVICES, device_frame, downloaded, frame_on_device
from tests.runtime.cuda.host_device import HostDevice
from tests.runtime.faces.test_yunet import overlap

PATHS = [ASTRONAUT, TWO_FACES, SWAPPED, PHONE, NO_FACE]
# In pixels, where nothing differs but the last digits of colors.
SAME = 0.1
SQUARE = 470  # no multiple of 32


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    made: Device = request.param()
    return made


@pytest.fixture(scope="module")
def detector(device: Device) -> YuNet:
    return YuNet(device=name_of(device), threads=1)


def name_of(device: Device) -> DeviceName:
    return "cpu" if isinstance(device, HostDevice) else "cuda"


@pytest.fixture
def work(device: Device) -> Iterator[DeviceWork]:
    made = DeviceWork(device.queue())
    yield made
    made.finish()


def frames_of(path: Path, count: int, *, every: int = 20) -> list[tuple[Frame, Faces]]:
    """Return frames as decoded, and what is found in them on the CPU."""
    on_cpu = YuNet(device="cpu", threads=1)
    with open_video(str(path), threads=1) as reader:
        frames = list(islice(reader.frames(), 0, count * every, every))
        return [(frame, on_cpu.detect(shrunk(reader, frame)[None])[0]) for frame in frames]


def shrunk(reader: PyAVReader, frame: Frame) -> NDArray[np.uint8]:
    return reader.shrink(frame, DETECTION_SIDE)


def unshrunk(work: DeviceWork, frame: Frame, side: int = DETECTION_SIDE, *, interleaved: bool = True) -> DeviceFrame:
    width, height = frame.geometry.shrunk(side)
    return device_frame(work, frame, (height, width, 3), interleaved=interleaved)


def assert_nearly(found: Faces, expected: Faces) -> None:
    """Allow for another filter: FFmpeg's, of which a face of 100 pixels moved by 3 once."""
    assert len(found) == len(expected)
    # The best comes first, and two may be equally good.
    nearest = [int(np.abs(found.boxes - box).max(axis=1).argmin()) for box in expected.boxes]
    assert sorted(nearest) == list(range(len(found)))
    for place, box in zip(nearest, expected.boxes, strict=True):
        assert overlap(found.boxes[place], box) > 0.9
    np.testing.assert_allclose(found.landmarks[nearest], expected.landmarks, atol=2.5)
    np.testing.assert_allclose(found.scores[nearest], expected.scores, atol=0.05)


def assert_identical(a: Faces, b: Faces) -> None:
    for name in ("boxes", "landmarks", "scores"):
        assert np.array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_frames_on_a_device_have_the_faces_that_they_have_on_the_cpu(
    detector: YuNet, work: DeviceWork, path: Path, interleaved: bool
) -> None:
    frames = frames_of(path, 3)
    found = detector.detect_frames([unshrunk(work, frame, interleaved=interleaved) for frame, _ in frames])
    assert len(found) == 3
    assert any(len(faces) for faces in found) == (path != NO_FACE)
    for faces, (_, expected) in zip(found, frames, strict=True):
        assert_nearly(faces, expected)


@pytest.mark.parametrize("path", [TWO_FACES, PHONE], ids=lambda path: path.stem)
def test_scaled_by_the_same_filter_they_have_the_very_same_faces(detector: YuNet, work: DeviceWork, path: Path) -> None:
    for frame, _ in frames_of(path, 2):
        whole = (0.0, 0.0, frame.geometry.width, frame.geometry.height)
        [expected] = detector.detect(host_array(crop_rgb(frame, whole, SQUARE))[None, ..., ::-1])
        [found] = detector.detect_frames([device_frame(work, frame, (SQUARE, SQUARE, 3))])
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=SAME)
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=SAME)


def test_a_frame_does_not_feel_its_neighbors(detector: YuNet, device: Device, work: DeviceWork) -> None:
    frames = [frame for path in (TWO_FACES, NO_FACE, ASTRONAUT) for frame, _ in frames_of(path, 1)]
    alone = [detector.detect_frames([unshrunk(work, frame)])[0] for frame in frames]
    assert [len(faces) for faces in alone] == [2, 0, 1]
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 0]):
        together = detector.detect_frames([unshrunk(work, frames[place]) for place in order])
        for place, faces in zip(order, together, strict=True):
            if isinstance(device, HostDevice):
                assert_identical(faces, alone[place])
            else:  # CUDA's kernels are chosen for each batch size
                assert_nearly(faces, alone[place])


def test_other_work_that_was_noted_before_is_done_too(detector: YuNet, work: DeviceWork) -> None:
    [(frame, _)] = frames_of(ASTRONAUT, 1)
    crop = crop_rgb(frame_on_device(work, frame), (100.0, 50.0, 200.0, 150.0), 64)
    detector.detect_frames([unshrunk(work, frame)])
    assert np.array_equal(downloaded(work.queue, crop), host_array(crop_rgb(frame, (100.0, 50.0, 200.0, 150.0), 64)))


def what_it_gets(device: Device) -> FrameInputs:
    """Return inputs of a network that gives back what it is given."""
    shape: list[str | int | None] = ["n", 3, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["seen"])],
        "identity",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("seen", TensorProto.FLOAT, shape)],
    )
    model: onnx.ModelProto = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    session = Session(model.SerializeToString(), source="identity.onnx", device=name_of(device), threads=1)
    return FrameInputs(session, "input", aligned)


def test_the_network_gets_bgr_with_zeros_behind_whatever_shape_came_before(device: Device, work: DeviceWork) -> None:
    inputs = what_it_gets(device)
    frames = [frame for path in (ASTRONAUT, TWO_FACES) for frame, _ in frames_of(path, 1)]
    for side in (120, 97, 120, 127):  # the network sees 128 of all
        seen = inputs.run([device_frame(work, frame, (side, side, 3)) for frame in frames])["seen"]
        assert seen.shape == (2, 3, 128, 128)
        assert not seen[:, :, side:].any()
        assert not seen[:, :, :, side:].any()
        for picture, frame in zip(seen, frames, strict=True):
            whole = (0.0, 0.0, frame.geometry.width, frame.geometry.height)
            expected = host_array(crop_rgb(frame, whole, side))[..., ::-1].transpose(2, 0, 1)
            np.testing.assert_allclose(picture[:, :side, :side], expected, atol=2)


def test_batches_are_run_in_sizes_of_powers_of_four(device: Device, work: DeviceWork) -> None:
    inputs, [(frame, _), (other, _)] = what_it_gets(device), frames_of(ASTRONAUT, 2)
    full = inputs.run([unshrunk(work, other, 64)] * 4)["seen"].copy()
    for count in range(1, 6):
        seen = inputs.run([unshrunk(work, frame, 64)] * count)["seen"]
        assert len(seen) == count
        assert all(np.array_equal(picture, seen[0]) for picture in seen)
        assert not np.array_equal(seen[0], full[0])
    assert {size for size, _, _ in inputs.bound} == {1, 4, 16}


def test_only_the_inputs_that_were_used_last_are_kept(device: Device, work: DeviceWork) -> None:
    inputs, [(frame, _)] = what_it_gets(device), frames_of(ASTRONAUT, 1)
    sides = [64 + 8 * number for number in range(INPUTS_KEPT + 2)]
    for side in (*sides[:INPUTS_KEPT], sides[0], *sides[INPUTS_KEPT:]):
        inputs.run([unshrunk(work, frame, side)])
        assert len(inputs.bound) <= INPUTS_KEPT
    kept = {width for _, _, width in inputs.bound}
    assert kept == {sides[0], *sides[3:]}


def test_a_whole_picture_is_one_face(work: DeviceWork) -> None:
    [(frame, _)] = frames_of(NO_FACE, 1)
    [faces] = WholePicture().detect_frames([unshrunk(work, frame, 320)])
    assert faces.boxes.tolist() == [[0, 0, 320, 180]]
    assert_identical(faces, WholePicture().detect(np.zeros((1, 180, 320, 3), np.uint8))[0])
