"""Frame tasks: each frame that was sampled from a video, whether it is searched for faces, and where shots begin.

A new shot begins where the picture changes at once: a few samples of the luma plane are cheap enough for every frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepscan.errors import InputError
from deepscan.runtime.cuda.kernel_jobs import BLOCKS, SAMPLES_PER_BLOCK
from deepscan.runtime.media.content import PlannedContent
from deepscan.runtime.media.device_work import DevicePicture
from deepscan.runtime.media.frames import DeviceFrame, Frame, Picture
from deepscan.runtime.media.sampling import Sampling

# Mean difference of block luma, in 8-bit levels. On real footage neighboring frames of a shot, hand-held and moving
# people included, differ by at most 5.3, frames across a shot boundary by more than 60 (docs/faces.md).
BOUNDARY_DIFFERENCE = 25.0
# Boxes are interpolated over no longer than this, whatever the frame rate and however rarely faces are searched for.
LONGEST_SEARCH_GAP_SECONDS: Final = 0.5

# A picture to search for faces: BGR uint8 [h, w, 3], or a frame on a device that the face detector scales itself.
Searchable: TypeAlias = NDArray[np.uint8] | DeviceFrame


@dataclass(slots=True, eq=False)
class VideoJob:
    """One input on its way through the pipeline.

    Attributes:
        index: its place among the inputs, which is its place in the results.
        problem: why it cannot be scanned, if that is known beforehand.
        started: `time.monotonic()` when decoding began.
        share_done: how much of it has been decoded, from 0 to 1; for progress only.
        abandoned: whether it is over a limit for every detector, so that nothing more of it needs to be decoded.
        planned: what the file held when the scan was planned; None if that was not read.
        content: content id of the bytes that were really read; None as long as it is unknown.
    """

    index: int
    path: str
    problem: InputError | None = None
    started: float = 0.0
    share_done: float = 0.0
    abandoned: bool = False
    planned: PlannedContent | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FrameTask:
    """A decoded frame of a video on its way to the faces stage.

    Attributes:
        small: the picture that is searched for faces; None where boxes are interpolated or already known.
        starts_shot: whether the frame before it belongs to another shot.
        position: one more than the position of the frame before it, if the two follow each other in the video.
        continues: whether tracks may go on although a shot starts, because it starts inside a flash or a transition:
            faces in one place are the same there.
    """

    job: VideoJob
    frame: Frame
    small: Searchable | None
    starts_shot: bool
    position: int
    continues: bool = False

    @property
    def nbytes(self) -> int:
        """Memory that this task keeps alive."""
        return self.frame.picture.nbytes + (0 if self.small is None else self.small.nbytes)


def frame_tasks(
    job: VideoJob, frames: Iterable[tuple[int, Frame]], sampling: Sampling, shrink: Callable[[Frame], Searchable]
) -> Iterator[FrameTask]:
    """Decide which of the sampled frames are searched for faces, and where shots begin.

    Where frames follow each other, every n-th frame of a shot is searched, and more where half a second would pass
    without a search. So are the first and the last frame of a shot or window: every other frame lies between two
    searched ones of its own shot. This runs one frame behind the decoder. Single frames are all searched, and shot
    boundaries are not looked for, as frames seconds apart differ anyway. Where files were joined, or the size changes,
    there is a boundary in any case.

    A frame between two boundaries is hardly a shot, but a flash, part of a fade, or a blend of two shots. If the
    picture is the same again after it, nothing has ended; otherwise it belongs to the shot that follows.

    Frames come with the number of their window; `shrink` makes the picture of a frame that is searched.
    """
    held: tuple[int, Frame] | None = None
    held_signature = before_shot = None
    continues = after_boundary = False
    in_shot = since_search = position = 0
    searched = -math.inf
    for window, frame in frames:
        signature = None if sampling.sparse else luma_signature(frame.picture)
        if held is not None:
            window_before, before = held
            joined = before.geometry != frame.geometry or before.part != frame.part
            boundary = joined
            if held_signature is not None and signature is not None and window_before == window:
                boundary = boundary or is_shot_boundary(held_signature, signature)
            ends = boundary or window_before != window
            due = since_search % sampling.detect_every == 0 or frame.pts_seconds - searched > LONGEST_SEARCH_GAP_SECONDS
            search = ends or due or sampling.sparse
            # One frame between two boundaries.
            lone = boundary and after_boundary and not joined
            same = before_shot is not None and signature is not None and not is_shot_boundary(before_shot, signature)
            resumes = lone and same
            small = shrink(before) if search else None
            yield FrameTask(job, before, small, in_shot == 0, position, continues=continues or resumes)
            if search:
                since_search, searched = 0, before.pts_seconds
            since_search = 0 if ends else since_search + 1
            in_shot = 0 if boundary else in_shot + 1
            position += 2 if window_before != window else 1
            continues, after_boundary = lone, boundary and not joined
            before_shot = held_signature if boundary else None
        held, held_signature = (window, frame), signature
    if held is not None:
        _, last = held
        yield FrameTask(job, last, shrink(last), in_shot == 0, position, continues=continues)


def luma_signature(picture: Picture | DevicePicture) -> NDArray[np.float32]:
    """Return a tiny version of the luma plane, float32 [16, 16] in 8-bit levels: means of 36 samples per block."""
    if isinstance(picture, DevicePicture):
        sums = picture.luma_sums
    else:
        plane = picture.planes[0]
        rows, columns = sample_places(plane.shape)
        sampled = plane[rows[:, None], columns].reshape(BLOCKS, SAMPLES_PER_BLOCK, BLOCKS, SAMPLES_PER_BLOCK)
        sums = sampled.sum(axis=(1, 3), dtype=np.uint32)
    levels = SAMPLES_PER_BLOCK**2 << (picture.bit_depth - 8)
    return (sums / levels).astype(np.float32)


def sample_places(shape: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and the columns of a luma plane [H, W] where samples are taken, 96 of each."""
    rows, columns = (np.linspace(0, side - 1, BLOCKS * SAMPLES_PER_BLOCK).astype(np.intp) for side in shape)
    return rows, columns


def is_shot_boundary(before: NDArray[np.float32], after: NDArray[np.float32]) -> bool:
    """Tell whether two neighboring frames belong to different shots."""
    return float(np.abs(after - before).mean()) > BOUNDARY_DIFFERENCE
