"""HEIC and AVIF stills as whole pictures: tiles joined, overlays composed, cropped, and rotated once.

libheif (pillow-heif) decodes HEIC and applies crop, rotation and mirroring itself. libavif (Pillow) decodes AVIF and
joins tiles, reports the rotation as Exif data, and leaves cropping to its caller. Both need the whole file in memory.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Final

import numpy as np
import pillow_heif
from PIL import AvifImagePlugin, Image

from deepscan.errors import OverLimit, UnreadableInput, UnsupportedInput
from deepscan.limits import Limits
from deepscan.runtime.media.file_bytes import masked, without_boxes
from deepscan.runtime.media.heif_facts import HeifFacts

# A photograph of 100 megapixels takes about 50 MB, or 100 MB with a video of three seconds attached.
MOST_FILE_BYTES: Final = 1 << 30
AVIF_ITEMS: Final = frozenset([b"av01", b"grid"])
OTHER_CODINGS: Final = {
    b"av01": "AV1",
    b"avc1": "H.264",
    b"jpeg": "JPEG",
    b"vvc1": "VVC",
    b"evc1": "EVC",
    b"j2k1": "JPEG 2000",
}
MAJOR_BRAND_AT: Final = 8
FURTHER_BRANDS_AT: Final = 16
# Y = Cb = Cr = 0, whatever the matrix and range.
VOID_GREEN: Final = slice(60, 170)
VOID_PIXELS: Final = 256
VOID_SHARE: Final = 0.002
CONVERT: Final = "convert it to JPEG or PNG with the program that made it"


def heif_image(file: BinaryIO, facts: HeifFacts, kind: str, limits: Limits) -> tuple[Image.Image, int]:
    """Decode the primary picture of a file, and count the pictures in the file.

    A picture that is too large by its header is refused before it is decoded. The file may be at any position.

    Returns:
        The cropped picture, and the number of pictures.

    Raises:
        OverLimit: the picture has too many pixels.
        UnreadableInput: the file is damaged.
        UnsupportedInput: the picture cannot be decoded as a whole.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > MOST_FILE_BYTES:
        raise UnsupportedInput(f"Its file has {size:,} bytes, too many for a picture: {CONVERT}.")
    if facts.is_encrypted:
        raise UnsupportedInput("The picture is encrypted: decrypt it with the program that made it.")
    if not facts.is_whole:
        raise UnreadableInput(f"Parts of this {kind.upper()} picture are missing: it is cut short, copy it again.")
    if facts.size is not None:
        limits.check_pixels(*facts.size)
    return _avif(file, facts, limits) if kind == "avif" else _heic(file, facts, limits)


def _avif(file: BinaryIO, facts: HeifFacts, limits: Limits) -> tuple[Image.Image, int]:
    if not AvifImagePlugin.SUPPORTED:
        raise UnsupportedInput("This build of Pillow has no decoder for AVIF: install Pillow's own wheel.")
    if facts.item_type and facts.item_type not in AVIF_ITEMS:
        raise UnsupportedInput(f"This AVIF picture is composed in a way that libavif does not know: {CONVERT}.")
    try:
        # libavif insists on this brand, which files of the general HEIF brand lack.
        image = AvifImagePlugin.AvifImageFile(masked(file, ((MAJOR_BRAND_AT, b"avif"),)))
        limits.check_pixels(image.width, image.height)
        image.load()
    except (ValueError, RuntimeError, OSError) as error:
        if "grid" in str(error):  # of odd sizes, or of tiles below 64 pixels, which encoders do write
            raise UnsupportedInput(
                f"libavif does not put the tiles of this picture together ({error}): {CONVERT}."
            ) from error
        raise
    if facts.crop is None:
        return image, 1
    left, top, width, height = facts.crop
    cropped = image.crop((left, top, left + width, top + height))
    cropped.info = image.info
    return cropped, 1


def _heic(file: BinaryIO, facts: HeifFacts, limits: Limits) -> tuple[Image.Image, int]:
    if facts.coding in OTHER_CODINGS:
        raise UnsupportedInput(f"This HEIF picture is coded as {OTHER_CODINGS[facts.coding]}, not HEVC: {CONVERT}.")
    try:
        opened = pillow_heif.open_heif(_of_items_alone(file, facts), convert_hdr_to_8bit=True)
        limits.check_pixels(*opened.size)
        image = opened[opened.primary_index].to_pillow()
    except (ValueError, RuntimeError, EOFError, SyntaxError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "limit" in reason.lower():
            raise OverLimit(f"libheif refuses this picture ({reason}): {CONVERT}.") from error
        if reason.startswith("Unsupported"):
            raise UnsupportedInput(f"libheif cannot decode this picture ({reason}): {CONVERT}.") from error
        message = f"This HEIF picture cannot be decoded ({reason}): it is damaged, copy it again."
        raise UnreadableInput(message) from error
    limits.check_pixels(image.width, image.height)
    if facts.item_type == b"grid" and _has_void(image):
        raise UnreadableInput("Tiles of this HEIF picture cannot be decoded: it is damaged, copy it again.")
    image.info.pop("exif", None)  # libheif has applied HEIF's rotation; that of Exif repeats it or is wrong
    if image.mode == "RGBa":
        image = image.convert("RGBA")
    return image, len(opened)


def _of_items_alone(file: BinaryIO, facts: HeifFacts) -> BinaryIO:
    """Hide tracks and brands from libheif, which expects a sequence if a brand says so and refuses those of videos."""
    further = range(FURTHER_BRANDS_AT, FURTHER_BRANDS_AT + 4 * (len(facts.brands) - 1), 4)
    brands = ((MAJOR_BRAND_AT, b"heic"), *((at, b"mif1") for at in further))
    return masked(without_boxes(file, facts.movies), brands if facts.brands else ())


def _has_void(image: Image.Image) -> bool:
    """Tell whether tiles are missing: libheif leaves Y, Cb and Cr at 0, a shade of green that is otherwise rare."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    red, green, blue = (np.asarray(image.getchannel(name)) for name in "RGB")
    shades = np.bincount(green[(red == 0) & (blue == 0)], minlength=256)[VOID_GREEN]
    return bool(shades.max() >= max(VOID_PIXELS, VOID_SHARE * green.size))
