from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.cli.scan_display import NARROWEST_BAR, per_second, progress_line

PARTS = ["9999/10001 files", "12345 frames/s", "12:34:56 left", "123456 faces"]


def test_eighty_columns_hold_everything_and_a_bar_where_there_is_room() -> None:
    line = progress_line(0.5, PARTS, 77)
    assert all(part in line for part in PARTS)
    assert len(line) <= 77
    assert "━" * (NARROWEST_BAR // 2) in progress_line(0.5, ["1/2 files", "100 frames/s"], 77)


@given(st.floats(0, 1.5), st.integers(0, 200))
def test_no_line_is_longer_than_the_terminal(share: float, width: int) -> None:
    assert len(progress_line(share, PARTS, width)) <= max(width, len("100 %"))


@pytest.mark.parametrize(("width", "kept"), [(77, 4), (60, 3), (45, 2), (25, 1), (8, 0)])
def test_the_least_important_parts_go_first(width: int, kept: int) -> None:
    line = progress_line(0.5, PARTS, width)
    assert [part in line for part in PARTS] == [True] * kept + [False] * (4 - kept)
    assert "50 %" in line


@pytest.mark.parametrize(
    ("rate", "said"), [(0.0, "0 frames/s"), (0.04, "0.04 frames/s"), (1.0, "1 frame/s"), (63.4, "63 frames/s")]
)
def test_a_rate_is_never_rounded_to_nothing(rate: float, said: str) -> None:
    assert per_second(rate) == said
