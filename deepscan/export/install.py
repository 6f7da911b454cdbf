"""Addition of weights to the store: recognized, verified, kept as safetensors, and exported for scans."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import onnx
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from deepscan.errors import OutputError, UsageError
from deepscan.export.artifact import ExportSettings, make_artifact, store_artifact, weights_in_bytes
from deepscan.export.forms import FormChoice, refuse_form
from deepscan.export.onnx_from_module import export_retinaface
from deepscan.export.packing import WeightsOrigin
from deepscan.models.checkpoints.checkpoints import load_checkpoint, read_tensors
from deepscan.models.checkpoints.recognize import recognize
from deepscan.models.registry import FACE_DETECTORS, detector_names, find_detector
from deepscan.runtime.artifacts.artifacts import EMBEDDED, WeightsFile, load_artifact
from deepscan.runtime.artifacts.weights_store import RECORD, WEIGHTS, Installed, Record, weights_folder
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from deepscan.runtime.faces.retinaface import RetinaFace
from deepscan.runtime.system.files import PRIVATE
from deepscan.runtime.system.machine import cpu_count

GRAY: Final = 128
TRIED_SIZE: Final = (96, 128)
# Batch normalization needs more than one item where feature maps have a single position.
NOISE_ITEMS: Final = 2


def add_weights(path: Path, *, variant: str | None = None, form: FormChoice = "auto") -> Installed:
    """Add a checkpoint to the store, as its authors, or the publisher of a `variant`, publish it.

    Raises:
        UsageError: the detector needs no weights, or has no such variant, or has only one form.
        ModelError: the file cannot be read, or holds the weights of no known detector.
        OutputError: the store cannot be written to.
    """
    checkpoint = read_tensors(path)
    name = recognize(checkpoint.tensors, path, variant=variant)
    if name in EMBEDDED:
        raise UsageError(f"{path} holds the weights of {name}, which comes inside deepscan: there is nothing to add.")
    network = (FACE_DETECTORS.get(name) or find_detector(name)).build()
    refuse_form(network, name, form)
    loaded = load_checkpoint(network, checkpoint, name=name, path=path)
    notes = [f"The weights were taken {loaded.wrapping}."] if loaded.wrapping else []
    if loaded.dropped:
        first = f"{loaded.dropped[0]}{', ...' if loaded.dropped[1:] else ''}"
        notes.append(
            f"What takes no part in scoring was dropped: {len(loaded.dropped)} of the file's tensors ({first})."
        )
    return _store(network, name, WeightsOrigin(path.name, loaded.sha256), " ".join(notes), form=form)


def add_random_weights(name: str, *, seed: int) -> Installed:
    """Add random weights of a detector, to measure speed; on one machine, equal seeds give equal weights.

    The difference between the graph and the network is recorded, and not limited.

    Raises:
        UsageError: there is no such detector, or it needs no weights.
        OutputError: the store cannot be written to.
    """
    if name in EMBEDDED:
        raise UsageError(f"{name} comes inside deepscan with its trained weights: there is nothing to add.")
    names = [known for known in detector_names() if known not in EMBEDDED]
    if name not in names:
        raise UsageError(f"No detector that takes weights is called {name!r}: use one of {', '.join(names)}.")
    file = f"random-{seed}"
    identity = hashlib.sha256(f"deepscan {name} {file} torch {torch.__version__}".encode()).hexdigest()
    return _store(untrained_network(name, seed=seed), name, WeightsOrigin(file, identity, trained=False), "")


def untrained_network(name: str, *, seed: int) -> nn.Module:
    """Build a detector with random weights, in evaluation mode; on one machine, equal seeds give equal weights.

    The statistics of batch normalization come from one pass over noise. Without them values shrink from layer to layer
    until they are denormal, which slows processors down.
    """
    detector = find_detector(name)
    spec = detector.spec
    steps = (spec.frames,) if spec.kind == "clip" else ()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = detector.build()
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = None  # the mean over all passes, which is one
        network.train()(torch.randn(NOISE_ITEMS, 3, *steps, spec.size, spec.size))
    return network.eval()


def _store(network: nn.Module, name: str, origin: WeightsOrigin, note: str, *, form: FormChoice = "auto") -> Installed:
    """Write everything into a folder beside the final one, then rename it."""
    folder = weights_folder(name, origin.sha256)
    record = Record(
        name=name,
        kind="face detector" if name in FACE_DETECTORS else "detector",
        sha256=origin.sha256,
        file=origin.file,
        trained=origin.trained,
        added=time.time(),
        note=note,
    )
    try:
        folder.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".adding-") as temporary:
            made = Path(temporary) / "weights"
            made.mkdir(mode=PRIVATE)
            weights = weights_in_bytes(network)
            (made / WEIGHTS).write_bytes(weights)
            if record.kind == "detector":
                # In deep networks with random weights, the last digit of a number can change the score.
                settings = ExportSettings(form=form, accept_parity_loss=not origin.trained)
                kept = WeightsFile(file=WEIGHTS, sha256=hashlib.sha256(weights).hexdigest())
                exported = make_artifact(network, find_detector(name).spec, origin, settings, kept=kept)
                store_artifact(exported.artifact, made, report=exported.report)
            else:
                onnx.save_model(export_retinaface(network), made / f"{name}.onnx")
            (made / RECORD).write_bytes(msgspec.json.encode(record))
            _try(made, record)
            if folder.exists():
                folder.rename(Path(temporary) / "replaced")  # deleted with the temporary folder
            made.rename(folder)
    except OSError as error:
        message = f"{folder.parent} cannot be written to ({error.strerror}): set DEEPSCAN_HOME to another folder."
        raise OutputError(message) from error
    return Installed(record, folder)


def _try(folder: Path, record: Record) -> None:
    """Run the artifact once, so that a broken one is refused now and not in a scan."""
    path = folder / f"{record.name}.onnx"
    if record.kind == "detector":
        artifact = load_artifact(str(path))
        batch = np.full((1, *artifact.manifest.spec.item_shape), GRAY, dtype=np.uint8)
        OnnxRuntimeBackend(artifact, device="cpu", threads=cpu_count(), precision="fp32").logits(batch)
    else:
        picture = np.full((1, *TRIED_SIZE, 3), GRAY, dtype=np.uint8)
        RetinaFace(path.read_bytes(), source=record.file, device="cpu", threads=cpu_count()).detect(picture)
