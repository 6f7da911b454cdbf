"""Saving the fastest backend that was measured, for `--backend auto` to take: if its scores keep the parity budget."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepscan.errors import DeepscanError, OutputError
from deepscan.export.parity.parity import BUDGETS, Parity, compared, misses
from deepscan.export.parity.samples import Samples, samples_to_measure
from deepscan.runtime.artifacts.artifacts import Artifact, load_artifact
from deepscan.runtime.backends.saved_choices import SavedChoice, choice_path, save_choice
from deepscan.runtime.backends.selection import Candidate, open_backend, resolve_backend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.export.bench.bench_records import BenchReport
    from deepscan.runtime.system.machine import Device

log = logging.getLogger(__name__)


def save_fastest(report: BenchReport) -> list[tuple[Path, SavedChoice]]:
    """Save the fastest candidate of each detector of a report whose scores agree with ONNX Runtime's on the CPU.

    Returns:
        The choices and their files, in the order of the detectors; a detector of which no candidate agrees has none.

    Raises:
        OutputError: a file cannot be written.
        ModelError: a detector cannot be loaded any more.
    """
    saved = []
    for benched in report.artifacts:
        rates: dict[Candidate, float] = {}
        for row in report.measurements:
            if row.model == benched.model:
                candidate = Candidate(row.backend, row.precision)
                rates[candidate] = max(rates.get(candidate, 0.0), row.items_per_second)
        fastest_first = sorted(rates, key=lambda candidate: -rates[candidate])
        artifact = load_artifact(benched.model)
        agreeing = _first_within_budget(
            artifact, fastest_first, device=report.setup.device, threads=report.setup.threads
        )
        if agreeing is None:
            continue
        candidate, parity = agreeing
        choice = SavedChoice(
            file=benched.file,
            sha256=benched.sha256,
            device=report.setup.device,
            backend=candidate.backend,
            precision=candidate.precision,
            items_per_second=rates[candidate],
            max_difference=parity.max_difference,
            measured=time.time(),
            machine=report.machine,
        )
        try:
            saved.append((save_choice(choice), choice))
        except OSError as error:
            path = choice_path(choice.sha256, choice.device)
            raise OutputError(f"{path} cannot be written ({error.strerror}): set DEEPSCAN_HOME.") from error
    return saved


def _first_within_budget(
    artifact: Artifact, candidates: list[Candidate], *, device: Device, threads: int
) -> tuple[Candidate, Parity] | None:
    """Return the first candidate whose scores keep the budget of its precision, with the comparison."""
    if not candidates:
        return None
    samples, spec = samples_to_measure(artifact.manifest.spec), artifact.manifest.spec
    own = resolve_backend(artifact.manifest, backend="onnxruntime", precision="auto", device="cpu")
    reference = _logits(own, artifact, samples, device="cpu", threads=threads)
    for candidate in candidates:
        try:
            logits = _logits(candidate, artifact, samples, device=device, threads=threads)
        except DeepscanError as error:
            log.warning("%s: %s is not saved: %s", artifact.manifest.file, candidate, error)
            continue
        parity = compared(reference, logits, spec, samples)
        missed = misses(parity, BUDGETS[candidate.precision])
        if not missed:
            return candidate, parity
        log.warning("%s: %s is not saved: %s", artifact.manifest.file, candidate, "; ".join(missed))
    return None


def _logits(
    candidate: Candidate, artifact: Artifact, samples: Samples, *, device: Device, threads: int
) -> NDArray[np.float32]:
    """Score all samples, in batches as large as the backend takes."""
    with closing(open_backend(candidate, artifact, device=device, threads=threads)) as backend:
        starts = range(0, len(samples.items), backend.max_batch)
        return np.concatenate([backend.logits(samples.items[start : start + backend.max_batch]) for start in starts])
