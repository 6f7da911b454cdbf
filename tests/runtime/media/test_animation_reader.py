"""Animations are videos: every composed frame at its time, seekable, within the limits, in constant memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from deepscan.errors import OverLimit, UnreadableInput
from deepscan.limits import Limits
from deepscan.runtime.media.frames import Frame, Reader
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.picture_reader import PictureReader, is_animated_webp, open_animation
from deepscan.runtime.media.sampling import LengthLimit, Sampling, sampled_frames
from tests.footage import counting, flat, number_of
from tests.runtime.stills import EXIF_ORIENTATION, Pixels, encoded, photo, upright_rgb

COUNT = 15
WIDTH, HEIGHT = 64, 48


def webp(pictures: list[Any], **options: Any) -> bytes:
    images = [each if isinstance(each, Image.Image) else Image.fromarray(each) for each in pictures]
    settings = {"lossless": True, "duration": 40, **options}
    return encoded(images[0], "WEBP", save_all=True, append_images=images[1:], **settings)


def animation(data: bytes, **options: Any) -> PictureReader:
    reader = open_animation(BytesIO(data), **options)
    assert reader is not None
    return reader


@pytest.fixture(scope="module")
def numbers() -> bytes:
    return webp(counting(COUNT))


def moving_patch(mode: str = "RGB") -> list[Image.Image]:
    """Return pictures of which only a small part changes, which encoders store as partial frames."""
    pictures = []
    for number in range(4):
        picture = flat((200, 190, 60), WIDTH, HEIGHT)
        picture[10:20, 8 * number : 8 * number + 10] = (60, 70, 190)
        pictures.append(Image.fromarray(picture).convert(mode))
    return pictures


def test_all_frames_come_at_their_times(numbers: bytes) -> None:
    with animation(numbers) as reader:
        frames = list(reader.frames())
        assert [number_of(upright_rgb(frame)) for frame in frames] == list(range(COUNT))
        assert [frame.index for frame in frames] == list(range(COUNT))
        assert [round(frame.pts_seconds, 6) for frame in frames] == [round(0.04 * number, 6) for number in range(COUNT)]
        assert (reader.info.codec, reader.info.width, reader.info.height) == ("webp", WIDTH, HEIGHT)
        assert reader.info.duration_seconds == pytest.approx(0.6) == reader.duration_seconds()
        assert reader.warnings() is None
        assert len(list(reader.frames())) == COUNT  # once more, from the start


def test_durations_of_their_own_and_none() -> None:
    with animation(webp(counting(4), duration=[500, 0, 10, 30])) as reader:
        seconds = [frame.pts_seconds for frame in reader.frames()]
        assert seconds == pytest.approx([0.0, 0.5, 0.6, 0.7])
        assert reader.info.duration_seconds == pytest.approx(0.73)


@pytest.mark.parametrize("file_format", ["WEBP", "GIF", "PNG"])
@pytest.mark.parametrize("disposal", [0, 1, 2])
def test_partial_frames_are_composed_as_pillow_does(tmp_path: Path, file_format: str, disposal: int) -> None:
    images = moving_patch()
    options: dict[str, Any] = {"lossless": True, "kmin": 9, "kmax": 9} if file_format == "WEBP" else {}
    if file_format != "WEBP":
        options["disposal"] = disposal
    data = encoded(images[0], file_format, save_all=True, append_images=images[1:], duration=100, **options)
    (tmp_path / "moving").write_bytes(data)
    with open_input(str(tmp_path / "moving"), threads=1) as reader:
        seen = [reader.shrink(frame, WIDTH)[..., ::-1].astype(int) for frame in reader.frames()]
    expected = [
        np.asarray(each.convert("RGB")).astype(int) for each in ImageSequence.Iterator(Image.open(BytesIO(data)))
    ]
    assert len(seen) == len(expected) == 4
    for one, other in zip(seen, expected, strict=True):
        assert np.abs(one - other).max() <= 4


def test_animations_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    with animation(webp(moving_patch(), exif=exif.tobytes())) as reader:
        assert (reader.info.width, reader.info.height) == (HEIGHT, WIDTH)
        expected = np.rot90(np.asarray(moving_patch()[0]), 3)
        assert np.array_equal(upright_rgb(next(iter(reader.frames()))), expected)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling("middles", 5), [1, 4, 7, 10, 13]),
        (Sampling("middles", 5, nearby=True), [1, 4, 7, 10, 13]),
        (Sampling("middles", 100), list(range(COUNT))),
        (Sampling("ends", 3), [0, 7, 14]),
        (Sampling("windows", 3, window_frames=2), [1, 2, 6, 7, 11, 12]),
        (Sampling("windows", 3, window_frames=9), list(range(COUNT))),
        (Sampling("first", 4), [0, 1, 2, 3]),
        (Sampling("all"), list(range(COUNT))),
    ],
    ids=str,
)
def test_every_way_of_sampling(numbers: bytes, sampling: Sampling, expected: list[int]) -> None:
    with animation(numbers) as reader:
        taken = [number_of(upright_rgb(frame)) for _, frame in sampled_frames(reader, sampling)]
    assert taken == expected


def test_windows_share_no_frame(numbers: bytes) -> None:
    with animation(numbers) as reader:
        found = [
            (window, frame.index) for window, frame in reader.windows([0, 0.04, 0.3, 0.59], 3, tolerance_seconds=0)
        ]
    assert found == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 7), (2, 8), (2, 9), (3, 14)]


def test_limits_hold(numbers: bytes) -> None:
    with animation(numbers) as reader:
        with pytest.raises(OverLimit, match="--max-frames"):
            list(sampled_frames(reader, Sampling("all"), LengthLimit(Limits(frames=5))))
        with pytest.raises(OverLimit, match="--max-duration"):
            list(sampled_frames(reader, Sampling("middles", 3), LengthLimit(Limits(seconds=0.1))))
        length = LengthLimit(Limits(frames=5, on_limit="truncate"))
        assert len(list(sampled_frames(reader, Sampling("all"), length))) == 5
    with pytest.raises(OverLimit, match="--max-pixels"):
        animation(numbers, limits=Limits(pixels=WIDTH * HEIGHT - 1))


def test_a_huge_canvas_is_refused_before_it_is_allocated(numbers: bytes) -> None:
    huge = numbers[:24] + (16_382).to_bytes(3, "little") * 2 + numbers[30:]
    tracemalloc.start()
    with pytest.raises(OverLimit):
        animation(huge)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_one_frame_is_a_still(tmp_path: Path) -> None:
    frame = webp(counting(2))
    start = frame.index(b"ANMF", frame.index(b"ANMF") + 4)
    single = frame[:4] + (start - 8).to_bytes(4, "little") + frame[8:start]
    assert is_animated_webp(single)
    (tmp_path / "still").write_bytes(single)
    with open_input(str(tmp_path / "still"), threads=1) as reader:
        assert isinstance(reader, PictureReader)
        assert reader.warnings() is None


def test_several_pages_are_no_animation(tmp_path: Path) -> None:
    images = moving_patch()
    images[0].save(tmp_path / "pages.tiff", save_all=True, append_images=images[1:])
    with open_input(str(tmp_path / "pages.tiff"), threads=1) as reader:
        assert isinstance(reader, PictureReader)
        assert reader.warnings() == "only the first of 4 pictures was scanned"


def test_damage_in_the_middle_is_mentioned_and_at_the_start_refused(numbers: bytes) -> None:
    places = [at for at in range(len(numbers)) if numbers.startswith(b"VP8L", at)]
    damaged = bytearray(numbers)
    for at in places[9:]:
        damaged[at + 9 : at + 20] = bytes(11)
    with animation(bytes(damaged)) as reader:
        assert len(list(reader.frames())) == 9
        assert reader.warnings() == f"only the first 9 of {COUNT} frames could be decoded"
        assert [frame.index for frame in reader.frames_at([0.5], tolerance_seconds=0.0)] == [0]
        assert [frame.index for _, frame in reader.windows([0.5], 3, tolerance_seconds=0.0)] == [0]
    damaged[places[0] + 9 : places[0] + 20] = bytes(11)
    with pytest.raises(UnreadableInput):
        animation(bytes(damaged))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_an_animation_that_is_cut_short_is_unreadable(tmp_path: Path, numbers: bytes, share: float) -> None:
    (tmp_path / "cut.webp").write_bytes(numbers[: int(share * len(numbers))])
    with pytest.raises(UnreadableInput):
        open_input(str(tmp_path / "cut.webp"), threads=1)


def test_frames_are_decoded_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, numbers: bytes) -> None:
    with animation(numbers) as reader:
        frames: Iterator[Any] = reader.frames()
        next(frames), next(frames)
        decoded: list[int] = []
        original = PictureReader._frame

        def counted(self: PictureReader, number: int) -> Frame:
            decoded.append(number)
            return original(self, number)

        monkeypatch.setattr(PictureReader, "_frame", counted)
        next(frames)
        assert decoded == [2]


def test_the_reader_keeps_its_contract(numbers: bytes) -> None:
    reader: Reader = animation(numbers)
    times = [frame.pts_seconds for frame in reader.frames()]
    assert all(one < other for one, other in pairwise(times))
    small: Pixels = reader.shrink(next(iter(reader.frames())), 32)
    assert small.shape == (24, 32, 3)
    reader.close()


def test_animated_stills_of_other_kinds_stay_stills() -> None:
    assert not is_animated_webp(encoded(photo(), "WEBP"))
    assert not is_animated_webp(encoded(photo(), "WEBP", lossless=True))
    assert not is_animated_webp(b"RIFF")
