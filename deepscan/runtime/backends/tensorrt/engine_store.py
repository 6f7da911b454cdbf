"""Engines that were built on this machine: what they are for, and whether they may still be used.

    <data folder>/engines/<detector>-<precision>-<hash of the ONNX file>-<package>-sm86/
        manifest.json, <hash>.plan, lock, <hash>.kernels
    <data folder>/engines/timing-<version of TensorRT>-<GPU>-<driver>.cache

An engine is code that runs on the GPU, and TensorRT does not notice every change that was made to one. So the folders
are private, and manifest and hash are checked before TensorRT sees a byte. The manifest names the plan by its hash and
is replaced last, in one step: whoever looks sees the old engine or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from deepscan.errors import MachineError, ModelError
from deepscan.runtime.artifacts.artifacts import Manifest
from deepscan.runtime.artifacts.weights_store import HASH_DIGITS
from deepscan.runtime.backends.tensorrt.tensorrt_files import LOCK, read_own, refuse_open
from deepscan.runtime.backends.tensorrt.tensorrt_manifest import TITLES, EngineManifest, Flavor, Target, mismatch
from deepscan.runtime.system.files import atomic_write, data_folder

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine in the store."""

    manifest: EngineManifest
    folder: Path

    @property
    def plan_path(self) -> Path:
        """Of the plan, which is what TensorRT calls the file of an engine."""
        return self.folder / f"{self.manifest.sha256}.plan"

    @property
    def kernels_path(self) -> Path:
        """Of what TensorRT-RTX compiled on this machine when it ran the engine."""
        return self.folder / f"{self.manifest.sha256}.kernels"


def engines_folder() -> Path:
    """Return the folder of all engines; it may not exist yet."""
    return data_folder() / "engines"


def engine_folder(artifact: Manifest, flavor: Flavor, compute_capability: str) -> Path:
    """Return the folder of one engine; it may not exist yet."""
    architecture = compute_capability.replace(".", "")
    name = f"{artifact.spec.name}-{artifact.precision}-{artifact.sha256[:HASH_DIGITS]}-{flavor}-sm{architecture}"
    return engines_folder() / name


def timings_path(version: str, target: Target) -> Path:
    """Return the file of the times that TensorRT took of kernels on one GPU; it may not exist yet."""
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", f"{target.gpu} {target.driver}")
    return engines_folder() / f"timing-{version}-{gpu}.cache"


def rebuilding(artifact: Manifest, flavor: Flavor) -> str:
    """Return the end of a message: how the engine is built again."""
    return f"build it again with `deepscan export {artifact.spec.name} --{artifact.precision} --engine {flavor}`"


def find_engine(artifact: Manifest, flavor: Flavor, *, version: str, target: Target) -> Engine:
    """Find the engine of an artifact that may run here; the plan itself is not read yet, see `read_plan`.

    Args:
        artifact: what it must have been built from.
        flavor: the package that shall run it.
        version: of that package.
        target: what it shall run on.

    Raises:
        MachineError: none was built.
        ModelError: there is one, and it must not be used.
    """
    folder, remedy = engine_folder(artifact, flavor, target.compute_capability), rebuilding(artifact, flavor)
    try:
        for private in (engines_folder(), folder):
            refuse_open(private, remedy=remedy)
        manifest = msgspec.json.decode(read_own(folder / MANIFEST), type=EngineManifest)
    except FileNotFoundError as error:
        raise MachineError(
            f"No {TITLES[flavor]} engine of {artifact.file} was built for compute capability "
            f"{target.compute_capability}: {remedy.replace('again ', '')}."
        ) from error
    except OSError as error:
        raise ModelError(f"{folder / MANIFEST} cannot be read ({error.strerror}): {remedy}.") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{folder / MANIFEST} is not a record of an engine ({error}): {remedy}.") from error
    wrong = mismatch(manifest, artifact, flavor, version=version, target=target)
    if wrong:
        raise ModelError(f"The engine in {folder} {wrong}: {remedy}.")
    return Engine(manifest, folder)


def read_plan(engine: Engine, *, remedy: str) -> bytes:
    """Read an engine's plan, and check that it is the one its manifest describes.

    Raises:
        ModelError: it is not, or cannot be read.
    """
    try:
        plan = read_own(engine.plan_path)
    except OSError as error:
        raise ModelError(f"{engine.plan_path} cannot be read ({error.strerror}): {remedy}.") from error
    if len(plan) != engine.manifest.size_bytes or hashlib.sha256(plan).hexdigest() != engine.manifest.sha256:
        raise ModelError(f"{engine.plan_path} was cut or changed since it was built: {remedy}.")
    return plan


def save_engine(engine: Engine, plan: bytes) -> None:
    """Put an engine into its folder, which is locked; until its last step the engine that was there is the valid one.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    record = msgspec.json.format(msgspec.json.encode(engine.manifest), indent=2) + b"\n"
    try:
        atomic_write({engine.plan_path: [plan]})
        atomic_write({engine.folder / MANIFEST: [record]})
    finally:
        sweep(engine.folder)


def sweep(folder: Path) -> None:
    """Delete from a locked folder what does not belong to its engine: the former one, and what killed builds left."""
    kept = {LOCK, MANIFEST}
    try:
        engine = Engine(msgspec.json.decode(read_own(folder / MANIFEST), type=EngineManifest), folder)
        kept |= {engine.plan_path.name, engine.kernels_path.name}
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError):
        return  # nothing is known about what lies here
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()
