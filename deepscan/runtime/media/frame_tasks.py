"""Frame tasks: each frame that was sampled from a video, and whether it is searched for faces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.media.frames import DeviceFrame, Frame
from deepscan.runtime.media.shot_boundaries import is_shot_boundary, luma_signature

if TYPE_CHECKING:
    from deepscan.errors import InputError
    from deepscan.runtime.media.content import PlannedContent
    from deepscan.runtime.media.sampling import Sampling

# Boxes are interpolated over no longer than this, whatever the frame rate and however rarely faces are searched for.
LONGEST_SEARCH_GAP_SECONDS: Final = 0.5

# A picture to search for faces: BGR uint8 [h, w, 3], or a frame on a device that the face detector scales itself.
Searchable: TypeAlias = NDArray[np.uint8] | DeviceFrame


@dataclass(slots=True, eq=False)
class VideoJob:
    """One input on its way through the pipeline.

    Attributes:
        index: its place among the inputs, which is its place in the results.
        path: of the file.
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
    """A decoded frame on its way to the faces stage.

    Attributes:
        job: its video.
        frame: the frame.
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

    Args:
        job: the video.
        frames: of it, each with the number of its window.
        sampling: how they were chosen, and how often they are searched.
        shrink: makes the picture of a frame that is searched.
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
            resumes = (
                lone
                and before_shot is not None
                and signature is not None
                and not is_shot_boundary(before_shot, signature)
            )
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
