"""Opening an input by its content, not its name: pictures through Pillow, everything else through FFmpeg."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import BinaryIO, Final

from deepscan.errors import InputError, OverLimit
from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.media.decoder_choice import DeviceDecoding
from deepscan.runtime.media.file_bytes import without_boxes
from deepscan.runtime.media.frames import Reader, ignore_progress
from deepscan.runtime.media.heif_facts import heif_facts
from deepscan.runtime.media.picture_reader import is_animated_webp, open_animation, open_picture, picture_kind
from deepscan.runtime.media.pyav_reader import PyAVReader
from deepscan.runtime.system.regular_files import open_regular_file, reading_failed

# Holds what comes before a PNG's pixels and a JPEG's list of further pictures, apart from exotic files.
HEAD_BYTES: Final = 1 << 17
CHUNK_BYTES: Final = 1 << 20
# In a raw motion JPEG stream the next picture begins where one ends, give or take some padding.
NEXT_JPEG: Final = re.compile(rb"\xff\xd9[\0\xff]{0,8}\xff\xd8\xff")
LONGEST_MATCH: Final = 16


def open_input(
    path: str,
    *,
    threads: int,
    decoding: DeviceDecoding | None = None,
    limits: Limits = DEFAULT_LIMITS,
    moved: Callable[[], None] = ignore_progress,
) -> Reader:
    """Open a video or a picture for reading.

    A file that begins like a picture but seems to hold a video (an animated PNG, a raw motion JPEG stream) is a video
    if FFmpeg agrees. In files with items like those of HEIC and AVIF, FFmpeg sees only the tracks.

    Undecodable bytes in the name of the file are Python's surrogate escapes; the rest is as for `PyAVDecoder`. Pictures
    are left to the CPU.

    Raises:
        InputError: the path is no regular file, cannot be read, holds no decodable picture or video, or exceeds a
            limit.
    """
    file = open_regular_file(path)
    try:
        limits.check_file(os.fstat(file.fileno()).st_size)
        head = file.read(HEAD_BYTES)
        kind = picture_kind(head)
        if kind == "webp" and is_animated_webp(head) and (animation := open_animation(file, limits=limits)):
            file.close()
            return animation
        facts = heif_facts(file) if kind is None else None
        kind = facts.kind if facts is not None else kind
        moves = kind is not None and _seems_to_move(kind, head, file)
        if kind is None or moves:
            video = without_boxes(file, facts.others) if facts is not None and facts.others else file
            video.seek(0)
            try:
                return PyAVReader(path, video, threads=threads, decoding=decoding, limits=limits, moved=moved)
            except OverLimit:
                raise
            except InputError:
                if kind is None:
                    raise
        damage = "what follows its first picture was not scanned" if moves else None
        reader = open_picture(file, kind, damage=damage, limits=limits)
    except OSError as error:
        file.close()
        raise reading_failed(error) from error
    except BaseException:
        file.close()
        raise
    file.close()
    return reader


def _seems_to_move(kind: str, head: bytes, file: BinaryIO) -> bool:
    """Tell whether a picture's file holds further pictures that form a video."""
    if kind == "png":
        return b"acTL" in head.partition(b"IDAT")[0]
    if kind != "jpeg" or b"MPF\0" in head:  # a multi-picture file: second views, previews or gain maps follow
        return False
    file.seek(0)
    tail = b""
    while chunk := file.read(CHUNK_BYTES):
        if NEXT_JPEG.search(tail + chunk):
            return True
        tail = chunk[-LONGEST_MATCH:]
    return False
