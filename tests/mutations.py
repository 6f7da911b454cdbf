"""Damaged and hostile videos, made from small real ones by a seed: the same seed gives the same bytes.

What is encoded differs between processors and versions of the encoders; what is done to it follows from the seed alone.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.footage import ASTRONAUT, example_frames, write_video

FRAMES = 12
RATE = 25
SIDE, OTHER_SIDE = 128, 96
KEY_FRAME_EVERY = 4
HEADER_BYTES = 1024
FACE = (slice(20, 540), slice(360, 880))  # of the example's 720 x 1280 pixels


@dataclass(frozen=True)
class Pair:
    """A codec in a container; `format` is FFmpeg's name of the container."""

    codec: str
    ending: str
    format: str
    pixel_format: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()


KEY_FRAMES = (("g", str(KEY_FRAME_EVERY)),)
PAIRS = (
    Pair("libx264", "mp4", "mp4", options=(*KEY_FRAMES, ("preset", "veryfast"))),
    Pair("libx265", "mov", "mov", options=(*KEY_FRAMES, ("preset", "ultrafast"))),
    Pair("libvpx-vp9", "webm", "webm", options=(*KEY_FRAMES, ("deadline", "realtime"), ("cpu-used", "8"))),
    Pair("libsvtav1", "mkv", "matroska", options=(*KEY_FRAMES, ("preset", "12"))),
    Pair("mpeg4", "avi", "avi", options=KEY_FRAMES),
    Pair("mpeg2video", "ts", "mpegts", options=KEY_FRAMES),
    Pair("mjpeg", "avi", "avi", "yuvj420p"),
    Pair("flv", "flv", "flv", options=KEY_FRAMES),
    Pair("prores_ks", "mov", "mov", "yuv422p10le"),
    Pair("libx264", "ts", "mpegts", options=(*KEY_FRAMES, ("preset", "veryfast"))),
    Pair("libvpx", "webm", "webm", options=(*KEY_FRAMES, ("deadline", "realtime"))),
    Pair("wmv2", "asf", "asf", options=KEY_FRAMES),
)


@dataclass(frozen=True)
class Field:
    """Where a container keeps a number: so far behind the start of its `marker`, in the layout of `struct`."""

    marker: bytes
    offset: int
    layout: str


@dataclass(frozen=True)
class Element:
    """A number of Matroska: its identifier is followed by its length, then by the number."""

    identifier: bytes


# ISO/IEC 14496-12 (version 0 of each box); RIFF's AVIMAINHEADER, AVISTREAMHEADER and BITMAPINFOHEADER; FLV's onMetaData
# (AMF0: 0x00, then a double); the sequence header of MPEG-2 (12 bits each for width and height, then aspect and rate);
# and, so that the numbers are those of the decoder too, what frames themselves say.
SIZE_FIELDS: tuple[Field | Element, ...] = (
    *(Field(b"tkhd", offset, ">I") for offset in (80, 84)),
    *(Field(entry, offset, ">H") for entry in (b"avc1", b"hev1", b"hvc1", b"ap[cno][nshd]") for offset in (28, 30)),
    *(Field(box, offset, ">I") for box in (b"avcC", b"hvcC") for offset in (9, 14, 18, 26, 34)),  # parameter sets
    Field(b"stsz", 8, ">I"),
    *(Field(b"avih", offset, "<I") for offset in (40, 44)),
    *(Field(b"strf", offset, "<I") for offset in (12, 16, 20)),
    *(Field(name + b"\\0", len(name) + 1, ">d") for name in (b"width", b"height")),
    *(Field(b"\0\0\\x01\xb3", offset, ">H") for offset in (4, 5)),
    *(Field(b"\0\0\\x01[\x67\x27]", offset, ">I") for offset in (5, 8, 11)),  # the parameter set of H.264
    *(Field(b"\x9d\x01\\x2a", offset, "<H") for offset in (3, 5)),  # a key frame of VP8
    *(Field(b"\xff\xc0\0\x11", offset, ">H") for offset in (5, 7)),  # a picture of JPEG
    *(Field(b"icpf", offset, ">H") for offset in (12, 14)),  # a frame of ProRes
    *(Element(identifier) for identifier in (b"\xb0", b"\xba", b"\x54\xb0", b"\x54\xba")),
)
RATE_FIELDS: tuple[Field | Element, ...] = (
    *(Field(box, 16, ">I") for box in (b"mvhd", b"mdhd", b"stts", b"ctts")),  # time scales, and the steps of samples
    Field(b"avih", 8, "<I"),
    *(Field(b"strh", offset, "<I") for offset in (28, 32)),
    Field(b"framerate\\0", 10, ">d"),
    Field(b"\0\0\\x01\xb3", 7, ">B"),
    *(Element(identifier) for identifier in (b"\x2a\xd7\xb1", b"\x23\xe3\x83")),
)
DURATION_FIELDS: tuple[Field | Element, ...] = (
    *(Field(box, offset, ">I") for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24), (b"elst", 12))),
    *(Field(box, offset, ">I") for box, offset in ((b"stts", 12), (b"stsz", 12), (b"ctts", 12), (b"elst", 16))),
    Field(b"avih", 24, "<I"),
    *(Field(b"strh", offset, "<I") for offset in (36, 40)),
    Field(b"duration\\0", 9, ">d"),
    *(Element(identifier) for identifier in (b"\x44\x89", b"\xe7", b"\x9b")),
)
# The last two become the largest number of their field. Some decoders do accept frames of 16,000 x 16,000 pixels.
ABSURD = (0.0, 1.0, 2.0, 255.0, 16_000.0, 65_535.0, 1e6, 2.0**31 - 1, -1.0, 1e-300, 2.0**63, float("inf"))
# What other formats begin with, text that makes players open further files included.
HEADS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"RIFF\xff\xff\xff\xffAVI LIST",
    b"RIFF\x10\0\0\0WEBPVP8 ",
    b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\0",
    b"\0\0\0\x18ftypmp42",
    b"FLV\x01\x05\0\0\0\x09",
    b"\x47\x40\0\x10",
    b"OggS\0\x02",
    b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<?xml version='1.0'?><MPD>",
    b"ID3\x04\0\0\0\0\x0f\x7f",
    b"YUV4MPEG2 W99999 H99999 F25:1 C420\nFRAME\n",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
)


@cache
def original(pair: Pair, side: int = SIDE) -> bytes:
    """Return an undamaged video of a moving face, with a key frame every `KEY_FRAME_EVERY` frames."""
    still = av.VideoFrame.from_ndarray(np.ascontiguousarray(example_frames(ASTRONAUT, 1)[0][FACE]), format="rgb24")
    picture: NDArray[np.uint8] = np.asarray(still.reformat(side, side, interpolation="AREA").to_ndarray(), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(
            Path(folder) / f"video.{pair.ending}",
            [np.roll(picture, number, axis=1) for number in range(FRAMES)],
            codec=pair.codec,
            pixel_format=pair.pixel_format,
            full_range=pair.pixel_format.startswith("yuvj"),
            rate=RATE,
            options=dict(pair.options),
            time_base=Fraction(1, RATE),
            # The index comes first, as in files for the web: so headers are at the start, and survive most cuts.
            container_options={"fflags": "+bitexact"}
            | ({"movflags": "+faststart"} if pair.format in ("mp4", "mov") else {}),
        )
        return path.read_bytes()


def mutated(seed: int) -> tuple[str, bytes]:
    """Return the name and the bytes of a damaged video; the name says what was done to what."""
    kinds = list(MUTATIONS)
    kind, pair = kinds[seed % len(kinds)], PAIRS[seed // len(kinds) % len(PAIRS)]
    data = MUTATIONS[kind](Random(seed), pair)
    return f"{seed:04}_{kind}_{pair.codec}.{pair.ending}", data


def _few_bits(random: Random, pair: Pair) -> bytes:
    return _flipped(random, original(pair), random.randint(1, 8))


def _many_bits(random: Random, pair: Pair) -> bytes:
    data = original(pair)
    return _flipped(random, data, len(data) // random.choice((10, 100, 1000)) + 1)


def _header_bits(random: Random, pair: Pair) -> bytes:
    return _flipped(random, original(pair), random.randint(1, 16), within=HEADER_BYTES)


def _flipped(random: Random, data: bytes, count: int, within: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[random.randrange(min(len(data), within or len(data)))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut_end(random: Random, pair: Pair) -> bytes:
    data = original(pair)
    return data[: random.choice((random.randrange(1, 64), random.randrange(1, len(data))))]


def _cut_start(random: Random, pair: Pair) -> bytes:
    data = original(pair)
    return data[random.choice((random.randrange(1, 64), random.randrange(1, len(data)))) :]


def _spliced(random: Random, pair: Pair) -> bytes:
    head, tail = original(pair), original(random.choice([other for other in PAIRS if other is not pair]))
    return head[: random.randrange(8, len(head))] + tail[random.randrange(len(tail) - 8) :]


def _wrong_head(random: Random, pair: Pair) -> bytes:
    head, data = random.choice(HEADS), original(pair)
    return head + data[random.choice((0, len(head))) :]


def _zeros(random: Random, pair: Pair) -> bytes:
    data = original(pair)
    length = min(len(data), random.choice((16, 256, 4096, len(data) // 2)))
    start = random.randrange(len(data) - length + 1)
    return data[:start] + bytes(length) + data[start + length :]


def _sizes(random: Random, pair: Pair) -> bytes:
    return _patched(random, original(pair), SIZE_FIELDS)


def _rates(random: Random, pair: Pair) -> bytes:
    return _patched(random, original(pair), RATE_FIELDS)


def _durations(random: Random, pair: Pair) -> bytes:
    return _patched(random, original(pair), DURATION_FIELDS)


def _patched(random: Random, data: bytes, fields: Sequence[Field | Element]) -> bytes:
    """Put absurd numbers into one to all of the fields that the file has; where it has none, flip bits of its head."""
    places: list[tuple[int, str]] = []
    for field in fields:
        if isinstance(field, Field):
            found = re.search(field.marker, data, re.DOTALL)
            places += [(found.start() + field.offset, field.layout)] if found else []
        elif data.startswith(b"\x1aE\xdf\xa3"):
            found = re.search(re.escape(field.identifier) + rb"([\x81-\x88])", data[:HEADER_BYTES], re.DOTALL)
            places += [(found.end(), f"{found[1][0] - 0x80}s")] if found else []
    changed = bytearray(data)
    alike = random.choice(ABSURD) if random.random() < 0.5 else None  # or each field gets another
    for place, layout in random.sample(places, random.randint(min(1, len(places)), len(places))):
        length = struct.calcsize(layout)
        if place + length <= len(data):
            number = _fitting(random.choice(ABSURD) if alike is None else alike, layout)
            struct.pack_into(layout, changed, place, number)
    return bytes(changed) if places else _flipped(random, data, 16, within=HEADER_BYTES)


def _fitting(number: float, layout: str) -> Any:
    """Return the number, or the nearest that the layout can hold."""
    if layout == ">d":
        return float(number)
    length = struct.calcsize(layout)
    whole = int(min(max(number, 0.0), 2.0 ** (8 * length - 1))) if number < 2**63 else 2 ** (8 * length) - 1
    return whole.to_bytes(length, "big") if layout.endswith("s") else whole


def _resized(random: Random, pair: Pair) -> bytes:
    """Change the size in mid-stream: whole files one after the other, or packets of both under the first one's head."""
    first, second = random.sample([original(pair), original(pair, OTHER_SIDE)], 2)
    if random.random() < 0.5 or pair.format == "mpegts":
        return first + second
    earlier, later = _packets(first), _packets(second)
    return _remuxed(pair, first, [*earlier, *(_moved(packet, FRAMES) for packet in later)])


def _without_key_frames(random: Random, pair: Pair) -> bytes:
    packets = _packets(original(pair))
    first = random.random() < 0.5
    kept = [packet for number, packet in enumerate(packets) if not packet.key or (first and number)]
    return _remuxed(pair, original(pair), kept or packets[1::2])


def _timestamps(random: Random, pair: Pair) -> bytes:
    """Move all times, or those after a jump, far to either side."""
    jump = random.choice((-(2**40), -(2**31), -1000, -FRAMES, 1000, 2**31, 2**33 - 5, 2**40, 2**62))
    start = random.choice((0, 0, FRAMES // 2))
    packets = _packets(original(pair))
    return _remuxed(pair, original(pair), [*packets[:start], *(_moved(packet, jump) for packet in packets[start:])])


def _shuffled(random: Random, pair: Pair) -> bytes:
    """Repeat some packets and put them into another order; the times stay in theirs."""
    packets = _packets(original(pair))
    contents = packets + random.choices(packets, k=FRAMES // 2)
    random.shuffle(contents)
    times = [*packets, *(_moved(packet, FRAMES) for packet in packets)]
    mixed = [_Packet(content.data, time.steps, content.key) for content, time in zip(contents, times, strict=False)]
    return _remuxed(pair, original(pair), mixed)


@dataclass(frozen=True)
class _Packet:
    data: bytes
    steps: int  # of decoding, in frames
    key: bool


def _packets(data: bytes) -> list[_Packet]:
    with av.open(BytesIO(data), "r") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [_Packet(bytes(packet), number, packet.is_keyframe) for number, packet in enumerate(packets)]


def _moved(packet: _Packet, steps: int) -> _Packet:
    return _Packet(packet.data, packet.steps + steps, packet.key)


def _remuxed(pair: Pair, head: bytes, packets: Sequence[_Packet]) -> bytes:
    """Write packets under the header of another file; what the muxer refuses is left out, be it its own index."""
    target = BytesIO()
    options = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
    with (
        suppress(av.FFmpegError),
        av.open(BytesIO(head)) as source,
        av.open(target, "w", format=pair.format, options=options) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        container.start_encoding()
        for held in packets:
            packet = av.Packet(held.data)
            packet.stream, packet.time_base = stream, Fraction(1, RATE)
            packet.pts = packet.dts = held.steps
            packet.is_keyframe = held.key
            with suppress(av.FFmpegError, OverflowError):
                container.mux(packet)
    return target.getvalue()


MUTATIONS: dict[str, Callable[[Random, Pair], bytes]] = {
    "few_bits": _few_bits,
    "many_bits": _many_bits,
    "header_bits": _header_bits,
    "cut_end": _cut_end,
    "cut_start": _cut_start,
    "spliced": _spliced,
    "wrong_head": _wrong_head,
    "zeros": _zeros,
    "sizes": _sizes,
    "rates": _rates,
    "durations": _durations,
    "resized": _resized,
    "no_key_frames": _without_key_frames,
    "timestamps": _timestamps,
    "shuffled": _shuffled,
}
