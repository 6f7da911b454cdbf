"""Measures backends against each other on real crops.

Each candidate scores the same crops or clips of the video that comes with the package: once to warm up and to compare
its scores with the reference's, then in at most five rounds, in which the candidates take turns. After twenty seconds
no further round begins. The medians decide; the first candidate, ONNX Runtime if it takes part, must be beaten by 5 %.
A candidate whose scores miss the budget of its precision (see `parity`), or that fails, is left out, and the reason is
kept.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from deepscan.errors import DeepscanError, ModelError
from deepscan.export.parity.parity import BUDGETS, Parity, compared, misses
from deepscan.export.parity.samples import Samples, samples_to_measure
from deepscan.runtime.backends.choice_records import Choice, Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.artifacts.artifacts import Artifact
    from deepscan.runtime.backends.backend_choice import Candidate
    from deepscan.runtime.backends.backends import Backend
    from deepscan.runtime.system.machine import Environment
    from deepscan.spec import DetectorSpec

ROUNDS: Final = 5
SECONDS: Final = 20.0
# Smaller gains come and go between measurements, and others load more slowly than ONNX Runtime.
WORTH_A_CHANGE: Final = 0.95


def fastest(
    artifact: Artifact,
    wanted: Sequence[Candidate],
    opened: Callable[[Candidate], Backend],
    reference: Callable[[], Backend],
    *,
    device: str,
    threads: int,
    machine: Environment,
) -> tuple[Choice, Backend]:
    """Measure candidates.

    Args:
        artifact: what they compute.
        wanted: the candidates.
        opened: loads the artifact into one.
        reference: loads it into what gives the right scores.
        device: where they run, for the record.
        threads: of one run, for the record.
        machine: what the figures depend on, for the record.

    Returns:
        What was found out, and the fastest, loaded; the others are closed.

    Raises:
        DeepscanError: the reference fails, or every candidate; then it is the first one's error.
    """
    spec = artifact.manifest.spec
    samples = samples_to_measure(spec)
    right = reference()
    try:
        right_logits, right_name = all_logits(right, samples.items), f"{right.name} {right.precision}"
    finally:
        right.close()
    runners = [_Runner(candidate) for candidate in wanted]
    try:
        for runner in runners:
            runner.attempt(partial(runner.begin, opened, right_logits, spec, samples))
        _race(runners, samples.items)
        finishers = [runner for runner in runners if runner.backend is not None]
        if not finishers:
            raise _nobody(artifact, runners)
        best = min(finishers, key=_Runner.seconds_per_item)
        if best.seconds_per_item() > WORTH_A_CHANGE * finishers[0].seconds_per_item():
            best = finishers[0]
        backend = best.hand_over()
    finally:
        for runner in runners:
            runner.close()
    trials = tuple(runner.trial() for runner in runners)
    choice = Choice(
        file=artifact.manifest.file,
        sha256=artifact.manifest.sha256,
        device=device,
        threads=threads,
        machine=machine,
        items=len(samples.items),
        items_sha256=samples.sha256,
        reference=right_name,
        measured=time.time(),
        backend=best.candidate.backend,
        precision=best.candidate.precision,
        reason=_reason(trials, len(samples.items), spec),
        trials=trials,
    )
    return choice, backend


def all_logits(backend: Backend, items: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score any number of items [M, ...], in batches as large as the backend takes; return logits [M]."""
    starts = range(0, len(items), backend.max_batch)
    return np.concatenate([backend.logits(items[start : start + backend.max_batch]) for start in starts])


class _Runner:
    """A candidate while it is measured; without a backend it is out."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.backend: Backend | None = None
        self.left_out = ""
        self.failure: Exception | None = None
        self.rounds: list[float] = []
        self._open_seconds: float | None = None
        self._parity: Parity | None = None

    def attempt(self, step: Callable[[], None]) -> None:
        """Do something with it; whatever goes wrong takes it out."""
        try:
            step()
        except Exception as error:  # libraries raise whatever they like
            self.left_out, self.failure = str(error) or type(error).__name__, error
            self.close()

    def begin(
        self,
        opened: Callable[[Candidate], Backend],
        right_logits: NDArray[np.float32],
        spec: DetectorSpec,
        samples: Samples,
    ) -> None:
        """Load it, and compare its scores with the right ones."""
        started = time.perf_counter()
        self.backend = opened(self.candidate)
        self._open_seconds = time.perf_counter() - started
        self._parity = compared(right_logits, all_logits(self.backend, samples.items), spec, samples)
        missed = misses(self._parity, BUDGETS[self.candidate.precision])
        if missed:
            self.left_out = "; ".join(missed)
            self.close()

    def run(self, items: NDArray[np.uint8]) -> None:
        """Take one round; nothing happens where it is out."""
        if self.backend is not None:
            started = time.perf_counter()
            all_logits(self.backend, items)
            self.rounds.append((time.perf_counter() - started) / len(items))

    def seconds_per_item(self) -> float:
        """Return the median over its rounds."""
        return statistics.median(self.rounds)

    def hand_over(self) -> Backend:
        """Return its backend, which is from now on the caller's to close."""
        assert self.backend is not None
        backend, self.backend = self.backend, None
        return backend

    def close(self) -> None:
        """Give back what it holds."""
        if self.backend is not None:
            with contextlib.suppress(Exception):  # it may be broken
                self.backend.close()
            self.backend = None

    def trial(self) -> Trial:
        """Return what was found out about it."""
        return Trial(
            backend=self.candidate.backend,
            precision=self.candidate.precision,
            left_out=self.left_out,
            open_seconds=self._open_seconds,
            max_difference=self._parity.max_difference if self._parity else None,
            mean_difference=self._parity.mean_difference if self._parity else None,
            seconds_per_item=self.seconds_per_item() if self.rounds else None,
            rounds=tuple(self.rounds),
        )


def _race(runners: Sequence[_Runner], items: NDArray[np.uint8]) -> None:
    started = time.perf_counter()
    for _ in range(ROUNDS):
        for runner in runners:
            runner.attempt(partial(runner.run, items))
        if time.perf_counter() - started > SECONDS:
            return


def _nobody(artifact: Artifact, runners: Sequence[_Runner]) -> DeepscanError:
    """Return what to raise when all are out."""
    first = next((runner.failure for runner in runners if runner.failure is not None), None)
    if isinstance(first, DeepscanError):
        return first
    reasons = "; ".join(f"{runner.candidate}: {runner.left_out.rstrip('.')}" for runner in runners)
    return ModelError(
        f"Nothing that was measured can be used for {artifact.manifest.file} ({reasons}): use another --backend, or "
        "name both --backend and --precision, which is not checked."
    )


def _reason(trials: Sequence[Trial], items: int, spec: DetectorSpec) -> str:
    """Say in one sentence what was measured, the fastest first."""
    timed = [(trial.seconds_per_item, trial) for trial in trials if trial.seconds_per_item and not trial.left_out]
    figures = [f"{trial} {seconds:.4g} s" for seconds, trial in sorted(timed, key=lambda pair: pair[0])]
    others = [f"{trial} was left out: {trial.left_out.rstrip('.')}" for trial in trials if trial.left_out]
    what = "clip" if spec.kind == "clip" else "crop"
    return "; ".join([f"{', '.join(figures)} per {what}, medians over {items} of them", *others])
