from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deepscan.errors import InputError
from deepscan.runtime.media.open_input import open_input
from tests.mutations import mutated

# Decodes a file and prints by how many MiB the most that lay in memory has grown; Linux forgets the peak at a "5".
GROWTH = """
import pathlib, sys
from deepscan.errors import InputError
from deepscan.runtime.media.open_input import open_input

def peak():
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024

pathlib.Path("/proc/self/clear_refs").write_text("5")
before = peak()
try:
    with open_input(sys.argv[1], threads=1) as reader:
        for _ in reader.frames():
            pass
except InputError:
    pass
print(peak() - before)
"""


@pytest.mark.parametrize("seed", [4133, 4850, 5567, 6835])
def test_a_header_that_sends_ffmpeg_to_before_the_start_is_the_fault_of_the_file(tmp_path: Path, seed: int) -> None:
    name, data = mutated(seed)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as raised, open_input(str(tmp_path / name), threads=1) as reader:
        list(reader.frames())
    assert "disk" not in str(raised.value)


@pytest.mark.parametrize("seed", [338, 4088])
def test_no_frame_over_the_limit_is_decoded_to_learn_its_size(tmp_path: Path, seed: int) -> None:
    name, data = mutated(seed)
    (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", GROWTH, str(tmp_path / name)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 100
    assert ran.stderr == ""
