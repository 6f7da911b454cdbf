"""Factors: what the videos of an evaluation are divided by, to see where a detector holds."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from deepscan import arguments as check
from deepscan.evaluation.labels import LabeledResult
from deepscan.results import VideoResult

UNKNOWN: Final = "unknown"
QUALITIES: Final = ("low", "fair", "good")


def _binned(value: float | None, edges: Sequence[float], unit: str) -> str:
    """Return the range that a value lies in, such as `360 to 720 p`."""
    if value is None:
        return UNKNOWN
    place = bisect_right(edges, value)
    if place == 0:
        return f"below {edges[0]:g} {unit}"
    if place == len(edges):
        return f"from {edges[-1]:g} {unit}"
    return f"{edges[place - 1]:g} to {edges[place]:g} {unit}"


def _order(value: str) -> tuple[float, str]:
    """Return where a value stands among the others: ranges and qualities rise, then come names, then the unknown."""
    if value in QUALITIES:
        return QUALITIES.index(value), value
    if value == UNKNOWN:
        return math.inf, value
    first, _, rest = value.partition(" ")
    if first == "below":
        return -1.0, value
    try:
        return float(rest.partition(" ")[0] if first == "from" else first), value
    except ValueError:
        return sys.float_info.max, value


def _resolution(result: VideoResult) -> str:
    known = result.width is not None and result.height is not None
    return _binned(min(result.width or 0, result.height or 0) if known else None, (360, 720, 1080), "p")


def _duration(result: VideoResult) -> str:
    return _binned(result.duration_seconds, (5, 20, 60), "s")


def _bitrate(result: VideoResult) -> str:
    """Return the range of the bits per pixel of the picture and second; the size in bytes is in the content id."""
    pixels = (result.width or 0) * (result.height or 0) * (result.duration_seconds or 0.0)
    if result.content is None or not pixels:
        return UNKNOWN
    return _binned(8 * int(result.content.split(":")[1]) / pixels, (0.5, 1, 2, 4), "bit per pixel and second")


def _face_size(result: VideoResult) -> str:
    known = result.quality_details
    return _binned(known.face_pixels if known is not None else None, (100, 150, 250), "pixels")


def _quality(result: VideoResult) -> str:
    return result.quality or UNKNOWN


FACTORS: Final[dict[str, Callable[[LabeledResult], str]]] = {
    "dataset": lambda labeled: labeled.truth.dataset or UNKNOWN,
    "codec": lambda labeled: labeled.result.codec or UNKNOWN,
    "resolution": lambda labeled: _resolution(labeled.result),
    "face_size": lambda labeled: _face_size(labeled.result),
    "duration": lambda labeled: _duration(labeled.result),
    "bitrate": lambda labeled: _bitrate(labeled.result),
    "quality": lambda labeled: _quality(labeled.result),
}


NAMES: Final = ("dataset", "method", *(name for name in FACTORS if name != "dataset"))


def check_factors(option: str, value: object) -> tuple[str, ...]:
    """Return names of factors, given as one text with commas or as several texts.

    Raises:
        UsageError: there is no such factor.
    """
    return tuple(check.one_of(option, name, accepted=NAMES) for name in check.detectors(option, value))


def parts_of(labeled: Sequence[LabeledResult], factors: Sequence[str] = NAMES) -> list[tuple[str, str, str, list[int]]]:
    """Return factor, value, what genuine videos fakes are compared with, and the numbers of the videos, of each part.

    A factor that is the same for all videos divides nothing and is left out, but for the data set.
    """
    parts = []
    for factor in factors:
        if factor == "method":
            parts += _methods(labeled)
            continue
        value_of = FACTORS[factor]
        members: dict[str, list[int]] = {}
        for number, each in enumerate(labeled):
            members.setdefault(value_of(each), []).append(number)
        if len(members) > 1 or (factor == "dataset" and set(members) != {UNKNOWN}):
            parts += [(factor, value, "", members[value]) for value in sorted(members, key=_order)]
    return parts


def _methods(labeled: Sequence[LabeledResult]) -> list[tuple[str, str, str, list[int]]]:
    """Return the parts by method: its fakes, and the genuine videos of the same data sets if they have some."""
    fakes: dict[str, list[int]] = {}
    genuine: dict[str | None, list[int]] = {}
    for number, each in enumerate(labeled):
        if each.truth.label == "real":
            genuine.setdefault(each.truth.dataset, []).append(number)
        elif each.truth.method is not None:
            fakes.setdefault(each.truth.method, []).append(number)
    parts = []
    for method in sorted(fakes):
        datasets = {labeled[number].truth.dataset for number in fakes[method]}
        own = [number for dataset in datasets for number in genuine.get(dataset, ())]
        against = (
            f"genuine of {', '.join(sorted(dataset or UNKNOWN for dataset in datasets))}" if own else "all genuine"
        )
        compared = own or [number for numbers in genuine.values() for number in numbers]
        parts.append(("method", method, against, fakes[method] + compared))
    return parts
