"""Each video goes to a decoder that can decode it; of those that both can, the small ones to the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.cuda.nvdec import CHROMAS, CODECS, DEPTHS, SURFACES, DecodeCaps, Nvdec
from deepscan.runtime.media.decoder_choice import (
    SMALL_PIXELS,
    DecoderCounts,
    DeviceDecoding,
    StreamFacts,
    reason_for_cpu,
)
from deepscan.runtime.media.device_work import DeviceWork
from deepscan.runtime.media.pyav_container import open_container, stream_facts
from tests.footage import ASTRONAUT, NO_FACE, PHONE, SWAPPED, TWO_FACES, quadrants, write_video
from tests.runtime.cuda.host_device import HostDevice

H264 = DecodeCaps(7, 48, 16, 4096, 4096, 65536, frozenset(["nv12"]))
HEVC = DecodeCaps(7, 144, 144, 8192, 8192, 262144, frozenset(["nv12", "p016"]))
HOPPER = Nvdec(
    {("h264", "420", 8): H264} | {(codec, "420", bits): HEVC for codec in ("hevc", "vp9") for bits in (8, 10)}
)
VP9_ODD = "vp9 of odd height, of which FFmpeg takes NVDEC's chroma from the wrong place"
FULL_HD = StreamFacts("h264", "High", "yuv420p", 1920, 1080, interlaced=False, nvdec_in_ffmpeg=True)


@pytest.mark.parametrize(
    ("change", "reason", "in_auto_alone"),
    [
        ({}, None, False),
        ({"pixel_format": "yuvj420p"}, None, False),
        ({"width": 1280, "height": 720}, "small videos decode faster on the CPU", True),
        ({"width": 1281, "height": 720}, None, False),
        ({"interlaced": True}, "interlaced, for which NVDEC was not compared with the CPU", True),
        ({"hdr": True}, "HDR, which is tone-mapped on the CPU", False),
        ({"codec": "mpeg4", "profile": "Simple Profile"}, "mpeg4 is always decoded by the CPU", False),
        ({"codec": "av1", "profile": "Main"}, "av1 is always decoded by the CPU", False),
        (
            {"codec": "hevc", "profile": "Main", "nvdec_in_ffmpeg": False},
            "FFmpeg's decoder for hevc does not use NVDEC",
            False,
        ),
        ({"profile": "Baseline"}, "h264 of profile Baseline", False),
        ({"codec": "hevc", "profile": "Rext", "pixel_format": "yuv420p12le"}, "hevc of profile Rext", False),
        ({"codec": "vp9", "profile": "Profile 0", "height": 1081}, VP9_ODD, False),
        ({"codec": "vp9", "profile": "Profile 2", "pixel_format": "yuv420p10le", "height": 1081}, VP9_ODD, False),
        ({"codec": "vp9", "profile": "Profile 0", "width": 1921}, None, False),
        (
            {"codec": "vp9", "profile": "Profile 2", "pixel_format": "yuv420p12le"},
            "vp9 with pixels as yuv420p12le",
            False,
        ),
        ({"height": 1081}, None, False),
        ({"profile": "Stereo High"}, "h264 of profile Stereo High", False),
        ({"profile": None}, "h264 of profile unknown", False),
        ({"pixel_format": "yuv422p"}, "h264 with pixels as yuv422p", False),
        ({"pixel_format": "gray"}, "h264 with pixels as gray", False),
        ({"pixel_format": "yuva420p"}, "h264 with pixels as yuva420p", False),
        ({"pixel_format": None}, "h264 with pixels as unknown", False),
        (
            {"codec": "vp8", "profile": None, "pixel_format": "yuv420p"},
            "this GPU does not decode vp8 with 8 bits",
            False,
        ),
        (
            {"codec": "hevc", "profile": "Main 10", "pixel_format": "yuv420p10le"},
            None,
            False,
        ),
        ({"profile": "High 10", "pixel_format": "yuv420p10le"}, "h264 of profile High 10", False),
        ({"width": 48, "height": 16}, "small videos decode faster on the CPU", True),
        ({"width": 4096, "height": 4096}, None, False),
        ({"width": 47, "height": 1080}, "h264 smaller than 48 x 16 pixels", False),
        ({"width": 48, "height": 15}, "h264 smaller than 48 x 16 pixels", False),
        ({"width": 4097}, "h264 larger than 4096 x 4096 pixels", False),
        ({"height": 4097}, "h264 larger than 4096 x 4096 pixels", False),
    ],
    ids=lambda value: "-".join(f"{key}={each}" for key, each in value.items()) if isinstance(value, dict) else None,
)
def test_every_choice_has_its_reason(change: dict[str, Any], reason: str | None, in_auto_alone: bool) -> None:
    facts = replace(FULL_HD, **change)
    assert reason_for_cpu(facts, HOPPER, "auto") == reason
    assert reason_for_cpu(facts, HOPPER, "nvdec") == (None if in_auto_alone else reason)
    assert reason_for_cpu(facts, HOPPER, "cpu") == "the CPU was asked for"


def test_pictures_of_too_many_macroblocks_are_too_large() -> None:
    few = Nvdec({("h264", "420", 8): replace(H264, max_macroblocks=120 * 68)})
    assert reason_for_cpu(FULL_HD, few, "auto") is None
    assert reason_for_cpu(replace(FULL_HD, height=1089), few, "auto") is not None


def test_more_than_8_bits_need_surfaces_of_16() -> None:
    facts = replace(FULL_HD, codec="hevc", profile="Main 10", pixel_format="yuv420p10le")
    narrow = Nvdec({("hevc", "420", 10): replace(HEVC, surfaces=frozenset(["nv12"]))})
    assert reason_for_cpu(facts, narrow, "nvdec") is not None


def test_without_decoders_the_problem_is_the_reason() -> None:
    assert reason_for_cpu(FULL_HD, Nvdec(problem="no driver"), "nvdec") == "no driver"
    assert reason_for_cpu(FULL_HD, Nvdec(), "auto") == "this GPU decodes no video"


side = st.integers(1, 9000)
caps_of_gpus = st.builds(
    DecodeCaps,
    engines=st.integers(0, 8),
    min_width=st.integers(16, 256),
    min_height=st.integers(16, 256),
    max_width=st.integers(1024, 8192),
    max_height=st.integers(1024, 8192),
    max_macroblocks=st.integers(4000, 262144),
    surfaces=st.frozensets(st.sampled_from(SURFACES)),
)
gpus = st.builds(
    Nvdec,
    st.dictionaries(
        st.tuples(st.sampled_from(sorted(CODECS)), st.sampled_from(sorted(CHROMAS)), st.sampled_from(DEPTHS)),
        caps_of_gpus,
    ),
    st.none(),
)
streams = st.builds(
    StreamFacts,
    codec=st.sampled_from([*CODECS, "mpeg4", "prores"]),
    profile=st.sampled_from([None, "High", "Main", "Main 10", "Profile 0", "Profile 2", "High 4:2:2"]),
    pixel_format=st.sampled_from(
        [None, "yuv420p", "yuvj420p", "yuv420p10le", "yuv422p", "yuv420p12le", "gray", "nv12"]
    ),
    width=side,
    height=side,
    interlaced=st.booleans(),
    nvdec_in_ffmpeg=st.booleans(),
)


@given(facts=streams, gpu=gpus)
def test_nvdec_gets_only_what_the_gpu_can(facts: StreamFacts, gpu: Nvdec) -> None:
    auto, asked = reason_for_cpu(facts, gpu, "auto"), reason_for_cpu(facts, gpu, "nvdec")
    assert reason_for_cpu(facts, gpu, "cpu")
    if auto is None:
        assert asked is None
        assert facts.width * facts.height > SMALL_PIXELS
    if asked is None:
        bits = {"yuv420p": 8, "yuvj420p": 8, "yuv420p10le": 10}[facts.pixel_format or ""]
        caps = gpu.modes[facts.codec, "420", bits]
        assert facts.nvdec_in_ffmpeg
        assert facts.codec not in ("vp8", "vp9") or facts.height % 2 == 0
        assert caps.min_width <= facts.width <= caps.max_width
        assert caps.min_height <= facts.height <= caps.max_height
        assert facts.width * facts.height <= 256 * caps.max_macroblocks


@given(facts=streams, gpu=gpus)
def test_a_gpu_that_can_more_gets_no_fewer_videos(facts: StreamFacts, gpu: Nvdec) -> None:
    everything = DecodeCaps(1, 1, 1, 1 << 20, 1 << 20, 1 << 31, frozenset(SURFACES))
    better = Nvdec(dict.fromkeys(gpu.modes, everything))
    if reason_for_cpu(facts, gpu, "auto") is None:
        assert reason_for_cpu(facts, better, "auto") is None


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        (ASTRONAUT, StreamFacts("h264", "High", "yuv420p", 1280, 720, False, True)),
        (PHONE, StreamFacts("hevc", "Main 10", "yuv420p10le", 960, 540, False, True)),
        (TWO_FACES, StreamFacts("vp9", "Profile 0", "yuv420p", 960, 540, False, True)),
        (NO_FACE, StreamFacts("mpeg4", "Simple Profile", "yuv420p", 640, 360, False, True)),
        (SWAPPED, StreamFacts("av1", "Main", "yuv420p", 854, 480, False, False)),
    ],
    ids=lambda value: value.codec if isinstance(value, StreamFacts) else None,
)
def test_files_say_what_they_hold(path: Path, facts: StreamFacts) -> None:
    assert facts_of(path) == facts


def test_an_interlaced_file_is_known(tmp_path: Path) -> None:
    options = {"x264-params": "tff=1"}
    path = write_video(tmp_path / "video.mkv", [quadrants()] * 3, options=options)
    assert facts_of(path).interlaced


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_a_file_of_odd_height_goes_to_the_cpu(codec: str, tmp_path: Path) -> None:
    everything = Nvdec({(name, "420", 8): H264 for name in CODECS})
    for height, by_nvdec in ((240, True), (241, False)):
        path = write_video(tmp_path / f"{height}.webm", [quadrants(321, height)] * 2, codec=codec)
        assert (reason_for_cpu(facts_of(path), everything, "nvdec") is None) is by_nvdec


def facts_of(path: Path) -> StreamFacts:
    with path.open("rb") as file, open_container(file) as container:
        return stream_facts(container.streams.video[0])


def test_videos_are_counted_from_many_threads() -> None:
    counts = DecoderCounts()

    def count(number: int) -> None:
        counts.count(None if number % 2 else "small")
        if number % 10 == 1:
            counts.move_to_cpu("lost")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(1000)))
    assert (counts.nvdec, counts.cpu) == (400, {"small": 500, "lost": 100})


def test_each_thread_has_one_queue() -> None:
    device = HostDevice()
    decoding = DeviceDecoding(0, device, DeviceWork(device.queue()), HOPPER, "auto", DecoderCounts())
    own = decoding.queue()
    assert decoding.queue() is own
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(decoding.queue).result() is not own
