"""A whole scan, measured from the moment at which its last worker is ready, with what its workers say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import deepscan
from benchmarks.gpu_report import Sample, ScanFacts, StageFigure
from deepscan.options import DecoderChoice, SamplingMode
from deepscan.results import VideoResult
from deepscan.runtime.system.machine import Device

SUPERVISOR: Final = "deepscan.runtime.workers.supervisor"


class TimeIsUpError(Exception):
    """The time for this command is up."""


class WorkersWatch(logging.Handler):
    """Log handler that follows the workers of a scan through the supervisor's events.

    Args:
        frames: returns the number of frames searched so far.
        clock: returns seconds.

    Attributes:
        started, ready: names of the workers.
        deaths: reasons of those that ended early.
        ready_at, frames_then: time and number of frames when the last worker so far became ready.
    """

    def __init__(self, frames: Callable[[], int], clock: Callable[[], float]) -> None:
        super().__init__(logging.DEBUG)
        self._frames, self._clock = frames, clock
        self.started: set[str] = set()
        self.ready: set[str] = set()
        self.deaths: list[str] = []
        self.ready_at, self.frames_then = clock(), 0

    def emit(self, record: logging.LogRecord) -> None:
        """Follow an event."""
        event = getattr(record, "event", {})
        match event.get("event"):
            case "worker_started":
                self.started.add(event["worker"])
            case "worker_ready":
                self.ready.add(event["worker"])
                self.ready_at, self.frames_then = self._clock(), self._frames()
            case "worker_died":
                self.deaths.append(event["reason"])


@contextmanager
def watched(frames: Callable[[], int], clock: Callable[[], float]) -> Iterator[WorkersWatch]:
    """Within this, the supervisor's events reach the handler."""
    watch, logger = WorkersWatch(frames, clock), logging.getLogger(SUPERVISOR)
    level = logger.level
    logger.addHandler(watch)
    logger.setLevel(logging.DEBUG)
    try:
        yield watch
    finally:
        logger.setLevel(level)
        logger.removeHandler(watch)


def scanned(
    paths: Sequence[Path],
    *,
    model: str,
    device: Device,
    sampling: SamplingMode = "full",
    decoder: DecoderChoice = "auto",
    jobs: int | None = None,
    trace: Path | None = None,
    ends: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Sample, list[VideoResult]]:
    """Scan files, and measure from the readiness of the last worker to the end.

    Args:
        paths: files, each once.
        model: detector.
        device: device that must run it.
        sampling: option of the scan.
        decoder: option of the scan.
        jobs: option of the scan.
        trace: file for a trace.
        ends: time by `clock` at which the scan is given up.
        clock: returns seconds.

    Returns:
        The measurement, and the results in the order of the files.

    Raises:
        TimeIsUpError: the scan was given up.
        DeepscanError: the scan cannot run.
    """
    scan = deepscan.scan(
        paths,
        model=model,
        device=device,
        sampling=sampling,
        decoder=decoder,
        jobs=jobs,
        trace=None if trace is None else str(trace),
    )
    results = []
    began = clock()
    with watched(lambda: scan.progress.frames, clock) as watch:
        for result in scan:
            results.append(result)
            if clock() > ends:
                raise TimeIsUpError(f"the time was up after {len(results)} of {len(paths)} files")
    ended = clock()
    by_nvdec, by_cpu = scan.decoded_by()
    facts = ScanFacts(
        files=len(paths),
        unscored=sum(result.score is None for result in results),
        workers=len(watch.started),
        all_ready=watch.started == watch.ready,
        start_seconds=watch.ready_at - began,
        by_nvdec=by_nvdec,
        by_cpu=by_cpu,
        deaths=tuple(watch.deaths),
        backends=tuple(sorted({f"{result.backend} {result.precision}" for result in results})),
        stages=tuple(
            StageFigure(
                name=times.name,
                threads=times.threads,
                busy_seconds=times.busy_seconds,
                waiting_seconds=times.waiting_seconds,
                blocked_seconds=times.blocked_seconds,
                busy_share=times.busy_share,
            )
            for times in scan.stage_times()
        ),
    )
    frames = sum(result.frames for result in results) - watch.frames_then
    sample = Sample(frames=frames, seconds=ended - watch.ready_at, counts=facts.all_ready, scan=facts)
    return sample, sorted(results, key=lambda result: result.row)
