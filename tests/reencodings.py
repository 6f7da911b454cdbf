"""Sixty re-encodings of one example, as people's files are, and what a scan makes of them.

    PYTHONPATH=. python tests/reencodings.py record     # scores of the code that is found, into reencodings.json

The scores in reencodings.json are those of revision 7d51382; run the line with PYTHONPATH at another revision to record
that one's. The pictures are the example's first second, small enough to be
quick and large enough for the face to be scored.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from deepscan import VideoResult, scan
from tests.footage import ASTRONAUT, example_frames, write_video

RECORDED: Final = Path(__file__).with_name("reencodings.json")
COUNT: Final = 25
SAMPLE_RATE: Final = 44100
BT601: Final = 5
NTSC: Final = Fraction(1001, 30000)
X264: Final = {"preset": "veryfast"}
X265: Final = {"preset": "ultrafast", "x265-params": "log-level=none"}
VPX: Final = {"deadline": "realtime", "cpu-used": "8", "crf": "30"}
AV1: Final = {"preset": "12", "crf": "35"}
MPEG: Final = {"time_base": Fraction(1, 25), "options": {"qscale": "3"}}
JITTER: Final = tuple(number / 25 + (0.03 if number % 4 == 1 else 0.0) for number in range(COUNT))
PAUSES: Final = tuple(number / 25 + 0.5 * (number // 10) for number in range(COUNT))

Remux = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Reencoding:
    """One file: its name, how it is written, and what is done to it afterwards.

    Attributes:
        name: of the file; the ending is the container's.
        how: arguments of `write_video`.
        size: width and height in pixels, before rotation.
        turned: quarter turns by which the pictures are stored, counter-clockwise.
        quick: whether `--sampling quick` is compared as well.
        remux: makes the final file of the encoded one.
    """

    name: str
    how: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (640, 360)
    turned: int = 0
    quick: bool = False
    remux: Remux | None = None

    def write(self, folder: Path) -> Path:
        """Make the file."""
        pictures: Sequence[NDArray[Any]] = [np.rot90(picture, self.turned) for picture in _pictures(*self.size)]
        path = folder / self.name
        if self.remux is None:
            return write_video(path, pictures, **self.how)
        with tempfile.TemporaryDirectory() as temporary:
            # Matroska keeps no decoding times, so that the first packet of one has none to copy.
            encoded = write_video(Path(temporary) / "encoded.mp4", pictures, **self.how)
            self.remux(encoded, path)
        return path


@cache
def _pictures(width: int, height: int) -> tuple[NDArray[np.uint8], ...]:
    frames = (av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in example_frames(ASTRONAUT, COUNT))
    return tuple(
        np.asarray(frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray(), dtype=np.uint8)
        for frame in frames
    )


def _tone(container: Any, stream: Any, seconds: float) -> None:
    """Encode a quiet tone of so many seconds into `stream`."""
    wave = (0.1 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.06)).astype(np.float32)
    for at in range(0, len(wave) - 1024, 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, at, Fraction(1, SAMPLE_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def sound(codec: str) -> Remux:
    """Return what adds a second of sound."""

    def remux(encoded: Path, path: Path) -> None:
        with av.open(str(encoded)) as source, av.open(str(path), "w") as target:
            video = target.add_stream_from_template(source.streams.video[0])
            audio: Any = target.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = video
                    target.mux(packet)
            _tone(target, audio, 1.0)

    return remux


def later(seconds: float) -> Remux:
    """Return what moves all timestamps."""

    def remux(encoded: Path, path: Path) -> None:
        with av.open(str(encoded)) as source, av.open(str(path), "w") as target:
            video = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                    moved = round(seconds / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + moved, packet.dts + moved, video
                    target.mux(packet)

    return remux


def _x264(**options: str) -> dict[str, Any]:
    return {"options": {**X264, **options}}


def _at(rate: int | Fraction) -> dict[str, Any]:
    """Return what gives the pictures a frame rate, with its own time base."""
    step = 1 / Fraction(rate)
    return {"times": [float(number * step) for number in range(COUNT)], "rate": round(rate), "time_base": step}


REENCODINGS: Final = (
    # Containers
    Reencoding("h264.mp4", _x264(), quick=True),
    Reencoding("h264.mkv", _x264(), quick=True),
    Reencoding("h264.mov", _x264()),
    Reencoding("h264.ts", _x264()),
    Reencoding("h264.flv", _x264()),
    Reencoding("h264.avi", {**_x264(bf="0"), "time_base": Fraction(1, 25)}),
    Reencoding("h264.3gp", _x264(profile="baseline")),
    Reencoding("h264_fragmented.mp4", {**_x264(g="5"), "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    Reencoding("h264_faststart.mp4", {**_x264(), "container_options": {"movflags": "faststart"}}),
    # Qualities, groups of pictures
    Reencoding("h264_crf18.mp4", _x264(crf="18"), quick=True),
    Reencoding("h264_crf28.mp4", _x264(crf="28")),
    Reencoding("h264_crf34.mp4", _x264(crf="34")),
    Reencoding("h264_crf38.mp4", _x264(crf="38")),
    Reencoding("h264_lossless.mkv", {**_x264(qp="0"), "pixel_format": "yuv444p"}),
    Reencoding("h264_intra.mp4", _x264(g="1")),
    Reencoding("h264_gop12.mp4", _x264(g="12", bf="2")),
    Reencoding("h264_gop250.mp4", _x264(g="250", bf="3", preset="medium")),
    Reencoding("h264_bframes8.mkv", _x264(bf="8", b_strategy="0")),
    Reencoding("h264_interlaced.mp4", _x264(flags="+ildct+ilme")),
    # Pixel formats and colors
    Reencoding("h264_10bit.mp4", {**_x264(), "pixel_format": "yuv420p10le"}),
    Reencoding("h264_422.mp4", {**_x264(), "pixel_format": "yuv422p"}),
    Reencoding("h264_422_10bit.mkv", {**_x264(), "pixel_format": "yuv422p10le"}),
    Reencoding("h264_444.mp4", {**_x264(), "pixel_format": "yuv444p"}),
    Reencoding("h264_full_range.mp4", {**_x264(), "full_range": True}, quick=True),
    Reencoding("h264_full_range_601.mkv", {**_x264(), "full_range": True, "matrix": BT601}),
    Reencoding("h264_601.mp4", {**_x264(), "matrix": BT601}, quick=True),
    # Sizes, shapes, rotations
    Reencoding("h264_720p.mp4", _x264(), size=(1280, 720)),
    Reencoding("h264_540p.mp4", _x264(), size=(960, 540)),
    Reencoding("h264_270p.mp4", _x264(), size=(480, 270)),
    Reencoding("h264_638x358.mp4", _x264(), size=(638, 358)),
    Reencoding("h264_odd_444.mkv", {**_x264(), "pixel_format": "yuv444p"}, size=(641, 361)),
    Reencoding("vp9_odd.webm", {"codec": "libvpx-vp9", "options": VPX}, size=(641, 361)),
    Reencoding("h264_anamorphic.mp4", {**_x264(), "aspect": Fraction(4, 3)}, size=(480, 360)),
    Reencoding("h264_turned90.mp4", {**_x264(), "rotation": -90}, turned=1, quick=True),
    Reencoding("h264_turned180.mov", {**_x264(), "rotation": 180}, turned=2),
    Reencoding("h264_turned270.mp4", {**_x264(), "rotation": 90}, turned=3),
    # Clocks
    Reencoding("h264_12fps.mp4", {**_x264(), **_at(12)}, quick=True),
    Reencoding("h264_ntsc.mp4", {**_x264(), **_at(1 / NTSC)}),
    Reencoding("h264_60fps.mkv", {**_x264(), **_at(60)}),
    Reencoding("h264_jitter.mkv", {**_x264(), "times": JITTER}),
    Reencoding("h264_pauses.mp4", {**_x264(), "times": PAUSES}),
    Reencoding("h264_late.mkv", _x264(), remux=later(10)),
    Reencoding("h264_late.ts", _x264(), remux=later(3600)),
    # Sound
    Reencoding("h264_aac.mp4", _x264(), remux=sound("aac"), quick=True),
    Reencoding("h264_mp3.mkv", _x264(), remux=sound("libmp3lame")),
    # Other codecs
    Reencoding("hevc.mp4", {"codec": "libx265", "options": X265}, quick=True),
    Reencoding("hevc_10bit.mkv", {"codec": "libx265", "options": X265, "pixel_format": "yuv420p10le"}),
    Reencoding("hevc.ts", {"codec": "libx265", "options": X265}),
    Reencoding("vp8.webm", {"codec": "libvpx", "options": {**VPX, "b": "1500000"}}),
    Reencoding("vp9.webm", {"codec": "libvpx-vp9", "options": VPX}, quick=True),
    Reencoding("av1.mkv", {"codec": "libsvtav1", "options": AV1}),
    Reencoding("av1.mp4", {"codec": "libsvtav1", "options": AV1}, quick=True),
    Reencoding("mpeg4.avi", {"codec": "mpeg4", **MPEG}),
    Reencoding("mpeg2.mpg", {"codec": "mpeg2video", **MPEG}),
    Reencoding("mpeg2.ts", {"codec": "mpeg2video", **MPEG}),
    Reencoding("mjpeg.avi", {"codec": "mjpeg", **MPEG, "pixel_format": "yuvj420p", "full_range": True}),
    Reencoding("mjpeg.mov", {"codec": "mjpeg", **MPEG, "pixel_format": "yuvj422p", "full_range": True}),
    Reencoding("prores.mov", {"codec": "prores_ks", "pixel_format": "yuv422p10le"}),
    Reencoding("ffv1.mkv", {"codec": "ffv1"}),
    Reencoding("wmv2.wmv", {"codec": "wmv2", **MPEG}),
)


def scored(folder: Path) -> dict[str, dict[str, Any]]:
    """Make the files and scan them, all at once; return what counts of each, by its name."""
    for reencoding in REENCODINGS:
        reencoding.write(folder)
    found = {Path(result.path).name: _facts(result) for result in scan(folder, sampling="full", backend="onnxruntime")}
    quick = [folder / reencoding.name for reencoding in REENCODINGS if reencoding.quick]
    for result in scan(quick, frames=8, backend="onnxruntime"):
        found[Path(result.path).name]["quick"] = _rounded(result.score)
    return found


def versions() -> dict[str, str]:
    """Return what the bytes of the files and the decoded pictures depend on."""
    return {"pyav": av.__version__, "ffmpeg": av.ffmpeg_version_info}


def _facts(result: VideoResult) -> dict[str, Any]:
    return {"status": result.status, "frames": result.frames, "score": _rounded(result.score)}


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def main(arguments: Sequence[str]) -> None:
    if list(arguments) != ["record"]:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        recorded = {"made_with": versions(), "files": scored(Path(temporary))}
    RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
