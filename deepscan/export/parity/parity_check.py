"""Parity check: the scores of an exported graph against those of the float32 torch network it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from deepscan.export.parity.parity import Parity, compared
from deepscan.export.parity.samples import Samples
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.system.machine import cpu_count
from deepscan.spec import DetectorSpec

CROPS_AT_ONCE: Final = 8
CLIPS_AT_ONCE: Final = 1


@dataclass(frozen=True, eq=False)
class ParityCheck:
    """Real crops or clips with the torch network's float32 logits [M]; called with a graph, it compares."""

    spec: DetectorSpec
    samples: Samples
    reference: NDArray[np.float32]

    def __call__(self, model: onnx.ModelProto) -> Parity:
        """Run a graph with ONNX Runtime on the CPU, and compare."""
        session = Session(model.SerializeToString(), source=self.spec.name, device="cpu", threads=cpu_count())
        logits = [
            session.run(["logit"], {self.spec.input_name: batch})[0] for batch in _batches(self.spec, self.samples)
        ]
        return compared(self.reference, np.concatenate(logits), self.spec, self.samples)


def parity_check(network: nn.Module, spec: DetectorSpec, samples: Samples) -> ParityCheck:
    """Run the original network on the samples; with its weights, as its authors define it: not lowered, not folded."""
    graph = ArtifactGraph(network, spec).eval()
    with torch.inference_mode():
        logits = [graph(torch.from_numpy(batch))[0].numpy() for batch in _batches(spec, samples)]
    return ParityCheck(spec, samples, np.concatenate(logits))


def _batches(spec: DetectorSpec, samples: Samples) -> list[NDArray[np.uint8]]:
    size = CLIPS_AT_ONCE if spec.kind == "clip" else CROPS_AT_ONCE
    return [samples.items[start : start + size] for start in range(0, len(samples.items), size)]
