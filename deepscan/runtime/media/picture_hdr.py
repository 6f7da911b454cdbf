"""Whether a still picture is HDR: code points of H.273 in HEIF's properties, in a PNG chunk, or in a color profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

from deepscan.runtime.media.hdr import Hdr, declared_hdr

if TYPE_CHECKING:
    from PIL import Image

# What a PNG may have before its pixels, apart from exotic files.
PNG_HEAD_BYTES: Final = 1 << 17
ICC_TAGS_AT: Final = 128
MOST_ICC_TAGS: Final = 100


def hdr_of_picture(image: Image.Image, file: BinaryIO | None = None, declared: Hdr | None = None) -> Hdr | None:
    """Return how a picture is HDR, or None.

    Args:
        image: opened by Pillow or libheif; a profile of ICC version 4.4 may tell.
        file: of a PNG, whose `cICP` chunk may tell.
        declared: what is known from the file's boxes; goes before.
    """
    if declared is not None:
        return declared
    points = _png_points(file) if file is not None else b""
    points = points or _icc_points(image.info.get("icc_profile") or b"")
    return declared_hdr(primaries=points[0], transfer=points[1]) if len(points) >= 2 else None


def _png_points(file: BinaryIO) -> bytes:
    """Return the content of `cICP` (PNG, third edition, 11.3.2.6)."""
    file.seek(0)
    head = file.read(PNG_HEAD_BYTES).partition(b"IDAT")[0]
    return head.partition(b"\0\0\0\x04cICP")[2][:4]


def _icc_points(profile: bytes) -> bytes:
    """Return primaries and transfer from the tag `cicp` (ICC.1:2022, 9.2.17 and 10.3)."""
    count = int.from_bytes(profile[ICC_TAGS_AT : ICC_TAGS_AT + 4])
    for number in range(min(count, MOST_ICC_TAGS)):
        tag = profile[ICC_TAGS_AT + 4 + 12 * number :][:12]
        if tag[:4] == b"cicp":
            start = int.from_bytes(tag[4:8])
            return profile[start + 8 : start + 12]
    return b""
