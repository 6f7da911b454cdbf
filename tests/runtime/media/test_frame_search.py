"""Of healthy videos exactly as many frames come as are asked for, whatever their length, rate and rounding."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.media.frame_search import frames_near, windows_near

RATES = [1.0, 10.0, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 120.0]
rates = st.sampled_from(RATES)
groups = st.sampled_from([1, 2, 5, 12, 250])
ticks = st.sampled_from([1000, 12800, 90000])


class SyntheticVideo:
    """A video of frames that know only their times and whether they are key frames."""

    def __init__(self, count: int, rate: float, *, group: int, tick: int) -> None:
        self.times = [round(n / rate * tick) / tick for n in range(count)]
        self.group, self.place = group, 0

    def decode(self) -> Iterator[Any]:
        while self.place < len(self.times):
            number = self.place
            self.place += 1
            yield SimpleNamespace(pts_seconds=self.times[number], key_frame=number % self.group == 0)

    def jump(self, target: float, reached: float) -> bool:
        keys = [n for n in range(0, len(self.times), self.group) if self.times[n] <= target]
        if not keys or keys[-1] <= self.place or self.times[keys[-1]] <= reached:
            return False
        self.place = keys[-1]
        return True

    def rewind(self) -> bool:
        self.place = 0
        return True


@given(st.integers(1, 300), rates, st.integers(1, 40), groups, ticks, st.booleans(), st.booleans())
def test_as_many_frames_come_as_are_asked_for_if_the_video_has_them(
    count: int, rate: float, asked: int, group: int, tick: int, nearby: bool, ends: bool
) -> None:
    made = SyntheticVideo(count, rate, group=group, tick=tick)
    duration = made.times[-1] + 1 / rate
    part = duration / asked
    times = [part * (number + 0.5) for number in range(asked)]
    if ends:
        times = [max(0.0, duration - 1 / rate) * number / max(1, asked - 1) for number in range(asked)]
    found = list(frames_near(made, times, tolerance_seconds=part if nearby else 0.0, frame_seconds=1 / rate))
    assert len(found) == len({frame.pts_seconds for frame in found})
    if asked <= count:
        assert len(found) == asked
    else:
        assert len(found) == count


@given(st.integers(1, 400), rates, st.integers(1, 6), st.integers(1, 32), groups, ticks)
def test_every_window_is_whole(count: int, rate: float, asked: int, length: int, group: int, tick: int) -> None:
    made = SyntheticVideo(count, rate, group=group, tick=tick)
    part, window = (made.times[-1] + 1 / rate) / asked, length / rate
    if part <= window * (1 + 1e-9):
        return  # such a video is taken whole
    starts = [part * number + (part - window) / 2 for number in range(asked)]
    found = list(windows_near(made, starts, length, tolerance_seconds=(part - window) / 2, frame_seconds=1 / rate))
    assert [number for number, _ in found] == [number for number in range(asked) for _ in range(length)]
    assert len({frame.pts_seconds for _, frame in found}) == asked * length
