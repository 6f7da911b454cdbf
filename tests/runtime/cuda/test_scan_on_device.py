"""Whole scans whose frames stay on a device, from the decoder to the detector, against scans on the CPU.

The device is the host's memory with the GPU's kernels, and a decoder that hands out NV12 and P010 as NVDEC does; all
else is what runs on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec import structs

from deepscan.limits import Limits
from deepscan.options import ScanOptions
from deepscan.results import VideoResult
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.batch_input import BatchInput
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from deepscan.runtime.media.decoder_choice import DecoderLost, DeviceDecoding
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.pipeline import pipeline_scan
from deepscan.runtime.pipeline.pipeline_scan import ON_CPU, ON_GPU, Decoders, PipelineScan
from deepscan.runtime.pipeline.settings import resolve_settings
from tests.footage import ASTRONAUT, NO_FACE, PHONE, SWAPPED
from tests.runtime.cuda.cuda_on_host import CudaDeviceOnHost, without_driver
from tests.runtime.cuda.host_device import HostDevice
from tests.runtime.cuda.test_device_frames import SoftwareNvdec, decoding_on, stand_in
from tests.runtime.tiny_detectors import tiny_clip_artifact, tiny_frame_artifact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Artifact
    from deepscan.runtime.backends.contract import Items
    from deepscan.runtime.media.frames import Frame, Reader

VIDEOS = [ASTRONAUT, NO_FACE, PHONE, SWAPPED]
EVERY_FRAME = ScanOptions(mirror=True)
ALLOWED = 0.01


class DeviceBackend:
    """ONNX Runtime on the CPU behind an input buffer on the device, as the backends on a GPU have it."""

    name = "onnxruntime-host"
    precision: Arithmetic = "fp32"

    def __init__(self, artifact: Artifact, device: HostDevice | CudaDeviceOnHost) -> None:
        self._backend = OnnxRuntimeBackend(artifact, device="cpu", threads=2, precision="fp32")
        self._shape = artifact.manifest.spec.item_shape
        self.max_batch = self._backend.max_batch
        self._queue = device.queue()
        self._buffer = self._queue.empty((self.max_batch, *self._shape), np.dtype(np.uint8))
        self._input = BatchInput(device, self._shape)
        self.on_device = 0

    def logits(self, batch: Items) -> NDArray[np.float32]:
        self.on_device += sum(not isinstance(item, np.ndarray) for item in batch)
        self._input.fill(self._buffer.address, batch)
        pixels: NDArray[np.uint8] = self._queue.download(self._buffer)
        return self._backend.logits(pixels[: len(batch)])

    def close(self) -> None:
        self._backend.close()


def opened(
    path: str, *, threads: int, decoding: DeviceDecoding | None = None, limits: Limits, moved: Callable[[], None]
) -> Reader:
    """Open a video; where there is a device, its stand-in for NVDEC."""
    return (
        open_input(path, threads=threads, limits=limits, moved=moved)
        if decoding is None
        else stand_in(Path(path), decoding)
    )


def results(
    videos: list[Path],
    model: str,
    options: ScanOptions,
    *,
    on: HostDevice | CudaDeviceOnHost | None,
    backends: list[DeviceBackend] | None = None,
) -> list[VideoResult]:
    """Scan; without what differs by nature from run to run and device to device."""
    settings = resolve_settings(structs.replace(options, model=model))
    artifact = load_artifact(model)
    decoding = decoding_on(on) if on is not None else None
    backend = OnnxRuntimeBackend(artifact, device="cpu", threads=2, precision="fp32") if on is None else None
    if on is not None:
        (backends := [] if backends is None else backends).append(DeviceBackend(artifact, on))
    scan = PipelineScan(
        [VideoJob(index, str(path)) for index, path in enumerate(videos)],
        settings=settings,
        face_detector=settings.load_face_detector("cpu"),
        backends=[backend] if backend is not None else backends or [],
        decoders=Decoders(2, 1, decoding),
        bounds=ON_CPU if on is None else ON_GPU,
    )
    found = sorted((result for finished in scan for result in finished), key=lambda result: result.row)
    return [structs.replace(result, elapsed_seconds=0.0, backend="") for result in found]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> HostDevice:
    monkeypatch.setattr(pipeline_scan, "open_input", opened)
    return HostDevice()


def assert_agree(found: list[VideoResult], expected: list[VideoResult]) -> None:
    for here, there in zip(found, expected, strict=True):
        assert (here.status, here.reason, here.label) == (there.status, there.reason, there.label)
        assert here.quality == there.quality
        assert (here.quality_details is None) == (there.quality_details is None)
        if here.quality_details is not None and there.quality_details is not None:  # boxes differ by parts of a pixel
            assert structs.astuple(here.quality_details) == pytest.approx(
                structs.astuple(there.quality_details), rel=0.02
            )
        assert (here.faces, here.tracks, here.clips, here.frames) == (
            there.faces,
            there.tracks,
            there.clips,
            there.frames,
        )
        assert (here.width, here.height, here.codec) == (there.width, there.height, there.codec)
        if there.score is not None and here.score is not None:
            assert abs(here.score - there.score) < ALLOWED
        else:
            assert here.score is there.score is None


def test_scores_of_frames_agree_with_those_of_the_cpu(device: HostDevice) -> None:
    backends: list[DeviceBackend] = []
    some = structs.replace(EVERY_FRAME, sampling="quick", frames=8)
    found = results(VIDEOS, "lite", some, on=device, backends=backends)
    expected = results(VIDEOS, "lite", some, on=None)
    assert [result.status for result in expected] == ["scored", "no_face", "scored", "scored"]
    assert_agree(found, expected)
    assert backends[0].on_device == 2 * sum(result.clips for result in found)


@pytest.mark.parametrize(("clips", "videos"), [(None, [NO_FACE, PHONE]), (2, VIDEOS)], ids=["full", "quick"])
def test_scores_of_clips_agree_with_those_of_the_cpu(
    device: HostDevice, tmp_path: Path, clips: int | None, videos: list[Path]
) -> None:
    model = str(tiny_clip_artifact(tmp_path))
    options = structs.replace(EVERY_FRAME, mirror=None, clips=clips, sampling="full" if clips is None else "quick")
    backends: list[DeviceBackend] = []
    found = results(videos, model, options, on=device, backends=backends)
    assert_agree(found, results(videos, model, options, on=None))
    assert backends[0].on_device == sum(result.clips for result in found) > 0


def test_nothing_on_the_device_is_kept_when_a_scan_is_over(device: HostDevice, tmp_path: Path) -> None:
    results([ASTRONAUT] * 3, str(tiny_frame_artifact(tmp_path)), EVERY_FRAME, on=device)
    assert 0 < device.taken_bytes < ON_GPU.decoded_bytes + ON_GPU.crop_bytes
    device.close()
    assert device.taken_bytes == 0


@without_driver
def test_the_real_device_gives_the_very_same_rows_in_all_threads(
    device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, videos = str(tiny_frame_artifact(tmp_path)), [ASTRONAUT, NO_FACE]
    some = structs.replace(EVERY_FRAME, sampling="quick", frames=8)
    expected = results(videos, model, some, on=device)
    with closing(CudaDeviceOnHost()) as real:
        # ONNX Runtime's inputs and the decoder's pictures lie in memory that this device did not give out.
        monkeypatch.setattr(real.fake, "_check_inside", lambda *_: None)
        assert results(videos, model, some, on=real) == expected


class Dying(SoftwareNvdec):
    """A decoder that gives up in the middle of each video."""

    def _frame(self, native: object) -> Frame:
        if self._decoded_count == 40:
            raise DecoderLost("The GPU is gone.")
        return super()._frame(native)  # type: ignore[arg-type]


def test_videos_whose_decoder_is_lost_are_scanned_on_the_cpu_instead(
    monkeypatch: pytest.MonkeyPatch, device: HostDevice, tmp_path: Path
) -> None:
    def dying(
        path: str, *, threads: int, decoding: DeviceDecoding | None = None, limits: Limits, moved: Callable[[], None]
    ) -> Reader:
        reader = opened(path, threads=threads, decoding=decoding, limits=limits, moved=moved)
        if isinstance(reader, SoftwareNvdec):
            reader.__class__ = Dying
        return reader

    model = str(tiny_frame_artifact(tmp_path))
    expected = results([ASTRONAUT, NO_FACE], model, EVERY_FRAME, on=None)
    monkeypatch.setattr(pipeline_scan, "open_input", dying)
    assert results([ASTRONAUT, NO_FACE], model, EVERY_FRAME, on=device) == expected
