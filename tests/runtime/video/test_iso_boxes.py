"""Files that are no boxes at all, and boxes that claim to be larger than any file."""

from __future__ import annotations

import io

import pytest

from deepscan.runtime.video.heif_facts import heif_facts
from deepscan.runtime.video.iso_boxes import boxes


@pytest.mark.parametrize("second", [b"\x67\x42\xc0\x1e\xff\xff\xff\xff\xff\xff\xff\xff", b"free" + b"\xff" * 8])
def test_a_size_beyond_any_file_ends_the_boxes(second: bytes) -> None:
    data = b"\0\0\0\1" + second + bytes(64)  # as a raw H.264 stream begins, too
    found = list(boxes(io.BytesIO(data), 0, len(data)))
    assert [(box.at, box.end) for box in found] == [(0, len(data))]
    assert heif_facts(io.BytesIO(data)).kind is None
