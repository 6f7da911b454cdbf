"""Store of the engines that were built on this machine, with the checks whether they may be used.

    <data folder>/engines/<detector>-<precision>-<hash of the ONNX file>-<package>-sm86/
        manifest.json, <hash>.plan, lock, <hash>.kernels
    <data folder>/engines/timing-<version of TensorRT>-<GPU>-<driver>.cache

An engine is code that runs on the GPU, and TensorRT does not detect every change to one. So the folders are private,
and manifest and hash are checked before TensorRT reads a byte. The manifest names the plan by its hash and is replaced
last, atomically: readers see the old engine or the new one.

An engine may be used only if these are equal:

- The version, to the last digit: both packages refuse engines of another one ("Engine Compatibility" in their
  documentation).
- The compute capability: engines hold instructions of one architecture.
- With `tensorrt`, the GPU's name and the driver: kernels were chosen by timing them on that GPU, its documentation
  binds an engine to the type of device that built it, and users saw plans fail between two drivers on the same GPU
  (NVIDIA/TensorRT issue 3829). With `tensorrt-rtx` neither: it compiles kernels on the machine that runs them, its
  engines are made to be built elsewhere ("CPU-Only AOT"), and it checks the driver itself (`get_engine_validity`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from deepscan.errors import MachineError, ModelError
from deepscan.runtime.artifacts.artifacts import Manifest, Precision
from deepscan.runtime.artifacts.weights_store import HASH_DIGITS
from deepscan.runtime.system.files import PRIVATE, atomic_write, data_folder

log = logging.getLogger(__name__)

Flavor: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]
FLAVORS: Final[tuple[Flavor, ...]] = ("tensorrt", "tensorrt-rtx")
# Files are named by it, so it must not lead out of their folder.
Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
TITLES: Final[dict[Flavor, str]] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GPU that an engine is built for, or that is to run it.

    Attributes:
        compute_capability: of the GPU, such as 8.6.
        gpu: its name; None where the engine was built for a GPU that was not there.
        driver: version of NVIDIA's driver, likewise.
    """

    compute_capability: str
    gpu: str | None = None
    driver: str | None = None


class BatchProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The batch sizes that an engine takes, and the one it is tuned for."""

    smallest: int
    tuned: int
    largest: int


class EngineManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Manifest of an engine.

    Attributes:
        schema: version of this record's format.
        detector: name of the detector.
        precision: precision of the artifact.
        onnx_sha256: hash of the ONNX file that it was built from.
        weights_sha256: hash of the file that the weights came from.
        flavor: package that built it.
        version: exact version of that package.
        target: GPU it was built for.
        batches: batch sizes it takes.
        workspace_bytes: memory that a layer may use besides its inputs and outputs.
        sha256, size_bytes: hash and size of the plan.
        built: time of the build, in seconds since 1970.
        build_seconds: duration of the build.
        warnings: warnings of the build.
    """

    schema: Literal[1] = 1
    detector: str
    precision: Precision
    onnx_sha256: str
    weights_sha256: str
    flavor: Flavor
    version: str
    target: Target
    batches: BatchProfile
    workspace_bytes: int
    sha256: Sha256
    size_bytes: int
    built: float
    build_seconds: float
    warnings: tuple[str, ...]


def mismatch(engine: EngineManifest, artifact: Manifest, flavor: Flavor, *, version: str, target: Target) -> str:
    """Return why an engine must not be used, for the reasons given above; empty if it may be."""
    package, built = TITLES[flavor], engine.target
    if engine.flavor != flavor:
        return f"was built by {TITLES[engine.flavor]}, not by {package}"
    if engine.version != version:
        return f"was built by {package} {engine.version}, and this is {version}"
    if built.compute_capability != target.compute_capability:
        return f"was built for compute capability {built.compute_capability}, and this is {target.compute_capability}"
    if flavor == "tensorrt" and built.gpu != target.gpu:
        return f"was built for {built.gpu}, and this is {target.gpu}"
    if flavor == "tensorrt" and built.driver != target.driver:
        return f"was built with driver {built.driver}, and this is {target.driver}"
    if engine.onnx_sha256 != artifact.sha256:
        return f"was built from another {artifact.file}"
    return ""


LOCK: Final = "lock"
OPEN_TO_OTHERS: Final = 0o077
SEAL_BYTES: Final = 32


def make_private(folder: Path) -> None:
    """Create a folder that only its owner may enter; an existing one is left unchanged.

    Raises:
        OSError: it cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE, exist_ok=True)


def refuse_open(folder: Path, *, remedy: str) -> None:
    """Refuse a folder that other users may have written to: an engine is code that runs on the GPU.

    Args:
        folder: an existing path.
        remedy: end of the message.

    Raises:
        ModelError: it belongs to another user, or others may enter it, or it is not a folder.
    """
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{folder} is not a folder, so no engine is taken from it: delete it, and {remedy}.")
    if status.st_uid != os.geteuid():
        raise ModelError(f"{folder} belongs to another user, so no engine is taken from it: delete it, and {remedy}.")
    if status.st_mode & OPEN_TO_OTHERS:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise ModelError(
            f"{folder} is open to other users (mode {mode}), so no engine is taken from it: delete it, and {remedy}."
        )


def read_own(path: Path) -> bytes:
    """Read a file that must belong to this user and not be a link.

    Raises:
        OSError: it cannot be read, or is a link.
        PermissionError: it belongs to another user.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            raise PermissionError(0, "it belongs to another user, or is not a regular file", str(path))
        return file.read()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes and threads from building in an existing folder; wait for one that does.

    The lock is on an open file: the system releases it when the process ends in any way. The file stays, because
    deleting it would let a third process lock a new one of the same name.

    Raises:
        OSError: the file system cannot lock.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Another process is building this engine: waiting for it ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_sealed(path: Path, content: bytes) -> None:
    """Write data that TensorRT keeps to save time, with its hash before it.

    Raises:
        OSError: it cannot be written.
    """
    atomic_write({path: [hashlib.sha256(content).digest(), content]})


def read_sealed(path: Path) -> bytes | None:
    """Return what `write_sealed` wrote, or None if anything is wrong with it: it only saves time."""
    try:
        content = read_own(path)
    except OSError:
        return None
    seal, content = content[:SEAL_BYTES], content[SEAL_BYTES:]
    return content if hashlib.sha256(content).digest() == seal else None


MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine in the store."""

    manifest: EngineManifest
    folder: Path

    @property
    def plan_path(self) -> Path:
        """Path of the plan, TensorRT's word for the file of an engine."""
        return self.folder / f"{self.manifest.sha256}.plan"

    @property
    def kernels_path(self) -> Path:
        """Path of the kernels that TensorRT-RTX compiled on this machine when it ran the engine."""
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
    """Return the path of TensorRT's timing cache for one GPU; it may not exist yet."""
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", f"{target.gpu} {target.driver}")
    return engines_folder() / f"timing-{version}-{gpu}.cache"


def rebuilding(artifact: Manifest, flavor: Flavor) -> str:
    """Return the end of a message that tells how to build the engine again."""
    return f"build it again with `deepscan export {artifact.spec.name} --{artifact.precision} --engine {flavor}`"


def find_engine(artifact: Manifest, flavor: Flavor, *, version: str, target: Target) -> Engine:
    """Find the engine of an artifact that may run here, without reading its plan; see `read_plan`.

    Args:
        artifact: manifest of the artifact that it must have been built from.
        flavor: package to run it with.
        version: version of that package.
        target: GPU to run it on.

    Raises:
        MachineError: none was built.
        ModelError: there is one, but it must not be used.
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
    """Read the plan of an engine, and check it against the manifest.

    Raises:
        ModelError: it cannot be read, or does not match.
    """
    try:
        plan = read_own(engine.plan_path)
    except OSError as error:
        raise ModelError(f"{engine.plan_path} cannot be read ({error.strerror}): {remedy}.") from error
    if len(plan) != engine.manifest.size_bytes or hashlib.sha256(plan).hexdigest() != engine.manifest.sha256:
        raise ModelError(f"{engine.plan_path} was cut or changed since it was built: {remedy}.")
    return plan


def save_engine(engine: Engine, plan: bytes) -> None:
    """Write an engine into its locked folder; the previous one stays valid until the last step.

    Raises:
        OSError: it cannot be written; the previous one stays.
    """
    record = msgspec.json.format(msgspec.json.encode(engine.manifest), indent=2) + b"\n"
    try:
        atomic_write({engine.plan_path: [plan]})
        atomic_write({engine.folder / MANIFEST: [record]})
    finally:
        sweep(engine.folder)


def sweep(folder: Path) -> None:
    """Delete files that do not belong to the engine of a locked folder: former engines, remains of killed builds."""
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
