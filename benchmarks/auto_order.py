"""Measurements behind the order of `--backend auto`: the candidates of each detector on the CPU, in turns.

    python -m benchmarks.auto_order lite hff made/altfreezing.onnx made/altfreezing-int8.onnx

Every backend and precision scores the same real crops or clips, once to compare its scores with ONNX Runtime's and then
in rounds, whose order moves on by one; medians. Processor time is what a busy machine distorts least. For torch without
a backend see `benchmarks.models`, for memory and the time to load `deepscan bench`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack, closing
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import machine
from deepscan.errors import DeepscanError
from deepscan.export.parity.parity import BUDGETS, compared, misses
from deepscan.export.parity.samples import samples_to_measure
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.contract import Backend
from deepscan.runtime.backends.selection import Candidate, candidates, open_backend
from deepscan.runtime.system.machine import cpu_count

ROUNDS: Final = 7


def scored(backend: Backend, items: NDArray[np.uint8]) -> NDArray[np.float32]:
    starts = range(0, len(items), backend.max_batch)
    return np.concatenate([backend.logits(items[start : start + backend.max_batch]) for start in starts])


def measure(model: str) -> None:
    artifact = load_artifact(model)
    samples = samples_to_measure(artifact.manifest.spec)
    costs: dict[Candidate, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        backends: dict[Candidate, Backend] = {}
        for candidate in candidates(artifact.manifest, "cpu"):
            try:
                opened = open_backend(candidate, artifact, device="cpu", threads=cpu_count())
            except DeepscanError as error:
                print(f"{model}: {candidate} is left out: {error}")
                continue
            backends[candidate], costs[candidate] = stack.enter_context(closing(opened)), []
        logits = {candidate: scored(backend, samples.items) for candidate, backend in backends.items()}
        order = list(backends)
        for turn in range(ROUNDS):
            for candidate in order[turn % len(order) :] + order[: turn % len(order)]:
                wall, busy = time.perf_counter(), time.process_time()
                scored(backends[candidate], samples.items)
                costs[candidate].append((time.perf_counter() - wall, time.process_time() - busy))
    for candidate, rounds in costs.items():
        wall, busy = (1e3 * statistics.median(column) / len(samples.items) for column in zip(*rounds, strict=True))
        parity = compared(next(iter(logits.values())), logits[candidate], artifact.manifest.spec, samples)
        outcome = "; ".join(misses(parity, BUDGETS[candidate.precision])) or "within the budget"
        print(f"| {model} | {candidate} | {wall:.4g} | {busy:.4g} | {parity.max_difference:.1e} | {outcome} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="DETECTOR")
    models = parser.parse_args().models
    print(machine())
    print("| detector | backend | ms per item | cpu ms | largest difference | parity |\n|---|---|---|---|---|---|")
    for model in models:
        measure(model)


if __name__ == "__main__":
    main()
