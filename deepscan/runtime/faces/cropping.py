"""From a face in a frame to what the detectors get: crops at once, clips when they are complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from deepscan.runtime.cuda.pixels import Pixels, stacked
from deepscan.runtime.faces.aligned_crops import FaceRegion, aligned_clip, face_region, similarity_crop
from deepscan.runtime.faces.clips import ClipAssembler
from deepscan.runtime.faces.crops import crop_rgb, crop_square
from deepscan.spec import ClipCrop, CropPolicy, DetectorSpec, SquareCrop

if TYPE_CHECKING:
    from deepscan.runtime.faces.detections import Detection
    from deepscan.runtime.media.frame_tasks import VideoJob
    from deepscan.runtime.media.frames import Frame


@dataclass(frozen=True, slots=True)
class CropSpec:
    """One way of cutting faces, and the detectors that want it.

    Attributes:
        detectors: their numbers.
        crop: how one frame's face becomes a crop; None takes the whole picture, which then is a face already.
        size: side of the crops, in pixels.
        frames: crops per clip; 1 where each crop stands for itself.
        min_frames: fewer consecutive crops make no clip.
        min_face_pixels: faces whose longer side is smaller are left out.
    """

    detectors: tuple[int, ...]
    crop: CropPolicy | None
    size: int
    frames: int
    min_frames: int
    min_face_pixels: int


@dataclass(frozen=True, slots=True, eq=False)
class FaceInput:
    """One face as detectors want to see it: a crop of one frame, or a clip.

    Attributes:
        detectors: numbers of the detectors that want it like this.
        track: whose face it is.
        start_seconds, end_seconds: times of its first and its last frame.
        frames: how many frames of the video it shows; fewer than its length where a clip was mirrored.
        pixels: RGB uint8 [size, size, 3] or [T, size, size, 3].
        sightings: positions of those of its frames in which the face was found, ascending; not of those in which it
            was interpolated.
    """

    job: VideoJob
    detectors: tuple[int, ...]
    track: int
    start_seconds: float
    end_seconds: float
    frames: int
    pixels: Pixels
    sightings: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive."""
        return int(self.pixels.nbytes)


def cuts_for(specs: Sequence[DetectorSpec], *, whole_pictures: bool) -> tuple[CropSpec, ...]:
    """Return the cuts that serve these detectors; detectors that want the same share one."""
    wanted: dict[CropSpec, list[int]] = {}
    for number, spec in enumerate(specs):
        crop = None if whole_pictures else spec.crop
        smallest = 1 if whole_pictures else spec.min_face_pixels
        cut = CropSpec((), crop, spec.size, spec.frames, spec.min_frames, smallest)
        wanted.setdefault(cut, []).append(number)
    return tuple(replace(cut, detectors=tuple(numbers)) for cut, numbers in wanted.items())


# What waits for a clip to be complete: finished crops, or regions that are aligned together.
Piece: TypeAlias = Pixels | FaceRegion


class Timed(NamedTuple):
    """A piece, the time of its frame, and the frame's position if the face was found in it, not interpolated."""

    seconds: float
    piece: Piece
    sighting: int | None


def piece_of(frame: Frame, face: Detection, cut: CropSpec) -> Piece:
    """Cut one face out of a frame: a crop RGB [size, size, 3], or a region where a whole clip is aligned at once."""
    if cut.crop is None:
        return crop_rgb(frame, (0.0, 0.0, frame.geometry.width, frame.geometry.height), cut.size)
    if isinstance(cut.crop, SquareCrop):
        return crop_rgb(frame, crop_square(face.corners(), cut.crop), cut.size)
    if isinstance(cut.crop, ClipCrop):
        return face_region(frame, face.corners(), face.landmarks, reach=cut.crop.reach)
    return similarity_crop(frame, face.landmarks, cut.crop.target, cut.size)


def clip_of(pieces: Iterable[Piece], cut: CropSpec) -> Pixels:
    """Join the pieces of consecutive frames to a clip, RGB [T, size, size, 3]."""
    if isinstance(cut.crop, ClipCrop):
        return aligned_clip([piece for piece in pieces if isinstance(piece, FaceRegion)], cut.crop.target, cut.size)
    return stacked([piece for piece in pieces if not isinstance(piece, FaceRegion)])


def clip_input(job: VideoJob, cut: CropSpec, track: int, pieces: Sequence[Timed]) -> FaceInput:
    """Make what the detectors get of a clip's pieces."""
    seconds = [timed.seconds for timed in pieces]
    sightings = sorted({timed.sighting for timed in pieces if timed.sighting is not None})
    pixels = clip_of((timed.piece for timed in pieces), cut)
    frames = len(set(seconds))
    return FaceInput(job, cut.detectors, track, min(seconds), max(seconds), frames, pixels, tuple(sightings))


class Cropper:
    """Cuts the faces of one video in one way.

    Attributes:
        longest_dropped: frames of the longest stretch that was too short for a clip; 0 where there was none.
    """

    def __init__(self, job: VideoJob, cut: CropSpec) -> None:
        self.cut = cut
        self._job = job
        self._assemblers: dict[int, ClipAssembler[Timed]] = {}
        self.longest_dropped = 0

    def take(self, frame: Frame, position: int, track: int, face: Detection, *, found: bool) -> Iterator[FaceInput]:
        """Cut a face, which was found there or interpolated; yield what is complete with it."""
        sighting = position if found or self.cut.crop is None else None
        piece = piece_of(frame, face, self.cut)
        if self.cut.frames == 1:
            assert not isinstance(piece, FaceRegion)
            sightings = () if sighting is None else (sighting,)
            yield FaceInput(
                self._job, self.cut.detectors, track, frame.pts_seconds, frame.pts_seconds, 1, piece, sightings
            )
            return
        assembler = self._assemblers.setdefault(track, ClipAssembler(self.cut.frames, self.cut.min_frames))
        for pieces in assembler.add(position, Timed(frame.pts_seconds, piece, sighting)):
            yield clip_input(self._job, self.cut, track, pieces)

    def end(self, tracks: Iterable[int]) -> Iterator[FaceInput]:
        """Close the clips of tracks that get no more faces."""
        for track in tracks:
            assembler = self._assemblers.pop(track, None)
            if assembler is None:
                continue
            for pieces in assembler.finish():
                yield clip_input(self._job, self.cut, track, pieces)
            self.longest_dropped = max(self.longest_dropped, assembler.longest_dropped)
