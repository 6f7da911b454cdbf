"""Limits on one input, and what happens to an input that exceeds them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from deepscan.arguments import (
    MEBIBYTE,
    MOST_BYTES,
    MOST_SECONDS,
    Option,
    check_options,
    option_fields,
    rename_in_messages,
)
from deepscan.errors import OverLimit
from deepscan.wording import counted

OnLimit = Literal["skip", "truncate"]

# What can be cut can change scores; the rest decides only whether there are any.
CUT_BY_TRUNCATING: Final = ("frames", "seconds", "faces", "tracks")


def _limit(meaning: str, name: str, metavar: str = "N", shown_default: str | None = None, *, unit: int = 1) -> Option:
    """Return the metadata of a limit on a number of something."""
    bounds = {"least": 0, "most": MOST_BYTES}
    return Option(f"{meaning}; 0: no limit.", "Limits", metavar, shown_default, name=name, unit=unit, bounds=bounds)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on one input; None or 0 stands for no limit. A limit that makes no sense raises UsageError.

    Attributes:
        seconds: twelve hours, longer than films and shifts with a body camera, but not than recordings of a whole day.
        file_bytes: 64 GiB: twelve hours at 12 Mbit/s.
        pixels: per decoded frame; 16384 x 8192, the largest size of 360-degree films and photographs (100 megapixels).
            A frame of that size takes 200 MB, and a decoder may hold seventeen. FFmpeg itself accepts twice as many.
        frames: examined frames; twelve hours at 60 frames per second.
        streams: of every kind; a disc has some 40, a broadcast multiplex 100.
        faces: per frame, of those large enough to be scored; a choir or a lecture hall has fewer. A picture made to
            deceive a face detector may have thousands, and each costs as much as the only face of a video.
        tracks: per video; twelve hours with a shot boundary every second and two faces have fewer.
        on_limit: `skip`: the input is not scored. `truncate`: the first frames, seconds and tracks and the largest
            faces are, and the result says so; file size, pixels and streams cannot be cut.
    """

    seconds: Annotated[
        float | None,
        Option(
            "Longest video; 0: no limit.",
            "Limits",
            "SECONDS",
            "12 hours",
            name="max-duration",
            bounds={"least": 0, "most": MOST_SECONDS},
        ),
    ] = 12 * 3600.0
    file_bytes: Annotated[
        int | None, _limit("Largest file, in MiB", "max-file-size", "MIB", "64 GiB", unit=MEBIBYTE)
    ] = 1 << 36
    pixels: Annotated[int | None, _limit("Maximum pixels in a frame", "max-pixels", "N", "134 million")] = 1 << 27
    frames: Annotated[int | None, _limit("Maximum frames in a video", "max-frames", "N", "2.6 million")] = (
        12 * 3600 * 60
    )
    streams: Annotated[int | None, _limit("Maximum streams in a file", "max-streams")] = 128
    faces: Annotated[int | None, _limit("Maximum faces in a frame", "max-faces")] = 200
    tracks: Annotated[int | None, _limit("Maximum tracks in a video", "max-tracks", "N", "100,000")] = 100_000
    on_limit: Annotated[
        OnLimit,
        Option(
            "What to do with a file over a limit: skip it, or truncate it (score the part within the limit).",
            "Limits",
            "HOW",
        ),
    ] = "skip"

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        check_options(self)

    def scoring(self) -> dict[str, int | float | None]:
        """Return what a score may depend on: nothing where inputs over a limit get none."""
        if self.on_limit == "skip":
            return {}
        return {name: getattr(self, name) or None for name in CUT_BY_TRUNCATING}

    def check_file(self, size_bytes: int) -> None:
        """Raise OverLimit for a file that is too large."""
        if self.file_bytes and size_bytes > self.file_bytes:
            raise over_limit(f"The file has {size_bytes:,} bytes", "file_bytes", self.file_bytes)

    def check_pixels(self, width: int, height: int) -> None:
        """Raise OverLimit for frames that are too large."""
        if self.pixels and width * height > self.pixels:
            raise over_limit(f"Its frames have {width} x {height} = {width * height:,} pixels", "pixels", self.pixels)

    def check_streams(self, count: int) -> None:
        """Raise OverLimit for a file of too many streams."""
        if self.streams and count > self.streams:
            raise over_limit(f"The file has {counted(count, 'stream')}", "streams", self.streams)


DEFAULT_LIMITS: Final = Limits()
rename_in_messages(Limits, "limits.")
# Options of the command line by the names of the limits.
OPTIONS: Final = {each.name: each.flag for each in option_fields(Limits) if each.name != "on_limit"}


def over_limit(what: str, name: str, most: float) -> OverLimit:
    """Return the error for an input that exceeds a limit: what it has, and which option to raise."""
    truncate = ", or take --on-limit truncate" if name in CUT_BY_TRUNCATING else ""
    return OverLimit(f"{what}, and {OPTIONS[name]} is {most:,}: raise that to have it scanned{truncate}.")
