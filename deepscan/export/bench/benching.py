"""Measuring detectors on the backends of this machine, each in a process of its own."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from deepscan.arguments import one_of
from deepscan.errors import DeepscanError, MachineError, OutputError, UsageError
from deepscan.export.bench.bench_records import (
    MATRIX_PRODUCTS,
    Answer,
    BackendTask,
    BenchResult,
    BenchSettings,
    Failure,
    MatmulRate,
    Measurement,
    RateTask,
    rate_precision,
)
from deepscan.export.bench.bench_worker import answers_of
from deepscan.export.bench.graph_costs import flop_of
from deepscan.export.parity.samples import samples_to_measure
from deepscan.options import Arithmetic
from deepscan.runtime.artifacts.artifacts import Artifact, load_artifact
from deepscan.runtime.backends.registry import backend_names
from deepscan.runtime.backends.selection import Candidate, candidates

log = logging.getLogger(__name__)

PrecisionFilter: TypeAlias = Literal["all"] | Arithmetic


@dataclass(frozen=True, slots=True)
class Subject:
    """A detector to measure, by the name or path that `load_artifact` takes, and at least one candidate."""

    model: str
    artifact: Artifact
    candidates: tuple[Candidate, ...]


def subjects_of(
    models: Sequence[str], setup: BenchSettings, *, backend: str, precision: PrecisionFilter
) -> list[Subject]:
    """Load detectors and return the candidates to measure.

    A backend that is given by name is a candidate even if it cannot compute a detector here: its failure says what it
    lacks.

    Raises:
        UsageError: a detector is not named, or is named twice, or no backend has this name.
        ModelError: a detector cannot be loaded.
        MachineError: nothing here computes a detector in that precision.
    """
    if not models or not all(models) or len(set(models)) < len(models):
        raise UsageError(f"{','.join(models)!r} must name each detector once, with commas between them.")
    if not all(_is_text(model) for model in models):
        raise UsageError(
            f"The name of {','.join(models)!a} is not valid text and cannot be in a report: rename the file."
        )
    one_of("--backend", backend, accepted=("all", *backend_names()))
    return [_subject(model, setup, backend, precision) for model in models]


def _is_text(name: str) -> bool:
    """Tell whether a name is valid Unicode; Python keeps other bytes as surrogates."""
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def _subject(model: str, setup: BenchSettings, backend: str, precision: PrecisionFilter) -> Subject:
    artifact = load_artifact(model)
    there = candidates(artifact.manifest, setup.device)
    named = [candidate for candidate in there if backend in ("all", candidate.backend)]
    wanted = [candidate for candidate in named if precision in ("all", candidate.precision)]
    if not wanted and not named and backend != "all":
        wanted = [Candidate(backend, artifact.manifest.precision if precision == "all" else precision)]
    if not wanted:
        can = ", ".join(map(str, there)) or "nothing"
        asked = f"--backend {backend} and --precision {precision}"
        raise MachineError(f"Nothing here computes {model} on {setup.device} with {asked}: there is {can}.")
    return Subject(model, artifact, tuple(wanted))


Event: TypeAlias = Answer | BenchResult


def benchmarked(subjects: Sequence[Subject], setup: BenchSettings) -> Iterator[Event]:
    """Measure detector after detector, candidate after candidate.

    Yields:
        The rates of matrix products; then for each detector its description, its measurements and failures.
    """
    precisions = {rate_precision(each.precision, setup.device) for subject in subjects for each in subject.candidates}
    rates: dict[str, float] = {}
    for precision in sorted(precisions):
        log.info("%s, %s", MATRIX_PRODUCTS, precision)
        for answer in answers_of(RateTask(precision=precision, setup=setup)):
            if isinstance(answer, MatmulRate):
                rates[precision] = answer.flop_per_second
            yield answer
    for subject in subjects:
        log.info("%s: cutting crops", subject.model)
        with tempfile.TemporaryDirectory(prefix="deepscan-bench-") as folder:
            inputs = Path(folder) / "inputs.npy"
            try:
                benched = _benched(subject, inputs)
            except DeepscanError as error:  # such as no face that is large enough for this detector
                form = subject.artifact.manifest.precision
                reason, code = str(error), error.exit_code
                yield Failure(model=subject.model, backend=None, precision=form, reason=reason, exit_code=code)
                continue
            yield benched
            yield from _measured(subject, setup, str(inputs), benched.flop_per_item, rates)


def _benched(subject: Subject, inputs: Path) -> BenchResult:
    """Write real crops or clips for a detector to a file, and describe detector and inputs."""
    manifest = subject.artifact.manifest
    spec = manifest.spec
    samples = samples_to_measure(spec)
    try:
        np.save(inputs, samples.items)
    except OSError as error:
        message = f"{inputs} cannot be written ({error.strerror}): set TMPDIR to a folder with room."
        raise OutputError(message) from error
    return BenchResult(
        model=subject.model,
        file=manifest.file,
        sha256=manifest.sha256,
        size_bytes=manifest.size_bytes,
        weights_sha256=manifest.weights_sha256,
        trained=manifest.trained,
        precision=manifest.precision,
        form=manifest.form,
        kind="clip" if spec.kind == "clip" else "crop",
        flop_per_item=flop_of(subject.artifact.model),
        inputs=len(samples.items),
        inputs_sha256=samples.sha256,
    )


def _measured(
    subject: Subject, setup: BenchSettings, inputs: str, flop: int | None, rates: dict[str, float]
) -> Iterator[Answer]:
    for candidate in subject.candidates:
        log.info("%s: %s", subject.model, candidate)
        backend, precision = candidate.backend, candidate.precision
        task = BackendTask(model=subject.model, backend=backend, precision=precision, inputs=inputs, setup=setup)
        for answer in answers_of(task):
            if not isinstance(answer, Measurement):
                yield answer
                continue
            log.info("%s: %s, after a batch of %d", subject.model, candidate, answer.batch)
            rate = rates.get(rate_precision(answer.precision, setup.device))
            if flop is not None and rate is not None:
                answer = msgspec.structs.replace(answer, matmul_fraction=answer.items_per_second * flop / rate)
            yield answer
