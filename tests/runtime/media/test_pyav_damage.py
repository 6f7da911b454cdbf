"""Damaged files and things that are no videos: what can be read is read, the rest is refused in one sentence."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from deepscan.errors import InputError, UnreadableInput, UnsupportedInput
from tests.footage import flat, noise, open_video, quadrants, write_video

COUNT = 60
FASTSTART = {"movflags": "faststart"}
ONE_FRAME = Fraction(1, 25)


def whole_video(path: Path) -> Path:
    """Write a video of which every part weighs about the same."""
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
    time_base = ONE_FRAME if path.suffix == ".avi" else Fraction(1, 1000)
    options = FASTSTART if path.suffix == ".mp4" else None
    pictures = noise(COUNT)
    return write_video(path, pictures, codec=codec, options={"g": "10"}, time_base=time_base, container_options=options)


def read(path: Path) -> tuple[list[float], str | None]:
    """Return the times of all frames, each also shrunk, and what was damaged."""
    with open_video(str(path), threads=1) as reader:
        seconds = []
        for frame in reader.frames():
            seconds.append(frame.pts_seconds)
            assert reader.shrink(frame, 32).shape[2] == 3
        return seconds, reader.warnings()


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "avi", "flv", "ts", "h264"])
def test_of_a_file_cut_in_half_the_first_half_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str
) -> None:
    path = whole_video(tmp_path / f"video.{ending}")
    os.truncate(path, path.stat().st_size // 2)
    seconds, damage = read(path)
    assert 0.35 * COUNT < len(seconds) < 0.65 * COUNT
    assert seconds[:20] == pytest.approx([seconds[0] + number / 25 for number in range(20)], abs=1e-3)
    if ending in ("mp4", "mkv", "webm"):  # They state their length.
        assert f"only the first {len(seconds) / 25:.1f} of {COUNT / 25:.1f} seconds" in (damage or "")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "avi", "flv", "ts", "h264"])
@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_cost_frames_at_most(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, seed: int
) -> None:
    path = whole_video(tmp_path / f"video.{ending}")
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
    generator = np.random.default_rng(seed)
    places = generator.integers(len(data) // 5, len(data) * 9 // 10, size=20)
    data[places] ^= (1 << generator.integers(0, 8, size=20)).astype(np.uint8)
    path.write_bytes(data.tobytes())
    seconds, _ = read(path)
    assert 5 <= len(seconds) <= COUNT + 2
    assert all(after > before for before, after in pairwise(seconds))
    with open_video(str(path), threads=1) as reader:
        found = [frame.pts_seconds for frame in reader.frames_at([0.2, 1.0, 1.8], tolerance_seconds=0.4)]
    assert 1 <= len(found) <= 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ["mkv", "mp4", "avi"])
def test_damaged_packets_are_counted(tmp_path: Path, ending: str) -> None:
    path = whole_video(tmp_path / f"video.{ending}")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    seconds, damage = read(path)
    assert 5 <= len(seconds) <= COUNT
    assert damage is not None
    assert "damaged" in damage


def sound(path: Path, *, cover: bool = False) -> None:
    """Write a song, with the picture of its cover as the only "video"."""
    with av.open(str(path), "w") as container:
        audio: Any = container.add_stream("libmp3lame", rate=44100)
        audio.layout = "mono"
        packets: list[Any] = []
        if cover:
            picture: Any = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(quadrants(), format="rgb24").reformat(format="yuvj420p")
            frame.pts = 0
            packets += [*picture.encode(frame), *picture.encode(None)]
        for number in range(20):
            samples: Any = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 44100, 1152 * number
            packets += audio.encode(samples)
        for packet in [*packets, *audio.encode(None)]:
            container.mux(packet)


def cut_before_its_index(path: Path) -> None:
    write_video(path, noise(COUNT))
    os.truncate(path, path.stat().st_size // 2)


def damaged_at_its_start(path: Path) -> None:
    whole_video(path)
    data = path.read_bytes()
    path.write_bytes(b"\xa5" * 4096 + data[4096:])


def without_a_frame(path: Path) -> None:
    whole_video(path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat")] + b"mdat" + bytes(len(data)))


def playlist_of(name: str, path: Path) -> None:
    real = whole_video(path.with_name("real.ts"))
    text = {
        "hls": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.4,\n{real}\n#EXT-X-ENDLIST\n",
        "hls, near": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.4,\nreal.ts\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile {real}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "dash": f"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{real}</BaseURL></MPD>",
    }
    path.write_text(text[name], encoding="utf-8")


NO_VIDEOS: dict[str, tuple[type[InputError], Callable[[Path], object], str]] = {
    "missing": (UnreadableInput, lambda _: None, "video.mp4"),
    "empty": (UnreadableInput, Path.touch, "video.mp4"),
    "text": (UnreadableInput, lambda path: path.write_text("Dear reader,\n" * 99, encoding="utf-8"), "video.mp4"),
    "named text": (UnreadableInput, lambda path: path.write_text("Dear reader,\n" * 99, encoding="utf-8"), "a.txt"),
    "zeros": (UnreadableInput, lambda path: path.write_bytes(bytes(9999)), "video.mp4"),
    "one byte": (UnreadableInput, lambda path: path.write_bytes(b"\0"), "video.mkv"),
    "mp4 cut before its index": (UnreadableInput, cut_before_its_index, "video.mp4"),
    "mp4 damaged at its start": (UnreadableInput, damaged_at_its_start, "video.mp4"),
    "mkv damaged at its start": (UnreadableInput, damaged_at_its_start, "video.mkv"),
    "mp4 without a frame": (UnreadableInput, without_a_frame, "video.mp4"),
    "folder": (UnsupportedInput, Path.mkdir, "video.mp4"),
    "pipe": (UnsupportedInput, os.mkfifo, "video.mp4"),
    "song": (UnsupportedInput, sound, "song.mp3"),
    "sound named as a video": (UnsupportedInput, sound, "song.mkv"),
    "song with a cover": (UnsupportedInput, lambda path: sound(path, cover=True), "song.mp3"),
}
NO_VIDEOS |= {
    f"{name} playlist": (UnreadableInput, partial(playlist_of, name), "video.mp4")
    for name in ("hls", "hls, near", "ffconcat", "sdp", "dash")
}


@pytest.mark.parametrize("what", NO_VIDEOS)
def test_what_is_no_video_is_refused_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    error, make, name = NO_VIDEOS[what]
    path = tmp_path / name
    make(path)
    monkeypatch.chdir(tmp_path)
    open_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(error) as raised, open_video(str(path), threads=1) as reader:
        list(reader.frames())
    message = str(raised.value)
    assert message[0].isupper()
    assert message.endswith(".")
    assert ". " not in message
    assert "\n" not in message
    assert ":" in message  # what happened: what to do
    assert capfd.readouterr() == ("", "")
    assert len(os.listdir("/proc/self/fd")) == open_files


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_refused_with_a_hint_at_its_permissions(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", [quadrants()])
    path.chmod(0)
    with pytest.raises(UnreadableInput, match="permissions"):
        open_video(str(path), threads=1)


@pytest.mark.parametrize(
    "name", ["vidéo 視頻.mp4", "https:__x|y.mp4", "-i.mp4", "%03d.mp4", os.fsdecode(b"\xff\xfe.mp4")]
)
def test_names_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_video(tmp_path / "video.mp4", [quadrants()]).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_video(name, threads=1) as reader:
        assert len(list(reader.frames())) == 1


def test_closing_releases_the_file_in_the_middle_of_it(tmp_path: Path) -> None:
    path = whole_video(tmp_path / "video.mp4")
    open_files = len(os.listdir("/proc/self/fd"))
    with open_video(str(path), threads=1) as reader:
        next(reader.frames())
        assert len(os.listdir("/proc/self/fd")) == open_files + 1
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    big = flat((90, 80, 70), 640, 480)
    path = write_video(tmp_path / "video.mkv", [big] * 300, options={"preset": "ultrafast", "bf": "0"})
    page = os.sysconf("SC_PAGE_SIZE")
    alive: list[weakref.ref[Any]] = []
    resident = []
    with open_video(str(path), threads=2) as reader:
        for frame in reader.frames():
            alive.append(weakref.ref(frame.picture.planes[0]))
            resident.append(page * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]))
            assert sum(plane() is not None for plane in alive[-20:]) <= 3
    gc.collect()
    assert len(alive) == 300
    assert max(resident[50:]) - resident[50] < 25 * big.nbytes / 2  # 250 frames of 12 bits per pixel are ten times more


@pytest.mark.parametrize("rotation", [0.0, 90.0])
def test_a_closed_video_leaves_none_of_its_frames_behind_even_without_garbage_collection(
    tmp_path: Path, rotation: float
) -> None:
    path = write_video(tmp_path / "video.mp4", [flat((90, 80, 70), 318, 242)] * 3, rotation=rotation)
    gc.collect()
    gc.disable()
    try:
        with open_video(str(path), threads=1) as reader:
            assert len(list(reader.frames())) == 3
        del reader
        sizes = {(frame.width, frame.height) for frame in gc.get_objects() if type(frame) is av.VideoFrame}
        assert (318, 242) not in sizes
    finally:
        gc.enable()
