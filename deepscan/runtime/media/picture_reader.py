"""Pictures through Pillow, as videos whose planes are exactly the picture's own RGB or gray.

FFmpeg reads GIF, animated PNG and sequences in AVIF and HEIC files, but has no decoder for animated WebP.
Color profiles are not applied and transparency is dropped, as for videos: a detector sees the stored colors.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice
from typing import BinaryIO, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from deepscan.errors import InputError, UnreadableInput, UnsupportedInput
from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.media.color import BT709, IDENTITY, Color
from deepscan.runtime.media.frames import Frame, Picture, Reader, VideoInfo, host_picture
from deepscan.runtime.media.geometry import Geometry, Orientation
from deepscan.runtime.media.hdr import Hdr, declared_hdr, hdr_of_picture
from deepscan.runtime.media.heif_facts import heif_facts
from deepscan.runtime.media.heif_pictures import heif_image
from deepscan.runtime.system.regular_files import reading_failed

# The classes are named, as `Image.open` would warn of large pictures and make a stereo pair of some JPEG files; see
# `heif_pictures.py` too.
FORMATS: Final[dict[str, tuple[type[ImageFile], bytes]]] = {
    "jpeg": (JpegImageFile, rb"\xff\xd8\xff"),
    "png": (PngImageFile, rb"\x89PNG\r\n\x1a\n"),
    "webp": (WebPImageFile, rb"RIFF.{4}WEBPVP8[ LX]"),
    "tiff": (TiffImageFile, rb"II[*+]\0|MM\0[*+]"),
    "bmp": (BmpImageFile, rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),  # then the size of its header
    "ppm": (PpmImageFile, rb"P[1-6][\s#]"),
}
HEIF_KINDS: Final = frozenset(["heif", "avif"])
# Pillow treats larger pictures as decompression bombs.
MOST_PIXELS: Final = 178_956_970
# A nominal value: callers divide by the length of a video and the distance of its frames.
FRAME_SECONDS: Final = 0.04
ROUNDING_SECONDS: Final = 1e-6
GRAY_MODES: Final = frozenset(["1", "L", "LA"])
# These give 16-bit grays as Pillow's 32-bit "I"; in other formats its range is unknown.
DEEP_GRAY_KINDS: Final = frozenset(["png", "ppm"])
EXIF_ORIENTATION: Final = 0x0112
ORIENTATIONS: Final = {
    2: Orientation(flip_x=True),
    3: Orientation(flip_x=True, flip_y=True),
    4: Orientation(flip_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_x=True),
    7: Orientation(transpose=True, flip_x=True, flip_y=True),
    8: Orientation(transpose=True, flip_y=True),
}
ANIMATION_FLAG: Final = 2
# Browsers show frames of 10 ms and less for 100 ms, as old programs wrote such numbers for no reason.
SHORTEST_MILLISECONDS: Final = 11
USUAL_MILLISECONDS: Final = 100
# More than the default limit of frames; further ones are not read.
MOST_CHUNKS: Final = 1 << 22
TIFF_SUBFILE_TYPE: Final = 254
REDUCED_SIZE: Final = 1


def picture_kind(head: bytes) -> str | None:
    """Return the format of a picture, a key of `FORMATS`, by the first bytes of its file; None if it is no picture.

    GIF is left to FFmpeg, as most GIF files are videos. HEIC and AVIF are recognized by their boxes.
    """
    return next((kind for kind, (_, magic) in FORMATS.items() if re.match(magic, head, re.DOTALL)), None)


def open_picture(
    file: BinaryIO, kind: str, *, damage: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> PictureReader:
    """Decode the first picture of an open file, at any position; the file is not needed afterwards.

    `kind` is its format, as `picture_kind` or `HeifFacts.kind` gives it; `damage` a remark on it, unless there is
    another one.

    Raises:
        OverLimit: the picture has too many pixels.
        UnreadableInput: the file is damaged or cut short.
        UnsupportedInput: the picture is too large or only a preview, or its samples have no known range.
    """
    with decoding(kind):
        remarks = []
        if kind in HEIF_KINDS:
            facts = heif_facts(file)
            image, count = heif_image(file, facts, kind, limits)
            declared = declared_hdr(transfer=facts.transfer, primaries=facts.primaries)
            hdr = hdr_of_picture(image, declared=declared)
            motion = facts.has_motion or facts.movies
            remarks += ["the video or sequence that comes with the picture was not scanned"] if motion else []
        else:
            file.seek(0)
            image = FORMATS[kind][0](file)
            check_size(image, limits)
            if isinstance(image, TiffImageFile) and int(image.tag_v2.get(TIFF_SUBFILE_TYPE, 0)) & REDUCED_SIZE:
                raise UnsupportedInput(
                    "It begins with a mere preview of its picture: convert it from camera raw to PNG."
                )
            image.load()
            count, hdr = getattr(image, "n_frames", 1), hdr_of_picture(image, file if kind == "png" else None)
        frame = frame_of(image, kind, hdr=hdr)
    if count > 1:
        remarks.append(f"only the first of {count} pictures was scanned")
    if hdr is not None:
        remarks.append(hdr.remark)
    return PictureReader(frame, codec=kind, damage="; ".join(remarks) or damage)


def is_animated_webp(head: bytes) -> bool:
    """Tell by the first bytes of a WebP file whether it says that it is animated."""
    return head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & ANIMATION_FLAG)


def open_animation(file: BinaryIO, *, limits: Limits = DEFAULT_LIMITS) -> PictureReader | None:
    """Open an animated WebP file as `open_picture` does, and keep its bytes in memory; None if it has one frame."""
    with decoding("webp"):
        durations = _durations(file)
        file.seek(24)
        size = file.read(6)
        file.seek(0)
    if len(durations) < 2:
        return None
    limits.check_pixels(int.from_bytes(size[:3], "little") + 1, int.from_bytes(size[3:], "little") + 1)
    with decoding("webp"):
        image = WebPImageFile(file)
        check_size(image, limits)
        first = frame_of(image, "webp")
    return PictureReader(first, codec="webp", animation=image, durations=durations[: image.n_frames])


@contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Convert what Pillow raises for a damaged picture of this format to `UnreadableInput`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large("too many") from error
    except Exception as error:  # for damaged files Pillow raises nearly everything
        if isinstance(error, OSError) and error.errno is not None:
            raise reading_failed(error) from error
        reason = str(error) or type(error).__name__
        message = f"This {kind.upper()} picture cannot be decoded ({reason}): it is damaged, copy it again."
        raise UnreadableInput(message) from error


def check_size(image: Image.Image, limits: Limits) -> None:
    """Refuse a picture that is over the limit on pixels, or over that of Pillow, before it is decoded."""
    limits.check_pixels(image.width, image.height)
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(f"{image.width} x {image.height}")


def frame_of(image: Image.Image, kind: str, *, index: int = 0, seconds: float = 0.0, hdr: Hdr | None = None) -> Frame:
    """Return a picture as a frame, with the orientation of its Exif data."""
    image.load()
    planes = _planes(image, kind)
    color = Color(IDENTITY if len(planes) == 3 else BT709, full_range=True, hdr=hdr)
    height, width = planes[0].shape
    geometry = Geometry(width, height, orientation=_orientation(image))
    picture = Picture(planes, bit_depth=8, color=color, left_chroma=False)
    return Frame(index, seconds, picture, geometry, native=None)


class PictureReader(Reader):
    """A picture, or an animation whose further frames are decoded on demand; see `Reader` for the contract.

    Planes are G, B and R, or gray alone, 8 bits each. The open file of an animation is closed with the reader;
    durations are in seconds.
    """

    def __init__(
        self,
        first: Frame,
        *,
        codec: str,
        damage: str | None = None,
        animation: ImageFile | None = None,
        durations: Sequence[float] = (FRAME_SECONDS,),
    ) -> None:
        self._first, self._damage, self._animation = first, damage, animation
        self._starts = [0.0, *accumulate(durations[:-1])]
        self._failed: int | None = None
        self.info = VideoInfo(
            codec=codec,
            width=first.geometry.width,
            height=first.geometry.height,
            duration_seconds=None if animation is None else sum(durations),
            frame_seconds=sum(durations) / len(durations),
            still=animation is None,
        )

    def frames(self) -> Iterator[Frame]:
        """See `Reader.frames`."""
        return self._frames(0)

    def frames_at(self, seconds: Sequence[float], *, tolerance_seconds: float) -> Iterator[Frame]:  # noqa: ARG002
        """See `Reader.frames_at`; no frame is a key frame."""
        latest, yielded = -1, False
        for target in seconds:
            number = self._shown_at(target)
            if number > latest:
                for frame in islice(self._frames(number), 1):
                    yielded = True
                    yield frame
                latest = number
        if not yielded:  # All times lie where the file is damaged.
            yield self._first

    def windows(
        self,
        starts: Sequence[float],
        frames_each: int,
        *,
        tolerance_seconds: float,  # noqa: ARG002
    ) -> Iterator[tuple[int, Frame]]:
        """See `Reader.windows`."""
        free, yielded = 0, False
        for window, start in enumerate(starts):
            first = max(free, self._shown_at(start))
            for frame in islice(self._frames(first), frames_each):
                free, yielded = frame.index + 1, True
                yield window, frame
        if not yielded:
            yield 0, self._first

    def duration_seconds(self) -> float:
        """Return how long the animation is shown once, or the nominal length of a still picture."""
        return self.info.duration_seconds or self.info.frame_seconds

    def shrink(self, frame: Frame, longest_side: int) -> NDArray[np.uint8]:
        """See `Reader.shrink`."""
        geometry, hdr = frame.geometry, frame.picture.color.hdr
        upright = geometry.shrunk(longest_side)
        size = upright[::-1] if geometry.orientation.transpose else upright
        small = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in host_picture(frame).planes]
        blue, green, red = (1, 0, 2) if len(small) == 3 else (0, 0, 0)
        rgb = np.asarray(np.dstack([small[red], small[green], small[blue]]), dtype=np.uint8)
        if hdr is not None:
            rgb = hdr.tone_mapped(rgb)
        return geometry.orientation.apply(rgb[..., ::-1])

    def warnings(self) -> str | None:
        """See `Reader.warnings`."""
        if self._failed is None:
            return self._damage
        return f"only the first {self._failed} of {len(self._starts)} frames could be decoded"

    def close(self) -> None:
        """Release the file's content and the decoder, which only an animation still has."""
        if self._animation is not None:
            self._animation.close()
            self._animation = None

    def _shown_at(self, seconds: float) -> int:
        return max(0, bisect_right(self._starts, seconds + ROUNDING_SECONDS) - 1)

    def _frames(self, first: int) -> Iterator[Frame]:
        """Yield frames up to the end, or to where the file is damaged."""
        for number in range(first, len(self._starts)):
            try:
                yield self._first if number == 0 else self._frame(number)
            except UnreadableInput:
                self._failed = min(number, self._failed or number)
                return

    def _frame(self, number: int) -> Frame:
        assert self._animation is not None
        with decoding(self.info.codec):
            self._animation.seek(number)
            return frame_of(self._animation, self.info.codec, index=number, seconds=self._starts[number])


def _too_large(size: str) -> UnsupportedInput:
    return UnsupportedInput(f"The picture has {size} pixels, more than {MOST_PIXELS:,} are refused: scale it down.")


def _planes(image: Image.Image, kind: str) -> tuple[NDArray[np.uint8], ...]:
    """Return G, B and R, or gray alone; of 16-bit grays the upper 8 bits, as Pillow does with 16-bit colors."""
    image.info.pop("transparency", None)  # of palettes: Pillow would warn that it is lost
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in DEEP_GRAY_KINDS):
        return ((np.asarray(image) >> 8).astype(np.uint8),)
    if image.mode in ("I", "F"):
        raise UnsupportedInput("Its pixels are numbers without a known range: convert it to 8 bits per channel.")
    if image.mode in GRAY_MODES:
        return (np.asarray(image.convert("L")),)
    rgb = image if image.mode in ("RGB", "RGBA") else image.convert("RGB")
    return tuple(np.asarray(rgb.getchannel(name)) for name in "GBR")


def _orientation(image: Image.Image) -> Orientation:
    """Return the orientation by a loaded picture's Exif data; Pillow has already rotated a TIFF and cleared it."""
    try:
        return ORIENTATIONS.get(image.getexif().get(EXIF_ORIENTATION, 1), Orientation())
    except Exception:  # damaged Exif data are no reason to refuse a picture
        return Orientation()


def _durations(file: BinaryIO) -> list[float]:
    """Return how long each frame is shown, in seconds, by the chunks' headers (WebP container specification)."""
    file.seek(12)
    durations: list[float] = []
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:], "little")
        size += size % 2
        if head[:4] == b"ANMF":
            milliseconds = int.from_bytes(file.read(16)[12:15], "little")
            durations.append((milliseconds if milliseconds >= SHORTEST_MILLISECONDS else USUAL_MILLISECONDS) / 1000)
            size = max(0, size - 16)
        file.seek(size, os.SEEK_CUR)
    return durations
