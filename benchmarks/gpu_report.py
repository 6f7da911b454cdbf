"""Records of the GPU benchmark: what it writes, how it judges it, and how it prints it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, Literal

import msgspec

from benchmarks.footage import SIZES
from deepscan.runtime.media.decoder_choice import SMALL_PIXELS
from deepscan.runtime.system.machine import Device, Environment

# Targets for one H200 with 16 processors.
FRAMES_PER_SECOND: Final = 4000.0  # whole scans of 1080p H.264
SHARE_OF_SLOWEST: Final = 0.9  # whole scan / slowest part alone
CLIPS_PER_SECOND: Final = 1000.0  # AltFreezing alone; the goal is 1,700
TIMES_THE_AUTHORS: Final = 10.0  # whole scan / the authors' way on equal work
MOST_BUSY: Final = 0.5  # of a stage that is neither decode nor infer
TARGET_FOOTAGE: Final = ("1080p", "h264")
CLIP_DETECTOR: Final = "altfreezing"
PARTS: Final = ("detect", "preprocess", "infer")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one check.

    Attributes:
        name: what was checked.
        passed: whether it is as it should be.
        details: numbers, or the end of what a program printed.
    """

    name: str
    passed: bool
    details: str


class StageFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one stage of a scan, summed over its threads."""

    name: str
    threads: int
    busy_seconds: float
    waiting_seconds: float
    blocked_seconds: float
    busy_share: float


class ScanFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole scan says besides its time.

    Attributes:
        files: number of files.
        unscored: number of results without a score.
        workers: number of workers.
        all_ready: whether every worker became ready before the end.
        start_seconds: time until the last worker was ready, which is not measured.
        by_nvdec: number of videos that NVDEC decoded.
        by_cpu: numbers of videos that fell back to the CPU, by reason.
        deaths: reasons of workers that ended early.
        backends: backend and precision of the results.
        stages: times of its stages.
    """

    files: int
    unscored: int
    workers: int
    all_ready: bool
    start_seconds: float
    by_nvdec: int
    by_cpu: dict[str, int]
    deaths: tuple[str, ...]
    backends: tuple[str, ...]
    stages: tuple[StageFigure, ...]

    def faults(self, device: Device, nvdec_files: int | None) -> list[str]:
        """Return what is not as it should be; empty if nothing is.

        Args:
            device: device that must have computed.
            nvdec_files: number of files that NVDEC must have decoded; None if any number will do.
        """
        found = [f"a worker ended: {reason}" for reason in self.deaths]
        found += [f"{name} computed" for name in self.backends if f"-{device} " not in name]
        if self.unscored:
            found.append(f"{self.unscored} of {self.files} files have no score")
        if nvdec_files is not None and self.by_nvdec != nvdec_files:
            reasons = "; ".join(f"{count} x {reason}" for reason, count in self.by_cpu.items()) or "no reason given"
            found.append(f"NVDEC decoded {self.by_nvdec} files instead of {nvdec_files} ({reasons})")
        return found


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one measurement.

    Attributes:
        frames: number of frames of video in the measured time.
        seconds: measured time.
        counts: whether it counts; others warmed up or did not last long enough.
        unscored: number of results without a score.
        scan: of a whole scan.
    """

    frames: int
    seconds: float
    counts: bool = True
    unscored: int = 0
    scan: ScanFacts | None = None

    @property
    def rate(self) -> float:
        """Frames per second; 0 if no time was measured."""
        return self.frames / self.seconds if self.seconds > 0.0 else 0.0


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        part: decode, detect, preprocess, infer, backend, scan or reference.
        variant: way of doing it: cpu, nvdec, both; a backend; full, paper; stride 1, stride 32.
        size, codec: of the videos.
        model: detector, with its precision; None for parts without one.
        frames_per_clip: frames of one item of the detector; 0 without one.
        samples: every run, those that do not count included.
    """

    part: str
    variant: str
    size: str
    codec: str
    model: str | None
    frames_per_clip: int
    samples: tuple[Sample, ...]

    @property
    def counted(self) -> tuple[Sample, ...]:
        """Samples that count."""
        return tuple(sample for sample in self.samples if sample.counts)

    @property
    def rate(self) -> float:
        """Frames per second: the median of what counts, or else of all."""
        samples = self.counted or self.samples
        return statistics.median(sample.rate for sample in samples)

    @property
    def title(self) -> str:
        """Title in the report."""
        return " ".join(filter(None, (self.part, self.variant, self.model, self.size, self.codec)))


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one command found.

    Attributes:
        schema: version of this record's format.
        complete: whether the command came to its end.
        command: command with its arguments.
        date: UTC, ISO 8601.
        machine: machine that it ran on.
        device: device that was asked for.
        untrained: detectors with random weights, which take the same time as trained ones.
        checks: outcomes of checks.
        figures: measurements.
        failures: what could not be done, with the reason.
    """

    schema: Literal[2] = 2
    complete: bool
    command: str
    date: str
    machine: Environment
    device: Device
    untrained: tuple[str, ...]
    checks: tuple[Check, ...]
    figures: tuple[Figure, ...]
    failures: tuple[str, ...]


def judged(reports: Sequence[Report]) -> list[Check]:
    """Judge what several commands found together: every check, failure, scan and target."""
    found: list[Check] = []
    for report in reports:
        found += report.checks
        found += [Check(name=f"done: {each}", passed=False, details="") for each in report.failures]
        if not report.complete:
            found.append(Check(name=f"`{report.command}` came to its end", passed=False, details=""))
        for figure in report.figures:
            found += _sound(figure, report.device)
    figures = list(chain.from_iterable(report.figures for report in reports if report.device == "cuda"))
    return [*found, *_targets(figures)]


def _sound(figure: Figure, device: Device) -> Iterator[Check]:
    """Judge whether a measurement measured what it says."""
    faults = [] if figure.counted else ["no run counts"]
    for sample in figure.samples:
        if sample.unscored:
            faults.append(f"{sample.unscored} results have no score")
        if sample.scan is not None:
            faults += sample.scan.faults(device, None)
            width, height = SIZES[figure.size]
            if (
                device == "cuda"
                and width * height > SMALL_PIXELS
                and not sample.scan.by_nvdec
                and figure.variant == "full"
            ):
                faults.append("NVDEC decoded nothing")
    if faults:
        yield Check(name=f"sound: {figure.title}", passed=False, details="; ".join(dict.fromkeys(faults)))


def _targets(figures: Sequence[Figure]) -> Iterator[Check]:
    for figure in figures:
        target = (figure.size, figure.codec) == TARGET_FOOTAGE
        if figure.part == "scan" and figure.variant == "full" and target:
            yield _least(f"{figure.title}: frames/s", figure.rate, FRAMES_PER_SECOND)
        if figure.part == "infer" and figure.model is not None and figure.model.startswith(CLIP_DETECTOR):
            yield _least(f"{figure.title}: clips/s", figure.rate / figure.frames_per_clip, CLIPS_PER_SECOND)
        if figure.part == "scan" and figure.variant == "full":
            yield from _busy(figure)
            slowest = _slowest(figure, figures)
            if slowest is not None:
                name = f"{figure.title}: scan / slowest part alone ({slowest.part} {slowest.variant})"
                yield _least(name, figure.rate / slowest.rate, SHARE_OF_SLOWEST)
        for reference in figures:
            if _is_equal_work(figure, reference):
                name = f"{figure.title}: scan / the authors' way, {reference.variant}"
                yield _least(name, figure.rate / reference.rate, TIMES_THE_AUTHORS)


def _least(name: str, value: float, least: float) -> Check:
    return Check(name=name, passed=value >= least, details=f"{value:,.2f}, at least {least:,g} wanted")


def _busy(scan: Figure) -> Iterator[Check]:
    for stage in scan.samples[-1].scan.stages if scan.samples[-1].scan is not None else ():
        if stage.name not in ("decode", "infer"):
            name = f"{scan.title}: {stage.name} is not what holds it back"
            details = f"busy {stage.busy_share:.0%}, at most {MOST_BUSY:.0%} wanted"
            yield Check(name=name, passed=stage.busy_share <= MOST_BUSY, details=details)


def _slowest(scan: Figure, figures: Sequence[Figure]) -> Figure | None:
    """Return the slowest part; of the ways to decode the fastest counts. None if not all parts were measured."""
    same = [each for each in figures if each.size == scan.size and each.model in (None, scan.model)]
    decoding = [each for each in same if each.part == "decode" and each.codec == scan.codec]
    parts = [[each for each in same if each.part == part] for part in PARTS]
    if not decoding or not all(parts):
        return None
    fastest = max(decoding, key=lambda figure: figure.rate)
    return min((fastest, *chain.from_iterable(parts)), key=lambda figure: figure.rate)


def _is_equal_work(scan: Figure, reference: Figure) -> bool:
    """Tell whether a scan does the work of the authors' way: with every window, or with each frame in one clip."""
    if scan.part != "scan" or reference.part != "reference":
        return False
    same = (scan.size, scan.codec) == (reference.size, reference.codec)
    detector = (
        scan.model is not None and reference.model is not None and scan.model.split()[0] == reference.model.split()[0]
    )
    stride = f"stride {scan.frames_per_clip}" if scan.variant == "full" else "stride 1"
    return same and detector and reference.variant == stride


def as_text(reports: Sequence[Report]) -> str:
    """Return reports and their judgment in Markdown."""
    lines = []
    for report in reports:
        where = ", ".join(dict.fromkeys(report.machine.gpus)) or "processors"
        lines += [f"### {', '.join(_parts(report)) or 'Nothing'}, on {where}, {report.date[:10]}", ""]
        lines += [f"    {report.command}", "", f"{report.date}; {report.machine}", ""]
        if report.untrained:
            lines.append(f"- random weights: {', '.join(report.untrained)}")
        if report.figures:
            lines += [
                "",
                "| part | how | detector | footage | frames/s | runs | scan |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += [_row(figure) for figure in report.figures]
        lines.append("")
    lines += ["| | |", "|---|---|"]
    for check in judged(reports):
        details = " ".join(check.details.split()).replace("|", "/")
        lines.append(f"| {'passed' if check.passed else '**FAILED**'} | {check.name}: {details} |")
    return "\n".join(lines)


def _parts(report: Report) -> list[str]:
    """Return what a report is about, for its heading."""
    return [*dict.fromkeys([*(check.name for check in report.checks), *(figure.part for figure in report.figures)])]


def _row(figure: Figure) -> str:
    runs = f"{len(figure.counted)} of {len(figure.samples)}"
    cells = [
        figure.part,
        figure.variant,
        figure.model or "",
        f"{figure.size} {figure.codec}",
        f"{figure.rate:,.0f}",
        runs,
    ]
    scan = figure.samples[-1].scan
    facts = ""
    if scan is not None:
        busy = ", ".join(f"{stage.name} {stage.busy_share:.0%}" for stage in scan.stages)
        facts = (
            f"{figure.samples[-1].seconds:.0f} s after {scan.start_seconds:.0f} s of starting {scan.workers} workers; "
            f"{scan.files} files, {scan.by_nvdec} by NVDEC; {', '.join(scan.backends)}; busy: {busy}"
        )
    return f"| {' | '.join([*cells, facts])} |"
