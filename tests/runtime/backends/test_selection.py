from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from deepscan.errors import MachineError, ModelError, UsageError
from deepscan.installing import install_extra
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends import openvino_backend
from deepscan.runtime.backends.registry import BACKENDS, backend_class, backend_names
from deepscan.runtime.backends.saved_choices import SavedChoice, choice_path, save_choice, saved_choice, saved_choices
from deepscan.runtime.backends.selection import (
    AUTO_ORDER,
    Candidate,
    accepted_computations,
    candidates,
    open_backend,
    resolve_backend,
)
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.runtime.system.machine import environment
from tests.runtime.backends.manifests import manifest_in

DOCS = Path(__file__).parents[3] / "docs" / "export.md"
LITE = manifest_in("fp32")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def choice(**values: object) -> SavedChoice:
    return msgspec.structs.replace(
        SavedChoice(
            file=LITE.file,
            sha256=LITE.sha256,
            device="cpu",
            backend="onnxruntime",
            precision="fp32",
            items_per_second=10.0,
            max_difference=0.0,
            measured=0.0,
            machine=environment(),
        ),
        **values,
    )


def test_everything_that_is_here_is_a_candidate() -> None:
    found = candidates(LITE, "cpu")
    assert found[0] == Candidate("onnxruntime", "fp32")
    assert {Candidate("openvino", "fp32"), Candidate("torch", "fp32")} < set(found)


def test_auto_takes_the_first_backend_of_its_order_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_backend(LITE, backend="auto", precision="auto", device="cpu") == Candidate("openvino", "fp32")
    monkeypatch.setitem(sys.modules, "openvino", None)  # Python takes it for a package that is not installed
    assert resolve_backend(LITE, backend="auto", precision="auto", device="cpu") == Candidate("onnxruntime", "fp32")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_auto_never_lowers_the_precision(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(openvino_backend, "processor_flags", lambda: frozenset(["avx512_bf16"]))
    manifest = msgspec.structs.replace(LITE, precision=precision)
    expected = "int8" if precision == "int8" else "fp32"
    assert resolve_backend(manifest, backend="auto", precision="auto", device="cpu").precision == expected


def test_a_precision_that_is_asked_for_picks_the_backend_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "processor_flags", lambda: frozenset(["amx_bf16", "avx2"]))
    assert resolve_backend(LITE, backend="auto", precision="bf16", device="cpu") == Candidate("openvino", "bf16")
    monkeypatch.setattr(openvino_backend, "processor_flags", lambda: frozenset(["avx2"]))
    with pytest.raises(ModelError, match="is not computed in bf16 on this cpu: use one of onnxruntime fp32, openvino"):
        resolve_backend(LITE, backend="auto", precision="bf16", device="cpu")


def test_the_order_ends_with_what_comes_with_deepscan_and_the_docs_show_it() -> None:
    assert {row.backend for row in AUTO_ORDER} <= set(BACKENDS)
    assert AUTO_ORDER[-1][:3] == ("cpu", "onnxruntime", "always")
    for row in AUTO_ORDER:
        assert f"| {row.device} | {row.condition} | `{row.backend}` | {row.reason} |" in DOCS.read_text()


def test_the_supervisor_learns_it_without_importing_what_computes() -> None:
    program = """
import sys
from deepscan.runtime.artifacts.artifacts import embedded_manifest
from deepscan.runtime.backends.selection import accepted_computations, candidates
lite = embedded_manifest("lite")
for device in ("cpu", "cuda"):
    candidates(lite, device)
accepted_computations(lite, backend="auto", precision="auto", device="cpu")
print(sorted({"onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_rtx", "av", "cv2"} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_one_computation_counts_on_a_cpu() -> None:
    def accepted(backend: str, precision: str) -> frozenset[tuple[str, str]]:
        return accepted_computations(LITE, backend=backend, precision=precision, device="cpu")  # type: ignore[arg-type]

    assert accepted("auto", "auto") == accepted("auto", "fp32") == accepted("openvino", "auto")
    assert accepted("openvino", "auto") == {("openvino-cpu", "fp32")}
    assert accepted("torch", "auto") == {("torch-cpu", "fp32")}
    assert accepted("onnxruntime", "fp32") == {("onnxruntime-cpu", "fp32")}
    with pytest.raises(ModelError):
        accepted("onnxruntime", "fp16")


def test_on_gpus_the_one_that_stands_in_on_the_cpu_counts_too() -> None:
    engine = accepted_computations(manifest_in("fp16"), backend="tensorrt", precision="fp16", device="cuda")
    assert engine == {("openvino-cpu", "fp32"), ("tensorrt-cuda", "fp16"), ("tensorrt-rtx-cuda", "fp16")}


def test_a_saved_choice_is_taken_where_the_backend_is_left_to_auto() -> None:
    save_choice(choice())
    own = Candidate("onnxruntime", "fp32")
    assert resolve_backend(LITE, backend="auto", precision="auto", device="cpu") == own
    assert accepted_computations(LITE, backend="auto", precision="auto", device="cpu") == {("onnxruntime-cpu", "fp32")}
    assert resolve_backend(LITE, backend="openvino", precision="auto", device="cpu").backend == "openvino"
    save_choice(choice(precision="bf16", backend="openvino"))
    assert resolve_backend(LITE, backend="auto", precision="auto", device="cpu") == Candidate("openvino", "bf16")
    assert resolve_backend(LITE, backend="auto", precision="fp32", device="cpu") == Candidate("openvino", "fp32")


def test_a_saved_choice_is_for_its_owner_only(home: Path) -> None:
    path = save_choice(choice())
    assert [oct(folder.stat().st_mode & 0o777) for folder in (home, path.parent)] == ["0o700", "0o700"]
    assert saved_choices() == [(path, choice())]


def test_a_choice_that_does_not_hold_is_left_alone() -> None:
    here = environment()
    save_choice(choice(machine=msgspec.structs.replace(here, processor="another")))
    assert saved_choice(LITE.sha256, "cpu") is None
    save_choice(choice(machine=msgspec.structs.replace(here, packages={**here.packages, "openvino": "2099.1"})))
    assert saved_choice(LITE.sha256, "cpu") is None
    assert len(saved_choices()) == 1
    # A renamed file is about another artifact.
    choice_path("0" * 64, "cpu").write_bytes(msgspec.json.encode(choice()))
    assert saved_choice("0" * 64, "cpu") is None


@pytest.mark.parametrize("content", [b"", b"\xff{}", b"{}", b'{"schema": 0}'])
def test_a_saved_choice_that_cannot_be_read_is_reported_and_left_alone(
    content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_choice(choice())
    path.write_bytes(content)
    assert saved_choice(LITE.sha256, "cpu") is None
    assert f"{path} cannot be read" in caplog.text


def test_an_unknown_backend_is_refused_with_the_names_of_those_that_exist() -> None:
    with pytest.raises(UsageError, match=r"^backend 'toy' is not known: use one of auto, onnxruntime, openvino, "):
        resolve_backend(LITE, backend="toy", precision="auto", device="cpu")


def test_every_registered_backend_can_be_imported() -> None:
    assert backend_names()[: len(BACKENDS)] == tuple(BACKENDS)
    assert all(callable(backend_class(name)) for name in BACKENDS)


class Lying:
    """A backend that computes otherwise than it was asked to."""

    name, precision, max_batch = "onnxruntime-cuda", "fp32", 1
    closed = False

    def __init__(self, *_: object, **__: object) -> None: ...

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros(len(batch), dtype=np.float32)

    def close(self) -> None:
        Lying.closed = True


def test_what_runs_is_what_was_resolved_or_nothing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "onnxruntime", f"{__name__}:Lying")
    said = r"^onnxruntime fp32 should compute lite\.onnx on cpu, but onnxruntime-cuda fp32 was loaded: use another"
    with pytest.raises(MachineError, match=said):
        open_backend(Candidate("onnxruntime", "fp32"), load_artifact("lite"), device="cpu", threads=1)
    assert Lying.closed


def test_a_backend_that_cannot_be_used_says_why() -> None:
    candidate = resolve_backend(LITE, backend="tensorrt", precision="auto", device="cpu")
    with pytest.raises(MachineError, match=r"--device cuda|NVIDIA GPU"):
        open_backend(candidate, load_artifact("lite"), device="cpu", threads=1)


@pytest.mark.parametrize(
    ("package", "name", "remedy"),
    [("openvino", "openvino", install_extra("openvino")), ("torch", "torch", install_extra("export"))],
)
def test_a_backend_whose_package_is_missing_gives_the_command_that_adds_it(
    package: str, name: str, remedy: str, home: Path
) -> None:
    """In a process of its own, in which the package cannot be imported."""
    program = f"""
import sys
sys.modules[{package!r}] = None
from deepscan.errors import MachineError
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.selection import candidates, open_backend, resolve_backend
lite = load_artifact("lite")
assert {name!r} not in [found.backend for found in candidates(lite.manifest, "cpu")]
candidate = resolve_backend(lite.manifest, backend={name!r}, precision="auto", device="cpu")
try:
    open_backend(candidate, lite, device="cpu", threads=1)
except MachineError as error:
    print(error)
"""
    environment = os.environ | {HOME_VARIABLE: str(home)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert remedy in ran.stdout
    assert ran.stdout.endswith(".\n")


def test_a_resolved_backend_runs() -> None:
    artifact = load_artifact("lite")
    candidate = resolve_backend(artifact.manifest, backend="auto", precision="auto", device="cpu")
    with closing(open_backend(candidate, artifact, device="cpu", threads=1)) as backend:
        assert (backend.name, backend.precision) == ("openvino-cpu", "fp32")
        assert backend.logits(np.zeros((1, *artifact.manifest.spec.item_shape), dtype=np.uint8)).shape == (1,)
