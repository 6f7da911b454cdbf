"""Report of the GPU benchmark, and how it is printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

from benchmarks.gpu_check import Check
from deepscan.runtime.system.machine import Environment


class StageFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one stage of a scan, summed over its threads."""

    name: str
    threads: int
    busy_seconds: float
    waiting_seconds: float
    blocked_seconds: float
    busy_share: float


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one measurement.

    Attributes:
        frames: of video.
        seconds: by the clock.
        unscored: results that are no score.
        stages: of a whole scan.
    """

    frames: int
    seconds: float
    unscored: int = 0
    stages: tuple[StageFigure, ...] = ()


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        part: decode, detect, preprocess, infer, scan or reference.
        variant: how: cpu, nvdec, both; full, paper; stride 1, stride 32.
        size, codec, shape: of the videos.
        files: a title for the report.
        model: None for what has none.
        samples: each round.
        frames_per_second: median over the rounds.
    """

    part: str
    variant: str
    size: str
    codec: str
    shape: str
    files: str
    model: str | None
    samples: tuple[Sample, ...]
    frames_per_second: float


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How one rate compares with another: `value` times as fast."""

    name: str
    value: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything.

    Attributes:
        schema: version of this record's format.
        complete: False while it goes on, or where it was interrupted.
        command: with its arguments.
        date: UTC, ISO 8601.
        machine: what it was measured on.
        packages: versions of what else takes part.
        device: what was asked for.
        rounds: besides the one to warm up.
        trained: whether each detector has trained weights; random ones take the same time.
        checks: what was compared before.
        figures: what was measured.
        ratios: what follows from them.
        left_out: what was not done, and why.
    """

    schema: Literal[1] = 1
    complete: bool
    command: str
    date: str
    machine: Environment
    packages: dict[str, str]
    device: str
    rounds: int
    trained: dict[str, bool]
    checks: tuple[Check, ...]
    figures: tuple[Figure, ...]
    ratios: tuple[Ratio, ...]
    left_out: tuple[str, ...]


def rate_of(samples: Sequence[Sample]) -> float:
    """Return frames per second, the median."""
    return statistics.median(sample.frames / sample.seconds for sample in samples)


def ratios(figures: Sequence[Figure]) -> list[Ratio]:
    """Compare whole scans with the slowest of their parts alone, and with the authors' way on the same files."""
    found = []
    for scan in figures:
        if scan.part != "scan":
            continue
        name = f"{scan.model}, {scan.files}, {scan.variant}"
        if scan.variant == "full":
            slowest = _slowest(scan, figures)
            if slowest is not None:
                value = scan.frames_per_second / slowest.frames_per_second
                found.append(Ratio(name=f"{name}: scan / slowest part alone ({slowest.part})", value=value))
        stride = "stride 32" if scan.variant == "full" and scan.model != "lite" else "stride 1"
        for reference in figures:
            same = (reference.model, reference.files) == (scan.model, scan.files)
            if reference.part == "reference" and same and reference.variant == stride:
                value = scan.frames_per_second / reference.frames_per_second
                found.append(Ratio(name=f"{name}: scan / the authors' way, {stride}", value=value))
    return found


def _slowest(scan: Figure, figures: Sequence[Figure]) -> Figure | None:
    """Return the slowest part; of the ways to decode the fastest counts. None where not all parts were measured."""
    decoding = [each for each in figures if each.part == "decode" and each.files == scan.files]
    parts = [
        [each for each in figures if (each.part, each.size) == (part, scan.size) and each.model in (None, scan.model)]
        for part in ("detect", "preprocess", "infer")
    ]
    if not decoding or not all(parts):
        return None
    fastest = max(decoding, key=lambda each: each.frames_per_second)
    return min([fastest, *(part[0] for part in parts)], key=lambda each: each.frames_per_second)


def as_text(report: Report) -> str:
    """Return the report in Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in report.packages.items())
    lines = [
        f"{report.machine}, {versions}",
        f"{report.date}, `{report.command}`, medians of {report.rounds} rounds",
        "",
    ]
    lines += [f"- {'passed' if check.passed else 'FAILED'}: {check.name}: {check.details}" for check in report.checks]
    untrained = [model for model, trained in report.trained.items() if not trained]
    if untrained:
        lines.append(f"- random weights: {', '.join(untrained)}")
    lines += [f"- left out: {reason}" for reason in report.left_out]
    lines += ["", "| part | how | model | videos | frames/s | busy |", "|---|---|---|---|---|---|"]
    for figure in report.figures:
        stages = figure.samples[-1].stages
        busy = ", ".join(f"{stage.name} {stage.busy_share:.0%}" for stage in stages)
        rate = f"{figure.frames_per_second:,.0f}"
        lines.append(f"| {figure.part} | {figure.variant} | {figure.model or ''} | {figure.files} | {rate} | {busy} |")
        unscored = figure.samples[-1].unscored
        if unscored:
            lines.append(f"| | | | of these {unscored} were not scored | | |")
    lines += ["", *(f"- {ratio.name}: {ratio.value:.2f}" for ratio in report.ratios)]
    return "\n".join(lines)
