"""Files that name other files or servers: none of these is opened, whatever the format and the file's name."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import av
import pytest
from av.format import ContainerFormat

from deepscan.errors import InputError, UnreadableInput
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.pyav_container import _accepted_demuxers
from deepscan.runtime.media.sampling import Sampling, sampled_frames
from tests.footage import counting, quadrants, write_video

IN_ACCESS, IN_OPEN = 0x01, 0x20
OPENED: Final = "the file"
COUNT: Final = 5
EVERY_FRAME: Final = Sampling("all")


@dataclass
class Bait:
    """A file and a server that nobody may touch.

    Attributes:
        file: a transport stream, so that every playlist could go on with it.
        url: of the server on this machine.
        touched: connections that the server saw.
    """

    file: Path
    url: str
    watch: int
    touched: list[str] = field(default_factory=list)

    def taken(self) -> list[str]:
        """Return what was touched since the last call."""
        found, self.touched[:] = self.touched.copy(), []
        while True:
            try:
                os.read(self.watch, 4096)
            except BlockingIOError:
                return found
            found.append(OPENED)


@pytest.fixture
def bait(tmp_path: Path) -> Iterator[Bait]:
    """Watch a file through the system (inotify) and listen on a port."""
    (tmp_path / "secret").mkdir()
    file = write_video(tmp_path / "secret" / "canary.ts", counting(COUNT))
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(file), IN_ACCESS | IN_OPEN) > 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        bait = Bait(file, f"http://127.0.0.1:{server.getsockname()[1]}", watch)
        listening = threading.Thread(target=_serve, args=(server, bait.touched), daemon=True)
        listening.start()
        try:
            yield bait
        finally:
            os.close(watch)
            server.shutdown(socket.SHUT_RDWR)
            listening.join()


def _serve(server: socket.socket, touched: list[str]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        touched.append("the server")
        with connection:
            connection.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")


def hls(target: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n".encode()


def hls_key(target: str) -> bytes:
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"'
    return f'#EXTM3U\n{key}\n#EXT-X-MAP:URI="{target}"\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n'.encode()


def hls_master(target: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{target}\n".encode()


def concat(target: str) -> bytes:
    return f"ffconcat version 1.0\nfile '{target}'\n".encode()


def dash(target: str) -> bytes:
    segment = f'<Representation id="0" bandwidth="9" mimeType="video/mp4"><BaseURL>{target}</BaseURL></Representation>'
    inner = f'<Period><AdaptationSet contentType="video">{segment}</AdaptationSet></Period>'
    kind = 'xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S"'
    return f'<?xml version="1.0"?><MPD {kind}>{inner}</MPD>'.encode()


def sdp(target: str) -> bytes:
    port = target.rpartition(":")[2] if target.startswith("http") else "9"
    return f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n".encode()


def url_list(target: str) -> bytes:
    return f"{target}\n{target}\n".encode()


def smooth_streaming(target: str) -> bytes:
    return f'<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{target}"/></SmoothStreamingMedia>'.encode()


def subtitles(target: str) -> bytes:
    return f"1\n00:00:00,000 --> 00:00:09,000\n<img src='{target}'>\n".encode()


def styled_subtitles(target: str) -> bytes:
    return f"[Script Info]\nVideo File: {target}\n[Events]\nDialogue: 0,0:00:00.00,0:00:09.00,x,,0,0,0,,hi\n".encode()


def metadata(target: str) -> bytes:
    return f";FFMETADATA1\ntitle={target}\n[STREAM]\nurl={target}\n".encode()


def avisynth(target: str) -> bytes:
    return f'DirectShowSource("{target}")\n'.encode()


def rtsp_redirect(target: str) -> bytes:
    return f"RTSPtext\r\n[Reference]\r\nRef1={target}\r\n<ASX version='3'><Ref href='{target}'/></ASX>".encode()


def movie_reference(target: str) -> bytes:
    """Return a QuickTime movie that consists of the address of another one."""
    url = target.encode() + b"\0"
    rdrf = box(b"rdrf", struct.pack(">I4sI", 0, b"url ", len(url)) + url)
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"rmra", box(b"rmda", rdrf)))


PLAYLISTS: Final[dict[str, tuple[Callable[[str], bytes], str]]] = {
    "hls": (hls, "m3u8"),
    "hls key": (hls_key, "m3u8"),
    "hls master": (hls_master, "m3u8"),
    "concat": (concat, "ffconcat"),
    "dash": (dash, "mpd"),
    "sdp": (sdp, "sdp"),
    "url list": (url_list, "txt"),
    "smooth streaming": (smooth_streaming, "ism"),
    "subtitles": (subtitles, "srt"),
    "styled subtitles": (styled_subtitles, "ass"),
    "metadata": (metadata, "ffmeta"),
    "avisynth": (avisynth, "avs"),
    "asx": (rtsp_redirect, "asx"),
    "movie reference": (movie_reference, "mov"),
}
TARGETS: Final[dict[str, Callable[[Bait], str]]] = {
    "server": lambda bait: f"{bait.url}/canary.ts",
    "file": lambda bait: str(bait.file),
    "file url": lambda bait: f"file://{bait.file}",
    "beside": lambda bait: os.path.relpath(bait.file, bait.file.parent.parent),
}


def scanned(path: str, sampling: Sampling = EVERY_FRAME) -> int:
    """Return how many frames a scan would look at."""
    with open_input(path, threads=1) as reader:
        return len(list(sampled_frames(reader, sampling)))


@pytest.mark.parametrize("renamed", [False, True], ids=["own name", "mp4"])
@pytest.mark.parametrize("what", PLAYLISTS)
def test_what_only_names_other_files_is_refused_and_they_are_not_touched(
    tmp_path: Path, bait: Bait, monkeypatch: pytest.MonkeyPatch, what: str, renamed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    write, ending = PLAYLISTS[what]
    for target in TARGETS.values():
        path = tmp_path / f"list.{'mp4' if renamed else ending}"
        path.write_bytes(write(target(bait)))
        with pytest.raises(InputError):
            scanned(str(path))
    assert bait.taken() == []


@pytest.mark.parametrize("what", ["hls", "concat"])
def test_ffmpeg_left_to_itself_would_touch_them(tmp_path: Path, bait: Bait, what: str) -> None:
    """The bait works: else the test above would prove nothing."""
    write, ending = PLAYLISTS[what]
    path = tmp_path / f"list.{ending}"
    options = {"protocol_whitelist": "file,http,tcp", "safe": "0"}
    path.write_bytes(write(str(bait.file)))
    with av.open(str(path), container_options=options) as container:
        assert sum(1 for _ in container.decode(video=0)) == COUNT
    assert OPENED in bait.taken()
    path.write_bytes(write(f"{bait.url}/canary.ts"))
    with pytest.raises((av.FFmpegError, StopIteration)), av.open(str(path), container_options=options) as container:
        next(container.decode(video=0))
    assert "the server" in bait.taken()


def test_a_format_that_opens_the_file_of_the_same_name_is_not_taken(tmp_path: Path, bait: Bait) -> None:
    path = tmp_path / "list.idx"
    path.write_bytes(b"# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n")
    os.link(bait.file, tmp_path / "list.sub")
    with av.open(str(path)):  # FFmpeg left to itself
        assert OPENED in bait.taken()
    with pytest.raises(UnreadableInput, match="finds no video"):
        scanned(str(path))
    assert bait.taken() == []


def test_no_format_is_accepted_that_needs_no_file() -> None:
    """Devices and generators; and the two defences do not lean on each other: formats that open files are left out."""
    accepted = set(_accepted_demuxers().split(","))
    without_file = {name for name in av.formats_available if _needs_no_file(name)}
    assert {"lavfi", "image2", "rtsp"} <= without_file
    assert accepted.isdisjoint(without_file)
    assert accepted.isdisjoint({"hls", "concat", "dash", "sdp", "image2", "vobsub"})
    assert "mov,mp4,m4a,3gp,3g2,mj2" in _accepted_demuxers()


def _needs_no_file(name: str) -> bool:
    try:
        return ContainerFormat(name, "r").no_file
    except ValueError:  # it can only be written
        return False


@pytest.mark.parametrize("name", ["img%03d.png", "img%d.mp4", "img*.png", "img[0-9].jpg", "img001.png"])
def test_a_name_that_is_a_pattern_means_the_one_file(tmp_path: Path, name: str) -> None:
    picture = write_video(tmp_path / "picture.png", [quadrants()], codec="png", pixel_format="rgb24")
    for number in range(3):
        (tmp_path / f"img{number:03d}.png").write_bytes(picture.read_bytes())
    (tmp_path / name).write_bytes(picture.read_bytes())
    assert scanned(str(tmp_path / name)) == 1


@pytest.mark.parametrize("prefix", ["", "file:", "concat:", "subfile,,start,0,end,0,,:", "crypto:", "cache:", "async:"])
def test_a_path_is_a_path_and_no_address(
    tmp_path: Path, bait: Bait, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (f"{prefix}{bait.url}/canary.ts", f"{prefix}secret/missing.ts", "data:video/mp2t;base64,AAAA"):
        with pytest.raises(UnreadableInput, match="cannot be opened"):
            scanned(path)
    if prefix:
        with pytest.raises(UnreadableInput, match="cannot be opened"):
            scanned(f"{prefix}{bait.file}")
    assert bait.taken() == []


@pytest.mark.parametrize(
    "name",
    [
        "-i",
        "-rf.mp4",
        "--help",
        "http:/127.0.0.1/x.mp4",
        "http://127.0.0.1/x.mp4",
        "file:x.mp4",
        "data:video,x",
        "pipe:0",
        "concat:a|b.mp4",
        "two\nlines.mp4",
        "\x1b]0;title\x07\x1b[31m.mp4",
        "$(touch x);`touch x`.mp4",
        os.fsdecode(b"\xff\xfe\x80.mp4"),
    ],
    ids=ascii,
)
def test_a_file_of_any_name_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    write_video(tmp_path / "video.mp4", counting(COUNT)).rename(name)
    assert scanned(name) == COUNT
    assert scanned(name, Sampling("middles", count=3)) == 3


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, name) + content


def with_reference(path: Path, entry: bytes) -> Path:
    """Let an MP4 file say that its samples lie elsewhere."""
    data = bytearray(write_video(path, counting(COUNT)).read_bytes())
    assert data.index(b"mdat") < data.index(b"moov")  # so the samples stay where the tables say
    place = 0
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = data.index(name, place)
        size = struct.unpack_from(">I", data, place - 4)[0]
        struct.pack_into(">I", data, place - 4, size + len(entry) - 12)
    old = place + 12
    assert data[old : old + 8] == b"\0\0\0\x0curl "
    path.write_bytes(data[:old] + entry + data[old + 12 :])
    return path


def alias(target: str, *, levels: int) -> bytes:
    """Return what QuickTime calls an alias, as FFmpeg reads it (libavformat/mov.c, mov_read_dref).

    `levels` is how many of the path's last parts lie below the folder of the file that has the alias; 0: unknown.
    """
    path = target.encode()
    name = os.path.basename(target).encode()
    head = bytes(10) + bytes([4]) + b"disk".ljust(27, b"\0") + bytes(12) + bytes([len(name)]) + name.ljust(63, b"\0")
    place = bytes(16) + struct.pack(">HH", levels, levels) + bytes(16)
    whole = struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    return box(b"alis", bytes(4) + head + place + whole + bytes(8))


REFERENCES: Final[dict[str, Callable[[str], bytes]]] = {
    "url": lambda target: box(b"url ", bytes(4) + target.encode() + b"\0"),
    "urn": lambda target: box(b"urn ", bytes(4) + b"x\0" + target.encode() + b"\0"),
    "alias": partial(alias, levels=0),
    "alias beside": partial(alias, levels=1),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", REFERENCES)
def test_samples_that_lie_in_another_file_are_not_fetched(
    tmp_path: Path, bait: Bait, monkeypatch: pytest.MonkeyPatch, kind: str, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = with_reference(bait.file.with_name("video.mp4"), REFERENCES[kind](TARGETS[target](bait)))
    bait.taken()
    for sampling in (EVERY_FRAME, Sampling("middles", count=2)):
        if kind.startswith("alias"):
            with pytest.raises(UnreadableInput, match="Not one frame"):
                scanned(str(path), sampling)
        else:  # FFmpeg knows no other references, and takes the samples to be in the file itself
            assert scanned(str(path), sampling) == (COUNT if sampling.choice == "all" else 2)
    assert bait.taken() == []


@pytest.mark.parametrize("levels", [0, 1])
def test_ffmpeg_told_to_would_fetch_them(bait: Bait, levels: int) -> None:
    path = with_reference(bait.file.with_name("video.mp4"), alias(str(bait.file), levels=levels))
    assert bait.taken() == []
    with av.open(str(path), container_options={"enable_drefs": "1", "use_absolute_path": "1"}):
        assert OPENED in bait.taken()


def test_nothing_but_the_video_of_a_matroska_file_is_looked_at(tmp_path: Path, bait: Bait) -> None:
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        attach: Any = container.add_attachment
        attach(
            "cover.png",
            "image/png",
            write_video(tmp_path / "cover.png", [quadrants()], codec="png", pixel_format="rgb24").read_bytes(),
        )
        attach(f"../../{bait.file.name}", "application/x-font", b"#EXTM3U\n" + str(bait.file).encode())
        for number, picture in enumerate(counting(COUNT)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    listed = sorted(tmp_path.iterdir())
    assert scanned(str(path)) == COUNT
    assert sorted(tmp_path.iterdir()) == listed
    assert bait.taken() == []


def test_segments_of_other_matroska_files_are_not_looked_for(tmp_path: Path, bait: Bait) -> None:
    path = write_video(bait.file.with_name("video.mkv"), counting(COUNT))
    data = path.read_bytes()
    name = bait.file.name.encode()
    linked = b"\x3e\x83\xbb" + bytes([0x80 + len(name)]) + name  # NextFilename
    linked += b"\x3e\xb9\x23\x90" + b"x" * 16  # NextUUID
    head = data.index(b"\x11\x4d\x9b\x74")
    void = head + 5 + data[head + 4] - 0x80  # behind the SeekHead: the room that it may need
    info = data.index(b"\x15\x49\xa9\x66", void)
    assert info - void > len(linked) + 24
    body = b"\x15\x49\xa9\x66" + bytes([0x80 + len(linked)]) + linked
    rest = info - void - len(body) - 2
    path.write_bytes(data[:void] + body + b"\xec" + bytes([0x80 + rest]) + bytes(rest) + data[info:])
    bait.taken()
    assert scanned(str(path)) == COUNT
    assert bait.taken() == []
