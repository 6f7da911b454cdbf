"""AltFreezing on the processors of this machine: each backend, form and precision against plain PyTorch, in one run.

    python -m benchmarks.backends [--rounds 7] [--clips 4] [--int8 altfreezing-int8.onnx] ...

The weights are those that were added (`deepscan weights`), else random ones, and the output says which. `--int8` takes
what `deepscan export altfreezing --int8 --calibration-data VIDEOS` wrote from the same weights.

*torch, eager* is the plain network as its authors run it: float32, one clip, normalized beforehand and laid out as
[1, 3, T, H, W]. All others are what a scan runs: uint8 in, logits out, one clip.

Each contender has a process of its own, so that no library's threads, allocator or processor flags touch another's,
and all of them stay loaded. In every round each scores one real clip, the same for all, one after the other, with a
pause in which the threads of the one before fall asleep; the order moves on by one from round to round. So a machine
that slows down for a while slows down all. All clips are scored once beforehand: this warms up, and gives the
differences of the scores from those of torch, eager.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import cost_of, machine, peak_megabytes
from deepscan.errors import ModelError
from deepscan.export.parity.parity import BUDGETS, compared, misses
from deepscan.export.parity.samples import Samples, packaged_samples
from deepscan.models.registry import find_detector
from deepscan.options import Arithmetic
from deepscan.runtime.artifacts.artifacts import Form, load_artifact
from deepscan.runtime.artifacts.weights_store import find_installed
from deepscan.runtime.backends.selection import Candidate, candidates, open_backend
from deepscan.runtime.system.machine import cpu_count, installed_version

# Only one contender is to have torch in its process, and each imports this file: torch is imported where it is needed.
if TYPE_CHECKING:
    from torch import nn

    from deepscan.export.packing import WeightsOrigin

DETECTOR = "altfreezing"
SPEC = find_detector(DETECTOR).spec
FORMS: tuple[Form, ...] = ("3d", "2d")
EAGER = "torch, eager, fp32, 3d"
ROUNDS = 7
CLIPS = 4
SEED = 0
PAUSE_SECONDS = 0.1
PACKAGES = ("torch", "openvino")

Scoring = Callable[[NDArray[np.uint8]], tuple[float, NDArray[np.float32]]]


@dataclass(frozen=True)
class Contender:
    """A way to score a clip.

    Attributes:
        title: for the table.
        precision: of its arithmetic.
        model: path of its artifact; None for plain torch.
        candidate: what runs the artifact.
    """

    title: str
    precision: Arithmetic
    model: str | None = None
    candidate: Candidate | None = None


@dataclass(frozen=True)
class Outcome:
    """First message of a contender's process.

    Attributes:
        logits: of all clips, [M].
        ready_seconds: from the start of loading to the first logit.
    """

    logits: NDArray[np.float32]
    ready_seconds: float


class Running:
    """A contender in its process."""

    def __init__(self, contender: Contender, clips: NDArray[np.uint8]) -> None:
        context = multiprocessing.get_context("spawn")
        self.contender = contender
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(contender, clips, other), daemon=True)
        self._process.start()
        other.close()
        self.outcome: Outcome = self._heard()
        self.seconds: list[float] = []

    def score(self, clip: int) -> None:
        """Score a clip once more, on the clock."""
        self._pipe.send(clip)
        self.seconds.append(self._heard())

    def peak(self) -> float:
        """End the process, and return its largest resident size in MB."""
        self._pipe.send(None)
        peak: float = self._heard()
        self._process.join()
        return peak

    def _heard(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit(f"{self.contender.title}: its process died; what it said is above.") from None


def _serve(contender: Contender, clips: NDArray[np.uint8], pipe: Connection) -> None:
    started = time.perf_counter()
    scoring = _eager() if contender.model is None else _through_backend(contender)
    first = scoring(clips[:1])[1]
    ready = time.perf_counter() - started
    logits = [first, *(scoring(clips[number : number + 1])[1] for number in range(1, len(clips)))]
    pipe.send(Outcome(np.concatenate(logits), ready))
    while (number := pipe.recv()) is not None:
        pipe.send(scoring(clips[number : number + 1])[0])
    pipe.send(peak_megabytes())


def _eager() -> Scoring:
    import torch

    from deepscan.models.networks.artifact_graph import ArtifactGraph

    torch.set_num_threads(cpu_count())
    network, _ = _network()
    graph = ArtifactGraph(network, SPEC).eval()

    def scoring(clip: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        with torch.inference_mode():
            pixels = torch.from_numpy(clip).permute(0, 4, 1, 2, 3).contiguous()
            normalized = (pixels - graph.get_buffer("mean")) / graph.get_buffer("std")
            logits: list[torch.Tensor] = []
            cost = cost_of(lambda: logits.append(network(normalized)))
        return cost.wall_seconds, logits[0].numpy()

    return scoring


def _through_backend(contender: Contender) -> Scoring:
    assert contender.model is not None
    assert contender.candidate is not None
    artifact = load_artifact(contender.model)
    backend = open_backend(contender.candidate, artifact, device="cpu", threads=cpu_count())

    def scoring(clip: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        logits: list[NDArray[np.float32]] = []
        cost = cost_of(lambda: logits.append(backend.logits(clip)))
        return cost.wall_seconds, logits[0]

    return scoring


def _network() -> tuple[nn.Module, WeightsOrigin]:
    """Build the detector with the weights that were added, else with random ones."""
    from deepscan.export.install import untrained_network
    from deepscan.export.packing import WeightsOrigin
    from deepscan.runtime.backends.torch_network import network_of

    try:
        entry = find_installed(DETECTOR)
    except ModelError:
        return untrained_network(DETECTOR, seed=SEED), WeightsOrigin(f"random, seed {SEED}", "", trained=False)
    record = entry.record
    return network_of(load_artifact(DETECTOR)), WeightsOrigin(record.file, record.sha256, record.trained)


def contenders(network: nn.Module, origin: WeightsOrigin, int8: list[str], folder: Path) -> list[Contender]:
    """Export both forms, and list every backend and precision that can run them or the int8 artifacts here."""
    from deepscan.export.artifact import store_artifact
    from deepscan.export.forms import exported
    from deepscan.export.packing import packed

    models = [*int8]
    for form in reversed(FORMS):
        artifact = packed(exported(network, SPEC, form).model, SPEC, origin, form=form)
        (folder / form).mkdir()
        models.insert(0, str(store_artifact(artifact, folder / form)))
    found = [Contender(EAGER, "fp32")]
    for model in models:
        artifact = load_artifact(model)
        manifest = artifact.manifest
        if manifest.spec.name != DETECTOR or manifest.weights_sha256 != origin.sha256:
            raise SystemExit(f"{model} has other weights than {origin.file}: export {DETECTOR} from those.")
        for candidate in candidates(artifact.manifest, "cpu"):
            if candidate.backend != "torch":
                title = f"{candidate.backend}, {candidate.precision}, {manifest.form}"
                found.append(Contender(title, candidate.precision, model, candidate))
    return found


def measured(found: list[Contender], samples: Samples, rounds: int) -> list[Running]:
    """Start everything, one after another, then let them take turns."""
    running = []
    for contender in found:
        print(f"loading {contender.title} ...", flush=True)
        running.append(Running(contender, samples.items))
    for number in range(rounds):
        turn = number % len(running)
        for each in running[turn:] + running[:turn]:
            time.sleep(PAUSE_SECONDS)
            each.score(number % len(samples.items))
    return running


def print_table(running: list[Running], samples: Samples) -> None:
    """Print seconds per clip, what they are to plain torch, and how much the scores differ from its."""
    [eager] = [each for each in running if each.contender.title == EAGER]
    plain = statistics.median(eager.seconds)
    titles = ("", "s per clip", "min to max", "times torch", "largest difference", "mean", "ready s", "peak MB")
    print(f"\n| {' | '.join(titles)} | |\n{'|---' * (len(titles) + 1)}|")
    for each in running:
        parity = compared(eager.outcome.logits, each.outcome.logits, SPEC, samples)
        missed = misses(parity, BUDGETS[each.contender.precision])
        median = statistics.median(each.seconds)
        print(
            f"| {each.contender.title} | {median:.3f} | {min(each.seconds):.3f} to {max(each.seconds):.3f} "
            f"| {plain / median:.2f} | {parity.max_difference:.1e} | {parity.mean_difference:.1e} "
            f"| {each.outcome.ready_seconds:.1f} | {each.peak():.0f} "
            f"| {'over the budget: ' + '; '.join(missed) if missed else ''} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--clips", type=int, default=CLIPS, help="of the packaged video")
    parser.add_argument("--int8", action="append", default=[], metavar="FILE.onnx", help="once for each form")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {installed_version(name)}" for name in PACKAGES)
    print(f"{machine()}, {versions}")
    network, origin = _network()
    kind = "trained weights" if origin.trained else "RANDOM weights, whose scores mean nothing"
    print(f"{DETECTOR}, {kind}: {origin.file}")
    samples = packaged_samples(SPEC, count=options.clips)
    with tempfile.TemporaryDirectory() as folder:
        running = measured(contenders(network, origin, options.int8, Path(folder)), samples, options.rounds)
    print(f"\nmedians of {options.rounds} rounds, {len(samples.items)} real clips (pixels {samples.sha256[:12]})")
    print_table(running, samples)


if __name__ == "__main__":
    main()
