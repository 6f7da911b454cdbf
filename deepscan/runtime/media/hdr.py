"""HDR: detection, and tone mapping to SDR, which detectors were trained on.

PQ and HLG: ITU-R BT.2100-2, tables 4 and 5. 203 cd/m2 is the white of a page, as SDR's white is (ITU-R BT.2408-7,
table 1). Brighter light is compressed by the EETF of ITU-R BT.2390-11, section 5.4.1, applied to the brightest of R, G
and B, which preserves hues. The result is encoded for a display of ITU-R BT.1886.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Curve = Literal["PQ", "HLG"]
# H.273, table 3: SMPTE ST 2084 and ARIB STD-B67.
CURVES: Final[dict[int, Curve]] = {16: "PQ", 18: "HLG"}
BT709, BT2020 = 1, 9
WHITE_NITS: Final = 203.0
# Most films are mastered for this peak, and BT.2100 defines HLG's system gamma of 1.2 for it; PQ goes up to 10,000.
PEAK_NITS: Final = 1000.0
HLG_GAMMA: Final = 1.2
SDR_GAMMA: Final = 2.4
# H.273, table 2: x and y of red, green and blue. All have D65 as their white except DCI-P3 (11), treated as Display P3.
CHROMATICITIES: Final = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D65: Final = (0.3127, 0.3290)
CURVE_STEPS: Final = 4096
PERCEPTUAL_MATRICES: Final = frozenset([14, 15])  # ICtCp and IPT-PQ-C2
UNFAITHFUL: Final = "with colors that cannot be decoded faithfully"
# Codec tags of MP4 files for Dolby Vision without a compatible base layer (profile 5): IPT with its own reshaping.
DOLBY_VISION_TAGS: Final = frozenset(["dvh1", "dvhe", "dav1", "dvav", "dva1"])
# The chunks before a PNG's pixels fit into this, apart from exotic files.
PNG_HEAD_BYTES: Final = 1 << 17
ICC_TAGS_AT: Final = 128
MOST_ICC_TAGS: Final = 100


@dataclass(frozen=True, slots=True)
class Hdr:
    """How the samples of an HDR picture encode light.

    Attributes:
        curve: PQ or HLG.
        primaries: H.273 code point of its colors, one of `CHROMATICITIES`.
        faithful: whether a matrix turns luma and chroma into RGB; not so for ICtCp and IPT.
    """

    curve: Curve
    primaries: int
    faithful: bool = True

    @property
    def remark(self) -> str:
        """Remark on such a video, for its row."""
        doubt = "" if self.faithful else f", {UNFAITHFUL}"
        return f"it is HDR ({self.curve}) and was tone-mapped to SDR{doubt}"

    def tone_mapped(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert RGB [h, w, 3] of the HDR curve and primaries to SDR RGB with BT.709's primaries."""
        if not rgb.size:
            return rgb
        light, weights, matrix, gains, encoded = _tables(self.curve, self.primaries)
        linear: NDArray[np.float32] = np.asarray(cv2.LUT(rgb, light), dtype=np.float32)
        if self.curve == "HLG":  # BT.2100's OOTF: the scene's luminance bends all three channels alike
            luminance = linear @ weights
            linear *= (luminance ** np.float32(HLG_GAMMA - 1))[..., None]
        # In units of the peak; colors outside BT.709 are clipped.
        narrow: NDArray[np.float32] = np.asarray(cv2.transform(linear, matrix), dtype=np.float32).clip(0.0, 1.0)
        brightest = np.maximum(np.maximum(narrow[..., 0], narrow[..., 1]), narrow[..., 2])
        narrow *= gains.take(_steps(brightest))[..., None]
        return encoded.take(_steps(narrow))


def dolby_vision_remark(codec_tag: str) -> str | None:
    """Return the remark on a video that is Dolby Vision alone, which only its codec tag tells; otherwise None."""
    return None if codec_tag not in DOLBY_VISION_TAGS else f"it is HDR (Dolby Vision) {UNFAITHFUL}"


def declared_hdr(*, transfer: int, primaries: int, matrix: int = BT2020) -> Hdr | None:
    """Return the HDR of these H.273 code points, or None for SDR; unknown primaries become those of BT.2020."""
    curve = CURVES.get(transfer)
    if curve is None:
        return None
    known = primaries if primaries in CHROMATICITIES else BT2020
    return Hdr(curve, known, faithful=matrix not in PERCEPTUAL_MATRICES)


@cache
def _tables(
    curve: Curve, primaries: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Return light by code (peak = 1), luminance of R, G, B, the matrix to BT.709, gain and SDR's code by light."""
    codes = np.arange(256) / 255
    light = _pq_nits(codes) / PEAK_NITS if curve == "PQ" else _hlg_scene(codes)
    to_xyz = _xyz_from_rgb(primaries)
    matrix = np.linalg.inv(_xyz_from_rgb(BT709)) @ to_xyz
    # Steps are finer near black, as the eye and both curves are.
    steps = (np.arange(CURVE_STEPS) / (CURVE_STEPS - 1)) ** 2
    mapped = _compressed(steps * PEAK_NITS) / WHITE_NITS
    gains = np.divide(mapped, steps, out=np.full(CURVE_STEPS, PEAK_NITS / WHITE_NITS), where=steps > 0)
    # After the gain, 1 is SDR's white.
    encoded = np.rint(255 * steps ** (1 / SDR_GAMMA))
    floats = (each.astype(np.float32) for each in (light, to_xyz[1], matrix, gains))
    return *floats, encoded.astype(np.uint8)  # type: ignore[return-value]


def _steps(light: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the nearest step of the tables for light of at least 0."""
    steps: NDArray[np.float32] = np.sqrt(np.minimum(light, np.float32(1)))
    nearest: NDArray[np.uint16] = (steps * np.float32(CURVE_STEPS - 1) + np.float32(0.5)).astype(np.uint16)
    return nearest


def _compressed(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compress 0 to `PEAK_NITS` into 0 to `WHITE_NITS`: unchanged up to a knee, by a spline in PQ above it."""
    peak, white = map(float, _pq_code(np.array([PEAK_NITS, WHITE_NITS])))
    code, most = _pq_code(nits) / peak, white / peak
    knee = 1.5 * most - 0.5
    along = np.clip((code - knee) / (1 - knee), 0.0, 1.0)
    spline = (
        (2 * along**3 - 3 * along**2 + 1) * knee
        + (along**3 - 2 * along**2 + along) * (1 - knee)
        + (-2 * along**3 + 3 * along**2) * most
    )
    return _pq_nits(np.where(code < knee, code, spline) * peak)


def _pq_nits(code: NDArray[np.float64]) -> NDArray[np.float64]:
    root = code ** (1 / 78.84375)
    nits: NDArray[np.float64] = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
        1 / 0.1593017578125
    )
    return nits


def _pq_code(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    root = (nits / 10_000) ** 0.1593017578125
    code: NDArray[np.float64] = ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375
    return code


def _hlg_scene(code: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


def _xyz_from_rgb(primaries: int) -> NDArray[np.float64]:
    """Return the matrix from linear RGB to CIE XYZ; white has Y = 1."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in CHROMATICITIES[primaries]]).T
    white = np.array([D65[0] / D65[1], 1.0, (1 - D65[0] - D65[1]) / D65[1]])
    return columns * np.linalg.solve(columns, white)


def hdr_of_picture(image: Image.Image, file: BinaryIO | None = None, declared: Hdr | None = None) -> Hdr | None:
    """Return the HDR of a picture that Pillow or libheif opened, or None for SDR.

    What the file's boxes have `declared` takes precedence. Otherwise the `cICP` chunk of a PNG's file declares it, or
    the ICC profile (version 4.4).
    """
    if declared is not None:
        return declared
    points = _png_points(file) if file is not None else b""
    points = points or _icc_points(image.info.get("icc_profile") or b"")
    return declared_hdr(primaries=points[0], transfer=points[1]) if len(points) >= 2 else None


def _png_points(file: BinaryIO) -> bytes:
    """Return the content of `cICP` (PNG, third edition, 11.3.2.6)."""
    file.seek(0)
    head = file.read(PNG_HEAD_BYTES).partition(b"IDAT")[0]
    return head.partition(b"\0\0\0\x04cICP")[2][:4]


def _icc_points(profile: bytes) -> bytes:
    """Return primaries and transfer from the tag `cicp` (ICC.1:2022, 9.2.17 and 10.3)."""
    count = int.from_bytes(profile[ICC_TAGS_AT : ICC_TAGS_AT + 4])
    for number in range(min(count, MOST_ICC_TAGS)):
        tag = profile[ICC_TAGS_AT + 4 + 12 * number :][:12]
        if tag[:4] == b"cicp":
            start = int.from_bytes(tag[4:8])
            return profile[start + 8 : start + 12]
    return b""
