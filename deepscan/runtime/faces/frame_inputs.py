"""The inputs of a face detector for frames on a device: a frame is scaled on its way into the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.backends.batching import padded_count
from deepscan.runtime.cuda.device import DeviceArray, packed_strides
from deepscan.runtime.faces.crops import plane_boxes
from deepscan.runtime.media.device_work import DeviceWork
from deepscan.runtime.media.frames import DeviceFrame

if TYPE_CHECKING:
    from deepscan.runtime.backends.sessions import Bound, Session

FLOATS: Final = np.dtype(np.float32)
CHANNELS: Final = 3
# Each has memory for its pictures; a folder mixes few shapes, and one that comes back is soon made again.
INPUTS_KEPT: Final = 16


class FrameInputs:
    """Runs a network on batches of frames, with one input for each size of a batch and shape of its frames.

    The session takes float32 [N, 3, height, width], B, G and R from 0 to 255, on the device that holds the frames.
    `aligned` returns the side of the input for pictures of some side; what is behind them is zero.
    """

    def __init__(self, session: Session, feed: str, aligned: Callable[[int], int]) -> None:
        self._session = session
        self._feed = feed
        self._aligned = aligned
        self.bound: dict[tuple[int, int, int], Bound] = {}

    def run(self, frames: Sequence[DeviceFrame]) -> dict[str, NDArray[Any]]:
        """Scale frames of one device and one shape, do other work that was noted for them, and run the network.

        Returns:
            All outputs, in the host's memory; the next call may overwrite them.
        """
        height, width, _ = frames[0].shape
        size = padded_count(len(frames))
        padded = (size, CHANNELS, self._aligned(height), self._aligned(width))
        shape = (len(frames), CHANNELS, height, width)
        work = frames[0].picture.work
        bound = self._input((size, height, width), padded, work)
        target = DeviceArray(bound, bound.address, shape, FLOATS, packed_strides(padded, FLOATS))
        work.shrunk_into(
            target,
            [
                (
                    each.picture,
                    plane_boxes(each.picture, each.geometry, (0.0, 0.0, each.geometry.width, each.geometry.height)),
                    each.geometry.orientation,
                )
                for each in frames
            ],
        )
        work.finish()  # waits, as the network runs on a stream of its own
        # What is left of the batch are zeros or frames that were here before; no picture feels another.
        return {name: values[: len(frames)] for name, values in bound.run().items()}

    def _input(self, key: tuple[int, int, int], padded: tuple[int, ...], work: DeviceWork) -> Bound:
        """Return the input for batches (size, height, width); of those kept, the one unused for longest is given up."""
        bound = self.bound.pop(key, None)
        if bound is None:
            bound = self._session.bound(self._feed, padded, np.float32)
            # On the queue that writes the pictures. What is behind them stays zero, as this serves no other shape.
            work.queue.upload(bound.address, np.zeros(padded, FLOATS))
        self.bound[key] = bound
        if len(self.bound) > INPUTS_KEPT:
            del self.bound[next(iter(self.bound))]
        return bound
