"""Files that are no boxes at all, and boxes that claim to be larger than any file."""

from __future__ import annotations

import io

import pytest

from deepscan.runtime.media.boxes import boxes, inside
from deepscan.runtime.media.heif_facts import heif_facts


@pytest.mark.parametrize("second", [b"\x67\x42\xc0\x1e\xff\xff\xff\xff\xff\xff\xff\xff", b"free" + b"\xff" * 8])
def test_a_size_beyond_any_file_ends_the_boxes(second: bytes) -> None:
    data = b"\0\0\0\1" + second + bytes(64)  # as a raw H.264 stream begins, too
    (found,) = boxes(lambda place, count: data[place : place + count], 0, len(data))
    assert found.at == 0
    assert found.end > len(data)
    assert heif_facts(io.BytesIO(data)).kind is None


def test_boxes_inside_one_another_may_claim_as_much() -> None:
    endless = b"\0\0\0\1%b" + b"\x7f" + b"\xff" * 7
    data = b"".join(endless % kind for kind in (b"moov", b"trak", b"mdia", b"free")) + bytes(64)
    assert not heif_facts(io.BytesIO(data)).others
    assert len(list(inside(lambda place, count: data[place : place + count], 0, len(data), b"moov", b"trak"))) == 1
