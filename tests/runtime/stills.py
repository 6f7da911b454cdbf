"""Still pictures in every format, made on the spot with Pillow."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.heif_facts import heif_facts
from deepscan.runtime.media.picture_reader import PictureReader, open_picture, picture_kind
from tests.footage import portrait
from tests.runtime.host_crops import crop_rgb

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 40, 24
EXIF_ORIENTATION = 0x0112
# Pillow's format, its options, the kind; all of them keep every pixel as it is, or Pillow itself is the measure.
ENCODINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "jpeg": ("JPEG", {}, "jpeg"),
    "jpeg-progressive": ("JPEG", {"progressive": True, "subsampling": 0}, "jpeg"),
    "mpo": ("MPO", {}, "jpeg"),
    "png": ("PNG", {}, "png"),
    "webp": ("WEBP", {"quality": 60}, "webp"),
    "webp-lossless": ("WEBP", {"lossless": True}, "webp"),
    "avif": ("AVIF", {}, "avif"),
    "tiff": ("TIFF", {}, "tiff"),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}, "tiff"),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}, "tiff"),
    "bigtiff": ("TIFF", {"big_tiff": True}, "tiff"),
    "bmp": ("BMP", {}, "bmp"),
    "ppm": ("PPM", {}, "ppm"),
}
KEEPS_EXIF = ["jpeg", "png", "webp", "avif", "tiff", "tiff-lzw"]
LOSSLESS = ["png", "webp-lossless", "tiff", "tiff-lzw", "bigtiff", "bmp", "ppm"]


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def kind_of(data: bytes) -> str | None:
    return picture_kind(data[:4096]) or heif_facts(BytesIO(data)).kind


def opened(data: bytes) -> PictureReader:
    kind = kind_of(data)
    assert kind is not None
    return open_picture(BytesIO(data), kind)


def only_frame(reader: PictureReader) -> Frame:
    (frame,) = reader.frames()
    return frame


def upright_rgb(frame: Frame) -> Pixels:
    """Return the whole upright picture, put together from unscaled crops."""
    width, height = frame.geometry.width, frame.geometry.height
    side = max(width, height)
    pixels: Pixels = crop_rgb(frame, (0, 0, side, side), side)[:height, :width]
    return pixels


def photo() -> Image.Image:
    return Image.fromarray(portrait(WIDTH, HEIGHT))
