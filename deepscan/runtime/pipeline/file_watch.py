"""Identification of the bytes a video was decoded from: files may be changed, replaced or moved after planning."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from deepscan.errors import InputError
from deepscan.runtime.media.content import PlannedContent, content_of, signature_of
from deepscan.runtime.media.frames import ignore_progress
from deepscan.runtime.system.regular_files import OpenedFile, opened_files, reading_failed

CHANGED: Final = "the file changed while it was scanned: the same command scans it again"


@dataclass(frozen=True, slots=True)
class ContentRead:
    """Content id of the bytes that were read, None if unknown or not asked for, or why they could not be read.

    `changed` tells whether the file was written to or replaced while it was read.
    """

    content: str | None = None
    changed: bool = False
    failure: InputError | None = None


class FileWatch:
    """Context manager that watches the files of one video, through descriptors of its own.

    Without a `planned` content, the content is not asked for. `moved` is called while a file is hashed again.
    """

    def __init__(self, planned: PlannedContent | None, moved: Callable[[], None] = ignore_progress) -> None:
        self._planned, self._moved = planned, moved
        self._files: list[OpenedFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Watch the files that this thread opens within the context."""
        with opened_files() as found:
            try:
                yield
            finally:
                self._files += found

    def read(self) -> ContentRead:
        """Return the content that has been read so far.

        A file with the planned signature has the planned content. A file that was touched, moved or replaced before it
        was opened is hashed again. If it was written to after it was opened, the content is unknown.
        """
        try:
            for file in self._files:
                if file.file.failure is not None:
                    raise file.file.failure
            return self._read() if self._files else ContentRead()
        except OSError as error:
            return ContentRead(failure=reading_failed(error))
        except InputError as error:
            return ContentRead(failure=error)

    def _read(self) -> ContentRead:
        first = self._files[0].found
        seen = [*(file.found for file in self._files), *(os.fstat(file.descriptor) for file in self._files)]
        if any((found.st_size, found.st_mtime_ns) != (first.st_size, first.st_mtime_ns) for found in seen):
            return ContentRead(changed=True)
        if self._planned is None:
            return ContentRead()
        signature = self._planned.signature
        if all(signature_of(found) == signature for found in seen):
            return ContentRead(self._planned.content)
        content = content_of(self._files[-1].descriptor, full=self._planned.full, moved=self._moved)
        if signature_of(first) == signature and content != self._planned.content:
            return ContentRead(changed=True)
        return ContentRead(content)
