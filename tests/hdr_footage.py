"""HDR videos made from SDR pictures on the spot: what a screen of BT.1886 shows, as light, in PQ or HLG and BT.2020."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from tests.footage import ACCURATE, TIME_BASE

TRANSFERS = {"PQ": 16, "HLG": 18}
BT2020 = 9
# ITU-R BT.2087-0, table 1: linear BT.709 to linear BT.2020.
BT2020_FROM_BT709 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def pq_from_nits(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return PQ's code (ITU-R BT.2100-2, table 4)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = (np.asarray(nits) / 10_000) ** m1
    code: NDArray[np.float64] = ((c1 + c2 * power) / (1 + c3 * power)) ** m2
    return code


def hlg_from_nits(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return HLG's code for a screen of 1,000 cd/m2 (ITU-R BT.2100-2, table 5, inverse OOTF and OETF)."""
    luminance = (rgb / 1000) @ np.array([0.2627, 0.6780, 0.0593])
    scene = rgb / 1000 * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c))


def hdr_codes(picture: NDArray[np.uint8], curve: str, white_nits: float = 203.0) -> NDArray[np.float64]:
    """Return an SDR picture, RGB uint8 [h, w, 3], as BT.2020 RGB in 0..1 with an HDR curve."""
    nits: NDArray[np.float64] = white_nits * ((picture / 255) ** 2.4) @ BT2020_FROM_BT709.T
    return pq_from_nits(nits) if curve == "PQ" else hlg_from_nits(nits)


def write_hdr(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]],
    curve: str,
    *,
    white_nits: float = 203.0,
    crf: int = 12,
    rate: int = 25,
    declared: tuple[int, int, int] | None = None,
) -> Path:
    """Encode SDR pictures [h, w, 3] as HDR, 10 bits, limited range.

    `declared`: transfer, primaries and matrix that the file declares instead of the true ones.
    """
    # Without B frames, as libx265 gives a single frame a decoding time that MP4 refuses now and then.
    options = {"x265-params": "log-level=none:bframes=0", "crf": str(crf)}
    transfer, primaries, matrix = declared or (TRANSFERS[curve], BT2020, BT2020)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx265", rate=rate, options=options)
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt, stream.time_base = "yuv420p10le", TIME_BASE
                context = stream.codec_context
                context.time_base, context.thread_count = TIME_BASE, 1
                context.color_trc, context.color_primaries, context.colorspace = transfer, primaries, matrix
                context.color_range = int(ColorRange.MPEG)
            codes = np.rint(65535 * hdr_codes(picture, curve, white_nits).clip(0, 1)).astype(np.uint16)
            frame = av.VideoFrame.from_ndarray(codes, format="rgb48le").reformat(
                format="yuv420p10le",
                dst_colorspace=BT2020,
                dst_color_range=int(ColorRange.MPEG),
                interpolation=ACCURATE,
            )
            frame.color_trc, frame.color_primaries, frame.colorspace = transfer, primaries, matrix
            frame.color_range = int(ColorRange.MPEG)
            frame.pts, frame.time_base = round(number / rate / TIME_BASE), TIME_BASE
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
