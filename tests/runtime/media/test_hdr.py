"""HDR comes out as the SDR picture that it was made from, and is mentioned; SDR is left as it is."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.color import BT709, declared_color
from deepscan.runtime.media.hdr import BT2020, Curve, Hdr, declared_hdr
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.pyav_container import open_container, stream_facts
from tests.footage import open_video, portrait, write_video
from tests.hdr_footage import TRANSFERS, hdr_codes, write_hdr
from tests.heif_files import coded, heif_file, nclx
from tests.runtime.host_crops import crop_rgb
from tests.runtime.stills import encoded, only_frame, opened, photo, upright_rgb

CURVES: tuple[Curve, ...] = ("PQ", "HLG")
SIZE = 320, 180
REMARKS = {curve: f"it is HDR ({curve}) and was tone-mapped to SDR" for curve in CURVES}
Pixels = NDArray[np.uint8]


def codes(picture: Pixels, curve: str, white_nits: float = 203.0) -> Pixels:
    return np.asarray(np.rint(255 * hdr_codes(picture, curve, white_nits).clip(0, 1)).astype(np.uint8))


@pytest.mark.parametrize("curve", CURVES)
def test_what_is_no_highlight_comes_back_as_it_was(curve: Curve) -> None:
    """The knee of the EETF lies at 76 cd/m2, SDR's 170 on a screen of 203."""
    shades = np.random.default_rng(0).integers(60, 160, (40, 40, 3)).astype(np.uint8)
    back = Hdr(curve, BT2020).tone_mapped(codes(shades, curve)).astype(int)
    assert np.abs(back - shades).mean() < 1.5
    assert np.abs(back - shades).max() <= 9  # 8 bits of PQ are coarse for a saturated color's weakest channel


@pytest.mark.parametrize("curve", CURVES)
def test_grays_stay_gray_rise_with_light_and_end_at_white(curve: Curve) -> None:
    grays = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    mapped = Hdr(curve, BT2020).tone_mapped(grays)[0].astype(int)
    assert (mapped.max(axis=1) - mapped.min(axis=1)).max() <= 1
    assert (np.diff(mapped[:, 1]) >= 0).all()
    assert mapped[0].tolist() == [0, 0, 0]
    assert mapped[-1].tolist() == [255, 255, 255]
    white = Hdr(curve, BT2020).tone_mapped(codes(np.full((1, 1, 3), 255, np.uint8), curve))
    assert 205 <= white.min() <= white.max() <= 235  # the rest is left for what is brighter than a page


def test_primaries_that_are_bt709_already_are_left() -> None:
    red = np.array([[[120, 90, 90]]], np.uint8)
    narrow, p3, wide = (Hdr("PQ", primaries).tone_mapped(red)[0, 0].astype(int) for primaries in (BT709, 12, BT2020))
    assert wide[0] > p3[0] > narrow[0]
    assert wide[1] < p3[1] < narrow[1]
    assert declared_hdr(transfer=16, primaries=2) == Hdr("PQ", BT2020)


@pytest.mark.parametrize("transfer", [0, 1, 2, 4, 6, 13, 14, 15, 17, 255])
def test_other_transfers_are_sdr(transfer: int) -> None:
    assert declared_hdr(transfer=transfer, primaries=BT2020) is None
    color = declared_color(matrix=9, full_range=False, width=64, height=48, transfer=transfer, primaries=BT2020)
    assert color == declared_color(matrix=9, full_range=False, width=64, height=48)


def test_colors_that_no_matrix_decodes_are_mentioned() -> None:
    color = declared_color(matrix=14, full_range=False, width=64, height=48, transfer=16, primaries=9)
    assert color.hdr is not None
    assert "cannot be decoded faithfully" in color.hdr.remark


@pytest.mark.parametrize("curve", CURVES)
def test_crops_and_small_pictures_of_videos_look_like_sdr(tmp_path: Path, curve: Curve) -> None:
    picture = portrait(*SIZE)
    path = write_hdr(tmp_path / "hdr.mp4", [picture] * 2, curve)
    with open_input(str(path), threads=1) as reader:
        frame = next(reader.frames())
        crop = crop_rgb(frame, (90, 0, 270, 180), 180).astype(int)
        small = reader.shrink(frame, max(SIZE))
        assert reader.warnings() == REMARKS[curve]
    assert np.abs(crop - picture[:, 90:270]).mean() < 8
    assert np.abs(small[..., ::-1].astype(int) - picture).mean() < 8
    detector = YuNet(device="cpu", threads=1)
    found, expected = detector.detect(np.stack([small, np.ascontiguousarray(picture[..., ::-1])]))
    assert len(found) == len(expected) == 1
    assert np.abs(found.boxes - expected.boxes).max() < 4
    assert found.scores[0] > expected.scores[0] - 0.03


@pytest.mark.parametrize("declared", [(14, 9, 9), (1, 1, 9), (2, 2, 9)], ids=["bt2020", "bt709", "unspecified"])
def test_ten_bits_and_wide_colors_alone_are_no_hdr(tmp_path: Path, declared: tuple[int, int, int]) -> None:
    path = write_hdr(tmp_path / "wide.mp4", [portrait(*SIZE)], "PQ", declared=declared)
    with open_input(str(path), threads=1) as reader:
        frame = next(reader.frames())
        assert frame.picture.color.hdr is None
        assert reader.warnings() is None
        seen = crop_rgb(frame, (90, 0, 270, 180), 180)
    assert np.abs(seen.astype(int) - codes(portrait(*SIZE), "PQ")[:, 90:270]).mean() < 3


def test_dolby_vision_alone_is_mentioned(tmp_path: Path) -> None:
    path = write_video(tmp_path / "movie.mp4", [portrait(*SIZE)] * 4, codec="libx265")
    path.write_bytes(path.read_bytes().replace(b"hev1", b"dvh1"))
    with open_video(str(path), threads=1) as reader:
        assert len(list(reader.frames())) == 4
        assert reader.warnings() == "it is HDR (Dolby Vision) with colors that cannot be decoded faithfully"


def test_a_gpu_is_told_that_a_video_is_hdr(tmp_path: Path) -> None:
    for curve, declared in (("PQ", None), ("HLG", None), ("PQ", (14, 9, 9))):
        path = write_hdr(tmp_path / "hdr.mp4", [portrait(*SIZE)], curve, declared=declared)
        with open(path, "rb") as file, open_container(file) as container:
            assert stream_facts(container.streams.video[0]).hdr == (declared is None)


@pytest.mark.parametrize("kind", [b"hvc1", b"av01"])
@pytest.mark.parametrize("curve", CURVES)
def test_hdr_photographs_are_recognized_by_their_boxes(curve: Curve, kind: bytes) -> None:
    picture = portrait(*SIZE)
    item = coded(codes(picture, curve), kind)
    item.properties = [each for each in item.properties if each[4:8] != b"colr"] + [nclx(9, TRANSFERS[curve], 6)]
    reader = opened(heif_file([item], brands=(b"avif" if kind == b"av01" else b"heic", b"mif1")))
    frame = only_frame(reader)
    assert np.abs(upright_rgb(frame).astype(int) - picture).mean() < 8
    assert np.array_equal(reader.shrink(frame, 320)[..., ::-1], upright_rgb(frame))
    assert reader.warnings() == REMARKS[curve]


def icc_profile(transfer: int) -> bytes:
    """Return the parts of a color profile that say which code points it stands for."""
    return bytes(128) + struct.pack(">I4sII", 1, b"cicp", 144, 12) + b"cicp" + bytes(4) + bytes([9, transfer, 0, 1])


def png_with(picture: Pixels, transfer: int) -> bytes:
    data = encoded(Image.fromarray(picture), "PNG")
    chunk = b"cICP" + bytes([9, transfer, 0, 1])
    return data[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def test_other_pictures_tell_by_a_chunk_or_a_color_profile() -> None:
    picture = np.asarray(photo())
    pq = codes(picture, "PQ")
    for data in (png_with(pq, 16), encoded(Image.fromarray(pq), "PNG", icc_profile=icc_profile(16))):
        reader = opened(data)
        assert np.abs(upright_rgb(only_frame(reader)).astype(int) - picture).mean() < 8
        assert reader.warnings() == REMARKS["PQ"]
    for data in (png_with(pq, 13), encoded(Image.fromarray(pq), "PNG", icc_profile=icc_profile(13))):
        reader = opened(data)
        assert np.array_equal(upright_rgb(only_frame(reader)), np.asarray(Image.open(BytesIO(data))))
        assert reader.warnings() is None
