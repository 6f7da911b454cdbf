"""8 bits and half precision: deepscan's conversions against those of ONNX Runtime's own tools.

    python -m benchmarks.quantization [DETECTOR ...] --data VIDEOS      by default lite, recce and ftcn

Each detector's float32 graph is quantized by both from the same crops, and compared with the torch original on others.
`affine` is for CPUs, `symmetric` for TensorRT, which takes neither zero points nor biases in 8 bits. ONNX Runtime's
tool gets what deepscan's has: weights per channel, folded batch normalization, the operators that CPUs compute in 8
bits. Seconds are of making the graph, ms of one item in ONNX Runtime, medians of interleaved rounds. Then both convert
to float16, with the same nodes left in float32. Random weights except for lite.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from benchmarks.measure import machine
from deepscan.calibration.placement import placed, quantizable
from deepscan.calibration.qdq import with_qdq
from deepscan.calibration.ranges import ItemReader, observe, resolve_range
from deepscan.export.forms import exported
from deepscan.export.half import halved
from deepscan.export.half_search import behind_outputs, bridged
from deepscan.export.install import untrained_network
from deepscan.export.parity.parity_check import parity_check
from deepscan.export.parity.samples import joined, packaged_samples
from deepscan.export.real_data import calibration_data
from deepscan.export.simplify import folded_batch_norm
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import EMBEDDED, Activations, load_artifact
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.backends.torch_network import network_of
from deepscan.runtime.system.machine import cpu_count

Items = NDArray[np.uint8]
ROUNDS: Final = 5
LAYERS: Final = ["Conv", "Gemm", "MatMul", "Add", "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean"]
MOVEMENT: Final = "MaxPool Relu Clip Reshape Transpose Pad Slice Squeeze Unsqueeze Flatten Split Gather".split()


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Items one by one, as ONNX Runtime's tool takes them; its histograms need batches of one size."""

    def __init__(self, name: str, items: Items) -> None:
        self.batches: Iterator[dict[str, Items]] = ({name: item[np.newaxis]} for item in items)

    def get_next(self) -> dict[str, Items] | None:
        """Return the next batch."""
        return next(self.batches, None)


def by_deepscan(model: onnx.ModelProto, items: Items, method: str, activations: Activations) -> onnx.ModelProto:
    """Quantize every node that can be quantized."""
    index = GraphIndex(model)
    placement = placed(index, quantizable(index, activations), activations)
    seen = observe(index, sorted(set(placement.roots.values())), ItemReader(items, seed=0))
    ranges = {name: resolve_range(values, method, activations) for name, values in seen.items()}  # type: ignore[arg-type]
    return with_qdq(index, placement, ranges, activations)


def by_onnxruntime(model: onnx.ModelProto, items: Items, method: str, activations: Activations) -> onnx.ModelProto:
    """Quantize as ONNX Runtime recommends it for x86 (`affine`) and for TensorRT (`symmetric`)."""
    symmetric = activations == "symmetric"
    options: dict[str, Any] = {"CalibPercentile": 99.99} if method == "percentile" else {}
    if symmetric:
        options |= {"ActivationSymmetric": True, "QuantizeBias": False, "OpTypesToExcludeOutputQuantization": LAYERS}
    copy = onnx.ModelProto.FromString(model.SerializeToString())  # the tool moves the weights of what it is given
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            copy,
            path,
            Batches(model.graph.input[0].name, items),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=LAYERS if symmetric else LAYERS + MOVEMENT,
            per_channel=True,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax if method == "minmax" else CalibrationMethod.Percentile,
            extra_options=options,
        )
        return onnx.load(path)


def compare(name: str, paths: list[str], calibration_items: int, methods: list[str]) -> None:
    """Print the rows of one detector."""
    spec = find_detector(name).spec
    network = network_of(load_artifact(name)) if name in EMBEDDED else untrained_network(name, seed=0)
    samples, held_out = calibration_data(spec, paths, items=calibration_items, seed=0, labels=None)
    check = parity_check(
        network, spec, joined([packaged_samples(spec, count=48 if spec.kind == "frame" else 8), held_out])
    )
    traced = exported(network, spec, "2d" if spec.kind == "clip" else "auto")
    model = folded_batch_norm(traced.model)
    makers: list[tuple[str, Callable[..., onnx.ModelProto]]] = [
        ("deepscan", by_deepscan),
        ("ONNX Runtime", by_onnxruntime),
    ]
    schemes: list[Activations] = ["affine", "symmetric"]
    rows, sessions = [], {}
    for activations in schemes:
        for method in methods:
            for maker, make in makers:
                start = time.perf_counter()
                made = make(model, samples.items, method, activations)
                seconds = time.perf_counter() - start
                parity = check(made)
                row = f"{name} | {maker} | {activations}, {method}"
                sessions[row] = Session(made.SerializeToString(), source=row, device="cpu", threads=cpu_count())
                rows.append((row, parity, seconds))
    batch = samples.items[: 1 if spec.kind == "clip" else 8]
    times: dict[str, list[float]] = {row: [] for row in sessions}
    for _ in range(ROUNDS):
        for row, session in sessions.items():
            start = time.perf_counter()
            session.run(["logit"], {spec.input_name: batch})
            times[row].append((time.perf_counter() - start) / len(batch))
    for row, parity, seconds in rows:
        flips = f"{len(parity.flips)} of {parity.items}"
        speed = 1000 * statistics.median(times[row])
        print(
            f"| {row} | {parity.max_difference:.1e} | {parity.mean_difference:.1e} | {flips} "
            f"| {seconds:.0f} | {speed:.1f} |",
            flush=True,
        )
    compare_half(name, model)


def compare_half(name: str, model: onnx.ModelProto) -> None:
    """Print how many casts the two converters need for the same float32 nodes."""
    index = GraphIndex(model)
    fp32_nodes = bridged(index, behind_outputs(index))
    ours = halved(index, fp32_nodes)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    theirs = convert_float_to_float16(copy, keep_io_types=True, node_block_list=sorted(fp32_nodes))
    for maker, made in (("deepscan", ours), ("ONNX Runtime", theirs)):
        casts = sum(node.op_type == "Cast" for node in made.graph.node)
        size = made.ByteSize() / 1e6
        print(f"  {name} in float16 by {maker}: {casts} casts, {len(made.graph.node)} nodes, {size:.1f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="*", default=["lite", "recce", "ftcn"])
    parser.add_argument("--data", nargs="+", default=["examples"], help="videos to take crops from")
    parser.add_argument("--items", type=int, help="number of crops or clips to calibrate with")
    parser.add_argument("--methods", nargs="+", default=["minmax", "percentile"])
    options = parser.parse_args()
    print(f"{machine()}\n")
    print("| detector | by | ranges | largest difference | mean | labels flipped | seconds | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.detectors:
        clips = find_detector(name).spec.kind == "clip"
        compare(name, options.data, options.items or (8 if clips else 64), options.methods)


if __name__ == "__main__":
    main()
