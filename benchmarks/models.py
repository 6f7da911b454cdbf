"""Speed of each detector's network: the artifact in ONNX Runtime against the plain torch module.

    python -m benchmarks.models [DETECTOR ...]           by default all of them

Random weights, float32, all processors. torch runs the module eagerly, one item at a time, on normalized input as the
authors' scripts make it; ONNX Runtime runs the exported artifact on uint8, one item at a time and in the batches of
a scan. Rounds of the three are interleaved; the table gives medians. FLOP are counted by torch: multiplications and
additions, of convolutions and matrix products.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import cost_of, machine
from deepscan.export.forms import exported
from deepscan.export.install import untrained_network
from deepscan.export.packing import WeightsOrigin, packed
from deepscan.models.deepfakebench import VARIANT as DEEPFAKEBENCH
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.registry import BUILTIN, find_detector
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from deepscan.runtime.system.machine import cpu_count

ROUNDS = 7
WARM_UPS = 3
SEED = 0
COLUMNS = ("detector", "million parameters", "GFLOP", "torch s", "ONNX Runtime s, one", "in batches", "torch / batches")


def measure(name: str, rounds: int) -> None:
    """Measure one detector, and print its row."""
    spec = find_detector(name).spec
    network = untrained_network(name, seed=SEED)
    plain = ArtifactGraph(network, spec).eval()
    traced = exported(network, spec, "auto")
    artifact = packed(traced.model, spec, WeightsOrigin("random", "", trained=False), form=traced.form)
    backend = OnnxRuntimeBackend(artifact, device="cpu", threads=cpu_count(), precision="fp32")
    items = np.random.default_rng(SEED).integers(0, 256, (backend.max_batch, *spec.item_shape), dtype=np.uint8)
    tensors = torch.from_numpy(items)
    normalized = _normalized(tensors[:1], plain)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            expected = torch.cat([plain(item[None])[1] for item in tensors])
        scores = torch.sigmoid(torch.from_numpy(backend.logits(items)) * plain.scale + plain.offset)
        works: dict[str, Callable[[], object]] = {
            "torch": lambda: network(normalized),
            "single": lambda: backend.logits(items[:1]),
            "batch": lambda: backend.logits(items),
        }
        for work in WARM_UPS * list(works.values()):
            work()
        seconds: dict[str, list[float]] = {kind: [] for kind in works}
        for _ in range(rounds):
            for kind, work in works.items():
                seconds[kind].append(cost_of(work).wall_seconds)
    median = {kind: statistics.median(values) for kind, values in seconds.items()}
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    flop, batch = counter.get_total_flops() / len(items) / 1e9, median["batch"] / len(items)
    print(
        f"| {name} | {parameters:.1f} | {flop:.2f} | {median['torch']:.3f} | {median['single']:.3f} "
        f"| {batch:.3f} (of {len(items)}) | {median['torch'] / batch:.2f} |"
    )
    print(f"  largest difference of a score: {(expected - scores).abs().max():.1e}", flush=True)


def _normalized(pixels: torch.Tensor, graph: ArtifactGraph) -> torch.Tensor:
    """Return what the network takes, laid out in memory as [N, 3, (T,) H, W]."""
    seen: list[torch.Tensor] = []
    hook = graph.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        graph(pixels)
    hook.remove()
    return seen[0].contiguous()


def main() -> None:
    names = [name for name in BUILTIN if not name.endswith(DEEPFAKEBENCH)]
    parser = argparse.ArgumentParser(description="Time every detector's network in torch and in ONNX Runtime.")
    parser.add_argument("detectors", nargs="*", help=f"among {', '.join(BUILTIN)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    torch.set_num_threads(cpu_count())
    print(f"{machine()}, torch {torch.__version__}\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for name in options.detectors or names:
        measure(name, options.rounds)


if __name__ == "__main__":
    main()
