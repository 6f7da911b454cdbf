"""Which frames of a video are scored, and which of those are searched for faces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from deepscan.runtime.frames import Frame, Reader
from deepscan.runtime.shots import is_cut, luma_signature

# Boxes are interpolated over no longer than this, whatever the frame rate and however rarely faces are searched.
LONGEST_LOOK_GAP_SECONDS = 0.5

SamplingMode = Literal["full", "quick", "paper"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How much of each video is looked at.

    Attributes:
        mode: `full` scores every frame; `quick` some frames spread over the video, key frames where they lie well;
            `paper` the same number at exact times, as the published figures were measured.
        frames: how many frames for `quick` and `paper`; unused for `full`.
        detect_every: at least 1; in `full`, every how many frames faces are searched for; boxes between them are
            interpolated.
    """

    mode: SamplingMode
    frames: int
    detect_every: int


@dataclass(frozen=True, slots=True, eq=False)
class MarkedFrame:
    """A frame, whether to search it for faces, and whether it is the first of a shot."""

    frame: Frame
    search: bool
    starts_shot: bool


def sampled_frames(reader: Reader, sampling: Sampling) -> Iterator[Frame]:
    """Yield the frames to score, in the order of time.

    Raises:
        InputError: the video cannot be decoded.
    """
    if sampling.mode == "full":
        yield from reader.frames()
        return
    window = reader.duration_seconds() / sampling.frames
    times = [window * (number + 0.5) for number in range(sampling.frames)]
    yield from reader.frames_at(times, tolerance_seconds=window if sampling.mode == "quick" else 0.0)


def marked_frames(frames: Iterator[Frame], sampling: Sampling) -> Iterator[MarkedFrame]:
    """Say which of the sampled frames to search for faces, and where shots begin.

    In `full`, every n-th frame of a shot is searched, more where half a second passes without, and its first and its
    last: so every other frame lies between two searched ones of its own shot. This runs one frame behind the decoder.
    In the sparse modes every frame is searched, and cuts are not looked for: frames seconds apart differ without one.
    """
    held: Frame | None = None
    held_signature = None
    in_shot = since_search = 0
    searched = -math.inf
    for frame in frames:
        signature = luma_signature(frame.picture) if sampling.mode == "full" else None
        if held is not None:
            cut = held.geometry != frame.geometry
            if held_signature is not None and signature is not None:
                cut = cut or is_cut(held_signature, signature)
            due = since_search % sampling.detect_every == 0 or frame.seconds - searched > LONGEST_LOOK_GAP_SECONDS
            search = cut or due or sampling.mode != "full"
            yield MarkedFrame(held, search=search, starts_shot=in_shot == 0)
            if search:
                since_search, searched = 0, held.seconds
            in_shot, since_search = (0, 0) if cut else (in_shot + 1, since_search + 1)
        held, held_signature = frame, signature
    if held is not None:
        yield MarkedFrame(held, search=True, starts_shot=in_shot == 0)
