"""Cropping: a face in a frame becomes a crop at once, or part of a clip that is given out when it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.cuda.pixels import Pixels, stacked
from deepscan.runtime.faces.alignment import FaceRegion, aligned_clip, face_region, similarity_crop
from deepscan.runtime.faces.clips import ClipAssembler
from deepscan.runtime.faces.crops import crop_rgb, crop_square
from deepscan.runtime.faces.detections import Detection, FaceMeasures
from deepscan.runtime.faces.quality import MeasuredTrack, means_of
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.geometry import Box
from deepscan.spec import ClipCrop, CropPolicy, DetectorSpec, SquareCrop


@dataclass(frozen=True, slots=True)
class CropSpec:
    """One kind of crops, and the numbers of the detectors that need it.

    Attributes:
        crop: how the face of one frame becomes a crop; None takes the whole picture, which is a face already.
        size: side of the crops, in pixels.
        frames, min_frames: crops per clip, 1 where each stands for itself; the fewest that make a clip.
        min_face_pixels: faces whose longer side is smaller are left out.
    """

    detectors: tuple[int, ...]
    crop: CropPolicy | None
    size: int
    frames: int
    min_frames: int
    min_face_pixels: int


@dataclass(frozen=True, slots=True, eq=False)
class FaceInFrame:
    """A face of a track in one frame.

    Attributes:
        pts_seconds: time of the frame.
        frame: number of the frame among those that were decoded, from 0.
        box: float32 [4], corners (x0, y0, x1, y1) in pixels of the upright picture.
        landmarks: float32 [5, 2], see `Faces`; None where the whole picture is a face, as nothing looked for them.
        found: whether the face was found there, not interpolated.
    """

    pts_seconds: float
    frame: int
    box: NDArray[np.float32]
    landmarks: NDArray[np.float32] | None
    found: bool


@dataclass(frozen=True, slots=True, eq=False)
class FaceInput:
    """One face of a track as detectors get it: a crop of one frame, or a clip.

    Attributes:
        start_seconds, end_seconds: times of its first and its last frame.
        frames: how many frames of the video it shows; fewer than its length where a clip was mirrored.
        pixels: RGB uint8 [size, size, 3] or [T, size, size, 3].
        sightings: positions of those of its frames in which the face was found, ascending; not of those in which it
            was interpolated.
        middle: the face in its only frame, or in the middle one of a clip.
    """

    job: VideoJob
    detectors: tuple[int, ...]
    track: int
    start_seconds: float
    end_seconds: float
    frames: int
    pixels: Pixels
    sightings: tuple[int, ...]
    middle: FaceInFrame

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive."""
        return int(self.pixels.nbytes)


def crop_specs_for(specs: Sequence[DetectorSpec], *, whole_pictures: bool) -> tuple[CropSpec, ...]:
    """Return the kinds of crops that these detectors need; detectors with the same needs share one."""
    numbers_of: dict[CropSpec, list[int]] = {}
    for number, spec in enumerate(specs):
        crop = None if whole_pictures else spec.crop
        smallest = 1 if whole_pictures else spec.min_face_pixels
        cropped = CropSpec((), crop, spec.size, spec.frames, spec.min_frames, smallest)
        numbers_of.setdefault(cropped, []).append(number)
    return tuple(replace(spec, detectors=tuple(numbers)) for spec, numbers in numbers_of.items())


# What waits for a clip to be complete: finished crops, or regions that are aligned together.
Piece: TypeAlias = Pixels | FaceRegion


class Timed(NamedTuple):
    """A piece, the face that it shows, and the frame's position if the face was found in it, not interpolated."""

    at: FaceInFrame
    piece: Piece
    sighting: int | None

    @classmethod
    def of(cls, frame: Frame, face: Detection, spec: CropSpec, position: int | None) -> Timed:
        """Crop a face out of a frame; `position` is None if it was interpolated."""
        landmarks = face.landmarks if spec.crop is not None else None
        at = FaceInFrame(frame.pts_seconds, frame.index, face.box, landmarks, found=position is not None)
        return cls(at, piece_of(frame, face, spec), position)


def face_box(frame: Frame, face: Detection, spec: CropSpec) -> Box:
    """Return the box of a face: as found, or the whole picture where that is a face already."""
    return face.corners() if spec.crop is not None else (0.0, 0.0, frame.geometry.width, frame.geometry.height)


def piece_of(frame: Frame, face: Detection, spec: CropSpec) -> Piece:
    """Crop one face of a frame: RGB [size, size, 3], or a region of the frame where a whole clip is aligned at once."""
    if spec.crop is None:
        return crop_rgb(frame, face_box(frame, face, spec), spec.size)
    if isinstance(spec.crop, SquareCrop):
        return crop_rgb(frame, crop_square(face.corners(), spec.crop), spec.size)
    if isinstance(spec.crop, ClipCrop):
        return face_region(frame, face.corners(), face.landmarks, reach=spec.crop.reach)
    return similarity_crop(frame, face.landmarks, spec.crop.target, spec.size)


def face_input(job: VideoJob, spec: CropSpec, track: int, pieces: Sequence[Timed]) -> FaceInput:
    """Return what the detectors get for the pieces of consecutive frames: of one, or of those of a clip."""
    seen = sorted({timed.at.pts_seconds: timed.at for timed in pieces}.values(), key=lambda at: at.pts_seconds)
    sightings = sorted({timed.sighting for timed in pieces if timed.sighting is not None})
    regions = [timed.piece for timed in pieces if isinstance(timed.piece, FaceRegion)]
    crops = [timed.piece for timed in pieces if not isinstance(timed.piece, FaceRegion)]
    if isinstance(spec.crop, ClipCrop):
        pixels = aligned_clip(regions, spec.crop.target, spec.size)
    else:
        pixels = crops[0] if spec.frames == 1 else stacked(crops)
    return FaceInput(
        job,
        spec.detectors,
        track,
        seen[0].pts_seconds,
        seen[-1].pts_seconds,
        len(seen),
        pixels,
        tuple(sightings),
        seen[len(seen) // 2],
    )


class Cropper:
    """Crops the faces of one video; `longest_dropped` is the longest stretch too short for a clip, in frames."""

    def __init__(self, job: VideoJob, spec: CropSpec) -> None:
        self._spec = spec
        self._job = job
        self._assemblers: dict[int, ClipAssembler[Timed]] = {}
        self._measured: dict[int, MeasuredTrack] = {}
        self.longest_dropped = 0

    def take(self, frame: Frame, position: int, track: int, face: Detection, *, found: bool) -> Iterator[FaceInput]:
        """Crop a face that was found there or interpolated; yield the crop, or the clips that are complete with it."""
        sighting = position if found or self._spec.crop is None else None
        timed = Timed.of(frame, face, self._spec, sighting)
        self._measured.setdefault(track, MeasuredTrack()).see(frame, face_box(frame, face, self._spec))
        if self._spec.frames == 1:
            yield face_input(self._job, self._spec, track, [timed])
            return
        assembler = self._assemblers.setdefault(track, ClipAssembler(self._spec.frames, self._spec.min_frames))
        for pieces in assembler.add(position, timed):
            yield face_input(self._job, self._spec, track, pieces)

    def end(self, tracks: Iterable[int]) -> Iterator[FaceInput]:
        """Close the clips of tracks that get no more faces."""
        for track in tracks:
            assembler = self._assemblers.pop(track, None)
            if assembler is None:
                continue
            for pieces in assembler.finish():
                yield face_input(self._job, self._spec, track, pieces)
            self.longest_dropped = max(self.longest_dropped, assembler.longest_dropped)

    def measures(self, tracks: Iterable[int]) -> dict[int, FaceMeasures]:
        """Return the measures of tracks that have ended, as far as they have any, and forget them."""
        return means_of({track: self._measured.pop(track) for track in tracks if track in self._measured})
