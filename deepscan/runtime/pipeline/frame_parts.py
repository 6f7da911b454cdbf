"""Parts of a per-frame file: the scores of one video by one detector, one record per crop or clip.

A worker writes a part while it scans the video, so that nothing waits in memory, and ends it with a footer. The part of
a worker that was killed has none, and whoever scans the video again begins a new file. Nothing but the standard library
is needed to read one, as the supervisor's process loads no NumPy.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias
from zlib import crc32

from deepscan.errors import OutputError
from deepscan.results import FRAME_COLUMNS

if TYPE_CHECKING:
    from deepscan.runtime.faces.cropping import FaceInput

# The values of a `FrameScore` from `track` to `score`; of landmarks that are not known, NaN.
RECORD: Final = struct.Struct("<idq?14fddidd")
FIRST_VALUE: Final = FRAME_COLUMNS.index("track")
FOOTER: Final = struct.Struct("<8sQI")  # MAGIC, number of records, CRC-32 of the records
MAGIC: Final = b"frames1\n"
NO_LANDMARKS: Final = (float("nan"),) * 10
RECORDS_AT_ONCE: Final = 4096
BUFFER_BYTES: Final = 1 << 16

Values: TypeAlias = tuple[float, ...]


def partial_part(folder: str, index: int, number: int) -> str:
    """Return the path of a part that is being written, for the input and the detector with these numbers."""
    return os.path.join(folder, f"{index}.{number}.partial")


class _OpenPart:
    """A part that is being written."""

    def __init__(self, path: str) -> None:
        self._path = path
        with contextlib.suppress(FileNotFoundError):  # of a worker that was killed
            os.unlink(path)
        self._file: BinaryIO = open(path, "xb", buffering=BUFFER_BYTES)  # noqa: SIM115 - closed by `finish`, `discard`
        self._count = self._check = 0

    def add(self, record: bytes) -> None:
        self._file.write(record)
        self._count += 1
        self._check = crc32(record, self._check)

    def finish(self) -> None:
        with self._file:
            self._file.write(FOOTER.pack(MAGIC, self._count, self._check))

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        os.unlink(self._path)


class FrameRecorder:
    """Writes the parts of the videos that a worker is scanning into a folder.

    Raises:
        OutputError: a part cannot be written, as on a full disk.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._parts: dict[tuple[int, int], _OpenPart] = {}

    def add(self, number: int, item: FaceInput, logit: float, score: float) -> None:
        """Write the logit and the score that a detector, given by its number, gave to a crop or clip."""
        at = item.middle
        x0, y0, x1, y1 = at.box.tolist()
        landmarks = NO_LANDMARKS if at.landmarks is None else at.landmarks.reshape(-1).tolist()
        where = (at.pts_seconds, at.frame, at.found, x0, y0, x1 - x0, y1 - y0, *landmarks)
        record = RECORD.pack(
            item.track, *where, item.start_seconds, item.end_seconds, item.frames, float(logit), float(score)
        )
        key = item.job.index, number
        with self._writing():
            if key not in self._parts:
                self._parts[key] = _OpenPart(partial_part(self._folder, *key))
            self._parts[key].add(record)

    def end(self, index: int, number: int, *, keep: bool) -> None:
        """End the part of an input, if it has one; without `keep` it is removed."""
        part = self._parts.pop((index, number), None)
        if part is not None:
            with self._writing():
                part.finish() if keep else part.discard()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"Per-frame scores cannot be written to {self._folder} ({error.strerror}): make room there, and give "
                "the same command again, which keeps what is finished."
            ) from error


def is_whole(path: str) -> bool:
    """Tell whether a part is there and was written to its end; its records are not read."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            return _count(file, size) is not None
    except OSError:
        return False


def read_part(path: str) -> Iterator[Values]:
    """Yield the values of a part from `track` on, in the order of time for each track.

    Raises:
        OutputError: the part cannot be read or is damaged; what was yielded before may be wrong, too.
    """
    advice = "delete it, and give the same command again, which scans its video again"
    try:
        with open(path, "rb") as file:
            count = _count(file, file.seek(0, os.SEEK_END))
            if count is None:
                raise OutputError(f"{path} is damaged: {advice}.")
            check = 0
            file.seek(0)
            for start in range(0, count, RECORDS_AT_ONCE):
                data = file.read(RECORD.size * min(RECORDS_AT_ONCE, count - start))
                check = crc32(data, check)
                yield from RECORD.iter_unpack(data)
            if FOOTER.unpack(file.read(FOOTER.size))[2] != check:
                raise OutputError(f"{path} is damaged: {advice}.")
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}): {advice}.") from error


def _count(file: BinaryIO, size: int) -> int | None:
    """Return the number of records by the footer; None if the part is not whole."""
    if size < FOOTER.size:
        return None
    file.seek(size - FOOTER.size)
    magic, count, _ = FOOTER.unpack(file.read(FOOTER.size))
    whole = magic == MAGIC and size == count * RECORD.size + FOOTER.size
    return int(count) if whole else None
