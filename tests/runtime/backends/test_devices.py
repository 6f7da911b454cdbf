from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.errors import MachineError, UsageError
from deepscan.installing import gpu_runtime
from deepscan.runtime.backends import devices
from deepscan.runtime.backends.devices import Devices, parse_gpus, resolve_devices, visible_gpu
from deepscan.runtime.system.machine import Gpu, mps_runs, nvidia_gpus


@pytest.mark.parametrize(
    ("device", "kind", "gpus"),
    [
        ("auto", "auto", ()),
        ("cpu", "cpu", ()),
        ("cuda", "cuda", ()),
        ("cuda:all", "cuda", None),
        ("cuda:0", "cuda", (0,)),
        ("cuda:3,1,3", "cuda", (1, 3)),
    ],
)
def test_devices_are_requested_by_name_and_number(device: str, kind: str, gpus: tuple[int, ...] | None) -> None:
    assert parse_gpus(device) == (kind, gpus)


@pytest.mark.parametrize(
    "device", ["", "gpu", "cuda:", "cuda:-1", "cuda:0,", "cuda:0;1", "cpu:0", "auto:1", "cuda:\u0663", "0"]
)
def test_other_names_of_devices_are_wrong_usage(device: str) -> None:
    with pytest.raises(UsageError, match="is not known: use auto, cpu, cuda, cuda:all, or cuda:0,1"):
        parse_gpus(device)


@given(st.sets(st.integers(0, 99), min_size=1))
def test_what_is_shown_can_be_requested(numbers: set[int]) -> None:
    gpus = tuple(sorted(numbers))
    assert parse_gpus(f"cuda:{','.join(map(str, gpus))}") == ("cuda", gpus)


def test_devices_are_shown_as_they_are_asked_for() -> None:
    assert [str(each) for each in (Devices("cpu"), Devices("cuda", (0,)), Devices("cuda", (0, 2)))] == [
        "cpu",
        "cuda",
        "cuda:0,2",
    ]


def test_a_worker_sees_its_gpu_by_the_name_that_its_supervisor_knows_it_by() -> None:
    assert visible_gpu(1, None) == "1"
    assert visible_gpu(1, "") == "1"
    assert visible_gpu(0, "3,5") == "3"
    assert visible_gpu(1, "GPU-aaaa, GPU-bbbb") == "GPU-bbbb"


def test_the_cpu_is_always_there() -> None:
    assert resolve_devices("cpu") == Devices("cpu")


@pytest.mark.skipif(bool(nvidia_gpus()), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:all"])
def test_a_gpu_that_is_not_there_is_an_error_of_the_machine(device: str) -> None:
    with pytest.raises(MachineError, match="run `deepscan doctor`"):
        resolve_devices(device)


def test_without_onnx_runtime_for_cuda_the_commands_that_install_it_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "nvidia_gpus", lambda: [Gpu("any", 1 << 34)])
    monkeypatch.setattr(devices, "onnxruntime_has_cuda", lambda: False)
    assert resolve_devices("auto") == Devices("cpu")
    with pytest.raises(
        MachineError, match=f"finds the faces whatever the backend.*: run `{re.escape(gpu_runtime())}`, or"
    ):
        resolve_devices("cuda")


def test_a_socket_that_listens_is_a_service_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps_runs()
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as listening:
            listening.bind(str(tmp_path / "control"))
            listening.listen()
            assert mps_runs()
        assert not mps_runs()  # a daemon that ended leaves its socket
        (tmp_path / "control").unlink()


@pytest.mark.gpu
def test_a_gpu_beyond_the_last_is_an_error_that_says_how_many_there_are() -> None:
    assert resolve_devices("cuda") == Devices("cuda", (0,))
    with pytest.raises(MachineError, match=rf"names GPU 99, but CUDA sees {len(nvidia_gpus())}"):
        resolve_devices("cuda:99")
