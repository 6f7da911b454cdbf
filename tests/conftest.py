from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from deepscan.options import BACKEND_VARIABLE
from deepscan.runtime.backends.sessions import PROVIDERS, available_providers
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.runtime.system.machine import nvidia_gpus
from tests.runtime.watchdog import forget_children
from tests.shared import SHARED_FOLDER

# No wall-clock limits on examples, and the same ones every time: the suite is a gate.
settings.register_profile("gate", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("gate")


def pytest_configure(config: pytest.Config) -> None:
    """Make a folder that the processes of this run share; the first of them makes it."""
    if SHARED_FOLDER in os.environ:
        return
    if config.getoption("numprocesses", None):
        # torch would take every processor in each of the processes, and its threads would spin while they wait for
        # those that have none: one crop took 18 times as much processor time.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    folder = tempfile.TemporaryDirectory(prefix="deepscan-tests-")
    os.environ[SHARED_FOLDER] = folder.name

    def forget() -> None:
        del os.environ[SHARED_FOLDER]
        folder.cleanup()

    config.add_cleanup(forget)


@pytest.fixture(scope="session", autouse=True)
def own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Weights that were added on this machine play no part, and none are added to it.

    What a scan runs on does not depend on what is measured to be faster meanwhile, unless a test asks for that.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BACKEND_VARIABLE, "onnxruntime")
        patch.setenv(HOME_VARIABLE, str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def own_children() -> None:
    """Processes that earlier tests of this process left are not counted among those of a test that counts its own."""
    forget_children()


@pytest.fixture
def workers_here() -> Iterator[None]:
    """Scans of this process have their workers in threads of it, which takes a fifth of the time."""
    from tests.runtime.worker_here import workers_in_threads

    with workers_in_threads():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a GPU where there is none, unless the environment promises one."""
    usable = nvidia_gpus() and PROVIDERS["cuda"] in available_providers()
    if usable or os.environ.get("DEEPSCAN_REQUIRE_GPU") == "1":
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU that ONNX Runtime can use here"))


# torch's compiler imports setuptools, which insists on its own distutils even where a test has loaded Python's before.
if sys.version_info < (3, 12):
    os.environ.setdefault("SETUPTOOLS_USE_DISTUTILS", "stdlib")
