"""What `deepscan export` is asked for, made into an order: the one place where calibration and export meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deepscan.calibration.quantize import quantized
from deepscan.export.artifact import Order, Quantization
from deepscan.export.forms import FormChoice
from deepscan.export.parity.conversion import Report
from deepscan.export.parity.samples import Samples, read_labels
from deepscan.export.real_data import GATE_CLIPS, GATE_CROPS, calibration_data, gathered_data, joined
from deepscan.runtime.artifacts.artifacts import Activations, CalibrationMethod, CalibrationRecord, Precision
from deepscan.spec import DetectorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportWishes:
    """The options of `deepscan export`; see there."""

    precision: Precision
    form: FormChoice
    for_engine: bool
    calibration_data: Sequence[str]
    calibration_method: CalibrationMethod
    calibration_items: int | None
    parity_data: Sequence[str]
    labels: Path | None
    accept_parity_loss: bool
    seed: int


def order_of(spec: DetectorSpec, wishes: ExportWishes, report: Report) -> Order:
    """Gather what the export needs of the user's videos.

    Raises:
        UsageError: int8 is wanted and there is nothing to calibrate with; videos or labels cannot be used.
    """
    labels = read_labels(wishes.labels) if wishes.labels else None
    for_gate: list[Samples] = []
    quantization = None
    if wishes.precision == "int8":
        calibrating, held_out = calibration_data(
            spec,
            wishes.calibration_data,
            items=wishes.calibration_items,
            seed=wishes.seed,
            labels=labels,
            report=report,
        )
        quantization = _quantization(calibrating, wishes)
        for_gate.append(held_out)
    if wishes.parity_data:
        count = GATE_CLIPS if spec.kind == "clip" else GATE_CROPS
        for_gate.append(
            gathered_data(spec, wishes.parity_data, items=count, seed=wishes.seed, labels=labels, report=report)
        )
    return Order(
        precision=wishes.precision,
        form=wishes.form,
        for_engine=wishes.for_engine,
        quantization=quantization,
        samples=joined(for_gate) if for_gate else None,
        accept_parity_loss=wishes.accept_parity_loss,
    )


def _quantization(samples: Samples, wishes: ExportWishes) -> Quantization:
    # TensorRT takes no zero points; processors compute with them just as fast, and need no bit for a sign.
    activations: Activations = "symmetric" if wishes.for_engine else "affine"
    method, seed = wishes.calibration_method, wishes.seed
    return Quantization(
        partial(quantized, items=samples.items, method=method, activations=activations, seed=seed),
        CalibrationRecord(
            method=method,
            activations=activations,
            items=len(samples.items),
            sha256=samples.sha256,
            seed=seed,
            kept=(),
        ),
    )
