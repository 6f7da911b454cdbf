"""The smallest face that the detector can still judge.

    python -m benchmarks.face_size [VIDEO ...]           by default the examples with faces

Each video is scaled down until its largest face has a given size, encoded with H.264 at two qualities, and scanned.
A genuine video whose score rises, or a forged one whose score falls, marks the size below which scores mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import av

import deepscan
from benchmarks.footage import EXAMPLES
from benchmarks.measure import machine
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.open_input import open_input

FACE_SIZES = (200, 160, 130, 100, 80, 60, 40)
QUALITIES = (23, 33)
FRAMES = 100
WITH_ONE_FACE = ("astronaut_h264.mp4", "phone_portrait_hevc.mp4", "swapped_face_av1.mp4")


def face_size(video: str) -> float:
    """Return the longer side of the largest face of the first frame, in pixels of the video."""
    detector = YuNet(device="cpu", threads=2)
    with open_input(video, threads=1) as reader:
        frame = next(reader.frames())
        small = reader.shrink(frame, DETECTION_SIDE)
        boxes = detector.detect(small[None])[0].boxes
        return float((boxes[:, 2:] - boxes[:, :2]).max() * frame.geometry.width / small.shape[1])


def scaled(video: str, factor: float, quality: int, path: Path) -> Path:
    """Encode the first frames of a video at `factor` times its size and a constant rate factor."""
    with av.open(video) as source, av.open(str(path), "w") as target:
        stream = None
        for number, frame in enumerate(source.decode(video=0)):
            if number == FRAMES:
                break
            width, height = (2 * max(16, round(side * factor / 2)) for side in (frame.width, frame.height))
            if stream is None:
                stream = target.add_stream("libx264", rate=25, options={"crf": str(quality)})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                if frame.rotation:
                    stream.set_display_rotation(frame.rotation)
            small = frame.reformat(width, height, "yuv420p", interpolation="AREA")
            small.pts = None
            target.mux(stream.encode(small))
        assert stream is not None
        target.mux(stream.encode(None))
    return path


def score(path: Path) -> float | None:
    """Scan a video, however small its faces are."""
    (result,) = deepscan.scan(path, min_face=1)
    return result.score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", default=[str(EXAMPLES / name) for name in WITH_ONE_FACE])
    print(machine())
    print(f"{'video':28}{'crf':>4}{'as is':>9}" + "".join(f"{size:>7}" for size in FACE_SIZES))
    for video in parser.parse_args().videos:
        whole, original = face_size(video), score(Path(video))
        for quality in QUALITIES:
            cells = []
            with tempfile.TemporaryDirectory() as scratch:
                for size in FACE_SIZES:
                    found = None
                    if size < whole:
                        found = score(scaled(video, size / whole, quality, Path(scratch) / f"{size}.mp4"))
                    cells.append("" if found is None else f"{found:.2f}")
            shown = "".join(f"{cell:>7}" for cell in cells)
            print(f"{Path(video).name:28}{quality:4}{original or 0.0:9.2f}{shown}")


if __name__ == "__main__":
    main()
