"""Libraries of NVIDIA's packages are found in every folder of `sys.path`; here another library stands in for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

LOAD = """
from deepscan.runtime.cuda.nvidia_libraries import library_paths, load_nvidia_libraries
for path in library_paths():
    print(path)
load_nvidia_libraries()
print(open("/proc/self/maps").read())
"""


def test_libraries_in_every_folder_are_loaded_each_after_those_that_it_needs(tmp_path: Path) -> None:
    places = [
        tmp_path / "a" / "nvidia" / "cu13" / "lib" / "libcublas.so.13",
        tmp_path / "b" / "nvidia" / "cublas" / "lib" / "libcublasLt.so.12",
        tmp_path / "b" / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9",
    ]
    library = find_spec("msgspec._core")
    assert library is not None
    assert library.origin is not None
    for place in places:
        place.parent.mkdir(parents=True)
        shutil.copy(library.origin, place)
    damaged = tmp_path / "b" / "nvidia" / "cublas" / "lib" / "libcudart.so.12"
    damaged.write_bytes(b"no library")
    folders = [str(tmp_path / "a"), str(tmp_path / "b"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    ran = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True, env=environment)
    found = [line for line in ran.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert found == [str(path) for path in (damaged, places[1], places[0], places[2])]
    assert [place for place in places if f" {place}\n" not in ran.stdout] == []
