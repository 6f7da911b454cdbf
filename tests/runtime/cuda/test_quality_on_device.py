from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from deepscan.runtime.cuda.device import Device
from deepscan.runtime.faces.quality import measures
from deepscan.runtime.media.device_work import DeviceWork
from deepscan.runtime.media.frames import Picture, host_picture
from deepscan.runtime.media.open_input import open_input
from tests.footage import ASTRONAUT
from tests.runtime.cuda.device_frames import DEVICES, frame_on_device

BOX = (101.3, 40.8, 300.2, 310.5)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("device", DEVICES)
def test_a_frame_on_a_device_has_the_same_measures(device: Callable[[], Device], bits: int) -> None:
    with open_input(str(ASTRONAUT), threads=1) as reader:
        frame = next(reader.frames())
    if bits == 10:
        picture = host_picture(frame)
        planes = tuple((plane.astype(np.uint16) << 2) + 1 for plane in picture.planes)
        frame = replace(frame, picture=Picture(planes, bits, picture.color, picture.left_chroma))
    made = device()
    there = frame_on_device(DeviceWork(made.queue()), frame)
    assert measures(there, BOX) == measures(frame, BOX)
